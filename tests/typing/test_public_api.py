"""The types of the public API: `public_api.py` type-checks, and every mistake in it is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_public_api_keeps_the_types_of_what_it_decorates(tmp_path: Path) -> None:
    """An error that mypy no longer finds makes its `type: ignore` unused, which is an error in strict mode."""
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", str(HERE / "public_api.py")],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_mistake_is_marked_with_the_error_it_is() -> None:
    lines = (HERE / "public_api.py").read_text().splitlines()
    start = lines.index("def mistakes() -> None:")
    end = next(number for number in range(start + 1, len(lines)) if lines[number] and not lines[number].startswith(" "))
    mistakes = [line for line in lines[start + 1 : end] if line]
    assert len(mistakes) > 20
    assert all("# type: ignore[" in line for line in mistakes)
