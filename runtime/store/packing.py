"""How binary content is kept in a row: one byte that says how it is packed, then the content.

Answers and conversation parts are JSON or event streams, which shrink to a fifth; short ones are not worth the time.
"""

from __future__ import annotations

import zlib

from ...errors import StoreError

COMPRESS_ABOVE = 512
"""Bytes. Shorter content is kept as it is."""

_PLAIN = b"\x00"
_ZLIB = b"\x01"
# Level 1 costs a third of the default level's time and loses a tenth of its gain on answers of a few kilobytes.
_LEVEL = 1


def pack(content: bytes) -> bytes:
    """The bytes to store for this content."""
    if len(content) > COMPRESS_ABOVE:
        packed = zlib.compress(content, _LEVEL)
        if len(packed) < len(content):
            return _ZLIB + packed
    return _PLAIN + content


def unpack(stored: bytes) -> bytes:
    """The content of stored bytes. Raises `StoreError` if they are damaged."""
    tag, body = stored[:1], stored[1:]
    if tag == _PLAIN:
        return body
    if tag == _ZLIB:
        try:
            return zlib.decompress(body)
        except zlib.error as error:
            raise StoreError(f"stored content is damaged: {error}", hint="restore the database from a backup") from error
    raise StoreError(f"stored content is packed in an unknown way ({tag!r})", hint="upgrade fairlead, or restore a backup")
