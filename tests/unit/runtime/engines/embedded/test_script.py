"""Scripts: each thing a real engine can do wrong, on demand; and their price."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from fairlead.encoding import Json
from fairlead.errors import ConfigurationError, EngineError
from fairlead.runtime.engines.embedded import ConnectionFailure, EmbeddedEngine, HttpFailure, RawReply, Reply, ToolCall, Usage
from fairlead.runtime.engines.port import EngineReply, EngineRequest
from tests.unit.runtime.engines.embedded.virtual import run_virtually

pytestmark = pytest.mark.anyio


def request(text: str = "Hello", **body: Json) -> EngineRequest:
    return EngineRequest("chat/completions", {"model": "any", "messages": [{"role": "user", "content": text}], **body})


async def read(reply: EngineReply) -> bytes:
    return b"".join([chunk async for chunk in reply.chunks()])


async def message(engine: EmbeddedEngine, text: str = "Hello") -> dict[str, object]:
    parsed = json.loads(await read(await engine.send(request(text))))
    found = parsed["choices"][0]["message"]
    assert isinstance(found, dict)
    return found


async def test_replies_are_given_in_order_and_then_it_is_an_error() -> None:
    engine = EmbeddedEngine(script=["one", Reply(tool_calls=[ToolCall("look", {"x": 1})])])
    assert (await message(engine))["content"] == "one"
    calls = (await message(engine))["tool_calls"]
    assert calls == [{"id": "call_1_0", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}]
    reply = await engine.send(request())
    assert reply.status == 400 and b"script_exhausted" in await read(reply)


async def test_a_callable_sees_the_request_and_may_be_asynchronous() -> None:
    async def script(asked: EngineRequest) -> Reply | None:
        await anyio.lowlevel.checkpoint()
        return Reply(f"model {asked.model}") if asked.model == "any" else None

    assert (await message(EmbeddedEngine(script=script)))["content"] == "model any"
    leaves_it = await EmbeddedEngine(script=script).send(
        EngineRequest("chat/completions", {**request().body, "model": "fairlead-embedded"})
    )
    assert leaves_it.status == 200 and b"embedded engine" in await read(leaves_it)


async def test_usage_and_finish_reason_are_as_dictated() -> None:
    reply = Reply("x", finish_reason="content_filter", usage=Usage(100, 7, 64))
    body = json.loads(await read(await EmbeddedEngine(script=[reply]).send(request())))
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 64} and body["usage"]["total_tokens"] == 107


async def test_an_http_failure_has_its_headers_and_openais_shape() -> None:
    reply = await EmbeddedEngine(script=[HttpFailure(429, "slow down", {"Retry-After": "2"})]).send(request())
    assert (reply.status, reply.headers["retry-after"]) == (429, "2")
    assert json.loads(await read(reply))["error"]["type"] == "rate_limit_error"


async def test_raw_bytes_are_given_as_they_are() -> None:
    reply = await EmbeddedEngine(script=[RawReply(b'{"choices": [', headers={"content-type": "text/html"})]).send(request())
    assert (reply.status, reply.headers["content-type"], await read(reply)) == (200, "text/html", b'{"choices": [')


@pytest.mark.parametrize("kind", ["refused", "reset"])
async def test_a_failed_connection_is_a_retryable_engine_error(kind: str) -> None:
    with pytest.raises(EngineError, match=kind) as caught:
        await EmbeddedEngine(script=lambda _: ConnectionFailure("refused" if kind == "refused" else "reset")).send(request())
    assert caught.value.retryable and caught.value.status is None


async def test_a_stream_is_cut_after_so_many_chunks() -> None:
    engine = EmbeddedEngine(script=[Reply("one two three four", cut_after=3)])
    reply = await engine.send(request(stream=True))
    got: list[bytes] = []

    async def collect() -> None:
        async for chunk in reply.chunks():
            got.append(chunk)  # noqa: PERF401 - what came before the error matters

    with pytest.raises(EngineError, match="broke") as caught:
        await collect()
    assert len(got) == 3 and caught.value.retryable


async def test_a_body_is_cut_in_the_middle() -> None:
    reply = await EmbeddedEngine(script=[Reply("one", cut_after=0)]).send(request())
    with pytest.raises(EngineError, match="broke"):
        await read(reply)


def test_delays_are_kept() -> None:
    async def main() -> tuple[float, float]:
        engine = EmbeddedEngine(script=lambda _: Reply("abcdefgh 12", delay_s=2, token_delay_s=0.5))
        reply = await engine.send(request(stream=True))
        started = anyio.current_time()
        await read(reply)
        return started, anyio.current_time()

    assert run_virtually(main) == (2.0, 4.0)  # four tokens: two words, a number, the end


def test_an_endless_stream_goes_on_until_one_leaves() -> None:
    async def main() -> int:
        engine = EmbeddedEngine(script=[Reply("again", token_delay_s=1, endless=True)])
        reply = await engine.send(request(stream=True))
        count = 0
        with anyio.move_on_after(1000):
            async for _ in reply.chunks():
                count += 1
        await reply.aclose()
        return count

    assert run_virtually(main) > 900


async def test_modelled_replies_have_dictated_words_and_modelled_usage() -> None:
    engine = EmbeddedEngine(model="any", script=lambda _: Reply("word " * 40, modelled=True))
    for cached in (0, 16):
        body = json.loads(await read(await engine.send(request("a " * 20))))
        assert body["choices"][0]["message"]["content"] == "word " * 40
        assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == cached


async def test_a_file_matches_requests_or_gives_replies_in_order(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    replies = [
        {"when": {"contains": "weather"}, "text": "sunny", "times": 1},
        {"text": "first"},
        {"status": 503, "message": "later", "headers": {"retry-after": "1"}},
        {"tool_calls": [{"name": "look", "arguments": {"at": "it"}}]},
    ]
    file.write_text(json.dumps({"replies": replies}))
    engine = EmbeddedEngine(script=str(file))
    assert (await message(engine, "the weather?"))["content"] == "sunny"
    assert (await message(engine, "the weather?"))["content"] == "first"
    assert (await engine.send(request())).status == 503
    assert (await message(engine))["tool_calls"]


async def test_json_lines_are_a_script_too(tmp_path: Path) -> None:
    file = tmp_path / "script.jsonl"
    file.write_text('{"text": "one"}\n\n{"connection": "reset"}\n')
    engine = EmbeddedEngine(script=file)
    assert (await message(engine))["content"] == "one"
    with pytest.raises(EngineError, match="reset"):
        await engine.send(request())


@pytest.mark.parametrize("text", ["{", '{"replies": [{"texd": "typo"}]}', '{"replies": [{"delay_s": -1}]}'])
def test_a_bad_script_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"bad\.json"):
        EmbeddedEngine(script=file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        EmbeddedEngine(script=tmp_path / "none.json")


async def test_a_scripted_reply_does_not_look_at_the_conversation() -> None:
    class Untouchable(dict[str, Json]):
        def __getitem__(self, key: str) -> Json:
            raise AssertionError("a scripted reply read a message")

        get = items = values = __iter__ = __getitem__  # type: ignore[assignment]

    asked = EngineRequest("chat/completions", {"model": "m", "messages": [Untouchable() for _ in range(3)]})
    assert b"ok" in await read(await EmbeddedEngine(script=lambda _: Reply("ok")).send(asked))
