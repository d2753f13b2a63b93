"""An engine behind HTTP: any OpenAI-compatible server, through httpx2.

Sends one request, relays the bytes as they come (decompressed), and translates what can go wrong on the way into
`EngineError`. No retries, no reading of bodies: an error page or an empty answer is passed on as it is.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from ...encoding import Json
from ...errors import ConfigurationError, EngineError, InputError
from .port import EngineReply, EngineRequest

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
# Ours to set, or no longer true of a body that was re-encoded or decompressed.
_NOT_SENT = _HOP_BY_HOP | {
    "host",
    "content-length",
    "content-encoding",
    "accept-encoding",
    "authorization",
    "api-key",
    "cookie",
}
_NOT_RELAYED = _HOP_BY_HOP | {"content-length", "content-encoding", "set-cookie"}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on silence, in seconds; None means none. An answer as a whole has no limit here: the step has."""

    connect_s: float = 5.0
    idle_s: float | None = None
    """Between two pieces of an answer, and before the first: engines may queue a request for long."""
    write_s: float = 60.0
    pool_s: float | None = None
    """Waiting for one of `connections`; how many calls are in flight is the scheduler's decision."""


class HttpEngine:
    """Implements `Engine` over one shared connection pool. `base_url` may end in `/v1` or not.

    `models` are those that it is known to serve, the default one first; `kv_tokens` is the size of its KV cache, if that is
    known. `headers` are sent with every request, after those of the request; `api_key` becomes the bearer token. What a
    request brings as credentials is never forwarded. Raises `ConfigurationError` for an unusable URL.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str | None = None,
        *,
        models: Sequence[str] = (),
        kv_tokens: int | None = None,
        timeouts: Timeouts = Timeouts(),
        connections: int = 1000,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.name = name
        self.models = tuple(models)
        self.kv_tokens = kv_tokens
        self.base_url = normalised_base_url(base_url)
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        if api_key is not None:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._idle_s = timeouts.idle_s
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(
                connect=timeouts.connect_s, read=timeouts.idle_s, write=timeouts.write_s, pool=timeouts.pool_s
            ),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=min(connections, 100)),
            verify=verify,
            follow_redirects=False,
        )

    async def send(self, request: EngineRequest) -> EngineReply:
        """Send one request; return when status and headers are there. Raises `EngineError` when none came.

        A body that is not JSON (it holds NaN, for one) is an `InputError`.
        """
        url = f"{self.base_url}/{request.endpoint}"
        headers = {name.lower(): value for name, value in request.headers.items() if _is_sent(name.lower())}
        headers |= {"content-type": "application/json", **self._headers}
        outgoing = self._client.build_request("POST", url, content=_to_wire(request.body), headers=headers)
        try:
            response = await self._client.send(outgoing, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self._translated(error) from error
        return _HttpReply(self, response)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _translated(self, error: Exception) -> EngineError:
        """What happened, in the caller's terms. Whether the engine did any work is unknown except where connecting failed."""
        message, retryable, hint = _explain(error, self.base_url, self._idle_s)
        return EngineError(message, engine=self.name, retryable=retryable, hint=hint)


class _HttpReply:
    """An answer that is arriving."""

    __slots__ = ("_engine", "_response", "headers", "status")

    def __init__(self, engine: HttpEngine, response: httpx2.Response) -> None:
        self._engine = engine
        self._response = response
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items() if name.lower() not in _NOT_RELAYED
        }

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except (httpx2.HTTPError, OSError) as error:
            raise self._engine._translated(error) from error  # the reply is the engine's other half

    async def aclose(self) -> None:
        await self._response.aclose()


def normalised_base_url(base_url: str) -> str:
    """The URL that endpoints are appended to: with `/v1`, without a slash at the end. Raises `ConfigurationError`.

    `http://host:8000` and `http://host:8000/v1/` both give `http://host:8000/v1`.
    """
    parts = urlsplit(base_url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"the engine URL {base_url!r} is not an http or https URL", hint="write it like http://127.0.0.1:8000/v1"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"the engine URL {base_url!r} must have no query or fragment", hint="remove what follows ? or #"
        )
    path = parts.path.rstrip("/")
    for endpoint in ("/chat/completions", "/completions", "/responses", "/embeddings"):
        path = path.removesuffix(endpoint)
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"


def _to_wire(body: Mapping[str, Json]) -> bytes:
    """Keys stay in order: engines render tools, and fill schemas, in the order that they are given."""
    try:
        return json.dumps(dict(body), separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"the request body is not JSON: {error}") from error


def _is_sent(name: str) -> bool:
    return name not in _NOT_SENT and not name.startswith("x-stainless-")


def _explain(error: Exception, base_url: str, idle_s: float | None) -> tuple[str, bool, str | None]:
    """Message, whether trying again can help, and what to do."""
    if isinstance(error, httpx2.ConnectError) and _is_tls(error):
        return f"TLS to {base_url} failed: {error}", False, "check the certificate, or whether the URL should be http"
    match error:
        case httpx2.ConnectTimeout():
            return f"no connection to {base_url} in time", True, "is the engine running, and the host reachable from here?"
        case httpx2.ConnectError():
            return f"cannot connect to {base_url}: {error}", True, "is the engine running there? check host and port"
        case httpx2.ReadTimeout():
            return (
                f"nothing came from {base_url} for {idle_s or 0:g} s",
                True,
                "the engine hangs or is overloaded; or allow more idle time",
            )
        case httpx2.WriteTimeout() | httpx2.PoolTimeout():
            return f"the request to {base_url} could not be sent in time", True, None
        case httpx2.DecodingError():
            return (
                f"the answer of {base_url} cannot be decompressed: {error}",
                False,
                "look at the engine, or the proxy before it",
            )
        case httpx2.UnsupportedProtocol() | httpx2.InvalidURL() | httpx2.LocalProtocolError():
            return f"the request to {base_url} cannot be sent: {error}", False, "check the engine's URL and headers"
        case httpx2.RemoteProtocolError() | httpx2.ReadError() | httpx2.WriteError():
            return (
                f"the connection to {base_url} broke: {error}",
                True,
                "the engine crashed or restarted, or a proxy cut it off",
            )
    return f"the request to {base_url} failed: {error}", True, None


def _is_tls(error: BaseException | None) -> bool:
    """Whether TLS is at the bottom of it: httpx2 reports that as a failed connection."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
