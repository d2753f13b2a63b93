"""What the commands of `fairlead runs` do; `app` has their options."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import anyio

from ...encoding import Json, decode
from ...errors import InputError
from ..clock import SystemClock
from ..ids import owner_is_dead
from ..states import ENDED, ProgramState
from ..store.journal import Journal
from ..store.records import EventRecord, ProgramRecord
from .display import display_for
from .execute import pretty, receipt, say_error, say_question
from .exits import ExitCode
from .inputs import read_age
from .looking import (
    Whole,
    as_json,
    condition,
    facts_of,
    history_of,
    opened,
    program_document,
    table_of,
    tree_of,
    value_of,
    whole_document,
    whole_of,
)
from .messages import DOCUMENT_VERSION, Happened, Started
from .plain import PlainProgress
from .terminal import clean, counted, draw, one_line, put, say

POLL_S = 0.2
"""How often a journal that another process writes is looked at."""
CANCEL_WAIT_S = 10.0
"""How long `cancel` waits for the process that runs the program."""
_LAST_WORDS = frozenset({*(f"program.{state}" for state in ENDED), "program.waiting", "program.parked"})
_STATE_NAMES = tuple(state.value for state in ProgramState)


def list_programs(db: str, states: list[str], workflow: str | None, limit: int, *, json_wanted: bool) -> int:
    """`runs list`."""
    unknown = [state for state in states if state not in _STATE_NAMES]
    if unknown:
        raise InputError(f"--state {unknown[0]!r} is not a state", hint=f"states: {', '.join(_STATE_NAMES)}")
    if limit < 1:
        raise InputError(f"--limit {limit}: must be at least 1")

    async def look() -> list[ProgramRecord]:
        async with opened(db) as journal:
            return await journal.programs(states=tuple(states), workflow=workflow, limit=limit)

    records = anyio.run(look)
    if json_wanted:
        put(as_json({"version": DOCUMENT_VERSION, "programs": [program_document(record) for record in records]}))
    elif records:
        draw(table_of(records, SystemClock().now()))
    else:
        say("no programs" + (" that match" if states or workflow else ""))
    return ExitCode.OK


def show_program(db: str, program_id: str, *, everything: bool, json_wanted: bool, db_option: str) -> int:
    """`runs show`."""

    async def look() -> Whole:
        async with opened(db) as journal:
            return await whole_of(journal, program_id)

    whole = anyio.run(look)
    record = whole.history.program
    if json_wanted:
        put(as_json({"version": DOCUMENT_VERSION, **whole_document(whole)}))
        return ExitCode.OK
    draw(tree_of(whole, everything=everything))
    for line in facts_of(record):
        put(f"  {line}")
    _show_end(record, db_option)
    return ExitCode.OK


def _show_end(record: ProgramRecord, db_option: str) -> None:
    error = value_of(record.error)
    facts = error if isinstance(error, dict) else {}
    if record.state == ProgramState.WAITING:
        say_question(record.id, facts, db_option)
    elif facts:
        put(f"error: {clean(str(facts.get('message')))}")
        if facts.get("hint"):
            put(f"  {clean(str(facts['hint']))}")
    stopped = facts.get("stopped")
    if isinstance(stopped, dict):
        put(f"stopped: {receipt(stopped)}")
    if record.state == ProgramState.SUCCEEDED:
        put("result:")
        put(pretty(value_of(record.result)))
    elif condition(record) in ("parked", "crashed", "failed", "cancelled", "timed out"):
        put(f"go on with: fairlead resume {record.id}{db_option}")


def show_events(db: str, program_id: str, *, after: int, follow: bool, jsonl: bool) -> int:
    """`runs events`."""
    plain = PlainProgress()

    def show(event: EventRecord) -> None:
        if jsonl:
            document: Json = {
                "program": event.program_id, "seq": event.seq, "at": event.at, "kind": event.kind, "node": event.node,
                "data": decode(event.data),
            }  # fmt: skip
            put(json.dumps(document, ensure_ascii=False))
        else:
            data = one_line(event.data, 200) if event.data != "{}" else ""
            put(f"{event.seq:6d}  {plain.elapsed(event):9.3f}s  {event.kind:18}  {clean(event.node or '')}  {data}".rstrip())

    async def look() -> None:
        async with opened(db) as journal:
            await history_of(journal, program_id)
            async for event in _events(journal, program_id, after=after, follow=follow):
                show(event)

    anyio.run(look)
    return ExitCode.OK


def watch_program(db: str, program_id: str, *, quiet: bool, json_wanted: bool, db_option: str) -> int:
    """`runs watch`: the live tree of a program that another process runs, then its result."""
    display = display_for(quiet=quiet)

    async def look() -> ProgramRecord:
        async with opened(db) as journal:
            record = (await history_of(journal, program_id)).program
            with display:
                display.show(Started(record.id, record.workflow, False, 0))
                async for event in _events_of_all(journal, program_id):
                    display.show(Happened(event))
            return (await history_of(journal, program_id)).program

    try:
        record = anyio.run(look)
    except KeyboardInterrupt:
        say(f"stopped watching; program {program_id} goes on")
        raise
    if json_wanted:
        put(as_json({"version": DOCUMENT_VERSION, **program_document(record)}))
    elif record.state == ProgramState.SUCCEEDED:
        put(pretty(value_of(record.result)))
    return _code_of(record, db_option)


def _code_of(record: ProgramRecord, db_option: str) -> int:
    """The exit code for a program as it stands, after saying why it is not 0."""
    error = value_of(record.error)
    facts = error if isinstance(error, dict) else {}
    match record.state:
        case ProgramState.SUCCEEDED:
            return ExitCode.OK
        case ProgramState.WAITING:
            say_question(record.id, facts, db_option)
            return ExitCode.PERSON
        case ProgramState.TIMED_OUT:
            say_error(str(facts.get("message")), None)
            return ExitCode.TIMEOUT
    if facts:
        say_error(str(facts.get("message")), str(facts["hint"]) if facts.get("hint") else None)
    else:
        say_error(
            f"program {record.id} has not ended and nobody runs it", f"go on with `fairlead resume {record.id}{db_option}`"
        )
    return ExitCode.FAILED


def cancel_program(db: str, program_id: str) -> int:
    """`runs cancel`: stop a program, wherever it runs, and say what was stopped."""
    from ..runtime import Runtime

    async def cancel() -> dict[str, Json] | None:
        async with Runtime(db=db) as runtime:
            before = await history_of(runtime.journal, program_id)
            await runtime.cancel(program_id)
            with anyio.move_on_after(CANCEL_WAIT_S):
                async for event in _events(runtime.journal, program_id, after=before.last_seq, follow=True):
                    if event.kind in _LAST_WORDS:
                        data = decode(event.data)
                        stopped = data.get("stopped") if isinstance(data, dict) else None
                        return {"kind": event.kind, "stopped": stopped if isinstance(stopped, dict) else {}}
        return None

    ended = anyio.run(cancel)
    if ended is None:
        say_error(
            f"program {program_id} was asked to stop and has not ended yet",
            f"watch it: fairlead runs events {program_id} --follow",
        )
        return ExitCode.TIMEOUT
    stopped = ended["stopped"]
    assert isinstance(stopped, dict)
    put(f"{program_id} {str(ended['kind']).partition('.')[2].replace('_', ' ')}; stopped: {receipt(stopped)}")
    return ExitCode.OK


def prune_programs(db: str, older_than: str, *, yes: bool) -> int:
    """`runs prune`: delete programs that ended long ago."""
    before = SystemClock().now() - read_age(older_than)

    async def count() -> int:
        async with opened(db) as journal:
            records = await journal.programs(states=tuple(ENDED), limit=1_000_000)
            return sum(1 for record in records if record.ended_at is not None and record.ended_at < before)

    async def prune() -> int:
        async with opened(db) as journal:
            return await journal.prune(before)

    number = anyio.run(count)
    if number == 0:
        say(f"nothing to delete: no program ended more than {older_than} ago")
        return ExitCode.OK
    if not yes and not _confirmed(
        f"delete {counted(number, 'program')} that ended more than {older_than} ago, with all their records?"
    ):
        return ExitCode.FAILED
    put(f"deleted {counted(anyio.run(prune), 'program')}")
    return ExitCode.OK


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError(f"{question} Nobody is there to ask.", hint="repeat it with --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _events(journal: Journal, program_id: str, *, after: int, follow: bool) -> AsyncIterator[EventRecord]:
    """The events of a program; with `follow`, until its last one, or until nobody runs it any more."""
    ended = False
    while True:
        page = await journal.events(program_id, after=after)
        for event in page:
            after, ended = event.seq, event.kind in _LAST_WORDS
            yield event
        if page:
            continue
        if not follow or ended or await _is_deserted(journal, program_id):
            return
        await anyio.sleep(POLL_S)


async def _events_of_all(journal: Journal, root_id: str) -> AsyncIterator[EventRecord]:
    """The events of a program and of the programs below it, as they come, until its last one."""
    after = {root_id: 0}
    ended = False
    while True:
        news = False
        for program_id in list(after):
            while page := await journal.events(program_id, after=after[program_id]):
                news = True
                for event in page:
                    after[program_id] = event.seq
                    if program_id == root_id:
                        ended = event.kind in _LAST_WORDS
                    child = decode(event.data)
                    if event.kind == "step.started" and isinstance(child, dict) and isinstance(child.get("program"), str):
                        after.setdefault(str(child["program"]), 0)
                    yield event
        if not news:
            if ended or await _is_deserted(journal, root_id):
                return
            await anyio.sleep(POLL_S)


async def _is_deserted(journal: Journal, program_id: str) -> bool:
    """Whether a program has an end, or an owner that has died: nothing more will come."""
    record = await journal.program(program_id.partition(".")[0])
    if record is None or record.state in ENDED or record.state == ProgramState.WAITING:
        return True
    return record.owner is None or owner_is_dead(record.owner)
