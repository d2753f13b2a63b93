"""Tools: their schema for models, their options, and where they can be called."""

from __future__ import annotations

import socket
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from fairlead import DeclarationError, ToolContext, injected, tool
from fairlead.errors import InputError


class Area(BaseModel):
    path: str
    lines: list[int] = []


@tool
async def search(
    query: str, where: Area, kind: Literal["text", "regex"] = "text", limit: Annotated[int, Field(ge=1)] = 10
) -> list[str]:
    """Search files for a text.

    Gives the lines that match.
    """
    return [query] * limit


def test_the_schema_offers_the_tool_as_chat_completions_expect_it() -> None:
    schema: Any = search.schema
    function = schema["function"]
    assert schema["type"] == "function"
    assert function["name"] == "search"
    assert function["description"] == "Search files for a text.\n\nGives the lines that match."
    parameters = function["parameters"]
    assert parameters["required"] == ["query", "where"]
    assert parameters["properties"]["query"]["type"] == "string"
    assert parameters["properties"]["kind"]["enum"] == ["text", "regex"]
    assert parameters["properties"]["limit"] == {"default": 10, "minimum": 1, "title": "Limit", "type": "integer"}
    assert parameters["additionalProperties"] is False


def test_injected_parameters_are_not_offered() -> None:
    @tool
    async def save(text: str, ctx: ToolContext = injected) -> None:
        """Save."""

    schema: Any = save.schema
    assert list(schema["function"]["parameters"]["properties"]) == ["text"]


def test_a_name_and_a_description_can_be_given() -> None:
    @tool(name="look-up", description="Looks things up.")
    async def whatever(text: str) -> str:
        """Not this."""
        return text

    schema: Any = whatever.schema
    assert (schema["function"]["name"], schema["function"]["description"]) == ("look-up", "Looks things up.")


def test_a_tool_without_a_docstring_has_no_description() -> None:
    @tool
    async def bare(text: str) -> str:
        return text

    schema: Any = bare.schema
    assert schema["function"]["description"] == ""


@pytest.mark.parametrize("name", ["look up", "such:en", "", "x" * 65, "größe"])
def test_a_name_that_models_do_not_accept_is_refused(name: str) -> None:
    async def find(text: str) -> str:
        return text

    if not name:
        assert tool(name=name)(find).name == "find"
        return
    with pytest.raises(DeclarationError, match="tool name"):
        tool(name=name)(find)


def test_tools_are_unsafe_until_they_are_declared_otherwise() -> None:
    assert search.settings.idempotency == "unsafe"
    assert search.settings.background is False
    assert search.settings.timeout is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"idempotency": "maybe"}, "pure, idempotent, unsafe"),
        ({"timeout": 0}, "more than 0"),
        ({"timeout": -1}, "more than 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        tool(**settings)


def test_a_parameter_without_a_json_form_is_named() -> None:
    @tool
    async def connect(peer: socket.socket) -> str:
        """Connect."""
        return ""

    with pytest.raises(DeclarationError, match="tool 'connect', parameter 'peer'"):
        _ = connect.schema


def test_a_tool_is_called_in_steps_only() -> None:
    with pytest.raises(DeclarationError, match=r"tool 'search' was called outside of a step\n.*`.function`"):
        _ = search("a", Area(path="x"))
    with pytest.raises(DeclarationError, match="outside of a step"):
        search.blocking("a", Area(path="x"))


async def test_the_plain_function_can_be_called() -> None:
    assert await search.function("a", Area(path="x"), limit=2) == ["a", "a"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "parameter 'query' is missing"),
        ({"query": "a"}, "parameter 'where' is missing"),
        ({"query": 3, "where": {"path": "x"}}, r"parameter 'query' expects str.*got 3"),
        ({"query": "a", "where": {}}, r"parameter 'where'.*at path: Field required"),
        ({"query": "a", "where": {"path": "x"}, "limit": 0}, r"parameter 'limit'.*greater than or equal to 1"),
        ({"query": "a", "where": {"path": "x"}, "kind": "glob"}, r"parameter 'kind'.*'text' or 'regex'"),
        ({"query": "a", "where": {"path": "x"}, "depth": 1}, "no parameter 'depth'"),
    ],
)
def test_arguments_of_a_model_are_checked_one_by_one(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"tool 'search'.*{said}"):
        search.signature.read_json(arguments)


pytestmark = pytest.mark.anyio
