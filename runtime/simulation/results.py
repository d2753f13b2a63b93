"""What a run was like: completion, first tokens, throughput, cache, fairness, waits, deadlines, and what deciding cost.

All figures are of finished programs and calls; how many did not finish is a figure of its own. Times in seconds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ...encoding import Json
from ..scheduling.fairness import Rates
from .bounds import Bounds
from .record import CallRun, Run


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and percentiles; all 0 where there is nothing."""

    mean: float
    p50: float
    p95: float
    p99: float
    longest: float


def spread(values: Iterable[float]) -> Spread:
    """The spread of the values: percentiles by the nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
    at = [ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.95, 0.99)]
    return Spread(math.fsum(ordered) / len(ordered), at[0], at[1], at[2], ordered[-1])


@dataclass(frozen=True, slots=True)
class Results:
    """The figures of one run."""

    programs: int
    unfinished: int
    completion: Spread
    first_call_ttft: Spread
    """From a program's arrival call being made to its first token."""
    any_call_ttft: Spread
    wait: Spread
    """From a call being made until an engine begins with it."""
    makespan_s: float
    tokens_per_s: float
    """Prompt and output tokens of finished calls."""
    output_tokens_per_s: float
    turns_per_s: float
    programs_per_s: float
    hit_rate: float
    """Cached prompt tokens per prompt token."""
    reprefilled_tokens: int
    """Prompt tokens computed although an endless cache would have had them."""
    reloaded_tokens: int
    preemptions: int
    touches: int
    service: Mapping[str, float]
    """By tenant, in prefill-token equivalents."""
    service_lag: float
    """Largest difference of service per weight that built up between two tenants while both had calls waiting."""
    service_bound: float | None
    """What the scheduler promises about it."""
    contended: Mapping[str, float]
    """By tenant: share of the service that was given while all tenants had calls waiting; empty if they never all had."""
    jain: float
    """Jain's index of that service per weight; 1 is even."""
    slo: float | None
    """Share of programs with a deadline that met it."""
    slo_by_tenant: Mapping[str, float]
    decision_us_median: float | None
    decision_us_p99: float | None
    bounds: Bounds | None
    over_bound: float | None
    """Mean completion over the best lower bound."""
    cache_over_least: float | None
    """Prefill seconds over the least with the same schedule, if that was asked for."""
    channels: tuple[str, ...]
    meters: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


def summarise(
    run: Run, *, bounds: Bounds | None = None, cache_over_least: float | None = None, rates: Rates | None = None
) -> Results:
    """The figures of a run; the distance to `bounds` if they are given. `rates` is what service costs."""
    rates = rates or Rates()
    ended = [call for call in run.calls if call.ended_at is not None]
    programs = [program for program in run.programs if program.ended_at is not None]
    completion = spread(program.ended_at - program.arrived_at for program in programs if program.ended_at is not None)
    start = min((program.arrived_at for program in run.programs), default=0.0)
    horizon = run.workload.horizon_s
    # Under replenished load the end, when the last ones are drained, says nothing of the system under load.
    until = horizon if horizon is not None else max((call.ended_at or 0.0 for call in ended), default=0.0)
    span = max(until - start, 1e-9)
    counted = [call for call in ended if call.ended_at is not None and call.ended_at <= until]
    prompt = sum(call.prompt_tokens for call in ended)
    cached = sum(call.cached_tokens for call in ended)
    slo, by_tenant = _deadlines(run)
    lag, contended, jain = fairness(run, rates)
    return Results(
        programs=len(programs),
        unfinished=len(run.programs) - len(programs),
        completion=completion,
        first_call_ttft=spread(_ttft(call) for call in ended if call.first),
        any_call_ttft=spread(_ttft(call) for call in ended),
        wait=spread((call.admitted_at or call.ready_at) - call.ready_at for call in ended),
        makespan_s=run.ended_at - start,
        tokens_per_s=sum(call.prompt_tokens + call.output_tokens for call in counted) / span,
        output_tokens_per_s=sum(call.output_tokens for call in counted) / span,
        turns_per_s=len(counted) / span,
        programs_per_s=sum(1 for program in programs if (program.ended_at or 0.0) <= until) / span,
        hit_rate=cached / prompt if prompt else 0.0,
        reprefilled_tokens=sum(max(0, call.prompt_tokens - call.cached_tokens - call.new_tokens) for call in ended),
        reloaded_tokens=sum(engine.reloaded_tokens for engine in run.engines),
        preemptions=sum(engine.preemptions for engine in run.engines),
        touches=run.touches,
        service=_service(ended, rates),
        service_lag=lag,
        service_bound=run.meters.get("service_bound"),
        contended=contended,
        jain=jain,
        slo=slo,
        slo_by_tenant=by_tenant,
        decision_us_median=_nanoseconds(run.decisions_ns, 0.5),
        decision_us_p99=_nanoseconds(run.decisions_ns, 0.99),
        bounds=bounds,
        over_bound=completion.mean / bounds.best if bounds is not None and bounds.best > 0 else None,
        cache_over_least=cache_over_least,
        channels=tuple(sorted(run.channels)),
        meters=dict(run.meters),
    )


