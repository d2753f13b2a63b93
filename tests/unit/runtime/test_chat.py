"""Replies of models, whole and in pieces: what `Agent` reads of them, and what it refuses."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead import EngineError
from fairlead.runtime.chat import Reply, ReplyStream, ToolRequest, error_of, reply_of


def body(message: Any, finish_reason: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}]}).encode()


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (body({"role": "assistant", "content": "hello"}), Reply("hello", (), "stop")),
        (body({"role": "assistant", "content": None}), Reply("", (), "stop")),
        (body({"content": "x", "tool_calls": None}), Reply("x", (), "stop")),
        (
            body({"content": None, "tool_calls": [call("c1", "look", '{"a":1}'), call("c2", "see", "oops")]}, "tool_calls"),
            Reply("", (ToolRequest("c1", "look", '{"a":1}'), ToolRequest("c2", "see", "oops")), "tool_calls"),
        ),
    ],
)
def test_a_whole_reply(content: bytes, reply: Reply) -> None:
    assert reply_of(content) == reply


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b'"text"',
        b"null",
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":{"tool_calls":[{"id":"c"}]}}]}',
    ],
)
def test_an_answer_without_a_reply_is_an_error_that_shows_it(content: bytes) -> None:
    with pytest.raises(EngineError, match="not a chat completion"):
        reply_of(content)


def test_a_reply_enters_the_conversation_as_it_was_said() -> None:
    assert Reply("hi").message() == {"role": "assistant", "content": "hi"}
    request = ToolRequest("c1", "look", '{"a": 1}')
    assert Reply("", (request,)).message() == {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("c1", "look", '{"a": 1}')],
    }
    assert Reply("so", (request,)).message()["content"] == "so"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"error":{"message":"no such model","type":"x"}}', "no such model"),
        (b'{"error":"busy"}', "busy"),
        (b'{"message":"plain"}', "plain"),
        (b'{"detail":"not found"}', "not found"),
        (b"<html>Bad gateway</html>", "<html>Bad gateway</html>"),
        (b"", "no reason given"),
    ],
)
def test_what_a_refusal_says_in_any_of_its_shapes(content: bytes, said: str) -> None:
    assert error_of(content) == said


def event(delta: Any, finish_reason: str | None = None) -> bytes:
    data = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}, ensure_ascii=False)
    return f"data: {data}\n\n".encode()


def piece(index: int, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": arguments, **({"name": name} if name else {})}
    return {"tool_calls": [{"index": index, "function": function, **({"id": id} if id else {})}]}


STREAM = b"".join(
    [
        event({"role": "assistant", "content": ""}),
        b": a comment\n\n",
        event({"content": "Grüße, "}),
        event({"content": "Welt 🌍"}),
        event(piece(1, "", "c2", "see")),
        event(piece(0, '{"a"', "c1", "look")),
        event(piece(1, "{}")),
        event(piece(0, ": 1}")),
        event({}, "tool_calls"),
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
        b"data: [DONE]\n\n",
    ]
)
WHOLE = Reply("Grüße, Welt 🌍", (ToolRequest("c1", "look", '{"a": 1}'), ToolRequest("c2", "see", "{}")), "tool_calls")


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_stream_gives_the_same_reply_wherever_it_is_cut_into_chunks(cuts: list[int]) -> None:
    stream = ReplyStream()
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [text for start, end in pairwise(places) for text in stream.feed(STREAM[start:end])]
    assert "".join(pieces) == WHOLE.text
    assert stream.reply() == WHOLE


def test_a_stream_with_windows_line_ends_is_read() -> None:
    stream = ReplyStream()
    stream.feed(STREAM.replace(b"\n", b"\r\n"))
    assert stream.reply() == WHOLE


@pytest.mark.parametrize(
    "data", [b"data: oops\n\n", b'data: {"choices":[3]}\n\n', b"data: []\n\n", b'data: {"choices":[{"delta":"x"}]}\n\n']
)
def test_an_event_that_is_no_chunk_is_an_error_that_shows_it(data: bytes) -> None:
    with pytest.raises(EngineError, match="not a chat completion chunk"):
        ReplyStream().feed(data)
