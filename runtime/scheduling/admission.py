"""May a call go to an engine now: the working set.

The memory of an engine belongs to the agents that have a **place** there: those with a call in flight, for what it will hold,
and idle ones, for what their next call will need, weighted by the chance that it comes while the place is held. A call goes
when its need fits beside them. An idle agent loses its place after a finite time (an unlimited hold starves others and costs
mean time, holding less than a few seconds thrashes; reference section 15), a call that has to wait gives its own up, and one
that is larger than the engine runs alone. Admission only books: who asks first is decided elsewhere.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from .keepalive import KeepAlive
from .state import Agent, Call, Engine


class Lane(Enum):
    """On what ground a call asks for memory."""

    PLACE = "place"
    """Its agent has a place."""
    REGULAR = "regular"
    GUEST = "guest"
    """A first call, on the reserved share."""
    AGED = "aged"
    """It has waited for as long as a call may."""


class Admission(Protocol):
    """Books memory. Called by the core only, which tells it of every call sent and ended."""

    eager: bool
    """Whether `expire` matters while nobody waits."""

    def fits(self, engine: Engine, call: Call, lane: Lane, now: float) -> bool:
        """Whether there is memory for the call. Changes nothing."""

    def room(self, engine: Engine, lane: Lane) -> float:
        """Tokens that a call without a place or a reservation may need at most to fit now."""

    def sent(self, call: Call, engine: Engine, now: float) -> None:
        """The call goes to the engine."""

    def ended(self, call: Call, engine: Engine, now: float) -> None:
        """The call has left the engine; `agent.context` is what it holds now."""

    def waits(self, agent: Agent) -> None:
        """The next call of the agent has to queue."""

    def drop(self, agent: Agent) -> None:
        """The agent makes no more calls, or its engine is gone."""

    def starved(self, engine: Engine, call: Call) -> bool:
        """Whether so little is in flight that the call should go even if idle agents lose their places for it."""

    def make_room(self, engine: Engine, call: Call) -> None:
        """Take places from idle agents, longest idle first, until the call fits or none is left."""

    def expire(self, now: float) -> bool:
        """Take the places whose time is over; whether there were any."""

    def next_expiry(self) -> float | None:
        """When `expire` has something to do; None if never."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of an engine's capacity, 0 to 1."""

    regular: float = 0.92
    """Up to which calls without a place are let in."""
    grown: float = 0.98
    """Up to which agents with a place may grow."""
    hard: float = 0.98
    """Up to which aged and first calls may be let in."""
    guests: float = 0.08
    """Reserved for first calls, at most."""
    busy: float = 0.25
    """An engine of which calls in flight hold less takes calls even if idle agents lose their places for them."""


