"""From comparisons to figures: which arms meet on which load, and what is read off. One function for each workload."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.records import Better, Record, record
from bench.scheduling import loads
from bench.scheduling.arms import UNLIMITED, arms
from bench.scheduling.calibration import calibration_error
from bench.scheduling.decisions import decision_times
from fairlead.runtime.simulation.compare import Comparison, Setting, compare, run_arm
from fairlead.runtime.simulation.plots import Chart
from fairlead.runtime.simulation.programs import Workload
from fairlead.runtime.simulation.results import Results

BENCH = "scheduling"
AGE_LIMIT_S = 900.0


@dataclass(slots=True)
class Report:
    """Where the cases run, and what they leave behind."""

    seeds: tuple[int, ...]
    quick: bool
    processes: int
    records: list[Record] = field(default_factory=list)
    comparisons: list[tuple[str, Comparison, str]] = field(default_factory=list)
    """(title, comparison, arm that the others are compared with)."""
    charts: dict[str, Chart] = field(default_factory=dict)
    """By file name."""

    def compared(
        self,
        title: str,
        load: Callable[[int], Workload],
        names: Sequence[str],
        engines: int,
        profile: str,
        *,
        base: str = "vllm",
        kv_tokens: int | None = None,
        exact: bool = False,
    ) -> Comparison:
        """Run the arms on the load, and keep the table."""
        setting = Setting(load, arms(names, engines, profile, kv_tokens=kv_tokens), self.seeds, exact=exact)
        found = compare(setting, processes=self.processes)
        self.comparisons.append((title, found, base))
        return found

    def add(
        self,
        figure: str,
        samples: Sequence[float],
        unit: str,
        *,
        higher: bool = False,
        target: float | None = None,
        peers: dict[str, Sequence[float]] | None = None,
    ) -> None:
        kept = [value for value in samples if math.isfinite(value)]
        better: Better = "higher" if higher else "lower"
        if kept:
            self.records.append(record(BENCH, figure, kept, unit, better=better, target=target, peers=peers))


def _mean(results: Results) -> float:
    return results.completion.mean


def _first(results: Results) -> float:
    return results.first_call_ttft.p99


def _turns(results: Results) -> float:
    return results.turns_per_s


def _longest(results: Results) -> float:
    return results.wait.longest


def _over(found: Comparison, arm: str, base: str, of: Callable[[Results], float] = _mean) -> list[float]:
    pairs = zip(found.figure(arm, of), found.figure(base, of), strict=True)
    return [mine / theirs if theirs else math.inf for mine, theirs in pairs]


def _peers(found: Comparison, base: str, of: Callable[[Results], float] = _mean) -> dict[str, Sequence[float]]:
    """How much better than `base` each other arm is."""
    return {arm: _over(found, base, arm, of) for arm in found.outcomes if arm not in (base, "fairlead")}


def _throughput_loss(found: Comparison, arm: str = "fairlead") -> list[float]:
    """Share of the turns per second of the seed's best arm that this one loses."""
    turns = [found.figure(name, _turns) for name in found.outcomes if "oracle" not in name]
    best = [max(values) for values in zip(*turns, strict=True)]
    return [1 - mine / most for mine, most in zip(found.figure(arm, _turns), best, strict=True)]


def w1(report: Report) -> None:
    """SAGA's parameters on 16 engines."""
    names = ("vllm", "saga", "thunderagent", "continuum", "fairlead", "fairlead@session", "oracle")
    scale = {"count": 160} if report.quick else {}
    large = partial(report.compared, names=names, engines=16, profile=loads.LARGE, kv_tokens=loads.LARGE_KV)
    swe = large("W1 SWE-bench", partial(loads.w1_swe, **scale), exact=True)
    web = large("W1 WebArena", partial(loads.w1_web, **scale))
    gains = [_over(found, "vllm", "fairlead") for found in (swe, web)]
    report.add("w1_swe_speedup", gains[0], "x", higher=True, target=1.73, peers=_peers(swe, "vllm"))
    report.add("w1_web_speedup", gains[1], "x", higher=True, target=1.55, peers=_peers(web, "vllm"))
    both = [math.sqrt(one * other) for one, other in zip(*gains, strict=True)]
    report.add("w1_geomean_speedup", both, "x", higher=True, target=1.64)
    losses = _throughput_loss(swe) + _throughput_loss(web)
    report.add("w1_throughput_loss", losses, "share", target=0.05, peers={"saga": _throughput_loss(swe, "saga")})
    costs = {arm: swe.figure(arm, lambda r: r.cache_over_least or math.inf) for arm in swe.outcomes}
    ours = costs.pop("fairlead@session")
    report.add("w1_cache_cost_over_lp", ours, "x", target=1.2, peers=dict(costs))


