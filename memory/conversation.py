"""Conversations as chains of content-addressed messages: append-only, so history costs what is new and prefixes stay stable.

A message is stored under the digest of its canonical JSON; a link is (link before, message). The last link identifies the
whole conversation, and two conversations with the same beginning share its links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..encoding import Json, digest, encode


class Link(NamedTuple):
    """One message at its place in a conversation."""

    digest: str
    """Identifies the conversation up to and including this message."""
    parent: str | None
    part: str
    """Digest of the message."""
    content: bytes
    """Canonical JSON of the message."""


def link(parent: str | None, message: Json) -> Link:
    """The link that adds a message after `parent`."""
    content = encode(message)
    part = digest(content)
    return Link(digest(b"link", (parent or "").encode(), part.encode()), parent, part, content)


@dataclass(slots=True)
class Conversation:
    """An append-only list of messages with its links."""

    messages: list[Json]
    """Read it, hand it to an engine, never change it: `append` is the only writer."""
    links: list[Link]
    size: int = 0
    """Bytes of all messages."""

    @classmethod
    def of(cls, messages: Sequence[Json] = ()) -> Conversation:
        conversation = cls([], [])
        for message in messages:
            conversation.append(message)
        return conversation

    def append(self, message: Json) -> None:
        """Add a message. O(size of the message)."""
        added = link(self.head, message)
        self.links.append(added)
        self.messages.append(message)
        self.size += len(added.content)

    @property
    def head(self) -> str | None:
        """Digest of the last link; None while empty."""
        return self.links[-1].digest if self.links else None

    def continued(self, messages: list[Json]) -> Conversation:
        """A conversation of exactly these messages, which reuses the links of the beginning it shares with this one.

        For clients that send the whole history with every call: only new messages are encoded and digested.
        """
        shared = 0
        for ours, theirs in zip(self.messages, messages, strict=False):
            if ours is not theirs and ours != theirs:
                break
            shared += 1
        size = self.size if shared == len(self.links) else sum(len(item.content) for item in self.links[:shared])
        conversation = Conversation(messages[:shared], self.links[:shared], size)
        for message in messages[shared:]:
            conversation.append(message)
        return conversation
