"""Models inside a step: the ordinary `openai` clients, whose every call is recorded and scheduled."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from fairlead import DeclarationError, Handle, Runtime, StepFailedError, injected, step, tool, workflow
from fairlead.runtime.engines.embedded import ConnectionFailure, EmbeddedEngine, HttpFailure, RawReply, Reply, ToolCall, Usage
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.store.records import CallRecord, History

pytestmark = pytest.mark.anyio

MODEL = "fairlead-embedded"
QUESTION: Any = [{"role": "user", "content": "What is it?"}]


class City(BaseModel):
    name: str
    people: int


async def history_of(runtime: Runtime, flow: Any) -> tuple[Any, History]:
    program = runtime.start(flow)
    result = await runtime.outcome(program)
    history = await runtime.journal.history(program.id)
    assert history is not None
    return result, history


def scripted(*replies: Any) -> EmbeddedEngine:
    return EmbeddedEngine(script=list(replies))


def only(calls: list[CallRecord]) -> CallRecord:
    (call,) = calls
    return call


async def test_chat_completions_in_an_async_step(db: str | None) -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> str:
        reply = await llm.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0.5)
        assert reply.usage is not None
        return f"{reply.choices[0].message.content} {reply.usage.total_tokens}"

    @workflow
    def flow() -> Handle[str]:
        return ask()

    async with Runtime(db=db, engine=scripted(Reply("a lead", usage=Usage(10, 5, 4)))) as runtime:
        result, history = await history_of(runtime, flow)
        call = only(history.calls)
        assert result == "a lead 15"
        assert (call.endpoint, call.model, call.state, call.status) == ("chat/completions", MODEL, "succeeded", 200)
        assert (call.input_tokens, call.cached_tokens, call.output_tokens, call.attempts) == (10, 4, 5, 1)
        assert call.conversation is not None
        assert await runtime.journal.conversation(call.conversation) == [b'{"content":"What is it?","role":"user"}']
        assert await runtime.journal.part(call.params) == b'{"model":"fairlead-embedded","temperature":0.5}'


async def test_chat_completions_in_a_plain_step(db: str | None) -> None:
    @step
    def ask(llm: OpenAI = injected) -> str | None:
        return llm.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message.content

    @workflow
    def flow() -> Handle[str | None]:
        return ask()

    async with Runtime(db=db, engine=scripted("a lead")) as runtime:
        result, history = await history_of(runtime, flow)
    assert result == "a lead"
    assert only(history.calls).state == "succeeded"


async def test_the_other_endpoints_in_an_async_step(db: str | None) -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> list[Any]:
        completion = await llm.completions.create(model=MODEL, prompt="Once")
        response = await llm.responses.create(model=MODEL, input="What is it?")
        embedding = await llm.embeddings.create(model=MODEL, input=["a", "b"])
        return [completion.choices[0].text, response.output_text, [len(item.embedding) for item in embedding.data]]

    @workflow
    def flow() -> Handle[list[Any]]:
        return ask()

    def reply(request: EngineRequest) -> Reply | None:
        return None if request.endpoint == "embeddings" else Reply(f"by {request.endpoint}", usage=Usage(3, 2))

    async with Runtime(db=db, engine=EmbeddedEngine(script=reply)) as runtime:
        (text, answer, sizes), history = await history_of(runtime, flow)
    assert (text, answer) == ("by completions", "by responses")
    assert sizes[0] == sizes[1] > 1
    assert [(call.endpoint, call.input_tokens, call.output_tokens) for call in history.calls[:2]] == [
        ("completions", 3, 2),
        ("responses", 3, 2),
    ]
    assert (history.calls[2].endpoint, history.calls[2].output_tokens) == ("embeddings", None)
    assert history.calls[2].input_tokens


async def test_the_other_endpoints_in_a_plain_step() -> None:
    @step
    def ask(llm: OpenAI = injected) -> list[Any]:
        completion = llm.completions.create(model=MODEL, prompt="Once")
        response = llm.responses.create(model=MODEL, input="What is it?")
        embedding = llm.embeddings.create(model=MODEL, input="a")
        return [completion.choices[0].text, response.output_text, len(embedding.data)]

    @workflow
    def flow() -> Handle[list[Any]]:
        return ask()

    def reply(request: EngineRequest) -> Reply | None:
        return None if request.endpoint == "embeddings" else Reply(f"by {request.endpoint}")

    async with Runtime(engine=EmbeddedEngine(script=reply)) as runtime:
        assert await runtime.run(flow) == ["by completions", "by responses", 1]


async def test_streams_in_an_async_step(db: str | None) -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> list[str]:
        chat = completion = response = ""
        async for chunk in await llm.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        ):
            chat += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        async for text in await llm.completions.create(model=MODEL, prompt="Once", stream=True):
            completion += text.choices[0].text if text.choices else ""
        async for event in await llm.responses.create(model=MODEL, input="?", stream=True):
            response += event.delta if event.type == "response.output_text.delta" else ""
        return [chat, completion, response]

    @workflow
    def flow() -> Handle[list[str]]:
        return ask()

    words = "many words that come one by one"
    async with Runtime(db=db, engine=scripted(*[Reply(words, usage=Usage(7, 8))] * 3)) as runtime:
        result, history = await history_of(runtime, flow)
    assert result == [words] * 3
    assert [(call.content_type or "").partition(";")[0] for call in history.calls] == ["text/event-stream"] * 3
    assert [call.output_tokens for call in history.calls] == [8, None, 8]  # the second did not ask for usage
    assert (history.calls[0].answer or b"").rstrip().endswith(b"data: [DONE]")


async def test_streams_in_a_plain_step() -> None:
    @step
    def ask(llm: OpenAI = injected) -> list[str]:
        chunks = llm.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        chat = "".join((chunk.choices[0].delta.content or "") if chunk.choices else "" for chunk in chunks)
        with llm.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:
            helped = "".join(event.delta for event in stream if event.type == "content.delta")
        return [chat, helped]

    @workflow
    def flow() -> Handle[list[str]]:
        return ask()

    async with Runtime(engine=scripted("some words", "more words")) as runtime:
        assert await runtime.run(flow) == ["some words", "more words"]


async def test_parse_gives_a_pydantic_model(db: str | None) -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> City:
        reply = await llm.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City)
        city = reply.choices[0].message.parsed
        assert city is not None
        return city

    @step
    def ask_plainly(llm: OpenAI = injected) -> City:
        city = llm.responses.parse(model=MODEL, input="?", text_format=City).output_parsed
        assert city is not None
        return city

    @workflow
    def flow() -> list[Any]:
        return [ask(), ask_plainly()]

    answer = '{"name":"Bremen","people":570000}'
    async with Runtime(db=db, engine=scripted(answer, answer)) as runtime:
        assert await runtime.run(flow) == [{"name": "Bremen", "people": 570000}] * 2


async def test_the_embedded_engine_answers_in_the_asked_form() -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> bool:
        reply = await llm.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City)
        return isinstance(reply.choices[0].message.parsed, City)

    @workflow
    def flow() -> Handle[bool]:
        return ask()

    async with Runtime() as runtime:
        assert await runtime.run(flow)


async def test_tool_calls_of_a_client_are_ordinary(db: str | None) -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> str:
        offered: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
        reply = await llm.chat.completions.create(model=MODEL, messages=QUESTION, tools=[offered])
        call = (reply.choices[0].message.tool_calls or [])[0]
        assert call.type == "function"
        return f"{call.function.name} {call.function.arguments}"

    @workflow
    def flow() -> Handle[str]:
        return ask()

    async with Runtime(db=db, engine=scripted(Reply("", [ToolCall("look", {"a": 1})]))) as runtime:
        assert await runtime.run(flow) == 'look {"a": 1}'


async def test_calls_of_one_step_go_out_at_the_same_time(db: str | None) -> None:
    together = asyncio.Barrier(5)

    async def reply(request: EngineRequest) -> Reply:
        async with asyncio.timeout(10):
            await together.wait()
        return Reply(str(request.body["messages"][-1]["content"]))  # type: ignore[index,call-overload]  # a list of messages

    @step
    async def ask(llm: AsyncOpenAI = injected) -> list[str | None]:
        async def one(number: int) -> str | None:
            answer = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": str(number)}])
            return answer.choices[0].message.content

        return list(await asyncio.gather(*(one(number) for number in range(5))))

    @workflow
    def flow() -> Handle[list[str | None]]:
        return ask()

    async with Runtime(db=db, engine=EmbeddedEngine(script=reply)) as runtime:
        assert await runtime.run(flow) == ["0", "1", "2", "3", "4"]


async def test_a_client_belongs_to_whatever_step_it_is_used_in(db: str | None) -> None:
    @step
    async def ask(text: str, llm: AsyncOpenAI = injected) -> str | None:
        reply = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
        return reply.choices[0].message.content

    @workflow
    async def flow(llm: AsyncOpenAI = injected) -> list[str | None]:
        own = await llm.chat.completions.create(model=MODEL, messages=QUESTION)
        return [own.choices[0].message.content, *await ask.map(["a", "b"])]

    async with Runtime(db=db, engine=EmbeddedEngine(script=lambda request: Reply("x"))) as runtime:
        result, history = await history_of(runtime, flow)
    assert result == ["x", "x", "x"]
    assert sorted(call.node for call in history.calls) == ["", "ask[0]", "ask[1]"]


async def test_a_tool_may_be_given_a_client(db: str | None) -> None:
    @tool(idempotency="pure")
    async def summarise(text: str, llm: AsyncOpenAI = injected) -> str:
        """Summarise."""
        reply = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
        return reply.choices[0].message.content or ""

    @step
    async def ask() -> str:
        return await summarise("long")

    @workflow
    def flow() -> Handle[str]:
        return ask()

    async with Runtime(db=db, engine=scripted("short")) as runtime:
        assert await runtime.run(flow) == "short"


async def test_a_stream_that_is_left_early_stops_the_call(db: str | None) -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> str:
        stream = await llm.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    break
        return "enough"

    @step
    def ask_plainly(llm: OpenAI = injected) -> str:
        with llm.chat.completions.create(model=MODEL, messages=QUESTION, stream=True) as stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    break
        return "enough"

    @workflow
    def flow() -> list[Any]:
        return [ask(), ask_plainly()]

    with anyio.fail_after(20):
        async with Runtime(db=db, engine=EmbeddedEngine(script=lambda request: Reply("word " * 50, endless=True))) as runtime:
            result, history = await history_of(runtime, flow)
    assert result == ["enough", "enough"]
    assert [call.state for call in history.calls] == ["cancelled", "cancelled"]


# --- what goes wrong ---


async def outcome_of(ask: Any, *replies: Any) -> tuple[Any, list[CallRecord]]:
    @workflow
    def flow() -> Any:
        return ask()

    async with Runtime(engine=scripted(*replies)) as runtime:
        program = runtime.start(flow)
        result = await runtime.outcome(program)
        history = await runtime.journal.history(program.id)
    assert history is not None
    return result, history.calls


def catching(*errors: type[Exception]) -> Any:
    """A step that makes a call and gives the error that its client raised."""

    @step
    async def ask(llm: AsyncOpenAI = injected) -> list[str]:
        try:
            reply = await llm.chat.completions.create(model=MODEL, messages=QUESTION)
        except errors as error:
            return [type(error).__name__, str(error)]
        return [reply.choices[0].message.content or ""]

    return ask


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (422, "UnprocessableEntityError"),
    ],
)
async def test_a_refusal_is_the_clients_own_error_and_is_not_tried_again(status: int, error: str) -> None:
    (name, message), calls = await outcome_of(catching(openai.APIStatusError), HttpFailure(status, "because"), "never")
    assert name == error
    assert "because" in message
    assert (only(calls).status, only(calls).attempts, only(calls).state) == (status, 1, "failed")


async def test_a_refusal_that_passes_is_tried_again_by_the_call_path_not_by_the_client() -> None:
    again = HttpFailure(429, "busy", headers={"retry-after": "0"})
    result, calls = await outcome_of(catching(openai.APIError), again, again, "at last")
    assert result == ["at last"]
    assert (only(calls).attempts, only(calls).state) == (3, "succeeded")


async def test_after_four_refusals_the_last_is_the_answer() -> None:
    again = HttpFailure(503, "overloaded", headers={"retry-after": "0"})
    (name, message), calls = await outcome_of(catching(openai.APIStatusError), *[again] * 4, "never")
    assert name == "InternalServerError"
    assert "overloaded" in message
    assert only(calls).attempts == 4


async def test_an_engine_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.runtime.calls.RETRIES", _impatient())
    (name, message), calls = await outcome_of(catching(openai.APIStatusError), *[ConnectionFailure()] * 4)
    assert name == "InternalServerError"
    assert "engine 'embedded': connection refused" in message
    assert (only(calls).state, only(calls).status, only(calls).attempts) == ("failed", None, 2)


async def test_an_answer_that_is_not_json_says_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.runtime.calls.RETRIES", _impatient())
    html = RawReply(b"<html>It works!</html>", headers={"content-type": "text/html"})
    (_, message), calls = await outcome_of(catching(openai.APIStatusError), html, html)
    assert "not JSON" in message
    assert "It works!" in message
    assert "ends in /v1" in message
    assert only(calls).state == "failed"


async def test_a_stream_that_is_cut_is_an_error_after_what_came_that_names_the_engine(db: str | None) -> None:
    heard: list[str] = []

    @step
    async def ask(llm: AsyncOpenAI = injected) -> str:
        async for chunk in await llm.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
            heard.extend(choice.delta.content or "" for choice in chunk.choices)
        return "all of it"

    async with Runtime(db=db, engine=scripted(Reply("one two three four", cut_after=2), "never")) as runtime:
        program = runtime.start(workflow(name="asks", version="1")(_calling(ask)))
        with pytest.raises(StepFailedError, match="engine 'embedded'"):
            await runtime.outcome(program)
        history = await runtime.journal.history(program.id)
    assert history is not None
    assert "".join(heard)
    assert "one two three four".startswith("".join(heard))
    assert (only(history.calls).state, only(history.calls).attempts) == ("failed", 1)


async def test_what_is_no_model_call_is_a_clear_error(db: str | None) -> None:
    @step
    async def list_models(llm: AsyncOpenAI = injected) -> int:
        return len((await llm.models.list()).data)

    @step
    def list_plainly(llm: OpenAI = injected) -> int:
        return len(llm.models.list().data)

    @step
    async def draw(llm: AsyncOpenAI = injected) -> int:
        return len((await llm.images.generate(prompt="a boat")).data or [])

    cases = [(list_models, "GET /v1/models"), (list_plainly, "GET /v1/models"), (draw, "POST /v1/images/generations")]
    async with Runtime(db=db) as runtime:
        for bad, asked in cases:
            with pytest.raises(StepFailedError) as caught:
                await runtime.run(workflow(name="asks")(_calling(bad)))
            assert asked in str(caught.value)
            assert "chat/completions, completions, responses, embeddings" in str(caught.value)


async def test_a_client_that_left_its_step_is_a_clear_error() -> None:
    kept: list[AsyncOpenAI] = []

    @step
    async def keep(llm: AsyncOpenAI = injected) -> int:
        kept.append(llm)
        return 1

    async with Runtime() as runtime:
        await runtime.run(workflow(name="keeps")(_calling(keep)))
        with pytest.raises(Exception, match="a model call outside of a running step") as caught:
            await kept[0].chat.completions.create(model=MODEL, messages=QUESTION)
    assert isinstance(_root_cause(caught.value), DeclarationError)


async def test_work_that_outlives_its_step_may_make_no_calls() -> None:
    """A task that a step left behind on purpose still has its client."""
    told: list[BaseException] = []
    left: list[asyncio.Task[None]] = []
    go = asyncio.Event()

    @step
    async def leaves(llm: AsyncOpenAI = injected) -> int:
        async def late() -> None:
            await go.wait()
            try:
                await llm.chat.completions.create(model=MODEL, messages=QUESTION)
            except Exception as error:
                told.append(error)

        left.append(asyncio.get_running_loop().create_task(late()))
        return 1

    async with Runtime() as runtime:
        await runtime.run(workflow(name="leaves")(_calling(leaves)))
        go.set()
        await left[0]
    assert "after attempt 1 had ended" in str(_root_cause(told[0]))


async def test_an_unknown_model_is_the_engines_refusal() -> None:
    @step
    async def ask(llm: AsyncOpenAI = injected) -> str | None:
        return (await llm.chat.completions.create(model="gpt-99", messages=QUESTION)).choices[0].message.content

    async with Runtime() as runtime:
        with pytest.raises(StepFailedError, match=r"gpt-99.*does not exist.*fairlead-embedded"):
            await runtime.run(workflow(name="asks")(_calling(ask)))


def _calling(one: Any) -> Any:
    def flow() -> Any:
        return one()

    return flow


def _impatient() -> Any:
    from fairlead.runtime.retries import CallRetries

    return CallRetries(attempts_max=2, delay_s=0)


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
