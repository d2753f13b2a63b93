"""The table of states: which transitions are legal, and what counts as ended."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fairlead.runtime.states import ENDED, NEXT, ProgramState

S = ProgramState


def test_every_state_has_its_transitions() -> None:
    assert set(NEXT) == set(ProgramState)


@pytest.mark.parametrize(
    "life",
    [
        (S.ACCEPTED, S.RUNNING, S.SUCCEEDED),
        (S.ACCEPTED, S.QUEUED, S.RUNNING, S.FAILED),
        (S.ACCEPTED, S.CANCELLED),  # cancelled before it started
        (S.RUNNING, S.WAITING, S.RUNNING, S.TIMED_OUT),
        (S.WAITING, S.CANCELLED),
        (S.FAILED, S.RUNNING, S.SUCCEEDED),  # taken up again by a person
        (S.CANCELLED, S.RUNNING),
        (S.TIMED_OUT, S.RUNNING),
        (S.RUNNING, S.BUDGET_EXCEEDED, S.RUNNING),
    ],
)
def test_a_life_that_is_legal(life: tuple[ProgramState, ...]) -> None:
    assert all(after in NEXT[before] for before, after in pairwise(life))


def test_success_is_final() -> None:
    assert NEXT[S.SUCCEEDED] == frozenset()


def test_an_ended_program_can_only_be_taken_up_again() -> None:
    assert all(NEXT[state] <= {S.RUNNING} for state in ENDED)


def test_every_state_can_be_reached_from_the_first() -> None:
    reached, todo = {S.ACCEPTED}, [S.ACCEPTED]
    while todo:
        for state in NEXT[todo.pop()] - reached:
            reached.add(state)
            todo.append(state)
    assert reached == set(ProgramState)
