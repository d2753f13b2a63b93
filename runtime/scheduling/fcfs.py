"""Program-level first come, first served: calls of the program that came first go first, whatever their own age.

A program keeps its place between its calls, so programs finish instead of sharing a queue with everybody's next turn
(program FCFS as in Continuum, arXiv 2511.02230). Each engine takes a bounded number of calls at once.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from .port import CallEnded, CallReady, Decision, Dispatch, EngineAdded, EngineLost, Event, ProgramArrived, ProgramEnded, Why


@dataclass(slots=True)
class _Program:
    order: int
    calls: int = 0
    """Calls that wait or are in flight."""
    ended: bool = False


@dataclass(slots=True)
class ProgramFCFS:
    """The policy. O(log waiting calls) for each event, plus the engines looked at for each decision."""

    _limits: dict[str, int] = field(default_factory=dict, init=False)
    """Calls that an engine takes at once, by engine."""
    _in_flight: dict[str, int] = field(default_factory=dict, init=False)
    _programs: dict[str, _Program] = field(default_factory=dict, init=False)
    _queue: list[tuple[int, int, int]] = field(default_factory=list, init=False)
    """(place of the program, order of the call, call id); entries of given-up calls stay until they surface."""
    _waiting: dict[int, str] = field(default_factory=dict, init=False)
    """Program by waiting call."""
    _running: dict[int, tuple[str, str]] = field(default_factory=dict, init=False)
    """(program, engine) by call in flight."""
    _arrivals: int = field(default=0, init=False)

    def handle(self, event: Event, now: float) -> list[Decision]:
        match event:
            case EngineAdded(engine, in_flight_max):
                self._limits[engine] = in_flight_max
                self._in_flight.setdefault(engine, 0)
            case EngineLost(engine):
                self._limits.pop(engine, None)
            case ProgramArrived(program_id):
                self._program(program_id)
            case CallReady(call_id, program_id):
                self._arrive(call_id, program_id)
            case CallEnded(call_id):
                self._leave(call_id)
            case ProgramEnded(program_id):
                self._end(program_id)
            case _:
                return []
        return self._dispatch()

    def next_wakeup(self) -> float | None:
        return None

    def wake(self, now: float) -> list[Decision]:
        return []

    def explain(self, call_id: int, now: float) -> Why:
        if call_id in self._running:
            return Why("in flight", f"in flight on engine {self._running[call_id][1]!r}")
        if call_id not in self._waiting:
            return Why("unknown call", f"there is no call {call_id}")
        place = self._programs[self._waiting[call_id]].order
        ahead = sum(1 for order, _, other in self._queue if order < place and other in self._waiting)
        return Why("place", f"all engines are full; {ahead} calls of programs that came earlier go first", ahead)

    def _program(self, program_id: str) -> _Program:
        known = self._programs.get(program_id)
        if known is None:
            self._arrivals += 1
            known = self._programs[program_id] = _Program(self._arrivals)
        return known

    def _arrive(self, call_id: int, program_id: str) -> None:
        program = self._program(program_id)
        program.calls += 1
        self._arrivals += 1
        self._waiting[call_id] = program_id
        heapq.heappush(self._queue, (program.order, self._arrivals, call_id))

    def _leave(self, call_id: int) -> None:
        if call_id in self._running:
            program_id, engine = self._running.pop(call_id)
            self._in_flight[engine] -= 1
        elif call_id in self._waiting:
            program_id = self._waiting.pop(call_id)
        else:
            return
        program = self._programs[program_id]
        program.calls -= 1
        self._forget(program_id, program)

    def _end(self, program_id: str) -> None:
        program = self._programs.get(program_id)
        if program is not None:
            program.ended = True
            self._forget(program_id, program)

    def _forget(self, program_id: str, program: _Program) -> None:
        if program.ended and program.calls == 0:
            del self._programs[program_id]

    def _dispatch(self) -> list[Decision]:
        decisions: list[Decision] = []
        while self._queue:
            call_id = self._queue[0][2]
            if call_id not in self._waiting:
                heapq.heappop(self._queue)
                continue
            free = [name for name, limit in self._limits.items() if self._in_flight[name] < limit]
            if not free:
                break
            engine = min(free, key=lambda name: self._in_flight[name] / self._limits[name])
            heapq.heappop(self._queue)
            self._running[call_id] = (self._waiting.pop(call_id), engine)
            self._in_flight[engine] += 1
            decisions.append(Dispatch(call_id, engine))
        return decisions
