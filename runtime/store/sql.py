"""The journal in a SQL database: SQLite or PostgreSQL, with the same code.

This is the event loop's side: it hands records to the writer's thread, keeps count of what is durable, and wakes who waits
for it. Questions wait until what was appended before them is durable, then go through the asynchronous engine.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import anyio
from sqlalchemy import Connection

from ...errors import StoreError
from ..clock import Clock, SystemClock
from . import owning, pruning
from .connecting import Place, make_folder, reading_engine, writing_engine
from .journal import Journal
from .migrations import migrate
from .reader import Reader
from .records import CachedRecord, EventRecord, History, ProgramRecord, Record
from .sizes import size_of
from .watching import Watchers
from .writer import Entry, Limits, Writer

_T = TypeVar("_T")

# While somebody waits and nothing gets durable, the loop stands still for `_LEND_S` every `_LEND_EVERY_S`. A loop that is busy
# with short turns gives up the interpreter's lock for moments too short for another thread to catch: without this, the
# writer could starve for seconds, until the loop has nothing left to do.
_LEND_EVERY_S = 0.001
_LEND_S = 0.0003


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
        self._lending: asyncio.TimerHandle | None = None
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
        if self._lending is None:
            self._lending = self._loop.call_later(_LEND_EVERY_S, self._lend, self._durable)
        await future

    def watch(self, watcher: Callable[[EventRecord], None]) -> Callable[[], None]:
        return self._watchers.add(watcher)

    async def history(self, program_id: str) -> History | None:
        await self.flushed()
        return await self._reader.history(program_id)

    async def program(self, program_id: str) -> ProgramRecord | None:
        await self.flushed()
        return await self._reader.program(program_id)

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
        return await self._perform(
            partial(owning.claim, program_id=program_id, owner=owner, now=now, stale_before=stale_before)
        )

    async def seen(self, owner: str, now: float) -> None:
        await self._perform(partial(owning.note_seen, owner=owner, now=now))

    async def request(self, program_id: str, kind: str, now: float) -> None:
        await self._perform(partial(owning.ask, program_id=program_id, kind=kind, now=now))

    async def requests(self, owner: str) -> list[tuple[str, str]]:
        # Asked often and hardly ever answered: looking takes no lock.
        if not await self._reader.is_asked(owner):
            return []
        return await self._perform(partial(owning.take_requests, owner=owner))

    async def prune(self, ended_before: float) -> int:
        """As the port says. Shared content stays if it was stored, or stored again, after `ended_before` (less ten
        minutes): a program that has just stored it may be about to refer to it. A later prune takes it."""
        await self.flushed()
        return await asyncio.to_thread(pruning.prune, self._engine, self._where, ended_before)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._lending is not None:
            self._lending.cancel()
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

    async def _perform(self, work: Callable[[Connection], _T], tries: int | None = None) -> _T:
        """Do work in a transaction on the writer's thread, after everything appended before."""
        self._check()
        return await asyncio.wrap_future(self._writer.perform(work, tries=tries or self._limits.tries))

    def _lend(self, durable_before: int) -> None:
        """Let the writer have the interpreter for a moment if it has written nothing since the last time."""
        if not self._waiting:
            self._lending = None
            return
        if self._durable == durable_before:
            time.sleep(_LEND_S)
        self._lending = self._loop.call_later(_LEND_EVERY_S, self._lend, self._durable)

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
