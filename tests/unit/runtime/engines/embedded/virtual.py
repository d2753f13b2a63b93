"""An event loop whose time skips ahead when everybody sleeps: hours pass in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


class _SkippingSelector(selectors.SelectSelector):
    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("everybody waits, and for nothing")
        self.skipped += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.skipped


def run_virtually(function: Callable[[], Awaitable[T]]) -> T:
    """Run to the end on a loop of its own, from time 0."""
    return anyio.run(function, backend_options={"loop_factory": VirtualLoop})
