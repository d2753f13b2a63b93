"""Several policies on the same workloads, seed by seed: figures side by side, and intervals for the differences.

All arms of a seed see the same programs with the same arrivals, so differences are paired: the interval is over the seeds' own
ratios, by bootstrap, and much narrower than the spread between seeds. Seeds run in processes of their own.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from ...encoding import Json
from ...errors import InputError
from ..scheduling.port import Scheduler
from .bounds import lower_bounds
from .cachebound import cache_cost
from .engines import EngineSpec
from .foresight import Truth
from .loop import simulate
from .programs import Workload
from .record import Run
from .results import Results, summarise

_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Arm:
    """One policy on one set of engines."""

    name: str
    policy: Callable[[Truth], Scheduler]
    """Makes the scheduler; importable by name, so that other processes can make it too."""
    engines: tuple[EngineSpec, ...]
    clairvoyant: bool = False
    """Whether the policy looks at the truth: an oracle, and marked as one. To all others the truth stays empty."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is compared."""

    workload: Callable[[int], Workload]
    """By seed; importable by name."""
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    exact: bool = False
    """Also the bounds that need a solver: the LP on completion and the LP on cache cost."""
    curves: int = 0
    """Points of the fairness curve to keep for each run."""

    def __post_init__(self) -> None:
        if not self.arms or not self.seeds or len({arm.name for arm in self.arms}) != len(self.arms):
            raise InputError("a comparison needs at least one arm and one seed, and different names for different arms")


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval; where there is one seed only, all three are the same."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One arm on one seed."""

    results: Results
    service: tuple[tuple[float, Mapping[str, float]], ...] = ()
    """(time, service so far by tenant), if a curve was asked for."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All arms on all seeds: `outcomes[arm][number of the seed]`."""

    seeds: tuple[int, ...]
    outcomes: Mapping[str, Sequence[Outcome]]

    def figure(self, arm: str, of: Callable[[Results], float]) -> list[float]:
        """One figure of an arm, by seed."""
        return [of(outcome.results) for outcome in self.outcomes[arm]]

    def ratio(self, arm: str, base: str, of: Callable[[Results], float]) -> Interval:
        """An arm's figure over another's, paired by seed."""
        pairs = zip(self.figure(arm, of), self.figure(base, of), strict=True)
        return interval([mine / theirs if theirs else math.inf for mine, theirs in pairs])

    def mean(self, arm: str, of: Callable[[Results], float]) -> Interval:
        """An arm's figure over the seeds."""
        return interval(self.figure(arm, of))

    def as_json(self) -> dict[str, Json]:
        return {
            "seeds": list(self.seeds),
            "arms": {name: [outcome.results.as_json() for outcome in outcomes] for name, outcomes in self.outcomes.items()},
        }


def compare(setting: Setting, *, processes: int = 1, timed: bool = True) -> Comparison:
    """Run every arm on every seed. With one process it happens here, which is easier to debug and to profile."""
    if processes <= 1:
        by_seed = [run_seed(setting, seed, timed) for seed in setting.seeds]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(setting.seeds)), mp_context=context) as pool:
            tasks = [pool.submit(run_seed, setting, seed, timed) for seed in setting.seeds]
            by_seed = [task.result() for task in tasks]
    return Comparison(setting.seeds, {arm.name: [outcomes[arm.name] for outcomes in by_seed] for arm in setting.arms})


def run_seed(setting: Setting, seed: int, timed: bool = True) -> dict[str, Outcome]:
    """Every arm on one seed."""
    workload = setting.workload(seed)
    return {arm.name: _outcome(setting, arm, run_arm(workload, arm, timed=timed)) for arm in setting.arms}


def run_arm(workload: Workload, arm: Arm, *, timed: bool = True) -> Run:
    """One arm on one workload."""
    truth = Truth()
    return simulate(
        workload,
        arm.engines,
        arm.policy(truth),
        timer=time.perf_counter_ns if timed else None,
        truth=truth if arm.clairvoyant else None,
    )


def _outcome(setting: Setting, arm: Arm, run: Run) -> Outcome:
    bounds = lower_bounds(run, arm.engines, exact=setting.exact)
    cache = cache_cost(run, arm.engines).ratio if setting.exact else None
    results = summarise(run, bounds=bounds, cache_over_least=cache)
    return Outcome(results, service_curve(run, setting.curves) if setting.curves else ())


