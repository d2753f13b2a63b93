"""What happens to a prefix while its program is away: keep it while the hazard of return x saving exceeds the price of memory.

The answer is a time (`Stay`), computed once when the gap begins. It is carried out by whatever the engine offers: as the time
for which the agent keeps its place, so that competing releases are held back (any engine); as `Dispatch.pin_s` (engines that
pin); as touches, when the shadow of the cache says that the prefix is next to be forgotten; as `Release` when a program ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .estimates import Estimates, Stay
from .port import Keep
from .state import Agent, Call, Engine, Program
from .successors import Successors

_FAR = 100
"""Steps after which an agent whose turn is not foreseen is taken to come."""


class KeepAlive(Protocol):
    """Decides about prefixes in gaps."""

    def stay(self, agent: Agent, engine: Engine, now: float) -> Stay:
        """How long to keep the prefix of an agent that has just become idle."""

    def next_need(self, agent: Agent) -> int:
        """Tokens that the next call of the agent will hold."""

    def still_away(self, agent: Agent, now: float) -> None:
        """The agent's time is over and it is not back: tell what is learned from that."""

    def returned(self, agent: Agent, seconds: float) -> None:
        """The agent is back after a gap of `seconds`; `agent.kind` says of what kind."""

    def waited(self, call: Call, seconds: float) -> None:
        """A call of an agent without a place has been sent after so long in the line."""

    def finished(self, program: Program) -> None:
        """A program has ended."""

    def values(self, agent: Agent, engine: Engine, now: float) -> Sequence[Keep]:
        """For engines that choose victims by value, as a call of the agent has ended there: what prefixes are worth."""


class Unlearned:
    """The part of a keep-alive that learns nothing and tells engines nothing."""

    __slots__ = ()

    def still_away(self, agent: Agent, now: float) -> None:
        return

    def returned(self, agent: Agent, seconds: float) -> None:
        return

    def waited(self, call: Call, seconds: float) -> None:
        return

    def finished(self, program: Program) -> None:
        return

    def values(self, agent: Agent, engine: Engine, now: float) -> Sequence[Keep]:
        return ()


def recompute_s(tokens: float, engine: Engine) -> float:
    """Time to prefill `tokens` from nothing; the quadratic part is small up to 32K tokens and left to the rate."""
    return tokens / engine.prefill_tokens_per_s


@dataclass(slots=True)
class Kept(Unlearned):
    """The part that keep-alives have in common."""

    estimates: Estimates

    def next_need(self, agent: Agent) -> int:
        tokens = self.estimates.tokens
        return int(agent.context + tokens.new.value + tokens.output.value)


@dataclass(slots=True)
class Priced(Kept):
    """Keep while it pays: the price of a share of the memory is that share of the engine's time, while calls wait for memory.

    While none waits the price is 0 and places are kept: the admission takes them only when somebody wants them.
    """

    price: float = 0.3
    """Seconds of service that a second of the whole memory is worth while calls wait (the shadow price of 8.3, at most 1)."""
    bubble_s: float = 1.0
    """What a program that comes back to no place loses besides its prefix: the wait for a new one."""
    longest_s: float = 60.0
    successors: Successors = field(default_factory=Successors)
    _last: dict[str, str] = field(default_factory=dict)

    def stay(self, agent: Agent, engine: Engine, now: float) -> Stay:
        if agent.program.ended:
            return Stay(0.0, 0.0, 0.0)
        tokens = max(1, agent.context)
        saving = recompute_s(tokens, engine) + self.bubble_s
        share = tokens / engine.capacity if engine.capacity else 0.0
        return self.estimates.gaps.best_stay(agent.kind, saving, self.price * share, self.longest_s)

    def still_away(self, agent: Agent, now: float) -> None:
        if agent.idle_at is None:
            return
        away = now - agent.idle_at
        self.estimates.gaps.still_away(agent.kind, away, agent.counted_s)
        agent.counted_s = max(agent.counted_s, away)

    def returned(self, agent: Agent, seconds: float) -> None:
        self.estimates.gaps.observe(agent.kind, seconds, agent.counted_s)

    def values(self, agent: Agent, engine: Engine, now: float) -> Sequence[Keep]:
        """What a prefix saves x the chance that it is wanted again, over the steps until then, for the program's agents there.

        A program of one agent wants it in the next step; among several, who comes next is learned (`Successors`).
        """
        program = agent.program
        before = self._last.get(program.program_id)
        if before is not None:
            self.successors.observe(program.workflow, before, agent.name)
        if not program.ended:
            self._last[program.program_id] = agent.name
        returns = 0.0 if program.ended else self.estimates.gaps.returns_within(agent.kind, self.longest_s)
        steps = self.successors.distances(program.workflow, agent.name) if len(program.agents) > 1 else {agent.name: 1}
        return [
            Keep(engine.name, program.program_id, other.name, returns / steps.get(other.name, _FAR))
            for other in program.agents.values()
            if other.home is engine
        ]

    def finished(self, program: Program) -> None:
        self._last.pop(program.program_id, None)


@dataclass(slots=True)
class FixedStay(Kept):
    """Keep for a fixed time, whatever is known (Continuum's public code: 2 s)."""

    seconds: float

    def stay(self, agent: Agent, engine: Engine, now: float) -> Stay:
        return Stay(self.seconds, 1.0, self.seconds)
