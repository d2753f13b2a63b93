"""What an engine keeps on request, forgets by value, and reads back from host memory."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import ConfigurationError
from fairlead.runtime.engines.embedded.events import Admitted, Finished, ModelEvent
from fairlead.runtime.engines.embedded.hardware import PROFILES
from fairlead.runtime.engines.embedded.kvcache import KVCache
from fairlead.runtime.engines.embedded.model import PIN_PATIENCE_S, EngineModel
from fairlead.runtime.engines.embedded.offload import HostTier, Offload
from fairlead.runtime.engines.embedded.pins import Pins

# One second an iteration, 100 blocks.
TICK = replace(
    PROFILES["demo"],
    gemm=((1, 1.0), (1000, 1.0)),
    decode_s_per_context_token=0.0,
    prefill_s_per_pair=0.0,
    fixed_s=0.0,
    kv_tokens=1600,
    max_model_len=1600,
    max_num_batched_tokens=1600,
    max_num_seqs=4,
)


def chain(program: int, blocks: int) -> list[tuple[int, int]]:
    return [(program, block) for block in range(blocks)]


def run(model: EngineModel) -> dict[str, tuple[float, int]]:
    """(admitted, cached tokens) by request."""
    events: list[ModelEvent] = []
    while (at := model.next_event_at()) is not None and at < math.inf:
        events += model.advance(at)
    return {event.request_id: (event.at, event.cached_tokens) for event in events if isinstance(event, Admitted)}


def ended(model: EngineModel) -> dict[str, float]:
    """When each request ended."""
    ends: dict[str, float] = {}
    while (due := model.next_event_at()) is not None:
        ends |= {event.request_id: event.at for event in model.advance(due) if isinstance(event, Finished)}
    return ends


def cached(cache: KVCache, program: int, blocks: int, owner: str = "") -> None:
    """Put a prefix into the cache and let go of it."""
    hold = cache.acquire(chain(program, blocks), blocks)
    cache.reserve(hold, blocks - hold.depth)
    cache.publish(hold, chain(program, blocks), blocks)
    cache.release(hold, owner)


def test_kept_prefixes_are_not_evicted() -> None:
    cache = KVCache(20)
    cached(cache, 1, 8)
    pins = Pins(cache, 1.0)
    assert pins.keep("one", chain(1, 8), 8, until=10.0)
    assert (cache.available, pins.blocks) == (12, 8)
    cached(cache, 2, 12)
    assert cache.match(chain(1, 8), 8).blocks == 8
    assert pins.drop("one") and not pins.drop("one")
    cached(cache, 3, 20)
    assert cache.match(chain(1, 8), 8).blocks == 0
    cache.check_integrity()


def test_a_share_bounds_what_is_kept_and_the_shortest_promise_goes_first() -> None:
    cache = KVCache(20)
    pins = Pins(cache, 0.5)
    for program in (1, 2, 3):
        cached(cache, program, 6)
    assert pins.keep("one", chain(1, 6), 6, until=10.0)
    assert not pins.keep("two", chain(2, 6), 6, until=5.0)
    assert pins.keep("three", chain(3, 6), 6, until=20.0)
    assert (pins.blocks, pins.next_end) == (6, 20.0)
    pins.expire(19.0)
    assert pins
    pins.expire(20.0)
    assert not pins and pins.next_end is None and cache.held == 0


def test_values_decide_what_is_forgotten_and_ties_go_by_age() -> None:
    cache = KVCache(20)
    values = {"dear": 5.0}
    cache.evict_by(lambda owner: values.get(str(owner), 0.0))
    cached(cache, 1, 6, "dear")
    cached(cache, 2, 6, "old")
    cached(cache, 3, 6, "young")
    cached(cache, 4, 6, "new")
    assert [cache.match(chain(program, 6), 6).blocks for program in (1, 2, 3)] == [6, 2, 6]
    cache.check_integrity()


uses_of = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), max_size=40)
work_of = st.tuples(st.integers(0, 3), st.integers(1, 80), st.integers(1, 60), st.floats(0, 8), st.floats(0, 60))


@given(uses_of, st.dictionaries(st.integers(0, 5), st.floats(0, 1)))
def test_a_cache_with_values_keeps_its_books(uses: list[tuple[int, int]], values: dict[int, float]) -> None:
    cache = KVCache(20)
    cache.evict_by(lambda owner: values.get(int(str(owner)), -1.0))
    for program, blocks in uses:
        cached(cache, program, blocks, str(program))
        cache.check_integrity()
        assert cache.free + cache.evictable == cache.capacity


def test_a_kept_prefix_ends_with_its_time_or_its_next_use() -> None:
    model = EngineModel(TICK, pin_share=0.5)
    model.submit("a", chain(1, 20), 320, 1, 0.0, owner="one", keep_s=50.0)
    run(model)
    assert model.cache.held == 20
    model.submit("b", chain(1, 25), 400, 1, 10.0, owner="one")
    assert run(model) == {"b": (10.0, 320)}
    assert model.cache.held == 0


def test_kept_prefixes_give_way_at_once_when_nothing_else_runs() -> None:
    model = EngineModel(TICK, pin_share=1.0)
    model.submit("a", chain(1, 60), 960, 1, 0.0, owner="one", keep_s=1000.0)
    run(model)
    model.submit("b", chain(2, 60), 960, 1, 10.0, owner="two")
    assert run(model) == {"b": (10.0, 0)}


def test_kept_prefixes_give_way_to_a_request_that_has_waited() -> None:
    model = EngineModel(TICK, pin_share=1.0)
    model.submit("a", chain(1, 60), 960, 1, 0.0, owner="one", keep_s=1000.0)
    run(model)
    model.submit("long", chain(2, 1), 16, 90, 10.0)
    model.advance(11.0)
    model.submit("b", chain(3, 60), 960, 1, 11.0, owner="two")
    assert run(model)["b"][0] == 11.0 + PIN_PATIENCE_S


def test_running_requests_are_not_preempted_for_kept_prefixes() -> None:
    model = EngineModel(TICK, pin_share=1.0)
    model.submit("a", chain(1, 60), 960, 1, 0.0, owner="one", keep_s=1000.0)
    run(model)
    model.submit("long", chain(2, 1), 16, 800, 10.0)
    run(model)
    assert model.stats().preemptions == 0 and model.cache.held == 0


def test_what_went_to_host_memory_is_read_back_over_a_shared_link() -> None:
    model = EngineModel(TICK, offload=Offload(tokens=16_000, tokens_per_s=160.0))
    for number, at in ((1, 0.0), (2, 10.0), (3, 20.0)):
        model.submit(f"first-{number}", chain(number, 50), 800, 1, at)
        run(model)
    # The last is still on the card, and a block of the one before when its turn comes. 784 tokens are 4.9 s on the link.
    model.submit("again-1", chain(1, 50), 800, 1, 100.0)
    model.submit("again-2", chain(2, 50), 800, 1, 100.0)
    ends = ended(model)
    assert model.reloaded_tokens == 784 + 768
    assert ends == {"again-1": pytest.approx(100 + 4.9 + 1), "again-2": pytest.approx(100 + 4.9 + 4.8 + 1)}


def test_a_transfer_does_not_hold_up_those_who_decode() -> None:
    model = EngineModel(TICK, offload=Offload(tokens=16_000, tokens_per_s=160.0))
    model.submit("first", chain(1, 50), 800, 1, 0.0)
    model.submit("other", chain(2, 90), 1440, 1, 10.0)
    run(model)
    model.submit("steady", chain(3, 1), 16, 30, 100.0)
    model.advance(102.5)
    model.submit("again", chain(1, 50), 800, 1, 102.5)
    ends = ended(model)
    assert ends["steady"] == 130.0
    assert ends["again"] == 109.0  # admitted at 103, loaded at 107.9, prefilled in the iteration from 108


def test_host_memory_is_bounded_and_forgets_the_oldest() -> None:
    tier = HostTier(Offload(tokens=320, tokens_per_s=100.0))
    tier.store(chain(1, 12), 12)
    tier.store(chain(2, 12), 12)
    assert (tier.holds(chain(1, 12), 12), tier.holds(chain(2, 12), 12)) == (8, 12)
    with pytest.raises(ConfigurationError):
        Offload(tokens=0, tokens_per_s=1.0)


@given(st.lists(work_of, max_size=25))
@settings(deadline=None)
def test_pins_and_host_memory_lose_no_request(work: list[tuple[int, int, int, float, float]]) -> None:
    model = EngineModel(TICK, pin_share=0.5, offload=Offload(tokens=4_000, tokens_per_s=500.0))
    now, finished = 0.0, 0
    for number, (program, blocks, output, after, keep_s) in enumerate(work):
        now += after
        finished += sum(isinstance(event, Finished) for event in model.advance(now))
        prompt = blocks * 16 - 3
        owner = f"p{program}"
        model.submit(str(number), chain(program, (prompt + output) // 16), prompt, output, now, owner=owner, keep_s=keep_s)
        model.cache.check_integrity()
    while (due := model.next_event_at()) is not None:
        finished += sum(isinstance(event, Finished) for event in model.advance(due))
        model.cache.check_integrity()
    assert finished == len(work)
