"""The journal in a SQL database: SQLite or PostgreSQL, with the same code.

This is the event loop's side: it hands records to the writer's thread, keeps count of what is durable, and wakes who waits
for it. Questions wait until what was appended before them is durable, then go through the asynchronous engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import anyio
from sqlalchemy import Connection, or_, update

from ...errors import StoreError
from ..clock import Clock, SystemClock
from . import pruning
from .connecting import Place, make_folder, reading_engine, writing_engine
from .journal import Journal
from .migrations import migrate
from .reader import Reader
from .records import CachedRecord, EventRecord, History, ProgramRecord, Record
from .sizes import size_of
from .tables import programs
from .watching import Watchers
from .writer import Entry, Limits, Writer

_T = TypeVar("_T")


class SqlJournal(Journal):
    """A `Journal` in a database. Opened with `open`; to be used on the event loop's thread it was opened on.

    `append` waits, blocking the loop, while more than `Limits.queue_records` or `queue_bytes` are queued: better to stand
    still than to lose records or grow without bound. What `prune` may delete of shared content is decided by `clock`.
    """

    def __init__(self, place: Place, *, limits: Limits, clock: Clock) -> None:
        self._loop = asyncio.get_running_loop()
        self._where = place.name
        self._limits = limits
        self._engine = writing_engine(place, limits.lock_wait_s)
        self._reader = Reader(reading_engine(place, limits.lock_wait_s), self._where)
        self._watchers = Watchers()
        self._appended = 0
        self._durable = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._failure: StoreError | None = None
        self._closed = False
        self._writer = Writer(
            self._engine, self._where, limits=limits, clock=clock, written=self._tell_written, failed=self._tell_failed
        )

    @classmethod
    async def open(
        cls,
        place: Place,
        *,
        limits: Limits = Limits(),
        clock: Clock = SystemClock(),
    ) -> SqlJournal:
        """Connect, and bring the schema up to date. Raises `StoreError` if the database cannot be used."""
        make_folder(place)
        journal = cls(place, limits=limits, clock=clock)
        try:
            await journal._perform(lambda connection: migrate(connection, journal._where), limits.opening_tries)
        except BaseException:
            await journal.close()
            raise
        return journal

    def append(self, *records: Record) -> None:
        if self._closed:
            raise StoreError("the journal is closed", hint="keep it open until every program has ended")
        self._writer.put(Entry(records, size_of(records)))
        self._appended += 1

    async def flushed(self) -> None:
        self._check()
        if self._durable == self._appended:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((self._appended, future))
        await future

    def watch(self, watcher: Callable[[EventRecord], None]) -> Callable[[], None]:
        return self._watchers.add(watcher)

    async def history(self, program_id: str) -> History | None:
        await self.flushed()
        return await self._reader.history(program_id)

    async def programs(
        self, *, states: tuple[str, ...] = (), workflow: str | None = None, parent_id: str | None = None, limit: int = 100
    ) -> list[ProgramRecord]:
        await self.flushed()
        return await self._reader.programs(states=states, workflow=workflow, parent_id=parent_id, limit=limit)

    async def events(self, program_id: str, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        await self.flushed()
        return await self._reader.events(program_id, after=after, limit=limit)

    async def conversation(self, link: str) -> list[bytes]:
        await self.flushed()
        return await self._reader.conversation(link)

    async def part(self, digest: str) -> bytes | None:
        await self.flushed()
        return await self._reader.part(digest)

    async def cached(self, key: str, now: float) -> CachedRecord | None:
        await self.flushed()
        return await self._reader.cached(key, now)

    async def claim(self, program_id: str, owner: str, now: float, stale_before: float) -> bool:
        free = or_(
            programs.c.owner.is_(None),
            programs.c.owner == owner,
            programs.c.owner_seen_at.is_(None),
            programs.c.owner_seen_at < stale_before,
        )
        take = update(programs).where(programs.c.id == program_id, free).values(owner=owner, owner_seen_at=now)
        self._check()
        return await self._perform(lambda connection: connection.execute(take).rowcount == 1, self._limits.tries)

    async def prune(self, ended_before: float) -> int:
        """As the port says. Shared content stays if it was stored, or stored again, after `ended_before` (less ten
        minutes): a program that has just stored it may be about to refer to it. A later prune takes it."""
        await self.flushed()
        return await asyncio.to_thread(pruning.prune, self._engine, self._where, ended_before)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(self._writer.join)
            await self._reader.close()
            self._engine.dispose()
        # The writer's last report came before: it was handed to the loop before the thread ended.
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise StoreError(self._failure.message, hint=self._failure.hint)

    async def _perform(self, work: Callable[[Connection], _T], tries: int) -> _T:
        """Do work in a transaction on the writer's thread, after everything appended before."""
        return await asyncio.wrap_future(self._writer.perform(work, tries=tries))

    def _tell_written(self, entries: int, events: Sequence[EventRecord]) -> None:
        # Once the loop is closed nobody waits any more; the thread still writes what is queued.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_written, entries, events)

    def _tell_failed(self, error: StoreError) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_failed, error)

    def _on_written(self, entries: int, events: Sequence[EventRecord]) -> None:
        self._durable += entries
        self._watchers.tell(events)
        while self._waiting and self._waiting[0][0] <= self._durable:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def _on_failed(self, error: StoreError) -> None:
        self._failure = error
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(StoreError(error.message, hint=error.hint))
