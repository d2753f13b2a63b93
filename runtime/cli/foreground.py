"""Runs a job in the person's own process (`--foreground`, and databases in memory): Ctrl-C and SIGTERM park the programs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import anyio
import anyio.from_thread
import anyio.lowlevel

from .display import Display
from .exits import ExitCode
from .jobs import Job
from .messages import Failed, Message, Outcome
from .session import Session


class Foreground:
    """One job. `perform` once."""

    def __init__(self, job: Job, display: Display) -> None:
        self.outcomes: list[Outcome] = []
        self.failed: Failed | None = None
        self.interrupted: ExitCode | None = None
        self._display = display
        self._session = Session(job, self._tell)

    def perform(self) -> None:
        """Run until the programs have ended, wait for a person, or are parked.

        Raises `KeyboardInterrupt` at the second Ctrl-C: something does not let itself be stopped.
        """
        with _results_only_on_stdout(), self._display:
            anyio.run(self._perform)

    async def _perform(self) -> None:
        token = anyio.lowlevel.current_token()

        def park(number: int, _: FrameType | None) -> None:
            if self.interrupted is not None:
                raise KeyboardInterrupt
            self.interrupted = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
            # The handler runs between two instructions of the main thread, not as part of its event loop.
            threading.Thread(
                target=anyio.from_thread.run_sync, args=(self._session.park,), kwargs={"token": token}, daemon=True
            ).start()

        before = {number: signal.signal(number, park) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            await self._session.perform()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _tell(self, message: Message) -> None:
        match message:
            case Outcome():
                self.outcomes.append(message)
            case Failed():
                self.failed = message
        self._display.show(message)


@contextmanager
def _results_only_on_stdout() -> Iterator[None]:
    """Send what steps and their child processes print to standard error, so that standard output has the result alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def end_process(code: int) -> None:
    """End the process now, if threads of plain `def` steps were left behind that would keep it."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
