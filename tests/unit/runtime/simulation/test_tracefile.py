"""Trace files: what is read, and how every kind of mistake is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from fairlead.errors import InputError, NotFoundError
from fairlead.runtime.simulation.tracefile import find_trace, read_trace

TURN = {"prompt_tokens": 100, "new_prompt_tokens": 100, "output_tokens": 10, "tool": None, "tool_s": 1.5}


def program(**fields: object) -> dict[str, object]:
    return {"program_id": "p", "source": "s", "tenant": None, "arrival_s": None, "turns": [TURN], **fields}


def trace(folder: Path, *lines: object) -> Path:
    file = folder / "some.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_a_plain_and_a_packed_file_say_the_same(tmp_path: Path) -> None:
    plain = trace(tmp_path, program(), "", program(program_id="q", arrival_s=3))
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    read = read_trace(plain)
    assert [(p.program_id, p.arrival_s, p.tenant) for p in read] == [("p", None, "default"), ("q", 3.0, "default")]
    assert [p.turns for p in read_trace(packed)] == [p.turns for p in read]
    assert read[1].origin == f"{plain}:3"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "some.jsonl:1: not JSON"),
        ("[]", "some.jsonl:1: an object was expected, not list"),
        (program(turns=None), "some.jsonl:1: turns: missing"),
        (program(turns=[]), "some.jsonl:1: turns: a program needs at least one turn"),
        (program(program_id=None), "some.jsonl:1: program_id: missing"),
        (program(arrival_s=-1), "some.jsonl:1: arrival_s: must be 0 or more, not -1"),
        (program(arrival_s="soon"), "some.jsonl:1: arrival_s: a number was expected, not 'soon'"),
        (program(parent_turn=-2), "some.jsonl:1: parent_turn: a turn of the parent, or -1, was expected, not -2"),
        (program(block_size=0), "some.jsonl:1: block_size: must be above 0"),
        (program(turns=[{**TURN, "prompt_tokens": None}]), r"some.jsonl:1: turns\[0\]: prompt_tokens: missing"),
        (program(turns=[TURN, {**TURN, "prompt_tokens": 0}]), r"some.jsonl:1: turns\[1\]: prompt_tokens: must be at least 1"),
        (program(turns=[{**TURN, "output_tokens": 1.5}]), r"turns\[0\]: output_tokens: a whole number was expected, not 1.5"),
        (program(turns=[{**TURN, "output_tokens": True}]), r"turns\[0\]: output_tokens: a number was expected, not True"),
        (program(turns=[{**TURN, "tool_s": -0.5}]), r"turns\[0\]: tool_s: must be 0 or more, not -0.5"),
        (program(turns=[{**TURN, "gap_kind": "nap"}]), r"turns\[0\]: gap_kind: tool, user, subagent or end was expected"),
        (program(turns=[{**TURN, "prefix_blocks": [[1, 0]]}]), r"turns\[0\]: prefix_blocks: \[first id, count\] was expected"),
        (program(turns=[{**TURN, "t_s": float("nan")}]), r"turns\[0\]: t_s: a number was expected, not nan"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_field(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_trace(trace(tmp_path, line))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(json.dumps(program()).encode())[:-10])
    for file in (torn, tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(InputError, match=f"{file.name}: cannot be read"):
            read_trace(file)
    with pytest.raises(InputError, match="there are no programs in it"):
        read_trace(trace(tmp_path, ""))


def test_traces_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    file = trace(tmp_path, program())
    assert find_trace(str(file), []) == file
    assert find_trace("some", [tmp_path / "nowhere", tmp_path]) == file
    with pytest.raises(NotFoundError, match=r"(?s)no trace 'other'.*one of: some"):
        find_trace("other", [tmp_path])
