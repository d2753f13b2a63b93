"""What a run leaves behind: one line per call and per program, on the virtual clock. Facts only; `results` adds them up."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from .programs import Plan, Program, Workload


@dataclass(slots=True)
class CallRun:
    """One call as it went. Times are None until they happen."""

    call_id: int
    program: ProgramRun
    position: int
    """Of the call in its program."""
    ready_at: float
    engine: str = ""
    dispatched_at: float | None = None
    admitted_at: float | None = None
    """When the engine took it from its own queue."""
    first_token_at: float | None = None
    ended_at: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0
    sent: int = 0
    """Times it was sent to an engine: more than once if engines were lost."""

    @property
    def prompt_tokens(self) -> int:
        return self.program.program.calls[self.position].prompt_tokens

    @property
    def first(self) -> bool:
        """Whether the program began with it."""
        return not self.program.program.calls[self.position].needs

    @property
    def new_tokens(self) -> int:
        """Prompt tokens that no earlier call of its agent had."""
        return self.program.plan.new_tokens[self.position]

    @property
    def output_tokens(self) -> int:
        return self.program.program.calls[self.position].output_tokens


@dataclass(slots=True)
class ProgramRun:
    """One program as it went."""

    program_id: str
    program: Program
    plan: Plan
    arrived_at: float
    first_label: int
    waiting_for: list[int]
    """By call: how many of its needs have not ended."""
    ended: list[bool]
    """By call."""
    open: int
    """Calls that have not ended."""
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class EngineTotals:
    """Counters of one engine at the end."""

    engine: str
    prompt_tokens: int
    hit_tokens: int
    reloaded_tokens: int
    generated_tokens: int
    preemptions: int
    iterations: int


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation."""

    workload: Workload
    programs: list[ProgramRun]
    calls: list[CallRun]
    engines: list[EngineTotals]
    ended_at: float
    channels: frozenset[str]
    """What the run needs beyond a proxy and an unmodified engine: `foresight`, `victims`, `pins`."""
    touches: int
    releases: int
    meters: Mapping[str, float]
    """What the scheduler measured of itself (its service lag, the bound that it promises), where it does."""
    decisions_ns: array[int] = field(default_factory=lambda: array("q"))
    """Real time of each `handle` and `wake`, if it was measured."""
