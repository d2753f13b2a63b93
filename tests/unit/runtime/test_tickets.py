"""Background tools: the model gets a ticket at once and goes on; results enter the conversation when they are there."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from fairlead import Agent, Runtime, StepFailedError, step, tool, workflow
from fairlead.runtime.agent import AgentEvent, ToolCalled, ToolReturned
from fairlead.runtime.engines.embedded import EmbeddedEngine, HttpFailure, Reply, ToolCall
from fairlead.runtime.engines.port import EngineRequest
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio
anyio_backend = virtual_time


@tool(background=True, idempotency="pure")
async def dig(name: str, seconds: float = 2.0) -> str:
    """Dig for something, for a while."""
    await anyio.sleep(seconds)
    return f"found {name}"


@tool(idempotency="pure")
async def look(name: str) -> str:
    """Look something up."""
    await anyio.sleep(1)
    return f"saw {name}"


class Digging:
    """An agent on an engine that takes half a second a turn, and the conversations it sent."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = replies
        self.sent: list[list[Any]] = []
        self.events: list[AgentEvent] = []
        self.seconds = 0.0

    def _reply(self, request: EngineRequest) -> Any:
        messages: Any = request.body["messages"]
        self.sent.append(list(messages))
        turn = len(self.sent) - 1
        return self.replies[turn] if turn < len(self.replies) else HttpFailure(400, "no reply left")

    async def run(self, *tools: Any, watched: bool = False) -> str:
        agent = Agent("Dig.", tools=tools or (dig, look))

        @step
        async def work() -> str:
            return (await agent.run("?", watcher=self.events.append if watched else None)).output

        @workflow(version="1")
        def flow() -> Any:
            return work()

        async with Runtime(engine=EmbeddedEngine(script=self._reply)) as runtime:
            began = anyio.current_time()
            try:
                result: str = await runtime.run(flow)
            finally:
                self.seconds = anyio.current_time() - began
            return result

    def said_to_the_model(self, turn: int) -> list[str]:
        """What the conversation of a turn (0 for the first) has more than the one before."""
        before = self.sent[turn - 1] if turn else []
        return [str(message["content"]) for message in self.sent[turn][len(before) :] if message["role"] != "assistant"]


def asks(*calls: ToolCall) -> Reply:
    return Reply("", calls, delay_s=0.5)


def says(text: str) -> Reply:
    return Reply(text, delay_s=0.5)


async def test_the_ticket_is_there_at_once_and_the_result_later() -> None:
    digging = Digging(asks(ToolCall("dig", {"name": "a"})), says("waiting"), says("found it"))
    assert await digging.run() == "found it"
    ticket = json.loads(digging.said_to_the_model(1)[0])
    assert ticket == {"ticket": "ticket-1", "status": "running"}
    assert digging.said_to_the_model(2) == ["[ticket-1] dig finished: " + '"found a"']


async def test_an_agent_does_not_end_while_a_ticket_is_open() -> None:
    digging = Digging(asks(ToolCall("dig", {"name": "a", "seconds": 60})), says("done?"), says("done"))
    assert await digging.run() == "done"
    assert digging.seconds == pytest.approx(0.5 + 60 + 0.5)


async def test_five_slow_tools_and_a_chain_of_turns_take_the_time_of_the_longest_path() -> None:
    """Five tools of 2 s, started one per turn, and four turns with a tool of 1 s: 14 s in a row, about 8 s overlapped."""
    digging = Digging(
        *(asks(ToolCall("dig", {"name": str(number)})) for number in range(5)),
        *(asks(ToolCall("look", {"name": str(number)})) for number in range(4)),
        says("all found"),
    )
    assert await digging.run() == "all found"
    turns, waits = 10 * 0.5, 4 * 1.0
    in_a_row = turns + waits + 5 * 2.0
    assert digging.seconds == pytest.approx(turns + waits)
    assert digging.seconds < in_a_row / 2 + 0.1
    delivered = [text for turn in range(10) for text in digging.said_to_the_model(turn) if " dig finished: " in text]
    assert sorted(delivered) == [f'[ticket-{number + 1}] dig finished: "found {number}"' for number in range(5)]


