"""The event loop: times that can be counted by hand, what the scheduler is told and when, and that no call is ever lost."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import ConfigurationError
from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.scheduling.port import (
    CallEnded,
    CallFirstToken,
    CallReady,
    Decision,
    Dispatch,
    EngineAdded,
    EngineLost,
    EngineReport,
    Event,
    Keep,
    ProgramArrived,
    ProgramEnded,
    Release,
    TenantChanged,
    Touch,
    Why,
)
from fairlead.runtime.simulation.engines import EngineSpec
from fairlead.runtime.simulation.foresight import Truth
from fairlead.runtime.simulation.loop import SchedulerFaultError, simulate
from fairlead.runtime.simulation.programs import Call, Program, Workload
from fairlead.runtime.simulation.record import Run
from tests.unit.runtime.simulation.making import conversation, engine, one_call, workload


@dataclass
class Recorder:
    """Sends every call to the first engine at once, and remembers what it was told."""

    also: list[Decision] = field(default_factory=list)
    """Given once, with the end of the first call."""
    pin_s: float = 0.0
    """For the first call."""
    told: list[tuple[float, Event]] = field(default_factory=list)
    engines: list[str] = field(default_factory=list)

    def handle(self, event: Event, now: float) -> list[Decision]:
        self.told.append((now, event))
        match event:
            case EngineAdded(name):
                self.engines.append(name)
            case EngineLost(name):
                self.engines.remove(name)
            case CallReady(call_id):
                return [Dispatch(call_id, self.engines[0], pin_s=0.0 if call_id else self.pin_s)]
            case CallEnded():
                also, self.also = self.also, []
                return also
        return []

    def next_wakeup(self) -> float | None:
        return None

    def wake(self, now: float) -> list[Decision]:
        return []

    def explain(self, call_id: int, now: float) -> Why:
        return Why("place", "it was forgotten")

    def of(self, kind: type) -> list[tuple[float, Event]]:
        return [(at, event) for at, event in self.told if isinstance(event, kind)]


def go(work: Workload, *engines: EngineSpec) -> Run:
    return simulate(work, engines or (engine(),), ProgramFCFS())


def ends(run: Run) -> list[float | None]:
    return [program.ended_at for program in run.programs]


def test_a_program_takes_what_its_calls_and_pauses_take() -> None:
    # 100 tokens are two chunks, the second gives a token, two more follow: 4 s. The second call finds 6 blocks: 1 + 1 s.
    run = go(workload(Program("p", conversation((100, 3), (120, 2), gap_s=10.0))))
    assert ends(run) == [4.0 + 10.0 + 2.0]
    assert [call.cached_tokens for call in run.calls] == [0, 96]
    assert [(call.ready_at, call.admitted_at, call.first_token_at) for call in run.calls] == [
        (0.0, 0.0, 2.0),
        (14.0, 14.0, 15.0),
    ]


def test_what_no_later_prompt_continues_is_not_found_again() -> None:
    calls = (Call(100, 40, output_kept=False), Call(150, 2, (0,), output_kept=False))
    assert go(workload(Program("p", calls))).calls[1].cached_tokens == 96


def test_programs_share_nothing_unless_they_say_so() -> None:
    work = workload(
        Program("p", one_call()), Program("q", one_call(), arrival_s=50.0), Program("r", one_call(), arrival_s=99.0)
    )
    assert [call.cached_tokens for call in go(work).calls] == [0, 0, 0]
    shared = workload(Program("p", one_call(label=-1)), Program("q", one_call(label=-1), arrival_s=50.0))
    assert [call.cached_tokens for call in go(shared).calls] == [0, 96]


def test_a_join_waits_for_its_sub_agents() -> None:
    calls = (
        Call(10, 1),
        Call(10, 5, (0,), agent="one"),
        Call(10, 9, (0,), agent="two"),
        Call(10, 1, (1, 2), gap_s=3.0),
    )
    run = go(workload(Program("p", calls)))
    assert run.calls[3].ready_at == 1.0 + 9.0 + 3.0


def test_a_closed_loop_keeps_its_number_of_programs() -> None:
    run = go(workload(*(Program(f"p{n}", one_call()) for n in range(10)), concurrency=3))
    assert len(run.programs) == 10
    for program in run.programs:
        active = [p for p in run.programs if p.arrived_at <= program.arrived_at < (p.ended_at or 0.0)]
        assert len(active) <= 3


def test_a_replenished_load_stops_at_its_horizon_and_drains() -> None:
    run = go(workload(Program("p", one_call()), concurrency=2, horizon_s=100.0))
    assert len(run.programs) > 20
    assert max(program.arrived_at for program in run.programs) < 100.0 <= run.ended_at
    assert all(program.ended_at is not None for program in run.programs)


def test_the_scheduler_is_told_what_a_proxy_sees_when_it_sees_it() -> None:
    recorder = Recorder()
    program = Program(
        "p", conversation((100, 3), (120, 2), gap_s=10.0), tenant="t", workflow="w", deadline_s=99.0, arrival_s=5.0
    )
    simulate(Workload((program,), tenants={"t": 2.0}), (engine(),), recorder, report_every_s=None)
    assert recorder.told == [
        (0.0, TenantChanged("t", 2.0)),
        (0.0, EngineAdded("a", 64, kv_tokens=1600)),
        (5.0, ProgramArrived("p#0", "t", 1.0, "w", deadline=104.0)),
        (5.0, CallReady(0, "p#0", "t", prompt_tokens=100)),
        (7.0, CallFirstToken(0)),
        (9.0, CallEnded(0, 100, 0, 3)),
        (19.0, CallReady(1, "p#0", "t", prompt_tokens=120)),
        (20.0, CallFirstToken(1)),
        (21.0, CallEnded(1, 120, 96, 2)),
        (21.0, ProgramEnded("p#0")),
    ]


def test_a_declared_graph_gives_distances_and_siblings() -> None:
    calls = (Call(10, 1), Call(10, 1, (0,)), Call(10, 1, (0,)), Call(10, 1, (1, 2)))
    recorder = Recorder()
    simulate(workload(Program("p", calls, declared=True)), (engine(),), recorder)
    ready = [event for _, event in recorder.of(CallReady) if isinstance(event, CallReady)]
    assert [(event.steps_left, event.siblings) for event in ready] == [(3, 0), (2, 1), (2, 1), (1, 0)]


def test_engines_with_work_report_on_themselves() -> None:
    recorder = Recorder()
    simulate(workload(Program("p", one_call(100, 20))), (engine(),), recorder, report_every_s=5.0)
    assert [at for at, _ in recorder.of(EngineReport)] == [5.0, 10.0, 15.0, 20.0, 25.0]
    assert recorder.of(EngineReport)[0][1] == EngineReport("a", kv_usage=0.07, running=1, waiting=0, preemptions=0)


def test_calls_of_a_lost_engine_are_made_again_elsewhere() -> None:
    recorder = Recorder()
    work = workload(Program("p", conversation((100, 30), (140, 3))))
    run = simulate(work, (engine("a", lost_at=10.0), engine("b")), recorder)
    assert [(call.engine, call.sent) for call in run.calls] == [("b", 2), ("b", 1)]
    assert recorder.of(CallEnded)[0] == (10.0, CallEnded(0))
    assert ends(run) == [10.0 + 31.0 + 3.0]


def test_losing_the_last_engine_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="last one"):
        go(workload(Program("p", one_call())), engine(lost_at=1.0))


def test_a_prompt_beyond_an_engine_is_refused_before_anything_runs() -> None:
    program = Program("p", conversation((10, 1), (5000, 1)), origin="some.jsonl:7")
    with pytest.raises(ConfigurationError, match=r"some.jsonl:7: turns\[1\]: prompt_tokens: does not fit engine 'a'"):
        go(workload(program))


def test_a_call_sent_twice_is_the_schedulers_fault() -> None:
    with pytest.raises(SchedulerFaultError, match="call 0 to 'a' a second time"):
        simulate(workload(Program("p", one_call())), (engine(),), Recorder(also=[Dispatch(0, "a")]))


def test_a_forgotten_call_is_the_schedulers_fault() -> None:
    class Forgetful(Recorder):
        def handle(self, event: Event, now: float) -> list[Decision]:
            return []

    with pytest.raises(SchedulerFaultError, match=r"1 calls were never sent .* place: it was forgotten"):
        simulate(workload(Program("p", one_call())), (engine(),), Forgetful())


def test_an_engine_is_not_sent_more_than_it_takes() -> None:
    work = workload(Program("p", one_call()), Program("q", one_call()))
    with pytest.raises(SchedulerFaultError, match="more than 1 calls"):
        simulate(work, (engine(in_flight_max=1),), Recorder())


def test_wakeups_come_when_they_were_asked_for() -> None:
    class Sleeper(Recorder):
        due: float | None = None

        def handle(self, event: Event, now: float) -> list[Decision]:
            if isinstance(event, CallReady):
                self.due = now + 7.5
            return []

        def next_wakeup(self) -> float | None:
            return self.due

        def wake(self, now: float) -> list[Decision]:
            self.due = None
            return [Dispatch(0, "a")]

    run = simulate(workload(Program("p", one_call())), (engine(),), Sleeper())
    assert run.calls[0].dispatched_at == 7.5


def crowded(*last: Program) -> Workload:
    """One program comes back after others have filled the cache."""
    returning = Program("p", conversation((400, 2), (420, 2), gap_s=60.0))
    others = [Program(f"q{n}", one_call(600, 2), arrival_s=10.0 + 20 * n) for n in range(3)]
    return workload(returning, *others, *last)


def found(run: Run) -> int:
    """Cached tokens of the call with which the first program comes back."""
    return next(call.cached_tokens for call in run.calls if call.program is run.programs[0] and call.position == 1)


def test_a_session_engine_keeps_what_it_is_asked_to_keep() -> None:
    forgotten = simulate(crowded(), (engine(),), Recorder(pin_s=100.0))
    kept = simulate(crowded(), (engine(level="session"),), Recorder(pin_s=100.0))
    assert [found(forgotten), found(kept)] == [0, 400]
    assert kept.channels == {"session"}


def test_a_release_ends_what_was_kept() -> None:
    recorder = Recorder(pin_s=100.0, also=[Release("a", "p#0", "")])
    run = simulate(crowded(), (engine(level="session"),), recorder)
    assert found(run) == 0
    assert run.releases == 1


def test_a_touch_refreshes_a_prefix_without_any_support() -> None:
    class Toucher(Recorder):
        def handle(self, event: Event, now: float) -> list[Decision]:
            decisions = super().handle(event, now)
            touch = isinstance(event, CallReady) and event.call_id in (2, 3)
            return [*decisions, Touch("a", "p#0", "")] if touch else decisions

    run = simulate(crowded(), (engine(),), Toucher())
    assert run.touches == 2
    assert found(run) >= 384


def test_an_engine_of_values_forgets_what_is_worth_least() -> None:
    recorder = Recorder(also=[Keep("a", "p#0", "", 5.0)])
    assert found(simulate(crowded(), (engine(level="values"),), recorder)) == 400


def test_the_truth_knows_what_is_left() -> None:
    truth, seen = Truth(), list[tuple[int, float, float | None]]()

    class Oracle(Recorder):
        def handle(self, event: Event, now: float) -> list[Decision]:
            if isinstance(event, CallEnded):
                seen.append((truth.remaining_calls("p#0"), truth.remaining_work_s("p#0"), truth.gap_s("p#0", "")))
            return super().handle(event, now)

    run = simulate(workload(Program("p", conversation((100, 3), (120, 2), gap_s=10.0))), (engine(),), Oracle(), truth=truth)
    assert seen == [(1, 2.0, 10.0), (0, 0.0, None)]
    assert run.channels == {"foresight"}


sizes = st.tuples(st.integers(1, 300), st.integers(1, 40))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    count = draw(st.integers(1, 5))
    calls = []
    for position in range(count):
        prompt, output = draw(sizes)
        needs = tuple(sorted(draw(st.sets(st.integers(0, position - 1), max_size=3)))) if position else ()
        calls.append(Call(prompt, output, needs, draw(st.floats(0, 20)), agent=draw(st.sampled_from(["", "x"]))))
    return Program("p", tuple(calls), arrival_s=draw(st.floats(0, 50)), tenant=draw(st.sampled_from("ab")))


@given(st.lists(programs(), min_size=1, max_size=8), st.integers(1, 8), st.sampled_from([None, 3.0, 40.0]))
@settings(deadline=None, max_examples=60)
def test_every_call_is_sent_and_ends_once_and_runs_repeat(work: list[Program], in_flight: int, lost_at: float | None) -> None:
    engines = (engine("a", in_flight_max=in_flight), engine("b", in_flight_max=in_flight, lost_at=lost_at))
    recorded = [simulate(Workload(tuple(work)), engines, ProgramFCFS()) for _ in range(2)]
    runs = [
        [(c.ready_at, c.dispatched_at, c.admitted_at, c.ended_at, c.engine, c.cached_tokens) for c in r.calls] for r in recorded
    ]
    assert runs[0] == runs[1]
    run = recorded[0]
    made = sorted((call.program.program_id, call.position) for call in run.calls)
    assert made == sorted((p.program_id, position) for p in run.programs for position in range(len(p.program.calls)))
    for call in run.calls:
        assert call.dispatched_at is not None and call.admitted_at is not None and call.ended_at is not None
        assert call.ready_at <= call.dispatched_at <= call.admitted_at < call.ended_at
        for need in call.program.program.calls[call.position].needs:
            before = next(c for c in run.calls if c.program is call.program and c.position == need)
            assert before.ended_at is not None and before.ended_at <= call.ready_at
    assert all(program.ended_at is not None and not program.open for program in run.programs)
