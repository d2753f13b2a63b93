"""The errors that Fairlead raises on purpose; an agent's `TurnLimitError` is beside the agent. Imports only the standard
library.

Families follow what the caller can do next: correct the input (`DeclarationError`, `InputError`, `ConfigurationError`),
look at the program (`ProgramError`), try again later or elsewhere (`EngineError`, `StoreError`). Each message says what was
wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping


class FairleadError(Exception):
    """Base of all errors raised by Fairlead. `hint` says what to do next, when that is known."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class DeclarationError(FairleadError, TypeError):
    """A step, tool or workflow is declared or composed wrongly; found before anything runs."""


class GraphCycleError(DeclarationError):
    """The steps of a graph depend on each other in a circle. `cycle` lists the node names, first repeated last."""

    def __init__(self, cycle: list[str]) -> None:
        super().__init__(f"these steps wait for each other: {' -> '.join(cycle)}", hint="remove one of the dependencies")
        self.cycle = cycle


class InputError(FairleadError, ValueError):
    """A value from outside (workflow input, command line, file) does not fit; nothing was started."""


class ConfigurationError(FairleadError, ValueError):
    """An engine, database or option is set to something that cannot work."""


class NotFoundError(FairleadError, LookupError):
    """The named workflow, program or file does not exist."""


class ConflictError(FairleadError):
    """The program is in a state in which this cannot be done, or another process owns it."""


class ProgramError(FairleadError):
    """A program did not succeed."""


class StepFailedError(ProgramError):
    """A step failed for good: every attempt was used and no fallback took over."""

    def __init__(
        self,
        step: str,
        message: str,
        *,
        node: str | None = None,
        origin: str | None = None,
        origin_node: str | None = None,
        kind: str = "error",
        attempts: int = 1,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"step {step!r} failed: {message}", hint=hint)
        self.step = step
        self.node = node or step
        self.origin = origin or self.message
        """What the innermost of nested failures says."""
        self.origin_node = origin_node or self.node
        """Node of the innermost of nested failures in the same program."""
        self.reason = message
        self.kind = kind
        self.attempts = attempts


class ProgramStoppedError(ProgramError):
    """A program was cancelled or ran out of time. `stopped` lists what was cut off: calls, tools, steps, child programs."""

    def __init__(self, program_id: str, state: str, reason: str, stopped: Mapping[str, object]) -> None:
        super().__init__(
            f"program {program_id} {'timed out' if state == 'timed_out' else f'was {state}'}: {reason}",
            hint=f"finished work is kept; go on with `fairlead resume {program_id}`",
        )
        self.program_id = program_id
        self.state = state
        self.reason = reason
        self.stopped = stopped


class PersonNeededError(ProgramError):
    """A program cannot go on without a person. `question` says about what, and which answers there are."""

    def __init__(self, program_id: str, question: Mapping[str, object]) -> None:
        about = question.get("about")
        super().__init__(
            f"program {program_id} waits for a person: {question.get('message')}",
            hint=f"look whether it happened, then `fairlead resume {program_id} --decide '{about}=run'` to run it again, "
            f"`--decide '{about}=result:JSON'` to go on with a result, or `--decide '{about}=fail'`",
        )
        self.program_id = program_id
        self.question = question


class StepTimeoutError(ProgramError, TimeoutError):
    """A step ran longer than its hard limit, or made no progress for longer than its idle limit (seconds)."""

    def __init__(self, step: str, limit: str, seconds: float) -> None:
        super().__init__(f"step {step!r} exceeded its {limit} timeout of {seconds:g} s")
        self.step = step
        self.limit = limit
        self.seconds = seconds


class SerialisationError(ProgramError, TypeError):
    """A value that crosses a step's border cannot be written as JSON of the declared type."""


class DivergentReplayError(ProgramError):
    """A resumed step did something else than its journal says: it is not deterministic, or its code changed."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(
            f"{where}: replay diverged\n  expected: {expected}\n  found:    {found}",
            hint="the step's code changed or depends on time, randomness or outside state; record such values with "
            "`StepContext.record`, or start a new program",
        )
        self.where = where
        self.expected = expected
        self.found = found


class WorkflowChangedError(ProgramError):
    """The code of a workflow is not the code its program was started with."""


class ToolError(FairleadError):
    """A tool cannot be called as asked, or failed. The model receives the message as an error result."""


class EngineError(FairleadError):
    """An engine could not answer. `status` is its HTTP status, or None when no reply came."""

    def __init__(
        self, message: str, *, engine: str, status: int | None = None, retryable: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(f"engine {engine!r}: {message}", hint=hint)
        self.reason = message
        """The message without the name of the engine."""
        self.engine = engine
        self.status = status
        self.retryable = retryable


class StoreError(FairleadError):
    """The database cannot be read or written (locked, read-only, full, of a newer version)."""


def line_in_user_code(error: BaseException) -> str:
    """` (FILE:LINE)`, the last line of code that is neither ours nor a library's in an error's traceback; empty if none is."""
    # Imported only when something has failed: `import fairlead` need not wait for them.
    import sysconfig
    from pathlib import Path
    from traceback import extract_tb

    elsewhere = ("<frozen ", str(Path(__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(elsewhere)]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
