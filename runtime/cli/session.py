"""Runs or resumes the programs of one command in this process, and tells what happens.

It is the same whether the process is the person's own (`--foreground`) or the one behind a viewer.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import anyio

from ...encoding import Json, decode
from ...errors import ConflictError, FairleadError, InputError
from ..clock import SystemClock
from ..decisions import Decision
from ..failures import brief, error_facts
from ..ids import owner_is_dead
from ..loading import load_workflow
from ..program import Program
from ..runtime import Runtime
from ..states import ProgramState, StepState
from ..store.records import EventRecord, ProgramRecord
from .exits import ExitCode, exit_code, fairlead_error
from .inputs import MEMORY
from .jobs import Job
from .looking import history_of
from .messages import Failed, Happened, Message, Outcome, Planned, Started
from .settings import EngineSettings

if TYPE_CHECKING:
    from ..store.journal import Journal

PLANNED_MAX = 200
"""Declared graphs with more nodes are not shown before their nodes start."""
RELEASE_WAIT_S = 2.0
"""How long `resume` waits for a process that is just letting go of the program."""


class Session:
    """One command's programs. `perform` once; `park` and `cancel` from the same thread while it runs."""

    def __init__(self, job: Job, tell: Callable[[Message], None]) -> None:
        self._job = job
        self._tell = tell
        self._parking = anyio.Event()
        self._programs: list[Program] = []

    async def perform(self) -> None:
        """Do the job. What goes wrong is told, not raised."""
        try:
            if self._job.workflow is not None:
                await self._run(self._job.workflow)
            else:
                await self._resume()
        except Exception as error:
            self._tell(_failed(error))

    def park(self) -> None:
        """Stop so that the programs can be resumed."""
        self._parking.set()

    def cancel(self) -> None:
        """Cancel the programs."""
        for program in self._programs:
            program.cancel("cancelled from the terminal")

    async def _run(self, entry: str) -> None:
        job = self._job
        workflow = load_workflow(entry)
        async with self._runtime(job.settings) as runtime, anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_when_parking, tasks.cancel_scope)
            if job.id is not None and await runtime.journal.history(job.id) is not None:
                raise ConflictError(
                    f"there is a program {job.id!r} already", hint=f"choose another --id, or `fairlead resume {job.id}`"
                )
            options = job.settings.as_options()
            program = runtime.start(workflow, job.input, program_id=job.id, tenant=job.tenant, options=options)
            await self._follow(runtime, program)
            tasks.cancel_scope.cancel()
        self._tell_parked()

    async def _resume(self) -> None:
        groups = await self._to_resume()
        async with anyio.create_task_group() as tasks:
            for settings, records in groups.items():
                tasks.start_soon(self._resume_group, settings, records)
        self._tell_parked()

    async def _resume_group(self, settings: EngineSettings, records: list[ProgramRecord]) -> None:
        """Resume the programs that use the same engine."""
        async with self._runtime(settings) as runtime, anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_when_parking, tasks.cancel_scope)
            async with anyio.create_task_group() as programs:
                for record in records:
                    programs.start_soon(self._resume_one, runtime, record)
            tasks.cancel_scope.cancel()

    async def _cancel_when_parking(self, scope: anyio.CancelScope) -> None:
        """Leave the runtime early: that parks its programs."""
        await self._parking.wait()
        scope.cancel()

    async def _resume_one(self, runtime: Runtime, record: ProgramRecord) -> None:
        job = self._job
        decisions = {about: Decision(action, value) for about, (action, value) in job.decisions.items()}
        try:
            with anyio.move_on_after(RELEASE_WAIT_S):
                await self._wait_until_released(runtime.journal, record)
            program = await runtime.resume(record.id, decisions=decisions, accept_changed=job.accept_changed)
        except FairleadError as error:
            self._tell(_refused(record, error))
            return
        await self._follow(runtime, program)

    async def _wait_until_released(self, journal: Journal, record: ProgramRecord) -> None:
        """Return when no process runs the program; the killed or parking one may need a moment."""
        while record.owner is not None and await _is_owned(journal, record.id):  # noqa: ASYNC110 - by another process
            await anyio.sleep(0.05)

    async def _to_resume(self) -> dict[EngineSettings, list[ProgramRecord]]:
        """The programs to resume by the engine they use. Raises `NotFoundError`, `InputError`."""
        job = self._job
        async with Runtime(db=job.db) as runtime:
            if job.id is not None:
                records = [(await history_of(runtime.journal, job.id)).program]
            else:
                records = await runtime.resumable()
        if job.id is None and not job.all and len(records) > 1:
            there = "".join(f"\n    {record.id}  {record.workflow}" for record in records[:10])
            raise InputError(f"{len(records)} programs can be resumed:{there}", hint="name one, or `fairlead resume --all`")
        groups: dict[EngineSettings, list[ProgramRecord]] = {}
        for record in records:
            groups.setdefault(job.settings.over(_object(record.options)).checked(), []).append(record)
        return groups

    def _runtime(self, settings: EngineSettings) -> Runtime:
        db = None if self._job.db == MEMORY else self._job.db
        return Runtime(
            db=db, engine=settings.made(), api_key=settings.api_key(), model=settings.model, kv_tokens=settings.kv_tokens
        )

    async def _follow(self, runtime: Runtime, program: Program) -> None:
        """Tell what happens to a program until it has ended or waits for a person."""
        self._programs.append(program)
        self._tell(Started(program.id, program.workflow.name, program.resumed, os.getpid()))
        stop_watching = runtime.watch(self._watcher(program)) if self._job.watch else None
        try:
            await runtime.outcome(program)
        except Exception as error:
            self._tell(_outcome(program, error))
        else:
            self._tell(_outcome(program, None))
        finally:
            if stop_watching is not None and program.ended.is_set():
                stop_watching()

    def _watcher(self, program: Program) -> Callable[[EventRecord], None]:
        mine = program.id
        done = {node for node, step in program.recorded_steps.items() if step.state in (StepState.SUCCEEDED, StepState.SKIPPED)}

        def watch(event: EventRecord) -> None:
            if event.program_id != mine and not event.program_id.startswith(mine + "."):
                return
            if event.program_id == mine and event.kind in ("program.started", "program.resumed"):
                nodes = program.graph.nodes if program.workflow.composes else {}
                to_come = (
                    [[node.id, node.kind] for node in nodes.values() if node.id not in done]
                    if len(nodes) <= PLANNED_MAX
                    else []
                )
                self._tell(Planned(mine, to_come, len(done)))
            self._tell(Happened(event))

        return watch

    def _tell_parked(self) -> None:
        for program in self._programs:
            if program.record.state not in _TOLD:
                self._tell(_outcome(program, None, exit=ExitCode.INTERRUPTED))


