"""Make the small traces of this folder from full ones: `python -m bench.scheduling.sample SOURCE_FOLDER`.

A program is kept by the hash of its id (a sub-agent by its root's), so the same sources always give the same samples, and a
larger share contains the smaller. Fields that no simulation reads are left out; numbers are not altered.
"""

from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

TRACES = Path(__file__).parent / "traces"

_PROGRAM = ("program_id", "source", "arrival_s", "block_size", "block_scope", "parent_program_id", "parent_turn")
_PROGRAM_SIZES = ("tool_def_tokens", "system_tokens")
_TURN = ("prompt_tokens", "new_prompt_tokens", "output_tokens", "tool", "tool_s", "user_s", "gap_kind", "t_s", "api_s")


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of one trace is kept."""

    name: str
    share: float
    blocks: bool = True
    """Whether block ids are kept: where they only compare within a program, the count of new tokens says the same."""


SAMPLES = (
    Sample("coding_agents", 0.5, blocks=False),
    Sample("mooncake_conversation", 0.5),
    Sample("tau_airline", 1.0),
    Sample("miniswe_text", 1.0),
)


def kept(program_id: str, share: float) -> bool:
    """Whether the sample of this share has the program."""
    place = int.from_bytes(blake2b(program_id.encode(), digest_size=8).digest()) / 2**64
    return place < share


def make(sample: Sample, source: Path, target: Path) -> int:
    """Write the sample of one trace; how many programs it has."""
    with gzip.open(source / f"{sample.name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        programs = [json.loads(line) for line in lines]
    parents = {program["program_id"]: program.get("parent_program_id") for program in programs}
    chosen = [_less(program, sample) for program in programs if kept(_root(program["program_id"], parents), sample.share)]
    text = "".join(json.dumps(program, separators=(",", ":")) + "\n" for program in chosen)
    # Without a time stamp, so that the same programs give the same bytes.
    (target / f"{sample.name}.jsonl.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    return len(chosen)


def _root(program_id: str, parents: dict[str, str | None]) -> str:
    while (parent := parents.get(program_id)) is not None and parent in parents:
        program_id = parent
    return program_id


def _less(program: dict[str, object], sample: Sample) -> dict[str, object]:
    names = _PROGRAM + _PROGRAM_SIZES
    fields = (*_TURN, "prefix_blocks") if sample.blocks else _TURN
    turns = program["turns"]
    assert isinstance(turns, list)
    less: dict[str, object] = {name: program[name] for name in names if program.get(name) is not None}
    less["turns"] = [{name: turn[name] for name in fields if turn.get(name) is not None} for turn in turns]
    return less


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with the full traces")
    parser.add_argument("--target", type=Path, default=TRACES)
    arguments = parser.parse_args()
    for sample in SAMPLES:
        count = make(sample, arguments.source, arguments.target)
        print(f"{sample.name}: {count} programs, {(arguments.target / (sample.name + '.jsonl.gz')).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
