"""What calls cost at the least: alone on an engine, and as a share of a full batch. For bounds and for oracle arms. Pure."""

from __future__ import annotations

from ..engines.embedded.hardware import Profile


def prefill_s(profile: Profile, new_tokens: int, prompt_tokens: int) -> float:
    """Seconds to prefill the last `new_tokens` of a prompt on an empty engine, in full chunks."""
    chunk = profile.max_num_batched_tokens
    whole, rest = divmod(new_tokens, chunk)
    seconds = whole * (profile.gemm_s(chunk) + profile.fixed_s) + (profile.gemm_s(rest) + profile.fixed_s if rest else 0.0)
    return seconds + profile.prefill_attention_s(new_tokens, prompt_tokens - new_tokens)


def alone_s(profile: Profile, new_tokens: int, prompt_tokens: int, output_tokens: int) -> float:
    """Seconds that a call takes alone on an engine that has all of its prompt but the last `new_tokens`.

    The last chunk of the prefill gives the first token; each further token is an iteration of its own.
    """
    steps = output_tokens - 1
    context = prompt_tokens + 1 + (steps - 1) / 2
    decode = steps * (profile.gemm_s(1) + profile.fixed_s + profile.decode_s_per_context_token * context)
    return prefill_s(profile, new_tokens, prompt_tokens) + decode


def shared_s(profile: Profile, new_tokens: int, prompt_tokens: int, output_tokens: int) -> float:
    """Seconds of an engine that a call takes at the least, if the cost of each iteration is shared as well as it can be.

    A token costs no less than the cheapest mean over all batch sizes; attention is the call's own.
    """
    most = profile.max_num_batched_tokens
    sizes = [tokens for tokens, _ in profile.gemm if tokens < most] + [most]
    per_token = min((profile.gemm_s(tokens) + profile.fixed_s) / tokens for tokens in sizes)
    steps = output_tokens - 1
    context = steps * (prompt_tokens + 1 + (steps - 1) / 2)
    attention = profile.prefill_attention_s(new_tokens, prompt_tokens - new_tokens)
    return per_token * (new_tokens + steps) + attention + profile.decode_s_per_context_token * context
