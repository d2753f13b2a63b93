"""KVFlow (arXiv 2507.07400): prefixes are forgotten by steps to execution, farthest first.

The original knows the graph; here the order of agents is learned from the first program of the workflow, which for a fixed
graph is the same. Values go to engines that choose victims by value; requests are first come, first served. The background
prefetch is left out: it needs a second stream inside the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..estimates import Stay
from ..keepalive import Kept
from ..port import Keep
from ..state import Agent, Engine, Program
from ..successors import Successors

_NEVER = 1_000.0


@dataclass(slots=True)
class StepsToExecution(Kept):
    """The keep-alive part."""

    successors: Successors = field(default_factory=Successors)
    _last: dict[str, str] = field(default_factory=dict)

    def stay(self, agent: Agent, engine: Engine, now: float) -> Stay:
        return Stay(0.0, 0.0, 0.0)

    def values(self, agent: Agent, engine: Engine, now: float) -> Sequence[Keep]:
        program = agent.program
        before = self._last.get(program.program_id)
        if before is not None:
            self.successors.observe(program.workflow, before, agent.name)
        self._last[program.program_id] = agent.name
        distances = self.successors.distances(program.workflow, agent.name)
        return [
            Keep(engine.name, program.program_id, other.name, -float(distances.get(other.name, _NEVER)))
            for other in program.agents.values()
            if other.home is engine
        ]

    def finished(self, program: Program) -> None:
        self._last.pop(program.program_id, None)
