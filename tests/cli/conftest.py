"""A folder with a small module of workflows, and ways to run the command in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairlead.runtime.cli.app import app

WORKFLOWS = """
from __future__ import annotations

import pathlib
import time

import anyio

from fairlead import Agent, Handle, step, tool, workflow


@step
async def double(n: int) -> int:
    return n * 2


@step
async def add(numbers: list[int]) -> int:
    return sum(numbers)


@workflow
def totals(n: int = 3) -> Handle[int]:
    return add(double.map(list(range(n))).value)


@workflow
async def greet(name: str) -> str:
    print("printed by the workflow")
    return f"hello {name}"


@step
async def broken(n: int) -> int:
    raise ValueError(f"no luck with {n}")


@workflow
def fails(n: int = 1) -> Handle[int]:
    return broken(double(n))


@step(timeout=0.05)
async def slow_step() -> int:
    await anyio.sleep(30)
    return 1


@workflow
def too_slow() -> Handle[int]:
    return slow_step()


@step
async def wait_for(path: str) -> str:
    while not pathlib.Path(path).exists():
        await anyio.sleep(0.01)
    return "waited"


@workflow
async def waits(path: str) -> str:
    first = double(1)
    await first
    return await wait_for(path)


@step(idempotency="unsafe")
async def pay(path: str) -> str:
    return await wait_for.function(path)


@workflow
async def pays(path: str) -> str:
    return await pay(path)


agent = Agent("You help.")


@step
async def ask(question: str) -> str:
    return (await agent.run(question)).output


@workflow
def asks(question: str = "why?") -> Handle[str]:
    return ask(question)


@step
def stuck_thread(path: str) -> int:
    while not pathlib.Path(path).exists():
        time.sleep(0.01)
    return 1


@workflow
def stuck(path: str) -> Handle[int]:
    return stuck_thread(path)
"""


@dataclass
class Shown:
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.out)
        return value


@dataclass
class Shell:
    """Runs the command in a folder of its own, in this process (`call`) or in others (`run`, `start`)."""

    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def call(self, *args: str, stdin: str | None = None) -> Shown:
        """Run a command in this process: quick, for what does not start programs."""
        result = CliRunner().invoke(app, args, input=stdin)
        return Shown(result.exit_code, result.stdout, result.stderr)

    def run(self, *args: str, stdin: str | None = None, **environment: str) -> Shown:
        """Run a command in a process of its own, to its end."""
        process = self.start(*args, **environment)
        out, err = process.communicate(stdin, timeout=60)
        return Shown(process.returncode, out, err)

    def start(self, *args: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "fairlead.runtime.cli", *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
            env={**os.environ, **environment},
        )  # fmt: skip
        self.processes.append(process)
        return process

    def start_waiting(self, *args: str, workflow: str = "waits", release: str = "release") -> subprocess.Popen[str]:
        """Start a program that waits until the file `release` exists, and return when it does wait."""
        process = self.start("run", f"flows.py:{workflow}", "--input", json.dumps({"path": release}), *args)
        assert process.stderr is not None
        wanted = {"waits": "wait_for started", "pays": "pay started", "stuck": "stuck_thread started"}[workflow]
        for line in process.stderr:
            if wanted in line:
                return process
        raise AssertionError("the program did not get to its waiting step")

    def program(self) -> dict[str, object]:
        """The newest program."""
        found = self.call("runs", "list", "--json").document["programs"]
        assert isinstance(found, list)
        newest: dict[str, object] = found[0]
        return newest


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    for name in ("FAIRLEAD_DB", "FAIRLEAD_ENGINE", "FAIRLEAD_MODEL", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(WORKFLOWS)
    made = Shell(tmp_path)
    yield made
    (tmp_path / "release").touch()
    for process in made.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
