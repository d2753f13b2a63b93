"""Runs one step of a program: attempts, timeouts, cache, fallback, and what the journal is told."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from ..encoding import Json, digest, encode
from ..errors import DivergentReplayError, FairleadError, StepFailedError, StepTimeoutError
from ..graphs.building import current_builder
from ..graphs.declare import Step
from ..tools.calling import current_runner
from .body import Body, StepContext, Suspend, current_body
from .states import StepState
from .store.records import CachedRecord, StepRecord

if TYPE_CHECKING:
    from .program import Program


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands in its program: what its records say besides its state."""

    node: str
    name: str
    kind: str
    needs: tuple[str, ...] = ()
    parent: str | None = None
    """Path of the body that added it, or the node it is an element of; None in a declared graph."""
    ordinal: int = -1
    overlapped: bool = False
    asked: str | None = None


async def run_step(program: Program, place: Place, step: Step[..., Any], arguments: Mapping[str, bytes]) -> bytes:
    """The result (JSON) of a step with these arguments (JSON by parameter name).

    A recorded result is returned without running anything. Raises `StepFailedError` when every attempt failed and there
    is no fallback, `DivergentReplayError`, and `Suspend` when a person must decide.
    """
    recorded = program.recorded_steps.get(place.node)
    if recorded is not None:
        outcome = _from_record(program, step, recorded)
        if outcome is not None:
            return outcome
    cache_key = _cache_key(step, arguments)
    if cache_key is not None:
        kept = await program.journal.cached(cache_key, program.now())
        if kept is not None:
            result = kept.result.encode()
            program.note_step(place, StepState.SUCCEEDED, 1, result=result)
            program.emit("step.succeeded", place.node, cached_from=kept.program_id)
            return result
    first = recorded.attempt + (recorded.state == StepState.FAILED) if recorded is not None else 1
    result = await _attempts(program, place, step, arguments, first)
    if cache_key is not None and step.settings.cache is not None:
        lifetime = step.settings.cache.lifetime
        expires = None if lifetime is None else program.now() + lifetime
        program.journal.append(CachedRecord(cache_key, result.decode(), program.id, expires))
    return result


def _from_record(program: Program, step: Step[..., Any], recorded: StepRecord) -> bytes | None:
    """The outcome an earlier run recorded, or None if the step has to run (again)."""
    if recorded.state == StepState.SUCCEEDED:
        program.count_reused(recorded.node)
        return (recorded.result or "null").encode()
    if recorded.state == StepState.FAILED and not program.reopened(recorded.node):
        raise StepFailedError(recorded.step, _message_of(recorded.error), attempts=recorded.attempt)
    if recorded.state in (StepState.RUNNING, StepState.WAITING, StepState.CANCELLED) and step.settings.idempotency == "unsafe":
        decision = program.decision(recorded.node)
        if decision is None:
            raise Suspend(
                {
                    "kind": "unknown_outcome",
                    "about": recorded.node,
                    "message": f"step {recorded.node!r} is declared unsafe, had started, and did not record its end: it may or "
                    "may not have had its effect",
                    "choices": ["run", "result", "fail"],
                }
            )
        return decision.apply(f"step {recorded.node!r}", step.signature.result)
    return None


async def _attempts(program: Program, place: Place, step: Step[..., Any], arguments: Mapping[str, bytes], first: int) -> bytes:
    settings = step.settings
    attempt = first
    while True:
        program.note_step(place, StepState.RUNNING, attempt)
        program.emit("step.started", place.node, step=place.name, attempt=attempt, kind=place.kind, needs=list(place.needs), parent=place.parent)
        if settings.idempotency == "unsafe":
            await program.journal.flushed()
        try:
            result = await _attempt(program, place.node, step, arguments, attempt)
        except anyio.get_cancelled_exc_class():
            program.note_step(place, StepState.CANCELLED, attempt)
            program.emit("step.cancelled", place.node, attempt=attempt)
            raise
        except Suspend as suspend:
            program.note_step(place, StepState.WAITING, attempt, error=suspend.question)
            program.emit("step.waiting", place.node, question=suspend.question)
            raise
        except Exception as error:
            delay = None if isinstance(error, DivergentReplayError) else settings.retry.again_in(attempt - first + 1, error, f"{program.id}/{place.node}")
            if delay is not None:
                program.emit("step.retrying", place.node, attempt=attempt, error=brief(error), delay_s=round(delay, 3))
                await anyio.sleep(delay)
                attempt += 1
                continue
            if settings.fallback is not None and not isinstance(error, DivergentReplayError):
                program.emit("step.fallback", place.node, to=settings.fallback.name, error=brief(error))
                result = await _fallback(program, place, settings.fallback, arguments)
            else:
                raise _failed(program, place, attempt, error) from error
        program.note_step(place, StepState.SUCCEEDED, attempt, result=result)
        program.emit("step.succeeded", place.node, attempt=attempt)
        if settings.idempotency == "unsafe":
            await program.journal.flushed()
        return result


