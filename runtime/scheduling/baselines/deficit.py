"""DLPM (arXiv 2501.14312): longest prefix match among the clients that have credit left.

Each refill adds a quantum to every client with calls waiting; what is served is charged; when no waiting client has credit, all
are refilled. The bound is 2 (U + quantum), U the largest call. The quantum is not given in what was read; a tenth of a million
tokens here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..state import Call, Program, Tenant


@dataclass(slots=True)
class Deficit:
    """The fairness part. Looks at every client, as the original does."""

    quantum: float = 100_000.0
    _credit: dict[str, float] = field(default_factory=dict)
    _tenants: dict[str, Tenant] = field(default_factory=dict)

    def ranked(self) -> Iterator[Tenant]:
        waiting = [tenant for tenant in self._tenants.values() if tenant.waiting]
        if not waiting:
            return iter(())
        while not any(self._credit[tenant.name] > 0 for tenant in waiting):
            for tenant in waiting:
                self._credit[tenant.name] += self.quantum * tenant.weight
        able = [tenant for tenant in waiting if self._credit[tenant.name] > 0]
        return iter(sorted(able, key=lambda tenant: tenant.heap[0][:2]))

    def eligible(self, tenant: Tenant) -> bool:
        return self._credit.get(tenant.name, 0.0) > 0

    def overdrawn(self, program: Program) -> bool:
        return False

    def arrives(self, tenant: Tenant) -> None:
        return

    def joins(self, call: Call) -> None:
        tenant = call.program.tenant
        self._tenants[tenant.name] = tenant
        self._credit.setdefault(tenant.name, 0.0)

    def leaves(self, call: Call) -> None:
        return

    def charge(self, program: Program, cost: float) -> None:
        program.service += cost
        name = program.tenant.name
        self._credit[name] = self._credit.get(name, 0.0) - cost