def _ttft(call: CallRun) -> float:
    return (call.first_token_at or call.ready_at) - call.ready_at


def _nanoseconds(values: Sequence[int], share: float) -> float | None:
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] / 1_000


def _cost(call: CallRun, rates: Rates) -> float:
    return rates.cost(call.prompt_tokens, call.cached_tokens, call.output_tokens)


def _service(ended: Iterable[CallRun], rates: Rates) -> dict[str, float]:
    service: defaultdict[str, float] = defaultdict(float)
    for call in ended:
        service[call.program.program.tenant] += _cost(call, rates)
    return dict(service)


def _deadlines(run: Run) -> tuple[float | None, dict[str, float]]:
    met: defaultdict[str, list[bool]] = defaultdict(list)
    for program in run.programs:
        if program.program.deadline_s is not None:
            took = math.inf if program.ended_at is None else program.ended_at - program.arrived_at
            met[program.program.tenant].append(took <= program.program.deadline_s)
    everything = [ok for tenant in met.values() for ok in tenant]
    share = sum(everything) / len(everything) if everything else None
    return share, {tenant: sum(oks) / len(oks) for tenant, oks in sorted(met.items())}


def fairness(run: Run, rates: Rates) -> tuple[float, dict[str, float], float]:
    """The largest lag between two tenants while both had calls waiting; shares of service, and Jain's index, while all had.

    Service counts when the engine begins with a call. A tenant waits while at least one of its calls is made and not begun.
    """
    weights = {program.program.tenant: run.workload.tenants.get(program.program.tenant, 1.0) for program in run.programs}
    if len(weights) < 2:
        return 0.0, {}, 1.0
    pairs = [(a, b) for a in weights for b in weights if a < b]
    waiting = dict.fromkeys(weights, 0)
    service = dict.fromkeys(weights, 0.0)
    together = dict.fromkeys(weights, 0.0)
    low: dict[tuple[str, str], float] = {}
    high: dict[tuple[str, str], float] = {}
    lag = 0.0
    for _, kind, call in _changes(run):
        tenant = call.program.program.tenant
        if kind == _MADE:
            waiting[tenant] += 1
        else:
            amount = _cost(call, rates) / weights[tenant]
            service[tenant] += amount
            together[tenant] += amount if all(waiting.values()) else 0.0
            waiting[tenant] -= kind == _BEGUN
        for pair in pairs:
            if tenant not in pair:
                continue
            if waiting[pair[0]] and waiting[pair[1]]:
                difference = service[pair[0]] - service[pair[1]]
                low[pair] = min(low.get(pair, difference), difference)
                high[pair] = max(high.get(pair, difference), difference)
                lag = max(lag, high[pair] - low[pair])
            else:
                low.pop(pair, None)
                high.pop(pair, None)
    total = math.fsum(together[tenant] * weights[tenant] for tenant in weights)
    shares = {tenant: together[tenant] * weights[tenant] / total for tenant in weights} if total else {}
    return lag, shares, _jain(list(together.values()))


_MADE, _BEGUN, _BEGUN_AT_ONCE = range(3)


def _changes(run: Run) -> list[tuple[float, int, CallRun]]:
    """Calls being made and begun, in order of time. One that is begun when it is made never waited."""
    changes: list[tuple[float, int, CallRun]] = []
    for call in run.calls:
        if call.admitted_at is None:
            continue
        if call.admitted_at > call.ready_at:
            changes.append((call.ready_at, _MADE, call))
            changes.append((call.admitted_at, _BEGUN, call))
        else:
            changes.append((call.admitted_at, _BEGUN_AT_ONCE, call))
    changes.sort(key=lambda change: (change[0], change[1], change[2].call_id))
    return changes


def _jain(shares: Sequence[float]) -> float:
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
