"""What the engine model tells: events of its requests, counters, and the one reason for which it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ....errors import InputError


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request left the queue; `cached_tokens` of its prompt were found in the cache."""

    request_id: str
    at: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class FirstToken:
    request_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Finished:
    """All output tokens were generated. `cached_tokens` counts from the first admission."""

    request_id: str
    at: float
    output_tokens: int
    cached_tokens: int
    preemptions: int


@dataclass(frozen=True, slots=True)
class Preempted:
    """Blocks ran out: the request is back in the queue and will be recomputed."""

    request_id: str
    at: float


ModelEvent: TypeAlias = Admitted | FirstToken | Finished | Preempted


class RequestTooLargeError(InputError):
    """The request can never run on this engine: longer than the context, or than the whole KV cache."""


@dataclass(frozen=True, slots=True)
class ModelStats:
    """Counters since the start (tokens unless said otherwise), and what is true now."""

    running: int
    waiting: int
    kv_usage: float
    """Share of blocks that live requests hold, 0 to 1."""
    capacity_blocks: int
    preemptions: int
    prefix_queries: int
    prefix_hits: int
    prompt_tokens: int
    generated_tokens: int
    finished: int
    aborted: int
    iterations: int
