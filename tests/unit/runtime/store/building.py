"""Records for tests, with every field filled that a test does not care about."""

from __future__ import annotations

from fairlead.encoding import digest
from fairlead.runtime.store.records import (
    CallRecord,
    EventRecord,
    LinkRecord,
    PartRecord,
    ProgramRecord,
    StepRecord,
    ToolCallRecord,
)


def program(
    program_id: str,
    *,
    state: str = "running",
    workflow: str = "review",
    parent_id: str | None = None,
    root_id: str | None = None,
    created_at: float = 1.0,
    ended_at: float | None = None,
    owner: str | None = None,
    owner_seen_at: float | None = None,
) -> ProgramRecord:
    return ProgramRecord(
        id=program_id,
        workflow=workflow,
        entry="module:review",
        version="v1",
        tenant="default",
        parent_id=parent_id,
        parent_node=None if parent_id is None else "child",
        root_id=root_id or parent_id or program_id,
        state=state,
        waiting_for=None,
        input='{"path":"src"}',
        result=None,
        error=None,
        options="{}",
        created_at=created_at,
        started_at=None,
        ended_at=ended_at,
        owner=owner,
        owner_seen_at=owner_seen_at,
    )


def step(
    program_id: str,
    node: str,
    *,
    state: str = "running",
    result: str | None = None,
    parent: str | None = None,
    ordinal: int = -1,
) -> StepRecord:
    return StepRecord(
        program_id=program_id,
        node=node,
        step=node,
        kind="step",
        parent=parent,
        needs="[]",
        state=state,
        attempt=1,
        ordinal=ordinal,
        overlapped=False,
        input_digest=None,
        result=result,
        error=None,
        started_at=1.0,
        ended_at=None,
    )


def call(
    program_id: str,
    ordinal: int = 0,
    *,
    node: str = "node",
    params: str = "no such part",
    conversation: str | None = None,
    answer: bytes | None = b"{}",
) -> CallRecord:
    return CallRecord(
        program_id=program_id,
        node=node,
        attempt=1,
        ordinal=ordinal,
        overlapped=False,
        state="succeeded",
        endpoint="chat/completions",
        model="model",
        engine="embedded",
        request_digest="d",
        params=params,
        conversation=conversation,
        status=200,
        content_type="application/json",
        request_id=None,
        answer=answer,
        error=None,
        input_tokens=10,
        cached_tokens=None,
        output_tokens=5,
        attempts=1,
        queued_at=1.0,
        sent_at=1.1,
        first_token_at=1.2,
        ended_at=1.3,
    )


def tool_call(program_id: str, ordinal: int = 0, *, state: str = "started") -> ToolCallRecord:
    return ToolCallRecord(
        program_id=program_id,
        node="node",
        attempt=1,
        ordinal=ordinal,
        overlapped=True,
        tool="search",
        idempotency="pure",
        idempotency_key="key",
        arguments="{}",
        request_digest="d",
        state=state,
        background=False,
        result=None,
        error=None,
        started_at=1.0,
        ended_at=None,
    )


def event(program_id: str, seq: int, kind: str = "step.started") -> EventRecord:
    return EventRecord(program_id=program_id, seq=seq, at=float(seq), kind=kind, node=None, data="{}")


def part(content: bytes) -> PartRecord:
    return PartRecord(digest(content), content)


def conversation(*messages: bytes) -> tuple[list[PartRecord | LinkRecord], str]:
    """The records of a conversation, and its last link."""
    records: list[PartRecord | LinkRecord] = []
    parent: str | None = None
    for message in messages:
        content = part(message)
        link = LinkRecord(digest((parent or "").encode(), content.digest.encode()), parent, content.digest)
        records += [content, link]
        parent = link.digest
    assert parent is not None
    return records, parent


class SetClock:
    """A clock that shows what it was set to."""

    def __init__(self, now: float = 0.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time
