"""Which eligible call goes first. An order is a key, smaller first.

It is computed when a call begins to wait and again when it surfaces, and a call whose key has grown meanwhile (its prefix was
forgotten, say) is put back. A key that becomes smaller by the passing of time says when (`moves_at`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .estimates import Estimates
from .fairness import Rates
from .state import Call, Engine, Key


class Order(Protocol):
    """Gives a waiting call its place."""

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        """The call's key. `engine` stands for all engines where the agent has no home."""

    def moves_at(self, call: Call, now: float) -> float | None:
        """When the call's key will become smaller by the passing of time alone; None if it will not."""


class Still:
    """An order that time does not change."""

    __slots__ = ()

    def moves_at(self, call: Call, now: float) -> float | None:
        return None


@dataclass(frozen=True, slots=True)
class CallOrder(Still):
    """Request-level first come, first served."""

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        return (call.sequence,)


@dataclass(frozen=True, slots=True)
class ProgramOrder(Still):
    """Program-level first come, first served."""

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        return (call.program.order, call.sequence)


@dataclass(slots=True)
class RemainingWork:
    """Least expected remaining work of the program first, over its weight; then critical path and join siblings.

    The work of a program is what is left of it given its age (learned completion curve; the declared graph where there is one),
    in seconds of the engine: computing its tokens, rebuilding its prefix if that was forgotten (a resident program is shorter)
    and the share of the memory it holds for the time it will be there, which is what is scarce when agents' contexts are long.
    With a falling hazard this is attained service, with a growing one program first come, first served; before there is
    evidence age says nothing and ties go to the program that came first.

    A program that can still meet its deadline, but only if it is served soon, goes before those without one, least slack first.
    """

    estimates: Estimates
    rates: Rates
    memory: float = 1.0
    """Weight of memory held against compute."""
    urgent: float = 2.0
    """A deadline is near when less slack is left than this many times the expected remaining time."""

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        program = call.program
        calls = self._calls_left(call)
        work, time = self._work(call, engine, calls)
        path = -float(call.steps_left or 0)
        if program.deadline is not None:
            latest = program.deadline - time
            if 0 <= latest - now <= self.urgent * time:
                return (0.0, latest, path, call.siblings)
        return (1.0, work / program.weight, program.order, path, call.siblings)

    def moves_at(self, call: Call, now: float) -> float | None:
        deadline = call.program.deadline
        if deadline is None:
            return None
        time = self._work(call, call.agent.home, self._calls_left(call))[1]
        when = deadline - (1 + self.urgent) * time
        return when if when > now else None

    def _calls_left(self, call: Call) -> float:
        learned = self.estimates.completion.calls_left(call.program.workflow, call.program.made)
        if call.steps_left is not None:
            return max(1.0, call.steps_left)
        if call.program.steps_known is not None:
            return max(1.0, call.program.steps_known - call.program.made)
        return learned

    def _work(self, call: Call, engine: Engine | None, calls: float) -> tuple[float, float]:
        """Engine seconds of work left, and expected time to the end if served at once."""
        tokens = self.estimates.tokens
        agent = call.agent
        home = agent.home
        where = home or engine
        rate = where.prefill_tokens_per_s if where is not None else 10_000.0
        decode = where.decode_s_per_token if where is not None else 0.02
        resident = home.residency.tokens_of((call.program.program_id, agent.name)) if home is not None else 0
        missing = max(0, call.prompt - resident)
        later = calls - 1
        per_call = self.rates.cost(tokens.new.value, 0, tokens.output.value)
        compute = (missing + self.rates.generated * call.output + later * per_call) / rate
        time = missing / rate + call.output * decode + later * (tokens.new.value / rate + tokens.output.value * decode + 10.0)
        share = call.need / where.capacity if where is not None and where.capacity else 0.0
        return compute + self.memory * share * time, time
