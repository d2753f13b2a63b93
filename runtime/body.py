"""A running body: one attempt of a step, or the body of an `async def` workflow, with everything it has going on.

It is found by a context variable, so that an ordinary client, a tool or a step called in the body knows where it belongs.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar, overload

import anyio
from pydantic_core import from_json

from ..encoding import Json, digest, encode
from ..errors import DeclarationError, DivergentReplayError, FairleadError, ProgramError
from ..graphs.building import current_builder
from ..memory.conversation import Conversation
from ..tools.calling import current_runner
from .nursery import Nursery
from .replay import Effects, Issued, Recorded
from .store.records import CallRecord, ObservationRecord, StepRecord, ToolCallRecord

if TYPE_CHECKING:
    from .growing import Grower
    from .program import Program
    from .toolcalls import ToolCaller

T = TypeVar("T")

DEPTH_MAX = 64
"""How deep bodies (steps, tools, workflows) may start bodies."""

Entry: TypeAlias = CallRecord | ToolCallRecord | ObservationRecord | StepRecord


class Suspend(BaseException):
    """Leaves a body that cannot go on without a person; not an `Exception`, so that no handler in user code takes it.

    `question` is what the person is asked.
    """

    def __init__(self, question: dict[str, Any]) -> None:
        super().__init__(question.get("message"))
        self.question = question


class Body:
    """See the module. Methods belong to the event loop's thread, except where they say otherwise."""

    def __init__(self, program: Program, node: str, attempt: int) -> None:
        self.program = program
        self.node = node
        """The node that runs; empty for the body of the workflow itself."""
        self.attempt = attempt
        self.tasks = Nursery(program.tasks)
        self.parent = current_body.get()
        """The body in which this one was started; None for the outermost."""
        self.depth: int = 0 if self.parent is None else self.parent.depth + 1
        if self.depth > DEPTH_MAX:
            raise ProgramError(f"{node}: steps call steps more than {DEPTH_MAX} deep", hint="is the recursion bounded?")
        self.closed = False
        """Whether the attempt is over: a thread left behind may ask for nothing more."""
        self.path = body_path(node, attempt)
        """Prefix of what this body adds: attempts do not share effects."""
        self.effects: Effects[Entry] = Effects(self.where, program.recorded_effects(self))
        self.task = asyncio.current_task()
        """The task that runs the body; effects that come from other tasks of it have no order that a replay could keep."""
        self.in_thread = False
        """Whether the body runs in a thread, one effect after the other."""
        self.streams: set[Callable[[], None]] = set()
        """What closes the streams that the body has not closed."""
        self._given_up: list[Callable[[], None]] = []
        self.idle_scope: anyio.CancelScope | None = None
        self.idle_limit: float | None = None
        self.conversation: Conversation | None = None
        """The last conversation sent by a client, whose beginning the next one probably shares."""
        self.fault: FairleadError | None = None
        """An error that ends the attempt even if a library in between swallowed it."""
        self.growing: Grower
        self.tools: ToolCaller

    @property
    def where(self) -> str:
        return f"step {self.node!r}" if self.node else f"workflow {self.program.workflow.name!r}"

    async def live(self, run: Callable[[], Awaitable[T]]) -> T:
        """Run the code of the body, and everything it starts, to the end; gives what the code returns.

        Clients, tools and steps find this body while the code runs. Raises what the code raises (a `Suspend` also out of
        groups), and what it did not notice: its fault, the error of a node it added, what a replay left out.
        """
        try:
            try:
                value = await self._entered(run)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:
                if isinstance(error, SystemExit):
                    error = ProgramError(
                        f"SystemExit: {self.where} called sys.exit({error.code})", hint="raise an error, or return"
                    )
                failure = suspension_in(error) or self.fault or error
                if not isinstance(failure, Suspend):
                    if not self.node:
                        self.program.stop()
                    self.tasks.cancel()
                await self.tasks.drained()
                raise failure from failure.__cause__
            await self.tasks.drained()
        except anyio.get_cancelled_exc_class():
            await self.tasks.cancelled()
            raise
        finally:
            self.closed = True
        self._ended()
        return value

    async def _entered(self, run: Callable[[], Awaitable[T]]) -> T:
        tokens = current_body.set(self), current_builder.set(self.growing), current_runner.set(self.tools)
        try:
            return await run()
        finally:
            for close in list(self.streams):
                close()
            current_body.reset(tokens[0])
            current_builder.reset(tokens[1])
            current_runner.reset(tokens[2])

    def _ended(self) -> None:
        self.lives_on()
        failure = self.fault or self.growing.unhandled()
        if failure is not None:
            raise failure
        self.effects.end()

    def progress(self) -> None:
        """Note a sign of life: the idle timeout starts again."""
        if self.idle_scope is not None and self.idle_limit is not None:
            self.idle_scope.deadline = anyio.current_time() + self.idle_limit
        if self.parent is not None:
            self.parent.progress()

    def cut_off(self, given_up: Callable[[], None]) -> None:
        """Note that an effect was cancelled. If the body goes on, it was the body's own doing (a timeout, a stream left
        early), which a replay must repeat: then `given_up` is called. If the body ends with it, the effect was cut off."""
        self._given_up.append(given_up)

    def lives_on(self) -> None:
        """Note that the body goes on by itself."""
        while self._given_up:
            self._given_up.pop()()

    def check_loop(self, what: str) -> None:
        """Raise `DeclarationError` on another event loop than the program's, where nothing would ever wake the caller."""
        if threading.get_ident() != self.program.services.loop_thread:
            raise DeclarationError(
                f"{self.where}: {what} was asked for on another event loop than the program's",
                hint="make the step `async def`, or use the blocking forms in a `def` step: OpenAI, tool.blocking(), "
                "handle.result(), Agent.run_blocking()",
            )

    def issue(self, asked: str, label: str) -> Issued[Entry]:
        """Number an effect and find its record; remember a divergence as the fault of this body."""
        self.check_loop(label)
        if self.closed:
            raise ProgramError(f"{self.where}: {label} was asked for after attempt {self.attempt} had ended")
        self.progress()
        ordered = self.in_thread or asyncio.current_task() is self.task
        if self._given_up:
            # A clean-up while the body is being cancelled is no sign that it goes on, and has no place in its order.
            if anyio.current_effective_deadline() == -math.inf:
                ordered = False
            else:
                self.lives_on()
        try:
            return self.effects.issue(asked, label, ordered=ordered)
        except DivergentReplayError as error:
            self.fault = error
            raise

    @overload
    async def observe(self, name: str, look: Callable[[], Coroutine[Any, Any, T]]) -> T: ...
    @overload
    async def observe(self, name: str, look: Callable[[], T]) -> T: ...
    async def observe(self, name: str, look: Callable[[], Any]) -> Any:
        """The value of `look()`, recorded: a resumed body gets the recorded value instead of looking again.

        The value must be JSON.
        """
        issued = self.issue(digest(b"observe", name.encode()), f"observation {name!r}")
        try:
            if isinstance(issued.recorded, ObservationRecord):
                return from_json(issued.recorded.value)
            looked = look()
            value = await looked if isinstance(looked, Awaitable) else looked
            text = encode(value).decode()
            self.program.journal.append(
                ObservationRecord(self.program.id, self.node, self.attempt, issued.ordinal, issued.overlapped, name, text)
            )
            # What JSON makes of it (tuples become lists) must be the same now and in a replay.
            return from_json(text)
        finally:
            self.effects.close()


