"""Orders of other systems, as keys. In their papers they run inside the engine; here they order the line in front of it, and
calls are let into the engine as far as its memory holds their prompts and expected outputs (`RunningSet`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..order import Still
from ..state import Call, Engine, Key


@dataclass(frozen=True, slots=True)
class LongestPrefix(Still):
    """SGLang's longest-prefix-match: most cached tokens first, then first come."""

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        home = call.agent.home
        matched = home.residency.tokens_of((call.program.program_id, call.agent.name)) if home is not None else 0
        return (-float(min(matched, call.prompt)), call.sequence)


@dataclass(frozen=True, slots=True)
class AttainedService:
    """Autellix (arXiv 2502.13965): programs in queues by the engine time they have had, first come first served inside.

    PLAS: the sum over the program's earlier calls; ATLAS: the longest chain of them seen so far. A program that has waited
    `beta` times what it was served is promoted to the first queue. The number of queues, their ranges and beta are not
    published; here 10 queues whose ranges double from 2 s, and beta 10. Calls are not preempted: this is outside the engine.
    """

    critical: bool = False
    """ATLAS."""
    first_range_s: float = 2.0
    queues: int = 10
    beta: float = 10.0

    def key(self, call: Call, engine: Engine | None, now: float) -> Key:
        program = call.program
        waited, served = program.waited_s + now - call.ready_at, program.engine_s
        if served > 0 and waited >= self.beta * served:
            return (0.0, call.sequence)
        value = program.critical_s if self.critical else served
        queue = 0 if value < self.first_range_s else 1 + math.floor(math.log2(value / self.first_range_s))
        return (float(min(queue, self.queues - 1)), call.sequence)

    def moves_at(self, call: Call, now: float) -> float | None:
        program = call.program
        when = call.ready_at + self.beta * program.engine_s - program.waited_s
        return when if program.engine_s > 0 and when > now else None
