"""What can be said about a step besides its function: retries, timeouts, caching, idempotency. Plain data and arithmetic."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import DeclarationError

if TYPE_CHECKING:
    from .declare import Step

Idempotency: TypeAlias = Literal["pure", "idempotent", "unsafe"]
"""What may happen to work whose outcome a crash left unknown.

`pure` depends on its arguments only and changes nothing: it may be repeated or answered from a cache. `idempotent` may be
repeated. `unsafe` must not be repeated unless a person says so; it starts only after its start is durable.
"""

IDEMPOTENCY: tuple[Idempotency, ...] = ("pure", "idempotent", "unsafe")


_KEY = re.compile(r"[^\[\]@:\x00-\x1f\x7f\ud800-\udfff]{1,200}")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently to try again.

    `Retry(attempts=4, delay=0.5)` waits 0.5, 1 and 2 s (less up to a tenth, by `jitter`) between its four attempts.
    """

    attempts: int = 3
    """Attempts in all, the first included."""
    delay: float = 0.5
    """Seconds before the second attempt."""
    factor: float = 2.0
    """Each further delay is this many times the one before."""
    delay_max: float = 30.0
    """No delay is longer, in seconds."""
    jitter: float = 0.1
    """Largest share by which a delay is shortened, so that siblings do not come back together."""
    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool] = Exception
    """Which errors are worth another attempt: exception types, or a predicate."""

    def __post_init__(self) -> None:
        sensible = self.attempts >= 1 and self.delay >= 0 and self.factor >= 1 and self.delay_max >= 0 and 0 <= self.jitter <= 1
        if not sensible:
            raise DeclarationError(f"{self}: attempts >= 1, delays >= 0, factor >= 1 and jitter in [0, 1] are needed")

    def again_in(self, attempt: int, error: Exception, seed: str) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (1 for the first), or None to give up.

        The jitter comes from `seed`, so the same step waits the same time in a replay.
        """
        if attempt >= self.attempts:
            return None
        if isinstance(self.on, type | tuple):
            if not isinstance(error, self.on):
                return None
        elif not self.on(error):
            return None
        delay = min(self.delay * self.factor ** (attempt - 1), self.delay_max)
        spread = int.from_bytes(hashlib.blake2b(f"{seed}:{attempt}".encode(), digest_size=4).digest()) / 2**32
        return delay * (1 - self.jitter * spread)


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long one attempt of a step may take, in seconds; None for no limit."""

    hard: float | None = None
    """From start to end."""
    idle: float | None = None
    """Without a sign of progress: a token, a call, a tool result, a heartbeat."""

    def __post_init__(self) -> None:
        for limit in (self.hard, self.idle):
            if limit is not None and not limit > 0:
                raise DeclarationError(f"{self}: a timeout must be more than 0 seconds")


@dataclass(frozen=True, slots=True)
class Cache:
    """Keep a step's result for other programs."""

    key: Callable[..., str] | None = None
    """Gives the key from the step's arguments; by default all arguments count."""
    lifetime: float | None = None
    """Seconds; None keeps it until it is pruned."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """Everything that can be set on a step, with its defaults."""

    retry: Retry = Retry(attempts=1)
    timeout: Timeout = Timeout()
    cache: Cache | None = None
    idempotency: Idempotency = "idempotent"
    fallback: Step[Any, Any] | None = None
    """Runs with the same arguments when every attempt has failed; its result takes the place."""
    estimate: float = 1.0
    """Expected seconds, for ordering by critical path."""
    limit: int | None = None
    """How many elements of a `map` may run at once."""
    key: str | None = None
    """Name of this node instead of a running number: `review[api.py]`."""
    after: tuple[Any, ...] = ()
    """Handles to wait for without taking their values."""

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise DeclarationError(f"step option {name}={value!r} is of the wrong type")
        if self.idempotency not in IDEMPOTENCY:
            raise DeclarationError(f"idempotency {self.idempotency!r} is unknown", hint=f"one of {', '.join(IDEMPOTENCY)}")
        if self.key is not None and (not _KEY.fullmatch(self.key) or self.key.isdigit()):
            raise DeclarationError(
                f"key {self.key!r}: a key has 1 to 200 printable characters, no brackets, `@` or `:`, and is no plain number"
            )
        if self.limit is not None and self.limit < 1:
            raise DeclarationError(f"limit={self.limit}: at least one element must be allowed to run")
        if not self.estimate >= 0:
            raise DeclarationError(f"estimate={self.estimate}: an expected duration cannot be negative")
        if self.cache is not None and self.idempotency == "unsafe":
            raise DeclarationError("an unsafe step cannot be cached: its effect would be left out")


_KINDS: dict[str, tuple[type, ...]] = {
    "retry": (Retry,),
    "timeout": (Timeout,),
    "cache": (Cache, type(None)),
    "limit": (int, type(None)),
    "key": (str, type(None)),
    "estimate": (int, float),
    "idempotency": (str,),
    "after": (tuple,),
}


def retry_of(value: Retry | int | None) -> Retry:
    """`retry=3` means three attempts with the default delays."""
    if isinstance(value, int):
        return Retry(attempts=value)
    return value or Retry(attempts=1)


def timeout_of(value: Timeout | float | None) -> Timeout:
    """`timeout=60` means a hard limit of a minute."""
    if isinstance(value, int | float):
        return Timeout(hard=float(value))
    return value or Timeout()
