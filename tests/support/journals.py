"""A journal whose writing can be cut anywhere: the whole history of a program, to be resumed from each of its prefixes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import patch

from fairlead.runtime.engines.port import Engine
from fairlead.runtime.retries import CallLimits
from fairlead.runtime.runtime import Runtime
from fairlead.runtime.store.memory import MemoryJournal
from fairlead.runtime.store.records import Record


class CuttableJournal(MemoryJournal):
    """Keeps what was appended, in order. Records appended together are durable together, so they are never cut apart."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Record, ...]] = []

    def append(self, *records: Record) -> None:
        super().append(*records)
        self.entries.append(records)

    def cut(self, kept: int) -> CuttableJournal:
        """A journal that a crash left with the first `kept` entries only."""
        journal = CuttableJournal()
        for records in self.entries[:kept]:
            journal.append(*records)
        return journal

    async def close(self) -> None:
        """The journal outlives its runtime: it is looked at afterwards."""


@asynccontextmanager
async def runtime_on(
    journal: MemoryJournal, engine: Engine | str | None = None, *, limits: CallLimits | None = None
) -> AsyncIterator[Runtime]:
    """A runtime that writes into this journal."""

    async def opened(url: str | None) -> MemoryJournal:
        return journal

    with patch("fairlead.runtime.runtime.open_journal", opened):
        async with Runtime(engine=engine, limits=limits) as runtime:
            yield runtime
