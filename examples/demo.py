"""`make demo`: reviews this repository with agents, kills the process half-way, resumes it, and checks what that cost.

The engine is the embedded one at the pace of a small real one, served from this process: so it outlives the kill, as a real
engine would, and its log of requests shows whether any answer was asked for twice. Everything else is what a person would
type. Exits with 1 if one of its claims does not hold.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL
from time import perf_counter

import anyio
import anyio.abc

from fairlead.encoding import decode, digest, encode
from fairlead.runtime.engines.embedded import EmbeddedEngine
from fairlead.runtime.engines.embedded.server import running_server
from fairlead.runtime.store.journal import Journal
from fairlead.runtime.store.opening import open_journal
from fairlead.runtime.store.records import CallRecord, History

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = "examples/review_repository.py:review"
MODEL = "fairlead-embedded"
OUTPUT = "demo-output"
REPORT = f"{OUTPUT}/review.md"
DATABASE = f"{OUTPUT}/fairlead.db"
FILES = 24
KILL_AFTER = FILES // 2
"""Reviews that are finished when the process is killed."""
POLL_S = 0.1
PATIENCE_S = 80.0


async def demo() -> bool:
    """The whole demonstration; whether its claims hold."""
    started = perf_counter()
    make_place()
    engine = EmbeddedEngine(speed=1.0, requests=True)
    assert engine.requests is not None
    journal = await open_journal(str(ROOT / DATABASE))
    try:
        async with running_server(engine) as url:
            title(f"Agents review the {FILES} largest Python files here; the process is killed when {KILL_AFTER} are done")
            code = await review_until_killed(journal, url)
            if code != -SIGKILL:
                print(f"the review ended with exit code {code} before it could be killed", file=sys.stderr)
                return False
            before = await only_program(journal)

            title("Killed with SIGKILL. What the journal has")
            print(f"{done(before)} reviews, {len(before.calls)} model calls and {finished_tools(before)} tool results.")
            await command("runs", "list", "--db", DATABASE)

            title("Resumed")
            code = await command("resume", before.program.id, "--db", DATABASE, "--foreground")
            after = await only_program(journal)
            asked = [engine.requests.counts.get(await request_of(journal, call), 0) for call in before.calls]
            claims = {
                "the resumed program succeeded": code == 0 and after.program.state == "succeeded",
                "every file was reviewed, and the report is there": done(after) == FILES and (ROOT / REPORT).is_file(),
                "no recorded model call was sent to the engine again": set(asked) == {1},
                "no finished step or tool call ran again": kept(before, after),
            }
    finally:
        await journal.close()
    title("What it came to")
    print(summary(before, after, engine.requests.total, perf_counter() - started))
    for claim, holds in claims.items():
        print(f"  {'yes' if holds else 'NO '}  {claim}")
    return all(claims.values())


async def review_until_killed(journal: Journal, url: str) -> int | None:
    """Run the review, and kill its process with SIGKILL when enough files are reviewed; its exit code."""
    asked = json.dumps({"repository": ".", "files": FILES, "report": REPORT})
    process = await start(
        "run", WORKFLOW, "--input", asked, "--db", DATABASE, "--engine", url, "--model", MODEL, "--foreground"
    )
    with anyio.move_on_after(PATIENCE_S):
        while process.returncode is None:
            programs = await journal.programs(limit=1)
            history = await journal.history(programs[0].id) if programs else None
            if history is not None and done(history) >= KILL_AFTER:
                break
            await anyio.sleep(POLL_S)
    if process.returncode is None:
        process.kill()
    return await process.wait()


async def command(*arguments: str) -> int:
    """Run a `fairlead` command; its exit code."""
    process = await start(*arguments)
    with anyio.move_on_after(PATIENCE_S):
        return await process.wait()
    process.kill()
    return await process.wait()


async def start(*arguments: str) -> anyio.abc.Process:
    """Start a `fairlead` command in the repository, with its output on this terminal."""
    print(f"$ fairlead {shlex.join(arguments)}", flush=True)
    return await anyio.open_process(
        [sys.executable, "-m", "fairlead.runtime.cli", *arguments], cwd=ROOT, stdin=None, stdout=None, stderr=None
    )


async def only_program(journal: Journal) -> History:
    (program,) = await journal.programs()
    history = await journal.history(program.id)
    assert history is not None
    return history


async def request_of(journal: Journal, call: CallRecord) -> str:
    """The digest under which the engine's log has the request of a recorded call."""
    params, messages = decode(await journal.part(call.params) or b"{}"), await journal.conversation(call.conversation or "")
    assert isinstance(params, dict)
    return digest(call.endpoint.encode(), encode({**params, "messages": [decode(message) for message in messages]}))


def done(history: History) -> int:
    """Files whose review is finished."""
    return sum(step.step == "review_file" and step.kind == "step" and step.state == "succeeded" for step in history.steps)


def finished_tools(history: History) -> int:
    return sum(call.state == "succeeded" for call in history.tool_calls)


def kept(before: History, after: History) -> bool:
    """Whether everything that was finished before is still there as it was: nothing of it ran a second time."""
    steps = {step for step in before.steps if step.state == "succeeded"}
    tools = {call for call in before.tool_calls if call.state == "succeeded"}
    return steps <= set(after.steps) and tools <= set(after.tool_calls) and set(before.calls) <= set(after.calls)


def summary(before: History, after: History, requests: int, seconds: float) -> str:
    used, spared = tokens(after.calls), tokens(before.calls)
    finished = {step.node for step in before.steps if step.state == "succeeded"}
    replayed = sum(call.node not in finished for call in before.calls)
    steps = sum(step.state == "succeeded" and step.kind == "step" for step in after.steps)
    cut_off = requests - len(after.calls)
    fairlead = ".venv/bin/fairlead" if (ROOT / ".venv/bin/fairlead").exists() else "fairlead"
    return f"""
  {steps} steps, {len(after.calls)} turns, {finished_tools(after)} tool calls in {seconds:.0f} s
  {used[0]:,} tokens in ({used[1]:,} of them from the engine's prefix cache), {used[2]:,} tokens out
  {len(before.calls)} turns ({spared[0] + spared[2]:,} tokens) were not paid twice, {replayed} of them in unfinished steps
  {requests} requests reached the engine: {cut_off} were under way when the process was killed

  report    {REPORT}   (its findings are real; the words are those of the embedded engine, no language model)
  database  {DATABASE}

  next      {fairlead} runs show {after.program.id} --db {DATABASE}
            {fairlead} run examples/quickstart.py:quickstart --input '{{"folder": "docs"}}'
            {fairlead} run {WORKFLOW} --engine URL --model NAME
            docs/writing-workflows.md
"""


def make_place() -> None:
    """The folder for what the demonstration leaves behind, without what an earlier one left there."""
    folder = ROOT / OUTPUT
    folder.mkdir(exist_ok=True)
    for old in (ROOT / REPORT, *folder.glob("fairlead.db*")):
        old.unlink(missing_ok=True)


def tokens(calls: Sequence[CallRecord]) -> tuple[int, int, int]:
    """Tokens in, from the cache, and out."""
    return (
        sum(call.input_tokens or 0 for call in calls),
        sum(call.cached_tokens or 0 for call in calls),
        sum(call.output_tokens or 0 for call in calls),
    )


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(0 if anyio.run(demo) else 1)
