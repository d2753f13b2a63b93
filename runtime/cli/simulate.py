"""What `fairlead simulate` does: policies against each other on a trace, a synthetic kind, or one's own past programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from rich.table import Table

from ...encoding import Json
from ...errors import ConfigurationError, InputError
from ..engines.embedded.hardware import profile_named
from ..scheduling.policies import policy
from ..scheduling.port import Scheduler
from ..simulation.compare import Arm, Comparison, Setting, compare, rows
from ..simulation.engines import LEVELS, EngineSpec, Level, engine_pool
from ..simulation.foresight import Truth
from ..simulation.journals import read_journal, recorded_workload
from ..simulation.plots import Chart, svg
from ..simulation.programs import Workload
from ..simulation.sources import Arrivals, Source, read_tenants
from ..simulation.traces import Shape
from .exits import ExitCode
from .looking import as_json, opened
from .messages import DOCUMENT_VERSION
from .terminal import console, put

CLAIRVOYANT = ("oracle",)
"""Policies that are made from the truth; every table marks them."""
CURVE_POINTS = 60


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of the command."""

    trace: str | None
    journal: str | None
    """URL of the database whose programs are the workload."""
    workflow: str | None
    policies: str
    engines: int
    hardware: str
    level: str
    kv_tokens: int | None
    load: str | None
    concurrency: int | None
    hours: float | None
    programs: int | None
    tenants: str | None
    scale: float
    context_max: int | None
    gap_cap_s: float | None
    tasks: bool
    seeds: int
    processes: int
    exact: bool
    plot: str | None
    json_wanted: bool


def simulate(wish: Wish) -> int:
    """Run the comparison and show it."""
    if wish.seeds < 1:
        raise InputError(f"--seeds {wish.seeds}: must be at least 1")
    arms = _arms(wish)
    found = {load: _compared(wish, arms, load) for load in _loads(wish)}
    if wish.plot is not None:
        _draw(wish.plot, found)
    if wish.json_wanted:
        runs: list[Json] = [{"load": load, **comparison.as_json()} for load, comparison in found.items()]
        put(as_json({"version": DOCUMENT_VERSION, "runs": runs}))
        return ExitCode.OK
    for load, comparison in found.items():
        _show(comparison, arms[0].name if len(arms) > 1 else None, "" if load is None else f"{load:g} programs per second")
    return ExitCode.OK


def _loads(wish: Wish) -> list[float | None]:
    if wish.load is None:
        return [None]
    try:
        return [float(entry) for entry in wish.load.split(",")]
    except ValueError:
        raise InputError(
            f"--load {wish.load!r}: not a number", hint="programs per second, for example 0.02 or 0.01,0.02"
        ) from None


def _compared(wish: Wish, arms: tuple[Arm, ...], load: float | None) -> Comparison:
    arrivals = Arrivals(load, wish.concurrency, wish.hours * 3600 if wish.hours is not None else None)
    source = Source(
        wish.trace or "journal",
        trace_directories(os.environ.get("FAIRLEAD_TRACES", "")),
        arrivals,
        Shape(wish.scale, wish.gap_cap_s, wish.tasks, 3 if wish.tasks else 1, wish.context_max),
        wish.programs,
        read_tenants(wish.tenants) if wish.tenants else {},
        _recorded(wish),
    )
    setting = Setting(source, arms, tuple(range(1, wish.seeds + 1)), exact=wish.exact, curves=CURVE_POINTS if wish.plot else 0)
    return compare(setting, processes=wish.processes)


def trace_directories(named: str) -> tuple[Path, ...]:
    """Where traces are looked for: folders as in PATH, then the samples of a clone that one stands in."""
    return (*(Path(folder) for folder in named.split(os.pathsep) if folder), Path("bench/scheduling/traces"))


def _recorded(wish: Wish) -> Workload | None:
    if (wish.trace is None) == (wish.journal is None):
        raise InputError("one workload is needed", hint="give --trace FILE|NAME, or --journal for your own past programs")
    url = wish.journal
    if url is None:
        return None

    async def read() -> Workload:
        async with opened(url) as journal:
            return recorded_workload(await read_journal(journal, workflow=wish.workflow))

    return anyio.run(read)


def _arms(wish: Wish) -> tuple[Arm, ...]:
    names = [name.strip() for name in wish.policies.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise InputError(
            f"--policy {wish.policies!r}: names of different policies are needed", hint="for example vllm,fairlead"
        )
    level = next((known for known in LEVELS if known == wish.level), None)
    if level is None:
        raise ConfigurationError(f"--level {wish.level!r} is not a level of engines", hint=f"there are {', '.join(LEVELS)}")
    return tuple(_arm(entry, wish, level) for entry in names)


def _arm(entry: str, wish: Wish, usual: Level) -> Arm:
    """`NAME`, or `NAME@N` for other than the usual number of engines."""
    name, _, count = entry.partition("@")
    if count and not count.isdigit():
        raise InputError(f"--policy {entry!r}: a number of engines must follow the @", hint="for example fairlead@6")
    make(name, Truth())  # an unknown name is told before anything runs
    pool: tuple[EngineSpec, ...] = engine_pool(
        int(count) if count else wish.engines, profile_named(wish.hardware), level=usual, kv_tokens=wish.kv_tokens
    )
    return Arm(entry, partial(make, name), pool, clairvoyant=name in CLAIRVOYANT)


def make(name: str, truth: Truth) -> Scheduler:
    """The policy of that name. Raises `ConfigurationError` for an unknown one."""
    return policy(name, facts=truth) if name in CLAIRVOYANT else policy(name)


def _show(comparison: Comparison, base: str | None, title: str) -> None:
    titles, *lines = rows(comparison, base)
    # Figures down, policies across: there are more figures than fit a line.
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for line in lines:
        table.add_column(line[0], justify="right")
    for number, name in enumerate(titles[1:], 1):
        table.add_row(name, *(line[number] for line in lines))
    console(sys.stdout).print(table)


def _draw(file: str, found: dict[float | None, Comparison]) -> None:
    chart = _load_chart(found) if len(found) > 1 else _fairness_chart(next(iter(found.values())))
    try:
        Path(file).write_text(svg(chart), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--plot: {file} cannot be written: {error}") from error


def _load_chart(found: dict[float | None, Comparison]) -> Chart:
    names: Sequence[str] = list(next(iter(found.values())).outcomes)
    lines = {
        name: [(load or 0.0, comparison.mean(name, lambda r: r.completion.mean).mean) for load, comparison in found.items()]
        for name in names
    }
    return Chart("Completion against load", "programs per second", "mean completion, s", lines, log_y=True)


def _fairness_chart(comparison: Comparison) -> Chart:
    """Service by tenant over time, of the first seed."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, outcomes in comparison.outcomes.items():
        for at, totals in outcomes[0].service:
            for tenant, tokens in totals.items():
                lines.setdefault(f"{name}: {tenant}", []).append((at, tokens / 1e6))
    return Chart("Service over time", "s", "million tokens", lines)
