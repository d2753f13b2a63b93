"""Every kind of journal, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from fairlead.runtime.store import Journal, MemoryJournal
from fairlead.runtime.store.connecting import place_of
from fairlead.runtime.store.sql import SqlJournal
from tests.unit.runtime.store.building import SetClock

OpenJournal: TypeAlias = Callable[[], Awaitable[SqlJournal]]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def clock() -> SetClock:
    """The clock of the journals below."""
    return SetClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> AsyncIterator[Journal]:
    """An empty journal of each kind."""
    if request.param == "memory":
        memory = MemoryJournal(clock=clock)
        yield memory
        await memory.close()
        return
    url = f"{tmp_path}/journal.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    opened = await SqlJournal.open(place_of(url), clock=clock)
    yield opened
    await opened.close()
