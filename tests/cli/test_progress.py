"""The folded state and the live tree, without a terminal: events in, lines out."""

from __future__ import annotations

import pytest

from fairlead.encoding import Json, encode
from fairlead.runtime.cli.live import ascii_only, render
from fairlead.runtime.cli.messages import Failed, Happened, Message, Outcome, Planned, Printed, Started, from_line, to_line
from fairlead.runtime.cli.plain import PlainProgress
from fairlead.runtime.cli.progress import RECENT_MAX, Progress, total
from fairlead.runtime.cli.terminal import clean, one_line, seconds, tokens
from fairlead.runtime.store.records import EventRecord


class Story:
    """Events of a program, numbered and timed."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.progress.started("p", "w")
        self._seq = 0

    def tell(self, what: str, node: str | None = None, /, at: float = 0.0, of: str = "p", **data: Json) -> EventRecord:
        self._seq += 1
        event = EventRecord(of, self._seq, at, what, node, encode(data).decode())
        self.progress.add(event)
        return event

    def lines(self, now: float = 0.0, height: int = 30, width: int = 120) -> list[str]:
        return [line.plain for line in render(self.progress, now, height=height, width=width)]


def test_a_step_shows_its_turn_its_model_call_and_its_tools() -> None:
    story = Story()
    story.tell("program.started", workflow="w")
    story.tell("step.started", "review", step="review", attempt=2, kind="step", parent=None)
    story.tell("call.started", "review", call=0)
    story.tell("call.succeeded", "review", call=0, input_tokens=100, cached_tokens=64, output_tokens=5)
    story.tell("tool.started", "review", call=1, tool="lint", background=True)
    story.tell("call.started", "review", at=3, call=2)
    assert story.lines(now=5.0) == [
        "● w  running  5.0 s  0 done · 1 running · 1 calls · 100 in (64 cached) 5 out",
        "└─ ● review  5.0 s · attempt 2 · turn 2 · model 2.0 s · ⧖ lint 5.0 s · 100 in (64 cached) 5 out",
    ]


def test_thousands_of_elements_are_counted_and_few_are_shown() -> None:
    story = Story()
    story.tell("program.started", workflow="w")
    story.tell("step.started", "m", kind="map", attempt=1, parent=None)
    for number in range(5000):
        story.tell("step.started", f"m[{number}]", kind="step", attempt=1, parent="m")
        if number < 4950:
            story.tell("step.failed" if number == 7 else "step.succeeded", f"m[{number}]", error="bad" if number == 7 else "")
    lines = story.lines(height=20)
    assert len(lines) <= 20
    assert "4949 done, 1 failed, 50 running" in lines[1]
    assert any("✗ m[7]" in line and "bad" in line for line in lines)
    assert any("more running" in line for line in lines)
    place = story.progress.programs["p"].active["m"]
    assert len(place.recent) == RECENT_MAX
    assert len(place.active) == 50


def test_what_is_spent_below_is_counted_once() -> None:
    story = Story()
    story.tell("program.started", workflow="w")
    story.tell("step.started", "child", kind="workflow", attempt=1, parent=None, program="p.1")
    story.tell("program.started", of="p.1", workflow="inner", parent="p")
    story.tell("step.started", "s", of="p.1", kind="step", attempt=1, parent=None)
    story.tell("call.started", "s", of="p.1", call=0)
    story.tell("call.succeeded", "s", of="p.1", call=0, input_tokens=10, output_tokens=1)
    assert "└─ ● s" in "\n".join(story.lines())
    for _ in range(2):
        assert total(story.progress.programs["p"]).input_tokens == 10
    story.tell("step.succeeded", "s", of="p.1")
    story.tell("program.succeeded", of="p.1")
    story.tell("step.succeeded", "child")
    assert total(story.progress.programs["p"]).input_tokens == 10


def test_steps_to_come_are_shown() -> None:
    story = Story()
    story.progress.planned("p", [["a", "step"], ["b", "map"], ["when", "branch"]])
    story.tell("program.started", workflow="w")
    story.tell("step.started", "a", kind="step", attempt=1, parent=None)
    assert [line[3:] for line in story.lines()[1:]] == ["● a  0 ms", "○ b (map)"]


@pytest.mark.parametrize("height", range(1, 12))
def test_the_tree_never_has_more_lines_than_there_is_room(height: int) -> None:
    story = Story()
    story.tell("program.started", workflow="w")
    for outer in range(6):
        story.tell("step.started", f"m{outer}", kind="map", attempt=1, parent=None)
        for inner in range(6):
            story.tell("step.started", f"m{outer}[{inner}]", kind="step", attempt=1, parent=f"m{outer}")
    assert len(story.lines(height=height)) <= height


def test_lines_are_cut_at_the_width() -> None:
    story = Story()
    story.tell("program.started", workflow="w" * 300)
    story.tell("step.started", "n" * 300, kind="step", attempt=1, parent=None)
    assert max(map(len, story.lines(width=40))) <= 40


def test_steps_added_by_a_later_attempt_hang_on_their_step() -> None:
    story = Story()
    story.tell("program.started", workflow="w")
    story.tell("step.started", "a", kind="step", attempt=2, parent=None)
    story.tell("step.started", "a@2/b", kind="step", attempt=1, parent="a@2")
    assert list(story.progress.programs["p"].active["a"].active) == ["a@2/b"]


def test_plain_lines_say_what_happened() -> None:
    plain = PlainProgress()
    story = Story()
    lines = [
        plain.line(story.tell("program.started", at=10, workflow="w")),
        plain.line(story.tell("step.started", "a", at=10, attempt=1)),
        plain.line(story.tell("call.started", "a", at=10, call=0)),
        plain.line(story.tell("step.retrying", "a", at=11, error="bad\x1b[31m\nluck", delay_s=1)),
        plain.line(story.tell("step.started", "a", at=12, attempt=2)),
        plain.line(story.tell("step.succeeded", "a", at=14)),
    ]
    assert lines == [
        "    0.00s  program started: w (p)",
        "    0.00s  a started",
        None,
        "    1.00s  a retrying: bad luck",
        "    2.00s  a started (attempt 2)",
        "    4.00s  a succeeded (2.0 s)",
    ]


@pytest.mark.parametrize(
    "message",
    [
        Started("p", "w", True, 7),
        Planned("p", [["a", "map"]]),
        Happened(EventRecord("p", 1, 2.0, "step.started", "a", "{}")),
        Printed("é\n"),
        Outcome("p", "w", "failed", error={"message": "x"}, exit=1),
        Failed("x", None, 2),
    ],
)
def test_messages_survive_the_pipe(message: Message) -> None:
    line = to_line(message)
    assert line.count(b"\n") == 1
    assert from_line(line) == message


def test_texts_from_outside_cannot_move_the_cursor() -> None:
    assert clean("a\x1b[2Jb\x1b]0;title\x07c\x9bd\re\x00") == "abcde"
    assert one_line("a\n b\t c", 4) == "a b…"


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert ascii_only("├─ ✓ naïve · 1 s").isascii()


@pytest.mark.parametrize(("value", "shown"), [(0.0421, "42 ms"), (12.34, "12.3 s"), (65, "1 min 05 s"), (7320, "2 h 02 min")])
def test_durations(value: float, shown: str) -> None:
    assert seconds(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(None, "?"), (9999, "9999"), (12_345, "12.3k"), (3_100_000, "3.1M")])
def test_token_counts(value: int | None, shown: str) -> None:
    assert tokens(value) == shown


def test_results_of_an_earlier_run_are_counted() -> None:
    story = Story()
    story.progress.planned("p", [["b", "step"]], kept=7)
    story.tell("program.resumed", workflow="w")
    assert "7 kept from before" in story.lines()[0]
    assert story.lines()[1] == "└─ ○ b"
