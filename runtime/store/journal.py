"""The port to the durable record.

Writing is ordered and does not wait: `append` queues records and returns; what is appended first is durable first, and a
batch is durable as a whole. `flushed` is how a caller waits, before an effect that must not run twice. Watchers see an
event only after it is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .records import CachedRecord, EventRecord, History, ProgramRecord, Record


class Journal(Protocol):
    """The durable record of programs. One writer per process; safe to call from the event loop's thread only."""

    def append(self, *records: Record) -> None:
        """Queue records, in order, to be written together. Returns at once.

        A failed write is reported by the next `flushed`, and by every one after it.
        """

    async def flushed(self) -> None:
        """Return when everything appended before this call is durable. Raises `StoreError` if it cannot be."""

    def watch(self, watcher: Callable[[EventRecord], None]) -> Callable[[], None]:
        """Call `watcher` with every event once it is durable; the returned function stops that."""

    async def history(self, program_id: str) -> History | None:
        """Everything known of a program, or None."""

    async def program(self, program_id: str) -> ProgramRecord | None:
        """The record of one program alone, root or child; None if there is none."""

    async def programs(
        self, *, states: tuple[str, ...] = (), workflow: str | None = None, parent_id: str | None = None, limit: int = 100
    ) -> list[ProgramRecord]:
        """Programs, newest first. `parent_id` asks for the children of a program instead of root programs."""

    async def events(self, program_id: str, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """Events of a program with a number greater than `after`, in order."""

    async def conversation(self, link: str) -> list[bytes]:
        """The messages (canonical JSON) of the conversation that ends with this link, first message first."""

    async def part(self, digest: str) -> bytes | None:
        """The content of a part."""

    async def cached(self, key: str, now: float) -> CachedRecord | None:
        """A step result kept under this key and not expired at `now`."""

    async def claim(self, program_id: str, owner: str, now: float, stale_before: float) -> bool:
        """Make `owner` the process that runs the program, if nobody does or its owner was last seen before `stale_before`.

        Atomic over processes. Returns whether the claim holds.
        """

    async def seen(self, owner: str, now: float) -> None:
        """Note that the owner of programs lives."""

    async def request(self, program_id: str, kind: str, now: float) -> None:
        """Ask whatever process runs a root program for something (`cancel`). Durable on return; asked once per kind."""

    async def requests(self, owner: str) -> list[tuple[str, str]]:
        """(program id, kind) of what is asked of the programs that this owner runs; each is given once."""

    async def prune(self, ended_before: float) -> int:
        """Delete root programs that ended before this time, with all that belongs to them alone; return how many."""

    async def close(self) -> None:
        """Write what is queued and close. Raises `StoreError` if that fails."""
