"""The engine model: batching, reuse, eviction and preemption, checked event by event and by invariants."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import InputError
from fairlead.runtime.engines.embedded.events import (
    Admitted,
    Finished,
    FirstToken,
    ModelEvent,
    Preempted,
    RequestTooLargeError,
)
from fairlead.runtime.engines.embedded.hardware import PROFILES, Profile, interpolate, profile_named
from fairlead.runtime.engines.embedded.model import EngineModel

# One second an iteration and nothing else: times below can be counted.
TICK = Profile(
    name="tick",
    gemm=((1, 1.0), (1000, 1.0)),
    decode_s_per_context_token=0.0,
    prefill_s_per_pair=0.0,
    fixed_s=0.0,
    kv_tokens=1600,
    max_model_len=1600,
    max_num_batched_tokens=64,
    max_num_seqs=4,
)


def chain(program: int, blocks: int) -> list[tuple[int, int]]:
    """Block keys of a program's conversation: any prefix of it is a prefix of the next turn."""
    return [(program, block) for block in range(blocks)]


def run(model: EngineModel, until: float = math.inf) -> list[ModelEvent]:
    events: list[ModelEvent] = []
    while (at := model.next_event_at()) is not None and at <= until:
        events += model.advance(at)
    return events


def finished(events: list[ModelEvent]) -> dict[str, Finished]:
    return {event.request_id: event for event in events if isinstance(event, Finished)}


def test_one_request_prefills_in_chunks_then_decodes_a_token_an_iteration() -> None:
    model = EngineModel(TICK)
    model.submit("a", [], 100, 3, 0.0)
    assert run(model) == [Admitted("a", 0.0, 0), FirstToken("a", 2.0), Finished("a", 4.0, 3, 0, 0)]


def test_requests_of_one_moment_share_the_first_iteration() -> None:
    model = EngineModel(TICK)
    model.submit("a", [], 10, 1, 0.0)
    model.submit("b", [], 10, 1, 0.0)
    assert {event.at for event in finished(run(model)).values()} == {1.0}


def test_a_new_arrival_joins_at_the_end_of_the_iteration_under_way() -> None:
    model = EngineModel(TICK)
    model.submit("a", [], 10, 100, 0.0)
    model.advance(5.5)
    model.submit("b", [], 10, 1, 5.5)
    assert finished(run(model))["b"].at == 7.0


def test_places_bound_the_batch_and_the_queue_is_first_come_first_served() -> None:
    model = EngineModel(replace(TICK, max_num_seqs=1))
    for name in "abc":
        model.submit(name, [], 10, 2, 0.0)
    model.advance(0.0)
    assert (model.stats().running, model.stats().waiting) == (1, 2)
    assert [(name, event.at) for name, event in finished(run(model)).items()] == [("a", 2.0), ("b", 4.0), ("c", 6.0)]


def test_priority_reorders_the_queue_only_when_switched_on() -> None:
    for on, order in ((True, ["a", "c", "b"]), (False, ["a", "b", "c"])):
        model = EngineModel(replace(TICK, max_num_seqs=1), priority=on)
        model.submit("a", [], 10, 2, 0.0)
        model.advance(0.5)
        model.submit("b", [], 10, 2, 0.5, priority=5)
        model.submit("c", [], 10, 2, 0.5, priority=-5)
        assert list(finished(run(model))) == order


def test_the_next_turn_finds_prompt_and_answer_in_the_cache() -> None:
    model = EngineModel(TICK)
    model.submit("turn 1", chain(1, 6), 80, 17, 0.0)  # 96 tokens of KV: the last token generated is never read back
    run(model)
    model.submit("turn 2", chain(1, 10), 150, 5, 100.0)
    assert finished(run(model))["turn 2"].cached_tokens == 96


def test_the_last_prompt_token_is_always_computed() -> None:
    model = EngineModel(TICK)
    for name in ("first", "again"):
        model.submit(name, chain(1, 4), 64, 1, 0.0 if name == "first" else 50.0)
        events = run(model)
    assert finished(events)["again"].cached_tokens == 48


def test_siblings_that_start_together_compute_their_common_prefix_once() -> None:
    model = EngineModel(TICK)
    for name in ("a", "b", "c"):
        model.submit(name, [*chain(1, 2), (name, 2)], 48, 1, 0.0)
    assert [event.cached_tokens for event in finished(run(model)).values()] == [0, 32, 32]


def test_without_prefix_caching_nothing_is_reused() -> None:
    model = EngineModel(TICK, prefix_caching=False)
    for at in (0.0, 50.0):
        model.submit(str(at), chain(1, 4), 64, 1, at)
        events = run(model)
    assert finished(events)["50.0"].cached_tokens == 0
    assert model.cache.free == model.cache.capacity


