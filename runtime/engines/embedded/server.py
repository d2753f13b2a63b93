"""The embedded engine behind HTTP: the routes that vLLM serves, over an `EmbeddedEngine` in the same process.

A client that disconnects aborts its request in the engine. Needs starlette and uvicorn, imported here and nowhere else in
this package.
"""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ....encoding import Json
from ....errors import ConfigurationError, EngineError
from ..port import ENDPOINTS, EngineReply, EngineRequest
from .engine import EmbeddedEngine
from .metrics import prometheus_text
from .requests import BadRequestError
from .wire import error_body

_BODY_BYTES_MAX = 256 * 2**20


def create_app(engine: EmbeddedEngine, *, api_key: str | None = None) -> Starlette:
    """The ASGI application. With `api_key`, everything under `/v1` wants it as a bearer token.

    `GET /requests` exists when the engine keeps a request log.
    """
    views = _Views(engine, api_key)
    routes = [Route(f"/v1/{endpoint}", _Relay(engine, endpoint, api_key), methods=["POST"]) for endpoint in ENDPOINTS]
    routes += [
        Route("/v1/models", views.models),
        Route("/v1/models/{model:path}", views.model),
        Route("/tokenize", views.tokenize, methods=["POST"]),
        Route("/metrics", views.metrics),
        Route("/health", views.health),
        Route("/version", views.version),
    ]
    if engine.requests is not None:
        routes.append(Route("/requests", views.requests))
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})


async def serve(
    engine: EmbeddedEngine,
    *,
    host: str = "127.0.0.1",
    port: int = 8077,
    api_key: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. `port` 0 takes a free one; `on_ready` is told the base URL, `/v1` included.

    Raises `ConfigurationError` when the address cannot be taken.
    """
    with _listening(host, port) as listener:
        server = uvicorn.Server(_config(create_app(engine, api_key=api_key)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_tell_when_ready, server, _url(listener), on_ready)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def running_server(
    engine: EmbeddedEngine, *, host: str = "127.0.0.1", port: int = 0, api_key: str | None = None
) -> AsyncIterator[str]:
    """Serve beside the caller, for as long as the block lasts; gives the base URL, `/v1` included. Signals are left alone."""
    with _listening(host, port) as listener:
        server = _QuietServer(_config(create_app(engine, api_key=api_key)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            try:
                await _tell_when_ready(server, _url(listener), None)
                yield _url(listener)
            finally:
                server.should_exit = True


class _QuietServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2, timeout_keep_alive=75
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another port, or 0 for a free one"
            ) from error
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


async def _tell_when_ready(server: uvicorn.Server, url: str, on_ready: Callable[[str], None] | None) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag for this, not an event
        await anyio.sleep(0.005)
    if on_ready is not None:
        on_ready(url)


class _Relay:
    """One POST endpoint, as an ASGI application: request body to engine, engine's bytes to the client."""

    def __init__(self, engine: EmbeddedEngine, endpoint: str, api_key: str | None) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await _read_json(request)
        except ClientDisconnect:
            return
        except BadRequestError as error:
            await _refusal(error)(scope, receive, send)
            return
        if not _is_allowed(request, self._api_key):
            await _refusal(_wrong_key())(scope, receive, send)
            return
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
            try:
                await self._answer(EngineRequest(self._endpoint, body, headers), send)
            except EngineError:
                _break_connection(receive)
            tasks.cancel_scope.cancel()

    async def _answer(self, request: EngineRequest, send: Send) -> None:
        reply = await self._engine.send(request)
        try:
            await _relay(reply, send)
        finally:
            with anyio.CancelScope(shield=True):
                await reply.aclose()


async def _relay(reply: EngineReply, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    async for chunk in reply.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _break_connection(receive: Receive) -> None:
    """Drop the connection without an answer, as a crashed server would. ASGI has no word for it; uvicorn's transport has."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("the scripted connection failure needs uvicorn's own receive channel")
    transport.abort()


async def _read_json(request: Request) -> dict[str, Json]:
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise BadRequestError(f"request bodies with content-encoding {coding!r} are not understood", status=415)
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _BODY_BYTES_MAX:
            raise BadRequestError(f"the request body is larger than {_BODY_BYTES_MAX} bytes", status=413)
        parts.append(chunk)
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the request body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError("the request body must be a JSON object")
    return body


def _is_allowed(request: Request, api_key: str | None) -> bool:
    given = request.headers.get("authorization", "")
    return api_key is None or hmac.compare_digest(given.encode(), f"Bearer {api_key}".encode())


def _wrong_key() -> BadRequestError:
    return BadRequestError("incorrect API key provided", code="invalid_api_key", status=401)


def _refusal(error: BadRequestError) -> Response:
    body = error_body(error.message, status=error.status, param=error.param, code=error.code)
    return Response(body, error.status, media_type="application/json")


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = f"{request.method} {request.url.path} is not served here"
    return _refusal(BadRequestError(what, code="unknown_url", status=status))


class _Views:
    """The endpoints that are not calls."""

    def __init__(self, engine: EmbeddedEngine, api_key: str | None) -> None:
        self._engine = engine
        self._api_key = api_key

    async def models(self, request: Request) -> Response:
        if not _is_allowed(request, self._api_key):
            return _refusal(_wrong_key())
        return JSONResponse({"object": "list", "data": [self._card(model) for model in self._engine.models]})

    async def model(self, request: Request) -> Response:
        if not _is_allowed(request, self._api_key):
            return _refusal(_wrong_key())
        model = request.path_params["model"]
        if model not in self._engine.models:
            return _refusal(
                BadRequestError(f"the model {model!r} does not exist", code="model_not_found", param="model", status=404)
            )
        return JSONResponse(self._card(model))

    async def tokenize(self, request: Request) -> Response:
        try:
            return JSONResponse(self._engine.tokenise(await _read_json(request)))
        except BadRequestError as error:
            return _refusal(error)

    async def metrics(self, request: Request) -> Response:
        text = prometheus_text(self._engine.stats(), self._engine.models[0])
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def health(self, request: Request) -> Response:
        return Response(status_code=200)

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": "fairlead-embedded"})

    async def requests(self, request: Request) -> Response:
        log = self._engine.requests
        return JSONResponse(log.as_json() if log is not None else None)

    def _card(self, model: str) -> dict[str, Json]:
        return {
            "id": model,
            "object": "model",
            "created": 0,
            "owned_by": "fairlead",
            "root": model,
            "max_model_len": self._engine.core.max_model_len,
        }
