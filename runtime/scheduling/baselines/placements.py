"""Placement rules of other systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..placement import load
from ..state import Call, Engine


@dataclass(slots=True)
class RoundRobin:
    """The engines in turn."""

    _turn: int = 0

    def choose(self, call: Call, engines: Sequence[Engine], fits: Callable[[Engine], bool], now: float) -> Engine | None:
        for _ in engines:
            self._turn += 1
            engine = engines[self._turn % len(engines)]
            if fits(engine):
                return engine
        return None


@dataclass(slots=True)
class Affinity:
    """The program's engine for all of its calls; programs go to the engine with the fewest calls in flight.

    `short`: prompts of up to so many tokens go to the least used engine instead (Autellix: 2,048).
    """

    short: int = 0

    def choose(self, call: Call, engines: Sequence[Engine], fits: Callable[[Engine], bool], now: float) -> Engine | None:
        home = call.agent.home
        if home is not None and not home.lost and call.prompt > self.short:
            return home if fits(home) else None
        open_engines = [engine for engine in engines if fits(engine)]
        return min(open_engines, key=lambda engine: engine.in_flight, default=None)


@dataclass(slots=True)
class BestFit:
    """ThunderAgent: the engine with the most room (paused programs are taken smallest first, so the fullest that fits is
    found by the line itself)."""

    def choose(self, call: Call, engines: Sequence[Engine], fits: Callable[[Engine], bool], now: float) -> Engine | None:
        home = call.agent.home
        if home is not None and not home.lost and call.agent.placed:
            return home if fits(home) else None
        open_engines = [engine for engine in engines if fits(engine)]
        return min(open_engines, key=load, default=None)
