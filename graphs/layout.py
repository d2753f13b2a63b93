"""Lays out a graph as boxes and lines of text, each box below all that lead to it. Pure.

The steps are those of Sugiyama, Tagawa and Toda (1981): layers by longest path, order within a layer by barycentres, then
columns, then lines. Edges that pass a layer get a column of their own there; edges that share their one end share a line.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

if TYPE_CHECKING:
    import networkx


def wide(text: str) -> int:
    """How many columns a text takes: East Asian wide characters take two, combining ones none."""
    return sum(0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text)


_GAP_COLUMNS = 3
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = {
    _UP | _DOWN: "│", _UP: "│", _DOWN: "│", _LEFT | _RIGHT: "─", _LEFT: "─", _RIGHT: "─",
    _DOWN | _RIGHT: "┌", _DOWN | _LEFT: "┐", _UP | _RIGHT: "└", _UP | _LEFT: "┘",
    _UP | _DOWN | _RIGHT: "├", _UP | _DOWN | _LEFT: "┤", _DOWN | _LEFT | _RIGHT: "┬", _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}  # fmt: skip
_BOX_ROWS = 3
_SWEEPS = 8


@dataclass(slots=True)
class _Item:
    """A box, or a place where an edge passes a layer (no text)."""

    text: str
    heavy: bool = False
    before: list[_Item] = field(default_factory=list)
    after: list[_Item] = field(default_factory=list)
    centre: float = 0.0

    @property
    def width(self) -> int:
        return wide(self.text) + 4 if self.text else 1

    @property
    def column(self) -> int:
        return round(self.centre)


class Layout:
    """Layers of boxes, their columns, and the lines between them. `labels` by node, in the order wanted within a layer;
    `heavy` nodes get a heavy frame."""

    def __init__(self, labels: Mapping[str, str], edges: Sequence[tuple[str, str]], heavy: Container[str]) -> None:
        self._layers = _layers_of(labels, edges, heavy)
        for _ in range(_SWEEPS):
            _order(self._layers)
        for _ in range(_SWEEPS):
            for layer in self._layers:
                _spread(layer, lambda item: item.before)
            for layer in reversed(self._layers):
                _spread(layer, lambda item: item.after)
        left = min(item.column - item.width // 2 for layer in self._layers for item in layer)
        for layer in self._layers:
            for item in layer:
                item.centre = item.column - left
        self._lines: dict[tuple[int, int], int] = {}
        self._texts: dict[tuple[int, int], str] = {}

    def drawn(self) -> list[str]:
        """The lines of the picture."""
        row = 0
        for layer in self._layers:
            for item in layer:
                self._draw_item(item, row)
            row += _BOX_ROWS
            row += self._draw_edges(layer, row)
        return self._rows(row)

    def _draw_item(self, item: _Item, row: int) -> None:
        if not item.text:
            for offset in range(_BOX_ROWS):
                self._join(row + offset, item.column, _UP | _DOWN)
            return
        corners, flat, side = ("┏┓┗┛", "━", "┃") if item.heavy else ("┌┐└┘", "─", "│")
        left = item.column - item.width // 2
        inner = item.width - 2
        self._write(row, left, f"{corners[0]}{flat * inner}{corners[1]}")
        self._write(row + 1, left, f"{side} {item.text} {side}")
        self._write(row + 2, left, f"{corners[2]}{flat * inner}{corners[3]}")

    def _draw_edges(self, layer: list[_Item], top: int) -> int:
        """Draw what leaves a layer; how many rows it took."""
        nets = _nets_of(layer)
        if not nets:
            return 0
        tracks = _tracks(nets)
        height = max(tracks, default=-1) + 2
        for net, track in zip(nets, tracks, strict=True):
            self._draw_net(net, top, top + track, top + height)
            for target in net.targets:
                if target.text:
                    self._texts[top + height - 1, target.column] = "▼"
        return height

    def _draw_net(self, net: _Net, top: int, track: int, bottom: int) -> None:
        """Lines from the sources down to the row of the net, along it, and down to the targets; straight ones have no row."""
        for source in net.sources:
            for row in range(top, track):
                self._join(row, source.column, _UP | _DOWN)
            if track >= top:
                self._join(track, source.column, _UP)
        if track >= top:
            left, right = net.span
            for column in range(left, right):
                self._join(track, column, _RIGHT)
                self._join(track, column + 1, _LEFT)
        for target in net.targets:
            if track >= top:
                self._join(track, target.column, _DOWN)
            for row in range(max(top, track + 1), bottom):
                self._join(row, target.column, _UP | _DOWN)

    def _join(self, row: int, column: int, directions: int) -> None:
        self._lines[row, column] = self._lines.get((row, column), 0) | directions

    def _write(self, row: int, column: int, text: str) -> None:
        for character in text:
            if combining(character):
                continue
            self._texts[row, column] = character
            column += 1
            if wide(character) == 2:
                self._texts[row, column] = ""
                column += 1

    def _rows(self, height: int) -> list[str]:
        cells = {place: _LINES[directions] for place, directions in self._lines.items()} | self._texts
        ends = [0] * height
        for row, column in cells:
            ends[row] = max(ends[row], column + 1)
        return ["".join(cells.get((row, column), " ") for column in range(ends[row])).rstrip() for row in range(height)]


def layers(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The layer of every node: 0 for what nothing leads to, else one below the lowest that leads to it."""
    from networkx import DiGraph, topological_generations

    graph: networkx.DiGraph[str] = DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    return {node: index for index, generation in enumerate(topological_generations(graph)) for node in generation}


