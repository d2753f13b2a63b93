"""When a call is sent again, and how long it may take: bounded, in this one layer only. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    status: int | None, error: EngineError | None, retry_after: float | None, attempts: int, retries: CallRetries
) -> float | None:
    """Seconds to wait before sending again, or None if the outcome stands.

    `attempts` counts the requests sent. What the engine asks for (`retry_after`, seconds) is obeyed; if it is longer than
    `delay_max_s`, it ends the attempts.
    """
    if attempts >= retries.attempts_max:
        return None
    if error is not None and not error.retryable:
        return None
    if error is None and status not in RETRYABLE:
        return None
    if retry_after is not None:
        return retry_after if retry_after <= retries.delay_max_s else None
    return retries.delay_s * 2.0 ** (attempts - 1)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds that `retry-after-ms` or `retry-after` ask to wait; None where neither is a number of them."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            asked = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 <= asked < math.inf:
            return asked
    return None
