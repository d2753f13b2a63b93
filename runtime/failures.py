"""Errors as the journal keeps them, and back: what is written of a failure must be enough to raise it again. Pure."""

from __future__ import annotations

from ..encoding import Json, decode, printable
from ..errors import EngineError, FairleadError, StepFailedError, ToolError
from .store.records import StepRecord


def brief(error: BaseException) -> str:
    """An error in one line for records and events: the innermost cause of groups, its type unless it is one of ours."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, FairleadError):
        return printable(error.message)
    return printable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def error_facts(error: BaseException) -> dict[str, Json]:
    """The error that ended a program, or a node that consists of others; names the step it came from, if there is one."""
    facts: dict[str, Json] = {"kind": type(error).__name__, "message": brief(error)}
    failure = _step_failure_in(error)
    if failure is not None:
        facts |= {"step": failure.step, "node": failure.origin_node}
    if isinstance(error, StepFailedError):
        facts["kind"] = error.kind
    if isinstance(error, FairleadError) and error.hint:
        facts["hint"] = error.hint
    return facts


def step_facts(error: Exception) -> dict[str, Json]:
    """The error that ended a step. Of failures inside failures, the innermost reason and its node, not the whole chain."""
    inner = error if isinstance(error, StepFailedError) else None
    facts: dict[str, Json] = {
        "kind": inner.kind if inner is not None else type(error).__name__,
        "message": inner.origin if inner is not None else brief(error),
        "hint": error.hint if isinstance(error, FairleadError) else None,
        "origin": inner.origin if inner is not None else None,
        "origin_node": inner.origin_node if inner is not None else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def recorded_failure(recorded: StepRecord) -> StepFailedError:
    """The error of a node that failed in an earlier run."""
    found = decode(recorded.error) if recorded.error else None
    facts = {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}
    return StepFailedError(
        recorded.step,
        facts.get("message", "failed"),
        node=recorded.node,
        origin=facts.get("origin"),
        origin_node=facts.get("origin_node"),
        kind=facts.get("kind", "error"),
        attempts=recorded.attempt,
        hint=facts.get("hint"),
    )


def engine_facts(error: EngineError) -> dict[str, Json]:
    """The error of a model call."""
    return {"message": error.reason, "hint": error.hint, "status": error.status, "retryable": error.retryable}


def recorded_engine_error(engine: str, text: str) -> EngineError:
    """The error of a recorded model call, as it was."""
    facts = decode(text)
    assert isinstance(facts, dict)
    status, hint = facts.get("status"), facts.get("hint")
    return EngineError(
        str(facts.get("message")),
        engine=engine,
        status=status if isinstance(status, int) else None,
        retryable=facts.get("retryable") is True,
        hint=str(hint) if hint else None,
    )


def recorded_tool_error(text: str | None) -> ToolError:
    """The error of a recorded tool call, as it was."""
    facts = decode(text) if text else None
    return ToolError(str(facts.get("message")) if isinstance(facts, dict) else "the tool failed")


def _step_failure_in(error: BaseException | None) -> StepFailedError | None:
    """The failure of a step that an error is or came from."""
    seen: set[int] = set()
    while error is not None and not isinstance(error, StepFailedError):
        if id(error) in seen:  # chains of errors can be circles
            return None
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error