def _failed(program: Program, place: Place, attempt: int, error: Exception) -> FairleadError:
    facts: dict[str, Json] = {"kind": type(error).__name__, "message": brief(error)}
    if isinstance(error, FairleadError) and error.hint:
        facts["hint"] = error.hint
    program.note_step(place, StepState.FAILED, attempt, error=facts)
    program.emit("step.failed", place.node, attempt=attempt, error=facts["message"])
    if isinstance(error, DivergentReplayError):
        return error
    if isinstance(error, StepFailedError):
        return StepFailedError(place.name, brief(error), kind=error.kind, attempts=attempt, hint=error.hint)
    hint = error.hint if isinstance(error, FairleadError) else None
    return StepFailedError(place.name, brief(error), kind=type(error).__name__, attempts=attempt, hint=hint)


async def _fallback(program: Program, place: Place, fallback: Step[..., Any], arguments: Mapping[str, bytes]) -> bytes:
    node = f"{place.node}!{fallback.name}"
    under = Place(node, fallback.name, "step", parent=place.node)
    known = {name: value for name, value in arguments.items() if name in fallback.signature.parameters}
    return await run_step(program, under, fallback, known)


async def _attempt(program: Program, node: str, step: Step[..., Any], arguments: Mapping[str, bytes], attempt: int) -> bytes:
    """One attempt, within its timeouts, with everything the body starts inside one task group."""
    timeout = step.settings.timeout
    failure: BaseException | None = None
    value: object = None
    body: Body | None = None
    with ExitStack() as limits:
        hard = limits.enter_context(anyio.CancelScope(deadline=_deadline(timeout.hard))) if timeout.hard else None
        idle = limits.enter_context(anyio.CancelScope(deadline=_deadline(timeout.idle))) if timeout.idle else None
        async with anyio.create_task_group() as tasks:
            body = program.body(node, attempt, tasks)
            body.idle_scope, body.idle_limit = idle, timeout.idle
            try:
                value = await call_in_body(body, step, arguments)
                failure = body.fault
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:
                failure = suspension_in(error) or body.fault or error
            if failure is not None and not isinstance(failure, Suspend):
                tasks.cancel_scope.cancel()
    for scope, limit, seconds in ((hard, "hard", timeout.hard), (idle, "idle", timeout.idle)):
        if scope is not None and scope.cancelled_caught:
            raise StepTimeoutError(node, limit, seconds or 0)
    assert body is not None
    failure = failure or body.fault or body.growing.unhandled()
    if failure is not None:
        raise failure
    body.effects.end()
    return step.signature.result.write(value)


async def call_in_body(body: Body, step: Step[..., Any], arguments: Mapping[str, bytes]) -> object:
    """Call the function of a step with its arguments read and its injections filled in."""
    signature = step.signature
    values = {name: signature.parameters[name].read(data) for name, data in arguments.items()}
    for name, what in signature.injections.items():
        values[name] = StepContext(body) if what == "StepContext" else body.program.services.inject(what)
    tokens = current_body.set(body), current_builder.set(body.growing), current_runner.set(body.tools)
    try:
        if step.is_async:
            return await step.function(**values)
        call = functools.partial(step.function, **values)
        # A thread cannot be stopped: on cancellation it is left to end by itself, and its calls are refused.
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=body.program.services.threads)
    finally:
        current_body.reset(tokens[0])
        current_builder.reset(tokens[1])
        current_runner.reset(tokens[2])


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


def brief(error: BaseException) -> str:
    """An error in one line for records and events: the innermost cause of groups, its type unless it is one of ours."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, FairleadError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _deadline(seconds: float | None) -> float:
    return anyio.current_time() + seconds if seconds else math.inf


def _message_of(error: str | None) -> str:
    from ..encoding import decode

    facts = decode(error) if error else None
    return str(facts.get("message")) if isinstance(facts, dict) else "failed"


def _cache_key(step: Step[..., Any], arguments: Mapping[str, bytes]) -> str | None:
    cache = step.settings.cache
    if cache is None:
        return None
    if cache.key is None:
        shown = encode({name: value.decode() for name, value in arguments.items()})
    else:
        values = {name: step.signature.parameters[name].read(data) for name, data in arguments.items()}
        shown = str(cache.key(**values)).encode()
    return digest(b"cache", step.name.encode(), step.version.encode(), shown)
