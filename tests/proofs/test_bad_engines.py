"""Engines that misbehave, in process and over real sockets, met by the openai client and by `Agent`.

Every time: one clear error that says what and where, a bounded number of requests, finished siblings keep their work, and
the recorded failure is what a resumed program meets again.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import pytest
from openai import AsyncOpenAI, OpenAI

from fairlead import Agent, Handle, Runtime, StepFailedError, injected, run, step, workflow
from fairlead.runtime.engines.embedded.engine import EmbeddedEngine
from fairlead.runtime.engines.embedded.script import ConnectionFailure, HttpFailure, RawReply, Reply, Script, Scripted
from fairlead.runtime.engines.embedded.server import running_server
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.retries import CallLimits, CallRetries
from fairlead.runtime.store.records import CallRecord, StepRecord
from tests.support.journals import CuttableJournal, runtime_on

pytestmark = pytest.mark.anyio

MODEL = "fairlead-embedded"
LIMITS = CallLimits(idle_s=0.2, total_s=0.4, bytes_max=2_000_000)
Way = Literal["client", "streaming client", "blocking client", "agent", "streaming agent"]
WAYS: tuple[Way, ...] = ("client", "streaming client", "blocking client", "agent", "streaming agent")
WAYS_AND_PLACES = [
    *(pytest.param(way, False, id=f"{way}, in process") for way in WAYS),
    *(pytest.param(way, True, id=f"{way}, over HTTP") for way in ("client", "streaming client", "agent")),
]
HANG_S = 10


@dataclass(frozen=True)
class Bad:
    """What an engine does to every request, what the error must say, and how many requests are allowed."""

    reply: Scripted
    says: str
    requests: int
    streamed_requests: int | None = None
    """Where it differs: a stream that has begun is not asked for again."""


ENGINES = {
    "refuses connections": Bad(ConnectionFailure("refused"), "", 4),
    "resets connections": Bad(ConnectionFailure("reset"), "", 4),
    "says 400": Bad(HttpFailure(400, "that makes no sense"), "that makes no sense", 1),
    "says 401": Bad(HttpFailure(401, "who are you"), "who are you", 1),
    "says 404": Bad(HttpFailure(404, "no such model"), "no such model", 1),
    "says 429 for ever": Bad(HttpFailure(429, "slow down", {"retry-after": "0"}), "slow down", 4),
    "says 429 for a day": Bad(HttpFailure(429, "come back tomorrow", {"retry-after": "86400"}), "come back tomorrow", 1),
    "says 429 with nonsense": Bad(HttpFailure(429, "slow", {"retry-after": "soon", "retry-after-ms": "nan"}), "slow", 4),
    "says 500 for ever": Bad(HttpFailure(500, "it broke"), "it broke", 4),
    "answers malformed JSON": Bad(RawReply(b'{"choices": ['), "not JSON", 4),
    "answers HTML": Bad(RawReply(b"<html>hello</html>", headers={"content-type": "text/html"}), "hello", 4),
    "answers nothing": Bad(RawReply(b""), "", 4),
    "answers invalid UTF-8": Bad(RawReply(b'{"choices": "\xff\xfe"}'), "not JSON", 4),
    "cuts its answers": Bad(Reply("some words that are cut " * 10, cut_after=2), "", 4, 1),
    "never ends": Bad(Reply("and on ", endless=True), "0.4 s", 1),
    "answers too much": Bad(RawReply(b"x" * 3_000_000), "larger than 2000000 bytes", 1),
}
STREAM_SAYS = {
    "answers malformed JSON": "ended in the middle",
    "answers HTML": "ended in the middle",
    "answers invalid UTF-8": "",
}


@step
async def aside(n: int) -> int:
    """Finished work that must not be lost."""
    return n + 1


async def through(way: Way, task: str, llm: AsyncOpenAI) -> str:
    """One exchange with the model."""
    if way == "client":
        reply = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": task}])
        return reply.choices[0].message.content or ""
    if way == "streaming client":
        heard = ""
        stream = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": task}], stream=True)
        async for chunk in stream:
            heard += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        return heard
    watcher = (lambda event: None) if way == "streaming agent" else None
    return (await Agent(model=MODEL).run(task, watcher=watcher)).output


@step
async def ask(way: Way, after: int, llm: AsyncOpenAI = injected) -> str:
    return await through(way, f"hello {after}", llm)


@step
def ask_blocking(after: int, llm: OpenAI = injected) -> str:
    reply = llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": f"hello {after}"}])
    return reply.choices[0].message.content or ""


@step
async def ask_and_go_on(way: Way, llm: AsyncOpenAI = injected) -> str:
    """Catches what goes wrong, and asks about it."""
    try:
        await through(way, "bad", llm)
    except Exception as error:
        return f"{type(error).__name__}: {error}" + await through("client", f"well: {error}", llm)
    return "nothing went wrong"


@workflow
def asking(way: Way) -> Handle[str]:
    before = aside(1)
    return ask_blocking(before.value) if way == "blocking client" else ask(way, before.value)


@workflow
def going_on(way: Way) -> Handle[str]:
    return ask_and_go_on(way)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.runtime.calls.RETRIES", CallRetries(delay_s=0.001))


@asynccontextmanager
async def serving(script: Script, *, over_http: bool) -> AsyncIterator[tuple[EmbeddedEngine | str, EmbeddedEngine]]:
    """An engine for a runtime, in process or as a URL, and the engine behind it with its log of requests."""
    engine = EmbeddedEngine(script=script, requests=True)
    if not over_http:
        yield engine, engine
        return
    async with running_server(engine) as url:
        yield url, engine


def sent(engine: EmbeddedEngine) -> int:
    assert engine.requests is not None
    return engine.requests.total


async def failure_of(runtime: Runtime, way: Way) -> StepFailedError:
    with anyio.fail_after(HANG_S):
        with pytest.raises(StepFailedError) as raised:
            await runtime.run(asking, way)
        return raised.value


@pytest.mark.parametrize(("way", "over_http"), WAYS_AND_PLACES)
@pytest.mark.parametrize("name", ENGINES)
async def test_a_bad_engine_gives_one_clear_error_after_a_bounded_number_of_requests(
    name: str, way: Way, over_http: bool
) -> None:
    bad, journal = ENGINES[name], CuttableJournal()
    streamed = way in ("streaming client", "streaming agent")
    async with (
        serving(lambda request: bad.reply, over_http=over_http) as (engine, behind),
        runtime_on(journal, engine, limits=LIMITS) as runtime,
    ):
        error = await failure_of(runtime, way)
        allowed = bad.streamed_requests if streamed and bad.streamed_requests is not None else bad.requests
        # A stream of rubbish was handed on before it was known to be rubbish: no second request either.
        assert 1 <= sent(behind) <= allowed, f"{sent(behind)} requests"
    said = str(error)
    assert (STREAM_SAYS.get(name, bad.says) if streamed else bad.says) in said, said
    assert "step 'ask" in said, said
    check_records(journal)


def check_records(journal: CuttableJournal) -> None:
    """The sibling's work is kept, the call is recorded as failed, within the bound on its size."""
    steps = {r.step: r.state for entry in journal.entries for r in entry if isinstance(r, StepRecord)}
    assert steps.pop("aside") == "succeeded" and set(steps.values()) == {"failed"}
    calls = [r for entry in journal.entries for r in entry if isinstance(r, CallRecord)]
    assert [call.state for call in calls] == ["failed"]
    assert len(calls[0].answer or b"") <= LIMITS.bytes_max


