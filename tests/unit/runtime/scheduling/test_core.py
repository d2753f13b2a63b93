"""The program scheduler, driven with events and compared by decisions."""

from __future__ import annotations

import math

import pytest

from fairlead.errors import InputError
from fairlead.runtime.scheduling.core import ProgramScheduler
from fairlead.runtime.scheduling.policies import policy
from fairlead.runtime.scheduling.port import (
    CallEnded,
    CallReady,
    Dispatch,
    EngineAdded,
    EngineLost,
    Event,
    ProgramArrived,
    ProgramEnded,
    Release,
    TenantChanged,
    Touch,
)

KV = 100_000


def scheduler(*events: Event, in_flight_max: int = 64, kv_tokens: int | None = KV, **options: object) -> ProgramScheduler:
    """One engine `e`, and these events at time 0."""
    made = policy("fairlead", **options)
    made.handle(EngineAdded("e", in_flight_max, kv_tokens=kv_tokens, prefill_tokens_per_s=10_000.0), 0.0)
    for event in events:
        made.handle(event, 0.0)
    return made


def ready(call_id: int, program: str, prompt: int = 20_000, *, tenant: str = "default", agent: str = "") -> CallReady:
    return CallReady(call_id, program, tenant, agent, prompt_tokens=prompt, output_tokens=100)


def ended(call_id: int, prompt: int = 20_000, cached: int = 0) -> CallEnded:
    return CallEnded(call_id, prompt, cached, 100)


def sent(made: ProgramScheduler, event: Event, now: float = 0.0) -> list[int]:
    return [each.call_id for each in made.handle(event, now) if isinstance(each, Dispatch)]


def run_until(made: ProgramScheduler, until: float) -> list[tuple[float, int]]:
    """Wake it as often as it asks for; (time, call) of what it sends."""
    out: list[tuple[float, int]] = []
    for _ in range(1000):
        when = made.next_wakeup()
        if when is None or when > until:
            return out
        out.extend((when, each.call_id) for each in made.wake(when) if isinstance(each, Dispatch))
    raise AssertionError("it asks to be woken without end")


def test_calls_go_while_the_working_set_fits_and_wait_beyond() -> None:
    made = scheduler()
    assert [sent(made, ready(number, f"p{number}")) for number in range(1, 6)] == [[1], [2], [3], [4], []]
    why = made.explain(5, 1.0)
    assert why.rule == "memory" and "20100 tokens" in why.text


def test_an_idle_program_keeps_its_memory_for_its_next_call() -> None:
    made = scheduler()
    for number in range(1, 5):
        sent(made, ready(number, f"p{number}"))
    made.handle(ended(1), 1.0)
    assert sent(made, ready(5, "p5"), 1.0) == [], "what p1 will need next is not given away at once"
    assert sent(made, ready(6, "p1", 20_200), 2.0) == [6]


def test_an_idle_program_loses_its_place_after_a_finite_time() -> None:
    made = scheduler()
    for number in range(1, 6):
        sent(made, ready(number, f"p{number}"))
    made.handle(ended(1), 1.0)
    (when, call), *_ = run_until(made, 120.0)
    assert call == 5 and 2.0 < when <= 61.0
    assert sent(made, ready(6, "p1", 20_200), when + 1) == [], "p1 queues like the others now"


def test_without_demand_a_place_is_not_taken_away() -> None:
    made = scheduler()
    sent(made, ready(1, "p1"))
    made.handle(ended(1), 1.0)
    assert made.next_wakeup() is None
    assert made.programs["p1"].agents[""].placed


def test_a_program_larger_than_the_capacity_runs_alone() -> None:
    made = scheduler()
    assert sent(made, ready(1, "small")) == [1]
    assert sent(made, ready(2, "huge", 99_000)) == []
    assert sent(made, ended(1)) == [2]
    assert sent(made, ready(3, "small")) == []


def test_an_engine_with_nothing_in_flight_takes_what_is_next_whatever_is_kept() -> None:
    made = scheduler()
    for number in range(1, 5):
        sent(made, ready(number, f"p{number}"))
    assert sent(made, ready(5, "big", 60_000)) == []
    dispatched = [sent(made, ended(number), 1.0) for number in range(1, 5)]
    assert [5] in dispatched


def test_a_program_that_ended_frees_its_memory_at_once() -> None:
    made = scheduler()
    for number in range(1, 6):
        sent(made, ready(number, f"p{number}"))
    made.handle(ended(1), 1.0)
    assert sent(made, ProgramEnded("p1"), 1.0) == [5]
    assert "p1" not in made.programs


