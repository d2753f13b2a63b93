"""Steps called by a running body: each becomes a node of the growing graph and starts at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import anyio

from ..encoding import digest
from ..errors import DeclarationError, FairleadError
from ..graphs.compose import check_elements, check_loop, map_parameters
from ..graphs.declare import Step, Workflow
from ..graphs.graph import LoopWork, MapWork, Node, StepWork, Work, WorkflowWork, needs_of
from ..graphs.handle import Handle, Template, describe, template_of
from ..signature import Border, Signature
from .body import Suspend, on_loop, wait_blocking
from .nodes import run_node
from .steps import Place
from .store.records import StepRecord

if TYPE_CHECKING:
    from .body import Body


class _Outcome:
    """What became of a node that a body added."""

    __slots__ = ("border", "ended", "error", "result", "seen")

    def __init__(self, border: Border) -> None:
        self.border = border
        self.ended = anyio.Event()
        self.result = b""
        self.error: FairleadError | Suspend | None = None
        self.seen = False
        """Whether the body has taken notice of the outcome."""


class Grower:
    """The builder of one running body, and the waiter of its handles."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._outcomes: dict[str, _Outcome] = {}

    def call_step(self, step: Step[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> Handle[Any]:
        step.check()
        templates = self._templates(step.signature, args, kwargs)
        return self._add(step.name, StepWork(step, templates), templates, step.signature.result, step)

    def call_workflow(self, workflow: Workflow[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> Handle[Any]:
        workflow.signature.check()
        templates = self._templates(workflow.signature, args, kwargs)
        return self._add(workflow.name, WorkflowWork(workflow, templates), templates, workflow.signature.result)

    def map_step(self, step: Step[..., Any], items: object, args: tuple[object, ...], kwargs: dict[str, object]) -> Handle[Any]:
        step.check()
        over, rest = map_parameters(step)
        templates = self._templates(rest, args, kwargs)
        check_elements(over, items)
        given = items if isinstance(items, Handle) else list(cast(Iterable[object], items))
        template = template_of(over.listed, given, self)
        work = MapWork(step, over.name, template, templates)
        return self._add(step.name, work, {"": template, **templates}, step.signature.result.listed, step)

    def branch(self, condition: object, then: Callable[[], Any], otherwise: Callable[[], Any] | None) -> Handle[Any]:
        raise DeclarationError(
            "when() belongs in a composing `def` workflow", hint="here the value is at hand: await the handle and use `if`"
        )

    def loop(
        self, body: Step[..., Any], start: object, until: Step[..., Any], limit: int, args: tuple[object, ...]
    ) -> Handle[Any]:
        check_loop(body, until, limit)
        first, rest = map_parameters(body)
        template = template_of(first, start, self)
        others = self._templates(rest, args, {})
        return self._add(
            body.name, LoopWork(body, until, template, others, limit), {"": template, **others}, body.signature.result, body
        )

    async def value(self, node: str) -> Any:
        self._body.check_loop(f"the value of {node!r}")
        outcome = self._outcomes[node]
        await outcome.ended.wait()
        outcome.seen = True
        if outcome.error is not None:
            raise outcome.error
        return outcome.border.read(outcome.result)

    def value_blocking(self, node: str) -> Any:
        return wait_blocking(self._body, f"result() of {node!r}", functools.partial(self.value, node))

    def unhandled(self) -> FairleadError | Suspend | None:
        """The error of a node that failed without the body having taken notice, if there is one."""
        return next((item.error for item in self._outcomes.values() if item.error is not None and not item.seen), None)

    def _templates(self, signature: Signature, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, Template]:
        bound = signature.bind(args, kwargs)
        return {name: template_of(signature.parameters[name], value, self) for name, value in bound.items()}

    def _add(
        self, name: str, work: Work, templates: dict[str, Template], result: Border, step: Step[..., Any] | None = None
    ) -> Handle[Any]:
        return on_loop(self._body, lambda: self._add_on_loop(name, work, templates, result, step))

    def _add_on_loop(
        self, name: str, work: Work, templates: dict[str, Template], result: Border, step: Step[..., Any] | None
    ) -> Handle[Any]:
        body, program = self._body, self._body.program
        key = step.settings.key if step else None
        after = [self._own(handle) for handle in (step.settings.after if step else ())]
        asked = digest(
            b"node", name.encode(), (key or "").encode(), *(n.encode() + b"=" + describe(t) for n, t in templates.items())
        )
        issued = body.issue(asked, f"step {name!r} with the arguments of this run")
        if isinstance(issued.recorded, StepRecord):
            node_name = issued.recorded.node
        else:
            prefix = f"{body.path}/" if body.path else ""
            node_name = program.names.next(prefix + name, key)
        needs = needs_of(templates.values(), *after)
        node = Node(node_name, work, needs)
        program.graph.nodes[node_name] = node
        outcome = self._outcomes[node_name] = _Outcome(result)
        place = Place(node_name, name, node.kind, needs, body.path, issued.ordinal, issued.overlapped, asked)
        body.tasks.start_soon(self._run, node, place, outcome)
        return Handle(node_name, result, self, self)

    def _own(self, handle: object) -> str:
        if not isinstance(handle, Handle) or handle.scope is not self:
            raise DeclarationError("`after` takes handles of the same workflow")
        return handle.node

    async def _run(self, node: Node, place: Place, outcome: _Outcome) -> None:
        try:
            for need in node.needs:
                before = self._outcomes[need]
                await before.ended.wait()
                if before.error is not None:
                    before.seen = True
                    raise before.error
            outcome.result = await run_node(self._body.program, node, place, lambda need: self._outcomes[need].result)
        except (FairleadError, Suspend) as error:
            outcome.error = error
        finally:
            outcome.ended.set()
            self._body.effects.close()
            self._body.progress()
