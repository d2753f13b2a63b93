"""Simulated time, cache and queueing against the embedded engine, driven by tasks in (virtual) real time."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import anyio
import pytest

from fairlead.encoding import Json
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply
from fairlead.runtime.engines.embedded.hardware import PROFILES
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.simulation.chains import Stretch
from fairlead.runtime.simulation.engines import EngineSpec
from fairlead.runtime.simulation.loop import simulate
from fairlead.runtime.simulation.programs import Call, Program, Workload
from tests.support.virtual_time import virtual_time

anyio_backend = virtual_time
pytestmark = pytest.mark.anyio

KV_TOKENS = 40_000
"""Too little for all programs, so that they wait and evict each other."""


def programs(count: int = 14, turns: int = 6) -> list[Program]:
    rng = random.Random(11)
    made = []
    for number in range(count):
        calls, prompt = [], rng.randint(1_000, 4_000)
        for turn in range(turns):
            gap_s = rng.expovariate(0.3) if turn else 0.0
            # The answer stays in the cache, but the next prompt goes on otherwise.
            prefix = (Stretch(prompt // 16, 0), Stretch(0, turn + 1))
            calls.append(Call(prompt, rng.randint(20, 150), (turn - 1,) if turn else (), gap_s, prefix))
            prompt += rng.randint(100, 1_500)
        made.append(Program(f"p{number}", tuple(calls), arrival_s=rng.uniform(0, 10)))
    return made


@dataclass
class Measured:
    completion: float = 0.0
    first_token: float = 0.0
    cached: int = 0


async def in_real_time(work: list[Program]) -> Measured:
    engine = EmbeddedEngine(
        profile="8b-a100", speed=1.0, kv_tokens=KV_TOKENS, script=lambda _: Reply("word " * 500, modelled=True)
    )
    total = Measured()

    async def live(program: Program, number: int) -> None:
        await anyio.sleep(program.arrival_s)
        # Every program has tokens of its own, and a prompt begins with the prompt before.
        tokens = [100_000 * (number + 1) + position for position in range(max(call.prompt_tokens for call in program.calls))]
        for call in program.calls:
            await anyio.sleep(call.gap_s)
            prompt: Json = list(tokens[: call.prompt_tokens])
            await ask(call, prompt)
        total.completion += anyio.current_time() - program.arrival_s

    async def ask(call: Call, prompt: Json) -> None:
        since = anyio.current_time()
        body: dict[str, Json] = {"prompt": prompt, "max_tokens": call.output_tokens, "stream": True}
        body |= {"model": "fairlead-embedded", "stream_options": {"include_usage": True}}
        reply = await engine.send(EngineRequest("completions", body))
        data = b""
        async for chunk in reply.chunks():
            if not data:
                total.first_token += anyio.current_time() - since
            data += chunk
        usage = json.loads(data.decode().strip().split("\n\n")[-2].removeprefix("data: "))["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (call.prompt_tokens, call.output_tokens)
        total.cached += usage["prompt_tokens_details"]["cached_tokens"]

    async with anyio.create_task_group() as group:
        for number, program in enumerate(work):
            group.start_soon(live, program, number)
    return total


async def test_simulated_and_real_time_agree_within_five_percent() -> None:
    work = programs()
    real = await in_real_time(work)
    run = simulate(Workload(tuple(work)), (EngineSpec("a", PROFILES["8b-a100"], kv_tokens=KV_TOKENS),), ProgramFCFS())
    completion = sum((program.ended_at or 0.0) - program.arrived_at for program in run.programs)
    first_token = sum((call.first_token_at or 0.0) - call.ready_at for call in run.calls)
    cached = sum(call.cached_tokens for call in run.calls)
    assert 0 < cached < sum(call.prompt_tokens for call in run.calls) / 2, "the cache should be too small"
    # The promise is 5 %; on one clock the same model leaves no difference at all.
    assert completion == pytest.approx(real.completion, rel=0.001)
    assert first_token == pytest.approx(real.first_token, rel=0.001)
    assert cached == pytest.approx(real.cached, rel=0.001)
