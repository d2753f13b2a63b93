"""Tokens and the chat template: stable ids, plausible counts, and prompts that keep their prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.encoding import Json
from fairlead.runtime.engines.embedded.tokens import (
    END,
    SpokenCall,
    answer_ids,
    answer_pieces,
    count,
    pieces,
    prompt_ids,
    tokenise,
)


@given(st.text(max_size=300))
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert len(tokenise(text)) == len(pieces(text))


def test_ids_are_the_same_in_every_process() -> None:
    assert list(tokenise("def main():")) == [214229361, 428853889, 1263896611]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("The quick brown fox jumps over the lazy dog and runs away from the hunters. " * 20, 3.5, 5.6),
        ("for item in self.items:\n    total += item.price * item.count\n" * 20, 2.5, 4.5),
        ('{"name": "search", "arguments": {"query": "x"}}' * 20, 2.5, 4.5),
        ("模型的输出是确定的。" * 20, 0.9, 1.1),
    ],
    ids=["english", "python", "json", "chinese"],
)
def test_characters_per_token_are_near_those_of_real_tokenizers(text: str, low: float, high: float) -> None:
    assert low <= len(text) / count(text) <= high


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
CALLS = st.lists(st.builds(SpokenCall, st.just("id"), st.sampled_from(["read_file", "x"]), TEXTS), max_size=3)


@given(TEXTS, TEXTS, CALLS)
def test_an_appended_conversation_keeps_prompt_and_answer_as_its_prefix(
    question: str, answer: str, calls: list[SpokenCall]
) -> None:
    tools: list[Json] = [{"type": "function", "function": {"name": "read_file", "parameters": {}}}]
    messages: list[Json] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    generated = [*prompt_ids(messages, tools), *answer_ids(answer, calls), END]
    spoken: list[Json] = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
    ]
    assistant: dict[str, Json] = {"role": "assistant", "content": answer, "tool_calls": spoken}
    later = prompt_ids([*messages, assistant, {"role": "user", "content": "and?"}], tools)
    assert list(later[: len(generated)]) == generated


@given(TEXTS, CALLS)
def test_an_answer_is_generated_in_as_many_tokens_as_it_has(answer: str, calls: list[SpokenCall]) -> None:
    generated = answer_pieces(answer, calls)
    assert len(generated) == len(answer_ids(answer, calls)) + 1
    assert "".join(piece.text for piece in generated if piece.part == "content") == answer


def test_tools_stand_at_the_front_whatever_their_key_order() -> None:
    messages: list[Json] = [{"role": "user", "content": "hello"}]
    one: Json = {"type": "function", "function": {"name": "a", "parameters": {}}}
    same: Json = {"function": {"parameters": {}, "name": "a"}, "type": "function"}
    assert prompt_ids(messages, [one]) == prompt_ids(messages, [same])
    assert prompt_ids(messages, [one])[:2] == prompt_ids([], [one])[:2]


def test_parts_that_are_not_text_count_by_their_kind() -> None:
    image: Json = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    assert prompt_ids([{"role": "user", "content": image}]) == prompt_ids([{"role": "user", "content": "look\n[image_url]"}])
