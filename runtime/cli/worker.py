"""The process that runs programs behind a viewer (see `viewer`), in a session of its own, so that no terminal can end it.

It gets its job as the first line of its standard input, and commands as further lines: `detach`, `park`, `cancel`. What it
has to tell goes to its standard output, a message per line. When the input ends without `detach`, the viewer was killed:
the programs are parked, so that a killed command leaves nothing running behind the person's back.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from queue import SimpleQueue
from typing import IO, TextIO

import anyio
import anyio.from_thread
import anyio.lowlevel

from .jobs import Job
from .messages import Message, Printed, to_line
from .session import Session

_DRAIN_S = 5.0
"""How long the last messages may take to be read."""
_BACKLOG_MAX = 200_000
"""Messages kept for a viewer that does not read (a stopped terminal); later events are dropped rather than kept."""


class _Outbox:
    """Sends messages from a thread of its own: a viewer that is slow, stopped or gone never holds up a program."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._queue: SimpleQueue[Message | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        self._thread.start()

    def tell(self, message: Message) -> None:
        if self._queue.qsize() < _BACKLOG_MAX:
            self._queue.put(message)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(_DRAIN_S)

    def _send_all(self) -> None:
        gone = False
        while (message := self._queue.get()) is not None:
            if gone:
                continue
            try:
                self._stream.write(to_line(message))
            except OSError:
                gone = True


def main() -> None:
    """Do the job and end the process."""
    commands = os.fdopen(os.dup(0), "rb")
    outbox = _Outbox(os.fdopen(os.dup(1), "wb", 0))
    job = Job.from_json(json.loads(commands.readline()))
    _capture_output(outbox)
    session = Session(job, outbox.tell)
    anyio.run(_perform, session, commands)
    outbox.close()
    # Threads of plain `def` steps that were left behind must not keep the process.
    os._exit(0)


async def _perform(session: Session, commands: IO[bytes]) -> None:
    token = anyio.lowlevel.current_token()
    threading.Thread(target=_obey, args=(session, commands, token), daemon=True).start()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_park_on_signals, session)
        await session.perform()
        tasks.cancel_scope.cancel()


async def _park_on_signals(session: Session) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            session.park()


def _obey(session: Session, commands: IO[bytes], token: anyio.lowlevel.EventLoopToken) -> None:
    """Carry out commands until there are no more."""
    detached = False
    actions = {b"park": session.park, b"cancel": session.cancel}
    try:
        for line in commands:
            command = line.strip()
            detached = detached or command == b"detach"
            if command in actions:
                anyio.from_thread.run_sync(actions[command], token=token)
        if not detached:
            anyio.from_thread.run_sync(session.park, token=token)
    except RuntimeError:
        return  # the event loop has ended: there is nothing left to stop


def _capture_output(outbox: _Outbox) -> None:
    """Turn what the code of steps prints into messages, and give it nothing to read.

    The process owns both ends of the pipe: with nobody at the terminal, printing still works.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    reading, writing = os.pipe()
    for number in (1, 2):
        os.dup2(writing, number)
    os.close(writing)
    # New ones, because what reads the pipe reads UTF-8, whatever the person's locale is, and line by line.
    sys.stdout, sys.stderr = _utf8_lines(1), _utf8_lines(2)
    threading.Thread(target=_pass_on, args=(os.fdopen(reading, "rb"), outbox), daemon=True).start()


def _utf8_lines(number: int) -> TextIO:
    return os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _pass_on(printed: IO[bytes], outbox: _Outbox) -> None:
    for line in printed:
        outbox.tell(Printed(line.decode(errors="replace")))


if __name__ == "__main__":
    main()
