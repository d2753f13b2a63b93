"""Lower bounds on mean completion time: no scheduler, however clever, does better on these engines.

Standard relaxations. *Path*: each program alone with a perfect cache. *Compute* and *memory*: all engines as one preemptive
server that works on the least that each program needs (seconds at the best batching; KV token-seconds), shortest remaining
first, pauses and order ignored. *LP*: path and load together, by mean busy times (every violated set of programs found is a
cut, and any subset of cuts is a bound). Closed loops are bounded for the arrivals that the run had.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...memory.blocks import BLOCK_TOKENS
from ..engines.embedded.hardware import Profile
from .costs import alone_s, prefill_s, shared_s
from .engines import EngineSpec
from .programs import Call, Program, plan
from .record import Run
from .solver import Rows, minimise

LP_PROGRAMS_MAX = 1_000
"""Larger runs get no LP bound: its cuts are found by looking at all pairs of arrival and order."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Mean completion, in seconds, below which nothing can come."""

    path: float
    compute: float
    memory: float
    lp: float | None = None
    """None if it was not asked for, or is too large."""

    @property
    def best(self) -> float:
        """The strongest of them."""
        return max(self.path, self.compute, self.memory, self.lp or 0.0)


@dataclass(frozen=True, slots=True)
class Job:
    """The least that one program needs."""

    released_at: float
    path_s: float
    compute_s: float
    """Engine-seconds."""
    memory: float
    """KV token-seconds."""


def lower_bounds(run: Run, engines: Sequence[EngineSpec], *, exact: bool = False) -> Bounds:
    """The bounds for the programs and arrivals of a run. `exact` adds the LP, which needs scipy."""
    jobs = jobs_of(run, engines)
    kv_tokens = sum(engine.kv_tokens or engine.profile.kv_tokens for engine in engines)
    compute = [(job.released_at, job.compute_s / len(engines)) for job in jobs]
    memory = [(job.released_at, job.memory / kv_tokens) for job in jobs]
    lp = None
    if exact and len(jobs) <= LP_PROGRAMS_MAX:
        lp = max(lp_bound(jobs, [work for _, work in works]) for works in (compute, memory))
    return Bounds(math.fsum(job.path_s for job in jobs) / len(jobs), srpt_mean(compute), srpt_mean(memory), lp)


def jobs_of(run: Run, engines: Sequence[EngineSpec]) -> list[Job]:
    """Each program's least needs on the quickest engine; what several programs have in common is taken as free."""
    distinct = {id(program.program): program.program for program in run.programs}
    shared = _common_blocks(distinct.values())
    profiles = {engine.profile.name: engine.profile for engine in engines}.values()
    needs = {key: _needs(program, profiles, shared) for key, program in distinct.items()}
    return [Job(program.arrived_at, *needs[id(program.program)]) for program in run.programs]


def _common_blocks(programs: Iterable[Program]) -> dict[int, int]:
    """By label: blocks that at least two programs have, counted to their end."""
    ends: dict[int, list[int]] = {}
    for program in programs:
        mine: Counter[int] = Counter()
        for call in program.calls:
            for position, stretch in enumerate(call.prefix):
                if stretch.label < 0:
                    end = call.chain_blocks if position == len(call.prefix) - 1 else stretch.end
                    mine[stretch.label] = max(mine[stretch.label], end)
        for label, end in mine.items():
            ends.setdefault(label, []).append(end)
    return {label: sorted(found)[-2] for label, found in ends.items() if len(found) > 1}


def _free_tokens(call: Call, shared: dict[int, int]) -> int:
    """Prompt tokens that another program may have computed."""
    tokens = start = 0
    for position, stretch in enumerate(call.prefix):
        end = call.chain_blocks if position == len(call.prefix) - 1 else stretch.end
        if stretch.label < 0:
            tokens += max(0, min(end, shared.get(stretch.label, 0)) - start) * BLOCK_TOKENS
        start = end
    return min(tokens, call.prompt_tokens - 1)


