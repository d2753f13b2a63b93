"""Structure of graphs: longest paths, and the order in which nodes become ready and are taken."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead import Handle, loop, step, when, workflow
from fairlead.errors import GraphCycleError
from fairlead.graphs.graph import Graph, Node, ReadySet, StepWork, needs_of
from fairlead.graphs.handle import Constant, ListOf, MapOf, Ref, Template


@step
async def work() -> int:
    return 0


@step
async def add(a: int, b: int) -> int:
    return a + b


@step
async def is_big(n: int) -> bool:
    return n > 3


@step
async def grow(n: int) -> int:
    return n + 1


def node(name: str, *needs: str, seconds: float = 1.0) -> Node:
    return Node(name, StepWork(work.options(estimate=seconds), {}), needs)


def graph_of(*nodes: Node) -> Graph:
    graph = Graph("test")
    for one in nodes:
        graph.add(one)
    return graph


DIAMOND = graph_of(node("a", seconds=1), node("b", "a", seconds=5), node("c", "a", seconds=2), node("d", "b", "c", seconds=1))


def test_the_rank_of_a_node_is_the_longest_time_from_its_start_to_the_end() -> None:
    assert DIAMOND.ranks == {"a": 7, "b": 6, "c": 3, "d": 1}


def test_the_critical_path_is_the_longest_by_expected_seconds() -> None:
    assert DIAMOND.critical_path == ["a", "b", "d"]


@pytest.mark.parametrize(
    ("graph", "path"),
    [
        (graph_of(), []),
        (graph_of(node("a")), ["a"]),
        (graph_of(node("short"), node("long", seconds=9)), ["long"]),
        (graph_of(node("a", seconds=3), node("b"), node("c", "b"), node("d", "c")), ["a"]),  # equal: the first declared
        (graph_of(node("a", seconds=0), node("b", "a", seconds=0)), ["a", "b"]),
    ],
)
def test_the_critical_path_begins_where_nothing_is_needed(graph: Graph, path: list[str]) -> None:
    assert graph.critical_path == path


def test_a_loop_is_expected_to_take_all_its_rounds_and_a_branch_no_time() -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        grown = loop(grow.options(estimate=3), n, until=is_big, limit=4)
        return when(is_big(grown.value), then=lambda: grow(grown.value), otherwise=lambda: grown)

    nodes = composed.graph(1).nodes
    assert {name: one.estimate for name, one in nodes.items()} == {"grow": 12, "is_big": 1, "grow#2": 1, "when": 0}
    assert {name: one.kind for name, one in nodes.items()} == {
        "grow": "loop", "is_big": "step", "grow#2": "step", "when": "branch",
    }  # fmt: skip


def test_a_node_that_needs_itself_is_a_cycle() -> None:
    with pytest.raises(GraphCycleError) as caught:
        graph_of(node("a", "a"))
    assert caught.value.cycle == ["a", "a"]


def test_a_node_that_needs_a_later_one_is_a_cycle() -> None:
    with pytest.raises(GraphCycleError, match="a -> b -> a"):
        graph_of(node("a", "b"), node("b", "a"))


def test_needs_are_listed_once_in_the_order_of_the_arguments() -> None:
    arguments: list[Template] = [Ref("b"), Constant(b"1"), ListOf((Ref("a"), Ref("b"))), MapOf((("k", Ref("c")),))]
    assert needs_of(arguments, "d", "a") == ("b", "a", "c", "d")


def test_the_graph_for_analysis_has_every_node_and_edge() -> None:
    drawn = DIAMOND.networkx()
    assert set(drawn.edges) == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}
    assert drawn.nodes["a"] == {"kind": "step", "name": "work"}


def test_among_ready_nodes_the_one_with_the_longest_path_is_taken_first() -> None:
    ready = ReadySet(graph_of(node("short"), node("long", seconds=5), node("after", "short", seconds=9)))
    assert [ready.take(), ready.take(), ready.take()] == ["short", "long", None]


def test_nodes_of_equal_rank_are_taken_as_declared() -> None:
    ready = ReadySet(graph_of(*(node(f"n{index}") for index in range(20))))
    assert [ready.take() for _ in range(20)] == [f"n{index}" for index in range(20)]


def test_a_node_is_ready_when_the_last_of_its_needs_has_ended() -> None:
    ready = ReadySet(DIAMOND)
    assert ready.take() == "a"
    assert ready.take() is None
    ready.ended("a")
    assert [ready.take(), ready.take(), ready.take()] == ["b", "c", None]
    ready.ended("c")
    assert ready.take() is None
    ready.ended("b")
    assert ready.take() == "d"
    assert ready.open == 1
    ready.ended("d")
    assert ready.open == 0


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(0, 25))
    nodes = []
    for index in range(size):
        needs = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        nodes.append(node(f"n{index}", *(f"n{need}" for need in sorted(needs)), seconds=draw(st.integers(0, 9))))
    return graph_of(*nodes)


@given(graphs(), st.randoms(use_true_random=False))
def test_every_node_is_taken_once_after_its_needs_and_by_falling_rank(graph: Graph, random: Random) -> None:
    ready, ranks = ReadySet(graph), graph.ranks
    taken: list[str] = []
    running: list[str] = []
    ended: set[str] = set()
    while ready.open:
        batch = []
        while (one := ready.take()) is not None:
            batch.append(one)
        assert [ranks[one] for one in batch] == sorted((ranks[one] for one in batch), reverse=True)
        assert all(set(graph.nodes[one].needs) <= ended for one in batch)
        taken += batch
        running += batch
        done = running.pop(random.randrange(len(running)))
        ended.add(done)
        ready.ended(done)
    assert sorted(taken) == sorted(graph.nodes)


@given(graphs())
def test_the_critical_path_is_a_path_whose_times_add_up_to_the_largest_rank(graph: Graph) -> None:
    path = graph.critical_path
    assert all(before in graph.nodes[after].needs for before, after in pairwise(path))
    assert sum(graph.nodes[one].estimate for one in path) == max(graph.ranks.values(), default=0)
