"""`Agent`: turns, tools, typed answers, events, and what it does with mistakes of the model; in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from fairlead import (
    Agent,
    DeclarationError,
    EngineError,
    InputError,
    Runtime,
    StepFailedError,
    ToolContext,
    ToolError,
    injected,
    step,
    tool,
    workflow,
)
from fairlead.runtime.agent import (
    BAD_REQUESTS_MAX,
    OUTPUT_TRIES,
    AgentEvent,
    AgentResult,
    TextArrived,
    ToolCalled,
    ToolReturned,
    TurnStarted,
)
from fairlead.runtime.engines.embedded import EmbeddedEngine, HttpFailure, Reply, ToolCall
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.store.records import History
from tests.support.engines import OpenEngine
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio
anyio_backend = virtual_time


class City(BaseModel):
    name: str
    people: int


@tool
async def look(name: str, depth: int = 1) -> str:
    """Look a name up."""
    return f"{name} at {depth}"


class Talk:
    """An engine that says these replies in turn and keeps what it was asked, and how an agent gets on with it."""

    def __init__(self, *replies: Any) -> None:
        self.replies: Sequence[Any] = replies
        self.requests: list[dict[str, Any]] = []
        self.history: History | None = None

    def _reply(self, request: EngineRequest) -> Any:
        self.requests.append(json.loads(json.dumps(dict(request.body))))
        if len(self.requests) > len(self.replies):
            return HttpFailure(400, "no reply left")
        return self.replies[len(self.requests) - 1]

    async def with_agent(self, use: Callable[[], Any]) -> Any:
        """The result of a step that does this."""

        @step
        async def work() -> Any:
            return await use()

        @workflow(version="1")
        def flow() -> Any:
            return work()

        async with Runtime(engine=EmbeddedEngine(script=self._reply)) as runtime:
            program = runtime.start(flow)
            try:
                return await runtime.outcome(program)
            finally:
                self.history = await runtime.journal.history(program.id)

    async def run(self, agent: Agent[Any], task: Any = "?") -> AgentResult[Any]:
        kept: list[AgentResult[Any]] = []

        async def use() -> None:
            kept.append(await agent.run(task))

        await self.with_agent(use)
        return kept[0]

    @property
    def last_messages(self) -> list[Any]:
        messages: list[Any] = self.requests[-1]["messages"]
        return messages


def calls(*names: str) -> Reply:
    return Reply("", [ToolCall("look", {"name": name}) for name in names])


async def test_without_tools_the_first_answer_is_the_result() -> None:
    talk = Talk("hello")
    result = await talk.run(Agent("Be kind."), "hi")
    assert (result.output, result.turns) == ("hello", 1)
    assert talk.requests == [
        {
            "model": "fairlead-embedded",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        }
    ]
    assert result.messages[-1] == {"role": "assistant", "content": "hello"}


async def test_a_task_may_be_a_list_of_messages_and_settings_go_into_every_request() -> None:
    talk = Talk(calls("a"), "done")
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    await talk.run(Agent(tools=[look], settings={"temperature": 0.3}, model="fairlead-embedded"), messages)
    assert talk.requests[0]["messages"] == messages
    assert [request["temperature"] for request in talk.requests] == [0.3, 0.3]


async def test_results_of_tools_go_back_in_the_order_asked_whatever_the_order_in_which_they_end() -> None:
    @tool
    async def nap(seconds: float) -> str:
        """Nap."""
        await anyio.sleep(seconds)
        return f"slept {seconds:g}"

    talk = Talk(Reply("", [ToolCall("nap", {"seconds": seconds}, f"id{seconds}") for seconds in (3, 1, 2)]), "done")
    began = anyio.current_time()
    await talk.run(Agent(tools=[nap]))
    assert anyio.current_time() - began == pytest.approx(3)  # at the same time
    assert [(message["tool_call_id"], message["content"]) for message in talk.last_messages if message["role"] == "tool"] == [
        ("id3", "slept 3"),
        ("id1", "slept 1"),
        ("id2", "slept 2"),
    ]


async def test_the_conversation_of_a_turn_is_the_one_before_with_its_answers() -> None:
    talk = Talk(calls("a"), calls("b", "c"), "done")
    result = await talk.run(Agent("Look.", tools=[look]))
    for before, after in zip(talk.requests, talk.requests[1:], strict=False):
        assert after["messages"][: len(before["messages"])] == before["messages"]
    assert result.turns == 3
    assert list(result.messages) == [*talk.last_messages, {"role": "assistant", "content": "done"}]


async def test_strings_are_given_to_the_model_as_they_are_and_other_results_as_json() -> None:
    @tool
    async def city(name: str) -> City:
        """A city."""
        return City(name=name, people=3)

    talk = Talk(Reply("", [ToolCall("city", {"name": "X"}), ToolCall("look", {"name": "a"})]), "done")
    await talk.run(Agent(tools=[city, look]))
    assert [message["content"] for message in talk.last_messages if message["role"] == "tool"] == [
        '{"name":"X","people":3}',
        "a at 1",
    ]


async def test_usage_is_that_of_all_turns() -> None:
    from fairlead.runtime.engines.embedded import Usage

    talk = Talk(Reply("", [ToolCall("look", {"name": "a"})], usage=Usage(10, 2, 1)), Reply("done", usage=Usage(20, 3, 15)))
    usage = (await talk.run(Agent(tools=[look]))).usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (30, 16, 5)


# --- typed answers ---


async def test_a_typed_answer_is_asked_for_by_its_schema_and_read() -> None:
    talk = Talk('{"name":"Bremen","people":570000}')
    result = await talk.run(Agent("Which?", output=City))
    assert result.output == City(name="Bremen", people=570000)
    form = talk.requests[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["properties"].keys() == {"name", "people"}


@pytest.mark.parametrize(
    ("output", "text", "value"),
    [(int, "42", 42), (list[City], '[{"name":"a","people":1}]', [City(name="a", people=1)]), (bool, "true", True)],
)
async def test_any_type_that_pydantic_knows_can_be_asked_for(output: Any, text: str, value: Any) -> None:
    assert (await Talk(text).run(Agent(output=output))).output == value


async def test_an_answer_that_does_not_fit_is_complained_about_and_asked_for_again() -> None:
    talk = Talk("Bremen, I think", '{"name":"Bremen"}', '{"name":"Bremen","people":1}')
    result = await talk.run(Agent(output=City))
    assert (result.output.people, result.turns) == (1, 3)
    complaints = [message["content"] for message in talk.last_messages if message["role"] == "user"][1:]
    assert "cannot be read" in complaints[0]
    assert "people" in complaints[1]
    assert "Field required" in complaints[1]


async def test_an_answer_that_never_fits_is_an_error_after_some_tries() -> None:
    talk = Talk(*["nonsense"] * 9)
    with pytest.raises(StepFailedError, match="the agent's answer expects City") as caught:
        await talk.run(Agent(output=City))
    assert caught.value.kind == InputError.__name__
    assert len(talk.requests) == OUTPUT_TRIES


# --- mistakes ---


async def test_an_agent_ends_when_its_turns_are_used_up() -> None:
    talk = Talk(*[calls("a")] * 9)
    with pytest.raises(StepFailedError, match="used its 4 turns without an answer") as caught:
        await talk.run(Agent(tools=[look], max_turns=4))
    assert caught.value.kind == "TurnLimitError"
    assert len(talk.requests) == 4


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (ToolCall("loook", {"name": "a"}), ["there is no tool 'loook'", "look"]),
        (ToolCall("look", "{oops"), ["not JSON"]),
        (ToolCall("look", "[1]"), ["not a JSON object"]),
        (ToolCall("look", {}), ["parameter 'name' is missing"]),
        (ToolCall("look", {"name": 3}), ["parameter 'name' expects str", "got 3"]),
        (ToolCall("look", {"name": "a", "deep": 1}), ["no parameter 'deep'"]),
    ],
)
async def test_a_call_that_cannot_be_made_is_given_back_as_an_error_result(call: ToolCall, said: list[str]) -> None:
    talk = Talk(Reply("", [call, ToolCall("look", {"name": "b"})]), "sorry")
    assert (await talk.run(Agent(tools=[look]))).output == "sorry"
    wrong, right = (message["content"] for message in talk.last_messages if message["role"] == "tool")
    assert wrong.startswith("error: ")
    assert [word for word in said if word not in wrong] == [], wrong
    assert right == "b at 1"
    assert talk.history is not None
    assert [one.tool for one in talk.history.tool_calls] == ["look"]


async def test_empty_arguments_mean_none() -> None:
    @tool
    async def tick() -> str:
        """Tick."""
        return "tock"

    talk = Talk(Reply("", [ToolCall("tick", "")]), "done")
    await talk.run(Agent(tools=[tick]))
    assert talk.last_messages[-1]["content"] == "tock"


async def test_a_model_that_keeps_asking_for_what_cannot_be_done_is_given_up() -> None:
    talk = Talk(*[Reply("", [ToolCall("nothing")])] * 30)
    with pytest.raises(StepFailedError, match=r"calls in a row that cannot be made.*no tool 'nothing'") as caught:
        await talk.run(Agent(tools=[look], max_turns=50))
    assert caught.value.kind == ToolError.__name__
    assert len(talk.requests) == BAD_REQUESTS_MAX + 1


async def test_a_good_call_in_between_makes_the_bad_ones_forgotten() -> None:
    bad = Reply("", [ToolCall("nothing")])
    talk = Talk(*[*[bad] * BAD_REQUESTS_MAX, calls("a")] * 3, "done")
    assert (await talk.run(Agent(tools=[look], max_turns=50))).output == "done"


async def test_a_tool_that_fails_tells_the_model_and_the_agent_goes_on() -> None:
    @tool
    async def broken(name: str) -> str:
        """Broken."""
        raise ValueError(f"no {name} today")

    talk = Talk(Reply("", [ToolCall("broken", {"name": "milk"}), ToolCall("look", {"name": "b"})]), "never mind")
    assert (await talk.run(Agent(tools=[broken, look]))).output == "never mind"
    contents = [message["content"] for message in talk.last_messages if message["role"] == "tool"]
    assert contents == ["error: tool 'broken' failed: ValueError: no milk today", "b at 1"]
    assert talk.history is not None
    assert sorted(one.state for one in talk.history.tool_calls) == ["failed", "succeeded"]


async def test_a_tool_has_its_time() -> None:
    @tool(timeout=5)
    async def slow() -> str:
        """Slow."""
        await anyio.sleep(60)
        return "late"

    talk = Talk(Reply("", [ToolCall("slow")]), "too slow")
    began = anyio.current_time()
    await talk.run(Agent(tools=[slow]))
    assert anyio.current_time() - began == pytest.approx(5)
    assert "no result within 5 s" in talk.last_messages[-1]["content"]


async def test_a_tool_that_gives_another_type_tells_the_model() -> None:
    @tool
    async def wrong() -> int:
        """Wrong."""
        return "three"  # type: ignore[return-value]  # the mistake

    talk = Talk(Reply("", [ToolCall("wrong")]), "done")
    await talk.run(Agent(tools=[wrong]))
    assert "does not fit the declared type int" in talk.last_messages[-1]["content"]


async def test_a_refusal_of_the_engine_is_an_error_that_says_why() -> None:
    talk = Talk(HttpFailure(400, "too long"))
    with pytest.raises(StepFailedError, match="refused with status 400: too long") as caught:
        await talk.run(Agent())
    assert caught.value.kind == EngineError.__name__


def test_tools_of_one_name_are_refused() -> None:
    with pytest.raises(DeclarationError, match="same name"):
        Agent(tools=[look, look])


def test_an_agent_needs_a_turn() -> None:
    with pytest.raises(DeclarationError, match="max_turns=0"):
        Agent(max_turns=0)


async def test_an_agent_runs_in_steps_only() -> None:
    with pytest.raises(DeclarationError, match=r"Agent.run\(\) outside of a running step"):
        await Agent().run("?")


async def test_tools_know_their_call_and_each_call_has_its_own_key() -> None:
    seen: list[ToolContext] = []

    @tool
    async def note(name: str, ctx: ToolContext = injected) -> str:
        """Note."""
        seen.append(ctx)
        return name

    twice = [ToolCall("note", {"name": "same"})] * 2
    await Talk(Reply("", twice), Reply("", twice[:1]), "done").run(Agent(tools=[note]))
    assert {context.step for context in seen} == {"work"}
    assert len({context.idempotency_key for context in seen}) == 3


# --- events ---


async def test_a_watcher_hears_of_every_turn_and_call() -> None:
    events: list[AgentEvent] = []
    talk = Talk(Reply("Let me see.", [ToolCall("look", {"name": "a"}), ToolCall("nothing")]), "It is a.")

    async def use() -> None:
        await Agent(tools=[look]).run("?", watcher=events.append)

    await talk.with_agent(use)
    kinds = [type(event) for event in events if not isinstance(event, TextArrived)]
    assert kinds == [TurnStarted, ToolCalled, ToolCalled, ToolReturned, ToolReturned, TurnStarted]
    assert "".join(event.text for event in events if isinstance(event, TextArrived)) == "Let me see.It is a."
    returned = [event for event in events if isinstance(event, ToolReturned)]
    assert returned[0] == ToolReturned("look", "a at 1")
    assert returned[1].content.startswith("error: there is no tool 'nothing'")
    assert all(request["stream"] and request["stream_options"] == {"include_usage": True} for request in talk.requests)


async def test_text_arrives_as_it_is_written() -> None:
    times: list[float] = []
    talk = Talk(Reply("one two three four five six", token_delay_s=1))

    async def use() -> None:
        async for event in Agent().stream("?"):
            times.extend([anyio.current_time()] * isinstance(event, TextArrived))

    await talk.with_agent(use)
    assert len(times) >= 3
    assert times[-1] - times[0] >= len(times) - 1


async def test_the_last_event_of_a_stream_is_the_result_of_the_same_conversation() -> None:
    streamed: list[AgentEvent] = []
    replies = [Reply("Hm.", [ToolCall("look", {"name": "a"}, "c1")]), '{"name":"Bremen","people":1}']
    agent = Agent("Look.", output=City, tools=[look])
    talk = Talk(*replies)

    async def use() -> None:
        streamed.extend([event async for event in agent.stream("?")])

    await talk.with_agent(use)
    result = streamed[-1]
    assert isinstance(result, AgentResult)
    whole = await Talk(*replies).run(agent)
    assert (result.output, result.turns, list(result.messages)) == (whole.output, whole.turns, list(whole.messages))
    assert result.usage.output_tokens == whole.usage.output_tokens


@pytest.mark.parametrize("how", ["break", "aclosing", "exception"])
async def test_a_stream_that_is_left_early_stops_the_call(how: str) -> None:
    engine = OpenEngine()
    left: list[float] = []

    async def read() -> None:
        if how == "aclosing":
            async with aclosing(Agent().stream("?")) as events:
                async for event in events:
                    if isinstance(event, TextArrived):
                        break
            return
        async for event in Agent().stream("?"):
            if isinstance(event, TextArrived) and how == "break":
                break
            if isinstance(event, TextArrived):
                raise LookupError("enough")

    @step
    async def work() -> str:
        with suppress(LookupError):
            await read()
        left.append(anyio.current_time())
        await anyio.sleep(10)
        return "left"

    @workflow(version="1")
    def flow() -> Any:
        return work()

    async with Runtime(engine=engine) as runtime:
        program = runtime.start(flow)
        assert await runtime.outcome(program) == "left"
        history = await runtime.journal.history(program.id)
    assert engine.closed_at == left
    assert history is not None
    assert [call.state for call in history.calls] == ["cancelled"]


async def test_a_failure_ends_a_stream_as_it_ends_a_run() -> None:
    talk = Talk(HttpFailure(400, "too long"))

    async def use() -> None:
        async for _ in Agent().stream("?"):
            pass

    with pytest.raises(StepFailedError, match="refused with status 400: too long"):
        await talk.with_agent(use)


async def test_a_watcher_that_fails_fails_the_step() -> None:
    def watcher(event: AgentEvent) -> None:
        raise KeyError("cannot look")

    async def use() -> None:
        await Agent().run("?", watcher=watcher)

    with pytest.raises(StepFailedError, match="cannot look"):
        await Talk("hello").with_agent(use)


async def test_agents_of_one_step_run_at_the_same_time() -> None:
    talk = Talk(*[Reply(str(number), delay_s=5) for number in range(4)])
    results: list[str] = []

    async def use() -> None:
        async def one() -> None:
            results.append((await Agent().run("?")).output)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(one)

    began = anyio.current_time()
    await talk.with_agent(use)
    assert anyio.current_time() - began == pytest.approx(5)
    assert sorted(results) == ["0", "1", "2", "3"]
