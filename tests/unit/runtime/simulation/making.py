"""Small workloads and engines whose times can be counted by hand."""

from __future__ import annotations

from fairlead.runtime.engines.embedded.hardware import Profile
from fairlead.runtime.simulation.chains import Stretch
from fairlead.runtime.simulation.engines import EngineSpec, Level
from fairlead.runtime.simulation.programs import Call, Program, Workload

# One second an iteration and nothing else; 64 tokens a chunk, 100 blocks.
TICK = Profile(
    name="tick",
    gemm=((1, 1.0), (1000, 1.0)),
    decode_s_per_context_token=0.0,
    prefill_s_per_pair=0.0,
    fixed_s=0.0,
    kv_tokens=1600,
    max_model_len=1600,
    max_num_batched_tokens=64,
    max_num_seqs=4,
)


def engine(name: str = "a", *, level: Level = "plain", in_flight_max: int = 64, lost_at: float | None = None) -> EngineSpec:
    return EngineSpec(name, TICK, level, in_flight_max=in_flight_max, lost_at=lost_at)


def conversation(*sizes: tuple[int, int], gap_s: float = 0.0) -> tuple[Call, ...]:
    """Turns of (prompt, output) tokens, each after the one before."""
    return tuple(
        Call(prompt, output, (turn - 1,) if turn else (), gap_s if turn else 0.0) for turn, (prompt, output) in enumerate(sizes)
    )


def workload(*programs: Program, concurrency: int | None = None, horizon_s: float | None = None) -> Workload:
    return Workload(programs, concurrency=concurrency, horizon_s=horizon_s)


def one_call(prompt: int = 100, output: int = 3, *, label: int = 0) -> tuple[Call, ...]:
    return (Call(prompt, output, prefix=(Stretch(0, label),)),)
