"""What cannot be had for less: bare asyncio, and SQLite with as few flushes as the promise allows.

A chain promises that a step's result is on disk before the next one starts: one commit per step. A fan-out promises nothing
between its steps: one commit for all. An agent promises that a reply is on disk before its tool runs: one commit per turn.
All with write-ahead log and `synchronous=full`, on the disk where the arms keep their databases.

`openai_client` is the `openai` client alone, with a transport in this process that answers at once.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI

from bench.overhead.instant import ADD, MODEL, QUESTION, InstantModel
from bench.overhead.serve import Sample, Stopwatch, expect, serve

REPLY = json.dumps(
    {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "add", "arguments": '{"a": 1}'}}]}
)


async def increment(value: int) -> int:
    return value + 1


async def double(value: int) -> int:
    return 2 * value


async def memory_chain(size: int, _: Path) -> Sample:
    with Stopwatch() as watch:
        value = 0
        for _step in range(size):
            value = await increment(value)
    expect(value, size)
    return Sample(watch.seconds)


async def memory_fanout(size: int, _: Path) -> Sample:
    with Stopwatch() as watch:
        values = await asyncio.gather(*(double(value) for value in range(size)))
    expect(sum(values), size * (size - 1))
    return Sample(watch.seconds)


async def durable_chain(size: int, place: Path) -> Sample:
    with closing(database(place)) as connection, Stopwatch() as watch:
        value = 0
        for step in range(size):
            value = await increment(value)
            connection.execute("INSERT INTO row VALUES (?, ?)", (step, str(value)))
            connection.commit()
    expect(value, size)
    return Sample(watch.seconds)


async def durable_fanout(size: int, place: Path) -> Sample:
    with closing(database(place)) as connection, Stopwatch() as watch:
        values = await asyncio.gather(*(double(value) for value in range(size)))
        connection.executemany("INSERT INTO row VALUES (?, ?)", list(enumerate(map(str, values))))
        connection.commit()
    return Sample(watch.seconds)


async def durable_agent(size: int, place: Path) -> Sample:
    with closing(database(place)) as connection, Stopwatch() as watch:
        value = 0
        for turn in range(size):
            connection.execute("INSERT INTO row VALUES (?, ?)", (turn, REPLY))
            connection.commit()
            value = await increment(value)
    return Sample(watch.seconds)


async def openai_agent(size: int, _: Path) -> Sample:
    model = InstantModel(size)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, content=model.reply(json.loads(request.content)["messages"]), headers={"content-type": "application/json"}
        )

    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    transport = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    async with AsyncOpenAI(api_key="none", base_url="http://instant/v1", http_client=transport) as client:
        with Stopwatch() as watch:
            while True:
                completion = await client.chat.completions.create(model=MODEL, messages=messages, tools=[ADD])
                message = completion.choices[0].message
                if not message.tool_calls:
                    break
                messages.append(message)
                messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": str(await increment(1))})
    expect(len(messages), 2 * size - 1)
    return Sample(watch.seconds)


def database(place: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(place / "floor.db")
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=full")
    connection.execute("CREATE TABLE row (number INTEGER PRIMARY KEY, value TEXT)")
    connection.commit()
    return connection


if __name__ == "__main__":
    shapes = (memory_chain, memory_fanout, durable_chain, durable_fanout, durable_agent)
    serve({"floor": {shape.__name__: shape for shape in shapes}, "openai_client": {"openai_agent": openai_agent}})
