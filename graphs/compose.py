"""Runs the body of a composing workflow once, with handles, and gives the checked graph."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from ..errors import DeclarationError, FairleadError, GraphCycleError, line_in_user_code
from ..signature import Border, Parameter, Signature, type_name
from .building import current_builder
from .declare import Step, Workflow
from .graph import Graph, Guard, LoopWork, MapWork, Node, SelectWork, StepWork, Work, WorkflowWork, needs_of
from .handle import Constant, Handle, Ref, Template, refs, template_of
from .typing import assignable, element_of


def compose(workflow: Workflow[..., Any], arguments: dict[str, bytes]) -> Graph:
    """The graph of a composing workflow for these arguments (JSON by parameter name).

    Raises `DeclarationError` naming step and parameter for whatever is wrong in it, also for an error that its body raises
    itself, and `InputError` for arguments that do not fit.
    """
    if not workflow.composes:
        raise DeclarationError(
            f"workflow {workflow.name!r} is `async def`: its graph grows as it runs",
            hint="run it and look at the graph of the program",
        )
    signature = workflow.signature
    values = {name: signature.parameters[name].read(data) for name, data in arguments.items()}
    composer = Composer(workflow, arguments)
    token = current_builder.set(composer)
    try:
        returned = workflow.function(**values)
    except FairleadError:
        raise
    except (Exception, SystemExit) as error:
        failed = f"{type(error).__name__}: {error}{line_in_user_code(error)}"
        raise DeclarationError(f"{signature.place} failed while it was composed: {failed}") from error
    finally:
        current_builder.reset(token)
    composer.graph.output = template_of(workflow.signature.result, returned, composer)
    _check_unguarded(composer, composer.graph.output, f"{signature.place}, result", ())
    return composer.graph


class Composer:
    """The builder of a composing workflow: every call becomes a node of `graph`."""

    def __init__(self, workflow: Workflow[..., Any], arguments: dict[str, bytes]) -> None:
        self.graph = Graph(workflow.name)
        self._workflow = workflow
        self._arguments = arguments
        self._guards: tuple[Guard, ...] = ()
        self._names = NodeNames()

    def call_step(self, step: Step[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> Handle[Any]:
        step.check()
        templates = self._templates(step.signature, args, kwargs)
        return self._add(step.name, StepWork(step, templates), templates.values(), step.signature.result, step)

    def call_workflow(self, workflow: Workflow[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> Handle[Any]:
        workflow.signature.check()
        templates = self._templates(workflow.signature, args, kwargs)
        if workflow is self._workflow and templates == {k: Constant(v) for k, v in self._arguments.items()}:
            raise GraphCycleError([workflow.name, workflow.name])
        return self._add(workflow.name, WorkflowWork(workflow, templates), templates.values(), workflow.signature.result)

    def map_step(self, step: Step[..., Any], items: object, args: tuple[object, ...], kwargs: dict[str, object]) -> Handle[Any]:
        step.check()
        over, rest = map_parameters(step)
        templates = self._templates(rest, args, kwargs)
        check_elements(over, items)
        template = template_of(over.listed, items, self)
        _check_unguarded(self, template, over.place, self._guards)
        work = MapWork(step, over.name, template, templates)
        return self._add(step.name, work, [template, *templates.values()], step.signature.result.listed, step)

    def branch(self, condition: object, then: Callable[[], Any], otherwise: Callable[[], Any] | None) -> Handle[Any]:
        parameter = Parameter("when(), condition", bool, "condition")
        template = template_of(parameter, condition, self)
        if isinstance(template, Constant):
            raise DeclarationError("when(): the condition is known while composing", hint="use a plain `if`")
        assert isinstance(template, Ref)
        _check_unguarded(self, template, parameter.place, self._guards)
        taken, taken_type = self._way(then, Guard(template.node, True))
        left, left_type = self._way(otherwise, Guard(template.node, False)) if otherwise else (Constant(b"null"), type(None))
        work = SelectWork(template.node, taken, left)
        return self._add("when", work, [template, taken, left], Border("when(), result", taken_type | left_type))

    def loop(
        self, body: Step[..., Any], start: object, until: Step[..., Any], limit: int, args: tuple[object, ...]
    ) -> Handle[Any]:
        check_loop(body, until, limit)
        first, rest = map_parameters(body)
        template = template_of(first, start, self)
        _check_unguarded(self, template, first.place, self._guards)
        others = self._templates(rest, args, {})
        work = LoopWork(body, until, template, others, limit)
        return self._add(body.name, work, [template, *others.values()], body.signature.result, body)

    def _way(self, compose_way: Callable[[], Any], guard: Guard) -> tuple[Template, Any]:
        outer, self._guards = self._guards, (*self._guards, guard)
        try:
            result = compose_way()
            annotation = (
                result.result_border.annotation
                if isinstance(result, Handle)
                else (type(result) if result is not None else type(None))
            )
            border = Border(f"when(), way for {guard.expected}", Any if not isinstance(result, Handle) else annotation)
            return template_of(border, result, self), annotation
        finally:
            self._guards = outer

    def _templates(self, signature: Signature, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, Template]:
        bound = signature.bind(args, kwargs)
        templates = {name: template_of(signature.parameters[name], value, self) for name, value in bound.items()}
        for name, template in templates.items():
            _check_unguarded(self, template, signature.parameters[name].place, self._guards)
        return templates

    def _add(self, name: str, work: Work, arguments: Any, result: Border, step: Step[..., Any] | None = None) -> Handle[Any]:
        after = [_after_node(self, handle) for handle in (step.settings.after if step else ())]
        node = Node(
            self._names.next(name, step.settings.key if step else None),
            work,
            needs_of(arguments, *after, *(guard.node for guard in self._guards)),
            self._guards,
        )
        self.graph.add(node)
        return Handle(node.id, result, self)


class NodeNames:
    """Gives nodes their deterministic names: `name`, `name#2`, ... or `name[key]`. O(1) for each."""

    def __init__(self, taken: Container[str] = ()) -> None:
        self._taken = taken
        """Names that are used already."""
        self._given: set[str] = set()
        self._counts: dict[str, int] = {}

    def next(self, name: str, key: str | None = None) -> str:
        """A name that no node has. Raises `DeclarationError` for a key that is used."""
        if key is not None:
            keyed = f"{name}[{key}]"
            if keyed in self._given:
                raise DeclarationError(f"step {name!r}: the key {key!r} is used twice", hint="keys name nodes and must differ")
            self._given.add(keyed)
            return keyed
        while True:
            ordinal = self._counts[name] = self._counts.get(name, 0) + 1
            candidate = name if ordinal == 1 else f"{name}#{ordinal}"
            if candidate not in self._taken:
                return candidate


class _Rest(Signature):
    """A signature without its first parameter: what a `map` or a `loop` leaves to the caller."""

    def __init__(self, whole: Signature, first: str) -> None:
        self.function = whole.function
        self.place = whole.place
        parameters = {name: parameter for name, parameter in whole.parameters.items() if name != first}
        self.__dict__["_all"] = (parameters, whole.injections)


def map_parameters(step: Step[..., Any]) -> tuple[Parameter, Signature]:
    """The parameter that takes the element, and the signature of the others."""
    if not step.signature.parameters:
        raise DeclarationError(f"step {step.name!r} takes no argument, so it cannot be applied to elements")
    first = next(iter(step.signature.parameters.values()))
    return first, _Rest(step.signature, first.name)


def check_loop(body: Step[..., Any], until: Step[..., Any], limit: object) -> None:
    """Raise `DeclarationError` for a loop that is not bounded or whose parts do not fit together."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise DeclarationError(
            f"loop over step {body.name!r}: limit={limit!r}", hint="give the largest number of rounds, at least 1"
        )
    body.check()
    until.check()
    first, _ = map_parameters(body)
    gives = body.signature.result.annotation
    if not assignable(gives, first.annotation):
        raise DeclarationError(f"{first.place} expects {type_name(first.annotation)}, but each round gives {type_name(gives)}")
    tested, rest = map_parameters(until)
    if not assignable(gives, tested.annotation):
        raise DeclarationError(f"{tested.place} expects {type_name(tested.annotation)}, but the loop gives {type_name(gives)}")
    if any(parameter.required for parameter in rest.parameters.values()):
        raise DeclarationError(f"step {until.name!r}: the test of a loop takes one argument")
    if until.signature.result.annotation is not bool:
        raise DeclarationError(f"step {until.name!r}: the test of a loop must give bool")


def check_elements(over: Parameter, items: object) -> None:
    """Raise `DeclarationError` for a map over something that is no list, or whose elements do not fit the parameter."""
    if not isinstance(items, Handle):
        for item in items if isinstance(items, list | tuple) else ():
            if not isinstance(item, Handle):
                over.constant(item)
        return
    given = items.result_border.annotation
    element = element_of(given)
    if element is Any and not assignable(given, list[Any]):
        raise DeclarationError(f"{over.place} is mapped over a list, but {items.node!r} gives {type_name(given)}")
    if not assignable(element, over.annotation):
        raise DeclarationError(f"{over.place} expects {type_name(over.annotation)}, but the elements are {type_name(element)}")


def _check_unguarded(composer: Composer, template: Template, place: str, guards: tuple[Guard, ...]) -> None:
    for node in refs(template):
        needed = composer.graph.nodes[node].guards
        if guards[: len(needed)] != needed:
            raise DeclarationError(
                f"{place}: {node!r} runs only on one way of a when()", hint="use the handle that when() returns"
            )


def _after_node(composer: Composer, handle: object) -> str:
    if not isinstance(handle, Handle) or handle.scope is not composer:
        raise DeclarationError("`after` takes handles of the same workflow")
    return handle.node
