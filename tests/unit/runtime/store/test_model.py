"""Any sequence of records gives the same answers in a database as in memory."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import get_type_hints

import anyio
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fairlead.runtime.store import Journal, MemoryJournal
from fairlead.runtime.store.connecting import Place, place_of
from fairlead.runtime.store.records import (
    CachedRecord,
    CallRecord,
    EventRecord,
    ObservationRecord,
    PartRecord,
    ProgramRecord,
    Record,
    StepRecord,
    ToolCallRecord,
)
from fairlead.runtime.store.sql import SqlJournal
from fairlead.runtime.store.statements import TABLES
from tests.unit.runtime.store.building import SetClock

# Without shrinking: it takes minutes with a database, and a sequence of a few records can be read as it is.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
_NAMES = ("a", "b", "é\u2028 '\"%s?")
# PostgreSQL holds no NUL in text, and UTF-8 no lone surrogates; canonical JSON has neither.
_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
_VALUES: dict[object, st.SearchStrategy[object]] = {
    str: _text,
    int: st.integers(0, 2**31 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bytes: st.binary(max_size=40) | st.integers(500, 5000).map(lambda size: b"x" * size),
    NoneType: st.none(),
}
_FEW: dict[str, st.SearchStrategy[object]] = {
    **{name: st.sampled_from(_NAMES) for name in ("id", "program_id", "root_id", "node", "digest", "key")},
    **{name: st.sampled_from((None, *_NAMES)) for name in ("parent_id", "parent")},
    "attempt": st.integers(1, 2),
    "ordinal": st.integers(-1, 1),
    "seq": st.integers(1, 5),
}
"""Keys have few values, so that records meet."""


def _value(hint: object) -> st.SearchStrategy[object]:
    kinds = getattr(hint, "__args__", (hint,))
    return st.one_of(*(_VALUES[kind] for kind in kinds))


def _record(kind: type[Record]) -> st.SearchStrategy[Record]:
    hints = get_type_hints(kind)
    values = {field.name: _FEW[field.name] if field.name in _FEW else _value(hints[field.name]) for field in fields(kind)}
    return st.builds(kind, **values)


_KINDS = (
    ProgramRecord, StepRecord, CallRecord, ToolCallRecord, ObservationRecord, PartRecord, EventRecord, CachedRecord,
)  # fmt: skip
_batches = st.lists(st.lists(st.one_of([_record(kind) for kind in _KINDS]), max_size=6), max_size=6)


async def _answers(journal: Journal) -> dict[str, object]:
    answers: dict[str, object] = {}
    for name in _NAMES:
        answers[f"history {name}"] = await journal.history(name)
        answers[f"events {name}"] = await journal.events(name)
        answers[f"part {name}"] = await journal.part(name)
        answers[f"cached {name}"] = await journal.cached(name, 0.0)
        answers[f"children {name}"] = await journal.programs(parent_id=name)
    answers["programs"] = await journal.programs()
    return answers


async def _compare(place: Place, batches: list[list[Record]], flush: bool) -> None:
    memory = MemoryJournal(clock=SetClock())
    database = await SqlJournal.open(place, clock=SetClock())
    try:
        for batch in batches:
            memory.append(*batch)
            database.append(*batch)
            if flush:
                await database.flushed()
        assert await _answers(database) == await _answers(memory)
    finally:
        await database.close()


@settings(max_examples=40, phases=_PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=_batches, flush=st.booleans())
def test_sqlite_answers_as_memory_does(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Record]], flush: bool
) -> None:
    folder: Path = tmp_path_factory.mktemp("model")
    anyio.run(_compare, place_of(f"{folder}/journal.db"), batches, flush)


@settings(max_examples=25, phases=_PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=_batches, flush=st.booleans())
def test_postgresql_answers_as_memory_does(postgres_url: str, batches: list[list[Record]], flush: bool) -> None:
    anyio.run(_compare, place_of(postgres_url), batches, flush)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"TRUNCATE {', '.join(table.name for table in TABLES.values())}".encode())


@pytest.mark.parametrize("kind", TABLES)
def test_every_field_of_a_record_has_its_column_in_the_same_place(kind: type[Record]) -> None:
    columns = [column.name for column in TABLES[kind].columns if column.name != "used_at"]
    assert columns == [field.name for field in fields(kind)]
