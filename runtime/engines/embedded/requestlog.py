"""What an engine was sent, by digest: lets a test prove that nothing was sent twice, across processes if a file is given."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ....encoding import Json, digest, encode
from ..port import EngineRequest


class RequestLog:
    """Counts requests by the digest of endpoint and body. With `path`, also appends a line for each before it is answered."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._counts: Counter[str] = Counter()
        self._endpoints: dict[str, str] = {}

    def add(self, request: EngineRequest) -> None:
        key = digest(request.endpoint.encode(), encode(dict(request.body)))
        self._counts[key] += 1
        self._endpoints[key] = request.endpoint
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{key} {request.endpoint}\n")

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    @property
    def counts(self) -> dict[str, int]:
        """Digest to how often it was sent, in order of first arrival."""
        return dict(self._counts)

    def as_json(self) -> Json:
        listed: list[Json] = [
            {"digest": key, "endpoint": self._endpoints[key], "count": count} for key, count in self._counts.items()
        ]
        return {"total": self.total, "requests": listed}
