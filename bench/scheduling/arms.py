"""The arms of the comparisons: a policy by name on engines of a level, and which systems need an engine that nobody ships."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fairlead.runtime.engines.embedded.hardware import PROFILES
from fairlead.runtime.scheduling.policies import policy
from fairlead.runtime.scheduling.port import Scheduler
from fairlead.runtime.simulation.compare import Arm
from fairlead.runtime.simulation.engines import EngineSpec, Level, engine_pool
from fairlead.runtime.simulation.foresight import Truth

LEVELS: dict[str, Level] = {
    "saga": "values",
    "kvflow": "values",
    "continuum": "session",
    "continuum-2s": "session",
    "plas": "priority",
    "atlas": "priority",
    "oracle": "session",
}
"""What a system needs of its engines; `plain` for all others, ours among them."""

CLAIRVOYANT = ("oracle",)


UNLIMITED = "fairlead?age_limit_s=inf"
"""Ours without an age limit."""


def make(entry: str, truth: Truth) -> Scheduler:
    """The scheduler of that name; `NAME?OPTION=NUMBER&...` sets options of it."""
    name, _, options = entry.partition("?")
    given: dict[str, object] = {}
    for option in filter(None, options.split("&")):
        key, _, value = option.partition("=")
        given[key] = float(value)
    if name in CLAIRVOYANT:
        given["facts"] = truth
    return policy(name, **given)


def arms(names: Sequence[str], engines: int, profile: str, *, kv_tokens: int | None = None) -> tuple[Arm, ...]:
    """One arm for each name on as many engines; `NAME@LEVEL` asks for engines of another level than usual."""
    made = []
    for entry in names:
        name, _, level = entry.partition("@")
        plain = name.partition("?")[0]
        pool = pool_of(engines, profile, level or LEVELS.get(plain, "plain"), kv_tokens)
        made.append(Arm(entry, partial(make, name), pool, clairvoyant=plain in CLAIRVOYANT))
    return tuple(made)


def pool_of(engines: int, profile: str, level: str, kv_tokens: int | None) -> tuple[EngineSpec, ...]:
    """Equal engines of a level given by name."""
    for known in ("plain", "priority", "session", "values"):
        if known == level:
            return engine_pool(engines, PROFILES[profile], level=known, kv_tokens=kv_tokens)
    raise ValueError(f"there is no engine level {level!r}")
