"""Programs from start to end: both kinds of workflow, steps in threads, failures, and what is kept of them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import date
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import BaseModel

from fairlead import (
    Agent,
    DeclarationError,
    Handle,
    InputError,
    ProgramError,
    Retry,
    Runtime,
    StepContext,
    StepFailedError,
    injected,
    run,
    step,
    tool,
    when,
    workflow,
)
from fairlead.errors import ConfigurationError, ConflictError, NotFoundError
from fairlead.runtime.store.records import EventRecord

pytestmark = pytest.mark.anyio


class Page(BaseModel):
    url: str
    day: date


@dataclass
class Score:
    page: Page
    points: float


@step
async def fetch(url: str) -> Page:
    return Page(url=url, day=date(2026, 1, 2))


@step
def score(page: Page, scale: float = 1.0) -> Score:
    """In a thread."""
    assert isinstance(page, Page)
    return Score(page, len(page.url) * scale)


@step
async def best(scores: list[Score]) -> Score:
    return max(scores, key=lambda score: score.points)


@step
async def is_good(score: Score) -> bool:
    return score.points > 3


@step
def praise(score: Score) -> str:
    return f"{score.page.url} of {score.page.day} is good: {score.points}"


@workflow
def composed(urls: list[str]) -> Handle[str]:
    scores = [score(fetch(url).value, scale=2.0) for url in urls]
    top = best([one.value for one in scores])
    return when(is_good(top.value), then=lambda: praise(top.value), otherwise=lambda: "nothing good")


@workflow
async def plain(urls: list[str]) -> str:
    pages = [fetch(url) for url in urls]
    scores = [await score(page.value, scale=2.0) for page in pages]
    top = await best(scores)
    assert isinstance(top, Score)
    return await praise(top) if await is_good(top) else "nothing good"


@pytest.mark.parametrize("flow", [composed, plain], ids=["composed", "plain"])
async def test_both_kinds_of_workflow_give_the_result(db: str | None, flow: Any) -> None:
    async with Runtime(db=db) as runtime:
        assert await runtime.run(flow, ["a", "abc", "ab"]) == "abc of 2026-01-02 is good: 6.0"
        assert await runtime.run(flow, ["a"]) == "nothing good"


def test_one_function_runs_a_workflow() -> None:
    assert run(composed, ["abc"]) == "abc of 2026-01-02 is good: 6.0"
    assert run(plain, urls=["abc"]) == "abc of 2026-01-02 is good: 6.0"


async def test_what_happened_can_be_read_afterwards(db: str | None) -> None:
    async with Runtime(db=db) as runtime:
        seen: list[EventRecord] = []
        runtime.watch(seen.append)
        program = runtime.start(composed, {"urls": ["abc"]})
        await runtime.outcome(program)
        history = await runtime.journal.history(program.id)
        events = await runtime.journal.events(program.id)
    assert history is not None
    assert (history.program.state, history.program.result) == ("succeeded", '"abc of 2026-01-02 is good: 6.0"')
    assert history.program.input == '{"urls":["abc"]}'
    assert {step.node: step.state for step in history.steps} == {
        "fetch": "succeeded", "score": "succeeded", "best": "succeeded", "is_good": "succeeded", "praise": "succeeded",
    }  # fmt: skip
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (events[0].kind, events[-1].kind) == ("program.started", "program.succeeded")
    assert seen == events


async def test_arguments_from_outside_are_read_as_their_types_or_refused_by_name(db: str | None) -> None:
    @workflow
    async def take(page: Page, limit: int = 3) -> str:
        assert isinstance(page, Page)
        return f"{page.day.year} {limit}"

    async with Runtime(db=db) as runtime:
        program = runtime.start(take, {"page": {"url": "x", "day": "2026-01-02"}})
        assert await runtime.outcome(program) == "2026 3"
        with pytest.raises(InputError, match="workflow 'take', parameter 'page' is missing"):
            runtime.start(take, {})
        with pytest.raises(InputError, match=r"workflow 'take', parameter 'page'.*at day"):
            runtime.start(take, {"page": {"url": "x", "day": "someday"}})
        with pytest.raises(InputError, match=r"no parameter 'pages'"):
            runtime.start(take, {"pages": []})
        with pytest.raises(DeclarationError, match="workflow 'take', parameter 'limit' expects int"):
            await runtime.run(take, Page(url="x", day=date(2026, 1, 2)), limit="3")  # type: ignore[arg-type]  # the mistake
        assert len(await runtime.journal.programs()) == 1


async def test_a_wrong_graph_is_refused_before_anything_is_recorded(db: str | None) -> None:
    @workflow
    def wrong(url: str) -> Handle[Score]:
        return best([fetch(url).value])  # type: ignore[list-item]  # the mistake

    async with Runtime(db=db) as runtime:
        with pytest.raises(DeclarationError, match="step 'best', parameter 'scores'"):
            await runtime.run(wrong, "x")
        assert await runtime.journal.programs() == []


async def test_programs_run_side_by_side(db: str | None) -> None:
    async with Runtime(db=db) as runtime:
        programs = [runtime.start(composed, {"urls": ["x" * number]}) for number in range(1, 21)]
        results = [await runtime.outcome(program) for program in programs]
    assert results[0] == "nothing good"
    assert results[19] == f"{'x' * 20} of 2026-01-02 is good: 40.0"


async def test_a_program_id_can_be_given_once(db: str | None) -> None:
    @step
    async def idle() -> int:
        await anyio.sleep_forever()
        return 1

    @workflow
    def waits() -> Handle[int]:
        return idle()

    async with Runtime(db=db) as runtime:
        assert runtime.start(waits, {}, program_id="mine").id == "mine"
        with pytest.raises(ConflictError, match="program mine runs already"):
            runtime.start(waits, {}, program_id="mine")


@pytest.mark.parametrize("settings", [{"in_flight_max": 0}, {"threads_max": 0}])
def test_limits_that_let_nothing_run_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        Runtime(**settings)  # type: ignore[arg-type]  # keyword by keyword they are int


async def test_the_error_of_the_callers_own_block_goes_on_as_it_is(db: str | None) -> None:
    async def block() -> None:
        async with Runtime(db=db) as runtime:
            runtime.start(plain, {"urls": ["a"]})
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()


async def test_what_does_not_exist_cannot_be_resumed_or_cancelled(db: str | None) -> None:
    async with Runtime(db=db) as runtime:
        with pytest.raises(NotFoundError, match="there is no program 'prg_x'"):
            await runtime.resume("prg_x")
        with pytest.raises(NotFoundError, match="there is no program 'prg_x'"):
            await runtime.cancel("prg_x")


# --- failures ---


class Switch:
    """A step beside which others work, and whose failure can be put right."""

    def __init__(self) -> None:
        self.broken = True
        self.ran: list[str] = []


def failing(switch: Switch) -> Any:
    @step
    async def good(name: str) -> str:
        switch.ran.append(name)
        return name

    @step
    async def bad(name: str) -> str:
        switch.ran.append(name)
        if switch.broken:
            raise ValueError("not today")
        return name

    @step
    async def slow(name: str) -> str:
        switch.ran.append(name)
        if switch.broken:
            await anyio.sleep_forever()
        return name

    @step
    async def join(names: list[str]) -> str:
        return " ".join(names)

    @workflow
    def flow() -> Handle[str]:
        first = good("first")
        return join([first.value, bad.options(after=[first])("bad").value, slow("slow").value])

    return flow


async def test_a_failing_step_stops_its_siblings_and_their_finished_work_is_used_by_a_resume(db: str | None) -> None:
    switch = Switch()
    flow = failing(switch)
    async with Runtime(db=db) as runtime:
        program = runtime.start(flow)
        with pytest.raises(StepFailedError, match="step 'bad' failed: ValueError: not today"):
            await runtime.outcome(program)
        history = await runtime.journal.history(program.id)
        assert history is not None
        assert history.program.state == "failed"
        assert {step.node: step.state for step in history.steps} == {"good": "succeeded", "bad": "failed", "slow": "cancelled"}
        assert sorted(switch.ran) == ["bad", "first", "slow"]

        switch.broken = False
        switch.ran.clear()
        resumed = await runtime.resume(program.id, workflow=flow)
        assert await runtime.outcome(resumed) == "first bad slow"
        assert sorted(switch.ran) == ["bad", "slow"]
        assert resumed.counts.steps_reused == 1
        with pytest.raises(ConflictError, match="succeeded: there is nothing to resume"):
            await runtime.resume(program.id, workflow=flow)


async def test_a_resume_in_another_process_reuses_finished_work(tmp_path: Any) -> None:
    """Another runtime on the same database stands for another process."""
    db = f"sqlite:///{tmp_path}/runs.db"
    switch = Switch()
    flow = failing(switch)
    async with Runtime(db=db) as runtime:
        program = runtime.start(flow)
        with pytest.raises(StepFailedError):
            await runtime.outcome(program)
    switch.broken = False
    switch.ran.clear()
    async with Runtime(db=db) as runtime:
        assert await runtime.outcome(await runtime.resume(program.id, workflow=flow)) == "first bad slow"
    assert sorted(switch.ran) == ["bad", "slow"]


async def test_programs_that_run_when_the_runtime_is_left_are_parked_and_can_be_resumed(tmp_path: Any) -> None:
    db = f"sqlite:///{tmp_path}/runs.db"
    switch = Switch()
    started = anyio.Event()

    @step
    async def first() -> int:
        switch.ran.append("first")
        return 1

    @step
    async def second(n: int) -> int:
        switch.ran.append("second")
        started.set()
        if switch.broken:
            await anyio.sleep_forever()
        return n + 1

    @workflow
    def flow() -> Handle[int]:
        return second(first().value)

    async with Runtime(db=db) as runtime:
        program = runtime.start(flow)
        await started.wait()
    switch.broken = False
    async with Runtime(db=db) as runtime:
        assert [record.id for record in await runtime.resumable()] == [program.id]
        assert await runtime.outcome(await runtime.resume(program.id, workflow=flow)) == 2
        assert await runtime.resumable() == []
    assert switch.ran == ["first", "second", "second"]


async def test_a_resumed_step_gets_its_recorded_values_again(tmp_path: Any) -> None:
    db = f"sqlite:///{tmp_path}/runs.db"
    looks: list[int] = []
    broken = [True]
    looked = anyio.Event()

    @step
    async def look(ctx: StepContext = injected) -> list[int]:
        def number() -> int:
            looks.append(len(looks))
            return len(looks)

        seen = [await ctx.record("number", number), await ctx.record("number", number)]
        looked.set()
        if broken:
            await anyio.sleep_forever()
        return seen

    @workflow
    def flow() -> Handle[list[int]]:
        return look()

    async with Runtime(db=db) as runtime:
        program = runtime.start(flow)
        with anyio.fail_after(5):
            await looked.wait()
    broken.clear()
    async with Runtime(db=db) as runtime:
        assert await runtime.outcome(await runtime.resume(program.id, workflow=flow)) == [1, 2]
    assert len(looks) == 2


# --- steps in threads ---


@step
def leaf(n: int) -> int:
    return n + 1


@step
def branch(n: int) -> int:
    """Waits for other steps in threads."""
    handles = [leaf(n), leaf(n + 1)]
    return sum(handle.result() for handle in handles)


@step
def tree(n: int) -> int:
    handles = [branch(number) for number in range(n)]
    return sum(handle.result() for handle in handles)


async def test_steps_in_threads_that_wait_for_steps_in_threads_do_not_block_each_other(db: str | None) -> None:
    @workflow
    def flow() -> Handle[int]:
        return tree(10)

    with anyio.fail_after(20):
        async with Runtime(db=db, threads_max=2) as runtime:
            assert await runtime.run(flow) == sum((n + 1) + (n + 2) for n in range(10))
            assert runtime._services.threads.total_tokens == 2


async def test_plain_steps_run_beside_each_other_in_threads_up_to_the_bound() -> None:
    barrier = threading.Barrier(3, timeout=10)

    @step
    def meet(n: int) -> int:
        barrier.wait()
        return threading.get_ident()

    @workflow
    def flow() -> Handle[list[int]]:
        return meet.map([1, 2, 3])

    async with Runtime(threads_max=3) as runtime:
        threads = await runtime.run(flow)
    assert len(set(threads)) == 3
    assert threading.get_ident() not in threads


async def test_a_step_in_a_thread_uses_tools_maps_workflows_and_its_context(db: str | None) -> None:
    @tool
    async def double(n: int) -> int:
        """Double."""
        return 2 * n

    @tool
    def triple(n: int) -> int:
        """Triple."""
        return 3 * n

    @workflow
    def child(n: int) -> Handle[int]:
        return leaf(n)

    @step
    def busy(ctx: StepContext = injected) -> list[Any]:
        ctx.heartbeat()
        return [double.blocking(2), triple.blocking(2), leaf.map([1, 2]).result(), child(7).result(), ctx.step, ctx.attempt]

    @workflow
    def flow() -> Handle[list[Any]]:
        return busy()

    with anyio.fail_after(20):
        async with Runtime(db=db, threads_max=2) as runtime:
            assert await runtime.run(flow) == [4, 6, [2, 3], 8, "busy", 1]


async def test_a_failure_reaches_the_thread_that_waits_for_it(db: str | None) -> None:
    @step
    def broken() -> int:
        raise ValueError("deep")

    @step
    def handles() -> str:
        try:
            return str(broken().result())
        except StepFailedError as error:
            return error.reason

    @workflow
    def flow() -> Handle[str]:
        return handles()

    async with Runtime(db=db) as runtime:
        assert await runtime.run(flow) == "ValueError: deep"


async def test_a_thread_left_behind_by_a_timeout_may_ask_for_nothing_more() -> None:
    go, errors = threading.Event(), list[str]()
    done = threading.Event()

    @step(timeout=0.02)
    def stubborn() -> int:
        go.wait(10)
        try:
            return leaf(1).result()
        except BaseException as error:
            errors.append(f"{type(error).__name__}: {error}")
            raise
        finally:
            done.set()

    @workflow
    def flow() -> Handle[int]:
        return stubborn()

    async with Runtime() as runtime:
        program = runtime.start(flow)
        with pytest.raises(StepFailedError, match="hard timeout"):
            await runtime.outcome(program)
        go.set()
        await anyio.to_thread.run_sync(done.wait, 10)
        history = await runtime.journal.history(program.id)
    assert history is not None
    assert [step.node for step in history.steps] == ["stubborn"]
    assert len(errors) == 1
    assert "after attempt 1 had ended" in errors[0]


@pytest.mark.parametrize("blocking", ["result", "tool", "agent"])
async def test_waiting_in_an_async_step_as_one_would_in_a_thread_is_a_clear_error(blocking: str) -> None:
    @tool
    async def double(n: int) -> int:
        """Double."""
        return 2 * n

    @step
    async def waits() -> Any:
        match blocking:
            case "result":
                return leaf(1).result()
            case "tool":
                return double.blocking(1)
            case _:
                return Agent().run_blocking("?")

    @workflow
    def flow() -> Any:
        return waits()

    async with Runtime() as runtime:
        with pytest.raises(StepFailedError, match="await") as caught:
            await runtime.run(flow)
    assert caught.value.kind == "DeclarationError"


@pytest.mark.parametrize("what", ["tool", "agent", "step"])
async def test_an_event_loop_of_its_own_in_a_plain_step_is_a_clear_error(what: str) -> None:
    """Everything a step asks for belongs to the loop that runs its program; waiting on another one could wait for ever."""

    @tool
    async def double(n: int) -> int:
        """Double."""
        return 2 * n

    @step
    def runs_its_own() -> Any:
        async def main() -> Any:
            match what:
                case "tool":
                    return await double(1)
                case "agent":
                    return (await Agent().run("?")).output
                case _:
                    return await leaf(1)

        return asyncio.run(asyncio.wait_for(main(), 2))

    @workflow
    def flow() -> Any:
        return runs_its_own()

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            with pytest.raises(StepFailedError, match="event loop") as caught:
                await runtime.run(flow)
    assert caught.value.kind == "DeclarationError"


async def test_steps_that_call_themselves_without_end_are_stopped() -> None:
    @step
    async def deeper(n: int) -> int:
        return await deeper(n + 1)

    @workflow
    def flow() -> Handle[int]:
        return deeper(0)

    with anyio.fail_after(20):
        async with Runtime() as runtime:
            program = runtime.start(flow)
            with pytest.raises(StepFailedError, match="deep") as caught:
                await runtime.outcome(program)
            history = await runtime.journal.history(program.id)
    assert history is not None
    assert len(history.steps) <= 200
    assert len(str(caught.value)) < 2_000


async def test_retries_work_in_threads(db: str | None) -> None:
    @step(retry=Retry(attempts=3, delay=0))
    def unsteady(ctx: StepContext = injected) -> int:
        if ctx.attempt < 3:
            raise ValueError
        return ctx.attempt

    @workflow
    def flow() -> Handle[int]:
        return unsteady()

    async with Runtime(db=db) as runtime:
        assert await runtime.run(flow) == 3


async def test_a_step_that_tries_to_end_the_process_fails_and_takes_nothing_else_with_it() -> None:
    @step
    async def leaves() -> int:
        raise SystemExit(3)

    @step
    def leaves_in_a_thread() -> int:
        raise SystemExit(3)

    @workflow
    def flow() -> Handle[int]:
        return leaves()

    @workflow
    def threaded() -> Handle[int]:
        return leaves_in_a_thread()

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            for one in (flow, threaded):
                with pytest.raises(ProgramError, match="SystemExit"):
                    await runtime.run(one)
            assert await runtime.run(composed, ["abc"]) == "abc of 2026-01-02 is good: 6.0"
