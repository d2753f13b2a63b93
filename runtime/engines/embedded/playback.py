"""Playing a script's replies: delays, whole answers, streams, and the ways in which they can go wrong.

Costs nothing that grows with the conversation.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping

import anyio
import anyio.lowlevel

from ....errors import EngineError
from ..port import EngineReply, EngineRequest
from .delivery import JSON_HEADERS, BodyReply, StreamReply, connection_lost
from .script import ConnectionFailure, HttpFailure, RawReply, Reply, Scripted, Usage
from .tokens import Piece, SpokenCall, answer_pieces
from .wire import Said, Writer, error_body

_STREAM_CHUNKS = 4
_TOKENS_PER_MESSAGE = 16

WriterFactory = Callable[[tuple[SpokenCall, ...]], Writer]
"""Makes the writer of the request's endpoint, for an answer with these tool calls."""


async def play(engine: str, request: EngineRequest, scripted: Scripted, writer_for: WriterFactory) -> EngineReply:
    """Answer `request` as scripted. Raises `EngineError` for a scripted failure to connect."""
    if scripted.delay_s > 0:
        await anyio.sleep(scripted.delay_s)
    else:
        await anyio.lowlevel.checkpoint()
    match scripted:
        case ConnectionFailure():
            what = "connection refused" if scripted.kind == "refused" else "the connection was reset before an answer came"
            raise EngineError(what, engine=engine, retryable=True, hint="the script of the embedded engine says so")
        case HttpFailure():
            body = error_body(scripted.message, status=scripted.status, kind=scripted.kind, code=scripted.code)
            return BodyReply(scripted.status, body, {**JSON_HEADERS, **_lower(scripted.headers)})
        case RawReply():
            return BodyReply(scripted.status, scripted.body, _lower(scripted.headers))
        case Reply():
            return await _answer(engine, request, scripted, writer_for)


async def _answer(engine: str, request: EngineRequest, reply: Reply, writer_for: WriterFactory) -> EngineReply:
    calls = spoken(request, reply)
    said = Said(reply.text, calls, reply.finish_reason or ("tool_calls" if calls else "stop"))
    usage = reply.usage or _estimate(request, said)
    writer = writer_for(calls)
    if request.stream:
        return StreamReply(_stream(engine, reply, said, usage, writer))
    if reply.endless:
        await anyio.sleep_forever()
    if reply.token_delay_s > 0:
        await anyio.sleep(reply.token_delay_s * usage.completion_tokens)
    return BodyReply(200, writer.whole([said], usage), engine=engine, broken=reply.cut_after is not None)


def spoken(request: EngineRequest, reply: Reply) -> tuple[SpokenCall, ...]:
    """The reply's tool calls. Ids that it does not give differ from turn to turn: they carry the number of messages."""
    if not reply.tool_calls:
        return ()
    turn = _length(request)
    return tuple(
        SpokenCall(
            call.id or f"call_{turn}_{index}",
            call.name,
            call.arguments if isinstance(call.arguments, str) else json.dumps(dict(call.arguments), ensure_ascii=False),
        )
        for index, call in enumerate(reply.tool_calls)
    )


async def _stream(engine: str, reply: Reply, said: Said, usage: Usage, writer: Writer) -> AsyncGenerator[bytes, None]:
    pieces = answer_pieces(said.text, said.calls)
    step = 1 if reply.token_delay_s > 0 or reply.cut_after is not None or reply.endless else -(-len(pieces) // _STREAM_CHUNKS)
    sent = 0
    first = writer.opening()
    while True:
        for start in range(0, len(pieces), step):
            if reply.cut_after is not None and sent >= reply.cut_after:
                raise connection_lost(engine)
            if reply.token_delay_s > 0:
                await anyio.sleep(reply.token_delay_s)
            chunk = first + writer.delta(0, pieces[start : start + step])
            if chunk:
                sent += 1
                yield chunk
            first = b""
        if not reply.endless:
            break
        # Without a delay of its own an endless stream must still let others run.
        await anyio.sleep(0 if reply.token_delay_s > 0 else 0.001)
        pieces = [Piece(piece.text) for piece in pieces if piece.part == "content"] or [Piece(".")]
    if reply.cut_after is not None:
        raise connection_lost(engine)
    yield writer.closing([said], usage)


def _estimate(request: EngineRequest, said: Said) -> Usage:
    """Rough on purpose: 16 tokens for each message, whatever is in it, and 4 characters of answer a token."""
    written = len(said.text) + sum(len(call.name) + len(call.arguments) for call in said.calls)
    return Usage(_TOKENS_PER_MESSAGE * max(1, _length(request)), written // 4 + 1)


def _length(request: EngineRequest) -> int:
    for name in ("messages", "input", "prompt"):
        value = request.body.get(name)
        if value is not None:
            return len(value) if isinstance(value, list) else 1
    return 0


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
