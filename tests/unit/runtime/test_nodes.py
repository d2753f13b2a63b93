"""Nodes of a program: siblings, maps, conditions, loops and child programs, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from fairlead import Agent, Handle, Retry, Runtime, StepContext, StepFailedError, injected, loop, step, when, workflow
from fairlead.errors import ProgramError
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply
from fairlead.runtime.program import DEPTH_MAX
from fairlead.runtime.store.records import EventRecord
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio
anyio_backend = virtual_time


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with Runtime() as runtime:
        yield runtime


class Gauge:
    """How many run at once, and the most there ever were."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def work(self, seconds: float) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(seconds)
        self.now -= 1


@step
async def wait(seconds: float) -> float:
    await anyio.sleep(seconds)
    return seconds


@step
async def add(a: float, b: float) -> float:
    return a + b


@step
async def count_to(n: int) -> list[int]:
    return list(range(n))


@step
async def is_big(n: int) -> bool:
    return n > 3


@step
async def grow(n: int) -> int:
    return n + 1


@step
async def total(numbers: list[int]) -> int:
    return sum(numbers)


def watched(runtime: Runtime) -> Callable[[str], list[str | None]]:
    """Gives the nodes of the events of a kind, so far."""
    events: list[EventRecord] = []
    runtime.watch(events.append)
    return lambda kind: [event.node for event in events if event.kind == kind]


async def test_siblings_run_at_the_same_time(runtime: Runtime) -> None:
    @workflow
    def composed() -> list[Any]:
        return [wait(float(seconds)) for seconds in range(1, 11)]

    began = anyio.current_time()
    assert await runtime.run(composed) == [float(seconds) for seconds in range(1, 11)]
    assert anyio.current_time() - began == pytest.approx(10)


async def test_a_join_waits_for_what_it_needs_and_no_longer(runtime: Runtime) -> None:
    joined: list[float] = []

    @step
    async def join(a: float, b: float) -> float:
        joined.append(anyio.current_time())
        return a + b

    @workflow
    def composed() -> list[Any]:
        return [join(wait(1.0).value, wait(2.0).value), wait(50.0)]

    began = anyio.current_time()
    assert await runtime.run(composed) == [3.0, 50.0]
    assert joined == [pytest.approx(began + 2)]


async def test_of_ready_steps_the_one_on_the_longest_path_starts_first(runtime: Runtime) -> None:
    order: list[str] = []

    @step
    async def note(name: str) -> str:
        order.append(name)
        return name

    @workflow
    def composed() -> list[Any]:
        short = note("short")
        path = note("long, first")
        for number in range(3):
            path = note.options(after=[path])(f"long, {number}")
        return [short, path, note("also short")]

    await runtime.run(composed)
    assert order[:3] == ["long, first", "short", "also short"]


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_a_map_never_runs_more_elements_at_once_than_its_limit(runtime: Runtime, limit: int) -> None:
    gauge = Gauge()

    @step(limit=limit)
    async def work(n: int) -> int:
        await gauge.work(1 + n % 3)
        return n * n

    @workflow
    def composed(n: int) -> Handle[list[int]]:
        return work.map(count_to(n))

    assert await runtime.run(composed, 20) == [n * n for n in range(20)]
    assert gauge.most == min(limit, 20)


async def test_a_map_without_a_limit_runs_all_elements_at_once(runtime: Runtime) -> None:
    gauge = Gauge()

    @step
    async def work(n: int) -> int:
        await gauge.work(5)
        return n

    @workflow
    def composed(n: int) -> Handle[list[int]]:
        return work.map(count_to(n))

    await runtime.run(composed, 100)
    assert gauge.most == 100


async def test_a_map_over_nothing_gives_nothing(runtime: Runtime) -> None:
    @workflow
    def composed() -> Handle[int]:
        return total(grow.map(count_to(0)).value)

    assert await runtime.run(composed) == 0


async def test_an_element_that_fails_is_named_and_stops_the_map(runtime: Runtime) -> None:
    ended: list[int] = []

    @step
    async def work(n: int) -> int:
        await anyio.sleep(n)
        if n == 3:
            raise ValueError("three")
        ended.append(n)
        return n

    @workflow
    def composed() -> Handle[list[int]]:
        return work.map(count_to(10))

    with pytest.raises(StepFailedError, match="step 'work' failed: ValueError: three") as caught:
        await runtime.run(composed)
    assert caught.value.node == "work[3]"
    assert ended == [0, 1, 2]


async def test_elements_are_retried_one_by_one(runtime: Runtime) -> None:
    runs: list[int] = []

    @step(retry=Retry(attempts=2, delay=1, jitter=0))
    async def work(n: int, ctx: StepContext = injected) -> int:
        runs.append(n)
        if n == 1 and ctx.attempt == 1:
            raise ValueError
        return n

    @workflow
    def composed() -> Handle[list[int]]:
        return work.map(count_to(3))

    assert await runtime.run(composed) == [0, 1, 2]
    assert runs == [0, 1, 2, 1]


