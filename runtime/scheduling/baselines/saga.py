"""SAGA (arXiv 2605.00528; formulas and constants of its public code): WA-LRU, tool TTL, affinity with stealing, AFS.

- Eviction score, largest goes first: 0.3 min(1, idle/tau_max) + 0.5 (1 - P_reuse) + 0.2 min(1, size/size_max), with P_reuse =
  (1 - p_end) cached / (cached + observation). The engine model keeps one value per prefix, so the idle term is written as a
  bonus for the time of release (the cap at tau_max is left out).
- TTL: min(p95 of the tool (1 - 0.5 m), 300 s), m = clamp((used - 0.7) / 0.2); p95 of a log-normal kept by exponential averages
  in log space (alpha 0.1), starting from the published figures. The prefix is pinned for that time.
- Placement: the home engine if its load is below 0.8, else the least loaded; a waiting session is stolen when an engine is idle
  or loads differ by more than a factor of 2.
- AFS: tenants by urgency, weight x pending work / (earliest deadline - now), deadline = arrival + 1.5 x expected completion;
  programs inside by least slack. Preemption of running calls is left out: nobody can do that from in front of an engine.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..estimates import Mean, Stay
from ..keepalive import Kept
from ..order import Still
from ..placement import load
from ..port import Keep
from ..state import Agent, Call, Engine, Key, Program, Tenant

TAU_MAX_S = 300.0
SIZE_MAX_TOKENS = 32_768
END_PROBABILITY = 0.05
TTL_MAX_S = 300.0
SLO_FACTOR = 1.5
_COLD_START = {"code": (0.180, 2.4), "file": (0.045, 0.320), "web": (0.850, 4.5), "db": (0.120, 0.890)}
_Z95 = 1.645


@dataclass(slots=True)
class _LogNormal:
    mu: float
    variance: float

    def observe(self, seconds: float, alpha: float = 0.1) -> None:
        delta = math.log(max(seconds, 1e-4)) - self.mu
        self.mu += alpha * delta
        self.variance = (1 - alpha) * (self.variance + alpha * delta * delta)

    @property
    def p95(self) -> float:
        return math.exp(self.mu + _Z95 * math.sqrt(self.variance))


@dataclass(slots=True)
class ToolTTL(Kept):
    """The keep-alive part."""

    observation: Mean = field(default_factory=lambda: Mean(500.0))
    _tools: dict[str, _LogNormal] = field(default_factory=dict)

    def stay(self, agent: Agent, engine: Engine, now: float) -> Stay:
        used = engine.booked / engine.capacity if engine.capacity else 0.0
        pressure = min(1.0, max(0.0, (used - 0.7) / 0.2))
        seconds = min(self._tool(agent).p95 * (1 - 0.5 * pressure), TTL_MAX_S)
        return Stay(seconds, 1.0, seconds)

    def returned(self, agent: Agent, seconds: float) -> None:
        self._tool(agent).observe(seconds)

    def values(self, agent: Agent, engine: Engine, now: float) -> Sequence[Keep]:
        cached = max(1, agent.context)
        reuse = 0.0 if agent.program.ended else (1 - END_PROBABILITY) * cached / (cached + self.observation.value)
        score = 0.5 * (1 - reuse) + 0.2 * min(1.0, cached / SIZE_MAX_TOKENS) - 0.3 * now / TAU_MAX_S
        return (Keep(engine.name, agent.program.program_id, agent.name, -score),)

    def _tool(self, agent: Agent) -> _LogNormal:
        tool = agent.kind.rpartition(":")[2]
        found = self._tools.get(tool)
        if found is None:
            p50, p95 = _COLD_START.get(tool, _COLD_START["code"])
            found = self._tools[tool] = _LogNormal(math.log(p50), (math.log(p95 / p50) / _Z95) ** 2)
        return found


@dataclass(slots=True)
class AffinityWithStealing:
    """The placement part."""

    threshold: float = 0.8
    ratio: float = 2.0

    def choose(self, call: Call, engines: Sequence[Engine], fits: Callable[[Engine], bool], now: float) -> Engine | None:
        open_engines = [engine for engine in engines if fits(engine)]
        if not open_engines:
            return None
        least = min(open_engines, key=load)
        home = call.agent.home
        if home is None or home.lost:
            return least
        if fits(home) and load(home) < self.threshold:
            return home
        if least.in_flight == 0 or load(home) > self.ratio * load(least):
            return least
        return home if fits(home) else None


@dataclass(slots=True)
class _Urgency:
    pending_s: float = 0.0
    deadlines: list[tuple[float, int, Program]] = field(default_factory=list)


@dataclass(slots=True)
class FairShare:
    """The fairness part (AFS). Expected completion and work of a program are means of those that ended."""

    completion: Mean = field(default_factory=lambda: Mean(200.0))
    work: Mean = field(default_factory=lambda: Mean(60.0))
    quantum: float = math.inf
    _urgency: dict[str, _Urgency] = field(default_factory=dict)
    _tenants: dict[str, Tenant] = field(default_factory=dict)
    _known: dict[str, float] = field(default_factory=dict)
    """Expected work of each live program when it arrived."""
    _now: float = 0.0

    def ranked(self) -> Iterator[Tenant]:
        waiting = [tenant for tenant in self._tenants.values() if tenant.waiting]
        return iter(sorted(waiting, key=lambda tenant: (-self._of(tenant), tenant.name)))

    def eligible(self, tenant: Tenant) -> bool:
        return True

    def overdrawn(self, program: Program) -> bool:
        return False

    def deadline(self, program: Program) -> float:
        """Declared, or 1.5 times the expected completion after the arrival."""
        return program.deadline if program.deadline is not None else program.arrived + SLO_FACTOR * self.completion.value

    def arrives(self, tenant: Tenant) -> None:
        return

    def joins(self, call: Call) -> None:
        program = call.program
        self._now = max(self._now, call.ready_at)
        self._tenants[program.tenant.name] = program.tenant
        if program.program_id not in self._known:
            entry = self._urgency.setdefault(program.tenant.name, _Urgency())
            self._known[program.program_id] = self.work.value
            entry.pending_s += self.work.value
            heapq.heappush(entry.deadlines, (self.deadline(program), program.order, program))

    def leaves(self, call: Call) -> None:
        return

    def charge(self, program: Program, cost: float) -> None:
        program.service += cost

    def finished(self, program: Program) -> None:
        expected = self._known.pop(program.program_id, None)
        if expected is not None:
            self._urgency[program.tenant.name].pending_s -= expected
        self.work.observe(program.engine_s)

    def _of(self, tenant: Tenant) -> float:
        entry = self._urgency[tenant.name]
        while entry.deadlines and entry.deadlines[0][2].ended:
            heapq.heappop(entry.deadlines)
        if not entry.deadlines:
            return 0.0
        return tenant.weight * max(0.0, entry.pending_s) / max(1e-3, entry.deadlines[0][0] - self._now)


@dataclass(slots=True)
class LeastSlack(Still):
    """The order inside a tenant: the time at which a program must begin to end in time."""

    share: FairShare

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        program = call.program
        remaining = max(0.1 * self.share.work.value, self.share.work.value - program.engine_s)
        return (self.share.deadline(program) - remaining, call.sequence)


@dataclass(slots=True)
class SagaTTL(ToolTTL):
    """TTL that also tells the fair share which programs ended."""

    share: FairShare = field(default_factory=FairShare)

    def finished(self, program: Program) -> None:
        self.share.finished(program)
