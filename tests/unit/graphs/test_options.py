"""Retries, timeouts and the other options of a step: arithmetic, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead import Cache, DeclarationError, Retry, Timeout, step
from fairlead.graphs.options import StepOptions, retry_of, timeout_of

EXACT = Retry(attempts=6, delay=0.5, factor=2, delay_max=3, jitter=0)


@pytest.mark.parametrize(
    ("attempt", "delay"),
    [
        (1, 0.5),  # the first delay as it is
        (2, 1.0),  # each further one is twice as long
        (3, 2.0),
        (4, 3.0),  # but never longer than delay_max
        (5, 3.0),
        (6, None),  # the sixth attempt was the last
        (7, None),
    ],
)
def test_delays_grow_by_the_factor_up_to_the_longest(attempt: int, delay: float | None) -> None:
    assert EXACT.again_in(attempt, ValueError(), "seed") == delay


@given(st.integers(1, 9), st.floats(0, 1), st.text())
def test_jitter_shortens_a_delay_by_at_most_its_share(attempt: int, jitter: float, seed: str) -> None:
    retry = Retry(attempts=10, delay=1, delay_max=100, jitter=jitter)
    exact = Retry(attempts=10, delay=1, delay_max=100, jitter=0).again_in(attempt, ValueError(), seed)
    delay = retry.again_in(attempt, ValueError(), seed)
    assert exact is not None
    assert delay is not None
    assert exact * (1 - jitter) - 1e-9 <= delay <= exact


def test_jitter_is_the_same_for_the_same_step_and_differs_between_steps() -> None:
    retry = Retry(attempts=2, delay=1, jitter=0.5)
    delays = {retry.again_in(1, ValueError(), f"step {number}") for number in range(20)}
    assert len(delays) == 20
    assert delays == {retry.again_in(1, ValueError(), f"step {number}") for number in range(20)}


@pytest.mark.parametrize(
    ("on", "error", "again"),
    [
        (Exception, ValueError(), True),
        (ValueError, ValueError(), True),
        (ValueError, UnicodeError(), True),  # a subclass
        (ValueError, KeyError(), False),
        ((KeyError, OSError), TimeoutError(), True),  # TimeoutError is an OSError
        ((KeyError, OSError), ValueError(), False),
        (lambda error: "busy" in str(error), ValueError("busy now"), True),
        (lambda error: "busy" in str(error), ValueError("broken"), False),
    ],
)
def test_only_errors_that_are_worth_it_are_tried_again(on: Any, error: Exception, again: bool) -> None:
    assert (Retry(attempts=2, on=on).again_in(1, error, "") is not None) is again


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"delay": -1},
        {"factor": 0.5},
        {"delay_max": -1},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"delay": float("nan")},
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        Retry(**settings)


@pytest.mark.parametrize("settings", [{"hard": 0}, {"hard": -1}, {"idle": 0}, {"idle": float("nan")}])
def test_a_timeout_must_be_positive(settings: dict[str, float]) -> None:
    with pytest.raises(DeclarationError, match="more than 0 seconds"):
        Timeout(**settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"idempotency": "maybe"}, "pure, idempotent, unsafe"),
        ({"key": ""}, "key"),
        ({"key": "a[b]"}, "brackets"),
        ({"key": "7"}, "plain number"),  # elements of a map are numbered
        ({"limit": 0}, "limit=0"),
        ({"estimate": -1}, "estimate"),
        ({"estimate": float("nan")}, "estimate"),
        ({"cache": Cache(), "idempotency": "unsafe"}, "unsafe step cannot be cached"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeclarationError, match=reason):
        StepOptions(**settings)


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(DeclarationError, match="retries"):
        step(retries=3)(_plain)  # type: ignore[call-overload]  # the mistake


def test_short_forms_stand_for_attempts_and_a_hard_limit() -> None:
    assert retry_of(4) == Retry(attempts=4)
    assert retry_of(None).attempts == 1
    assert timeout_of(60) == Timeout(hard=60.0)
    assert timeout_of(None) == Timeout()


def test_options_of_one_use_leave_the_declared_step_as_it_is() -> None:
    declared = step(retry=2, limit=5)(_plain)
    changed = declared.options(retry=7)
    assert (declared.settings.retry.attempts, declared.settings.limit) == (2, 5)
    assert (changed.settings.retry.attempts, changed.settings.limit) == (7, 5)
    assert changed.name == declared.name


async def _plain(n: int) -> int:
    return n
