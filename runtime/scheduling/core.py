"""The program scheduler: events in, decisions out. It keeps the facts and the lines; its parts judge.

A call that is ready goes at once if its agent has a place on an engine, the call fits there and its tenant is eligible;
otherwise it joins the line of its tenant. Whenever something changes, the lines are served: tenant by tenant in the order of
fairness, and in each first a call that is aged, then a first call on the reserved share, then the head of the order. For an
aged call that fits nowhere, room is made: idle agents lose their places on one engine, and what the call needs counts there as
taken until it goes.

Work conserving in this sense: of the calls at the head of a line (`Parts.look`), none waits while an engine has a free place
and room for it under admission, unless its tenant is over its quantum, room is being made for an aged call there, or its prefix
is on another engine and it has not yet waited long enough to be moved; and an engine with nothing in flight never stands idle
while any call waits. Every step costs heap operations and counters; the engines, not the waiting
programs, are looked at one by one.
"""

from __future__ import annotations

import itertools
import math

from ...errors import InputError
from .admission import Lane
from .fairness import LagMeter
from .keepalive import recompute_s
from .lines import Lines
from .parts import Parts
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
from .state import Agent, Call, Engine, Program, Tenant


class ProgramScheduler:
    """`port.Scheduler`, composed of `parts`. Not thread-safe."""

    def __init__(self, parts: Parts, *, default_weight: float = 1.0) -> None:
        self.parts = parts
        self.meter = LagMeter()
        self.engines: dict[str, Engine] = {}
        self.tenants: dict[str, Tenant] = {}
        self.programs: dict[str, Program] = {}
        self.calls: dict[int, Call] = {}
        self._lines = Lines(parts, self.meter, self._any_engine)
        self._now = 0.0
        self._open: list[Engine] = []
        self._sequence = itertools.count()
        self._orders = itertools.count()
        self._default_weight = default_weight
        self._out: list[Decision] = []

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return self._lines.waiting

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
        times = (self._lines.next_due(), self.parts.ages.next_timer(self._now), self.parts.admission.next_expiry())
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
            self._lines.join(call, now)

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
            self._lines.leave(call, now)
            if not agent.calls and agent.idle_at is None:
                agent.idle_at = now
            self._forget(program)
            return
        engine = call.engine
        assert engine is not None
        self._account(call, event, engine, now)
        agent.calls -= 1
        program.tenant.in_flight -= 1
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
        self._correct(program, parts.rates.cost(prompt, cached, output) - call.charged)
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
            if home is not None and not home.lost and (home.pins or home.values):
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
        self.parts.capacity.added(engine, event.kv_tokens, learns=event.learns_kv)
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

    # Serving

    def _serve(self, now: float) -> list[Decision]:
        if self.waiting or self.parts.admission.eager:
            self.parts.admission.expire(now)
        if self.waiting:
            self._lines.move_due(now)
            while self._open and self._serve_one(now):
                pass
        out, self._out = self._out, []
        return out

    def _serve_one(self, now: float) -> bool:
        room = self.parts.admission.room
        regular = max(room(engine, Lane.REGULAR) for engine in self._open)
        hard = max(room(engine, Lane.AGED) for engine in self._open)

        def regularly(call: Call) -> bool:
            return self._try(call, Lane.REGULAR, now)

        for tenant in self.parts.fairness.ranked():
            if self._serve_aged(tenant, hard, now) or self._serve_first(tenant, hard, now):
                return True
            if self._lines.send_head(tenant, regular, now, regularly):
                return True
        return False

    def _serve_aged(self, tenant: Tenant, room: float, now: float) -> bool:
        for engine in self._open:
            reserved = engine.reserved_for
            if reserved is not None and reserved.program.tenant is tenant and self._try(reserved, Lane.AGED, now):
                return True
        call = self.parts.ages.aged(tenant, now)
        if call is None:
            return False
        if call.need <= room and self._try(call, Lane.AGED, now):
            return True
        if call.reserved_on is not None:
            return False
        return self._reserve(call, now) and self._try(call, Lane.AGED, now)

    def _reserve(self, call: Call, now: float) -> bool:
        """Stop admission for an aged call on the engine where room will be made soonest, if its effort allows one to."""
        effort = self.parts.ages.effort(call, now)
        free = [
            engine for engine in self.engines.values() if engine.reserved_for is None and _rested(engine, call, effort, now)
        ]
        if not free:
            return False
        engine = min(free, key=lambda each: each.active / (each.capacity or 1.0))
        engine.reserved_for, call.reserved_on = call, engine
        engine.made_room[call.first] = (now, recompute_s(call.prompt, engine))
        self.parts.admission.make_room(engine, call)
        return True

    def _serve_first(self, tenant: Tenant, room: float, now: float) -> bool:
        call = self.parts.ages.patient(tenant, now)
        if call is None or call.need > room:
            return False
        call.guest = True
        if self._try(call, Lane.GUEST, now):
            return True
        call.guest = False
        return False

    def _try(self, call: Call, lane: Lane, now: float) -> bool:
        admission = self.parts.admission

        def fits(engine: Engine) -> bool:
            return engine.in_flight < engine.in_flight_max and admission.fits(engine, call, lane, now)

        engine = self.parts.placement.choose(call, self._open, fits, now)
        if engine is None:
            engine = self._idle_engine(call, now)
        if engine is None:
            return False
        self._lines.leave(call, now)
        if not call.first:
            self.parts.keepalive.waited(call, now - call.ready_at)
        self._send(call, engine, now)
        return True

    def _idle_engine(self, call: Call, now: float) -> Engine | None:
        """An engine with little or nothing in flight takes what is next, whatever idle agents hold there."""
        admission = self.parts.admission
        home = call.agent.home
        here = [home, *self._open] if home in self._open and home is not None else self._open
        for engine in here:
            free = engine.in_flight == 0 or engine.reserved_for is None or engine.reserved_for is call
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
        program.tenant.in_flight += 1
        self.meter.sent(program.tenant)
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

    def _correct(self, program: Program, cost: float) -> None:
        """The difference between what a call took and what was charged for it."""
        self.parts.fairness.charge(program, cost)
        self.meter.corrected(program.tenant, cost)

    # Look-ups

    def _program(self, program_id: str, tenant: str, now: float) -> Program:
        program = self.programs.get(program_id)
        if program is None:
            program = self.programs[program_id] = Program(program_id, self._tenant(tenant), next(self._orders), now)
        return program

    def _any_engine(self) -> Engine | None:
        return next(iter(self.engines.values()), None)

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
