from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.overhead import standing
from bench.overhead.figures import figures
from bench.overhead.measure import Runs
from bench.overhead.serve import Sample, expect, stored_bytes

ROOT = Path(__file__).parents[3]


def runs(**seconds: list[float]) -> Runs:
    """Samples of a durable chain and fan-out for each arm named."""
    chain = {(name, "durable_chain", 100): [Sample(value) for value in values] for name, values in seconds.items()}
    fanout = {(name, "durable_fanout", 1000): [Sample(value) for value in values] for name, values in seconds.items()}
    return Runs(chain | fanout, [])


def test_the_floor_is_subtracted_round_by_round_not_median_from_median() -> None:
    drawn = figures(runs(fairlead=[0.11, 0.35, 0.22], floor=[0.10, 0.30, 0.20]))
    chain = next(entry for entry in drawn if entry.figure == "durable_chain_ms_over_floor")
    assert (chain.low, chain.value, chain.high) == (0.1, 0.2, 0.5)
    assert chain.peers["floor"] == 2.0


def test_the_speed_up_is_against_the_fastest_peer_that_records_every_step() -> None:
    drawn = figures(runs(fairlead=[0.1], floor=[0.01], slow=[2.0], fast=[0.6], langgraph_exit=[0.05]))
    speedup = next(entry for entry in drawn if entry.figure == "durable_fanout_1000_over_fastest_peer")
    assert speedup.value == pytest.approx(6.0)


def test_figures_are_drawn_only_of_what_fairlead_ran() -> None:
    assert figures(runs(floor=[1.0], slow=[2.0])) == []


def test_an_arm_answers_requests_and_leaves_its_databases_in_the_given_folder(tmp_path: Path) -> None:
    request = {"arm": "floor", "shape": "durable_chain", "size": 3, "place": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "bench.overhead.floors"],
        cwd=ROOT,
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    hello, answer = map(json.loads, result.stdout.splitlines())
    assert "durable_chain" in hello["arms"]["floor"]
    assert answer["seconds"] > 0
    assert stored_bytes(tmp_path) > 0


def test_an_arm_that_computes_something_else_is_broken() -> None:
    with pytest.raises(RuntimeError, match="should be 100"):
        expect(99, 100)


def test_the_core_needs_no_more_distributions_than_langgraph_with_its_sqlite_saver() -> None:
    assert 1 < standing.core_distributions() <= 41


def test_distributions_are_counted_through_extras() -> None:
    alone, with_extra = standing.core_distributions("sqlalchemy"), standing.core_distributions("sqlalchemy[asyncio]")
    assert with_extra == alone + 1  # greenlet


def test_our_other_settings_are_no_peers() -> None:
    drawn = figures(runs(fairlead=[0.1], fairlead_async=[0.2], floor=[0.01], slow=[2.0]))
    speedup = next(entry for entry in drawn if entry.figure == "durable_fanout_1000_over_fastest_peer")
    assert speedup.value == pytest.approx(20.0)


def test_a_journal_that_grows_linearly_has_a_growth_of_one_whatever_an_empty_database_weighs() -> None:
    space = {10: 100_000 + 10 * 500, 250: 100_000 + 250 * 500, 500: 100_000 + 500 * 500}
    samples = {("fairlead", "durable_agent", turns): [Sample(1.0, taken)] for turns, taken in space.items()}
    growth = next(entry for entry in figures(Runs(samples, [])) if entry.figure == "journal_growth_to_500_over_to_250")
    assert growth.value == pytest.approx(1.0)
