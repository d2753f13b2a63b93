"""JSON as Fairlead writes it: one canonical form, so that equal values have equal bytes and equal digests.

The form (sorted keys, no spaces, UTF-8, no NaN) is part of the journal: digests of it are stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TypeAlias

from .errors import SerialisationError

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""A JSON value as `json.loads` gives it."""

_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False)


def encode(value: Json) -> bytes:
    """The canonical bytes of a JSON value.

    Raises `SerialisationError` for NaN, infinities and anything that JSON cannot hold.
    """
    try:
        return _encoder.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SerialisationError(f"not a JSON value: {error}") from error


def encoded_object(values: Mapping[str, bytes]) -> str:
    """The text of a JSON object whose values are JSON already: sorted keys, no spaces, the values as they are."""
    return "{" + ",".join(f"{encode(name).decode()}:{values[name].decode()}" for name in sorted(values)) + "}"


def decode(data: bytes | str) -> Json:
    """The value of JSON text. Raises `ValueError` if it is not JSON."""
    value: Json = json.loads(data)
    return value


def printable(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates (from file names that are no UTF-8) are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def digest(*parts: bytes) -> str:
    """A 128-bit BLAKE2b digest of the parts (each length-prefixed), in 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()