def _needs(program: Program, profiles: Iterable[Profile], shared: dict[int, int]) -> tuple[float, float, float]:
    facts = plan(program)
    done = [0.0] * len(program.calls)
    compute = memory = 0.0
    for position, call in enumerate(program.calls):
        free = _free_tokens(call, shared)
        new = max(1, min(facts.new_tokens[position], call.prompt_tokens - free))
        alone = min(alone_s(profile, new, call.prompt_tokens, call.output_tokens) for profile in profiles)
        done[position] = max((done[need] for need in call.needs), default=0.0) + call.gap_s + alone
        compute += min(shared_s(profile, new, call.prompt_tokens, call.output_tokens) for profile in profiles)
        reading = min(prefill_s(profile, new, call.prompt_tokens) for profile in profiles)
        held = call.prompt_tokens - free
        memory += (held - new / 2) * reading if held > new / 2 else 0.0
        memory += (held + call.output_tokens / 2) * max(0.0, alone - reading)
    return max(done), compute, memory


def srpt_mean(jobs: Iterable[tuple[float, float]]) -> float:
    """Mean flow time of (release, work) on one preemptive server of rate 1, shortest remaining first.

    ((0, 2), (1, 1)) -> 2.0: the second is as short as what is left of the first.
    """
    ordered = sorted(jobs)
    remaining: list[tuple[float, float]] = []
    now = flow = 0.0
    for index, (released, work) in enumerate(ordered):
        now = max(now, released)
        heapq.heappush(remaining, (work, released))
        until = ordered[index + 1][0] if index + 1 < len(ordered) else math.inf
        while remaining and now < until:
            left, since = heapq.heappop(remaining)
            if now + left <= until:
                now += left
                flow += now - since
            else:
                heapq.heappush(remaining, (left - (until - now), since))
                now = until
    return flow / len(ordered) if ordered else 0.0


def lp_bound(jobs: Sequence[Job], works: Sequence[float], rounds: int = 40) -> float:
    """Path and load together, by cutting planes over mean busy times. `works`: seconds of one server of rate 1."""
    count = len(jobs)
    costs = [1.0 / count] * count + [0.0] * count
    rows = Rows.none()
    for j, (job, work) in enumerate(zip(jobs, works, strict=True)):
        rows.add((j,), (-1.0,), -(job.released_at + max(job.path_s, work)))
        rows.add((j, count + j), (-1.0, 1.0), -work / 2)
    bounds: list[tuple[float, float | None]] = [(0.0, None)] * count
    bounds.extend((job.released_at + work / 2, None) for job, work in zip(jobs, works, strict=True))
    releases = math.fsum(job.released_at for job in jobs) / count
    value = 0.0
    for _ in range(rounds):
        solution = minimise(costs, rows, bounds)
        gained = solution.value - releases - value
        value = max(value, solution.value - releases)
        added = _add_cuts(jobs, works, solution.variables[count:], rows)
        if not added or (value and gained < 1e-4 * value):
            break
    return value


def _add_cuts(jobs: Sequence[Job], works: Sequence[float], busy: Sequence[float], rows: Rows) -> int:
    """For each earliest release the most violated set `released then or later, busy before`: sum(p M) >= p(S)(r + p(S)/2)."""
    order = sorted(range(len(jobs)), key=lambda j: busy[j])
    starts = sorted({job.released_at for job in jobs})
    added = 0
    for start in starts[:: max(1, len(starts) // 200)]:
        total = weighted = worst = 0.0
        members: list[int] = []
        best: list[int] = []
        for j in order:
            if jobs[j].released_at < start or works[j] <= 0:
                continue
            members.append(j)
            total += works[j]
            weighted += works[j] * busy[j]
            missing = (total * (start + total / 2) - weighted) / total
            if missing > worst:
                worst, best = missing, members.copy()
        if worst > 1e-6 * max(1.0, start):
            size = math.fsum(works[j] for j in best)
            columns = [len(jobs) + j for j in best]
            rows.add(columns, [-works[j] / size for j in best], -(start + size / 2))
            added += 1
    return added
