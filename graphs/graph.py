"""The graph of a program: nodes, what they wait for, and what their results are needed for. Pure data and functions."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import GraphCycleError
from .declare import Step, Workflow
from .handle import Template, refs

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, slots=True)
class StepWork:
    """Run a step once."""

    step: Step[..., Any]
    arguments: dict[str, Template]


@dataclass(frozen=True, slots=True)
class WorkflowWork:
    """Run a workflow as a child program."""

    workflow: Workflow[..., Any]
    arguments: dict[str, Template]


@dataclass(frozen=True, slots=True)
class MapWork:
    """Run a step once for each element of `items`; the result is the list of results, in the order of the elements."""

    step: Step[..., Any]
    over: str
    """The parameter that takes the element."""
    items: Template
    arguments: dict[str, Template]
    """The parameters that are the same for all elements."""


@dataclass(frozen=True, slots=True)
class SelectWork:
    """Give the result of the way that was taken."""

    condition: str
    then: Template
    otherwise: Template


@dataclass(frozen=True, slots=True)
class LoopWork:
    """Apply `body` to its own result until `until` gives true, at most `limit` times."""

    body: Step[..., Any]
    until: Step[..., Any]
    start: Template
    arguments: dict[str, Template]
    """The parameters of `body` after the first, the same in every round."""
    limit: int


Work: TypeAlias = StepWork | WorkflowWork | MapWork | SelectWork | LoopWork


@dataclass(frozen=True, slots=True)
class Guard:
    """A node runs only if `node` gave `expected`."""

    node: str
    expected: bool


@dataclass(frozen=True, slots=True)
class Node:
    """One place in a graph."""

    id: str
    work: Work
    needs: tuple[str, ...]
    """The nodes that must have ended before this one starts, without repetitions."""
    guards: tuple[Guard, ...] = ()

    @property
    def kind(self) -> str:
        return _KINDS[type(self.work)]

    @property
    def name(self) -> str:
        """The declared name of what runs here."""
        match self.work:
            case StepWork(step=step) | MapWork(step=step) | LoopWork(body=step):
                return step.name
            case WorkflowWork(workflow=workflow):
                return workflow.name
            case SelectWork():
                return "when"

    @property
    def estimate(self) -> float:
        """Expected seconds."""
        match self.work:
            case StepWork(step=step) | MapWork(step=step):
                return step.settings.estimate
            case LoopWork(body=body, limit=limit):
                return body.settings.estimate * limit
            case WorkflowWork():
                return 1.0
            case SelectWork():
                return 0.0


_KINDS = {StepWork: "step", WorkflowWork: "workflow", MapWork: "map", SelectWork: "branch", LoopWork: "loop"}


def needs_of(arguments: Iterable[Template], *others: str) -> tuple[str, ...]:
    """The nodes that templates refer to, then the others, each once, in order."""
    return tuple(dict.fromkeys([node for template in arguments for node in refs(template)] + list(others)))


@dataclass(slots=True)
class Graph:
    """Nodes in the order in which they were added, each after everything it needs."""

    workflow: str
    nodes: dict[str, Node] = field(default_factory=dict)
    output: Template | None = None
    """What the workflow gives; None while the graph is growing."""

    def add(self, node: Node) -> None:
        """Add a node whose needs are already there. Raises `GraphCycleError` if it needs itself or a later node."""
        for need in node.needs:
            if need not in self.nodes:
                raise GraphCycleError([node.id, need, node.id] if need != node.id else [node.id, node.id])
        self.nodes[node.id] = node

    @property
    def dependents(self) -> dict[str, list[str]]:
        """For every node, the nodes that wait for it."""
        found: dict[str, list[str]] = {node: [] for node in self.nodes}
        for node in self.nodes.values():
            for need in node.needs:
                found[need].append(node.id)
        return found

    @property
    def ranks(self) -> dict[str, float]:
        """For every node, the expected seconds from its start to the end of the graph along the longest path.

        The upward rank of list scheduling (Topcuoglu et al., HEFT, 2002), without communication cost. O(nodes + edges).
        """
        ranks = dict.fromkeys(self.nodes, 0.0)
        for node in reversed(self.nodes.values()):
            ranks[node.id] += node.estimate
            for need in node.needs:
                ranks[need] = max(ranks[need], ranks[node.id])
        return ranks

    @property
    def heights(self) -> dict[str, int]:
        """For every node, the number of nodes on the longest path from it to the end, itself included."""
        heights = dict.fromkeys(self.nodes, 0)
        for node in reversed(self.nodes.values()):
            heights[node.id] += 1
            for need in node.needs:
                heights[need] = max(heights[need], heights[node.id])
        return heights

    @property
    def critical_path(self) -> list[str]:
        """The longest path by expected seconds, first node first."""
        ranks, dependents = self.ranks, self.dependents
        starts = [node.id for node in self.nodes.values() if not node.needs]
        path: list[str] = []
        while starts:
            path.append(max(starts, key=lambda node: ranks[node]))
            starts = dependents[path[-1]]
        return path

    def networkx(self) -> networkx.DiGraph[str]:
        """The graph for analysis and drawing: node attributes `kind` and `name`."""
        from networkx import DiGraph

        graph: networkx.DiGraph[str] = DiGraph(name=self.workflow)
        for node in self.nodes.values():
            graph.add_node(node.id, kind=node.kind, name=node.name)
            graph.add_edges_from((need, node.id) for need in node.needs)
        return graph


class ReadySet:
    """Which nodes of a graph can start, most urgent first. O(1) bookkeeping per edge, O(log n) per start."""

    def __init__(self, graph: Graph) -> None:
        self._missing = {node.id: len(node.needs) for node in graph.nodes.values()}
        self._dependents = graph.dependents
        ranks = graph.ranks
        self._order = {node: (-ranks[node], index) for index, node in enumerate(graph.nodes)}
        self._ready = [(*self._order[node], node) for node, missing in self._missing.items() if missing == 0]
        heapq.heapify(self._ready)
        self.open = len(self._missing)
        """Nodes that have not ended."""

    def take(self) -> str | None:
        """The ready node with the longest path to the end, which is then no longer ready; None if none is."""
        return heapq.heappop(self._ready)[2] if self._ready else None

    def ended(self, node: str) -> None:
        """Note that a node has ended, in whatever way; what waited for it alone becomes ready."""
        self.open -= 1
        for dependent in self._dependents[node]:
            self._missing[dependent] -= 1
            if self._missing[dependent] == 0:
                heapq.heappush(self._ready, (*self._order[dependent], dependent))
