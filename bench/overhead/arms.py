"""The arms of the bench: which there are, the environments of the peers, and the conversation with a running one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.overhead.serve import Sample

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".bench"
"""Peers' environments and working databases: inside the tree, so that all databases are on the tree's own disk."""

ANSWER_LIMIT_S = 300.0
"""Longer than any arm needs for one run of one shape; an arm that takes longer is stopped and reported."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A process that offers shapes. `imports` is the statement with which a program of its user would begin."""

    name: str
    module: str
    imports: str
    requirements: Path | None = None
    """The versions to install into an environment of its own; None runs it in ours."""


def _peer(name: str, imports: str) -> Arm:
    return Arm(name, f"bench.overhead.peers.{name}", imports, ROOT / "bench" / "overhead" / "peers" / f"{name}.txt")


FAIRLEAD = Arm("fairlead", "bench.overhead.fairlead_arm", "from fairlead import Agent, Runtime, step, tool, workflow")
FLOOR = Arm("floor", "bench.overhead.floors", "import asyncio, sqlite3")
PEERS = (
    _peer("langgraph", "import langgraph.graph, langgraph.checkpoint.sqlite.aio"),
    _peer("dbos", "import dbos"),
    _peer("pydantic_graph", "import pydantic_graph"),
    _peer("burr", "import burr.core"),
    _peer("llama_index", "import workflows"),
    _peer("pydantic_ai", "import pydantic_ai"),
)


class ArmError(Exception):
    """An arm could not be installed, did not start, or died."""


class RunningArm:
    """A started arm. `offers` maps each name it competes under to its shapes (a peer may compete in several settings)."""

    def __init__(self, arm: Arm, process: asyncio.subprocess.Process, offers: dict[str, list[str]]) -> None:
        self.arm = arm
        self.offers = offers
        self._process = process

    async def run(self, name: str, shape: str, size: int) -> Sample:
        """Run a shape once, in a folder of its own that is removed afterwards. Raises `ArmError`."""
        work = CACHE / "work"
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as place:
            await _send(self._process, {"arm": name, "shape": shape, "size": size, "place": place})
            answer = await _answer(self.arm, self._process)
        if "error" in answer:
            raise ArmError(f"{name}, {shape} of {size}: {answer['error']}")
        return Sample(answer["seconds"], answer["space"])


@asynccontextmanager
async def started(arm: Arm) -> AsyncIterator[RunningArm]:
    """The arm's process, started and stopped. Raises `ArmError` if it cannot start."""
    process = await asyncio.create_subprocess_exec(
        str(python_of(arm)),
        "-m",
        arm.module,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        hello = await _answer(arm, process)
        yield RunningArm(arm, process, hello["arms"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _send(process: asyncio.subprocess.Process, message: dict[str, object]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()


async def _answer(arm: Arm, process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), ANSWER_LIMIT_S)
    except TimeoutError:
        raise ArmError(f"{arm.name}: no answer within {ANSWER_LIMIT_S:g} s") from None
    if not line:
        raise ArmError(f"{arm.name}: died; `{python_of(arm)} -m {arm.module} </dev/null` in {ROOT} shows why")
    answer: dict[str, Any] = json.loads(line)
    return answer


def python_of(arm: Arm) -> Path:
    """The interpreter that runs the arm."""
    return CACHE / "env" / arm.name / "bin" / "python" if arm.requirements else Path(sys.executable)


def install(arm: Arm) -> None:
    """Make the arm's environment unless it is there for these versions. Raises `ArmError` if that fails."""
    if arm.requirements is None:
        return
    wanted = hashlib.sha256(arm.requirements.read_bytes() + sys.version.encode()).hexdigest()
    place = CACHE / "env" / arm.name
    stamp = place / "installed-for"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    venv.create(place, with_pip=True, clear=True)
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run([*command, "-r", str(arm.requirements)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ArmError(f"{arm.name}: its environment cannot be made: {result.stderr.strip()[-400:]}")
    stamp.write_text(wanted)
