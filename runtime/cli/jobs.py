"""What a command asks for, as data: light to import, and able to travel to the process that does it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ...encoding import Json
from .settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, as it goes to the process that does it."""

    db: str
    settings: EngineSettings
    workflow: str | None = None
    """`MODULE:NAME` or `FILE.py:NAME`, to start one; None to resume."""
    input: dict[str, Json] = field(default_factory=dict)
    id: str | None = None
    """Of the program to start or to resume."""
    tenant: str = "default"
    all: bool = False
    """Resume all that can be."""
    decisions: dict[str, tuple[str, Json]] = field(default_factory=dict)
    accept_changed: bool = False
    watch: bool = True
    """Whether anybody wants the events."""

    def as_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        decisions = {about: (action, value) for about, (action, value) in data.pop("decisions").items()}
        return cls(settings=EngineSettings(**data.pop("settings")), decisions=decisions, **data)
