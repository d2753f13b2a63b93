"""What a program tells at its end: what it did, what it was spared, and what was stopped."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..budgets.usage import Usage
from ..encoding import Json


@dataclass(slots=True)
class Receipt:
    """What a cancellation, a timeout or a failure stopped."""

    calls: list[str] = field(default_factory=list)
    """Model calls whose connection was closed, as `node: model`."""
    tools: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    """Child programs."""

    def as_json(self) -> dict[str, Json]:
        return {"calls": [*self.calls], "tools": [*self.tools], "steps": [*self.steps], "programs": [*self.programs]}


@dataclass(slots=True)
class Counts:
    """What a program did in this run of the process, and what it was spared."""

    steps: int = 0
    steps_reused: int = 0
    calls: int = 0
    calls_replayed: int = 0
    tools: int = 0
    tools_reused: int = 0
    usage: Usage = field(default_factory=Usage)
    usage_replayed: Usage = field(default_factory=Usage)
