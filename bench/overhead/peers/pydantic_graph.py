"""pydantic-graph: the graph builder, which keeps nothing on disk."""

from __future__ import annotations

from pathlib import Path

from pydantic_graph import Graph, GraphBuilder, StepContext, reduce_list_append

from bench.overhead.serve import Sample, Stopwatch, expect, serve


async def increment(context: StepContext[None, None, int]) -> int:
    return context.inputs + 1


async def double(context: StepContext[None, None, int]) -> int:
    return 2 * context.inputs


async def numbers(context: StepContext[None, None, int]) -> list[int]:
    return list(range(context.inputs))


def chain_graph(size: int) -> Graph[None, None, int, int]:
    graph = GraphBuilder(input_type=int, output_type=int)
    steps = [graph.step(increment, node_id=f"step_{number}") for number in range(size)]
    for source, destination in zip([graph.start_node, *steps], [*steps, graph.end_node], strict=True):
        graph.add(graph.edge_from(source).to(destination))
    return graph.build()


def fanout_graph() -> Graph[None, None, int, list[int]]:
    graph = GraphBuilder(input_type=int, output_type=list[int])
    spread, work = graph.step(numbers), graph.step(double)
    collect = graph.join(reduce_list_append, initial_factory=list[int])
    graph.add(
        graph.edge_from(graph.start_node).to(spread),
        graph.edge_from(spread).map().to(work),
        graph.edge_from(work).to(collect),
        graph.edge_from(collect).to(graph.end_node),
    )
    return graph.build()


async def memory_chain(size: int, _: Path) -> Sample:
    graph = chain_graph(size)
    with Stopwatch() as watch:
        result = await graph.run(inputs=0)
    expect(result, size)
    return Sample(watch.seconds)


async def memory_fanout(size: int, _: Path) -> Sample:
    graph = fanout_graph()
    with Stopwatch() as watch:
        result = await graph.run(inputs=size)
    expect(sum(result), size * (size - 1))
    return Sample(watch.seconds)


if __name__ == "__main__":
    serve({"pydantic_graph": {"memory_chain": memory_chain, "memory_fanout": memory_fanout}})
