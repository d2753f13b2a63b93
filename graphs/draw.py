"""Draws graphs: as Mermaid text, and as a picture of box characters for the terminal. Pure.

Both take a `Graph` that has not run, or a `Drawing` made of what a journal recorded. A picture is drawn in layers, each
node below everything it needs, with edges that pass a layer going around its boxes. Graphs too large for that are first
folded (elements of a map, then steps of the same name between the same neighbours), then listed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .graph import Graph
from .layout import Layout, layers, wide

PICTURE_NODES_MAX = 60
"""Graphs with more nodes, after folding, are listed instead of drawn."""
LABEL_MAX = 32
LISTED_MAX = 200
"""Lines of a list."""

GLYPHS = {
    "pending": "○", "running": "●", "waiting": "?", "succeeded": "✓", "failed": "✗", "cancelled": "⊘", "skipped": "◌",
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
    def ids(self) -> list[str]:
        return [spot.id for spot in self.spots]

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
        labels = {spot.id: _text_of(spot, longest) for spot in drawing.spots}
        canvas = Layout(labels, drawing.edges, drawing.critical).drawn()
        if max(map(wide, canvas)) <= width:
            return "\n".join(canvas)
    return "\n".join(_listed(drawing, width))


_SHAPES = {
    "step": ("[", "]"), "map": ("[[", "]]"), "branch": ("{", "}"), "loop": ("([", "])"), "workflow": ("[/", "/]"),
}  # fmt: skip
_COLOURS = {
    "succeeded": "fill:#d3f2dc,stroke:#1a7f37,color:#0b3d1c", "failed": "fill:#ffdcd8,stroke:#b42318,color:#5c0f08",
    "running": "fill:#d6ebff,stroke:#0969da,color:#06315f", "waiting": "fill:#f3e0ff,stroke:#8250df,color:#3b1c71",
    "cancelled": "fill:#fff2c9,stroke:#9a6700,color:#4d3400",
    "skipped": "fill:#eeeeee,stroke:#8c959f,color:#57606a,stroke-dasharray:4",
    "pending": "fill:#ffffff,stroke:#8c959f,color:#57606a",
}  # fmt: skip


def _quoted(text: str) -> str:
    """A text in double quotes with what Mermaid would read as its own written as entities."""
    safe = "".join(character if character.isprintable() else " " for character in text)
    return '"' + "".join(f"#{ord(character)};" if character in '"#<>&`\\{}[]|;' else character for character in safe) + '"'


def _label(spot: Spot) -> str:
    marks = f" \N{MULTIPLICATION SIGN}{spot.count}" if spot.count > 1 else ""
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
    # The tests of a loop, `name(2)?test`, are no rounds of their own.
    counts = Counter(parent for node, parent in stands_for.items() if "?" not in node.rpartition(")")[2])
    return _renamed(drawing, stands_for, counts)


def _renamed(drawing: Drawing, stands_for: dict[str, str], counts: Counter[str]) -> Drawing:
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
    """Join steps of the same name until there are none: those with the same needs below the same node, or everywhere those
    in the same layer. Neither can make a circle."""
    while True:
        layer = layers(drawing.ids, drawing.edges) if everywhere else {}
        groups: dict[object, list[Spot]] = {}
        for spot in drawing.spots:
            key: object = spot.id
            if everywhere:
                key = (_family(spot), spot.kind, layer[spot.id])
            elif spot.parent is not None:
                key = (_family(spot), spot.kind, spot.needs, spot.parent)
            groups.setdefault(key, []).append(spot)
        if len(groups) == len(drawing.spots):
            return drawing
        drawing = _joined(drawing, [group for group in groups.values() if len(group) > 1])


def _joined(drawing: Drawing, groups: Sequence[Sequence[Spot]]) -> Drawing:
    """The drawing with each group as its first node."""
    first = {group[0].id: group for group in groups}
    spots = []
    for spot in drawing.spots:
        group = first.get(spot.id)
        if group is not None:
            needs = tuple(need for one in group for need in one.needs)
            count = sum(one.count for one in group)
            spots.append(replace(spot, label=_family(spot), needs=needs, count=count, state=_state_of(group)))
        else:
            spots.append(spot)
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
    for spot in drawing.spots[:LISTED_MAX]:
        label = labels[spot.id]
        after = f"  ← {', '.join(before[spot.id])}" if before[spot.id] else ""
        lines.append(_shortened(f"{label}{' ' * (room - wide(label)) if after else ''}{after}", width))
    if len(drawing.spots) > LISTED_MAX:
        lines.append(f"… and {len(drawing.spots) - LISTED_MAX} more nodes")
    return lines


def drawing_label(drawing: Drawing, node: str) -> str:
    """The label of a node."""
    return next(spot.label for spot in drawing.spots if spot.id == node)


def _text_of(spot: Spot, longest: int) -> str:
    """What stands in the box of a node."""
    state = f"{GLYPHS[spot.state]} " if spot.state in GLYPHS else ""
    kind = f" ({spot.kind})" if spot.kind in ("map", "loop", "workflow") else ""
    safe = "".join(character if character.isprintable() else " " for character in spot.label)
    count = f" \N{MULTIPLICATION SIGN}{spot.count}" if spot.count > 1 else ""
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
