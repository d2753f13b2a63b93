"""The event loop of a simulation: a scheduler, engine models and programs on one virtual clock.

What happens at one moment is taken in a fixed order, so a run is a pure function of workload, engines and scheduler. The
scheduler learns what a proxy in front of the engines would learn, when it would learn it: a call when it is made, its first
token, and its counts when it has ended; never how long an answer or a pause is going to be (but see `foresight`).
"""

from __future__ import annotations

import heapq
import itertools
import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Protocol, runtime_checkable

from ...errors import ConfigurationError, FairleadError
from ...memory.blocks import BLOCK_TOKENS
from ..engines.embedded.events import Admitted, FirstToken, Preempted
from ..engines.embedded.model import EngineModel
from ..scheduling.port import (
    CallEnded,
    CallFirstToken,
    CallReady,
    Decision,
    Dispatch,
    EngineLost,
    EngineReport,
    Event,
    Keep,
    ProgramArrived,
    ProgramEnded,
    Release,
    Scheduler,
    TenantChanged,
    Touch,
)
from .chains import Chain
from .costs import alone_s
from .engines import EngineSpec, check_fits, priority_rank
from .foresight import Truth
from .programs import Plan, Program, Workload, plan
from .record import CallRun, EngineTotals, ProgramRun, Run


class SchedulerFaultError(FairleadError):
    """The scheduler broke its contract: it lost a call, sent one twice, or sent one where it cannot go."""


@runtime_checkable
class Measures(Protocol):
    """A scheduler that says what it measured of itself: `service_lag`, `service_bound`, `longest_wait_s` and others."""

    def meters(self) -> Mapping[str, float]: ...


class _Kind(IntEnum):
    """What is due; of one moment, in this order."""

    LOST = 0
    ENGINE = 1
    ARRIVE = 2
    READY = 3
    REPORT = 4
    WAKE = 5


class _Engine:
    """An engine in the loop: its model, the calls in it, and when it is looked at next."""

    __slots__ = ("calls", "lost", "model", "reported", "spec", "tick_at", "touches", "values")

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.model: EngineModel = spec.model()
        self.calls: dict[str, CallRun] = {}
        self.tick_at = math.inf
        self.reported = False
        self.lost = False
        self.touches = 0
        self.values: dict[tuple[str, str], float] = {}
        if spec.level == "values":
            self.model.cache.evict_by(self._value)

    def _value(self, owner: Hashable) -> float:
        return self.values.get(owner, -math.inf) if isinstance(owner, tuple) else -math.inf


def simulate(
    workload: Workload,
    engines: Sequence[EngineSpec],
    scheduler: Scheduler,
    *,
    report_every_s: float | None = 5.0,
    stop_at: float = math.inf,
    timer: Callable[[], int] | None = None,
    truth: Truth | None = None,
) -> Run:
    """Run the workload to its end, or to `stop_at` (virtual seconds), and say how it went.

    Engines that have work report on themselves every `report_every_s` (None: never). `timer` gives nanoseconds of a real
    clock and is used to measure the scheduler's own decisions, nothing else; `truth` is what an oracle arm was given. Raises
    `ConfigurationError` if a call does not fit every engine, `SchedulerFaultError` if the scheduler loses a call or sends one
    twice.
    """
    loop = _Loop(workload, engines, scheduler, report_every_s, timer, truth)
    return loop.run(stop_at)


