"""The marked side channel: what no proxy can know, or no unmodified engine can do, for baselines that assume it.

A scheduler takes part by having one of these methods; a run records which it used, and every table that shows it says so.
Production code has none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..engines.embedded.victims import Victim
from .programs import Program


@dataclass(frozen=True, slots=True)
class CallFuture:
    """The truth about a call that is about to become ready."""

    call_id: int
    output_tokens: int
    work_left: float
    """Seconds that the program's remaining calls take alone, this one included, if nothing is in a cache but its own past."""
    next_gap_s: float | None
    """From the end of this call to the program's next one; None after the last."""


@runtime_checkable
class Clairvoyant(Protocol):
    """Is told the future of each call, just before `CallReady`."""

    def foresee(self, future: CallFuture) -> None: ...


@runtime_checkable
class KnowsGraphs(Protocol):
    """Is told the whole graph of a declared program, just before `ProgramArrived`. Declared graphs are no secret: this is
    a channel of the simulator, not an oracle."""

    def declare(self, program_id: str, program: Program) -> None: ...


@runtime_checkable
class ChoosesVictims(Protocol):
    """Chooses what an engine's cache gives up: needs a modified engine."""

    def victim_score(self, engine: str, victim: Victim, now: float) -> float:
        """The highest goes first."""