def service_curve(run: Run, points: int) -> tuple[tuple[float, Mapping[str, float]], ...]:
    """Service by tenant so far (prompt and output tokens of ended calls), at `points` times over the run."""
    ended = sorted((call.ended_at, call.call_id, call) for call in run.calls if call.ended_at is not None)
    totals = dict.fromkeys(sorted({program.program.tenant for program in run.programs}), 0.0)
    curve: list[tuple[float, Mapping[str, float]]] = []
    done = 0
    for point in range(1, points + 1):
        until = run.ended_at * point / points
        while done < len(ended) and ended[done][0] <= until:
            call = ended[done][2]
            totals[call.program.program.tenant] += call.prompt_tokens + call.output_tokens
            done += 1
        curve.append((until, dict(totals)))
    return tuple(curve)


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % bootstrap interval; the same values give the same interval."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1 or not math.isfinite(mean):
        return Interval(mean, mean, mean)
    rng = random.Random(0)
    means = sorted(math.fsum(rng.choices(values, k=len(values))) / len(values) for _ in range(_RESAMPLES))
    return Interval(mean, means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1])


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table."""

    title: str
    of: Callable[[Results], float | None]
    form: str = ".1f"


def _thousands(value: float | None) -> float | None:
    return None if value is None else value / 1e3


COLUMNS = (
    Column("mean s", lambda r: r.completion.mean),
    Column("p50", lambda r: r.completion.p50),
    Column("p95", lambda r: r.completion.p95),
    Column("p99", lambda r: r.completion.p99),
    Column("first token p99, first call", lambda r: r.first_call_ttft.p99),
    Column("any call", lambda r: r.any_call_ttft.p99),
    Column("longest wait", lambda r: r.wait.longest),
    Column("turns/s", lambda r: r.turns_per_s, ".3f"),
    Column("tokens/s", lambda r: r.tokens_per_s, ".0f"),
    Column("hit rate", lambda r: r.hit_rate, ".3f"),
    Column("re-prefilled M", lambda r: r.reprefilled_tokens / 1e6, ".2f"),
    Column("Jain", lambda r: r.jain, ".3f"),
    Column("lag k", lambda r: r.service_lag / 1e3, ".0f"),
    Column("own lag k", lambda r: _thousands(r.meters.get("service_lag")), ".0f"),
    Column("own bound k", lambda r: _thousands(r.service_bound), ".0f"),
    Column("SLO", lambda r: r.slo, ".3f"),
    Column("over bound", lambda r: r.over_bound, ".2f"),
    Column("cache over least", lambda r: r.cache_over_least, ".3f"),
    Column("decision us", lambda r: r.decision_us_median, ".1f"),
    Column("p99 us", lambda r: r.decision_us_p99, ".0f"),
)


def rows(comparison: Comparison, base: str | None = None, columns: Sequence[Column] = COLUMNS) -> list[list[str]]:
    """The table as text cells, titles first: means over the seeds; columns without any value are left out.

    With `base`, a last column gives mean completion relative to that arm with its interval. Arms that need more than a proxy
    and an unmodified engine are marked with what they need.
    """
    shown = [column for column in columns if any(_values(comparison, arm, column) for arm in comparison.outcomes)]
    table = [["policy", *(column.title for column in shown), *([f"mean / {base}"] if base else [])]]
    for arm, outcomes in comparison.outcomes.items():
        needs = sorted({channel for outcome in outcomes for channel in outcome.results.channels})
        cells = [f"{arm} [{', '.join(needs)}]" if needs else arm]
        for column in shown:
            values = _values(comparison, arm, column)
            cells.append(format(math.fsum(values) / len(values), column.form) if values else "-")
        if base:
            ratio = comparison.ratio(arm, base, lambda r: r.completion.mean)
            cells.append(f"{ratio.mean:.3f} ({ratio.low:.3f} to {ratio.high:.3f})")
        table.append(cells)
    return table


def _values(comparison: Comparison, arm: str, column: Column) -> list[float]:
    found = [column.of(outcome.results) for outcome in comparison.outcomes[arm]]
    return [value for value in found if value is not None]


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table of cells in Markdown, titles first."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "| --- |" + " ---: |" * (len(table[0]) - 1))
    return "\n".join(lines)
