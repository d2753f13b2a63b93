"""The smaller parts: the shadow of the cache, learned capacity, placement, fairness tags, successors."""

from __future__ import annotations

from fairlead.runtime.scheduling.capacity import Capacity
from fairlead.runtime.scheduling.fairness import LagMeter, StartTimeFair
from fairlead.runtime.scheduling.placement import LeastFinish, candidates
from fairlead.runtime.scheduling.residency import Residency
from fairlead.runtime.scheduling.state import Agent, Call, Engine, Program, Tenant
from fairlead.runtime.scheduling.successors import Successors

A, B, C = ("a", ""), ("b", ""), ("c", "")


def call(program: Program, prompt: int = 10_000, ready_at: float = 0.0) -> Call:
    agent = program.agents.setdefault("", Agent(program, ""))
    return Call(1, program, agent, ready_at, 1, "", prompt, 0.0, first=False)


def test_the_shadow_forgets_the_least_recently_used_first_from_its_tail() -> None:
    shadow = Residency(limit=100)
    for key in (A, B):
        shadow.use(key, 40)
        shadow.leave(key, 40, 40)
    shadow.use(C, 50)
    assert (shadow.tokens_of(A), shadow.tokens_of(B)) == (10, 40)
    assert shadow.oldest(beside=20) == A


def test_a_use_makes_a_prefix_young_again() -> None:
    shadow = Residency(limit=100)
    for key in (A, B):
        shadow.use(key, 40)
        shadow.leave(key, 40, 40)
    shadow.refresh(A)
    shadow.use(C, 50)
    assert (shadow.tokens_of(A), shadow.tokens_of(B)) == (40, 10)


def test_distance_is_what_was_used_since() -> None:
    shadow = Residency()
    for key in (A, B):
        shadow.use(key, 40)
        shadow.leave(key, 40, 40)
    assert (shadow.distance_of(A), shadow.distance_of(B), shadow.distance_of(C)) == (80, 40, None)


def learned(hits_up_to: int) -> float:
    """Capacity after prefixes hit up to a distance and missed beyond it."""
    capacity, engine = Capacity(), Engine("e", 8)
    capacity.added(engine, None, learns=True)
    for round_ in range(400):
        each = call(Program("p", Tenant("t"), 0, 0.0))
        each.expected_cached, each.distance = 10_000, float(20_000 + round_ * 7_919 % 400_000)
        if each.distance > engine.capacity * 1.1:
            continue
        capacity.answered(engine, each, 10_000 if each.distance <= hits_up_to else 0, waiting=True)
    return engine.capacity


def test_capacity_is_learned_from_what_returning_prefixes_find() -> None:
    assert 50_000 <= learned(70_000) <= 120_000
    assert 200_000 <= learned(300_000) <= 420_000


def test_capacity_follows_usage_reports_and_preemptions() -> None:
    capacity, engine = Capacity(), Engine("e", 8)
    capacity.added(engine, None, learns=True)
    engine.active = 60_000
    for _ in range(50):
        capacity.reported(engine, 0.6, None)
    assert abs(engine.capacity - 100_000) < 5_000
    before = engine.capacity
    capacity.reported(engine, None, 3)
    assert engine.capacity < before


def test_a_capacity_that_was_told_is_not_learned() -> None:
    capacity, engine = Capacity(), Engine("e", 8)
    capacity.added(engine, 50_000, learns=True)
    engine.active = 10_000
    capacity.reported(engine, 0.9, 10)
    assert engine.capacity == 50_000


def test_hash_candidates_are_the_same_everywhere() -> None:
    engines = [Engine(f"e{number}", 8) for number in range(10)]
    first, second = candidates("workflow", engines)
    assert (first.name, second.name) == ("e1", "e7")


def test_a_warm_call_waits_for_its_engine_until_it_has_waited_long_enough() -> None:
    placement = LeastFinish()
    engines = [Engine("home", 8, capacity=100_000), Engine("away", 8, capacity=100_000)]
    program = Program("p", Tenant("t"), 0, 0.0)
    each = call(program, 10_000)
    each.agent.home = engines[0]
    engines[0].residency.use(("p", ""), 10_000)
    engines[0].residency.leave(("p", ""), 10_000, 10_000)
    only_away = engines[1:]
    assert placement.choose(each, engines, lambda engine: engine in only_away, 1.9) is None
    moved = placement.choose(each, engines, lambda engine: engine in only_away, 2.1)
    assert moved is engines[1]
    assert placement.choose(each, engines, lambda engine: True, 2.1) is engines[0]


def test_cold_calls_go_where_there_is_room() -> None:
    placement = LeastFinish()
    engines = [Engine("full", 8, capacity=100_000, booked=90_000), Engine("free", 8, capacity=100_000, booked=10_000)]
    assert placement.choose(call(Program("p", Tenant("t"), 0, 0.0)), engines, lambda engine: True, 0.0) is engines[1]


def test_tenants_are_served_in_proportion_to_their_weights() -> None:
    fair = StartTimeFair(quantum=0.0, look=1)
    programs = {}
    for name, weight in (("one", 1.0), ("three", 3.0)):
        tenant = Tenant(name, weight)
        programs[name] = Program(name, tenant, 0, 0.0)
        fair.arrives(tenant)
        tenant.waiting = 1
        fair.joins(call(programs[name]))
    served = {"one": 0, "three": 0}
    for _ in range(400):
        tenant = next(iter(list(fair.ranked())))
        served[tenant.name] += 1
        fair.charge(programs[tenant.name], 100.0)
    assert served == {"one": 100, "three": 300}


def test_a_tenant_that_was_away_has_no_credit() -> None:
    fair = StartTimeFair(quantum=0.0)
    busy, idle = Tenant("busy"), Tenant("idle")
    busy.waiting = 1
    fair.joins(call(Program("b", busy, 0, 0.0)))
    for _ in range(10):
        fair.charge(Program("b", busy, 0, 0.0), 1_000.0)
    fair.arrives(idle)
    assert idle.tag >= busy.tag - 1_000.0


def test_the_meter_sees_what_tags_would_hide() -> None:
    meter = LagMeter()
    one, two = Tenant("one"), Tenant("two", 2.0)
    for tenant in (one, two):
        meter.waiting(tenant, True)
    for _ in range(5):
        meter.charged(one, 100.0)
    meter.charged(two, 200.0)
    assert meter.service_lag == 500.0
    meter.waiting(one, False)
    meter.charged(two, 10_000.0)
    assert meter.service_lag == 500.0, "lag counts only while both wait"


def test_successors_of_a_fixed_graph_are_learned_from_one_program() -> None:
    successors = Successors()
    for before, after in (("plan", "code"), ("code", "test"), ("test", "plan")):
        successors.observe("w", before, after)
    assert successors.distances("w", "plan") == {"code": 1, "test": 2, "plan": 3}
    assert successors.distances("w", "unknown") == {}
