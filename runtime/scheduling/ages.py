"""When a waiting call gains rights by waiting: the patience of first calls, and the age limit.

A timer heap, so that the passing of time is an event like any other; entries of calls that wait no more are skipped.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass, field

from .state import Call, Tenant


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """Seconds."""

    longest_s: float = 900.0
    """The age limit: no call should wait longer while capacity allows. Infinite for none."""
    lead_s: float = 250.0
    """How long before the limit room begins to be made."""
    first_s: float = 60.0
    """After this time a first call may go on the reserved share."""
    first_aged_s: float = 400.0
    """Room is also made for a first call that has waited this long."""
    first_effort: float = 0.25
    """Share of an engine's time that making room for first calls may cost it."""
    effort: float = 0.3
    """Share of an engine's time, at most, that making room for aged calls may cost it in rebuilt prefixes. Beyond that the
    capacity does not allow the limit, and keeping to it would cost more than it gives."""

    @property
    def aged_s(self) -> float:
        """Wait after which a call is aged."""
        return max(self.longest_s - self.lead_s, self.longest_s / 2)


@dataclass(slots=True)
class Ages:
    limits: AgeLimits = field(default_factory=AgeLimits)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _timers: list[tuple[float, int, Call]] = field(default_factory=list)

    def joins(self, call: Call) -> None:
        tenant = call.program.tenant
        tenant.by_age.append(call)
        self._set(call, self.limits.aged_s)
        if call.first:
            tenant.firsts.append(call)
            self._set(call, self.limits.first_s)
            self._set(call, self.limits.first_aged_s)

    def _set(self, call: Call, after_s: float) -> None:
        if after_s < math.inf:
            heapq.heappush(self._timers, (call.ready_at + after_s, next(self._numbers), call))

    def aged(self, tenant: Tenant, now: float) -> Call | None:
        """The call of the tenant that is latest by its limit: of those that waited longest, if one of them is aged."""
        head, first = _head(tenant.by_age), _head(tenant.firsts)
        if head is None or now - head.ready_at < min(self.limits.aged_s, self.limits.first_aged_s):
            return None
        if (
            first is not None
            and now - first.ready_at >= self.limits.first_aged_s
            and self.late(first, now) >= self.late(head, now)
        ):
            return first
        return head if now - head.ready_at >= self.limits.aged_s else None

    def late(self, call: Call, now: float) -> float:
        """How far a call is from where room begins to be made for it (0) to its limit (1)."""
        limits, waited = self.limits, now - call.ready_at
        late = (waited - limits.aged_s) / max(limits.longest_s - limits.aged_s, 1e-9) if limits.aged_s < math.inf else 0.0
        return max(late, waited / limits.first_aged_s - 0.5) if call.first else late

    def effort(self, call: Call, now: float) -> float:
        """Share of an engine's time that may be spent on making room for this call: grows towards the limit."""
        limits = self.limits
        if call.first:
            return limits.first_effort
        return limits.effort * min(1.0, max(0.05, self.late(call, now)))

    def patient(self, tenant: Tenant, now: float) -> Call | None:
        """The tenant's first call that has waited longest, if it may go on the reserved share."""
        head = _head(tenant.firsts)
        return head if head is not None and now - head.ready_at >= self.limits.first_s else None

    def next_timer(self, now: float) -> float | None:
        """When the next waiting call gains a right after `now`."""
        timers = self._timers
        while timers and (not timers[0][2].waiting or timers[0][0] <= now):
            heapq.heappop(timers)
        return timers[0][0] if timers else None


def _head(calls: deque[Call]) -> Call | None:
    while calls and not calls[0].waiting:
        calls.popleft()
    return calls[0] if calls else None
