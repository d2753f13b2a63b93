"""The marked side channel: what no proxy can know, or no unmodified engine can do, for baselines that assume it.

A scheduler takes part by having one of these methods; a run records which it used, and every table that shows it says so.
Production code has none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .programs import Program


@dataclass(frozen=True, slots=True)
class CallFuture:
    """The truth about a call that is about to become ready."""

    call_id: int
    output_tokens: int
    calls_left: int
    """Calls that the program still has to make, this one included."""
    new_tokens_left: int
    """Prompt tokens of those calls that no earlier call of the program had; what an endless cache would still prefill."""
    output_tokens_left: int
    gap_s: float | None
    """From the end of this call to the next one that needs it; None after the last."""


@runtime_checkable
class Clairvoyant(Protocol):
    """Is told the future of each call, just before `CallReady`."""

    def foresee(self, future: CallFuture) -> None: ...


@runtime_checkable
class KnowsGraphs(Protocol):
    """Is told the whole graph of a declared program, just before `ProgramArrived`.

    Who declares a graph tells it, so this is no oracle; sizes and pauses in it must not be read.
    """

    def declare(self, program_id: str, program: Program) -> None: ...


@runtime_checkable
class ChoosesVictims(Protocol):
    """Chooses what an engine's cache gives up: needs a modified engine."""

    def victim_score(self, engine: str, program_id: str, agent: str, tokens: int, idle_s: float, now: float) -> float:
        """The cached prefix with the highest score goes first, from its end. `tokens` is its whole length."""
