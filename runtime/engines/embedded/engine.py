"""The embedded engine: an OpenAI-compatible engine inside this process, over the engine model.

It is the default backend of demonstrations and tests. Its text is deterministic and not intelligent; its timing, prefix
cache, batching, usage and errors are those of the model it runs. `server` puts the same object behind HTTP.
"""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import isawaitable
from itertools import count
from pathlib import Path

import anyio
import anyio.lowlevel

from ....encoding import Json
from ....memory.blocks import block_chain
from ...clock import Clock, SystemClock
from ..port import ENDPOINTS, EngineReply, EngineRequest
from .delivery import BodyReply, StreamReply
from .driver import Driver, Job
from .embeddings import DIMENSIONS, as_base64, embed
from .events import ModelStats
from .hardware import Profile, profile_named
from .kvcache import Chain
from .model import EngineModel
from .playback import play, spoken
from .replies import Answer, compose
from .requestlog import RequestLog
from .requests import Ask, BadRequestError, chat_tools, read_chat, read_completions, read_embeddings, read_responses
from .responses import ResponsesWriter
from .script import Reply, Script, Usage, script_function
from .tokens import END, Piece, SpokenCall, answer_ids, answer_pieces, prompt_ids, tokenise
from .wire import ChatWriter, CompletionsWriter, Said, Writer, call_list, error_body, said_from, to_bytes

_REMEMBERED_RESPONSES = 1000


@dataclass(frozen=True, slots=True)
class _Choice:
    """One choice as it will be generated."""

    pieces: Sequence[Piece]
    calls: tuple[SpokenCall, ...]
    said: Said
    chain: Chain
    prompt_tokens: int


