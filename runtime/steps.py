"""Runs one step of a program: attempts, timeouts, cache, fallback, and what the journal is told."""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from pydantic_core import to_json

from ..encoding import digest
from ..errors import DeclarationError, DivergentReplayError, FairleadError, ProgramError, StepTimeoutError
from ..graphs.declare import Step
from ..graphs.options import Timeout
from .body import Body, StepContext, Suspend
from .failures import brief, recorded_failure, step_facts
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
    label: str | None = None
    """What a person would call it, where that is not the node's name: the element of a map."""

    def as_told(self) -> dict[str, Any]:
        """What the event says with which the node starts."""
        label = {} if self.label is None else {"label": self.label}
        return {"step": self.name, "kind": self.kind, "needs": self.needs, "parent": self.parent, **label}


async def run_step(program: Program, place: Place, step: Step[..., Any], arguments: Mapping[str, bytes]) -> bytes:
    """The result (JSON) of a step with these arguments (JSON by parameter name).

    A recorded result is returned without running anything. Raises `StepFailedError` when every attempt failed and there
    is no fallback, `DivergentReplayError`, and `Suspend` when a person must decide.
    """
    outcome = program.recorded_result(place.node)
    if outcome is not None:
        return outcome
    recorded = program.recorded_steps.get(place.node)
    if recorded is not None and step.settings.idempotency == "unsafe" and recorded.state in _MAY_HAVE_HAD_ITS_EFFECT:
        outcome = _decided(program, place, step, recorded)
        if outcome is not None:
            return outcome
    cache_key = _cache_key(program, place, step, arguments)
    if cache_key is not None:
        kept = await program.journal.cached(cache_key, program.now())
        if kept is not None:
            result = kept.result.encode()
            program.note_step(place, StepState.SUCCEEDED, 1, result=result, data={"cached_from": kept.program_id})
            return result
    first = recorded.attempt if recorded is not None else 1
    if recorded is not None and recorded.state == StepState.FAILED and not program.goes_on(recorded):
        first += 1
    result = await _attempts(program, place, step, arguments, first)
    if cache_key is not None and step.settings.cache is not None:
        lifetime = step.settings.cache.lifetime
        expires = None if lifetime is None else program.now() + lifetime
        program.journal.append(CachedRecord(cache_key, result.decode(), program.id, expires))
    return result


_MAY_HAVE_HAD_ITS_EFFECT = frozenset({StepState.RUNNING, StepState.WAITING, StepState.CANCELLED})
"""States of a step that had started and whose end is not recorded."""


def _decided(program: Program, place: Place, step: Step[..., Any], recorded: StepRecord) -> bytes | None:
    """The result a person gave for an unsafe step that was cut off, or None if it is to run again.

    Raises `Suspend` while nobody has decided, and the failure if it counts as failed.
    """
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
    if decision.action == "fail":
        raise _failed(program, place, recorded.attempt, ProgramError("a person decided that it counts as failed"))
    if decision.action == "result":
        result = decision.read(step.signature.result)
        program.note_step(place, StepState.SUCCEEDED, recorded.attempt, result=result, data={"decided": "result"})
        return result
    return None


async def _attempts(program: Program, place: Place, step: Step[..., Any], arguments: Mapping[str, bytes], first: int) -> bytes:
    settings = step.settings
    attempt = first
    # A crash is no new permission: attempts count on, in rounds of what is allowed (a person's resume begins a round).
    spent = (first - 1) // settings.retry.attempts * settings.retry.attempts
    while True:
        program.note_step(place, StepState.RUNNING, attempt)
        if settings.idempotency == "unsafe":
            await program.journal.flushed()
        try:
            result = await _attempt(program, place.node, step, arguments, attempt)
        except anyio.get_cancelled_exc_class():
            program.note_step(place, StepState.CANCELLED, attempt)
            raise
        except Suspend as suspend:
            program.note_step(place, StepState.WAITING, attempt, error=suspend.question)
            raise
        except Exception as error:
            error, delay = _again(step, attempt - spent, error, f"{program.id}/{place.node}")
            if delay is not None:
                program.emit("step.retrying", place.node, attempt=attempt, error=brief(error), delay_s=round(delay, 3))
                await anyio.sleep(delay)
                attempt += 1
                continue
            if settings.fallback is not None and not isinstance(error, DivergentReplayError):
                program.emit("step.fallback", place.node, to=settings.fallback.name, error=brief(error))
                try:
                    result = await _fallback(program, place, settings.fallback, arguments)
                except FairleadError as fallen:
                    raise _failed(program, place, attempt, fallen) from error
            else:
                raise _failed(program, place, attempt, error) from error
        program.note_step(place, StepState.SUCCEEDED, attempt, result=result)
        return result


