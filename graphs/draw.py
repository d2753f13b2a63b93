"""Draws graphs: as Mermaid text, and as a picture of box characters for the terminal. Pure.

Both take a `Graph` that has not run, or a `Drawing` made of what a journal recorded. A picture is drawn in layers, each
node below everything it needs, with edges that pass a layer going around its boxes. Graphs too large for that are first
folded (elements of a map, then steps of the same name between the same neighbours), then listed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

from .graph import Graph

if TYPE_CHECKING:
    import networkx

PICTURE_NODES_MAX = 60
"""Graphs with more nodes, after folding, are listed instead of drawn."""
LABEL_MAX = 32
_GAP = 3

GLYPHS = {
    "pending": "○", "running": "●", "waiting": "?", "succeeded": "✓", "failed": "✗", "cancelled": "⊘", "skipped": "–",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spot:
    """One node as it is drawn."""

    id: str
    label: str
    kind: str = "step"
    needs: tuple[str, ...] = ()
    parent: str | None = None
    """The node whose running body added this one, or that it is an element of."""
    state: str | None = None
    ways: tuple[tuple[str, bool], ...] = ()
    """Conditions (nodes) and what they must give for this one to run."""
    count: int = 1
    """How many nodes are folded into this one."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn: nodes, each after everything it needs."""

    title: str
    spots: tuple[Spot, ...]
    critical: frozenset[str] = field(default=frozenset())
    """The nodes of the critical path."""

    @classmethod
    def of(cls, graph: Graph) -> Drawing:
        """The drawing of a graph that has not run."""
        spots = tuple(
            Spot(node.id, node.id, node.kind, node.needs, ways=tuple((guard.node, guard.expected) for guard in node.guards))
            for node in graph.nodes.values()
        )
        return cls(graph.workflow, spots, frozenset(graph.critical_path))

    @property
    def edges(self) -> list[tuple[str, str]]:
        """What leads where: needs, and for a node that a running one added, its parent."""
        known = {spot.id for spot in self.spots}
        found = []
        for spot in self.spots:
            before = dict.fromkeys([*spot.needs, *((spot.parent,) if spot.parent is not None and not spot.needs else ())])
            found += [(need, spot.id) for need in before if need in known and need != spot.id]
        return found


def recorded(title: str, rows: Iterable[Spot]) -> Drawing:
    """The drawing of recorded nodes, in any order. A parent is given as recorded: an attempt's path counts as its node."""
    spots = {spot.id: spot for spot in rows}
    placed = [
        replace(spot, parent=_parent_of(spot.parent, spots), needs=tuple(need for need in spot.needs if need in spots))
        for spot in spots.values()
    ]
    return Drawing(title, tuple(placed))


def mermaid(graph: Graph | Drawing) -> str:
    """A Mermaid flowchart. Kinds have shapes, states are classes, the critical path is bold; labels are escaped."""
    drawing = _folded(graph if isinstance(graph, Drawing) else Drawing.of(graph))
    spots = {spot.id: spot for spot in drawing.spots}
    names = {spot.id: f"n{index}" for index, spot in enumerate(drawing.spots)}
    lines = ["---", f"title: {_quoted(drawing.title)}", "---", "flowchart TD"]
    for spot in drawing.spots:
        before, after = _SHAPES.get(spot.kind, _SHAPES["step"])
        state = f":::{spot.state}" if spot.state in _COLOURS else ""
        lines.append(f"  {names[spot.id]}{before}{_quoted(_label(spot))}{after}{state}")
    bold = []
    for index, (source, target) in enumerate(drawing.edges):
        spot = spots[target]
        way = dict(spot.ways).get(source)
        arrow = "-->" if source in spot.needs else "-.->"
        lines.append(f"  {names[source]} {arrow}{'' if way is None else '|yes|' if way else '|no|'} {names[target]}")
        if source in drawing.critical and target in drawing.critical:
            bold.append(str(index))
    if bold:
        lines.append(f"  linkStyle {','.join(bold)} stroke-width:4px")
    used = {spot.state for spot in drawing.spots}
    lines += [f"  classDef {state} {style}" for state, style in _COLOURS.items() if state in used]
    if drawing.critical:
        lines.append("  classDef critical stroke-width:4px")
        lines.append(f"  class {','.join(names[spot.id] for spot in drawing.spots if spot.id in drawing.critical)} critical")
    return "\n".join(lines) + "\n"


def picture(graph: Graph | Drawing, width: int = 100) -> str:
    """A drawing for a terminal of `width` columns; lines are never wider. Large graphs are folded, then listed."""
    drawing = _folded(graph if isinstance(graph, Drawing) else Drawing.of(graph))
    if not drawing.spots:
        return "(no steps)"
    for longest in (LABEL_MAX, 18, 10):
        if len(drawing.spots) > PICTURE_NODES_MAX:
            break
        canvas = _Layout(drawing, longest).drawn()
        if max(map(wide, canvas)) <= width:
            return "\n".join(canvas)
    return "\n".join(_listed(drawing, width))


