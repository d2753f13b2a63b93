"""Script files: the replies of `script`, written down.

The file is JSON, `{"replies": [...], "otherwise": "error" | "compose"}`, or JSON lines with one reply each. A reply has the
fields of `FileReply`. One with `when` answers every request it matches (`times` at most); the others are given in order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ....encoding import Json
from ....errors import ConfigurationError
from ..port import EngineRequest
from .script import ConnectionFailure, HttpFailure, RawReply, Reply, Scripted, ScriptFunction, ToolCall, Usage, exhausted
from .tokens import content_text


class When(BaseModel):
    """Conditions on a request, all of which must hold. Only the last message is looked at."""

    model_config = ConfigDict(extra="forbid")

    contains: str | None = None
    role: str | None = None
    endpoint: str | None = None
    model: str | None = None
    messages: int | None = None
    """The number of messages (items, in Responses)."""

    def matches(self, request: EngineRequest) -> bool:
        if self.endpoint not in (None, request.endpoint) or self.model not in (None, request.model):
            return False
        turns = _turns(request)
        if self.messages not in (None, len(turns)):
            return False
        last = turns[-1] if turns else None
        role = last.get("role", last.get("type")) if isinstance(last, dict) else "user"
        return self.role in (None, role) and (self.contains is None or self.contains in _turn_text(last))


class FileToolCall(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    arguments: str | dict[str, object] = Field(default_factory=dict)
    id: str | None = None


class FileUsage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    cached_tokens: int = Field(default=0, ge=0)


class FileReply(BaseModel):
    """One reply of a script file. `status` makes it an error, `body` raw bytes, `connection` a failure to connect."""

    model_config = ConfigDict(extra="forbid")

    when: When | None = None
    times: int | None = Field(default=None, ge=1)
    text: str = ""
    tool_calls: list[FileToolCall] = Field(default_factory=list)
    delay_s: float = Field(default=0.0, ge=0)
    token_delay_s: float = Field(default=0.0, ge=0)
    finish_reason: str | None = None
    usage: FileUsage | None = None
    cut_after: int | None = Field(default=None, ge=0)
    endless: bool = False
    modelled: bool = False
    status: int | None = Field(default=None, ge=200, le=599)
    headers: dict[str, str] = Field(default_factory=dict)
    message: str = "scripted failure"
    code: str | None = None
    body: str | None = None
    connection: Literal["refused", "reset"] | None = None

    def scripted(self) -> Scripted:
        if self.connection is not None:
            return ConnectionFailure(self.connection, self.delay_s)
        if self.body is not None:
            headers = self.headers or {"content-type": "application/json"}
            return RawReply(self.body.encode(), self.status or 200, headers, self.delay_s)
        if self.status is not None and self.status >= 400:
            return HttpFailure(self.status, self.message, self.headers, self.code, delay_s=self.delay_s)
        calls = [ToolCall(call.name, _arguments_text(call.arguments), call.id) for call in self.tool_calls]
        usage = Usage(**self.usage.model_dump()) if self.usage is not None else None
        return Reply(
            self.text,
            calls,
            self.delay_s,
            self.token_delay_s,
            self.finish_reason,
            usage,
            self.cut_after,
            self.endless,
            self.modelled,
        )


class ScriptFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    replies: list[FileReply]
    otherwise: Literal["error", "compose"] = "error"


def load_script(path: Path) -> ScriptFunction:
    """Read a script file. Raises `ConfigurationError` naming the file and the place."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the script {path} cannot be read: {error.strerror}", hint="check the path") from error
    try:
        if path.suffix == ".jsonl":
            lines = [line for line in text.splitlines() if line.strip()]
            content = ScriptFile(replies=[FileReply.model_validate_json(line) for line in lines])
        else:
            data = json.loads(text)
            content = ScriptFile.model_validate({"replies": data} if isinstance(data, list) else data)
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(f"the script {path} is not valid: {error}") from error
    return _from_file(content)


def _from_file(content: ScriptFile) -> ScriptFunction:
    matched = [(reply.when, reply.scripted(), reply.times) for reply in content.replies if reply.when is not None]
    ordered = [reply.scripted() for reply in content.replies if reply.when is None for _ in range(reply.times or 1)]
    given = [0] * len(matched)
    remaining = iter(ordered)

    def reply_to(request: EngineRequest) -> Scripted | None:
        for index, (when, reply, times) in enumerate(matched):
            if (times is None or given[index] < times) and when.matches(request):
                given[index] += 1
                return reply
        return next(remaining, None if content.otherwise == "compose" else exhausted(len(ordered)))

    return reply_to


def _arguments_text(arguments: str | dict[str, object]) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _turns(request: EngineRequest) -> Sequence[Json]:
    for name in ("messages", "input", "prompt"):
        value = request.body.get(name)
        if value is not None:
            return value if isinstance(value, list) else [value]
    return []


def _turn_text(turn: Json) -> str:
    if isinstance(turn, str):
        return turn
    return content_text(turn.get("content", turn.get("output"))) if isinstance(turn, dict) else ""
