"""Which engine a call goes to: the least expected finish over its home, two hash candidates and the least loaded.

Cold and paused programs have no queue of their own: they wait in one line for all engines, and are placed when they are sent.
A program whose prefix is still on an engine waits for that engine until it has waited twice what the prefix is worth; then it
is moved (stealing with hysteresis: moving is never cheaper than a wait that has not happened yet).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from .keepalive import recompute_s
from .state import Call, Engine


class Placement(Protocol):
    """Chooses an engine."""

    def choose(self, call: Call, engines: Sequence[Engine], fits: Callable[[Engine], bool], now: float) -> Engine | None:
        """An engine for which `fits` holds (it has a place in flight and memory), or None if the call should wait."""


def candidates(text: str, engines: Sequence[Engine]) -> tuple[Engine, Engine]:
    """Two engines by hash: the same text gives the same ones in every process."""
    digest = blake2b(text.encode(), digest_size=16).digest()
    first = int.from_bytes(digest[:8], "big") % len(engines)
    second = int.from_bytes(digest[8:], "big") % len(engines)
    return engines[first], engines[second]


def load(engine: Engine) -> float:
    """How full an engine is: its memory where that is known, else its places."""
    return engine.booked / engine.capacity if engine.capacity else engine.in_flight / engine.in_flight_max


@dataclass(slots=True)
class LeastFinish:
    """See the module."""

    patience: float = 2.0
    """A call leaves its home when it has waited this many times what rebuilding its prefix takes."""
    short: int = 2048
    """Prompts up to this many tokens ignore where their prefix is (Autellix: any engine has most of them)."""
    tolerance: float = 0.1
    """A hash candidate is taken if its load exceeds the least by at most this much."""

    def choose(self, call: Call, engines: Sequence[Engine], fits: Callable[[Engine], bool], now: float) -> Engine | None:
        if len(engines) == 1:
            return engines[0] if fits(engines[0]) else None
        home = call.agent.home
        warm = 0
        if home is not None and not home.lost and call.prompt > self.short:
            warm = home.residency.tokens_of((call.program.program_id, call.agent.name))
        if home is None or not warm:
            return self._cold(call, engines, fits)
        if fits(home):
            return home
        if now - call.ready_at < self.patience * recompute_s(warm, home):
            return None
        return self._cold(call, engines, fits)

    def _cold(self, call: Call, engines: Sequence[Engine], fits: Callable[[Engine], bool]) -> Engine | None:
        open_engines = [engine for engine in engines if fits(engine)]
        if not open_engines:
            return None
        least = min(open_engines, key=load)
        for engine in candidates(call.program.workflow + "\n" + call.agent.name, engines):
            if load(engine) <= load(least) + self.tolerance and fits(engine):
                return engine
        return least
