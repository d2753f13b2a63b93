"""The code in README and docs runs, the commands exist, and the links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks, commands, python_file

WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
COMMANDS = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_in_order(page: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "one.md").write_text("# One\n")
    script = tmp_path / f"{page.stem.replace('-', '_').lower()}.py"
    script.write_text(python_file(page))
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{page.name} (line numbers are those of the page):\n{done.stderr}"


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda value: value.name if isinstance(value, Path) else value[1])
def test_a_shown_command_exists_with_its_options(page: Path, command: list[str]) -> None:
    from typer.main import get_command

    from fairlead.runtime.cli.app import app

    found, rest = get_command(app), command[1:]
    while hasattr(found, "commands"):
        assert rest[0] in found.commands, f"{page.name}: there is no command {rest[0]!r}"
        found, rest = found.commands[rest[0]], rest[1:]
    with found.make_context("fairlead", rest, resilient_parsing=False):
        pass


def test_the_program_in_the_readme_is_the_quickstart() -> None:
    shown = [block.text for block in blocks(ROOT / "README.md") if block.language == "python"]
    assert shown == [(ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
        file = (page.parent / target) if target else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, (
                f"{page.name}: #{anchor}"
            )
