"""How long one iteration of an engine takes: step-time tables and memory sizes of a few models on a few machines.

The form is t_step = G(tokens in the batch) + attention + fixed. G is everything that does not depend on context (matrix
products, norms, activations), summed from the A100 profiles that microsoft/vidur publishes and interpolated; attention is a
roofline estimate; `fixed` is all-reduce and host time. H100 figures are scaled from A100, not measured. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ....errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one machine. Times in seconds, sizes in tokens."""

    name: str
    gemm: tuple[tuple[int, float], ...]
    """G: points (tokens in the batch, seconds), ascending; linear between them and beyond the last one."""
    decode_s_per_context_token: float
    """Reading the KV cache in decode: KV bytes per token / (0.75 x memory bandwidth)."""
    prefill_s_per_pair: float
    """Attention of prefill, per (new token x context token) pair: 4 x layers x width FLOP / FLOP per second."""
    fixed_s: float
    """Per iteration: all-reduce, sampling, host."""
    kv_tokens: int
    """KV cache capacity."""
    max_model_len: int
    """Longest prompt and output together."""
    max_num_batched_tokens: int
    max_num_seqs: int

    def gemm_s(self, tokens: int) -> float:
        """G(tokens) in seconds; 0 for an empty batch."""
        return interpolate(self.gemm, tokens) if tokens else 0.0

    def prefill_attention_s(self, tokens: int, context: int) -> float:
        """Attention of `tokens` new prompt tokens after `context` that are already there."""
        return self.prefill_s_per_pair * tokens * (context + tokens / 2)


def interpolate(points: Sequence[tuple[int, float]], at: int) -> float:
    """Linear between points; flat before the first; the last slope goes on after the last."""
    if at <= points[0][0]:
        return points[0][1]
    index = min(bisect_right(points, (at, float("inf"))), len(points) - 1)
    (x0, y0), (x1, y1) = points[index - 1], points[index]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


_BATCH = (1, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def _table(*milliseconds: float) -> tuple[tuple[int, float], ...]:
    return tuple((tokens, ms / 1000) for tokens, ms in zip(_BATCH, milliseconds, strict=True))


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        # 128 KiB of KV per token; 0.52 MFLOP per pair at 150 TFLOP/s.
        Profile(
            name="8b-a100",
            gemm=_table(9.7, 10.9, 11.2, 13.2, 19.5, 34.6, 75.1, 145.6, 273.6),
            decode_s_per_context_token=0.087e-6,
            prefill_s_per_pair=3.5e-9,
            fixed_s=0.002,
            kv_tokens=430_000,
            max_model_len=131_072,
            max_num_batched_tokens=2048,
            max_num_seqs=256,
        ),
        # 320 KiB of KV per token over four cards; 2 all-reduces in each of 80 layers at 20-40 us, and host time.
        Profile(
            name="70b-tp4-a100",
            gemm=_table(24.9, 26.2, 26.9, 33.5, 51.0, 89.9, 186.7, 335.7, 655.9),
            decode_s_per_context_token=0.055e-6,
            prefill_s_per_pair=4.4e-9,
            fixed_s=0.0065,
            kv_tokens=450_000,
            max_model_len=131_072,
            max_num_batched_tokens=2048,
            max_num_seqs=256,
        ),
        # Scaled from the A100 by 1.6 in bandwidth and about 2.5 in compute: 6-7 ms floor, 35-40 thousand tokens/s of prefill.
        Profile(
            name="8b-h100",
            gemm=_table(6.1, 6.8, 7.0, 7.5, 9.2, 14.0, 28.5, 56.0, 105.0),
            decode_s_per_context_token=0.052e-6,
            prefill_s_per_pair=1.4e-9,
            fixed_s=0.0015,
            kv_tokens=430_000,
            max_model_len=131_072,
            max_num_batched_tokens=8192,
            max_num_seqs=1024,
        ),
        # No real model: small and quick, for demonstrations on a laptop. About 400 tokens/s for one sequence.
        Profile(
            name="demo",
            gemm=_table(2.0, 2.1, 2.2, 2.6, 3.6, 6.0, 11.0, 21.0, 41.0),
            decode_s_per_context_token=0.01e-6,
            prefill_s_per_pair=0.3e-9,
            fixed_s=0.0005,
            kv_tokens=262_144,
            max_model_len=131_072,
            max_num_batched_tokens=8192,
            max_num_seqs=256,
        ),
    )
}
"""The profiles that can be named; `demo` is the default."""


def profile_named(name: str) -> Profile:
    """The profile of that name. Raises `ConfigurationError` naming the ones there are."""
    found = PROFILES.get(name)
    if found is None:
        raise ConfigurationError(f"no engine profile {name!r}", hint=f"choose one of: {', '.join(PROFILES)}")
    return found
