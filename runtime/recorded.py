"""Between a program and its records: the first record of a new one, and what an earlier run of it left behind. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..encoding import Json, decode, encode, encoded_object
from ..graphs.declare import Workflow
from .body import Entry, body_path, recorded_effect
from .replay import Recorded
from .states import ENDED, ProgramState
from .store.records import CallRecord, History, ObservationRecord, ProgramRecord, StepRecord, ToolCallRecord

if TYPE_CHECKING:
    from .program import Program


@dataclass(slots=True)
class Past:
    """The effects that an earlier run recorded, by the path of the body that issued them."""

    effects: dict[str, list[Recorded[Entry]]] = field(default_factory=dict)
    cut_short: set[str] = field(default_factory=set)
    """Paths whose last effect has no outcome, or failed: what would come after it is open."""

    def reopen(self, path: str) -> bool:
        """Forget the failures that a body ended with, so that a person's resume tries them again; whether there were any.

        Failures that the body went on after stay: it has seen them.
        """
        if path not in self.cut_short:
            return False
        effects = self.effects.get(path, [])
        while effects and _state(effects[-1].entry) == "failed" and not isinstance(effects[-1].entry, StepRecord):
            if not effects.pop().overlapped:
                break
        return True


def past_of(history: History) -> Past:
    """What a program's history says of its bodies."""
    found: dict[str, list[Recorded[Entry]]] = {}
    entries: list[CallRecord | ToolCallRecord | ObservationRecord] = [
        *history.calls,
        *history.tool_calls,
        *history.observations,
    ]
    for entry in entries:
        found.setdefault(body_path(entry.node, entry.attempt), []).append(recorded_effect(entry))
    for step in history.steps:
        if step.ordinal >= 0 and step.parent is not None:
            found.setdefault(step.parent, []).append(recorded_effect(step))
    past = Past()
    for path, effects in found.items():
        effects.sort(key=lambda item: item.ordinal)
        if _state(effects[-1].entry) != "succeeded":
            past.cut_short.add(path)
        # A call that was cut off is asked for again, as if it had never been.
        past.effects[path] = [item for item in effects if _state(item.entry) != "stopped"]
    return past


def _state(entry: Entry) -> str:
    return "succeeded" if isinstance(entry, ObservationRecord) else entry.state


def failed_node(record: ProgramRecord) -> str | None:
    """The node in which a program failed, empty if none is known; None if the program has not ended."""
    if record.state not in ENDED:
        return None
    facts = decode(record.error) if record.error else None
    return str(facts.get("node") or "") if isinstance(facts, dict) else ""


def new_record(
    workflow: Workflow[..., Any],
    arguments: dict[str, bytes],
    *,
    id: str,
    entry: str,
    tenant: str,
    options: dict[str, Json],
    now: float,
    parent: Program | None = None,
    node: str | None = None,
) -> ProgramRecord:
    """The first record of a program."""
    return ProgramRecord(
        id=id,
        workflow=workflow.name,
        entry=entry,
        version=workflow.version,
        tenant=tenant,
        parent_id=parent.id if parent else None,
        parent_node=node,
        root_id=parent.root_id if parent else id,
        state=ProgramState.ACCEPTED,
        waiting_for=None,
        input=encoded_object(arguments),
        result=None,
        error=None,
        options=encode(options).decode(),
        created_at=now,
        started_at=None,
        ended_at=None,
        owner=None,
        owner_seen_at=None,
    )