_SHAPES = {
    "step": ("[", "]"), "map": ("[[", "]]"), "branch": ("{", "}"), "loop": ("([", "])"), "workflow": ("[/", "/]"),
}  # fmt: skip
_COLOURS = {
    "succeeded": "fill:#d3f2dc,stroke:#1a7f37,color:#0b3d1c", "failed": "fill:#ffdcd8,stroke:#b42318,color:#5c0f08",
    "running": "fill:#d6ebff,stroke:#0969da,color:#06315f", "waiting": "fill:#f3e0ff,stroke:#8250df,color:#3b1c71",
    "cancelled": "fill:#fff2c9,stroke:#9a6700,color:#4d3400", "skipped": "fill:#eeeeee,stroke:#8c959f,color:#57606a,stroke-dasharray:4",
    "pending": "fill:#ffffff,stroke:#8c959f,color:#57606a",
}  # fmt: skip


def _quoted(text: str) -> str:
    """A text in double quotes with what Mermaid would read as its own written as entities."""
    safe = "".join(character if character.isprintable() else " " for character in text)
    return '"' + "".join(f"#{ord(character)};" if character in '"#<>&`\\{}[]|;' else character for character in safe) + '"'


def _label(spot: Spot) -> str:
    marks = f" ×{spot.count}" if spot.count > 1 else ""
    return f"{spot.label}{marks}"


def _parent_of(parent: str | None, spots: dict[str, Spot]) -> str | None:
    if not parent:
        return None
    return parent if parent in spots else parent.rpartition("@")[0] or None


def _folded(drawing: Drawing) -> Drawing:
    """The drawing with the elements of maps and the rounds of loops counted in their node, and equal steps below another
    node joined; with what is equal anywhere joined too, if it is still large."""
    joined = _stable(_without_elements(drawing), everywhere=False)
    return joined if len(joined.spots) <= PICTURE_NODES_MAX else _stable(joined, everywhere=True)


def _without_elements(drawing: Drawing) -> Drawing:
    """The drawing without elements and rounds; what they added hangs on their map or loop."""
    containers = {spot.id for spot in drawing.spots if spot.kind in ("map", "loop")}
    stands_for = {spot.id: spot.parent for spot in drawing.spots if spot.parent in containers}
    counts = Counter(
        spot.parent for spot in drawing.spots if spot.parent in containers and "?" not in spot.id.rpartition(")")[2]
    )
    return _renamed(drawing, {node: parent for node, parent in stands_for.items() if parent is not None}, counts)


def _renamed(drawing: Drawing, stands_for: dict[str, str], counts: Counter[str | None]) -> Drawing:
    """The drawing without the nodes that others stand for."""

    def name(node: str) -> str:
        while node in stands_for:
            node = stands_for[node]
        return node

    spots = []
    for spot in drawing.spots:
        if spot.id not in stands_for:
            needs = tuple(need for need in dict.fromkeys(map(name, spot.needs)) if need != spot.id)
            parent = name(spot.parent) if spot.parent is not None else None
            spots.append(replace(spot, needs=needs, parent=parent, count=max(spot.count, counts[spot.id])))
    return Drawing(drawing.title, tuple(spots), frozenset(map(name, drawing.critical)))


def _stable(drawing: Drawing, *, everywhere: bool) -> Drawing:
    """Join equal nodes until there are none: those with the same needs, so that no circle can come of it."""
    while True:
        after: dict[str, list[str]] = {spot.id: [] for spot in drawing.spots}
        for source, target in drawing.edges:
            after[source].append(target)
        groups: dict[object, list[Spot]] = {}
        for spot in drawing.spots:
            if everywhere:
                key: object = (_family(spot), spot.kind, spot.needs, spot.parent, tuple(after[spot.id]))
            else:
                key = (_family(spot), spot.kind, spot.needs, spot.parent) if spot.parent is not None else spot.id
            groups.setdefault(key, []).append(spot)
        if len(groups) == len(drawing.spots):
            return drawing
        drawing = _joined(drawing, [group for group in groups.values() if len(group) > 1])


def _joined(drawing: Drawing, groups: Sequence[Sequence[Spot]]) -> Drawing:
    """The drawing with each group as its first node."""
    first = {group[0].id: group for group in groups}
    spots = [
        replace(spot, label=_family(spot), count=sum(one.count for one in first[spot.id]), state=_state_of(first[spot.id]))
        if spot.id in first
        else spot
        for spot in drawing.spots
    ]
    stands_for = {spot.id: group[0].id for group in groups for spot in group[1:]}
    return _renamed(replace(drawing, spots=tuple(spots)), stands_for, Counter())


