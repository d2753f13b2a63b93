"""Reading request bodies: OpenAI's chat, completions, Responses and embeddings bodies become one plain form.

What does not fit is a `BadRequestError` that names the field, as OpenAI's servers do it. Unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypedDict

from ....encoding import Json

Schema: TypeAlias = "dict[str, Json]"


class BadRequestError(Exception):
    """A request this engine refuses, in the terms of OpenAI's error object."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class OfferedTool:
    name: str
    description: str
    parameters: Schema


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for, whichever endpoint it came by."""

    endpoint: str
    model: str
    messages: Sequence[Json]
    """The conversation in chat form; empty for a plain completion."""
    prompt: str | Sequence[int] | None = None
    """The prompt of a plain completion: text or token ids."""
    tools: tuple[OfferedTool, ...] = ()
    tools_json: tuple[Json, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or `=NAME` for a named function."""
    parallel_tool_calls: bool = True
    schema: Schema | None = None
    """The answer must be JSON of this schema; `{}` means any JSON object."""
    max_tokens: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    seed: int = 0
    priority: int = 0
    salt: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)
    """Fields that a Responses answer repeats."""


def read_chat(body: Mapping[str, Json]) -> Ask:
    """A `/v1/chat/completions` body."""
    messages = _list(body, "messages")
    if not messages:
        raise BadRequestError("'messages' must have at least one message", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequestError(f"'messages[{index}]' must be an object with a 'role'", param=f"messages[{index}]")
        if not isinstance(message.get("content"), str | list | None):
            raise BadRequestError(
                f"'messages[{index}].content' must be a string, a list of parts or null", param=f"messages[{index}].content"
            )
    tools, tools_json = _tools(body, nested=True)
    cap = _integer(body, "max_completion_tokens", low=1)
    return Ask(
        endpoint="chat/completions",
        model=_model(body),
        messages=messages,
        tools=tools,
        tools_json=tools_json,
        tool_choice=_tool_choice(body, tools),
        parallel_tool_calls=_boolean(body, "parallel_tool_calls", True),
        schema=_response_format(body.get("response_format"), "response_format"),
        max_tokens=cap if cap is not None else _integer(body, "max_tokens", low=1),
        n=_choices(body),
        **_common(body),
    )


def read_completions(body: Mapping[str, Json]) -> list[Ask]:
    """A `/v1/completions` body: one entry for each of its prompts."""
    common = _common(body)
    cap = _integer(body, "max_tokens", low=1)
    return [
        Ask(
            endpoint="completions",
            model=_model(body),
            messages=(),
            prompt=prompt,
            max_tokens=16 if cap is None else cap,
            n=_choices(body),
            **common,
        )
        for prompt in _prompts(body.get("prompt"), "prompt")
    ]


def read_responses(body: Mapping[str, Json], earlier: Sequence[Json] = ()) -> Ask:
    """A `/v1/responses` body; `earlier` is the conversation of its `previous_response_id`."""
    messages: list[Json] = []
    instructions = body.get("instructions")
    if isinstance(instructions, str) and instructions:
        messages.append({"role": "system", "content": instructions})
    messages.extend(earlier)
    messages.extend(_input_messages(body.get("input")))
    tools, tools_json = _tools(body, nested=False)
    text = body.get("text")
    chosen = _response_format(text.get("format"), "text.format") if isinstance(text, dict) else None
    return Ask(
        endpoint="responses",
        model=_model(body),
        messages=messages,
        tools=tools,
        tools_json=tools_json,
        tool_choice=_tool_choice(body, tools),
        parallel_tool_calls=_boolean(body, "parallel_tool_calls", True),
        schema=chosen,
        max_tokens=_integer(body, "max_output_tokens", low=1),
        extra=body,
        **_common(body),
    )


@dataclass(frozen=True, slots=True)
class EmbeddingAsk:
    model: str
    inputs: tuple[str | Sequence[int], ...]
    dimensions: int
    base64: bool


def read_embeddings(body: Mapping[str, Json], default_dimensions: int) -> EmbeddingAsk:
    """A `/v1/embeddings` body."""
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise BadRequestError(f"'encoding_format' must be 'float' or 'base64', not {encoding!r}", param="encoding_format")
    dimensions = _integer(body, "dimensions", low=1, high=8192)
    inputs = tuple(_prompts(body.get("input"), "input"))
    return EmbeddingAsk(_model(body), inputs, dimensions or default_dimensions, encoding == "base64")


def chat_tools(tools: Sequence[OfferedTool]) -> list[Json]:
    """Tools in chat form, whatever form they came in: what the template renders."""
    return [
        {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}
        for tool in tools
    ]


def _model(body: Mapping[str, Json]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequestError("you must provide a model: 'model' must be a non-empty string", param="model")
    return model


def _list(body: Mapping[str, Json], name: str) -> list[Json]:
    value = body.get(name)
    if not isinstance(value, list):
        raise BadRequestError(f"'{name}' must be a list", param=name)
    return value


def _integer(body: Mapping[str, Json], name: str, *, low: int, high: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise BadRequestError(f"'{name}' must be an integer {bounds}, not {value!r}", param=name, code="invalid_value")
    return value


def _boolean(body: Mapping[str, Json], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequestError(f"'{name}' must be true or false, not {value!r}", param=name)
    return value


class _Common(TypedDict):
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    seed: int
    priority: int
    salt: str


def _common(body: Mapping[str, Json]) -> _Common:
    options = body.get("stream_options")
    salt = body.get("cache_salt")
    if salt is not None and (not isinstance(salt, str) or not salt):
        raise BadRequestError("'cache_salt' must be a non-empty string", param="cache_salt")
    return {
        "stop": _stop(body.get("stop")),
        "stream": _boolean(body, "stream", False),
        "include_usage": isinstance(options, dict) and options.get("include_usage") is True,
        "seed": _integer(body, "seed", low=-(2**63), high=2**63 - 1) or 0,
        "priority": _integer(body, "priority", low=-(2**63), high=2**63 - 1) or 0,
        "salt": salt or "",
    }


def _choices(body: Mapping[str, Json]) -> int:
    return _integer(body, "n", low=1, high=128) or 1


def _stop(value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise BadRequestError("'stop' must be a string or a list of strings", param="stop")
    return tuple(item for item in values if isinstance(item, str) and item)


def _tools(body: Mapping[str, Json], *, nested: bool) -> tuple[tuple[OfferedTool, ...], tuple[Json, ...]]:
    given = body.get("tools")
    if given is None:
        return (), ()
    if not isinstance(given, list):
        raise BadRequestError("'tools' must be a list", param="tools")
    return tuple(_tool(item, index, nested) for index, item in enumerate(given)), tuple(given)


def _tool(item: Json, index: int, nested: bool) -> OfferedTool:
    where = f"tools[{index}]"
    if not isinstance(item, dict) or item.get("type") != "function":
        kind = item.get("type") if isinstance(item, dict) else item
        raise BadRequestError(
            f"'{where}.type' must be 'function': this engine runs no tool of type {kind!r}", param=f"{where}.type"
        )
    function = item.get("function") if nested else item
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        where += ".function" if nested else ""
        raise BadRequestError(f"'{where}.name' must be a non-empty string", param=f"{where}.name")
    parameters, description = function.get("parameters"), function.get("description")
    if not isinstance(parameters, dict | None):
        raise BadRequestError(f"'{where}.parameters' must be a JSON schema object", param=f"{where}.parameters")
    return OfferedTool(name, description if isinstance(description, str) else "", parameters or {})


def _tool_choice(body: Mapping[str, Json], tools: Sequence[OfferedTool]) -> str:
    choice = body.get("tool_choice")
    if choice is None:
        return "auto"
    if isinstance(choice, str) and choice in ("auto", "none", "required"):
        if choice == "required" and not tools:
            raise BadRequestError("'tool_choice' is 'required', but no 'tools' are given", param="tool_choice")
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, dict) else None
        if name not in {tool.name for tool in tools}:
            raise BadRequestError(f"'tool_choice' names the function {name!r}, which is not in 'tools'", param="tool_choice")
        return f"={name}"
    raise BadRequestError("'tool_choice' must be 'none', 'auto', 'required' or a named function", param="tool_choice")


def _response_format(value: Json, where: str) -> Schema | None:
    """The schema of a structured answer. Chat nests it under `json_schema`; Responses does not."""
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or kind not in ("text", "json_object", "json_schema"):
        raise BadRequestError(f"'{where}.type' must be 'text', 'json_object' or 'json_schema'", param=f"{where}.type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    outer = value.get("json_schema", value)
    schema = outer.get("schema") if isinstance(outer, dict) else None
    if not isinstance(schema, dict):
        raise BadRequestError(f"'{where}' of type 'json_schema' must have an object 'schema'", param=f"{where}.json_schema")
    return schema


def _prompts(value: Json, name: str) -> list[str | list[int]]:
    """A text, several texts, one list of token ids, or several."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if (ids := _ids(value)) is not None:
            return [ids]
        out: list[str | list[int]] = []
        for item in value:
            ids = _ids(item) if isinstance(item, list) else None
            if isinstance(item, str):
                out.append(item)
            elif ids:
                out.append(ids)
        if len(out) == len(value):
            return out
    raise BadRequestError(f"'{name}' must be a string, a list of strings or a list of token ids", param=name)


def _ids(value: list[Json]) -> list[int] | None:
    ids = [item for item in value if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**32]
    return ids if len(ids) == len(value) else None


def _input_messages(value: Json) -> list[Json]:
    """The input of a Responses request in chat form; an answer's text and calls become one assistant message again."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise BadRequestError("'input' must be a string or a non-empty list of items", param="input")
    messages: list[Json] = []
    for index, item in enumerate(value):
        _add_item(messages, item, f"input[{index}]")
    return messages


def _add_item(messages: list[Json], item: Json, where: str) -> None:
    if not isinstance(item, dict):
        raise BadRequestError(f"'{where}' must be an object", param=where)
    kind = item.get("type", "message")
    if kind == "message":
        if not isinstance(item.get("role"), str):
            raise BadRequestError(f"'{where}.role' must be a string", param=f"{where}.role")
        messages.append({"role": item["role"], "content": item.get("content")})
    elif kind == "function_call":
        call: Json = {
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments")},
        }
        last = messages[-1] if messages else None
        if not isinstance(last, dict) or last.get("role") != "assistant":
            last = {"role": "assistant", "content": None}
            messages.append(last)
        calls = last.setdefault("tool_calls", [])
        if isinstance(calls, list):
            calls.append(call)
    elif kind == "function_call_output":
        output = item.get("output")
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
    elif kind != "reasoning":
        raise BadRequestError(f"'{where}.type' {kind!r} is not known to this engine", param=f"{where}.type")
