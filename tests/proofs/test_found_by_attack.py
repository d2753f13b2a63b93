"""Programs that once broke the runtime: each is run, cut where it hurt, and resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from openai import AsyncOpenAI

from fairlead import (
    DeclarationError,
    Handle,
    ProgramError,
    Retry,
    StepContext,
    StepFailedError,
    ToolError,
    injected,
    step,
    tool,
    workflow,
)
from fairlead.errors import ConflictError
from fairlead.runtime.engines.embedded.engine import EmbeddedEngine
from fairlead.runtime.engines.embedded.script import HttpFailure, RawReply, Reply, Script
from fairlead.runtime.store.records import CallRecord, EventRecord, ObservationRecord, ProgramRecord, Record, StepRecord
from tests.support.journals import CuttableJournal, runtime_on

pytestmark = pytest.mark.anyio

MODEL = "fairlead-embedded"
HANG_S = 10

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


async def first_run(tested: Any, journal: CuttableJournal, script: Script | None = None) -> Any:
    """Run a program under the id `prg_x` to its end."""
    async with runtime_on(journal, EmbeddedEngine(script=script)) as runtime:
        with anyio.fail_after(HANG_S):
            return await runtime.outcome(runtime.start(tested, {"n": 1}, program_id="prg_x"))


async def parked(tested: Any, journal: CuttableJournal, script: Script, event: str) -> None:
    """Run a program until it has written an event, and park it."""
    async with runtime_on(journal, EmbeddedEngine(script=script)) as runtime:
        runtime.start(tested, {"n": 1}, program_id="prg_x")
        with anyio.fail_after(HANG_S):
            while not has_event(journal, event):  # noqa: ASYNC110 - the journal has no event to wait for
                await anyio.sleep(0.001)
            await anyio.sleep(0.01)


def has_event(journal: CuttableJournal, kind: str) -> bool:
    return any(isinstance(record, EventRecord) and record.kind == kind for entry in journal.entries for record in entry)


async def resumed(tested: Any, journal: CuttableJournal, script: Script | None = None) -> Any:
    async with runtime_on(journal, EmbeddedEngine(script=script)) as runtime:
        with anyio.fail_after(HANG_S):
            return await runtime.outcome(await runtime.resume("prg_x", workflow=tested))


def after(journal: CuttableJournal, matches: Callable[[Record], bool], number: int = -1) -> CuttableJournal:
    """The journal cut after an entry with a record that matches: the last one, or the one with this number."""
    places = [place for place, entry in enumerate(journal.entries) if any(matches(record) for record in entry)]
    return journal.cut(places[number] + 1)


async def ask(llm: AsyncOpenAI, text: str) -> str:
    reply = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
    return reply.choices[0].message.content or ""


@step
async def increment(n: int) -> int:
    ran.append(f"increment {n}")
    return n + 1


@step
async def tenfold(n: int) -> int:
    return 10 * n


@tool(idempotency="idempotent")
async def tidy_up(n: int) -> str:
    """Tidy up."""
    ran.append("tidied up")
    return "tidy"


@step
async def tidy(n: int, llm: AsyncOpenAI = injected) -> str:
    try:
        return await ask(llm, "talk")
    finally:
        await tidy_up(1)


@workflow
def tidying(n: int) -> Handle[str]:
    return tidy(n)


async def test_clean_up_while_being_cut_off_does_not_make_the_call_one_that_was_given_up() -> None:
    journal = CuttableJournal()
    await parked(tidying, journal, lambda request: Reply("x", endless=True), "call.started")
    assert await resumed(tidying, journal, lambda request: "fine") == "fine"
    assert ran == ["tidied up"]


@step
async def peek(n: int, llm: AsyncOpenAI = injected) -> str:
    """Leaves a stream early, then asks on."""
    stream = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "talk"}], stream=True)
    heard = ""
    async for chunk in stream:
        heard += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        if heard:
            break
    await stream.close()
    return heard + await ask(llm, f"after {heard}")


@workflow
def peeking(n: int) -> Handle[str]:
    return peek(n)


async def test_a_stream_that_was_left_early_is_left_early_again() -> None:
    journal = CuttableJournal()

    def script(request: Any) -> Reply:
        return Reply("words and words ", endless=request.stream)

    expected = await first_run(peeking, journal, script)
    assert await resumed(peeking, after(journal, lambda r: isinstance(r, CallRecord)), script) == expected


kept: list[object] = []


@step
async def leave_open(n: int, llm: AsyncOpenAI = injected) -> str:
    kept.append(await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "talk"}], stream=True))
    return "left"


@workflow
def leaving(n: int) -> Handle[str]:
    return leave_open(n)


async def test_a_stream_that_nobody_reads_or_closes_ends_with_its_step() -> None:
    assert await first_run(leaving, CuttableJournal(), lambda request: Reply("x " * 100, endless=True)) == "left"
    kept.clear()


@tool(idempotency="idempotent")
async def think(n: int, llm: AsyncOpenAI = injected) -> str:
    """Think, with a model and another tool."""
    return await ask(llm, "think") + await tidy_up(n)


@step
async def think_twice(n: int, llm: AsyncOpenAI = injected) -> str:
    thought = await think(n)
    return await ask(llm, f"then {thought}")


@workflow
def thinking(n: int) -> Handle[str]:
    return think_twice(n)


async def test_what_a_tool_asked_for_is_not_missed_when_the_tool_is_answered_from_its_record() -> None:
    journal = CuttableJournal()
    assert await first_run(thinking, journal, lambda request: "fine") == "fine"
    assert await resumed(thinking, after(journal, lambda r: isinstance(r, CallRecord)), lambda request: "fine") == "fine"
    assert ran == ["tidied up"]


@workflow
async def child(n: int) -> int:
    return await increment(n)


@workflow
def parent(n: int) -> Handle[int]:
    return tenfold(child(n).value)


async def test_a_child_that_had_ended_when_its_parent_crashed_is_not_run_again() -> None:
    journal = CuttableJournal()
    assert await first_run(parent, journal) == 20
    cut = after(journal, lambda r: isinstance(r, ProgramRecord) and r.parent_id is not None and r.state == "succeeded")
    assert await resumed(parent, cut) == 20
    assert ran == ["increment 1"]


@step
async def fail_once(n: int) -> int:
    ran.append("fail_once")
    if ran.count("fail_once") == 1:
        raise ValueError("the first time")
    return n


@step
async def finish(n: int) -> int:
    ran.append("finish")
    if ran.count("finish") == 1:
        raise ValueError("the first time")
    return n


@workflow
async def failing_child(n: int) -> int:
    return await fail_once(n)


@workflow
async def handling(n: int) -> int:
    try:
        n = await fail_once(n)
    except StepFailedError:
        n = await tenfold(n)
    return await finish(n)


@workflow
async def handling_child(n: int) -> int:
    try:
        n = await failing_child(n)
    except StepFailedError:
        n = await tenfold(n)
    return await finish(n)


@pytest.mark.parametrize("tested", [handling, handling_child])
async def test_a_failure_that_was_handled_stays_when_the_failed_program_is_taken_up_again(tested: Any) -> None:
    journal = CuttableJournal()
    with pytest.raises(StepFailedError, match="finish"):
        await first_run(tested, journal)
    assert await resumed(tested, journal) == 10
    assert ran == ["fail_once", "finish", "finish"]


@workflow
async def direct(n: int, llm: AsyncOpenAI = injected) -> str:
    return await ask(llm, "first") + await ask(llm, "second")


async def test_a_workflow_whose_own_call_failed_goes_on_from_there() -> None:
    journal, asked = CuttableJournal(), list[str]()

    def script(request: Any) -> Reply | HttpFailure:
        asked.append(request.body["messages"][0]["content"])
        return HttpFailure(400) if asked == ["first", "second"] else Reply("fine")

    with pytest.raises(Exception, match="400"):
        await first_run(direct, journal, script)
    assert await resumed(direct, journal, script) == "finefine"
    assert asked == ["first", "second", "second"]


@step
async def dawdle(n: int) -> int:
    for _ in range(n):
        await anyio.lowlevel.checkpoint()
    return n


@workflow
async def racing(n: int) -> int:
    async def left() -> int:
        return await increment(await dawdle(5))

    async def right() -> int:
        return await tenfold(await dawdle(4))

    return sum(await asyncio.gather(left(), right()))


async def test_tasks_that_wake_in_another_order_are_no_divergence() -> None:
    journal = CuttableJournal()
    expected = await first_run(racing, journal)
    ends = [
        place
        for place, e in enumerate(journal.entries)
        if any(isinstance(r, ProgramRecord) and r.state == "succeeded" for r in e)
    ]
    for kept_entries in range(1, ends[0] + 1):
        assert await resumed(racing, journal.cut(kept_entries)) == expected


@step
async def element(n: int, llm: AsyncOpenAI = injected) -> str:
    if n == 0 and "failed" not in ran:
        await anyio.sleep(0.01)
        ran.append("failed")
        raise ValueError("once")
    return await ask(llm, str(n))


@workflow
def elements(n: int) -> Handle[list[str]]:
    return element.map([0, 1, 2])


async def test_elements_that_were_cut_off_by_a_failing_one_can_go_on() -> None:
    journal = CuttableJournal()
    with pytest.raises(StepFailedError):
        await first_run(elements, journal, lambda request: Reply("x", delay_s=HANG_S))
    assert await resumed(elements, journal, lambda request: "fine") == ["fine"] * 3


@step(retry=Retry(attempts=3, delay=0))
async def flaky(n: int) -> int:
    ran.append("flaky")
    raise ValueError("always")


@workflow
def trying(n: int) -> Handle[int]:
    return flaky(n)


async def test_a_crash_is_no_new_permission_to_try() -> None:
    journal = CuttableJournal()
    with pytest.raises(StepFailedError):
        await first_run(trying, journal)
    ran.clear()
    with pytest.raises(StepFailedError):
        await resumed(trying, after(journal, lambda r: isinstance(r, StepRecord) and r.state == "running" and r.attempt == 3))
    assert ran == ["flaky"]


@step(timeout=0.02)
async def wait_for_child(n: int) -> int:
    return await slow_child(n)


@workflow
async def slow_child(n: int) -> int:
    return await forever(n)


@step
async def forever(n: int) -> int:
    await anyio.sleep_forever()
    return n


@workflow
def waiting(n: int) -> Handle[int]:
    return wait_for_child(n)


async def test_a_child_of_a_step_that_timed_out_is_no_orphan() -> None:
    journal = CuttableJournal()
    with pytest.raises(StepFailedError):
        await first_run(waiting, journal)
    children = await journal.programs(parent_id="prg_x")
    assert [record.state for record in children] == ["cancelled"]


@step
async def remember(n: int, ctx: StepContext = injected) -> str:
    seen: object = await ctx.record("pairs", lambda: {1: (1, 2)})
    await ctx.record("other", lambda: 1)
    return repr(seen)


@workflow
def remembering(n: int) -> Handle[str]:
    return remember(n)


async def test_a_recorded_value_is_the_same_the_first_time_and_in_a_replay() -> None:
    journal = CuttableJournal()
    first = await first_run(remembering, journal)
    assert await resumed(remembering, after(journal, lambda r: isinstance(r, ObservationRecord), 0)) == first


@tool(idempotency="idempotent")
async def open_file(n: int) -> str:
    """Open a file whose name is not UTF-8."""
    raise OSError("no such file: 'a\udcff'")


@step
async def open_twice(n: int) -> str:
    try:
        return await open_file(n)
    except ToolError:
        raise ValueError("also not: 'b\udcfe'") from None


@workflow
def opening(n: int) -> Handle[str]:
    return open_twice(n)


async def test_errors_that_are_no_unicode_are_reported_like_others() -> None:
    journal = CuttableJournal()
    with pytest.raises(StepFailedError, match="also not"):
        await first_run(opening, journal)
    history = await journal.history("prg_x")
    assert history is not None and [record.state for record in history.steps] == ["failed"]
    assert [record.state for record in history.tool_calls] == ["failed"]


async def test_an_id_that_is_taken_is_refused() -> None:
    journal = CuttableJournal()
    await first_run(parent, journal)
    with pytest.raises(ConflictError, match="prg_x"):
        await first_run(parent, journal)


async def test_cancelling_at_once_cancels() -> None:
    journal = CuttableJournal()
    async with runtime_on(journal) as runtime:
        program = runtime.start(parent, {"n": 1})
        await runtime.cancel(program.id)
        with pytest.raises(ProgramError):
            await runtime.outcome(program)
    assert program.record.state == "cancelled" and ran == []


async def test_an_absurd_usage_figure_is_unknown_not_fatal(tmp_path: Any) -> None:
    from fairlead import Runtime

    choices = b'[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}]'
    body = b'{"choices": %s, "usage": {"prompt_tokens": %s}}' % (choices, b"9" * 30)
    engine = EmbeddedEngine(script=lambda request: RawReply(body))
    async with Runtime(db=f"sqlite:///{tmp_path}/x.db", engine=engine) as runtime:
        assert await runtime.run(thinking, 1) == "x"


def test_names_and_keys_cannot_make_two_nodes_one() -> None:
    with pytest.raises(DeclarationError, match="item#2"):

        @step(name="item#2")
        async def named(n: int) -> int:
            return n

    @workflow
    def keyed(n: int) -> Handle[list[int]]:
        return tenfold.map([tenfold.options(key="0")(n).value])

    with pytest.raises(DeclarationError, match="key '0'"):
        keyed.graph(1)
