"""What a simulated program does: calls with sizes, what each waits for, and the pauses between them. Plain data.

A program is a graph of calls: one conversation is a chain of them, a sub-agent is a branch, a join is a call that needs several
others. Times are seconds, sizes are tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...errors import InputError
from ...memory.blocks import BLOCK_TOKENS
from .chains import Stretch


@dataclass(frozen=True, slots=True)
class Call:
    """One model call."""

    prompt_tokens: int
    output_tokens: int
    needs: tuple[int, ...] = ()
    """Positions of the earlier calls of the program that must have ended."""
    gap_s: float = 0.0
    """From the end of the last of them (or the program's arrival) until this call is made: tools, people, code."""
    prefix: tuple[Stretch, ...] = (Stretch(0, 0),)
    """Which blocks the prompt and the output consist of; the last stretch goes on to the end."""
    output_kept: bool = True
    """Whether later prompts go on from the output; if not, a cache keeps only the prompt."""
    agent: str = ""
    """Who inside the program asks: each has a prefix of its own."""
    step: str = ""
    tool: str = ""
    """First tool that the answer asks for; empty if none or not known."""

    @property
    def chain_blocks(self) -> int:
        """Full blocks that the call leaves behind for others to find."""
        return (self.prompt_tokens + (self.output_tokens if self.output_kept else 0)) // BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Program:
    """One root program with its sub-agents."""

    name: str
    calls: tuple[Call, ...]
    arrival_s: float = 0.0
    """In an open loop; a closed loop decides itself."""
    tenant: str = "default"
    weight: float = 1.0
    workflow: str = ""
    deadline_s: float | None = None
    """After its arrival."""
    declared: bool = False
    """Whether the scheduler is told the graph when the program arrives."""
    origin: str = ""
    """Where it was read from, for error messages: `FILE:LINE`."""

    def __post_init__(self) -> None:
        where = self.origin or f"program {self.name!r}"
        if not self.calls:
            raise InputError(f"{where}: turns: a program needs at least one call")
        _positive(where, "arrival_s", self.arrival_s, zero=True)
        _positive(where, "weight", self.weight)
        if self.deadline_s is not None:
            _positive(where, "deadline_s", self.deadline_s)
        for position, call in enumerate(self.calls):
            _check(call, position, where)

    @property
    def labels(self) -> int:
        """How many labels of its own its prefixes use."""
        return 1 + max((stretch.label for call in self.calls for stretch in call.prefix), default=0)


def _check(call: Call, position: int, where: str) -> None:
    here = f"{where}: turns[{position}]"
    if call.prompt_tokens < 1 or call.output_tokens < 1:
        raise InputError(f"{here}: prompt_tokens and output_tokens must be at least 1")
    _positive(here, "gap", call.gap_s, zero=True)
    if not call.prefix:
        raise InputError(f"{here}: prefix: at least one stretch is needed")
    if any(not 0 <= need < position for need in call.needs):
        raise InputError(f"{here}: needs: a call can only wait for earlier calls, not {call.needs}")


def _positive(where: str, field_name: str, value: float, *, zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InputError(f"{where}: {field_name}: must be {'0 or more' if zero else 'above 0'}, not {value:g}")


@dataclass(frozen=True, slots=True)
class Workload:
    """Programs, and how they arrive.

    Open loop: each at its `arrival_s`. Closed loop: `concurrency` of them are active; when one ends the next begins. With
    `horizon_s` as well, the list is gone through again and again until that time (replenished load); what is active then
    still ends.
    """

    programs: tuple[Program, ...]
    concurrency: int | None = None
    horizon_s: float | None = None
    tenants: Mapping[str, float] = field(default_factory=dict)
    """Weights; 1 for a tenant that is not named."""
    name: str = ""

    def __post_init__(self) -> None:
        if not self.programs:
            raise InputError(f"workload {self.name!r}: there are no programs in it")
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"workload {self.name!r}: concurrency: must be at least 1, not {self.concurrency}")
        if self.horizon_s is not None:
            _positive(f"workload {self.name!r}", "horizon_s", self.horizon_s)
            if self.concurrency is None:
                raise InputError(f"workload {self.name!r}: horizon_s: only a closed loop (concurrency) can be replenished")
        for tenant, weight in self.tenants.items():
            _positive(f"workload {self.name!r}", f"weight of tenant {tenant!r}", weight)

    def arriving(self, times: list[float]) -> Workload:
        """The same programs in an open loop with these arrival times."""
        if len(times) != len(self.programs):
            raise InputError(f"{len(times)} arrival times for {len(self.programs)} programs")
        timed = (replace(program, arrival_s=at) for program, at in zip(self.programs, times, strict=True))
        return replace(self, programs=tuple(timed), concurrency=None, horizon_s=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be worked out of a program's graph once."""

    dependents: tuple[tuple[int, ...], ...]
    """By call: the calls that wait for it."""
    steps_left: tuple[int, ...]
    """By call: calls from here to the end along the longest path, itself included."""
    siblings: tuple[int, ...]
    """By call: other calls that the same join waits for."""
    new_tokens: tuple[int, ...]
    """By call: prompt tokens that no earlier call of the program left behind; at least 1."""
    labels: int


def plan(program: Program) -> Plan:
    """Dependents, distances and joins of a program's calls."""
    calls = program.calls
    dependents: list[list[int]] = [[] for _ in calls]
    for position, call in enumerate(calls):
        for need in call.needs:
            dependents[need].append(position)
    steps_left = [1] * len(calls)
    siblings = [0] * len(calls)
    for position in range(len(calls) - 1, -1, -1):
        for after in dependents[position]:
            steps_left[position] = max(steps_left[position], 1 + steps_left[after])
            siblings[position] = max(siblings[position], len(calls[after].needs) - 1)
    return Plan(tuple(map(tuple, dependents)), tuple(steps_left), tuple(siblings), tuple(_new_tokens(calls)), program.labels)


def _new_tokens(calls: tuple[Call, ...]) -> list[int]:
    # By label of the first block: earlier calls, without those whose blocks a later one has all of.
    earlier: dict[int, list[Call]] = {}
    new = []
    for call in calls:
        others = earlier.setdefault(call.prefix[0].label, [])
        known = max((shared_blocks(call, other) for other in others), default=0) * BLOCK_TOKENS
        new.append(max(1, call.prompt_tokens - known))
        while others and _common(call, _left_behind(call), others[-1], _left_behind(others[-1])) == _left_behind(others[-1]):
            others.pop()
        others.append(call)
    return new


def shared_blocks(call: Call, earlier: Call) -> int:
    """Blocks at the start of a call's prompt that an earlier call of the same program left in a cache."""
    return _common(call, (call.prompt_tokens - 1) // BLOCK_TOKENS, earlier, _left_behind(earlier))


def _left_behind(call: Call) -> int:
    # The last token of an answer is never read back, so a block that ends with it is not complete.
    return min(call.chain_blocks, (call.prompt_tokens + call.output_tokens - 1) // BLOCK_TOKENS)


def _common(call: Call, length: int, other: Call, other_length: int) -> int:
    """Blocks that the first `length` of one call's chain and the first `other_length` of the other's begin with alike."""
    depth = 0
    for mine, theirs in zip(call.prefix, other.prefix, strict=False):
        if mine.label != theirs.label:
            break
        my_end = length if mine is call.prefix[-1] else min(mine.end, length)
        their_end = other_length if theirs is other.prefix[-1] else min(theirs.end, other_length)
        depth = min(my_end, their_end)
        if my_end != their_end:
            break
    return depth
