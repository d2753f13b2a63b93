"""Prefixes that an engine keeps because it was asked to: holds on the cache that end by time, by use, or when memory is short.

Kept prefixes never take more than a share of the cache, and the one with the least time left gives way first. When they must
give way is the model's business. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from .kvcache import Chain, Hold, KVCache


@dataclass(frozen=True, slots=True)
class _Pin:
    hold: Hold
    until: float


class Pins:
    """The kept prefixes of one cache, one per owner. `share` is the largest part of the cache that they may take, 0 to 1."""

    def __init__(self, cache: KVCache, share: float) -> None:
        self._cache = cache
        self._limit = int(share * cache.capacity)
        self._pins: dict[Hashable, _Pin] = {}
        self._blocks = 0
        self.next_end: float | None = None
        """When the first of them ends; None if there are none."""

    def __bool__(self) -> bool:
        return bool(self._pins)

    @property
    def blocks(self) -> int:
        """Blocks kept; those that two prefixes share count twice."""
        return self._blocks

    def keep(self, owner: Hashable, chain: Chain, limit: int, until: float) -> bool:
        """Keep what is cached of the first `limit` blocks; what was kept for this owner ends. False if there is no room."""
        self.drop(owner)
        hold = self._cache.acquire(chain, limit)
        while self._blocks + hold.depth > self._limit and self._pins and min(map(_until, self._pins.values())) < until:
            self.drop_soonest()
        if not hold.depth or self._blocks + hold.depth > self._limit:
            self._cache.release(hold, owner)
            return False
        self._pins[owner] = _Pin(hold, until)
        self._blocks += hold.depth
        self._note_next()
        return True

    def drop(self, owner: Hashable) -> bool:
        """Keep it no longer; it stays cached until it is evicted."""
        pin = self._pins.pop(owner, None)
        if pin is None:
            return False
        self._blocks -= pin.hold.depth
        self._cache.release(pin.hold, owner)
        self._note_next()
        return True

    def drop_soonest(self) -> bool:
        """Give up the one with the least time left; False if there is none."""
        if not self._pins:
            return False
        return self.drop(min(self._pins, key=lambda owner: self._pins[owner].until))

    def expire(self, now: float) -> None:
        """Give up those whose time is over."""
        while self.next_end is not None and self.next_end <= now:
            self.drop_soonest()

    def _note_next(self) -> None:
        self.next_end = min(map(_until, self._pins.values()), default=None)


def _until(pin: _Pin) -> float:
    return pin.until
