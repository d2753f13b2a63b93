"""The HTTP engine against a socket that behaves, misbehaves, or is not there."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from fairlead.encoding import Json
from fairlead.errors import ConfigurationError, EngineError, InputError
from fairlead.runtime.engines.http import HttpEngine, Timeouts, normalised_base_url
from fairlead.runtime.engines.port import Engine, EngineRequest

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(*answers: bytes, hang: bool = False, hasty: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers each connection's request with the next bytes and closes it; gives URL and what was received.

    A hasty one answers the first bytes that come.
    """
    received: list[bytes] = []
    remaining = iter(answers)

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            data = b""
            while not data or not (hasty or (b"\r\n\r\n" in data and data.rstrip().endswith(b"}"))):
                data += await stream.receive()
            received.append(data)
            await stream.send(next(remaining))
            if hang:
                await anyio.sleep(30)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}", received
        tasks.cancel_scope.cancel()


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def post(engine: HttpEngine, body: dict[str, Json] | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    reply = await engine.send(EngineRequest("chat/completions", body or {"model": "m"}, headers))
    try:
        data = b"".join([chunk async for chunk in reply.chunks()])
        return reply.status, dict(reply.headers), data
    finally:
        await reply.aclose()


@asynccontextmanager
async def engine_at(url: str, **options: object) -> AsyncIterator[HttpEngine]:
    engine = HttpEngine("remote", url, **options)  # type: ignore[arg-type]
    try:
        yield engine
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://host/openai", "https://host/openai/v1"),
        ("http://host/v1/chat/completions", "http://host/v1"),
        (" http://[::1]:80 ", "http://[::1]:80/v1"),
    ],
)
def test_a_base_url_may_end_in_v1_or_not(given: str, base: str) -> None:
    assert normalised_base_url(given) == base


async def test_it_is_an_engine_that_serves_what_it_was_told() -> None:
    engine: Engine = HttpEngine("remote", "http://host", models=["large", "small"])
    assert (engine.name, engine.models) == ("remote", ("large", "small"))
    await engine.aclose()


@pytest.mark.parametrize("url", ["host:8000", "ftp://host", "http://", "http://host/v1?x=1", ""])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="engine URL"):
        HttpEngine("remote", url)


async def test_the_body_is_sent_in_order_and_the_engines_key_replaces_the_callers() -> None:
    async with server(answer(b"{}")) as (url, received), engine_at(url, api_key="ours") as engine:
        headers = {"Authorization": "Bearer theirs", "X-Stainless-Lang": "python", "Connection": "close", "X-Program": "p1"}
        await post(engine, {"model": "m", "b": 1, "a": 2}, **headers)
    head, body = received[0].split(b"\r\n\r\n")
    assert body == b'{"model":"m","b":1,"a":2}'
    assert head.startswith(b"POST /v1/chat/completions ")
    lines = [line.lower() for line in head.decode().split("\r\n")]
    assert "authorization: bearer ours" in lines and "x-program: p1" in lines
    assert not any("theirs" in line or line.startswith("x-stainless") or line == "connection: close" for line in lines)


async def test_a_compressed_answer_is_relayed_as_plain_bytes() -> None:
    packed = gzip.compress(b'{"ok": true}')
    async with (
        server(answer(packed, "content-encoding: gzip", "x-request-id: 7", "connection: close")) as (url, _),
        engine_at(url) as engine,
    ):
        status, headers, data = await post(engine)
    assert (status, data, headers) == (200, b'{"ok": true}', {"x-request-id": "7"})


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b""])
async def test_what_is_not_json_is_passed_on_as_it_is(body: bytes) -> None:
    async with server(answer(body, status="502 Bad Gateway")) as (url, _), engine_at(url) as engine:
        assert (await post(engine))[::2] == (502, body)


async def test_an_engine_that_is_not_there_is_a_retryable_error_with_a_hint() -> None:
    async with engine_at("http://127.0.0.1:9") as engine:
        with pytest.raises(EngineError, match=r"cannot connect to http://127.0.0.1:9/v1") as caught:
            await post(engine)
    assert caught.value.retryable and caught.value.engine == "remote" and "is the engine running" in str(caught.value)


async def test_a_broken_answer_is_a_retryable_error() -> None:
    async with server(answer(b"{", length=100)) as (url, _), engine_at(url) as engine:
        with pytest.raises(EngineError, match="broke") as caught:
            await post(engine)
    assert caught.value.retryable


async def test_no_answer_at_all_is_a_retryable_error() -> None:
    async with server(b"") as (url, _), engine_at(url) as engine:
        with pytest.raises(EngineError, match="broke") as caught:
            await post(engine)
    assert caught.value.retryable


async def test_silence_longer_than_the_idle_limit_is_an_error() -> None:
    async with (
        server(answer(b"{", length=100), hang=True) as (url, _),
        engine_at(url, timeouts=Timeouts(idle_s=0.03)) as engine,
    ):
        with pytest.raises(EngineError, match=r"nothing came .* for 0.03 s"):
            await post(engine)


async def test_a_plain_server_behind_https_is_an_error_that_is_not_retried() -> None:
    context = ssl.create_default_context()
    async with server(b"HTTP/1.1 400 Bad Request\r\n\r\n", hasty=True) as (url, _):
        engine = HttpEngine("remote", url.replace("http:", "https:"), verify=context)
        with pytest.raises(EngineError, match="TLS") as caught:
            await post(engine)
        await engine.aclose()
    assert not caught.value.retryable


async def test_bytes_that_do_not_decompress_are_an_error() -> None:
    async with server(answer(b"not gzip", "content-encoding: gzip")) as (url, _), engine_at(url) as engine:
        with pytest.raises(EngineError, match="decompressed"):
            await post(engine)


async def test_a_body_that_is_not_json_is_never_sent() -> None:
    async with engine_at("http://127.0.0.1:9") as engine:
        with pytest.raises(InputError, match="not JSON"):
            await post(engine, {"model": "m", "temperature": float("nan")})


async def test_leaving_closes_the_connection() -> None:
    closed = anyio.Event()

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
            try:
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                closed.set()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        async with engine_at(f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}") as engine:
            reply = await engine.send(EngineRequest("chat/completions", {"stream": True}))
            async for chunk in reply.chunks():
                assert chunk == b"data: 1\n\n"
                break
            await reply.aclose()
            with anyio.fail_after(5):
                await closed.wait()
        tasks.cancel_scope.cancel()


async def test_text_that_has_no_utf8_is_sent_all_the_same() -> None:
    async with server(answer(b"{}")) as (url, received), engine_at(url) as engine:
        await post(engine, {"text": "na\u00efve \ud800"})
    assert json.loads(received[0].split(b"\r\n\r\n")[1]) == {"text": "na\u00efve \ud800"}
