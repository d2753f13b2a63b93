"""The shell around the scheduler: turns waiting calls into events and decisions into calls that go on."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from ..budgets.usage import Usage
from .engines.port import Engine
from .scheduling.port import (
    CallEnded,
    CallFirstToken,
    CallReady,
    Decision,
    Dispatch,
    EngineAdded,
    Event,
    ProgramArrived,
    ProgramEnded,
    Scheduler,
    Why,
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What the scheduler is told of a call."""

    program_id: str
    """The root program."""
    tenant: str
    agent: str
    """Who inside the program asks; each has a prefix of its own."""
    step: str
    prompt_tokens: int
    """Estimated from the size of the request."""
    steps_left: int | None = None


class Slot:
    """A call's place in an engine: where the decision arrives, and what became of the call."""

    __slots__ = ("_dispatcher", "ask", "call_id", "decided", "engine", "first_token", "tool", "usage")

    def __init__(self, dispatcher: Dispatcher, ask: Ask, call_id: int) -> None:
        self._dispatcher = dispatcher
        self.ask = ask
        self.call_id = call_id
        self.decided = anyio.Event()
        self.engine: Engine | None = None
        self.usage = Usage()
        self.tool = ""
        """First tool that the answer asks for."""
        self.first_token = False

    def answering(self) -> None:
        """Note that the answer has begun to come."""
        if not self.first_token:
            self.first_token = True
            self._dispatcher.tell(CallFirstToken(self.call_id))


class Dispatcher:
    """One per runtime. All methods belong to the event loop's thread."""

    def __init__(self, scheduler: Scheduler, engines: Mapping[str, Engine], in_flight_max: int) -> None:
        self._scheduler = scheduler
        self._engines = engines
        self._ids = itertools.count(1)
        self._slots: dict[int, Slot] = {}
        self._asleep_until = math.inf
        """When `wake` will look again."""
        self._sooner = anyio.Event()
        for name, engine in engines.items():
            self.tell(EngineAdded(name, in_flight_max, engine.kv_tokens))

    @asynccontextmanager
    async def slot(self, ask: Ask) -> AsyncIterator[tuple[Slot, Engine]]:
        """Wait until the scheduler gives the call an engine, whose place is free again on leaving."""
        slot = Slot(self, ask, next(self._ids))
        self._slots[slot.call_id] = slot
        try:
            self.tell(
                CallReady(
                    slot.call_id,
                    ask.program_id,
                    ask.tenant,
                    ask.agent,
                    ask.step,
                    prompt_tokens=ask.prompt_tokens,
                    steps_left=ask.steps_left,
                )
            )
            if slot.engine is None:
                await slot.decided.wait()
            assert slot.engine is not None
            yield slot, slot.engine
        finally:
            del self._slots[slot.call_id]
            used = slot.usage
            self.tell(CallEnded(slot.call_id, used.input_tokens, used.cached_tokens, used.output_tokens, slot.tool))

    def program_arrived(self, program_id: str, tenant: str, workflow: str, steps_known: int | None) -> None:
        """Tell the scheduler of a root program before its first call."""
        self.tell(ProgramArrived(program_id, tenant, workflow=workflow, steps_known=steps_known))

    def program_ended(self, program_id: str) -> None:
        """Tell the scheduler that a root program makes no more calls."""
        self.tell(ProgramEnded(program_id))

    def why(self, program_id: str) -> dict[str, Why]:
        """Why the waiting calls of a root program wait, by the agent that asked. O(calls of all programs)."""
        now = anyio.current_time()
        waiting = (slot for slot in self._slots.values() if slot.engine is None)
        return {
            slot.ask.agent: self._scheduler.explain(slot.call_id, now) for slot in waiting if slot.ask.program_id == program_id
        }

    def tell(self, event: Event) -> None:
        """Give the scheduler an event and carry out what it decides."""
        self._carry_out(self._scheduler.handle(event, anyio.current_time()))

    async def wake(self) -> None:
        """Carry out, for ever, the decisions that time alone makes due."""
        while True:
            self._sooner = anyio.Event()
            self._asleep_until = self._due()
            with anyio.CancelScope(deadline=self._asleep_until):
                await self._sooner.wait()
                continue
            self._carry_out(self._scheduler.wake(anyio.current_time()))

    def _due(self) -> float:
        at = self._scheduler.next_wakeup()
        return math.inf if at is None else at

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Dispatch):
                slot = self._slots[decision.call_id]
                slot.engine = self._engines[decision.engine]
                slot.decided.set()
        if self._due() < self._asleep_until:
            self._sooner.set()
