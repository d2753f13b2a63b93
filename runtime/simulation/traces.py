"""Programs out of recorded traces: contexts scaled, pauses capped, conversations cut into tasks where that is asked for.

What the recordings lack is chosen here and can be set: pauses that were not measured, answers whose length is unknown. A turn's
count of new prompt tokens is honoured exactly, so an answer counts as cached only where the recording counted it so.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import ConfigurationError, InputError
from ...memory.blocks import BLOCK_TOKENS
from .chains import Stretch
from .programs import Call, Program
from .tracefile import TraceProgram, TraceTurn


@dataclass(frozen=True, slots=True)
class Shape:
    """How recorded programs become simulated ones."""

    scale: float = 1.0
    """Factor on prompt sizes, so that contexts fit the engines; answers keep their length."""
    gap_cap_s: float | None = None
    """Longest pause."""
    tasks: bool = False
    """Cut conversations at the messages of people, and where what follows is unknown: each stretch is a program of its own."""
    turns_min: int = 1
    """Shorter programs (of the main conversation, after cutting) are left out; 3 is usual with `tasks`."""
    context_max: int | None = None
    """Programs with a longer (scaled) prompt and answer are left out."""
    unknown_tool_s: float = 5.0
    unknown_user_s: float = 60.0
    unknown_output_tokens: int = 200
    share_system: bool = False
    """Whether prompts with equally long system parts begin with the same blocks in all programs."""

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 100 or self.turns_min < 1 or self.unknown_output_tokens < 1:
            raise ConfigurationError(f"scale {self.scale:g} and at least {self.turns_min} turns cannot be had")
        times = (self.gap_cap_s or 0.0, self.unknown_tool_s, self.unknown_user_s)
        if min(times) < 0:
            raise ConfigurationError(f"pauses must be 0 or more, not {min(times):g}")


CODING_TASKS = Shape(scale=0.25, gap_cap_s=300.0, tasks=True, turns_min=3, context_max=128_000)
"""Stretches of coding conversations between two messages of a person, small enough for one card's KV memory."""


def programs_of(trace: Sequence[TraceProgram], shape: Shape | None = None) -> list[Program]:
    """The programs of a trace in its order, sub-agents as part of their parents.

    A sub-agent whose parent is not in the trace, or whose stretch was left out, is left out with it (the former becomes a
    program of its own). Programs without a recorded arrival arrive at 0.
    """
    shape = shape or Shape()
    known = {program.program_id for program in trace}
    children: dict[str, list[TraceProgram]] = {}
    for program in trace:
        if program.parent_id in known and program.parent_id is not None:
            children.setdefault(program.parent_id, []).append(program)
    shared = _Shared()
    programs: list[Program] = []
    for program in trace:
        if program.parent_id not in known:
            programs.extend(_cut(program, children, shape, shared))
    return programs


def _cut(trace: TraceProgram, children: dict[str, list[TraceProgram]], shape: Shape, shared: _Shared) -> list[Program]:
    programs = []
    for number, (start, end) in enumerate(_stretches(trace, shape)):
        if end - start < shape.turns_min:
            continue
        builder = _Builder(shape, shared, children)
        builder.conversation(trace, start, end, (), "")
        if builder.longest > (shape.context_max or builder.longest):
            continue
        name = f"{trace.program_id}/{number}" if shape.tasks else trace.program_id
        programs.append(
            Program(
                name,
                tuple(builder.calls),
                arrival_s=trace.arrival_s or 0.0,
                tenant=trace.tenant,
                workflow=trace.source,
                origin=trace.origin,
            )
        )
    return programs


def _stretches(trace: TraceProgram, shape: Shape) -> list[tuple[int, int]]:
    if not shape.tasks:
        return [(0, len(trace.turns))]
    cuts = [index + 1 for index, turn in enumerate(trace.turns) if turn.gap_kind in ("user", "end", None)]
    edges = [0, *(cut for cut in cuts if cut < len(trace.turns)), len(trace.turns)]
    return list(itertools.pairwise(edges))


@dataclass(slots=True)
class _Shared:
    """Labels of blocks that programs have in common: -1, -2, ..."""

    labels: dict[tuple[str, int], int] = field(default_factory=dict)

    def label(self, kind: str, number: int) -> int:
        return self.labels.setdefault((kind, number), -1 - len(self.labels))


