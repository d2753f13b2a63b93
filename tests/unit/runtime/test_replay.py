"""Replay: what a body asks again is answered from the record, and what it asks differently is an error."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import DivergentReplayError
from fairlead.runtime.replay import Effects, Recorded


def recorded(*asked: str, overlapped: Sequence[int] = ()) -> list[Recorded[str]]:
    """Effects that asked this, in this order, each answered with its number."""
    return [
        Recorded(ordinal, ordinal in overlapped, what, f"call {what}", f"answer {ordinal}")
        for ordinal, what in enumerate(asked)
    ]


def ask(effects: Effects[str], what: str, *, ordered: bool = True) -> str | None:
    """Issue and close at once: the recorded answer, or None for a new effect."""
    issued = effects.issue(what, f"call {what}", ordered=ordered)
    effects.close()
    return issued.recorded


def test_a_first_run_numbers_its_effects() -> None:
    effects = Effects[str]("step 's'")
    first, second = effects.issue("a", "a"), effects.issue("b", "b")
    assert (first.ordinal, first.overlapped, first.recorded) == (0, False, None)
    assert (second.ordinal, second.overlapped) == (1, True)  # the first was still open
    effects.close()
    effects.close()
    third = effects.issue("c", "c")
    assert (third.ordinal, third.overlapped) == (2, False)


def test_effects_in_line_are_answered_in_order_and_then_new_ones_begin() -> None:
    effects = Effects("step 's'", recorded("a", "b", "a"))
    assert [ask(effects, what) for what in "abac"] == ["answer 0", "answer 1", "answer 2", None]
    effects.end()


def test_the_number_of_a_new_effect_follows_the_recorded_ones() -> None:
    effects = Effects("step 's'", recorded("a", "b"))
    ask(effects, "a")
    ask(effects, "b")
    assert effects.issue("c", "c").ordinal == 2


def test_another_effect_in_the_place_of_a_recorded_one_is_an_error_that_shows_both() -> None:
    effects = Effects("step 's'", recorded("a", "b"))
    ask(effects, "a")
    with pytest.raises(DivergentReplayError) as caught:
        effects.issue("x", "call x")
    assert (caught.value.where, caught.value.expected, caught.value.found) == ("step 's'", "call b", "call x")


def test_a_recorded_effect_that_is_not_repeated_is_an_error() -> None:
    effects = Effects("step 's'", recorded("a", "b"))
    ask(effects, "a")
    with pytest.raises(DivergentReplayError, match=r"call b"):
        effects.end()


def test_effects_that_overlapped_are_found_in_any_order() -> None:
    effects = Effects("step 's'", recorded("a", "b", "c", overlapped=[1, 2]))
    assert [effects.issue(what, what).recorded for what in "acb"] == ["answer 0", "answer 2", "answer 1"]
    for _ in range(3):
        effects.close()
    effects.end()


def test_equal_effects_are_answered_in_the_order_in_which_they_were_recorded() -> None:
    effects = Effects("step 's'", recorded("a", "a", "a", overlapped=[1, 2]))
    assert [effects.issue("a", "a").recorded for _ in range(3)] == ["answer 0", "answer 1", "answer 2"]


def test_an_effect_that_was_not_reached_before_the_crash_is_new_where_effects_overlap() -> None:
    effects = Effects("step 's'", recorded("a", "c", overlapped=[1]))
    assert [effects.issue(what, what).recorded for what in "abc"] == ["answer 0", None, "answer 1"]
    for _ in range(3):
        effects.close()
    effects.end()


def test_effects_beside_the_line_of_the_body_have_no_order() -> None:
    effects = Effects("step 's'", recorded("a", "b", overlapped=[0, 1]))
    assert [ask(effects, what, ordered=False) for what in "ba"] == ["answer 1", "answer 0"]


def test_what_is_issued_beside_the_line_counts_as_overlapped() -> None:
    assert Effects[str]("step 's'").issue("a", "a", ordered=False).overlapped


@given(st.lists(st.sampled_from("abc"), max_size=10), st.integers(0, 10))
def test_repeating_the_beginning_of_a_line_answers_it_and_goes_on(asked: list[str], kept: int) -> None:
    effects = Effects("step 's'", recorded(*asked[:kept]))
    answers = [ask(effects, what) for what in asked]
    assert answers == [f"answer {index}" if index < kept else None for index in range(len(asked))]
    effects.end()


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8), st.data())
def test_whatever_part_of_concurrent_effects_was_recorded_each_record_answers_once(
    asked: list[str], data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.integers(0, len(asked) - 1)))
    record = [item for item in recorded(*asked, overlapped=range(len(asked))) if item.ordinal in kept]
    again = data.draw(st.permutations(asked))
    effects = Effects("step 's'", record)
    answers = [effects.issue(what, what, ordered=False).recorded for what in again]
    assert sorted(answer for answer in answers if answer is not None) == sorted(item.entry for item in record)
    for _ in again:
        effects.close()
    effects.end()
