"""The workloads W1 to W8 by seed. Each is a plain function, so that other processes can call it too.

The loads of W1 are set where the vLLM-like baseline with affinity stands at about 3.5 times the path bound (SAGA's own figure
for it); those of W5 where it begins to thrash. Contexts of W3 are scaled by 0.25, of W5 by 0.4 (as Continuum did).
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.scheduling.sample import TRACES
from fairlead.runtime.engines.embedded.hardware import PROFILES
from fairlead.runtime.simulation.costs import alone_s
from fairlead.runtime.simulation.programs import Program, Workload, plan
from fairlead.runtime.simulation.tracefile import find_trace, read_trace
from fairlead.runtime.simulation.traces import CODING_TASKS, Shape, programs_of, sampled
from fairlead.runtime.simulation.workloads import (
    CONTINUUM_BFCL,
    CONTINUUM_SWE,
    SAGA_SWE,
    SAGA_WEB,
    Agents,
    Statistics,
    adversary,
    agents,
    by_statistics,
    known_graphs,
    poisson,
    replenished,
    ten_tenants,
)

LARGE = "70b-tp4-a100"
SMALL = "8b-a100"
LARGE_KV = 420_000


def trace_folders() -> list[Path]:
    """Where traces are looked for: FAIRLEAD_TRACES (several, as in PATH), then the samples of this repository."""
    named = os.environ.get("FAIRLEAD_TRACES", "")
    return [*(Path(folder) for folder in named.split(os.pathsep) if folder), TRACES]


@cache
def coding_tasks() -> tuple[Program, ...]:
    """The tasks of coding_agents: stretches between two messages of a person."""
    return tuple(programs_of(read_trace(find_trace("coding_agents", trace_folders())), CODING_TASKS))


def _arriving(programs: list[Program], per_s: float, rng: random.Random) -> Workload:
    return Workload(tuple(programs)).arriving(poisson(len(programs), per_s, rng))


def _saga(kind: Agents, count: int, per_s: float, seed: int) -> Workload:
    rng = random.Random(seed)
    return _arriving(agents(kind, count, rng), per_s, rng)


def w1_swe(seed: int, *, count: int = 650, per_s: float = 1.4) -> Workload:
    return _saga(SAGA_SWE, count, per_s, seed)


def w1_web(seed: int, *, count: int = 812, per_s: float = 2.5) -> Workload:
    return _saga(SAGA_WEB, count, per_s, seed)


def w2(seed: int, *, minutes: float = 10.0, rate: float = 0.5) -> Workload:
    """Deadline: 1.5 times the expected time, which is 1.5 times the program's time alone (SAGA's own ratio)."""
    return ten_tenants(minutes, random.Random(seed), rate=rate, expected_s=_expected_s)


def _expected_s(program: Program) -> float:
    profile, facts = PROFILES[LARGE], plan(program)
    alone = (
        alone_s(profile, facts.new_tokens[position], call.prompt_tokens, call.output_tokens) + call.gap_s
        for position, call in enumerate(program.calls)
    )
    return 1.5 * sum(alone)


def w3(seed: int, *, count: int = 250, per_s: float = 0.022) -> Workload:
    rng = random.Random(seed)
    return _arriving(sampled(coding_tasks(), count, rng), per_s, rng)


def w3_at_once(seed: int, *, count: int = 128) -> Workload:
    return Workload(tuple(sampled(coding_tasks(), count, random.Random(seed))))


def w3_closed(seed: int, *, count: int = 250, concurrency: int = 64) -> Workload:
    return Workload(tuple(sampled(coding_tasks(), count, random.Random(seed))), concurrency=concurrency)


def w4(seed: int, *, share: float = 1.0) -> Workload:
    """The recorded arrivals; the seed chooses which part of the hour."""
    trace = find_trace("mooncake_conversation", trace_folders())
    programs = programs_of(read_trace(trace), Shape(context_max=100_000, gap_cap_s=300.0))
    length = max(program.arrival_s for program in programs) * share
    start = random.Random(seed).uniform(0, length * (1 / share - 1))
    chosen = [replace(p, arrival_s=p.arrival_s - start) for p in programs if start <= p.arrival_s <= start + length]
    return Workload(tuple(chosen), name="mooncake_conversation")


def _statistics(kind: Statistics, count: int, per_s: float, seed: int) -> Workload:
    rng = random.Random(seed)
    return _arriving(by_statistics(kind, count, rng, scale=0.4), per_s, rng)


def w5_swe(seed: int, *, count: int = 100, per_s: float = 0.18) -> Workload:
    return _statistics(CONTINUUM_SWE, count, per_s, seed)


def w5_bfcl(seed: int, *, count: int = 100, per_s: float = 0.16) -> Workload:
    return _statistics(CONTINUUM_BFCL, count, per_s, seed)


def w6_one(seed: int, *, programs: int = 20) -> Workload:
    """One program at a time, long fixed prompts (8,192 tokens) that do not all fit: ten agents, short answers."""
    made = known_graphs(1, programs, random.Random(seed), fixed_tokens=8_192, answer=(16, 48))
    return Workload(tuple(made), concurrency=1)


def w6_many(seed: int, *, workflows: int = 8, programs: int = 10, concurrency: int = 16) -> Workload:
    made = known_graphs(workflows, programs, random.Random(seed), fixed_tokens=4_096, answer=(16, 48))
    return Workload(tuple(made), concurrency=concurrency)


def w7(seed: int, *, concurrency: int = 64, hours: float = 4.0) -> Workload:
    return replenished(sampled(coding_tasks(), 400, random.Random(seed)), concurrency, hours * 3600)


def w8(seed: int, *, honest: int = 3, programs: int = 120) -> Workload:
    return adversary(random.Random(seed), honest=honest, programs_each=programs)


def low(seed: int, *, count: int = 100, per_s: float = 0.004) -> Workload:
    return w3(seed, count=count, per_s=per_s)
