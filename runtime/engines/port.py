"""The port to an engine: what the call path sends, and what it gets back.

An engine takes the JSON body of one OpenAI-compatible request and answers with a status, headers and a stream of bytes. It
does not retry, does not know programs and does not interpret: that is the call path's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...encoding import Json

ENDPOINTS = ("chat/completions", "completions", "responses", "embeddings")
"""The endpoints a call can go to, relative to `/v1/`."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One request. `body` is shared with the caller's conversation: an engine must not change it."""

    endpoint: str
    body: Mapping[str, Json]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        model = self.body.get("model")
        return model if isinstance(model, str) else ""

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True


class EngineReply(Protocol):
    """An answer whose body may still be arriving. Must be closed; closing early tells the engine to stop."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `EngineError` (retryable) when the connection breaks."""

    async def aclose(self) -> None: ...


class Engine(Protocol):
    """One OpenAI-compatible endpoint."""

    @property
    def name(self) -> str:
        """Unique among the engines of a runtime."""

    @property
    def models(self) -> Sequence[str]:
        """The models it serves, the default one first; empty when that is not known."""

    @property
    def kv_tokens(self) -> int | None:
        """Size of its KV cache in tokens; None if that is not known, or no matter to those who send calls."""

    async def send(self, request: EngineRequest) -> EngineReply:
        """Send one request; return when status and headers are there.

        Raises `EngineError` (with `retryable`) when no HTTP reply came. Cancellation closes the connection.
        """

    async def aclose(self) -> None: ...
