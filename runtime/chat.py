"""The chat completions format, as far as `Agent` reads it: replies, streamed replies, tool calls. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic_core import from_json

from ..encoding import Json
from ..errors import EngineError


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call that the model asks for."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it, which may be anything."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn of the model."""

    text: str
    tool_requests: tuple[ToolRequest, ...] = ()
    finish_reason: str | None = None

    def message(self) -> dict[str, Json]:
        """The turn as it goes into the conversation."""
        if not self.tool_requests:
            return {"role": "assistant", "content": self.text}
        calls: list[Json] = [
            {"id": request.id, "type": "function", "function": {"name": request.name, "arguments": request.arguments}}
            for request in self.tool_requests
        ]
        return {"role": "assistant", "content": self.text or None, "tool_calls": calls}


def reply_of(content: bytes, engine: str = "engine") -> Reply:
    """The reply in the body of a chat completion. Raises `EngineError` if there is none in it."""
    body = from_json(content)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        requests = tuple(
            ToolRequest(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        )
        return Reply(message.get("content") or "", requests, choice.get("finish_reason"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        shown = content[:120].decode(errors="replace")
        raise EngineError(f"the answer is not a chat completion: {shown!r}", engine=engine) from error


def first_tool(body: Json) -> str:
    """The name of the first tool that a reply asks for (chat completions, responses); empty if there is none."""
    match body:
        case {"choices": [{"message": {"tool_calls": [{"function": {"name": str(name)}}, *_]}}, *_]}:
            return name
        case {"output": [*items]}:
            for item in items:
                match item:
                    case {"type": "function_call", "name": str(name)}:
                        return name
    return ""


def error_of(content: bytes) -> str:
    """What an engine says in a refusal, in any of the usual shapes."""
    try:
        body = from_json(content)
    except ValueError:
        return content[:200].decode(errors="replace") or "no reason given"
    found = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(found, Mapping):
        found = found.get("message") or found.get("detail") or found
    return str(found)


@dataclass(slots=True)
class _PartialCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ReplyStream:
    """Puts a streamed chat completion together, chunk by chunk."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._text: list[str] = []
        self._calls: dict[int, _PartialCall] = {}
        self._finish_reason: str | None = None

    def feed(self, chunk: bytes, engine: str = "engine") -> list[str]:
        """Take bytes as they come; gives the pieces of text that are complete now. Raises `EngineError` for bad events."""
        lines = (self._rest + self._decoder.decode(chunk)).split("\n")
        self._rest = lines.pop()
        return [text for line in lines if line.startswith("data:") for text in self._event(line[5:].strip(), engine)]

    def reply(self) -> Reply:
        """The whole reply, once everything has been fed."""
        requests = tuple(ToolRequest(call.id, call.name, "".join(call.arguments)) for _, call in sorted(self._calls.items()))
        return Reply("".join(self._text), requests, self._finish_reason)

    def _event(self, data: str, engine: str) -> list[str]:
        if data == "[DONE]" or not data:
            return []
        try:
            event = from_json(data)
            choice = event["choices"][0] if event.get("choices") else None
            if choice is None:
                return []
            delta = choice.get("delta") or {}
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            for piece in delta.get("tool_calls") or ():
                self._add(piece)
            text = delta.get("content")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineError(f"a streamed event is not a chat completion chunk: {data[:120]!r}", engine=engine) from error
        if not text:
            return []
        self._text.append(text)
        return [text]

    def _add(self, piece: Mapping[str, Json]) -> None:
        index = piece.get("index", 0)
        call = self._calls.setdefault(index if isinstance(index, int) else 0, _PartialCall())
        function = piece.get("function")
        if isinstance(piece.get("id"), str):
            call.id = str(piece["id"])
        if isinstance(function, Mapping):
            call.name = call.name or str(function.get("name") or "")
            call.arguments.append(str(function.get("arguments") or ""))
