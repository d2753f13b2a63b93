"""The quickstart runs as a script and as a command, and says what the README says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tea.md").write_text("# Tea\n")
    (tmp_path / "docs" / "cake.md").write_text("# Cake\n")
    return tmp_path


def test_it_runs_as_a_script(folder: Path) -> None:
    done = subprocess.run([sys.executable, QUICKSTART], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("docs/cake.md: ")
    assert "\n\ndocs/tea.md: " in done.stdout
    assert "# Tea" in done.stdout


def test_it_runs_as_a_command(folder: Path) -> None:
    command = [sys.executable, "-m", "fairlead.runtime.cli", "run", f"{QUICKSTART}:quickstart"]
    command += ["--input", '{"folder": "docs"}', "--db", "memory:", "--foreground", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert "docs/tea.md: " in done.stdout
