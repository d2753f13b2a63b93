"""What comparisons need by name in other processes."""

from __future__ import annotations

import random

from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.scheduling.port import Scheduler
from fairlead.runtime.simulation.foresight import Truth
from fairlead.runtime.simulation.programs import Program, Workload
from tests.unit.runtime.simulation.making import conversation


def first_come(_: Truth) -> Scheduler:
    return ProgramFCFS()


def small_load(seed: int) -> Workload:
    rng = random.Random(seed)
    programs = [
        Program(f"p{n}", conversation((100, 5), (150, 5), gap_s=rng.uniform(0, 9)), rng.uniform(0, 30), tenant="ab"[n % 2])
        for n in range(12)
    ]
    return Workload(tuple(programs))