@pytest.mark.parametrize(
    ("n", "result", "ran", "skipped"),
    [(5, 6, ["is_big", "grow", "when"], ["total"]), (1, 100, ["is_big", "total", "when"], ["grow"])],
)
async def test_a_condition_runs_one_way_and_skips_the_other(
    runtime: Runtime, n: int, result: int, ran: list[str], skipped: list[str]
) -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        return when(is_big(n), then=lambda: grow(n), otherwise=lambda: total([n, 99]))

    nodes = watched(runtime)
    assert await runtime.run(composed, n) == result
    assert [node for node in ran if node != "when"] == nodes("step.succeeded")
    assert nodes("step.skipped") == skipped


async def test_a_condition_without_another_way_gives_none(runtime: Runtime) -> None:
    @step
    async def show(n: int | None) -> str:
        return f"got {n}"

    @workflow
    def composed(n: int) -> Handle[str]:
        return show(when(is_big(n), then=lambda: grow(n)).value)

    assert [await runtime.run(composed, n) for n in (1, 5)] == ["got None", "got 6"]


async def test_everything_on_a_way_not_taken_is_skipped_however_deep(runtime: Runtime) -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        def inner() -> Handle[int]:
            grown = grow(n)
            return when(is_big(grown.value), then=lambda: total(grow.map([n, n]).value), otherwise=lambda: grow(grown.value))

        return when(is_big(n), then=inner, otherwise=lambda: -1)

    nodes = watched(runtime)
    assert await runtime.run(composed, 1) == -1
    assert set(nodes("step.started")) == {"is_big"}
    assert {"grow", "is_big#2", "grow#2", "total", "grow#3"} <= set(nodes("step.skipped"))
    assert await runtime.run(composed, 5) == 12


async def test_a_step_after_a_skipped_one_runs(runtime: Runtime) -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        kept: list[Handle[int]] = []

        def way() -> Handle[int]:
            kept.append(grow(n))
            return kept[0]

        when(is_big(n), then=way)
        return total.options(after=kept)([n])

    assert await runtime.run(composed, 1) == 1


@pytest.mark.parametrize(("start", "limit", "result", "rounds"), [(0, 10, 4, 4), (0, 2, 2, 2), (9, 10, 10, 1)])
async def test_a_loop_ends_when_its_test_says_so_or_at_its_limit(
    runtime: Runtime, start: int, limit: int, result: int, rounds: int
) -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        return loop(grow, n, until=is_big, limit=limit)

    nodes = watched(runtime)
    assert await runtime.run(composed, start) == result
    assert [node for node in nodes("step.succeeded") if node and "?" not in node] == [
        *(f"grow({number})" for number in range(1, rounds + 1)),
        "grow",
    ]


async def test_a_loop_passes_its_other_arguments_to_every_round(runtime: Runtime) -> None:
    @step
    async def scale(n: int, by: int) -> int:
        return n * by

    @workflow
    def composed(n: int) -> Handle[int]:
        return loop(scale, n, 3, until=is_big, limit=9)

    assert await runtime.run(composed, 1) == 9


async def test_loops_and_maps_work_in_running_bodies(runtime: Runtime) -> None:
    @workflow
    async def plain(n: int) -> int:
        grown = loop(grow, n, until=is_big, limit=9)
        many = grow.map(count_to(3))
        return await total([await grown, *await many])

    assert await runtime.run(plain, 0) == 4 + 1 + 2 + 3


# --- child programs ---


@workflow
def inner(a: float) -> Handle[float]:
    return add(wait(a).value, 1.0)


@workflow
async def outer(a: float) -> float:
    first, second = inner(a), inner(a)
    return await first + await second


async def test_a_workflow_in_a_workflow_is_a_program_of_its_own_under_the_same_root(runtime: Runtime) -> None:
    program = runtime.start(outer, {"a": 2})
    assert await runtime.outcome(program) == 6.0
    children = await runtime.journal.programs(parent_id=program.id)
    assert {child.parent_node for child in children} == {"inner", "inner#2"}
    assert {(child.parent_id, child.root_id, child.state, child.tenant) for child in children} == {
        (program.id, program.id, "succeeded", "default")
    }
    roots = await runtime.journal.programs()
    assert [root.id for root in roots] == [program.id]


async def test_child_programs_run_at_the_same_time(runtime: Runtime) -> None:
    began = anyio.current_time()
    await runtime.run(outer, 30.0)
    assert anyio.current_time() - began == pytest.approx(30)


async def test_calls_of_child_programs_are_charged_to_the_root() -> None:
    agent = Agent()

    @step
    async def ask(text: str) -> str:
        return (await agent.run(text)).output

    @workflow
    def child(text: str) -> Handle[str]:
        return ask(text)

    @workflow
    async def root(text: str) -> str:
        return await child(text) + await ask(text)

    async with Runtime(engine=EmbeddedEngine(script=lambda request: Reply("x"))) as runtime:
        program = runtime.start(root, {"text": "?"}, tenant="acme")
        assert await runtime.outcome(program) == "xx"
        assert program.counts.calls == 2
        (child_record,) = await runtime.journal.programs(parent_id=program.id)
        assert child_record.tenant == "acme"


