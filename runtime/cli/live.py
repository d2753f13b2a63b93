"""Draws the live tree from the folded state: lines of styled text, as many as fit. Pure but for rich's `Text`.

What goes on comes first, then failures, then the last few that ended; the rest is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.text import Text

from .progress import Place, Progress, Spending, total
from .terminal import counted, one_line, seconds, tokens

GLYPHS = {
    "pending": ("○", "dim"),
    "accepted": ("○", "dim"),
    "queued": ("○", "dim"),
    "started": ("●", "cyan"),
    "running": ("●", "cyan"),
    "retrying": ("↻", "yellow"),
    "fallback": ("↻", "yellow"),
    "waiting": ("?", "magenta"),
    "parked": ("‖", "yellow"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("⊘", "yellow"),
    "timed_out": ("⊘", "yellow"),
    "skipped": ("◌", "dim"),
}
_ASCII = str.maketrans(
    {
        "○": ".", "●": "*", "✓": "+", "✗": "x", "⊘": "!", "◌": "-", "‖": "=", "↻": "~", "├": "|", "└": "`", "│": "|",
        "─": "-", "…": "~",
        "·": "-", "⧖": "&",
    }
)  # fmt: skip
ENDED_SHOWN = 4
"""Ended steps shown in one place, when there is room."""
LISTED_MAX = 10
"""A place with no more steps than this shows all of them."""


def glyph(state: str) -> tuple[str, str]:
    """The sign of a state, and its style."""
    return GLYPHS.get(state, ("·", ""))


def ascii_only(text: str) -> str:
    """The same for terminals that cannot show more."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


@dataclass(slots=True)
class _Line:
    place: Place | None
    text: str
    below: list[_Line] = field(default_factory=list)


