"""A second tier for prefixes in host memory, filled as requests end and read back over one link.

The link is a queue: transfers wait for each other, so reloading is cheap for a few and slow for many (which a constant rate
would hide). Writing back is free: it uses the other direction. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ....errors import ConfigurationError
from ....memory.blocks import BLOCK_TOKENS
from .kvcache import Chain, KVCache


@dataclass(frozen=True, slots=True)
class Offload:
    """Size and speed of the second tier: `tokens` of KV, read back at `tokens_per_s`.

    An 8B model over PCIe Gen4 x16 (25 GB/s): 190,000 tokens/s; 70B on four cards with a link each: 300,000.
    """

    tokens: int
    tokens_per_s: float

    def __post_init__(self) -> None:
        if self.tokens < BLOCK_TOKENS or not 0 < self.tokens_per_s < math.inf:
            raise ConfigurationError(f"offload: {self.tokens} tokens at {self.tokens_per_s:g} tokens/s cannot work")


class HostTier:
    """What host memory holds, and the link to it."""

    def __init__(self, size: Offload) -> None:
        self._cache = KVCache(size.tokens // BLOCK_TOKENS)
        self._tokens_per_s = size.tokens_per_s
        self._link_free_at = -math.inf
        self.reloaded_tokens = 0

    def store(self, chain: Chain, blocks: int) -> None:
        """Keep the first `blocks` of a chain, as far as there is room, at the cost of what was used least recently."""
        cache = self._cache
        blocks = min(blocks, len(chain), cache.capacity)
        hold = cache.acquire(chain, blocks)
        missing = min(blocks - hold.depth, cache.available)
        if missing > 0:
            cache.reserve(hold, missing)
            cache.publish(hold, chain, hold.depth + missing)
        cache.release(hold)

    def holds(self, chain: Chain, limit: int) -> int:
        """Blocks of the chain's beginning that are here."""
        return self._cache.match(chain, limit).blocks

    def load(self, blocks: int, at: float) -> float:
        """Queue a transfer; when it will be done."""
        tokens = blocks * BLOCK_TOKENS
        self.reloaded_tokens += tokens
        self._link_free_at = max(at, self._link_free_at) + tokens / self._tokens_per_s
        return self._link_free_at
