"""What one decision costs while very many programs wait: real microseconds of the production object, nothing simulated."""

from __future__ import annotations

import random
import time

from bench.scheduling.arms import make
from fairlead.runtime.scheduling.port import (
    CallEnded,
    CallFirstToken,
    CallReady,
    Decision,
    Dispatch,
    EngineAdded,
    Event,
    ProgramArrived,
    ProgramEnded,
    Scheduler,
)
from fairlead.runtime.simulation.foresight import Truth

ENGINES = 16
EVENTS = 6_000
TENANTS = 20


def decision_times(waiting: int, seed: int = 0, name: str = "fairlead") -> list[float]:
    """Microseconds of each `handle` and `wake` in a steady state with that many waiting programs.

    Sixteen full engines; a call that ends is followed by its program's next one, or by the end of the program and the arrival
    of another, so the number of waiting programs stays.
    """
    bench = _Bench(make(name, Truth()), random.Random(seed))
    for engine in range(ENGINES):
        bench.tell(EngineAdded(f"engine-{engine}", 64, kv_tokens=430_000))
    for _ in range(waiting + ENGINES * 16):
        bench.arrive()
    bench.times.clear()
    for _ in range(EVENTS):
        bench.turn()
    return bench.times


class _Bench:
    def __init__(self, scheduler: Scheduler, rng: random.Random) -> None:
        self.times: list[float] = []
        self._scheduler = scheduler
        self._rng = rng
        self._now = 0.0
        self._calls = 0
        self._programs = 0
        self._running: list[tuple[int, str, int]] = []  # call, program, prompt tokens
        self._ready: dict[int, tuple[str, int]] = {}

    def tell(self, event: Event) -> None:
        since = time.perf_counter_ns()
        decisions = self._scheduler.handle(event, self._now)
        self.times.append((time.perf_counter_ns() - since) / 1e3)
        self._take(decisions)
        due = self._scheduler.next_wakeup()
        if due is not None and due <= self._now:
            since = time.perf_counter_ns()
            decisions = self._scheduler.wake(self._now)
            self.times.append((time.perf_counter_ns() - since) / 1e3)
            self._take(decisions)

    def _take(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Dispatch):
                program, prompt = self._ready.pop(decision.call_id)
                self._running.append((decision.call_id, program, prompt))

    def arrive(self) -> None:
        self._programs += 1
        name = f"p{self._programs}"
        self.tell(ProgramArrived(name, f"tenant-{self._programs % TENANTS}", workflow=f"w{self._programs % 5}"))
        self._call(name, self._rng.randint(1_000, 20_000))

    def _call(self, program: str, prompt: int) -> None:
        call = self._calls
        self._calls += 1
        self._ready[call] = (program, prompt)
        tenant = f"tenant-{int(program[1:]) % TENANTS}"
        self.tell(CallReady(call, program, tenant, prompt_tokens=prompt))

    def turn(self) -> None:
        """A running call ends; its program goes on, or ends and another one comes."""
        self._now += self._rng.expovariate(20.0)
        if not self._running:
            raise RuntimeError("the scheduler sends nothing although calls wait")
        place = self._rng.randrange(len(self._running))
        self._running[place], self._running[-1] = self._running[-1], self._running[place]
        call, program, prompt = self._running.pop()
        self.tell(CallFirstToken(call))
        self.tell(CallEnded(call, prompt, self._rng.randint(0, prompt), 200, "bash"))
        if self._rng.random() < 0.9:
            self._call(program, prompt + 800)
        else:
            self.tell(ProgramEnded(program))
            self.arrive()
