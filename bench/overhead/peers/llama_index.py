"""LlamaIndex workflows: steps joined by typed events; fan-out by returning a list, fan-in by taking one.

The default of four workers per step is its fastest for trivial steps; with a thousand, as wide as the other arms run, the
fan-out takes three times as long.
"""

from __future__ import annotations

from pathlib import Path

from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from bench.overhead.serve import Sample, Stopwatch, expect, serve


class Next(Event):
    value: int
    left: int


class Task(Event):
    value: int


class Done(Event):
    value: int


class Chain(Workflow):
    @step
    async def start(self, event: StartEvent) -> Next:
        return Next(value=0, left=event.size)

    @step
    async def increment(self, event: Next) -> Next | StopEvent:
        value, left = event.value + 1, event.left - 1
        return Next(value=value, left=left) if left else StopEvent(result=value)


class Fanout(Workflow):
    @step
    async def spread(self, event: StartEvent) -> list[Task]:
        return [Task(value=value) for value in range(event.size)]

    @step
    async def double(self, event: Task) -> Done:
        return Done(value=2 * event.value)

    @step
    async def collect(self, events: list[Done]) -> StopEvent:
        return StopEvent(result=sum(event.value for event in events))


async def memory_chain(size: int, _: Path) -> Sample:
    workflow = Chain(timeout=None)
    with Stopwatch() as watch:
        result = await workflow.run(size=size)
    expect(result, size)
    return Sample(watch.seconds)


async def memory_fanout(size: int, _: Path) -> Sample:
    workflow = Fanout(timeout=None)
    with Stopwatch() as watch:
        result = await workflow.run(size=size)
    expect(result, size * (size - 1))
    return Sample(watch.seconds)


if __name__ == "__main__":
    serve({"llama_index": {"memory_chain": memory_chain, "memory_fanout": memory_fanout}})
