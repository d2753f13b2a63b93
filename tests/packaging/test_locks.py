"""The locks pin everything, with hashes, agree with each other, and name no place to download from."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import ROOT

LOCKS = ("core", "dev")


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.lock").read_text()


def pins(lock: str) -> dict[str, Requirement]:
    entries = text_of(lock).replace("\\\n", " ").splitlines()
    requirements = [
        Requirement(entry.split(" --hash=")[0]) for entry in entries if entry and not entry.lstrip().startswith("#")
    ]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_is_an_exact_version_with_hashes(lock: str) -> None:
    entries = [entry for entry in text_of(lock).replace("\\\n", " ").splitlines() if entry and not entry.startswith("#")]
    assert entries
    assert [entry for entry in entries if not re.match(r"^\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_download_address_is_recorded(lock: str) -> None:
    assert not re.search(r"https?:|file:|--(extra-)?index|--find-links|@ ", text_of(lock))


def test_the_core_lock_is_a_part_of_the_development_lock() -> None:
    core, dev = pins("core"), pins("dev")
    assert {name: pin for name, pin in core.items() if dev.get(name) != pin} == {}


def test_the_locks_satisfy_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *project["project"]["dependencies"],
        *(entry for extra in project["project"]["optional-dependencies"].values() for entry in extra),
        *project["dependency-groups"]["dev"],
    ]
    pinned = pins("dev")
    for requirement in map(Requirement, asked):
        [specifier] = pinned[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(specifier.version), requirement
