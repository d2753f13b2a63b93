"""Kills a real process with SIGKILL at random moments, resumes its program until it is done, and looks for repetitions.

By default a few kills for each database, at moments chosen by a fixed seed. `FAIRLEAD_CRASHES=50` makes it 50 for each, and
`FAIRLEAD_CRASH_SEED` chooses other moments. `FAIRLEAD_CRASH_REPORT=FILE` appends the figures to a file, as JSON lines.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from fairlead.runtime.store.opening import open_journal
from fairlead.runtime.store.records import EventRecord, History
from tests.support.victim import Order, carry_out

CRASHES = int(os.environ.get("FAIRLEAD_CRASHES", "6"))
SEED = int(os.environ.get("FAIRLEAD_CRASH_SEED", "7"))
PROGRAM_S_MAX = 60
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120 + 12 * CRASHES)

processes = multiprocessing.get_context("forkserver")
"""Forks from a server that has imported everything: a process costs milliseconds, and is a real one."""
processes.set_forkserver_preload(["pytest", "tests.support.victim", "fairlead.runtime.store.sql", "fairlead.runtime.engines.http"])


@dataclass(frozen=True)
class Server:
    """The engine's process, and its log."""

    url: str
    log: Path

    @property
    def requests(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("engine") / "requests"
    command = [sys.executable, "-m", "tests.support.crash_engine", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield Server(process.stdout.readline().strip(), log)
        process.terminate()


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/crash.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@dataclass(frozen=True)
class Snapshot:
    """What the database says of a program and its children."""

    programs: dict[str, History]
    events: dict[str, list[EventRecord]]

    @classmethod
    async def of(cls, db: str, program_id: str) -> Snapshot:
        journal = await open_journal(db)
        programs: dict[str, History] = {}
        events: dict[str, list[EventRecord]] = {}
        todo = [program_id]
        while todo:
            known = await journal.history(identifier := todo.pop())
            if known is not None:
                programs[identifier] = known
                events[identifier] = await journal.events(identifier, limit=100_000)
                todo += [child.id for child in await journal.programs(parent_id=identifier)]
        await journal.close()
        return cls(programs, events)

    @property
    def calls(self) -> set[str]:
        """Digests of the calls that have an answer."""
        return {call.request_digest for known in self.programs.values() for call in known.calls if call.state == "succeeded"}

    @property
    def done(self) -> set[str]:
        """Lines that the file of side effects must not get again."""
        steps = {f"step {s.program_id} {s.node}" for known in self.programs.values() for s in known.steps if s.state == "succeeded"}
        ended = ("succeeded", "failed")
        tools = {f"tool {t.idempotency_key}" for known in self.programs.values() for t in known.tool_calls if t.state in ended}
        return steps | tools

    def moment(self) -> str:
        """What was going on, coarsely: what the kill hit."""
        if not self.programs:
            return "before anything was durable"
        open_now = Counter(
            "tools" if e.kind.startswith("tool.") else "calls"
            for events in self.events.values()
            for e in events
            if e.kind.partition(".")[0] in ("tool", "call")
            for _ in range(abs(_opens(e)))
            if _opens(e)
        )
        began: Counter[str] = Counter()
        for events in self.events.values():
            for event in events:
                began[event.kind.partition(".")[0]] += _opens(event)
        if began["tool"] > 0:
            return "tools in flight" + (" beside model calls" if began["call"] > 0 else "")
        if began["call"] > 0:
            return "model calls in flight"
        return "between calls" if open_now else "before the first call"

    def check_whole(self) -> None:
        """Every event has its number, and nothing is left open."""
        for program_id, known in self.programs.items():
            assert [event.seq for event in self.events[program_id]] == list(range(1, known.last_seq + 1))
            assert known.program.state == "succeeded" and known.program.owner is None, known.program
            assert {step.state for step in known.steps} == {"succeeded"}


def _opens(event: EventRecord) -> int:
    kind, _, what = event.kind.partition(".")
    if kind not in ("tool", "call") or what in ("replayed", "retrying"):
        return 0
    return 1 if what == "started" else -1


@dataclass
class Figures:
    """What the proof saw."""

    kills: int = 0
    programs: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    recorded_at_kills: int = 0
    """Calls that were recorded when a kill came, added up: all of them were replayed and none was sent again."""
    requests: int = 0
    repeated_unrecorded: int = 0
    """Requests sent again because the kill came before their answer was recorded."""


@dataclass
class Proof:
    db: str
    server: Server
    effects: Path
    random: random.Random
    figures: Figures = field(default_factory=Figures)

    def undisturbed(self) -> tuple[str | None, float]:
        """The result of a run that nobody disturbs, and how long it takes."""
        begun = time.perf_counter()
        assert self.run("prg_undisturbed", kill_after_s=None)
        taken = time.perf_counter() - begun
        return self.snapshot("prg_undisturbed").programs["prg_undisturbed"].program.result, taken

    def run(self, program_id: str, kill_after_s: float | None) -> bool:
        """Run or resume the program in a process; kill it in time. Gives whether the process came to its end."""
        order = Order(self.db, self.server.url, str(self.effects), program_id)
        process = processes.Process(target=carry_out, args=(order,))
        process.start()
        process.join(kill_after_s if kill_after_s is not None else PROGRAM_S_MAX)
        if process.is_alive():
            assert kill_after_s is not None, "the program hangs"
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            return False
        assert process.exitcode == 0, "the program failed"
        return True

    def snapshot(self, program_id: str) -> Snapshot:
        return anyio.run(Snapshot.of, self.db, program_id)

    @property
    def done(self) -> list[str]:
        return self.effects.read_text().splitlines() if self.effects.exists() else []

    def crash(self, program_id: str, span_s: float) -> Snapshot:
        """Run a program with kills until it is done."""
        ended = False
        while not ended:
            few = self.figures.kills >= CRASHES
            ended = self.run(program_id, kill_after_s=None if few else self.random.uniform(0, span_s))
            if not ended:
                self.figures.kills += 1
                ended = self.killed(program_id)
            span_s *= 0.8  # what is left takes less time
        return self.snapshot(program_id)

    def killed(self, program_id: str) -> bool:
        """After a kill: note what is known, and go on once, undisturbed or not, watching for repetitions."""
        before = self.snapshot(program_id)
        requests, effects = len(self.server.requests), len(self.done)
        self.figures.moments[before.moment()] += 1
        self.figures.recorded_at_kills += len(before.calls)
        self.watches.append((program_id, before, requests, effects))
        return False

    watches: list[tuple[str, Snapshot, int, int]] = field(default_factory=list)

    def check_nothing_repeated(self) -> None:
        """Nothing that was recorded at a kill was sent or done again after it."""
        requests, effects = self.server.requests, self.done
        for program_id, before, sent, done in self.watches:
            assert not before.calls & set(requests[sent:]), f"{program_id}: recorded calls were sent again"
            assert not before.done & set(effects[done:]), f"{program_id}: finished work was done again"


def test_a_killed_program_goes_on_and_repeats_nothing_that_was_recorded(db: str, server: Server, tmp_path: Path) -> None:
    proof = Proof(db, server, tmp_path / "effects", random.Random(SEED))
    expected, taken_s = proof.undisturbed()
    assert expected is not None
    before = len(server.requests)
    while proof.figures.kills < CRASHES:
        program_id = f"prg_{proof.figures.programs}"
        proof.figures.programs += 1
        end = proof.crash(program_id, taken_s)
        assert end.programs[program_id].program.result == expected.replace("prg_undisturbed", program_id)
        end.check_whole()
    proof.check_nothing_repeated()
    sent = Counter(server.requests[before:])
    proof.figures.requests = sum(sent.values())
    proof.figures.repeated_unrecorded = sum(count - 1 for count in sent.values())
    report(db, proof.figures)


def report(db: str, figures: Figures) -> None:
    """Append the figures to the file that `FAIRLEAD_CRASH_REPORT` names, if any."""
    file = os.environ.get("FAIRLEAD_CRASH_REPORT")
    if file:
        facts = {"database": db.partition(":")[0], **{name: value for name, value in vars(figures).items()}}
        with Path(file).open("a") as lines:
            lines.write(json.dumps(facts) + "\n")
