"""Shows messages to a person, on standard error: a live tree on a terminal, lines elsewhere, nothing when quiet.

Results are not shown here but kept for the end, when nothing moves any more.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from ..clock import SystemClock
from .messages import Failed, Happened, Message, Outcome, Planned, Printed, Started
from .plain import PlainProgress
from .progress import Progress
from .terminal import clean, console, is_live, say

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

FRAMES_PER_S = 8


class Display(Protocol):
    """Shows what happens while it happens."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def show(self, message: Message) -> None: ...


def display_for(*, quiet: bool) -> Display:
    """The display for the standard error as it is."""
    if quiet:
        return QuietDisplay()
    return LiveDisplay() if is_live(sys.stderr) else PlainDisplay()


class NoDisplay:
    """Shows nothing at all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def show(self, message: Message) -> None:
        return


class QuietDisplay(NoDisplay):
    """Shows nothing but what steps print."""

    def show(self, message: Message) -> None:
        if isinstance(message, Printed):
            say(message.text.rstrip("\n"))


class PlainDisplay(QuietDisplay):
    """Shows a line for each event."""

    def __init__(self) -> None:
        self._progress = PlainProgress()

    def show(self, message: Message) -> None:
        match message:
            case Happened(event):
                line = self._progress.line(event)
                if line is not None:
                    say(line)
            case _:
                super().show(message)


class LiveDisplay:
    """Shows the tree and draws it again, some times a second, from a thread of rich's."""

    def __init__(self) -> None:
        from rich.live import Live

        self._progress = Progress()
        self._lock = threading.Lock()
        self._console = console(sys.stderr)
        self._now = SystemClock().now
        self._live = Live(
            _Tree(self),
            console=self._console,
            refresh_per_second=FRAMES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, message: Message) -> None:
        if isinstance(message, Printed):
            from rich.text import Text

            self._live.console.print(Text(clean(message.text).rstrip("\n")))
            return
        with self._lock:
            match message:
                case Started(id=program_id, workflow=workflow):
                    self._progress.started(program_id, workflow)
                case Planned(id=program_id, nodes=nodes, kept=kept):
                    self._progress.planned(program_id, nodes, kept)
                case Happened(event):
                    self._progress.add(event)
                case Outcome() | Failed():
                    pass

    def rendered(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The tree as it is now."""
        from rich.text import Text

        from .live import ascii_only, render

        with self._lock:
            lines = render(self._progress, self._now(), height=max(3, options.size.height - 2), width=options.max_width)
        plain = not (console.encoding or "").lower().startswith("utf")
        for line in lines:
            yield Text(ascii_only(line.plain)) if plain else line


class _Tree:
    """What rich asks to be drawn."""

    def __init__(self, display: LiveDisplay) -> None:
        self._display = display

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._display.rendered(console, options)
