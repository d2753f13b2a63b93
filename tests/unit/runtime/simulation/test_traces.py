"""Programs out of traces: prefixes, pauses, tasks, sub-agents."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from fairlead.errors import ConfigurationError, InputError
from fairlead.runtime.simulation.chains import Chain, Stretch
from fairlead.runtime.simulation.programs import Call, Program, Workload, plan, shared_blocks
from fairlead.runtime.simulation.tracefile import TraceProgram, TraceTurn
from fairlead.runtime.simulation.traces import Shape, programs_of, sampled


def turn(prompt: int, new: int | None = None, kind: str | None = "tool", **fields: object) -> TraceTurn:
    base = TraceTurn(prompt, new, 10, "", 2.0 if kind == "tool" else None, None, kind, None, None, ())
    return replace(base, **fields)  # type: ignore[arg-type]


def trace(*turns: TraceTurn, name: str = "p", **fields: Any) -> TraceProgram:
    return replace(TraceProgram(name, "s", "default", None, turns, "some:1"), **fields)


def test_a_turn_finds_exactly_what_the_recording_says_it_shares() -> None:
    [program] = programs_of([trace(turn(160, 160), turn(320, 160), turn(400, 300), turn(500, 100))])
    assert [shared_blocks(later, earlier) for earlier, later in zip(program.calls, program.calls[1:], strict=False)] == [
        10,
        6,
        25,
    ]
    assert plan(program).new_tokens == (160, 160, 400 - 96, 100)


def test_contexts_are_scaled_and_answers_are_not() -> None:
    [program] = programs_of([trace(turn(1600, 1600), turn(3200, 1600))], Shape(scale=0.25))
    assert [(call.prompt_tokens, call.output_tokens) for call in program.calls] == [(400, 10), (800, 10)]
    assert plan(program).new_tokens == (400, 400)


def test_pauses_are_recorded_guessed_and_capped() -> None:
    turns = (
        turn(10),
        turn(20, kind="user", user_s=500.0),
        turn(30, kind=None, started_s=100.0, api_s=4.0),
        turn(40, kind=None, started_s=111.0),
        turn(50, kind="user"),
        turn(60, kind="end"),
    )
    shape = Shape(unknown_tool_s=3.0, unknown_user_s=40.0)
    [program] = programs_of([trace(*turns)], shape)
    assert [call.gap_s for call in program.calls] == [0.0, 2.0, 500.0, 7.0, 3.0, 40.0]
    [capped] = programs_of([trace(*turns)], replace(shape, gap_cap_s=30.0))
    assert max(call.gap_s for call in capped.calls) == 30.0


def test_conversations_are_cut_into_tasks_at_people() -> None:
    kinds = ("tool", "tool", "user", "tool", "user", "tool", "tool", "tool")
    turns = [turn(100 * (n + 1), 100, kind) for n, kind in enumerate(kinds)]
    tasks = programs_of([trace(*turns)], Shape(tasks=True, turns_min=3))
    assert [(task.name, len(task.calls)) for task in tasks] == [("p/0", 3), ("p/2", 3)]
    # A task begins cold: all of its context is new to the cache.
    assert plan(tasks[1]).new_tokens == (600, 100 + 8, 100 + 12)


def test_long_contexts_can_be_left_out() -> None:
    both = [trace(turn(100)), trace(turn(10_000), name="q")]
    assert [program.name for program in programs_of(both, Shape(context_max=5_000))] == ["p"]


def test_sub_agents_are_branches_that_their_parent_waits_for() -> None:
    parent = trace(turn(100, kind="subagent", tool_s=90.0), turn(200))
    child = trace(turn(50), turn(60), name="c", parent_id="p", parent_turn=0)
    orphan = trace(turn(70), name="o", parent_id="unknown")
    main, alone = programs_of([parent, child, orphan])
    assert [(call.agent, call.needs, call.gap_s) for call in main.calls] == [
        ("", (), 0.0),
        ("agent-0", (0,), 0.0),
        ("agent-0", (1,), 2.0),
        ("", (0, 2), 0.0),
    ]
    assert alone.name == "o"


def test_recorded_blocks_compare_between_programs() -> None:
    shape: dict[str, Any] = {"block_tokens": 512, "blocks_compare": True}
    first = trace(turn(1500, runs=((7, 2), (20, 1))), **shape)
    second = trace(turn(1600, runs=((7, 3), (30, 1))), name="q", **shape)
    one, two = (programs_of([first, second])[n].calls[0] for n in (0, 1))
    chains = [Chain(call.prefix, call.chain_blocks, 1000 * number) for number, call in enumerate((one, two))]
    common = next(n for n in range(200) if chains[0][n] != chains[1][n])
    assert common == 64


def test_equal_system_prompts_can_be_shared() -> None:
    both = [trace(turn(500), system_tokens=160), trace(turn(700), name="q", system_tokens=160)]
    assert programs_of(both)[0].calls[0].prefix == (Stretch(0, 0),)
    shared = [program.calls[0].prefix for program in programs_of(both, Shape(share_system=True))]
    assert shared == [(Stretch(10, -1), Stretch(0, 0))] * 2


def test_samples_repeat_only_when_they_must() -> None:
    programs = [Program(f"p{n}", (Call(1, 1),)) for n in range(5)]
    assert sorted(p.name for p in sampled(programs, 5, random.Random(1))) == sorted(p.name for p in programs)
    assert len(sampled(programs, 12, random.Random(1))) == 12
    with pytest.raises(InputError):
        sampled(programs, 0, random.Random(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shape(scale=0), "scale 0"),
        (lambda: Shape(unknown_tool_s=-1), "pauses must be 0 or more"),
    ],
)
def test_shapes_that_cannot_be_had_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigurationError, match=message):
        make()


CALL = (Call(1, 1),)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Program("p", ()), "turns: a program needs at least one call"),
        (lambda: Program("p", (Call(0, 1),)), r"program 'p': turns\[0\]: prompt_tokens and output_tokens must be at least 1"),
        (lambda: Program("p", (Call(1, 1, gap_s=-1.0),), origin="f:3"), r"f:3: turns\[0\]: gap: must be 0 or more, not -1"),
        (lambda: Program("p", (Call(1, 1, (0,)),)), "needs: a call can only wait for earlier calls"),
        (lambda: Program("p", (Call(1, 1, prefix=()),)), "prefix: at least one stretch"),
        (lambda: Program("p", CALL, weight=0.0), "weight: must be above 0, not 0"),
        (lambda: Program("p", CALL, arrival_s=float("inf")), "arrival_s: must be 0 or more, not inf"),
        (lambda: Program("p", CALL, deadline_s=0.0), "deadline_s: must be above 0"),
        (lambda: Workload(()), "there are no programs in it"),
        (lambda: Workload((Program("p", CALL),), concurrency=0), "concurrency: must be at least 1"),
        (lambda: Workload((Program("p", CALL),), horizon_s=5.0), "horizon_s: only a closed loop"),
        (lambda: Workload((Program("p", CALL),), tenants={"t": 0.0}), "weight of tenant 't': must be above 0, not 0"),
        (lambda: Workload((Program("p", CALL),)).arriving([]), "0 arrival times for 1 programs"),
    ],
)
def test_impossible_programs_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=message):
        make()
