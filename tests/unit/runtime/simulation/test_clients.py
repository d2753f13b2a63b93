"""Measured clients become requests with their rates, burstiness and lengths."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

import pytest

from fairlead.errors import InputError
from fairlead.runtime.simulation.clients import clients_workload, read_clients

LENGTHS = {"input_tokens": {"q": [100, 200, 300, 400, 500, 600, 900]}, "output_tokens": {"q": [1, 2, 3, 4, 5, 6, 7]}}


def written(folder: Path, *clients: dict[str, object]) -> Path:
    file = folder / "clients.jsonl"
    file.write_text("\n".join(map(json.dumps, clients)))
    return file


def client(**fields: object) -> dict[str, object]:
    return {"client": "a", "windows": [[0, 2.0, 1.0], [1200, 4.0, 3.0]], "lengths": LENGTHS, **fields}


def test_requests_have_the_rates_and_lengths_of_their_clients(tmp_path: Path) -> None:
    clients = read_clients(written(tmp_path, client(), client(client="silent", lengths=None)))
    assert [found.name for found in clients] == ["a"]
    load = clients_workload(clients, 0.0, 1800.0, random.Random(1))
    times = [program.arrival_s for program in load.programs]
    assert times == sorted(times) and not any(600 <= at < 1200 for at in times)
    assert sum(at < 600 for at in times) == pytest.approx(1200, rel=0.1)
    assert sum(at >= 1200 for at in times) == pytest.approx(2400, rel=0.25)
    assert statistics.median(program.calls[0].prompt_tokens for program in load.programs) == pytest.approx(300, rel=0.05)
    assert {program.tenant for program in load.programs} == {"a"}


def test_a_stretch_can_be_chosen_and_scaled(tmp_path: Path) -> None:
    clients = read_clients(written(tmp_path, client()))
    load = clients_workload(clients, 300.0, 600.0, random.Random(1), rate=0.5)
    assert len(load.programs) == pytest.approx(300, rel=0.2)
    assert max(program.arrival_s for program in load.programs) < 300.0
    with pytest.raises(InputError, match="no client sends anything"):
        clients_workload(clients, 700.0, 100.0, random.Random(1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"client": None}, "clients.jsonl:1: client: missing"),
        ({"windows": [[0, -1.0, 1.0]]}, r"clients.jsonl:1: windows: \[start_s"),
        ({"windows": None}, "clients.jsonl:1: windows: missing"),
        ({"lengths": {**LENGTHS, "input_tokens": {"q": [3, 2]}}}, "lengths: input_tokens: 7 rising quantiles"),
        ({"lengths": None}, "no client with known lengths"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_clients(written(tmp_path, client(**fields)))
