"""The interface of a scheduler: events in, decisions out. Pure: no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class CallReady:
    """A program has a call to make."""

    call_id: int
    program_id: str
    """The root program: sub-agents are scheduled with their root."""
    tenant: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call has left its engine, or was given up while it waited."""

    call_id: int


@dataclass(frozen=True, slots=True)
class ProgramEnded:
    """A root program will make no more calls."""

    program_id: str


Event: TypeAlias = CallReady | CallEnded | ProgramEnded


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send this call to this engine now."""

    call_id: int
    engine: str


class Scheduler(Protocol):
    """Decides when and where calls go. Deterministic: the same events at the same times give the same decisions."""

    def handle(self, event: Event, now: float) -> list[Dispatch]:
        """Take one event; `now` is in seconds and never goes back."""

    def next_wakeup(self) -> float | None:
        """When a decision may become due without an event; None if never."""

    def explain(self, call_id: int) -> str:
        """Why a waiting call waits, for a person."""