@dataclass(slots=True)
class WorkingSet:
    """The product's admission. See the module."""

    keepalive: KeepAlive
    shares: Shares = field(default_factory=Shares)
    eager: bool = False
    stay_s: float = 60.0
    """Time for which a new place cannot be lost to an aged call."""
    _expiries: list[tuple[float, int, Agent, int]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _idle: dict[str, dict[Agent, None]] = field(default_factory=dict)
    """Idle agents with a place, by engine, longest idle first."""

    def fits(self, engine: Engine, call: Call, lane: Lane, now: float) -> bool:
        if not engine.capacity:
            return True
        agent, need = call.agent, _held(call, engine)
        own = agent.booked if agent.home is engine else 0
        total = engine.booked - own + need
        reserved = engine.reserved_for
        if reserved is not None and reserved is not call:
            settled = lane is not Lane.PLACE or now - agent.placed_at >= self.stay_s
            total += reserved.need if settled else 0
        if engine.in_flight == 0 and need > self.shares.regular * engine.capacity:
            return True
        if lane is Lane.REGULAR:
            return total <= self.shares.regular * engine.capacity
        if lane is Lane.PLACE:
            return total <= self.shares.grown * engine.capacity
        # One guest always has room, several only within their share of the memory.
        if lane is Lane.GUEST and engine.guests and engine.guests + need > self.shares.guests * engine.capacity:
            return False
        return total <= self.shares.hard * engine.capacity

    def room(self, engine: Engine, lane: Lane) -> float:
        if not engine.capacity or engine.in_flight == 0:
            return math.inf
        shares = self.shares
        reserve = engine.reserved_for.need if engine.reserved_for is not None else 0
        share = shares.regular if lane is Lane.REGULAR else shares.hard
        return max(share * engine.capacity - engine.booked - reserve, shares.busy * engine.capacity - engine.active)

    def sent(self, call: Call, engine: Engine, now: float) -> None:
        agent = call.agent
        call.held = _held(call, engine)
        self._unbook(agent)
        if not agent.calls:
            agent.home = engine
        if not agent.placed:
            agent.placed, agent.placed_at = True, now
        engine.booked += call.held
        engine.active += call.held
        engine.guests += call.need if call.guest else 0

    def ended(self, call: Call, engine: Engine, now: float) -> None:
        agent = call.agent
        engine.booked -= call.held
        engine.active -= call.held
        engine.guests -= call.need if call.guest else 0
        if agent.calls:
            return
        agent.home = engine
        stay = self.keepalive.stay(agent, engine, now)
        need = self.keepalive.next_need(agent)
        crowded = call.guest and engine.booked + need > self.shares.regular * engine.capacity
        if call.program.ended or engine.lost or stay.seconds <= 0 or crowded:
            agent.placed = False
            return
        agent.booked = int(need * stay.returns)
        engine.booked += agent.booked
        agent.hold += 1
        self._idle.setdefault(engine.name, {})[agent] = None
        heapq.heappush(self._expiries, (now + stay.seconds, next(self._numbers), agent, agent.hold))

    def waits(self, agent: Agent) -> None:
        if not agent.calls:
            self._lose(agent)

    def drop(self, agent: Agent) -> None:
        self._lose(agent)

    def starved(self, engine: Engine, call: Call) -> bool:
        return engine.in_flight == 0 or engine.active + call.need <= self.shares.busy * engine.capacity

    def make_room(self, engine: Engine, call: Call) -> None:
        idle = self._idle.get(engine.name, {})
        limit = self.shares.hard * engine.capacity
        while idle and engine.booked + call.need > limit:
            self._lose(next(iter(idle)))

    def expire(self, now: float) -> bool:
        any_lost = False
        while (due := self.next_expiry()) is not None and due <= now:
            agent = heapq.heappop(self._expiries)[2]
            self.keepalive.still_away(agent, now)
            self._lose(agent)
            any_lost = True
        return any_lost

    def next_expiry(self) -> float | None:
        while self._expiries:
            when, _, agent, hold = self._expiries[0]
            if agent.hold == hold and agent.placed and agent.idle_at is not None:
                return when
            heapq.heappop(self._expiries)
        return None

    def _lose(self, agent: Agent) -> None:
        self._unbook(agent)
        agent.placed = False

    def _unbook(self, agent: Agent) -> None:
        engine = agent.home
        if engine is not None:
            engine.booked -= agent.booked
            self._idle.get(engine.name, {}).pop(agent, None)
        agent.booked = 0
        agent.hold += 1


def _held(call: Call, engine: Engine) -> int:
    """Tokens that the call will hold on the engine; calls of one agent that run together share its prefix."""
    agent = call.agent
    return max(0, call.need - agent.context) if agent.calls and agent.home is engine else call.need


@dataclass(slots=True)
class RunningSet:
    """Request-level admission, as an engine does it: the calls in flight must fit, nothing is kept for anybody."""

    share: float = 1.0
    eager: bool = False

    def fits(self, engine: Engine, call: Call, lane: Lane, now: float) -> bool:
        return not engine.capacity or engine.in_flight == 0 or engine.booked + call.need <= self.share * engine.capacity

    def room(self, engine: Engine, lane: Lane) -> float:
        if not engine.capacity or engine.in_flight == 0:
            return math.inf
        return self.share * engine.capacity - engine.booked

    def sent(self, call: Call, engine: Engine, now: float) -> None:
        call.agent.home = engine
        engine.booked += call.need

    def ended(self, call: Call, engine: Engine, now: float) -> None:
        engine.booked -= call.need

    def waits(self, agent: Agent) -> None:
        return

    def drop(self, agent: Agent) -> None:
        return

    def starved(self, engine: Engine, call: Call) -> bool:
        return engine.in_flight == 0

    def make_room(self, engine: Engine, call: Call) -> None:
        return

    def expire(self, now: float) -> bool:
        return False

    def next_expiry(self) -> float | None:
        return None


class Unlimited(RunningSet):
    """No admission at all: calls queue inside the engine."""

    def fits(self, engine: Engine, call: Call, lane: Lane, now: float) -> bool:
        return True

    def room(self, engine: Engine, lane: Lane) -> float:
        return math.inf
