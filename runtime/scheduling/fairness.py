"""Who is eligible: start-time fair queueing of tenants, and of programs inside a tenant, with a bounded locality quantum.

Service is counted in prefill-token equivalents and charged to the root program and its tenant when a call is sent, from what is
expected, and corrected when it has ended. Tenants are tried in the order of their tags; a tenant may be served out of turn (its
program is resident, the first in turn has nothing that fits) only while its tag is at most `quantum` above the smallest.

Bounds (contract B1-B3 of the reference, section 7.6; SFQ after Goyal, Vin and Cheng, SIGCOMM 1996, with the quantum of DLPM,
arXiv 2501.14312). With `l` the largest charge of a call, `c` the largest error of a charge, both over the tenant's weight, and
`k` the calls that a tenant has in flight:

- B1, service lag: while tenants i and j both have calls waiting, |S_i/w_i - S_j/w_j| grows by at most 2 (quantum + l + k c),
  because a call is sent only while its tenant's tag exceeds the smallest by at most the quantum, and is charged as it is sent;
  what is in flight when its tenant is stopped may still turn out to cost more.
- B2, completion: a program of tenant i ends at most (quantum + l) x tenants / rate after its end under ideal sharing of the
  same service, plus the error of the estimates, while calls fit the memory that its turn frees.
- B3, age: a call of a tenant that is within its share waits at most the age limit and the longest call, while capacity allows:
  admission stops to make room for an aged call before the limit is reached (`core`).

`LagMeter` measures B1 independently of the tags, and B3, in every run.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from .state import Call, Program, Tenant


@dataclass(frozen=True, slots=True)
class Rates:
    """Cost of a token in prefill-token equivalents.

    A generated token costs more than a prefilled one because decoding is bound by memory, at any batch that fits: with 8B on an
    A100 and 16 sequences about 8 times. A cached one still has to be read by every later token.
    """

    missing: float = 1.0
    cached: float = 0.05
    generated: float = 8.0

    def cost(self, prompt: float, cached: float, output: float) -> float:
        return self.missing * max(0.0, prompt - cached) + self.cached * cached + self.generated * output


class Fairness(Protocol):
    """Keeps the tags."""

    quantum: float
    """Service that may be given out of turn; infinite where nothing is promised."""

    def ranked(self) -> Iterator[Tenant]:
        """Tenants with waiting calls that may be served now, first in turn first."""

    def eligible(self, tenant: Tenant) -> bool:
        """Whether the tenant may be served now, out of turn."""

    def overdrawn(self, program: Program) -> bool:
        """Whether the program has had more than its share of its tenant, by more than the quantum."""

    def arrives(self, tenant: Tenant) -> None:
        """The tenant has a call that is ready: what it did not use while it had none is gone."""

    def joins(self, call: Call) -> None:
        """The call begins to wait. `tenant.waiting` counts it already."""

    def leaves(self, call: Call) -> None:
        """The call waits no more. `tenant.waiting` does not count it any more."""

    def charge(self, program: Program, cost: float) -> None:
        """Service was given, or less (negative) than was charged before."""


@dataclass(slots=True)
class StartTimeFair:
    """See the module. Costs O(log tenants) per call; with one tenant nothing."""

    quantum: float = 50_000.0
    """Prefill-token equivalents by which locality may lead to service out of turn, over the tenant's weight."""
    program_quantum: float = float("inf")
    """The same for programs inside a tenant."""
    look: int = 4
    """Tenants that are tried out of turn at most, when the first has nothing that fits."""
    _heap: list[tuple[float, int, Tenant]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _virtual: float = 0.0
    _programs: dict[str, list[tuple[float, int, Program]]] = field(default_factory=dict)

    def ranked(self) -> Iterator[Tenant]:
        taken: list[tuple[float, int, Tenant]] = []
        heap = self._heap
        try:
            while heap and len(taken) < self.look:
                self._clean()
                if not heap:
                    return
                entry = heapq.heappop(heap)
                taken.append(entry)
                if entry[0] > taken[0][0] + self.quantum:
                    return
                yield entry[2]
        finally:
            for entry in taken:
                heapq.heappush(heap, entry)

    def eligible(self, tenant: Tenant) -> bool:
        self._clean()
        return not self._heap or tenant.tag <= self._heap[0][0] + self.quantum

    def overdrawn(self, program: Program) -> bool:
        if self.program_quantum == float("inf"):
            return False
        waiting = self._programs.get(program.tenant.name, [])
        while waiting and (waiting[0][0] != waiting[0][2].tag or not waiting[0][2].calls):
            stale = heapq.heappop(waiting)[2]
            if stale.calls and not stale.ended:
                heapq.heappush(waiting, (stale.tag, next(self._numbers), stale))
        return bool(waiting) and program.tag > waiting[0][0] + self.program_quantum

    def arrives(self, tenant: Tenant) -> None:
        if not tenant.waiting:
            self._clean()
            if self._heap:
                self._virtual = max(self._virtual, self._heap[0][0])
            tenant.tag = max(tenant.tag, self._virtual)

    def joins(self, call: Call) -> None:
        tenant, program = call.program.tenant, call.program
        if tenant.waiting == 1:
            heapq.heappush(self._heap, (tenant.tag, next(self._numbers), tenant))
        if self.program_quantum < float("inf") and program.calls == 1:
            waiting = self._programs.setdefault(tenant.name, [])
            if waiting:
                program.tag = max(program.tag, waiting[0][0])
            heapq.heappush(waiting, (program.tag, next(self._numbers), program))

    def leaves(self, call: Call) -> None:
        return

    def charge(self, program: Program, cost: float) -> None:
        tenant = program.tenant
        self._clean()
        self._virtual = max(self._virtual, self._heap[0][0] if self._heap else tenant.tag)
        program.service += cost
        program.tag += cost / program.weight
        tenant.tag = max(0.0, tenant.tag + cost / tenant.weight)
        if tenant.waiting:
            heapq.heappush(self._heap, (tenant.tag, next(self._numbers), tenant))

    def _clean(self) -> None:
        heap = self._heap
        while heap and (heap[0][0] != heap[0][2].tag or not heap[0][2].waiting):
            heapq.heappop(heap)


@dataclass(slots=True)
class NoFairness:
    """Everybody is eligible; all tenants wait in one line (the core gives them one)."""

    quantum: float = float("inf")
    _tenants: dict[str, Tenant] = field(default_factory=dict)

    def ranked(self) -> Iterator[Tenant]:
        return iter([tenant for tenant in self._tenants.values() if tenant.waiting])

    def eligible(self, tenant: Tenant) -> bool:
        return True

    def overdrawn(self, program: Program) -> bool:
        return False

    def arrives(self, tenant: Tenant) -> None:
        return

    def joins(self, call: Call) -> None:
        self._tenants[call.program.tenant.name] = call.program.tenant

    def leaves(self, call: Call) -> None:
        return

    def charge(self, program: Program, cost: float) -> None:
        program.service += cost


@dataclass(slots=True)
class LagMeter:
    """Measures what was promised, from charges and waits alone: service lag (B1) and longest wait (B3).

    For each pair of tenants that both have calls waiting it follows S_i/w_i - S_j/w_j; the lag is how far that moved within
    one interval in which both waited. O(tenants) per charge, so only the first `most` tenants are followed.
    """

    most: int = 16
    service_lag: float = 0.0
    """Largest lag seen, in prefill-token equivalents over weight."""
    largest_charge: float = 0.0
    """`l` of the bound: largest charge of a call over its tenant's weight."""
    largest_correction: float = 0.0
    """`c` of the bound: largest difference between what a call took and its charge, over its tenant's weight."""
    most_in_flight: int = 0
    """`k` of the bound: most calls that a tenant had in flight."""
    longest_wait_s: float = 0.0
    _service: dict[str, float] = field(default_factory=dict)
    _backlogged: set[str] = field(default_factory=set)
    _ranges: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def bound(self, quantum: float) -> float:
        """B1 for this quantum and what was seen of `l`, `c` and `k`."""
        return 2 * (quantum + self.largest_charge + self.most_in_flight * self.largest_correction)

    def sent(self, tenant: Tenant) -> None:
        """A call of the tenant has gone to an engine."""
        self.most_in_flight = max(self.most_in_flight, tenant.in_flight)

    def waiting(self, tenant: Tenant, waits: bool) -> None:
        """The tenant begins or ceases to have calls waiting."""
        name = tenant.name
        if not waits:
            self._backlogged.discard(name)
            for other in self._backlogged:
                self._ranges.pop(_pair(name, other), None)
        elif len(self._backlogged) < self.most:
            for other in self._backlogged:
                pair = _pair(name, other)
                now = self._service.get(pair[0], 0.0) - self._service.get(pair[1], 0.0)
                self._ranges[pair] = (now, now)
            self._backlogged.add(name)

    def charged(self, tenant: Tenant, cost: float) -> None:
        """A call of the tenant was sent and charged for."""
        self.largest_charge = max(self.largest_charge, cost / tenant.weight)
        self._served(tenant, cost / tenant.weight)

    def corrected(self, tenant: Tenant, cost: float) -> None:
        """A call of the tenant took so much more or less than its charge."""
        self.largest_correction = max(self.largest_correction, abs(cost) / tenant.weight)
        self._served(tenant, cost / tenant.weight)

    def _served(self, tenant: Tenant, share: float) -> None:
        self._service[tenant.name] = self._service.get(tenant.name, 0.0) + share
        if tenant.name not in self._backlogged:
            return
        for other in self._backlogged:
            if other == tenant.name:
                continue
            pair = _pair(tenant.name, other)
            now = self._service.get(pair[0], 0.0) - self._service.get(pair[1], 0.0)
            low, high = self._ranges.get(pair, (now, now))
            low, high = min(low, now), max(high, now)
            self._ranges[pair] = (low, high)
            self.service_lag = max(self.service_lag, high - low)

    def waited(self, seconds: float) -> None:
        self.longest_wait_s = max(self.longest_wait_s, seconds)


def _pair(left: str, right: str) -> tuple[str, str]:
    return (left, right) if left < right else (right, left)
