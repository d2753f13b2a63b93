"""The tasks that a body has started: they end with it, whatever way it ends.

A task group for every attempt would do the same at a fifth of the price of a whole step, and most bodies start nothing; so
the tasks run in the task group of the program, each in a scope of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVarTuple, Unpack

import anyio
from anyio.abc import TaskGroup

Args = TypeVarTuple("Args")


class Nursery:
    """Tasks of one body inside the task group of its program. Whoever made it awaits `drained` before the body is over."""

    __slots__ = ("_empty", "_host", "_scopes")

    def __init__(self, host: TaskGroup) -> None:
        self._host = host
        self._scopes: set[anyio.CancelScope] = set()
        self._empty: anyio.Event | None = None

    def start_soon(self, function: Callable[[Unpack[Args]], Awaitable[object]], *args: *Args) -> None:
        """Start a task."""
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        self._host.start_soon(self._run, scope, function, args)

    def cancel(self) -> None:
        """Cancel all tasks."""
        for scope in self._scopes:
            scope.cancel()

    async def drained(self) -> None:
        """Return when no task is left; at once if there is none."""
        while self._scopes:
            self._empty = anyio.Event()
            await self._empty.wait()

    async def cancelled(self) -> None:
        """Cancel all tasks and return when none is left, also while the caller is being cancelled."""
        self.cancel()
        with anyio.CancelScope(shield=True):
            await self.drained()

    async def _run(
        self, scope: anyio.CancelScope, function: Callable[[Unpack[Args]], Awaitable[object]], args: tuple[*Args]
    ) -> None:
        try:
            with scope:
                await function(*args)
        finally:
            self._scopes.discard(scope)
            if self._empty is not None and not self._scopes:
                self._empty.set()
