"""The Responses format on the wire: one answer as a body, or as the typed, numbered events of its stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....encoding import Json
from .script import Usage
from .tokens import Piece, SpokenCall
from .wire import Said, to_bytes

_ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "previous_response_id",
    "prompt_cache_key",
    "temperature",
    "top_p",
    "user",
)


class ResponsesWriter:
    """`/v1/responses`. Items are opened when their first token comes and closed before the next one opens."""

    def __init__(self, answer_id: str, created: int, model: str, calls: Sequence[SpokenCall], body: Mapping[str, Json]) -> None:
        self._id = answer_id
        self._calls = calls
        self._base = _base(answer_id, created, model, body)
        self._sequence = 0
        self._output: list[Json] = []
        self._open_call: int | None = None
        self._is_open = False
        self._text: list[str] = []

    def whole(self, choices: Sequence[Said], usage: Usage) -> bytes:
        said = choices[0]
        return to_bytes(self._finished(said, usage, _items(self._id, said)))

    def opening(self) -> bytes:
        response: Json = {**self._base, "status": "in_progress", "output": [], "usage": None}
        return self._event("response.created", {"response": response}) + self._event(
            "response.in_progress", {"response": response}
        )

    def delta(self, choice: int, pieces: Sequence[Piece]) -> bytes:
        out: list[bytes] = []
        start = 0
        while start < len(pieces):
            call = pieces[start].call
            end = next((at for at in range(start, len(pieces)) if pieces[at].call != call), len(pieces))
            out.append(self._run(call, pieces[start:end]))
            start = end
        return b"".join(out)

    def closing(self, choices: Sequence[Said], usage: Usage) -> bytes:
        said = choices[0]
        out = [self._close_item(said.finish_reason != "length")]
        kind = "response.incomplete" if said.finish_reason == "length" else "response.completed"
        out.append(self._event(kind, {"response": self._finished(said, usage, self._output)}))
        return b"".join(out)

    def _run(self, call: int | None, pieces: Sequence[Piece]) -> bytes:
        """Tokens of one item."""
        text = "".join(piece.text for piece in pieces if piece.part in ("content", "arguments"))
        if call is None and not text:
            return b""
        out = []
        if not self._is_open or self._open_call != call:
            if call is not None and not any(piece.part == "name" for piece in pieces):
                return b""  # the marker before a call's name says nothing yet
            out = [self._close_item(True), self._open_item(call)]
        if text:
            self._text.append(text)
            kind = "response.output_text.delta" if call is None else "response.function_call_arguments.delta"
            out.append(self._event(kind, {**self._place(), "delta": text, **({"logprobs": []} if call is None else {})}))
        return b"".join(out)

    def _open_item(self, call: int | None) -> bytes:
        self._is_open, self._open_call, self._text = True, call, []
        item = self._item("", "in_progress")
        out = self._event("response.output_item.added", {"output_index": len(self._output), "item": item})
        if call is None:
            out += self._event("response.content_part.added", {**self._place(), "part": _text_part("")})
        return out

    def _close_item(self, complete: bool) -> bytes:
        if not self._is_open:
            return b""
        text = "".join(self._text)
        place = self._place()
        if self._open_call is None:
            out = self._event("response.output_text.done", {**place, "text": text, "logprobs": []})
            out += self._event("response.content_part.done", {**place, "part": _text_part(text)})
        else:
            name = self._calls[self._open_call].name
            out = self._event("response.function_call_arguments.done", {**place, "name": name, "arguments": text})
        item = self._item(text, "completed" if complete else "incomplete")
        out += self._event("response.output_item.done", {"output_index": len(self._output), "item": item})
        self._output.append(item)
        self._is_open = False
        return out

    def _item(self, text: str, status: str) -> Json:
        if self._open_call is None:
            return _message_item(self._id, text, status)
        call = self._calls[self._open_call]
        return _call_item(self._id, self._open_call, SpokenCall(call.id, call.name, text), status)

    def _place(self) -> dict[str, Json]:
        index = len(self._output)
        if self._open_call is None:
            return {"item_id": f"msg_{self._id}", "output_index": index, "content_index": 0}
        return {"item_id": f"fc_{self._id}_{self._open_call}", "output_index": index}

    def _finished(self, said: Said, usage: Usage, output: list[Json]) -> Json:
        cut = said.finish_reason == "length"
        return {
            **self._base,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": output,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
        }

    def _event(self, kind: str, fields: Mapping[str, Json]) -> bytes:
        data = to_bytes({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _base(answer_id: str, created: int, model: str, body: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "id": answer_id,
        "object": "response",
        "created_at": created,
        "model": model,
        "error": None,
        "incomplete_details": None,
        **{name: body.get(name) for name in _ECHOED},
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "store": body.get("store", True),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "truncation": "disabled",
    }


def _items(answer_id: str, said: Said) -> list[Json]:
    status = "incomplete" if said.finish_reason == "length" else "completed"
    items: list[Json] = [_message_item(answer_id, said.text, status)] if said.text or not said.calls else []
    return items + [_call_item(answer_id, index, call, status) for index, call in enumerate(said.calls)]


def _message_item(answer_id: str, text: str, status: str) -> Json:
    content: list[Json] = [] if status == "in_progress" else [_text_part(text)]
    return {"type": "message", "id": f"msg_{answer_id}", "status": status, "role": "assistant", "content": content}


def _call_item(answer_id: str, index: int, call: SpokenCall, status: str) -> Json:
    return {
        "type": "function_call",
        "id": f"fc_{answer_id}_{index}",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
