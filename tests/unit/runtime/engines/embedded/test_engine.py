"""The embedded engine in process: answers, streams, time, cancellation, errors. Time is virtual where it matters."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.encoding import Json
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply
from fairlead.runtime.engines.port import EngineRequest
from tests.unit.runtime.engines.embedded.virtual import run_virtually

pytestmark = pytest.mark.anyio

HELLO: dict[str, Json] = {"messages": [{"role": "user", "content": "Hello"}]}


def hello(index: int) -> dict[str, Json]:
    return {"messages": [{"role": "user", "content": f"Hello {index}"}]}


def request(body: dict[str, Json], endpoint: str = "chat/completions") -> EngineRequest:
    return EngineRequest(endpoint, {"model": "fairlead-embedded", **body})


async def post(engine: EmbeddedEngine, body: dict[str, Json], endpoint: str = "chat/completions") -> tuple[int, bytes]:
    reply = await engine.send(request(body, endpoint))
    data = b"".join([chunk async for chunk in reply.chunks()])
    await reply.aclose()
    return reply.status, data


async def answer(engine: EmbeddedEngine, body: dict[str, Json], endpoint: str = "chat/completions") -> dict[str, object]:
    status, data = await post(engine, body, endpoint)
    assert status == 200, data
    parsed = json.loads(data)
    assert isinstance(parsed, dict)
    return parsed


def events(data: bytes) -> list[dict[str, object]]:
    lines = [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_importing_the_engine_imports_no_server_and_no_client() -> None:
    unwanted = ("openai", "starlette", "uvicorn")
    code = f"import sys, fairlead.runtime.engines.embedded; print([m for m in {unwanted} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


async def test_a_stream_says_what_the_whole_answer_says() -> None:
    engine = EmbeddedEngine()
    whole = await answer(engine, HELLO)
    _, data = await post(engine, {**HELLO, "stream": True, "stream_options": {"include_usage": True}})
    chunks = events(data)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])  # type: ignore[index]
    assert text == whole["choices"][0]["message"]["content"]  # type: ignore[index]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]  # type: ignore[index]
    assert data.endswith(b"data: [DONE]\n\n")


async def test_usage_comes_in_a_stream_only_when_asked_for() -> None:
    _, data = await post(EmbeddedEngine(), {**HELLO, "stream": True})
    assert all("usage" not in chunk and chunk["choices"] for chunk in events(data))


async def test_the_next_turn_reports_its_cached_prefix() -> None:
    engine = EmbeddedEngine()
    first = await answer(engine, HELLO)
    message = first["choices"][0]["message"]  # type: ignore[index]
    turns: Json = [*HELLO["messages"], message, {"role": "user", "content": "More"}]  # type: ignore[misc]
    usage = (await answer(engine, {"messages": turns}))["usage"]
    known = first["usage"]["total_tokens"]  # type: ignore[index]
    assert usage["prompt_tokens_details"]["cached_tokens"] == (known - 1) // 16 * 16  # type: ignore[index]


async def test_a_salt_separates_caches() -> None:
    engine = EmbeddedEngine()
    long: dict[str, Json] = {"messages": [{"role": "user", "content": "word " * 100}]}
    cached = [
        (await answer(engine, {**long, "cache_salt": salt}))["usage"]["prompt_tokens_details"]["cached_tokens"]  # type: ignore[index]
        for salt in ("a", "b", "a")
    ]
    assert cached[:2] == [0, 0] and cached[2] > 0


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_an_output_cap_is_obeyed(field: str) -> None:
    said = await answer(EmbeddedEngine(), {**HELLO, field: 5})
    assert said["usage"]["completion_tokens"] == 5  # type: ignore[index]
    assert said["choices"][0]["finish_reason"] == "length"  # type: ignore[index]


async def test_a_stop_sequence_ends_the_text_before_it() -> None:
    said = await answer(EmbeddedEngine(), {**HELLO, "stop": ["deterministic"]})
    choice = said["choices"][0]  # type: ignore[index]
    assert choice["message"]["content"] == "This is Fairlead's embedded engine: " and choice["finish_reason"] == "stop"


async def test_n_choices_are_numbered_and_their_prompt_is_counted_once() -> None:
    engine = EmbeddedEngine()
    one, three = await answer(engine, HELLO), await answer(engine, {**HELLO, "n": 3})
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]  # type: ignore[attr-defined]
    assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]  # type: ignore[index]
    assert three["usage"]["completion_tokens"] > 2 * one["usage"]["completion_tokens"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("endpoint", "body", "status", "param"),
    [
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"content": "x"}]}, 400, "messages[0]"),
        ("chat/completions", {**HELLO, "max_tokens": 0}, 400, "max_tokens"),
        ("chat/completions", {**HELLO, "max_tokens": True}, 400, "max_tokens"),
        ("chat/completions", {**HELLO, "stream": "yes"}, 400, "stream"),
        ("chat/completions", {**HELLO, "tools": [{"type": "function"}]}, 400, "tools[0].function.name"),
        ("chat/completions", {**HELLO, "tool_choice": "required"}, 400, "tool_choice"),
        ("chat/completions", {**HELLO, "response_format": {"type": "xml"}}, 400, "response_format.type"),
        ("chat/completions", {**HELLO, "model": "other"}, 404, "model"),
        ("chat/completions", {**HELLO, "model": None}, 400, "model"),
        ("chat/completions", {**HELLO, "max_tokens": 10**6}, 400, "messages"),
        ("completions", {"prompt": [None]}, 400, "prompt"),
        ("responses", {"input": []}, 400, "input"),
        ("responses", {"input": "x", "previous_response_id": "resp_none"}, 404, "previous_response_id"),
        ("embeddings", {"input": "x", "encoding_format": "int8"}, 400, "encoding_format"),
        ("nothing", {}, 404, None),
    ],
)
async def test_a_bad_request_is_refused_naming_the_field(
    endpoint: str, body: dict[str, Json], status: int, param: str | None
) -> None:
    found, data = await post(EmbeddedEngine(), body, endpoint)
    error = json.loads(data)["error"]
    assert (found, error["param"]) == (status, param)
    assert error["message"] and set(error) == {"message", "type", "param", "code"}


WORDS = st.sampled_from(
    [
        "type",
        "properties",
        "required",
        "enum",
        "items",
        "minimum",
        "pattern",
        "$ref",
        "anyOf",
        "minItems",
        "minLength",
        "name",
        "role",
        "content",
        "function",
        "parameters",
        "tool_calls",
        "arguments",
        "object",
        "string",
        "integer",
        "array",
        "user",
        "(",
        "#",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats(allow_nan=False) | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.sampled_from(["chat/completions", "completions", "responses", "embeddings"]),
    st.dictionaries(
        st.sampled_from(
            [
                "messages",
                "input",
                "prompt",
                "tools",
                "tool_choice",
                "response_format",
                "text",
                "stop",
                "n",
                "max_tokens",
                "stream",
                "stream_options",
                "seed",
                "priority",
                "cache_salt",
                "dimensions",
                "instructions",
                "previous_response_id",
            ]
        ),
        VALUES,
    ),
    VALUES,
)
def test_whatever_the_body_holds_there_is_an_answer_or_a_refusal(endpoint: str, body: dict[str, Json], schema: Json) -> None:
    offered: dict[str, Json] = {}
    if isinstance(schema, dict):
        offered["tools"] = [{"type": "function", "function": {"name": "go", "parameters": schema}}]
    for fields in (body, {**HELLO, **offered}):
        status, data = run_virtually(lambda fields=fields: post(EmbeddedEngine(), fields, endpoint))  # type: ignore[misc]
        assert status in (200, 400, 404)
        assert data


async def test_a_schema_without_end_still_gets_an_answer() -> None:
    schema: Json = {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
    }
    form: Json = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert (await post(EmbeddedEngine(), {**HELLO, "response_format": form}))[0] == 200


async def test_a_prompt_beyond_the_context_is_refused_in_openais_words() -> None:
    _, data = await post(EmbeddedEngine(kv_tokens=160), {"messages": [{"role": "user", "content": "word " * 500}]})
    assert json.loads(data)["error"]["code"] == "context_length_exceeded"
    assert "maximum context length is 160 tokens" in json.loads(data)["error"]["message"]


async def test_the_request_log_counts_equal_requests(tmp_path: Path) -> None:
    engine = EmbeddedEngine(requests=tmp_path / "log")
    for _ in range(2):
        await post(engine, HELLO)
    await post(engine, {**HELLO, "n": 2})
    assert engine.requests is not None
    assert sorted(engine.requests.counts.values()) == [1, 2]
    assert len((tmp_path / "log").read_text().splitlines()) == 3


async def test_embeddings_are_unit_vectors_and_near_for_near_texts() -> None:
    texts: Json = ["reads a file from disk", "read the file from the disk", "bananas are yellow"]
    found = await answer(EmbeddedEngine(), {"input": texts}, "embeddings")
    a, b, c = (entry["embedding"] for entry in found["data"])  # type: ignore[attr-defined]
    assert math.isclose(math.hypot(*a), 1.0)
    near, far = sum(x * y for x, y in zip(a, b, strict=True)), sum(x * y for x, y in zip(a, c, strict=True))
    assert near > 0.5 > far + 0.3


async def test_a_responses_stream_numbers_its_events_in_order() -> None:
    tools: Json = [
        {
            "type": "function",
            "name": "read_file",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        }
    ]
    _, data = await post(EmbeddedEngine(), {"input": "Read a.py and b.py", "tools": tools, "stream": True}, "responses")
    listed = events(data)
    assert [event["sequence_number"] for event in listed] == list(range(len(listed)))
    kinds = [str(event["type"]).removeprefix("response.") for event in listed]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert kinds == ["created", "in_progress", *call, *call, "completed"]


async def test_a_conversation_goes_on_from_a_previous_response() -> None:
    engine = EmbeddedEngine()
    first = await answer(engine, {"input": "Hello", "instructions": "Be brief."}, "responses")
    body: dict[str, Json] = {"input": "More", "instructions": "Be brief.", "previous_response_id": str(first["id"])}
    second = await answer(engine, body, "responses")
    known = first["usage"]["total_tokens"]  # type: ignore[index]
    assert second["usage"]["input_tokens_details"]["cached_tokens"] == (known - 1) // 16 * 16  # type: ignore[index]


def test_time_passes_as_the_profile_says() -> None:
    async def main() -> tuple[float, float]:
        engine = EmbeddedEngine(profile="8b-a100", speed=1)
        start = anyio.current_time()
        said = await answer(engine, HELLO)
        tokens = said["usage"]["completion_tokens"]  # type: ignore[index]
        return anyio.current_time() - start, tokens

    seconds, tokens = run_virtually(main)
    # One prefill iteration and then one token an iteration, each 9.7 ms and 2 ms of host time.
    assert seconds == pytest.approx(tokens * 0.0117, rel=0.02)


def test_concurrent_answers_share_the_batch() -> None:
    async def main() -> tuple[float, float]:
        engine = EmbeddedEngine(profile="8b-a100", speed=1)
        start = anyio.current_time()
        await answer(engine, HELLO)
        alone = anyio.current_time() - start
        start = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for index in range(20):
                tasks.start_soon(answer, engine, hello(index))
        return alone, anyio.current_time() - start

    alone, together = run_virtually(main)
    assert together < 1.5 * alone


def test_a_stream_arrives_over_the_time_that_generation_takes() -> None:
    async def main() -> list[float]:
        engine = EmbeddedEngine(profile="70b-tp4-a100", speed=1)
        reply = await engine.send(request({**HELLO, "stream": True}))
        return [anyio.current_time() async for _ in reply.chunks()]

    times = run_virtually(main)
    assert len(times) > 20
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) < 0.05


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_aborts_the_request_in_the_model(stream: bool) -> None:
    async def main() -> tuple[int, int, int]:
        engine = EmbeddedEngine(profile="8b-a100", speed=1)
        with anyio.move_on_after(0.1):
            reply = await engine.send(request({**HELLO, "stream": stream}))
            try:
                async for _ in reply.chunks():
                    pass
            finally:
                await reply.aclose()
        await anyio.sleep(1)
        stats = engine.stats()
        return stats.running, stats.aborted, stats.finished

    assert run_virtually(main) == (0, 1, 0)


def test_the_others_go_on_when_the_one_that_keeps_the_time_leaves() -> None:
    async def main() -> int:
        engine = EmbeddedEngine(profile="8b-a100", speed=1)
        done: list[int] = []

        async def ask(index: int) -> None:
            await answer(engine, hello(index))
            done.append(index)

        async with anyio.create_task_group() as tasks:
            leaving = anyio.CancelScope()

            async def leave() -> None:
                with leaving:
                    await ask(0)

            tasks.start_soon(leave)
            await anyio.sleep(0.05)
            for index in (1, 2, 3):
                tasks.start_soon(ask, index)
            await anyio.sleep(0.05)
            leaving.cancel()
        return sum(done)

    assert run_virtually(main) == 6


def test_a_short_answer_does_not_wait_for_a_long_one() -> None:
    async def main() -> list[tuple[str, float]]:
        engine = EmbeddedEngine(
            profile="8b-a100",
            speed=1,
            script=lambda asked: Reply("word " * (2000 if asked.body.get("n") else 5), modelled=True),
        )
        ends: list[tuple[str, float]] = []

        async def ask(name: str, body: dict[str, Json]) -> None:
            await answer(engine, body)
            ends.append((name, anyio.current_time()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "long", {**HELLO, "n": 1})
            await anyio.sleep(1)
            tasks.start_soon(ask, "short", HELLO)
        return ends

    (first, at), (second, _) = run_virtually(main)
    assert (first, second) == ("short", "long") and at < 1.2


def test_an_engine_outlives_its_event_loop() -> None:
    engine = EmbeddedEngine(speed=1)
    for _ in range(2):
        assert run_virtually(lambda: post(engine, HELLO))[0] == 200
