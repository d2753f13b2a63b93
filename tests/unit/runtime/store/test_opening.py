"""Which URL opens what, and what is said when nothing can be opened."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.errors import ConfigurationError, StoreError
from fairlead.runtime.store import MemoryJournal, connecting, open_journal
from fairlead.runtime.store.connecting import place_of
from fairlead.runtime.store.sql import SqlJournal
from fairlead.runtime.store.writer import Limits
from tests.unit.runtime.store.building import program

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("url", [None, "memory:"])
async def test_no_url_means_memory(url: str | None) -> None:
    assert isinstance(await open_journal(url), MemoryJournal)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("runs.db", "runs.db"),
        ("some/runs.sqlite3", "some/runs.sqlite3"),
        ("sqlite:///runs", "runs"),
        ("sqlite:////var/runs.db", "/var/runs.db"),
        ("sqlite+aiosqlite:///runs.db", "runs.db"),
        ("postgresql://user:secret@host:5433/runs", "postgresql://user:***@host:5433/runs"),
        ("postgresql+psycopg://host/runs", "postgresql+psycopg://host/runs"),
    ],
)
def test_a_url_means_one_database(url: str, name: str) -> None:
    assert place_of(url).name == name


@pytest.mark.parametrize(
    "url",
    [
        "runs",
        "",
        "mysql://host/runs",
        "postgresql+asyncpg://host/runs",
        "sqlite://",
        "sqlite:///:memory:",
        "://",
        "postgresql://host:x/",
    ],
)
async def test_other_urls_are_refused_with_those_that_work(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        await open_journal(url)
    assert "sqlite:///path" in str(refusal.value.hint)


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="psycopg") as refusal:
        place_of("postgresql://host/runs")
    assert refusal.value.hint == "pip install 'fairlead[postgres]'"


async def test_folders_of_a_new_file_are_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "runs.db"
    journal = await open_journal(str(path))
    await journal.close()
    assert path.exists()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"the folder of database .*/file/runs\.db cannot be created"):
        await open_journal(str(tmp_path / "file" / "runs.db"))


async def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs.db").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        await open_journal(str(tmp_path / "runs.db"))


async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"these are notes, not tables\n" * 100)
    with pytest.raises(StoreError, match=r"notes\.db is not a SQLite database"):
        await open_journal(str(path))
    assert path.read_bytes().startswith(b"these are notes")


async def test_a_file_opened_read_only_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await open_journal(str(path))).close()
    with pytest.raises(StoreError, match="is read-only"):
        await open_journal(f"sqlite:///file:{path}?mode=ro&uri=true")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
async def test_a_file_without_write_permission_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await open_journal(str(path))).close()
    path.chmod(0o444)
    with pytest.raises(StoreError, match="is read-only"):
        await open_journal(str(path))


async def test_a_file_that_stays_locked_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await open_journal(str(path))).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="is locked by another process"):
        await SqlJournal.open(place_of(str(path)), limits=Limits(lock_wait_s=0.01, pause_s=0.001))
    other.close()


async def test_a_server_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(StoreError, match=r"postgresql://me:\*\*\*@127\.0\.0\.1:1/runs cannot be reached") as failure:
        await SqlJournal.open(place_of("postgresql://me:secret@127.0.0.1:1/runs"), limits=Limits(pause_s=0.001))
    assert "secret" not in str(failure.value)


async def test_a_database_that_the_server_does_not_have_is_an_error(postgres_server: str) -> None:
    with pytest.raises(StoreError, match="does not exist on the server"):
        await open_journal(postgres_server.replace("/postgres?", "/nothing?"))


async def test_what_was_written_is_there_when_opened_again(database_url: str) -> None:
    journal = await open_journal(database_url)
    journal.append(program("p"))
    await journal.close()
    again = await open_journal(database_url)
    history = await again.history("p")
    assert history is not None
    assert history.program == program("p")
    await again.close()


def test_records_and_the_memory_journal_need_no_database_library() -> None:
    code = "import sys, fairlead.runtime.store.memory as m; m.MemoryJournal(); sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
