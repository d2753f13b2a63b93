"""Block chains: equal digests mean equal prefixes, however the chain was built."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.memory.blocks import BLOCK_TOKENS, BlockChain, block_chain, block_count, common_blocks

TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=100)


@given(TOKENS, TOKENS)
def test_extending_gives_the_chain_of_the_whole(first: list[int], second: list[int]) -> None:
    whole = block_chain(first + second)
    assert block_chain(first).extend(second) == whole
    assert whole.tokens == len(first + second)
    assert len(whole.hashes) == len(first + second) // BLOCK_TOKENS


@given(TOKENS, TOKENS)
def test_common_blocks_are_those_of_the_common_tokens(first: list[int], second: list[int]) -> None:
    same = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    assert common_blocks(block_chain(first).hashes, block_chain(second).hashes) == same // BLOCK_TOKENS


def test_one_changed_token_changes_every_digest_after_it() -> None:
    tokens = list(range(64))
    changed = [*tokens[:20], 999, *tokens[21:]]
    left, right = block_chain(tokens).hashes, block_chain(changed).hashes
    assert left[0] == right[0]
    assert all(a != b for a, b in zip(left[1:], right[1:], strict=True))


def test_salts_share_nothing() -> None:
    assert common_blocks(block_chain(range(64), "a").hashes, block_chain(range(64), "b").hashes) == 0
    assert BlockChain.start("a").extend(range(64)) == block_chain(range(64), "a")


def test_a_chain_made_without_a_salt_is_the_unsalted_one() -> None:
    assert BlockChain().extend(range(32)).hashes == block_chain(range(32)).hashes


def test_digests_are_the_same_in_every_process() -> None:
    assert block_chain(range(16)).hashes[0].hex() == "c93bb13f4e63f1736a77b6fc8210d25b"


def test_a_partly_filled_block_counts() -> None:
    assert [block_count(tokens) for tokens in (0, 1, 16, 17)] == [0, 1, 1, 2]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 10))
def test_a_cap_limits_the_common_blocks(shared: int, own: int, cap: int) -> None:
    left = list(range(shared + own))
    right = [*range(shared), *(-1 - at for at in range(own))]
    assert common_blocks(left, right, 0, cap) == min(shared, cap)
