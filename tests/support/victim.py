"""The program that the crash proof kills: every kind of work at once, deterministic but for what it records.

Its side effects go into a file, one line each, written in one piece: what was done is known even of a killed process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import anyio
from openai import AsyncOpenAI, OpenAI

from fairlead import Agent, Handle, Runtime, StepContext, ToolContext, injected, step, tool, workflow

MODEL = "fairlead-embedded"
PARTS = 6
EFFECTS = "FAIRLEAD_PROOF_EFFECTS"
"""The environment variable that names the file of side effects."""


@dataclass(frozen=True)
class Order:
    """What a process is to do. `resume` falls back to starting: the kill may have come before anything was durable."""

    db: str
    engine: str
    effects: str
    program_id: str


def note(kind: str, what: str) -> None:
    """Append a line to the file of side effects."""
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{kind} {what}\n".encode())
    finally:
        os.close(file)


def enter(ctx: StepContext) -> None:
    note("step", f"{ctx.program_id} {ctx.step}")


@tool(idempotency="idempotent")
async def look_up(n: int, ctx: ToolContext = injected) -> int:
    """Look a number up."""
    note("tool", ctx.idempotency_key)
    await anyio.sleep(0.005)
    return n + 1


@tool(idempotency="idempotent", background=True)
async def dig(n: int, ctx: ToolContext = injected) -> int:
    """Dig for a number, for longer."""
    note("tool", ctx.idempotency_key)
    await anyio.sleep(0.03)
    return n + 2


@tool(idempotency="idempotent")
def measure(text: str, ctx: ToolContext = injected) -> int:
    """Measure a text, in a thread."""
    note("tool", ctx.idempotency_key)
    return len(text)


reviewer = Agent("You review parts.", tools=[look_up, dig, measure], model=MODEL)


@step
async def plan(parts: int, ctx: StepContext = injected) -> list[int]:
    enter(ctx)
    return list(range(parts))


@step
async def review(part: int, ctx: StepContext = injected) -> str:
    """An agent of several turns, with something in its task that cannot be computed again."""
    enter(ctx)
    nonce = await ctx.record("nonce", lambda: os.urandom(4).hex())
    answer = await reviewer.run(f"{ctx.program_id} {ctx.step} {nonce} part {part}")
    return f"{part}: {answer.output}"


@step
async def interview(topic: str, ctx: StepContext = injected, llm: AsyncOpenAI = injected) -> str:
    """The ordinary client: one call after another, at the same time, and streamed."""
    enter(ctx)

    async def ask(what: str, heard: list[str]) -> None:
        task = f"{ctx.program_id} {ctx.step} {what}"
        reply = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": task}])
        heard.append(reply.choices[0].message.content or "")

    heard: list[str] = []
    await ask(f"first {topic}", heard)
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(ask, f"side {number}", heard)
    task = f"{ctx.program_id} {ctx.step} streamed after {len(heard)}"
    stream = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": task}], stream=True)
    heard += [(chunk.choices[0].delta.content or "") if chunk.choices else "" async for chunk in stream]
    return "".join(heard)


@step
def dictate(topic: str, ctx: StepContext = injected, llm: OpenAI = injected) -> str:
    """The blocking client, in a thread, and a tool called from there."""
    enter(ctx)
    said = ""
    for number in range(3):
        task = f"{ctx.program_id} {ctx.step} line {number} of {topic}"
        reply = llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": task}])
        said += reply.choices[0].message.content or ""
    return f"{said} ({measure.blocking(said)})"


@step
async def weigh(text: str, ctx: StepContext = injected) -> int:
    enter(ctx)
    return len(text) + await look_up(len(text))


@step
async def weigh_all(texts: list[str], ctx: StepContext = injected) -> int:
    """Adds steps while it runs."""
    enter(ctx)
    weights = [weigh(text) for text in texts]
    return sum([await weight for weight in weights])


@workflow
async def summarise(topic: str) -> str:
    """The child program."""
    first, second = interview(topic), dictate(topic)
    weight = weigh_all([await second, await first])
    return f"{await weight} of {topic}"


@step
async def join(reviews: list[str], told: str, summary: str, ctx: StepContext = injected) -> str:
    enter(ctx)
    return "\n".join([*reviews, told, summary])


@workflow
def everything(parts: int) -> Handle[str]:
    """Fan-out, a child program, and a step beside them."""
    reviews = review.options(limit=3).map(plan(parts).value)
    return join(reviews.value, interview("the whole").value, summarise("the parts").value)


def carry_out(order: Order) -> None:
    """Start or resume the program, and run it to its end: what a killed process does."""
    os.environ[EFFECTS] = order.effects
    anyio.run(_carry_out, order)


async def _carry_out(order: Order) -> None:
    async with Runtime(db=order.db, engine=order.engine) as runtime:
        known = await runtime.journal.history(order.program_id)
        if known is None:
            await runtime.outcome(runtime.start(everything, {"parts": PARTS}, program_id=order.program_id))
        elif known.program.state != "succeeded":
            await runtime.outcome(await runtime.resume(order.program_id))