@pytest.mark.parametrize("way", ["client", "streaming client", "agent", "streaming agent"])
@pytest.mark.parametrize("name", ENGINES)
async def test_a_recorded_failure_is_met_again_word_for_word_and_not_sent_again(name: str, way: Way) -> None:
    bad, journal = ENGINES[name], CuttableJournal()

    def script(request: EngineRequest) -> Scripted:
        messages: Any = request.body["messages"]
        return Reply(" I see.") if str(messages[-1]["content"]).startswith("well") else bad.reply

    async with runtime_on(journal, EmbeddedEngine(script=script), limits=LIMITS) as runtime:
        program = runtime.start(going_on, {"way": way})
        with anyio.fail_after(HANG_S):
            said = await runtime.outcome(program)
    last = max(place for place, entry in enumerate(journal.entries) if any(isinstance(record, CallRecord) for record in entry))
    engine = EmbeddedEngine(script=script, requests=True)
    async with runtime_on(journal.cut(last + 1), engine, limits=LIMITS) as runtime:
        with anyio.fail_after(HANG_S):
            assert await runtime.outcome(await runtime.resume(program.id, workflow=going_on)) == said
    assert sent(engine) == 0


@pytest.mark.parametrize(("way", "over_http"), WAYS_AND_PLACES)
@pytest.mark.parametrize(
    "trouble",
    [HttpFailure(503), HttpFailure(429, headers={"retry-after": "0.001"}), ConnectionFailure("reset"), RawReply(b"")],
    ids=["503", "429", "reset", "empty"],
)
async def test_passing_trouble_is_not_noticed_by_the_step(trouble: Scripted, way: Way, over_http: bool) -> None:
    async with serving([trouble, trouble, Reply("fine")], over_http=over_http) as (engine, behind):
        async with runtime_on(CuttableJournal(), engine, limits=LIMITS) as runtime:
            with anyio.fail_after(HANG_S):
                assert await runtime.run(asking, way) == "fine"
        assert sent(behind) == 3


