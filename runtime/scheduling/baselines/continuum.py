"""Continuum / CacheTTL (arXiv 2511.02230): a time to live for each pause, and programs first come, first served.

The paper's estimator: tau* = argmax P(tau, tool) (T eta + reload) - tau over the observed durations of the tool and 0, with T
the sliding mean of the queueing delay of programs that came back too late, eta = -Corr(turns served, turns left), and reload
the time to prefill the context. Up to 100 observations the default is ln(B) for B = T eta + reload above 1, with eta = 1 (the
optimum under Exp(1) durations); up to 100 of one tool all tools together. Public code: a fixed two seconds (`FixedStay`). The
window of T is not published: 100 here. Pins become places at the gate; on engines that pin, pins too.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from dataclasses import dataclass, field

from ..admission import Lane, WorkingSet
from ..estimates import Stay
from ..keepalive import Kept, recompute_s
from ..order import Still
from ..state import Agent, Call, Engine, Key, Program

COLD = 100


@dataclass(slots=True)
class _Correlation:
    """-Corr(k, N - k) over the turns of finished programs, from running sums."""

    count: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    def finished(self, turns: int) -> None:
        for served in range(1, turns + 1):
            left = turns - served
            self.count += 1
            self.x += served
            self.y += left
            self.xx += served * served
            self.yy += left * left
            self.xy += served * left

    @property
    def eta(self) -> float:
        spread = (self.count * self.xx - self.x**2) * (self.count * self.yy - self.y**2)
        if self.count < COLD or spread <= 0:
            return 1.0
        return -(self.count * self.xy - self.x * self.y) / math.sqrt(spread)


@dataclass(slots=True)
class TimeToLive(Kept):
    """The keep-alive part."""

    correlation: _Correlation = field(default_factory=_Correlation)
    _durations: dict[str, list[float]] = field(default_factory=dict)
    _all: list[float] = field(default_factory=list)
    _delays: deque[float] = field(default_factory=lambda: deque(maxlen=100))

    def returned(self, agent: Agent, seconds: float) -> None:
        bisect.insort(self._all, seconds)
        bisect.insort(self._durations.setdefault(agent.kind, []), seconds)

    def waited(self, call: Call, seconds: float) -> None:
        if not call.agent.placed:
            self._delays.append(seconds)

    def finished(self, program: Program) -> None:
        self.correlation.finished(program.made)

    def stay(self, agent: Agent, engine: Engine, now: float) -> Stay:
        delay = sum(self._delays) / len(self._delays) if self._delays else 0.0
        reload = recompute_s(agent.context, engine)
        if len(self._all) <= COLD:
            benefit = delay + reload
            seconds = math.log(benefit) if benefit > 1 else 0.0
            return Stay(seconds, 1.0, seconds)
        own = self._durations.get(agent.kind, [])
        seconds = _best(own if len(own) > COLD else self._all, delay * self.correlation.eta + reload)
        return Stay(seconds, 1.0, seconds)


def _best(durations: list[float], benefit: float) -> float:
    """The observed duration with the largest P benefit - tau, or 0. At most 200 of them are looked at."""
    step = max(1, len(durations) // 200)
    best, value = 0.0, 0.0
    for index in range(0, len(durations), step):
        gain = (index + 1) / len(durations) * benefit - durations[index]
        if gain > value:
            best, value = durations[index], gain
    return best


@dataclass(slots=True)
class PinnedSet(WorkingSet):
    """Admission with pinned prefixes counted as used; a call that nothing fits beside unpins the latest programs first."""

    def room(self, engine: Engine, lane: Lane) -> float:
        return math.inf  # a waiting call may have its memory already

    def waits(self, agent: Agent) -> None:
        """A pin does not end while its program waits."""

    def make_room(self, engine: Engine, call: Call) -> None:
        idle = self._idle.get(engine.name, {})
        for agent in sorted(idle, key=lambda each: -each.program.order):
            if engine.booked + call.need <= self.shares.hard * engine.capacity:
                return
            self._lose(agent)


@dataclass(frozen=True, slots=True)
class PinnedFirst(Still):
    """Pinned and inside its time, then by the program's arrival."""

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        return (0.0 if call.agent.placed else 1.0, call.program.order, call.sequence)
