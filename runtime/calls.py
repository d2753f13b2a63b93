"""The path of one model call, read top to bottom: there is no other way to an engine.

identify - replay - wait - send - settle. The transport of the `openai` clients, `Agent` and later the gateway all come here.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from pydantic_core import from_json

from ..budgets.usage import Usage, usage_of, usage_of_stream
from ..encoding import Json, digest, encode
from ..errors import EngineError
from ..memory.conversation import Conversation
from .body import Body, Entry, call_label
from .chat import first_tool
from .dispatch import Ask, Dispatcher, Slot
from .engines.port import Engine, EngineReply, EngineRequest
from .failures import brief, engine_facts, recorded_engine_error
from .replay import Issued
from .retries import RETRIES, CallLimits, retry_after_s, retry_delay
from .store.records import CallRecord, LinkRecord, PartRecord, Record

THREAD_KEYS = {"chat/completions": "messages", "responses": "input"}
"""Where an endpoint's body keeps the conversation."""

BYTES_PER_TOKEN = 4
"""A guess, for the scheduler, until the engine says how many tokens a prompt had."""

GIVEN_UP_GRACE_S = 1.0
"""How much longer than in the first run a replay waits for a body to give up an effect that it gave up then."""

Relay = Callable[["Head", bytes], Any]
"""Receives the body as it arrives; may return an awaitable."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request to a model. `body` holds everything that is sent; `conversation` is its history as a chain, if it has one."""

    endpoint: str
    body: Mapping[str, Json]
    conversation: Conversation | None
    params: bytes
    """Canonical JSON of the body without the conversation."""

    @classmethod
    def of(
        cls,
        endpoint: str,
        body: Mapping[str, Json],
        conversation: Conversation | None = None,
        before: Conversation | None = None,
    ) -> ModelCall:
        """A call of this body. `before` is an earlier conversation whose beginning this one probably shares."""
        key = THREAD_KEYS.get(endpoint)
        thread = body.get(key) if key else None
        if conversation is None and isinstance(thread, list):
            conversation = (before or Conversation.of()).continued(thread)
        rest = {name: value for name, value in body.items() if name != key or conversation is None}
        return cls(endpoint, body, conversation, encode(rest))

    @property
    def model(self) -> str:
        model = self.body.get("model")
        # PostgreSQL's text cannot hold NUL.
        return model.replace("\0", "\ufffd") if isinstance(model, str) else ""

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def size(self) -> int:
        """Bytes of the request, about."""
        return len(self.params) + (self.conversation.size if self.conversation else 0)

    @property
    def digest(self) -> str:
        head = self.conversation.head if self.conversation else None
        return digest(self.endpoint.encode(), self.params, (head or "").encode())


@dataclass(frozen=True, slots=True)
class Head:
    """What came before the body."""

    status: int
    content_type: str
    request_id: str | None = None
    engine: str = ""
    """Name of the engine that answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of an engine, from the engine or from the journal."""

    head: Head
    content: bytes
    usage: Usage
    replayed: bool = False

    @property
    def ok(self) -> bool:
        return 200 <= self.head.status < 300


@dataclass(slots=True)
class _Progress:
    """What is known of a call while it is under way."""

    queued_at: float
    attempts: int = 0
    engine: str = ""
    sent_at: float | None = None
    first_token_at: float | None = None
    head: Head | None = None
    received: bytearray = field(default_factory=bytearray)
    usage: Usage = field(default_factory=Usage)

    def understood(self) -> tuple[Usage, str]:
        """The usage in a complete answer, and the first tool that it asks for."""
        content = bytes(self.received)
        if self.head is not None and self.head.content_type.startswith("text/event-stream"):
            self.usage = usage_of_stream(content)
            return self.usage, ""
        body = _json_or_none(content)
        self.usage = usage_of(body)
        return self.usage, first_tool(body)


