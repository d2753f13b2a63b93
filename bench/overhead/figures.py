"""From samples to figures: pure arithmetic, no clock and no process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from bench.overhead.measure import Runs
from bench.records import Record, record

OURS = frozenset({"fairlead", "fairlead_async", "fairlead_unsafe", "floor", "openai_client"})
"""What is no peer."""
NOT_PER_STEP = frozenset({"langgraph_exit"})
"""Settings that write once at the end: shown, but a crash loses every step, so they are no durable peer."""


def figures(runs: Runs) -> list[Record]:
    """The records of all shapes that Fairlead has samples of."""
    drawn = [
        _plain(runs, "memory_chain_ms_per_step", "memory_chain", 100, 1e3 / 100, "ms", 0.1),
        _plain(runs, "memory_fanout_1000_ms_per_step", "memory_fanout", 1000, 1e3 / 1000, "ms", 0.15),
        _plain(runs, "durable_fanout_1000_s", "durable_fanout", 1000, 1.0, "s", 0.25),
        _speedup(runs, "durable_fanout_1000_over_fastest_peer", "durable_fanout", 1000, 5.0),
        _over_floor(runs, "durable_chain_ms_over_floor", "durable_chain", 100, 0.5),
        *(_plain(runs, f"agent_turn_ms_at_{n}", "memory_agent", n, 1e3 / n, "ms", 1.0) for n in (10, 50, 500)),
        *(_over_floor(runs, f"durable_agent_turn_ms_over_floor_at_{n}", "durable_agent", n, 1.0) for n in (10, 500)),
        _plain(runs, "openai_turn_ms_at_10", "openai_agent", 10, 1e3 / 10, "ms", None),
        _over_floor(runs, "openai_turn_ms_over_client_at_10", "openai_agent", 10, 1.0, floor_name="openai_client"),
        _bytes_per_turn(runs, "journal_bytes_per_turn_at_500", 500),
        _bytes_growth(runs, "journal_growth_to_500_over_to_250"),
    ]
    return [entry for entry in drawn if entry is not None]


def _plain(runs: Runs, figure: str, shape: str, size: int, scale: float, unit: str, target: float | None) -> Record | None:
    return _drawn(runs, figure, shape, size, lambda name: _scaled(runs.seconds(name, shape, size), scale), unit, target)


def _over_floor(runs: Runs, figure: str, shape: str, size: int, target: float, *, floor_name: str = "floor") -> Record | None:
    """Milliseconds per step beyond the floor of the same round; the floor itself is given as it is."""
    floor = runs.seconds(floor_name, shape, size)

    def over(name: str) -> list[float]:
        if name == floor_name:
            return _scaled(floor, 1e3 / size)
        return [(own - least) * 1e3 / size for own, least in zip(runs.seconds(name, shape, size), floor, strict=False)]

    return _drawn(runs, figure, shape, size, over, "ms", target)


def _bytes_per_turn(runs: Runs, figure: str, turns: int) -> Record | None:
    def per_turn(name: str) -> list[float]:
        return [space / turns for space in runs.space(name, "durable_agent", turns)]

    return _drawn(runs, figure, "durable_agent", turns, per_turn, "B", None)


def _bytes_growth(runs: Runs, figure: str) -> Record | None:
    """Bytes per turn in turns 250 to 500 over those in 10 to 250: 1 is linear; an empty database counts in neither."""

    def growth(name: str) -> list[float]:
        few, some, many = (runs.space(name, "durable_agent", turns) for turns in (10, 250, 500))
        return [(c - b) / 250 / ((b - a) / 240) for a, b, c in zip(few, some, many, strict=False)]

    return _drawn(runs, figure, "durable_agent", 500, growth, "x", 1.1)


def _drawn(
    runs: Runs,
    figure: str,
    shape: str,
    size: int,
    samples_of: Callable[[str], Sequence[float]],
    unit: str,
    target: float | None,
) -> Record | None:
    own = samples_of("fairlead")
    if not own:
        return None
    others = {name: samples_of(name) for name in runs.names(shape, size) if name != "fairlead"}
    return record("overhead", figure, own, unit, target=target, peers=others)


def _speedup(runs: Runs, figure: str, shape: str, size: int, target: float) -> Record | None:
    """How many times faster than the fastest peer that records each step, round by round."""
    own = runs.seconds("fairlead", shape, size)
    peers = {name: runs.seconds(name, shape, size) for name in runs.names(shape, size)}
    medians = {name: statistics.median(taken) for name, taken in peers.items() if name not in OURS | NOT_PER_STEP}
    if not own or not medians:
        return None
    fastest = min(medians, key=lambda name: medians[name])
    ratios = [theirs / ours for ours, theirs in zip(own, peers[fastest], strict=False)]
    return record("overhead", figure, ratios, "x", better="higher", target=target)


def _scaled(seconds: Sequence[float], scale: float) -> list[float]:
    return [taken * scale for taken in seconds]