def _again(step: Step[..., Any], attempt: int, error: Exception, seed: str) -> tuple[Exception, float | None]:
    """The error, and the seconds until the next attempt or None; a predicate that fails itself ends the attempts."""
    if isinstance(error, DivergentReplayError):
        return error, None
    try:
        return error, step.settings.retry.again_in(attempt, error, seed)
    except Exception as broken:
        return DeclarationError(f"step {step.name!r}: its retry predicate failed: {brief(broken)} (on: {brief(error)})"), None


def _failed(program: Program, place: Place, attempt: int, error: Exception) -> FairleadError:
    if isinstance(error, DivergentReplayError):
        # The record is left as it is: once the code is put right, the same attempt can go on from it.
        program.emit("step.failed", place.node, attempt=attempt, error=brief(error))
        return error
    facts = step_facts(error)
    program.note_step(place, StepState.FAILED, attempt, error=facts, data={"error": facts["message"]})
    return recorded_failure(program.recorded_steps[place.node])


async def _fallback(program: Program, place: Place, fallback: Step[..., Any], arguments: Mapping[str, bytes]) -> bytes:
    node = f"{place.node}!{fallback.name}"
    under = Place(node, fallback.name, "step", parent=place.node)
    known = {name: value for name, value in arguments.items() if name in fallback.signature.parameters}
    return await run_step(program, under, fallback, known)


async def _attempt(program: Program, node: str, step: Step[..., Any], arguments: Mapping[str, bytes], attempt: int) -> bytes:
    """One attempt, within its timeouts."""
    body = program.body(node, attempt)
    body.in_thread = not step.is_async
    timeout = step.settings.timeout
    if timeout.hard is None and timeout.idle is None:
        value = await body.live(functools.partial(_call, body, step, arguments))
    else:
        value = await _within(timeout, body, functools.partial(_call, body, step, arguments))
    return step.signature.result.write(value)


async def _within(timeout: Timeout, body: Body, call: Callable[[], Awaitable[object]]) -> object:
    with (
        anyio.CancelScope(deadline=_deadline(timeout.hard)) as hard,
        anyio.CancelScope(deadline=_deadline(timeout.idle)) as idle,
    ):
        body.idle_scope, body.idle_limit = idle, timeout.idle
        return await body.live(call)
    limit, seconds = ("hard", timeout.hard) if hard.cancelled_caught else ("idle", timeout.idle)
    raise StepTimeoutError(body.node, limit, seconds or 0)


async def _call(body: Body, step: Step[..., Any], arguments: Mapping[str, bytes]) -> object:
    """Call the function of a step with its arguments read and its injections filled in."""
    signature = step.signature
    values = {name: signature.parameters[name].read(data) for name, data in arguments.items()}
    for name, what in signature.injections.items():
        values[name] = StepContext(body) if what == "StepContext" else body.program.services.inject(what)
    if step.is_async:
        return await step.function(**values)
    call = functools.partial(step.function, **values)
    # A thread cannot be stopped: on cancellation it is left to end by itself, and its calls are refused.
    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=body.program.services.threads)


def _deadline(seconds: float | None) -> float:
    return anyio.current_time() + seconds if seconds else math.inf


def _cache_key(program: Program, place: Place, step: Step[..., Any], arguments: Mapping[str, bytes]) -> str | None:
    cache = step.settings.cache
    if cache is None:
        return None
    given = {
        name: parameter.read(arguments[name]) if name in arguments else parameter.default
        for name, parameter in step.signature.parameters.items()
    }
    if cache.key is None:
        shown = to_json(given)
    else:
        try:
            shown = str(cache.key(**given)).encode()
        except Exception as broken:
            error = DeclarationError(f"step {step.name!r}: its cache key function failed: {brief(broken)}")
            raise _failed(program, place, 1, error) from broken
    return digest(b"cache", step.name.encode(), step.version.encode(), shown)
