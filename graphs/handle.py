"""The handle that stands for a value which is not there yet, and the templates that arguments become.

Passing a handle as an argument makes an edge. In an `async def` workflow, awaiting a handle gives its value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from ..encoding import encode
from ..errors import DeclarationError
from ..signature import Border, type_name
from .typing import assignable, element_of

if TYPE_CHECKING:
    from typing import Any

T_co = TypeVar("T_co", covariant=True)


class Waiter(Protocol):
    """Gives the value of a node to a running body; a composed graph has none."""

    def value(self, node: str) -> Awaitable[Any]:
        """The value, once the node has ended. Raises the node's error."""

    def value_blocking(self, node: str) -> Any:
        """The same, from a step that runs in a thread."""


class Handle(Generic[T_co]):
    """The result of a step that may not have run yet."""

    __slots__ = ("node", "result_border", "scope", "waiter")
    __fairlead_stands_in__ = True
    """A workflow may be annotated to return a handle: its result is what the handle stands for."""

    def __init__(self, node: str, result_border: Border, scope: object, waiter: Waiter | None = None) -> None:
        self.node = node
        self.result_border = result_border
        self.scope = scope
        self.waiter = waiter

    @property
    def value(self) -> T_co:
        """This handle, typed as the value it stands for.

        Python's types have no way to say "a parameter of type T also takes a handle of T", so this property says it: write
        `summarise(fetch(url).value)` and a type checker compares the result of `fetch` with the parameter of `summarise`.
        At run time it is the handle itself; passing the bare handle means the same to Fairlead (and an error to a checker).
        """
        return self  # type: ignore[return-value]  # the stand-in described above

    def result(self) -> T_co:
        """Wait for the value from a plain `def` step, which runs in a thread. Raises the step's error."""
        if self.waiter is None:
            raise self._not_running("result()")
        value: T_co = self.waiter.value_blocking(self.node)
        return value

    def __await__(self) -> Generator[Any, None, T_co]:
        if self.waiter is None:
            raise self._not_running("await")
        return self.waiter.value(self.node).__await__()

    def __repr__(self) -> str:
        return f"<handle of {self.node}>"

    def _not_running(self, what: str) -> DeclarationError:
        return DeclarationError(
            f"{what} on the handle of {self.node!r} in a composing workflow: nothing has run yet",
            hint="pass the handle to another step, or make the workflow `async def`",
        )

    if not TYPE_CHECKING:  # checkers see these mistakes best when the methods are not there

        def __bool__(self) -> bool:
            raise DeclarationError(
                f"the handle of {self.node!r} is used as a truth value, but its step has not run yet",
                hint="use `when(handle, then=..., otherwise=...)`, or make the workflow `async def` and await it",
            )

        def __iter__(self) -> Generator[Any, None, None]:
            raise DeclarationError(
                f"the handle of {self.node!r} is iterated, but its list is known only when it has run",
                hint="use `step.map(handle)`, or make the workflow `async def` and await it",
            )

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise DeclarationError(
                f"the handle of {self.node!r} has no attribute {name!r}: its value is not there yet",
                hint="take the attribute in a step that receives the handle",
            )


@dataclass(frozen=True, slots=True)
class Constant:
    """An argument known now, as JSON."""

    json: bytes


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that is the result of a node."""

    node: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list with at least one part that is not known yet."""

    items: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """A JSON object with at least one part that is not known yet."""

    items: tuple[tuple[str, Template], ...]


Template: TypeAlias = "Constant | Ref | ListOf | MapOf"


def render(template: Template, result_of: Callable[[str], bytes]) -> bytes:
    """The JSON of an argument, with the results of the nodes it refers to."""
    match template:
        case Constant(json):
            return json
        case Ref(node):
            return result_of(node)
        case ListOf(items):
            return b"[" + b",".join([render(item, result_of) for item in items]) + b"]"
        case MapOf(pairs):
            return b"{" + b",".join([encode(key) + b":" + render(item, result_of) for key, item in pairs]) + b"}"


def refs(template: Template) -> list[str]:
    """The nodes that an argument refers to, in order, with repetitions."""
    match template:
        case Constant():
            return []
        case Ref(node):
            return [node]
        case ListOf(items):
            return [node for item in items for node in refs(item)]
        case MapOf(pairs):
            return [node for _, item in pairs for node in refs(item)]


def describe(template: Template) -> bytes:
    """What identifies an argument before it is known: its constants, and the names of the nodes it refers to."""
    return render(template, lambda node: b"<" + node.encode() + b">")


def template_of(parameter: Border, value: object, scope: object) -> Template:
    """The template of one argument, checked against the parameter's type.

    Raises `DeclarationError` that names step and parameter: wrong type, no JSON form, a handle of another program.
    """
    if type(value) is Handle:
        _check_handle(parameter.place, value, parameter.annotation, scope)
        return Ref(value.node)
    if _holds_handle(value):
        return _nested(parameter, value, parameter.annotation, scope)
    return Constant(parameter.constant(value))


def _holds_handle(value: object) -> bool:
    if type(value) is Handle:
        return True
    if isinstance(value, list | tuple):
        return any(_holds_handle(item) for item in value)
    if isinstance(value, dict):
        return any(_holds_handle(item) for item in value.values())
    return False


def _nested(parameter: Border, value: object, annotation: object, scope: object) -> Template:
    if isinstance(value, Handle):
        _check_handle(parameter.place, value, annotation, scope)
        return Ref(value.node)
    if isinstance(value, (list, tuple)) and _holds_handle(value):
        inner = element_of(annotation)
        return ListOf(tuple(_nested(parameter, item, inner, scope) for item in value))
    if isinstance(value, dict) and _holds_handle(value):
        inner = element_of(annotation)
        return MapOf(tuple((str(key), _nested(parameter, item, inner, scope)) for key, item in value.items()))
    return Constant(Border(parameter.place, annotation).constant(value))


def _check_handle(place: str, handle: Handle[Any], wanted: object, scope: object) -> None:
    if handle.scope is not scope:
        raise DeclarationError(
            f"{place}: the handle of {handle.node!r} belongs to another program or to a step that has ended",
            hint="pass its value instead",
        )
    given = handle.result_border.annotation
    if not assignable(given, wanted):
        raise DeclarationError(f"{place} expects {type_name(wanted)}, but {handle.node!r} gives {type_name(given)}")
