"""A run of the bench: every shape at its sizes, arm after arm, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.overhead.arms import ArmError, RunningArm
from bench.overhead.serve import Sample

PLAN = (
    ("memory_chain", 100),
    ("memory_fanout", 1000),
    ("durable_chain", 100),
    ("durable_fanout", 1000),
    ("memory_agent", 10),
    ("memory_agent", 50),
    ("memory_agent", 500),
    ("durable_agent", 10),
    ("durable_agent", 250),
    ("durable_agent", 500),
    ("openai_agent", 10),
)
"""Shapes and sizes, in the order they are run in a round."""

WARM_UP_SIZE = 10


@dataclass(frozen=True, slots=True)
class Runs:
    """All samples of a bench run; the n-th samples of all arms for one shape and size were taken right after each other."""

    samples: Mapping[tuple[str, str, int], Sequence[Sample]]
    failures: Sequence[str]

    def seconds(self, name: str, shape: str, size: int) -> list[float]:
        """The repeats of one arm; empty if it does not offer the shape or failed at it."""
        return [sample.seconds for sample in self.samples.get((name, shape, size), ())]

    def space(self, name: str, shape: str, size: int) -> list[int]:
        """The bytes of one arm's repeats; empty where it does not tell them."""
        return [sample.space for sample in self.samples.get((name, shape, size), ()) if sample.space is not None]

    def names(self, shape: str, size: int) -> list[str]:
        """The arms that have samples for this shape and size."""
        return [name for name, of_shape, of_size in self.samples if (of_shape, of_size) == (shape, size)]


async def take_turns(arms: Sequence[RunningArm], repeats: int, report: Callable[[str], None]) -> Runs:
    """Run the plan `repeats` times, after a small unmeasured run of every shape.

    Each round starts with another arm, so none is always first. An arm that fails at a shape is left out of that shape from
    then on, and its samples of it are dropped.
    """
    entrants = [(arm, name) for arm in arms for name in arm.offers]
    samples: dict[tuple[str, str, int], list[Sample]] = {}
    failures: dict[tuple[str, str], str] = {}

    async def run(arm: RunningArm, name: str, shape: str, size: int) -> Sample | None:
        if shape not in arm.offers[name] or (name, shape) in failures:
            return None
        try:
            return await arm.run(name, shape, size)
        except ArmError as error:
            failures[name, shape] = str(error)
            return None

    for arm, name in entrants:
        for shape in arm.offers[name]:
            await run(arm, name, shape, WARM_UP_SIZE)
    for repeat in range(repeats):
        report(f"round {repeat + 1} of {repeats}")
        first = repeat % len(entrants)
        for shape, size in PLAN:
            for arm, name in entrants[first:] + entrants[:first]:
                if sample := await run(arm, name, shape, size):
                    samples.setdefault((name, shape, size), []).append(sample)
    kept = {key: taken for key, taken in samples.items() if (key[0], key[1]) not in failures}
    return Runs(kept, list(failures.values()))
