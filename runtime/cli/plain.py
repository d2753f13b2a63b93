"""One line for each event worth a line, for pipes, logs and terminals that cannot redraw. Pure."""

from __future__ import annotations

from ...encoding import Json, decode
from ..store.records import EventRecord
from .terminal import one_line, seconds, tokens


class PlainProgress:
    """Turns events into lines. Keeps when steps and programs started, to say how long they took."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._since: dict[tuple[str, str], float] = {}

    def line(self, event: EventRecord) -> str | None:
        """The line for an event, or None."""
        data = decode(event.data)
        assert isinstance(data, dict)
        elapsed = self.elapsed(event)
        text = self._text(event, data)
        if text is None:
            return None
        where = f"{event.program_id.partition('.')[2]}: " if "." in event.program_id else ""
        return f"{elapsed:8.2f}s  {where}{text}"

    def elapsed(self, event: EventRecord) -> float:
        """Seconds from the first event seen to this one."""
        if self._began is None:
            self._began = event.at
        return event.at - self._began

    def _text(self, event: EventRecord, data: dict[str, Json]) -> str | None:
        key = (event.program_id, event.node or "")
        node = one_line(event.node or "program", 60)
        kind, _, verb = event.kind.partition(".")
        if kind in ("program", "step") and verb in ("started", "resumed"):
            self._since.setdefault(key, event.at)
        match kind, verb:
            case "program", _:
                return _with(f"program {verb.replace('_', ' ')}", _program_detail(verb, data, event.program_id))
            case "step", "started":
                attempt, label = data.get("attempt"), data.get("label")
                named = f": {one_line(label, 60)}" if isinstance(label, str) else ""
                return f"{node} started{named}" + (f" (attempt {attempt})" if attempt != 1 else "")
            case "step", "succeeded":
                reused = data.get("cached_from")
                return f"{node} succeeded" + (f" (kept from {reused})" if reused else self._took(key, event.at))
            case "step", _:
                self._since.pop(key, None)
                return _with(f"{node} {verb}", _detail(data))
            case "call", "succeeded" | "replayed":
                spent = f"{_count(data, 'input_tokens')} in, {_count(data, 'output_tokens')} out"
                return f"{node}: call {'answered' if verb == 'succeeded' else 'replayed'} ({data.get('model')}, {spent})"
            case "call", "failed" | "stopped" | "retrying" | "cancelled":
                return _with(f"{node}: call {verb}", _detail(data) or f"status {data.get('status')}")
            case "tool", "started":
                return f"{node}: tool {data.get('tool')} started in the background" if data.get("background") else None
            case "tool", _:
                took = data.get("seconds")
                shown = f" ({seconds(took)})" if isinstance(took, int | float) else ""
                return _with(f"{node}: tool {data.get('tool')} {verb}{shown}", _detail(data))
        return None

    def _took(self, key: tuple[str, str], now: float) -> str:
        since = self._since.pop(key, None)
        return f" ({seconds(now - since)})" if since is not None else ""


def _program_detail(verb: str, data: dict[str, Json], program_id: str) -> str:
    if verb in ("started", "resumed"):
        return f"{data.get('workflow')} ({program_id})"
    return _detail(data)


def _detail(data: dict[str, Json]) -> str:
    for name in ("error", "reason", "question"):
        value = data.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return f"to {data['to']}" if "to" in data else ""


def _with(text: str, detail: str) -> str:
    return f"{text}: {one_line(detail, 160)}" if detail else text


def _count(data: dict[str, Json], name: str) -> str:
    value = data.get(name)
    return tokens(value if isinstance(value, int) else None)
