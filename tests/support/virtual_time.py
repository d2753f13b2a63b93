"""An event loop whose clock jumps when nothing is ready, so that hours of waiting pass in milliseconds.

A module chooses it by overriding the fixture: `anyio_backend = virtual_time`. Not for tests with threads or sockets: what
they wait for is not on this loop, so its clock would run away while they work.
"""

from __future__ import annotations

import asyncio
import selectors

import pytest


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: what it is asked to wait is added to `now`."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("every task waits, and for nothing that could come")
            self.now += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at time 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture(name="anyio_backend", scope="module")
def virtual_time() -> tuple[str, dict[str, object]]:
    """The anyio backend for modules whose tests wait."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class SetClock:
    """A wall clock that stands where it was set."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time
