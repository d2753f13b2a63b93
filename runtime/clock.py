"""The only place that reads the wall clock. Durations and deadlines are the event loop's (`anyio.current_time`)."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Gives stamps for the journal."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()
