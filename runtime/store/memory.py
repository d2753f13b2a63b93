"""The journal in plain dictionaries: for runs that want no database, and for tests.

It keeps the contract of the port, durability apart: what is appended is visible at once, and watchers are called before
`append` returns. All events of a program are kept until it is pruned; nothing else limits its size.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from ...errors import StoreError
from ..clock import Clock, SystemClock
from .journal import Journal
from .ordering import history_of, newest_first
from .records import (
    CachedRecord,
    CallRecord,
    EventRecord,
    History,
    LinkRecord,
    ObservationRecord,
    PartRecord,
    ProgramRecord,
    Record,
    StepRecord,
    ToolCallRecord,
)
from .retention import swept_before
from .watching import Watchers

_EffectKey: TypeAlias = tuple[str, int, int]
"""Node, attempt and ordinal: what names a call, tool call or observation within its program."""


class _Program:
    """What is known of one program besides its own record."""

    __slots__ = ("calls", "events", "observations", "steps", "tool_calls")

    def __init__(self) -> None:
        self.steps: dict[str, StepRecord] = {}
        self.calls: dict[_EffectKey, CallRecord] = {}
        self.tool_calls: dict[_EffectKey, ToolCallRecord] = {}
        self.observations: dict[_EffectKey, ObservationRecord] = {}
        self.events: dict[int, EventRecord] = {}


class MemoryJournal(Journal):
    """A `Journal` that lasts as long as the object. `clock` stamps shared content for `prune`."""

    def __init__(self, *, clock: Clock = SystemClock()) -> None:
        self._clock = clock
        self._closed = False
        self._programs: dict[str, ProgramRecord] = {}
        self._contents: defaultdict[str, _Program] = defaultdict(_Program)
        self._children: defaultdict[str | None, dict[str, None]] = defaultdict(dict)
        self._parts: dict[str, bytes] = {}
        self._links: dict[str, LinkRecord] = {}
        self._used_at: dict[str, float] = {}
        self._cached: dict[str, CachedRecord] = {}
        self._owners: dict[str, float] = {}
        self._requests: dict[tuple[str, str], None] = {}
        self._watchers = Watchers()
        self._put: dict[type, Callable[..., None]] = {
            ProgramRecord: self._put_program,
            StepRecord: self._put_step,
            CallRecord: self._put_call,
            ToolCallRecord: self._put_tool_call,
            ObservationRecord: self._put_observation,
            PartRecord: self._put_part,
            LinkRecord: self._put_link,
            EventRecord: self._put_event,
            CachedRecord: self._put_cached,
        }

    def append(self, *records: Record) -> None:
        if self._closed:
            raise StoreError("the journal is closed", hint="keep it open until every program has ended")
        put = self._put
        for record in records:
            put[type(record)](record)

    async def flushed(self) -> None:
        return

    def watch(self, watcher: Callable[[EventRecord], None]) -> Callable[[], None]:
        return self._watchers.add(watcher)

    async def history(self, program_id: str) -> History | None:
        program = self._programs.get(program_id)
        if program is None:
            return None
        known = self._contents.get(program_id) or _Program()
        return history_of(
            self._with_owner_seen(program),
            steps=known.steps.values(),
            calls=known.calls.values(),
            tool_calls=known.tool_calls.values(),
            observations=known.observations.values(),
            last_seq=max(known.events, default=0),
        )

    async def program(self, program_id: str) -> ProgramRecord | None:
        found = self._programs.get(program_id)
        return None if found is None else self._with_owner_seen(found)

    async def programs(
        self, *, states: tuple[str, ...] = (), workflow: str | None = None, parent_id: str | None = None, limit: int = 100
    ) -> list[ProgramRecord]:
        found = (self._programs[program_id] for program_id in self._children.get(parent_id, ()))
        chosen = (
            program
            for program in found
            if (not states or program.state in states) and (workflow is None or program.workflow == workflow)
        )
        return [self._with_owner_seen(program) for program in heapq.nsmallest(limit, chosen, key=newest_first)]

    async def events(self, program_id: str, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        known = self._contents.get(program_id)
        if known is None:
            return []
        later = heapq.nsmallest(limit, (seq for seq in known.events if seq > after))
        return [known.events[seq] for seq in later]

    async def conversation(self, link: str) -> list[bytes]:
        messages: list[bytes] = []
        digest: str | None = link
        while digest is not None:
            known = self._links.get(digest)
            if known is None or known.part not in self._parts:
                raise StoreError(f"the conversation that ends with link {link} is not whole in the journal")
            messages.append(self._parts[known.part])
            digest = known.parent
        messages.reverse()
        return messages

    async def part(self, digest: str) -> bytes | None:
        return self._parts.get(digest)

    async def cached(self, key: str, now: float) -> CachedRecord | None:
        known = self._cached.get(key)
        if known is None or (known.expires_at is not None and known.expires_at <= now):
            return None
        return known

    async def claim(self, program_id: str, owner: str, now: float, stale_before: float) -> bool:
        program = self._programs.get(program_id)
        if program is None:
            return False
        seen_at = self._with_owner_seen(program).owner_seen_at
        if program.owner not in (None, owner) and seen_at is not None and seen_at >= stale_before:
            return False
        self._programs[program_id] = replace(program, owner=owner, owner_seen_at=now)
        return True

    async def seen(self, owner: str, now: float) -> None:
        self._owners[owner] = now

    async def request(self, program_id: str, kind: str, now: float) -> None:
        self._requests[program_id, kind] = None

    async def requests(self, owner: str) -> list[tuple[str, str]]:
        taken = [asked for asked in self._requests if asked[0] in self._programs and self._programs[asked[0]].owner == owner]
        for asked in taken:
            del self._requests[asked]
        return taken

    async def prune(self, ended_before: float) -> int:
        ended = [
            program.id
            for program_id in self._children.get(None, ())
            if (program := self._programs[program_id]).ended_at is not None and program.ended_at < ended_before
        ]
        gone = set(ended)
        family = [program for program in self._programs.values() if program.root_id in gone]
        for program in family:
            del self._programs[program.id]
            self._contents.pop(program.id, None)
            self._children.pop(program.id, None)
            if program.parent_id in self._children:
                self._children[program.parent_id].pop(program.id)
        still_open = (program.created_at for program in self._programs.values() if program.ended_at is None)
        self._sweep(swept_before(ended_before, min(still_open, default=None)))
        self._drop_outlived(ended_before)
        return len(ended)

    async def close(self) -> None:
        self._closed = True

    def _with_owner_seen(self, program: ProgramRecord) -> ProgramRecord:
        """The program with the last time its owner was seen wherever that is noted."""
        noted = self._owners.get(program.owner) if program.owner is not None else None
        if noted is None or (program.owner_seen_at is not None and program.owner_seen_at >= noted):
            return program
        return replace(program, owner_seen_at=noted)

    def _drop_outlived(self, ended_before: float) -> None:
        """Forget expired results, owners that run nothing any more, and requests to programs that are gone."""
        cached, owning = self._cached.items(), {program.owner for program in self._programs.values()}
        self._cached = {key: kept for key, kept in cached if kept.expires_at is None or kept.expires_at >= ended_before}
        self._owners = {owner: at for owner, at in self._owners.items() if at >= ended_before or owner in owning}
        self._requests = {asked: None for asked in self._requests if asked[0] in self._programs}

    def _sweep(self, before: float) -> None:
        """Delete links and parts that no call leads to and nobody stored since `before`."""
        links = self._living_links()
        for digest in [digest for digest in self._links if digest not in links and self._used_at[digest] < before]:
            del self._links[digest], self._used_at[digest]
        parts = {link.part for link in self._links.values()} | {call.params for call in self._calls()}
        for digest in [digest for digest in self._parts if digest not in parts and self._used_at[digest] < before]:
            del self._parts[digest], self._used_at[digest]

    def _calls(self) -> Iterable[CallRecord]:
        return (call for known in self._contents.values() for call in known.calls.values())

    def _living_links(self) -> set[str]:
        living: set[str] = set()
        for call in self._calls():
            digest = call.conversation
            while digest is not None and digest not in living and digest in self._links:
                living.add(digest)
                digest = self._links[digest].parent
        return living

    def _put_program(self, record: ProgramRecord) -> None:
        known = self._programs.get(record.id)
        if known is not None and known.parent_id != record.parent_id:
            del self._children[known.parent_id][record.id]
        self._programs[record.id] = record
        self._children[record.parent_id][record.id] = None

    def _put_step(self, record: StepRecord) -> None:
        self._contents[record.program_id].steps[record.node] = record

    def _put_call(self, record: CallRecord) -> None:
        self._contents[record.program_id].calls[record.node, record.attempt, record.ordinal] = record

    def _put_tool_call(self, record: ToolCallRecord) -> None:
        self._contents[record.program_id].tool_calls[record.node, record.attempt, record.ordinal] = record

    def _put_observation(self, record: ObservationRecord) -> None:
        self._contents[record.program_id].observations[record.node, record.attempt, record.ordinal] = record

    def _put_part(self, record: PartRecord) -> None:
        self._parts.setdefault(record.digest, record.content)
        self._used_at[record.digest] = self._clock.now()

    def _put_link(self, record: LinkRecord) -> None:
        self._links.setdefault(record.digest, record)
        self._used_at[record.digest] = self._clock.now()

    def _put_event(self, record: EventRecord) -> None:
        self._contents[record.program_id].events.setdefault(record.seq, record)
        self._watchers.tell((record,))

    def _put_cached(self, record: CachedRecord) -> None:
        self._cached[record.key] = record
