"""Deleting ended programs, and the shared content that nobody refers to any more.

By set and in bounded transactions, so that programs that run meanwhile wait for milliseconds only. First go the programs
with all their rows. Then mark and sweep: the links that some remaining call leads to are marked in a temporary table; other
links go, and parts that neither a link nor a call refers to.

What a program stored but does not refer to yet is spared by its time; see `retention`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Table,
    Text,
    case,
    delete,
    exists,
    func,
    insert,
    select,
)

from .faults import is_transient, store_error
from .retention import USE_GRANULARITY_S
from .tables import cached, calls, events, links, observations, owners, parts, programs, requests, steps, tool_calls

_ROOTS_PER_TRANSACTION = 20
_DIGESTS_PER_TRANSACTION = 2_000
_TRIES = 5
_PAUSE_S = 0.05

_OF_PROGRAMS = (steps, calls, tool_calls, observations, events, requests)

_living = Table("living_links", MetaData(), Column("digest", Text, primary_key=True), prefixes=["TEMPORARY"])

_T = TypeVar("_T")


def prune(engine: Engine, where: str, ended_before: float) -> int:
    """Delete root programs that ended before this time, and content nobody needs. Returns the number of root programs.

    Blocks its thread. Raises `StoreError`; what was deleted until then stays deleted, and a later prune does the rest.
    """
    try:
        with engine.connect() as connection:
            pruned = 0
            while gone := _transaction(connection, lambda within: _delete_programs(within, ended_before)):
                pruned += gone
            _mark(connection)
            _sweep(connection, links, ~_is_living(), ended_before)
            _sweep(connection, parts, ~_is_used(), ended_before)
            _transaction(connection, lambda within: _delete_outlived(within, ended_before))
            _living.drop(connection)
            connection.commit()
            return pruned
    except Exception as error:
        raise store_error(error, where) from error


def _transaction(connection: Connection, work: Callable[[Connection], _T]) -> _T:
    left, pause = _TRIES, _PAUSE_S
    while True:
        left -= 1
        try:
            with connection.begin():
                return work(connection)
        except Exception as error:
            # A new connection would not have the temporary table: only locks and conflicts are worth another try.
            if left <= 0 or connection.invalidated or not is_transient(error):
                raise
        time.sleep(pause)
        pause *= 2


def _delete_programs(connection: Connection, ended_before: float) -> int:
    ended = select(programs.c.id).where(programs.c.parent_id.is_(None), programs.c.ended_at < ended_before)
    # Oldest first: the index gives them in this order, so the search stops early.
    roots = connection.scalars(ended.order_by(programs.c.created_at).limit(_ROOTS_PER_TRANSACTION)).all()
    if not roots:
        return 0
    family = select(programs.c.id).where(programs.c.root_id.in_(roots))
    for table in _OF_PROGRAMS:
        connection.execute(delete(table).where(table.c.program_id.in_(family)))
    connection.execute(delete(programs).where(programs.c.root_id.in_(roots)))
    return len(roots)


def _delete_outlived(connection: Connection, ended_before: float) -> None:
    """Delete expired results, and owners that run nothing any more."""
    connection.execute(delete(cached).where(cached.c.expires_at < ended_before))
    running = exists().where(programs.c.owner == owners.c.owner)
    connection.execute(delete(owners).where(owners.c.seen_at < ended_before, ~running))


def _mark(connection: Connection) -> None:
    """Note every link from which a call's conversation is made. Takes no lock that others wait for."""
    living = select(calls.c.conversation.label("digest")).where(calls.c.conversation.is_not(None)).cte("living", recursive=True)
    before = select(links.c.parent).where(links.c.digest == living.c.digest, links.c.parent.is_not(None))
    living = living.union(before)
    connection.execution_options(reading=True)
    with connection.begin():
        _living.create(connection)
        connection.execute(insert(_living).from_select(["digest"], select(living.c.digest)))
    connection.execution_options(reading=False)


def _is_living() -> ColumnElement[bool]:
    return exists().where(_living.c.digest == links.c.digest)


def _is_used() -> ColumnElement[bool]:
    return exists().where(links.c.part == parts.c.digest) | exists().where(calls.c.params == parts.c.digest)


def _sweep(connection: Connection, table: Table, unused: ColumnElement[bool], ended_before: float) -> None:
    """Delete the unused rows of a table of shared content, walking it by digest."""
    after = ""
    while (last := _transaction(connection, partial(_end_of_page, table=table, after=after))) is not None:
        swept = delete(table).where(
            table.c.digest > after, table.c.digest <= last, table.c.used_at < _swept_before(ended_before), unused
        )
        _transaction(connection, partial(Connection.execute, statement=swept))
        after = last


def _end_of_page(connection: Connection, *, table: Table, after: str) -> str | None:
    page = select(table.c.digest).where(table.c.digest > after).order_by(table.c.digest).limit(_DIGESTS_PER_TRANSACTION)
    end: str | None = connection.scalar(select(func.max(page.subquery().c.digest)))
    return end


def _swept_before(ended_before: float) -> ColumnElement[float]:
    """`retention.swept_before`, decided in the statement that deletes: it must see every program whose content it sees."""
    oldest_open = select(func.min(programs.c.created_at)).where(programs.c.ended_at.is_(None)).scalar_subquery()
    since = func.coalesce(oldest_open, ended_before)
    return case((since < ended_before, since), else_=ended_before) - USE_GRANULARITY_S
