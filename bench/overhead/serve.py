"""The arm's side of the conversation with the bench: read a request per line, run the shape, answer with a line.

Runs in the peers' environments, so it needs the standard library alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

Shape = Callable[[int, Path], Awaitable["Sample"]]
"""Runs a shape of the given size; whatever it keeps on disk goes into the given empty folder."""


class Sample:
    """What one run of a shape took: seconds, and bytes on disk or in memory where a shape looks at them."""

    def __init__(self, seconds: float, space: int | None = None) -> None:
        self.seconds = seconds
        self.space = space


class Stopwatch:
    """Seconds between entering and leaving the context; garbage is collected before, so no arm pays for another's."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        gc.collect()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start


def stored_bytes(place: Path) -> int:
    """The size of all files in a folder."""
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def expect(found: object, expected: object) -> None:
    """Raise if a shape's result is not what it must be: an arm that computes something else is not fast but broken."""
    if found != expected:
        raise RuntimeError(f"the shape's result is {found!r} and should be {expected!r}")


def serve(arms: Mapping[str, Mapping[str, Shape]]) -> None:
    """Answer requests `{"arm", "shape", "size", "place"}` until the input ends.

    One event loop serves all requests of a process. A shape that raises answers with `{"error"}`.
    """
    with _answers() as answer, asyncio.Runner() as runner:
        answer({"arms": {arm: sorted(shapes) for arm, shapes in arms.items()}})
        for line in sys.stdin:
            request = json.loads(line)
            shape = arms[request["arm"]][request["shape"]]
            try:
                sample = runner.run(_run(shape, request["size"], Path(request["place"])))
            except Exception as error:  # the bench reports it and goes on with the others
                answer({"error": _told(error)[:500]})
            else:
                answer({"seconds": sample.seconds, "space": sample.space})


def _told(error: BaseException) -> str:
    """The first error that is not a group of others."""
    inner = getattr(error, "exceptions", ())
    return _told(inner[0]) if inner else f"{type(error).__name__}: {error}"


async def _run(shape: Shape, size: int, place: Path) -> Sample:
    return await shape(size, place)


@contextlib.contextmanager
def _answers() -> Iterator[Callable[[dict[str, object]], None]]:
    """Keeps the real standard output for answers; whatever a library prints goes to standard error."""
    with os.fdopen(os.dup(1), "w", buffering=1) as channel:
        os.dup2(2, 1)
        yield lambda message: print(json.dumps(message), file=channel, flush=True)