async def test_a_failure_in_a_child_program_names_the_node_of_the_parent(runtime: Runtime) -> None:
    @step
    async def broken() -> int:
        raise ValueError("inside")

    @workflow
    def child() -> Handle[int]:
        return broken()

    @workflow
    def root() -> Handle[int]:
        return child()

    with pytest.raises(StepFailedError, match="inside") as caught:
        await runtime.run(root)
    assert caught.value.node == "child"


async def test_programs_that_start_each_other_without_end_are_stopped(runtime: Runtime) -> None:
    started: list[int] = []

    @workflow
    async def deeper(n: int) -> int:
        started.append(n)
        return await deeper(n + 1)

    with pytest.raises(ProgramError, match=f"more than {DEPTH_MAX} deep"):
        await runtime.run(deeper, 0)
    assert len(started) == DEPTH_MAX + 1


async def test_recursion_that_ends_is_fine(runtime: Runtime) -> None:
    @workflow
    async def down(n: int) -> int:
        return 0 if n == 0 else 1 + await down(n - 1)

    assert await runtime.run(down, DEPTH_MAX) == DEPTH_MAX


# --- nodes that a running step adds ---


async def test_a_running_step_adds_steps_that_run_at_once(runtime: Runtime) -> None:
    @step
    async def spread(n: int) -> float:
        handles = [wait(5.0) for _ in range(n)]
        return sum([await handle for handle in handles])

    @workflow
    def composed() -> Handle[float]:
        return spread(4)

    nodes = watched(runtime)
    began = anyio.current_time()
    assert await runtime.run(composed) == 20.0
    assert anyio.current_time() - began == pytest.approx(5)
    assert nodes("step.started") == ["spread", "spread/wait", "spread/wait#2", "spread/wait#3", "spread/wait#4"]


async def test_handles_of_running_steps_make_edges(runtime: Runtime) -> None:
    @step
    async def chain() -> float:
        return await add(wait(1.0).value, add(wait(2.0).value, 3.0).value)

    @workflow
    def composed() -> Handle[float]:
        return chain()

    events: list[EventRecord] = []
    runtime.watch(events.append)
    assert await runtime.run(composed) == 6.0
    needs = {event.node: json.loads(event.data)["needs"] for event in events if event.kind == "step.started"}
    assert needs["chain/add#2"] == ["chain/wait", "chain/add"]


async def test_a_step_is_not_over_before_what_it_added(runtime: Runtime) -> None:
    @step
    async def forgetful() -> int:
        wait(10.0)
        return 1

    @workflow
    def composed() -> Handle[int]:
        return forgetful()

    began = anyio.current_time()
    assert await runtime.run(composed) == 1
    assert anyio.current_time() - began == pytest.approx(10)


async def test_the_failure_of_an_added_step_that_nobody_looks_at_is_not_lost(runtime: Runtime) -> None:
    @step
    async def broken() -> int:
        raise ValueError("unseen")

    @step
    async def careless() -> int:
        broken()
        return 1

    @workflow
    def composed() -> Handle[int]:
        return careless()

    with pytest.raises(StepFailedError, match="unseen"):
        await runtime.run(composed)


async def test_a_plain_workflow_handles_the_failure_of_a_step_with_except(runtime: Runtime) -> None:
    @step
    async def broken() -> int:
        raise ValueError("expected")

    @workflow
    async def plain() -> str:
        try:
            await broken()
        except StepFailedError as error:
            return f"went on after: {error.reason}"
        return "?"

    assert await runtime.run(plain) == "went on after: ValueError: expected"


async def test_a_handle_can_be_awaited_twice(runtime: Runtime) -> None:
    @workflow
    async def plain() -> float:
        handle = wait(1.0)
        return await handle + await handle

    assert await runtime.run(plain) == 2.0


async def test_when_belongs_in_composing_workflows(runtime: Runtime) -> None:
    @workflow
    async def plain() -> int:
        result: int = await when(is_big(1), then=lambda: 1)
        return result

    with pytest.raises(TypeError, match=r"when\(\) belongs in a composing `def` workflow"):
        await runtime.run(plain)


async def test_a_mistake_in_a_running_body_names_step_and_parameter(runtime: Runtime) -> None:
    @workflow
    async def plain() -> float:
        return await add(1.0, "two")  # type: ignore[arg-type]  # the mistake

    with pytest.raises(TypeError, match="step 'add', parameter 'b' expects float"):
        await runtime.run(plain)


async def test_a_handle_of_another_body_is_refused(runtime: Runtime) -> None:
    kept: list[Handle[float]] = []

    @step
    async def keeps() -> int:
        kept.append(wait(1.0))
        return 1

    @workflow
    async def plain() -> float:
        await keeps()
        return await add(kept[0].value, 1.0)

    with pytest.raises(TypeError, match=r"step 'add', parameter 'a'.*another program or to a step that has ended"):
        await runtime.run(plain)
