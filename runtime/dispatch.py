"""The shell around the scheduler: turns waiting calls into events and decisions into calls that go on."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio

from .engines.port import Engine
from .scheduling.port import CallEnded, CallReady, Dispatch, EngineAdded, Event, ProgramArrived, ProgramEnded, Scheduler, Why


class Place:
    """A call's place: where the decision arrives, and what became of the call."""

    __slots__ = ("call_id", "decided", "engine", "outcome")

    def __init__(self, call_id: int) -> None:
        self.call_id = call_id
        self.decided = anyio.Event()
        self.engine: Engine | None = None
        self.outcome = CallEnded(call_id)


class Dispatcher:
    """One per runtime. All methods belong to the event loop's thread."""

    def __init__(self, scheduler: Scheduler, engines: Mapping[str, Engine], in_flight_max: int) -> None:
        self._scheduler = scheduler
        self._engines = engines
        self._ids = itertools.count(1)
        self._places: dict[int, Place] = {}
        for engine in engines:
            self._handle(EngineAdded(engine, in_flight_max))

    @asynccontextmanager
    async def slot(self, program_id: str, tenant: str, *, agent: str, step: str) -> AsyncIterator[Engine]:
        """Wait until the scheduler gives the call an engine; the engine's place is free again on leaving."""
        place = Place(next(self._ids))
        self._places[place.call_id] = place
        try:
            self._handle(CallReady(place.call_id, program_id, tenant, agent, step))
            if place.engine is None:
                await place.decided.wait()
            assert place.engine is not None
            yield place.engine
        finally:
            del self._places[place.call_id]
            self._handle(place.outcome)

    def program_arrived(self, program_id: str, tenant: str, workflow: str) -> None:
        """Tell the scheduler of a root program before its first call."""
        self._handle(ProgramArrived(program_id, tenant, workflow=workflow))

    def program_ended(self, program_id: str) -> None:
        """Tell the scheduler that a root program makes no more calls."""
        self._handle(ProgramEnded(program_id))

    def explain(self, call_id: int) -> Why:
        """Why a call waits."""
        return self._scheduler.explain(call_id, anyio.current_time())

    def _handle(self, event: Event) -> None:
        for decision in self._scheduler.handle(event, anyio.current_time()):
            if isinstance(decision, Dispatch):
                place = self._places[decision.call_id]
                place.engine = self._engines[decision.engine]
                place.decided.set()
