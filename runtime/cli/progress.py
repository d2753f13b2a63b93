"""What is going on, folded from events: the state that the live tree shows. Pure; times are those of the events.

Made for programs with any number of steps: an event costs O(1), and what has ended is counted and forgotten, but for the
last few and for failures.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ...encoding import Json, decode
from ..store.records import EventRecord

RECENT_MAX = 12
"""Ended steps remembered in one place."""
FAILURES_MAX = 5


@dataclass(slots=True)
class ToolWait:
    """A tool call that has not come back."""

    tool: str
    since: float
    background: bool


@dataclass(slots=True)
class Spending:
    """Calls and tokens, here and below."""

    calls: int = 0
    replayed: int = 0
    tools: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def add(self, other: Spending) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Place:
    """A node of a program, or a program: something that can have nodes below it."""

    label: str
    kind: str = "step"
    state: str = "pending"
    order: int = 0
    attempt: int = 1
    since: float | None = None
    ended_at: float | None = None
    turns: int = 0
    """Calls issued in this attempt, replayed ones included."""
    calls: dict[int, float] = field(default_factory=dict)
    """When the calls that have no answer yet were issued, by number."""
    tools: dict[int, ToolWait] = field(default_factory=dict)
    note: str = ""
    """Why it failed, waits or tries again."""
    spent: Spending = field(default_factory=Spending)
    active: dict[str, Place] = field(default_factory=dict)
    """What goes on below."""
    pending: dict[str, Place] = field(default_factory=dict)
    recent: deque[Place] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    failures: list[Place] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)
    """How many have ended below, by state."""
    kept: int = 0
    """Steps that an earlier run of a resumed program finished."""

    @property
    def ended_count(self) -> int:
        return sum(self.ended.values())


class Progress:
    """All programs that one command shows. Not thread-safe."""

    def __init__(self) -> None:
        self.programs: dict[str, Place] = {}
        """Root programs."""
        self._children: dict[str, Place] = {}
        self._places: dict[tuple[str, str], Place] = {}
        """Nodes that have not ended."""
        self._above: dict[tuple[str, str], Place] = {}
        self._count = 0

    def started(self, program_id: str, workflow: str) -> None:
        """A root program is there."""
        self.programs.setdefault(program_id, Place(workflow, kind="program"))

    def planned(self, program_id: str, nodes: list[list[str]], kept: int = 0) -> None:
        """What a program has before it, and how many results of an earlier run it has already."""
        program = self._program(program_id)
        program.kept = kept
        for node, kind in nodes:
            if kind != "branch" and (program_id, node) not in self._places:
                program.pending[node] = Place(node, kind)

    def add(self, event: EventRecord) -> None:
        """Take in one event."""
        data = decode(event.data)
        assert isinstance(data, dict)
        kind, _, verb = event.kind.partition(".")
        match kind:
            case "program":
                self._on_program(event, verb, data)
            case "step":
                self._on_step(event, verb, data)
            case "call":
                self._on_call(event, verb, data)
            case "tool":
                self._on_tool(event, verb, data)

    def _on_program(self, event: EventRecord, verb: str, data: dict[str, Json]) -> None:
        program = self._program(event.program_id)
        if verb in ("started", "resumed"):
            if program.kind == "program":
                program.label = str(data.get("workflow", program.label))
            program.state, program.since, program.ended_at = "running", event.at, None
            return
        program.state, program.ended_at = verb, event.at
        error = data.get("error")
        question = data.get("question")
        said = (
            error
            if isinstance(error, dict)
            else question
            if isinstance(question, dict)
            else {"message": data.get("reason", "")}
        )
        program.note = str(said.get("message", ""))

    def _on_step(self, event: EventRecord, verb: str, data: dict[str, Json]) -> None:
        key = (event.program_id, event.node or "")
        if verb == "started":
            self._start(event, key, data)
            return
        place = self._places.get(key)
        if place is None:
            above = self._above_of(event.program_id, None)
            place = above.pending.pop(key[1], None) or Place(key[1], order=self._next())
            self._above[key] = above
            self._places[key] = place
        place.note = str(data.get("error", ""))
        if verb in ("retrying", "fallback"):
            place.state = verb
            place.calls.clear()
            place.tools.clear()
            return
        if verb == "waiting":
            question = data.get("question")
            place.note = str(question.get("message", "")) if isinstance(question, dict) else ""
        self._end(key, place, verb, event.at)

    def _start(self, event: EventRecord, key: tuple[str, str], data: dict[str, Json]) -> None:
        parent = data.get("parent")
        above = self._above_of(event.program_id, parent if isinstance(parent, str) else None)
        place = self._places.get(key) or above.pending.pop(key[1], None) or Place(key[1])
        place.order = place.order or self._next()
        place.kind = str(data.get("kind", "step"))
        if isinstance(data.get("label"), str):
            place.label = f"{key[1]} {data['label']}"
        place.state, place.attempt, place.turns = "running", _whole(data, "attempt") or 1, 0
        place.since = place.since or event.at
        place.note = ""
        above.active[key[1]] = place
        self._places[key], self._above[key] = place, above
        child = data.get("program")
        if isinstance(child, str):
            self._children[child] = place

    def _end(self, key: tuple[str, str], place: Place, state: str, at: float) -> None:
        place.state, place.ended_at = state, at
        place.calls.clear()
        place.tools.clear()
        del self._places[key]
        above = self._above.pop(key)
        above.active.pop(key[1], None)
        above.ended[state] = above.ended.get(state, 0) + 1
        above.spent.add(place.spent)
        if state in ("failed", "waiting") and len(above.failures) < FAILURES_MAX:
            above.failures.append(place)
        else:
            above.recent.append(place)
        if place.kind == "step":
            # What went on below a step is of no more interest once it has its result.
            place.active, place.recent, place.pending = {}, deque(maxlen=RECENT_MAX), {}

    def _on_call(self, event: EventRecord, verb: str, data: dict[str, Json]) -> None:
        place = self._place(event)
        number = _whole(data, "call")
        if verb == "started":
            place.turns += 1
            place.calls[number] = event.at
        elif verb == "retrying":
            place.note = str(data.get("reason", ""))
        else:
            place.calls.pop(number, None)
            place.note = str(data.get("error", "")) if verb == "failed" else ""
            place.turns += verb == "replayed"
            place.spent.calls += verb != "replayed"
            place.spent.replayed += verb == "replayed"
            if verb != "replayed":
                place.spent.input_tokens += _whole(data, "input_tokens")
                place.spent.cached_tokens += _whole(data, "cached_tokens")
                place.spent.output_tokens += _whole(data, "output_tokens")

    def _on_tool(self, event: EventRecord, verb: str, data: dict[str, Json]) -> None:
        place = self._place(event)
        number = _whole(data, "call")
        if verb == "started":
            place.tools[number] = ToolWait(str(data.get("tool", "")), event.at, data.get("background") is True)
        else:
            place.tools.pop(number, None)
            place.spent.tools += 1

    def _place(self, event: EventRecord) -> Place:
        return self._places.get((event.program_id, event.node or "")) or self._program(event.program_id)

    def _program(self, program_id: str) -> Place:
        child = self._children.get(program_id)
        if child is not None:
            return child
        return self.programs.setdefault(program_id, Place(program_id, kind="program"))

    def _above_of(self, program_id: str, parent: str | None) -> Place:
        """What a node hangs on: the node its body or its map belongs to (attempts count as one place), or its program."""
        if parent:
            found = self._places.get((program_id, parent)) or self._places.get((program_id, parent.rpartition("@")[0]))
            if found is not None:
                return found
        return self._program(program_id)

    def _next(self) -> int:
        self._count += 1
        return self._count


def total(place: Place) -> Spending:
    """What was spent in a place and everywhere below it, ended and not."""
    sum_ = Spending()
    sum_.add(place.spent)
    for below in place.active.values():
        sum_.add(total(below))
    return sum_


def _whole(data: dict[str, Json], name: str) -> int:
    value = data.get(name)
    return value if isinstance(value, int) else 0
