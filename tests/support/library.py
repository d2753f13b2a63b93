"""Steps, tools and child workflows that random programs are made of, and a ledger of what ran.

Everything is deterministic in its arguments. `fails` is how many attempts of a step fail, by the number of the attempt, so
that a resumed program meets the same failures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import anyio.lowlevel
from openai import AsyncOpenAI
from pydantic import BaseModel

from fairlead import Agent, StepContext, ToolContext, injected, step, tool, workflow
from fairlead.graphs.handle import Handle
from fairlead.memory.conversation import Conversation
from fairlead.runtime.engines.embedded.engine import EmbeddedEngine
from fairlead.runtime.engines.embedded.script import Reply, ToolCall
from fairlead.runtime.engines.port import EngineRequest

MODEL = "fairlead-embedded"
WORDS = "Some words, in several tokens."


@dataclass
class Ledger:
    """What ran in this process since it was cleared."""

    bodies: Counter[tuple[str, tuple[object, ...], int]] = field(default_factory=Counter)
    """Bodies of steps by name, arguments and attempt."""
    nodes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Bodies of steps by program and node."""
    tools: Counter[str] = field(default_factory=Counter)
    """Tool calls by idempotency key."""
    sent: Counter[str] = field(default_factory=Counter)
    """Requests to the engine by the last link of their conversation."""

    def clear(self) -> None:
        for counter in (self.bodies, self.nodes, self.tools, self.sent):
            counter.clear()


LEDGER = Ledger()


class Box(BaseModel):
    n: int
    tag: str


class ScriptedError(Exception):
    """A failure that the description asks for."""


def _enter(ctx: StepContext, name: str, *arguments: object) -> None:
    LEDGER.bodies[name, arguments, ctx.attempt] += 1
    LEDGER.nodes[ctx.program_id, ctx.step] += 1
    fails = arguments[-1]
    if isinstance(fails, int) and ctx.attempt <= fails:
        raise ScriptedError(f"{name} was told to fail {fails} times")


async def _dawdle(number: int) -> None:
    """Let others go first, a number of times that depends on the arguments only."""
    for _ in range(number % 4):
        await anyio.lowlevel.checkpoint()


@step
async def add(a: int, b: int, fails: int, ctx: StepContext = injected) -> int:
    await _dawdle(a + 2 * b)
    _enter(ctx, "add", a, b, fails)
    return (a + b) % 1000


@step
async def rescue(a: int, b: int, fails: int, ctx: StepContext = injected) -> int:
    _enter(ctx, "rescue", a, b, 0)
    return -a


@step
def double(a: int, fails: int, ctx: StepContext = injected) -> int:
    _enter(ctx, "double", a, fails)
    return 2 * a % 1000


@step
async def spread(a: int, fails: int, ctx: StepContext = injected) -> list[int]:
    _enter(ctx, "spread", a, fails)
    return list(range(a, a + a % 4))


@step
async def total(xs: list[int], fails: int, ctx: StepContext = injected) -> int:
    await _dawdle(len(xs))
    _enter(ctx, "total", tuple(xs), fails)
    return sum(xs) % 1000


@step
async def label(a: int, fails: int, ctx: StepContext = injected) -> str:
    _enter(ctx, "label", a, fails)
    return f"<{a}>"


@step
async def box(a: int, tag: str, fails: int, ctx: StepContext = injected) -> Box:
    _enter(ctx, "box", a, tag, fails)
    return Box(n=a, tag=tag)


@step
async def unbox(b: Box, fails: int, ctx: StepContext = injected) -> int:
    _enter(ctx, "unbox", b.n, b.tag, fails)
    return b.n + len(b.tag)


@step
async def maybe(a: int | None, fails: int, ctx: StepContext = injected) -> int:
    _enter(ctx, "maybe", a, fails)
    return -1 if a is None else a


@step
async def is_even(a: int, ctx: StepContext = injected) -> bool:
    _enter(ctx, "is_even", a, 0)
    return a % 2 == 0


@step
async def climb(a: int, ctx: StepContext = injected) -> int:
    _enter(ctx, "climb", a, 0)
    return a + 7


