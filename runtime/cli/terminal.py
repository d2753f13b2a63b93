"""Where output goes and how it may look: colours, width, and texts made safe for a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from ...errors import FairleadError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_CONTROL = re.compile(
    r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]", re.DOTALL
)
PIPE_WIDTH = 200
"""Columns of tables and trees that do not go to a terminal."""


def clean(text: str) -> str:
    """A text from outside without control characters and escape sequences: nobody but us moves the cursor."""
    return _CONTROL.sub("", text)


def one_line(text: str, width: int = 120) -> str:
    """The text in one line of at most `width` characters."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def wants_colour(stream: TextIO) -> bool:
    """NO_COLOR, then FORCE_COLOR, then whether the stream is a terminal that can."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def is_live(stream: TextIO) -> bool:
    """Whether a picture that redraws itself can be shown there."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", None) and not os.environ.get("CI")


def console(stream: TextIO) -> Console:
    """A rich console for a stream. Its markup and emoji codes are off: texts are shown as they are."""
    from rich.console import Console

    colour = wants_colour(stream)
    return Console(
        file=stream, no_color=not colour, force_terminal=True if colour else None, highlight=False, markup=False, emoji=False,
        soft_wrap=not stream.isatty(), width=None if stream.isatty() else PIPE_WIDTH,
    )  # fmt: skip


def say(text: str, *, style: str = "") -> None:
    """A line on standard error, with one style for the whole of it. A closed standard error is nobody's error."""
    codes = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}
    shown = f"\x1b[{codes[style]}m{text}\x1b[0m" if style and wants_colour(sys.stderr) else text
    try:
        sys.stderr.write(shown + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def put(text: str) -> None:
    """A result on standard output. Raises `FairleadError` if that cannot be written (a full disk)."""
    with _writing():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


def draw(renderable: RenderableType) -> None:
    """A table or tree of rich on standard output. Raises as `put` does."""
    with _writing():
        console(sys.stdout).print(renderable)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FairleadError(
            f"standard output cannot be written: {error.strerror or error}",
            hint="what the program did is kept: `fairlead runs show ID` has its result",
        ) from error


def open_standard_streams() -> None:
    """Give the process the standard streams that it was started without, and let no character of a result be an error.

    Without this the next file to be opened, a database for one, would be standard output (`fairlead ... >&-`).
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def seconds(value: float) -> str:
    """`0.42 s`, `12.3 s`, `4 min 05 s`, `3 h 12 min`."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def tokens(value: int | None) -> str:
    """`812`, `12.4k`, `3.1M`; `?` where the engine did not say."""
    if value is None:
        return "?"
    if value < 10_000:
        return str(value)
    return f"{value / 1000:.1f}k" if value < 999_950 else f"{value / 1_000_000:.1f}M"


def counted(number: int, what: str) -> str:
    """`1 step`, `3 steps`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