@dataclass(slots=True)
class _Builder:
    shape: Shape
    shared: _Shared
    children: dict[str, list[TraceProgram]]
    calls: list[Call] = field(default_factory=list)
    labels: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer."""
        return max(call.prompt_tokens + call.output_tokens for call in self.calls)

    def conversation(self, trace: TraceProgram, start: int, end: int, needs: tuple[int, ...], agent: str) -> int:
        """Append the turns of one conversation and of its sub-agents; the position of its last call."""
        prefix: tuple[Stretch, ...] = ()
        before: TraceTurn | None = None
        gap_s, last = 0.0, -1
        for index in range(start, end):
            turn = trace.turns[index]
            prompt = self._scaled(turn.prompt_tokens)
            prefix = self._prefix(trace, turn, before, prefix)
            output = turn.output_tokens if turn.output_tokens is not None else self.shape.unknown_output_tokens
            last = len(self.calls)
            self.calls.append(
                Call(prompt, max(1, output), needs, gap_s, prefix, output_kept=False, agent=agent, tool=turn.tool)
            )
            ends = self._subagents(trace, index, last, agent)
            needs, before = (last, *ends), turn
            gap_s = 0.0 if ends else self._gap(trace, index)
        return last

    def _subagents(self, trace: TraceProgram, index: int, position: int, agent: str) -> tuple[int, ...]:
        """The sub-agents that began after this turn; the conversation goes on when they have ended."""
        ends = []
        for number, child in enumerate(self.children.get(trace.program_id, ())):
            if max(child.parent_turn, 0) == index:
                name = f"{agent}/{number}" if agent else f"agent-{number}"
                ends.append(self.conversation(child, 0, len(child.turns), (position,), name))
        return tuple(ends)

    def _scaled(self, tokens: int) -> int:
        return max(1, round(tokens * self.shape.scale))

    def _prefix(
        self, trace: TraceProgram, turn: TraceTurn, before: TraceTurn | None, prefix: tuple[Stretch, ...]
    ) -> tuple[Stretch, ...]:
        if trace.blocks_compare and trace.block_tokens and turn.runs:
            return self._recorded_blocks(trace, turn, trace.block_tokens)
        if before is None:
            own = Stretch(0, self._new_label())
            system = self._scaled(trace.system_tokens) // BLOCK_TOKENS
            if not self.shape.share_system or system == 0:
                return (own,)
            return (Stretch(system, self.shared.label("system", trace.system_tokens)), own)
        kept = self._kept(trace, turn, before)
        if kept is None:
            return prefix
        # The prompts part here: what came before stays, what follows is new.
        stretches = []
        for stretch in prefix[:-1]:
            if stretch.end >= kept:
                stretches.append(Stretch(kept, stretch.label))
                break
            stretches.append(stretch)
        else:
            stretches.append(Stretch(kept, prefix[-1].label))
        return (*(s for s in stretches if s.end > 0), Stretch(0, self._new_label()))

    def _kept(self, trace: TraceProgram, turn: TraceTurn, before: TraceTurn) -> int | None:
        """Blocks of the previous prompt that this one begins with; None if it simply goes on."""
        if turn.new_prompt_tokens is None:
            return None if turn.prompt_tokens >= before.prompt_tokens else self._scaled(turn.prompt_tokens) // BLOCK_TOKENS
        kept = turn.prompt_tokens - turn.new_prompt_tokens
        whole = before.prompt_tokens - before.prompt_tokens % (trace.block_tokens or BLOCK_TOKENS)
        return None if kept >= whole else int(kept * self.shape.scale) // BLOCK_TOKENS

    def _recorded_blocks(self, trace: TraceProgram, turn: TraceTurn, block_tokens: int) -> tuple[Stretch, ...]:
        ours_per_theirs = block_tokens * self.shape.scale / BLOCK_TOKENS
        stretches, position = [], 0
        for first, count in turn.runs:
            # Equal ids at equal places mean equal prefixes, and in a run both go up by one.
            label = self.shared.label(trace.source, first - position)
            position += count
            stretches.append(Stretch(int(position * ours_per_theirs), label))
        return tuple(stretches)

    def _new_label(self) -> int:
        self.labels += 1
        return self.labels - 1

    def _gap(self, trace: TraceProgram, index: int) -> float:
        gap = self._recorded_gap(trace, index)
        cap = self.shape.gap_cap_s
        return gap if cap is None else min(gap, cap)

    def _recorded_gap(self, trace: TraceProgram, index: int) -> float:
        turn = trace.turns[index]
        if turn.gap_kind == "user" and turn.user_s is not None:
            return turn.user_s
        if turn.tool_s is not None:
            return turn.tool_s
        after = trace.turns[index + 1] if index + 1 < len(trace.turns) else None
        if after is not None and turn.started_s is not None and after.started_s is not None:
            # Where the answer's own time was not recorded either, the pause is a little too long.
            return max(0.0, after.started_s - turn.started_s - (turn.api_s or 0.0))
        return self.shape.unknown_user_s if turn.gap_kind == "user" else self.shape.unknown_tool_s


def sampled(programs: Sequence[Program], count: int, rng: random.Random) -> list[Program]:
    """`count` programs, each at most once while there are enough, in random order."""
    if count < 1:
        raise InputError(f"at least 1 program must be chosen, not {count}")
    chosen: list[Program] = []
    while len(chosen) < count:
        chosen.extend(rng.sample(programs, min(len(programs), count - len(chosen))))
    return chosen