@step
async def is_high(a: int, ctx: StepContext = injected) -> bool:
    _enter(ctx, "is_high", a, 0)
    return a > 20


@step
async def nest(a: int, fails: int, ctx: StepContext = injected) -> int:
    """Adds steps while it runs, also in an attempt that fails afterwards."""
    first, second = add(a, 1, 0), add(a, 2, 0)
    third = await second
    inner = await add(first.value, third, 0)
    _enter(ctx, "nest", a, fails)
    return inner


@tool(idempotency="idempotent")
async def look_up(n: int, ctx: ToolContext = injected) -> int:
    """Look a number up."""
    LEDGER.tools[ctx.idempotency_key] += 1
    await _dawdle(n)
    return n + 1


@tool(idempotency="pure", background=True)
async def dig(n: int, ctx: ToolContext = injected) -> int:
    """Dig for a number, for longer."""
    LEDGER.tools[ctx.idempotency_key] += 1
    for _ in range(5 * (n % 3)):
        await anyio.lowlevel.checkpoint()
    return n + 2


_agent = Agent("You work on numbers.", tools=[look_up, dig], model=MODEL)


@step
async def consult(a: int, fails: int, ctx: StepContext = injected) -> int:
    """An agent of three or four turns, with parallel and background tools, and a recorded observation."""
    seen = await ctx.record("seen", lambda: a + 5)
    answer = await _agent.run(f"{ctx.program_id} {ctx.step}@{ctx.attempt} about {a}")
    _enter(ctx, "consult", a, fails)
    return (seen + len(answer.output)) % 1000


@step
async def converse(a: int, fails: int, llm: AsyncOpenAI = injected, ctx: StepContext = injected) -> int:
    """The ordinary client: one call after another, two at once, streamed, and a stream that is left early."""

    async def ask(what: str) -> str:
        task = f"{ctx.program_id} {ctx.step}@{ctx.attempt} {what}"
        reply = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": task}])
        return reply.choices[0].message.content or ""

    async def listen(what: str, pieces: int) -> str:
        task = f"{ctx.program_id} {ctx.step}@{ctx.attempt} {what}"
        heard = ""
        stream = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": task}], stream=True)
        async with stream:
            async for chunk in stream:
                heard += (chunk.choices[0].delta.content or "") if chunk.choices else ""
                pieces -= bool(heard)
                if not pieces:
                    break
        return heard

    said = [await ask("first")]
    together = [""] * 2
    async with anyio.create_task_group() as tasks:

        async def put(index: int, what: str) -> None:
            together[index] = await ask(what)

        tasks.start_soon(put, 0, "left")
        tasks.start_soon(put, 1, "right")
    said += together
    said.append(await listen("whole", 1000))
    await listen("beginning", 1)
    _enter(ctx, "converse", a, fails)
    return (a + sum(map(len, said))) % 1000


@workflow(version="1")
def composed_child(a: int) -> Handle[int]:
    return total(add.options(limit=2).map(spread(a, 0).value, a, 0).value, 0)


@workflow(version="1")
async def plain_child(a: int) -> int:
    first, second = add(a, 1, 0), nest(a, 0)
    return (await second + await first) % 1000


def engine() -> EmbeddedEngine:
    """An instant engine for `consult` and `converse` that enters what it is sent into the ledger."""
    return EmbeddedEngine(script=_reply)


def _reply(request: EngineRequest) -> Reply:
    messages = request.body["messages"]
    assert isinstance(messages, list)
    LEDGER.sent[str(Conversation.of(messages).head)] += 1
    if "tools" not in request.body:
        return Reply(WORDS)
    first = messages[1]
    assert isinstance(first, dict)
    number = int(str(first["content"]).rpartition(" ")[2])
    turns = sum(isinstance(message, dict) and message["role"] == "assistant" for message in messages)
    if turns == 0:
        return Reply(
            "", [ToolCall("look_up", {"n": number}), ToolCall("dig", {"n": number}), ToolCall("look_up", {"n": number + 1})]
        )
    if turns == 1:
        return Reply("", [ToolCall("look_up", {"n": number + 2})])
    return Reply("done")
