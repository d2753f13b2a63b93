"""Draws graphs: as Mermaid text, and as a picture of box characters for the terminal. Pure.

Both take a `Graph` that has not run, or a `Drawing` made of what a journal recorded. A picture is drawn in layers, each
node below everything it needs, with edges that pass a layer going around its boxes. Graphs too large for that are first
folded (elements of a map, then steps of the same name between the same neighbours), then listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .graph import Graph

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
    names = {spot.id: f"n{index}" for index, spot in enumerate(drawing.spots)}
    lines = ["---", f"title: {_quoted(drawing.title)}", "---", "flowchart TD"]
    for spot in drawing.spots:
        before, after = _SHAPES.get(spot.kind, _SHAPES["step"])
        state = f":::{spot.state}" if spot.state in _COLOURS else ""
        lines.append(f"  {names[spot.id]}{before}{_quoted(_label(spot))}{after}{state}")
    bold = []
    for index, (source, target) in enumerate(drawing.edges):
        spot = next(spot for spot in drawing.spots if spot.id == target)
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
        if max(map(len, canvas)) <= width:
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
    """The drawing with elements of maps and rounds of loops folded into one node each, and if need be more."""
    folded = _fold(drawing, lambda spot: (spot.parent, _family(spot)) if spot.parent is not None and not spot.ways else None)
    if len(folded.spots) <= PICTURE_NODES_MAX:
        return folded
    after: dict[str, list[str]] = {spot.id: [] for spot in folded.spots}
    for source, target in folded.edges:
        after[source].append(target)
    return _fold(folded, lambda spot: (_family(spot), spot.needs, spot.parent, tuple(after[spot.id])))


def _family(spot: Spot) -> str:
    """The declared name in `name#2`, `name[3]`, `name(2)` and `name(2)?test`, without the path before it."""
    last = spot.label.rpartition("/")[2]
    return re.sub(r"(#\d+|\[[^\[\]]*\]|\(\d+\))(?=$|\?)", "", last)


def _fold(drawing: Drawing, key_of: _KeyOf) -> Drawing:
    """Join the nodes that have the same key; None keeps a node for itself. A node with others below it stays too."""
    has_others = {spot.parent for spot in drawing.spots} | {need for spot in drawing.spots for need in spot.needs}
    groups: dict[object, list[Spot]] = {}
    for spot in drawing.spots:
        key = key_of(spot)
        groups.setdefault((key, spot.kind) if key is not None else spot.id, []).append(spot)
    stands_for: dict[str, str] = {}
    for key, members in groups.items():
        alone = len(members) == 1
        for spot in members:
            stands_for[spot.id] = spot.id if alone else f"{_family(members[0])}*{members[0].id}"
    del has_others
    made: dict[str, Spot] = {}
    for members in groups.values():
        first = members[0]
        name = stands_for[first.id]
        needs = dict.fromkeys(stands_for.get(need, need) for spot in members for need in spot.needs)
        parent = stands_for.get(first.parent, first.parent) if first.parent is not None else None
        one = replace(first, needs=tuple(need for need in needs if need != name), parent=parent if parent != name else None)
        if len(members) > 1:
            count = sum(spot.count for spot in members)
            one = replace(one, id=name, label=_family(first), count=count, state=_state_of(members))
        made[name] = one
    critical = frozenset(stands_for[node] for node in drawing.critical if node in stands_for)
    return Drawing(drawing.title, tuple(made.values()), critical)


def _state_of(members: Sequence[Spot]) -> str | None:
    """The state of a fold: the first of these that any member is in."""
    states = {spot.state for spot in members}
    order = ("failed", "waiting", "running", "cancelled", "pending", "succeeded", "skipped")
    return next((state for state in order if state in states), None)
