"""Many programs waiting on tools at once in one process: memory per program, and whether time per program grows with them."""

from __future__ import annotations

import asyncio

from bench.overhead.arms import FAIRLEAD, started
from bench.overhead.serve import Sample
from bench.records import Record, record

MANY = 10_000
FEW = 1_000


def waiting_records(repeats: int) -> list[Record]:
    """Memory per waiting program in KiB, and time per program at 10,000 over time per program at 1,000.

    A quadratic step would show as a growth of 10; what growth there is comes from Python's collector, which looks through more
    objects as more programs live (without it time per program is the same). Every run has a process of its own: memory that
    a process once had is not given back, so a second run would look free. Raises `ArmError`.
    """
    pairs = asyncio.run(_pairs(repeats))
    many = [large for large, _ in pairs]
    memory = [sample.space / MANY / 1024 for sample in many if sample.space is not None]
    growth = [(large.seconds / MANY) / (small.seconds / FEW) for large, small in pairs]
    return [
        record("overhead", "waiting_10k_kib_per_program", memory, "KiB"),
        record("overhead", "waiting_10k_s", [sample.seconds for sample in many], "s"),
        record("overhead", "waiting_growth_10k_over_1k", growth, "x", target=3.0),
    ]


async def _pairs(repeats: int) -> list[tuple[Sample, Sample]]:
    return [(await _run(MANY), await _run(FEW)) for _ in range(repeats)]


async def _run(size: int) -> Sample:
    async with started(FAIRLEAD) as arm:
        return await arm.run(FAIRLEAD.name, "waiting", size)
