"""Builds the distributions once for all tests of this folder, without a network, in a copy of the tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("budgets", "graphs", "memory", "runtime", "tools")
BUILD_FILES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore")


def copy_tree(target: Path) -> Path:
    """What a build reads, links kept as links."""
    target.mkdir(parents=True)
    for name in BUILD_FILES:
        shutil.copy2(ROOT / name, target / name)
    for folder in ("src", *ROOMS):
        shutil.copytree(ROOT / folder, target / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def build(kind: str, tree: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build a `wheel` or `sdist` of the tree into `out`, without build isolation."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(out)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree that nothing changes."""
    return copy_tree(tmp_path_factory.mktemp("packaging") / "tree")


@pytest.fixture(scope="session")
def wheel(tree: Path) -> Path:
    """The wheel of the tree."""
    return _only(tree, "wheel", "*.whl")


@pytest.fixture(scope="session")
def sdist(tree: Path) -> Path:
    """The source distribution of the tree."""
    return _only(tree, "sdist", "*.tar.gz")


def _only(tree: Path, kind: str, pattern: str) -> Path:
    out = tree.parent / kind
    result = build(kind, tree, out)
    assert result.returncode == 0, result.stderr
    [path] = out.glob(pattern)
    return path
