"""Which database a URL means, and how to connect to it: one synchronous engine for writing, one asynchronous for reading."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from ...errors import ConfigurationError, StoreError

BackendName: TypeAlias = Literal["sqlite", "postgresql"]

_CONNECT_S = 10
"""How long to wait for a PostgreSQL server to answer."""

_ACCEPTED = "use sqlite:///path, a path that ends in .db, postgresql://user@host/name, or memory:"
_SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_BACKENDS: dict[str, BackendName] = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A database that a journal can be in."""

    backend: BackendName
    url: URL

    @property
    def name(self) -> str:
        """The database as people may see it: the path of a file, or the URL without its password."""
        return str(self.url.database) if self.backend == "sqlite" else self.url.render_as_string(hide_password=True)


def place_of(url: str) -> Place:
    """The database a URL or path means. Raises `ConfigurationError` if it means none that Fairlead can use."""
    if "://" not in url:
        if not url.endswith(_SQLITE_SUFFIXES):
            raise ConfigurationError(f"{url!r} is not a database URL", hint=_ACCEPTED)
        return Place("sqlite", URL.create("sqlite", database=str(Path(url).expanduser())))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(f"the database URL cannot be read: {error}", hint=_ACCEPTED) from error
    backend = _BACKENDS.get(parsed.drivername)
    if backend is None:
        raise ConfigurationError(f"databases of the kind {parsed.drivername!r} are not supported", hint=_ACCEPTED)
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("the SQLite URL names no file", hint=_ACCEPTED)
    if backend == "postgresql" and find_spec("psycopg") is None:
        raise ConfigurationError(
            "PostgreSQL needs the package psycopg, which is not installed", hint="pip install 'fairlead[postgres]'"
        )
    return Place(backend, parsed)


def make_folder(place: Place) -> None:
    """Create the folder of a SQLite file. Raises `StoreError` if that cannot be."""
    if place.backend != "sqlite" or place.url.query.get("uri"):
        return
    folder = Path(place.name).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder of database {place.name} cannot be created: {error.strerror or error}",
            hint="name another database with --db",
        ) from error


def writing_engine(place: Place, lock_wait_s: float) -> Engine:
    """An engine whose transactions take the write lock when they begin, and are on disk when they have committed.

    A connection with the execution option `reading=True` takes no lock. `lock_wait_s` is how long to wait for a lock.
    """
    if place.backend == "postgresql":
        engine = create_engine(
            place.url.set(drivername="postgresql+psycopg"), poolclass=NullPool, connect_args={"connect_timeout": _CONNECT_S}
        )
        event.listen(engine, "connect", partial(_on_server_connection, lock_wait_s=lock_wait_s))
        return engine
    engine = create_engine(
        place.url.set(drivername="sqlite+pysqlite"),
        poolclass=NullPool,
        # No implicit transactions: the listener below begins them. Threads: see the writer.
        connect_args={"isolation_level": None, "timeout": lock_wait_s, "check_same_thread": False},
    )
    event.listen(engine, "connect", _on_writing_connection)
    event.listen(engine, "begin", _begin_writing)
    return engine


def reading_engine(place: Place, lock_wait_s: float) -> AsyncEngine:
    """An engine whose transactions see one state of the database from beginning to end and change nothing."""
    if place.backend == "postgresql":
        return create_async_engine(
            place.url.set(drivername="postgresql+psycopg"),
            isolation_level="REPEATABLE READ",
            pool_pre_ping=True,
            connect_args={"connect_timeout": _CONNECT_S},
        )
    engine = create_async_engine(
        place.url.set(drivername="sqlite+aiosqlite"), connect_args={"isolation_level": None, "timeout": lock_wait_s}
    )
    event.listen(engine.sync_engine, "connect", _on_reading_connection)
    event.listen(engine.sync_engine, "begin", _begin_reading)
    return engine


def _on_server_connection(connection: DBAPIConnection, _: ConnectionPoolEntry, *, lock_wait_s: float) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = {int(lock_wait_s * 1000)}")
    cursor.close()
    connection.commit()


def _on_writing_connection(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    # The mode is kept in the file; FULL makes every commit wait for the disk.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _on_reading_connection(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def _begin_writing(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
