"""Roughly how many bytes a record holds: enough to bound a queue."""

from __future__ import annotations

from collections.abc import Callable

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

_FIXED = 512
"""For the object, its short fields and its place in the queue."""


def size_of(records: tuple[Record, ...]) -> int:
    """Bytes held by the records' long fields, and a fixed amount for the rest of each."""
    total = _FIXED * len(records)
    for record in records:
        total += _LONG_FIELDS[type(record)](record)
    return total


def _nothing(_: object) -> int:
    return 0


def _program(record: ProgramRecord) -> int:
    return len(record.input) + len(record.result or "")


def _step(record: StepRecord) -> int:
    return len(record.result or "") + len(record.needs)


def _call(record: CallRecord) -> int:
    return len(record.answer or b"")


def _tool_call(record: ToolCallRecord) -> int:
    return len(record.arguments) + len(record.result or "")


def _observation(record: ObservationRecord) -> int:
    return len(record.value)


def _part(record: PartRecord) -> int:
    return len(record.content)


def _event(record: EventRecord) -> int:
    return len(record.data)


def _cached(record: CachedRecord) -> int:
    return len(record.result)


_LONG_FIELDS: dict[type[Record], Callable[..., int]] = {
    ProgramRecord: _program,
    StepRecord: _step,
    CallRecord: _call,
    ToolCallRecord: _tool_call,
    ObservationRecord: _observation,
    PartRecord: _part,
    LinkRecord: _nothing,
    EventRecord: _event,
    CachedRecord: _cached,
}
