"""Runs the nodes of a graph: a whole declared graph by its ready set, and one node of any kind."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import anyio
from pydantic_core import from_json, to_json

from ..encoding import printable
from ..errors import FairleadError, InputError
from ..graphs.graph import Graph, LoopWork, MapWork, Node, ReadySet, SelectWork, StepWork, WorkflowWork
from ..graphs.handle import Template, render
from .body import Suspend
from .failures import error_facts
from .states import StepState
from .steps import Place, run_step

if TYPE_CHECKING:
    from .program import Program

LABEL_MAX = 80
"""Longest string that names an element of a map to people."""

ResultOf = Callable[[str], bytes]


async def run_graph(program: Program, graph: Graph) -> bytes:
    """The output (JSON) of a declared graph. Nodes start as soon as what they need has ended, longest path first.

    The first failure stops the others, whose finished work is kept in the journal. A node that waits for a person stops
    nothing; when nothing else can go on, its `Suspend` is raised.
    """
    run = _GraphRun(program, graph)
    async with anyio.create_task_group() as tasks:
        run.start(tasks)
    if run.failure is not None:
        raise run.failure
    if run.suspended is not None:
        raise run.suspended
    assert graph.output is not None
    return render(graph.output, run.results.__getitem__)


class _GraphRun:
    def __init__(self, program: Program, graph: Graph) -> None:
        self.program = program
        self.graph = graph
        self.ready = ReadySet(graph)
        self.results: dict[str, bytes] = {}
        self.skipped: set[str] = set()
        self.failure: FairleadError | None = None
        self.suspended: Suspend | None = None

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        while (node := self.ready.take()) is not None:
            tasks.start_soon(self.run_from, node, tasks)

    async def run_from(self, node: str | None, tasks: anyio.abc.TaskGroup) -> None:
        """Run a node, then go on with one that it made ready: a chain needs no new task for each of its steps."""
        while node is not None:
            if not await self.run(self.graph.nodes[node]):
                if self.failure is not None:
                    tasks.cancel_scope.cancel()
                return
            self.ready.ended(node)
            # A chain of steps that never wait must not keep the loop from everybody else.
            await asyncio.sleep(0)
            node = self.ready.take()
            self.start(tasks)

    async def run(self, node: Node) -> bool:
        """Run a node that is ready; whether what waits for it may start."""
        if any(guard.node in self.skipped or self.taken(guard.node) != guard.expected for guard in node.guards):
            self.skipped.add(node.id)
            self.program.note_step(_place(node), StepState.SKIPPED, 1)
            return True
        try:
            self.results[node.id] = await run_node(self.program, node, _place(node), self.results.__getitem__)
        except Suspend as suspend:
            self.suspended = suspend
            return False
        except FairleadError as error:
            if self.failure is None:
                self.failure = error
                self.program.stop()
            return False
        return True

    def taken(self, condition: str) -> bool:
        return self.results.get(condition) == b"true"


async def run_node(program: Program, node: Node, place: Place, result_of: ResultOf) -> bytes:
    """The result (JSON) of one node whose needs have ended."""
    match node.work:
        case StepWork(step, arguments):
            return await run_step(program, place, step, _rendered(arguments, result_of))
        case WorkflowWork(workflow, arguments):
            return await program.run_child(place, workflow, _rendered(arguments, result_of))
        case SelectWork(condition, then, otherwise):
            return render(then if result_of(condition) == b"true" else otherwise, result_of)
        case MapWork() as work:
            return await _recorded(program, place, functools.partial(_map, program, node.id, work, result_of))
        case LoopWork() as work:
            return await _recorded(program, place, functools.partial(_loop, program, node.id, work, result_of))


async def _recorded(program: Program, place: Place, run: Callable[[], Awaitable[bytes]]) -> bytes:
    """Run a node that consists of other nodes, with a record of its own that a watcher can hang them on."""
    recorded = program.recorded_result(place.node)
    if recorded is not None:
        return recorded
    program.note_step(place, StepState.RUNNING, 1)
    try:
        result = await run()
    except anyio.get_cancelled_exc_class():
        program.note_step(place, StepState.CANCELLED, 1)
        raise
    except Suspend as suspend:
        program.note_step(place, StepState.WAITING, 1, error=suspend.question)
        raise
    except FairleadError as error:
        facts = error_facts(error)
        program.note_step(place, StepState.FAILED, 1, error=facts, data={"error": facts["message"]})
        raise
    program.note_step(place, StepState.SUCCEEDED, 1, result=result)
    return result


async def _map(program: Program, node: str, work: MapWork, result_of: ResultOf) -> bytes:
    items = from_json(render(work.items, result_of))
    if not isinstance(items, list):
        raise InputError(f"step {work.step.name!r}: map() needs a list, got {type(items).__name__}")
    common = _rendered(work.arguments, result_of)
    results: list[bytes] = [b""] * len(items)
    queue = iter(range(len(items)))
    failure: FairleadError | None = None
    suspended: Suspend | None = None

    async def work_off() -> None:
        nonlocal failure, suspended
        for index in queue:
            place = Place(f"{node}[{index}]", work.step.name, "step", parent=node, label=_label(items[index]))
            try:
                results[index] = await run_step(program, place, work.step, {work.over: to_json(items[index]), **common})
            except Suspend as suspend:
                suspended = suspend
            except FairleadError as error:
                if failure is None:
                    failure = error
                    tasks.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(min(work.step.settings.limit or len(items), len(items))):
            tasks.start_soon(work_off)
    if failure is not None:
        raise failure
    if suspended is not None:
        raise suspended
    return b"[" + b",".join(results) + b"]"


def _label(element: object) -> str | None:
    return printable(element) if isinstance(element, str) and len(element) <= LABEL_MAX else None


async def _loop(program: Program, node: str, work: LoopWork, result_of: ResultOf) -> bytes:
    value = render(work.start, result_of)
    others = _rendered(work.arguments, result_of)
    over = next(iter(work.body.signature.parameters))
    tested = next(iter(work.until.signature.parameters))
    for round_ in range(1, work.limit + 1):
        place = Place(f"{node}({round_})", work.body.name, "step", parent=node)
        value = await run_step(program, place, work.body, {over: value, **others})
        place = Place(f"{node}({round_})?{work.until.name}", work.until.name, "step", needs=(place.node,), parent=node)
        if await run_step(program, place, work.until, {tested: value}) == b"true":
            break
    return value


def _rendered(arguments: Mapping[str, Template], result_of: ResultOf) -> dict[str, bytes]:
    return {name: render(template, result_of) for name, template in arguments.items()}


def _place(node: Node) -> Place:
    return Place(node.id, node.name, node.kind, node.needs)
