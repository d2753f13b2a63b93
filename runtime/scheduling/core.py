"""The program scheduler: events in, decisions out. It keeps the facts and the lines; its parts judge.

A call that is ready goes at once if its agent has a place on an engine, the call fits there and its tenant is eligible;
otherwise it joins the line of its tenant. Whenever something changes, the lines are served: tenant by tenant in the order of
fairness, and in each first a call that is aged, then a first call on the reserved share, then the head of the order. For an
aged call that fits nowhere, room is made: idle agents lose their places on one engine, and what the call needs counts there as
taken until it goes.

Work conserving in this sense: while a call waits, no engine is left that has a free place, has room for it under admission,
and for which neither the tenant's quantum nor a reservation for an aged call holds it; and an engine with nothing in flight
takes the head of the line, idle places or not. Every step costs heap operations and counters; the engines, not the waiting
programs, are looked at one by one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field

from ...errors import InputError
from .admission import Admission, Lane
from .ages import Ages
from .capacity import Capacity
from .estimates import Estimates
from .fairness import Fairness, LagMeter, Rates
from .keepalive import KeepAlive, recompute_s
from .order import Order
from .placement import Placement
from .port import (
    CallEnded,
    CallFirstToken,
    CallReady,
    Decision,
    Dispatch,
    EngineAdded,
    EngineLost,
    EngineReport,
    Event,
    ProgramArrived,
    ProgramEnded,
    Release,
    TenantChanged,
    Touch,
    Why,
)
from .reasons import explain
from .state import Agent, Call, Engine, Key, Program, Tenant


@dataclass(slots=True)
class Parts:
    """What a scheduler is composed of. One set per scheduler: parts keep state."""

    admission: Admission
    fairness: Fairness
    order: Order
    placement: Placement
    keepalive: KeepAlive
    estimates: Estimates
    ages: Ages = field(default_factory=Ages)
    capacity: Capacity = field(default_factory=Capacity)
    rates: Rates = field(default_factory=Rates)
    one_line: bool = False
    """All tenants wait in one line: nothing is shared out between them."""
    charge_ahead: bool = True
    """Charge the expected output as a call is sent; otherwise when it has ended (VTC)."""
    look: int = 4
    """Calls at the head of a line that are tried, where the first does not fit."""
    touches: bool = False
    """Refresh prefixes of agents with a place when they are next to be forgotten."""


class ProgramScheduler:
    """`port.Scheduler`, composed of `parts`. Not thread-safe."""

    def __init__(self, parts: Parts, *, default_weight: float = 1.0) -> None:
        self.parts = parts
        self.meter = LagMeter()
        self.engines: dict[str, Engine] = {}
        self.tenants: dict[str, Tenant] = {}
        self.programs: dict[str, Program] = {}
        self.calls: dict[int, Call] = {}
        self.waiting = 0
        self._now = 0.0
        self._open: list[Engine] = []
        self._sequence = itertools.count()
        self._orders = itertools.count()
        self._default_weight = default_weight
        self._out: list[Decision] = []
        self._due: list[tuple[float, int, Call]] = []
        """Waiting calls whose place in the order changes with time."""

    # The port

    def handle(self, event: Event, now: float) -> list[Decision]:
        self._now = now
        match event:
            case CallReady():
                self._ready(event, now)
            case CallEnded():
                self._ended(event, now)
            case CallFirstToken(call_id):
                call = self.calls.get(call_id)
                if call is not None:
                    call.first_token_at = now
                return []
            case ProgramArrived():
                self._arrived(event, now)
                return []
            case ProgramEnded(program_id):
                self._program_ended(program_id)
            case EngineAdded():
                self._engine_added(event)
            case EngineLost(name):
                self._engine_lost(name)
            case EngineReport():
                self._reported(event)
            case TenantChanged(name, weight):
                self._tenant(name).weight = _positive(weight, f"weight of tenant {name!r}")
        return self._serve(now)

    def next_wakeup(self) -> float | None:
        if not self.waiting:
            return None
        while self._due and not self._due[0][2].waiting:
            heapq.heappop(self._due)
        due = self._due[0][0] if self._due else None
        times = (due, self.parts.ages.next_timer(self._now), self.parts.admission.next_expiry())
        return min((time for time in times if time is not None), default=None)

    def wake(self, now: float) -> list[Decision]:
        self._now = now
        return self._serve(now)

    def meters(self) -> dict[str, float]:
        """What was promised, as measured: service lag and its bound, longest wait (seconds)."""
        figures = {"service_lag": self.meter.service_lag, "longest_wait_s": self.meter.longest_wait_s}
        if self.parts.fairness.quantum < math.inf:
            figures["service_bound"] = self.meter.bound(self.parts.fairness.quantum)
        return figures

    def explain(self, call_id: int, now: float) -> Why:
        return explain(self, call_id, now)

    # Events

    def _arrived(self, event: ProgramArrived, now: float) -> None:
        program = self._program(event.program_id, event.tenant, now)
        program.announced = True
        program.weight = _positive(event.weight, f"weight of program {event.program_id!r}")
        program.workflow = event.workflow
        program.deadline = event.deadline
        program.steps_known = event.steps_known

    def _ready(self, event: CallReady, now: float) -> None:
        tokens = self.parts.estimates.tokens
        program = self._program(event.program_id, event.tenant, now)
        agent = program.agents.get(event.agent)
        if agent is None:
            agent = program.agents[event.agent] = Agent(program, event.agent)
        self._learn_gap(agent, now)
        self._learn_age(program, ended=False)
        prompt = event.prompt_tokens
        if prompt is None:
            prompt = int(agent.context + tokens.new.value if agent.turns else tokens.first.value)
        elif agent.turns:
            tokens.new.observe(min(max(0, prompt - agent.prompt), prompt))
        else:
            tokens.first.observe(prompt)
        call = Call(
            event.call_id,
            program,
            agent,
            now,
            next(self._sequence),
            event.step,
            prompt,
            tokens.expected_output(event.step, event.output_tokens),
            first=program.made == 0 and program.calls == 0,
            steps_left=event.steps_left,
            siblings=event.siblings,
        )
        self.calls[call.call_id] = call
        program.calls += 1
        self.parts.fairness.arrives(program.tenant)
        if not self._goes_on(call, now):
            self._join(call, now)

    def _goes_on(self, call: Call, now: float) -> bool:
        """Send a call whose agent has a place, if nothing speaks against it."""
        home = call.agent.home
        if not call.agent.placed or home is None or home.lost or home.in_flight >= home.in_flight_max:
            return False
        if not self.parts.fairness.eligible(call.program.tenant):
            return False
        if not self.parts.admission.fits(home, call, Lane.PLACE, now):
            return False
        self._send(call, home, now)
        return True

    def _ended(self, event: CallEnded, now: float) -> None:
        call = self.calls.pop(event.call_id, None)
        if call is None:
            return
        program, agent = call.program, call.agent
        program.calls -= 1
        if call.waiting:
            self._leave(call, now)
            self._idle(agent, now)
            self._forget(program)
            return
        engine = call.engine
        assert engine is not None
        self._account(call, event, engine, now)
        agent.calls -= 1
        engine.in_flight -= 1
        if engine.in_flight == engine.in_flight_max - 1 and not engine.lost:
            self._open.append(engine)
        agent.kind = f"{program.workflow}:{call.step}:{event.tool}"
        if not agent.calls:
            agent.idle_at, agent.counted_s = now, 0.0
        self.parts.admission.ended(call, engine, now)
        if engine.values and not engine.lost:
            self._out.extend(self.parts.keepalive.values(agent, engine, now))
        self._forget(program)

    def _account(self, call: Call, event: CallEnded, engine: Engine, now: float) -> None:
        """What the call took, against what was expected of it."""
        parts, program, agent = self.parts, call.program, call.agent
        answered = event.output_tokens is not None
        prompt = event.prompt_tokens if event.prompt_tokens is not None else call.prompt
        output = event.output_tokens if event.output_tokens is not None else 0
        cached = event.cached_tokens if event.cached_tokens is not None else min(call.expected_cached, prompt)
        took = now - call.sent_at
        program.engine_s += took
        program.critical_s = max(program.critical_s, call.critical_s + took)
        self._charge(program, parts.rates.cost(prompt, cached, output) - call.charged)
        stays = prompt + output if answered and not engine.lost else 0
        engine.residency.leave((program.program_id, agent.name), call.need, stays)
        if answered:
            agent.context, agent.prompt = prompt + output, prompt
            agent.turns += 1
            program.made += 1
            parts.estimates.tokens.observe_output(call.step, output)
            parts.capacity.answered(engine, call, event.cached_tokens, waiting=self.waiting > 0)

    def _program_ended(self, program_id: str) -> None:
        program = self.programs.get(program_id)
        if program is not None and not program.ended:
            program.ended = True
            self._learn_age(program, ended=True)
            self.parts.keepalive.finished(program)
            self._forget(program)

    def _forget(self, program: Program) -> None:
        """A program that has ended and has no calls left gives back everything."""
        if not program.ended or program.calls:
            return
        for agent in program.agents.values():
            home = agent.home
            self.parts.admission.drop(agent)
            if home is not None and not home.lost:
                home.residency.ended((program.program_id, agent.name))
                if home.pins or home.values:
                    self._out.append(Release(home.name, program.program_id, agent.name))
        self.programs.pop(program.program_id, None)

    def _engine_added(self, event: EngineAdded) -> None:
        if event.in_flight_max < 1:
            raise InputError(f"engine {event.engine!r} must take at least one call at once, not {event.in_flight_max}")
        self._engine_lost(event.engine)
        engine = Engine(event.engine, event.in_flight_max)
        if event.prefill_tokens_per_s is not None:
            engine.prefill_tokens_per_s = event.prefill_tokens_per_s
        if event.decode_s_per_token is not None:
            engine.decode_s_per_token = event.decode_s_per_token
        engine.pins, engine.priority, engine.values = event.pins, event.priority, event.values
        self.parts.capacity.added(engine, event.kv_tokens)
        self.engines[event.engine] = engine
        self._open.append(engine)

    def _engine_lost(self, name: str) -> None:
        engine = self.engines.pop(name, None)
        if engine is None:
            return
        engine.lost = True
        engine.reserved_for = None
        engine.residency.clear()
        self._open = [other for other in self._open if other is not engine]

    def _reported(self, event: EngineReport) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None:
            self.parts.capacity.reported(engine, event.kv_usage, event.preemptions)

    # What is learned

    def _learn_gap(self, agent: Agent, now: float) -> None:
        if agent.idle_at is not None and agent.turns:
            self.parts.keepalive.returned(agent, now - agent.idle_at)
        agent.idle_at = None

    def _learn_age(self, program: Program, *, ended: bool) -> None:
        """Tell the completion curve once for each age that the program went on or ended."""
        if program.made > program.told and (ended or program.made):
            self.parts.estimates.completion.observe(program.workflow, program.made, ended)
            program.told = program.made

    # The lines

    def _join(self, call: Call, now: float) -> None:
        parts = self.parts
        tenant = call.program.tenant
        parts.admission.waits(call.agent)
        self.waiting += 1
        tenant.waiting += 1
        parts.fairness.joins(call)
        if tenant.waiting == 1:
            self.meter.waiting(tenant, True)
        parts.ages.joins(call)
        self._queue(call, self._key(call, now))
        self._set_due(call, now)

    def _set_due(self, call: Call, now: float) -> None:
        when = self.parts.order.moves_at(call, now)
        if when is not None:
            heapq.heappush(self._due, (when, next(self._sequence), call))

    def _move_due(self, now: float) -> None:
        """Give calls their new place; the entry of the old one is skipped once the call has gone."""
        while self._due and self._due[0][0] <= now:
            call = heapq.heappop(self._due)[2]
            if call.waiting:
                self._queue(call, self._key(call, now))

    def _queue(self, call: Call, key: Key) -> None:
        tenant = call.program.tenant
        heapq.heappush(tenant.heap, (key, call.sequence, call))
        tenant.stuck_below = min(tenant.stuck_below, call.need)

    def _leave(self, call: Call, now: float) -> None:
        """The call waits no more."""
        call.waiting = False
        tenant = call.program.tenant
        self.waiting -= 1
        tenant.waiting -= 1
        self.parts.fairness.leaves(call)
        if not tenant.waiting:
            self.meter.waiting(tenant, False)
            tenant.heap.clear()
            tenant.by_age.clear()
            tenant.firsts.clear()
        self.meter.waited(now - call.ready_at)
        if call.reserved_on is not None:
            call.reserved_on.reserved_for = None
            call.reserved_on = None

    def _idle(self, agent: Agent, now: float) -> None:
        if not agent.calls and agent.idle_at is None:
            agent.idle_at = now

    def _key(self, call: Call, now: float) -> Key:
        parts = self.parts
        engine = call.agent.home or self._any_engine()
        return (1.0 if parts.fairness.overdrawn(call.program) else 0.0, *parts.order.key(call, engine, now))

    def _any_engine(self) -> Engine | None:
        return next(iter(self.engines.values()), None)

    # Serving

    def _serve(self, now: float) -> list[Decision]:
        if self.waiting or self.parts.admission.eager:
            self.parts.admission.expire(now)
        if self.waiting:
            self._move_due(now)
            while self._open and self._serve_one(now):
                pass
        out, self._out = self._out, []
        return out

    def _serve_one(self, now: float) -> bool:
        for tenant in self.parts.fairness.ranked():
            if self._serve_aged(tenant, now) or self._serve_first(tenant, now) or self._serve_head(tenant, now):
                return True
        return False

    def _serve_aged(self, tenant: Tenant, now: float) -> bool:
        call = self.parts.ages.aged(tenant, now)
        if call is None:
            return False
        if self._try(call, Lane.AGED, now):
            return True
        if call.reserved_on is None:
            self._reserve(call, now)
        return call.reserved_on is not None and self._try(call, Lane.AGED, now)

    def _reserve(self, call: Call, now: float) -> None:
        """Stop admission for an aged call on the engine where room will be made soonest."""
        effort = self.parts.ages.effort(call, now)
        free = [
            engine for engine in self.engines.values() if engine.reserved_for is None and _rested(engine, call, effort, now)
        ]
        if not free:
            return
        engine = min(free, key=lambda each: each.active / (each.capacity or 1.0))
        engine.reserved_for, call.reserved_on = call, engine
        engine.made_room[call.first] = (now, recompute_s(call.prompt, engine))
        self.parts.admission.make_room(engine, call)

    def _serve_first(self, tenant: Tenant, now: float) -> bool:
        call = self.parts.ages.patient(tenant, now)
        if call is None:
            return False
        call.guest = True
        if self._try(call, Lane.GUEST, now):
            return True
        call.guest = False
        return False

    def _serve_head(self, tenant: Tenant, now: float) -> bool:
        room = max(self.parts.admission.room(engine) for engine in self._open)
        if room < tenant.stuck_below:
            return False
        tried: list[tuple[Key, int, Call]] = []
        smallest = math.inf
        sent = False
        moves = 2 * self.parts.look
        while tenant.heap and len(tried) < self.parts.look and not sent:
            entry = heapq.heappop(tenant.heap)
            call = entry[2]
            if not call.waiting:
                continue
            key = self._key(call, now)
            if moves and key > entry[0] and tenant.heap and key > tenant.heap[0][0]:
                moves -= 1
                heapq.heappush(tenant.heap, (key, call.sequence, call))
                continue
            sent = self._try(call, Lane.REGULAR, now)
            if not sent:
                tried.append((key, call.sequence, call))
                smallest = min(smallest, call.need)
        for entry in tried:
            heapq.heappush(tenant.heap, entry)
        tenant.stuck_below = 0 if sent else smallest
        return sent

    def _try(self, call: Call, lane: Lane, now: float) -> bool:
        admission = self.parts.admission

        def fits(engine: Engine) -> bool:
            return engine.in_flight < engine.in_flight_max and admission.fits(engine, call, lane, now)

        engine = self.parts.placement.choose(call, self._open, fits, now)
        if engine is None:
            engine = self._idle_engine(call, now)
        if engine is None:
            return False
        self._leave(call, now)
        if not call.first:
            self.parts.keepalive.waited(call, now - call.ready_at)
        self._send(call, engine, now)
        return True

    def _idle_engine(self, call: Call, now: float) -> Engine | None:
        """An engine with little or nothing in flight takes what is next, whatever idle agents hold there."""
        admission = self.parts.admission
        for engine in self._open:
            free = engine.reserved_for is None or engine.reserved_for is call
            if free and admission.starved(engine, call):
                admission.make_room(engine, call)
                if engine.in_flight == 0 or admission.fits(engine, call, Lane.AGED, now):
                    return engine
        return None

    def _send(self, call: Call, engine: Engine, now: float) -> None:
        parts, agent, program = self.parts, call.agent, call.program
        key = (program.program_id, agent.name)
        if self.parts.touches:
            self._touch(engine, call)
        call.waiting = False
        call.engine, call.sent_at = engine, now
        call.critical_s = program.critical_s
        call.expected_cached = min(engine.residency.tokens_of(key), call.prompt)
        call.distance = engine.residency.distance_of(key)
        program.waited_s += now - call.ready_at
        parts.admission.sent(call, engine, now)
        engine.residency.use(key, call.need)
        agent.calls += 1
        agent.idle_at = None
        engine.in_flight += 1
        if engine.in_flight == engine.in_flight_max:
            self._open = [other for other in self._open if other is not engine]
        call.charged = parts.rates.cost(call.prompt, call.expected_cached, call.output if parts.charge_ahead else 0.0)
        self._charge(program, call.charged)
        pin = parts.keepalive.stay(agent, engine, now).seconds if engine.pins else 0.0
        self._out.append(Dispatch(call.call_id, engine.name, _priority(call), pin))

    def _touch(self, engine: Engine, call: Call) -> None:
        """Refresh prefixes that the call would push out although their agents have a place."""
        for _ in range(self.parts.look):
            oldest = engine.residency.oldest(beside=call.need)
            if oldest is None:
                return
            program = self.programs.get(oldest[0])
            agent = program.agents.get(oldest[1]) if program is not None else None
            if agent is None or not agent.placed or agent.home is not engine or agent is call.agent:
                return
            engine.residency.refresh(oldest)
            self._out.append(Touch(engine.name, *oldest))

    def _charge(self, program: Program, cost: float) -> None:
        self.parts.fairness.charge(program, cost)
        self.meter.charged(program.tenant, cost)

    # Look-ups

    def _program(self, program_id: str, tenant: str, now: float) -> Program:
        program = self.programs.get(program_id)
        if program is None:
            program = self.programs[program_id] = Program(program_id, self._tenant(tenant), next(self._orders), now)
        return program

    def _tenant(self, name: str) -> Tenant:
        name = "" if self.parts.one_line else name
        tenant = self.tenants.get(name)
        if tenant is None:
            tenant = self.tenants[name] = Tenant(name, self._default_weight)
        return tenant


def _rested(engine: Engine, call: Call, effort: float, now: float) -> bool:
    """Whether the last room made on the engine for such a call has cost it no more than this share of the time since."""
    at, cost = engine.made_room.get(call.first, (-math.inf, 0.0))
    return cost <= effort * (now - at)


def _positive(value: float, what: str) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"the {what} must be a positive number, not {value:g}")
    return value


def _priority(call: Call) -> float:
    """For engines that obey one: programs that have few calls behind them first, guests and aged calls before all."""
    if call.guest or call.first:
        return 0.0
    return 0.5
