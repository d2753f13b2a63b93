"""Standard streams that are closed, full or of another encoding; real processes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Shell

pytestmark = pytest.mark.skipif(not hasattr(os, "setsid"), reason="needs POSIX sessions")

WAYS = pytest.mark.parametrize("way", [[], ["--foreground"]], ids=["behind a viewer", "in the foreground"])


def redirected(folder: Path, redirection: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does with a redirection behind it."""
    command = shlex.join([sys.executable, "-m", "fairlead.runtime.cli", *args])
    return subprocess.run(
        ["sh", "-c", f"{command} {redirection}"],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip


@WAYS
@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_program_runs_with_closed_streams(shell: Shell, way: list[str], redirection: str) -> None:
    done = redirected(shell.folder, redirection, "run", "flows.py:greet", "--input", '{"name": "Ada"}', *way)
    assert done.returncode == 0, done.stderr
    assert shell.program()["state"] == "succeeded"


@WAYS
def test_results_and_prints_survive_a_locale_that_cannot_show_them(shell: Shell, way: list[str]) -> None:
    (shell.folder / "words.py").write_text(
        "from fairlead import workflow\n\n\n@workflow\nasync def w() -> str:\n    print('naïve')\n    return '✓'\n",
        encoding="utf-8",
    )
    done = redirected(shell.folder, "", "run", "words.py:w", "--quiet", *way, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stdout) == (0, "\\u2713\n"), done.stderr
    assert "na\\xefve" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("args", [["run", "flows.py:totals"], ["runs", "list"]], ids=lambda args: args[0])
def test_a_full_disk_under_standard_output_is_said(shell: Shell, args: list[str]) -> None:
    shell.run("run", "flows.py:totals", "--quiet")
    done = redirected(shell.folder, ">/dev/full", *args)
    assert done.returncode == 1
    assert "error: standard output cannot be written: No space left on device" in done.stderr


def test_suggested_commands_name_the_database(shell: Shell) -> None:
    shell.run("run", "flows.py:totals", "--id", "one", "--db", "other.db")
    again = shell.run("resume", "one", "--db", "other.db")
    assert "`fairlead runs show one --db other.db` has its result" in again.err
    unknown = shell.run("resume", "two", "--db", "other.db")
    assert "`fairlead runs list --db other.db` shows what there is" in unknown.err
