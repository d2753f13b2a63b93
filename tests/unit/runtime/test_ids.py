"""Identifiers: sortable, unique, recognisable; and whether the owner of a program still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.runtime.ids import child_program_id, new_program_id, owner_is_dead, process_owner

SECONDS = st.floats(0, 4e9)


@given(SECONDS)
def test_an_id_is_recognisable_and_of_one_length(now: float) -> None:
    made = new_program_id(now)
    assert made.startswith("prg_")
    assert len(made) == 30
    assert set(made[4:]) <= set("0123456789abcdefghjkmnpqrstvwxyz")


@given(SECONDS, SECONDS)
def test_ids_sort_by_the_millisecond_in_which_they_were_made(one: float, other: float) -> None:
    if int(one * 1000) < int(other * 1000):
        assert new_program_id(one) < new_program_id(other)


def test_ids_of_one_moment_differ() -> None:
    assert len({new_program_id(1.0) for _ in range(10_000)}) == 10_000


def test_an_id_is_a_uuid_of_version_7() -> None:
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    value = 0
    for letter in new_program_id(1234.567)[4:]:
        value = value * 32 + alphabet.index(letter)
    assert value >> 80 == 1_234_567
    assert value >> 76 & 0xF == 7
    assert value >> 62 & 0x3 == 2


def test_the_child_at_a_node_has_always_the_same_id() -> None:
    made = child_program_id("prg_x", "inner#2")
    assert made == child_program_id("prg_x", "inner#2")
    assert made.startswith("prg_x.")
    assert len({child_program_id(parent, node) for parent in ("a", "b") for node in ("x", "y")}) == 4


def test_this_process_lives() -> None:
    assert not owner_is_dead(process_owner())


def test_a_process_that_has_ended_is_dead() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert owner_is_dead(f"{socket.gethostname()}:{ended.pid}:123")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="start times are read from /proc")
def test_a_process_that_took_over_the_number_of_another_does_not_pass_for_it() -> None:
    host, pid, started = process_owner().rsplit(":", 2)
    assert owner_is_dead(f"{host}:{pid}:{int(started) - 1}")


@pytest.mark.parametrize(
    "owner",
    [
        f"elsewhere.invalid:{os.getpid()}:1",  # another host: cannot be known
        "",
        "nonsense",
        f"{socket.gethostname()}:pid:1",
        f"{socket.gethostname()}:1:0",  # lives, start unknown
    ],
)
def test_what_cannot_be_known_is_not_dead(owner: str) -> None:
    assert not owner_is_dead(owner)
