"""A failed program that a person takes up again: what was paid for is not paid again."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai import AsyncOpenAI

from fairlead import Runtime, StepFailedError, injected, step, workflow
from fairlead.runtime.engines.embedded.engine import EmbeddedEngine
from fairlead.runtime.engines.embedded.script import HttpFailure, Reply
from fairlead.runtime.engines.port import EngineRequest

pytestmark = pytest.mark.anyio


class Backend:
    """An engine that refuses one question until it is mended, and remembers what it was asked."""

    def __init__(self, refused: str) -> None:
        self.refused: str | None = refused
        self.asked: list[str] = []
        self.engine = EmbeddedEngine(script=self.answer)

    def answer(self, request: EngineRequest) -> Reply | HttpFailure:
        messages = request.body["messages"]
        assert isinstance(messages, list)
        assert isinstance(messages[-1], dict)
        question = str(messages[-1]["content"])
        self.asked.append(question)
        return HttpFailure(400) if question == self.refused else Reply(f"yes, {question}")


async def answer_to(question: str, llm: AsyncOpenAI) -> str:
    reply = await llm.chat.completions.create(model="fairlead-embedded", messages=[{"role": "user", "content": question}])
    return reply.choices[0].message.content or ""


@step
async def inner(question: str, llm: AsyncOpenAI = injected) -> str:
    return await answer_to(question, llm)


@step
async def three(llm: AsyncOpenAI = injected) -> list[str]:
    return [await answer_to(question, llm) for question in "abc"]


@step
async def nested() -> list[str]:
    return [await inner(question) for question in "abc"]


@step
async def picky(llm: AsyncOpenAI = injected) -> str:
    if not (await answer_to("a", llm)).startswith("no"):
        raise ValueError("the answer will not do")
    return "fine"


@workflow(version="1")
async def in_one_step() -> list[str]:
    return await three()


@workflow(version="1")
async def in_steps_of_a_step() -> list[str]:
    return await nested()


@workflow(version="1")
async def picks() -> str:
    return await picky()


@pytest.mark.parametrize("flow", [in_one_step, in_steps_of_a_step])
async def test_only_what_failed_is_asked_again(flow: object, tmp_path: Path) -> None:
    backend = Backend(refused="c")
    async with Runtime(db=f"sqlite:///{tmp_path}/runs.db", engine=backend.engine) as runtime:
        program = runtime.start(flow)  # type: ignore[arg-type]  # a workflow, of either kind
        with pytest.raises(StepFailedError, match="400"):
            await runtime.outcome(program)
        backend.refused = None
        again = await runtime.resume(program.id, workflow=flow)  # type: ignore[arg-type]  # as above
        assert await runtime.outcome(again) == ["yes, a", "yes, b", "yes, c"]
    assert backend.asked == ["a", "b", "c", "c"]


async def test_a_step_that_failed_on_its_answers_asks_for_others(tmp_path: Path) -> None:
    backend = Backend(refused="nothing")
    async with Runtime(db=f"sqlite:///{tmp_path}/runs.db", engine=backend.engine) as runtime:
        program = runtime.start(picks)
        with pytest.raises(StepFailedError, match="will not do"):
            await runtime.outcome(program)
        again = await runtime.resume(program.id, workflow=picks)
        with pytest.raises(StepFailedError, match="will not do"):
            await runtime.outcome(again)
    assert backend.asked == ["a", "a"]
