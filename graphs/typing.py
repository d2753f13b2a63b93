"""Whether the result type of one step fits the parameter type of another, decided from annotations before anything runs.

Errs on the side of yes: `False` only where a value of the one type cannot be read as the other from JSON. What cannot be
decided here is checked again when the value is there.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

_LIST_LIKE = (list, tuple, set, frozenset, Sequence, Iterable, Set, Collection)
_SCALARS = (bool, int, float, str, bytes, type(None))


def bare(annotation: object) -> object:
    """The type without `Annotated`, `NewType` and type aliases."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):  # `type X = ...` of Python 3.12
            annotation = annotation.__value__
        else:
            return type(None) if annotation is None else annotation


def members(annotation: object) -> tuple[object, ...]:
    """The alternatives of a union, or the type itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(bare(item) for item in get_args(annotation))
    return (annotation,)


def element_of(annotation: object) -> object:
    """The type of the elements of a list-like or of the values of a mapping; `Any` where it is not said."""
    for item in members(bare(annotation)):
        origin, args = get_origin(item), get_args(item)
        if origin in _LIST_LIKE and args:
            alike = origin is not tuple or (len(args) == 2 and args[1] is Ellipsis)
            return args[0] if alike else functools.reduce(operator.or_, args)
        if origin in (dict, Mapping) and len(args) == 2:
            return args[1]
    return Any


def assignable(given: object, wanted: object) -> bool:
    """Whether a result annotated `given` can be an argument annotated `wanted`."""
    given, wanted = bare(given), bare(wanted)
    if given is Any or wanted is Any or given is object or wanted is object or given == wanted:
        return True
    if isinstance(given, TypeVar) or isinstance(wanted, TypeVar):
        return True
    # An optional result may well be there: only if no alternative fits is the edge wrong.
    if len(members(given)) > 1:
        return any(assignable(item, wanted) for item in members(given))
    if len(members(wanted)) > 1:
        return any(assignable(given, item) for item in members(wanted))
    if get_origin(given) is Literal:
        return get_origin(wanted) is Literal or any(assignable(type(value), wanted) for value in get_args(given))
    if get_origin(wanted) is Literal:
        return any(assignable(given, type(value)) for value in get_args(wanted))
    return _assignable_plain(given, wanted)


def _assignable_plain(given: object, wanted: object) -> bool:
    given_class, wanted_class = get_origin(given) or given, get_origin(wanted) or wanted
    if given_class in _LIST_LIKE and wanted_class in _LIST_LIKE:
        return assignable(element_of(given), element_of(wanted))
    if given_class in (dict, Mapping) and wanted_class in (dict, Mapping):
        return assignable(element_of(given), element_of(wanted))
    if given_class in _SCALARS and wanted_class in _SCALARS:
        return (given_class, wanted_class) in ((bool, int), (int, float), (bool, float)) or given_class is wanted_class
    given_fields, needed = _fields(given_class), _fields(wanted_class, required_only=True)
    if given_fields is not None and needed is not None:
        return needed <= given_fields
    given_shape, wanted_shape = _shape(given_class), _shape(wanted_class)
    return given_shape == wanted_shape or "any" in (given_shape, wanted_shape)


def _fields(kind: object, *, required_only: bool = False) -> set[str] | None:
    """The JSON field names of a pydantic model or dataclass; None for other types."""
    model_fields = getattr(kind, "model_fields", None)
    if isinstance(model_fields, dict):
        return {field.alias or name for name, field in model_fields.items() if field.is_required() or not required_only}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return {
            field.name
            for field in dataclasses.fields(kind)
            if not required_only or (field.default is missing and field.default_factory is missing)
        }
    return None


def _shape(kind: object) -> str:
    """The JSON shape of a class: two classes of the same shape may fit, of different shapes never do."""
    if kind in _LIST_LIKE:
        return "list"
    if kind in (int, float, bool):
        return "number"
    if kind is type(None):
        return "null"
    if kind in (dict, Mapping) or hasattr(kind, "model_fields") or hasattr(kind, "__dataclass_fields__"):
        return "object"
    if isinstance(kind, type) and typing.is_typeddict(kind):
        return "object"
    # Strings, dates, paths, enums and whatever else is written as a string or a number: left to the value itself.
    return "any" if kind is not str and kind is not bytes else "string"
