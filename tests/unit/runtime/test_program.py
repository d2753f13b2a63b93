"""Stopping programs: cancelling, timeouts and failures reach everything that is going on, and the receipt says what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from fairlead import Agent, Handle, Runtime, StepFailedError, Timeout, step, tool, workflow
from fairlead.errors import ConflictError, ProgramStoppedError
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply, ToolCall
from fairlead.runtime.program import Program
from tests.support.engines import OpenEngine
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio
anyio_backend = virtual_time


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with Runtime() as runtime:
        yield runtime


class Work:
    """A step that notes how it ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, float]] = []

    async def sleep(self, name: str, seconds: float) -> None:
        try:
            await anyio.sleep(seconds)
        finally:
            self.ended.append((name, anyio.current_time()))


def sleeper(work: Work) -> Any:
    @step
    async def sleep(name: str, seconds: float) -> str:
        await work.sleep(name, seconds)
        return name

    return sleep


async def stopped(runtime: Runtime, program: Program) -> ProgramStoppedError:
    with pytest.raises(ProgramStoppedError) as caught:
        await runtime.outcome(program)
    return caught.value


async def test_cancelling_stops_every_step_and_the_receipt_lists_them(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @workflow
    def flow() -> list[Any]:
        return [sleep("short", 1.0), sleep("long", 100.0), sleep("longer", 200.0)]

    began = anyio.current_time()
    program = runtime.start(flow)
    await anyio.sleep(10)
    receipt = await runtime.cancel(program.id, "enough of it")
    assert anyio.current_time() - began == pytest.approx(10)
    assert sorted(receipt.steps) == ["sleep#2", "sleep#3"]
    assert {name for name, _ in work.ended} == {"short", "long", "longer"}
    error = await stopped(runtime, program)
    assert (error.state, error.reason) == ("cancelled", "enough of it")
    assert sorted(error.stopped["steps"]) == ["sleep#2", "sleep#3"]  # type: ignore[call-overload]  # a list of names
    history = await runtime.journal.history(program.id)
    assert history is not None
    assert history.program.state == "cancelled"
    assert {one.node: one.state for one in history.steps} == {
        "sleep": "succeeded",
        "sleep#2": "cancelled",
        "sleep#3": "cancelled",
    }


async def test_cancelling_before_the_first_step_runs_nothing(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @workflow
    def flow() -> Handle[str]:
        result: Handle[str] = sleep("x", 1.0)
        return result

    program = runtime.start(flow)
    await runtime.cancel(program.id)
    assert (await stopped(runtime, program)).state == "cancelled"
    assert work.ended == []


async def test_cancelling_reaches_child_programs_and_steps_that_running_steps_added(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @step
    async def parent() -> str:
        result: str = await sleep("added", 100.0)
        return result

    @workflow
    def child() -> Handle[str]:
        return parent()

    @workflow
    async def root() -> str:
        return await child()

    program = runtime.start(root)
    await anyio.sleep(1)
    (child_record,) = await runtime.journal.programs(parent_id=program.id)
    receipt = await runtime.cancel(program.id)
    assert [name for name, _ in work.ended] == ["added"]
    assert receipt.programs == [child_record.id]
    assert sorted(receipt.steps) == ["child", "parent", "parent/sleep"]
    (child_record,) = await runtime.journal.programs(parent_id=program.id)
    assert child_record.state == "cancelled"


async def test_cancelling_stops_tool_calls(runtime: Runtime) -> None:
    work = Work()

    @tool
    async def dig(name: str) -> str:
        """Dig."""
        await work.sleep(name, 100)
        return name

    @step
    async def digs() -> str:
        return await dig("deep")

    @workflow
    def flow() -> Handle[str]:
        return digs()

    program = runtime.start(flow)
    await anyio.sleep(1)
    receipt = await runtime.cancel(program.id)
    assert receipt.tools == ["digs: dig"]
    assert [name for name, _ in work.ended] == ["deep"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_closes_the_connection_of_a_model_call(streamed: bool) -> None:
    engine = OpenEngine()
    agent = Agent()

    @step
    async def ask() -> str:
        if streamed:
            return "".join([str(event) async for event in agent.stream("?")])
        return (await agent.run("?")).output

    @workflow
    def flow() -> Handle[str]:
        return ask()

    async with Runtime(engine=engine) as runtime:
        program = runtime.start(flow)
        await engine.begun.wait()
        await anyio.sleep(5)
        now = anyio.current_time()
        receipt = await runtime.cancel(program.id)
        assert engine.closed_at == [pytest.approx(now)]
        assert receipt.calls == ["ask: open-model"]
        history = await runtime.journal.history(program.id)
    assert history is not None
    assert [call.state for call in history.calls] == ["stopped"]


async def test_a_call_that_waits_for_a_place_is_given_up(runtime: Runtime) -> None:
    engine = OpenEngine()
    agent = Agent()

    @step
    async def ask() -> str:
        return (await agent.run("?")).output

    @workflow
    def flow() -> Handle[str]:
        return ask()

    async with Runtime(engine=engine, in_flight_max=1) as runtime:
        first, second, third = (runtime.start(flow) for _ in range(3))
        await anyio.sleep(1)
        assert len(engine.requests) == 1
        await runtime.cancel(second.id)
        assert len(engine.requests) == 1
        await runtime.cancel(first.id)
        await anyio.sleep(1)
        assert len(engine.requests) == 2
        await runtime.cancel(third.id)
    assert len(engine.closed_at) == 2


async def test_a_workflow_has_its_time_and_its_end_says_what_was_stopped(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @workflow(timeout=60)
    def flow() -> list[Any]:
        return [sleep("short", 1.0), sleep("long", 100.0)]

    began = anyio.current_time()
    program = runtime.start(flow)
    error = await stopped(runtime, program)
    assert anyio.current_time() - began == pytest.approx(60)
    assert (error.state, error.reason) == ("timed_out", "the program took more than 60 s")
    assert error.stopped["steps"] == ["sleep#2"]
    history = await runtime.journal.history(program.id)
    assert history is not None
    assert history.program.state == "timed_out"
    assert json.loads(history.program.error or "")["stopped"]["steps"] == ["sleep#2"]


async def test_a_plain_workflow_has_its_time_too(runtime: Runtime) -> None:
    @workflow(timeout=Timeout(hard=5))
    async def flow() -> int:
        await anyio.sleep_forever()
        return 1

    began = anyio.current_time()
    assert (await stopped(runtime, runtime.start(flow))).state == "timed_out"
    assert anyio.current_time() - began == pytest.approx(5)


async def test_the_time_of_a_child_program_is_its_own_and_its_end_is_a_failure_of_the_parents_step(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @workflow(timeout=5)
    def child() -> Handle[str]:
        result: Handle[str] = sleep("child's", 60.0)
        return result

    @workflow
    async def root() -> str:
        try:
            return await child()
        except StepFailedError as error:
            return error.reason

    program = runtime.start(root)
    began = anyio.current_time()
    reason = await runtime.outcome(program)
    assert "took more than 5 s" in reason
    assert [(name, round(at - began, 6)) for name, at in work.ended] == [("child's", 5)]
    (child_record,) = await runtime.journal.programs(parent_id=program.id)
    assert child_record.state == "timed_out"


async def test_only_whole_programs_are_cancelled(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @workflow
    def child() -> Handle[str]:
        result: Handle[str] = sleep("child's", 60.0)
        return result

    @workflow
    async def root() -> str:
        return await child()

    program = runtime.start(root)
    await anyio.sleep(1)
    (child_record,) = await runtime.journal.programs(parent_id=program.id)
    with pytest.raises(ConflictError, match=program.id):
        await runtime.cancel(child_record.id)
    assert await runtime.outcome(program) == "child's"


async def test_a_program_that_ran_out_of_time_goes_on_with_new_time_when_it_is_resumed(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @workflow(timeout=10)
    def flow() -> Handle[str]:
        result: Handle[str] = sleep.options(after=[sleep("first", 8.0)])("second", 7.0)
        return result

    program = runtime.start(flow)
    await stopped(runtime, program)
    assert await runtime.outcome(await runtime.resume(program.id, workflow=flow)) == "second"
    assert [name for name, _ in work.ended] == ["first", "second", "second"]


async def test_a_cancelled_program_can_be_taken_up_again(runtime: Runtime) -> None:
    work = Work()
    sleep = sleeper(work)

    @workflow
    def flow() -> Handle[str]:
        result: Handle[str] = sleep.options(after=[sleep("first", 1.0)])("second", 5.0)
        return result

    program = runtime.start(flow)
    await anyio.sleep(2)
    await runtime.cancel(program.id)
    assert await runtime.outcome(await runtime.resume(program.id, workflow=flow)) == "second"
    assert [name for name, _ in work.ended] == ["first", "second", "second"]


async def test_what_has_ended_cannot_be_cancelled(runtime: Runtime) -> None:
    @workflow
    async def flow() -> int:
        return 1

    program = runtime.start(flow)
    await runtime.outcome(program)
    with pytest.raises(ConflictError, match="has ended already: succeeded"):
        await runtime.cancel(program.id)


async def test_a_failure_stops_siblings_and_the_model_calls_of_siblings() -> None:
    engine = OpenEngine()
    agent = Agent()

    @step
    async def ask() -> str:
        return (await agent.run("?")).output

    @step
    async def broken() -> str:
        await anyio.sleep(3)
        raise ValueError("no")

    @workflow
    def flow() -> list[Any]:
        return [ask(), broken()]

    async with Runtime(engine=engine) as runtime:
        began = anyio.current_time()
        program = runtime.start(flow)
        with pytest.raises(StepFailedError, match="no"):
            await runtime.outcome(program)
        assert engine.closed_at == [pytest.approx(began + 3)]
        assert program.receipt.calls == ["ask: open-model"]


async def test_a_step_timeout_closes_its_model_call() -> None:
    engine = OpenEngine()
    agent = Agent()

    @step(timeout=Timeout(idle=7))
    async def ask() -> str:
        return (await agent.run("?")).output

    @workflow
    def flow() -> Handle[str]:
        return ask()

    async with Runtime(engine=engine) as runtime:
        began = anyio.current_time()
        with pytest.raises(StepFailedError, match="idle timeout of 7 s"):
            await runtime.run(flow)
        assert engine.closed_at == [pytest.approx(began + 7)]


async def test_a_body_may_give_an_effect_up_by_a_timeout_of_its_own_and_go_on(runtime: Runtime) -> None:
    work = Work()

    @tool
    async def dig() -> str:
        """Dig."""
        await work.sleep("dig", 100)
        return "found"

    @step
    async def impatient() -> str:
        with anyio.move_on_after(5):
            return await dig()
        return "gave up"

    @workflow
    def flow() -> Handle[str]:
        return impatient()

    program = runtime.start(flow)
    assert await runtime.outcome(program) == "gave up"
    history = await runtime.journal.history(program.id)
    assert history is not None
    assert [call.state for call in history.tool_calls] == ["cancelled"]


async def test_code_that_ignores_cancellation_for_a_while_is_waited_for(runtime: Runtime) -> None:
    """Clean-up that a step shields runs to its end."""
    cleaned: list[float] = []

    @step
    async def careful() -> int:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
                cleaned.append(anyio.current_time())
        return 1

    @workflow
    def flow() -> Handle[int]:
        return careful()

    program = runtime.start(flow)
    await anyio.sleep(1)
    now = anyio.current_time()
    await runtime.cancel(program.id)
    assert cleaned == [pytest.approx(now + 3)]


async def test_the_bound_of_calls_in_flight_holds_over_programs_and_older_programs_go_first() -> None:
    running, most, order = 0, 0, list[str]()

    async def reply(request: Any) -> Reply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(request.body["messages"][-1]["content"])
        await anyio.sleep(1)
        running -= 1
        return Reply("ok")

    agent = Agent()

    @step
    async def ask(name: str) -> str:
        for turn in range(3):
            await agent.run(f"{name}{turn}")
        return name

    @workflow
    def flow(name: str) -> Handle[str]:
        return ask(name)

    async with Runtime(engine=EmbeddedEngine(script=reply), in_flight_max=3) as runtime:
        for program in [runtime.start(flow, {"name": name}) for name in "abcdefg"]:
            await runtime.outcome(program)
    assert most == 3
    order.clear()
    async with Runtime(engine=EmbeddedEngine(script=reply), in_flight_max=1) as runtime:
        for program in [runtime.start(flow, {"name": name}) for name in "abcd"]:
            await runtime.outcome(program)
    # While a program is away between two calls the next one has its place; then the older goes first again.
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2", "c0", "d0", "c1", "d1", "c2", "d2"]


async def test_tools_of_a_turn_are_all_stopped_when_one_of_them_ends_the_step() -> None:
    work = Work()

    @tool
    async def dig(name: str) -> str:
        """Dig."""
        await work.sleep(name, 100)
        return name

    agent = Agent(tools=[dig])

    @step(timeout=5)
    async def ask() -> str:
        return (await agent.run("?")).output

    @workflow
    def flow() -> Handle[str]:
        return ask()

    calls = [ToolCall("dig", {"name": name}) for name in "abc"]
    async with Runtime(engine=EmbeddedEngine(script=[Reply("", calls)])) as runtime:
        with pytest.raises(StepFailedError, match="hard timeout"):
            await runtime.run(flow)
    assert {name for name, _ in work.ended} == {"a", "b", "c"}
