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
KILLS_EACH = 3
PROGRAM_S_MAX = 60
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120 + 12 * CRASHES)

processes = multiprocessing.get_context("forkserver")
"""Forks from a server that has imported everything: a process costs milliseconds, and is a real one."""
processes.set_forkserver_preload(
    ["pytest", "tests.support.victim", "fairlead.runtime.store.sql", "fairlead.runtime.engines.http"]
)


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
    def replayed(self) -> int:
        """How often a call was answered from the journal, in all runs of the program."""
        return sum(event.kind == "call.replayed" for events in self.events.values() for event in events)

    @property
    def done(self) -> set[str]:
        """Lines that the file of side effects must not get again."""
        steps = {
            f"step {s.program_id} {s.node}" for known in self.programs.values() for s in known.steps if s.state == "succeeded"
        }
        ended = ("succeeded", "failed")
        tools = {f"tool {t.idempotency_key}" for known in self.programs.values() for t in known.tool_calls if t.state in ended}
        return steps | tools

    def moment(self) -> str:
        """What the kill hit, coarsely."""
        if not self.programs:
            return "before anything was durable"
        kinds = [event.kind for events in self.events.values() for event in events]
        began = Counter(kind.partition(".")[0] for kind in kinds if kind.endswith(".started"))
        ended = Counter(kind.partition(".")[0] for kind in kinds if kind.endswith((".succeeded", ".failed")))
        hit = [what for what in ("call", "tool") if began[what] > ended[what]]
        return " and ".join(f"{what}s in flight" for what in hit) or "between calls"

    def check_whole(self) -> None:
        """Every event has its number, and nothing is left open."""
        for program_id, known in self.programs.items():
            assert [event.seq for event in self.events[program_id]] == list(range(1, known.last_seq + 1))
            assert known.program.state == "succeeded" and known.program.owner is None, known.program
            assert {step.state for step in known.steps} == {"succeeded"}


@dataclass
class Figures:
    """What the proof saw."""

    kills: int = 0
    programs: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    calls_recorded_at_kills: int = 0
    """Calls that were recorded when a kill came, added up: none of them may be sent again."""
    calls_replayed: int = 0
    requests: int = 0
    repeated_unrecorded: int = 0
    """Requests sent again because the kill came before their answer was recorded."""


@dataclass(frozen=True)
class Kill:
    """One kill: what the database knew then, and how long the logs were."""

    program_id: str
    known: Snapshot
    requests: int
    effects: int


@dataclass
class Proof:
    """The kills of one database."""

    db: str
    server: Server
    effects: Path
    random: random.Random
    kills: list[Kill] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def undisturbed(self) -> tuple[str | None, float]:
        """The result of a run that nobody disturbs, and how long one takes when everything is warm."""
        assert self.run("prg_cold", kill_after_s=None)
        begun = time.perf_counter()
        assert self.run("prg_undisturbed", kill_after_s=None)
        taken_s = time.perf_counter() - begun
        return self.snapshot("prg_undisturbed").programs["prg_undisturbed"].program.result, taken_s

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
        """Run a program to its end, with up to `KILLS_EACH` kills."""
        for _ in range(min(KILLS_EACH, CRASHES - self.figures.kills)):
            if self.run(program_id, self.random.uniform(0, span_s)):
                return self.snapshot(program_id)
            self._note_kill(program_id)
        assert self.run(program_id, None)
        return self.snapshot(program_id)

    def _note_kill(self, program_id: str) -> None:
        """Keep what was known at a kill, and how much had been sent and done until then."""
        known = self.snapshot(program_id)
        self.kills.append(Kill(program_id, known, len(self.server.requests), len(self.done)))
        self.figures.kills += 1
        self.figures.moments[known.moment()] += 1
        self.figures.calls_recorded_at_kills += len(known.calls)

    def check_nothing_repeated(self) -> None:
        """Nothing that was recorded at a kill was sent or done again after it."""
        requests, effects = self.server.requests, self.done
        for kill in self.kills:
            assert not kill.known.calls & set(requests[kill.requests :]), f"{kill.program_id}: recorded calls were sent again"
            assert not kill.known.done & set(effects[kill.effects :]), f"{kill.program_id}: finished work was done again"


def test_a_killed_program_goes_on_and_repeats_nothing_that_was_recorded(db: str, server: Server, tmp_path: Path) -> None:
    proof = Proof(db, server, tmp_path / "effects", random.Random(SEED))
    expected, taken_s = proof.undisturbed()
    assert expected is not None
    before = len(server.requests)
    while proof.figures.kills < CRASHES:
        program_id = f"prg_{proof.figures.programs}"
        proof.figures.programs += 1
        end = proof.crash(program_id, taken_s)
        assert end.programs[program_id].program.result == expected
        end.check_whole()
        proof.figures.calls_replayed += end.replayed
    proof.check_nothing_repeated()
    sent = Counter(server.requests[before:])
    proof.figures.requests = sum(sent.values())
    proof.figures.repeated_unrecorded = sum(count - 1 for count in sent.values())
    report(db, proof.figures)


def report(db: str, figures: Figures) -> None:
    """Append the figures to the file that `FAIRLEAD_CRASH_REPORT` names, if any."""
    file = os.environ.get("FAIRLEAD_CRASH_REPORT")
    if file:
        facts = {"database": db.partition(":")[0], **vars(figures)}
        with Path(file).open("a") as lines:
            lines.write(json.dumps(facts) + "\n")
