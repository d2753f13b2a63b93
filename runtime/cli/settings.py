"""Which engine a program uses, as it is written on the command line and kept with the program for those who resume it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...encoding import Json
from ...errors import ConfigurationError, InputError
from ..engines.port import Engine

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """An engine and the default model. None means not said: the default, or what the program was started with."""

    engine: str | None = None
    """`embedded`, or the URL of an OpenAI-compatible API."""
    model: str | None = None
    api_key_env: str | None = None
    """Name of the environment variable that holds the key. The key itself is never kept."""
    speed: float | None = None
    """How much faster than real the embedded engine is; None answers at once."""
    seed: int | None = None
    script: str | None = None
    """File that dictates the embedded engine's replies."""
    kv_tokens: int | None = None
    """Size of the engine's KV cache, for a scheduler that keeps programs from pushing each other out of it."""

    @property
    def is_embedded(self) -> bool:
        return self.engine in (None, EMBEDDED)

    def checked(self) -> EngineSettings:
        """These settings, if they can work together. Raises `InputError`."""
        if self.speed is not None and not self.speed > 0:
            raise InputError(f"--engine-speed {self.speed:g}: must be more than 0")
        if not self.is_embedded and (self.speed, self.seed, self.script) != (None, None, None):
            raise InputError(
                "--engine-speed, --engine-seed and --engine-script belong to the embedded engine", hint="leave them out"
            )
        if self.kv_tokens is not None and self.kv_tokens < 1:
            raise InputError(f"--engine-kv-tokens {self.kv_tokens}: must be at least 1")
        if self.api_key_env is not None and self.is_embedded:
            raise InputError("--api-key-env is for an engine behind a URL", hint="leave it out, or give --engine URL")
        script = str(Path(self.script).resolve()) if self.script else None
        return replace(self, script=script)

    def as_options(self) -> dict[str, Json]:
        """What is kept with the program."""
        options: dict[str, Json] = {"engine": self.engine or EMBEDDED}
        given = {
            "model": self.model,
            "api_key_env": self.api_key_env,
            "engine_speed": self.speed,
            "engine_seed": self.seed,
            "engine_script": self.script,
            "engine_kv_tokens": self.kv_tokens,
        }
        return options | {name: value for name, value in given.items() if value is not None}

    def over(self, options: Mapping[str, Json]) -> EngineSettings:
        """The settings a program was started with, with those given now in their place.

        Another engine does not take over what was said about the first one.
        """
        kept = EngineSettings(
            engine=_text(options, "engine"), model=_text(options, "model"), api_key_env=_text(options, "api_key_env"),
            speed=_number(options, "engine_speed"), seed=_whole(options, "engine_seed"), script=_text(options, "engine_script"),
            kv_tokens=_whole(options, "engine_kv_tokens"),
        )  # fmt: skip
        if self.engine is not None and self.engine != kept.engine:
            return self
        given = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return replace(kept, **given)

    def api_key(self) -> str | None:
        """The key, from the environment. Raises `ConfigurationError` if it is not there."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ConfigurationError(
                f"the environment variable {self.api_key_env} (--api-key-env) is not set", hint=f"export {self.api_key_env}=..."
            )
        return key

    def made(self) -> Engine | str:
        """The engine, or its URL, as `Runtime` takes it. Raises `ConfigurationError`."""
        if not self.is_embedded:
            from ..engines.http import normalised_base_url

            assert self.engine is not None
            return normalised_base_url(self.engine)
        from ..engines.embedded.engine import EmbeddedEngine

        name = self.model or "fairlead-embedded"
        return EmbeddedEngine(
            model=name, speed=self.speed or math.inf, seed=self.seed or 0, script=self.script, kv_tokens=self.kv_tokens
        )


def _text(options: Mapping[str, Json], name: str) -> str | None:
    value = options.get(name)
    return value if isinstance(value, str) else None


def _number(options: Mapping[str, Json], name: str) -> float | None:
    value = options.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(options: Mapping[str, Json], name: str) -> int | None:
    value = options.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