def test_the_least_recently_used_prefix_is_evicted_first_and_from_its_tail() -> None:
    model = EngineModel(TICK, kv_tokens=160)
    model.submit("old", chain(1, 4), 64, 1, 0.0)
    run(model)
    model.submit("new", chain(2, 4), 64, 1, 50.0)
    run(model)
    model.submit("third", chain(3, 5), 80, 1, 100.0)  # 5 blocks: 2 are free, 3 must go
    run(model)
    assert model.cache.match(chain(1, 4), 4).blocks == 1
    assert model.cache.match(chain(2, 4), 4).blocks == 4


def test_a_prefix_that_was_used_again_outlives_one_that_was_not() -> None:
    model = EngineModel(TICK, kv_tokens=160)
    for at, program in ((0.0, 1), (50.0, 2), (100.0, 1), (150.0, 3)):
        model.submit(str(at), chain(program, 4), 64, 1, at)
        run(model)
    assert [model.cache.match(chain(program, 4), 4).blocks for program in (1, 2, 3)] == [4, 2, 4]


def test_when_blocks_run_out_the_last_admitted_is_preempted_and_recomputed() -> None:
    model = EngineModel(TICK, kv_tokens=160)
    model.submit("a", [], 48, 60, 0.0)
    model.submit("b", [], 48, 60, 0.0)
    events = run(model)
    assert [event.request_id for event in events if isinstance(event, Preempted)] == ["b"]
    ends = finished(events)
    assert ends["a"].preemptions == 0 and ends["b"].preemptions == 1
    assert {event.output_tokens for event in ends.values()} == {60}
    assert ends["a"].at < ends["b"].at


def test_an_aborted_request_leaves_its_place_and_its_cached_prefix() -> None:
    model = EngineModel(replace(TICK, max_num_seqs=1))
    model.submit("a", chain(1, 4), 64, 100, 0.0)
    model.submit("b", [], 10, 1, 0.0)
    model.advance(3.5)
    model.abort("a", 3.5)
    assert finished(run(model)) == {"b": Finished("b", 5.0, 1, 0, 0)}
    assert model.stats().aborted == 1
    assert model.cache.match(chain(1, 4), 4).blocks == 4


def test_aborting_a_waiting_or_unknown_request_is_quiet() -> None:
    model = EngineModel(replace(TICK, max_num_seqs=1))
    model.submit("a", [], 10, 2, 0.0)
    model.submit("b", [], 10, 2, 0.0)
    model.advance(0.5)
    model.abort("b", 0.5)
    model.abort("nobody", 0.5)
    assert list(finished(run(model))) == ["a"]
    assert model.stats().waiting == 0


def test_a_request_that_can_never_fit_is_refused_with_the_numbers() -> None:
    model = EngineModel(TICK, kv_tokens=160)
    with pytest.raises(RequestTooLargeError, match=r"maximum context length is 160 tokens.*200 in the prompt"):
        model.submit("a", [], 200, 1, 0.0)
    assert model.why_too_large(150, 10) is None


def test_time_does_not_go_backwards() -> None:
    model = EngineModel(TICK)
    model.advance(5.0)
    with pytest.raises(InputError, match="backwards"):
        model.advance(4.0)


def test_progress_can_be_asked_for_in_the_middle_of_a_span() -> None:
    model = EngineModel(TICK)
    model.submit("a", [], 10, 100, 0.0)
    model.advance(10.5)
    assert model.progress("a", 10.5) == 10
    assert model.next_token_at(10.5) == 11.0
    assert model.next_event_at() == 100.0


def test_speed_divides_time_and_infinite_speed_takes_none() -> None:
    fast = EngineModel(TICK, speed=10)
    fast.submit("a", [], 10, 10, 0.0)
    assert finished(run(fast))["a"].at == pytest.approx(1.0)
    instant = EngineModel(TICK, speed=math.inf)
    instant.submit("a", [], 10, 10, 7.0)
    assert finished(instant.advance(7.0))["a"].at == 7.0


@pytest.mark.parametrize(
    ("tokens", "milliseconds"),
    [
        (1, 9.7),  # the first point
        (2048, 145.6),  # a point
        (3072, 209.6),  # half-way between two
        (8192, 529.6),  # beyond the last: the last slope goes on
    ],
)
def test_step_times_are_interpolated_from_the_table(tokens: int, milliseconds: float) -> None:
    assert PROFILES["8b-a100"].gemm_s(tokens) * 1000 == pytest.approx(milliseconds)


def test_interpolation_is_flat_before_the_first_point() -> None:
    assert interpolate(((10, 5.0), (20, 7.0)), 3) == 5.0


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="8b-a100"):
        profile_named("9b")


