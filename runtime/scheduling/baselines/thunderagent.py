"""ThunderAgent (arXiv 2602.13692 and its public code): whole programs are paused and resumed by a watermark, smallest first.

Every 5 s and engine: if the contexts of the programs that compute (R) and of those that wait for a tool (A) exceed the
capacity, programs are paused: acting ones first, then reasoning ones, which stop at their next request; smallest context first
in both (score 1/c + I(acting)). Paused programs of all engines wait in one line and are resumed smallest first (1/c +
I(reasoning)), on the least loaded engine, while sum_R c + sum_A c stays within the capacity; with `decay` an acting program
counts as c * 2^-t there (off in the release, and worse on traces with pauses of many seconds). 100 tokens of buffer for each
program; forced resume after 1,800 s; a program keeps its place for as long as it likes. Tokens shared across programs are not
subtracted: an unmodified engine does not tell them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..admission import Lane
from ..order import Still
from ..state import Agent, Call, Engine, Key

TICK_S = 5.0
BUFFER_TOKENS = 100
FORCED_RESUME_S = 1800.0


@dataclass(slots=True)
class PauseResume:
    """The admission part. Looks at every active program once per tick."""

    decay: bool = False
    """Count an acting program as 2^-t of its context when resuming; the release has this off."""
    eager: bool = True
    _active: dict[str, dict[Agent, None]] = field(default_factory=dict)
    _engines: dict[str, Engine] = field(default_factory=dict)
    _marked: set[Agent] = field(default_factory=set)
    _tick: float = 0.0

    def fits(self, engine: Engine, call: Call, lane: Lane, now: float) -> bool:
        self._engines[engine.name] = engine
        if lane is Lane.PLACE:
            return call.agent not in self._marked
        if lane is Lane.AGED or not engine.capacity or engine.in_flight == 0:
            return True
        if now != self._tick and not call.first:
            return False
        return self._use(engine, now, decay=self.decay) + call.prompt + BUFFER_TOKENS <= engine.capacity

    def room(self, engine: Engine, lane: Lane) -> float:
        return float("inf")

    def sent(self, call: Call, engine: Engine, now: float) -> None:
        agent = call.agent
        self._leave(agent)
        agent.home, agent.placed = engine, True
        self._active.setdefault(engine.name, {})[agent] = None
        agent.booked = call.prompt + BUFFER_TOKENS
        engine.booked += agent.booked

    def ended(self, call: Call, engine: Engine, now: float) -> None:
        agent = call.agent
        if agent not in self._active.get(engine.name, {}) or agent.home is not engine:
            return
        engine.booked += agent.context + BUFFER_TOKENS - agent.booked
        agent.booked = agent.context + BUFFER_TOKENS

    def waits(self, agent: Agent) -> None:
        self._leave(agent)

    def drop(self, agent: Agent) -> None:
        self._leave(agent)

    def starved(self, engine: Engine, call: Call) -> bool:
        return engine.in_flight == 0

    def make_room(self, engine: Engine, call: Call) -> None:
        return

    def expire(self, now: float) -> bool:
        if now < self._tick + TICK_S:
            return False
        self._tick = now
        for engine in self._engines.values():
            self._pause(engine, now)
        return True

    def next_expiry(self) -> float | None:
        return self._tick + TICK_S

    def _pause(self, engine: Engine, now: float) -> None:
        excess = self._use(engine, now, decay=False) - engine.capacity
        if not engine.capacity or excess <= 0:
            return
        for agent in sorted(self._active.get(engine.name, {}), key=lambda each: (each.calls > 0, each.booked)):
            if excess <= 0:
                return
            if agent in self._marked:
                continue
            excess -= agent.booked
            if agent.calls:
                self._marked.add(agent)
            else:
                self._leave(agent)

    def _use(self, engine: Engine, now: float, *, decay: bool) -> float:
        if not decay:
            return float(engine.booked)
        return sum(
            agent.booked * (1.0 if agent.calls or agent.idle_at is None else 2.0 ** -(now - agent.idle_at))
            for agent in self._active.get(engine.name, {})
        )

    def _leave(self, agent: Agent) -> None:
        if agent.home is not None and self._active.get(agent.home.name, {}).pop(agent, 0) is None:
            agent.home.booked -= agent.booked
        agent.booked, agent.placed = 0, False
        self._marked.discard(agent)


@dataclass(frozen=True, slots=True)
class SmallestContext(Still):
    """The order of the line: smallest context first."""

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        return (float(call.prompt), call.sequence)
