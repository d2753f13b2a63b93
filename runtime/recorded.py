"""Between a program and its records: the first record of a new one, and what an earlier run of it left behind. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..encoding import Json, decode, encode
from ..graphs.declare import Workflow
from .body import Entry, body_path, recorded_effect
from .replay import Recorded
from .states import ENDED, ProgramState
from .store.records import CallRecord, History, ObservationRecord, ProgramRecord, ToolCallRecord

if TYPE_CHECKING:
    from .program import Program


def effects_of(history: History) -> dict[str, list[Recorded[Entry]]]:
    """The recorded effects by the path of the body that issued them."""
    found: dict[str, list[Recorded[Entry]]] = {}
    entries: list[CallRecord | ToolCallRecord | ObservationRecord] = [
        *history.calls,
        *history.tool_calls,
        *history.observations,
    ]
    for entry in entries:
        if not (isinstance(entry, CallRecord) and entry.state == "stopped"):
            found.setdefault(body_path(entry.node, entry.attempt), []).append(recorded_effect(entry))
    for step in history.steps:
        if step.ordinal >= 0 and step.parent is not None:
            found.setdefault(step.parent, []).append(recorded_effect(step))
    return found


def failed_node(record: ProgramRecord) -> str | None:
    if record.state not in ENDED:
        return None
    facts = decode(record.error) if record.error else None
    return str(facts.get("node") or "") if isinstance(facts, dict) else ""


def drop_last_failures(effects: list[Recorded[Entry]]) -> None:
    """Forget the failed calls at which the body of a workflow ended, so that a person's resume tries them again."""
    effects.sort(key=lambda item: item.ordinal)
    while effects and isinstance(effects[-1].entry, CallRecord | ToolCallRecord) and effects[-1].entry.state == "failed":
        effects.pop()


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
    text = "{" + ",".join(f"{encode(name).decode()}:{data.decode()}" for name, data in sorted(arguments.items())) + "}"
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
        input=text,
        result=None,
        error=None,
        options=encode(options).decode(),
        created_at=now,
        started_at=None,
        ended_at=None,
        owner=None,
        owner_seen_at=None,
    )
