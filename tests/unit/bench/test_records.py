from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.records import Record, record, table, write


def test_a_record_keeps_the_median_and_the_spread() -> None:
    entry = record("overhead", "some_s", [0.3, 0.1, 0.2], "s", target=0.25)
    assert (entry.low, entry.value, entry.high) == (0.1, 0.2, 0.3)


def test_of_a_peer_the_median_is_kept_and_a_peer_without_samples_is_left_out() -> None:
    entry = record("overhead", "some_s", [1.0], "s", peers={"one": [1.0, 9.0, 2.0], "none": []})
    assert entry.peers == {"one": 2.0}


@pytest.mark.parametrize(
    ("value", "better", "target", "met"),
    [
        (0.25, "lower", 0.25, True),  # the target itself is still met
        (0.26, "lower", 0.25, False),
        (5.0, "higher", 5.0, True),
        (4.9, "higher", 5.0, False),
        (4.9, "higher", None, None),  # nothing was aimed at
    ],
)
def test_a_target_is_a_limit_on_the_right_side(value: float, better: str, target: float | None, met: bool | None) -> None:
    assert Record("b", "f", value, value, value, "s", better, target).met is met  # type: ignore[arg-type]  # literal from a table


def test_a_figure_without_repeats_is_an_error() -> None:
    with pytest.raises(ValueError, match="some_s"):
        record("overhead", "some_s", [], "s")


def test_the_file_is_a_list_of_records_with_every_field(tmp_path: Path) -> None:
    file = tmp_path / "records.json"
    write([record("overhead", "some_s", [0.19, 0.17, 0.24], "s", target=0.25, peers={"floor": [0.02]})], file)
    assert json.loads(file.read_text()) == [
        {
            "bench": "overhead",
            "figure": "some_s",
            "value": 0.19,
            "low": 0.17,
            "high": 0.24,
            "unit": "s",
            "better": "lower",
            "target": 0.25,
            "peers": {"floor": 0.02},
        }
    ]


def test_the_table_says_which_target_was_missed() -> None:
    assert "MISSED" in table([record("overhead", "some_s", [2.0], "s", target=1.0)])
