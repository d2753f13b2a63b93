"""Line charts as SVG, plain enough to be read in any browser: completion against load, service over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLOURS = ("#1f6f8b", "#d1495b", "#66a182", "#edae49", "#5b5f97", "#8d6a9f", "#2e4057", "#b56576", "#6d9dc5", "#8a817c")
_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 40, 50
_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
    'font-family="sans-serif" font-size="12">'
)


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over a common axis: `lines[name]` is a list of (x, y)."""

    title: str
    x_title: str
    y_title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_y: bool = False


def svg(chart: Chart) -> str:
    """The chart as an SVG document. Points that are not finite (or not above 0 on a logarithmic axis) are left out."""
    lines = {name: [point for point in line if _drawable(point, chart.log_y)] for name, line in chart.lines.items()}
    points = [point for line in lines.values() for point in line] or [(0.0, 1.0)]
    across = _Axis.over([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, log=False)
    up = _Axis.over([y for _, y in points] + ([] if chart.log_y else [0.0]), _HEIGHT - _BOTTOM, _TOP, log=chart.log_y)
    parts = [
        _HEAD,
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(chart.title)}</text>',
        *_grid(across, up, chart),
    ]
    for number, (name, line) in enumerate(lines.items()):
        # A long legend is set closer.
        key = _TOP + 10 + number * min(20.0, (_HEIGHT - _TOP - 20) / len(lines))
        parts.extend(_line(name, line, (key, _COLOURS[number % len(_COLOURS)]), across, up))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawable(point: tuple[float, float], log: bool) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1]) and (point[1] > 0 or not log)


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, log: bool) -> _Axis:
        low, high = min(values), max(values)
        if log:
            return cls(
                math.floor(math.log10(low)), max(math.ceil(math.log10(high)), math.floor(math.log10(low)) + 1), start, end, log
            )
        step = nice_step(high - low)
        low = math.floor(low / step) * step
        return cls(low, max(math.ceil(high / step) * step, low + step), start, end, log)

    def at(self, value: float) -> float:
        place = math.log10(value) if self.log else value
        return self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            return [10.0**power for power in range(int(self.low), int(self.high) + 1)]
        step = nice_step(self.high - self.low)
        return [self.low + step * number for number in range(round((self.high - self.low) / step) + 1)]


def nice_step(span: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts the span into 4 to 10 parts; 1 for an empty span. 37 -> 5."""
    if span <= 0:
        return 1.0
    power = math.pow(10, math.floor(math.log10(span / 4)))
    return max(power * factor for factor in (1, 2, 5) if power * factor <= span / 4)


def _grid(across: _Axis, up: _Axis, chart: Chart) -> list[str]:
    parts = []
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for tick in across.ticks():
        x = across.at(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM + 4}" stroke="#666"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:,g}</text>')
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{middle_x:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(chart.x_title)}</text>')
    parts.append(
        f'<text x="16" y="{middle_y:.0f}" text-anchor="middle" transform="rotate(-90 16 {middle_y:.0f})">'
        f"{escape(chart.y_title)}</text>"
    )
    return parts


def _line(name: str, line: Sequence[tuple[float, float]], look: tuple[float, str], across: _Axis, up: _Axis) -> list[str]:
    key, colour = look
    places = [(across.at(x), up.at(y)) for x, y in line]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'] if len(places) > 1 else []
    if len(places) <= 30:
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    left = _WIDTH - _RIGHT + 14
    parts.append(f'<line x1="{left}" x2="{left + 20}" y1="{key:.1f}" y2="{key:.1f}" stroke="{colour}" stroke-width="3"/>')
    parts.append(f'<text x="{left + 26}" y="{key + 4:.1f}">{escape(name)}</text>')
    return parts
