"""The orders in which the journal answers, decided in one place so that every kind of journal gives the same.

Sorting is done here and not by the database: PostgreSQL compares text by the rules of a language, Python by code point.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from .records import CallRecord, History, ObservationRecord, ProgramRecord, StepRecord, ToolCallRecord

_effect_order = attrgetter("node", "attempt", "ordinal")


def _step_order(step: StepRecord) -> tuple[str, int, str]:
    return step.parent or "", step.ordinal, step.node


def history_of(
    program: ProgramRecord,
    *,
    steps: Iterable[StepRecord],
    calls: Iterable[CallRecord],
    tool_calls: Iterable[ToolCallRecord],
    observations: Iterable[ObservationRecord],
    last_seq: int,
) -> History:
    """A history in order: nodes of the graph first, then those that a running step added, by position in their parent;
    effects by node, attempt and position."""
    return History(
        program=program,
        steps=sorted(steps, key=_step_order),
        calls=sorted(calls, key=_effect_order),
        tool_calls=sorted(tool_calls, key=_effect_order),
        observations=sorted(observations, key=_effect_order),
        last_seq=last_seq,
    )


def newest_first(program: ProgramRecord) -> tuple[float, str]:
    """Sort key of lists of programs: last created first, equal times by id."""
    return -program.created_at, program.id
