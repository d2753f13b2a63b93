"""How records reach the database: in order, together, with retries, and with an error when it cannot be."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.lowlevel
import psycopg
import pytest
from sqlalchemy import event as sqlalchemy_event

from fairlead.errors import StoreError
from fairlead.runtime.store.connecting import place_of
from fairlead.runtime.store.records import EventRecord
from fairlead.runtime.store.sql import SqlJournal
from fairlead.runtime.store.writer import Limits
from tests.unit.runtime.store.building import event, part, program, step

pytestmark = pytest.mark.anyio

_IMPATIENT = Limits(lock_wait_s=0.01, tries=2, opening_tries=1, pause_s=0.001, queue_wait_s=0.02)


@pytest.fixture
async def journal(database_url: str) -> AsyncIterator[SqlJournal]:
    opened = await SqlJournal.open(place_of(database_url), limits=_IMPATIENT)
    yield opened
    if opened._failure is None:
        await opened.close()


class Lock:
    """Keeps every other connection from writing until released."""

    def __init__(self, url: str) -> None:
        self._connection: sqlite3.Connection | psycopg.Connection
        if url.startswith("sqlite"):
            self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
            self._connection.execute("BEGIN IMMEDIATE")
        else:
            self._connection = psycopg.connect(url)
            self._connection.execute("LOCK TABLE programs, events IN EXCLUSIVE MODE")

    def release(self) -> None:
        self._connection.rollback()
        self._connection.close()


async def test_what_is_queued_is_written_in_few_transactions(journal: SqlJournal) -> None:
    commits: list[object] = []
    sqlalchemy_event.listen(journal._engine, "commit", commits.append)
    for seq in range(1, 2001):
        journal.append(step("p", f"node[{seq}]"), event("p", seq))
    await journal.flushed()
    assert len(commits) < 50
    assert len(await journal.events("p", limit=3000)) == 2000


async def test_a_batch_is_bounded(database_url: str) -> None:
    journal = await SqlJournal.open(place_of(database_url), limits=Limits(batch_records=10))
    batches: list[int] = []
    written = journal._writer._written

    def note(entries: int, events: list[EventRecord]) -> None:
        batches.append(len(events))
        written(entries, events)

    journal._writer._written = note  # type: ignore[assignment]
    for seq in range(1, 101):
        journal.append(event("p", seq))
    await journal.close()
    assert sum(batches) == 100
    assert max(batches) <= 10


async def test_records_appended_together_are_written_together(journal: SqlJournal) -> None:
    """The last of them cannot be stored, so the first is not stored either."""
    journal.append(event("p", 1))
    await journal.flushed()
    journal.append(event("p", 2), program("lone surrogate \ud800"))
    with pytest.raises(StoreError):
        await journal.flushed()
    reopened = await SqlJournal.open(place_of(_url_of(journal)))
    assert [known.seq for known in await reopened.events("p")] == [1]
    await reopened.close()


async def test_watchers_see_nothing_before_it_is_durable(journal: SqlJournal, database_url: str) -> None:
    durable: list[bool] = []

    def look(known: EventRecord) -> None:
        with ThreadPoolExecutor(1) as elsewhere:
            durable.append(elsewhere.submit(_has_event, database_url, known.seq).result())

    journal.watch(look)
    for seq in range(1, 6):
        journal.append(event("p", seq))
        await journal.flushed()
    assert durable == [True] * 5


def _append_events(journal: SqlJournal, number: int) -> None:
    for seq in range(1, number + 1):
        journal.append(event("p", seq))


def _has_event(url: str, seq: int) -> bool:
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        found = connection.execute("SELECT 1 FROM events WHERE seq = ?", (seq,)).fetchone()
        connection.close()
        return found is not None
    with psycopg.connect(url) as server:
        return server.execute("SELECT 1 FROM events WHERE seq = %s", (seq,)).fetchone() is not None


async def test_a_lock_that_is_released_in_time_is_waited_out(database_url: str) -> None:
    journal = await SqlJournal.open(place_of(database_url), limits=Limits(lock_wait_s=0.001, tries=30, pause_s=0.001))
    lock = Lock(database_url)
    failed_attempts: list[object] = []

    def release(context: object) -> None:
        failed_attempts.append(context)
        if len(failed_attempts) == 3:
            lock.release()

    sqlalchemy_event.listen(journal._engine, "handle_error", release)
    journal.append(program("p"), event("p", 1))
    await journal.flushed()
    assert len(failed_attempts) == 3
    assert await journal.history("p") is not None
    await journal.close()


async def test_a_lock_that_stays_is_an_error_from_then_on(journal: SqlJournal, database_url: str) -> None:
    lock = Lock(database_url)
    journal.append(program("p"))
    for _ in range(2):
        with pytest.raises(StoreError, match="is locked by another process") as failure:
            await journal.flushed()
        assert failure.value.hint is not None
    lock.release()
    with pytest.raises(StoreError, match="is locked by another process"):
        journal.append(program("q"))
    with pytest.raises(StoreError, match="is locked by another process"):
        await journal.history("p")
    with pytest.raises(StoreError, match="is locked by another process"):
        await journal.claim("p", "one", 1.0, 0.0)
    with pytest.raises(StoreError, match="is locked by another process"):
        await journal.close()


async def test_nothing_is_written_after_a_failure(journal: SqlJournal, database_url: str) -> None:
    """Also not what was queued before the failure was known: it could depend on what is missing."""
    journal.append(event("p", 1))
    await journal.flushed()
    lock = Lock(database_url)
    journal.append(event("p", 2))
    with pytest.raises(StoreError):
        await journal.flushed()
    lock.release()
    with pytest.raises(StoreError):
        await journal.close()
    reopened = await SqlJournal.open(place_of(database_url))
    assert [known.seq for known in await reopened.events("p")] == [1]
    await reopened.close()


async def test_waiting_stops_when_the_write_fails(journal: SqlJournal, database_url: str) -> None:
    lock = Lock(database_url)
    journal.append(program("p"))
    claim = journal.claim("p", "one", 1.0, 0.0)
    with pytest.raises(StoreError, match="is locked"):
        await claim
    lock.release()


async def test_a_full_queue_makes_append_wait_then_fail(database_url: str) -> None:
    limits = Limits(queue_records=100, queue_wait_s=0.02, lock_wait_s=0.2, tries=1)
    journal = await SqlJournal.open(place_of(database_url), limits=limits)
    lock = Lock(database_url)
    with pytest.raises(StoreError, match="takes nothing: 100 records wait"):
        _append_events(journal, 1000)
    lock.release()
    # What was taken before is not lost.
    await journal.flushed()
    assert len(await journal.events("p")) == 100
    await journal.close()


async def test_a_full_queue_makes_append_wait_until_there_is_room(database_url: str) -> None:
    journal = await SqlJournal.open(place_of(database_url), limits=Limits(queue_records=50, batch_records=20))
    for seq in range(1, 1001):
        journal.append(event("p", seq))
    assert len(await journal.events("p")) == 1000
    await journal.close()


async def test_large_content_fills_the_queue_too(database_url: str) -> None:
    limits = Limits(queue_bytes=1_000_000, queue_wait_s=0.02, lock_wait_s=0.2, tries=1)
    journal = await SqlJournal.open(place_of(database_url), limits=limits)
    lock = Lock(database_url)
    journal.append(program("p"), part(b"x" * 2_000_000))
    with pytest.raises(StoreError, match="takes nothing"):
        journal.append(part(b"y"))
    lock.release()
    await journal.close()


async def test_closing_writes_what_is_queued(journal: SqlJournal, database_url: str) -> None:
    for seq in range(1, 101):
        journal.append(event("p", seq))
    await journal.close()
    reopened = await SqlJournal.open(place_of(database_url))
    assert len(await reopened.events("p")) == 100
    await reopened.close()


async def test_a_busy_loop_does_not_starve_the_writer(journal: SqlJournal) -> None:
    """Turns far shorter than the interpreter's switching interval, and always one more to do."""
    busy = True

    async def spin() -> None:
        while busy:
            sum(range(2000))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spin)
        with anyio.fail_after(2):
            for seq in range(1, 41):
                journal.append(event("p", seq))
                await journal.flushed()
        busy = False


