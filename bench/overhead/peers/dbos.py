"""DBOS on SQLite: as it comes (`dbos`), and with the file put into write-ahead mode by us beforehand (`dbos_wal`).

It has no mode without a database.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from dbos import DBOS

from bench.overhead.serve import Sample, Shape, Stopwatch, expect, serve


@DBOS.step()
async def increment(value: int) -> int:
    return value + 1


@DBOS.step()
async def double(value: int) -> int:
    return 2 * value


@DBOS.workflow()
async def chain(size: int) -> int:
    value = 0
    for _ in range(size):
        value = await increment(value)
    return value


@DBOS.workflow()
async def fanout(size: int) -> int:
    return sum(await asyncio.gather(*(double(value) for value in range(size))))


def durable(wal: bool) -> dict[str, Shape]:
    async def durable_chain(size: int, place: Path) -> Sample:
        launch(place, wal)
        try:
            with Stopwatch() as watch:
                result = await chain(size)
        finally:
            DBOS.destroy()
        expect(result, size)
        return Sample(watch.seconds)

    async def durable_fanout(size: int, place: Path) -> Sample:
        launch(place, wal)
        try:
            with Stopwatch() as watch:
                result = await fanout(size)
        finally:
            DBOS.destroy()
        expect(result, size * (size - 1))
        return Sample(watch.seconds)

    return {"durable_chain": durable_chain, "durable_fanout": durable_fanout}


def launch(place: Path, wal: bool) -> None:
    file = place / "dbos.sqlite"
    if wal:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode=wal")
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{file}", "log_level": "ERROR"})
    DBOS.launch()


if __name__ == "__main__":
    serve({"dbos": durable(wal=False), "dbos_wal": durable(wal=True)})
