"""A journal of one's own past programs as a workload: what would other policies, or other engines, have done for them?

Sizes come from the usage that the engines reported, pauses from the recorded times, and what a prompt begins with from its
stored messages: equal messages at equal places are equal blocks, also between programs. A call waits for the calls of its own
step that had ended when it was made, of the steps that its step needed, of the step that called it, and of those it called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from ...errors import InputError
from ...memory.blocks import BLOCK_TOKENS
from ..store.journal import Journal
from ..store.records import CallRecord, History, StepRecord
from .chains import Stretch
from .programs import Call, Program, Workload

_BYTES_PER_TOKEN = 4
"""Where an engine reported no usage."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A root program with its children, and the messages of the conversations that its calls sent, by link."""

    root: History
    children: tuple[History, ...]
    conversations: Mapping[str, Sequence[bytes]]


async def read_journal(journal: Journal, *, workflow: str | None = None, limit: int = 1_000) -> list[Recorded]:
    """The newest root programs of a journal that made calls, with all that belongs to them."""
    found = []
    for record in await journal.programs(workflow=workflow, limit=limit):
        root = await journal.history(record.id)
        if root is None:
            continue
        children = await _children(journal, record.id)
        links = {call.conversation for history in (root, *children) for call in history.calls if call.conversation}
        conversations = {link: await journal.conversation(link) for link in sorted(links)}
        if any(history.calls for history in (root, *children)):
            found.append(Recorded(root, tuple(children), conversations))
    return found


async def _children(journal: Journal, program_id: str) -> list[History]:
    found: list[History] = []
    for record in await journal.programs(parent_id=program_id, limit=10_000):
        history = await journal.history(record.id)
        if history is not None:
            found.append(history)
            found.extend(await _children(journal, record.id))
    return found


def recorded_workload(recorded: Sequence[Recorded]) -> Workload:
    """The programs with the arrival times that they had. Raises `InputError` if none of them made a call."""
    prefixes = _Prefixes()
    programs = [program for entry in recorded if (program := _program(entry, prefixes)) is not None]
    if not programs:
        raise InputError("the journal holds no program that made a model call", hint="run some programs first, or name a trace")
    first = min(program.arrival_s for program in programs)
    shifted = sorted(programs, key=lambda program: program.arrival_s)
    return Workload(tuple(_moved(program, first) for program in shifted), name="journal")


def _moved(program: Program, by: float) -> Program:
    return Program(
        program.name,
        program.calls,
        arrival_s=program.arrival_s - by,
        tenant=program.tenant,
        workflow=program.workflow,
        origin=program.origin,
    )


@dataclass(slots=True)
class _Made:
    """A recorded call on its way into the workload."""

    record: CallRecord
    agent: str
    step: str
    related: frozenset[str]
    """Agents whose calls it may have waited for."""


def _program(entry: Recorded, prefixes: _Prefixes) -> Program | None:
    made = sorted(_made(entry), key=lambda call: (call.record.queued_at, call.record.ended_at))
    if not made:
        return None
    root = entry.root.program
    tools = sorted((tool.started_at, tool.node, tool.tool) for h in (entry.root, *entry.children) for tool in h.tool_calls)
    calls: list[Call] = []
    for position, call in enumerate(made):
        record = call.record
        needs = _needs(made, position)
        since = max((made[need].record.ended_at for need in needs), default=root.created_at)
        messages = entry.conversations.get(record.conversation or "", ())
        prompt, output = _sizes(record, messages)
        calls.append(
            Call(
                prompt,
                output,
                needs,
                max(0.0, record.queued_at - since),
                prefixes.of(messages, prompt, f"{root.id}/{position}"),
                output_kept=False,
                agent=call.agent,
                step=call.step,
                tool=_tool_after(record, made, tools),
            )
        )
    return Program(root.id, tuple(calls), root.created_at, root.tenant, workflow=root.workflow, origin=f"program {root.id}")


def _made(entry: Recorded) -> list[_Made]:
    histories = {history.program.id: history for history in (entry.root, *entry.children)}
    parents = {f"{history.program.parent_id}/{history.program.parent_node}": history.program.id for history in entry.children}
    made = []
    for program_id, history in histories.items():
        steps = {step.node: step for step in history.steps}
        for record in history.calls:
            if record.state != "succeeded":
                continue  # what failed was made again, and only the last time counts
            related = frozenset(_related(program_id, record.node, steps, parents, histories))
            step = steps[record.node].step if record.node in steps else record.node
            made.append(_Made(record, f"{program_id}/{record.node}", step, related))
    return made


