"""Figures, bounds and cache costs against hand counts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import ConfigurationError
from fairlead.runtime.scheduling.fairness import Rates
from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.simulation.bounds import Job, jobs_of, lower_bounds, lp_bound, srpt_mean
from fairlead.runtime.simulation.cachebound import Interval, cache_cost, most_saved
from fairlead.runtime.simulation.chains import Stretch
from fairlead.runtime.simulation.engines import EngineSpec, engine_pool
from fairlead.runtime.simulation.loop import simulate
from fairlead.runtime.simulation.programs import Call, Program, Workload
from fairlead.runtime.simulation.record import Run
from fairlead.runtime.simulation.results import Spread, fairness, spread, summarise
from tests.unit.runtime.simulation.making import TICK, conversation, engine, one_call, workload


def go(work: Workload, *engines: EngineSpec) -> Run:
    return simulate(work, engines or (engine(),), ProgramFCFS())


def test_percentiles_are_by_the_nearest_rank() -> None:
    assert spread(range(1, 101)) == Spread(50.5, 50, 95, 99, 100)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)
    assert spread([]) == Spread(0.0, 0.0, 0.0, 0.0, 0.0)


def test_the_figures_of_a_small_run() -> None:
    # p: 2 chunks, 2 tokens, a pause, then 6 of 7 blocks found: 4 + 10 + 2 s. q: alone later, 1 + 1 s, misses its deadline.
    p = Program("p", conversation((100, 3), (120, 2), gap_s=10.0), deadline_s=20.0)
    q = Program("q", one_call(40, 2), arrival_s=30.0, deadline_s=1.0, tenant="t")
    results = summarise(go(workload(p, q)))
    assert results.completion == Spread(9.0, 2.0, 16.0, 16.0, 16.0)
    assert (results.first_call_ttft.longest, results.any_call_ttft.mean) == (2.0, (2.0 + 1.0 + 1.0) / 3)
    assert results.wait.longest == 0.0
    assert (results.makespan_s, results.turns_per_s) == (32.0, 3 / 32)
    assert results.tokens_per_s == (100 + 120 + 40 + 3 + 2 + 2) / 32
    assert results.hit_rate == 96 / 260
    assert results.reprefilled_tokens == 0
    assert results.slo == 0.5 and results.slo_by_tenant == {"default": 1.0, "t": 0.0}
    assert results.service == {"default": 100 + 24 + 0.05 * 96 + 8 * 5, "t": 40 + 8 * 2}
    json.dumps(results.as_json())


def test_what_was_forgotten_counts_as_computed_again() -> None:
    p = Program("p", conversation((640, 2), (656, 2), gap_s=60.0))
    q = Program("q", one_call(1500, 2), arrival_s=20.0)
    # The long prompt leaves six of the hundred blocks to the other's beginning.
    assert summarise(go(workload(p, q))).reprefilled_tokens == 640 - 96


def test_lag_and_shares_count_only_while_everybody_waits() -> None:
    # Places for 4: with ten calls each and no order by tenant, the first tenant's calls go first.
    first = [Program(f"a{n}", one_call(64, 1), tenant="a") for n in range(10)]
    second = [Program(f"b{n}", one_call(64, 1), tenant="b") for n in range(10)]
    lag, shares, jain = fairness(go(workload(*first, *second)), Rates())
    assert lag == pytest.approx(9 * 72, abs=72)
    assert shares == {"a": 1.0, "b": 0.0} and jain == 0.5
    one = fairness(go(workload(*first)), Rates())
    assert one == (0.0, {}, 1.0)


def test_a_tenant_that_never_waits_builds_up_no_lag() -> None:
    busy = [Program(f"a{n}", one_call(64, 1), tenant="a") for n in range(10)]
    late = Program("b", one_call(64, 1), tenant="b", arrival_s=100.0)
    assert fairness(go(workload(*busy, late)), Rates()) == (0.0, {}, 1.0)


@pytest.mark.parametrize(
    ("jobs", "mean"),
    [
        ([(0.0, 4.0)], 4.0),
        ([(0.0, 2.0), (1.0, 1.0)], 2.0),  # 2 ends at 2, 1 runs from 2 to 3
        ([(0.0, 10.0), (1.0, 1.0)], (11.0 + 1.0) / 2),  # the short one interrupts
        ([(0.0, 1.0), (5.0, 1.0)], 1.0),  # idle between
        ([], 0.0),
    ],
)
def test_shortest_remaining_first(jobs: list[tuple[float, float]], mean: float) -> None:
    assert srpt_mean(jobs) == mean


def test_a_program_alone_stands_at_its_path_bound() -> None:
    calls = (*conversation((100, 3), (120, 2), gap_s=10.0), Call(50, 5, (0,), agent="x", prefix=(Stretch(0, 1),)))
    run = go(workload(Program("p", calls)))
    assert lower_bounds(run, [engine()]).path == pytest.approx(summarise(run).completion.mean)


def test_what_programs_have_in_common_is_free_in_the_bound() -> None:
    own = go(workload(*(Program(f"p{n}", one_call(640, 1)) for n in range(2))))
    shared = go(workload(*(Program(f"p{n}", one_call(640, 1, label=-1)) for n in range(2))))
    assert [job.path_s for job in jobs_of(own, [engine()])] == [10.0, 10.0]
    assert [job.path_s for job in jobs_of(shared, [engine()])] == [1.0, 1.0]


sizes = st.tuples(st.integers(1, 400), st.integers(1, 40), st.floats(0, 30))


@given(st.lists(st.lists(sizes, min_size=1, max_size=4), min_size=1, max_size=10), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_no_run_is_below_its_bounds(work: list[list[tuple[int, int, float]]], engines: int) -> None:
    programs = [
        Program(f"p{n}", conversation(*((prompt, output) for prompt, output, _ in turns)), arrival_s=turns[0][2])
        for n, turns in enumerate(work)
    ]
    pool = engine_pool(engines, TICK)
    run = simulate(workload(*programs), pool, ProgramFCFS())
    bounds = lower_bounds(run, pool)
    assert summarise(run, bounds=bounds).completion.mean >= bounds.best - 1e-6


def test_the_linear_program_joins_path_and_load() -> None:
    pytest.importorskip("scipy")
    # Two programs of 1 s of work with a long pause each: load alone says 1.5, path alone 10; four of 10 s say 25.
    assert lp_bound([Job(0.0, 10.0, 1.0, 0.0)] * 2, [1.0, 1.0]) == pytest.approx(10.0)
    assert lp_bound([Job(0.0, 10.0, 10.0, 0.0)] * 4, [10.0] * 4) >= 20.0
    mixed = [Job(0.0, 30.0, 1.0, 0.0), *[Job(0.0, 1.0, 10.0, 0.0)] * 3]
    both = lp_bound(mixed, [1.0, 10.0, 10.0, 10.0])
    assert both > max(sum(job.path_s for job in mixed) / 4, 10.0)
    assert both <= (30.0 + 10.0 + 20.0 + 30.0) / 4 + 1.0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 10)), min_size=1, max_size=7))
@settings(deadline=None, max_examples=25)
def test_the_linear_program_never_exceeds_the_best_schedule_of_one_server(jobs: list[tuple[float, float]]) -> None:
    pytest.importorskip("scipy")
    bound = lp_bound([Job(at, work, work, 0.0) for at, work in jobs], [work for _, work in jobs])
    assert bound <= srpt_mean(jobs) + 1e-6


def test_a_missing_solver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("fairlead.runtime.simulation.solver.importlib.import_module", absent)
    with pytest.raises(ConfigurationError, match="pip install scipy"):
        lp_bound([Job(0.0, 1.0, 1.0, 0.0)], [1.0])


@pytest.mark.parametrize(
    ("intervals", "in_use", "room", "saved"),
    [
        ([Interval(0, 5, 10, 1.0), Interval(1, 4, 10, 1.0)], [], 15, 1.5),
        ([Interval(0, 5, 10, 1.0), Interval(5, 9, 10, 1.0)], [], 10, 2.0),  # one after the other
        ([Interval(0, 5, 10, 1.0)], [(1.0, 2.0, 8)], 12, 0.4),  # a call takes room in the middle
        ([Interval(0, 5, 10, 1.0)], [(5.0, 9.0, 12), (-3.0, 0.0, 12)], 12, 1.0),  # calls before and after do not
        ([Interval(0, 5, 10, 1.0), Interval(0, 5, 10, 3.0)], [], 10, 3.0),  # the dearer one stays
        ([], [], 10, 0.0),
    ],
)
def test_the_most_that_a_cache_can_save(
    intervals: list[Interval], in_use: list[tuple[float, float, int]], room: int, saved: float
) -> None:
    pytest.importorskip("scipy")
    assert most_saved(intervals, in_use, room) == pytest.approx(saved)


def test_a_cache_that_never_forgets_is_optimal_and_a_small_one_is_not() -> None:
    pytest.importorskip("scipy")
    programs = [Program(f"p{n}", conversation((480, 2), (496, 2), (512, 2), gap_s=20.0), arrival_s=7.0 * n) for n in range(4)]
    roomy = engine_pool(1, TICK, kv_tokens=16_000)
    assert cache_cost(simulate(workload(*programs), roomy, ProgramFCFS()), roomy).ratio == pytest.approx(1.0, abs=0.02)
    tight = engine_pool(1, TICK, kv_tokens=1600)
    assert cache_cost(simulate(workload(*programs), tight, ProgramFCFS()), tight).ratio > 1.1