def _layers_of(labels: Mapping[str, str], edges: Sequence[tuple[str, str]], heavy: Container[str]) -> list[list[_Item]]:
    """The nodes in layers, linked, with a passing item wherever an edge goes through a layer."""
    level = layers(list(labels), edges)
    items = {node: _Item(label, node in heavy) for node, label in labels.items()}
    rows: list[list[_Item]] = [[] for _ in range(max(level.values()) + 1)]
    for node in labels:
        rows[level[node]].append(items[node])
    passing: dict[tuple[str, int], _Item] = {}
    for source, target in edges:
        last = items[source]
        for index in range(level[source] + 1, level[target]):
            if (source, index) not in passing:
                passing[source, index] = _Item("")
                rows[index].append(passing[source, index])
                _link(last, passing[source, index])
            last = passing[source, index]
        _link(last, items[target])
    return rows


def _link(source: _Item, target: _Item) -> None:
    source.after.append(target)
    target.before.append(source)


def _order(layers: list[list[_Item]]) -> None:
    """One sweep down and up of the barycentre heuristic (Sugiyama et al., 1981)."""
    for neighbours, sequence in ((_before, layers[1:]), (_after, layers[-2::-1])):
        for layer in sequence:
            place = {id(item): index for one in layers for index, item in enumerate(one)}
            mean = {
                id(item): sum(place[id(other)] for other in neighbours(item)) / len(neighbours(item))
                if neighbours(item)
                else place[id(item)]
                for item in layer
            }
            layer.sort(key=lambda item: mean[id(item)])


def _before(item: _Item) -> list[_Item]:
    return item.before


def _after(item: _Item) -> list[_Item]:
    return item.after


def _spread(layer: list[_Item], neighbours: Callable[[_Item], list[_Item]]) -> None:
    """Move the items of a layer towards the middle of their neighbours, in order and without touching."""
    wanted = [
        sum(other.centre for other in neighbours(item)) / len(neighbours(item)) if neighbours(item) else item.centre
        for item in layer
    ]
    placed: list[float] = []
    for index, item in enumerate(layer):
        least = placed[-1] + (layer[index - 1].width + item.width) / 2 + _GAP_COLUMNS if placed else wanted[0]
        placed.append(max(wanted[index], least))
    shift = sum(want - place for want, place in zip(wanted, placed, strict=True)) / len(layer)
    for item, place in zip(layer, placed, strict=True):
        item.centre = place + shift


@dataclass(frozen=True, slots=True)
class _Net:
    """Edges between two layers that share a line: those of one source, or the only ones of several sources to one target."""

    sources: tuple[_Item, ...]
    targets: tuple[_Item, ...]

    @property
    def span(self) -> tuple[int, int]:
        columns = [item.column for item in (*self.sources, *self.targets)]
        return min(columns), max(columns)


def _nets_of(layer: list[_Item]) -> list[_Net]:
    nets = [_Net((item,), tuple(item.after)) for item in layer if len(item.after) > 1]
    single: dict[int, list[_Item]] = {}
    for item in layer:
        if len(item.after) == 1:
            single.setdefault(id(item.after[0]), []).append(item)
    return nets + [_Net(tuple(sources), (sources[0].after[0],)) for sources in single.values()]


def _tracks(nets: list[_Net]) -> list[int]:
    """For every net the row in which it goes sideways, -1 if it goes straight down.

    Two nets share a row if their spans are apart. A net with a source right above a target of another goes sideways before
    it, so that the two do not run into one line (but for circles of such nets, where one has to).
    """
    spans = [net.span for net in nets]
    tops = [{item.column for item in net.sources} for net in nets]
    ends = [{item.column for item in net.targets} for net in nets]
    bent = [index for index, (left, right) in enumerate(spans) if left != right]
    above = {index: [other for other in bent if other != index and tops[other] & ends[index]] for index in bent}
    tracks = [-1] * len(nets)

    def assign(index: int, under_way: frozenset[int]) -> None:
        if tracks[index] >= 0 or index in under_way:
            return
        for other in above[index]:
            assign(other, under_way | {index})
        track = max((tracks[other] + 1 for other in above[index]), default=0)
        while any(tracks[other] == track and _touch(spans[other], spans[index]) for other in bent):
            track += 1
        tracks[index] = track

    for index in bent:
        assign(index, frozenset())
    return tracks


def _touch(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] + 1 and other[0] <= one[1] + 1
