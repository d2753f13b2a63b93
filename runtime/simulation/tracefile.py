"""Trace files: one JSON object per line, perhaps gzipped, read and checked; every complaint names file, line and field.

A trace holds counts and times of real programs, no text: for each program its turns with prompt, new and output tokens, the
pause after each, and block ids where the source had them. Null means not measured. `traces` makes programs of them.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...encoding import Json
from ...errors import InputError, NotFoundError

SUFFIXES = ("", ".jsonl.gz", ".jsonl")


@dataclass(frozen=True, slots=True)
class TraceTurn:
    """One call of a recorded program. None: not measured."""

    prompt_tokens: int
    new_prompt_tokens: int | None
    output_tokens: int | None
    tool: str
    tool_s: float | None
    user_s: float | None
    gap_kind: str | None
    """What follows: `tool`, `user`, `subagent`, `end`, or None."""
    started_s: float | None
    """Since the program's first turn."""
    api_s: float | None
    runs: tuple[tuple[int, int], ...]
    """Block ids of the prompt: (first id, count)."""


@dataclass(frozen=True, slots=True)
class TraceProgram:
    """One recorded conversation."""

    program_id: str
    source: str
    tenant: str
    arrival_s: float | None
    turns: tuple[TraceTurn, ...]
    origin: str
    """`FILE:LINE`."""
    block_tokens: int | None = None
    blocks_compare: bool = False
    """Whether block ids mean the same in every program of the file."""
    parent_id: str | None = None
    parent_turn: int = -1
    system_tokens: int = 0
    """Tool definitions and system prompt at the beginning of every prompt."""


def find_trace(name: str, directories: Iterable[Path]) -> Path:
    """The file of that path, or of that name (with or without its ending) in one of the directories.

    Raises `NotFoundError` naming what there is.
    """
    if Path(name).is_file():
        return Path(name)
    places = [place for place in directories if place.is_dir()]
    for place in places:
        for suffix in SUFFIXES:
            if (place / (name + suffix)).is_file():
                return place / (name + suffix)
    known = sorted({found.name.split(".jsonl")[0] for place in places for found in place.glob("*.jsonl*")})
    raise NotFoundError(
        f"there is no trace {name!r}",
        hint=f"give the path of a file, or one of: {', '.join(known)}" if known else "give the path of a file",
    )


def read_trace(file: Path) -> list[TraceProgram]:
    """All programs of a trace file. Raises `InputError` with file, line and field for whatever does not fit."""
    programs = [_program(row) for row in rows(file)]
    if not programs:
        raise InputError(f"{file}: there are no programs in it")
    return programs


class Row:
    """One JSON object of a file, and how to ask it for numbers."""

    def __init__(self, value: Json, where: str) -> None:
        if not isinstance(value, dict):
            raise InputError(f"{where}: an object was expected, not {type(value).__name__}")
        self.value: Mapping[str, Json] = value
        self.where = where

    def fail(self, name: str, message: str) -> InputError:
        return InputError(f"{self.where}: {name}: {message}")

    def text(self, name: str, default: str = "") -> str:
        found = self.value.get(name)
        if found is None:
            return default
        if not isinstance(found, str):
            raise self.fail(name, f"text was expected, not {found!r}")
        return found

    def number(self, name: str) -> float | None:
        found = self.value.get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise self.fail(name, f"a number was expected, not {found!r}")
        if found < 0:
            raise self.fail(name, f"must be 0 or more, not {found:g}")
        return float(found)

    def count(self, name: str) -> int | None:
        found = self.number(name)
        if found is None:
            return None
        if found != int(found):
            raise self.fail(name, f"a whole number was expected, not {found:g}")
        return int(found)

    def items(self, name: str) -> Sequence[Json]:
        found = self.value.get(name)
        if not isinstance(found, list):
            raise self.fail(name, "missing" if found is None else f"a list was expected, not {type(found).__name__}")
        return found


def rows(file: Path) -> Iterator[Row]:
    """The objects of a file, one per line. Raises `InputError` where a line is not JSON or the file cannot be read."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.name.endswith(".gz") else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    value: Json = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{file}:{number}: not JSON: {error}") from error
                yield Row(value, f"{file}:{number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


def _program(row: Row) -> TraceProgram:
    turns = [_turn(Row(turn, f"{row.where}: turns[{index}]")) for index, turn in enumerate(row.items("turns"))]
    if not turns:
        raise row.fail("turns", "a program needs at least one turn")
    program_id = row.text("program_id")
    if not program_id:
        raise row.fail("program_id", "missing")
    parent_turn = row.value.get("parent_turn", -1)
    if isinstance(parent_turn, bool) or not isinstance(parent_turn, int) or parent_turn < -1:
        raise row.fail("parent_turn", f"a turn of the parent, or -1, was expected, not {parent_turn!r}")
    block_tokens = row.count("block_size")
    if block_tokens == 0:
        raise row.fail("block_size", "must be above 0")
    return TraceProgram(
        program_id=program_id,
        source=row.text("source"),
        tenant=row.text("tenant", "default"),
        arrival_s=row.number("arrival_s"),
        turns=tuple(turns),
        origin=row.where,
        block_tokens=block_tokens,
        blocks_compare=row.text("block_scope") == "source",
        parent_id=row.text("parent_program_id") or None,
        parent_turn=parent_turn,
        system_tokens=(row.count("tool_def_tokens") or 0) + (row.count("system_tokens") or 0),
    )


def _turn(row: Row) -> TraceTurn:
    prompt = row.count("prompt_tokens")
    if not prompt:
        raise row.fail("prompt_tokens", "missing" if prompt is None else "must be at least 1")
    new = row.count("new_prompt_tokens")
    kind = row.text("gap_kind") or None
    if kind not in (None, "tool", "user", "subagent", "end"):
        raise row.fail("gap_kind", f"tool, user, subagent or end was expected, not {kind!r}")
    return TraceTurn(
        prompt_tokens=prompt,
        new_prompt_tokens=None if new is None else min(new, prompt),
        output_tokens=row.count("output_tokens"),
        tool=row.text("tool"),
        tool_s=row.number("tool_s"),
        user_s=row.number("user_s"),
        gap_kind=kind,
        started_s=row.number("t_s"),
        api_s=row.number("api_s"),
        runs=tuple(_run(row, entry) for entry in row.items("prefix_blocks")) if "prefix_blocks" in row.value else (),
    )


def _run(row: Row, entry: Json) -> tuple[int, int]:
    match entry:
        case [int(first), int(count)] if count > 0:
            return first, count
    raise row.fail("prefix_blocks", f"[first id, count] was expected, not {entry!r}")
