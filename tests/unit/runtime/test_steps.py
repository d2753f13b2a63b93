"""Attempts of a step: retries, timeouts, fallbacks and the cache, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from fairlead import Agent, Cache, Handle, Retry, Runtime, StepContext, StepFailedError, Timeout, injected, step, tool, workflow
from fairlead.runtime.agent import AgentResult
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply, ToolCall
from fairlead.runtime.store.records import EventRecord
from tests.support.virtual_time import SetClock, virtual_time

pytestmark = pytest.mark.anyio
anyio_backend = virtual_time


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with Runtime() as runtime:
        yield runtime


def events_of(runtime: Runtime) -> list[EventRecord]:
    seen: list[EventRecord] = []
    runtime.watch(seen.append)
    return seen


def kinds(events: list[EventRecord], node: str) -> list[str]:
    return [event.kind for event in events if event.node == node]


class Flaky:
    """Fails a number of times, and knows when it was called."""

    def __init__(self, fails: int, error: type[Exception] = ValueError) -> None:
        self.fails = fails
        self.error = error
        self.times: list[float] = []

    def __call__(self) -> int:
        self.times.append(anyio.current_time())
        if len(self.times) <= self.fails:
            raise self.error(f"failure {len(self.times)}")
        return len(self.times)

    @property
    def waits(self) -> list[float]:
        return [round(after - before, 6) for before, after in zip(self.times, self.times[1:], strict=False)]


def flaky_workflow(flaky: Flaky, **settings: Any) -> Any:
    @step(**settings)
    async def unsteady() -> int:
        return flaky()

    @workflow
    def composed() -> Handle[int]:
        return unsteady()

    return composed


async def test_a_step_is_tried_again_after_growing_delays(runtime: Runtime) -> None:
    flaky = Flaky(3)
    seen = events_of(runtime)
    assert await runtime.run(flaky_workflow(flaky, retry=Retry(attempts=4, delay=0.5, factor=3, jitter=0))) == 4
    assert flaky.waits == [0.5, 1.5, 4.5]
    assert kinds(seen, "unsteady") == ["step.started", *["step.retrying", "step.started"] * 3, "step.succeeded"]


async def test_the_last_failure_is_the_error_with_the_number_of_attempts(runtime: Runtime) -> None:
    with pytest.raises(StepFailedError, match="step 'unsteady' failed: ValueError: failure 3") as caught:
        await runtime.run(flaky_workflow(Flaky(9), retry=3))
    assert (caught.value.step, caught.value.node, caught.value.attempts) == ("unsteady", "unsteady", 3)
    assert caught.value.kind == "ValueError"


async def test_without_retry_there_is_one_attempt(runtime: Runtime) -> None:
    flaky = Flaky(1)
    with pytest.raises(StepFailedError):
        await runtime.run(flaky_workflow(flaky))
    assert len(flaky.times) == 1


@pytest.mark.parametrize(
    ("on", "attempts"),
    [(KeyError, 1), (ValueError, 3), ((KeyError, ValueError), 3), (lambda error: "failure 1" in str(error), 2)],
)
async def test_only_errors_that_the_predicate_names_are_tried_again(runtime: Runtime, on: Any, attempts: int) -> None:
    flaky = Flaky(9)
    with pytest.raises(StepFailedError) as caught:
        await runtime.run(flaky_workflow(flaky, retry=Retry(attempts=3, on=on)))
    assert len(flaky.times) == caught.value.attempts == attempts


async def test_a_predicate_that_fails_itself_is_an_error_that_says_so(runtime: Runtime) -> None:
    def broken(error: Exception) -> bool:
        raise RuntimeError("no idea")

    with pytest.raises(StepFailedError, match=r"retry predicate failed: RuntimeError: no idea.*failure 1"):
        await runtime.run(flaky_workflow(Flaky(9), retry=Retry(attempts=3, on=broken)))


async def test_each_attempt_knows_its_number_and_has_the_same_idempotency_key(runtime: Runtime) -> None:
    seen: list[tuple[int, str, str]] = []

    @step(retry=3)
    async def unsteady(ctx: StepContext = injected) -> int:
        seen.append((ctx.attempt, ctx.step, ctx.idempotency_key))
        if ctx.attempt < 3:
            raise ValueError
        return 0

    @workflow
    def composed() -> Handle[int]:
        return unsteady.options(after=[unsteady()])()

    await runtime.run(composed)
    assert [(attempt, node) for attempt, node, _ in seen] == [
        (n, node) for node in ("unsteady", "unsteady#2") for n in (1, 2, 3)
    ]
    assert len({key for _, _, key in seen}) == 2


async def test_a_hard_timeout_ends_the_attempt_at_its_time(runtime: Runtime) -> None:
    times: list[float] = []

    @step(timeout=10)
    async def slow() -> int:
        times.append(anyio.current_time())
        try:
            await anyio.sleep(60)
        finally:
            times.append(anyio.current_time())
        return 0

    @workflow
    def composed() -> Handle[int]:
        return slow()

    with pytest.raises(StepFailedError, match=r"step 'slow' exceeded its hard timeout of 10 s") as caught:
        await runtime.run(composed)
    assert times[1] - times[0] == pytest.approx(10)
    assert caught.value.kind == "StepTimeoutError"


async def test_a_timeout_counts_for_each_attempt_anew(runtime: Runtime) -> None:
    @step(timeout=10, retry=Retry(attempts=3, delay=0, jitter=0))
    async def slow(ctx: StepContext = injected) -> int:
        await anyio.sleep(9 if ctx.attempt == 3 else 11)
        return ctx.attempt

    @workflow
    def composed() -> Handle[int]:
        return slow()

    began = anyio.current_time()
    assert await runtime.run(composed) == 3
    assert anyio.current_time() - began == pytest.approx(29)


async def test_an_idle_timeout_ends_a_step_that_shows_no_progress(runtime: Runtime) -> None:
    @step(timeout=Timeout(idle=10))
    async def silent(ctx: StepContext = injected) -> int:
        for _ in range(5):
            await anyio.sleep(8)
            ctx.heartbeat()
        await anyio.sleep(60)
        return 0

    @workflow
    def composed() -> Handle[int]:
        return silent()

    began = anyio.current_time()
    with pytest.raises(StepFailedError, match=r"'silent' exceeded its idle timeout of 10 s"):
        await runtime.run(composed)
    assert anyio.current_time() - began == pytest.approx(50)


async def test_heartbeats_keep_a_step_alive_up_to_its_hard_limit(runtime: Runtime) -> None:
    @step(timeout=Timeout(hard=100, idle=10))
    async def lively(ctx: StepContext = injected) -> int:
        while True:
            await anyio.sleep(5)
            ctx.heartbeat()

    @workflow
    def composed() -> Handle[int]:
        return lively()

    with pytest.raises(StepFailedError, match="hard timeout of 100 s"):
        await runtime.run(composed)


async def test_tokens_and_tool_results_are_signs_of_life() -> None:
    @tool
    async def look() -> str:
        """Look."""
        await anyio.sleep(8)
        return "seen"

    agent = Agent("Look three times.", tools=[look])

    @step(timeout=Timeout(idle=10))
    async def ask() -> str:
        events = [event async for event in agent.stream("?")]
        assert isinstance(events[-1], AgentResult)
        return str(events[-1].output)

    @workflow
    def composed() -> Handle[str]:
        return ask()

    replies = [*[Reply("", [ToolCall("look")], delay_s=8)] * 3, Reply("word " * 40, token_delay_s=1)]
    async with Runtime(engine=EmbeddedEngine(script=replies)) as runtime:
        began = anyio.current_time()
        assert await runtime.run(composed) == "word " * 40
        assert anyio.current_time() - began > 60


async def test_a_child_step_that_progresses_keeps_its_parent_alive(runtime: Runtime) -> None:
    @step
    async def child(ctx: StepContext = injected) -> int:
        for _ in range(5):
            await anyio.sleep(8)
            ctx.heartbeat()
        return 1

    @step(timeout=Timeout(idle=10))
    async def parent() -> int:
        return await child()

    @workflow
    def composed() -> Handle[int]:
        return parent()

    assert await runtime.run(composed) == 1


async def test_a_fallback_takes_the_place_with_the_same_arguments(runtime: Runtime) -> None:
    @step
    async def simple(text: str, scale: int = 2) -> str:
        return f"simple {text} {scale}"

    @step(retry=Retry(attempts=2, delay=0), fallback=simple)
    async def clever(text: str, scale: int = 2) -> str:
        raise ValueError("too clever")

    @step
    async def after(text: str) -> str:
        return text.upper()

    @workflow
    def composed(text: str) -> Handle[str]:
        return after(clever(text, scale=3).value)

    seen = events_of(runtime)
    assert await runtime.run(composed, "x") == "SIMPLE X 3"
    assert kinds(seen, "clever") == ["step.started", "step.retrying", "step.started", "step.fallback", "step.succeeded"]
    assert kinds(seen, "clever!simple") == ["step.started", "step.succeeded"]


async def test_a_fallback_runs_after_a_timeout_too(runtime: Runtime) -> None:
    @step
    async def quick() -> str:
        return "quick"

    @step(timeout=5, fallback=quick)
    async def slow() -> str:
        await anyio.sleep_forever()
        return ""

    @workflow
    def composed() -> Handle[str]:
        return slow()

    assert await runtime.run(composed) == "quick"


async def test_a_fallback_that_fails_too_fails_the_step(runtime: Runtime) -> None:
    @step
    async def simple() -> str:
        raise KeyError("simple as well")

    @step(fallback=simple)
    async def clever() -> str:
        raise ValueError("too clever")

    @workflow
    def composed() -> Handle[str]:
        return clever()

    seen = events_of(runtime)
    with pytest.raises(StepFailedError, match="simple as well") as caught:
        await runtime.run(composed)
    assert caught.value.step == "clever"
    assert kinds(seen, "clever")[-1] == "step.failed"


class Cached:
    """A cached step that counts its runs."""

    def __init__(self, cache: Cache) -> None:
        self.runs: list[tuple[str, int]] = []

        @step(cache=cache)
        async def work(text: str, scale: int = 1) -> str:
            self.runs.append((text, scale))
            return text * scale

        @workflow
        def composed(text: str, scale: int = 1) -> Handle[str]:
            return work(text, scale)

        self.workflow = composed


async def test_a_cached_result_serves_other_programs(runtime: Runtime) -> None:
    cached = Cached(Cache())
    seen = events_of(runtime)
    assert [await runtime.run(cached.workflow, "a", 2) for _ in range(3)] == ["aa"] * 3
    assert cached.runs == [("a", 2)]
    assert [event.kind for event in seen if event.node == "work"] == ["step.started", *["step.succeeded"] * 3]


async def test_other_arguments_are_not_served_from_the_cache(runtime: Runtime) -> None:
    cached = Cached(Cache())
    assert [await runtime.run(cached.workflow, "a", scale) for scale in (1, 2, 1, 2)] == ["a", "aa", "a", "aa"]
    assert cached.runs == [("a", 1), ("a", 2)]


async def test_the_key_says_which_arguments_count(runtime: Runtime) -> None:
    cached = Cached(Cache(key=lambda text, scale: text.lower()))
    assert [await runtime.run(cached.workflow, text, scale) for text, scale in (("a", 1), ("A", 2), ("b", 1))] == [
        "a",
        "a",
        "b",
    ]
    assert cached.runs == [("a", 1), ("b", 1)]


async def test_the_key_sees_defaults_that_were_left_out(runtime: Runtime) -> None:
    runs: list[str] = []

    @step(cache=Cache(key=lambda text, scale: f"{text}{scale}"))
    async def work(text: str, scale: int = 1) -> str:
        runs.append(text)
        return text * scale

    @workflow
    def composed(text: str) -> Handle[str]:
        return work(text)

    assert [await runtime.run(composed, "a") for _ in range(2)] == ["a", "a"]
    assert runs == ["a"]


async def test_a_cached_result_is_forgotten_after_its_lifetime() -> None:
    clock = SetClock()
    cached = Cached(Cache(lifetime=60))
    async with Runtime(clock=clock) as runtime:
        await runtime.run(cached.workflow, "a")
        clock.time += 59
        await runtime.run(cached.workflow, "a")
        assert len(cached.runs) == 1
        clock.time += 2
        await runtime.run(cached.workflow, "a")
        assert len(cached.runs) == 2


async def test_failures_are_not_cached(runtime: Runtime) -> None:
    flaky = Flaky(1)
    cached = flaky_workflow(flaky, cache=Cache())
    with pytest.raises(StepFailedError):
        await runtime.run(cached)
    assert await runtime.run(cached) == 2


async def test_a_key_function_that_fails_is_an_error_that_says_so(runtime: Runtime) -> None:
    cached = Cached(Cache(key=lambda text, scale: text[99]))
    with pytest.raises(StepFailedError, match=r"step 'work'.*cache key function failed: IndexError"):
        await runtime.run(cached.workflow, "a")


async def test_a_result_of_another_type_fails_the_step_and_says_where(runtime: Runtime) -> None:
    @step
    async def wrong() -> int:
        return "three"  # type: ignore[return-value]  # the mistake

    @workflow
    def composed() -> Handle[int]:
        return wrong()

    with pytest.raises(
        StepFailedError, match=r"step 'wrong', result: a value of type str does not fit the declared type int"
    ) as caught:
        await runtime.run(composed)
    assert caught.value.kind == "SerialisationError"


@pytest.mark.parametrize("value", [object(), {1, object()}, float("nan"), "\ud800", {"a": lambda: 1}])
async def test_a_result_that_has_no_json_form_fails_the_step_and_says_where(runtime: Runtime, value: Any) -> None:
    @step
    async def wrong() -> Any:
        return value

    @workflow
    def composed() -> Any:
        return wrong()

    if value != value:  # NaN is written as null where anything is allowed
        assert await runtime.run(composed) is None
        return
    with pytest.raises(StepFailedError, match="step 'wrong', result") as caught:
        await runtime.run(composed)
    assert caught.value.kind == "SerialisationError"


async def test_a_recorded_observation_must_be_json(runtime: Runtime) -> None:
    @step
    async def look(ctx: StepContext = injected) -> int:
        await ctx.record("thing", lambda: object())
        return 1

    @workflow
    def composed() -> Handle[int]:
        return look()

    with pytest.raises(StepFailedError, match="JSON") as caught:
        await runtime.run(composed)
    assert caught.value.kind == "SerialisationError"


async def test_work_that_a_step_started_ends_with_it(runtime: Runtime) -> None:
    """A step that fails takes the steps that it added with it."""
    ended: list[float] = []

    @step
    async def slow() -> int:
        try:
            await anyio.sleep(100)
        finally:
            ended.append(anyio.current_time())
        return 1

    @step
    async def parent() -> int:
        slow()
        await anyio.sleep(1)
        raise ValueError("enough")

    @workflow
    def composed() -> Handle[int]:
        return parent()

    began = anyio.current_time()
    with pytest.raises(StepFailedError, match="enough"):
        await runtime.run(composed)
    assert ended == [pytest.approx(began + 1)]
