"""Program-level first come, first served: calls of the program that came first go first, whatever their own age.

A program keeps its place between its calls, so programs finish instead of sharing a queue with everybody's next turn
(program FCFS as in Continuum, arXiv 2511.02230). Each engine takes a bounded number of calls at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from .port import CallEnded, CallReady, Dispatch, Event, ProgramEnded


@dataclass(slots=True)
class _Program:
    order: int
    calls: int = 0
    """Calls that wait or are in flight."""
    ended: bool = False


@dataclass(slots=True)
class ProgramFCFS:
    """The policy. `in_flight_max` gives, by engine, how many calls it takes at once."""

    in_flight_max: Mapping[str, int]
    _in_flight: dict[str, int] = field(init=False)
    _programs: dict[str, _Program] = field(default_factory=dict, init=False)
    _queue: list[tuple[int, int, int]] = field(default_factory=list, init=False)
    """(place of the program, order of the call, call id); entries of given-up calls stay until they surface."""
    _waiting: dict[int, str] = field(default_factory=dict, init=False)
    """Program by waiting call."""
    _running: dict[int, tuple[str, str]] = field(default_factory=dict, init=False)
    """(program, engine) by call in flight."""
    _arrivals: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._in_flight = dict.fromkeys(self.in_flight_max, 0)

    def handle(self, event: Event, now: float) -> list[Dispatch]:
        """O(log waiting calls), plus the engines looked at for each decision."""
        match event:
            case CallReady(call_id, program_id):
                self._arrive(call_id, program_id)
            case CallEnded(call_id):
                self._leave(call_id)
            case ProgramEnded(program_id):
                self._end(program_id)
        return self._dispatch()

    def next_wakeup(self) -> float | None:
        return None

    def explain(self, call_id: int) -> str:
        if call_id in self._running:
            return f"in flight on engine {self._running[call_id][1]!r}"
        if call_id not in self._waiting:
            return "unknown call"
        place = self._programs[self._waiting[call_id]].order
        ahead = sum(1 for order, _, other in self._queue if order < place and other in self._waiting)
        return f"program first come, first served: all engines are full, {ahead} calls of earlier programs go first"

    def _arrive(self, call_id: int, program_id: str) -> None:
        self._arrivals += 1
        program = self._programs.setdefault(program_id, _Program(self._arrivals))
        program.calls += 1
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

    def _dispatch(self) -> list[Dispatch]:
        decisions = []
        while self._queue:
            call_id = self._queue[0][2]
            if call_id not in self._waiting:
                heapq.heappop(self._queue)
                continue
            engine = min(self._in_flight, key=lambda name: self._in_flight[name] / self.in_flight_max[name])
            if self._in_flight[engine] >= self.in_flight_max[engine]:
                break
            heapq.heappop(self._queue)
            self._running[call_id] = (self._waiting.pop(call_id), engine)
            self._in_flight[engine] += 1
            decisions.append(Dispatch(call_id, engine))
        return decisions
