"""Which results fit which parameters: no only where a value could never be read."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, TypeVar

import pytest
from pydantic import BaseModel, Field

from fairlead.graphs.typing import assignable, element_of

T = TypeVar("T")
UserId = NewType("UserId", int)
Positive = Annotated[int, Field(gt=0)]


class Colour(enum.Enum):
    RED = "red"


class Person(BaseModel):
    name: str
    age: int


class Name(BaseModel):
    name: str
    nickname: str = ""


class Address(BaseModel):
    street: str


class Aliased(BaseModel):
    given: str = Field(alias="name")


@dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict):
    depth: int


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        (int, int, True),
        (int, float, True),  # a whole number is a number
        (float, int, False),
        (bool, int, True),
        (int, bool, False),
        (str, int, False),
        (int, str, False),
        (None, int, False),
        (type(None), int | None, True),
        (int | None, int, True),  # it may well be there
        (Optional[int], int, True),  # noqa: UP045 - the old spelling
        (str | None, int, False),
        (int, int | str, True),
        (bytes | str, int | float, False),
        (Any, int, True),
        (str, Any, True),
        (object, int, True),
        (T, int, True),
        (int, T, True),
        (UserId, int, True),
        (int, UserId, True),
        (UserId, str, False),
        (Positive, int, True),
        (str, Positive, False),
        (Literal["a", "b"], str, True),
        (str, Literal["a", "b"], True),  # the value decides
        (Literal["a"], int, False),
        (int, Literal["a"], False),
        (Literal["a"], Literal["b"], True),  # the value decides
        (list[int], list[int], True),
        (list[int], list[float], True),
        (list[str], list[int], False),
        (list[int], Sequence[int], True),
        (list[int], Iterable[int], True),
        (tuple[int, ...], list[int], True),
        (tuple[int, str], list[str], True),  # one of the two fits
        (set[int], list[int], True),
        (list, list[int], True),
        (list[int], int, False),
        (int, list[int], False),
        (str, list[str], False),
        (list[list[int]], list[list[str]], False),
        (dict[str, int], dict[str, float], True),
        (dict[str, str], dict[str, int], False),
        (dict[str, int], Mapping[str, int], True),
        (dict[str, int], list[int], False),
        (Person, Person, True),
        (Person, Name, True),  # it has every field that is needed
        (Name, Person, False),  # no age
        (Person, Address, False),
        (Name, Aliased, True),  # JSON goes by the alias
        (Person, dict[str, Any], True),
        (dict[str, Any], Person, True),
        (Person, str, False),
        (Person, list[int], False),
        (Point, Point, True),
        (Point, Person, False),
        (Options, dict[str, int], True),
        (Options, int, False),
        (str, Path, True),  # written as strings, all of them
        (Path, str, True),
        (datetime.datetime, str, True),
        (Colour, str, True),
        (str, Colour, True),
    ],
)
def test_a_result_fits_a_parameter_if_its_json_may_be_read_as_it(given: object, wanted: object, fits: bool) -> None:
    assert assignable(given, wanted) is fits


@pytest.mark.parametrize(
    ("annotation", "element"),
    [
        (list[int], int),
        (Sequence[str], str),
        (tuple[int, ...], int),
        (tuple[int, str], int | str),
        (list[int] | None, int),
        (dict[str, float], float),
        (Annotated[list[int], Field(max_length=3)], int),
        (list, Any),
        (Any, Any),
        (int, Any),
    ],
)
def test_the_element_of_a_list_and_the_value_of_a_mapping(annotation: object, element: object) -> None:
    assert element_of(annotation) == element
