"""Agents end to end: in both kinds of steps, over a resume, and what they leave in the journal."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from fairlead import Agent, Handle, Runtime, ToolContext, injected, run, step, tool, workflow
from fairlead.encoding import decode
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply, ToolCall
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.store.memory import MemoryJournal

pytestmark = pytest.mark.anyio


class Verdict(BaseModel):
    good: bool
    why: str


@tool(idempotency="pure")
async def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@tool(idempotency="pure")
def shout(text: str) -> str:
    """Shout, in a thread."""
    return text.upper()


@tool(idempotency="pure", background=True)
async def ponder(text: str) -> str:
    """Ponder, meanwhile."""
    await anyio.lowlevel.checkpoint()
    return f"pondered {text}"


judge = Agent("Judge.", output=Verdict, tools=[count_words, shout, ponder])

SCRIPT = [
    Reply(
        "", [ToolCall("count_words", {"text": "a b c"}), ToolCall("shout", {"text": "hey"}), ToolCall("ponder", {"text": "it"})]
    ),
    Reply("I wait for the last one."),
    Reply('{"good":true,"why":"three words"}'),
]


@step
async def judge_it(text: str) -> Verdict:
    return (await judge.run(text)).output


@step
def judge_it_plainly(text: str) -> Verdict:
    return judge.run_blocking(text).output


@pytest.mark.parametrize("judging", [judge_it, judge_it_plainly], ids=["async", "plain"])
async def test_an_agent_with_tools_of_every_kind_gives_a_typed_answer(db: str | None, judging: Any) -> None:
    @workflow
    def flow(text: str) -> Handle[Verdict]:
        result: Handle[Verdict] = judging(text)
        return result

    async with Runtime(db=db, engine=EmbeddedEngine(script=SCRIPT), threads_max=2) as runtime:
        program = runtime.start(flow, {"text": "hm"})
        assert await runtime.outcome(program) == Verdict(good=True, why="three words")
        history = await runtime.journal.history(program.id)
        assert history is not None
        assert sorted((call.tool, call.state, call.result) for call in history.tool_calls) == [
            ("count_words", "succeeded", "3"),
            ("ponder", "succeeded", '"pondered it"'),
            ("shout", "succeeded", '"HEY"'),
        ]
        head = max(history.calls, key=lambda call: call.ordinal).conversation
        assert head is not None
        messages: list[Any] = [decode(message) for message in await runtime.journal.conversation(head)]
    contents = [message["content"] for message in messages]
    assert contents[3:6] == ["3", "HEY", '{"status":"running","ticket":"ticket-1"}']
    assert contents.count('[ticket-1] ponder finished: "pondered it"') == 1


def test_the_embedded_engine_drives_an_agent_by_itself() -> None:
    @step
    async def ask(text: str) -> str:
        return (await Agent("You help.", tools=[count_words]).run(text)).output

    @workflow
    def flow(text: str) -> Handle[str]:
        return ask(text)

    answer = run(flow, "How many words has 'one two three'?")
    assert "count_words" in answer
    assert "not a language model" in answer


async def test_a_parked_agent_goes_on_without_asking_anything_twice(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path}/runs.db"
    asked: list[int] = []
    worked: list[str] = []
    stuck = anyio.Event()

    @tool(idempotency="idempotent")
    async def work(n: int, ctx: ToolContext = injected) -> int:
        """Work."""
        worked.append(ctx.idempotency_key)
        return n * n

    agent = Agent(tools=[work])

    @step
    async def ask() -> str:
        return (await agent.run("?")).output

    @workflow
    def flow() -> Handle[str]:
        return ask()

    async def reply(request: EngineRequest) -> Reply:
        messages: Any = request.body["messages"]
        turn = sum(message["role"] == "assistant" for message in messages)
        asked.append(turn)
        if turn == 5 and asked.count(5) == 1:
            stuck.set()
            await anyio.sleep_forever()
        return Reply("", [ToolCall("work", {"n": turn})]) if turn < 8 else Reply("done")

    async with Runtime(db=db, engine=EmbeddedEngine(script=reply)) as runtime:
        program = runtime.start(flow)
        await stuck.wait()
    assert asked == [0, 1, 2, 3, 4, 5]
    async with Runtime(db=db, engine=EmbeddedEngine(script=reply)) as runtime:
        resumed = await runtime.resume(program.id, workflow=flow)
        assert await runtime.outcome(resumed) == "done"
        assert (resumed.counts.calls_replayed, resumed.counts.calls, resumed.counts.tools_reused) == (5, 4, 5)
    assert asked == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert len(worked) == len(set(worked)) == 8


# --- how a conversation is kept ---


def long_talk(turns: int) -> tuple[Any, EmbeddedEngine]:
    """A program whose agent has this many turns, each with one tool call, and its engine."""

    @tool(idempotency="pure")
    async def read(page: int) -> str:
        """Read a page."""
        return f"page {page}: " + "x" * 200

    agent = Agent("Read. " + "y" * 500, tools=[read], max_turns=turns)

    @step
    async def reads() -> str:
        return (await agent.run("Read it all.")).output

    @workflow(version="1")
    def flow() -> Handle[str]:
        return reads()

    replies = [*(Reply("", [ToolCall("read", {"page": page})]) for page in range(1000, 999 + turns)), Reply("read")]
    return flow, EmbeddedEngine(script=replies)


class CountedJournal(MemoryJournal):
    """Counts what is written, by kind of record, and its size."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.size = 0

    def append(self, *records: Any) -> None:
        super().append(*records)
        for record in records:
            kind = type(record).__name__
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.size += sum(len(str(getattr(record, name))) for name in record.__slots__)


