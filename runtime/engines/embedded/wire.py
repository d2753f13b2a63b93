"""Answers on the wire: bodies and event streams of `/v1/chat/completions` and `/v1/completions`, and error objects.

A writer turns an answer, whole or piece by piece, into bytes in the order that OpenAI's servers use. `responses` has the writer
of the Responses format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ....encoding import Json
from .script import Usage
from .tokens import Piece, SpokenCall

DONE = b"data: [DONE]\n\n"

# ASCII only: text that came in as a lone surrogate has no UTF-8.
_to_text = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Said:
    """One finished choice."""

    text: str
    calls: tuple[SpokenCall, ...]
    finish_reason: str


class Writer(Protocol):
    """Bytes of one answer. The stream methods are called in the order of their definition."""

    def whole(self, choices: Sequence[Said], usage: Usage) -> bytes:
        """The body of an answer that is not streamed."""

    def opening(self) -> bytes: ...

    def delta(self, choice: int, pieces: Sequence[Piece]) -> bytes:
        """The next tokens of a choice; may be empty."""

    def closing(self, choices: Sequence[Said], usage: Usage) -> bytes: ...


def to_bytes(value: Json) -> bytes:
    return _to_text(value).encode()


def data_event(value: Json) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + to_bytes(value) + b"\n\n"


def error_body(
    message: str, *, status: int, kind: str | None = None, param: str | None = None, code: str | None = None
) -> bytes:
    """OpenAI's error object."""
    return to_bytes({"error": {"message": message, "type": kind or _kind(status), "param": param, "code": code}})


def _kind(status: int) -> str:
    known = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return known.get(status, "invalid_request_error" if status < 500 else "server_error")


def usage_json(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def said_from(pieces: Sequence[Piece], calls: Sequence[SpokenCall], finish_reason: str) -> Said:
    """The message that these tokens make: shorter than what was meant when the output was cut."""
    text = "".join(piece.text for piece in pieces if piece.part == "content")
    reached = max((piece.call for piece in pieces if piece.call is not None and piece.part == "name"), default=-1)
    spoken = tuple(
        SpokenCall(
            call.id, call.name, "".join(piece.text for piece in pieces if piece.call == index and piece.part == "arguments")
        )
        for index, call in enumerate(calls[: reached + 1])
    )
    return Said(text, spoken, finish_reason)


class ChatWriter:
    """`/v1/chat/completions`."""

    def __init__(
        self,
        answer_id: str,
        created: int,
        model: str,
        calls: Sequence[Sequence[SpokenCall]],
        include_usage: bool,
        choices: int = 1,
    ) -> None:
        self._head: dict[str, Json] = {"id": answer_id, "object": "chat.completion", "created": created, "model": model}
        self._chunk_head: dict[str, Json] = {**self._head, "object": "chat.completion.chunk"}
        self._calls = calls
        self._include_usage = include_usage
        self._choices = choices

    def whole(self, choices: Sequence[Said], usage: Usage) -> bytes:
        listed: list[Json] = [
            {"index": index, "message": _message(said), "logprobs": None, "finish_reason": said.finish_reason}
            for index, said in enumerate(choices)
        ]
        return to_bytes({**self._head, "choices": listed, "usage": usage_json(usage)})

    def opening(self) -> bytes:
        return b"".join(self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self._choices))

    def delta(self, choice: int, pieces: Sequence[Piece]) -> bytes:
        out: list[bytes] = []
        text = "".join(piece.text for piece in pieces if piece.part == "content")
        if text:
            out.append(self._chunk(choice, {"content": text}))
        for index in dict.fromkeys(piece.call for piece in pieces if piece.call is not None):
            mine = [piece for piece in pieces if piece.call == index]
            arguments = "".join(piece.text for piece in mine if piece.part == "arguments")
            part: dict[str, Json] = {"index": index, "function": {"arguments": arguments}}
            if any(piece.part == "name" for piece in mine):
                call = self._calls[choice][index]
                part = {
                    "index": index,
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": arguments},
                }
            elif not arguments:
                continue
            out.append(self._chunk(choice, {"tool_calls": [part]}))
        return b"".join(out)

    def closing(self, choices: Sequence[Said], usage: Usage) -> bytes:
        out = [self._chunk(index, {}, said.finish_reason) for index, said in enumerate(choices)]
        if self._include_usage:
            out.append(data_event({**self._chunk_head, "choices": [], "usage": usage_json(usage)}))
        return b"".join([*out, DONE])

    def _chunk(self, choice: int, delta: dict[str, Json], finish_reason: str | None = None) -> bytes:
        listed: list[Json] = [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        body: dict[str, Json] = {**self._chunk_head, "choices": listed}
        if self._include_usage:
            body["usage"] = None
        return data_event(body)


class CompletionsWriter:
    """`/v1/completions`."""

    def __init__(self, answer_id: str, created: int, model: str, include_usage: bool) -> None:
        self._head: dict[str, Json] = {"id": answer_id, "object": "text_completion", "created": created, "model": model}
        self._include_usage = include_usage

    def whole(self, choices: Sequence[Said], usage: Usage) -> bytes:
        listed = [_completion_choice(index, said.text, said.finish_reason) for index, said in enumerate(choices)]
        return to_bytes({**self._head, "choices": listed, "usage": usage_json(usage)})

    def opening(self) -> bytes:
        return b""

    def delta(self, choice: int, pieces: Sequence[Piece]) -> bytes:
        text = "".join(piece.text for piece in pieces if piece.part == "content")
        return data_event({**self._head, "choices": [_completion_choice(choice, text, None)]}) if text else b""

    def closing(self, choices: Sequence[Said], usage: Usage) -> bytes:
        out = [
            data_event({**self._head, "choices": [_completion_choice(index, "", said.finish_reason)]})
            for index, said in enumerate(choices)
        ]
        if self._include_usage:
            out.append(data_event({**self._head, "choices": [], "usage": usage_json(usage)}))
        return b"".join([*out, DONE])


def _completion_choice(index: int, text: str, finish_reason: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _message(said: Said) -> Json:
    message: dict[str, Json] = {"role": "assistant", "content": said.text or (None if said.calls else ""), "refusal": None}
    if said.calls:
        message["tool_calls"] = call_list(said.calls)
    return message


def call_list(calls: Iterable[SpokenCall]) -> list[Json]:
    """Tool calls as a chat message holds them."""
    return [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls]
