"""What is paid before a program runs: import time, the command line's first answer, installed distributions.

What cannot be measured raises `ArmError`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.overhead.arms import ROOT, Arm, ArmError, python_of

_INSTALLERS = frozenset({"pip", "setuptools", "wheel"})


def import_seconds(arm: Arm) -> float:
    """Seconds the first import takes in a new process with warm files; the interpreter's own start is not in it.

    All names the first program needs are imported: a package that loads its parts when they are used gains nothing.
    """
    code = f"import time; start = time.perf_counter(); {arm.imports}; print(time.perf_counter() - start)"
    return float(_output([str(python_of(arm)), "-c", code]))


def help_seconds() -> float:
    """Seconds from the start of `fairlead --help` to its end, the interpreter's start included."""
    command = [str(Path(sys.executable).parent / "fairlead"), "--help"]
    start = time.perf_counter()
    _output(command)
    return time.perf_counter() - start


def installed_distributions(arm: Arm) -> int:
    """Distributions in a peer's environment, without the installers that a new environment brings."""
    code = "from importlib import metadata; print(*{d.metadata['Name'].lower() for d in metadata.distributions()})"
    return len(set(_output([str(python_of(arm)), "-c", code]).split()) - _INSTALLERS)


def core_distributions(name: str = "fairlead") -> int:
    """Distributions that `pip install NAME` brings on this platform, itself included, read from what is installed here."""
    seen: set[tuple[str, str]] = set()
    _visit(Requirement(name), seen)
    return len({distribution for distribution, _extra in seen})


def _visit(requirement: Requirement, seen: set[tuple[str, str]]) -> None:
    name = canonicalize_name(requirement.name)
    for extra in {"", *requirement.extras}:
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                _visit(needed, seen)


def _output(command: Sequence[str]) -> str:
    # Started outside the tree, so that nothing is imported from the working directory by accident.
    result = subprocess.run(command, cwd=ROOT.parent, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise ArmError(f"{' '.join(command)}: {result.stderr.strip()[-400:]}")
    return result.stdout
