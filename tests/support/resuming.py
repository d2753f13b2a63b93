"""Resumes a program from what a crash would have left of its journal, and checks what must then be true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import anyio

from fairlead import FairleadError, Workflow
from fairlead.encoding import Json
from fairlead.runtime.store.records import CallRecord, EventRecord, ProgramRecord, Record, StepRecord, ToolCallRecord
from tests.support.journals import CuttableJournal, runtime_on
from tests.support.library import LEDGER, engine

ID = "prg_under_test"
ENDED = ("succeeded", "failed", "cancelled", "timed_out")
HANG_S = 10


@dataclass(frozen=True)
class Outcome:
    """What a program came to, in a form that can be compared."""

    result: object = None
    error: str | None = None


@dataclass(frozen=True)
class Known:
    """What a journal says is finished."""

    nodes: frozenset[tuple[str, str]]
    calls: frozenset[str]
    tools: frozenset[str]
    started_tools: frozenset[str]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Known:
        last: dict[tuple[object, ...], Record] = {}
        for record in records:
            match record:
                case StepRecord(program_id=program, node=node):
                    last["step", program, node] = record
                case ToolCallRecord(idempotency_key=key):
                    last["tool", key] = record
                case CallRecord(program_id=program, node=node, attempt=attempt, ordinal=ordinal):
                    last["call", program, node, attempt, ordinal] = record
        final = list(last.values())
        return cls(
            frozenset((r.program_id, r.node) for r in final if isinstance(r, StepRecord) and r.state == "succeeded"),
            frozenset(str(r.conversation) for r in final if isinstance(r, CallRecord) and r.state in ("succeeded", "failed")),
            frozenset(r.idempotency_key for r in final if isinstance(r, ToolCallRecord) and r.state in ("succeeded", "failed")),
            frozenset(r.idempotency_key for r in final if isinstance(r, ToolCallRecord) and r.state == "started"),
        )


async def started(workflow: Workflow[..., Any], arguments: dict[str, Json], journal: CuttableJournal) -> Outcome:
    """Run a program from the start; the ledger then says what it did."""
    LEDGER.clear()
    async with runtime_on(journal, engine()) as runtime:
        return await _outcome(runtime, runtime.start(workflow, arguments, program_id=ID))


async def resumed(workflow: Workflow[..., Any], journal: CuttableJournal) -> Outcome:
    """Resume the program in a new runtime; the ledger then says what was done again."""
    LEDGER.clear()
    async with runtime_on(journal, engine()) as runtime:
        return await _outcome(runtime, await runtime.resume(ID, workflow=workflow))


async def _outcome(runtime: Any, program: Any) -> Outcome:
    try:
        with anyio.fail_after(HANG_S):
            return Outcome(await runtime.outcome(program))
    except FairleadError as error:
        return Outcome(error=f"{type(error).__name__}: {error}")


def has_ended(journal: CuttableJournal) -> bool:
    """Whether the root program's last record says that it has ended."""
    states = [r.state for entry in journal.entries for r in entry if isinstance(r, ProgramRecord) and r.id == ID]
    return states[-1] in ENDED


async def check_resume(workflow: Workflow[..., Any], journal: CuttableJournal, kept: int) -> tuple[Outcome, CuttableJournal]:
    """Resume from the first `kept` entries; what was finished there must not be done again. Gives outcome and new journal."""
    left = journal.cut(kept)
    known = Known.of(record for entry in left.entries for record in entry)
    outcome = await resumed(workflow, left)
    where = f"after a crash at entry {kept} of {len(journal.entries)}"
    assert not known.nodes & set(LEDGER.nodes), f"finished steps ran again {where}"
    assert not known.calls & set(LEDGER.sent), f"recorded calls were sent again {where}"
    assert not known.tools & set(LEDGER.tools), f"finished tools ran again {where}"
    assert not [call for call, count in LEDGER.sent.items() if count > 1], f"a request was sent twice {where}"
    if outcome.error is None:
        assert known.started_tools <= set(LEDGER.tools), f"a tool that had started got another idempotency key {where}"
        check_no_orphans(left)
    check_events(left)
    return outcome, left


def check_events(journal: CuttableJournal) -> None:
    """The events of every program are numbered 1, 2, 3, ... in the order in which they were appended."""
    seen: Counter[str] = Counter()
    for entry in journal.entries:
        for record in entry:
            if isinstance(record, EventRecord):
                seen[record.program_id] += 1
                assert record.seq == seen[record.program_id], f"event {record} breaks the sequence of its program"


def check_no_orphans(journal: CuttableJournal) -> None:
    """Nothing is left running in a program that succeeded."""
    last: dict[tuple[str, ...], str] = {}
    for entry in journal.entries:
        for record in entry:
            if isinstance(record, ProgramRecord):
                last[(record.id,)] = record.state
            elif isinstance(record, StepRecord):
                last[record.program_id, record.node] = record.state
    open_ones = {name: state for name, state in last.items() if state not in ("succeeded", "failed", "skipped")}
    assert not open_ones, f"left open in a program that ended: {open_ones}"
