"""The states of programs and steps: one table, used by the journal, the API, the CLI and telemetry."""

from __future__ import annotations

from enum import StrEnum


class ProgramState(StrEnum):
    """Where a program is in its life. A crash is not a state: a crashed program still says `running` and is resumed.

    Nothing gets `queued` or `budget_exceeded` yet: the words are kept for what holds and limits whole programs.
    """

    ACCEPTED = "accepted"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    BUDGET_EXCEEDED = "budget_exceeded"


class WaitReason(StrEnum):
    """What a waiting program waits for.

    A record says `person` only: waits for a model or a tool last milliseconds and are events, and nothing holds a program
    for its budget, or pauses it, yet.
    """

    MODEL = "model"
    TOOL = "tool"
    PERSON = "person"
    BUDGET = "budget"
    PAUSED = "paused"


class StepState(StrEnum):
    """Where a step is in its life. `pending` is never recorded: a step without a record is pending."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


ENDED = frozenset(
    {ProgramState.SUCCEEDED, ProgramState.FAILED, ProgramState.CANCELLED, ProgramState.TIMED_OUT, ProgramState.BUDGET_EXCEEDED}
)
"""States that a program does not leave by itself."""

NEXT: dict[ProgramState, frozenset[ProgramState]] = {
    ProgramState.ACCEPTED: frozenset({ProgramState.QUEUED, ProgramState.RUNNING, ProgramState.CANCELLED}),
    ProgramState.QUEUED: frozenset({ProgramState.RUNNING, ProgramState.CANCELLED}),
    ProgramState.RUNNING: frozenset({ProgramState.WAITING, *ENDED}),
    ProgramState.WAITING: frozenset({ProgramState.RUNNING, *ENDED}),
    # A program that ended without success can be taken up again by a person; its finished work is kept.
    ProgramState.FAILED: frozenset({ProgramState.RUNNING}),
    ProgramState.CANCELLED: frozenset({ProgramState.RUNNING}),
    ProgramState.TIMED_OUT: frozenset({ProgramState.RUNNING}),
    ProgramState.BUDGET_EXCEEDED: frozenset({ProgramState.RUNNING}),
    ProgramState.SUCCEEDED: frozenset(),
}
"""The legal transitions."""
