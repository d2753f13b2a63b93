"""What a decorated function takes and gives, read from its annotations: the typed border of steps, tools and workflows.

Everything that crosses the border is JSON of the annotated type. Parameters annotated with a type that Fairlead provides (an
`openai` client, a `StepContext`) are *injected*: they do not cross the border and callers leave them out.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType, GenericAlias
from typing import TYPE_CHECKING, Any

from .encoding import Json
from .errors import DeclarationError, InputError, SerialisationError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

EMPTY = inspect.Parameter.empty

injected: Any = None
"""Default for an injected parameter, so that type checkers let callers leave it out: `llm: AsyncOpenAI = injected`.

Typed `Any` because it stands in for a value of whatever type the parameter has.
"""


def injection_of(annotation: object) -> str | None:
    """The name of what Fairlead injects for this annotation (`AsyncOpenAI`, `OpenAI`, `StepContext`, ...), or None."""
    if not isinstance(annotation, type):
        return None
    if annotation.__module__.partition(".")[0] == "openai" and annotation.__name__ in ("AsyncOpenAI", "OpenAI"):
        return annotation.__name__
    return getattr(annotation, "__fairlead_injected__", None)


def explain(error: ValidationError) -> str:
    """A pydantic error in one line: `at a.b: Input should be a valid integer (got 'x')`."""
    parts = []
    for item in error.errors(include_url=False)[:3]:
        place = ".".join(str(piece) for piece in item["loc"])
        shown = repr(item.get("input"))
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        parts.append(f"{f'at {place}: ' if place else ''}{item['msg']} (got {shown})")
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Border:
    """One typed place where values cross: a parameter or the result of a function. `place` names it in errors."""

    place: str
    annotation: Any

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """The pydantic adapter of the type. Raises `DeclarationError` if the type cannot be written as JSON."""
        from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

        try:
            adapter: TypeAdapter[Any] = TypeAdapter(self.annotation)
            adapter.json_schema(mode="serialization")
        except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError, NameError) as error:
            raise DeclarationError(
                f"{self.place}: type {type_name(self.annotation)} cannot cross a border, because it has no JSON form",
                hint="use plain types, dataclasses or pydantic models; pass a path or an id instead of an open resource",
            ) from error
        return adapter

    @property
    def listed(self) -> Border:
        """The border of a list of such values."""
        return Border(self.place, GenericAlias(list, (self.annotation,)))

    def constant(self, value: object) -> bytes:
        """JSON of a value given in code, which must fit the type without conversion. Raises `DeclarationError`."""
        from pydantic import ValidationError
        from pydantic_core import PydanticSerializationError, to_json

        try:
            data = to_json(value)
            self.adapter.validator.validate_json(data, strict=True)
        except PydanticSerializationError as error:
            raise DeclarationError(f"{self.place}: {type(value).__name__} cannot be written as JSON: {error}") from error
        except ValidationError as error:
            raise DeclarationError(f"{self.place} expects {type_name(self.annotation)}: {explain(error)}") from error
        return data

    def read(self, data: bytes) -> Any:
        """The typed value of JSON. Raises `InputError`."""
        from pydantic import ValidationError

        try:
            return self.adapter.validator.validate_json(data)
        except ValidationError as error:
            raise InputError(f"{self.place} expects {type_name(self.annotation)}: {explain(error)}") from error

    def write(self, value: object) -> bytes:
        """JSON of a value that must be of the declared type. Raises `SerialisationError`."""
        from pydantic_core import PydanticSerializationError

        try:
            return self.adapter.serializer.to_json(value, warnings="error")
        except (PydanticSerializationError, UnicodeEncodeError, RecursionError) as error:
            raise SerialisationError(
                f"{self.place}: a value of type {type(value).__name__} does not fit the declared type "
                f"{type_name(self.annotation)}: {str(error).splitlines()[-1].strip()}",
                hint="return a value of the annotated type, or change the annotation",
            ) from error


@dataclass(frozen=True)
class Parameter(Border):
    """One parameter of a decorated function."""

    name: str
    default: Any = EMPTY

    @property
    def required(self) -> bool:
        return self.default is EMPTY


class Signature:
    """The typed border of one function.

    Raises `DeclarationError` (on first use, not at import) for missing annotations, positional-only parameters, `*args` and
    `**kwargs`, and types without a JSON form.
    """

    def __init__(self, function: Callable[..., object], kind: str, name: str) -> None:
        self.function = function
        self.kind = kind
        self.place = f"{kind} {name!r}"
        # Functions defined inside other functions name types that only their frame knows.
        local = "<locals>" in getattr(function, "__qualname__", "")
        self._locals = _frame_of_user() if local else None

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function, localns=self._locals, include_extras=True)
        except NameError as error:
            raise DeclarationError(
                f"{self.place}: annotation names {error.name!r}, which is not known at run time",
                hint="import the type outside `if TYPE_CHECKING:`; its border is checked while running",
            ) from error

    @cached_property
    def _all(self) -> tuple[dict[str, Parameter], dict[str, str]]:
        crossing: dict[str, Parameter] = {}
        provided: dict[str, str] = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            place = f"{self.place}, parameter {name!r}"
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise DeclarationError(f"{place}: only ordinary named parameters can cross a border")
            if name not in self._hints:
                raise DeclarationError(
                    f"{place} has no type annotation", hint="annotate it; `Any` is allowed, and checks nothing"
                )
            injection = injection_of(self._hints[name])
            if injection is not None:
                self._check_injection(place, injection)
                provided[name] = injection
            else:
                crossing[name] = Parameter(place, self._hints[name], name, parameter.default)
        return crossing, provided

    def _check_injection(self, place: str, what: str) -> None:
        client = "AsyncOpenAI" if inspect.iscoroutinefunction(self.function) else "OpenAI"
        context = {"step": "StepContext", "tool": "ToolContext"}.get(self.kind)
        if what not in (client, context):
            there = f"{client} and {context}" if context else client
            way = "an `async def`" if client == "AsyncOpenAI" else "a `def`"
            raise DeclarationError(f"{place}: {what} is not provided to {way} {self.kind}", hint=f"what is: {there}")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters that callers give, in order."""
        return self._all[0]

    @property
    def injections(self) -> dict[str, str]:
        """What is injected, by parameter name."""
        return self._all[1]

    @cached_property
    def result(self) -> Border:
        if "return" not in self._hints:
            raise DeclarationError(
                f"{self.place} has no return annotation", hint="annotate it; write `-> None` if it returns nothing"
            )
        annotation = self._hints["return"]
        if getattr(typing.get_origin(annotation), "__fairlead_stands_in__", False):
            annotation = typing.get_args(annotation)[0]
        return Border(f"{self.place}, result", type(None) if annotation is None else annotation)

    def check(self) -> None:
        """Build every adapter now, so that mistakes show before anything runs. Raises `DeclarationError`."""
        for border in (*self.parameters.values(), self.result):
            border.adapter  # noqa: B018 - building it is the check

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        """Arguments by parameter name, defaults left out. Raises `DeclarationError` naming the parameter at fault."""
        names = self._names
        if len(args) > len(names):
            raise DeclarationError(f"{self.place} takes {len(names)} arguments, got {len(args)}")
        bound = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.parameters:
                known = ", ".join(names) or "none"
                raise DeclarationError(f"{self.place} has no parameter {name!r}", hint=f"its parameters: {known}")
            if name in bound:
                raise DeclarationError(f"{self.place}, parameter {name!r} is given twice")
            bound[name] = value
        if len(bound) < len(names):
            for name, parameter in self.parameters.items():
                if name not in bound and parameter.required:
                    raise DeclarationError(f"{self.place}, parameter {name!r} is missing")
        return bound

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.parameters)

    def read_json(self, arguments: dict[str, Json]) -> dict[str, bytes]:
        """JSON arguments from outside, checked one by one. Raises `InputError` naming the parameter at fault."""
        from pydantic_core import to_json

        unknown = [name for name in arguments if name not in self.parameters]
        if unknown:
            raise InputError(
                f"{self.place} has no parameter {unknown[0]!r}", hint=f"its parameters: {', '.join(self._names) or 'none'}"
            )
        checked = {}
        for name, parameter in self.parameters.items():
            if name in arguments:
                checked[name] = to_json(arguments[name])
                parameter.read(checked[name])
            elif parameter.required:
                raise InputError(f"{parameter.place} is missing")
        return checked

    def with_defaults(self, arguments: dict[str, bytes]) -> dict[str, bytes]:
        """The arguments, completed by the defaults. Raises `DeclarationError` for a default that does not fit its type."""
        return {
            name: arguments[name] if name in arguments else parameter.constant(parameter.default)
            for name, parameter in self.parameters.items()
        }

    @cached_property
    def json_schema(self) -> dict[str, Json]:
        """JSON Schema (draft 2020-12) of the arguments as one object."""
        from pydantic import Field, create_model

        fields: dict[str, Any] = {
            name: (p.annotation, Field() if p.required else Field(default=p.default)) for name, p in self.parameters.items()
        }
        schema: dict[str, Json] = create_model("arguments", **fields).model_json_schema()
        schema.pop("title", None)
        schema["additionalProperties"] = False
        return schema


def _frame_of_user() -> dict[str, Any]:
    """The local names where a decorator was applied."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("fairlead."):
        frame = frame.f_back
    return dict(frame.f_locals)


_NAME = re.compile(r"[^\W\d][\w.-]{0,99}")


def checked_name(name: str, kind: str) -> str:
    """A name that can stand in the name of a node. Raises `DeclarationError`."""
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{kind} name {name!r}: a name begins with a letter or `_`; letters, digits, `_`, `.` and `-` follow, 100 at most"
        )
    return name


def type_name(annotation: object) -> str:
    """A type as a person would write it."""
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def check_plain_function(function: object, decorator: str) -> FunctionType:
    """The function itself. Raises `DeclarationError` for generators, methods and other things a decorator cannot take."""
    if not isinstance(function, FunctionType):
        raise DeclarationError(f"@{decorator} goes on a plain function, not on {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(
            f"@{decorator} {function.__name__!r}: a generator cannot be a {decorator}", hint="return a list instead"
        )
    return function