async def test_five_slow_tools_of_one_turn_take_the_time_of_one() -> None:
    digging = Digging(
        asks(*(ToolCall("dig", {"name": str(number)}) for number in range(5))), says("waiting"), says("all found")
    )
    assert await digging.run() == "all found"
    assert digging.seconds == pytest.approx(0.5 + 2 + 0.5)


async def test_results_enter_in_the_order_in_which_they_came() -> None:
    digging = Digging(
        asks(*(ToolCall("dig", {"name": str(seconds), "seconds": seconds}) for seconds in (3, 1, 2))),
        *[says("waiting")] * 3,
        says("done"),
    )
    assert await digging.run() == "done"
    delivered = [text for turn in range(len(digging.sent)) for text in digging.said_to_the_model(turn) if "finished" in text]
    assert [text.partition("]")[0] for text in delivered] == ["[ticket-2", "[ticket-3", "[ticket-1"]


async def test_every_result_is_delivered_once() -> None:
    digging = Digging(
        asks(ToolCall("dig", {"name": "a", "seconds": 0.1})), *[asks(ToolCall("look", {"name": "b"}))] * 3, says("done")
    )
    await digging.run()
    assert sum("ticket-1] dig finished" in str(message["content"]) for message in digging.sent[-1]) == 1


async def test_a_failure_is_delivered_as_such() -> None:
    @tool(background=True, idempotency="pure")
    async def break_ground() -> str:
        """Break."""
        await anyio.sleep(2)
        raise ValueError("too hard")

    digging = Digging(asks(ToolCall("break_ground")), says("waiting"), says("pity"))
    assert await digging.run(break_ground) == "pity"
    assert digging.said_to_the_model(2) == ["[ticket-1] break_ground failed: tool 'break_ground' failed: ValueError: too hard"]


async def test_a_background_tool_has_its_time() -> None:
    @tool(background=True, idempotency="pure", timeout=3)
    async def endless() -> str:
        """Endless."""
        await anyio.sleep_forever()
        return ""

    digging = Digging(asks(ToolCall("endless")), says("waiting"), says("pity"))
    assert await digging.run(endless) == "pity"
    assert digging.seconds == pytest.approx(0.5 + 3 + 0.5)
    assert "no result within 3 s" in digging.said_to_the_model(2)[0]


async def test_a_call_that_cannot_be_made_gets_no_ticket() -> None:
    digging = Digging(asks(ToolCall("dig", {"nam": "a"})), says("sorry"))
    assert await digging.run() == "sorry"
    assert digging.said_to_the_model(1)[0].startswith("error: ")


async def test_watchers_hear_of_a_background_result_when_it_enters_the_conversation() -> None:
    digging = Digging(asks(ToolCall("dig", {"name": "a"})), says("waiting"), says("done"))
    await digging.run(watched=True)
    told = [event for event in digging.events if isinstance(event, ToolCalled | ToolReturned)]
    assert [type(event) for event in told] == [ToolCalled, ToolReturned]
    assert "found a" in told[1].content  # type: ignore[union-attr]  # the second is a ToolReturned


async def test_an_agent_that_fails_stops_its_background_tools() -> None:
    ended: list[float] = []

    @tool(background=True, idempotency="pure")
    async def endless() -> str:
        """Endless."""
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(anyio.current_time())
        return ""

    digging = Digging(asks(ToolCall("endless")))
    with pytest.raises(StepFailedError, match="no reply left"):
        await digging.run(endless)
    assert len(ended) == 1
    assert digging.seconds < 5


async def test_a_ticket_still_open_when_the_turns_are_used_up_does_not_keep_the_step() -> None:
    ended: list[float] = []

    @tool(background=True, idempotency="pure")
    async def endless() -> str:
        """Endless."""
        try:
            await anyio.sleep(10_000)
        finally:
            ended.append(anyio.current_time())
        return ""

    digging = Digging(asks(ToolCall("endless")), *[asks(ToolCall("look", {"name": "a"}))] * 30)
    with pytest.raises(StepFailedError, match="used its 20 turns"):
        await digging.run(endless, look)
    assert len(ended) == 1
    assert digging.seconds < 60
