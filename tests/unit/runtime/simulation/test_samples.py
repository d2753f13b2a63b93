"""The traces that come with the repository: readable, small, and made the same way every time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bench.scheduling.sample import SAMPLES, TRACES, Sample, kept, make
from fairlead.runtime.simulation.tracefile import read_trace
from fairlead.runtime.simulation.traces import CODING_TASKS, programs_of


@pytest.mark.parametrize("name", [sample.name for sample in SAMPLES])
def test_every_sample_reads_as_programs(name: str) -> None:
    assert programs_of(read_trace(TRACES / f"{name}.jsonl.gz"))


def test_samples_are_small() -> None:
    assert sum(file.stat().st_size for file in TRACES.iterdir()) < 1_500_000


def test_the_coding_sample_has_enough_tasks() -> None:
    tasks = programs_of(read_trace(TRACES / "coding_agents.jsonl.gz"), CODING_TASKS)
    assert len(tasks) > 400
    assert any(call.agent for task in tasks for call in task.calls), "sub-agents belong to their tasks"


def test_a_sample_keeps_whole_families_and_repeats(tmp_path: Path) -> None:
    turns = [{"prompt_tokens": 5, "output_tokens": 1, "prefix_blocks": [[1, 1]], "models": ["x"]}]
    programs = [{"program_id": f"p{n}", "source": "s", "turns": turns} for n in range(40)]
    programs += [{"program_id": f"c{n}", "source": "s", "turns": turns, "parent_program_id": f"p{n}"} for n in range(40)]
    packed = gzip.compress("".join(json.dumps(program) + "\n" for program in programs).encode())
    (tmp_path / "all.jsonl.gz").write_bytes(packed)
    out = tmp_path / "out"
    out.mkdir()
    count = make(Sample("all", 0.5, blocks=False), tmp_path, out)
    first = (out / "all.jsonl.gz").read_bytes()
    read = read_trace(out / "all.jsonl.gz")
    assert len(read) == count and 20 < count < 60
    names = {program.program_id for program in read}
    assert {name[1:] for name in names if name[0] == "p"} == {name[1:] for name in names if name[0] == "c"}
    make(Sample("all", 0.5, blocks=False), tmp_path, out)
    assert (out / "all.jsonl.gz").read_bytes() == first
    assert all(kept(name, 0.9) for name in names if name[0] == "p")
