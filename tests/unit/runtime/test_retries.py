"""When a call to an engine is sent again, as arithmetic."""

from __future__ import annotations

import pytest

from fairlead import EngineError
from fairlead.runtime.retries import CallRetries, retry_after_s, retry_delay

RETRIES = CallRetries(attempts_max=4, delay_s=0.25, delay_max_s=60)
BROKEN = EngineError("connection reset", engine="e", retryable=True)
WRONG = EngineError("larger than allowed", engine="e")


@pytest.mark.parametrize(
    ("status", "error", "asked", "attempts", "delay"),
    [
        (503, None, None, 1, 0.25),
        (503, None, None, 2, 0.5),
        (503, None, None, 3, 1.0),
        (503, None, None, 4, None),  # four were sent
        (429, None, None, 1, 0.25),
        (529, None, None, 1, 0.25),
        (408, None, None, 1, 0.25),
        (200, None, None, 1, None),  # nothing is wrong
        (400, None, None, 1, None),  # would be refused again
        (401, None, None, 1, None),
        (404, None, None, 1, None),
        (501, None, None, 1, None),
        (429, None, 7.0, 1, 7.0),  # what the engine asks for
        (429, None, 60.0, 1, 60.0),
        (429, None, 61.0, 1, None),  # an answer, not a delay
        (429, None, 0.0, 3, 0.0),
        (429, None, 1.0, 4, None),
        (400, None, 1.0, 1, None),  # asking does not make it worth it
        (None, BROKEN, None, 1, 0.25),
        (None, BROKEN, None, 4, None),
        (200, BROKEN, None, 1, 0.25),  # broken after the status
        (503, WRONG, None, 1, None),
        (None, WRONG, None, 1, None),
    ],
)
def test_which_outcomes_are_tried_again_and_when(
    status: int | None, error: EngineError | None, asked: float | None, attempts: int, delay: float | None
) -> None:
    assert retry_delay(status, error, asked, attempts, RETRIES) == delay


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),  # the finer one
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_how_long_an_engine_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds
