"""Carries out `run` and `resume`: chooses the process, shows progress, writes results, and says what to do next."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ...encoding import Json
from .display import display_for
from .exits import ExitCode
from .inputs import MEMORY, database, shown_database
from .jobs import Job
from .messages import DOCUMENT_VERSION, Failed, Outcome
from .terminal import clean, counted, put, say, seconds, tokens


@dataclass(frozen=True, slots=True)
class Output:
    """How a command shows its results."""

    json: bool = False
    quiet: bool = False
    debug: bool = False


def execute(job: Job, output: Output, *, foreground: bool) -> int:
    """Do a job and write what became of it; the exit code."""
    display = display_for(quiet=output.quiet)
    if foreground or job.db == MEMORY or not hasattr(os, "setsid"):
        from .foreground import Foreground, end_process

        here = Foreground(job, display)
        here.perform()
        code = _finish(job, output, here.outcomes, here.failed, here.interrupted)
        end_process(code)
        return code
    from .viewer import Viewer

    viewer = Viewer(job, display, db_option=db_option(job.db))
    viewer.watch()
    return _finish(job, output, viewer.outcomes, viewer.failed, viewer.interrupted)


def _finish(job: Job, output: Output, outcomes: Sequence[Outcome], failed: Failed | None, interrupted: ExitCode | None) -> int:
    if failed is not None:
        say_error(failed.message, _for_database(failed.hint or "", job.db), failed.trace if output.debug else "")
    for outcome in outcomes:
        _say_outcome(job, output, outcome)
    if failed is None and not outcomes and job.workflow is None and interrupted is None:
        say("nothing to resume: every program has ended or waits for a person (`fairlead runs list`)")
    _put_results(job, output, outcomes, failed)
    if interrupted is not None:
        return int(interrupted)
    codes = {outcome.exit for outcome in outcomes if outcome.exit} | ({failed.exit} if failed is not None else set())
    return codes.pop() if len(codes) == 1 else int(ExitCode.FAILED if codes else ExitCode.OK)


def _put_results(job: Job, output: Output, outcomes: Sequence[Outcome], failed: Failed | None) -> None:
    if output.json:
        documents: list[Json] = [outcome.as_json() for outcome in outcomes]
        if job.all:
            put(json.dumps({"version": DOCUMENT_VERSION, "programs": documents}, ensure_ascii=False))
        elif documents:
            put(json.dumps(documents[0], ensure_ascii=False))
        elif failed is not None:
            error: Json = {"message": failed.message, "hint": failed.hint}
            put(
                json.dumps(
                    {"version": DOCUMENT_VERSION, "id": None, "state": None, "result": None, "error": error}, ensure_ascii=False
                )
            )
        return
    for outcome in outcomes:
        if outcome.state == "succeeded" and outcome.error is None:
            put(pretty(outcome.result))


def pretty(value: Json) -> str:
    """A result for a person: a text as it is, everything else as indented JSON."""
    if isinstance(value, str):
        return clean(value) if sys.stdout.isatty() else value
    return json.dumps(value, indent=2, ensure_ascii=False)


def _say_outcome(job: Job, output: Output, outcome: Outcome) -> None:
    again = f"fairlead resume {outcome.id}{db_option(job.db)}"
    if outcome.state == "running" and outcome.error is None:
        if job.db == MEMORY:
            say(f"stopped: program {outcome.id} was kept in memory and is gone", style="yellow")
        else:
            say(f"parked: program {outcome.id} stopped; go on with `{again}`", style="yellow")
    elif outcome.question is not None:
        say_question(outcome.id, outcome.question, db_option(job.db))
    elif outcome.error is not None:
        hint = _for_database(str(outcome.error.get("hint") or ""), job.db)
        say_error(str(outcome.error.get("message")), hint, outcome.trace if output.debug else "")
        if outcome.stopped:
            say(f"  stopped: {receipt(outcome.stopped)}")
        if outcome.counts and job.db != MEMORY and f"resume {outcome.id}" not in hint:
            say(f"  finished work is kept; try again with `{again}`", style="dim")
    if not output.quiet and outcome.counts:
        say(_closing_line(job, outcome), style="dim")


def _closing_line(job: Job, outcome: Outcome) -> str:
    counts = {name: value for name, value in outcome.counts.items() if isinstance(value, int)}
    parked = outcome.state == "running" and outcome.error is None
    parts = [f"{outcome.id} {'parked' if parked else outcome.state.replace('_', ' ')}"]
    if outcome.seconds is not None:
        parts[0] += f" after {seconds(outcome.seconds)}"
    for what, reused in (("step", "reused"), ("call", "replayed"), ("tool", "reused")):
        done, again = counts.get(f"{what}s", 0), counts.get(f"{what}s_{reused}", 0)
        if done or again:
            noun = "tool call" if what == "tool" else what
            parts.append(counted(done, noun) + (f" (+{again} {reused})" if again else ""))
    usage = {name: value if isinstance(value, int) else None for name, value in outcome.usage.items()}
    if usage.get("input_tokens") is not None:
        cached = f" ({tokens(usage['cached_tokens'])} cached)" if usage.get("cached_tokens") is not None else ""
        parts.append(f"{tokens(usage['input_tokens'])} tokens in{cached}, {tokens(usage.get('output_tokens'))} out")
    parts.append("kept in memory only" if job.db == MEMORY else f"kept in {shown_database(job.db)}")
    return " · ".join(parts)


def say_question(program_id: str, question: dict[str, Json], db: str) -> None:
    """What a person is asked, and the commands that answer."""
    about = question.get("about")
    say(f"program {program_id} waits for a person:", style="yellow")
    say(f"  {clean(str(question.get('message')))}")
    if question.get("arguments"):
        say(f"  called with: {clean(str(question.get('arguments')))}")
    if question.get("idempotency_key"):
        say(f"  its idempotency key: {question.get('idempotency_key')}")
    say("look whether it happened, then one of:")
    for decision, meaning in (
        ("run", "run it again"),
        ("result:JSON", "it happened; go on with this result"),
        ("fail", "count it as failed"),
    ):
        say(f"  fairlead resume {program_id}{db} --decide '{about}={decision}'   # {meaning}")


def say_error(message: str, hint: str | None = None, trace: str = "") -> None:
    """An error as every command shows it: what is wrong, and what to do."""
    if trace:
        say(trace.rstrip("\n"))
    say(f"error: {clean(message)}", style="red")
    for line in (hint or "").splitlines():
        say(f"  {clean(line).strip()}")


def _for_database(hint: str, db: str) -> str:
    """A hint whose commands find the database in use; without those that a database in memory leaves nothing to do."""
    if db == MEMORY and "`fairlead resume" in hint:
        return ""
    option = db_option(db)
    return (
        hint if "--db" in hint else re.sub(r"`(fairlead (?:resume|runs)\b[^`]*)`", lambda found: f"`{found[1]}{option}`", hint)
    )


def receipt(stopped: dict[str, Json]) -> str:
    """What was stopped, in one line."""
    parts = []
    for what in ("calls", "tools", "steps", "programs"):
        items = stopped.get(what)
        if isinstance(items, list) and items:
            shown = ", ".join(clean(str(item)) for item in items[:5]) + (", ..." if len(items) > 5 else "")
            parts.append(f"{counted(len(items), what[:-1])} ({shown})")
    return "; ".join(parts) or "nothing was going on"


def db_option(db: str) -> str:
    """` --db URL`, where a command that is suggested needs it."""
    return "" if db == database(None) else f" --db {shown_database(db)}"
