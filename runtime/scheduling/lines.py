"""The waiting calls: one line per tenant, by order and by age, and the times at which places in it change.

Entries of calls that left stay in their heaps until they surface; a tenant without waiting calls has empty lines.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

from .fairness import LagMeter
from .parts import Parts
from .state import Call, Engine, Key, Tenant


class Lines:
    """Heap operations and counters only. `any_engine` gives the engine that stands for all where an agent has no home."""

    def __init__(self, parts: Parts, meter: LagMeter, any_engine: Callable[[], Engine | None]) -> None:
        self._parts = parts
        self._meter = meter
        self._any_engine = any_engine
        self.waiting = 0
        self._due: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()

    def join(self, call: Call, now: float) -> None:
        """The call begins to wait."""
        parts, tenant = self._parts, call.program.tenant
        parts.admission.waits(call.agent)
        self.waiting += 1
        tenant.waiting += 1
        parts.fairness.joins(call)
        if tenant.waiting == 1:
            self._meter.waiting(tenant, True)
        parts.ages.joins(call)
        self._queue(call, self._key(call, now))
        when = parts.order.moves_at(call, now)
        if when is not None:
            heapq.heappush(self._due, (when, next(self._numbers), call))

    def leave(self, call: Call, now: float) -> None:
        """The call waits no more: it goes to an engine, or was given up."""
        tenant = call.program.tenant
        call.waiting = False
        self.waiting -= 1
        tenant.waiting -= 1
        self._parts.fairness.leaves(call)
        if not tenant.waiting:
            self._meter.waiting(tenant, False)
            tenant.heap.clear()
            tenant.by_age.clear()
            tenant.firsts.clear()
        self._meter.waited(now - call.ready_at)
        if call.reserved_on is not None:
            call.reserved_on.reserved_for = None
            call.reserved_on = None

    def next_due(self) -> float | None:
        """When the place of a waiting call changes by the passing of time."""
        while self._due and not self._due[0][2].waiting:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def move_due(self, now: float) -> None:
        """Give calls their new place; the entry of the old one is skipped once the call has gone."""
        while self._due and self._due[0][0] <= now:
            call = heapq.heappop(self._due)[2]
            if call.waiting:
                self._queue(call, self._key(call, now))

    def send_head(self, tenant: Tenant, room: float, now: float, send: Callable[[Call], bool]) -> bool:
        """Offer the first calls of the tenant's line to `send` until it takes one; not if none of them fits into `room`."""
        if room < tenant.stuck_below:
            return False
        tried: list[tuple[Key, int, Call]] = []
        sent, smallest, moves = False, math.inf, 2 * self._parts.look
        while tenant.heap and len(tried) < self._parts.look and not sent:
            old, _, call = heapq.heappop(tenant.heap)
            if not call.waiting:
                continue
            key = self._key(call, now)
            if moves and key > old and tenant.heap and key > tenant.heap[0][0]:
                moves -= 1
                heapq.heappush(tenant.heap, (key, call.sequence, call))
                continue
            sent = send(call)
            if not sent:
                tried.append((key, call.sequence, call))
                smallest = min(smallest, call.need)
        for entry in tried:
            heapq.heappush(tenant.heap, entry)
        tenant.stuck_below = 0 if sent else smallest
        return sent

    def _queue(self, call: Call, key: Key) -> None:
        tenant = call.program.tenant
        heapq.heappush(tenant.heap, (key, call.sequence, call))
        tenant.stuck_below = min(tenant.stuck_below, call.need)

    def _key(self, call: Call, now: float) -> Key:
        parts = self._parts
        engine = call.agent.home or self._any_engine()
        return (1.0 if parts.fairness.overdrawn(call.program) else 0.0, *parts.order.key(call, engine, now))