def test_room_is_made_for_an_aged_call() -> None:
    made = scheduler(age_limit_s=100.0, lead_s=40.0, first_s=math.inf, first_aged_s=math.inf, effort=1e9)
    for number in range(1, 5):
        sent(made, ready(number, f"p{number}"))
    sent(made, ready(50, "old", 30_000))
    turn = 50
    now = 0.0
    while made.calls[50].waiting and now < 300:
        now += 5.0
        for number in list(range(1, 5)):
            for live in [call for call in made.calls.values() if not call.waiting and call.program.program_id == f"p{number}"]:
                made.handle(ended(live.call_id), now)
                turn += 1
                made.handle(ready(turn, f"p{number}"), now)
                break
        for _ in range(3):
            made.wake(now)
    assert now <= 100.0, "the others' next calls had to wait for it"


def test_first_calls_have_a_reserved_share() -> None:
    made = scheduler(first_s=30.0, regular=0.85, guests=0.2)
    for number in range(1, 6):
        made.handle(ready(number, f"p{number}", 10_000), 0.0)
    for number in range(6, 9):
        made.handle(ready(number, f"p{number}", 10_000), 0.0)
    assert not made.calls[8].waiting, "80,800 tokens fit"
    assert sent(made, ready(9, "late", 10_000), 1.0) == []
    assert run_until(made, 40.0) == [(31.0, 9)]


def test_a_tenant_is_not_held_up_by_anothers_backlog() -> None:
    made = scheduler(quantum=50_000.0)
    for program in range(20):
        made.handle(ready(1 + program, f"heavy{program}", tenant="heavy"), 0.0)
    made.handle(ready(100, "light", tenant="light"), 0.0)
    order = []
    for number in range(1, 4):
        order += sent(made, ended(number), 1.0) + sent(made, ProgramEnded(f"heavy{number - 1}"), 1.0)
    assert 100 in order[:2], "it goes before sixteen calls that came earlier"


def test_an_overserved_tenant_waits_even_with_a_place() -> None:
    made = scheduler(quantum=10_000.0)
    for number in range(1, 5):
        made.handle(ready(number, f"h{number}", tenant="heavy"), 0.0)
    made.handle(ready(5, "l", 60_000, tenant="light"), 0.0)
    made.handle(ended(1), 1.0)
    assert sent(made, ready(6, "h1", 20_100, tenant="heavy"), 1.0) == []
    assert made.explain(6, 1.0).rule in ("fairness", "memory")
    assert made.explain(6, 1.0).facts is not None


def test_a_lost_engine_loses_no_call() -> None:
    made = scheduler()
    sent(made, ready(1, "p1"))
    sent(made, ready(2, "p2", 90_000))
    made.handle(EngineLost("e"), 1.0)
    made.handle(CallEnded(1), 1.0)
    assert made.explain(2, 1.0).text == "there is no engine"
    made.handle(ready(3, "p1"), 1.0)
    later = made.handle(EngineAdded("f", 8, kv_tokens=KV), 2.0)
    assert {each.engine for each in later if isinstance(each, Dispatch)} == {"f"}
    got = {each.call_id for each in later if isinstance(each, Dispatch)}
    rest = sent(made, ended(got.pop()), 3.0)
    assert not made.waiting or rest


def test_a_call_given_up_while_it_waits_is_gone() -> None:
    made = scheduler(in_flight_max=1)
    sent(made, ready(1, "a"))
    made.handle(ready(2, "b"), 0.0)
    made.handle(ready(3, "c"), 0.0)
    made.handle(CallEnded(2), 1.0)
    assert made.explain(2, 1.0).rule == "unknown call"
    assert sent(made, ended(1), 2.0) == [3]


def test_the_end_of_a_call_nobody_knows_changes_nothing() -> None:
    assert scheduler().handle(CallEnded(99), 0.0) == []


def test_sub_agents_are_charged_to_the_root() -> None:
    made = scheduler()
    made.handle(ready(1, "root", 5_000, agent="one"), 0.0)
    made.handle(ready(2, "root", 5_000, agent="two"), 0.0)
    made.handle(ended(1, 5_000), 1.0)
    made.handle(ended(2, 5_000, cached=4_000), 1.0)
    # 5,000 missing and 100 generated; 1,000 missing, 4,000 cached and 100 generated.
    assert made.programs["root"].service == pytest.approx(5_000 + 800 + 1_000 + 200 + 800)


