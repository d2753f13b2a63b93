"""Conversations: chains of content-addressed messages that share their beginnings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.encoding import Json, decode, encode
from fairlead.memory.conversation import Conversation, link

MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=5)}), max_size=8
)


def said(*texts: str) -> list[Json]:
    return [{"role": "user", "content": text} for text in texts]


def test_a_link_names_the_conversation_up_to_its_message() -> None:
    first = link(None, {"role": "user", "content": "a"})
    again = link(None, {"content": "a", "role": "user"})
    assert first == again  # the order of keys is no difference
    assert first.parent is None
    assert decode(first.content) == {"role": "user", "content": "a"}
    after = link(first.digest, {"role": "user", "content": "a"})
    assert after.part == first.part  # the same message, stored once
    assert after.digest != first.digest  # at another place


def test_an_empty_conversation_has_no_head() -> None:
    assert Conversation.of().head is None


@given(MESSAGES, MESSAGES)
def test_two_conversations_have_the_same_head_only_if_they_are_equal(one: list[Json], other: list[Json]) -> None:
    assert (Conversation.of(one).head == Conversation.of(other).head) is (encode(one) == encode(other))


@given(MESSAGES, MESSAGES, MESSAGES)
def test_continuing_gives_what_starting_anew_gives(before: list[Json], shared: list[Json], new: list[Json]) -> None:
    earlier = Conversation.of([*shared, *before])
    assert earlier.continued([*shared, *new]) == Conversation.of([*shared, *new])


def test_continuing_reuses_the_links_of_the_shared_beginning_and_leaves_the_earlier_one_alone() -> None:
    earlier = Conversation.of(said("a", "b", "c"))
    continued = earlier.continued(said("a", "b", "x", "y"))
    assert [ours is theirs for ours, theirs in zip(continued.links, earlier.links, strict=False)] == [True, True, False]
    continued.append({"role": "user", "content": "z"})
    assert earlier == Conversation.of(said("a", "b", "c"))


def test_each_link_points_to_the_one_before() -> None:
    links = Conversation.of(said("a", "b", "c")).links
    assert [one.parent for one in links] == [None, links[0].digest, links[1].digest]
