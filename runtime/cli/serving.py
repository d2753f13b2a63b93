"""`fairlead engine`: the embedded engine on a port, for trying things without a model server."""

from __future__ import annotations

import functools
import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path

import anyio

from ...errors import ConfigurationError, InputError
from ..engines.embedded.engine import EmbeddedEngine
from ..engines.embedded.hardware import PROFILES
from ..engines.embedded.server import serve
from .exits import ExitCode
from .settings import EngineSettings
from .terminal import put, say


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, and where."""

    host: str
    port: int
    model: str
    profile: str
    speed: float
    seed: int
    script: str | None
    kv_tokens: int | None
    priority: bool
    requests: str | None
    api_key_env: str | None


def serve_engine(serving: Serving) -> int:
    """Serve until SIGINT or SIGTERM. Writes the base URL to standard output when it can be used."""
    if not serving.speed > 0:
        raise InputError(f"--speed {serving.speed:g}: must be more than 0")
    if serving.profile not in PROFILES:
        raise InputError(f"--profile {serving.profile!r} is not known", hint=f"profiles: {', '.join(PROFILES)}")
    key = EngineSettings(engine="url", api_key_env=serving.api_key_env).api_key()
    if key is None and not _is_loopback(serving.host):
        raise ConfigurationError(
            f"--host {serving.host} can be reached from other machines, and no API key is set",
            hint="give --api-key-env NAME, or serve on 127.0.0.1",
        )
    engine = EmbeddedEngine(
        model=serving.model, profile=serving.profile, speed=serving.speed, seed=serving.seed, script=serving.script,
        kv_tokens=serving.kv_tokens,
        priority=serving.priority, requests=Path(serving.requests) if serving.requests else False,
    )  # fmt: skip
    anyio.run(
        functools.partial(
            serve, engine, host=serving.host, port=serving.port, api_key=key, on_ready=functools.partial(_tell, serving)
        )
    )
    return ExitCode.OK


def _tell(serving: Serving, url: str) -> None:
    speed = "answers at once" if math.isinf(serving.speed) else f"{serving.speed:g}x real time"
    say(f"embedded engine (not a language model): model {serving.model}, profile {serving.profile}, {speed}; Ctrl-C ends it")
    put(url)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
