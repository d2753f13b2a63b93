"""Identifiers: sortable by time of creation, unique, and recognisable by their prefix."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path

from ..encoding import digest

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_program_id(now: float) -> str:
    """`prg_` and 26 characters: a UUIDv7 (RFC 9562: 48 bits of milliseconds, then randomness) in Crockford's base 32.

    `now` is in seconds since the epoch.
    """
    random = int.from_bytes(os.urandom(10), "big")
    value = (int(now * 1000) << 80) | random
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return "prg_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def child_program_id(parent_id: str, node: str) -> str:
    """The id of the child program at a node: always the same, so that a resumed parent finds it."""
    return f"{parent_id}.{digest(node.encode())[:16]}"


@cache
def process_owner() -> str:
    """This process as owner of programs: `host:pid:start`, where start tells a reused pid from the first use."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid()) or 0}"


def owner_is_dead(owner: str) -> bool:
    """Whether the owner is a process of this host that has certainly ended; False where that cannot be known."""
    host, _, rest = owner.rpartition(":")
    host, _, pid = host.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    started = _started(int(pid))
    return started is not None and rest != "0" and started != rest


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's own unit; None where the system does not say. A zombie counts as ended."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] == "Z" else fields[19]
