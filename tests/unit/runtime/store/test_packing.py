"""Binary content comes back as it was, and smaller where that pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import StoreError
from fairlead.runtime.store.packing import COMPRESS_ABOVE, pack, unpack


@given(st.binary(max_size=2000) | st.binary(min_size=1, max_size=9).map(lambda piece: piece * 500))
def test_content_comes_back_as_it_was(content: bytes) -> None:
    assert unpack(pack(content)) == content


@given(st.binary(max_size=2000))
def test_content_grows_by_one_byte_at_most(content: bytes) -> None:
    assert len(pack(content)) <= len(content) + 1


def test_long_text_shrinks_and_short_text_is_left_alone() -> None:
    assert len(pack(b'{"role":"user"}' * 100)) < 200
    short = b" " * COMPRESS_ABOVE
    assert pack(short)[1:] == short


@pytest.mark.parametrize("stored", [b"", b"\x01not zlib", b"\x07from the future"])
def test_damaged_content_is_an_error(stored: bytes) -> None:
    with pytest.raises(StoreError, match="stored content is"):
        unpack(stored)
