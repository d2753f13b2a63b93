"""Cancelling, timeouts and questions to a person: everything that goes on is reached, named, and can be gone on with."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from openai import AsyncOpenAI

from fairlead import (
    Agent,
    Handle,
    PersonNeededError,
    ProgramError,
    StepContext,
    StepFailedError,
    Timeout,
    injected,
    step,
    tool,
    workflow,
)
from fairlead.runtime.decisions import Decision
from fairlead.runtime.engines.embedded.engine import EmbeddedEngine
from fairlead.runtime.engines.embedded.script import Reply, ToolCall
from fairlead.runtime.engines.embedded.server import running_server
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.runtime import Runtime
from fairlead.runtime.store.records import CallRecord, ProgramRecord, StepRecord, ToolCallRecord
from tests.support.journals import CuttableJournal, runtime_on
from tests.support.resuming import check_events

pytestmark = pytest.mark.anyio

MODEL = "fairlead-embedded"
HANG_S = 10


class Gate:
    """What blocks in a test until it is opened; how often each thing got through is counted."""

    def __init__(self) -> None:
        self.shut = True
        self.reached: list[str] = []
        self.passed: list[str] = []
        self.thread = threading.Event()

    async def through(self, what: str) -> None:
        self.reached.append(what)
        if self.shut:
            await anyio.sleep_forever()
        self.passed.append(what)

    def open(self) -> None:
        self.shut = False
        self.thread.set()


gate = Gate()


@pytest.fixture(autouse=True)
def fresh_gate() -> Any:
    gate.__init__()  # type: ignore[misc]  # a new test, a new gate, under the name that the steps know
    yield
    gate.open()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(HANG_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await anyio.sleep(0.002)


@tool(idempotency="idempotent")
async def search(n: int) -> int:
    """Search."""
    await gate.through("search")
    return n + 1


@tool(idempotency="pure", background=True)
async def build(n: int) -> int:
    """Build, in the background."""
    await gate.through("build")
    return n + 2


@step
async def early(n: int) -> int:
    gate.passed.append("early")
    return n


@step
async def inner(n: int) -> int:
    await gate.through("inner")
    return n


@step
async def outer(n: int) -> int:
    first = await early(n)
    return await inner(first)


@step
async def talk(n: int, llm: AsyncOpenAI = injected) -> str:
    stream = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "talk"}], stream=True)
    return "".join([(chunk.choices[0].delta.content or "") if chunk.choices else "" async for chunk in stream])


@step
async def work(n: int) -> str:
    return (await Agent(tools=[search, build], model=MODEL).run("work")).output


@step
def thread(n: int, ctx: StepContext = injected) -> int:
    gate.reached.append("thread")
    gate.thread.wait(HANG_S)
    inner_result = early(n).result()
    gate.passed.append("thread")
    return inner_result


@workflow
async def child(n: int) -> int:
    return await outer(n)


@step
async def join(a: int, b: int, c: str, d: str, e: int) -> str:
    return f"{a} {b} {c} {d} {e}"


@workflow
def everything(n: int) -> Handle[str]:
    """A nested step, a child program, a stream, an agent with tools of both kinds, and a thread."""
    return join(outer(n).value, child(n).value, talk(n).value, work(n).value, thread(n).value)


def script(request: EngineRequest) -> Reply:
    """Talks until the gate is open; the agent calls both tools, then answers."""
    if request.stream:
        return Reply("words ", endless=gate.shut)
    messages: Any = request.body["messages"]
    if len(messages) == 1:
        return Reply("", [ToolCall("search", {"n": 1}), ToolCall("build", {"n": 2})])
    return Reply("done")


EVERYTHING = "1 1 words  done 1"


@asynccontextmanager
async def engine_of(over_http: bool) -> AsyncIterator[tuple[EmbeddedEngine | str, EmbeddedEngine]]:
    engine = EmbeddedEngine(script=script, requests=True)
    if over_http:
        async with running_server(engine) as url:
            yield url, engine
    else:
        yield engine, engine


async def begun(runtime: Runtime) -> Any:
    """The whole program, with everything in it stuck."""
    program = runtime.start(everything, {"n": 1})
    await until(lambda: sorted(gate.reached) == ["build", "inner", "inner", "search", "thread"])
    await until(lambda: program.services.dispatcher._slots != {})
    return program


def open_records(journal: CuttableJournal) -> dict[object, str]:
    """Programs and steps whose last record says that they still run."""
    last: dict[object, str] = {}
    for entry in journal.entries:
        for record in entry:
            if isinstance(record, ProgramRecord):
                last[record.id] = record.state
            elif isinstance(record, StepRecord):
                last[record.program_id, record.node] = record.state
    return {key: state for key, state in last.items() if state in ("running", "accepted", "pending")}


async def resumed(
    journal: CuttableJournal, engine: EmbeddedEngine | str, program_id: str, tested: Any = everything, **options: Any
) -> Any:
    async with runtime_on(journal, engine) as runtime:
        with anyio.fail_after(HANG_S):
            return await runtime.outcome(await runtime.resume(program_id, workflow=tested, **options))


@pytest.mark.parametrize("over_http", [False, True], ids=["in process", "over HTTP"])
async def test_cancelling_reaches_everything_and_the_receipt_names_it(over_http: bool) -> None:
    journal = CuttableJournal()
    async with engine_of(over_http) as (engine, _), runtime_on(journal, engine) as runtime:
        program = await begun(runtime)
        with anyio.fail_after(HANG_S):
            receipt = await runtime.cancel(program.id, "enough")
        assert receipt.calls == [f"talk: {MODEL}"]
        assert sorted(receipt.tools) == ["work: build", "work: search"]
        assert {"outer", "outer/inner", "talk", "work", "thread", "child"} <= set(receipt.steps)
        assert len(receipt.programs) == 1
        with pytest.raises(ProgramError, match="enough"):
            await runtime.outcome(program)
    assert open_records(journal) == {}
    check_events(journal)


async def test_cancelling_closes_the_stream_at_the_server() -> None:
    left = anyio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    import uvicorn

    from fairlead.runtime.engines.embedded.server import _QuietServer

    server = _QuietServer(uvicorn.Config(endless, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with runtime_on(CuttableJournal(), f"http://127.0.0.1:{port}") as runtime:
            program = runtime.start(talking, {"n": 1})
            await until(lambda: bool(program.services.dispatcher._slots))
            await anyio.sleep(0.02)
            with anyio.fail_after(HANG_S):
                await runtime.cancel(program.id)
                await left.wait()
        server.should_exit = True


@workflow
def talking(n: int) -> Handle[str]:
    return talk(n)


@pytest.mark.parametrize("how", ["cancelled", "parked"])
async def test_a_stopped_program_goes_on_and_repeats_nothing_that_was_finished(how: str) -> None:
    journal = CuttableJournal()
    engine = EmbeddedEngine(script=script, requests=True)
    async with runtime_on(journal, engine) as runtime:
        program = await begun(runtime)
        if how == "cancelled":
            await runtime.cancel(program.id)
    early_before = gate.passed.count("early")
    gate.open()
    assert await resumed(journal, engine, program.id) == EVERYTHING
    # Twice in the nested steps, before the stop; once in the thread, whose step had not finished.
    assert (early_before, gate.passed.count("early")) == (2, 3)
    assert engine.requests is not None
    counts = engine.requests.counts.values()
    assert max(counts) == 2 and sorted(counts)[:-1] == [1] * (len(counts) - 1), "only the stream that was cut may be sent again"
    assert open_records(journal) == {}
    check_events(journal)


async def test_a_thread_left_behind_can_ask_for_nothing_more() -> None:
    journal = CuttableJournal()
    async with runtime_on(journal, EmbeddedEngine(script=script)) as runtime:
        program = await begun(runtime)
        await runtime.cancel(program.id)
        length = len(journal.entries)
        gate.thread.set()
        await anyio.sleep(0.03)
        assert "thread" not in gate.passed
        assert len(journal.entries) == length


@step(timeout=Timeout(hard=0.03))
async def hard(n: int) -> int:
    return await outer(n)


@step(timeout=Timeout(idle=0.03))
async def idle(n: int) -> int:
    return await outer(n)


@step(timeout=Timeout(hard=5, idle=0.04))
async def busy(n: int, ctx: StepContext = injected) -> int:
    for _ in range(6):
        await anyio.sleep(0.015)
        ctx.heartbeat()
    return n


@workflow
def with_hard(n: int) -> Handle[int]:
    return hard(n)


@workflow
def with_idle(n: int) -> Handle[int]:
    return idle(n)


@workflow
def with_busy(n: int) -> Handle[int]:
    return busy(n)


@workflow(timeout=0.03)
def timed(n: int) -> Handle[int]:
    return outer(n)


@pytest.mark.parametrize(("tested", "limit"), [(with_hard, "hard"), (with_idle, "idle")])
async def test_a_step_timeout_stops_what_the_step_started_and_a_resume_goes_on(tested: Any, limit: str) -> None:
    journal = CuttableJournal()
    async with runtime_on(journal) as runtime:
        program = runtime.start(tested, {"n": 1})
        with anyio.fail_after(HANG_S), pytest.raises(StepFailedError, match=f"exceeded its {limit} timeout of 0.03 s"):
            await runtime.outcome(program)
    assert open_records(journal) == {}
    gate.open()
    assert await resumed(journal, EmbeddedEngine(), program.id, tested) == 1
    assert open_records(journal) == {}


async def test_signs_of_life_hold_off_the_idle_timeout() -> None:
    async with runtime_on(CuttableJournal()) as runtime:
        assert await runtime.run(with_busy, 3) == 3


async def test_a_program_timeout_keeps_what_was_finished() -> None:
    journal = CuttableJournal()
    async with runtime_on(journal) as runtime:
        program = runtime.start(timed, {"n": 1})
        with anyio.fail_after(HANG_S), pytest.raises(ProgramError, match=r"took more than 0\.03 s"):
            await runtime.outcome(program)
    assert program.record.state == "timed_out"
    gate.open()
    assert await resumed(journal, EmbeddedEngine(), program.id, timed) == 1
    assert gate.passed.count("early") == 1


@tool(idempotency="unsafe")
async def pay(n: int) -> str:
    """Pay."""
    await gate.through("pay")
    return "paid"


@step
async def order(n: int) -> str:
    answer = await Agent(tools=[pay, search], model=MODEL).run("order")
    return f"{answer.output} after {next(m['content'] for m in answer.messages if isinstance(m, dict) and m['role'] == 'tool')}"


@step(idempotency="unsafe")
async def transfer(n: int) -> str:
    await gate.through("transfer")
    return "transferred"


@workflow
def ordering(n: int) -> Handle[str]:
    return order(n)


@workflow
def transferring(n: int) -> Handle[str]:
    return transfer(n)


@workflow
async def child_ordering(n: int) -> str:
    return await ordering(n)


def paying(request: EngineRequest) -> Reply:
    messages: Any = request.body["messages"]
    return Reply("", [ToolCall("pay", {"n": 1}), ToolCall("search", {"n": 1})]) if len(messages) == 1 else Reply("done")


async def asked(journal: CuttableJournal, tested: Any, about: str) -> tuple[str, str]:
    """Stop a program in the middle of something unsafe, and resume it: the program and what the person is asked about."""
    async with runtime_on(journal, EmbeddedEngine(script=paying)) as runtime:
        program = runtime.start(tested, {"n": 1})
        await until(lambda: about in gate.reached)
        await anyio.sleep(0.01)
    gate.open()
    with pytest.raises(PersonNeededError) as raised:
        await resumed(journal, EmbeddedEngine(script=paying), program.id, tested)
    question = raised.value.question
    assert question["kind"] == "unknown_outcome" and about in str(question["message"]) and "unsafe" in str(question["message"])
    history = await journal.history(program.id)
    assert history is not None and (history.program.state, history.program.waiting_for) == ("waiting", "person")
    return program.id, str(question["about"])


@pytest.mark.parametrize("tested", [ordering, child_ordering], ids=["own", "in a child"])
@pytest.mark.parametrize(
    ("decision", "result", "paid"),
    [
        (Decision("run"), "done after paid", 1),
        (Decision("result", "paid by hand"), "done after paid by hand", 0),
        (Decision("fail"), "done after error: tool 'pay' counts as failed: a person decided so", 0),
    ],
    ids=["run", "result", "fail"],
)
async def test_an_unsafe_tool_with_unknown_outcome_waits_for_a_person(
    tested: Any, decision: Decision, result: str, paid: int
) -> None:
    journal = CuttableJournal()
    program_id, about = await asked(journal, tested, "pay")
    assert gate.passed.count("pay") == 0
    with pytest.raises(PersonNeededError):
        await resumed(journal, EmbeddedEngine(script=paying), program_id, tested)
    assert await resumed(journal, EmbeddedEngine(script=paying), program_id, tested, decisions={about: decision}) == result
    assert gate.passed.count("pay") == paid
    assert open_records(journal) == {}


@pytest.mark.parametrize(
    ("decision", "result", "ran"),
    [(Decision("run"), "transferred", 1), (Decision("result", "by hand"), "by hand", 0), (Decision("fail"), None, 0)],
    ids=["run", "result", "fail"],
)
async def test_an_unsafe_step_with_unknown_outcome_waits_for_a_person(decision: Decision, result: str | None, ran: int) -> None:
    journal = CuttableJournal()
    program_id, about = await asked(journal, transferring, "transfer")
    assert about == "transfer"
    going_on = resumed(journal, EmbeddedEngine(), program_id, transferring, decisions={about: decision})
    if result is None:
        with pytest.raises(ProgramError, match="a person decided"):
            await going_on
    else:
        assert await going_on == result
    assert gate.passed.count("transfer") == ran
    assert open_records(journal) == {}


@pytest.mark.parametrize("decision", [Decision("result", "by hand"), Decision("fail")], ids=["result", "fail"])
async def test_what_a_person_decided_is_not_asked_again_after_a_crash(decision: Decision) -> None:
    journal = CuttableJournal()
    program_id, about = await asked(journal, ordering, "pay")
    outcome = await resumed(journal, EmbeddedEngine(script=paying), program_id, ordering, decisions={about: decision})
    decided = max(
        place
        for place, entry in enumerate(journal.entries)
        if any(isinstance(r, ToolCallRecord) and r.tool == "pay" and r.state != "started" for r in entry)
    )
    assert await resumed(journal.cut(decided + 1), EmbeddedEngine(script=paying), program_id, ordering) == outcome


async def test_a_cut_off_call_is_not_recorded_as_an_answer() -> None:
    journal = CuttableJournal()
    async with runtime_on(journal, EmbeddedEngine(script=script)) as runtime:
        await begun(runtime)
    states = [r.state for entry in journal.entries for r in entry if isinstance(r, CallRecord) and r.node == "talk"]
    assert states == ["stopped"]
