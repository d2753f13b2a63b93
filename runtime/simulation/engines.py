"""Simulated engines: the embedded engine's model, what a scheduler may ask of it, and what it tells.

Capability levels: a `plain` engine caches prefixes and serves first come, first served; a `priority` engine obeys the priority
of a call; a `session` engine also keeps the prefixes that it is asked to keep; an engine of level `values` does all that and
forgets first what it was told is worth least, which no unmodified engine does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...errors import ConfigurationError
from ..engines.embedded.hardware import Profile
from ..engines.embedded.model import EngineModel
from ..engines.embedded.offload import Offload
from ..scheduling.port import EngineAdded
from .programs import Program

Level: TypeAlias = Literal["plain", "priority", "session", "values"]

LEVELS: tuple[Level, ...] = ("plain", "priority", "session", "values")

_PRIORITIES = 1_000_000
"""Steps between the most and the least urgent."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine of a simulation."""

    name: str
    profile: Profile
    level: Level = "plain"
    kv_tokens: int | None = None
    """Instead of the profile's."""
    in_flight_max: int = 1024
    """Calls that a proxy sends to it at once, at most."""
    tells_kv: bool = True
    """Whether it says how large its KV cache is."""
    pin_share: float = 0.5
    """Largest share of the KV cache that kept prefixes may take; for levels `session` and `values`."""
    offload: Offload | None = None
    lost_at: float | None = None
    """When it disappears."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigurationError(f"engine {self.name!r}: no level {self.level!r}", hint=f"there are {', '.join(LEVELS)}")
        if self.in_flight_max < 1 or (self.kv_tokens is not None and self.kv_tokens < 1):
            raise ConfigurationError(f"engine {self.name!r}: in_flight_max and kv_tokens must be at least 1")
        if not 0 <= self.pin_share <= 1:
            raise ConfigurationError(f"engine {self.name!r}: pin_share must be between 0 and 1, not {self.pin_share:g}")

    def model(self) -> EngineModel:
        return EngineModel(
            self.profile,
            kv_tokens=self.kv_tokens,
            priority=self.level != "plain",
            pin_share=self.pin_share if self.level in ("session", "values") else 0.0,
            offload=self.offload,
        )

    def added(self) -> EngineAdded:
        """What a scheduler is told: nothing that would have to be measured first."""
        return EngineAdded(
            self.name,
            self.in_flight_max,
            kv_tokens=(self.kv_tokens or self.profile.kv_tokens) if self.tells_kv else None,
            pins=self.level in ("session", "values"),
            values=self.level == "values",
            learns_kv=not self.tells_kv,
            priority=self.level != "plain",
        )


def engine_pool(
    count: int, profile: Profile, *, level: Level = "plain", kv_tokens: int | None = None
) -> tuple[EngineSpec, ...]:
    """`count` equal engines, `engine-0` and on. Raises `ConfigurationError` for fewer than one."""
    if count < 1:
        raise ConfigurationError(f"at least 1 engine is needed, not {count}")
    return tuple(EngineSpec(f"engine-{number}", profile, level, kv_tokens) for number in range(count))


def priority_rank(priority: float) -> int:
    """A port priority (0 to 1) as the integer that engines take; lower is served first."""
    return int(min(max(priority, 0.0), 1.0) * _PRIORITIES)


def check_fits(program: Program, model: EngineModel, engine: str) -> None:
    """Raise `ConfigurationError` if a call of the program can never run on the engine."""
    for position, call in enumerate(program.calls):
        if reason := model.why_too_large(call.prompt_tokens, call.output_tokens):
            where = program.origin or f"program {program.name!r}"
            raise ConfigurationError(
                f"{where}: turns[{position}]: prompt_tokens: does not fit engine {engine!r}: {reason}",
                hint="scale contexts down, leave long ones out, or choose engines with more KV memory",
            )
