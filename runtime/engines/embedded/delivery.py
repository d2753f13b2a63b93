"""The replies that the embedded engine hands out: a finished body, or a stream that is still being written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

from ....errors import EngineError

JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}
STREAM_HEADERS: Mapping[str, str] = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class BodyReply:
    """A body that is there. `broken` cuts it in the middle, as a lost connection would."""

    __slots__ = ("_body", "_broken", "_engine", "headers", "status")

    def __init__(
        self, status: int, body: bytes, headers: Mapping[str, str] = JSON_HEADERS, *, engine: str = "", broken: bool = False
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._engine = engine
        self._broken = broken

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._broken:
            yield self._body[: len(self._body) // 2]
            raise connection_lost(self._engine)
        if self._body:
            yield self._body

    async def aclose(self) -> None:
        return None


class StreamReply:
    """A stream of server-sent events. `close` is called once, however the stream ends."""

    __slots__ = ("_close", "_closed", "_source", "headers", "status")

    def __init__(self, source: AsyncGenerator[bytes, None], close: Callable[[], None] | None = None) -> None:
        self.status = 200
        self.headers = STREAM_HEADERS
        self._source = source
        self._close = close
        self._closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._source:
                if self._closed:
                    return
                if chunk:
                    yield chunk
        finally:
            await self.aclose()
            await self._source.aclose()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._close is not None:
            self._close()


def connection_lost(engine: str) -> EngineError:
    return EngineError(
        "the connection broke before the answer was complete",
        engine=engine,
        retryable=True,
        hint="the script of the embedded engine says so; a real engine that does this crashed, or a proxy cut it off",
    )
