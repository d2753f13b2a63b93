"""Burr: one action visited again and again, and its own map over states; durable by its asynchronous SQLite persister.

`burr_wal` is the same with the file put into write-ahead mode by us beforehand. Maps over states need its tracking extra to be
installed, though nothing is tracked here; they are shown in memory only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import Any

from burr.core import ApplicationBuilder, ApplicationContext, State, action, expr
from burr.core.parallelism import MapStates
from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister

from bench.overhead.serve import Sample, Shape, Stopwatch, expect, serve


@action(reads=["value"], writes=["value"])
async def increment(state: State) -> State:
    return state.update(value=state["value"] + 1)


@action(reads=["value"], writes=["value"])
async def double(state: State) -> State:
    return state.update(value=2 * state["value"])


@action(reads=["value"], writes=[])
async def end(state: State) -> State:
    return state


class Fanout(MapStates):
    def is_async(self) -> bool:
        return True

    def action(self, state: State, inputs: dict[str, Any]) -> Any:
        return double

    async def states(self, state: State, context: ApplicationContext, inputs: dict[str, Any]) -> AsyncGenerator[State, None]:
        for value in range(state["size"]):
            yield state.update(value=value)

    async def reduce(self, state: State, states: AsyncGenerator[State, None]) -> State:
        return state.update(total=sum([finished["value"] async for finished in states]))

    @property
    def reads(self) -> list[str]:
        return ["size"]

    @property
    def writes(self) -> list[str]:
        return ["total"]


def chain_application(size: int) -> ApplicationBuilder:
    return (
        ApplicationBuilder()
        .with_actions(increment=increment, end=end)
        .with_transitions(("increment", "increment", expr(f"value < {size}")), ("increment", "end"))
        .with_state(value=0)
        .with_entrypoint("increment")
    )


async def memory_chain(size: int, _: Path) -> Sample:
    application = await chain_application(size).abuild()
    with Stopwatch() as watch:
        *_rest, state = await application.arun(halt_after=["end"])
    expect(state["value"], size)
    return Sample(watch.seconds)


async def memory_fanout(size: int, _: Path) -> Sample:
    builder = ApplicationBuilder().with_actions(fanout=Fanout(), end=end.bind()).with_transitions(("fanout", "end"))
    application = await builder.with_state(size=size, value=0).with_entrypoint("fanout").abuild()
    with Stopwatch() as watch:
        *_rest, state = await application.arun(halt_after=["fanout"])
    expect(state["total"], size * (size - 1))
    return Sample(watch.seconds)


def durable_chain(wal: bool) -> Shape:
    async def run(size: int, place: Path) -> Sample:
        file = str(place / "burr.db")
        if wal:
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA journal_mode=wal")
        persister = await AsyncSQLitePersister.from_values(db_path=file, table_name="burr_state")
        async with persister:
            await persister.initialize()
            application = (
                await chain_application(size).with_state_persister(persister).with_identifiers(app_id="bench").abuild()
            )
            with Stopwatch() as watch:
                *_rest, state = await application.arun(halt_after=["end"])
        expect(state["value"], size)
        return Sample(watch.seconds)

    return run


if __name__ == "__main__":
    serve(
        {
            "burr": {"memory_chain": memory_chain, "memory_fanout": memory_fanout, "durable_chain": durable_chain(wal=False)},
            "burr_wal": {"durable_chain": durable_chain(wal=True)},
        }
    )
