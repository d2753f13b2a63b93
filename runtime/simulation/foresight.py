"""The marked side channel: what no proxy in front of an engine can know. For oracle arms, never for a policy in use.

Whoever builds such a policy makes a `Truth`, gives it to the policy and to `simulate`; the run is then marked.
"""

from __future__ import annotations

from typing import Protocol

from .record import ProgramRun


class Foresight(Protocol):
    """The loop, as the truth asks it."""

    def program(self, program_id: str) -> ProgramRun: ...

    def gap_after(self, program_id: str, agent: str) -> float | None: ...

    def seconds_of(self, run: ProgramRun, position: int) -> float: ...


class Truth:
    """What is going to happen in the simulation that it was given to."""

    def __init__(self) -> None:
        self._loop: Foresight | None = None

    def attach(self, loop: Foresight) -> None:
        self._loop = loop

    def remaining_calls(self, program_id: str) -> int:
        """Calls of the program that have not ended."""
        return self._run(program_id).open

    def remaining_work_s(self, program_id: str) -> float:
        """Seconds that those calls take alone on the first engine, if all that their agents had before is cached."""
        loop, run = self._attached(), self._run(program_id)
        return sum(loop.seconds_of(run, position) for position in range(len(run.waiting_for)) if not run.ended[position])

    def gap_s(self, program_id: str, agent: str) -> float | None:
        """The pause that begins as the agent's call ends, until the next call that needs it; None after the last."""
        return self._attached().gap_after(program_id, agent)

    def _run(self, program_id: str) -> ProgramRun:
        return self._attached().program(program_id)

    def _attached(self) -> Foresight:
        assert self._loop is not None, "a truth belongs to the simulation that it was given to"
        return self._loop
