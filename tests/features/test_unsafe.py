"""Work that must not be done twice: what a person is asked, and what becomes of each answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from fairlead import Agent, Handle, InputError, PersonNeededError, Runtime, StepFailedError, step, tool, workflow
from fairlead.runtime.decisions import Decision
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply, ToolCall
from fairlead.runtime.engines.port import EngineRequest

pytestmark = pytest.mark.anyio


class Charge:
    """Charges a card; the first time, the process ends in the middle of it."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.charged: list[int] = []

    async def charge(self, amount: int) -> str:
        self.charged.append(amount)
        if len(self.charged) == 1:
            self.begun.set()
            await anyio.sleep_forever()
        return f"charged {amount}"


async def park(db: str, flow: Any, charge: Charge, engine: EmbeddedEngine | None = None) -> str:
    """Leave a program in the middle of its charge; its id."""
    async with Runtime(db=db, engine=engine) as runtime:
        program = runtime.start(flow)
        with anyio.fail_after(5):
            await charge.begun.wait()
    return program.id


async def asked(runtime: Runtime, program_id: str, flow: Any) -> Any:
    """The question that a resume ends with."""
    with pytest.raises(PersonNeededError) as caught:
        await runtime.outcome(await runtime.resume(program_id, workflow=flow))
    return caught.value.question


# --- an unsafe step ---


def step_flow(charge: Charge) -> Any:
    @step(idempotency="unsafe")
    async def pay(amount: int) -> str:
        return await charge.charge(amount)

    @step
    async def confirm(paid: str) -> str:
        return f"{paid}, thank you"

    @workflow
    def flow() -> Handle[str]:
        return confirm(pay(5).value)

    return flow


async def test_an_unsafe_step_that_may_have_run_is_asked_about_and_not_run(tmp_path: Path) -> None:
    db, charge = f"sqlite:///{tmp_path}/runs.db", Charge()
    flow = step_flow(charge)
    program_id = await park(db, flow, charge)
    async with Runtime(db=db) as runtime:
        question = await asked(runtime, program_id, flow)
        assert question["about"] == "pay"
        assert question["choices"] == ["run", "result", "fail"]
        assert "declared unsafe" in question["message"]
        history = await runtime.journal.history(program_id)
        assert history is not None
        assert (history.program.state, history.program.waiting_for) == ("waiting", "person")
        assert await asked(runtime, program_id, flow) == question  # asking again changes nothing
    assert charge.charged == [5]


@pytest.mark.parametrize(
    ("decision", "result", "charged"),
    [
        (Decision("run"), "charged 5, thank you", [5, 5]),
        (Decision("result", "charged 5 by hand"), "charged 5 by hand, thank you", [5]),
    ],
)
async def test_a_person_decides_about_a_step(tmp_path: Path, decision: Decision, result: str, charged: list[int]) -> None:
    db, charge = f"sqlite:///{tmp_path}/runs.db", Charge()
    flow = step_flow(charge)
    program_id = await park(db, flow, charge)
    async with Runtime(db=db) as runtime:
        program = await runtime.resume(program_id, workflow=flow, decisions={"pay": decision})
        assert await runtime.outcome(program) == result
    assert charge.charged == charged


async def test_a_step_that_counts_as_failed_fails_the_program(tmp_path: Path) -> None:
    db, charge = f"sqlite:///{tmp_path}/runs.db", Charge()
    flow = step_flow(charge)
    program_id = await park(db, flow, charge)
    async with Runtime(db=db) as runtime:
        program = await runtime.resume(program_id, workflow=flow, decisions={"pay": Decision("fail")})
        with pytest.raises(StepFailedError, match=r"step 'pay' failed.*a person decided"):
            await runtime.outcome(program)
    assert charge.charged == [5]


async def test_a_result_of_another_type_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    db, charge = f"sqlite:///{tmp_path}/runs.db", Charge()
    flow = step_flow(charge)
    program_id = await park(db, flow, charge)
    async with Runtime(db=db) as runtime:
        with pytest.raises((InputError, StepFailedError), match="step 'pay', result expects str"):
            await runtime.outcome(await runtime.resume(program_id, workflow=flow, decisions={"pay": Decision("result", 7)}))
    assert charge.charged == [5]


async def test_other_branches_finish_while_one_waits_for_a_person(tmp_path: Path) -> None:
    db, charge = f"sqlite:///{tmp_path}/runs.db", Charge()
    done: list[str] = []
    parked = [True]

    @step(idempotency="unsafe")
    async def pay(amount: int) -> str:
        return await charge.charge(amount)

    @step
    async def beside(name: str) -> str:
        if parked:
            await anyio.sleep_forever()
        done.append(name)
        return name

    @step
    async def after(name: str) -> str:
        done.append(f"after {name}")
        return name

    @workflow
    def flow() -> list[Any]:
        return [pay(5), after(beside("x").value)]

    program_id = await park(db, flow, charge)
    parked.clear()
    async with Runtime(db=db) as runtime:
        await asked(runtime, program_id, flow)
        assert done == ["x", "after x"]
        program = await runtime.resume(program_id, workflow=flow, decisions={"pay": Decision("result", "paid")})
        assert await runtime.outcome(program) == ["paid", "x"]
    assert done == ["x", "after x"]


# --- an unsafe tool of an agent ---


def tool_flow(charge: Charge) -> tuple[Any, EmbeddedEngine]:
    @tool
    async def pay(amount: int) -> str:
        """Pay."""
        return await charge.charge(amount)

    @step
    async def shop() -> str:
        return (await Agent("Shop.", tools=[pay]).run("Buy it.")).output

    @workflow
    def flow() -> Handle[str]:
        return shop()

    def reply(request: EngineRequest) -> Reply:
        messages: Any = request.body["messages"]
        last = messages[-1]
        return Reply(f"so: {last['content']}") if last["role"] == "tool" else Reply("", [ToolCall("pay", {"amount": 5})])

    return flow, EmbeddedEngine(script=reply)


@pytest.mark.parametrize(
    ("decision", "result", "charged"),
    [
        (Decision("run"), "so: charged 5", [5, 5]),
        (Decision("result", "charged by hand"), "so: charged by hand", [5]),
        (Decision("fail"), "so: error: ", [5]),
    ],
)
async def test_a_person_decides_about_a_tool_call(tmp_path: Path, decision: Decision, result: str, charged: list[int]) -> None:
    db, charge = f"sqlite:///{tmp_path}/runs.db", Charge()
    flow, engine = tool_flow(charge)
    program_id = await park(db, flow, charge, engine)
    async with Runtime(db=db, engine=engine) as runtime:
        question = await asked(runtime, program_id, flow)
        assert (question["tool"], question["arguments"]) == ("pay", '{"amount":5}')
        program = await runtime.resume(program_id, workflow=flow, decisions={question["about"]: decision})
        answer = await runtime.outcome(program)
    assert answer.startswith(result)
    assert charge.charged == charged


async def test_work_that_may_be_repeated_is_repeated_without_a_question(tmp_path: Path) -> None:
    db, charge = f"sqlite:///{tmp_path}/runs.db", Charge()

    @tool(idempotency="idempotent")
    async def pay(amount: int) -> str:
        """Pay, with a key."""
        return await charge.charge(amount)

    @step
    async def shop() -> str:
        return await pay(5)

    @workflow
    def flow() -> Handle[str]:
        return shop()

    program_id = await park(db, flow, charge)
    async with Runtime(db=db) as runtime:
        assert await runtime.outcome(await runtime.resume(program_id, workflow=flow)) == "charged 5"
    assert charge.charged == [5, 5]
