"""`@tool`: an ordinary typed function becomes something that models and steps can call, recorded and with a JSON Schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property, update_wrapper
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_args, overload

from ..encoding import Json
from ..errors import DeclarationError
from ..signature import Signature, check_plain_function
from .calling import ToolRunner, current_runner

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Idempotency = Literal["pure", "idempotent", "unsafe"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """Everything that can be set on a tool, with its defaults."""

    idempotency: Idempotency = "unsafe"
    """What may happen when a crash leaves the outcome of a call unknown: `pure` and `idempotent` calls are repeated, for
    an `unsafe` one (the default) the program waits for a person."""
    background: bool = False
    """The model gets a ticket at once and the result when it is there; the program goes on meanwhile."""
    timeout: float | None = None
    """Seconds one call may take."""

    def __post_init__(self) -> None:
        if self.idempotency not in get_args(Idempotency):
            raise DeclarationError(
                f"idempotency {self.idempotency!r} is unknown", hint=f"one of {', '.join(get_args(Idempotency))}"
            )
        if self.timeout is not None and not self.timeout > 0:
            raise DeclarationError(f"timeout={self.timeout}: a timeout must be more than 0 seconds")


class Tool(Generic[P, R_co]):
    """A declared tool. In a step, `await tool(...)` calls it and records the call; an `Agent` offers it to its model.

    `function` is the plain function, for unit tests.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, description: str, options: ToolOptions, signature: Signature
    ) -> None:
        if not _NAME.fullmatch(name):
            raise DeclarationError(f"tool name {name!r}: models accept letters, digits, `_` and `-`, at most 64")
        self.function = function
        self.name = name
        self.description = description
        self.settings = options
        self.signature = signature
        self.is_async = inspect.iscoroutinefunction(function)
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call the tool from an async step. Raises `ToolError` if it fails, `DeclarationError` outside of a step."""
        return self._runner().call_tool(self, self._arguments(args, kwargs))

    def blocking(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the tool from a plain `def` step."""
        result: R_co = self._runner().call_tool_blocking(self, self._arguments(args, kwargs))
        return result

    def _arguments(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, bytes]:
        bound = self.signature.bind(args, kwargs)
        return {name: self.signature.parameters[name].constant(value) for name, value in bound.items()}

    def _runner(self) -> ToolRunner:
        runner = current_runner.get()
        if runner is None:
            raise DeclarationError(
                f"tool {self.name!r} was called outside of a step", hint="use its `.function` to run the plain function"
            )
        return runner

    @cached_property
    def schema(self) -> dict[str, Json]:
        """The tool as chat completions offer it: `{"type": "function", "function": {...}}`."""
        self.signature.check()
        function: dict[str, Json] = {
            "name": self.name,
            "description": self.description,
            "parameters": self.signature.json_schema,
        }
        return {"type": "function", "function": function}

    def __repr__(self) -> str:
        return f"<tool {self.name}>"


@overload
def tool(function: Callable[P, Coroutine[Any, Any, R]], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    idempotency: Idempotency = "unsafe",
    background: bool = False,
    timeout: float | None = None,
) -> _ToolDecorator: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    idempotency: Idempotency = "unsafe",
    background: bool = False,
    timeout: float | None = None,
) -> Any:
    """Declare a tool: `@tool` or `@tool(idempotency="pure", ...)` on a typed function, `async def` or `def`.

    The docstring tells the model what the tool does. Plain `def` tools run in threads. See `ToolOptions`.
    """
    options = ToolOptions(idempotency, background, timeout)

    def declare(target: Callable[..., Any]) -> Tool[..., Any]:
        plain = check_plain_function(target, "tool")
        called = name or plain.__name__
        said = description if description is not None else inspect.getdoc(plain) or ""
        return Tool(plain, called, said, options, Signature(plain, "tool", called))

    return declare(function) if function is not None else declare


class _ToolDecorator:
    """Only for type checkers: what `@tool(...)` gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Tool[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Tool[..., Any]:
        return tool(function)
