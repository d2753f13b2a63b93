"""Random bodies against `Effects`: what is the same replays, in whatever order its parts end; what is changed is noticed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import DivergentReplayError
from fairlead.runtime.replay import Effects, Issued, Recorded

asked = st.sampled_from("abcd")
"""Few different requests, so that equal ones meet."""
sequences = st.lists(asked, max_size=12)
bodies = st.lists(st.lists(asked, min_size=1, max_size=4), min_size=1, max_size=4)
"""Each inner list is a task of the body that makes its requests one after the other."""


@dataclass
class Run:
    """Runs a body step by step: a schedule of numbers says which of its tasks goes on next."""

    effects: Effects[str]
    journal: list[Recorded[str]] = field(default_factory=list)
    """In the order in which effects end, as a journal has it."""
    answers: dict[tuple[int, int], str] = field(default_factory=dict)
    """What each request of each task was answered with."""
    fresh: int = 0
    """Requests that no record answered."""

    def sequence(self, requests: list[str]) -> None:
        for index, digest in enumerate(requests):
            self.end(0, index, digest, self.effects.issue(digest, digest))

    def tasks(self, body: list[list[str]], schedule: list[int]) -> None:
        """One choice of the schedule issues the next request of a task, or ends the one it has open."""
        done = [0] * len(body)
        opened: dict[int, Issued[str]] = {}
        choices = iter(schedule)
        while going := [task for task, requests in enumerate(body) if done[task] < len(requests)]:
            task = going[next(choices, 0) % len(going)]
            digest = body[task][done[task]]
            if task in opened:
                self.end(task, done[task], digest, opened.pop(task))
                done[task] += 1
            else:
                opened[task] = self.effects.issue(digest, digest, ordered=len(body) == 1)

    def whole_sequence(self, requests: list[str]) -> None:
        """A sequential body from its start to its end."""
        self.sequence(requests)
        self.effects.end()

    def all_tasks(self, body: list[list[str]], schedule: list[int]) -> None:
        """A concurrent body from its start to its end."""
        self.tasks(body, schedule)
        self.effects.end()

    def end(self, task: int, index: int, digest: str, issued: Issued[str]) -> None:
        self.effects.close()
        if issued.recorded is None:
            self.fresh += 1
        answer = issued.recorded or f"{digest}{issued.ordinal}"
        self.answers[task, index] = answer
        self.journal.append(Recorded(issued.ordinal, issued.overlapped, digest, digest, answer))


def first_run() -> Run:
    return Run(Effects("body"))


def replay(journal: list[Recorded[str]]) -> Run:
    return Run(Effects("body", journal))


@given(sequences, st.data())
def test_a_sequential_body_replays_from_every_prefix(requests: list[str], data: st.DataObject) -> None:
    first = first_run()
    first.sequence(requests)
    kept = data.draw(st.integers(0, len(requests)))
    second = replay(first.journal[:kept])
    second.whole_sequence(requests)
    assert second.answers == first.answers
    assert second.fresh == len(requests) - kept


@given(sequences, st.data())
def test_a_changed_sequential_body_is_noticed_before_it_asks_anything_new(requests: list[str], data: st.DataObject) -> None:
    first = first_run()
    first.sequence(requests)
    changed = data.draw(sequences.filter(lambda other: other[: len(requests)] != requests))
    second = replay(first.journal)
    with pytest.raises(DivergentReplayError):
        second.whole_sequence(changed)
    assert second.fresh == 0


@given(sequences.filter(len), st.data())
def test_the_error_names_what_was_expected_and_what_was_found(requests: list[str], data: st.DataObject) -> None:
    first = first_run()
    first.sequence(requests)
    place = data.draw(st.integers(0, len(requests) - 1))
    second = replay(first.journal)
    second.sequence(requests[:place])
    with pytest.raises(DivergentReplayError) as raised:
        second.effects.issue("new", "new")
    assert (raised.value.expected, raised.value.found) == (requests[place], "new")


@settings(max_examples=300)
@given(bodies, st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)), st.data())
def test_a_concurrent_body_replays_from_every_prefix_in_any_order(
    body: list[list[str]], schedule: list[int], other: list[int], data: st.DataObject
) -> None:
    first = first_run()
    first.tasks(body, schedule)
    kept = first.journal[: data.draw(st.integers(0, len(first.journal)))]
    second = replay(kept)
    second.all_tasks(body, other)
    assert second.fresh == len(first.journal) - len(kept), "an answer that was recorded was asked for again"
    assert {record.entry for record in kept} <= set(second.answers.values())


@settings(max_examples=300)
@given(bodies, st.lists(st.lists(st.integers(0, 5)), min_size=2, max_size=4), st.data())
def test_a_body_that_crashes_again_and_again_asks_for_everything_once(
    body: list[list[str]], schedules: list[list[int]], data: st.DataObject
) -> None:
    """What every crash leaves is a prefix of what the run wrote; what earlier runs wrote stays."""
    journal: dict[int, Recorded[str]] = {}
    asked_for = 0
    for schedule in schedules:
        run = replay(list(journal.values()))
        run.tasks(body, schedule)
        new = [record for record in run.journal if record.ordinal not in journal]
        assert run.fresh == len(new), "two effects got the same number"
        kept = new[: data.draw(st.integers(0, len(new)))]
        asked_for += len(kept)
        journal |= {record.ordinal: record for record in kept}
    assert len(journal) == asked_for <= sum(map(len, body))


@settings(max_examples=300)
@given(bodies, st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)), st.data())
def test_a_concurrent_body_that_leaves_something_out_is_noticed_at_its_end(
    body: list[list[str]], schedule: list[int], other: list[int], data: st.DataObject
) -> None:
    first = first_run()
    first.tasks(body, schedule)
    shorter = [list(requests) for requests in body]
    shorter[data.draw(st.integers(0, len(body) - 1))].pop()
    second = replay(first.journal)
    with pytest.raises(DivergentReplayError):
        second.all_tasks([requests for requests in shorter if requests], other)
