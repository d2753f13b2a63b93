"""pydantic-ai: its agent loop with its own function model; nothing is kept on disk."""

from __future__ import annotations

from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits

from bench.overhead.serve import Sample, Stopwatch, expect, serve


async def memory_agent(size: int, _: Path) -> Sample:
    async def reply(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = len(messages) // 2
        if turn + 1 >= size:
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart("add", {"a": turn, "b": 1}, f"call_{turn}")])

    agent = Agent(FunctionModel(reply))

    @agent.tool_plain
    async def add(a: int, b: int) -> int:
        return a + b

    with Stopwatch() as watch:
        result = await agent.run("add", usage_limits=UsageLimits(request_limit=None))
    expect(len(result.all_messages()), 2 * size)
    return Sample(watch.seconds)


if __name__ == "__main__":
    serve({"pydantic_ai": {"memory_agent": memory_agent}})
