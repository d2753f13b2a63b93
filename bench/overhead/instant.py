"""The instant model: asks for the tool `add` once per turn, until its last turn, which answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence

from openai.types.chat import ChatCompletionToolParam

MODEL = "instant"
QUESTION = "Add."

ADD: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


class InstantModel:
    """Answers chat completions of a run of `turns` turns. A turn is known by the messages before it: two for each."""

    def __init__(self, turns: int) -> None:
        self._turns = turns

    def reply(self, messages: Sequence[object]) -> bytes:
        """The JSON of a chat completion."""
        turn = len(messages) // 2
        message: dict[str, object] = {"role": "assistant", "content": "done"}
        if turn < self._turns - 1:
            arguments = json.dumps({"a": turn, "b": 1})
            call = {"id": f"call_{turn}", "type": "function", "function": {"name": "add", "arguments": arguments}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        finish = "tool_calls" if "tool_calls" in message else "stop"
        completion = {
            "id": f"chatcmpl-{turn}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": 10 + 20 * turn, "completion_tokens": 10, "total_tokens": 20 + 20 * turn},
        }
        return json.dumps(completion).encode()


class InstantReply:
    """A complete answer, in one piece (see the port to engines)."""

    status = 200
    headers: Mapping[str, str] = {"content-type": "application/json"}

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._content

    async def aclose(self) -> None:
        """Nothing is held."""