def _family(spot: Spot) -> str:
    """The declared name in `name#2`, `name[3]`, `name(2)` and `name(2)?test`, without the path before it."""
    last = re.sub(r"\[[^\[\]]*\]", "", spot.label).rpartition("/")[2]
    return re.sub(r"(#\d+|\(\d+\))(?=$|\?)", "", last) or spot.label


def _state_of(members: Sequence[Spot]) -> str | None:
    """The state of joined nodes: the first of these that any is in."""
    states = {spot.state for spot in members}
    order = ("failed", "waiting", "running", "cancelled", "pending", "succeeded", "skipped")
    return next((state for state in order if state in states), None)


def _listed(drawing: Drawing, width: int) -> list[str]:
    """One line for each node: what a picture cannot show."""
    labels = {spot.id: _text_of(spot, LABEL_MAX) for spot in drawing.spots}
    room = max(map(wide, labels.values()))
    before: dict[str, list[str]] = {spot.id: [] for spot in drawing.spots}
    for source, target in drawing.edges:
        before[target].append(drawing_label(drawing, source))
    lines = []
    for spot in drawing.spots[:_LISTED_MAX]:
        label = labels[spot.id]
        after = f"  ← {', '.join(before[spot.id])}" if before[spot.id] else ""
        lines.append(_shortened(f"{label}{' ' * (room - wide(label)) if after else ''}{after}", width))
    if len(drawing.spots) > _LISTED_MAX:
        lines.append(f"… and {len(drawing.spots) - _LISTED_MAX} more nodes")
    return lines


def drawing_label(drawing: Drawing, node: str) -> str:
    """The label of a node."""
    return next(spot.label for spot in drawing.spots if spot.id == node)


def _text_of(spot: Spot, longest: int) -> str:
    """What stands in the box of a node."""
    state = f"{GLYPHS[spot.state]} " if spot.state in GLYPHS else ""
    kind = f" ({spot.kind})" if spot.kind in ("map", "loop", "workflow") else ""
    safe = "".join(character if character.isprintable() else " " for character in spot.label)
    count = f" ×{spot.count}" if spot.count > 1 else ""
    return f"{state}{_shortened(safe, longest)}{count}{kind}"


def _shortened(text: str, longest: int) -> str:
    if wide(text) <= longest:
        return text
    kept = ""
    for character in text:
        if wide(kept + character) > longest - 1:
            break
        kept += character
    return kept + "…"


def wide(text: str) -> int:
    """How many columns a text takes: East Asian wide characters take two, combining ones none."""
    return sum(0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text)


_LISTED_MAX = 200
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
    critical: bool = False
    before: list[_Item] = field(default_factory=list)
    after: list[_Item] = field(default_factory=list)
    centre: float = 0.0

    @property
    def width(self) -> int:
        return wide(self.text) + 4 if self.text else 1

    @property
    def column(self) -> int:
        return round(self.centre)


class _Layout:
    """Layers of items, their columns, and the lines between them."""

    def __init__(self, drawing: Drawing, longest: int) -> None:
        self._layers = _layers_of(drawing, longest)
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
        corners, flat, side = ("┏┓┗┛", "━", "┃") if item.critical else ("┌┐└┘", "─", "│")
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


def _layers_of(drawing: Drawing, longest: int) -> list[list[_Item]]:
    """The nodes in layers, linked, with a passing item wherever an edge goes through a layer."""
    from networkx import DiGraph, topological_generations

    graph: networkx.DiGraph[str] = DiGraph()
    graph.add_nodes_from(spot.id for spot in drawing.spots)
    graph.add_edges_from(drawing.edges)
    place = {spot.id: index for index, spot in enumerate(drawing.spots)}
    generations = [sorted(generation, key=lambda node: place[node]) for generation in topological_generations(graph)]
    spots = {spot.id: spot for spot in drawing.spots}
    items = {spot.id: _Item(_text_of(spot, longest), spot.id in drawing.critical) for spot in spots.values()}
    layers = [[items[node] for node in generation] for generation in generations]
    level = {node: index for index, generation in enumerate(generations) for node in generation}
    passing: dict[tuple[str, int], _Item] = {}
    for source, target in drawing.edges:
        last = items[source]
        for index in range(level[source] + 1, level[target]):
            if (source, index) not in passing:
                passing[source, index] = _Item("")
                layers[index].append(passing[source, index])
                _link(last, passing[source, index])
            last = passing[source, index]
        _link(last, items[target])
    return layers


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
        least = placed[-1] + (layer[index - 1].width + item.width) / 2 + _GAP if placed else wanted[0]
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