class EmbeddedEngine:
    """Implements `Engine` in process. Bound to one event loop at a time, like every asynchronous object.

    `profile` names a model on a machine (`hardware.PROFILES`) or is one. `speed` divides its times; `math.inf`, the default,
    answers at once, with cache and usage modelled all the same. `seed` varies what it says; `script` dictates it. `kv_tokens`
    overrides the size of the KV cache; `priority=True` obeys the body's `priority` (lower first). `requests` keeps a log of
    digests, in the given file too. `wall` stamps the answers.
    """

    def __init__(
        self,
        name: str = "embedded",
        *,
        model: str = "fairlead-embedded",
        profile: str | Profile = "demo",
        speed: float = math.inf,
        seed: int = 0,
        script: Script | None = None,
        kv_tokens: int | None = None,
        priority: bool = False,
        prefix_caching: bool = True,
        requests: bool | Path = False,
        wall: Clock | None = None,
    ) -> None:
        self.name = name
        self.models = (model,)
        chosen = profile_named(profile) if isinstance(profile, str) else profile
        # At infinite speed nothing waits for memory: the cache is modelled, but there is nothing to schedule.
        self.kv_tokens = None if speed == math.inf else kv_tokens or chosen.kv_tokens
        self.core = EngineModel(chosen, kv_tokens=kv_tokens, speed=speed, priority=priority, prefix_caching=prefix_caching)
        self.requests = RequestLog(requests if isinstance(requests, Path) else None) if requests else None
        self._driver = Driver(self.core)
        self._speed = speed
        self._seed = seed
        self._script = script_function(script) if script is not None else None
        self._wall = wall or SystemClock()
        self._ids = count(1)
        self._prefix = uuid.uuid4().hex[:12]
        # Conversations by response id, for `previous_response_id`; the oldest are forgotten.
        self._conversations: OrderedDict[str, list[Json]] = OrderedDict()

    async def send(self, request: EngineRequest) -> EngineReply:
        """Answer one request. Errors of the request are replies with an HTTP status, as from a server."""
        if self.requests is not None:
            self.requests.add(request)
        dictated: Reply | None = None
        if self._script is not None:
            scripted = self._script(request)
            if isawaitable(scripted):
                scripted = await scripted
            if isinstance(scripted, str):
                scripted = Reply(scripted)
            if isinstance(scripted, Reply) and scripted.modelled:
                dictated = scripted
            elif scripted is not None:
                answer_id = self._answer_id(request)
                return await play(self.name, request, scripted, lambda calls: self._writer(request, answer_id, calls))
        try:
            if request.endpoint == "embeddings":
                return await self._embed(request)
            return await self._generate(request, dictated)
        except BadRequestError as error:
            body = error_body(error.message, status=error.status, param=error.param, code=error.code)
            return BodyReply(error.status, body)

    async def aclose(self) -> None:
        """Nothing is held open."""

    def stats(self) -> ModelStats:
        """The engine model's counters, now."""
        return self._driver.stats()

    def tokenise(self, body: Mapping[str, Json]) -> Json:
        """`POST /tokenize` in vLLM's shape: of `prompt`, or of `messages` (with `tools`) as the template renders them.

        Raises `BadRequestError`.
        """
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            ids = tokenise(prompt)
        else:
            ask = read_chat({**body, "model": self.models[0]})
            ids = prompt_ids(ask.messages, chat_tools(ask.tools))
            if body.get("add_generation_prompt") is False:
                ids = ids[:-1]
        return {"count": len(ids), "max_model_len": self.core.max_model_len, "tokens": list(ids)}

    async def _generate(self, request: EngineRequest, dictated: Reply | None) -> EngineReply:
        asks = self._read(request)
        self._check_model(asks[0].model)
        choices = [self._choose(ask, number, request, dictated) for ask in asks for number in range(ask.n)]
        answer_id = self._answer_id(request)
        job = Job([f"{answer_id}-{index}" for index in range(len(choices))], streamed=request.stream)
        if dictated is not None and dictated.delay_s > 0:
            await anyio.sleep(dictated.delay_s)
        sizes = [(choice.chain, choice.prompt_tokens, len(choice.pieces)) for choice in choices]
        self._driver.submit(job, sizes, asks[0].priority)
        self._remember(answer_id, asks[0], choices[0])
        writer = self._writer(request, answer_id, *(choice.calls for choice in choices))
        if request.stream:
            return StreamReply(self._stream(job, choices, asks, writer), lambda: self._driver.abort(job))
        try:
            while not job.done:
                await self._driver.until_news(job)
            await anyio.lowlevel.checkpoint()
        finally:
            self._driver.abort(job)
        said = [choice.said for choice in choices]
        return BodyReply(200, writer.whole(said, _usage(job, choices, asks)))

    async def _stream(
        self, job: Job, choices: Sequence[_Choice], asks: Sequence[Ask], writer: Writer
    ) -> AsyncGenerator[bytes, None]:
        sent = [0] * len(choices)
        opening = writer.opening()
        while not job.done or sum(sent) < sum(len(choice.pieces) for choice in choices):
            await self._driver.until_news(job)
            if job.aborted:
                return
            produced = self._driver.produced(job)
            job.told = sum(produced)
            for index, choice in enumerate(choices):
                chunk = opening + writer.delta(index, choice.pieces[sent[index] : produced[index]])
                sent[index], opening = produced[index], b""
                if chunk:
                    yield chunk
        await anyio.lowlevel.checkpoint()
        yield writer.closing([choice.said for choice in choices], _usage(job, choices, asks))

    def _read(self, request: EngineRequest) -> list[Ask]:
        match request.endpoint:
            case "chat/completions":
                return [read_chat(request.body)]
            case "completions":
                return read_completions(request.body)
            case "responses":
                return [read_responses(request.body, self._earlier(request.body))]
        raise BadRequestError(
            f"this engine has no endpoint /v1/{request.endpoint}; it has {', '.join(ENDPOINTS)}", code="unknown_url", status=404
        )

    def _choose(self, ask: Ask, number: int, request: EngineRequest, dictated: Reply | None) -> _Choice:
        """Decide what one choice will say, and what it costs."""
        if ask.prompt is None:
            ids = prompt_ids(ask.messages, chat_tools(ask.tools))
        else:
            ids = tokenise(ask.prompt)[:] if isinstance(ask.prompt, str) else tokenise("")[:]
            ids.extend(() if isinstance(ask.prompt, str) else ask.prompt)
        limit = self._output_limit(len(ids), ask.max_tokens)
        answer = compose(ask, self._seed, number) if dictated is None else Answer(dictated.text, spoken(request, dictated))
        text, stopped = _before_stop(answer.text, ask.stop)
        answer = replace(answer, text=text, calls=() if stopped else answer.calls)
        pieces = answer_pieces(answer.text, answer.calls)
        reason = "length" if len(pieces) > limit else "tool_calls" if answer.calls else "stop"
        if dictated is not None and dictated.finish_reason and reason != "length":
            reason = dictated.finish_reason
        pieces = pieces[:limit]
        prompt_tokens = len(ids)
        ids.extend(answer_ids(answer.text, answer.calls)[:limit])
        ids.append(END)
        chain = block_chain(ids[: prompt_tokens + len(pieces)], ask.salt)
        return _Choice(pieces, answer.calls, said_from(pieces, answer.calls, reason), chain.hashes, prompt_tokens)

    def _output_limit(self, prompt_tokens: int, wanted: int | None) -> int:
        """How many tokens may be generated. Raises `BadRequestError` when prompt and wanted output exceed the context."""
        if reason := self.core.why_too_large(prompt_tokens, wanted or 1):
            raise BadRequestError(reason, param="messages", code="context_length_exceeded")
        return wanted if wanted is not None else self.core.max_model_len - prompt_tokens

    def _check_model(self, model: str) -> None:
        if model not in self.models:
            raise BadRequestError(
                f"the model {model!r} does not exist on this engine; it has: {', '.join(self.models)}",
                param="model",
                code="model_not_found",
                status=404,
            )

    def _writer(self, request: EngineRequest, answer_id: str, *calls: tuple[SpokenCall, ...]) -> Writer:
        created, model = int(self._wall.now()), request.model or self.models[0]
        if request.endpoint == "responses":
            return ResponsesWriter(answer_id, created, model, calls[0], request.body)
        options = request.body.get("stream_options")
        include_usage = isinstance(options, dict) and options.get("include_usage") is True
        if request.endpoint == "completions":
            return CompletionsWriter(answer_id, created, model, include_usage)
        return ChatWriter(answer_id, created, model, calls, include_usage, len(calls))

    def _answer_id(self, request: EngineRequest) -> str:
        prefix = {"responses": "resp_", "completions": "cmpl-"}.get(request.endpoint, "chatcmpl-")
        return f"{prefix}{self._prefix}{next(self._ids):08x}"

    def _earlier(self, body: Mapping[str, Json]) -> Sequence[Json]:
        previous = body.get("previous_response_id")
        if previous is None:
            return ()
        found = self._conversations.get(previous) if isinstance(previous, str) else None
        if found is None:
            raise BadRequestError(
                f"the response {previous!r} is not known (this engine remembers its last {_REMEMBERED_RESPONSES})",
                param="previous_response_id",
                code="previous_response_not_found",
                status=404,
            )
        return found

    def _remember(self, answer_id: str, ask: Ask, choice: _Choice) -> None:
        if ask.endpoint != "responses" or ask.extra.get("store") is False:
            return
        said = choice.said
        message: dict[str, Json] = {"role": "assistant", "content": said.text}
        if said.calls:
            message["tool_calls"] = call_list(said.calls)
        # Instructions are given anew with every response.
        kept = ask.messages[1 if ask.extra.get("instructions") else 0 :]
        self._conversations[answer_id] = [*kept, message]
        if len(self._conversations) > _REMEMBERED_RESPONSES:
            self._conversations.popitem(last=False)

    async def _embed(self, request: EngineRequest) -> EngineReply:
        ask = read_embeddings(request.body, DIMENSIONS)
        self._check_model(ask.model)
        texts = [given if isinstance(given, str) else " ".join(map(str, given)) for given in ask.inputs]
        tokens = sum(len(given) if not isinstance(given, str) else len(tokenise(given)) for given in ask.inputs)
        with suppress(OverflowError):
            await anyio.sleep((self.core.profile.gemm_s(tokens) + self.core.profile.fixed_s) / self._speed)
        data: list[Json] = []
        for index, text in enumerate(texts):
            vector = embed(text, ask.dimensions)
            data.append({"object": "embedding", "index": index, "embedding": as_base64(vector) if ask.base64 else list(vector)})
        usage: Json = {"prompt_tokens": tokens, "total_tokens": tokens}
        return BodyReply(200, to_bytes({"object": "list", "data": data, "model": ask.model, "usage": usage}))


def _before_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first stop sequence, and whether there was one."""
    ends = [at for mark in stop if (at := text.find(mark)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def _usage(job: Job, choices: Sequence[_Choice], asks: Sequence[Ask]) -> Usage:
    """A prompt is counted once, however many choices it has; the choices after the first find it in the cache anyway."""
    firsts = range(0, len(choices), asks[0].n)
    return Usage(
        prompt_tokens=sum(choices[index].prompt_tokens for index in firsts),
        completion_tokens=sum(len(choice.pieces) for choice in choices),
        cached_tokens=sum(job.finished[job.ids[index]].cached_tokens for index in firsts),
    )
