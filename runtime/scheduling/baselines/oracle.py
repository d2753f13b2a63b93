"""A clairvoyant upper line: least true remaining work first, prefixes kept exactly when the coming gap is worth it.

It knows what no scheduler can: `Facts` is the marked side channel by which a simulator tells it. Not an optimum (no polynomial
one is known), but what a perfect estimate would buy under the same admission.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..estimates import Stay
from ..keepalive import Kept, recompute_s
from ..order import Still
from ..port import Keep
from ..state import Agent, Call, Engine, Key


class Facts(Protocol):
    """What is going to happen."""

    def remaining_work_s(self, program_id: str) -> float:
        """Engine seconds that the calls which have not ended take with a perfect cache."""

    def gap_s(self, program_id: str, agent: str) -> float | None:
        """Length of the gap that begins now; None if the agent makes no more calls."""


@dataclass(slots=True)
class TrueRemaining(Still):
    """The order part."""

    facts: Facts

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        home = call.agent.home
        resident = home.residency.tokens_of((call.program.program_id, call.agent.name)) if home is not None else 0
        where = home or engine
        rebuild = recompute_s(max(0, call.prompt - resident), where) if where is not None else 0.0
        return (self.facts.remaining_work_s(call.program.program_id) + rebuild, call.sequence)


@dataclass(slots=True)
class TrueGap(Kept):
    """The keep-alive part: the whole gap, or not at all."""

    facts: Facts
    price: float = 0.3

    def stay(self, agent: Agent, engine: Engine, now: float) -> Stay:
        gap = self.facts.gap_s(agent.program.program_id, agent.name)
        share = agent.context / engine.capacity if engine.capacity else 0.0
        if gap is None or self.price * share * gap > recompute_s(agent.context, engine) + 1.0:
            return Stay(0.0, 0.0, 0.0)
        return Stay(gap + 1.0, 1.0, gap)

    def values(self, agent: Agent, engine: Engine, now: float) -> Sequence[Keep]:
        """Belady: the farther the next use, the less the prefix is worth."""
        gap = self.facts.gap_s(agent.program.program_id, agent.name)
        return (Keep(engine.name, agent.program.program_id, agent.name, -(now + gap) if gap is not None else -1e12),)
