"""The least that a run's caches could have computed again: the exact linear program over reuse intervals.

The run's own schedule is taken as given. Between two calls of one agent on one engine, what both prompts begin with may stay or
go; staying saves prefill seconds and takes blocks. Which stays, block by block, is an interval scheduling problem whose linear
program is exact when all blocks of one interval save equally, as is assumed here; savings that grow with position make it a
lower bound still. An agent that changes engines saves nothing in this schedule, and the bound says nothing of better schedules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ...memory.blocks import BLOCK_TOKENS, block_count
from .costs import prefill_s
from .engines import EngineSpec
from .programs import shared_blocks
from .record import CallRun, Run
from .solver import Rows, minimise


@dataclass(frozen=True, slots=True)
class Interval:
    """What one prefix would take between two uses, and save."""

    start: float
    end: float
    blocks: int
    saved_s: float


@dataclass(frozen=True, slots=True)
class CacheCost:
    """Prefill seconds of a run, and the least with the same schedule and memory; first computations count in both."""

    spent_s: float
    least_s: float

    @property
    def ratio(self) -> float:
        """Spent over least; 1 is optimal."""
        return self.spent_s / self.least_s if self.least_s else 1.0


def cache_cost(run: Run, engines: Sequence[EngineSpec]) -> CacheCost:
    """Compare what the caches of a run did with the best that they could have done. Needs scipy."""
    by_engine: defaultdict[str, list[CallRun]] = defaultdict(list)
    for call in run.calls:
        if call.ended_at is not None:
            by_engine[call.engine].append(call)
    spent = least = 0.0
    for engine in engines:
        calls = sorted(by_engine[engine.name], key=lambda call: (call.admitted_at or 0.0, call.call_id))
        profile = engine.profile
        spent += sum(prefill_s(profile, call.prompt_tokens - call.cached_tokens, call.prompt_tokens) for call in calls)
        cold = sum(prefill_s(profile, call.prompt_tokens, call.prompt_tokens) for call in calls)
        capacity = (engine.kv_tokens or profile.kv_tokens) // BLOCK_TOKENS
        least += cold - most_saved(_intervals(calls, engine), _in_use(calls), capacity)
    return CacheCost(spent, least)


def _intervals(calls: Sequence[CallRun], engine: EngineSpec) -> list[Interval]:
    last: dict[tuple[str, str], CallRun] = {}
    found = []
    for call in calls:
        own = call.program.program.calls[call.position]
        before = last.get((call.program.program_id, own.agent))
        last[call.program.program_id, own.agent] = call
        if before is None or before.ended_at is None or call.admitted_at is None:
            continue
        blocks = shared_blocks(own, call.program.program.calls[before.position])
        if blocks and call.admitted_at > before.ended_at:
            prompt = call.prompt_tokens
            rest = prefill_s(engine.profile, prompt - blocks * BLOCK_TOKENS, prompt)
            saved = prefill_s(engine.profile, prompt, prompt) - rest
            found.append(Interval(before.ended_at, call.admitted_at, blocks, saved))
    return found


def _in_use(calls: Sequence[CallRun]) -> list[tuple[float, float, int]]:
    """(from, to, blocks) that running calls hold at the least: their prompts."""
    return [
        (call.admitted_at, call.ended_at, block_count(call.prompt_tokens))
        for call in calls
        if call.admitted_at is not None and call.ended_at is not None
    ]


def most_saved(intervals: Sequence[Interval], in_use: Sequence[tuple[float, float, int]], capacity: int) -> float:
    """Seconds that can be saved at most with `capacity` blocks, of which running calls take some.

    Two intervals over the same time, 10 blocks and 1 s each, and room for 15 blocks: 1.5.
    """
    if not intervals:
        return 0.0
    # (time, order, blocks in use, interval): at one moment whatever goes, goes first.
    changes = [(interval.end, 0, 0, index) for index, interval in enumerate(intervals)]
    changes.extend((end, 0, -blocks, -1) for _, end, blocks in in_use)
    changes.extend((interval.start, 1, 0, index) for index, interval in enumerate(intervals))
    changes.extend((start, 1, blocks, -1) for start, _, blocks in in_use)
    rows, kept, used, grown = Rows.none(), set[int](), 0, False
    for _, grows, blocks, index in sorted(changes):
        if grown and not grows:
            # Since the last row everything has only grown: this moment is the tightest.
            _limit(rows, intervals, kept, capacity - used)
        grown = bool(grows)
        used += blocks
        if index >= 0 and grows:
            kept.add(index)
        elif index >= 0:
            kept.discard(index)
    costs = [-interval.saved_s for interval in intervals]
    return -minimise(costs, rows, [(0.0, 1.0)] * len(intervals)).value


def _limit(rows: Rows, intervals: Sequence[Interval], kept: set[int], room: int) -> None:
    columns = sorted(kept)
    blocks = [float(intervals[index].blocks) for index in columns]
    if sum(blocks) > room:
        rows.add(columns, blocks, float(max(0, room)))
