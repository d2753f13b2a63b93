"""Not run, only type-checked: what the decorators leave of the types of the functions they decorate.

Where an error is expected, the line ignores exactly that error; an ignore that is not needed fails the check, so an error that
is no longer found does, too.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, assert_type

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from fairlead import (
    Agent,
    Cache,
    Handle,
    Retry,
    Runtime,
    Step,
    StepContext,
    Timeout,
    Tool,
    ToolContext,
    Workflow,
    injected,
    loop,
    run,
    step,
    tool,
    when,
    workflow,
)
from fairlead.runtime.agent import AgentResult


class Page(BaseModel):
    url: str


@step
async def fetch(url: str) -> Page:
    return Page(url=url)


@step
def measure(page: Page, scale: float = 1.0) -> int:
    return int(len(page.url) * scale)


@step(retry=Retry(attempts=3), timeout=Timeout(hard=60, idle=5), cache=Cache(lifetime=60), idempotency="pure", limit=4)
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@step(retry=3, timeout=60)
def is_big(n: int) -> bool:
    return n > 3


@step
async def ask(question: str, llm: AsyncOpenAI = injected, ctx: StepContext = injected) -> str:
    assert_type(llm, AsyncOpenAI)
    assert_type(ctx.attempt, int)
    return question


@step
def ask_plainly(question: str, llm: OpenAI = injected) -> str:
    assert_type(llm, OpenAI)
    return question


@tool
async def search(query: str, limit: int = 10) -> list[str]:
    return [query] * limit


@tool(idempotency="pure", background=True, timeout=5)
def save(text: str, ctx: ToolContext = injected) -> bool:
    assert_type(ctx.idempotency_key, str)
    return bool(text)


# Decorated functions keep what they take and give; sync and async are the same to a caller.
a_step: Step[[str], Page] = fetch
a_plain_step: Step[[Page, float], int] = measure
a_step_with_options: Step[[list[int]], int] = total
a_tool: Tool[[str, int], list[str]] = search


@workflow
def composed(url: str) -> Handle[int]:
    page = fetch(url)
    assert_type(page, Handle[Page])
    assert_type(page.value, Page)

    size = measure(page.value, scale=2.0)
    assert_type(size, Handle[int])
    assert_type(total([size.value, 3]), Handle[int])

    sizes = measure.map([page.value], scale=3.0)
    assert_type(sizes, Handle[list[int]])
    assert_type(sizes.value, list[int])
    assert_type(measure.options(limit=2, key="main", after=[page]).map([Page(url="x")]), Handle[list[int]])

    assert_type(loop(double, 1, until=is_big, limit=3), Handle[int])
    return size


@step
async def double(n: int) -> int:
    return 2 * n


@workflow(timeout=60, version="1")
async def plain(urls: Sequence[str], scale: float = 1.0) -> list[int]:
    handle = fetch(urls[0])
    assert_type(await handle, Page)
    assert_type(handle.result(), Page)
    assert_type(await measure.map([await handle]), list[int])
    assert_type(await composed("x"), int)
    assert_type(await ask("why"), str)  # injected parameters are left out
    assert_type(await ask_plainly("why"), str)
    assert_type(await search("x"), list[str])
    searching: Coroutine[Any, Any, list[str]] = search("x")
    await searching
    assert_type(search.blocking("x", limit=3), list[str])
    assert_type(save.blocking("x"), bool)
    assert_type(when(is_big(3), then=lambda: 1), Handle[Any])  # the ways may differ
    return [1]


@workflow
def composed_of_values(url: str) -> int:
    return measure(fetch(url).value).value


a_workflow: Workflow[[str], int] = composed
a_workflow_of_values: Workflow[[str], int] = composed_of_values
a_plain_workflow: Workflow[[Sequence[str], float], list[int]] = plain


def mistakes() -> None:
    fetch(3)  # type: ignore[arg-type]
    fetch()  # type: ignore[call-arg]
    fetch("x", deep=True)  # type: ignore[call-arg]
    fetch(url=b"x")  # type: ignore[arg-type]
    measure(fetch("x"))  # type: ignore[arg-type]  # a handle is no page: its .value stands for one
    measure(fetch("x").value, scale="2")  # type: ignore[arg-type]
    measure(total([1]).value)  # type: ignore[arg-type]
    total([fetch("x").value])  # type: ignore[list-item]
    measure.map(["x"])  # type: ignore[list-item]
    measure.map([Page(url="x")], scale="2")  # type: ignore[arg-type]
    measure.map([Page(url="x")], 1.0, 2.0)  # type: ignore[call-arg]
    composed(3)  # type: ignore[arg-type]
    search.blocking(3)  # type: ignore[arg-type]
    search.blocking("x", "y")  # type: ignore[arg-type]
    loop(double, "x", until=is_big, limit=3)  # type: ignore[arg-type]
    loop(double, 1, until=double, limit=3)  # type: ignore[arg-type]
    loop(double, 1, until=is_big)  # type: ignore[call-arg]
    when(total([1]), then=lambda: 1)  # type: ignore[arg-type]
    step(retries=3)  # type: ignore[call-overload]
    step(idempotency="maybe")  # type: ignore[call-overload]
    print(fetch("x").url)  # type: ignore[attr-defined]  # noqa: T201 - the value is not there yet
    list(total([1]))  # type: ignore[call-overload]
    fetch.options(retries=3)  # type: ignore[call-arg]
    fetch.options(limit="2")  # type: ignore[arg-type]
    tool(background="yes")  # type: ignore[call-overload]


async def running(runtime: Runtime) -> None:
    assert_type(await runtime.run(composed, "x"), int)
    assert_type(await runtime.run(plain, ["x"], scale=2.0), list[int])
    assert_type(run(composed, "x"), int)
    await runtime.run(composed, 3)  # type: ignore[arg-type]
    await runtime.run(composed)  # type: ignore[call-arg]
    run(plain, ["x"], scale="2")  # type: ignore[arg-type]


async def agents() -> None:
    talker = Agent("Talk.", tools=[search, save])
    assert_type(talker, Agent[str])
    assert_type((await talker.run("hi")).output, str)
    judge = Agent("Judge.", output=Page)
    assert_type(judge, Agent[Page])
    assert_type(await judge.run("hi"), AgentResult[Page])
    assert_type(judge.run_blocking("hi").output, Page)
    assert_type(Agent(output=list[int]), Agent[list[int]])
    Agent(tools=[fetch])  # type: ignore[list-item]
    Agent(output=3)  # type: ignore[call-overload]


async def records(ctx: StepContext) -> None:
    async def look_later() -> str:
        return "x"

    assert_type(await ctx.record("n", lambda: 3), int)
    assert_type(await ctx.record("s", look_later), str)
