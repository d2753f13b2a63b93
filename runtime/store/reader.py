"""Questions to the journal's tables, answered through SQLAlchemy's asynchronous engine. Changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from sqlalchemy import Select, Table, case, func, literal, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ...errors import StoreError
from .faults import store_error
from .ordering import history_of, newest_first
from .packing import unpack
from .records import (
    CachedRecord,
    CallRecord,
    EventRecord,
    History,
    ObservationRecord,
    ProgramRecord,
    StepRecord,
    ToolCallRecord,
)
from .tables import cached, calls, events, links, observations, owners, parts, programs, requests, steps, tool_calls

_Row: TypeAlias = Sequence[Any]
"""A row as the driver gives it; what its columns hold is known to the table, not to the type checker."""


class Reader:
    """Reads what is durable. Each question sees one state of the database. Raises `StoreError` when it cannot read."""

    def __init__(self, engine: AsyncEngine, where: str) -> None:
        self._engine = engine
        self._where = where

    async def history(self, program_id: str) -> History | None:
        async with self._connect() as connection:
            program = await _one(connection, _programs().where(programs.c.id == program_id))
            if program is None:
                return None
            return history_of(
                ProgramRecord(*program),
                steps=[StepRecord(*row) for row in await _of_program(connection, steps, program_id)],
                calls=[_call(row) for row in await _of_program(connection, calls, program_id)],
                tool_calls=[ToolCallRecord(*row) for row in await _of_program(connection, tool_calls, program_id)],
                observations=[ObservationRecord(*row) for row in await _of_program(connection, observations, program_id)],
                last_seq=await _last_seq(connection, program_id),
            )

    async def program(self, program_id: str) -> ProgramRecord | None:
        async with self._connect() as connection:
            row = await _one(connection, _programs().where(programs.c.id == program_id))
        return None if row is None else ProgramRecord(*row)

    async def programs(
        self, *, states: tuple[str, ...], workflow: str | None, parent_id: str | None, limit: int
    ) -> list[ProgramRecord]:
        query = _programs().where(programs.c.parent_id == parent_id)
        if states:
            query = query.where(programs.c.state.in_(states))
        if workflow is not None:
            query = query.where(programs.c.workflow == workflow)
        by_id = programs.c.id if self._engine.dialect.name == "sqlite" else programs.c.id.collate("C")
        query = query.order_by(programs.c.created_at.desc(), by_id).limit(limit)
        async with self._connect() as connection:
            return sorted((ProgramRecord(*row) for row in await connection.execute(query)), key=newest_first)

    async def events(self, program_id: str, *, after: int, limit: int) -> list[EventRecord]:
        query = select(events).where(events.c.program_id == program_id, events.c.seq > after)
        async with self._connect() as connection:
            return [EventRecord(*row) for row in await connection.execute(query.order_by(events.c.seq).limit(limit))]

    async def conversation(self, link: str) -> list[bytes]:
        async with self._connect() as connection:
            rows = (await connection.execute(_chain_of(link))).all()
        # An unbroken chain has every message, and its last row (the first message) has no parent.
        if not rows or rows[-1].parent is not None or any(row.content is None for row in rows):
            raise StoreError(f"the conversation that ends with link {link} is not whole in database {self._where}")
        return [unpack(row.content) for row in reversed(rows)]

    async def part(self, digest: str) -> bytes | None:
        async with self._connect() as connection:
            row = await _one(connection, select(parts.c.content).where(parts.c.digest == digest))
        return None if row is None else unpack(row[0])

    async def cached(self, key: str, now: float) -> CachedRecord | None:
        query = select(cached).where(cached.c.key == key, cached.c.expires_at.is_(None) | (cached.c.expires_at > now))
        async with self._connect() as connection:
            row = await _one(connection, query)
        return None if row is None else CachedRecord(*row)

    async def is_asked(self, owner: str) -> bool:
        """Whether anything is asked of the programs that this owner runs."""
        query = select(requests.c.kind).join(programs, programs.c.id == requests.c.program_id).where(programs.c.owner == owner)
        async with self._connect() as connection:
            return await _one(connection, query.limit(1)) is not None

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise store_error(error, self._where) from error


def _programs() -> Select[*tuple[Any, ...]]:
    """Programs, with the last time their owner was seen wherever that is noted."""
    noted, own = owners.c.seen_at, programs.c.owner_seen_at
    seen_at = case((noted > own, noted), else_=func.coalesce(own, noted))
    columns = [seen_at if column is own else column for column in programs.c]
    return select(*columns).outerjoin(owners, owners.c.owner == programs.c.owner)


def _chain_of(link: str) -> Select[tuple[str | None, bytes | None]]:
    """The links from this one back to the first, with their content, in that order: one query however long the chain."""
    last = select(links.c.parent, links.c.part, literal(0).label("back")).where(links.c.digest == link)
    chain = last.cte("chain", recursive=True)
    before = select(links.c.parent, links.c.part, chain.c.back + 1).where(links.c.digest == chain.c.parent)
    chain = chain.union_all(before)
    with_content = chain.outerjoin(parts, parts.c.digest == chain.c.part)
    return select(chain.c.parent, parts.c.content).select_from(with_content).order_by(chain.c.back)


async def _one(connection: AsyncConnection, query: Select[*tuple[Any, ...]]) -> _Row | None:
    return (await connection.execute(query)).first()


async def _of_program(connection: AsyncConnection, table: Table, program_id: str) -> Iterable[_Row]:
    return await connection.execute(select(table).where(table.c.program_id == program_id))


async def _last_seq(connection: AsyncConnection, program_id: str) -> int:
    row = await _one(connection, select(func.max(events.c.seq)).where(events.c.program_id == program_id))
    return row[0] or 0 if row else 0


def _call(row: _Row) -> CallRecord:
    call = CallRecord(*row)
    return call if call.answer is None else replace(call, answer=unpack(call.answer))
