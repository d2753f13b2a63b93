"""What holds when processes are killed, and when several use one database."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from fairlead.runtime.store import open_journal
from fairlead.runtime.store.records import EventRecord, ProgramRecord, StepRecord

pytestmark = pytest.mark.anyio

_WRITE = """
import sys, anyio
from fairlead.runtime.store import open_journal
from fairlead.runtime.store.records import EventRecord, StepRecord

async def main(url):
    journal = await open_journal(url)
    seq = 0
    while True:
        for _ in range(seq % 7 + 1):
            seq += 1
            node = f"node[{seq}]"
            step = StepRecord("p", node, "s", "step", None, "[]", "running", 1, -1, False, None, None, None, None, None)
            journal.append(step, EventRecord("p", seq, 0.0, "step.started", node, "{}"))
        await journal.flushed()
        print(seq, flush=True)

anyio.run(main, sys.argv[1])
"""

_CLAIM = """
import sys, anyio
from fairlead.runtime.store import open_journal

async def main(url, owner):
    journal = await open_journal(url)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(100):
        if await journal.claim(f"p{number}", owner, 10.0, 5.0):
            print(number)
    await journal.close()

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_confirmed_survives_a_kill_and_order_is_kept(url: str, seed: int) -> None:
    confirmed = await anyio.to_thread.run_sync(_write_and_kill, url, random.Random(seed).randrange(1, 60))
    journal = await open_journal(url)
    events = await journal.events("p", limit=10_000)
    history = [step.node for step in await _steps(url)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len(events) >= confirmed > 0
    # A step and its event were appended together: neither is there without the other.
    assert sorted(history) == sorted(event.node or "" for event in events)
    # The database takes up where it was.
    journal.append(EventRecord("p", len(events) + 1, 0.0, "program.resumed", None, "{}"))
    await journal.flushed()
    assert len(await journal.events("p", limit=10_000)) == len(events) + 1
    await journal.close()


def _write_and_kill(url: str, after_lines: int) -> int:
    with subprocess.Popen([sys.executable, "-c", _WRITE, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        confirmed = 0
        for _ in range(after_lines):
            confirmed = int(process.stdout.readline())
        process.kill()
        # What it said before it died was confirmed too.
        complete = process.stdout.read().split("\n")[:-1]
    return int(complete[-1]) if complete else confirmed


async def _steps(url: str) -> list[StepRecord]:
    journal = await open_journal(url)
    journal.append(_program("p"))
    history = await journal.history("p")
    await journal.close()
    assert history is not None
    return history.steps


async def test_two_processes_never_claim_the_same_program(url: str) -> None:
    journal = await open_journal(url)
    journal.append(*(_program(f"p{number}") for number in range(100)))
    await journal.close()
    one, two = await anyio.to_thread.run_sync(_claim_from_two_processes, url)
    assert len(one) + len(two) == 100
    assert one | two == set(range(100))


def _claim_from_two_processes(url: str) -> tuple[set[int], set[int]]:
    started = [
        subprocess.Popen([sys.executable, "-c", _CLAIM, url, owner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for owner in ("one", "two")
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    one, two = ({int(line) for line in process.communicate()[0].split()} for process in started)
    return one, two


def _program(program_id: str) -> ProgramRecord:
    return ProgramRecord(
        id=program_id,
        workflow="w",
        entry="m:w",
        version="1",
        tenant="default",
        parent_id=None,
        parent_node=None,
        root_id=program_id,
        state="running",
        waiting_for=None,
        input="{}",
        result=None,
        error=None,
        options="{}",
        created_at=0.0,
        started_at=None,
        ended_at=None,
        owner=None,
        owner_seen_at=None,
    )
