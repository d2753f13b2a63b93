"""What the process that runs programs tells whoever shows them, and how that goes through a pipe: JSON, one per line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from ...encoding import Json
from ..store.records import EventRecord

DOCUMENT_VERSION = 1
"""Of every document that `--json` writes. It grows when a field changes its meaning or goes away."""


@dataclass(frozen=True, slots=True)
class Started:
    """A program is on its way."""

    id: str
    workflow: str
    resumed: bool
    pid: int
    """The process that runs it."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a program has before it: the nodes of a declared graph that are still to run, in order, as (id, kind)."""

    id: str
    nodes: list[list[str]]
    kept: int = 0
    """Steps whose results an earlier run left."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A durable event of a program or of one of its children."""

    event: EventRecord


@dataclass(frozen=True, slots=True)
class Printed:
    """Something that the code of steps and tools wrote to its standard output or error."""

    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one program, as `--json` writes it."""

    id: str
    workflow: str
    state: str
    """A program state; `running` for a program that was parked."""
    result: Json = None
    error: dict[str, Json] | None = None
    """`kind`, `message` and `hint`."""
    question: dict[str, Json] | None = None
    """What a person is asked."""
    stopped: dict[str, Json] | None = None
    """What a cancellation, a timeout or a failure cut off."""
    counts: dict[str, Json] = field(default_factory=dict)
    usage: dict[str, Json] = field(default_factory=dict)
    usage_replayed: dict[str, Json] = field(default_factory=dict)
    seconds: float | None = None
    """Since it was started for the first time."""
    exit: int = 0
    trace: str = ""
    """For `--debug`."""

    def as_json(self) -> dict[str, Json]:
        document = {name: value for name, value in asdict(self).items() if name not in ("exit", "trace")}
        return {"version": DOCUMENT_VERSION, **document}


@dataclass(frozen=True, slots=True)
class Failed:
    """The command failed as a whole; there are no outcomes."""

    message: str
    hint: str | None
    exit: int
    trace: str = ""


Message: TypeAlias = Started | Planned | Happened | Printed | Outcome | Failed

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Started, Planned, Happened, Printed, Outcome, Failed)}


def to_line(message: Message) -> bytes:
    """One message as a line of JSON."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """The message in a line of JSON."""
    data = json.loads(line)
    kind = _KINDS[data.pop("kind")]
    if kind is Happened:
        return Happened(EventRecord(**data["event"]))
    message: Message = kind(**data)
    return message
