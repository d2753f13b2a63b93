"""What a running body has done before, and whether it does the same again. Pure.

A *body* is one attempt of a step, or the body of an `async def` workflow. Its *effects* are numbered in the order in which
it issued them: model calls, tool calls, observations and the nodes it added. After a crash the body runs again; each effect
it issues is looked for in the record, and what was recorded is answered from there.

A body may have several effects open at once, and then the order in which it goes on may differ from the first run. So an
effect must be the next recorded one only where that is certain: when nothing else was open as it was first issued, and
nothing else is open now. Elsewhere it is found by its digest, and what the body has not repeated by its end is the error.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import DivergentReplayError

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Recorded(Generic[E]):
    """One effect of an earlier run."""

    ordinal: int
    overlapped: bool
    """Whether another effect of the body was open when this one was issued, or it came from a task beside the body's own."""
    digest: str
    """What was asked: two effects with the same digest ask the same."""
    label: str
    """For messages: `call chat/completions 3f2a...`, `tool search`."""
    entry: E


@dataclass(frozen=True, slots=True)
class Issued(Generic[E]):
    """An effect that a body has issued, to be closed when it has its outcome."""

    ordinal: int
    overlapped: bool
    recorded: E | None


class Effects(Generic[E]):
    """The effects of one running body against the record of an earlier run of it."""

    def __init__(self, where: str, recorded: Iterable[Recorded[E]] = ()) -> None:
        self._where = where
        self._expected = OrderedDict((item.ordinal, item) for item in sorted(recorded, key=lambda item: item.ordinal))
        self._by_digest: dict[str, list[int]] = {}
        for item in self._expected.values():
            self._by_digest.setdefault(item.digest, []).append(item.ordinal)
        self._next = max(self._expected, default=-1) + 1
        self.open = 0
        """Effects issued and not closed."""

    def issue(self, digest: str, label: str, *, ordered: bool = True) -> Issued[E]:
        """Number an effect and find its record. `ordered` says whether it comes from the body's one line of execution, and
        not from a task beside it. Raises `DivergentReplayError` if another one must come here."""
        overlapped = self.open > 0 or not ordered
        found = self._find(digest, label, overlapped) if self._expected else None
        self.open += 1
        if found is not None:
            return Issued(found.ordinal, found.overlapped, found.entry)
        self._next += 1
        return Issued(self._next - 1, overlapped, None)

    def close(self) -> None:
        """Note that an issued effect has its outcome."""
        self.open -= 1

    def end(self) -> None:
        """Note that the body has returned. Raises `DivergentReplayError` if it left out something recorded."""
        for item in self._expected.values():
            raise DivergentReplayError(self._where, item.label, "the end of the step")

    def _find(self, digest: str, label: str, overlapped: bool) -> Recorded[E] | None:
        first = next(iter(self._expected.values()))
        if first.digest == digest:
            return self._take(first)
        if not first.overlapped and not overlapped:
            raise DivergentReplayError(self._where, first.label, label)
        ordinals = self._by_digest.get(digest)
        return self._take(self._expected[ordinals[0]]) if ordinals else None

    def _take(self, item: Recorded[E]) -> Recorded[E]:
        del self._expected[item.ordinal]
        ordinals = self._by_digest[item.digest]
        ordinals.remove(item.ordinal)
        if not ordinals:
            del self._by_digest[item.digest]
        return item
