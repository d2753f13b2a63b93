"""The exit codes of the command line, and which error has which. The only place that knows them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from ...errors import (
    ConfigurationError,
    ConflictError,
    DeclarationError,
    EngineError,
    FairleadError,
    InputError,
    NotFoundError,
    PersonNeededError,
    ProgramStoppedError,
    StepFailedError,
    StepTimeoutError,
    StoreError,
    WorkflowChangedError,
)
from ..states import ProgramState


class ExitCode(IntEnum):
    """What the command line exits with. 4 and 7 are kept for authorisation and budgets."""

    OK = 0
    FAILED = 1
    """The program failed or was cancelled, or something unforeseen happened."""
    USAGE = 2
    """Wrong options, bad input, a wrong declaration, an unusable setting: nothing was started."""
    NOT_FOUND = 3
    CONFLICT = 5
    """The program is in a state, or the workflow in a version, in which this cannot be done."""
    TIMEOUT = 6
    UNAVAILABLE = 8
    """The engine or the database cannot be used."""
    PERSON = 9
    """The program waits for a person."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (DeclarationError, ExitCode.USAGE),
    (InputError, ExitCode.USAGE),
    (ConfigurationError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (ConflictError, ExitCode.CONFLICT),
    (WorkflowChangedError, ExitCode.CONFLICT),
    (PersonNeededError, ExitCode.PERSON),
    (StepTimeoutError, ExitCode.TIMEOUT),
    (StoreError, ExitCode.UNAVAILABLE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)


def exit_code(error: BaseException) -> ExitCode:
    """The exit code for an error that ended a command."""
    if isinstance(error, ProgramStoppedError):
        return ExitCode.TIMEOUT if error.state == ProgramState.TIMED_OUT else ExitCode.FAILED
    if isinstance(error, StepFailedError):
        return _code_of_cause(error)
    if isinstance(error, EngineError):
        return ExitCode.UNAVAILABLE if is_unavailable(error) else ExitCode.FAILED
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def is_unavailable(error: EngineError) -> bool:
    """Whether the engine did not answer, or says that it cannot now; a refusal of the request itself is not that."""
    return error.status is None or error.status >= 500 or error.status == 429


def fairlead_error(error: BaseException) -> FairleadError | None:
    """The error of ours in an exception, also inside a group that a task group made of it."""
    if isinstance(error, FairleadError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := fairlead_error(inner)) is not None), None)
    return None


def _code_of_cause(error: StepFailedError) -> ExitCode:
    """A step fails for the reason of what it was raised from, if that is the engine, the database or a timeout."""
    for cause in _causes(error):
        if isinstance(cause, EngineError | StoreError | StepTimeoutError):
            return exit_code(cause)
    return ExitCode.FAILED


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__
