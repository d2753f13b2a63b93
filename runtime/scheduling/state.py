"""What the scheduler knows of tenants, programs, agents, calls and engines. Data that the core changes and its parts read.

An **agent** is the owner of a prefix: a root program, a child program or a sub-agent. Memory is booked by agent, service and
order go by the root program.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from .residency import Residency

Key: TypeAlias = tuple[float, ...]
"""Place in an order; smaller goes first."""


@dataclass(slots=True, eq=False)
class Tenant:
    name: str
    weight: float = 1.0
    tag: float = 0.0
    """Virtual time: service charged, over weight; lifted when the tenant comes back from having nothing to do."""
    waiting: int = 0
    in_flight: int = 0
    heap: list[tuple[Key, int, Call]] = field(default_factory=list)
    """Waiting calls in order; entries of calls that left stay until they surface."""
    by_age: deque[Call] = field(default_factory=deque)
    """Waiting calls by time of arrival; the same."""
    firsts: deque[Call] = field(default_factory=deque)
    """First calls of programs by time of arrival; the same."""
    stuck_below: float = 0.0
    """No call at the head of the heap fits into less room than this; 0 if that is not known."""


@dataclass(slots=True, eq=False)
class Program:
    program_id: str
    tenant: Tenant
    order: int
    arrived: float
    weight: float = 1.0
    workflow: str = ""
    deadline: float | None = None
    steps_known: int | None = None
    ended: bool = False
    calls: int = 0
    """Calls that wait or are in flight."""
    made: int = 0
    """Calls that were answered."""
    told: int = 0
    """The last age that the completion curve was told of."""
    tag: float = 0.0
    """Virtual time inside the tenant."""
    service: float = 0.0
    """Charged so far, in prefill-token equivalents; sub-agents included."""
    engine_s: float = 0.0
    """Time that its calls spent on engines (attained service, Autellix PLAS)."""
    critical_s: float = 0.0
    """Longest chain of engine time observed (Autellix ATLAS)."""
    waited_s: float = 0.0
    agents: dict[str, Agent] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Agent:
    program: Program
    name: str
    home: Engine | None = None
    """Where its prefix was last."""
    context: int = 0
    """Tokens of its last prompt and answer."""
    prompt: int = 0
    """Tokens of its last prompt."""
    calls: int = 0
    """In flight."""
    turns: int = 0
    booked: int = 0
    """Tokens of memory kept on its home for its next call, while it is idle."""
    placed: bool = False
    """Admitted: its next call has its memory."""
    placed_at: float = 0.0
    idle_at: float | None = None
    """Since when it has no call in flight or waiting; None while it has."""
    hold: int = 0
    """Counts its holds, so that an outdated expiry is known."""
    kind: str = ""
    """Class of the gap it is in."""
    counted_s: float = 0.0
    """How much of the gap has been told to the estimates."""


@dataclass(slots=True, eq=False)
class Call:
    call_id: int
    program: Program
    agent: Agent
    ready_at: float
    sequence: int
    step: str
    prompt: int
    """Tokens, estimated where the caller did not say."""
    output: float
    """Tokens expected."""
    first: bool
    """The first call of its program."""
    steps_left: int | None = None
    siblings: int = 0
    waiting: bool = True
    engine: Engine | None = None
    sent_at: float = 0.0
    charged: float = 0.0
    guest: bool = False
    """Goes on the reserved share: it does not give its program a place."""
    first_token_at: float | None = None
    critical_s: float = 0.0
    """Engine time on the program's longest chain when the call was sent."""
    expected_cached: int = 0
    distance: float | None = None
    """Of its prefix in the shadow of the cache, when it was sent."""
    reserved_on: Engine | None = None
    """Engine that makes room for it."""
    held: int = 0
    """Memory booked for it while it is in flight."""

    @property
    def need(self) -> int:
        """Memory it will hold at its end, in tokens."""
        return self.prompt + int(self.output)


@dataclass(slots=True, eq=False)
class Engine:
    name: str
    in_flight_max: int
    prefill_tokens_per_s: float = 10_000.0
    decode_s_per_token: float = 0.02
    pins: bool = False
    priority: bool = False
    values: bool = False
    lost: bool = False
    in_flight: int = 0
    booked: int = 0
    """Tokens booked by all agents placed here."""
    guests: int = 0
    """Tokens booked by calls on the reserved share."""
    active: int = 0
    """Tokens booked by calls in flight."""
    reserved_for: Call | None = None
    """An aged call for which room is being made."""
    made_room: dict[bool, tuple[float, float]] = field(default_factory=dict)
    """When room was last made for a first call (True) and another aged one (False), and what it cost."""
    residency: Residency = field(default_factory=Residency)
    capacity: float = 0.0
    """KV tokens, as known or learned."""
    known: bool = False
    """Whether the engine told its capacity."""
    preemptions: int = 0