class CallPath:
    """Carries out model calls for running bodies."""

    def __init__(self, dispatcher: Dispatcher, limits: CallLimits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits

    def issue(self, body: Body, call: ModelCall) -> Issued[Entry]:
        """Give a call its number among the effects of its body. Raises `DivergentReplayError`."""
        return body.issue(call.digest, call_label(call.endpoint, call.model, call.digest))

    async def perform(
        self, body: Body, call: ModelCall, relay: Relay | None = None, issued: Issued[Entry] | None = None
    ) -> Answer:
        """The answer to a call, whatever its HTTP status; `relay` gets the body as it arrives. `issued` is for calls that
        were issued already, by the body's own task.

        Raises `EngineError` when no usable answer came (after bounded retries, none of them after the first byte was
        relayed), `DivergentReplayError` when a resumed step asks for something else than it did. Cancelling it closes the
        connection to the engine.
        """
        program = body.program
        issued = issued or self.issue(body, call)
        try:
            if isinstance(issued.recorded, CallRecord):
                answer = await self._replayed(issued.recorded, relay)
                if answer is not None:
                    program.count_replayed(body.node, issued.recorded)
                    return answer

            progress = _Progress(program.now())
            program.emit("call.started", body.node, call=issued.ordinal, model=call.model, endpoint=call.endpoint)
            outcome = _Outcome(body, call, issued.ordinal, issued.overlapped, progress)
            try:
                content = await self._sent(body, call, progress, relay)
            except anyio.get_cancelled_exc_class():
                outcome.settle("stopped", Usage(), None)
                body.cut_off(lambda: outcome.settle("cancelled", Usage(), None))
                raise
            except EngineError as error:
                outcome.settle("failed", Usage(), engine_facts(error))
                raise
            except Exception as error:
                outcome.settle("failed", Usage(), {"message": brief(error)})
                raise

            assert progress.head is not None
            usage = progress.usage
            outcome.settle("succeeded" if progress.head.status < 400 else "failed", usage, None)
            return Answer(progress.head, content, usage)
        finally:
            body.effects.close()
            body.progress()

    async def _replayed(self, record: CallRecord, relay: Relay | None) -> Answer | None:
        """The recorded answer or error; None if the call has to be carried out after all."""
        answer = record.answer or b""
        head = Head(record.status or 503, record.content_type or "application/json", record.request_id, record.engine)
        if relay is not None and answer and head.status < 400:
            await _give(relay, head, answer)
        if record.state == "cancelled":
            # The body gave this call up, by a timeout of its own or by leaving its stream, and will do so again; if it
            # does not, and has received nothing, the call is carried out.
            await anyio.sleep(
                math.inf if answer and relay is not None else record.ended_at - record.queued_at + GIVEN_UP_GRACE_S
            )
            return None
        if record.error is not None:
            raise recorded_engine_error(record.engine, record.error)
        usage = Usage(record.input_tokens, record.cached_tokens, record.output_tokens)
        return Answer(head, answer, usage, replayed=True)

    async def _sent(self, body: Body, call: ModelCall, progress: _Progress, relay: Relay | None) -> bytes:
        """Wait for a place, send, and try again as long as that is allowed; the complete content."""
        program = body.program
        request = EngineRequest(call.endpoint, call.body)
        while True:
            error: EngineError | None = None
            retry_after: float | None = None
            async with self._dispatcher.slot(_ask(body, call)) as (slot, engine):
                progress.attempts += 1
                progress.engine = engine.name
                progress.sent_at = program.now()
                try:
                    retry_after = await self._exchange(body, slot, engine, request, progress, relay)
                except EngineError as caught:
                    error = caught
                else:
                    slot.usage, slot.tool = progress.understood()
            head = progress.head
            if error is None and head is not None and head.status < 400:
                return bytes(progress.received)
            relayed = relay is not None and bool(progress.received) and head is not None and head.status < 400
            delay = (
                None if relayed else retry_delay(head.status if head else None, error, retry_after, progress.attempts, RETRIES)
            )
            if delay is None:
                if error is not None:
                    raise error
                return bytes(progress.received)
            reason = str(error) if error else f"status {head.status if head else '?'}"
            program.emit("call.retrying", body.node, model=call.model, reason=reason, delay_s=round(delay, 3))
            progress.head, progress.received = None, bytearray()
            await anyio.sleep(delay)

    async def _exchange(
        self, body: Body, slot: Slot, engine: Engine, request: EngineRequest, progress: _Progress, relay: Relay | None
    ) -> float | None:
        """One request and its whole answer, into `progress`; gives the seconds that the engine asks to wait."""
        limits = self._limits
        reply: EngineReply | None = None
        try:
            with anyio.fail_after(limits.total_s), anyio.fail_after(limits.idle_s) as idle:
                reply = await engine.send(request)
                progress.head = head = _head_of(reply, engine)
                # A refusal is kept back until it is known that there is no other attempt.
                relay_now = relay if head.status < 400 else None
                text = codecs.getincrementaldecoder("utf-8")()
                async for chunk in reply.chunks():
                    idle.deadline = anyio.current_time() + limits.idle_s
                    body.progress()
                    if progress.first_token_at is None:
                        progress.first_token_at = body.program.now()
                        slot.answering()
                    # What is recorded is what was relayed, so that a replay relays the same.
                    if len(progress.received) + len(chunk) > limits.bytes_max:
                        raise EngineError(f"the answer is larger than {limits.bytes_max} bytes", engine=engine.name)
                    if relay_now is not None:
                        text.decode(chunk)
                    progress.received += chunk
                    if relay_now is not None:
                        await _give(relay_now, head, chunk)
        except UnicodeDecodeError as error:
            raise EngineError(f"the stream is not UTF-8: {error.reason}", engine=engine.name, status=200) from error
        except TimeoutError as error:
            message = f"nothing arrived for {limits.idle_s:g} s, or the answer took more than {limits.total_s:g} s"
            raise EngineError(message, engine=engine.name, status=progress.head.status if progress.head else None) from error
        finally:
            if reply is not None:
                with anyio.CancelScope(shield=True), anyio.move_on_after(limits.close_s):
                    await reply.aclose()
        if head.status < 400:
            check_complete(engine.name, request, head, bytes(progress.received))
        return retry_after_s(reply.headers)


def _ask(body: Body, call: ModelCall) -> Ask:
    program = body.program
    agent, step = f"{program.id}/{body.path}", program.step_name(body.node)
    return Ask(program.root_id, program.tenant, agent, step, call.size // BYTES_PER_TOKEN, program.steps_left(body.node))


def _head_of(reply: EngineReply, engine: Engine) -> Head:
    headers = reply.headers
    request_id = headers.get("x-request-id") or headers.get("request-id")
    return Head(reply.status, headers.get("content-type", ""), request_id, engine.name)


def check_complete(engine: str, request: EngineRequest, head: Head, content: bytes) -> None:
    """Raise `EngineError` for an answer that is not what was asked for: not JSON, or a stream that was cut."""
    if not request.stream:
        if _json_or_none(content) is None:
            shown = content[:80].decode(errors="replace")
            raise EngineError(
                f"answered {head.status} with something that is not JSON: {shown!r}",
                engine=engine,
                status=head.status,
                retryable=True,
                hint="does the URL point at an OpenAI-compatible API (often it ends in /v1)?",
            )
        return
    tail = content[-4096:]
    ends = (
        (b"[DONE]",) if request.endpoint != "responses" else (b"response.completed", b"response.incomplete", b"response.failed")
    )
    if not any(end in tail for end in ends) and b"event: error" not in tail:
        raise EngineError(
            f"the stream ended in the middle, after {len(content)} bytes", engine=engine, status=head.status, retryable=True
        )


class _Outcome:
    """Writes what became of a call into the journal: the record, what is new of the conversation, and an event."""

    def __init__(self, body: Body, call: ModelCall, ordinal: int, overlapped: bool, progress: _Progress) -> None:
        self._body, self._call, self._ordinal, self._overlapped, self._progress = body, call, ordinal, overlapped, progress
        self._settled = False

    def settle(self, state: str, usage: Usage, error: dict[str, Json] | None) -> None:
        """Once for every call (again only where a body outlives a call that it gave up); does not wait, so cancellation
        cannot come in between."""
        body, call, progress = self._body, self._call, self._progress
        program, head = body.program, progress.head
        params = digest(call.params)
        again, self._settled = self._settled, True
        record = CallRecord(
            program_id=program.id,
            node=body.node,
            attempt=body.attempt,
            ordinal=self._ordinal,
            overlapped=self._overlapped,
            state=state,
            endpoint=call.endpoint,
            model=call.model,
            engine=progress.engine,
            request_digest=call.digest,
            params=params,
            conversation=call.conversation.head if call.conversation else None,
            status=head.status if head else None,
            content_type=head.content_type if head else None,
            request_id=head.request_id if head else None,
            answer=bytes(progress.received) if head else None,
            error=encode(error).decode() if error else None,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            attempts=progress.attempts,
            queued_at=progress.queued_at,
            sent_at=progress.sent_at,
            first_token_at=progress.first_token_at,
            ended_at=program.now(),
        )
        if again:
            program.journal.append(record)
            return
        program.count_call(record)
        event = program.event(
            f"call.{state}", body.node, call=self._ordinal, model=call.model, status=record.status,
            input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens, output_tokens=usage.output_tokens,
            seconds=round(record.ended_at - record.queued_at, 6), **({"error": str(error["message"])} if error else {}),
        )  # fmt: skip
        program.journal.append(*self._new_parts(params), record, event)

    def _new_parts(self, params: str) -> list[Record]:
        """The parts and links that this program has not stored yet. A stored link has all its parents stored."""
        stored, records = self._body.program.stored, list[Record]()
        if params not in stored:
            stored.add(params)
            records.append(PartRecord(params, self._call.params))
        new = []
        for link in reversed(self._call.conversation.links if self._call.conversation else []):
            if link.digest in stored:
                break
            stored.add(link.digest)
            new.append(link)
        for link in reversed(new):
            records += [PartRecord(link.part, link.content), LinkRecord(link.digest, link.parent, link.part)]
        return records


def _json_or_none(content: bytes) -> Json:
    try:
        value: Json = from_json(content)
    except ValueError:
        return None
    return value


async def _give(relay: Relay, head: Head, chunk: bytes) -> None:
    given = relay(head, chunk)
    if given is not None:
        await given
