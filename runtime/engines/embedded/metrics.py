"""The engine's counters as Prometheus text, under the names that vLLM uses, so that one reader serves both."""

from __future__ import annotations

from ....memory.blocks import BLOCK_TOKENS
from .events import ModelStats


def prometheus_text(stats: ModelStats, model: str) -> str:
    """The body of `GET /metrics`. Token counters count tokens; `kv_cache_usage_perc` is a share from 0 to 1, as in vLLM."""
    labels = f'{{engine="0",model_name="{_escape(model)}"}}'
    rows: list[tuple[str, str, float, str]] = [
        ("num_requests_running", "gauge", stats.running, "Requests in the running batch."),
        ("num_requests_waiting", "gauge", stats.waiting, "Requests in the queue."),
        ("kv_cache_usage_perc", "gauge", stats.kv_usage, "Share of KV blocks that live requests use, 0 to 1."),
        ("prefix_cache_queries_total", "counter", stats.prefix_queries, "Prompt tokens looked up in the prefix cache."),
        ("prefix_cache_hits_total", "counter", stats.prefix_hits, "Prompt tokens found in the prefix cache."),
        ("num_preemptions_total", "counter", stats.preemptions, "Requests put back into the queue for lack of blocks."),
        ("prompt_tokens_total", "counter", stats.prompt_tokens, "Prompt tokens of admitted requests."),
        ("generation_tokens_total", "counter", stats.generated_tokens, "Tokens generated."),
        ("prompt_tokens_cached_total", "counter", stats.prefix_hits, "Prompt tokens that were not computed."),
    ]
    lines: list[str] = []
    for name, kind, value, description in rows:
        lines += [f"# HELP vllm:{name} {description}", f"# TYPE vllm:{name} {kind}", f"vllm:{name}{labels} {value}"]
    done = [("stop", stats.finished), ("abort", stats.aborted)]
    lines += ["# HELP vllm:request_success_total Requests that ended, by reason.", "# TYPE vllm:request_success_total counter"]
    lines += [f'vllm:request_success_total{labels[:-1]},finished_reason="{reason}"}} {value}' for reason, value in done]
    config = f'block_size="{BLOCK_TOKENS}",enable_prefix_caching="True",num_gpu_blocks="{stats.capacity_blocks}"'
    lines += ["# HELP vllm:cache_config_info Settings of the cache.", "# TYPE vllm:cache_config_info gauge"]
    lines.append(f"vllm:cache_config_info{labels[:-1]},{config}}} 1")
    return "\n".join([*lines, ""])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
