"""Engines for tests that look at what reaches an engine and when it is told to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import anyio

from fairlead.runtime.engines.port import EngineReply, EngineRequest

STREAM_HEADERS = {"content-type": "text/event-stream"}


class _OpenReply:
    status = 200
    headers: Mapping[str, str] = STREAM_HEADERS

    def __init__(self, engine: OpenEngine) -> None:
        self._engine = engine

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
        self._engine.begun.set()
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        self._engine.closed_at.append(anyio.current_time())


class OpenEngine:
    """Begins every answer with one piece of text and then says nothing more until it is told to stop."""

    name = "open"
    models: Sequence[str] = ("open-model",)
    kv_tokens: int | None = None

    def __init__(self) -> None:
        self.requests: list[EngineRequest] = []
        self.begun = anyio.Event()
        self.closed_at: list[float] = []

    async def send(self, request: EngineRequest) -> EngineReply:
        self.requests.append(request)
        return _OpenReply(self)

    async def aclose(self) -> None: ...
