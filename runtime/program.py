"""One program while it runs: its identity, its state, its record in the journal, and its nodes."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from pydantic_core import to_json

from ..budgets.usage import Usage
from ..encoding import Json, decode, encode
from ..errors import FairleadError, ProgramError, ProgramStoppedError
from ..graphs.compose import NodeNames, compose
from ..graphs.declare import Workflow
from ..graphs.graph import Graph
from .body import Body, Entry, Suspend, body_path
from .decisions import Decision
from .failures import error_facts, recorded_failure
from .growing import Grower
from .ids import process_owner
from .nodes import run_graph
from .recorded import Past, failed_node, past_of
from .replay import Recorded
from .reports import Counts, Receipt
from .states import ENDED, NEXT, ProgramState, StepState, WaitReason
from .steps import Place
from .store.journal import Journal
from .store.memory import MemoryJournal
from .store.records import CallRecord, EventRecord, History, ProgramRecord, StepRecord
from .toolcalls import ToolCaller

if TYPE_CHECKING:
    from .services import Services

DEPTH_MAX = 16
"""How deep programs may start child programs."""

_NODE_OF_GRAPH = re.compile(r"[\[(/!@:]")
"""What follows the name of a declared node in the names of what it consists of."""


class Program:
    """Belongs to the event loop's thread. `run` is called once."""

    def __init__(
        self,
        services: Services,
        workflow: Workflow[..., Any],
        record: ProgramRecord,
        *,
        graph: Graph | None = None,
        history: History | None = None,
        parent: Program | None = None,
        decisions: dict[str, Decision] | None = None,
    ) -> None:
        self.services = services
        self.workflow = workflow
        self.record = record
        self.parent = parent
        self._journal = services.journal
        self.graph = graph or Graph(workflow.name)
        """Declared (and then complete before anything runs) or growing."""
        self.counts: Counts = parent.counts if parent is not None else Counts()
        self.receipt: Receipt = parent.receipt if parent is not None else Receipt()
        self.stored: set[str] = parent.stored if parent is not None else set()
        """Digests of the parts and links that this program has put into the journal."""
        self.recorded_steps = {step.node: step for step in history.steps} if history else {}
        self.resumed = history is not None
        self.names = NodeNames(frozenset(self.recorded_steps))
        self.suspended: Suspend | None = None
        self.ended = anyio.Event()
        self.error: BaseException | None = None
        self._decisions: dict[str, Decision] = parent._decisions if parent is not None else decisions or {}
        self._past = past_of(history) if history else Past()
        if record.state == ProgramState.FAILED:
            self._past.reopen("")
        self._seq = history.last_seq if history else 0
        self._cut: list[Program] = []
        """Child programs that were cut off, by the end of a step or with this program."""
        self.tasks: TaskGroup
        """Everything that the program has going on; there while it runs."""
        self._stopping = False
        self._scope: anyio.CancelScope | None = None
        self._cancel_reason: str | None = None
        self._reopen: str | None = failed_node(record) if parent is None or parent._reopen is not None else None
        """Node where the failed program is taken up again by a person, empty if none is known; None if it had not ended."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def root_id(self) -> str:
        return self.record.root_id

    @property
    def tenant(self) -> str:
        return self.record.tenant

    @cached_property
    def input(self) -> dict[str, Json]:
        """The arguments, by parameter name, defaults included."""
        value = decode(self.record.input)
        assert isinstance(value, dict)
        return value

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def stopping(self) -> bool:
        """Whether the program is being stopped: what is cut off now has not ended by its own will."""
        cut = self._scope is not None and self._scope.cancel_called
        return self._stopping or cut or (self.parent is not None and self.parent.stopping)

    @property
    def journal(self) -> Journal:
        """Where the program is recorded, together with its root."""
        return self._journal if self.parent is None else self.parent.journal

    def now(self) -> float:
        return self.services.clock.now()

    async def run(self) -> None:
        """Run or go on to an end, or until a person is needed. The outcome is in `record` and `error`; nothing is raised
        but cancellation from outside, after which the program can be resumed."""
        self.record = replace(
            self.record, started_at=self.record.started_at or self.now(), owner=process_owner(), owner_seen_at=self.now()
        )
        if self.parent is None:
            known = len(self.graph.critical_path) if self.graph.output is not None else None
            self.services.dispatcher.program_arrived(self.id, self.tenant, self.workflow.name, known)
        kind = "program.resumed" if self.resumed else "program.started"
        self._reached(
            ProgramState.RUNNING, kind, {"workflow": self.workflow.name, "id": self.id, "parent": self.record.parent_id}
        )
        try:
            result = await self._within_limits()
        except anyio.get_cancelled_exc_class():
            self._cut_off()
            raise
        except Suspend as suspend:
            self.suspended = suspend
            told = {"reason": WaitReason.PERSON, "question": suspend.question}
            self._reached(ProgramState.WAITING, "program.waiting", told, waiting_for=WaitReason.PERSON, error=suspend.question)
        except _Stopped as stopped:
            self.error = ProgramStoppedError(self.root_id, stopped.state, stopped.reason, self.receipt.as_json())
            facts: dict[str, Json] = {"kind": stopped.state.value, "message": stopped.reason, "stopped": self.receipt.as_json()}
            told = {"reason": stopped.reason, "stopped": self.receipt.as_json()}
            self._reached(stopped.state, f"program.{stopped.state}", told, error=facts)
        except Exception as error:
            self.error = error
            facts = error_facts(error)
            self._reached(
                ProgramState.FAILED, "program.failed", {"error": facts, "stopped": self.receipt.as_json()}, error=facts
            )
        else:
            self._reached(ProgramState.SUCCEEDED, "program.succeeded", {}, result=result)
        finally:
            self.ended.set()
            if self.parent is None:
                self.services.dispatcher.program_ended(self.id)

    async def _within_limits(self) -> bytes:
        timeout = self.workflow.timeout.hard
        deadline = anyio.current_time() + timeout if timeout else math.inf
        with anyio.CancelScope(deadline=deadline) as self._scope:
            if self._cancel_reason is not None:
                self._scope.cancel()
                await anyio.lowlevel.checkpoint()
            return await self._execute()
        if self._cancel_reason is not None:
            raise _Stopped(ProgramState.CANCELLED, self._cancel_reason)
        raise _Stopped(ProgramState.TIMED_OUT, f"the program took more than {timeout:g} s")

    async def _execute(self) -> bytes:
        """The result, from within the task group of everything that the program starts."""
        failure: BaseException | None = None
        result = b""
        async with anyio.create_task_group() as self.tasks:
            try:
                result = await self._result()
            except anyio.get_cancelled_exc_class():
                self._stopping = True
                raise
            except BaseException as error:  # raised outside of the group, which would wrap it
                failure = error
        if failure is not None:
            raise failure
        return result

    async def _result(self) -> bytes:
        arguments = {name: encode(value) for name, value in self.input.items()}
        if not self.workflow.composes:
            return await self._run_async(arguments)
        if self.graph.output is None:
            self.graph = compose(self.workflow, arguments)
        return await run_graph(self, self.graph)

    async def _run_async(self, arguments: dict[str, bytes]) -> bytes:
        """The result of an `async def` workflow, whose body is run with its arguments read and its injections filled in."""
        signature = self.workflow.signature
        values = {name: signature.parameters[name].read(data) for name, data in arguments.items()}
        for name, what in signature.injections.items():
            values[name] = self.services.inject(what)
        value = await self.body("", 1).live(partial(self.workflow.function, **values))
        return signature.result.write(value)

    async def run_child(self, place: Place, workflow: Workflow[..., Any], arguments: dict[str, bytes]) -> bytes:
        """The result of a sub-workflow, run as a child program that is charged to the same root."""
        recorded = self.recorded_result(place.node)
        if recorded is not None:
            return recorded
        if self.depth + 1 > DEPTH_MAX:
            raise ProgramError(
                f"workflow {workflow.name!r}: programs start child programs more than {DEPTH_MAX} deep",
                hint="is the recursion bounded?",
            )
        child = await self.services.child(self, place.node, workflow, arguments)
        self.note_step(place, StepState.RUNNING, 1, data={"program": child.id})
        try:
            if child.record.state != ProgramState.SUCCEEDED:
                await child.run()
        except anyio.get_cancelled_exc_class():
            self.receipt.programs.append(child.id)
            self._cut.append(child)
            self.note_step(place, StepState.CANCELLED, 1)
            raise
        if child.suspended is not None:
            self.note_step(place, StepState.WAITING, 1, error=child.suspended.question)
            raise child.suspended
        if child.error is not None:
            facts = error_facts(child.error)
            self.note_step(place, StepState.FAILED, 1, error=facts, data={"error": facts["message"]})
            raise recorded_failure(self.recorded_steps[place.node]) from child.error
        result = (child.record.result or "null").encode()
        self.note_step(place, StepState.SUCCEEDED, 1, result=result)
        return result

    def cancel(self, reason: str) -> None:
        """Stop the program with everything it has going on; it ends `cancelled`."""
        if self._cancel_reason is None:
            self._cancel_reason = reason
            self._stopping = True
            if self._scope is not None:
                self._scope.cancel()

    def lose(self) -> None:
        """Stop without another record: the program belongs to another process now, and its journal is that one's to write."""
        self._journal = MemoryJournal()
        self.cancel("another process took it over while this one was suspended")

    def refuse(self, error: FairleadError) -> None:
        """End without having run; nothing is recorded."""
        self.error = error
        self.ended.set()

    def stop(self) -> None:
        """Note that what is cut off from now on is cut off because the program fails."""
        self._stopping = True

    def body(self, node: str, attempt: int) -> Body:
        """A body of this program, ready to run."""
        body = Body(self, node, attempt)
        body.growing = Grower(body)
        body.tools = ToolCaller(body)
        return body

    def recorded_effects(self, body: Body) -> list[Recorded[Entry]]:
        """What an earlier run recorded of this body."""
        return self._past.effects.get(body.path, [])

    def recorded_result(self, node: str) -> bytes | None:
        """The result (JSON) that an earlier run recorded for a node; None if it has to run (again).

        Raises the recorded `StepFailedError`, unless the node is to be tried again.
        """
        step = self.recorded_steps.get(node)
        if step is None:
            return None
        if step.state == StepState.SUCCEEDED:
            self.counts.steps_reused += 1
            return (step.result or "null").encode()
        if step.state == StepState.FAILED and not self.reopened(step):
            raise recorded_failure(step)
        return None

    def goes_on(self, step: StepRecord) -> bool:
        """Whether a failed step that is tried again goes on in the same attempt: up to where it failed, its calls are
        answered from the journal. Otherwise the answers themselves made it fail, and only another attempt can help."""
        return self._past.reopen(body_path(step.node, step.attempt))

    def step_name(self, node: str) -> str:
        """The declared name of the step at a node; the workflow's for its own body."""
        step = self.recorded_steps.get(node)
        return step.step if step is not None else self.workflow.name

    def steps_left(self, node: str) -> int | None:
        """Steps from a node to the end of a declared graph along its longest path; None where the graph grows."""
        return self._heights.get(_NODE_OF_GRAPH.split(node, maxsplit=1)[0]) if self.graph.output is not None else None

    @cached_property
    def _heights(self) -> dict[str, int]:
        return self.graph.heights

    def reopened(self, step: StepRecord) -> bool:
        """Whether a step that failed is to be tried again, because a person resumed the failed program.

        In a declared graph every failed node is: it is why the program failed. A body may have handled the failure of a
        node that it added, and must see the same again; there, only what the failure came through is tried again.
        """
        if self._reopen is None:
            return False
        if step.parent is None or (step.ordinal < 0 and self.workflow.composes):
            return True
        return self._reopen == step.node or (self._reopen.startswith(step.node) and self._reopen[len(step.node)] in "/[(!@?")

    def decision(self, about: str) -> Decision | None:
        """What a person decided about an unknown outcome."""
        return self._decisions.get(about)

    def emit(self, kind: str, node: str | None, /, **data: Any) -> None:
        """Write an event with the program's next number."""
        self.journal.append(self.event(kind, node, **data))

    def event(self, kind: str, node: str | None, /, **data: Any) -> EventRecord:
        """An event with the program's next number, to be appended at once."""
        self._seq += 1
        return EventRecord(self.id, self._seq, self.now(), kind, node, to_json(data).decode())

    def note_step(
        self,
        place: Place,
        state: StepState,
        attempt: int,
        *,
        result: bytes | None = None,
        error: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Write what a node has come to, together with the event that says so; `data` goes into the event."""
        now = self.now()
        started = now if state is StepState.RUNNING else None
        known = self.recorded_steps.get(place.node)
        if known is not None and known.started_at is not None:
            started = known.started_at
        ended = None if state in (StepState.RUNNING, StepState.WAITING) else now
        record = StepRecord(
            program_id=self.id,
            node=place.node,
            step=place.name,
            kind=place.kind,
            parent=place.parent,
            needs=to_json(place.needs).decode() if place.needs else "[]",
            state=state,
            attempt=attempt,
            ordinal=place.ordinal,
            overlapped=place.overlapped,
            input_digest=place.asked,
            result=result.decode() if result is not None else None,
            error=encode(error).decode() if error is not None else None,
            started_at=started,
            ended_at=ended,
        )
        self.recorded_steps[place.node] = record
        told: dict[str, Any] = {"attempt": attempt, **(data or {})}
        if state is StepState.RUNNING:
            told |= place.as_told()
        elif state is StepState.WAITING:
            told["question"] = error
        kind = "step.started" if state is StepState.RUNNING else f"step.{state}"
        self.journal.append(record, self.event(kind, place.node, **told))
        if state is StepState.SUCCEEDED and place.kind == "step":
            self.counts.steps += 1
        elif state is StepState.CANCELLED:
            self.receipt.steps.append(place.node)

    def count_call(self, record: CallRecord) -> None:
        self.counts.calls += 1
        self.counts.usage += Usage(record.input_tokens, record.cached_tokens, record.output_tokens)
        if record.state in ("stopped", "cancelled"):
            self.receipt.calls.append(f"{record.node or self.workflow.name}: {record.model}")

    def count_replayed(self, node: str, record: CallRecord) -> None:
        self.counts.calls_replayed += 1
        self.counts.usage_replayed += Usage(record.input_tokens, record.cached_tokens, record.output_tokens)
        self.emit(
            "call.replayed",
            node,
            call=record.ordinal,
            model=record.model,
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
        )

    def count_tool(self, node: str, tool: str, state: str) -> None:
        self.counts.tools += 1
        if state == "stopped":
            self.receipt.tools.append(f"{node or self.workflow.name}: {tool}")

    def count_reused_tool(self) -> None:
        self.counts.tools_reused += 1

    def _reached(
        self,
        state: ProgramState,
        kind: str,
        told: dict[str, Any],
        *,
        waiting_for: str | None = None,
        result: bytes | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        """Write that the program is in another state, together with the event that says so."""
        before = ProgramState(self.record.state)
        if state is not before and state not in NEXT[before]:
            raise AssertionError(f"program {self.id} cannot go from {before} to {state}")
        over = state in ENDED or state is ProgramState.WAITING
        for child in self._cut if state in ENDED else ():
            child.end_with_parent()
        self.record = replace(
            self.record, state=state, waiting_for=waiting_for,
            result=result.decode() if result is not None else None,
            error=encode(error).decode() if error is not None else None,
            ended_at=self.now() if state in ENDED else None,
            owner=None if over else self.record.owner, owner_seen_at=None if over else self.record.owner_seen_at,
        )  # fmt: skip
        self.journal.append(self.record, self.event(kind, None, **told))

    def end_with_parent(self) -> None:
        """Note that a program that was cut off will not be gone on with: its parent has ended, or is being stopped."""
        if self.record.state not in ENDED:
            facts: dict[str, Json] = {"kind": "cancelled", "message": "stopped together with the program that started it"}
            self._reached(ProgramState.CANCELLED, "program.cancelled", {"reason": facts["message"]}, error=facts)

    def _cut_off(self) -> None:
        """Cancelled from outside: with its parent, or because the process stops (then it stays `running`, without an
        owner, and can be resumed)."""
        if self.parent is not None and self.parent.stopping:
            self.end_with_parent()
            return
        self.record = replace(self.record, owner=None, owner_seen_at=None)
        self.journal.append(self.record, self.event("program.parked", None))


class _Stopped(Exception):
    def __init__(self, state: ProgramState, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
