"""`openai` clients whose transport is the call path: code that uses the public API works in a step without a change.

The clients do not retry (the call path does) and have no credentials: keys are known to engines only.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import httpx2
from openai import AsyncOpenAI, OpenAI
from pydantic_core import from_json

from ..budgets.usage import Usage
from ..encoding import Json, encode
from ..errors import DeclarationError, EngineError
from .body import Body, Entry, running_body
from .calls import Answer, Head, ModelCall
from .engines.port import ENDPOINTS
from .replay import Issued

if TYPE_CHECKING:
    from .services import Services

BASE_URL = "http://fairlead.invalid/v1"
"""Never connected to: requests go to the call path."""

STREAM_BUFFER = 64
"""Chunks of a stream that may wait for a slow reader; then the engine is read no further."""


def async_client(services: Services) -> AsyncOpenAI:
    transport = CallPathTransport(services)
    return AsyncOpenAI(
        api_key="fairlead",
        base_url=BASE_URL,
        max_retries=0,
        timeout=None,
        http_client=httpx2.AsyncClient(transport=transport, timeout=None),
    )


def blocking_client(services: Services) -> OpenAI:
    transport = BlockingCallPathTransport(services)
    return OpenAI(
        api_key="fairlead",
        base_url=BASE_URL,
        max_retries=0,
        timeout=None,
        http_client=httpx2.Client(transport=transport, timeout=None),
    )


class CallPathTransport(httpx2.AsyncBaseTransport):
    """Answers HTTP requests of a client with the call path of the step that runs."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = running_body("a model call")
        call = model_call(body, request.method, request.url.path, await request.aread())
        if not call.stream:
            return _response(request, await self._answer(body, call))
        return await self._streamed(request, body, call)

    async def _answer(self, body: Body, call: ModelCall) -> Answer:
        try:
            return await self._services.calls.perform(body, call)
        except EngineError as error:
            return _refusal(error)

    async def _streamed(self, request: httpx2.Request, body: Body, call: ModelCall) -> httpx2.Response:
        stream = _CallStream(self._services, body, call)
        head = await stream.start()
        if isinstance(head, Answer):
            return _response(request, head)
        return httpx2.Response(head.status, headers=_headers(head), stream=stream, request=request)


class _CallStream(httpx2.AsyncByteStream):
    """A streamed answer: the call runs in a task of its step, and closing the stream stops it."""

    def __init__(self, services: Services, body: Body, call: ModelCall) -> None:
        self._services, self._body, self._call = services, body, call
        self._head: Head | Answer | BaseException | None = None
        self._failure: BaseException | None = None

    async def start(self) -> Head | Answer:
        """Status and headers once they are there; a whole answer if it is a refusal. Raises what `perform` raises."""
        issued = self._services.calls.issue(self._body, self._call)
        self._headed, self._scope = anyio.Event(), anyio.CancelScope()
        self._send, self._receive = anyio.create_memory_object_stream[bytes](STREAM_BUFFER)
        self._body.streams.add(self._close)
        self._body.tasks.start_soon(self._run, issued)
        try:
            await self._headed.wait()
        except BaseException:
            self._close()
            raise
        if isinstance(self._head, BaseException):
            self._close()
            raise self._head
        if isinstance(self._head, Answer):
            self._close()
        assert self._head is not None
        return self._head

    async def _run(self, issued: Issued[Entry]) -> None:
        with self._scope, self._send:
            try:
                answer = await self._services.calls.perform(self._body, self._call, self._relay, issued)
                self._head = self._head or answer
            except EngineError as error:
                self._failure = error
                self._head = self._head or _refusal(error)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:
                self._failure = error
                self._head = self._head or error
            finally:
                self._headed.set()

    async def _relay(self, head: Head, chunk: bytes) -> None:
        if self._head is None:
            self._head = head
            self._headed.set()
        await self._send.send(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with self._receive:
            async for chunk in self._receive:
                yield chunk
        if isinstance(self._failure, EngineError):
            # In the words of the API, as an event: an error of the connection would lose its message in the client.
            yield b"event: error\ndata: " + _refusal(self._failure).content + b"\n\n"
            return
        if self._failure is not None:
            raise self._failure

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        """Stop the call, if it goes on still."""
        self._scope.cancel()
        self._receive.close()
        self._body.streams.discard(self._close)


class BlockingCallPathTransport(httpx2.BaseTransport):
    """The same for plain `def` steps, which run in threads."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body = running_body("a model call")
        if threading.get_ident() == self._services.loop_thread:
            raise DeclarationError(
                "the blocking OpenAI client was used in an `async def` step", hint="ask for AsyncOpenAI there"
            )
        call = model_call(body, request.method, request.url.path, request.read())
        transport = CallPathTransport(self._services)
        if not call.stream:
            return _response(request, anyio.from_thread.run(transport._answer, body, call))
        stream = _CallStream(self._services, body, call)
        head = anyio.from_thread.run(stream.start)
        if isinstance(head, Answer):
            return _response(request, head)
        return httpx2.Response(head.status, headers=_headers(head), stream=_BlockingStream(stream), request=request)


class _BlockingStream(httpx2.SyncByteStream):
    def __init__(self, stream: _CallStream) -> None:
        self._stream = stream
        self._chunks = stream.__aiter__()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield anyio.from_thread.run(self._next)
            except StopAsyncIteration:
                return

    async def _next(self) -> bytes:
        return await self._chunks.__anext__()

    def close(self) -> None:
        anyio.from_thread.run(self._stream.aclose)


def model_call(body: Body, method: str, path: str, content: bytes) -> ModelCall:
    """The call that an HTTP request asks for. Raises `DeclarationError` for what is no model call."""
    endpoint = path.removeprefix("/v1/")
    if method != "POST" or endpoint not in ENDPOINTS:
        raise DeclarationError(
            f"the client asked for {method} {path}, which is not a model call",
            hint=f"calls that are recorded and scheduled: {', '.join(ENDPOINTS)}",
        )
    sent: Json = from_json(content)
    assert isinstance(sent, dict)
    call = ModelCall.of(endpoint, sent, before=body.conversation)
    body.conversation = call.conversation or body.conversation
    return call


def _response(request: httpx2.Request, answer: Answer) -> httpx2.Response:
    return httpx2.Response(answer.head.status, headers=_headers(answer.head), content=answer.content, request=request)


def _headers(head: Head) -> dict[str, str]:
    headers = {"content-type": head.content_type or "application/json"}
    if head.request_id:
        headers["x-request-id"] = head.request_id
    return headers


def _refusal(error: EngineError) -> Answer:
    """An engine's silence in the words of the API, because the client's own errors drop the reason."""
    content = encode({"error": {"message": str(error), "type": "engine_error", "param": None, "code": "engine_unavailable"}})
    return Answer(Head(503, "application/json", engine=error.engine), content, Usage())
