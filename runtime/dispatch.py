"""The shell around the scheduler: turns waiting calls into events and decisions into calls that go on."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio

from .engines.port import Engine
from .scheduling.port import CallEnded, CallReady, Event, ProgramEnded, Scheduler


class _Place:
    """A waiting call's place: where the decision arrives."""

    __slots__ = ("decided", "engine")

    def __init__(self) -> None:
        self.decided = anyio.Event()
        self.engine = ""


class Dispatcher:
    """One per runtime. All methods belong to the event loop's thread."""

    def __init__(self, scheduler: Scheduler, engines: Mapping[str, Engine]) -> None:
        self._scheduler = scheduler
        self._engines = engines
        self._ids = itertools.count(1)
        self._places: dict[int, _Place] = {}

    @asynccontextmanager
    async def slot(self, program_id: str, tenant: str) -> AsyncIterator[Engine]:
        """Wait until the scheduler gives the call an engine; the engine's place is free again on leaving."""
        call_id = next(self._ids)
        place = self._places[call_id] = _Place()
        try:
            self._handle(CallReady(call_id, program_id, tenant))
            if not place.engine:
                await place.decided.wait()
            yield self._engines[place.engine]
        finally:
            del self._places[call_id]
            self._handle(CallEnded(call_id))

    def program_ended(self, program_id: str) -> None:
        """Tell the scheduler that a root program makes no more calls."""
        self._handle(ProgramEnded(program_id))

    def _handle(self, event: Event) -> None:
        for decision in self._scheduler.handle(event, anyio.current_time()):
            place = self._places[decision.call_id]
            place.engine = decision.engine
            place.decided.set()
