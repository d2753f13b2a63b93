"""Brings a database to the schema this version of Fairlead uses.

Two ways lead there: a fresh database gets all tables at once, an older one is led through the revisions by alembic. A test
holds the two equal. alembic takes a third of a second to import, so it is imported only when there is a revision to run.

A revision is a file `versions/rNNNN_name.py`, written by hand; its number is added to `REVISIONS`.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, false, inspect, select

from ....errors import StoreError
from ..tables import metadata

REVISIONS = ("0001",)
"""Every revision, oldest first. The last is the schema of `tables`."""

HEAD = REVISIONS[-1]

VERSION_TABLE = "fairlead_version"
"""Not alembic's default name, so that an application that uses alembic can have its tables in the same database."""

_LOCK_KEY = 0x666C6561  # Any number that is ours: PostgreSQL's advisory locks are numbered per database.

_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def migrate(connection: Connection, where: str) -> None:
    """Bring the database to `HEAD`, inside the connection's transaction and alone.

    On SQLite the transaction must hold the write lock. Raises `StoreError` for a schema newer than this version knows.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
    found = current_revision(connection)
    if found == HEAD:
        # Deletes nothing, but fails if the database is read-only: better now than at the first record.
        connection.execute(delete(_version).where(false()))
        return
    if found is None:
        _create(connection, where)
    elif found in REVISIONS:
        upgrade(connection)
    else:
        raise StoreError(
            f"database {where} has schema version {found}; this fairlead knows versions up to {HEAD}",
            hint="upgrade fairlead (pip install --upgrade fairlead), or name another database with --db",
        )


def current_revision(connection: Connection) -> str | None:
    """The revision a database is at; None if it is not one of ours yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(_version.c.version_num)).scalar()


def upgrade(connection: Connection, target: str = "head") -> None:
    """Run alembic's revisions up to `target` in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    command.upgrade(config, target)


def _create(connection: Connection, where: str) -> None:
    foreign = sorted(set(metadata.tables) & set(inspect(connection).get_table_names()))
    if foreign:
        raise StoreError(
            f"database {where} already has tables of another application ({', '.join(foreign)})",
            hint="give Fairlead a database of its own with --db",
        )
    metadata.create_all(connection, checkfirst=False)
    _version.create(connection)
    connection.execute(_version.insert().values(version_num=HEAD))
