"""Simulated time, cache and queueing against the embedded engine, driven by tasks in virtual time."""

from __future__ import annotations

import pytest

from bench.scheduling.calibration import played, programs, simulated
from tests.support.virtual_time import virtual_time

anyio_backend = virtual_time
pytestmark = pytest.mark.anyio

TIGHT = 40_000
"""KV tokens: too little for half of the programs."""


async def test_simulated_and_real_time_agree() -> None:
    work = programs(seed=11)
    said, done = simulated(work, kv_tokens=TIGHT), await played(work, kv_tokens=TIGHT)
    asked_for = sum(call.prompt_tokens for program in work for call in program.calls)
    assert 0 < done.cached_tokens < asked_for / 2, "the cache should be too small for all of them"
    # The promise is 5 %; on one clock the same model leaves no difference at all.
    assert said.error(done) < 1e-6
