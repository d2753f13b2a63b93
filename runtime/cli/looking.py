"""Reads programs from the journal and turns them into what `fairlead runs` writes: documents, tables and trees."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...budgets.usage import Usage
from ...encoding import Json, decode
from ...errors import NotFoundError
from ..ids import owner_is_dead
from ..states import ENDED, ProgramState, StepState
from ..store.journal import Journal
from ..store.opening import open_journal
from ..store.records import CallRecord, History, ProgramRecord, StepRecord, ToolCallRecord
from .live import glyph
from .terminal import clean, counted, one_line, seconds, tokens

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text
    from rich.tree import Tree

LISTED_MAX = 40
"""Steps shown in one place; of more, those that succeeded are counted instead."""
TOOLS_MAX = 12
"""Tool calls shown of one step."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A program with its child programs."""

    history: History
    children: list[Whole]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Journal]:
    """The journal at a URL, closed at the end."""
    journal = await open_journal(url)
    try:
        yield journal
    finally:
        await journal.close()


async def history_of(journal: Journal, program_id: str) -> History:
    """A program's history. Raises `NotFoundError`."""
    history = await journal.history(program_id)
    if history is None:
        raise NotFoundError(f"there is no program {program_id!r}", hint="`fairlead runs list` shows what there is")
    return history


async def whole_of(journal: Journal, program_id: str) -> Whole:
    """A program with all below it. Raises `NotFoundError`."""
    history = await history_of(journal, program_id)
    children = await journal.programs(parent_id=program_id, limit=10_000)
    return Whole(history, [await whole_of(journal, child.id) for child in reversed(children)])


def condition(record: ProgramRecord) -> str:
    """The state as people need to know it: a program that says `running` may be run by nobody."""
    if record.state == ProgramState.WAITING and record.waiting_for:
        return f"waiting ({record.waiting_for})"
    if record.state in ENDED or record.state == ProgramState.WAITING or record.parent_id is not None:
        return record.state.replace("_", " ")
    if record.owner is None:
        return "parked"
    return "crashed" if owner_is_dead(record.owner) else record.state


def sign_of(record: ProgramRecord) -> tuple[str, str]:
    """Glyph and style of a program's condition."""
    return (
        ("✗", "red") if condition(record) == "crashed" else glyph("parked" if condition(record) == "parked" else record.state)
    )


def program_document(record: ProgramRecord) -> dict[str, Json]:
    """A program for `--json`."""
    document: dict[str, Json] = dict(asdict(record))
    for name in ("input", "result", "error", "options"):
        document[name] = value_of(getattr(record, name))
    return {**document, "condition": condition(record)}


def whole_document(whole: Whole) -> dict[str, Json]:
    """A program with its steps, calls (without their content) and tool calls, for `--json`."""
    history = whole.history
    steps: list[Json] = [
        {**asdict(step), "needs": value_of(step.needs), "result": value_of(step.result), "error": value_of(step.error)}
        for step in history.steps
    ]
    calls: list[Json] = []
    for call in history.calls:
        fields = asdict(call)
        del fields["answer"]
        calls.append({**fields, "error": value_of(call.error)})
    tools: list[Json] = [
        {**asdict(tool), "arguments": value_of(tool.arguments), "result": value_of(tool.result), "error": value_of(tool.error)}
        for tool in history.tool_calls
    ]
    children: list[Json] = [whole_document(child) for child in whole.children]
    usage: dict[str, Json] = dict(asdict(usage_of_calls(history.calls)))
    return {
        "program": program_document(history.program), "steps": steps, "calls": calls, "tool_calls": tools, "usage": usage,
        "children": children,
    }  # fmt: skip


def usage_of_calls(calls: Iterable[CallRecord]) -> Usage:
    """The tokens of calls, added up."""
    total = Usage()
    for call in calls:
        total += Usage(call.input_tokens, call.cached_tokens, call.output_tokens)
    return total


def value_of(text: str | None) -> Json:
    """The value of recorded JSON; None where nothing is recorded."""
    return decode(text) if text is not None else None


