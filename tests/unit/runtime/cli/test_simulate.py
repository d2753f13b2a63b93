"""`fairlead simulate`: tables, JSON, pictures, and what is said about wishes that cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from fairlead.runtime.cli.app import app


def simulate(*options: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *options])


@pytest.fixture
def trace(tmp_path: Path) -> str:
    turn = {"prompt_tokens": 2000, "new_prompt_tokens": 500, "output_tokens": 20, "tool_s": 3.0, "gap_kind": "tool"}
    lines = [
        {"program_id": f"p{n}", "arrival_s": n, "turns": [{**turn, "new_prompt_tokens": 2000}, turn, turn]} for n in range(6)
    ]
    file = tmp_path / "small.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def test_policies_stand_side_by_side(trace: str) -> None:
    result = simulate("--trace", trace, "--policy", "vllm,program-fcfs,program-fcfs@2")
    assert result.exit_code == 0, result.output
    assert "program-fcfs@2" in result.stdout and "mean / vllm" in result.stdout and "over bound" in result.stdout


def test_the_document_has_every_figure_of_every_seed(trace: str) -> None:
    result = simulate(
        "--trace", trace, "--policy", "vllm", "--concurrency", "2", "--seeds", "2", "--tenants", "a=2,b=1", "--json"
    )
    document = json.loads(result.stdout)
    assert document["version"] == 1
    [run] = document["runs"]
    assert [outcome["programs"] for outcome in run["arms"]["vllm"]] == [6, 6]
    assert set(run["arms"]["vllm"][0]["service"]) == {"a", "b"}


@pytest.mark.parametrize(("load", "text"), [("0.5", "Service over time"), ("0.5,1.0", "Completion against load")])
def test_a_picture_is_drawn(trace: str, tmp_path: Path, load: str, text: str) -> None:
    picture = tmp_path / "picture.svg"
    result = simulate("--trace", trace, "--policy", "vllm", "--load", load, "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert text in picture.read_text()
    ElementTree.parse(picture)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "one workload is needed"),
        (("--trace", "nowhere"), 3, "there is no trace 'nowhere'"),
        (("--trace", "swe-bench"), 2, "has no arrival times"),
        (("--trace", "swe-bench", "--load", "1", "--concurrency", "2"), 2, "not both"),
        (("--trace", "swe-bench", "--load", "fast"), 2, "--load 'fast': not a number"),
        (("--trace", "swe-bench", "--load", "0"), 2, "more than 0 programs per second"),
        (("--trace", "swe-bench", "--load", "1", "--policy", "best"), 2, "no scheduling policy 'best'"),
        (("--trace", "swe-bench", "--load", "1", "--policy", "vllm,vllm"), 2, "names of different policies"),
        (("--trace", "swe-bench", "--load", "1", "--policy", "vllm@few"), 2, "a number of engines must follow the @"),
        (("--trace", "swe-bench", "--load", "1", "--hardware", "abacus"), 2, "no engine profile 'abacus'"),
        (("--trace", "swe-bench", "--load", "1", "--level", "magic"), 2, "--level 'magic' is not a level"),
        (("--trace", "swe-bench", "--load", "1", "--engines", "0"), 2, "at least 1 engine"),
        (("--trace", "swe-bench", "--load", "1", "--kv-tokens", "1000"), 2, "does not fit engine 'engine-0'"),
        (("--trace", "swe-bench", "--load", "1", "--tenants", "a=0"), 2, "a name and a weight above 0"),
        (("--trace", "swe-bench", "--load", "1", "--seeds", "0"), 2, "--seeds 0: must be at least 1"),
        (("--trace", "swe-bench", "--load", "1", "--scale", "-1"), 2, "scale -1"),
        (("--journal", "--db", "sqlite:///nowhere.db"), 3, "nowhere.db"),
    ],
)
def test_a_wish_that_cannot_be_had_is_told(options: tuple[str, ...], code: int, message: str) -> None:
    result = simulate(*options)
    assert (result.exit_code, message in result.output) == (code, True), result.output
