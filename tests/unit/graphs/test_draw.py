"""Drawings: every node and edge is there, nothing is wider than asked, and labels cannot break the Mermaid text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead import Handle, loop, step, when, workflow
from fairlead.graphs.draw import PICTURE_NODES_MAX, Drawing, Spot, mermaid, picture, recorded
from fairlead.graphs.layout import wide


@step
def one() -> list[int]:
    return [1]


@step
def grow(n: int) -> int:
    return n + 1


@step
def add(numbers: list[int]) -> int:
    return sum(numbers)


@step
def big(n: int) -> bool:
    return n > 3


@workflow
def everything() -> Handle[int]:
    numbers = grow.map(one().value)
    total = add(numbers.value)
    chosen = when(big(total.value), then=lambda: grow(total.value), otherwise=lambda: loop(grow, total, until=big, limit=3))
    return add([chosen.value, total.value])


def chain(*names: str) -> Drawing:
    return Drawing("w", tuple(Spot(name, name, needs=(names[index - 1],) if index else ()) for index, name in enumerate(names)))


def test_a_chain_is_drawn_from_top_to_bottom() -> None:
    assert picture(chain("a", "bc")).splitlines() == [
        " ┌───┐",
        " │ a │",
        " └───┘",
        "   ▼",
        "┌────┐",
        "│ bc │",
        "└────┘",
    ]


def test_edges_of_one_source_and_to_one_target_share_a_line() -> None:
    spots = (Spot("s", "s"), Spot("a", "a", needs=("s",)), Spot("b", "b", needs=("s",)), Spot("t", "t", needs=("a", "b")))
    assert picture(Drawing("w", spots)).splitlines() == [
        "    ┌───┐",
        "    │ s │",
        "    └───┘",
        "  ┌───┴───┐",
        "  ▼       ▼",
        "┌───┐   ┌───┐",
        "│ a │   │ b │",
        "└───┘   └───┘",
        "  └───┬───┘",
        "      ▼",
        "    ┌───┐",
        "    │ t │",
        "    └───┘",
    ]


def test_an_edge_passes_beside_the_boxes_of_a_layer() -> None:
    spots = (Spot("s", "s"), Spot("m", "m", needs=("s",)), Spot("t", "t", needs=("s", "m")))
    middle = picture(Drawing("w", spots)).splitlines()[5:8]
    assert all(line.count("│") + line.count("┌") + line.count("└") >= 2 for line in middle)


def test_mermaid_has_shapes_ways_and_the_critical_path() -> None:
    text = mermaid(everything.graph())
    assert '[["grow"]]' in text
    assert '{"when"}' in text
    assert '(["grow#35;3"])' in text
    assert "-->|yes|" in text
    assert "-->|no|" in text
    assert "class n0," in text
    assert "linkStyle 0," in text


def test_every_step_of_a_declared_graph_is_in_its_picture() -> None:
    shown = picture(everything.graph())
    for label in ("one", "grow (map)", "big", "grow#2", "grow#3 (loop)", "when", "add#2"):
        assert f" {label} " in shown
    assert "┏" in shown  # the critical path has heavy frames


def test_states_are_signs_and_classes() -> None:
    drawing = recorded("w", [Spot("a", "a", state="succeeded"), Spot("b", "b", needs=("a",), state="failed")])
    assert "✓ a" in picture(drawing)
    assert "✗ b" in picture(drawing)
    assert 'n1["b"]:::failed' in mermaid(drawing)


def test_elements_and_rounds_are_counted_in_their_node() -> None:
    rows = [Spot("m", "m", "map")] + [Spot(f"m[{index}]", f"m[{index}]", parent="m") for index in range(500)]
    rows += [Spot("l", "l", "loop", needs=("m",)), *(Spot(f"l({n})", f"l({n})", parent="l") for n in (1, 2))]
    rows += [Spot(f"l({n})?t", f"l({n})?t", parent="l", needs=(f"l({n})",)) for n in (1, 2)]
    drawing = recorded("w", rows)
    assert "m \N{MULTIPLICATION SIGN}500 (map)" in picture(drawing)
    assert "l \N{MULTIPLICATION SIGN}2 (loop)" in picture(drawing)
    assert mermaid(drawing).count("-->") == 1


def test_what_elements_added_hangs_on_their_map_and_is_joined() -> None:
    rows = [Spot("m", "m", "map"), *(Spot(f"m[{n}]", f"m[{n}]", parent="m") for n in range(3))]
    rows += [
        Spot(f"m[{n}]/sub", f"m[{n}]/sub", parent=f"m[{n}]@2", state="failed" if n == 1 else "succeeded") for n in range(3)
    ]
    drawing = recorded("w", rows)
    assert "✗ sub \N{MULTIPLICATION SIGN}3" in picture(drawing)
    assert "-.->" in mermaid(drawing)


def test_large_graphs_are_joined_and_then_listed() -> None:
    wide_one = Drawing("w", (Spot("s", "s"), *(Spot(f"x#{n}", f"x#{n}", needs=("s",)) for n in range(2, 300))))
    assert "x \N{MULTIPLICATION SIGN}298" in picture(wide_one)
    names = [f"step{n:03d}x" for n in range(PICTURE_NODES_MAX + 5)]
    lines = picture(chain(*names)).splitlines()
    assert len(lines) == len(names)
    assert lines[1].split() == [names[1], "←", names[0]]


def test_joined_steps_need_what_any_of_them_needed() -> None:
    first = [Spot("a", "a"), Spot("b", "b")]
    second = [Spot(f"x#{n}", f"x#{n}", needs=("a" if n % 2 else "b",)) for n in range(2, 100)]
    assert mermaid(Drawing("w", (*first, *second))).count(" --> ") == 2


def test_an_empty_graph_says_so() -> None:
    assert picture(Drawing("w", ())) == "(no steps)"


@pytest.mark.parametrize("label", ['a"]; click n0 call x()', "<script>", "a`b`", "a\nb", "end", "a#b", "日本"])
def test_labels_cannot_end_their_quotes(label: str) -> None:
    line = next(line for line in mermaid(Drawing("w", (Spot(label, label),))).splitlines() if line.startswith("  n0"))
    assert re.fullmatch(r'  n0\["[^"\n<>`]*"\]', line)


@st.composite
def drawings(draw: st.DrawFn) -> Drawing:
    spots: list[Spot] = []
    for index in range(draw(st.integers(1, 14))):
        needs = draw(st.lists(st.sampled_from([spot.id for spot in spots]), unique=True, max_size=4)) if spots else []
        label = draw(st.text(alphabet="abcé日", min_size=1, max_size=6))
        spots.append(Spot(f"n{index}", f"{label}{index}", needs=tuple(needs)))
    return Drawing("w", tuple(spots))


@given(drawings(), st.integers(40, 160))
def test_pictures_fit_and_show_every_node(drawing: Drawing, width: int) -> None:
    shown = picture(drawing, width)
    assert max(map(wide, shown.splitlines())) <= width
    for spot in drawing.spots:
        assert spot.label in shown


@given(drawings())
def test_mermaid_has_every_edge_once(drawing: Drawing) -> None:
    names = re.findall(r"^  (n\d+)\[", mermaid(drawing), re.MULTILINE)
    edges = re.findall(r"^  (n\d+) --> (n\d+)$", mermaid(drawing), re.MULTILINE)
    ids = {name: drawing.spots[index].id for index, name in enumerate(names)}
    assert sorted((ids[source], ids[target]) for source, target in edges) == sorted(drawing.edges)