def table_of(records: Sequence[ProgramRecord], now: float) -> RenderableType:
    """The table of `runs list`."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("ID", "WORKFLOW", "STATE", "STARTED", "TOOK"):
        table.add_column(title, no_wrap=True)
    table.add_column("INPUT", no_wrap=True, overflow="ellipsis")
    for record in records:
        sign, style = sign_of(record)
        end = record.ended_at or (now if condition(record) == "running" else None)
        took = seconds(end - record.started_at) if end is not None and record.started_at is not None else ""
        table.add_row(
            record.id, one_line(record.workflow, 40), Text(f"{sign} {condition(record)}", style),
            f"{seconds(max(0.0, now - record.created_at))} ago",
            took, one_line(record.input, 60),
        )  # fmt: skip
    return table


def tree_of(whole: Whole, *, everything: bool) -> RenderableType:
    """The tree of `runs show`."""
    from rich.tree import Tree

    tree = Tree(_program_line(whole), guide_style="dim")
    _add_program(tree, whole, everything)
    return tree


def facts_of(record: ProgramRecord) -> list[str]:
    """The lines under the title of `runs show`."""
    options = value_of(record.options)
    options = options if isinstance(options, dict) else {}
    started = datetime.fromtimestamp(record.started_at or record.created_at, UTC).astimezone()
    engine = "  ".join(f"{name} {options[name]}" for name in ("engine", "model") if name in options)
    lines = [f"started {started:%Y-%m-%d %H:%M:%S %Z}  tenant {record.tenant}  {engine}".rstrip()]
    lines.append(f"workflow {record.entry or record.workflow}  version {record.version[:12]}")
    lines.append(f"input {one_line(record.input, 400)}")
    if condition(record) == "running":
        lines.append(f"run by process {record.owner}")
    return [clean(line) for line in lines]


def _program_line(whole: Whole) -> Text:
    from rich.text import Text

    record, history = whole.history.program, whole.history
    sign, style = sign_of(record)
    text = Text()
    text.append(f"{sign} ", style)
    text.append(one_line(record.workflow, 60), "bold")
    text.append(f"  {record.id}  ")
    text.append(condition(record), style)
    if record.started_at is not None and record.ended_at is not None:
        text.append(f" after {seconds(record.ended_at - record.started_at)}")
    states = Counter(step.state for step in history.steps if step.kind == "step")
    parts = [f"{counted(count, 'step')} {state}" for state, count in sorted(states.items())]
    parts += _call_parts(history.calls)
    if history.tool_calls:
        parts.append(counted(len(history.tool_calls), "tool call"))
    text.append("  " + " · ".join(parts), "dim")
    return text


def _add_program(tree: Tree, whole: Whole, everything: bool) -> None:
    below: dict[str, list[StepRecord]] = defaultdict(list)
    known = {step.node for step in whole.history.steps}
    for step in sorted(whole.history.steps, key=lambda item: item.started_at or item.ended_at or 0.0):
        below[parent_node(step, known)].append(step)
    calls: dict[str, list[CallRecord]] = defaultdict(list)
    for call in whole.history.calls:
        calls[call.node].append(call)
    tools: dict[str, list[ToolCallRecord]] = defaultdict(list)
    for tool in whole.history.tool_calls:
        tools[tool.node].append(tool)
    children = {child.history.program.parent_node: child for child in whole.children}

    def add(branch: Tree, node: str) -> None:
        _add_tools(branch, tools[node])
        shown, hidden = _chosen(below[node], everything)
        for step in shown:
            twig = branch.add(_step_line(step, calls[step.node]))
            add(twig, step.node)
            if step.node in children:
                _add_program(twig.add(_program_line(children[step.node])), children[step.node], everything)
        if hidden:
            branch.add(_dim(f"… {hidden} more that succeeded (--all shows them)"))

    add(tree, "")


def parent_node(step: StepRecord, known: set[str]) -> str:
    """The node under which a step is shown: the one whose body (in whatever attempt) added it, or the program ("")."""
    parent = step.parent or ""
    return parent if not parent or parent in known else parent.rpartition("@")[0]


def _chosen(steps: list[StepRecord], everything: bool) -> tuple[list[StepRecord], int]:
    if everything or len(steps) <= LISTED_MAX:
        return steps, 0
    of_note = [step for step in steps if step.state not in (StepState.SUCCEEDED, StepState.SKIPPED)]
    quiet = [step for step in steps if step.state in (StepState.SUCCEEDED, StepState.SKIPPED)]
    room = max(5, LISTED_MAX // 2 - len(of_note))
    return [*quiet[:room], *of_note], max(0, len(quiet) - room)


def _step_line(step: StepRecord, calls: list[CallRecord]) -> Text:
    from rich.text import Text

    sign, style = glyph(step.state)
    text = Text()
    text.append(f"{sign} ", style)
    text.append(one_line(step.node, 80))
    if step.kind != "step":
        text.append(f" ({step.kind})", "dim")
    parts = [] if step.state == StepState.SUCCEEDED else [step.state]
    if step.started_at is not None and step.ended_at is not None:
        parts.append(seconds(step.ended_at - step.started_at))
    if step.attempt > 1:
        parts.append(f"attempt {step.attempt}")
    parts += _call_parts(calls, "turn")
    if parts:
        text.append("  " + " · ".join(parts), "dim")
    error = value_of(step.error)
    if isinstance(error, dict) and error.get("message"):
        text.append("  " + one_line(str(error["message"]), 200), style or "red")
    return text


def _add_tools(branch: Tree, tools: list[ToolCallRecord]) -> None:
    for tool in tools[:TOOLS_MAX]:
        branch.add(_tool_line(tool))
    if len(tools) > TOOLS_MAX:
        branch.add(_dim(f"… {len(tools) - TOOLS_MAX} more tool calls"))


def _tool_line(tool: ToolCallRecord) -> Text:
    from rich.text import Text

    sign, style = glyph(tool.state)
    text = Text()
    text.append(f"{sign} ", style)
    text.append(f"tool {one_line(tool.tool, 40)}", "dim")
    text.append(f" {one_line(tool.arguments, 60)}", "dim")
    if tool.background:
        text.append(" (background)", "dim")
    if tool.ended_at is not None:
        text.append(f"  {seconds(tool.ended_at - tool.started_at)}", "dim")
    elif tool.state == "started":
        text.append("  no end recorded", "yellow")
    error = value_of(tool.error)
    if isinstance(error, dict):
        text.append("  " + one_line(str(error.get("message")), 160), "red")
    return text


def _call_parts(calls: Sequence[CallRecord], noun: str = "call") -> list[str]:
    if not calls:
        return []
    usage = usage_of_calls(calls)
    parts = [counted(len(calls), noun)]
    if usage != Usage():
        parts.append(
            f"{tokens(usage.input_tokens)} in ({tokens(usage.cached_tokens)} cached) {tokens(usage.output_tokens)} out"
        )
    failed = [call for call in calls if call.state == "failed"]
    if failed:
        last = value_of(failed[-1].error)
        why = last.get("message") if isinstance(last, dict) else f"status {failed[-1].status}"
        parts.append(f"{len(failed)} failed: {one_line(str(why), 120)}")
    return parts


def _dim(text: str) -> Text:
    from rich.text import Text

    return Text(text, "dim")


def as_json(document: Json) -> str:
    """A document as `--json` writes it."""
    return json.dumps(document, ensure_ascii=False)
