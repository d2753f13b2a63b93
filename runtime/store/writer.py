"""The thread that writes. Everything queued goes to the database in order, as much as possible in one transaction.

The thread starts a transaction as soon as it is free and something is queued, so a lone record waits for nobody, and under
load the batches grow by themselves (group commit). A synchronous connection in one thread, because through the asynchronous
engine each small commit takes more than twice as long.

A transient failure (lock, lost connection) is retried a bounded number of times with growing pauses. Anything else, or the
last of these, is final: the thread tells the event loop and ends, and nothing queued after that is written, because it could
depend on what was not. Every write is an upsert, so writing a batch again whose commit got lost half-way changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine

from ...errors import StoreError
from ..clock import Clock
from .faults import is_transient, store_error
from .records import EventRecord, Record
from .statements import Statements, rendering_dialect

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a journal's writing."""

    batch_records: int = 5_000
    batch_bytes: int = 8 * 2**20
    queue_records: int = 100_000
    """More than this in the queue and `append` waits for the database."""
    queue_bytes: int = 128 * 2**20
    queue_wait_s: float = 60.0
    """How long `append` waits before it gives up."""
    lock_wait_s: float = 5.0
    """How long one attempt waits for a lock."""
    opening_tries: int = 2
    """Attempts to open the database: fewer, because a person waits and nothing can be lost."""
    tries: int = 6
    """Attempts to write a batch."""
    pause_s: float = 0.05
    """Pause before the second attempt; each later one is twice as long."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Records that were appended together."""

    records: tuple[Record, ...]
    size: int
    """Bytes, roughly."""


@dataclass(frozen=True, slots=True)
class Job(Generic[_T]):
    """Work in a transaction of its own, after everything queued before it. Its failure does not stop the writer."""

    work: Callable[[Connection], _T]
    tries: int
    future: Future[_T]


class _Stop:
    """Asks the thread to end."""


_Queued: TypeAlias = Entry | Job[Any] | _Stop


class Writer:
    """One thread, one connection. `put` and `perform` are called from one other thread only.

    `written` and `failed` are called on the writer's thread: the first with how many more entries are durable and the
    events among them, the second once, when nothing more will be written.
    """

    def __init__(
        self,
        engine: Engine,
        where: str,
        *,
        limits: Limits,
        clock: Clock,
        written: Callable[[int, Sequence[EventRecord]], None],
        failed: Callable[[StoreError], None],
    ) -> None:
        self._engine = engine
        self._where = where
        self._written = written
        self._failed = failed
        self._limits = limits
        self._clock = clock
        self._statements = Statements(rendering_dialect(engine.dialect.name))
        self._queue: SimpleQueue[_Queued] = SimpleQueue()
        self._connection: Connection | None = None
        self.failure: StoreError | None = None
        """Why nothing more is written. Set once, by the thread."""
        # Each pair is counted up by one thread each, so that neither needs a lock; the difference is what is queued.
        self._put_records = self._put_bytes = 0
        self._done_records = self._done_bytes = 0
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="fairlead-journal", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Queue records. Waits (blocking the caller's thread) while the queue is full.

        Raises `StoreError` if the database takes nothing for `queue_wait_s`, or the writer has failed.
        """
        if self.failure is None and self._is_full():
            self._wait_for_room()
        if self.failure is not None:
            raise store_error(self.failure, self._where)
        self._put_records += len(entry.records)
        self._put_bytes += entry.size
        self._queue.put(entry)

    def perform(self, work: Callable[[Connection], _T], *, tries: int) -> Future[_T]:
        """Queue work. Its future fails if the work does (`tries` times), or if the writer has failed."""
        job = Job(work, tries, Future())
        self._queue.put(job)
        if self.failure is not None:
            self._refuse_queued(self.failure)
        return job.future

    def stop(self) -> None:
        """Ask the thread to end when all that is queued is written."""
        self._queue.put(_Stop())

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def _is_full(self) -> bool:
        return (
            self._put_records - self._done_records >= self._limits.queue_records
            or self._put_bytes - self._done_bytes >= self._limits.queue_bytes
        )

    def _wait_for_room(self) -> None:
        with self._room:
            if self._room.wait_for(lambda: self.failure is not None or not self._is_full(), self._limits.queue_wait_s):
                return
        raise StoreError(
            f"database {self._where} takes nothing: {self._put_records - self._done_records} records wait to be written",
            hint="check the disk or the server; what was confirmed is kept, resume when it works again",
        )

    def _run(self) -> None:
        following: _Queued | None = None
        while True:
            taken = following or self._queue.get()
            following = None
            if isinstance(taken, Entry):
                batch, following = self._gather(taken)
                try:
                    self._write(batch)
                except Exception as error:
                    self._fail(store_error(error, self._where), following)
                    return
            elif isinstance(taken, Job):
                self._do(taken)
            else:
                self._disconnect()
                return

    def _gather(self, first: Entry) -> tuple[list[Entry], _Queued | None]:
        """The next batch, and what stands in the queue behind it if that is known."""
        batch = [first]
        records, size = len(first.records), first.size
        while records < self._limits.batch_records and size < self._limits.batch_bytes:
            try:
                taken = self._queue.get_nowait()
            except Empty:
                return batch, None
            if not isinstance(taken, Entry):
                return batch, taken
            batch.append(taken)
            records += len(taken.records)
            size += taken.size
        return batch, None

    def _write(self, batch: list[Entry]) -> None:
        """Write a batch and report it."""
        events: list[EventRecord] = []

        def work(connection: Connection) -> None:
            records = (record for entry in batch for record in entry.records)
            events[:] = self._statements.write(connection, records, self._clock.now())

        self._attempt(work, self._limits.tries)
        self._written(len(batch), events)
        with self._room:
            self._done_records += sum(len(entry.records) for entry in batch)
            self._done_bytes += sum(entry.size for entry in batch)
            self._room.notify_all()

    def _do(self, job: Job[_T]) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            result = self._attempt(job.work, job.tries)
        except Exception as error:
            job.future.set_exception(store_error(error, self._where))
        else:
            job.future.set_result(result)

    def _attempt(self, work: Callable[[Connection], _T], tries: int) -> _T:
        """Do work in a transaction; transient failures are retried. Raises what the last attempt raised."""
        pause = self._limits.pause_s
        left = tries
        while True:
            left -= 1
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                with self._connection.begin():
                    return work(self._connection)
            except Exception as error:
                self._disconnect()
                if left <= 0 or not is_transient(error):
                    raise
            time.sleep(pause)
            pause *= 2

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except Exception:
            # The connection is broken, and why is already known; what matters is not to use it again.
            connection.invalidate()

    def _fail(self, error: StoreError, following: _Queued | None) -> None:
        with self._room:
            self.failure = error
            self._room.notify_all()
        self._disconnect()
        self._failed(error)
        if following is not None:
            self._queue.put(following)
        self._refuse_queued(error)

    def _refuse_queued(self, error: StoreError) -> None:
        """Answer the jobs in the queue with the error and drop the records: `flushed` says that they are not durable."""
        while True:
            try:
                taken = self._queue.get_nowait()
            except Empty:
                return
            if isinstance(taken, Job) and taken.future.set_running_or_notify_cancel():
                taken.future.set_exception(store_error(error, self._where))
