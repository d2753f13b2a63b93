"""From what a person asks for to a workload: a trace by file or name, or a synthetic kind, with its arrivals and tenants."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import InputError
from .programs import Program, Workload
from .tracefile import find_trace, read_trace
from .traces import Shape, programs_of, sampled
from .workloads import CONTINUUM_BFCL, CONTINUUM_SWE, SAGA_SWE, SAGA_WEB, agents, by_statistics, known_graphs, poisson

SYNTHETIC: dict[str, Callable[[int, random.Random], list[Program]]] = {
    "swe-bench": lambda count, rng: agents(SAGA_SWE, count, rng),
    "webarena": lambda count, rng: agents(SAGA_WEB, count, rng),
    "mini-swe-agent": lambda count, rng: by_statistics(CONTINUUM_SWE, count, rng),
    "bfcl-web-search": lambda count, rng: by_statistics(CONTINUUM_BFCL, count, rng),
    "known-graphs": lambda count, rng: known_graphs(max(1, count // 10), min(count, 10), rng)[:count],
}
"""Kinds of programs made from published parameters, by name."""

SYNTHETIC_PROGRAMS = 200
"""How many of them, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How programs arrive: so many per second, so many at once, or (neither) as recorded."""

    per_s: float | None = None
    concurrency: int | None = None
    horizon_s: float | None = None

    def __post_init__(self) -> None:
        if self.per_s is not None and self.concurrency is not None:
            raise InputError("programs arrive at a rate or in a closed loop, not both", hint="leave one of them out")
        if self.per_s is not None and not 0 < self.per_s < float("inf"):
            raise InputError(f"load: must be more than 0 programs per second, not {self.per_s:g}")


@dataclass(frozen=True, slots=True)
class Source:
    """Workloads by seed; the seed chooses which programs, in which order, and when they arrive."""

    trace: str
    """File or name of a trace, or name of a synthetic kind; of no meaning where `recorded` is given."""
    directories: tuple[Path, ...] = ()
    """Where traces are looked for by name."""
    arrivals: Arrivals = field(default_factory=Arrivals)
    shape: Shape = field(default_factory=Shape)
    programs: int | None = None
    """How many; all of a trace if not said."""
    tenants: Mapping[str, float] = field(default_factory=dict)
    """Weights; programs are dealt to them in turn. Empty: as recorded."""
    recorded: Workload | None = None
    """Programs that were read already, for example from a journal."""

    def __call__(self, seed: int) -> Workload:
        """The workload. Raises what reading a trace raises, and `InputError` if it is not said how programs arrive."""
        rng = random.Random(seed)
        programs, timed = self._programs(rng)
        if self.tenants:
            names = list(self.tenants)
            programs = [replace(program, tenant=names[n % len(names)]) for n, program in enumerate(programs)]
        weights = dict(self.tenants) or (dict(self.recorded.tenants) if self.recorded is not None else {})
        arrivals = self.arrivals
        base = Workload(tuple(programs), tenants=weights, name=self.trace)
        if arrivals.concurrency is not None:
            return replace(base, concurrency=arrivals.concurrency, horizon_s=arrivals.horizon_s)
        if arrivals.per_s is not None:
            return base.arriving(poisson(len(programs), arrivals.per_s, rng))
        if not timed:
            raise InputError(
                f"trace {self.trace!r} has no arrival times",
                hint="say how programs arrive: a load (programs/s) or a concurrency",
            )
        return base

    def _programs(self, rng: random.Random) -> tuple[list[Program], bool]:
        """The programs, and whether they have arrival times of their own."""
        if self.trace in SYNTHETIC and self.recorded is None:
            return SYNTHETIC[self.trace](self.programs or SYNTHETIC_PROGRAMS, rng), False
        if self.recorded is not None:
            found, timed = list(self.recorded.programs), True
        else:
            trace = read_trace(find_trace(self.trace, self.directories))
            timed = not self.shape.tasks and all(program.arrival_s is not None for program in trace)
            found = programs_of(trace, self.shape)
        if not found:
            raise InputError(f"trace {self.trace!r}: no program is left after choosing", hint="choose less strictly")
        as_recorded = self.arrivals.per_s is None and self.arrivals.concurrency is None
        if as_recorded and self.programs is None:
            return found, timed
        chosen = sampled(found, self.programs or len(found), rng)
        return sorted(chosen, key=lambda program: program.arrival_s) if as_recorded else chosen, timed


def read_tenants(text: str) -> dict[str, float]:
    """Tenants and their weights: `3` for three equal ones, or `heavy=3,light=1`. Raises `InputError`."""
    if text.isdigit():
        if not 0 < int(text) <= 10_000:
            raise InputError(f"tenants: {text}: from 1 to 10,000")
        return {f"tenant-{number}": 1.0 for number in range(int(text))}
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, _, weight = entry.partition("=")
        try:
            weights[name.strip()] = float(weight or "1")
        except ValueError:
            raise InputError(f"tenants: {entry!r}: the weight is not a number", hint="for example heavy=3,light=1") from None
        if not name.strip() or not 0 < weights[name.strip()] < float("inf"):
            raise InputError(f"tenants: {entry!r}: a name and a weight above 0 are needed", hint="for example heavy=3,light=1")
    return weights
