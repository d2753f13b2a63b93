"""What an engine's prefix cache probably holds: a shadow of its least-recently-used order, by agent, in tokens.

An unmodified engine does not say what it has cached; it says with each answer how many tokens of the prompt it had. The
shadow follows the order of uses and corrects itself from those answers. Its **distance** - tokens used since an agent's last
call, what is running included - is also what capacity is learned from: a hit shows that the cache is at least that large, a
miss that it is smaller.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeAlias

AgentKey: TypeAlias = tuple[str, str]
"""(program, agent)."""


@dataclass(slots=True)
class Residency:
    """Amortised constant cost per use. `limit` is the size of the cache in tokens, 0 if not known (nothing is forgotten)."""

    limit: float = 0.0
    running: int = 0
    """Tokens of calls in flight."""
    _idle: OrderedDict[AgentKey, tuple[int, float]] = field(default_factory=OrderedDict)
    """Tokens and stamp by agent, least recently used first."""
    _idle_total: int = 0
    _stamp: float = 0.0
    """Tokens released so far: the difference of two stamps is what was used in between."""

    def tokens_of(self, key: AgentKey) -> int:
        """Tokens of an agent's prefix that are probably there."""
        entry = self._idle.get(key)
        return entry[0] if entry is not None else 0

    def distance_of(self, key: AgentKey) -> float | None:
        """Tokens that the cache must hold for this prefix still to be there; None if the agent is not known here."""
        entry = self._idle.get(key)
        if entry is None:
            return None
        return self._stamp - entry[1] + entry[0] + self.running

    def use(self, key: AgentKey, tokens: int) -> None:
        """A call of the agent goes to the engine and will hold this many tokens."""
        self._drop(key)
        self.running += tokens
        self._shrink()

    def leave(self, key: AgentKey, held: int, cached: int) -> None:
        """The call left the engine: `held` is what `use` was told, `cached` what stays as its prefix."""
        self.running -= held
        self._drop(key)
        if cached > 0:
            self._stamp += cached
            self._idle[key] = (cached, self._stamp)
            self._idle_total += cached
        self._shrink()

    def refresh(self, key: AgentKey) -> None:
        """The prefix was used without growing (a touch)."""
        tokens = self.tokens_of(key)
        if tokens:
            self.running += tokens
            self.leave(key, tokens, tokens)

    def oldest(self, beside: int) -> AgentKey | None:
        """The prefix that would be forgotten next if `beside` tokens more were used; None if there is room."""
        if not self.limit or not self._idle or self._idle_total + self.running + beside <= self.limit:
            return None
        return next(iter(self._idle))

    def clear(self) -> None:
        """The engine is gone, and everything with it."""
        self._idle.clear()
        self._idle_total = self.running = 0

    def _drop(self, key: AgentKey) -> None:
        entry = self._idle.pop(key, None)
        if entry is not None:
            self._idle_total -= entry[0]

    def _shrink(self) -> None:
        """The oldest prefixes go first, their tails first: what remains of the oldest is its beginning."""
        if not self.limit:
            return
        excess = self._idle_total + self.running - self.limit
        while excess > 0 and self._idle:
            key, (tokens, stamp) = next(iter(self._idle.items()))
            taken = int(min(tokens, excess)) or 1
            excess -= taken
            self._idle_total -= taken
            if taken < tokens:
                self._idle[key] = (tokens - taken, stamp)
            else:
                del self._idle[key]
