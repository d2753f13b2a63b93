"""What is learned while programs run: how many calls are left, how long a gap lasts, how many tokens a call takes.

Everything is an empirical curve or mean, pooled over all programs and refined by class (workflow, step, tool) as evidence
comes in: a class with few observations is shrunk towards the pool. Nothing here guesses per tool or per argument: where that
was measured with leakage removed, it did not beat the pooled curve. Pure and deterministic; costs do not grow with the number
of programs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_EXACT = 32
_PER_OCTAVE = 8
_AGE_BINS = _EXACT + 8 * _PER_OCTAVE
_GAP_FIRST_S = 0.1
_GAP_GROWTH = 1.5
_GAP_BINS = 34
_CLASSES_MAX = 2_048
"""Classes with a curve of their own; whatever else comes up is pooled."""


def _age_bin(age: int) -> int:
    """Ages 0 to 31 have a bin each, then eight bins per doubling; the last bin is open."""
    if age < _EXACT:
        return age
    return min(_AGE_BINS - 1, _EXACT + int(_PER_OCTAVE * math.log2(age / _EXACT)))


_AGE_START = [*range(_EXACT), *(_EXACT * 2 ** (index / _PER_OCTAVE) for index in range(8 * _PER_OCTAVE + 1))]
_AGE_WIDTH = [max(1.0, _AGE_START[index + 1] - _AGE_START[index]) for index in range(_AGE_BINS)]
GAP_EDGES = [0.0, *(_GAP_FIRST_S * _GAP_GROWTH**index for index in range(_GAP_BINS))]
"""Borders of the gap bins in seconds, the last about five hours."""


def _gap_bin(seconds: float) -> int:
    if seconds < _GAP_FIRST_S:
        return 0
    return min(_GAP_BINS - 1, 1 + int(math.log(seconds / _GAP_FIRST_S) / math.log(_GAP_GROWTH)))


@dataclass(slots=True)
class Hazard:
    """Counts of a discrete survival curve (Kaplan-Meier): at each age, how many were there and how many ended."""

    bins: int
    parent: Hazard | None = None
    """The pool towards which this one is shrunk; None for the pool itself."""
    strength: float = 8.0
    """Observations that the parent, or for the pool the constant hazard, counts as, in each bin."""
    prior: float = 0.05
    """Hazard before any observation."""
    seen: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    total_seen: float = 0.0
    total_ended: float = 0.0
    version: int = 0

    def __post_init__(self) -> None:
        self.seen = [0.0] * self.bins
        self.ended = [0.0] * self.bins

    def observe(self, index: int, ended: bool) -> None:
        """Somebody was at risk in this bin and did or did not end there."""
        self.seen[index] += 1
        self.total_seen += 1
        if ended:
            self.ended[index] += 1
            self.total_ended += 1
            self.version += 1
        if self.parent is not None:
            self.parent.observe(index, ended)

    @property
    def constant(self) -> float:
        """The hazard if age did not matter."""
        return (self.total_ended + 20 * self.prior) / (self.total_seen + 20)

    def rates(self) -> list[float]:
        """The hazard in each bin, shrunk to the parent's, and the pool's to its own constant."""
        base = [self.constant] * self.bins if self.parent is None else self.parent.rates()
        return [
            (ended + self.strength * towards) / (seen + self.strength)
            for seen, ended, towards in zip(self.seen, self.ended, base, strict=True)
        ]


@dataclass(slots=True)
class _Fresh:
    """A table computed from a hazard, recomputed when enough has been learned since."""

    table: list[float]
    due: int

    @staticmethod
    def due_after(version: int) -> int:
        return version + 1 + version // 20


class Completion:
    """How many calls a program has left, given how many it has made and what kind it is.

    With a hazard that grows with age the expectation falls as a program gets older, and ordering by it is first come, first
    served; with a falling hazard it rises, and ordering by it is least attained service (Gittins/SERPT, reference: Aalto,
    Ayesta, Righter 2009). Before there is evidence the hazard is constant: age says nothing.
    """

    def __init__(self, prior_calls: float = 20.0) -> None:
        self._pool = Hazard(_AGE_BINS, prior=1 / prior_calls)
        self._classes: dict[str, Hazard] = {}
        self._tables: dict[str, _Fresh] = {}

    def observe(self, kind: str, age: int, ended: bool) -> None:
        """A program that had made `age` calls (at least 1) went on, or ended."""
        self._class(kind).observe(_age_bin(age), ended)

    def calls_left(self, kind: str, age: int) -> float:
        """Expected calls from now on of a program that has made `age` calls and has one more to make, that one included."""
        return self._table(kind)[_age_bin(age + 1)]

    def _class(self, kind: str) -> Hazard:
        found = self._classes.get(kind)
        if found is None and len(self._classes) >= _CLASSES_MAX:
            return self._pool
        if found is None:
            found = self._classes[kind] = Hazard(_AGE_BINS, self._pool)
        return found

    def _table(self, kind: str) -> list[float]:
        hazard = self._class(kind)
        kind = kind if kind in self._classes else ""
        fresh = self._tables.get(kind)
        version = self._pool.version
        if fresh is None or version >= fresh.due:
            fresh = self._tables[kind] = _Fresh(_expected_left(hazard.rates()), _Fresh.due_after(version))
        return fresh.table


def _expected_left(rates: list[float]) -> list[float]:
    """Backward recursion over the bins: calls within the bin, then, for those that survive it, what comes after."""
    left = [0.0] * len(rates)
    after = 1 / max(rates[-1], 1e-4)
    for index in range(len(rates) - 1, -1, -1):
        hazard = min(max(rates[index], 1e-6), 1.0)
        stay = (1 - hazard) ** _AGE_WIDTH[index]
        after = left[index] = (1 - stay) / hazard + stay * after
    return left


@dataclass(frozen=True, slots=True)
class Stay:
    """How long to keep a prefix in a gap: `seconds`, and what is expected of that."""

    seconds: float
    returns: float
    """Chance that the program comes back within that time."""
    held_s: float
    """Expected time that the memory is held."""


class Gaps:
    """How long programs stay away between two calls, by the class of what they do meanwhile."""

    def __init__(self) -> None:
        self._pool = Hazard(_GAP_BINS, prior=0.15)
        self._classes: dict[str, Hazard] = {}
        self._tables: dict[str, _Fresh] = {}
        self._stays: dict[tuple[str, int, int], Stay] = {}

    def observe(self, kind: str, seconds: float, counted: float = 0.0) -> None:
        """A program came back after `seconds`; up to `counted` of them it was already known to be away."""
        last, first = _gap_bin(seconds), _gap_bin(counted) if counted > 0 else 0
        hazard = self._class(kind)
        for index in range(first, last):
            hazard.observe(index, False)
        hazard.observe(last, True)

    def still_away(self, kind: str, seconds: float, counted: float = 0.0) -> None:
        """A program has been away for `seconds` and has not come back (a censored observation)."""
        hazard = self._class(kind)
        for index in range(_gap_bin(counted) if counted > 0 else 0, _gap_bin(seconds)):
            hazard.observe(index, False)

    def returns_within(self, kind: str, seconds: float, away: float = 0.0) -> float:
        """Chance that a program that has been away for `away` comes back within another `seconds`."""
        survival = self._survival(kind)
        here = _at(survival, away)
        return 1 - _at(survival, away + seconds) / here if here > 0 else 0.0

    def mean_within(self, kind: str, seconds: float) -> float:
        """Expected time away, cut off at `seconds`."""
        survival = self._survival(kind)
        total = 0.0
        for index in range(_GAP_BINS):
            low, high = GAP_EDGES[index], min(GAP_EDGES[index + 1], seconds)
            if high <= low:
                break
            total += (high - low) * (survival[index] + _at(survival, high)) / 2
        return total

    def best_stay(self, kind: str, saving_s: float, price: float, longest: float) -> Stay:
        """The time to keep a prefix: maximises saving x P(back by then) - price x expected time held.

        `saving_s` is what coming back to a kept prefix saves, `price` what holding it costs per second, in the same seconds.
        The first-order condition is: hold while the hazard of return exceeds price / saving (reference section 2.5).
        """
        ratio = price / saving_s if saving_s > 0 else math.inf
        if ratio <= 0:
            return Stay(longest, self.returns_within(kind, longest), self.mean_within(kind, longest))
        # A quarter of an octave in price changes the answer by less than a bin; the survival table bounds how stale it is.
        survival = self._survival(kind)
        key = (kind if kind in self._classes else "", round(4 * math.log2(ratio)) if ratio < math.inf else 10_000, int(longest))
        found = self._stays.get(key)
        if found is None:
            found = self._stays[key] = _best_stay(survival, ratio, longest)
        return found

    def _class(self, kind: str) -> Hazard:
        found = self._classes.get(kind)
        if found is None and len(self._classes) >= _CLASSES_MAX:
            return self._pool
        if found is None:
            found = self._classes[kind] = Hazard(_GAP_BINS, self._pool)
        return found

    def _survival(self, kind: str) -> list[float]:
        version = self._pool.version
        hazard = self._class(kind)
        kind = kind if kind in self._classes else ""
        fresh = self._tables.get(kind)
        if fresh is None or version >= fresh.due:
            survival = [1.0]
            for rate in hazard.rates():
                survival.append(survival[-1] * (1 - rate))
            fresh = self._tables[kind] = _Fresh(survival, _Fresh.due_after(version))
            self._stays = {key: stay for key, stay in self._stays.items() if key[0] != kind}
        return fresh.table


def _at(survival: list[float], seconds: float) -> float:
    """Survival at a time inside a bin: linear between the borders."""
    index = _gap_bin(seconds)
    low, high = GAP_EDGES[index], GAP_EDGES[index + 1] if index + 1 < len(GAP_EDGES) else GAP_EDGES[-1] * _GAP_GROWTH
    share = min(1.0, max(0.0, (seconds - low) / (high - low)))
    return survival[index] + (survival[index + 1] - survival[index]) * share


def _best_stay(survival: list[float], ratio: float, longest: float) -> Stay:
    best, held = Stay(0.0, 0.0, 0.0), 0.0
    value = 0.0
    for index in range(1, _GAP_BINS):
        edge = GAP_EDGES[index]
        if edge > longest:
            break
        held += (edge - GAP_EDGES[index - 1]) * (survival[index - 1] + survival[index]) / 2
        gain = (1 - survival[index]) - ratio * held
        if gain > value:
            value, best = gain, Stay(edge, 1 - survival[index], held)
    return best


@dataclass(slots=True)
class Mean:
    """A mean that starts at a prior and forgets slowly (exponential with at most `window` observations)."""

    value: float
    count: float = 4.0
    window: float = 512.0

    def observe(self, value: float) -> None:
        self.count = min(self.count + 1, self.window)
        self.value += (value - self.value) / self.count


class Tokens:
    """New prompt tokens and output tokens of a call by class of step, shrunk to the pool, corrected for bias.

    The correction is a running ratio of what came to what was expected (DriftSched, arXiv 2606.02982).
    """

    def __init__(self, new: float = 1000.0, output: float = 250.0, first: float = 4000.0) -> None:
        self.new = Mean(new)
        self.first = Mean(first)
        self.output = Mean(output)
        self._by_step: dict[str, Mean] = {}
        self._bias = Mean(1.0, count=16.0, window=64.0)

    def expected_output(self, step: str, declared: int | None) -> float:
        """Output tokens; `declared` is what the caller expects, taken as it is."""
        if declared is not None:
            return float(declared)
        own = self._by_step.get(step)
        if own is None:
            return self.output.value * self._bias.value
        share = own.count / (own.count + 16)
        return (share * own.value + (1 - share) * self.output.value) * self._bias.value

    def observe_output(self, step: str, tokens: int) -> None:
        expected = self.expected_output(step, None) / self._bias.value
        if expected > 0:
            self._bias.observe(min(4.0, tokens / expected))
        self.output.observe(tokens)
        own = self._by_step.get(step)
        if own is None and len(self._by_step) >= _CLASSES_MAX:
            return
        if own is None:
            own = self._by_step[step] = Mean(self.output.value, count=1.0)
        own.observe(tokens)


@dataclass(slots=True)
class Estimates:
    """What the parts of the scheduler ask. One per scheduler, fed by the core."""

    completion: Completion = field(default_factory=Completion)
    gaps: Gaps = field(default_factory=Gaps)
    tokens: Tokens = field(default_factory=Tokens)