async def test_a_full_disk_is_an_error_and_keeps_what_was_confirmed(tmp_path: Path) -> None:
    place = place_of(f"{tmp_path}/journal.db")
    journal = await SqlJournal.open(place)
    journal.append(event("p", 1))
    await journal.flushed()
    await journal._perform(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1").close(), 1)
    journal.append(program("p"), *(part(b"%d " % number * 1000) for number in range(300)))
    with pytest.raises(StoreError, match="the disk is full") as failure:
        await journal.flushed()
    assert str(place.name) in failure.value.message
    with pytest.raises(StoreError, match="the disk is full"):
        await journal.close()
    reopened = await SqlJournal.open(place)
    assert [known.seq for known in await reopened.events("p")] == [1]
    assert await reopened.history("p") is None
    await reopened.close()


async def test_a_lost_connection_is_made_again(postgres_url: str) -> None:
    journal = await SqlJournal.open(place_of(postgres_url))
    journal.append(event("p", 1))
    assert len(await journal.events("p")) == 1
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    journal.append(event("p", 2))
    await journal.flushed()
    assert [known.seq for known in await journal.events("p")] == [1, 2]
    await journal.close()


def _url_of(journal: SqlJournal) -> str:
    return journal._engine.url.render_as_string(hide_password=False)
