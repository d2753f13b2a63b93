"""What the journal holds: one frozen dataclass per kind of record. Plain data, no behaviour, no I/O.

Every record is written as a whole and identified by its key (the fields marked *key*); writing a record with a known key
replaces it, except for parts, links and events, which are written once. Times are seconds since the epoch (UTC). JSON is
stored as text of the canonical form (`fairlead.encoding`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class ProgramRecord:
    """One program: a run of a workflow."""

    id: str
    """*key*"""
    workflow: str
    """Name of the workflow."""
    entry: str
    """Where the workflow is found again: `module:name` or `/path/file.py:name`; empty if it cannot be imported."""
    version: str
    """Version of the workflow's code."""
    tenant: str
    parent_id: str | None
    """Program that started this one as a sub-workflow, or None."""
    parent_node: str | None
    """Node of the parent that stands for this program."""
    root_id: str
    """The outermost program; equal to `id` for a root."""
    state: str
    """A `ProgramState`."""
    waiting_for: str | None
    """A `WaitReason` while the state is `waiting`."""
    input: str
    """JSON object: arguments by parameter name."""
    result: str | None
    """JSON, once succeeded."""
    error: str | None
    """JSON object (`kind`, `message`, `step`, `node`, `hint`), once ended without success; the question, while waiting."""
    options: str
    """JSON object: what the program was started with (model, engine, ...)."""
    created_at: float
    started_at: float | None
    ended_at: float | None
    owner: str | None
    """The process that runs it, `host:pid:start`; None when nobody does."""
    owner_seen_at: float | None
    """When the owner last said that it lives."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step (node) of a program, with the attempt it is in."""

    program_id: str
    """*key*"""
    node: str
    """*key*: `name`, `name#2`, `name[key]`, or a path `parent/name` for nodes added by a running step."""
    step: str
    """Name of the declared step."""
    kind: str
    """`step`, `workflow` (a child program), `map`, `branch` or `loop`."""
    parent: str | None
    """Path of the body that added this one (`node`, `node@2` in a second attempt), or the node it is an element of; None in a
    declared graph."""
    needs: str
    """JSON list of the nodes this one waits for."""
    state: str
    """A `StepState`."""
    attempt: int
    """1 for the first."""
    ordinal: int
    """Position among the effects of the parent body's attempt; -1 for nodes of a declared graph."""
    overlapped: bool
    """Whether another effect of the same body was open when this one was issued."""
    input_digest: str | None
    """Digest of what was asked for, for a node that a body added; None in a declared graph."""
    result: str | None
    error: str | None
    """JSON object (`kind`, `message`, `hint`, ...), once failed; the question, while waiting for a person."""
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One model call that has ended, in whatever way, with its answer."""

    program_id: str
    """*key*"""
    node: str
    """*key*"""
    attempt: int
    """*key*"""
    ordinal: int
    """*key*: position among the effects (calls, tool calls, observations, nodes) of this attempt of the step."""
    overlapped: bool
    state: str
    """`succeeded`, `failed`, `stopped` (cut off, as by a crash) or `cancelled` (given up by the body, which went on)."""
    endpoint: str
    """`chat/completions`, `completions`, `responses` or `embeddings`."""
    model: str
    engine: str
    request_digest: str
    """Digest of the whole request: parameters and conversation."""
    params: str
    """Digest of the part that holds the request without its conversation."""
    conversation: str | None
    """Digest of the last link of the conversation sent, or None."""
    status: int | None
    """HTTP status of the answer; None if none came."""
    content_type: str | None
    request_id: str | None
    """The engine's own id for the request."""
    answer: bytes | None
    """The body exactly as received (a whole event stream for streamed calls)."""
    error: str | None
    """JSON object (`message`, `hint`, `status`, `retryable`) when no usable answer came."""
    input_tokens: int | None
    """None when the engine did not say: unknown is not zero."""
    cached_tokens: int | None
    output_tokens: int | None
    attempts: int
    """Requests sent to the engine, retries included."""
    queued_at: float
    sent_at: float | None
    first_token_at: float | None
    ended_at: float


@dataclass(frozen=True, slots=True)
class ToolCallRecord:
    """One tool call; written when it starts and again when it ends."""

    program_id: str
    """*key*"""
    node: str
    """*key*"""
    attempt: int
    """*key*"""
    ordinal: int
    """*key*"""
    overlapped: bool
    tool: str
    idempotency: str
    """`pure`, `idempotent` or `unsafe`."""
    idempotency_key: str
    """Stable over attempts to run the same call; handed to the tool."""
    arguments: str
    """JSON object."""
    request_digest: str
    state: str
    """`started`, `succeeded`, `failed` or `cancelled`."""
    background: bool
    result: str | None
    """JSON."""
    error: str | None
    """JSON object (`kind`, `message`)."""
    started_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class ObservationRecord:
    """One recorded value that code inside a step could not compute again (time, randomness, order of arrival)."""

    program_id: str
    """*key*"""
    node: str
    """*key*"""
    attempt: int
    """*key*"""
    ordinal: int
    """*key*"""
    overlapped: bool
    name: str
    value: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A piece of content (a message, a set of request parameters), stored once for everybody. Written once."""

    digest: str
    """*key*"""
    content: bytes
    """Canonical JSON."""


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """One more message at the end of a conversation: history as a chain that shares its beginning. Written once."""

    digest: str
    """*key*: digest of (parent, part)."""
    parent: str | None
    """The link before, or None for a first message."""
    part: str
    """Digest of the message."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that happened, for people and programs that watch. Written once, numbered without gaps per program."""

    program_id: str
    """*key*"""
    seq: int
    """*key*: 1, 2, 3, ..."""
    at: float
    kind: str
    """Past tense: `program.started`, `step.succeeded`, `call.started`, `tool.started`, ..."""
    node: str | None
    data: str
    """JSON object with what a watcher needs to show it."""


@dataclass(frozen=True, slots=True)
class CachedRecord:
    """A step result kept for other programs until it expires."""

    key: str
    """*key*"""
    result: str
    program_id: str
    """Who computed it."""
    expires_at: float | None


Record: TypeAlias = (
    ProgramRecord
    | StepRecord
    | CallRecord
    | ToolCallRecord
    | ObservationRecord
    | PartRecord
    | LinkRecord
    | EventRecord
    | CachedRecord
)


@dataclass(frozen=True, slots=True)
class History:
    """Everything the journal knows of one program, in the order in which a resume needs it."""

    program: ProgramRecord
    steps: list[StepRecord]
    calls: list[CallRecord]
    tool_calls: list[ToolCallRecord]
    observations: list[ObservationRecord]
    last_seq: int
    """Number of its last event, 0 if none."""