_TOLD = frozenset(
    state for state in ProgramState if state not in (ProgramState.ACCEPTED, ProgramState.QUEUED, ProgramState.RUNNING)
)


async def _is_owned(journal: Journal, program_id: str) -> bool:
    record = await journal.program(program_id)
    return record is not None and record.owner is not None and not owner_is_dead(record.owner)


def _outcome(program: Program, error: Exception | None, *, exit: int | None = None) -> Outcome:
    record, counts = program.record, program.counts
    facts = error_facts(error) if error is not None else None
    question = program.suspended.question if program.suspended is not None else None
    stopped = program.receipt.as_json()
    code = exit if exit is not None else exit_code(error) if error is not None else ExitCode.OK
    end = record.ended_at or SystemClock().now()
    return Outcome(
        program.id, program.workflow.name, record.state,
        result=decode(record.result) if record.result is not None and error is None else None,
        error=facts if question is None else None,
        question=question,
        stopped=stopped if any(stopped.values()) else None,
        counts={
            "steps": counts.steps, "steps_reused": counts.steps_reused, "calls": counts.calls,
            "calls_replayed": counts.calls_replayed,
            "tools": counts.tools, "tools_reused": counts.tools_reused,
        },
        usage=asdict(counts.usage), usage_replayed=asdict(counts.usage_replayed),
        seconds=round(end - (record.started_at or end), 3),
        exit=int(code),
        trace=_trace(error),
    )  # fmt: skip


def _refused(record: ProgramRecord, error: FairleadError) -> Outcome:
    """The outcome of a program that could not be taken up."""
    return Outcome(
        record.id, record.workflow, record.state, error=error_facts(error), exit=int(exit_code(error)), trace=_trace(error)
    )


def _failed(error: BaseException) -> Failed:
    ours = fairlead_error(error)
    found = ours or error
    hint = ours.hint if ours is not None else "this is a fault in Fairlead or in the workflow's module; --debug shows where"
    return Failed(brief(found), hint, int(exit_code(found)), _trace(error))


def _trace(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)) if error is not None else ""


def _object(text: str) -> Mapping[str, Json]:
    with suppress(ValueError):
        value = decode(text)
        if isinstance(value, dict):
            return value
    return {}
