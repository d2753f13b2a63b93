"""Synthetic workloads: published parameters come out, and the same seed gives the same programs."""

from __future__ import annotations

import random
import statistics

import pytest

from fairlead.runtime.simulation.programs import Program, plan
from fairlead.runtime.simulation.workloads import (
    CONTINUUM_SWE,
    SAGA_SWE,
    SAGA_TOOLS,
    SAGA_WEB,
    Agents,
    ToolTimes,
    adversary,
    agents,
    by_statistics,
    known_graphs,
    poisson,
    replenished,
    ten_tenants,
)


@pytest.mark.parametrize("times", SAGA_TOOLS.values())
def test_tool_times_go_through_their_published_quantiles(times: ToolTimes) -> None:
    assert [times.quantile(share) for share in (0.5, 0.95, 0.99)] == [
        pytest.approx(times.p50),
        pytest.approx(times.p95, rel=1e-3),
        pytest.approx(times.p99),
    ]
    assert times.p99 < times.quantile(1.0) <= times.cap


@pytest.mark.parametrize(("chosen", "steps"), [(SAGA_SWE, 37), (SAGA_WEB, 18)])
def test_agents_have_the_published_numbers_of_steps_and_fit_their_context(chosen: Agents, steps: int) -> None:
    programs = agents(chosen, 800, random.Random(1))
    assert statistics.mean(len(program.calls) for program in programs) == pytest.approx(steps, rel=0.06)
    for program in programs:
        assert len(program.calls) <= chosen.steps_max
        assert all(call.prompt_tokens + call.output_tokens <= chosen.context_max for call in program.calls)


def test_a_step_adds_the_answer_and_the_observation() -> None:
    program = agents(SAGA_SWE, 1, random.Random(3))[0]
    new = plan(program).new_tokens
    for before, after, added in zip(program.calls, program.calls[1:], new[1:], strict=False):
        assert after.prompt_tokens - before.prompt_tokens - before.output_tokens <= added + 16


def test_continuums_statistics_come_out() -> None:
    programs = by_statistics(CONTINUUM_SWE, 600, random.Random(2))
    assert statistics.mean(len(program.calls) for program in programs) == pytest.approx(10.9, rel=0.05)
    last = [program.calls[-1].prompt_tokens for program in programs]
    assert statistics.mean(last) == pytest.approx(70_126, rel=0.1)


def test_known_graphs_share_the_fixed_prompts_of_their_agents() -> None:
    programs = known_graphs(2, 3, random.Random(1), agents_each=4, rounds=2)
    assert len(programs) == 6 and all(program.declared for program in programs)
    fixed = {(program.workflow, call.agent): call.prefix[0].label for program in programs for call in program.calls}
    assert len(set(fixed.values())) == len(fixed) == 8


def test_ten_tenants_have_their_weights_rates_and_deadlines() -> None:
    load = ten_tenants(2.0, random.Random(1), expected_s=lambda _: 100.0)
    counts = {tenant: sum(p.tenant == tenant for p in load.programs) for tenant in load.tenants}
    assert counts == {tenant: {"h": 32, "m": 16, "l": 8}[tenant[0]] for tenant in counts}
    assert sorted(load.tenants.values()) == [1.0] * 3 + [2.0] * 4 + [3.0] * 3
    assert {program.deadline_s for program in load.programs} == {150.0}


def test_the_adversary_splits_its_work_and_weighs_like_the_others() -> None:
    load = adversary(random.Random(1), honest=2, programs_each=3)
    assert sum(program.tenant == "adversary" for program in load.programs) == 30
    assert set(load.tenants.values()) == {1.0}


def test_the_same_seed_gives_the_same_programs() -> None:
    def made(seed: int) -> list[Program]:
        rng = random.Random(seed)
        return [
            *agents(SAGA_WEB, 5, rng),
            *by_statistics(CONTINUUM_SWE, 5, rng),
            *known_graphs(1, 2, rng),
            *adversary(rng, honest=1, programs_each=2).programs,
        ]

    assert made(1) == made(1) != made(2)


def test_arrivals_and_replenishing() -> None:
    times = poisson(1000, 2.0, random.Random(1))
    assert times == sorted(times) and times[-1] == pytest.approx(500, rel=0.1)
    assert replenished(agents(SAGA_WEB, 2, random.Random(1)), 5, 60.0).horizon_s == 60.0
