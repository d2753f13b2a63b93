"""The engine model: what a continuous-batching engine does with its requests, as a pure function of time.

Requests wait first come, first served (or by priority), are admitted when a place and blocks are there, prefill in chunks that
share each iteration with the decoding requests, and are recomputed when blocks run out: the scheduler of vLLM V1, in counts.
Time is an argument, in seconds of any clock that does not go backwards; the same calls give the same events. In real time
`EmbeddedEngine` drives it; on a virtual clock a simulator drives the same object.

What an iteration costs is `hardware.Profile`'s. Iterations in which nothing changes but the decoding requests' length are taken
in one **span**: its end has a closed form, its middle can be asked for (`progress`), and a change cuts it at the end of the
iteration under way. A call therefore costs a few heap operations, not one per token, and how often `advance` is called changes
nothing in the outcome.

Simplified: a request is admitted only when its whole prompt fits at that moment; what was generated is recomputed as prompt
after a preemption; sampling, speculative decoding and swapping are not modelled.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable

from ....errors import InputError
from ....memory.blocks import BLOCK_TOKENS, block_count
from .batch import Request, Span
from .events import Admitted, Finished, FirstToken, ModelEvent, ModelStats, Preempted, RequestTooLargeError
from .hardware import Profile
from .kvcache import Chain, KVCache
from .offload import HostTier, Offload
from .pins import Pins

PIN_PATIENCE_S = 2.0
"""How long a request waits for memory that kept prefixes take before they give way."""


class EngineModel:
    """One engine. Not thread-safe; every method that takes `now` may be called with any time not before the last one.

    `speed` divides all durations (50 is fifty times faster; `math.inf` takes no time). With `priority=True` a lower number
    is served first, as in vLLM; otherwise priorities are ignored. With `pin_share` above 0 prefixes are kept on request, up to
    that share of the cache; they give way to a request that has waited `PIN_PATIENCE_S` for memory, or before a running one
    would be preempted. With `offload` prefixes also go to host memory and are read back from there.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        kv_tokens: int | None = None,
        speed: float = 1.0,
        priority: bool = False,
        prefix_caching: bool = True,
        pin_share: float = 0.0,
        offload: Offload | None = None,
    ) -> None:
        if not speed > 0:
            raise InputError(f"engine speed must be above 0, not {speed:g}")
        self.profile = profile
        self.cache = KVCache((kv_tokens or profile.kv_tokens) // BLOCK_TOKENS)
        self.max_model_len = min(profile.max_model_len, self.cache.capacity * BLOCK_TOKENS)
        self._pins = Pins(self.cache, pin_share)
        self._host = HostTier(offload) if offload is not None else None
        self._scale = 1 / speed
        self._by_priority = priority
        self._prefix_caching = prefix_caching
        self._now = -math.inf
        self._requests: dict[str, Request] = {}
        self._queue: list[tuple[tuple[int, int], Request]] = []
        self._waiting = 0
        self._running: dict[str, Request] = {}  # in order of admission: the last one is preempted first
        self._prefilling: dict[str, Request] = {}
        self._span: Span | None = None
        self._idle_since: float | None = None  # work arrived while idle, to be started at this time
        self._events: list[ModelEvent] = []
        self._leaving: list[Request] = []
        self._arrivals = 0
        # Decoding requests advance together: `_clock` counts iterations, everything else follows from when one joined.
        self._clock = 0
        self._batch = 0
        self._context = 0  # KV tokens that the next iteration's decodes read
        self._phases = [0] * BLOCK_TOKENS  # decodes by (KV length - clock) mod 16: who needs a new block when
        # Decodes by `ends_at`, then arrival; entries outdated by a preemption are skipped when they come up.
        self._ends: list[tuple[int, int, Request]] = []
        self._preemptions = self._queries = self._hits = 0
        self._prompt_tokens = self._generated = self._finished = self._aborted = 0

    def why_too_large(self, prompt_tokens: int, output_tokens: int) -> str | None:
        """Why a request of this size can never run here, or None."""
        total = prompt_tokens + output_tokens
        if total <= self.max_model_len:
            return None
        return (
            f"this model's maximum context length is {self.max_model_len} tokens, but the request needs {total} "
            f"({prompt_tokens} in the prompt, {output_tokens} for the output)"
        )

    @property
    def reloaded_tokens(self) -> int:
        """Tokens read back from host memory."""
        return self._host.reloaded_tokens if self._host is not None else 0

    def unpin(self, owner: Hashable, now: float) -> None:
        """Keep the prefix of this owner no longer."""
        self._run_to(now)
        if self._pins.drop(owner):
            self._cut_span(now)

    def submit(
        self,
        request_id: str,
        chain: Chain,
        prompt_tokens: int,
        output_tokens: int,
        now: float,
        *,
        priority: int = 0,
        owner: Hashable = None,
        keep_s: float = 0.0,
    ) -> None:
        """Add a request. `chain` holds the block keys of the prompt and, where known, of the output after it.

        `output_tokens` (at least 1) are generated exactly. With `keep_s` above 0 what it leaves in the cache is kept that long
        after its end, or until the next request of the same `owner` runs. Raises `RequestTooLargeError`; `InputError` for a
        known id.
        """
        if reason := self.why_too_large(prompt_tokens, output_tokens):
            raise RequestTooLargeError(reason)
        if request_id in self._requests or prompt_tokens < 1 or output_tokens < 1:
            raise InputError(f"request {request_id!r} is already known, or has an empty prompt or output")
        self._run_to(now)
        self._arrivals += 1
        rank = priority if self._by_priority else 0
        request = Request(request_id, chain, prompt_tokens, output_tokens, rank, self._arrivals)
        request.owner, request.keep_s, request.waiting_since = owner, keep_s, now
        self._requests[request_id] = request
        first_in_line = self._waiting == 0 or request.rank < self._queue[0][0]
        self._enqueue(request)
        if self._span is None:
            self._idle_since = now if self._idle_since is None else self._idle_since
        elif first_in_line and len(self._running) < self.profile.max_num_seqs:
            self._cut_span(now)

    def abort(self, request_id: str, now: float) -> None:
        """Drop a request; unknown and finished ids are ignored. A running one leaves at the end of the iteration."""
        self._run_to(now)
        request = self._requests.pop(request_id, None)
        if request is None:
            return
        self._aborted += 1
        request.aborted = True
        if request.hold is None:
            self._waiting -= 1
            if self._queue[0][1] is request:
                self._cut_span(now)  # the next in line may fit where this one did not
            self._drop_dead_heads()
        else:
            self._leaving.append(request)
            self._cut_span(now)

    def advance(self, now: float) -> list[ModelEvent]:
        """Everything that happened up to and including `now`, in order, that was not told before."""
        self._run_to(now)
        if self._idle_since is not None:
            self._start()
            self._run_to(now)
        events, self._events = self._events, []
        return events

    def next_event_at(self) -> float | None:
        """When `advance` will next have something to do (perhaps without an event); None while there is no work."""
        if self._events:
            return self._now
        self._start()
        return self._span.end if self._span is not None else None

    def next_token_at(self, now: float) -> float | None:
        """When the iteration under way ends: the next time that `progress` can differ."""
        self._start()
        span = self._span
        return span.time_of(min(span.steps_by(now) + 1, span.steps)) if span is not None else None

    def progress(self, request_id: str, now: float) -> int:
        """Tokens generated by `now` (the time of the last `advance`, or up to `next_event_at`); 0 for unknown ids."""
        request = self._requests.get(request_id)
        if request is None or not request.decoding:
            return request.produced if request is not None else 0
        steps = self._span.steps_by(now) if self._span is not None else 0
        return min(request.produced + self._clock + steps - request.joined_at, request.output_tokens)

    def stats(self) -> ModelStats:
        """A snapshot as of the last call that took a time."""
        return ModelStats(
            running=len(self._running) - len(self._leaving),
            waiting=self._waiting,
            kv_usage=self.cache.held / self.cache.capacity if self.cache.capacity else 0.0,
            capacity_blocks=self.cache.capacity,
            preemptions=self._preemptions,
            prefix_queries=self._queries,
            prefix_hits=self._hits,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated,
            finished=self._finished,
            aborted=self._aborted,
            iterations=self._clock,
        )

    # Time

    def _run_to(self, now: float) -> None:
        if now < self._now:
            raise InputError(f"time went backwards: {now} after {self._now}")
        if self._idle_since is not None and now > self._idle_since:
            self._start()
        while self._span is not None and self._span.end <= now:
            end = self._span.end
            self._settle(end)
            self._schedule(end)
        self._now = now

    def _start(self) -> None:
        """Begin the first iteration after an idle time; left until somebody looks, so that arrivals of one moment share it."""
        since, self._idle_since = self._idle_since, None
        if since is not None:
            self._schedule(since)

    def _cut_span(self, now: float) -> None:
        span = self._span
        if span is not None:
            span.steps = min(span.steps, span.steps_by(now) + 1)

    # The end of a span

    def _settle(self, at: float) -> None:
        span = self._span
        assert span is not None
        self._span = None
        self._grow_decodes(span.steps)
        for request, tokens in span.prefills:
            request.computed += tokens
            if request.computed == request.target:
                self._join_decodes(request, at)
        while self._ends and self._ends[0][0] <= self._clock:
            ends_at, _, request = heapq.heappop(self._ends)
            if request.decoding and request.ends_at == ends_at and not request.aborted:
                self._finish(request, at)
        for request in self._leaving:
            if request.hold is not None:
                self._leave(request)
        self._leaving.clear()

    def _grow_decodes(self, steps: int) -> None:
        if self._batch:
            self.cache.reserve(None, self._blocks_for(steps))
            self._generated += self._batch * steps
            self._context += self._batch * steps
        self._clock += steps

    def _blocks_for(self, steps: int) -> int:
        """New blocks that the decoding requests need for their next `steps` tokens."""
        whole, rest = divmod(steps, BLOCK_TOKENS)
        return whole * self._batch + sum(self._phases[-(self._clock + step) % BLOCK_TOKENS] for step in range(rest))

    def _join_decodes(self, request: Request, at: float) -> None:
        """The last chunk of a prefill also gives a token."""
        if request.aborted:
            return
        del self._prefilling[request.request_id]
        length = request.target
        if request.produced == 0:
            self._events.append(FirstToken(request.request_id, at))
        request.produced += 1
        request.joined_at = self._clock
        request.decoding = True
        self._generated += 1
        self._batch += 1
        self._context += length + 1
        self._phases[(length - self._clock) % BLOCK_TOKENS] += 1
        heapq.heappush(self._ends, (request.ends_at, request.arrived, request))

    def _finish(self, request: Request, at: float) -> None:
        self._leave(request)
        if request.keep_s > 0:
            self._pins.keep(request.owner, request.chain, len(request.chain), at + request.keep_s)
        del self._requests[request.request_id]
        self._finished += 1
        cached = request.cached_tokens or 0
        self._events.append(Finished(request.request_id, at, request.output_tokens, cached, request.preemptions))

    def _leave(self, request: Request) -> None:
        """Out of the batch; what was computed stays in the cache as far as its chain is known."""
        hold = request.hold
        assert hold is not None
        computed = request.computed
        if request.decoding:
            request.produced += self._clock - request.joined_at
            computed = request.target - 1
            self._batch -= 1
            self._context -= computed + 1
            self._phases[(computed - self._clock) % BLOCK_TOKENS] -= 1
            request.decoding = False
            hold.private = block_count(computed) - hold.depth
        else:
            self._prefilling.pop(request.request_id, None)
        if self._prefix_caching:
            self.cache.publish(hold, request.chain, max(hold.depth, min(computed // BLOCK_TOKENS, len(request.chain))))
            if self._host is not None:
                self._host.store(request.chain, hold.depth)
        self.cache.release(hold, request.owner)
        request.hold = None
        request.computed = 0
        del self._running[request.request_id]

    # The start of a span

    def _schedule(self, at: float) -> None:
        self._pins.expire(at)
        preempted = self._make_room_for_decodes(at)
        budget = self.profile.max_num_batched_tokens - self._batch
        prefills: list[tuple[Request, int]] = []
        for request in list(self._prefilling.values()):
            if not request.admitted or budget <= 0 or request.loaded_at > at:
                continue
            tokens = min(request.target - request.computed, budget)
            preempted = self._make_room_for_chunk(request, tokens, at) or preempted
            if request.admitted:
                budget -= tokens
                prefills.append(self._take_chunk(request, tokens))
        # A later preemption may have thrown out a chunk taken earlier in this loop.
        prefills = [(request, tokens) for request, tokens in prefills if request.admitted]
        while not preempted and budget > 0 and (admitted := self._admit(at)) is not None:
            if admitted.loaded_at > at:
                continue
            tokens = min(admitted.target - admitted.computed, budget)
            budget -= tokens
            prefills.append(self._take_chunk(admitted, tokens))
        # Nobody is admitted in an iteration that preempts; somebody may be in the next.
        self._span = self._next_span(at, prefills, single=bool(prefills) or preempted)

    def _make_room_for_decodes(self, at: float) -> bool:
        preempted = False
        while self._batch and self._blocks_for(1) > self.cache.available:
            if not self._pins.drop_soonest():
                self._preempt_last(at)
                preempted = True
        return preempted

    def _make_room_for_chunk(self, request: Request, tokens: int, at: float) -> bool:
        """Preempt the last admitted until the chunk fits; that may be `request` itself."""
        preempted = False
        while request.admitted and not self._can_prefill(request, tokens):
            if not self._pins.drop_soonest():
                self._preempt_last(at)
                preempted = True
        return preempted

    def _can_prefill(self, request: Request, tokens: int) -> bool:
        return self._chunk_blocks(request, tokens) + self._blocks_for(1) <= self.cache.available

    @staticmethod
    def _chunk_blocks(request: Request, tokens: int) -> int:
        assert request.hold is not None
        return max(0, block_count(request.computed + tokens) - request.hold.depth - request.hold.private)

    def _take_chunk(self, request: Request, tokens: int) -> tuple[Request, int]:
        """Blocks are shared from the moment they are scheduled, so that siblings that start together compute a prefix once."""
        hold = request.hold
        assert hold is not None
        self.cache.reserve(hold, self._chunk_blocks(request, tokens))
        if self._prefix_caching:
            full = min((request.computed + tokens) // BLOCK_TOKENS, len(request.chain))
            self.cache.publish(hold, request.chain, max(hold.depth, full))
        return request, tokens

    def _admit(self, at: float) -> Request | None:
        """Take the head of the queue if there is a place for it and its whole prompt fits now."""
        self._drop_dead_heads()
        if not self._queue or len(self._running) >= self.profile.max_num_seqs:
            return None
        request = self._queue[0][1]
        # The last token is always computed: it gives the first output token.
        limit = min((request.target - 1) // BLOCK_TOKENS, len(request.chain)) if self._prefix_caching else 0
        while not self._fits(request, limit):
            patient = self._running and at < request.waiting_since + PIN_PATIENCE_S
            if patient or not self._pins.drop_soonest():
                return None
        heapq.heappop(self._queue)
        self._waiting -= 1
        request.hold = hold = self.cache.acquire(request.chain, limit)
        self._pins.drop(request.owner)
        if self._host is not None and (loaded := self._host.holds(request.chain, limit) - hold.depth) > 0:
            request.loaded_at = self._host.load(loaded, at)
            self.cache.reserve(hold, loaded)
            self.cache.publish(hold, request.chain, hold.depth + loaded)
        request.computed = hold.depth * BLOCK_TOKENS
        self._running[request.request_id] = self._prefilling[request.request_id] = request
        if request.cached_tokens is None:
            request.cached_tokens = request.computed
            self._queries += request.prompt_tokens
            self._hits += request.computed
            self._prompt_tokens += request.prompt_tokens
            self._events.append(Admitted(request.request_id, at, request.computed))
        return request

    def _fits(self, request: Request, limit: int) -> bool:
        match = self.cache.match(request.chain, limit)
        needed = block_count(request.target) - match.blocks + match.unheld + self._blocks_for(1)
        return needed <= self.cache.available

    def _next_span(self, at: float, prefills: list[tuple[Request, int]], *, single: bool) -> Span | None:
        look_at = self._next_look(at)
        if not prefills and not self._batch:
            return Span(at, 1, look_at - at, 0.0, prefills) if look_at is not None else None
        profile = self.profile
        tokens = self._batch + sum(chunk for _, chunk in prefills)
        seconds = profile.gemm_s(tokens) + profile.fixed_s + profile.decode_s_per_context_token * self._context
        seconds += sum(profile.prefill_attention_s(chunk, request.computed) for request, chunk in prefills)
        steps = 1 if single else self._quiet_steps()
        growth = profile.decode_s_per_context_token * self._batch
        span = Span(at, steps, seconds * self._scale, growth * self._scale, prefills)
        if look_at is not None:
            done = span.steps_by(look_at)
            span.steps = min(span.steps, max(1, done if span.time_of(done) >= look_at else done + 1))
        return span

    def _next_look(self, at: float) -> float | None:
        """When something is due besides iterations: a transfer ends, or a kept prefix gives way to the head of the queue."""
        if self._host is None and not self._pins:
            return None
        due = [request.loaded_at for request in self._prefilling.values()]
        if self._pins and self._queue:
            due.append(self._queue[0][1].waiting_since + PIN_PATIENCE_S)
            due.append(self._pins.next_end or at)
        return min((time for time in due if time > at), default=None)

    def _quiet_steps(self) -> int:
        """Iterations until a request ends or blocks could run out, at least 1."""
        steps = self._ends[0][0] - self._clock
        available = self.cache.available
        if self._blocks_for(steps) <= available:
            return max(1, steps)
        low = available // self._batch * BLOCK_TOKENS
        while self._blocks_for(low + 1) <= available:
            low += 1
        return max(1, min(low, steps))

    def _preempt_last(self, at: float) -> None:
        request = max(self._running.values(), key=_rank) if self._by_priority else next(reversed(self._running.values()))
        self._preemptions += 1
        request.preemptions += 1
        self._leave(request)
        request.waiting_since = at
        if not request.aborted:
            self._enqueue(request)
            self._events.append(Preempted(request.request_id, at))

    def _enqueue(self, request: Request) -> None:
        heapq.heappush(self._queue, (request.rank, request))
        self._waiting += 1

    def _drop_dead_heads(self) -> None:
        while self._queue and self._queue[0][1].aborted:
            heapq.heappop(self._queue)


def _rank(request: Request) -> tuple[int, int]:
    return request.rank
