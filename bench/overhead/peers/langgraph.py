"""LangGraph: the graph API and the functional API, in memory and with its asynchronous SQLite saver.

`langgraph` and `langgraph_functional` save each superstep before the next one starts (durability "sync"); `langgraph_async`
saves while the next one runs; `langgraph_exit` writes once at the end, so a crash loses everything: shown, but no durable peer.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from bench.overhead.serve import Sample, Shape, Stopwatch, expect, serve, stored_bytes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the prebuilt agent moved to a package with many more dependencies; it is the same loop
    from langgraph.prebuilt import create_react_agent


class Counter(TypedDict):
    value: int


class Values(TypedDict):
    size: int
    values: Annotated[list[int], operator.add]


class Item(TypedDict):
    item: int


async def increment(state: Counter) -> dict[str, int]:
    return {"value": state["value"] + 1}


async def double(state: Item) -> dict[str, list[int]]:
    return {"values": [2 * state["item"]]}


def spread(state: Values) -> list[Send]:
    return [Send("double", {"item": item}) for item in range(state["size"])]


def chain_graph(size: int) -> StateGraph:
    graph = StateGraph(Counter)
    graph.add_sequence([(f"step_{number}", increment) for number in range(size)])
    graph.add_edge(START, "step_0")
    graph.add_edge(f"step_{size - 1}", END)
    return graph


def fanout_graph() -> StateGraph:
    graph = StateGraph(Values)
    graph.add_node("double", double)
    graph.add_conditional_edges(START, spread, ["double"])
    graph.add_edge("double", END)
    return graph


@task
async def increment_task(value: int) -> int:
    return value + 1


@task
async def double_task(value: int) -> int:
    return 2 * value


async def chain_function(size: int) -> int:
    value = 0
    for _ in range(size):
        value = await increment_task(value)
    return value


async def fanout_function(size: int) -> list[int]:
    futures = [double_task(value) for value in range(size)]
    return [await future for future in futures]


def config(size: int) -> dict[str, Any]:
    return {"configurable": {"thread_id": "bench"}, "recursion_limit": 3 * size + 25}


@asynccontextmanager
async def saver(place: Path | None) -> AsyncIterator[AsyncSqliteSaver | None]:
    """A saver with its tables made, or none where nothing is to be kept."""
    if place is None:
        yield None
        return
    async with AsyncSqliteSaver.from_conn_string(str(place / "checkpoints.db")) as opened:
        await opened.setup()
        yield opened


def options(durability: str | None) -> dict[str, str]:
    return {"durability": durability} if durability else {}


def chain(durability: str | None) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        async with saver(place if durability else None) as checkpointer:
            graph = chain_graph(size).compile(checkpointer=checkpointer)
            with Stopwatch() as watch:
                state = await graph.ainvoke({"value": 0}, config(size), **options(durability))
        expect(state["value"], size)
        return Sample(watch.seconds)

    return run


def fanout(durability: str | None) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        async with saver(place if durability else None) as checkpointer:
            graph = fanout_graph().compile(checkpointer=checkpointer)
            with Stopwatch() as watch:
                state = await graph.ainvoke({"size": size, "values": []}, config(size), **options(durability))
        expect(sum(state["values"]), size * (size - 1))
        return Sample(watch.seconds)

    return run


def functional(function: Any, durability: str | None) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        async with saver(place if durability else None) as checkpointer:
            workflow = entrypoint(checkpointer=checkpointer)(function)
            with Stopwatch() as watch:
                result = await workflow.ainvoke(size, config(size), **options(durability))
        expect(result if function is chain_function else sum(result), size if function is chain_function else size * (size - 1))
        return Sample(watch.seconds)

    return run


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class InstantModel(BaseChatModel):
    """Calls `add` once per turn until the last turn, which answers."""

    turns: int

    @property
    def _llm_type(self) -> str:
        return "instant"

    def bind_tools(self, tools: Any, **_: Any) -> InstantModel:
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        turn = len(messages) // 2
        call = ToolCall(name="add", args={"a": turn, "b": 1}, id=f"call_{turn}")
        last = turn + 1 >= self.turns
        message = AIMessage(content="done") if last else AIMessage(content="", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return self._generate(messages)


def agent(durability: str | None) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        async with saver(place if durability else None) as checkpointer:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph = create_react_agent(InstantModel(turns=size), [add], checkpointer=checkpointer)
            with Stopwatch() as watch:
                state = await graph.ainvoke({"messages": [("user", "add")]}, config(size), **options(durability))
        expect(len(state["messages"]), 2 * size)
        return Sample(watch.seconds, stored_bytes(place) if durability else None)

    return run


def durable(durability: str) -> dict[str, Shape]:
    return {"durable_chain": chain(durability), "durable_fanout": fanout(durability), "durable_agent": agent(durability)}


if __name__ == "__main__":
    serve(
        {
            "langgraph": {
                "memory_chain": chain(None),
                "memory_fanout": fanout(None),
                "memory_agent": agent(None),
                **durable("sync"),
            },
            "langgraph_functional": {
                "memory_chain": functional(chain_function, None),
                "memory_fanout": functional(fanout_function, None),
                "durable_chain": functional(chain_function, "sync"),
                "durable_fanout": functional(fanout_function, "sync"),
            },
            "langgraph_async": durable("async"),
            "langgraph_exit": durable("exit"),
        }
    )
