"""Simulated against real: the same small workload through the simulator and through the embedded engine, task by task."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from fairlead.encoding import Json
from fairlead.memory.blocks import BLOCK_TOKENS
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply
from fairlead.runtime.engines.embedded.hardware import PROFILES
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.simulation.chains import Stretch
from fairlead.runtime.simulation.engines import EngineSpec
from fairlead.runtime.simulation.loop import simulate
from fairlead.runtime.simulation.programs import Call, Program, Workload

PROFILE = "8b-a100"
KV_TOKENS = 80_000
"""A little too little for all programs, so that some wait and evict others. With much less the workload itself is chaotic: some
milliseconds more or less in a pause change what is evicted, and the whole run with it."""


@dataclass(slots=True)
class Figures:
    """Sums over all programs and calls, in seconds of the engine's time."""

    completion_s: float = 0.0
    first_token_s: float = 0.0
    cached_tokens: int = 0

    def error(self, other: Figures) -> float:
        """The largest relative difference of the three."""
        pairs = (
            (self.completion_s, other.completion_s),
            (self.first_token_s, other.first_token_s),
            (self.cached_tokens, other.cached_tokens),
        )
        return max(abs(mine - theirs) / theirs for mine, theirs in pairs)


def programs(seed: int, count: int = 14, turns: int = 6) -> list[Program]:
    """Conversations that arrive within ten seconds and do not fit together."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        calls, prompt = [], rng.randint(1_000, 4_000)
        for turn in range(turns):
            gap_s = rng.expovariate(0.3) if turn else 0.0
            # The answer stays in the cache, but the next prompt goes on otherwise.
            prefix = (Stretch(prompt // BLOCK_TOKENS, 0), Stretch(0, turn + 1))
            calls.append(Call(prompt, rng.randint(20, 150), (turn - 1,) if turn else (), gap_s, prefix))
            prompt += rng.randint(100, 1_500)
        made.append(Program(f"p{number}", tuple(calls), arrival_s=rng.uniform(0, 10)))
    return made


def simulated(work: Sequence[Program], *, kv_tokens: int = KV_TOKENS) -> Figures:
    """What the simulator says."""
    engine = EngineSpec("engine-0", PROFILES[PROFILE], kv_tokens=kv_tokens)
    run = simulate(Workload(tuple(work)), (engine,), ProgramFCFS())
    return Figures(
        sum((program.ended_at or 0.0) - program.arrived_at for program in run.programs),
        sum((call.first_token_at or 0.0) - call.ready_at for call in run.calls),
        sum(call.cached_tokens for call in run.calls),
    )


async def played(work: Sequence[Program], speed: float = 1.0, *, kv_tokens: int = KV_TOKENS) -> Figures:
    """What the embedded engine does, `speed` times as fast as the hardware that it imitates."""
    engine = EmbeddedEngine(
        profile=PROFILE, speed=speed, kv_tokens=kv_tokens, script=lambda _: Reply("word " * 500, modelled=True)
    )
    total = Figures()
    began = anyio.current_time()

    async def live(program: Program, number: int) -> None:
        await anyio.sleep_until(began + program.arrival_s / speed)
        # Every program has tokens of its own, and each of its prompts begins with the one before.
        first = 100_000 * (number + 1)
        for call in program.calls:
            await anyio.sleep(call.gap_s / speed)
            await ask(call, list(range(first, first + call.prompt_tokens)))
        total.completion_s += (anyio.current_time() - began) * speed - program.arrival_s

    async def ask(call: Call, prompt: Json) -> None:
        since = anyio.current_time()
        body: dict[str, Json] = {"model": "fairlead-embedded", "prompt": prompt, "max_tokens": call.output_tokens}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        reply = await engine.send(EngineRequest("completions", body))
        data = b""
        async for chunk in reply.chunks():
            if not data:
                total.first_token_s += (anyio.current_time() - since) * speed
            data += chunk
        usage = json.loads(data.decode().strip().split("\n\n")[-2].removeprefix("data: "))["usage"]
        total.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]

    async with anyio.create_task_group() as group:
        for number, program in enumerate(work):
            group.start_soon(live, program, number)
    return total


def calibration_error(seed: int, speed: float = 1.0) -> float:
    """The largest relative difference between simulated and real time, cached tokens and waits for a first token."""

    async def real() -> Figures:
        return await played(programs(seed), speed)

    return simulated(programs(seed)).error(anyio.run(real))
