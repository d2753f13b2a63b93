"""Runs a job in a process of its own and shows it: the person's side of `run` and `resume`.

The programs live in a `worker` in another session. Ctrl-C leaves the viewer and the programs go on; Ctrl-C again, within two
seconds, cancels them. A closing terminal (SIGHUP) detaches too; SIGTERM parks. A viewer that is killed parks them as well:
only who says so leaves a program running.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..clock import SystemClock
from .display import Display, NoDisplay
from .exits import ExitCode
from .jobs import Job
from .messages import Failed, Message, Outcome, Started, from_line
from .terminal import say

SECOND_CTRL_C_S = 2.0
STOP_WAIT_S = 15.0
"""How long a cancelled or parked program may take to say what was stopped."""
_POLL_S = 0.1


class Viewer:
    """One worker, watched. `watch` once."""

    def __init__(self, job: Job, display: Display, *, db_option: str = "") -> None:
        self.outcomes: list[Outcome] = []
        self.failed: Failed | None = None
        self.interrupted: ExitCode | None = None
        self.detached = False
        self._job = job
        self._db_option = db_option
        """` --db URL`, where a command that is suggested needs it."""
        self._display = display
        self._started: list[Started] = []
        self._signals: list[int] = []
        self._buffer = bytearray()
        self._over = False
        self._cancelling = False
        self._hung_up = False

    def watch(self) -> None:
        """Show the job until it is done, or the person has left."""
        with self._listening():
            self._worker = _spawn(self._job)
            with self._display:
                self._follow(None)
            if self.detached and not self._over:
                self._say_goodbye()
                if not self._hung_up:
                    self._wait_for_second()
        if self._over and self._worker.stdout is not None:
            self._worker.wait(STOP_WAIT_S)
            self._note_death()

    def _follow(self, until: float | None) -> None:
        """Show messages until there are no more, the person leaves, or a time is reached."""
        assert self._worker.stdout is not None
        number = self._worker.stdout.fileno()
        while not self._over and not (self.detached and until is None):
            if until is not None and _now() >= until:
                return
            if select.select([number], [], [], _POLL_S)[0]:
                self._take(os.read(number, 1 << 16))
            while self._signals:
                self._on_signal(self._signals.pop(0))

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            self._over = True
            return
        self._buffer += chunk
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            self._on_message(from_line(line))

    def _on_message(self, message: Message) -> None:
        match message:
            case Outcome():
                self.outcomes.append(message)
            case Failed():
                self.failed = message
            case Started():
                self._started.append(message)
        self._display.show(message)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGTERM:
            self.interrupted = ExitCode.TERMINATED
            self._command(b"park")
        elif self.detached:
            if number == signal.SIGINT and not self._cancelling:
                self._cancelling = True
                say("cancelling ...")
                self._command(b"cancel")
        elif not self._started and number == signal.SIGINT:
            # There is no program to leave behind yet.
            self.interrupted = ExitCode.INTERRUPTED
            self._command(b"park")
        else:
            self.interrupted = ExitCode.INTERRUPTED
            self.detached = True
            self._hung_up = number == signal.SIGHUP
            self._command(b"detach")

    def _command(self, command: bytes) -> None:
        assert self._worker.stdin is not None
        with suppress(OSError):
            self._worker.stdin.write(command + b"\n")

    def _say_goodbye(self) -> None:
        program = self._started[0]
        name = program.id if len(self._started) == 1 else "ID"
        what = f"program {program.id} goes" if len(self._started) == 1 else f"{len(self._started)} programs go"
        db = self._db_option
        say(f"detached: {what} on in the background (process {program.pid})", style="bold")
        say(f"  watch:   fairlead runs watch {name}{db}")
        say(f"  result:  fairlead runs show {name}{db}")
        say(f"  cancel:  fairlead runs cancel {name}{db}, or Ctrl-C again within {SECOND_CTRL_C_S:g} s")
        say(f"  if its process is killed: fairlead resume {name}{db}", style="dim")

    def _wait_for_second(self) -> None:
        self._display = NoDisplay()
        self._follow(_now() + SECOND_CTRL_C_S)
        if self._cancelling:
            self._follow(_now() + STOP_WAIT_S)

    def _note_death(self) -> None:
        """A worker that ended without a word was killed."""
        told = {outcome.id for outcome in self.outcomes}
        lost = [program for program in self._started if program.id not in told]
        if self.failed is not None or (self.outcomes and not lost) or self.interrupted is not None:
            return
        code = self._worker.returncode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
        if lost:
            hint = f"finished work is kept; go on with `fairlead resume {lost[0].id}{self._db_option}`"
            self.failed = Failed(f"the process that ran program {lost[0].id} was ended {how}", hint, int(ExitCode.FAILED))
        elif code:
            self.failed = Failed(f"the process that was to run the program was ended {how}", None, int(ExitCode.FAILED))

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Collect signals instead of being ended by them."""

        def note(number: int, _: FrameType | None) -> None:
            self._signals.append(number)

        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # What is ignored (nohup, a job in the background of a script) stays ignored.
        before = {number: signal.signal(number, note) for number in wanted if signal.getsignal(number) is not signal.SIG_IGN}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _spawn(job: Job) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )
    assert worker.stdin is not None
    with suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(job.as_json()).encode() + b"\n")
    return worker


def _now() -> float:
    return SystemClock().now()