class _Loop:
    def __init__(
        self,
        workload: Workload,
        engines: Sequence[EngineSpec],
        scheduler: Scheduler,
        report_every_s: float | None,
        timer: Callable[[], int] | None,
        truth: Truth | None,
    ) -> None:
        if not engines or len({spec.name for spec in engines}) != len(engines):
            raise ConfigurationError("a simulation needs at least one engine, and different names for different engines")
        self._workload = workload
        self._scheduler = scheduler
        self._report_every_s = report_every_s
        self._timer = timer
        self._decisions_ns: array[int] = array("q")
        self._now = 0.0
        self._heap: list[tuple[float, int, int, object]] = []
        self._order = itertools.count()
        self._engines = {spec.name: _Engine(spec) for spec in engines}
        self._stirred: dict[str, _Engine] = {}  # engines that must be looked at before time goes on
        self._wake_at = math.inf
        self._programs: list[ProgramRun] = []
        self._calls: list[CallRun] = []
        self._plans: dict[int, Plan] = {}
        self._last: dict[tuple[str, str, str], tuple[Chain, int]] = {}  # (engine, program, agent): what was cached last
        self._next_label = 1
        self._next_program = 0
        self._touches = self._releases = 0
        self._truth = truth
        self._by_id: dict[str, ProgramRun] = {}
        if truth is not None:
            truth.attach(self)
        for program in workload.programs:
            for engine in self._engines.values():
                check_fits(program, engine.model, engine.spec.name)

    # The run

    def run(self, stop_at: float) -> Run:
        self._begin()
        heap = self._heap
        while heap and heap[0][0] <= stop_at:
            now = self._now = heap[0][0]
            while heap and heap[0][0] <= now:
                _, kind, _, subject = heapq.heappop(heap)
                self._happen(kind, subject, now)
            self._look_ahead(now)
        if math.isinf(stop_at):
            self._check_all_served()
        return self._record()

    def _begin(self) -> None:
        for tenant, weight in self._workload.tenants.items():
            self._tell(TenantChanged(tenant, weight))
        for engine in self._engines.values():
            self._tell(engine.spec.added())
            if engine.spec.lost_at is not None:
                self._at(engine.spec.lost_at, _Kind.LOST, engine)
        if self._workload.concurrency is None:
            for program in self._workload.programs:
                self._at(program.arrival_s, _Kind.ARRIVE, program)
        else:
            for _ in range(self._workload.concurrency):
                self._replenish(0.0)

    def _replenish(self, now: float) -> None:
        workload = self._workload
        again = workload.horizon_s is not None and now < workload.horizon_s
        if self._next_program < len(workload.programs) or again:
            self._at(now, _Kind.ARRIVE, workload.programs[self._next_program % len(workload.programs)])
            self._next_program += 1

    def _happen(self, kind: int, subject: object, now: float) -> None:
        match subject:
            case _Engine() if kind == _Kind.ENGINE:
                if subject.tick_at == now:
                    self._tick(subject, now)
            case _Engine() if kind == _Kind.REPORT:
                self._report(subject, now)
            case _Engine():
                self._lose(subject, now)
            case Program():
                self._arrive(subject, now)
            case CallRun():
                self._ready(subject)
            case _:
                if self._wake_at == now:
                    self._wake_at = math.inf
                    self._decide(self._scheduler.wake, now)

    def _at(self, when: float, kind: _Kind, subject: object) -> None:
        heapq.heappush(self._heap, (when, kind, next(self._order), subject))

    def _look_ahead(self, now: float) -> None:
        """Nothing more happens at this moment: when do the engines and the scheduler have something to do next?"""
        while self._stirred:
            _, engine = self._stirred.popitem()
            due = engine.model.next_event_at()
            if due is None:
                engine.tick_at = math.inf
            elif due != engine.tick_at:
                engine.tick_at = due
                self._at(due, _Kind.ENGINE, engine)
        wake_at = self._scheduler.next_wakeup()
        if wake_at is None:
            self._wake_at = math.inf
        elif wake_at != self._wake_at:
            self._wake_at = max(wake_at, now)
            self._at(self._wake_at, _Kind.WAKE, None)

    # Programs and calls

    def _arrive(self, program: Program, now: float) -> None:
        facts = self._plan(program)
        run = ProgramRun(
            f"{program.name}#{len(self._programs)}",
            program,
            facts,
            now,
            self._next_label,
            [len(call.needs) for call in program.calls],
            [False] * len(program.calls),
            len(program.calls),
        )
        self._next_label += facts.labels
        self._programs.append(run)
        self._by_id[run.program_id] = run
        deadline = None if program.deadline_s is None else now + program.deadline_s
        steps = max(facts.steps_left) if program.declared else None
        self._tell(
            ProgramArrived(
                run.program_id, program.tenant, program.weight, program.workflow, deadline=deadline, steps_known=steps
            )
        )
        for position, call in enumerate(program.calls):
            if not call.needs:
                self._make_call(run, position, now)

    def _make_call(self, run: ProgramRun, position: int, now: float) -> None:
        call = CallRun(len(self._calls), run, position, now + run.program.calls[position].gap_s)
        self._calls.append(call)
        self._at(call.ready_at, _Kind.READY, call)

    def _ready(self, run: CallRun) -> None:
        program = run.program.program
        facts, call = run.program.plan, program.calls[run.position]
        self._tell(
            CallReady(
                run.call_id,
                run.program.program_id,
                program.tenant,
                call.agent,
                call.step,
                prompt_tokens=call.prompt_tokens,
                steps_left=facts.steps_left[run.position] if program.declared else None,
                siblings=facts.siblings[run.position] if program.declared else 0,
            )
        )

    def _ended(self, run: CallRun, now: float) -> None:
        program, call = run.program, run.program.program.calls[run.position]
        run.ended_at = now
        program.ended[run.position] = True
        program.open -= 1
        self._tell(CallEnded(run.call_id, call.prompt_tokens, run.cached_tokens, call.output_tokens, call.tool))
        for after in program.plan.dependents[run.position]:
            program.waiting_for[after] -= 1
            if not program.waiting_for[after]:
                self._make_call(program, after, now)
        if not program.open:
            program.ended_at = now
            self._tell(ProgramEnded(program.program_id))
            if self._workload.concurrency is not None:
                self._replenish(now)

    def _plan(self, program: Program) -> Plan:
        known = self._plans.get(id(program))
        if known is None:
            known = self._plans[id(program)] = plan(program)
        return known

    # What the truth asks

    def program(self, program_id: str) -> ProgramRun:
        return self._by_id[program_id]

    def gap_after(self, program_id: str, agent: str) -> float | None:
        run = self._by_id[program_id]
        last = max((p for p, call in enumerate(run.program.calls) if call.agent == agent and run.ended[p]), default=None)
        if last is None:
            return None
        later = [run.program.calls[after].gap_s for after in run.plan.dependents[last]]
        return min(later, default=None)

    def seconds_of(self, run: ProgramRun, position: int) -> float:
        call = run.program.calls[position]
        profile = next(iter(self._engines.values())).spec.profile
        new = run.plan.new_tokens[position]
        return alone_s(profile, new, call.prompt_tokens, call.output_tokens)

    # Engines

    def _tick(self, engine: _Engine, now: float) -> None:
        engine.tick_at = math.inf
        self._stirred[engine.spec.name] = engine
        ended: list[CallRun] = []
        for event in engine.model.advance(now):
            run = engine.calls.get(event.request_id)
            if run is None:
                continue  # a touch
            match event:
                case Admitted():
                    run.admitted_at = event.at
                    run.cached_tokens = event.cached_tokens
                case FirstToken():
                    run.first_token_at = event.at
                    self._tell(CallFirstToken(run.call_id))
                case Preempted():
                    run.preemptions += 1
                case _:
                    del engine.calls[event.request_id]
                    ended.append(run)
        for run in ended:
            self._ended(run, now)

    def _report(self, engine: _Engine, now: float) -> None:
        stats = engine.model.stats()
        engine.reported = False
        if engine.lost:
            return
        self._tell(
            EngineReport(
                engine.spec.name,
                kv_usage=stats.kv_usage,
                running=stats.running,
                waiting=stats.waiting,
                preemptions=stats.preemptions,
            )
        )
        if stats.running or stats.waiting:
            self._report_later(engine, now)

    def _report_later(self, engine: _Engine, now: float) -> None:
        if self._report_every_s is not None and not engine.reported:
            engine.reported = True
            self._at(now + self._report_every_s, _Kind.REPORT, engine)

    def _lose(self, engine: _Engine, now: float) -> None:
        """The engine is gone: its calls end, and are made again, as a client that meets a broken connection does."""
        engine.lost = True
        engine.tick_at = math.inf
        self._stirred.pop(engine.spec.name, None)
        if all(other.lost for other in self._engines.values()):
            raise ConfigurationError(f"engine {engine.spec.name!r} was the last one and disappears at {now:g} s")
        lost, engine.calls = list(engine.calls.values()), {}
        self._tell(EngineLost(engine.spec.name))
        for run in lost:
            self._tell(CallEnded(run.call_id))
            again = CallRun(len(self._calls), run.program, run.position, run.ready_at, sent=run.sent)
            self._calls.append(again)
            run.engine = ""
            self._ready(again)

    # Decisions

    def _tell(self, event: Event) -> None:
        self._decide(lambda now: self._scheduler.handle(event, now), self._now)

    def _decide(self, ask: Callable[[float], list[Decision]], now: float) -> None:
        if self._timer is None:
            decisions = ask(now)
        else:
            since = self._timer()
            decisions = ask(now)
            self._decisions_ns.append(self._timer() - since)
        self._apply(decisions, now)

    def _apply(self, decisions: Iterable[Decision], now: float) -> None:
        for decision in decisions:
            match decision:
                case Dispatch():
                    self._dispatch(decision, now)
                case Touch():
                    self._touch(decision, now)
                case Keep(name, program_id, agent, value):
                    self._engine(name).values[program_id, agent] = value
                case Release(name, program_id, agent):
                    self._releases += 1
                    engine = self._engine(name)
                    engine.values.pop((program_id, agent), None)
                    engine.model.unpin((program_id, agent), now)
                    self._stirred[name] = engine

    def _dispatch(self, decision: Dispatch, now: float) -> None:
        engine = self._engine(decision.engine)
        if not 0 <= decision.call_id < len(self._calls):
            raise SchedulerFaultError(f"the scheduler sends call {decision.call_id}, which does not exist")
        run = self._calls[decision.call_id]
        if run.dispatched_at is not None:
            raise SchedulerFaultError(f"the scheduler sends call {run.call_id} to {decision.engine!r} a second time")
        if len(engine.calls) >= engine.spec.in_flight_max:
            raise SchedulerFaultError(f"the scheduler sends {decision.engine!r} more than {engine.spec.in_flight_max} calls")
        call = run.program.program.calls[run.position]
        chain = Chain(call.prefix, call.chain_blocks, run.program.first_label)
        request_id = str(run.call_id)
        engine.calls[request_id] = run
        run.engine, run.dispatched_at = engine.spec.name, now
        run.sent += 1
        owner = (run.program.program_id, call.agent)
        engine.model.submit(
            request_id,
            chain,
            call.prompt_tokens,
            call.output_tokens,
            now,
            priority=priority_rank(decision.priority),
            owner=owner,
            keep_s=decision.pin_s,
        )
        self._last[engine.spec.name, owner[0], owner[1]] = (chain, max(1, len(chain) * BLOCK_TOKENS))
        self._stirred[engine.spec.name] = engine
        self._report_later(engine, now)

    def _touch(self, touch: Touch, now: float) -> None:
        engine = self._engine(touch.engine)
        known = self._last.get((touch.engine, touch.program_id, touch.agent))
        if known is None:
            return
        chain, tokens = known
        self._touches += 1
        engine.touches += 1
        tokens = min(tokens, engine.model.max_model_len - 1)
        owner = (touch.program_id, touch.agent)
        engine.model.submit(f"touch-{engine.touches}", chain, tokens, 1, now, owner=owner)
        self._stirred[engine.spec.name] = engine

    def _engine(self, name: str) -> _Engine:
        engine = self._engines.get(name)
        if engine is None or engine.lost:
            raise SchedulerFaultError(f"the scheduler uses engine {name!r}, which {'is gone' if engine else 'does not exist'}")
        return engine

    # The end

    def _check_all_served(self) -> None:
        left = [run for run in self._calls if run.dispatched_at is None]
        if left:
            why = self._scheduler.explain(left[0].call_id, self._now)
            raise SchedulerFaultError(
                f"{len(left)} calls were never sent and nothing else happens; call {left[0].call_id}: {why.rule}: {why.text}"
            )

    def _record(self) -> Run:
        channels = {"foresight"} if self._truth is not None else set()
        channels |= {engine.spec.level for engine in self._engines.values() if engine.spec.level != "plain"}
        meters = self._scheduler.meters() if isinstance(self._scheduler, Measures) else {}
        return Run(
            self._workload,
            self._programs,
            [run for run in self._calls if run.engine or run.dispatched_at is None],
            [_totals(engine) for engine in self._engines.values()],
            max((program.ended_at or self._now for program in self._programs), default=self._now),
            frozenset(channels),
            self._touches,
            self._releases,
            meters,
            self._decisions_ns,
        )


def _totals(engine: _Engine) -> EngineTotals:
    stats = engine.model.stats()
    return EngineTotals(
        engine.spec.name,
        stats.prompt_tokens,
        stats.prefix_hits,
        engine.model.reloaded_tokens,
        stats.generated_tokens,
        stats.preemptions,
        stats.iterations,
    )
