"""Comparisons over seeds, their tables and pictures."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from fairlead.errors import InputError
from fairlead.runtime.simulation.compare import Arm, Interval, Setting, compare, interval, markdown, rows
from fairlead.runtime.simulation.engines import engine_pool
from fairlead.runtime.simulation.plots import Chart, nice_step, svg
from tests.unit.runtime.simulation.making import TICK
from tests.unit.runtime.simulation.policies import first_come, small_load

ONE = Arm("one", first_come, engine_pool(1, TICK))
TWO = Arm("two", first_come, engine_pool(2, TICK))


def setting(*seeds: int) -> Setting:
    return Setting(small_load, (ONE, TWO), seeds, curves=4)


def test_arms_meet_on_the_same_programs() -> None:
    found = compare(setting(1, 2, 3), timed=False)
    assert found.figure("one", lambda r: r.programs) == [12, 12, 12]
    ratio = found.ratio("two", "one", lambda r: r.completion.mean)
    assert ratio.low <= ratio.mean <= ratio.high < 1.0
    assert found.ratio("one", "one", lambda r: r.completion.mean) == Interval(1.0, 1.0, 1.0)


def test_processes_change_nothing() -> None:
    assert compare(setting(1, 2), processes=2, timed=False).as_json() == compare(setting(1, 2), timed=False).as_json()


def test_the_table_has_a_line_for_each_policy_and_no_empty_columns() -> None:
    found = compare(setting(1))
    titles, one, two = rows(found, "one")
    assert (one[0], two[0], titles[-1]) == ("one", "two", "mean / one")
    assert one[-1] == "1.000 (1.000 to 1.000)"
    assert "SLO" not in titles and "decision us" in titles
    assert len({len(titles), len(one), len(two)}) == 1
    assert markdown([titles, one, two]).count("\n") == 3
    json.dumps(found.as_json())


def test_what_an_arm_needs_is_marked() -> None:
    oracle = Arm("seer", first_come, engine_pool(1, TICK, level="session"), clairvoyant=True)
    assert rows(compare(Setting(small_load, (oracle,), (1,))))[1][0] == "seer [foresight, session]"


def test_service_over_time_never_falls() -> None:
    [outcome] = compare(setting(1)).outcomes["one"]
    assert len(outcome.service) == 4
    totals = [totals["a"] for _, totals in outcome.service]
    assert totals == sorted(totals) and totals[-1] == 6 * (100 + 5 + 150 + 5)


def test_intervals_are_of_the_mean_and_repeat() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = interval(values)
    assert found == interval(values)
    assert 1.0 < found.low < found.mean == 3.0 < found.high < 5.0
    assert interval([7.0]) == Interval(7.0, 7.0, 7.0)


def test_arms_need_names_of_their_own() -> None:
    with pytest.raises(InputError, match="different names"):
        Setting(small_load, (ONE, ONE), (1,))
    with pytest.raises(InputError, match="one seed"):
        Setting(small_load, (ONE,), ())


@pytest.mark.parametrize("log", [False, True])
def test_a_chart_is_a_picture_with_every_line(log: bool) -> None:
    lines = {"a <b>": [(0.0, 1.0), (1.0, 300.0), (2.0, float("inf"))], "c": [(0.5, 20.0)], "none": []}
    picture = svg(Chart("title & more", "x", "y", lines, log_y=log))
    root = ElementTree.fromstring(picture)
    texts = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"title & more", "x", "y", "a <b>", "c", "none"} <= texts
    drawn = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(drawn) == 1 and len(drawn[0].attrib["points"].split()) == 2


def test_a_chart_without_points_is_still_a_picture() -> None:
    ElementTree.fromstring(svg(Chart("t", "x", "y", {"flat": [(1.0, 0.0), (2.0, 0.0)]})))
    ElementTree.fromstring(svg(Chart("t", "x", "y", {})))


@pytest.mark.parametrize(("span", "step"), [(37, 5), (1, 0.2), (4, 1), (0, 1), (1000, 200), (0.07, 0.01)])
def test_steps_are_round(span: float, step: float) -> None:
    assert nice_step(span) == pytest.approx(step)
