"""Text to tokens, and conversations to prompts, for the embedded engine.

The tokenizer is not a real vocabulary: a regular expression cuts text into pieces of about four characters, and a piece's id
is a hash of it. Counts are near those of real tokenizers (English 5 characters a token, code and JSON about 3.5, Chinese 1) and
ids are stable across processes, which is all that prefix reuse and accounting need.

The template puts tools first and then each message between markers, so a conversation that is only appended to keeps its
tokens, and an assistant message costs the same tokens when it is generated as when it comes back in the next prompt.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from ....encoding import Json

BEGIN, SYSTEM, USER, ASSISTANT, TOOL, TOOLS, CALL, END = range(8)
"""Marker tokens."""

_MARKERS = 16
_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL, "function": TOOL}
_PIECE = re.compile(r" ?[A-Za-z]{1,8}|\d{1,3}|\n\s*| ?[!-/:-@\[-`{-~]{1,3}|[^\S\n]{1,8}|.", re.DOTALL)
_MEMO_LIMIT = 100_000


class _Ids(dict[str, int]):
    """Piece to id, remembered; `tokenise` empties it when it has grown too large."""

    def __missing__(self, piece: str) -> int:
        token = self[piece] = _MARKERS + crc32(piece.encode("utf-8", "surrogatepass")) % (2**31 - _MARKERS)
        return token


_ids = _Ids()
_texts: dict[str, array[int]] = {}
_texts_size = 0


def pieces(text: str) -> list[str]:
    """The text cut into token pieces; joined they are the text again."""
    return _PIECE.findall(text)


def ids_of(cut: Sequence[str]) -> array[int]:
    """The ids of pieces, one each."""
    if len(_ids) > _MEMO_LIMIT:
        _ids.clear()
    return array("I", map(_ids.__getitem__, cut))


def tokenise(text: str) -> array[int]:
    """Token ids of a text. Texts of a conversation come again with every turn, so the last ones are remembered."""
    global _texts_size
    found = _texts.get(text)
    if found is None:
        found = ids_of(pieces(text))
        _texts_size += len(text)
        if _texts_size > 16_000_000:
            _texts.clear()
            _texts_size = len(text)
        _texts[text] = found
    return found


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(tokenise(text))


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an answer: text of the content, or of tool call number `call` (its name first, then its arguments)."""

    text: str
    call: int | None = None
    part: str = "content"
    """`content`, `name` (the whole name comes with its first token, the rest are empty), `arguments`, or `marker`."""


@dataclass(frozen=True, slots=True)
class SpokenCall:
    """A tool call as the assistant makes it; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


def answer_pieces(text: str, calls: Sequence[SpokenCall]) -> list[Piece]:
    """An assistant message as the tokens in which it is generated, the closing marker included."""
    out = [Piece(piece) for piece in pieces(text)]
    for index, call in enumerate(calls):
        named = len(pieces(call.name)) or 1
        out.append(Piece("", index, "marker"))
        out.append(Piece(call.name, index, "name"))
        out.extend(Piece("", index, "marker") for _ in range(named - 1))
        out.extend(Piece(piece, index, "arguments") for piece in pieces(call.arguments))
    out.append(Piece("", None, "marker"))
    return out


def answer_ids(text: str, calls: Sequence[SpokenCall]) -> array[int]:
    """The ids of `answer_pieces`, without the closing marker: what the same message has in a later prompt."""
    out = array("I", tokenise(text))
    for call in calls:
        out.append(CALL)
        out.extend(tokenise(call.name))
        out.extend(tokenise(call.arguments))
    return out


def prompt_ids(messages: Sequence[Json], tools: Sequence[Json] = ()) -> array[int]:
    """A chat prompt: tools, messages in order, and the opening of the assistant's answer."""
    out = array("I", [BEGIN])
    if tools:
        out.append(TOOLS)
        for tool in tools:
            out.extend(tokenise(json.dumps(tool, sort_keys=True)))
        out.append(END)
    for message in messages:
        if isinstance(message, dict):
            role = message.get("role")
            out.append(_ROLES.get(role, USER) if isinstance(role, str) else USER)
            out.extend(answer_ids(content_text(message.get("content")), spoken_calls(message)))
            out.append(END)
    out.append(ASSISTANT)
    return out


def content_text(content: Json) -> str:
    """The text of a message's content: a string, or the text of its parts; a part that is not text counts by its kind."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(_part_text(part) for part in content)


def spoken_calls(message: dict[str, Json]) -> list[SpokenCall]:
    """The tool calls of an assistant message in chat form; malformed entries are skipped."""
    calls = message.get("tool_calls")
    out: list[SpokenCall] = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(call, dict) and isinstance(function, dict):
            out.append(SpokenCall(_text(call.get("id")), _text(function.get("name")), _text(function.get("arguments"))))
    return out


def _part_text(part: Json) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return ""
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else f"[{_text(part.get('type')) or 'part'}]"


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
