"""The scheduler in the call path: programs keep their place, a waiting call can say why, and any policy can be used."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from fairlead import Agent, Runtime, step, workflow
from fairlead.runtime.engines.embedded.engine import EmbeddedEngine
from fairlead.runtime.engines.embedded.script import Reply
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.scheduling.policies import policy
from fairlead.runtime.scheduling.port import Scheduler

pytestmark = pytest.mark.anyio

agent = Agent("Answer.")


@step
async def ask(question: str) -> str:
    return (await agent.run(question)).output


@workflow
async def twice(name: str) -> list[str]:
    return [await ask(f"{name} 1"), await ask(f"{name} 2")]


class Gate:
    """An engine that answers when it is let."""

    def __init__(self) -> None:
        self.open = anyio.Event()
        self.asked: list[str] = []
        self.engine = EmbeddedEngine(script=self.answer)

    async def answer(self, request: EngineRequest) -> Reply:
        messages = request.body["messages"]
        assert isinstance(messages, list)
        assert isinstance(messages[-1], dict)
        self.asked.append(str(messages[-1]["content"]))
        await self.open.wait()
        return Reply("yes")


@pytest.mark.parametrize("name", ["fairlead", "program-fcfs"])
async def test_a_waiting_call_says_why(name: str) -> None:
    gate = Gate()
    async with Runtime(engine=gate.engine, scheduler=policy(name), in_flight_max=1) as runtime:
        first = runtime.start(twice, {"name": "first"})
        await until(lambda: gate.asked == ["first 1"])
        second = runtime.start(twice, {"name": "second"})
        await until(lambda: bool(runtime.why(second.id)))
        (why,) = runtime.why(second.id).values()
        assert why.rule != "in flight"
        assert why.text
        assert runtime.why(first.id) == {}
        gate.open.set()
        assert await runtime.outcome(first) == await runtime.outcome(second) == ["yes", "yes"]
        assert runtime.why(second.id) == {}


@pytest.mark.parametrize("scheduler", [policy("fairlead"), ProgramFCFS()], ids=["fairlead", "program-fcfs"])
async def test_every_program_gets_its_answers_however_many_there_are(scheduler: Scheduler) -> None:
    async with Runtime(
        engine=EmbeddedEngine(script=lambda request: Reply("yes")), scheduler=scheduler, in_flight_max=2
    ) as runtime:
        programs = [runtime.start(twice, {"name": str(number)}, tenant=f"t{number % 3}") for number in range(60)]
        assert [await runtime.outcome(program) for program in programs] == [["yes", "yes"]] * 60


async def until(condition: object) -> None:
    assert callable(condition)
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()