@pytest.mark.parametrize("body", [b"[1, 2]", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b'"hello"'])
async def test_json_that_is_no_chat_completion_is_an_engine_error_of_the_agent(body: bytes) -> None:
    async with runtime_on(CuttableJournal(), EmbeddedEngine(script=lambda request: RawReply(body)), limits=LIMITS) as runtime:
        error = await failure_of(runtime, "agent")
    assert "is not a chat completion" in str(error) and body.decode() in str(error)


@pytest.mark.parametrize("event", [b"[1, 2]", b'{"choices": [3]}', b'{"choices": ', b'"hello"'])
async def test_an_event_that_is_no_chunk_is_an_engine_error_of_the_streaming_agent(event: bytes) -> None:
    raw = RawReply(b"data: " + event + b"\n\ndata: [DONE]\n\n", headers={"content-type": "text/event-stream"})
    async with runtime_on(CuttableJournal(), EmbeddedEngine(script=lambda request: raw), limits=LIMITS) as runtime:
        error = await failure_of(runtime, "streaming agent")
    assert "is not a chat completion chunk" in str(error) and event.decode().strip() in str(error)


@pytest.mark.parametrize("way", WAYS)
async def test_an_engine_that_is_down_is_named_with_what_to_do(way: Way) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        async with runtime_on(CuttableJournal(), url, limits=LIMITS) as runtime:
            error = await failure_of(runtime, way)
    assert url in str(error) and "is the engine running" in str(error)


RAW_SOCKETS: dict[str, bytes] = {
    "no HTTP": b"220 mail.example.org ESMTP\r\n\r\n",
    "a status line only": b"HTTP/1.1 200 OK\r\n",
    "nothing at all": b"",
    "less than promised": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
    "a broken chunk": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nabc",
    "false compression": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RAW_SOCKETS)
async def test_bytes_that_are_no_http_are_an_engine_error(name: str, way: Way) -> None:
    async with listening(RAW_SOCKETS[name]) as (url, connections), runtime_on(CuttableJournal(), url, limits=LIMITS) as runtime:
        error = await failure_of(runtime, way)
    assert url in str(error), error
    assert 1 <= connections() <= 4


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """A server that sends these bytes to whoever connects, and closes. Gives its URL and the count of connections."""
    connections = 0

    async def serve(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            await stream.receive()
            if answer:
                await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{port}/v1", lambda: connections
        tasks.cancel_scope.cancel()


async def test_a_hundred_megabytes_are_read_no_further_than_the_bound() -> None:
    journal, piece, given = CuttableJournal(), b"x" * 2**20, 0

    async def serve(stream: anyio.abc.SocketStream) -> None:
        nonlocal given
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n")
            try:
                while given < 100:
                    await stream.send(piece)
                    given += 1
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        limits = CallLimits(bytes_max=8 * 2**20)
        async with runtime_on(journal, f"http://127.0.0.1:{port}", limits=limits) as runtime:
            error = await failure_of(runtime, "agent")
        tasks.cancel_scope.cancel()
    assert "larger than 8388608 bytes" in str(error)
    assert given < 60, "the engine was read on after the bound"


def test_the_shortest_way_to_run_a_workflow_gives_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(EmbeddedEngine):
        def __init__(self) -> None:
            super().__init__(script=lambda request: HttpFailure(400, "not today"))

    monkeypatch.setattr("fairlead.runtime.engines.embedded.engine.EmbeddedEngine", Broken)
    with pytest.raises(StepFailedError, match="not today"):
        run(asking, "agent")
