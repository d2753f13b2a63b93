"""A paged KV cache with prefix reuse, as counts of blocks.

Cached blocks form a tree of runs: a run is a stretch of one prompt's block chain, branching where prompts part. Because a
block's key stands for everything before it, a run is compared by binary search and never walked, so a 30,000-token prompt
costs about as much as a short one. Eviction is least recently used, tail first, as in vLLM: whole prefixes outlive their
continuations. Blocks that a request holds without sharing (a partly filled last block, output being written) are only
counted. Pure; knows nothing of time or requests.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ....memory.blocks import common_blocks

Chain: TypeAlias = "Sequence[Hashable]"
"""Keys of a prompt's full blocks, each standing for its whole prefix (`memory.blocks.BlockChain.hashes`)."""


class _Run:
    """Blocks `start` to `end` of `chain`, and what follows them. `users` counts holds at or below this run."""

    __slots__ = ("chain", "children", "end", "owner", "parent", "released", "start", "users")

    def __init__(self, parent: _Run | None, chain: Chain, start: int, end: int) -> None:
        self.parent = parent
        self.chain = chain
        self.start = start
        self.end = end
        self.children: dict[Hashable, _Run] = {}
        self.users = 0
        self.released = 0
        self.owner: Hashable = None


class Hold:
    """A request's grip on the cache: the shared blocks from the root to `run`, and `private` blocks of its own."""

    __slots__ = ("depth", "private", "run")

    def __init__(self, run: _Run, depth: int) -> None:
        self.run = run
        self.depth = depth
        self.private = 0


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached prefix of a chain, in blocks, and how many of those nobody holds at the moment."""

    blocks: int
    unheld: int


class KVCache:
    """Block accounting for one engine. `capacity = free + evictable + held`, always."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self.evictable = 0
        self._root = _Run(None, (), 0, 0)
        self._root.users = 1
        self._ticks = 0
        self._runs = 0
        # Unheld leaves by time of release; entries outdated by a later use are skipped when they come up.
        self._lru: list[tuple[int, int, _Run]] = []
        self._value: Callable[[Hashable], float] | None = None

    def evict_by(self, value: Callable[[Hashable], float]) -> None:
        """Evict what is worth least to begin with (ties: least recently used), still tail first.

        `value` is asked for whoever released a prefix last, for every unheld leaf and each time that room is needed: for
        comparison with systems that change an engine, not for speed.
        """
        self._value = value

    @property
    def available(self) -> int:
        """Blocks that can be had: free, or cached and held by nobody."""
        return self.free + self.evictable

    @property
    def held(self) -> int:
        """Blocks that live requests use."""
        return self.capacity - self.free - self.evictable

    def match(self, chain: Chain, limit: int) -> Match:
        """The longest cached prefix of at most `limit` blocks. Changes nothing."""
        run, depth, unheld = self._root, 0, 0
        while depth < limit and (child := run.children.get(chain[depth])) is not None:
            reached = common_blocks(chain, child.chain, depth, min(child.end, limit))
            unheld += reached - depth if child.users == 0 else 0
            depth, run = reached, child
            if reached < child.end:
                break
        return Match(depth, unheld)

    def acquire(self, chain: Chain, limit: int) -> Hold:
        """Hold the longest cached prefix of at most `limit` blocks."""
        run, depth = self._root, 0
        while depth < limit and (child := run.children.get(chain[depth])) is not None:
            reached = common_blocks(chain, child.chain, depth, min(child.end, limit))
            run, depth = (self._split(child, reached) if reached < child.end else child), reached
        self._lock(run)
        return Hold(run, depth)

    def reserve(self, hold: Hold | None, blocks: int) -> None:
        """Take `blocks` private blocks, evicting as needed. The caller has checked `available`."""
        assert blocks <= self.available, "reserve without asking first"
        if blocks > self.free:
            self._evict(blocks - self.free)
        self.free -= blocks
        if hold is not None:
            hold.private += blocks

    def publish(self, hold: Hold, chain: Chain, depth: int) -> None:
        """Make the private blocks of `chain` up to `depth` shareable; those that are cached already become free."""
        while hold.depth < depth:
            child = hold.run.children.get(chain[hold.depth])
            if child is not None:
                self._join(hold, child, chain, depth)
            else:
                self._grow(hold, chain, depth)

    def release(self, hold: Hold, owner: Hashable = None) -> None:
        """Give back everything: private blocks are free, shared ones stay cached until evicted (`owner`: see `evict_by`)."""
        self.free += hold.private
        hold.private = 0
        self._ticks += 1
        run: _Run | None = hold.run
        while run is not None and run is not self._root:
            run.users -= 1
            if run.users == 0:
                run.released, run.owner = self._ticks, owner
                self.evictable += run.end - run.start
            run = run.parent
        self._offer(hold.run)
        hold.run, hold.depth = self._root, 0

    def clear(self) -> None:
        """Forget every cached block that nobody holds."""
        self._evict(self.evictable)

    def check_integrity(self) -> None:
        """Recount everything from the tree; `AssertionError` where a counter is wrong. For tests."""
        cached = unheld = runs = 0
        todo = list(self._root.children.values())
        while todo:
            run = todo.pop()
            size = run.end - run.start
            assert size > 0 and run.users >= 0 and run.parent is not None and run.start == run.parent.end
            assert run.users >= max((child.users for child in run.children.values()), default=0)
            runs, cached, unheld = runs + 1, cached + size, unheld + (size if run.users == 0 else 0)
            todo.extend(run.children.values())
        assert (runs, unheld) == (self._runs, self.evictable), "run and evictable counters"
        assert self.free >= 0 and cached + self.free <= self.capacity, "more blocks than there are"

    def _lock(self, run: _Run) -> None:
        step: _Run | None = run
        while step is not None and step is not self._root:
            if step.users == 0:
                self.evictable -= step.end - step.start
            step.users += 1
            step = step.parent

    def _split(self, run: _Run, at: int) -> _Run:
        """Cut `run` at block `at`; the returned upper part is new, so what is queued about the lower part stays true."""
        parent = run.parent
        assert parent is not None
        upper = _Run(parent, run.chain, run.start, at)
        upper.users, upper.released, upper.owner = run.users, run.released, run.owner
        upper.children[run.chain[at]] = run
        parent.children[run.chain[run.start]] = upper
        run.parent, run.start = upper, at
        self._runs += 1
        return upper

    def _join(self, hold: Hold, child: _Run, chain: Chain, depth: int) -> None:
        reached = common_blocks(chain, child.chain, hold.depth, min(child.end, depth))
        run = self._split(child, reached) if reached < child.end else child
        if run.users == 0:
            self.evictable -= run.end - run.start
        run.users += 1
        self._unprivate(hold, reached - hold.depth)
        self.free += reached - hold.depth
        hold.run, hold.depth = run, reached

    def _grow(self, hold: Hold, chain: Chain, depth: int) -> None:
        run = hold.run
        if run is not self._root and run.users == 1 and not run.children:
            run.chain, run.end = chain, depth  # one conversation stays one run
        else:
            grown = _Run(run, chain, hold.depth, depth)
            grown.users = 1
            run.children[chain[hold.depth]] = grown
            hold.run = grown
            self._runs += 1
        self._unprivate(hold, depth - hold.depth)
        hold.depth = depth

    @staticmethod
    def _unprivate(hold: Hold, blocks: int) -> None:
        assert hold.private >= blocks, "publishing blocks that were never reserved"
        hold.private -= blocks

    def _offer(self, run: _Run) -> None:
        if run is self._root or run.users or run.children:
            return
        heapq.heappush(self._lru, (run.released, id(run), run))
        if len(self._lru) > 2 * self._runs + 64:
            # Sorted entries are a heap. `released` is unique per leaf, so `id` never decides.
            self._lru = sorted(entry for entry in self._lru if _is_current(entry))

    def _evict(self, blocks: int) -> None:
        if self._value is not None:
            self._evict_least(self._value, blocks)
            return
        while blocks > 0:
            entry = heapq.heappop(self._lru)
            run = entry[2]
            if not _is_current(entry):
                continue
            blocks -= self._shorten(run, blocks)
            if run.end > run.start:
                heapq.heappush(self._lru, entry)
            else:
                self._remove(run)

    def _evict_least(self, value: Callable[[Hashable], float], blocks: int) -> None:
        while blocks > 0:
            # Parents become leaves when their last child goes, so the ranking is made again until enough is free.
            leaves = {entry[2] for entry in self._lru if _is_current(entry)}
            for run in sorted(leaves, key=lambda run: (value(run.owner), run.released)):
                blocks -= self._shorten(run, blocks)
                if run.end == run.start:
                    self._remove(run)
                if not blocks:
                    break

    def _shorten(self, run: _Run, blocks: int) -> int:
        taken = min(blocks, run.end - run.start)
        run.end -= taken
        self.free += taken
        self.evictable -= taken
        return taken

    def _remove(self, run: _Run) -> None:
        parent = run.parent
        assert parent is not None
        del parent.children[run.chain[run.start]]
        run.parent = None
        self._runs -= 1
        self._offer(parent)


def _is_current(entry: tuple[int, int, _Run]) -> bool:
    released, _, run = entry
    return run.parent is not None and run.users == 0 and not run.children and run.released == released