def test_prefill_of_a_long_prompt_takes_what_the_formula_says() -> None:
    # 8B on A100: c / 14,000 + 1.75e-9 c^2 seconds for c = 32,000 tokens is about 4.1 s.
    model = EngineModel(PROFILES["8b-a100"])
    model.submit("a", [], 32_000, 1, 0.0)
    assert finished(run(model))["a"].at == pytest.approx(32_000 / 14_000 + 1.75e-9 * 32_000**2, rel=0.05)


@dataclass(frozen=True)
class Act:
    gap: float
    program: int
    prompt: int
    output: int
    priority: int
    abort_after: float | None


ACTS = st.lists(
    st.builds(
        Act,
        gap=st.sampled_from([0.0, 0.3, 1.0, 7.7, 40.0]),
        program=st.integers(0, 3),
        prompt=st.integers(1, 200),
        output=st.integers(1, 60),
        priority=st.integers(0, 2),
        abort_after=st.sampled_from([None, None, None, 0.0, 2.5, 20.0]),
    ),
    min_size=1,
    max_size=25,
)
GROWING = replace(TICK, decode_s_per_context_token=0.001, prefill_s_per_pair=0.0001, max_num_batched_tokens=48)


def play(
    acts: list[Act], *, priority: bool, ticks: float | None, model_type: type[EngineModel] = EngineModel
) -> tuple[EngineModel, list[ModelEvent], set[str]]:
    """Submit and abort as told; with `ticks`, look that often in between. Gives model, events and aborted requests."""
    model = model_type(GROWING, kv_tokens=320, priority=priority)
    events: list[ModelEvent] = []
    plan: list[tuple[float, int, int, Act]] = []
    now = 0.0
    for number, act in enumerate(acts):
        now += act.gap
        plan.append((now, number, 0, act))
        if act.abort_after is not None:
            plan.append((now + act.abort_after, number, 1, act))
    aborted: set[str] = set()
    last = 0.0
    for at, number, kind, act in sorted(plan, key=lambda entry: entry[:3]):
        while ticks is not None and last + ticks < at:
            last += ticks
            events += model.advance(last)
        last = at
        if kind == 0:
            model.submit(str(number), chain(act.program, 20), act.prompt, act.output, at, priority=act.priority)
        else:
            events += model.advance(at)
            if str(number) not in finished(events):
                aborted.add(str(number))
            model.abort(str(number), at)
        model.cache.check_integrity()
    while (due := model.next_event_at()) is not None:
        while ticks is not None and last + ticks < due:
            last += ticks
            events += model.advance(last)
        events += model.advance(due)
        last = due
        model.cache.check_integrity()
    return model, events, aborted


@given(ACTS, st.booleans())
def test_no_request_is_lost_and_no_block_is(acts: list[Act], priority: bool) -> None:
    model, events, aborted = play(acts, priority=priority, ticks=None)
    ends = finished(events)
    assert set(ends) | aborted == {str(number) for number in range(len(acts))}
    assert not set(ends) & aborted
    assert [event.at for event in events] == sorted(event.at for event in events)
    for number, act in enumerate(acts):
        if (end := ends.get(str(number))) is not None:
            assert end.output_tokens == act.output
            assert 0 <= end.cached_tokens < act.prompt and end.cached_tokens % 16 == 0
    stats = model.stats()
    assert (stats.running, stats.waiting, stats.kv_usage) == (0, 0, 0.0)
    assert model.cache.available == model.cache.capacity


@given(ACTS, st.booleans(), st.sampled_from([0.37, 1.0, 5.0]))
def test_how_often_one_looks_changes_nothing(acts: list[Act], priority: bool, ticks: float) -> None:
    _, seldom, _ = play(acts, priority=priority, ticks=None)
    _, often, _ = play(acts, priority=priority, ticks=ticks)
    assert seldom == often


@given(ACTS, st.booleans())
def test_spans_give_what_single_iterations_give(acts: list[Act], priority: bool) -> None:
    class Stepwise(EngineModel):
        def _quiet_steps(self) -> int:
            return 1

    _, spans, _ = play(acts, priority=priority, ticks=None)
    _, steps, _ = play(acts, priority=priority, ticks=None, model_type=Stepwise)
    assert [replace(event, at=0.0) for event in spans] == [replace(event, at=0.0) for event in steps]
    assert [event.at for event in spans] == pytest.approx([event.at for event in steps])


@given(ACTS)
def test_first_tokens_come_once_and_before_the_end(acts: list[Act]) -> None:
    _, events, aborted = play(acts, priority=False, ticks=None)
    first: dict[str, float] = {}
    for event in events:
        if isinstance(event, FirstToken):
            assert event.request_id not in first
            first[event.request_id] = event.at
    for name, end in finished(events).items():
        assert first[name] <= end.at
    assert set(first) <= {str(number) for number in range(len(acts))}
    assert len(aborted) <= len(acts)
