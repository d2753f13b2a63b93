"""When a call is sent again, and how long it may take: bounded, in this one layer only. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import EngineError


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of one request to an engine."""

    idle_s: float = 600.0
    """Seconds without a byte."""
    total_s: float = 3600.0
    """Seconds from sending to the last byte."""
    bytes_max: int = 64 * 1024 * 1024
    """Size of an answer."""
    close_s: float = 1.0
    """Seconds for closing a connection, when the call is being cancelled."""


@dataclass(frozen=True, slots=True)
class CallRetries:
    """How refusals and broken connections are retried."""

    attempts_max: int = 4
    delay_s: float = 0.25
    """Before the second attempt; doubled for each further one."""
    delay_max_s: float = 60.0
    """Longest wait that a `retry-after` header may ask for; a longer one is an answer, not a delay."""


RETRIES = CallRetries()

RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""


def retry_delay(
    status: int | None, error: EngineError | None, retry_after: str | None, attempts: int, retries: CallRetries
) -> float | None:
    """Seconds to wait before sending again, or None if the outcome stands.

    `attempts` counts the requests sent. A `retry-after` in seconds is obeyed; one that is longer than `delay_max_s` ends
    the attempts.
    """
    if attempts >= retries.attempts_max:
        return None
    if error is not None and not error.retryable:
        return None
    if error is None and status not in RETRYABLE:
        return None
    delay = retries.delay_s * 2.0 ** (attempts - 1)
    if retry_after is not None:
        try:
            asked = float(retry_after)
        except ValueError:
            return delay
        return max(asked, 0.0) if asked <= retries.delay_max_s else None
    return delay
