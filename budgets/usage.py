"""Token usage of calls, read from what engines answer. Unknown is never zero: a count that was not said is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..encoding import Json, decode


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, or of several added up; None where the engine did not say."""

    input_tokens: int | None = None
    """All prompt tokens, cached ones included."""
    cached_tokens: int | None = None
    """Prompt tokens that were answered from a prefix cache."""
    output_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Sums of what is known."""
        return Usage(
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.output_tokens, other.output_tokens),
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def usage_of(body: Json) -> Usage:
    """The usage in a reply of any endpoint (chat and text completions, responses, embeddings)."""
    if isinstance(body, dict) and isinstance(body.get("response"), dict):
        body = body["response"]  # the last event of a responses stream
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    return Usage(
        _count(usage, "prompt_tokens", "input_tokens"),
        _count(details, "cached_tokens") if isinstance(details, dict) else None,
        _count(usage, "completion_tokens", "output_tokens"),
    )


def _count(mapping: Mapping[str, Json], *names: str) -> int | None:
    for name in names:
        value = mapping.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
            return value
    return None


def usage_of_stream(events: bytes) -> Usage:
    """The usage in a server-sent event stream: the last event that has one."""
    for line in reversed(events.splitlines()):
        if line.startswith(b"data:") and b'"usage"' in line:
            try:
                found = usage_of(decode(line[5:].strip()))
            except ValueError:
                continue
            if found != Usage():
                return found
    return Usage()
