"""Every way to the current schema leads to the same one, and a newer schema is not touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect

from fairlead.errors import StoreError
from fairlead.runtime.store import migrations, open_journal
from fairlead.runtime.store.connecting import place_of, writing_engine
from fairlead.runtime.store.tables import metadata

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = writing_engine(place_of(database_url), lock_wait_s=1.0)
    yield engine
    engine.dispose()


def test_the_revisions_lead_to_the_tables_of_the_code(engine: Engine) -> None:
    with engine.begin() as connection:
        migrations.upgrade(connection)
        assert migrations.current_revision(connection) == migrations.HEAD
        context = MigrationContext.configure(connection, opts={"version_table": migrations.VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_fresh_database_gets_what_the_revisions_give(database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        migrations.migrate(connection, "here")
        assert migrations.current_revision(connection) == migrations.HEAD
        at_once = _schema(connection)
        metadata.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE {migrations.VERSION_TABLE}")
        migrations.upgrade(connection)
        assert _schema(connection) == at_once


def _schema(connection: object) -> dict[str, object]:
    found = inspect(connection)
    assert found is not None
    return {
        name: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(name)],
            found.get_pk_constraint(name)["constrained_columns"],
            sorted((index["name"], index["column_names"]) for index in found.get_indexes(name)),
            found.get_table_options(name),
        )
        for name in found.get_table_names()
    }


def test_the_list_of_revisions_is_that_of_the_files() -> None:
    directory = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert tuple(script.revision for script in reversed(list(directory.walk_revisions()))) == migrations.REVISIONS


def test_migrating_twice_changes_nothing(engine: Engine) -> None:
    for _ in range(2):
        with engine.begin() as connection:
            migrations.migrate(connection, "here")


def test_a_failed_migration_leaves_nothing_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(migrations._version, "create", fail)
    with pytest.raises(RuntimeError), engine.begin() as connection:
        migrations.migrate(connection, "here")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []


async def test_a_newer_schema_is_refused_by_both_versions(database_url: str, engine: Engine) -> None:
    await (await open_journal(database_url)).close()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0999'")
    with pytest.raises(
        StoreError, match=f"schema version 0999; this fairlead knows versions up to {migrations.HEAD}"
    ) as refusal:
        await open_journal(database_url)
    assert "upgrade fairlead" in str(refusal.value.hint)


async def test_tables_of_another_application_are_left_alone(database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE events (mine INTEGER)")
    with pytest.raises(StoreError, match=r"tables of another application \(events\)"):
        await open_journal(database_url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["events"]


def test_a_current_database_is_opened_without_alembic(database_url: str) -> None:
    code = (
        "import anyio, sys\n"
        "from fairlead.runtime.store import open_journal\n"
        "async def main():\n"
        f"    for _ in range(2): await (await open_journal({database_url!r})).close()\n"
        "anyio.run(main)\n"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_processes_that_start_at_once_do_not_disturb_each_other(database_url: str) -> None:
    code = (
        "import anyio, sys\n"
        "from fairlead.runtime.store import open_journal\n"
        "import fairlead.runtime.store.sql\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "async def main():\n"
        f"    await (await open_journal({database_url!r})).close()\n"
        "anyio.run(main)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        process.communicate()
    assert [process.returncode for process in started] == [0, 0, 0, 0]
