"""Program-level first come, first served: driven with events, compared by decisions."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.scheduling.port import CallEnded, CallReady, Decision, Dispatch, EngineAdded, Event, ProgramEnded


def ready(call_id: int, program: str) -> CallReady:
    return CallReady(call_id, program, "default")


def dispatches(decisions: list[Decision]) -> list[Dispatch]:
    """The decisions, which this policy makes of one kind only."""
    assert all(isinstance(decision, Dispatch) for decision in decisions)
    return [decision for decision in decisions if isinstance(decision, Dispatch)]


def feed(policy: ProgramFCFS, *events: Event) -> list[int]:
    """The calls that are dispatched, in order."""
    return [decision.call_id for event in events for decision in dispatches(policy.handle(event, 0.0))]


def over(bounds: Mapping[str, int]) -> ProgramFCFS:
    """The policy over engines that take this many calls at once."""
    policy = ProgramFCFS()
    for engine, bound in bounds.items():
        policy.handle(EngineAdded(engine, bound), 0.0)
    return policy


def one_at_a_time() -> ProgramFCFS:
    return over({"engine": 1})


def test_a_call_goes_at_once_while_an_engine_has_room() -> None:
    policy = over({"engine": 2})
    assert policy.handle(ready(1, "a"), 0) == [Dispatch(1, "engine")]
    assert policy.handle(ready(2, "a"), 0) == [Dispatch(2, "engine")]
    assert policy.handle(ready(3, "a"), 0) == []


def test_calls_of_the_program_that_came_first_go_first() -> None:
    policy = one_at_a_time()
    assert feed(policy, ready(1, "old"), ready(2, "new"), ready(3, "old")) == [1]
    assert feed(policy, CallEnded(1)) == [3]
    assert feed(policy, CallEnded(3)) == [2]


def test_a_program_keeps_its_place_between_its_calls() -> None:
    policy = one_at_a_time()
    assert feed(policy, ready(1, "old"), CallEnded(1), ready(2, "new"), ready(3, "newer"), ready(4, "old")) == [1, 2]
    assert feed(policy, CallEnded(2)) == [4]


def test_a_program_that_ended_has_no_place_any_more() -> None:
    policy = one_at_a_time()
    feed(policy, ready(1, "old"), CallEnded(1), ProgramEnded("old"), ready(2, "new"), ready(3, "newer"), ready(4, "old"))
    assert feed(policy, CallEnded(2)) == [3]
    assert feed(policy, CallEnded(3)) == [4]


def test_a_program_that_ended_keeps_its_place_until_its_last_call_has_left() -> None:
    policy = one_at_a_time()
    feed(policy, ready(1, "old"), ready(2, "new"), ready(3, "old"), ProgramEnded("old"))
    assert feed(policy, CallEnded(1)) == [3]


def test_calls_of_one_program_go_in_the_order_in_which_they_came() -> None:
    policy = one_at_a_time()
    feed(policy, *(ready(number, "a") for number in range(1, 5)))
    assert [feed(policy, CallEnded(number)) for number in range(1, 5)] == [[2], [3], [4], []]


def test_a_call_that_is_given_up_while_it_waits_is_not_sent() -> None:
    policy = one_at_a_time()
    assert feed(policy, ready(1, "a"), ready(2, "a"), ready(3, "b"), CallEnded(2)) == [1]
    assert feed(policy, CallEnded(1)) == [3]


def test_the_engine_with_the_smallest_share_of_its_room_used_is_taken() -> None:
    policy = over({"small": 1, "large": 4})
    engines = [dispatches(policy.handle(ready(number, "a"), 0))[0].engine for number in range(1, 6)]
    assert engines == ["small", "large", "large", "large", "large"]
    assert policy.handle(ready(6, "a"), 0) == []
    assert policy.handle(CallEnded(1), 0) == [Dispatch(6, "small")]


def test_events_about_what_is_not_known_change_nothing() -> None:
    policy = one_at_a_time()
    assert feed(policy, CallEnded(7), ProgramEnded("nobody"), ready(1, "a"), CallEnded(7)) == [1]


def test_every_call_can_say_why_it_waits() -> None:
    policy = one_at_a_time()
    feed(policy, ready(1, "old"), ready(2, "new"), ready(3, "newer"), ready(4, "newer"), ready(5, "old"))
    assert policy.explain(1, 0).text == "in flight on engine 'engine'"
    assert [policy.explain(call, 0).position for call in (5, 2, 4)] == [0, 1, 2]
    assert policy.explain(4, 0).rule == "place"
    assert policy.explain(9, 0).rule == "unknown call"


def test_nothing_becomes_due_by_itself() -> None:
    assert one_at_a_time().next_wakeup() is None


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["ready", "ready", "ready", "ended", "given up", "program ended"]), st.integers(0, 5)),
    max_size=120,
)
BOUNDS: st.SearchStrategy[Mapping[str, int]] = st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(1, 3), min_size=1)


class Outside:
    """What the world does to a policy: chooses events, and checks what must hold after each."""

    def __init__(self, bounds: Mapping[str, int]) -> None:
        self.bounds = bounds
        self.policy = over(bounds)
        self.waiting: dict[int, str] = {}
        self.running: dict[int, str] = {}
        self.dispatched: list[tuple[int, str]] = []
        self.given_up = 0
        self.calls = 0

    def do(self, action: str, number: int) -> None:
        if action == "ready":
            self.calls += 1
            self.waiting[self.calls] = f"program {number}"
            self.handle(ready(self.calls, f"program {number}"))
        elif action == "ended" and self.running:
            call = sorted(self.running)[number % len(self.running)]
            del self.running[call]
            self.handle(CallEnded(call))
        elif action == "given up" and self.waiting:
            call = sorted(self.waiting)[number % len(self.waiting)]
            del self.waiting[call]
            self.given_up += 1
            self.handle(CallEnded(call))
        elif action == "program ended":
            self.handle(ProgramEnded(f"program {number}"))

    def handle(self, event: Event) -> None:
        for decision in dispatches(self.policy.handle(event, float(len(self.dispatched)))):
            assert decision.call_id in self.waiting, "only a waiting call is sent, and once"
            del self.waiting[decision.call_id]
            self.running[decision.call_id] = decision.engine
            self.dispatched.append((decision.call_id, decision.engine))
        used = list(self.running.values())
        assert all(used.count(engine) <= bound for engine, bound in self.bounds.items()), "never more than the bound"
        assert not self.waiting or len(used) == sum(self.bounds.values()), "no room stays empty while a call waits"

    def finish(self) -> None:
        while self.running:
            self.do("ended", 0)
        assert not self.waiting, "no call is lost"
        assert len(self.dispatched) + self.given_up == self.calls


@given(BOUNDS, ACTIONS)
def test_bounded_work_conserving_and_every_call_is_sent_once(bounds: Mapping[str, int], actions: list[tuple[str, int]]) -> None:
    outside = Outside(bounds)
    for action, number in actions:
        outside.do(action, number)
    outside.finish()


@given(BOUNDS, ACTIONS)
def test_the_same_events_give_the_same_decisions(bounds: Mapping[str, int], actions: list[tuple[str, int]]) -> None:
    one, other = Outside(bounds), Outside(bounds)
    for action, number in actions:
        one.do(action, number)
        other.do(action, number)
    assert one.dispatched == other.dispatched


@given(ACTIONS)
def test_nothing_is_remembered_of_programs_that_are_over(actions: list[tuple[str, int]]) -> None:
    outside = Outside({"x": 2})
    for action, number in actions:
        outside.do(action, number)
    outside.finish()
    for number in range(6):
        outside.do("program ended", number)
    assert not outside.policy._programs
    assert not outside.policy._queue


@pytest.mark.parametrize("programs", [1, 50])
def test_a_backlog_is_worked_off_program_by_program(programs: int) -> None:
    policy = one_at_a_time()
    calls = [(turn * programs + program + 1, f"p{program}") for turn in range(3) for program in range(programs)]
    sent = feed(policy, *(ready(call, program) for call, program in calls))
    while len(sent) < len(calls):
        sent += feed(policy, CallEnded(sent[-1]))
    names = dict(calls)
    order = [names[call] for call in sent]
    assert order == sorted(order, key=lambda name: int(name[1:]))
