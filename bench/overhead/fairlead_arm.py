"""Fairlead's own arm: the shapes as the README would write them, with an engine that answers at once.

`fairlead` composes its graphs (`def`), `fairlead_async` writes them as plain Python (`async def`). Steps are idempotent unless
declared otherwise, so their results are written while the next step runs: a crash may cost the last of them another run.
`fairlead_unsafe` declares them unsafe: nothing starts before everything before it is on disk.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from openai import AsyncOpenAI

from bench.overhead.instant import ADD, MODEL, QUESTION, InstantModel, InstantReply
from bench.overhead.serve import Sample, Shape, Stopwatch, expect, serve, stored_bytes
from fairlead import Agent, Runtime, injected, step, tool, workflow
from fairlead.graphs.declare import Workflow
from fairlead.runtime.engines.port import EngineRequest

TURNS_MAX = 1_000


class InstantEngine:
    """An engine in this process that takes no time."""

    name = "instant"
    models: Sequence[str] = (MODEL,)
    kv_tokens: int | None = None

    def __init__(self, turns: int) -> None:
        self._model = InstantModel(turns)

    async def send(self, request: EngineRequest) -> InstantReply:
        messages = request.body["messages"]
        assert isinstance(messages, list)
        return InstantReply(self._model.reply(messages))

    async def aclose(self) -> None:
        """Nothing is held."""


@step
async def increment(value: int) -> int:
    return value + 1


@step(idempotency="unsafe")
async def increment_flushed(value: int) -> int:
    return value + 1


@step
async def numbers(size: int) -> list[int]:
    return list(range(size))


@step
async def double(value: int) -> int:
    return 2 * value


@workflow
def chain(size: int) -> int:
    value = 0
    for _ in range(size):
        value = increment(value).value
    return value


@workflow
def flushed_chain(size: int) -> int:
    value = 0
    for _ in range(size):
        value = increment_flushed(value).value
    return value


@workflow
def fanout(size: int) -> list[int]:
    return double.map(numbers(size)).value


@workflow
async def async_chain(size: int) -> int:
    value = 0
    for _ in range(size):
        value = await increment(value)
    return value


@workflow
async def async_fanout(size: int) -> list[int]:
    handles = [double(value) for value in await numbers(size)]
    return [await handle for handle in handles]


@tool(idempotency="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@step
async def converse() -> str:
    return (await Agent(tools=[add], model=MODEL, max_turns=TURNS_MAX).run(QUESTION)).output


@step
async def converse_by_client(client: AsyncOpenAI = injected) -> str:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    while True:
        completion = await client.chat.completions.create(model=MODEL, messages=messages, tools=[ADD])
        message = completion.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        call = message.tool_calls[0]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(await add(1, 1))})


@workflow
def agent() -> str:
    return converse().value


@workflow
def client_agent() -> str:
    return converse_by_client().value


def database(place: Path, durable: bool) -> str | None:
    return f"sqlite:///{place / 'fairlead.db'}" if durable else None


def chained(shape: Workflow[[int], int], *, durable: bool) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        async with Runtime(db=database(place, durable), engine=InstantEngine(0)) as runtime:
            with Stopwatch() as watch:
                result = await runtime.run(shape, size)
        expect(result, size)
        return Sample(watch.seconds)

    return run


def fanned_out(shape: Workflow[[int], list[int]], *, durable: bool) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        async with Runtime(db=database(place, durable), engine=InstantEngine(0)) as runtime:
            with Stopwatch() as watch:
                result = await runtime.run(shape, size)
        expect(sum(result), size * (size - 1))
        return Sample(watch.seconds)

    return run


def conversed(shape: Workflow[[], str], *, durable: bool) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        async with Runtime(db=database(place, durable), engine=InstantEngine(size), model=MODEL) as runtime:
            with Stopwatch() as watch:
                result = await runtime.run(shape)
        expect(result, "done")
        return Sample(watch.seconds, stored_bytes(place) if durable else None)

    return run


class Gate:
    """Where the waiting programs' tools wait, and how many are there."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self.all_here = anyio.Event()
        self.open = anyio.Event()

    async def pass_through(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.all_here.set()
        await self.open.wait()


gate = Gate(0)


@tool(idempotency="pure")
async def wait_at_gate() -> int:
    """Wait until the gate opens."""
    await gate.pass_through()
    return 1


@step
async def visit_gate() -> int:
    return await wait_at_gate()


@workflow
def waiter() -> int:
    return visit_gate().value


async def waiting(size: int, _: Path) -> Sample:
    """Memory while `size` programs wait in their tools at once, and the time from the first start to the last end."""
    global gate
    gate = Gate(size)
    async with Runtime(engine=InstantEngine(0)) as runtime:
        before = resident_bytes()
        with Stopwatch() as watch:
            programs = [runtime.start(waiter) for _ in range(size)]
            await gate.all_here.wait()
            held = resident_bytes() - before
            gate.open.set()
            results = [await runtime.outcome(program) for program in programs]
    expect(sum(results), size)
    return Sample(watch.seconds, held)


def resident_bytes() -> int:
    """The most memory this process ever had: it only grows, so it is exact while everything waits."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    serve(
        {
            "fairlead": {
                "memory_chain": chained(chain, durable=False),
                "memory_fanout": fanned_out(fanout, durable=False),
                "durable_chain": chained(chain, durable=True),
                "durable_fanout": fanned_out(fanout, durable=True),
                "memory_agent": conversed(agent, durable=False),
                "durable_agent": conversed(agent, durable=True),
                "openai_agent": conversed(client_agent, durable=False),
                "waiting": waiting,
            },
            "fairlead_async": {
                "memory_chain": chained(async_chain, durable=False),
                "memory_fanout": fanned_out(async_fanout, durable=False),
                "durable_chain": chained(async_chain, durable=True),
                "durable_fanout": fanned_out(async_fanout, durable=True),
            },
            "fairlead_unsafe": {"durable_chain": chained(flushed_chain, durable=True)},
        }
    )
