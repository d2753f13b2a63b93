"""The engine of the crash proof: a process of its own, scripted, which logs the digest of every request before it answers.

Run as `python -m tests.support.crash_engine LOG`; its first line of output is its URL.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from fairlead.runtime.calls import ModelCall
from fairlead.runtime.engines.embedded.engine import EmbeddedEngine
from fairlead.runtime.engines.embedded.script import Reply, ToolCall
from fairlead.runtime.engines.embedded.server import serve
from fairlead.runtime.engines.port import EngineRequest

WORDS = "Some words, in several tokens, said again and again."


def logged(log: Path) -> Callable[[EngineRequest], Reply]:
    """A script that writes the digest of each request into `log`, as the journal has it."""

    def reply(request: EngineRequest) -> Reply:
        digest = ModelCall.of(request.endpoint, request.body).digest
        with log.open("a") as file:
            file.write(f"{digest}\n")
        return _reply(request, 0.002 + int(digest[:2], 16) / 256 * 0.015)

    return reply


def _reply(request: EngineRequest, delay_s: float) -> Reply:
    messages = request.body["messages"]
    assert isinstance(messages, list)
    if "tools" not in request.body:
        return Reply(WORDS, delay_s=delay_s, token_delay_s=0.001 if request.stream else 0)
    turns = sum(isinstance(message, dict) and message["role"] == "assistant" for message in messages)
    match turns:
        case 0:
            calls = [ToolCall("look_up", {"n": 1}), ToolCall("dig", {"n": 2}), ToolCall("measure", {"text": WORDS})]
            return Reply("", calls, delay_s=delay_s)
        case 1:
            return Reply("", [ToolCall("look_up", {"n": 1}), ToolCall("look_up", {"n": 4})], delay_s=delay_s)
        case _:
            return Reply("It is fine.", delay_s=delay_s)


async def main(log: Path) -> None:
    def tell(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    await serve(EmbeddedEngine(script=logged(log)), port=0, on_ready=tell)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