def w2(report: Report) -> None:
    """SAGA's ten tenants with deadlines."""
    load = partial(loads.w2, minutes=3.0) if report.quick else loads.w2
    names = ("vllm", "saga", "vtc", "fairlead")
    found = report.compared("W2 ten tenants", load, names, 16, loads.LARGE, kv_tokens=loads.LARGE_KV)
    every = {arm: found.figure(arm, lambda r: r.slo or 0.0) for arm in found.outcomes}
    light = {arm: found.figure(arm, _light) for arm in found.outcomes}
    report.add("w2_slo_all", every.pop("fairlead"), "share", higher=True, target=0.992, peers=dict(every))
    report.add("w2_slo_light", light.pop("fairlead"), "share", higher=True, target=0.987, peers=dict(light))


def _light(results: Results) -> float:
    return statistics.fmean(share for tenant, share in results.slo_by_tenant.items() if tenant.startswith("light"))


W3_ARMS = ("vllm", "program-fcfs", "thunderagent", "plas", "continuum-2s", "fairlead")


def w3(report: Report) -> None:
    """Coding tasks: open loop around saturation, all at once, and closed loops far beyond the KV cache."""
    count = 80 if report.quick else 250
    rates = (0.022,) if report.quick else (0.014, 0.018, 0.022)
    for rate in rates:
        found = report.compared(
            f"W3 open loop, {rate:g}/s", partial(loads.w3, count=count, per_s=rate), W3_ARMS, 1, loads.SMALL
        )
    ours = _over(found, "fairlead", "thunderagent")
    report.add("w3_mean_over_thunderagent", ours, "x", target=0.8)
    report.add("w3_ttft_p99_over_fcfs", _over(found, "fairlead", "vllm", _first), "x", target=1.0)
    waits = {arm: [wait / AGE_LIMIT_S for wait in found.figure(arm, _longest)] for arm in found.outcomes}
    report.add("w3_longest_wait_over_limit", waits.pop("fairlead"), "x", target=1.0, peers=dict(waits))
    report.add("w3_throughput_loss", _throughput_loss(found), "share", target=0.02)
    burst = report.compared("W3 all at once", partial(loads.w3_at_once, count=count // 2), W3_ARMS, 1, loads.SMALL)
    report.add("w3_burst_mean_over_thunderagent", _over(burst, "fairlead", "thunderagent"), "x", target=0.85)
    report.add("w3_burst_ttft_p99_over_fcfs", _over(burst, "fairlead", "vllm", _first), "x", target=1.5)
    if report.quick:
        return
    closed: dict[str, list[tuple[float, float]]] = {arm: [] for arm in W3_ARMS}
    for concurrency in (8, 16, 32, 64, 128):
        load = partial(loads.w3_closed, concurrency=concurrency)
        found = report.compared(f"W3 closed loop, {concurrency} programs", load, W3_ARMS, 1, loads.SMALL)
        for arm in W3_ARMS:
            closed[arm].append((concurrency, found.mean(arm, _mean).mean))
    report.charts["w3_concurrency"] = Chart("W3: completion against load", "programs at once", "mean completion, s", closed)
    _age_limits(report, partial(loads.w3, count=count, per_s=0.022))
    four = partial(loads.w3, count=600, per_s=0.085)
    report.compared("W3 on four engines, 0.085/s", four, W3_ARMS, 4, loads.SMALL)


def _age_limits(report: Report, load: Callable[[int], Workload]) -> None:
    """What a shorter or longer age limit costs."""
    limits = (300.0, 600.0, 900.0, 1800.0, 3600.0)
    names = [f"fairlead?age_limit_s={limit:g}" for limit in limits]
    found = report.compared("W3 age limits", load, names, 1, loads.SMALL, base=names[2])
    lines = {
        "mean completion": [(limit, found.mean(name, _mean).mean) for limit, name in zip(limits, names, strict=True)],
        "longest wait": [(limit, found.mean(name, _longest).mean) for limit, name in zip(limits, names, strict=True)],
    }
    report.charts["w3_age_limit"] = Chart("W3: what the age limit costs", "age limit, s", "s", lines)


def w4(report: Report) -> None:
    """Production chat with its own arrivals."""
    load = partial(loads.w4, share=0.2 if report.quick else 0.5)
    found = report.compared(
        "W4 mooncake_conversation", load, ("vllm", "round-robin", "thunderagent", "fairlead"), 2, loads.SMALL
    )
    report.add(
        "w4_mean_over_vllm", _over(found, "fairlead", "vllm"), "x", peers={"thunderagent": _over(found, "thunderagent", "vllm")}
    )


def w5(report: Report) -> None:
    """Continuum's two traces by their statistics."""
    names = ("vllm", "program-fcfs", "continuum", "continuum-2s", "plas", "fairlead", "fairlead@session")
    gains: dict[str, list[list[float]]] = {name: [] for name in names}
    for title, load in (("W5 mini-swe-agent", loads.w5_swe), ("W5 BFCL", loads.w5_bfcl)):
        found = report.compared(title, partial(load, count=50) if report.quick else load, names, 1, loads.SMALL)
        for name in names:
            gains[name].append(_over(found, "vllm", name))
    both = {name: [math.sqrt(a * b) for a, b in zip(*pair, strict=True)] for name, pair in gains.items()}
    target = statistics.median(both["continuum"])
    ours = both.pop("fairlead")
    report.add("w5_gain", ours, "x", higher=True, target=target, peers=dict(both))


def w6(report: Report) -> None:
    """Known graphs with fixed prompts, where prompts together are larger than the cache."""
    names = ("vllm", "kvflow", "fairlead", "fairlead@session")
    one = report.compared("W6 one workflow", loads.w6_one, names, 1, loads.SMALL, kv_tokens=60_000)
    many = report.compared("W6 many workflows", loads.w6_many, names, 1, loads.SMALL, kv_tokens=120_000)
    for figure, found in (("w6_gain", one), ("w6_gain_concurrent", many)):
        gains = _peers(found, "vllm")
        gains["fairlead@plain"] = _over(found, "vllm", "fairlead")
        ours = gains.pop("fairlead@session")
        report.add(figure, ours, "x", higher=True, target=statistics.median(gains["kvflow"]), peers=gains)


def w7(report: Report) -> None:
    """Replenished load that never lets up."""
    load = partial(loads.w7, concurrency=48, hours=1.0) if report.quick else loads.w7
    names = ("vllm", "program-fcfs", "thunderagent", "plas", "continuum", "fairlead", UNLIMITED)
    found = report.compared("W7 replenished", load, names, 1, loads.SMALL)
    waits = {arm: [wait / AGE_LIMIT_S for wait in found.figure(arm, _longest)] for arm in found.outcomes}
    report.add("w7_longest_wait_over_limit", waits.pop("fairlead"), "x", target=1.0, peers=dict(waits))
    kept = _over(found, "fairlead", UNLIMITED, _turns)
    report.add("w7_throughput_over_unlimited", kept, "x", higher=True, target=0.95)


def w8(report: Report) -> None:
    """An adversary that splits its work."""
    load = partial(loads.w8, programs=15) if report.quick else loads.w8
    found = report.compared("W8 adversary", load, ("vllm", "vtc", "plas", "fairlead"), 1, loads.SMALL)
    errors = {arm: found.figure(arm, _advantage) for arm in found.outcomes}
    report.add("w8_share_error", errors.pop("fairlead"), "share", target=0.02, peers=dict(errors))


def _advantage(results: Results) -> float:
    """By how much the adversary's share of contended service is above its weight."""
    if not results.contended:
        return 0.0
    return max(0.0, results.contended["adversary"] * len(results.contended) - 1)


def low(report: Report) -> None:
    """Low load: nobody may lose."""
    load = partial(loads.low, count=40 if report.quick else 100)
    found = report.compared("low load", load, ("vllm", "thunderagent", "fairlead"), 1, loads.SMALL)
    report.add("low_load_over_fcfs", _over(found, "fairlead", "vllm"), "x", target=1.01)


def cost(report: Report) -> None:
    """What decisions cost with 10,000 and 100,000 waiting programs."""
    ten = [sorted(decision_times(10_000, seed)) for seed in range(2 if report.quick else 5)]
    medians = [statistics.median(times) for times in ten]
    report.add("decision_us_median_10k", medians, "us", target=50.0)
    report.add("decision_us_p99_10k", [times[int(0.99 * len(times))] for times in ten], "us", target=1000.0)
    hundred = statistics.median(decision_times(100_000, 0))
    growth = [hundred / median for median in medians]
    report.add("decision_growth_100k_over_10k", growth, "x", target=math.log(100_000) / math.log(10_000))


def calibration(report: Report) -> None:
    """Simulated against real time, and how fast the simulator is."""
    [arm] = arms(("vllm",), 1, loads.SMALL)
    speeds = []
    for seed in report.seeds[:5]:
        load = loads.w3(seed)
        since = time.perf_counter()
        calls = len(run_arm(load, arm, timed=False).calls)
        speeds.append(60 * calls / (time.perf_counter() - since))
    report.add("simulated_calls_per_minute", speeds, "calls", higher=True, target=100_000)
    report.add("calibration_error", [calibration_error(seed) for seed in range(1 if report.quick else 3)], "share", target=0.05)


CASES: dict[str, Callable[[Report], None]] = {
    "W1": w1,
    "W2": w2,
    "W3": w3,
    "W4": w4,
    "W5": w5,
    "W6": w6,
    "W7": w7,
    "W8": w8,
    "low": low,
    "cost": cost,
    "calibration": calibration,
}
