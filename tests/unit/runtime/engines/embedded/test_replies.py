"""What the embedded engine says: tools called with arguments from the conversation, then an answer of the wanted form."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Literal

import pytest
from annotated_types import Len
from pydantic import BaseModel, Field

from fairlead.encoding import Json
from fairlead.runtime.engines.embedded.patterns import example_of
from fairlead.runtime.engines.embedded.replies import DISCLAIMER, Answer, compose
from fairlead.runtime.engines.embedded.requests import read_chat


def tool(name: str, required: Sequence[str] = (), **properties: Json) -> Json:
    parameters: Json = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TEXT: Json = {"type": "string"}
READ = tool("read_file", ["path"], path=TEXT)
LIST = tool("list_files")
SEARCH = tool("search", ["pattern"], pattern=TEXT)
SUBMIT = tool("submit_report", ["summary"], summary=TEXT)


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def answer(messages: Sequence[Json], *tools: Json, **body: Json) -> Answer:
    offered: dict[str, Json] = {"tools": list(tools)} if tools else {}
    return compose(read_chat({"model": "m", "messages": list(messages), **offered, **body}), 0)


def called(said: Answer) -> list[tuple[str, Json]]:
    return [(call.name, json.loads(call.arguments)) for call in said.calls]


HELLO = read_chat({"model": "m", "messages": [user("Hello")]})


def converse(question: str, results: dict[str, str], *tools: Json, **body: Json) -> tuple[list[list[tuple[str, Json]]], Answer]:
    """Carry out calls until it answers; gives the calls of each turn, and the answer."""
    messages: list[Json] = [user(question)]
    turns: list[list[tuple[str, Json]]] = []
    for _ in range(12):
        said = answer(messages, *tools, **body)
        if not said.calls:
            return turns, said
        turns.append(called(said))
        spoken: list[Json] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in said.calls
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": spoken})
        messages += [{"role": "tool", "tool_call_id": call.id, "content": results[call.name]} for call in said.calls]
    raise AssertionError(f"it never answers: {turns}")


def test_it_says_that_it_is_not_a_language_model() -> None:
    assert DISCLAIMER in answer([user("Hello")]).text


def test_the_same_request_and_seed_give_the_same_answer_and_another_seed_may_not() -> None:
    texts = {seed: compose(HELLO, seed).text for seed in range(10)}
    assert texts[3] == compose(HELLO, 3).text
    assert len(set(texts.values())) > 1


def test_arguments_come_from_the_users_message() -> None:
    assert called(answer([user("Please look at src/app/main.py now")], READ)) == [("read_file", {"path": "src/app/main.py"})]


def test_every_file_that_was_named_is_read_in_one_turn() -> None:
    said = answer([user("Compare a.py with b.py")], READ)
    assert called(said) == [("read_file", {"path": "a.py"}), ("read_file", {"path": "b.py"})]


def test_a_tool_without_known_arguments_waits_for_the_result_of_another() -> None:
    turns, said = converse(
        "What is in this project?", {"list_files": '["x.py", "y.md"]', "read_file": "# TODO: write it"}, READ, LIST
    )
    assert turns == [[("list_files", {})], [("read_file", {"path": "x.py"}), ("read_file", {"path": "y.md"})]]
    assert "# TODO: write it" in said.text


def test_a_search_asks_for_a_name_that_a_file_defines() -> None:
    results = {"read_file": "def load_settings():\n    return 1\n", "search": "m.py:1: def load_settings"}
    turns, said = converse("Review m.py", results, READ, SEARCH)
    assert turns == [[("read_file", {"path": "m.py"})], [("search", {"pattern": "load_settings"})]]
    assert "m.py:1: def load_settings" in said.text


def test_a_tool_for_which_nothing_is_known_is_called_once_all_the_same() -> None:
    turns, _ = converse("Hello there", {"search": "nothing found"}, SEARCH)
    assert len(turns) == 1 and turns[0][0][0] == "search"


def test_a_tool_that_ends_the_task_is_called_last_and_alone() -> None:
    turns, _ = converse("Review m.py", {"read_file": "x = 1", "submit_report": "ok"}, SUBMIT, READ, tool_choice="auto")
    assert [[name for name, _ in turn] for turn in turns] == [["read_file"], ["submit_report"]]


def test_no_call_is_made_twice_when_the_user_speaks_again() -> None:
    call: Json = {"id": "1", "type": "function", "function": {"name": "read_file", "arguments": '{"path":"m.py"}'}}
    messages: list[Json] = [
        user("Review m.py"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "x = 1"},
        {"role": "assistant", "content": "Done."},
        user("Are you sure about m.py?"),
    ]
    assert answer(messages, READ).calls == ()


def test_the_late_result_of_a_background_tool_is_a_result_and_not_a_new_question() -> None:
    call: Json = {"id": "1", "type": "function", "function": {"name": "audit", "arguments": '{"path":"m.py"}'}}
    messages: list[Json] = [
        user("Audit m.py"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": '{"ticket": "ticket-1"}'},
        user("[ticket-1] audit finished: m.py:7: hard-coded password"),
    ]
    said = answer(messages, tool("audit", ["path"], path=TEXT), tool("other", ["path"], path=TEXT), tool_choice="none")
    assert "Audit m.py" in said.text and "hard-coded password" in said.text
    assert [name for name, _ in called(answer(messages, tool("audit", ["path"], path=TEXT)))] == []


def test_tool_choice_is_honoured() -> None:
    question = [user("Review m.py")]
    assert answer(question, READ, LIST, tool_choice="none").calls == ()
    named: Json = {"type": "function", "function": {"name": "list_files"}}
    assert called(answer(question, READ, LIST, tool_choice=named)) == [("list_files", {})]
    assert called(answer([user("Hm.")], SEARCH, tool_choice="required"))[0][0] == "search"


def test_required_calls_even_when_everything_was_called() -> None:
    call: Json = {"id": "1", "type": "function", "function": {"name": "list_files", "arguments": "{}"}}
    messages: list[Json] = [
        user("List"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "[]"},
    ]
    assert len(answer(messages, LIST, tool_choice="required").calls) == 1


def test_without_parallel_calls_there_is_one_a_turn() -> None:
    assert len(answer([user("Compare a.py with b.py")], READ, LIST, parallel_tool_calls=False).calls) == 1


class Place(BaseModel):
    path: str
    line: int = Field(ge=1)
    message: str = Field(min_length=3)
    severity: Literal["info", "warning", "error"]


class Report(BaseModel):
    summary: str = Field(min_length=20, max_length=400)
    findings: list[Place]
    score: float = Field(gt=0, lt=1)
    grade: Literal["A", "B"] | None
    code: str = Field(pattern=r"^[A-Z]{2}-\d{3}$")
    tags: Annotated[list[str], Len(2, 4)]
    even: int = Field(ge=11, multiple_of=4)


class Tree(BaseModel):
    name: str
    children: list[Tree]
    parent: Tree | None = None


class Mixed(BaseModel):
    value: int | str
    pair: tuple[int, str]
    table: dict[str, int]
    flag: bool
    constant: Literal["only"]


@pytest.mark.parametrize("kind", [Report, Tree, Mixed, Place])
def test_structured_answers_fit_their_schema(kind: type[BaseModel]) -> None:
    form: Json = {"type": "json_schema", "json_schema": {"name": "x", "schema": kind.model_json_schema()}}
    kind.model_validate_json(answer([user("Tell me about `x` and 42")], response_format=form).text)


def test_a_structured_report_contains_what_the_tools_found() -> None:
    form: Json = {"type": "json_schema", "json_schema": {"name": "x", "schema": Report.model_json_schema()}}
    results = {"read_file": "m.py:12:4: F401 unused import os\nm.py:30: E501 line too long"}
    _, said = converse("Review m.py", results, READ, response_format=form)
    report = Report.model_validate_json(said.text)
    assert [(place.path, place.line, place.message) for place in report.findings] == [
        ("m.py", 12, "F401 unused import os"),
        ("m.py", 30, "E501 line too long"),
    ]
    assert "read_file" in report.summary


def test_json_object_gives_an_object() -> None:
    assert isinstance(json.loads(answer([user("hi")], response_format={"type": "json_object"}).text), dict)


def test_arguments_fit_enums_defaults_bounds_and_optional_values() -> None:
    properties: dict[str, Json] = {
        "mode": {"type": "string", "enum": ["fast", "thorough"]},
        "limit": {"type": "integer", "minimum": 10, "maximum": 20},
        "depth": {"type": "integer", "default": 7},
        "verbose": {"type": "boolean"},
        "path": {"type": ["string", "null"]},
    }
    said = answer([user("Do a thorough search, limit: 15")], tool("go", list(properties), **properties))
    arguments = called(said)[0][1]
    assert isinstance(arguments, dict)
    assert (arguments["mode"], arguments["limit"], arguments["depth"], arguments["verbose"]) == ("thorough", 15, 7, False)


@pytest.mark.parametrize(
    "pattern", [r"^[a-z]{3}\d+$", r"^(foo|bar)-\w{2,}$", r"^v\d+\.\d+(\.\d+)?$", r"[^a-z]{2}", r"^\S+@\S+$"]
)
def test_examples_match_their_pattern(pattern: str) -> None:
    assert re.search(pattern, example_of(pattern))
