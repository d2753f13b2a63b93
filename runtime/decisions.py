"""What a person decides about an effect whose outcome a crash left unknown."""

from __future__ import annotations

from dataclasses import dataclass

from ..encoding import Json, encode
from ..signature import Border


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person said about an effect whose outcome is unknown: run it again, or take this result, or count it as failed."""

    action: str
    """`run`, `result` or `fail`."""
    result: Json = None

    def read(self, border: Border) -> bytes:
        """The result the person gave. Raises `InputError` if it does not fit the type."""
        data = encode(self.result)
        border.read(data)
        return data