def _related(
    program_id: str,
    node: str,
    steps: Mapping[str, StepRecord],
    parents: Mapping[str, str],
    histories: Mapping[str, History],
) -> set[str]:
    """Agents that a call of this node can have waited for: itself, what its node needs, who called it and whom it called."""
    found: set[str] = {f"{program_id}/{node}"}
    todo = [node]
    while todo:
        step = steps.get(todo.pop())
        if step is None:
            continue
        needed = [name for name in json.loads(step.needs) if f"{program_id}/{name}" not in found]
        found.update(f"{program_id}/{name}" for name in needed)
        todo.extend(needed)
        if step.parent is not None:
            found.add(f"{program_id}/{step.parent}")
    found.update(f"{program_id}/{step.node}" for step in steps.values() if step.parent == node)
    for place in sorted(found):
        child = parents.get(place)
        if child is not None:
            found.update(f"{child}/{step.node}" for step in histories[child].steps)
    record = histories[program_id].program
    if record.parent_id is not None and record.parent_id in histories:
        parent_steps = {step.node: step for step in histories[record.parent_id].steps}
        before = parent_steps.get(record.parent_node or "")
        found.add(f"{record.parent_id}/{record.parent_node}")
        if before is not None:
            found.update(f"{record.parent_id}/{name}" for name in json.loads(before.needs))
            found.update({f"{record.parent_id}/{before.parent}"} if before.parent else ())
    return found


def _needs(made: Sequence[_Made], position: int) -> tuple[int, ...]:
    """The last of the related calls that had ended when this one was made, one of each chain."""
    call = made[position]
    before = [
        index
        for index in range(position)
        if made[index].agent in call.related and made[index].record.ended_at <= call.record.queued_at
    ]
    latest = max((made[index].record.queued_at for index in before), default=0.0)
    return tuple(index for index in before if made[index].record.ended_at > latest)


def _sizes(record: CallRecord, messages: Sequence[bytes]) -> tuple[int, int]:
    prompt, output = record.input_tokens, record.output_tokens
    if prompt is None:
        prompt = sum(map(len, messages)) // _BYTES_PER_TOKEN
    if output is None:
        output = len(record.answer or b"") // _BYTES_PER_TOKEN
    return max(1, prompt), max(1, output)


def _tool_after(record: CallRecord, made: Sequence[_Made], tools: Sequence[tuple[float, str, str]]) -> str:
    """The first tool that ran in the call's step after it and before the step's next call."""
    following = (m.record.queued_at for m in made if m.record.node == record.node and m.record.queued_at >= record.ended_at)
    until = min(following, default=float("inf"))
    return next((tool for at, node, tool in tools if node == record.node and record.ended_at <= at <= until), "")


@dataclass(slots=True)
class _Prefixes:
    """Which blocks the messages of a conversation stand for: the same for all prompts that begin with the same messages."""

    known: dict[bytes, Stretch] = field(default_factory=dict)

    def of(self, messages: Sequence[bytes], prompt_tokens: int, name: str) -> tuple[Stretch, ...]:
        """A stretch for each message, ending where it ended when it was first seen; the last one is open."""
        keys = _chained(messages or (name.encode(),))
        stretches: list[Stretch] = []
        start = 0
        for index, key in enumerate(keys):
            found = self.known.get(key)
            if found is None:
                rest = sum(map(len, messages[index:])) or 1
                share = len(messages[index]) / rest if messages else 1.0
                end = start + max(0.0, prompt_tokens / BLOCK_TOKENS - start) * share
                found = self.known[key] = Stretch(int(end), -1 - len(self.known))
            start = max(start, found.end)
            stretches.append(Stretch(start, found.label))
        return tuple(stretches)


def _chained(messages: Sequence[bytes]) -> list[bytes]:
    keys: list[bytes] = []
    for message in messages:
        keys.append(blake2b((keys[-1] if keys else b"") + message, digest_size=16).digest())
    return keys
