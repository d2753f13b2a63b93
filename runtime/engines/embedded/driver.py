"""The engine model in real time: advances it when something is due and wakes the answers that wait for it.

There is no background task. Of the answers that wait, one at a time (the leader) sleeps until the model's next event; the
others wait to be woken, and when the leader leaves another takes over. So the engine needs no start or stop, lives inside
whatever task asked for an answer, and works on any event loop, one with virtual time included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import anyio

from .events import Finished, ModelStats
from .kvcache import Chain
from .model import EngineModel


class Job:
    """The requests to the model behind one answer: one for each choice."""

    __slots__ = ("aborted", "event", "finished", "ids", "streamed", "told")

    def __init__(self, ids: Sequence[str], streamed: bool) -> None:
        self.ids = tuple(ids)
        self.streamed = streamed
        self.finished: dict[str, Finished] = {}
        self.aborted = False
        self.told = 0
        self.event = anyio.Event()

    @property
    def done(self) -> bool:
        return len(self.finished) == len(self.ids)


class Driver:
    """One model, one event loop at a time. `interval_s` bounds how often the streams are woken for new tokens."""

    def __init__(
        self, model: EngineModel, *, clock: Callable[[], float] = anyio.current_time, interval_s: float = 0.02
    ) -> None:
        self.model = model
        self._clock = clock
        self._interval_s = interval_s
        self._offset = 0.0
        self._last = 0.0
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[Job, None] = {}
        self._streams: dict[Job, None] = {}  # those of the waiting that want tokens as they come
        self._tick_at = -math.inf  # streams are looked through once per interval, not at every step of every stream
        self._leader: Job | None = None

    def now(self) -> float:
        """The loop's time; a new loop whose clock starts lower goes on where the old one was."""
        now = self._clock() + self._offset
        if now < self._last:
            self._offset += self._last - now
            now = self._last
        self._last = now
        return now

    def submit(self, job: Job, sizes: Sequence[tuple[Chain, int, int]], priority: int) -> None:
        """Hand a job's requests to the model: (block chain, prompt tokens, output tokens) each."""
        now = self.now()
        for request_id, (chain, prompt_tokens, output_tokens) in zip(job.ids, sizes, strict=True):
            self.model.submit(request_id, chain, prompt_tokens, output_tokens, now, priority=priority)
            self._jobs[request_id] = job
        if self._leader is not None:
            self._leader.event.set()  # the next event may be earlier than the one it sleeps for

    def abort(self, job: Job) -> None:
        """Drop what is unfinished of a job, and wake whoever waits for it."""
        if job.done or job.aborted:
            return
        job.aborted = True
        now = self.now()
        for request_id in job.ids:
            if self._jobs.pop(request_id, None) is not None:
                self.model.abort(request_id, now)
        job.event.set()
        if self._leader is not None:
            self._leader.event.set()

    def produced(self, job: Job) -> list[int]:
        """Tokens generated so far, per choice."""
        return [
            done.output_tokens if (done := job.finished.get(request_id)) else self.model.progress(request_id, self._last)
            for request_id in job.ids
        ]

    def stats(self) -> ModelStats:
        """The model's counters, now."""
        self._catch_up()
        return self.model.stats()

    async def until_news(self, job: Job) -> None:
        """Return when the job is done or aborted, or, for a stream, when it has tokens beyond `job.told`."""
        self._waiting[job] = None
        if job.streamed:
            self._streams[job] = None
        try:
            while not self._has_news(job):
                if self._leader is None:
                    self._leader = job
                with anyio.move_on_after(self._delay() if self._leader is job else None):
                    await job.event.wait()
                if job.event.is_set():
                    job.event = anyio.Event()
        finally:
            del self._waiting[job]
            self._streams.pop(job, None)
            if self._leader is job:
                self._leader = next(iter(self._waiting), None)
                if self._leader is not None:
                    self._leader.event.set()

    def _has_news(self, job: Job) -> bool:
        self._catch_up()
        if job.done or job.aborted:
            return True
        return job.streamed and sum(self.produced(job)) > job.told

    def _catch_up(self) -> None:
        for event in self.model.advance(self.now()):
            if isinstance(event, Finished) and (job := self._jobs.pop(event.request_id, None)) is not None:
                job.finished[event.request_id] = event
                if job.done:
                    job.event.set()
        if self._last >= self._tick_at:
            self._tick_at = self._last + self._interval_s
            for job in self._streams:
                if job is not self._leader and sum(self.produced(job)) > job.told:
                    job.event.set()

    def _delay(self) -> float:
        """Seconds until the leader should look again."""
        at = self.model.next_event_at()
        if at is None:
            return math.inf
        if self._streams and (token_at := self.model.next_token_at(self._last)) is not None:
            at = min(at, max(token_at, self._tick_at))
        # Not less than a microsecond: a sleep that rounds to nothing would never reach the event.
        return max(1e-6, at - self._last)
