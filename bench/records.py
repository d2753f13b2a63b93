"""The one form in which every bench reports: a list of records, printed as a table and kept as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Record:
    """One figure of one bench: the median of its repeats, their spread, what was aimed at, and the others beside it."""

    bench: str
    figure: str
    value: float
    low: float
    high: float
    unit: str
    better: Better
    target: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target


def record(
    bench: str,
    figure: str,
    samples: Sequence[float],
    unit: str,
    *,
    better: Better = "lower",
    target: float | None = None,
    peers: Mapping[str, Sequence[float]] | None = None,
) -> Record:
    """A record from the repeats of one figure; of each peer's repeats the median is kept.

    Raises `ValueError` if there are no repeats: a figure that was not measured is left out, not made up.
    """
    if not samples:
        raise ValueError(f"{figure}: no repeats to report")
    medians = {name: _rounded(statistics.median(values)) for name, values in (peers or {}).items() if values}
    low, value, high = min(samples), statistics.median(samples), max(samples)
    return Record(bench, figure, _rounded(value), _rounded(low), _rounded(high), unit, better, target, medians)


def write(records: Iterable[Record], file: Path) -> None:
    """Write the records as one JSON list."""
    file.write_text(json.dumps([asdict(entry) for entry in records], indent=1) + "\n")


def table(records: Iterable[Record]) -> str:
    """The records as text for a terminal, one figure per line, its peers below it."""
    lines = []
    for entry in records:
        target = "" if entry.target is None else f"   target {_target(entry)}: {'met' if entry.met else 'MISSED'}"
        spread = f"{entry.low:g} to {entry.high:g}"
        lines.append(f"{entry.figure:<44} {entry.value:>9g} {entry.unit:<10} ({spread}){target}")
        lines.extend(f"    {name:<40} {value:>9g}" for name, value in sorted(entry.peers.items(), key=lambda item: item[1]))
    return "\n".join(lines)


def _target(entry: Record) -> str:
    return f"{'at most' if entry.better == 'lower' else 'at least'} {entry.target:g}"


def _rounded(value: float) -> float:
    """Four significant digits: more would pretend to an accuracy that no bench here has."""
    return float(f"{value:.4g}")
