"""Which blocks a simulated prompt consists of, without any text: a few stretches, each counted through.

A block's key must stand for the block and everything before it. Conversations only need to know where they part, so a chain is
a short list of stretches, each with a number that nobody else has at that place; 30,000 tokens cost three integers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, overload

_POSITION_BITS = 24
"""Blocks in one chain: fewer than 16 million."""


class Stretch(NamedTuple):
    """Blocks up to `end` (from the end of the stretch before), known under `label`.

    Labels from 0 up belong to one program (two runs of the same program share nothing); negative ones mean the same blocks
    in every program.
    """

    end: int
    label: int


class Chain(Sequence[int]):
    """The keys of a prompt's full blocks, made when asked for."""

    __slots__ = ("_bases", "_ends", "_length")

    def __init__(self, stretches: Sequence[Stretch], length: int, first_label: int) -> None:
        """`first_label` is added to labels from 0 up; `length` (blocks) may be beyond the last end, which then goes on."""
        self._length = length
        self._ends = [stretch.end for stretch in stretches[:-1]]
        self._bases = [
            (stretch.label + first_label if stretch.label >= 0 else stretch.label) << _POSITION_BITS for stretch in stretches
        ]

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._length))]
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._bases[bisect_right(self._ends, index)] + index