async def written(turns: int, monkeypatch: pytest.MonkeyPatch) -> CountedJournal:
    journal = CountedJournal()

    async def opened(url: str | None) -> CountedJournal:
        return journal

    monkeypatch.setattr("fairlead.runtime.runtime.open_journal", opened)
    flow, engine = long_talk(turns)
    async with Runtime(engine=engine) as runtime:
        assert await runtime.run(flow) == "read"
    return journal


async def test_every_message_is_stored_once_however_many_calls_send_it(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 50
    journal = await written(turns, monkeypatch)
    sent = 2 + 2 * (turns - 1)  # instructions and task, then an answer and a result for each turn but the last
    assert journal.counts["CallRecord"] == turns
    assert journal.counts["LinkRecord"] == sent
    assert journal.counts["PartRecord"] == sent + 1  # and what is the same in every request


async def test_what_is_written_grows_linearly_with_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = await written(50, monkeypatch), await written(100, monkeypatch)
    longer = await written(150, monkeypatch)
    assert {kind: long.counts[kind] - count for kind, count in short.counts.items()} == {
        kind: longer.counts[kind] - count for kind, count in long.counts.items()
    }
    assert longer.size - long.size == pytest.approx(long.size - short.size, rel=0.01)


def contents_of(path: Path) -> int:
    """Bytes of all values in a database."""
    with sqlite3.connect(path) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        total = 0
        for table in tables:
            columns = [row[1] for row in connection.execute(f'pragma table_info("{table}")')]
            sums = " + ".join(f'coalesce(sum(length(cast("{column}" as blob))), 0)' for column in columns)
            total += connection.execute(f'select {sums} from "{table}"').fetchone()[0]
    connection.close()
    return total


async def test_a_database_grows_linearly_with_the_turns(tmp_path: Path) -> None:
    sizes = []
    for turns in (50, 100, 150):
        flow, engine = long_talk(turns)
        async with Runtime(db=f"sqlite:///{tmp_path}/{turns}.db", engine=engine) as runtime:
            await runtime.run(flow)
        sizes.append(contents_of(tmp_path / f"{turns}.db"))
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.02)


async def test_a_client_that_sends_the_whole_history_every_time_stores_it_once_too(db: str | None) -> None:
    from openai import AsyncOpenAI

    @step
    async def chat(turns: int, llm: AsyncOpenAI = injected) -> int:
        messages: list[Any] = [{"role": "system", "content": "Chat."}]
        for turn in range(turns):
            messages.append({"role": "user", "content": f"turn {turn}"})
            reply = await llm.chat.completions.create(model="fairlead-embedded", messages=messages)
            messages.append({"role": "assistant", "content": reply.choices[0].message.content})
        return len(messages)

    @workflow
    def flow(turns: int) -> Handle[int]:
        return chat(turns)

    async with Runtime(db=db, engine=EmbeddedEngine(script=lambda request: Reply("yes"))) as runtime:
        program = runtime.start(flow, {"turns": 20})
        assert await runtime.outcome(program) == 41
        history = await runtime.journal.history(program.id)
        assert history is not None
        heads = [call.conversation for call in history.calls]
        conversations = [await runtime.journal.conversation(head) for head in heads if head is not None]
    assert [len(messages) for messages in conversations] == list(range(2, 42, 2))
    assert all(after[: len(before)] == before for before, after in pairwise(conversations))
