"""`Runtime`: starts programs, resumes them, cancels them. Everything durable is in its journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import anyio
from pydantic_core import from_json

from ..encoding import Json, encode
from ..errors import ConfigurationError, ConflictError, NotFoundError, PersonNeededError, WorkflowChangedError
from ..graphs.compose import compose
from ..graphs.declare import Workflow
from .calls import CallPath
from .clock import Clock, SystemClock
from .decisions import Decision
from .dispatch import Dispatcher
from .engines.port import Engine
from .ids import new_program_id, owner_is_dead, process_owner
from .loading import entry_of, load_workflow
from .program import Program
from .recorded import new_record
from .reports import Receipt
from .retries import CallLimits
from .scheduling.policies import policy
from .scheduling.port import Scheduler, Why
from .services import Services
from .states import ENDED, ProgramState
from .store.journal import Journal
from .store.opening import open_journal
from .store.records import EventRecord, History, ProgramRecord

P = ParamSpec("P")
R = TypeVar("R")

IN_FLIGHT_MAX = 64
"""Calls an engine takes at once, unless configured."""
THREADS_MAX = 64
"""Plain `def` steps and tools that run at once."""
HEARTBEAT_S = 5.0
"""How often the owner of a program says that it lives."""
OWNER_STALE_S = 30.0
"""After this silence another process may take a program over."""
REQUESTS_S = 0.5
"""How often requests of other processes (cancel) are looked for."""


class Runtime:
    """Runs programs in this process. Use it as an async context manager.

    `db` is a SQLAlchemy URL (`sqlite:///runs.db`, `postgresql://...`) or None to keep everything in memory. `engine` is an
    engine, a URL of an OpenAI-compatible API, or None for the embedded engine. `model` is what agents use that name none.
    `kv_tokens` is the size of the KV cache behind a URL: with it, programs are kept from pushing each other out of the cache;
    without it, memory does not limit what is sent. `scheduler` decides when calls go (`scheduling.policies.policy(name)`).

    On leaving, programs that still run are parked: they stop, and can be resumed.
    """

    def __init__(
        self,
        *,
        db: str | None = None,
        engine: Engine | str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        kv_tokens: int | None = None,
        scheduler: Scheduler | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
        threads_max: int = THREADS_MAX,
        limits: CallLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        if in_flight_max < 1 or threads_max < 1:
            raise ConfigurationError(f"in_flight_max={in_flight_max}, threads_max={threads_max}: both must be at least 1")
        self._db = db
        self._engine = engine
        self._api_key = api_key
        self._model = model
        self._kv_tokens = kv_tokens
        self._scheduler = scheduler
        self._in_flight_max = in_flight_max
        self._threads_max = threads_max
        self._limits = limits or CallLimits()
        self._clock = clock or SystemClock()
        self._programs: dict[str, Program] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.journal: Journal = await open_journal(self._db)
            stack.push_async_callback(self.journal.close)
            engine = self._made_engine()
            stack.push_async_callback(engine.aclose)
            dispatcher = Dispatcher(self._scheduler or policy("fairlead"), {engine.name: engine}, self._in_flight_max)
            self._services = Services(
                self.journal,
                self._clock,
                dispatcher,
                CallPath(dispatcher, self._limits),
                model=self._model or _default_model(engine),
                threads=self._threads_max,
            )
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._tasks.start_soon(self._look_after)
            self._tasks.start_soon(dispatcher.wake)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        # The error of the caller's block goes on as it is: the task group would wrap it into a group.
        await self._stack.__aexit__(None, None, None)

    def _made_engine(self) -> Engine:
        if self._engine is None:
            from .engines.embedded.engine import EmbeddedEngine

            return EmbeddedEngine(model=self._model) if self._model else EmbeddedEngine()
        if isinstance(self._engine, str):
            from .engines.http import HttpEngine

            return HttpEngine(self._engine, self._engine, self._api_key, kv_tokens=self._kv_tokens)
        return self._engine

    async def run(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a workflow to its end and give its result.

        Raises `DeclarationError` before anything runs if the workflow or its arguments are wrong, `StepFailedError` and
        other `ProgramError`s if it does not succeed, `PersonNeededError` if it waits for a person.
        """
        bound = workflow.signature.bind(args, kwargs)
        arguments = {name: workflow.signature.parameters[name].constant(value) for name, value in bound.items()}
        result: R = await self.outcome(self._begin(workflow, arguments))
        return result

    def start(
        self,
        workflow: Workflow[..., Any],
        arguments: Mapping[str, Json] | None = None,
        *,
        program_id: str | None = None,
        tenant: str = "default",
        options: Mapping[str, Json] | None = None,
    ) -> Program:
        """Start a workflow with JSON arguments and return at once; `outcome` waits for it.

        Raises `InputError` or `DeclarationError`, naming the parameter at fault, before anything runs. `options` are kept
        with the program for those who resume it. With a `program_id` that exists already, `outcome` raises `ConflictError`.
        """
        checked = workflow.signature.read_json(dict(arguments or {}))
        return self._begin(workflow, checked, program_id=program_id, tenant=tenant, options=options)

    def _begin(
        self,
        workflow: Workflow[..., Any],
        arguments: dict[str, bytes],
        *,
        program_id: str | None = None,
        tenant: str = "default",
        options: Mapping[str, Json] | None = None,
    ) -> Program:
        workflow.signature.check()
        arguments = workflow.signature.with_defaults(arguments)
        graph = compose(workflow, arguments) if workflow.composes else None
        record = new_record(
            workflow, arguments, id=program_id or new_program_id(self._clock.now()), entry=entry_of(workflow), tenant=tenant,
            options={"search_path": str(Path.cwd()), **(options or {})}, now=self._clock.now(),
        )  # fmt: skip
        if record.id in self._programs:
            raise ConflictError(f"program {record.id} runs already")
        program = Program(self._services, workflow, record, graph=graph)
        if program_id is None:
            self.journal.append(record)
            return self._launch(program)
        self._programs[record.id] = program
        self._tasks.start_soon(self._run_if_new, program)
        return program

    def _launch(self, program: Program) -> Program:
        self._programs[program.id] = program
        self._tasks.start_soon(self._run, program)
        return program

    async def _run_if_new(self, program: Program) -> None:
        """Run a program whose id was chosen by the caller, unless there is one of that id already."""
        if await self.journal.history(program.id) is None:
            self.journal.append(program.record)
            await self._run(program)
            return
        del self._programs[program.id]
        program.refuse(ConflictError(f"there is a program {program.id} already", hint="choose another id, or resume that one"))

    async def _run(self, program: Program) -> None:
        try:
            await program.run()
        finally:
            del self._programs[program.id]

    async def outcome(self, program: Program) -> Any:
        """Wait for a program of this runtime to end; its result, of the workflow's type. Raises as `run` does."""
        await program.ended.wait()
        await self.journal.flushed()
        if program.suspended is not None:
            raise PersonNeededError(program.id, program.suspended.question)
        if program.error is not None:
            raise program.error
        return program.workflow.signature.result.read((program.record.result or "null").encode())

    async def resume(
        self,
        program_id: str,
        *,
        workflow: Workflow[..., Any] | None = None,
        decisions: Mapping[str, Decision] | None = None,
        accept_changed: bool = False,
    ) -> Program:
        """Go on with a program that crashed, was parked, waits for a person, or ended without success.

        Finished steps, calls and tool calls are answered from the journal. `decisions` answer the questions of a waiting
        program, by what they are about. Raises `NotFoundError`, `ConflictError` (it runs elsewhere, it succeeded), and
        `WorkflowChangedError` unless `accept_changed`.
        """
        history = await self._known(program_id)
        record = history.program
        if record.parent_id is not None:
            raise ConflictError(f"{program_id} is a child program", hint=f"resume its root: {record.root_id}")
        if record.state == ProgramState.SUCCEEDED:
            raise ConflictError(
                f"program {program_id} has succeeded: there is nothing to resume",
                hint=f"`fairlead runs show {program_id}` has its result",
            )
        found = workflow or self._find(record)
        if found.version != record.version and not accept_changed:
            raise WorkflowChangedError(
                f"workflow {record.workflow!r} changed since program {program_id} was started "
                f"(version {record.version}, now {found.version})",
                hint="put the old code back, start a new program, or accept the new code (--accept-changed): finished steps "
                "keep their results, and a step that no longer does what it recorded ends with an error",
            )
        await self._claim(record)
        return self._launch(Program(self._services, found, record, history=history, decisions=dict(decisions or {})))

    async def _known(self, program_id: str) -> History:
        history = await self.journal.history(program_id)
        if history is None:
            raise NotFoundError(f"there is no program {program_id!r}", hint="`fairlead runs list` shows what there is")
        return history

    def _find(self, record: ProgramRecord) -> Workflow[..., Any]:
        if not record.entry:
            raise NotFoundError(
                f"program {record.id}: its workflow {record.workflow!r} is not in a module, so it cannot be found again",
                hint="pass the workflow: runtime.resume(id, workflow=...)",
            )
        options = from_json(record.options)
        return load_workflow(record.entry, options.get("search_path"))

    async def _claim(self, record: ProgramRecord) -> None:
        now = self._clock.now()
        stale_before = now if record.owner is not None and owner_is_dead(record.owner) else now - OWNER_STALE_S
        if record.id in self._programs or not await self.journal.claim(record.id, process_owner(), now, stale_before):
            raise ConflictError(
                f"program {record.id} is being run by another process ({record.owner})",
                hint=f"wait for it, or end that process; without a sign of life for {OWNER_STALE_S:g} s it can be taken over",
            )

    async def resumable(self) -> list[ProgramRecord]:
        """Root programs that have not ended and that no living process runs, oldest first."""
        states = tuple(state.value for state in ProgramState if state not in ENDED)
        now = self._clock.now()
        return [
            record
            for record in reversed(await self.journal.programs(states=states, limit=100_000))
            if record.waiting_for is None and record.id not in self._programs and _is_free(record, now)
        ]

    async def cancel(self, program_id: str, reason: str = "cancelled by request") -> Receipt:
        """Stop a program and everything it has going on; what was stopped.

        A program that runs in another process is asked to stop there, and its receipt comes with its events. Raises
        `NotFoundError`, and `ConflictError` if it has ended.
        """
        program = self._programs.get(program_id)
        if program is not None:
            program.cancel(reason)
            await program.ended.wait()
            return program.receipt
        history = await self._known(program_id)
        if history.program.parent_id is not None:
            raise ConflictError(f"{program_id} is a child program", hint=f"cancel its root: {history.program.root_id}")
        if history.program.state in ENDED:
            raise ConflictError(f"program {program_id} has ended already: {history.program.state}")
        if not _is_free(history.program, self._clock.now()):
            await self.journal.request(history.program.root_id, "cancel", self._clock.now())
            return Receipt()
        await self._claim(history.program)
        receipt = Receipt()
        await self._cancel_idle(history, reason, receipt)
        await self.journal.flushed()
        return receipt

    async def _cancel_idle(self, history: History, reason: str, receipt: Receipt) -> None:
        """Cancel a program that nobody runs, with its children: there is nothing to stop."""
        for child in await self.journal.programs(parent_id=history.program.id, limit=100_000):
            inner = await self.journal.history(child.id) if child.state not in ENDED else None
            if inner is not None:
                receipt.programs.append(child.id)
                await self._cancel_idle(inner, reason, receipt)
        now = self._clock.now()
        facts: dict[str, Json] = {"kind": "cancelled", "message": reason, "stopped": receipt.as_json()}
        ended = replace(
            history.program, state=ProgramState.CANCELLED, waiting_for=None, error=encode(facts).decode(),
            ended_at=now, owner=None, owner_seen_at=None,
        )  # fmt: skip
        told = encode({"reason": reason, "stopped": receipt.as_json()}).decode()
        self.journal.append(ended, EventRecord(ended.id, history.last_seq + 1, now, "program.cancelled", None, told))

    def why(self, program_id: str) -> dict[str, Why]:
        """Why the waiting model calls of a program of this runtime wait, by who asks (`program/step`): the rule that holds
        them, their position, what they wait for. Empty if none waits."""
        return self._services.dispatcher.why(program_id)

    def watch(self, watcher: Callable[[EventRecord], None]) -> Callable[[], None]:
        """Call `watcher` with every durable event of this runtime's programs; the returned function stops that."""
        return self.journal.watch(watcher)

    async def _look_after(self) -> None:
        """Say that this process lives, and carry out what other processes ask for."""
        last_beat = anyio.current_time()
        last_seen = self._clock.now()
        while True:
            await anyio.sleep(REQUESTS_S)
            now = self._clock.now()
            before, last_seen = last_seen, now
            if not self._programs:
                continue
            if now - before > OWNER_STALE_S:
                await self._after_a_pause(now)
            for program_id, kind in await self.journal.requests(process_owner()):
                program = self._programs.get(program_id)
                if program is None:  # another runtime of this process holds it
                    await self.journal.request(program_id, kind, self._clock.now())
                elif kind == "cancel":
                    program.cancel("cancelled by request of another process")
            if anyio.current_time() - last_beat >= HEARTBEAT_S:
                last_beat = anyio.current_time()
                await self.journal.seen(process_owner(), self._clock.now())

    async def _after_a_pause(self, now: float) -> None:
        """Let go of programs that another process took over while this one was suspended and gave no sign of life."""
        for program in list(self._programs.values()):
            if not await self.journal.claim(program.id, process_owner(), now, now - OWNER_STALE_S):
                program.lose()


def _is_free(record: ProgramRecord, now: float) -> bool:
    """Whether no living process runs the program, as far as can be known."""
    if record.owner is None or owner_is_dead(record.owner):
        return True
    return record.owner_seen_at is not None and record.owner_seen_at < now - OWNER_STALE_S


def _default_model(engine: Engine) -> str:
    return engine.models[0] if engine.models else ""


def run(workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a workflow on the embedded engine, in memory, and give its result: the shortest way to try one.

    For a database, an engine or a model of your own use `Runtime`.
    """

    async def main() -> R:
        async with Runtime() as runtime:
            return await runtime.run(workflow, *args, **kwargs)

    return anyio.run(main)
