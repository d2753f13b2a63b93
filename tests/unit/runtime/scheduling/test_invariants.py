"""What holds for every policy under every sequence of events, and what the product promises besides."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.runtime.scheduling.core import ProgramScheduler
from fairlead.runtime.scheduling.policies import NAMES, policy
from fairlead.runtime.scheduling.port import (
    CallEnded,
    CallReady,
    Decision,
    Dispatch,
    EngineAdded,
    EngineLost,
    EngineReport,
    Event,
    ProgramArrived,
    ProgramEnded,
    TenantChanged,
)

CAUSAL = [name for name in NAMES if name != "oracle"]


@dataclass
class World:
    """Feeds a scheduler and checks what every scheduler must hold."""

    scheduler: ProgramScheduler
    now: float = 0.0
    limits: dict[str, int] = field(default_factory=dict)
    waiting: dict[int, str] = field(default_factory=dict)
    running: dict[int, tuple[str, str]] = field(default_factory=dict)
    """(program, engine) by call; the engine may be lost."""
    log: list[tuple[float, Decision]] = field(default_factory=list)
    calls: int = 0

    def tell(self, event: Event) -> None:
        self.take(self.scheduler.handle(event, self.now))

    def take(self, decisions: list[Decision]) -> None:
        for each in decisions:
            self.log.append((self.now, each))
            if isinstance(each, Dispatch):
                assert each.call_id in self.waiting, "sent twice, or never asked for"
                assert each.engine in self.limits, "sent to an engine that is not there"
                self.running[each.call_id] = (self.waiting.pop(each.call_id), each.engine)
        for engine, limit in self.limits.items():
            assert sum(1 for _, where in self.running.values() if where == engine) <= limit

    def ready(self, program: str, tenant: str, prompt: int | None, agent: str = "") -> None:
        self.calls += 1
        self.waiting[self.calls] = program
        self.tell(CallReady(self.calls, program, tenant, agent, prompt_tokens=prompt))

    def end(self, call_id: int, *, failed: bool = False) -> None:
        self.running.pop(call_id, None)
        self.waiting.pop(call_id, None)
        if failed:
            self.tell(CallEnded(call_id))
        else:
            self.tell(CallEnded(call_id, 10_000, 5_000, 200, "tool"))

    def pass_time(self, seconds: float) -> None:
        """Time goes on, and the scheduler is woken when it asks to be."""
        until = self.now + seconds
        for _ in range(10_000):
            when = self.scheduler.next_wakeup()
            if when is None or when > until:
                self.now = until
                return
            self.now = max(self.now, when)
            self.take(self.scheduler.wake(self.now))
            if self.scheduler.next_wakeup() == when:
                self.now = until
                return
        raise AssertionError("woken without end")


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(("ready", "ready", "ready", "end", "end", "fail", "give up", "program end", "lose", "add", "report")),
        st.integers(0, 11),
        st.sampled_from((None, 500, 8_000, 30_000, 120_000)),
        st.floats(0, 60),
    ),
    max_size=80,
)


def play(name: str, operations: list[tuple[str, int, int | None, float]]) -> World:
    world = World(policy(name))
    world.tell(TenantChanged("t0", 3.0))
    added = 0
    for kind, number, prompt, seconds in [("add", 0, None, 0.0), *operations]:
        world.pass_time(seconds)
        program, tenant = f"p{number}", f"t{number % 3}"
        match kind:
            case "ready":
                world.ready(program, tenant, prompt, agent=f"a{number % 2}")
            case "end" | "fail" if world.running:
                world.end(sorted(world.running)[number % len(world.running)], failed=kind == "fail")
            case "give up" if world.waiting:
                world.end(sorted(world.waiting)[number % len(world.waiting)], failed=True)
            case "program end":
                world.tell(ProgramEnded(program))
            case "add":
                added += 1
                world.limits[f"e{added}"] = 1 + number % 4
                world.tell(EngineAdded(f"e{added}", 1 + number % 4, kv_tokens=100_000 if number % 3 else None))
            case "lose" if world.limits:
                lost = sorted(world.limits)[number % len(world.limits)]
                del world.limits[lost]
                world.tell(EngineLost(lost))
                for call_id in [call for call, (_, where) in world.running.items() if where == lost]:
                    world.end(call_id, failed=True)
            case "report" if world.limits:
                world.tell(EngineReport(min(world.limits), kv_usage=number / 12, preemptions=number))
    return world


def drain(world: World) -> None:
    """No more calls come; engines go on."""
    if not world.limits:
        world.limits["last"] = 2
        world.tell(EngineAdded("last", 2, kv_tokens=100_000))
    for _ in range(3 * world.calls + 10):
        for call_id in sorted(world.running):
            world.end(call_id)
        world.pass_time(5.0)


@pytest.mark.parametrize("name", CAUSAL)
@settings(deadline=None, max_examples=25)
@given(operations=OPERATIONS)
def test_no_call_is_lost_or_sent_twice(name: str, operations: list[tuple[str, int, int | None, float]]) -> None:
    world = play(name, operations)
    drain(world)
    assert not world.waiting and not world.running
    scheduler = world.scheduler
    assert scheduler.waiting == 0 and not scheduler.calls
    for engine in scheduler.engines.values():
        assert engine.in_flight == engine.guests == engine.active == engine.residency.running == 0
        assert engine.booked == sum(
            agent.booked for program in scheduler.programs.values() for agent in program.agents.values() if agent.home is engine
        )
        assert engine.reserved_for is None


@settings(deadline=None, max_examples=100)
@given(operations=OPERATIONS)
def test_the_same_events_give_the_same_decisions(operations: list[tuple[str, int, int | None, float]]) -> None:
    assert play("fairlead", operations).log == play("fairlead", operations).log


@settings(deadline=None, max_examples=100)
@given(operations=OPERATIONS)
def test_no_engine_stands_idle_while_a_call_waits(operations: list[tuple[str, int, int | None, float]]) -> None:
    world = play("fairlead", operations)
    idle = [name for name in world.limits if not any(where == name for _, where in world.running.values())]
    assert not (world.waiting and idle)


@settings(deadline=None, max_examples=100)
@given(operations=OPERATIONS)
def test_what_is_booked_is_what_agents_hold(operations: list[tuple[str, int, int | None, float]]) -> None:
    scheduler = play("fairlead", operations).scheduler
    agents = [agent for program in scheduler.programs.values() for agent in program.agents.values()]
    for engine in scheduler.engines.values():
        in_flight = [call for call in scheduler.calls.values() if call.engine is engine and not call.waiting]
        assert engine.active == sum(call.held for call in in_flight)
        assert engine.booked == engine.active + sum(agent.booked for agent in agents if agent.home is engine)
        assert engine.in_flight == sum(1 for call in scheduler.calls.values() if call.engine is engine and not call.waiting)
    for call in scheduler.calls.values():
        why = scheduler.explain(call.call_id, 1e6)
        assert (why.rule == "in flight") is not call.waiting


@dataclass(order=True)
class _Due:
    when: float
    number: int
    program: str = field(compare=False)
    call_id: int | None = field(compare=False, default=None)


def closed_loop(scheduler: ProgramScheduler, programs: dict[str, tuple[str, int]], until: float, seed: int) -> World:
    """Programs that call, pause and call again: (tenant, prompt) by name. Calls take 2 to 6 s, pauses 1 to 20 s."""
    rng = random.Random(seed)
    world = World(scheduler)
    world.limits["e"] = 64
    world.tell(EngineAdded("e", 64, kv_tokens=100_000, prefill_tokens_per_s=10_000.0))
    agenda: list[_Due] = []
    numbers: Iterator[int] = iter(range(10**9))
    for name in programs:
        heapq.heappush(agenda, _Due(rng.uniform(0, 5), next(numbers), name))
    seen = 0
    while agenda and world.now < until:
        wakeup = world.scheduler.next_wakeup()
        if wakeup is not None and world.now < wakeup < agenda[0].when:
            world.now = wakeup
            world.take(world.scheduler.wake(wakeup))
        else:
            due = heapq.heappop(agenda)
            world.now = max(world.now, due.when)
            tenant, prompt = programs[due.program]
            if due.call_id is None:
                world.ready(due.program, tenant, prompt)
            else:
                world.running.pop(due.call_id)
                world.tell(CallEnded(due.call_id, prompt, prompt // 2, 100, "tool"))
                heapq.heappush(agenda, _Due(world.now + rng.uniform(1, 20), next(numbers), due.program))
        for _, decision in world.log[seen:]:
            if isinstance(decision, Dispatch):
                program = world.running[decision.call_id][0]
                heapq.heappush(agenda, _Due(world.now + rng.uniform(2, 6), next(numbers), program, decision.call_id))
        seen = len(world.log)
    return world


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000), count=st.integers(6, 16))
def test_nobody_waits_beyond_the_age_limit_while_capacity_allows(seed: int, count: int) -> None:
    scheduler = policy("fairlead", age_limit_s=200.0, lead_s=100.0, effort=1.0)
    programs = {f"p{number}": ("t", 18_000 + 500 * number) for number in range(count)}
    world = closed_loop(scheduler, programs, 3_000.0, seed)
    still = [world.now - call.ready_at for call in scheduler.calls.values() if call.waiting]
    assert max([scheduler.meters()["longest_wait_s"], *still]) <= 200.0


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000), weight=st.sampled_from((1.0, 2.0, 4.0)))
def test_service_lag_stays_within_its_bound_and_shares_follow_weights(seed: int, weight: float) -> None:
    scheduler = policy("fairlead", quantum=50_000.0)
    scheduler.handle(TenantChanged("heavy", weight), 0.0)
    programs = {f"h{number}": ("heavy", 12_000) for number in range(40)}
    programs.update({f"l{number}": ("light", 12_000) for number in range(10)})
    for name, (tenant, _) in programs.items():
        scheduler.handle(ProgramArrived(name, tenant), 0.0)
    closed_loop(scheduler, programs, 4_000.0, seed)
    meters = scheduler.meters()
    assert meters["service_lag"] <= meters["service_bound"]
    served = {
        name: sum(program.service for program in scheduler.programs.values() if program.tenant.name == name)
        for name in ("heavy", "light")
    }
    assert served["heavy"] / weight <= served["light"] * 1.1 + meters["service_bound"]
