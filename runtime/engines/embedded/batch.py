"""The state of one request in the engine model, and a stretch of iterations with an unchanged batch."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from .kvcache import Chain, Hold


class Request:
    __slots__ = (
        "aborted",
        "arrived",
        "cached_tokens",
        "chain",
        "computed",
        "decoding",
        "hold",
        "joined_at",
        "keep_s",
        "loaded_at",
        "output_tokens",
        "owner",
        "preemptions",
        "priority",
        "produced",
        "prompt_tokens",
        "request_id",
        "waiting_since",
    )

    def __init__(
        self, request_id: str, chain: Chain, prompt_tokens: int, output_tokens: int, priority: int, arrived: int
    ) -> None:
        self.request_id = request_id
        self.chain = chain
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.priority = priority
        self.arrived = arrived
        self.hold: Hold | None = None
        self.computed = 0
        self.decoding = False
        self.produced = 0  # as of `joined_at`, while decoding
        self.joined_at = 0
        self.cached_tokens: int | None = None
        self.preemptions = 0
        self.aborted = False
        self.owner: Hashable = None
        self.keep_s = 0.0
        self.loaded_at = -math.inf  # when what comes from host memory is there
        self.waiting_since = -math.inf

    @property
    def admitted(self) -> bool:
        return self.hold is not None

    @property
    def target(self) -> int:
        """Tokens to prefill: the prompt and, after a preemption, what was generated."""
        return self.prompt_tokens + self.produced

    @property
    def ends_at(self) -> int:
        """The iteration, by the engine's count, after which the last token is out; while decoding."""
        return self.joined_at + self.output_tokens - self.produced

    @property
    def rank(self) -> tuple[int, int]:
        return (self.priority, self.arrived)


@dataclass(slots=True)
class Span:
    """`steps` iterations from `start` with an unchanged batch. Iteration j (from 0) takes `first + j * growth` seconds."""

    start: float
    steps: int
    first: float
    growth: float
    prefills: list[tuple[Request, int]]

    def time_of(self, steps: int) -> float:
        return self.start + steps * self.first + self.growth * steps * (steps - 1) / 2

    @property
    def end(self) -> float:
        return self.time_of(self.steps)

    def steps_by(self, now: float) -> int:
        """Iterations completed by `now`."""
        if now >= self.end:
            return self.steps
        if now <= self.start or self.first <= 0:
            return 0
        linear = self.first - self.growth / 2
        guess = (now - self.start) / linear
        if self.growth > 0:
            guess = (math.sqrt(linear * linear + 2 * self.growth * (now - self.start)) - linear) / self.growth
        steps = min(max(int(guess), 0), self.steps)
        # The root is rounded; the formula it came from decides.
        while steps > 0 and self.time_of(steps) > now:
            steps -= 1
        while steps < self.steps and self.time_of(steps + 1) <= now:
            steps += 1
        return steps
