"""Measured clients of production services as a workload: who sends how much, how burstily, and how long their requests are.

A client file has no requests, only rates by time window and quantiles of lengths (the format of `servegen_clients`); requests
are drawn from them: arrivals from a renewal process with the window's rate and coefficient of variation (gamma), lengths by
interpolating the quantiles. Each client is a tenant of its own, and each request a program of one call.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ...encoding import Json
from ...errors import InputError
from .programs import Call, Program, Workload
from .tracefile import Row, rows

WINDOW_S = 600.0
SHARES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of the quantiles of lengths."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client."""

    name: str
    windows: tuple[tuple[float, float, float], ...]
    """(start in seconds, requests per second, coefficient of variation of the time between them)."""
    input_tokens: tuple[float, ...]
    """Quantiles, at `SHARES`."""
    output_tokens: tuple[float, ...]


def read_clients(file: Path) -> list[Client]:
    """The clients whose lengths are known. Raises `InputError` with file, line and field for what does not fit."""
    clients = [client for row in rows(file) if (client := _client(row)) is not None]
    if not clients:
        raise InputError(f"{file}: there is no client with known lengths in it")
    return clients


def clients_workload(
    clients: Sequence[Client],
    start_s: float,
    length_s: float,
    rng: random.Random,
    *,
    rate: float = 1.0,
    context_max: int = 100_000,
) -> Workload:
    """The requests of a stretch of the recording, times `rate`. Raises `InputError` if nobody sends anything in it."""
    programs: list[Program] = []
    for client in clients:
        for number, at in enumerate(_arrivals(client, start_s, length_s, rate, rng)):
            prompt = min(context_max, max(1, round(_draw(client.input_tokens, rng))))
            output = max(1, round(_draw(client.output_tokens, rng)))
            programs.append(Program(f"{client.name}/{number}", (Call(prompt, output),), at, client.name))
    if not programs:
        raise InputError(f"no client sends anything from {start_s:g} s to {start_s + length_s:g} s")
    programs.sort(key=lambda program: program.arrival_s)
    return Workload(tuple(programs), name="clients")


def _arrivals(client: Client, start_s: float, length_s: float, rate: float, rng: random.Random) -> Iterator[float]:
    for window, per_s, variation in client.windows:
        low, high = max(window, start_s), min(window + WINDOW_S, start_s + length_s)
        if low >= high or per_s <= 0:
            continue
        shape = 1 / max(variation, 0.05) ** 2
        scale = 1 / (per_s * rate * shape)
        # The first one comes somewhere in the middle of a gap.
        at = low + rng.random() * rng.gammavariate(shape, scale)
        while at < high:
            yield at - start_s
            at += max(1e-6, rng.gammavariate(shape, scale))


def _draw(quantiles: Sequence[float], rng: random.Random) -> float:
    share = rng.random()
    if share <= SHARES[0]:
        return quantiles[0]
    for (low, high), (left, right) in zip(pairwise(SHARES), pairwise(quantiles), strict=True):
        if share <= high:
            return left + (right - left) * (share - low) / (high - low)
    return quantiles[-1]


def _client(row: Row) -> Client | None:
    name = row.text("client")
    if not name:
        raise row.fail("client", "missing")
    lengths = row.value.get("lengths")
    if lengths is None:
        return None
    inside = Row(lengths, f"{row.where}: lengths")
    quantiles = [_quantiles(inside, field) for field in ("input_tokens", "output_tokens")]
    windows = tuple(_window(row, entry) for entry in row.items("windows"))
    if any(found is None for found in quantiles):
        return None
    return Client(name, windows, quantiles[0] or (), quantiles[1] or ())


def _window(row: Row, entry: Json) -> tuple[float, float, float]:
    match entry:
        case [int() | float() as start, int() | float() as per_s, int() | float() as variation] if (
            start >= 0 and per_s >= 0 and variation >= 0 and math.isfinite(start + per_s + variation)
        ):
            return float(start), float(per_s), float(variation)
    raise row.fail("windows", f"[start_s, requests_per_s, coefficient_of_variation] was expected, not {entry!r}")


def _quantiles(row: Row, name: str) -> tuple[float, ...] | None:
    found = row.value.get(name)
    if found is None:
        return None
    values = Row(found, f"{row.where}: {name}").items("q")
    numbers = tuple(float(value) for value in values if isinstance(value, int | float) and value >= 0)
    if len(numbers) != len(SHARES) or len(values) != len(SHARES) or list(numbers) != sorted(numbers):
        raise row.fail(name, f"{len(SHARES)} rising quantiles were expected, not {values!r}")
    return numbers
