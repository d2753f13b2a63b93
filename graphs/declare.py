"""`@step` and `@workflow`: ordinary typed functions become things that can be composed, run and resumed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from typing_extensions import TypedDict

from ..errors import DeclarationError
from ..signature import Signature, check_plain_function, checked_name, type_name
from .building import builder_for
from .handle import Handle
from .options import Cache, Idempotency, Retry, StepOptions, Timeout, retry_of, timeout_of
from .typing import assignable
from .version import version_of

if TYPE_CHECKING:
    from .graph import Graph

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class StepSettings(TypedDict, total=False):
    """Keyword arguments of `@step` and `Step.options`; see `StepOptions` for their meaning."""

    retry: Retry | int | None
    timeout: Timeout | float | None
    cache: Cache | None
    idempotency: Idempotency
    fallback: Step[..., Any] | None
    estimate: float
    limit: int | None
    key: str | None
    after: tuple[Handle[Any], ...] | list[Handle[Any]]


def _apply(options: StepOptions, settings: StepSettings) -> StepOptions:
    changes: dict[str, Any] = dict(settings)
    if "retry" in changes:
        changes["retry"] = retry_of(changes["retry"])
    if "timeout" in changes:
        changes["timeout"] = timeout_of(changes["timeout"])
    if "after" in changes:
        changes["after"] = tuple(changes["after"])
    try:
        return replace(options, **changes)
    except TypeError as error:
        if isinstance(error, DeclarationError):
            raise
        raise DeclarationError(f"unknown step option: {error}") from error


def _check_same(place: str, given: object, wanted: object) -> None:
    if not assignable(given, wanted):
        raise DeclarationError(f"{place} is {type_name(wanted)} where {type_name(given)} is given")


class Step(Generic[P, R_co]):
    """A declared step. Calling it inside a workflow makes a node and gives the handle of its result.

    `function` is the plain function, for unit tests.
    """

    def __init__(self, function: Callable[..., Any], name: str, options: StepOptions, signature: Signature) -> None:
        self.function = function
        self.name = name
        self.settings = options
        self.signature = signature
        self.is_async = inspect.iscoroutinefunction(function)
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Add this step to the running workflow. Raises `DeclarationError` naming the parameter that does not fit."""
        return builder_for(f"step {self.name!r}").call_step(self, args, kwargs)

    def map(
        self: Callable[Concatenate[T, Q], Handle[R]], items: Iterable[T] | Handle[Any], *args: Q.args, **kwargs: Q.kwargs
    ) -> Handle[list[R]]:
        """Run this step once for each element of a list, which may be known only at run time; gives the list of results.

        The element is the first argument, the others are the same for all. `step.options(limit=4).map(...)` bounds how
        many run at once.
        """
        # Typed as what a step is when called: checkers solve T from that, and not from `Step[Concatenate[T, Q], R]`.
        step = cast(Step[..., Any], self)
        return builder_for(f"step {step.name!r}").map_step(step, items, args, kwargs)

    def options(self, **settings: Unpack[StepSettings]) -> Step[P, R_co]:
        """The same step with other options, for one use: `fetch.options(retry=5, key="main")(url)`."""
        return Step(self.function, self.name, _apply(self.settings, settings), self.signature)

    def check(self, fallback_of: tuple[str, ...] = ()) -> None:
        """Raise `DeclarationError` if this step cannot be part of a graph. `fallback_of` names the steps it stands in for."""
        if self.name in fallback_of:
            raise DeclarationError(f"step {self.name!r} falls back on itself: {' -> '.join((*fallback_of, self.name))}")
        self.signature.check()
        fallback = self.settings.fallback
        if fallback is None:
            return
        if not isinstance(fallback, Step):
            raise DeclarationError(f"step {self.name!r}: its fallback must be a step, not {type(fallback).__name__}")
        fallback.check((*fallback_of, self.name))
        ours, theirs = self.signature.parameters, fallback.signature.parameters
        place = f"step {self.name!r}: its fallback {fallback.name!r}"
        for name, parameter in ours.items():
            if name not in theirs:
                raise DeclarationError(f"{place} has no parameter {name!r}")
            _check_same(f"{place}, parameter {name!r}", parameter.annotation, theirs[name].annotation)
        _check_same(f"{place}, result", fallback.signature.result.annotation, self.signature.result.annotation)
        for name, parameter in theirs.items():
            if parameter.required and name not in ours:
                raise DeclarationError(f"{place} needs {name!r} as well")

    @cached_property
    def version(self) -> str:
        """Digest of the step's code."""
        return version_of(self.function)

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class Workflow(Generic[P, R_co]):
    """A declared workflow: composing (`def`) or plain Python (`async def`).

    Called inside another workflow it becomes a child program and gives the handle of its result.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, version: str | None, timeout: Timeout, signature: Signature
    ) -> None:
        self.function = function
        self.name = name
        self.timeout = timeout
        self.signature = signature
        self.composes = not inspect.iscoroutinefunction(function)
        self._version = version
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Add this workflow to the running one, as a child program."""
        return builder_for(f"workflow {self.name!r}").call_workflow(self, args, kwargs)

    @cached_property
    def version(self) -> str:
        """The declared version, or a digest of the code of the workflow, its steps and its tools."""
        return self._version or version_of(self.function)

    def graph(self, *args: P.args, **kwargs: P.kwargs) -> Graph:
        """The whole graph of a composing workflow, checked, without running anything.

        Raises `DeclarationError` for mistakes in it, and for an `async def` workflow, whose graph grows as it runs.
        """
        from .compose import compose

        bound = self.signature.bind(args, kwargs)
        return compose(self, {name: self.signature.parameters[name].constant(value) for name, value in bound.items()})

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(*, name: str | None = None, **settings: Unpack[StepSettings]) -> _StepDecorator: ...
def step(function: Callable[..., Any] | None = None, /, *, name: str | None = None, **settings: Unpack[StepSettings]) -> Any:
    """Declare a step: `@step` or `@step(retry=3, timeout=60, ...)` on a typed function, `async def` or `def`.

    Plain `def` steps run in threads. See `StepOptions` for the options.
    """

    def declare(target: Callable[..., Any]) -> Step[..., Any]:
        plain = check_plain_function(target, "step")
        called = checked_name(name or plain.__name__, "step")
        return Step(plain, called, _apply(StepOptions(), settings), Signature(plain, "step", called))

    return declare(function) if function is not None else declare


