"""Scripts: replies dictated exactly, delays and failures included, for tests and demonstrations.

A script is a callable `(EngineRequest) -> reply` (or an awaitable of one), a list of replies given in order, or a file. A reply
is a `Reply` (an answer; plain text will do), an `HttpFailure`, a `RawReply` (any bytes) or a `ConnectionFailure`; `None` leaves
the request to the engine model. Scripted replies bypass the model unless they say `modelled`, and never look at the
whole conversation, so a scripted engine costs the same at any length. Delays are in seconds as given, whatever the speed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ....encoding import Json
from ..port import EngineRequest


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call to make. `arguments` may be malformed JSON text; `id` is made up when not given."""

    name: str
    arguments: str | Mapping[str, Json] = "{}"
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `usage` that is not given is estimated from the number of messages and the length of the answer."""

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    delay_s: float = 0.0
    """Before the first byte."""
    token_delay_s: float = 0.0
    """Before each token (about four characters)."""
    finish_reason: str | None = None
    usage: Usage | None = None
    cut_after: int | None = None
    """Break the connection after this many stream chunks (or, without streaming, in the middle of the body)."""
    endless: bool = False
    """Stream the text again and again until the client goes away. Without streaming, never answer."""
    modelled: bool = False
    """Let the engine model decide timing, cache and usage; only the words are dictated."""


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """An error answer in OpenAI's shape. `headers` for example `{"retry-after": "1"}`."""

    status: int
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    kind: str | None = None
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RawReply:
    """Bytes as they are: HTML from a proxy, malformed JSON, nothing at all."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ConnectionFailure:
    """No HTTP answer: the connection is refused, or reset before a status arrives."""

    kind: Literal["refused", "reset"] = "refused"
    delay_s: float = 0.0


Scripted: TypeAlias = Reply | HttpFailure | RawReply | ConnectionFailure
ScriptFunction: TypeAlias = "Callable[[EngineRequest], Scripted | str | Awaitable[Scripted | str | None] | None]"
Script: TypeAlias = "ScriptFunction | Sequence[Scripted | str] | str | Path"
"""What `EmbeddedEngine(script=...)` takes; a string or path names a file."""


def script_function(script: Script) -> ScriptFunction:
    """The callable of a script in any of its forms. Raises `ConfigurationError` for a file that cannot be used."""
    if callable(script):
        return script
    if isinstance(script, str | Path):
        # Only files need pydantic, which takes longer to import than everything else here.
        from .scriptfile import load_script

        return load_script(Path(script))
    return in_order(script)


def in_order(replies: Sequence[Scripted | str]) -> ScriptFunction:
    """Give these replies one after the other; a request beyond the last gets HTTP 400, code `script_exhausted`."""
    remaining = iter(replies)

    def next_reply(_: EngineRequest) -> Scripted | str:
        return next(remaining, exhausted(len(replies)))

    return next_reply


def exhausted(count: int) -> HttpFailure:
    """The answer to a request beyond the script's end."""
    return HttpFailure(400, f"the script has no reply left: all {count} were given", code="script_exhausted")
