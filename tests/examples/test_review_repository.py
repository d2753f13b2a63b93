"""The review finds what is wrong in a real repository, stays inside it, and survives a kill without asking twice."""

from __future__ import annotations

import sys
from pathlib import Path
from signal import SIGKILL

import anyio
import pytest

from examples import demo, review_repository
from examples.review_repository import inside, lint, read, review
from fairlead import Runtime, ToolContext, run
from fairlead.runtime.engines.embedded import EmbeddedEngine
from fairlead.runtime.engines.embedded.server import running_server
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.store.journal import Journal
from fairlead.runtime.store.opening import open_journal
from fairlead.runtime.store.records import History
from tests.examples.conftest import REVIEWED

ANSWERED_BEFORE_THE_KILL = 11
"""Requests the engine answers before it stalls: five reviews of at least three turns each are then under way."""
WORKER = """
import sys
import anyio
from examples import review_repository
from fairlead import Runtime

async def main(db, engine, folder, report):
    review_repository.HISTORY_DELAY_S = 0.01
    async with Runtime(db=db, engine=engine, model="fairlead-embedded") as runtime:
        arguments = {"repository": folder, "report": report}
        await runtime.outcome(runtime.start(review_repository.review, arguments, program_id="review-1"))

anyio.run(main, *sys.argv[1:])
"""

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_repository, "HISTORY_DELAY_S", 0.01)


def test_the_report_has_the_real_findings(repository: Path, tmp_path: Path) -> None:
    summary = run(review, str(repository), str(tmp_path / "out" / "review.md"))
    assert summary.files == len(REVIEWED)
    report = Path(summary.report).read_text()
    assert "- line 1: `os` imported but unused (F401)" in report
    assert "- line 4: Do not use mutable data structures for argument defaults (B006)" in report
    assert "- line 4: Do not use bare `except` (E722)" in report
    assert report.count("1 commits by 1, last ") == len(REVIEWED)
    assert "hidden.py" not in report
    assert "open sesame" not in report


def test_a_file_limit_takes_the_largest(repository: Path, tmp_path: Path) -> None:
    summary = run(review, str(repository), str(tmp_path / "review.md"), 2)
    assert summary.files == 2
    report = Path(summary.report).read_text()
    assert "## shop/orders.py" in report
    assert "## shop/__init__.py" not in report


def of(repository: Path) -> ToolContext:
    """What a tool sees when it is called by the review of this repository."""
    return ToolContext("prg_1", "review_file", {"repository": str(repository)}, "key")


@pytest.mark.parametrize("path", ["../secret.py", "link.txt", "/etc/hostname", "shop/../../secret.py"])
def test_tools_do_not_leave_the_repository(repository: Path, path: str) -> None:
    with pytest.raises(ValueError, match="outside of the repository"):
        read.function(path, 1, of(repository))


def test_tools_read_inside_the_repository(repository: Path) -> None:
    assert inside("shop/prices.py", of(repository)) == (repository / "shop/prices.py").resolve()
    assert (
        read.function("shop/prices.py", 4, of(repository))
        == "   4 def price(item: str) -> float:\n   5     return {'tea': 2.5}[item]"
    )


def test_without_ruff_it_looks_itself(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_repository, "find_spec", lambda name: None)
    assert [finding.rule for finding in lint.function("shop/post.py", of(repository))] == ["bare-except"]
    assert [finding.rule for finding in lint.function("shop/orders.py", of(repository))] == ["mutable-default"]
    (repository / "broken.py").write_text("def broken(:\n")
    assert [finding.rule for finding in lint.function("broken.py", of(repository))] == ["syntax"]


async def test_after_a_kill_nothing_recorded_is_asked_again(repository: Path, tmp_path: Path) -> None:
    database, report = f"sqlite:///{tmp_path / 'runs.db'}", tmp_path / "review.md"
    engine = EmbeddedEngine(requests=True, script=(gate := Gate(ANSWERED_BEFORE_THE_KILL)).pass_through)
    journal = await open_journal(database)
    try:
        async with running_server(engine) as url:
            worker = await anyio.open_process(
                [sys.executable, "-c", WORKER, database, url, str(repository), str(report)], cwd=demo.ROOT, stderr=None
            )
            await quiet(journal, gate)
            worker.kill()
            assert await worker.wait() == -SIGKILL
            before = await demo.only_program(journal)
            assert before.calls, "the kill came too early to show anything"
            assert not report.exists()

            gate.open()
            async with Runtime(db=database, engine=url, model="fairlead-embedded") as runtime:
                program = await runtime.resume("review-1", workflow=review)
                summary = await runtime.outcome(program)
                assert program.counts.calls_replayed > 0

        after = await demo.only_program(journal)
        assert engine.requests is not None
        counts = engine.requests.counts
        assert {counts[await demo.request_of(journal, call)] for call in before.calls} == {1}
        assert demo.kept(before, after)
        assert not demo.kept(after, before)
        assert summary.files == demo.done(after) == len(REVIEWED)
        assert "(F401)" in report.read_text()
    finally:
        await journal.close()


class Gate:
    """An engine's script that answers so many requests and then keeps the others waiting."""

    def __init__(self, answered_max: int) -> None:
        self._left = answered_max
        self._opened = anyio.Event()
        self.stalled = 0

    async def pass_through(self, request: EngineRequest) -> None:
        """Leaves the words to the engine."""
        self._left -= 1
        if self._left < 0:
            self.stalled += 1
            await self._opened.wait()

    def open(self) -> None:
        self._opened.set()


async def quiet(journal: Journal, gate: Gate) -> History:
    """Wait until the engine stalls and a review waits for it with a part of its work recorded."""
    with anyio.fail_after(30):
        while True:
            programs = await journal.programs()
            history = await journal.history(programs[0].id) if programs else None
            if history is not None and gate.stalled and len(history.calls) == ANSWERED_BEFORE_THE_KILL:
                return history
            await anyio.sleep(0.01)