def test_prefixes_are_pinned_and_released_where_the_engine_can() -> None:
    made = policy("fairlead")
    made.handle(EngineAdded("e", 8, kv_tokens=KV, pins=True), 0.0)
    (dispatch,) = made.handle(ready(1, "p"), 0.0)
    assert isinstance(dispatch, Dispatch) and dispatch.pin_s > 0
    made.handle(ended(1), 1.0)
    assert made.handle(ProgramEnded("p"), 2.0) == [Release("e", "p", "")]


def test_an_engine_without_pins_gets_no_hints() -> None:
    made = scheduler()
    (dispatch,) = made.handle(ready(1, "p"), 0.0)
    assert isinstance(dispatch, Dispatch) and dispatch.pin_s == 0
    made.handle(ended(1), 1.0)
    assert made.handle(ProgramEnded("p"), 2.0) == []


def test_touches_refresh_what_would_be_forgotten_next() -> None:
    made = scheduler(touches=True)
    made.handle(ready(1, "keep"), 0.0)
    made.handle(ended(1), 1.0)
    for number in range(2, 5):
        made.handle(ready(number, f"p{number}", 25_000), 1.0)
        made.handle(ended(number, 25_000), 1.0)
        made.handle(ProgramEnded(f"p{number}"), 1.0)
    decisions = made.handle(ready(9, "new", 25_000), 2.0)
    assert decisions[0] == Touch("e", "keep", "")
    assert isinstance(decisions[1], Dispatch)


def test_deadlines_that_can_still_be_met_go_first_by_least_slack() -> None:
    made = scheduler(in_flight_max=1, first_s=math.inf, first_aged_s=math.inf)
    made.handle(ready(1, "running"), 0.0)
    for name, deadline in (("none", None), ("loose", 500.0), ("tight", 400.0), ("doomed", 1.0)):
        made.handle(ProgramArrived(name, deadline=deadline, steps_known=10), 0.0)
    for number, name in enumerate(("none", "loose", "tight", "doomed"), start=2):
        made.handle(ready(number, name), 0.0)
    made.handle(ProgramEnded("running"), 200.0)
    assert sent(made, ended(1), 200.0) == [4]
    assert sent(made, ended(4), 201.0) == [3]


def test_inside_a_program_the_critical_path_goes_first() -> None:
    made = scheduler(in_flight_max=1)
    made.handle(ready(1, "other"), 0.0)
    made.handle(CallReady(2, "p", agent="short", prompt_tokens=1_000, output_tokens=10, steps_left=3), 0.0)
    made.handle(CallReady(3, "p", agent="long", prompt_tokens=1_000, output_tokens=10, steps_left=3, siblings=2), 0.0)
    made.handle(CallReady(4, "p", agent="sibling", prompt_tokens=1_000, output_tokens=10, steps_left=3, siblings=1), 0.0)
    assert sent(made, ended(1), 1.0) == [2]
    assert sent(made, CallEnded(2, 1_000, 0, 10), 1.0) == [4]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_weights_must_be_positive(weight: float) -> None:
    made = scheduler()
    with pytest.raises(InputError, match="weight of tenant 't'"):
        made.handle(TenantChanged("t", weight), 0.0)
    with pytest.raises(InputError, match="weight of program 'p'"):
        made.handle(ProgramArrived("p", weight=weight), 0.0)


def test_an_engine_must_take_calls() -> None:
    with pytest.raises(InputError, match="at least one call"):
        scheduler(in_flight_max=0)


def test_unknown_sizes_are_estimated() -> None:
    made = scheduler(kv_tokens=None)
    made.handle(CallReady(1, "p"), 0.0)
    assert made.calls[1].prompt == 4_000
    made.handle(CallEnded(1), 1.0)
    assert made.waiting == 0


def test_every_reason_is_explained() -> None:
    made = scheduler(in_flight_max=2)
    made.handle(ready(1, "a", 1_000), 0.0)
    made.handle(ready(2, "b", 1_000), 0.0)
    made.handle(ready(3, "c", 1_000), 0.0)
    made.handle(ready(4, "d", 1_500), 0.0)
    assert made.explain(1, 1.0).rule == "in flight"
    assert made.explain(3, 1.0).rule == "place"
    assert made.explain(4, 1.0).position == 1
    facts = made.explain(4, 1.0).facts or {}
    assert facts["waited_s"] == 1.0 and facts["free_tokens:e"] == KV - 2 * 1_100
