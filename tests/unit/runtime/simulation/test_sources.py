"""What a person asks for becomes a workload, or a clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairlead.errors import InputError
from fairlead.runtime.simulation.programs import Program, Workload
from fairlead.runtime.simulation.sources import SYNTHETIC, Arrivals, Source, read_tenants
from fairlead.runtime.simulation.traces import Shape
from tests.unit.runtime.simulation.making import one_call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [
        {"program_id": f"p{n}", "arrival_s": 10 * n, "turns": [{"prompt_tokens": 100, "output_tokens": 5}] * 3}
        for n in range(4)
    ]
    (tmp_path / "timed.jsonl").write_text("\n".join(map(json.dumps, lines)))
    untimed = [{**line, "arrival_s": None} for line in lines]
    (tmp_path / "untimed.jsonl").write_text("\n".join(map(json.dumps, untimed)))
    return tmp_path


def test_recorded_arrivals_are_kept(folder: Path) -> None:
    load = Source("timed", (folder,))(1)
    assert [program.arrival_s for program in load.programs] == [0.0, 10.0, 20.0, 30.0]


def test_arrivals_can_be_chosen(folder: Path) -> None:
    open_loop = Source("untimed", (folder,), Arrivals(per_s=0.5), programs=10)(1)
    assert len(open_loop.programs) == 10 and open_loop.programs[0].arrival_s > 0
    closed = Source("untimed", (folder,), Arrivals(concurrency=2, horizon_s=60.0))(1)
    assert (closed.concurrency, closed.horizon_s) == (2, 60.0)


def test_a_trace_without_arrivals_asks_for_some(folder: Path) -> None:
    for source in (Source("untimed", (folder,)), Source("timed", (folder,), shape=Shape(tasks=True)), Source("swe-bench")):
        with pytest.raises(InputError, match="has no arrival times"):
            source(1)


def test_seeds_choose_and_repeat(folder: Path) -> None:
    source = Source("untimed", (folder,), Arrivals(per_s=0.5))
    assert source(1) == source(1) != source(2)


def test_programs_are_dealt_to_tenants(folder: Path) -> None:
    load = Source("timed", (folder,), tenants={"a": 3.0, "b": 1.0})(1)
    assert [program.tenant for program in load.programs] == ["a", "b", "a", "b"]
    assert load.tenants == {"a": 3.0, "b": 1.0}


def test_ones_own_programs_come_ready_made() -> None:
    own = Workload((Program("p", one_call(), tenant="t"),), tenants={"t": 2.0})
    assert Source("journal", recorded=own)(1).tenants == {"t": 2.0}


@pytest.mark.parametrize("kind", SYNTHETIC)
def test_every_synthetic_kind_gives_as_many_programs_as_asked(kind: str) -> None:
    assert len(Source(kind, arrivals=Arrivals(per_s=1.0), programs=7)(1).programs) == 7


def test_nothing_left_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="no program is left"):
        Source("timed", (folder,), shape=Shape(context_max=10))(1)


@pytest.mark.parametrize(("text", "weights"), [("2", {"tenant-0": 1.0, "tenant-1": 1.0}), ("a=3, b", {"a": 3.0, "b": 1.0})])
def test_tenants_are_read(text: str, weights: dict[str, float]) -> None:
    assert read_tenants(text) == weights


@pytest.mark.parametrize("text", ["0", "a=0", "a=-1", "a=x", "=3", "a,,b", "a=inf"])
def test_impossible_tenants_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="tenants: "):
        read_tenants(text)


@pytest.mark.parametrize("make", [lambda: Arrivals(1.0, 1), lambda: Arrivals(per_s=0.0), lambda: Arrivals(per_s=float("nan"))])
def test_impossible_arrivals_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(InputError):
        make()
