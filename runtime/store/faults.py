"""What a database error means: try again, or tell the person what to do. Pure: errors in, decisions out."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError

from ...errors import StoreError

_SQLITE_TRANSIENT = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_OTHER_DATABASE = "or name another database with --db"

_SQLITE: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: ("is locked by another process", "wait until the other process is done, or stop it"),
    sqlite3.SQLITE_LOCKED: ("is locked by another process", "wait until the other process is done, or stop it"),
    sqlite3.SQLITE_READONLY: ("is read-only", f"give write permission for the file and its folder, {_OTHER_DATABASE}"),
    sqlite3.SQLITE_PERM: ("may not be accessed", f"give read and write permission for the file, {_OTHER_DATABASE}"),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "free some space, then resume; what was confirmed is kept"),
    sqlite3.SQLITE_NOTADB: ("is not a SQLite database", f"check the path, {_OTHER_DATABASE}"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", f"restore it from a backup, {_OTHER_DATABASE}"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that it is a file, and that its folder exists and may be written"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written: the disk reports an error", f"check the disk, {_OTHER_DATABASE}"),
}
"""What is wrong and what to do, by primary result code."""

_POSTGRES_TRANSIENT = ("08", "40", "57P01", "57P02", "57P03", "53300", "55P03")
"""Beginnings of SQLSTATE codes: connection, serialisation and deadlock, shutdown and start-up, too many connections, lock."""

_POSTGRES: dict[str, tuple[str, str]] = {
    "3D000": ("does not exist on the server", "create it (createdb), or correct the URL"),
    "28": ("refuses the login", "check user and password in the URL"),
    "42501": ("does not allow this user to write", "grant the user the right to create and change tables"),
    "25006": ("is read-only", f"use the primary server, {_OTHER_DATABASE}"),
    "53100": ("cannot grow: the server's disk is full", "free some space, then resume; what was confirmed is kept"),
    "53300": ("has no connection left", "raise max_connections, or run fewer processes"),
    "55P03": ("is locked by another process", "wait until the other process is done, or stop it"),
    "40": ("was changed by others at the same time, again and again", "run fewer processes on it, then resume"),
    "57P": ("is shutting down or starting", "wait until the server is up, then resume"),
}
"""What is wrong and what to do, by beginning of SQLSTATE."""


def is_transient(error: Exception) -> bool:
    """Whether the same write may succeed a little later."""
    if not isinstance(error, DBAPIError):
        return False
    code = _sqlite_code(error)
    if code is not None:
        return code in _SQLITE_TRANSIENT
    state = _sqlstate(error)
    if state is not None:
        return state.startswith(_POSTGRES_TRANSIENT)
    return error.connection_invalidated or _no_connection(error)


def store_error(error: Exception, where: str) -> StoreError:
    """The error to show for a database error at the database named `where`."""
    if isinstance(error, StoreError):
        return StoreError(error.message, hint=error.hint)
    if not isinstance(error, DBAPIError):
        return StoreError(f"database {where} cannot be used: {type(error).__name__}: {error}")
    detail = str(error.orig).strip().split("\n")[0]
    known = _known(error)
    if known is not None:
        return StoreError(f"database {where} {known[0]} ({detail})", hint=known[1])
    return StoreError(f"database {where} cannot be read or written ({type(error.orig).__name__}: {detail})")


def _known(error: DBAPIError) -> tuple[str, str] | None:
    code = _sqlite_code(error)
    if code is not None:
        return _SQLITE.get(code)
    state = _sqlstate(error)
    if state is not None:
        return next((text for start, text in _POSTGRES.items() if state.startswith(start)), None)
    if _no_connection(error):
        # The reason why a server turned a connection down comes as text only.
        text = str(error.orig)
        if "authentication failed" in text or 'role "' in text:
            return _POSTGRES["28"]
        if "does not exist" in text:
            return _POSTGRES["3D000"]
        return "cannot be reached", "check that the server runs and that host and port in the URL are right"
    return None


def _sqlite_code(error: DBAPIError) -> int | None:
    """The primary result code (the low byte of the extended one) if the error is SQLite's."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _sqlstate(error: DBAPIError) -> str | None:
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None


def _no_connection(error: DBAPIError) -> bool:
    """psycopg reports a connection that failed or broke as an OperationalError without a SQLSTATE."""
    return type(error.orig).__module__.startswith("psycopg") and type(error.orig).__name__ == "OperationalError"
