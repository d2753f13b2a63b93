"""Usage, read from what engines answer: unknown is never zero."""

from __future__ import annotations

import pytest

from fairlead.budgets.usage import Usage, usage_of, usage_of_stream
from fairlead.encoding import Json


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}}, Usage(9, None, 4)),  # chat, completions
        ({"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}}, Usage(9, 8, None)),
        ({"usage": {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 0}}}, Usage(9, 0, 4)),
        ({"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}}, Usage(1, None, 2)),
        ({"usage": {"prompt_tokens": 9, "total_tokens": 9}}, Usage(9, None, None)),  # embeddings
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage(0, None, 0)),
        ({"usage": None}, Usage()),
        ({}, Usage()),
        ([], Usage()),
        (None, Usage()),
        ({"usage": "much"}, Usage()),
        ({"usage": {"prompt_tokens": "9", "completion_tokens": -4}}, Usage()),  # nothing that can be counted
        ({"usage": {"prompt_tokens": True, "completion_tokens": 4.0}}, Usage()),
        ({"usage": {"prompt_tokens": 10**30, "completion_tokens": 4}}, Usage(None, None, 4)),  # larger than a database holds
        ({"usage": {"prompt_tokens": 9, "prompt_tokens_details": [8]}}, Usage(9, None, None)),
        ({"response": None, "usage": {"prompt_tokens": 9}}, Usage(9, None, None)),
    ],
)  # fmt: skip
def test_usage_is_read_from_every_endpoint_and_from_nonsense(body: Json, usage: Usage) -> None:
    assert usage_of(body) == usage


def test_a_sum_is_of_what_is_known() -> None:
    assert Usage(1, None, 2) + Usage(3, 4, None) == Usage(4, 4, 2)
    assert Usage() + Usage() == Usage()


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        (b'data: {"choices":[]}\n\ndata: {"usage":{"prompt_tokens":3}}\n\ndata: [DONE]\n\n', Usage(3, None, None)),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":2}}\n\n', Usage(2, None, None)),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":null}\n\n', Usage(1, None, None)),
        (b'event: x\r\ndata: {"response":{"usage":{"input_tokens":5,"output_tokens":6}}}\r\n\r\n', Usage(5, None, 6)),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prom', Usage(1, None, None)),  # cut off
        (b"data: [DONE]\n\n", Usage()),
        (b"", Usage()),
        (b"<html>usage</html>", Usage()),
    ],
)  # fmt: skip
def test_usage_of_a_stream_is_the_last_that_was_said(events: bytes, usage: Usage) -> None:
    assert usage_of_stream(events) == usage
