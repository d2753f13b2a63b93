"""How many KV tokens an engine has: told by the engine, or learned from what it does.

The shadow of the cache (`residency`) gives each returning prefix a distance: what the cache must hold for it still to be there.
A hit shows a capacity of at least the distance, a miss one below it; a usage report with known tokens in flight gives it
directly; a preemption says that too much was sent. Between the signs the estimate grows slowly while calls wait (additive
increase, multiplicative decrease, as in CONCUR, arXiv 2601.22705).
"""

from __future__ import annotations

from dataclasses import dataclass

from .state import Call, Engine


@dataclass(slots=True)
class Capacity:
    start: float = 200_000.0
    """Tokens, for an engine that says nothing and whose size is to be learned."""
    least: float = 16_000.0
    decrease: float = 0.93
    increase: float = 0.002
    """Share by which the estimate grows with each answer, while calls wait and prefixes hold."""

    def added(self, engine: Engine, kv_tokens: int | None, *, learns: bool) -> None:
        """An engine has come. A capacity of 0 stands for one that limits nothing."""
        engine.known = kv_tokens is not None or not learns
        engine.capacity = float(kv_tokens or 0) if engine.known else self.start
        engine.residency.limit = engine.capacity

    def answered(self, engine: Engine, call: Call, cached: int | None, *, waiting: bool) -> None:
        """A call has ended: compare what was cached with what its shadow said (`expected_cached`, at `distance`)."""
        distance, expected = call.distance, call.expected_cached
        if engine.known or cached is None:
            return
        if distance is not None and expected >= 1024:
            if cached >= 0.8 * expected:
                self._set(engine, max(engine.capacity, distance))
            elif cached < 0.5 * expected:
                self._set(engine, max(self.least, self.decrease * min(engine.capacity, max(distance, engine.capacity / 2))))
                return
        if waiting:
            self._set(engine, engine.capacity * (1 + self.increase))

    def reported(self, engine: Engine, usage: float | None, preemptions: int | None) -> None:
        """The engine said how much of its memory calls in flight hold, and how often it has preempted."""
        if preemptions is not None:
            if preemptions > engine.preemptions and not engine.known:
                self._set(engine, max(self.least, engine.capacity * self.decrease))
            engine.preemptions = preemptions
        if usage is not None and usage > 0.3 and not engine.known and engine.active:
            self._set(engine, 0.8 * engine.capacity + 0.2 * engine.active / usage)

    @staticmethod
    def _set(engine: Engine, tokens: float) -> None:
        engine.capacity = engine.residency.limit = tokens
