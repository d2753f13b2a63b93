"""A checkout without links must not build: it would make a nearly empty wheel and report success."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOMS, ROOT, build, copy_tree


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_link_that_became_a_text_file_stops_the_build_and_is_named(tmp_path: Path, kind: str) -> None:
    tree = copy_tree(tmp_path / "tree")
    link = tree / "src" / "fairlead" / "tools"
    link.unlink()
    link.write_text("../../tools")  # what git writes where links are off

    result = build(kind, tree, tmp_path / "out")

    assert result.returncode != 0
    assert "src/fairlead/tools" in result.stderr
    assert "core.symlinks" in result.stderr
    assert not list((tmp_path / "out").glob("*.whl"))


def test_a_link_that_points_nowhere_stops_the_build(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    shutil.rmtree(tree / "graphs")

    result = build("wheel", tree, tmp_path / "out")

    assert result.returncode != 0
    assert "src/fairlead/graphs" in result.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_a_relative_link_to_its_folder_in_the_root(room: str) -> None:
    link = ROOT / "src" / "fairlead" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..", "..", room)