def body_path(node: str, attempt: int) -> str:
    """What the effects of an attempt are filed under."""
    return node if attempt == 1 else f"{node}@{attempt}"


current_body: ContextVar[Body | None] = ContextVar("fairlead_body", default=None)


def running_body(what: str) -> Body:
    """The body that runs here. Raises `DeclarationError` outside of steps and workflows."""
    body = current_body.get()
    if body is None:
        raise DeclarationError(f"{what} outside of a running step", hint="it belongs inside a @step or an async @workflow")
    return body


def on_loop(body: Body, function: Callable[[], T]) -> T:
    """Run a function on the event loop's thread, from wherever this is called."""
    if threading.get_ident() == body.program.services.loop_thread:
        return function()
    return anyio.from_thread.run_sync(function)


def wait_blocking(body: Body, what: str, wait: Callable[[], Awaitable[T]]) -> T:
    """Wait for something of the event loop from a thread. Raises `DeclarationError` on the loop's own thread."""
    if threading.get_ident() == body.program.services.loop_thread:
        raise DeclarationError(f"{what} would block the event loop, because this step is `async def`", hint="await it instead")
    return anyio.from_thread.run(_lend_thread, body, wait)


async def _lend_thread(body: Body, wait: Callable[[], Awaitable[T]]) -> T:
    """Wait on behalf of a thread, whose place among the threads others may use meanwhile.

    Otherwise steps in threads that wait for steps in threads could take all places and wait forever.
    """
    threads = body.program.services.threads
    threads.total_tokens += 1
    try:
        return await wait()
    finally:
        threads.total_tokens -= 1


def recorded_effect(entry: Entry) -> Recorded[Entry]:
    """An entry of the journal as an effect to be repeated."""
    match entry:
        case CallRecord():
            asked, label = entry.request_digest, call_label(entry.endpoint, entry.model, entry.request_digest)
        case ToolCallRecord():
            asked, label = entry.request_digest, f"tool {entry.tool}({entry.arguments})"
        case ObservationRecord():
            asked, label = digest(b"observe", entry.name.encode()), f"observation {entry.name!r}"
        case StepRecord():
            asked, label = entry.input_digest or "", f"step {entry.node!r}"
    return Recorded(entry.ordinal, entry.overlapped, asked, label, entry)


def call_label(endpoint: str, model: str, asked: str) -> str:
    return f"call {endpoint} to model {model!r}, request {asked[:12]}"


def suspension_in(error: BaseException) -> Suspend | None:
    """The `Suspend` in an error, also inside a group that a task group of the body made of it."""
    if isinstance(error, Suspend):
        return error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            found = suspension_in(inner)
            if found is not None:
                return found
    return None


class StepContext:
    """What a step can know and say about itself: annotate a parameter with this type to receive it."""

    __fairlead_injected__: ClassVar[str] = "StepContext"

    def __init__(self, body: Body) -> None:
        self._body = body

    @property
    def program_id(self) -> str:
        return self._body.program.id

    @property
    def input(self) -> Mapping[str, Json]:
        """What the program was started with, by parameter name."""
        return self._body.program.input

    @property
    def step(self) -> str:
        """The node that runs: `review[3]`."""
        return self._body.node

    @property
    def attempt(self) -> int:
        """1 for the first."""
        return self._body.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step of this program, also after a crash."""
        return digest(b"step", self._body.program.id.encode(), self._body.node.encode())

    def heartbeat(self) -> None:
        """Say that the step makes progress: its idle timeout starts again."""
        on_loop(self._body, self._body.progress)

    @overload
    async def record(self, name: str, look: Callable[[], Coroutine[Any, Any, T]]) -> T: ...
    @overload
    async def record(self, name: str, look: Callable[[], T]) -> T: ...
    async def record(self, name: str, look: Callable[[], Any]) -> Any:
        """The value of `look()` (time, randomness, outside state), which a resumed step gets again as it was.

        Raises `SerialisationError` if the value is not JSON.
        """
        return await self._body.observe(name, look)