def render(progress: Progress, now: float, *, height: int, width: int) -> list[Text]:
    """The tree of all programs in at most `height` lines of at most `width` columns."""
    running = [place for place in progress.programs.values() if place.ended_at is None]
    ended = [place for place in progress.programs.values() if place.ended_at is not None]
    shown = (
        [*ended[-max(0, height // 4 - len(running)) :], *running]
        if len(progress.programs) > height // 4
        else [*ended, *running]
    )
    lines: list[Text] = []
    for index, place in enumerate(shown):
        room = max(1, (height - len(lines)) // (len(shown) - index))
        if len(lines) >= height:
            break
        lines.append(_program_line(place, now, width))
        below = _below(place, room - 1)
        lines += _drawn(below, "", now, width)
    hidden = len(progress.programs) - len(shown)
    if hidden > 0:
        lines.append(Text(f"… {counted(hidden, 'more program')}", "dim"))
    return lines[:height]


def _program_line(place: Place, now: float, width: int) -> Text:
    sign, style = glyph(place.state)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{sign} ", style)
    text.append(place.label, "bold")
    text.append(f"  {place.state.replace('_', ' ')}", style)
    if place.since is not None:
        text.append(f"  {seconds((place.ended_at or now) - place.since)}")
    done, *otherwise = _ended_below(place)
    parts = [done, f"{len(place.active)} running", *otherwise]
    if place.kept:
        parts.append(f"{place.kept} kept from before")
    spent = spending(total(place))
    text.append("  " + " · ".join([*parts, *spent]), "dim")
    text.truncate(width, overflow="ellipsis")
    return text


def _below(place: Place, room: int) -> list[_Line]:
    """The lines under a place, at most `room`."""
    if room <= 0 or not (place.active or place.ended or place.pending):
        return []
    active = list(place.active.values())
    everything = sorted([*place.recent, *place.failures, *active], key=lambda item: item.order)
    if len(everything) + len(place.pending) <= min(LISTED_MAX, room) and place.ended_count <= len(place.recent) + len(
        place.failures
    ):
        return _with_nested([*everything, *place.pending.values()], room)
    return _summary(place, active, room)


def _summary(place: Place, active: list[Place], room: int) -> list[_Line]:
    failures = place.failures[: max(1, room // 4)] if place.failures else []
    ended_room = max(0, min(ENDED_SHOWN, room - min(len(active), room // 2) - len(failures) - 2))
    recent = list(place.recent)[-ended_room:] if ended_room else []
    hidden_ended = place.ended_count - len(recent) - len(failures)
    active_room = max(1, room - len(failures) - len(recent) - 2)
    lines = [_Line(None, f"… {hidden_ended} more ended")] if hidden_ended > 0 else []
    chosen = sorted([*recent, *failures, *active[:active_room]], key=lambda item: item.order)
    lines += _with_nested(chosen, room - len(lines) - 1)
    rest = []
    if len(active) > active_room:
        rest.append(f"{len(active) - active_room} more running")
    if place.pending:
        rest.append(f"{len(place.pending)} to come")
    if rest:
        lines.append(_Line(None, "… " + ", ".join(rest)))
    return lines


def _with_nested(places: list[Place], room: int) -> list[_Line]:
    """One line each, and what is left of the room for what goes on below the active ones: the small ones first, which
    leave more to the others."""
    lines = [_Line(place, "") for place in places]
    nested = [line for line in lines if line.place is not None and _goes_on_below(line.place)]
    spare = room - len(lines)
    for index, line in enumerate(sorted(nested, key=lambda line: _size(line.place))):
        share = spare // (len(nested) - index)
        assert line.place is not None
        line.below = _below(line.place, share)
        spare -= _height(line.below)
    return lines


def _goes_on_below(place: Place) -> bool:
    return place.state in ("running", "waiting") and bool(place.active or place.ended)


def _size(place: Place | None) -> int:
    return place.ended_count + len(place.active) if place is not None else 0


def _height(lines: list[_Line]) -> int:
    return sum(1 + _height(line.below) for line in lines)


def _drawn(lines: list[_Line], indent: str, now: float, width: int) -> list[Text]:
    drawn: list[Text] = []
    for index, line in enumerate(lines):
        last = index == len(lines) - 1
        text = Text(indent + ("└─ " if last else "├─ "), "dim", no_wrap=True, overflow="ellipsis")
        text.append(Text(line.text, "dim") if line.place is None else _place_text(line.place, now))
        text.truncate(width, overflow="ellipsis")
        drawn.append(text)
        drawn += _drawn(line.below, indent + ("   " if last else "│  "), now, width)
    return drawn


def _place_text(place: Place, now: float) -> Text:
    sign, style = glyph(place.state)
    text = Text(no_wrap=True, end="", style="not dim")
    text.append(f"{sign} ", style)
    text.append(one_line(place.label, 48), "" if place.state != "pending" else "dim")
    if place.kind not in ("step", "program"):
        text.append(f" ({place.kind})", "dim")
    parts = _now_parts(place, now) if place.ended_at is None else _ended_parts(place)
    if parts:
        text.append("  " + " · ".join(parts), "dim")
    if place.note:
        text.append("  " + one_line(place.note), style if place.state in ("failed", "waiting", "retrying") else "yellow")
    return text


def _now_parts(place: Place, now: float) -> list[str]:
    parts = [] if place.since is None else [seconds(max(0.0, now - place.since))]
    if place.attempt > 1:
        parts.append(f"attempt {place.attempt}")
    if place.active or place.ended:
        parts.append(", ".join([*_ended_below(place), f"{len(place.active)} running"]))
    if place.turns:
        parts.append(f"turn {place.turns}")
    if place.calls:
        waiting = f"model {seconds(max(0.0, now - min(place.calls.values())))}"
        parts.append(waiting if len(place.calls) == 1 else f"{waiting}, {len(place.calls)} calls")
    tools = sorted(place.tools.values(), key=lambda wait: wait.since)
    parts += [
        f"{'⧖ ' if wait.background else ''}{one_line(wait.tool, 32)} {seconds(max(0.0, now - wait.since))}"
        for wait in tools[:3]
    ]
    if len(tools) > 3:
        parts.append(f"{len(tools) - 3} more tools")
    return parts + token_parts(total(place))


def _ended_parts(place: Place) -> list[str]:
    parts = [] if place.since is None or place.ended_at is None else [seconds(place.ended_at - place.since)]
    if place.ended:
        parts.append(", ".join(_ended_below(place)))
    if place.turns:
        parts.append(counted(place.turns, "turn"))
    return parts + token_parts(place.spent)


def _ended_below(place: Place) -> list[str]:
    """`12 done`, and how many ended otherwise."""
    others = [f"{count} {state.replace('_', ' ')}" for state, count in place.ended.items() if state != "succeeded"]
    return [f"{place.ended.get('succeeded', 0)} done", *others]


def token_parts(spent: Spending) -> list[str]:
    """`3.1k in (2.0k cached) 220 out`."""
    if not spent.input_tokens and not spent.output_tokens:
        return []
    cached = f" ({tokens(spent.cached_tokens)} cached)" if spent.cached_tokens else ""
    return [f"{tokens(spent.input_tokens)} in{cached} {tokens(spent.output_tokens)} out"]


def spending(spent: Spending) -> list[str]:
    """Calls, tools and tokens for the line of a program."""
    parts = [f"{spent.calls} calls"] if spent.calls else []
    if spent.replayed:
        parts.append(f"{spent.replayed} replayed")
    if spent.tools:
        parts.append(f"{spent.tools} tools")
    return parts + token_parts(spent)
