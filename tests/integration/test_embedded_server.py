"""The embedded engine over a real socket, asked by the real openai client."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import anyio
import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from fairlead.errors import ConfigurationError
from fairlead.runtime.engines.embedded import ConnectionFailure, EmbeddedEngine, HttpFailure, Reply
from fairlead.runtime.engines.embedded.script import Scripted
from fairlead.runtime.engines.embedded.server import running_server, serve

pytestmark = pytest.mark.anyio

MODEL = "fairlead-embedded"
READ_FILE = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a file",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}


class Verdict(BaseModel):
    summary: str
    approve: bool


@pytest.fixture
async def engine() -> EmbeddedEngine:
    return EmbeddedEngine(requests=True)


@pytest.fixture
async def client(engine: EmbeddedEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with running_server(engine) as url, openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


async def test_a_chat_completion(client: openai.AsyncOpenAI) -> None:
    said = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert "not a language model" in (said.choices[0].message.content or "")
    assert said.usage is not None and said.usage.prompt_tokens_details is not None
    assert said.usage.prompt_tokens_details.cached_tokens == 0


async def test_a_streamed_chat_completion_with_usage(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "not a language model" in text
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 10


async def test_the_clients_stream_helper_assembles_tool_calls(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "Compare a.py and b.py"}],
        tools=[READ_FILE],  # type: ignore[list-item]  # a plain dict
    ) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [{"path": "a.py"}, {"path": "b.py"}]
    assert final.choices[0].finish_reason == "tool_calls"


async def test_parse_gives_a_typed_answer(client: openai.AsyncOpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Judge m.py"}]
    said = await client.chat.completions.parse(model=MODEL, messages=messages, response_format=Verdict)
    assert isinstance(said.choices[0].message.parsed, Verdict)


async def test_responses_with_a_tool_and_its_output(client: openai.AsyncOpenAI) -> None:
    tool = {"type": "function", **READ_FILE["function"], "strict": True}  # type: ignore[dict-item]
    first = await client.responses.create(model=MODEL, input="Read m.py", tools=[tool])  # type: ignore[list-item]
    call = first.output[0]
    assert isinstance(call, ResponseFunctionToolCall) and json.loads(call.arguments) == {"path": "m.py"}
    items = [
        {"role": "user", "content": "Read m.py"},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "# TODO: everything"},
    ]
    second = await client.responses.create(model=MODEL, input=items, tools=[tool])  # type: ignore[arg-type, list-item]
    assert "# TODO: everything" in second.output_text
    assert second.usage is not None and second.usage.input_tokens_details.cached_tokens > 0


async def test_a_streamed_response_is_assembled_by_the_clients_helper(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model=MODEL, input="Judge m.py", text_format=Verdict) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert isinstance(final.output_parsed, Verdict)
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_completions_and_embeddings_in_the_clients_default_encoding(client: openai.AsyncOpenAI) -> None:
    said = await client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=5)
    assert said.usage is not None and said.usage.completion_tokens == 5
    found = await client.embeddings.create(model=MODEL, input=["one", "two"], dimensions=64)
    assert [len(entry.embedding) for entry in found.data] == [64, 64]
    assert sum(value * value for value in found.data[0].embedding) == pytest.approx(1, abs=1e-5)


async def test_errors_become_the_clients_exceptions(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="fairlead-embedded"):
        await client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="messages"):
        await client.chat.completions.create(model=MODEL, messages=[])


async def test_models_tokens_metrics_and_health(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    said = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    base = str(client.base_url).removesuffix("/v1/")
    async with httpx2.AsyncClient(base_url=base) as plain:
        counted = (await plain.post("/tokenize", json={"messages": [{"role": "user", "content": "Hello"}]})).json()
        assert said.usage is not None and counted["count"] == said.usage.prompt_tokens == len(counted["tokens"])
        metrics = (await plain.get("/metrics")).text
        assert f'vllm:prompt_tokens_total{{engine="0",model_name="{MODEL}"}} {counted["count"]}' in metrics
        assert (await plain.get("/health")).status_code == 200
        assert (await plain.get("/nothing")).json()["error"]["code"] == "unknown_url"
        assert (
            (await plain.post("/v1/chat/completions", content=b"{")).json()["error"]["message"].startswith("the request body")
        )
        assert (await plain.post("/v1/chat/completions", content=b"x", headers={"content-encoding": "zstd"})).status_code == 415


async def test_the_request_log_proves_what_was_sent(client: openai.AsyncOpenAI) -> None:
    for text in ("a", "b", "a"):
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
    async with httpx2.AsyncClient() as plain:
        log = (await plain.get(str(client.base_url).removesuffix("/v1/") + "/requests")).json()
    assert log["total"] == 3 and [entry["count"] for entry in log["requests"]] == [2, 1]


async def test_a_client_that_disconnects_aborts_its_request() -> None:
    engine = EmbeddedEngine(profile="70b-tp4-a100", speed=1)
    async with running_server(engine) as url, openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        for stream in (False, True):
            with anyio.move_on_after(0.15):
                said = await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": f"Hello {stream}"}], stream=stream
                )
                if stream:
                    async for _ in said:  # type: ignore[union-attr]
                        pass
        with anyio.fail_after(5):
            while engine.stats().aborted < 2:  # noqa: ASYNC110 - the server is not to know that somebody waits
                await anyio.sleep(0.01)
        assert engine.stats().finished == 0


async def test_a_script_works_over_the_socket_failures_included() -> None:
    script: list[Scripted] = [
        HttpFailure(429, "slow down", {"retry-after": "2"}),
        ConnectionFailure("reset"),
        Reply("one two three four five", cut_after=2),
        Reply("ok"),
    ]
    async with (
        running_server(EmbeddedEngine(script=script)) as url,
        openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client,
    ):
        messages = [{"role": "user", "content": "x"}]
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        assert limited.value.response.headers["retry-after"] == "2"
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)  # type: ignore[arg-type]
        with pytest.raises((httpx2.HTTPError, openai.APIError)):
            async for _ in stream:  # type: ignore[union-attr]
                pass
        said = await client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        assert said.choices[0].message.content == "ok"


async def test_a_key_is_wanted_where_one_is_set() -> None:
    async with running_server(EmbeddedEngine(), api_key="secret") as url:
        async with openai.AsyncOpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
        async with openai.AsyncOpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == [MODEL]


async def test_a_taken_port_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="cannot listen on 127"):
            await serve(EmbeddedEngine(), port=taken.getsockname()[1])


async def test_serving_tells_its_address_and_ends_on_a_signal() -> None:
    code = (
        "import anyio; from fairlead.runtime.engines.embedded import EmbeddedEngine;"
        "from fairlead.runtime.engines.embedded.server import serve;"
        "anyio.run(lambda: serve(EmbeddedEngine(), port=0, on_ready=lambda url: print(url, flush=True)))"
    )
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it is quick, reading it is not
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        url = await anyio.to_thread.run_sync(process.stdout.readline)
        async with httpx2.AsyncClient() as plain:
            assert (await plain.get(url.strip() + "/models")).status_code == 200
        process.send_signal(signal.SIGINT)
        await anyio.to_thread.run_sync(process.wait, 10)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
