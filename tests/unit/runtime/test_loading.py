"""Finding workflows by name, and saying what is wrong when there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead import workflow
from fairlead.errors import DeclarationError, NotFoundError
from fairlead.runtime.loading import entry_of, load_workflow

SOURCE = """
from fairlead import workflow

@workflow
async def review(n: int) -> int:
    return n

@workflow
async def other(n: int) -> int:
    return n

answer = 42
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules, which are forgotten afterwards."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("fairlead.runtime.loading._from_files", set())
    (tmp_path / "loaded_flows.py").write_text(SOURCE)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_workflow_in_a_file(folder: Path) -> None:
    found = load_workflow(f"{folder}/loaded_flows.py:review")
    assert found.name == "review"
    assert entry_of(found) == f"{folder}/loaded_flows.py:review"
    assert load_workflow(entry_of(found)) is found


def test_a_workflow_in_a_module_of_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = load_workflow("loaded_flows:review")
    assert found.name == "review"
    assert entry_of(found) == "loaded_flows:review"


def test_a_workflow_in_a_module_of_a_folder_that_is_named(folder: Path) -> None:
    assert load_workflow("loaded_flows:other", str(folder)).name == "other"


def test_a_file_may_import_its_neighbours(folder: Path) -> None:
    (folder / "loaded_neighbour.py").write_text("from loaded_flows import review\n")
    assert load_workflow(f"{folder}/loaded_neighbour.py:review").name == "review"


def test_two_files_of_one_name_do_not_take_each_others_place(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "loaded_flows.py").write_text(
        SOURCE.replace("answer = 42", "@workflow\nasync def third(n: int) -> int:\n    return n")
    )
    first = load_workflow(f"{folder}/loaded_flows.py:review")
    assert load_workflow(f"{folder}/sub/loaded_flows.py:third").name == "third"
    assert load_workflow(f"{folder}/loaded_flows.py:review") is first


def test_a_workflow_that_no_module_holds_has_no_entry() -> None:
    @workflow
    async def local(n: int) -> int:
        return n

    assert entry_of(local) == ""


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("review", "MODULE:WORKFLOW or FILE.py:WORKFLOW"),
        (":review", "MODULE:WORKFLOW"),
        ("loaded_flows:", "MODULE:WORKFLOW"),
        ("no_such_module_here:review", "there is no module 'no_such_module_here'"),
        ("no_such.package.here:review", "there is no module 'no_such'"),
        ("{folder}/missing.py:review", "there is no file"),
        ("{folder}/loaded_flows.py:missing", r"'missing' in .* does not exist\n.*other, review"),
        ("{folder}/loaded_flows.py:answer", r"'answer' in .* is not a workflow\n.*other, review"),
        ("{folder}/loaded_empty.py:review", r"does not exist\n.*decorate a function"),
        ("{folder}/loaded_broken.py:review", "cannot be loaded: SyntaxError"),
        ("{folder}/loaded_failing.py:review", r"cannot be loaded: ZeroDivisionError.*loaded_failing.py:1\)"),
        ("loaded_decoding:review", r"cannot be loaded: JSONDecodeError.*loaded_decoding.py:2\)"),
        ("loaded_ending:review", "cannot be loaded: SystemExit: 4"),
        ("{folder}/loaded_needing.py:review", "no_such_dependency"),
        ("loaded_needing:review", "needs 'no_such_dependency', which is not installed"),
    ],
)
def test_what_cannot_be_found_is_an_error_that_says_which_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str, said: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "loaded_empty.py").write_text("")
    (folder / "loaded_broken.py").write_text("def (")
    (folder / "loaded_failing.py").write_text("1 / 0")
    (folder / "loaded_decoding.py").write_text("import json\njson.loads('{')")
    (folder / "loaded_ending.py").write_text("raise SystemExit(4)")
    (folder / "loaded_needing.py").write_text("import no_such_dependency")
    with pytest.raises(NotFoundError, match=said):
        load_workflow(entry.format(folder=folder))


def test_a_wrong_declaration_in_a_module_is_its_own_error(folder: Path) -> None:
    (folder / "loaded_wrong.py").write_text("from fairlead import step\nstep(len)\n")
    with pytest.raises(DeclarationError, match="plain function"):
        load_workflow(f"{folder}/loaded_wrong.py:review")


def test_a_file_that_failed_to_load_is_loaded_again_once_it_is_put_right(folder: Path) -> None:
    path = folder / "loaded_later.py"
    path.write_text("1 / 0")
    with pytest.raises(NotFoundError):
        load_workflow(f"{path}:review")
    path.write_text(SOURCE)
    assert load_workflow(f"{path}:review").name == "review"