class _StepDecorator:
    """Only for type checkers: what `@step(...)` gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Step[..., Any]:
        return step(function)


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(function: Callable[P, Handle[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, version: str | None = None, timeout: Timeout | float | None = None
) -> _WorkflowDecorator: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str | None = None,
    timeout: Timeout | float | None = None,
) -> Any:
    """Declare a workflow.

    On a `def` function the body only composes: it runs once, before anything else, and its whole graph is checked. On an
    `async def` function the body is plain Python that runs (and, after a crash, runs again and finds its finished steps).
    `version` replaces the digest of the code by which a changed workflow is noticed; `timeout` bounds a whole program.
    """

    def declare(target: Callable[..., Any]) -> Workflow[..., Any]:
        plain = check_plain_function(target, "workflow")
        called = checked_name(name or plain.__name__, "workflow")
        signature = Signature(plain, "workflow", called)
        return Workflow(plain, called, version, timeout_of(timeout), signature)

    return declare(function) if function is not None else declare


class _WorkflowDecorator:
    """Only for type checkers: what `@workflow(...)` gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Handle[R]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Workflow[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Workflow[..., Any]:
        return workflow(function)


def when(condition: Handle[bool] | bool, then: Callable[[], Any], otherwise: Callable[[], Any] | None = None) -> Handle[Any]:
    """Take one of two ways, by a result that is not known yet (composing workflows).

    `then` and `otherwise` are functions without arguments that compose the steps of their way and return a handle or a
    constant. The steps of the way not taken are skipped. Without `otherwise` the result is None on that way.
    """
    return builder_for("when()").branch(condition, then, otherwise)


def loop(
    body: Callable[Concatenate[T, ...], Handle[T]],
    start: T | Handle[T],
    *args: object,
    until: Callable[[T], Handle[bool]],
    limit: int,
) -> Handle[T]:
    """Apply `body` to its own result until `until` says so, at most `limit` times (composing workflows).

    `body(value, *args)` gives the next value; `until(value)` gives whether it is good enough. Raises `DeclarationError`
    without a positive `limit`: an unbounded loop of model calls is an unbounded bill.
    """
    for part, what in ((body, "body"), (until, "test")):
        if not isinstance(part, Step):
            raise DeclarationError(f"loop(): its {what} must be a step, not {type(part).__name__}")
    assert isinstance(body, Step)
    assert isinstance(until, Step)
    return builder_for("loop()").loop(body, start, until, limit, args)
