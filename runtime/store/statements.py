"""From records to rows: what is written for each kind of record, in as few statements as possible.

Statements are compiled by SQLAlchemy once, for one row, and then repeated over many rows of values. One statement for many
rows, and not one execution per row, because the driver releases the interpreter's lock around each execution: with a busy
event loop beside it, a writer that executes row by row would get one row done per turn of the loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import Connection, Dialect, Table, literal_column
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import Insert

from . import tables
from .packing import pack
from .records import (
    CachedRecord,
    CallRecord,
    EventRecord,
    LinkRecord,
    ObservationRecord,
    PartRecord,
    ProgramRecord,
    Record,
    StepRecord,
    ToolCallRecord,
)
from .retention import USE_GRANULARITY_S

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

Row: TypeAlias = tuple[object, ...]
RowMaker: TypeAlias = Callable[[Record, float], Row]
"""The row of a record, in the order of the table's columns, at a time (seconds since the epoch)."""

ROWS_PER_STATEMENT = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
"""A few sizes only, so that the drivers' caches of prepared statements hold all of them."""

TABLES: dict[type[Record], Table] = {
    ProgramRecord: tables.programs,
    StepRecord: tables.steps,
    CallRecord: tables.calls,
    ToolCallRecord: tables.tool_calls,
    ObservationRecord: tables.observations,
    PartRecord: tables.parts,
    LinkRecord: tables.links,
    EventRecord: tables.events,
    CachedRecord: tables.cached,
}

_WRITTEN_ONCE: frozenset[type[Record]] = frozenset({PartRecord, LinkRecord, EventRecord})
_SHARED: frozenset[type[Record]] = frozenset({PartRecord, LinkRecord})


def rendering_dialect(name: str) -> Dialect:
    """The dialect to compile with for `sqlite` or `postgresql`; both with positional parameters."""
    if name == "sqlite":
        return sqlite.dialect()
    # Imported only when wanted: 30 ms that a program on SQLite need not wait.
    from sqlalchemy.dialects.postgresql import psycopg

    return psycopg.dialect(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


class Statements:
    """The upserts of every kind of record for one database. Not safe to use from two threads."""

    def __init__(self, dialect: Dialect) -> None:
        self._kinds = {kind: _Kind(kind, table, dialect) for kind, table in TABLES.items()}

    def write(self, connection: Connection, batch: Iterable[Record], now: float) -> list[EventRecord]:
        """Write records inside the connection's transaction and return the events among them, in order.

        Of records with the same key the last is written (the first, where records are written once).
        """
        chosen: defaultdict[type[Record], dict[object, Record]] = defaultdict(dict)
        kinds = self._kinds
        for record in batch:
            kind = kinds[type(record)]
            if kind.once:
                chosen[type(record)].setdefault(kind.key(record), record)
            else:
                chosen[type(record)][kind.key(record)] = record
        for of, by_key in chosen.items():
            # Processes that store the same parts take their row locks in one order, or PostgreSQL would see deadlocks.
            records = [by_key[key] for key in sorted(by_key, key=str)] if of in _SHARED else list(by_key.values())
            kinds[of].write(connection, records, now)
        return [record for record in chosen[EventRecord].values() if isinstance(record, EventRecord)]


class _Kind:
    """How one kind of record is written."""

    def __init__(self, kind: type[Record], table: Table, dialect: Dialect) -> None:
        self.once = kind in _WRITTEN_ONCE
        self.key: Callable[[Record], object] = attrgetter(*table.primary_key.columns.keys())
        self._row = _row_maker(kind)
        compiled = str(_upsert(kind, table, dialect.name).compile(dialect=dialect))
        self._head, rest = compiled.split(" VALUES ", 1)
        self._values, self._tail = rest.split(" ON CONFLICT ", 1)
        self._texts = {size: self._text(size) for size in ROWS_PER_STATEMENT}

    def _text(self, rows: int) -> str:
        return f"{self._head} VALUES {', '.join([self._values] * rows)} ON CONFLICT {self._tail}"

    def write(self, connection: Connection, records: Sequence[Record], now: float) -> None:
        remaining = len(records)
        row = self._row
        rows = iter(records)
        for size in ROWS_PER_STATEMENT:
            while remaining >= size:
                values = chain.from_iterable([row(record, now) for record in islice(rows, size)])
                connection.exec_driver_sql(self._texts[size], tuple(values))
                remaining -= size


def _upsert(kind: type[Record], table: Table, dialect: str) -> Insert:
    insert = insert_into(table, dialect)
    keys = table.primary_key.columns.keys()
    if kind in _SHARED:
        stale = table.c.used_at < insert.excluded.used_at - literal_column(str(USE_GRANULARITY_S))
        return insert.on_conflict_do_update(index_elements=keys, set_={"used_at": insert.excluded.used_at}, where=stale)
    if kind in _WRITTEN_ONCE:
        return insert.on_conflict_do_nothing(index_elements=keys)
    rest = {column.name: insert.excluded[column.name] for column in table.columns if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=keys, set_=rest)


def insert_into(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """An insert that can say what to do on a conflict, for `sqlite` or `postgresql`."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def _row_maker(kind: type[Record]) -> RowMaker:
    if kind is PartRecord:
        return _part_row
    if kind is LinkRecord:
        return _link_row
    values = attrgetter(*(field.name for field in fields(kind)))
    if kind is CallRecord:
        before = TABLES[kind].columns.keys().index("answer")
        return lambda record, now: _call_row(values(record), before)
    return lambda record, now: values(record)


def _part_row(record: Record, now: float) -> Row:
    assert isinstance(record, PartRecord)
    return record.digest, pack(record.content), now


def _link_row(record: Record, now: float) -> Row:
    assert isinstance(record, LinkRecord)
    return record.digest, record.parent, record.part, now


def _call_row(values: Row, position: int) -> Row:
    answer = values[position]
    if not isinstance(answer, bytes):
        return values
    return *values[:position], pack(answer), *values[position + 1 :]
