"""The interface of a scheduler: events in, decisions out. Pure: no clock, no I/O, no random numbers of its own.

The same object runs in production, behind the dispatcher, and in the simulator, behind its event loop. Times are seconds of
a clock that never goes back; tokens are counts; unknown is None, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class EngineAdded:
    """An engine takes calls from now on."""

    engine: str
    in_flight_max: int
    """Calls it takes at once, at most."""
    kv_tokens: int | None = None
    """Size of its KV cache; None if that is not known."""
    prefill_tokens_per_s: float | None = None
    decode_s_per_token: float | None = None
    pins: bool = False
    """Whether it keeps a prefix that it is asked to keep."""
    priority: bool = False
    """Whether it obeys a priority on a call."""
    values: bool = False
    """Whether it chooses the prefixes that it forgets by their value (`Keep`); no unmodified engine does."""
    learns_kv: bool = False
    """Whether an unknown size is to be learned from its answers and reports. Otherwise memory does not limit what is sent:
    right for hosted APIs, whose caches have nothing to do with ours."""


@dataclass(frozen=True, slots=True)
class EngineLost:
    """An engine takes no more calls; its calls end by `CallEnded`, and what its cache held is gone."""

    engine: str


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What an engine says of itself."""

    engine: str
    kv_usage: float | None = None
    """Share of its KV cache that running calls hold, 0 to 1."""
    running: int | None = None
    waiting: int | None = None
    preemptions: int | None = None
    """Since it started."""


@dataclass(frozen=True, slots=True)
class ProgramArrived:
    """A root program will make calls. One that is never announced arrives with its first call."""

    program_id: str
    tenant: str = "default"
    weight: float = 1.0
    """Share of the tenant's service among its programs."""
    workflow: str = ""
    """What kind of program it is: what is learned from one helps to predict the others."""
    deadline: float | None = None
    """When it should have ended."""
    steps_known: int | None = None
    """Calls of its longest path, where its graph is declared."""


@dataclass(frozen=True, slots=True)
class TenantChanged:
    """A tenant's share of the service; 1 unless said otherwise."""

    tenant: str
    weight: float


@dataclass(frozen=True, slots=True)
class CallReady:
    """A program has a call to make."""

    call_id: int
    program_id: str
    """The root program: sub-agents are scheduled with their root and charged to it."""
    tenant: str = "default"
    agent: str = ""
    """Who inside the program asks: each agent has a prefix of its own (a child program, a step)."""
    step: str = ""
    """Class of the call, for learning: the declared name of its step."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    """Expected, where known."""
    steps_left: int | None = None
    """Calls from here to the end of the program along its longest path, where its graph is declared."""
    siblings: int = 0
    """Other calls of the same program that wait for the same join."""


@dataclass(frozen=True, slots=True)
class CallFirstToken:
    """The first token of a call has come."""

    call_id: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call has left its engine, or was given up while it waited."""

    call_id: int
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    tool: str = ""
    """First tool that the answer asks for; empty if none or not known."""


@dataclass(frozen=True, slots=True)
class ProgramEnded:
    """A root program will make no more calls."""

    program_id: str


Event: TypeAlias = (
    EngineAdded
    | EngineLost
    | EngineReport
    | TenantChanged
    | ProgramArrived
    | CallReady
    | CallFirstToken
    | CallEnded
    | ProgramEnded
)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send this call to this engine now."""

    call_id: int
    engine: str
    priority: float = 0.0
    """For engines that obey one: 0 is the most urgent, 1 the least."""
    pin_s: float = 0.0
    """How long the engine should keep the prefix of this call after its end, where it can."""


@dataclass(frozen=True, slots=True)
class Touch:
    """Send a one-token request with the prefix of an agent's last call, so that the engine does not forget it."""

    engine: str
    program_id: str
    agent: str


@dataclass(frozen=True, slots=True)
class Release:
    """Tell the engine that the prefix of an agent will not be asked for again."""

    engine: str
    program_id: str
    agent: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Tell an engine that chooses its victims by value what the prefix of an agent is worth.

    Prefixes that nobody uses are forgotten smallest value first, and least recently used first among equals.
    """

    engine: str
    program_id: str
    agent: str
    value: float


Decision: TypeAlias = Dispatch | Touch | Release | Keep


@dataclass(frozen=True, slots=True)
class Why:
    """Why a call waits."""

    rule: str
    """`in flight`, `place`, `memory`, `fairness`, `order`, or `unknown call`."""
    text: str
    """For a person."""
    position: int | None = None
    """Calls that go before it."""
    facts: Mapping[str, float | str] | None = None
    """Tags and quantities that the rule looks at."""


class Scheduler(Protocol):
    """Decides when and where calls go. Deterministic: the same events at the same times give the same decisions."""

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Take one event; `now` never goes back."""

    def next_wakeup(self) -> float | None:
        """When a decision may become due without an event (then `wake` is called); None if never."""

    def wake(self, now: float) -> list[Decision]:
        """Take the decisions that time alone has made due."""

    def explain(self, call_id: int, now: float) -> Why:
        """Why a waiting call waits."""
