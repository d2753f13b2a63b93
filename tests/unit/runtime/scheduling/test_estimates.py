"""What is learned from runs: curves against known distributions."""

from __future__ import annotations

import random

import pytest

from fairlead.runtime.scheduling.estimates import Completion, Gaps, Mean, Tokens


def observe(completion: Completion, kind: str, calls: int) -> None:
    for age in range(1, calls):
        completion.observe(kind, age, ended=False)
    completion.observe(kind, calls, ended=True)


def test_before_evidence_age_says_nothing() -> None:
    completion = Completion()
    assert completion.calls_left("w", 0) == pytest.approx(completion.calls_left("w", 10), rel=1e-6)


def test_a_growing_hazard_gives_program_order() -> None:
    completion = Completion()
    for _ in range(200):
        observe(completion, "w", 20)
    left = [completion.calls_left("w", age) for age in (0, 5, 10, 18)]
    assert left == sorted(left, reverse=True), "the older, the sooner done: first come, first served"
    assert left[0] == pytest.approx(20, rel=0.25)


def test_a_falling_hazard_gives_attained_service() -> None:
    completion = Completion()
    rng = random.Random(1)
    for _ in range(400):
        observe(completion, "w", 2 if rng.random() < 0.8 else 200)
    left = [completion.calls_left("w", age) for age in (0, 3, 10)]
    assert left[0] < left[1] and left[0] < left[2]


def test_a_class_of_its_own_is_told_from_the_pool_and_a_rare_one_is_not() -> None:
    completion = Completion()
    for _ in range(100):
        observe(completion, "short", 3)
        observe(completion, "long", 60)
    observe(completion, "rare", 60)
    assert completion.calls_left("short", 0) < 6 < 30 < completion.calls_left("long", 0)
    assert completion.calls_left("rare", 0) < completion.calls_left("long", 0)


def test_gaps_that_are_always_short_are_waited_for_and_long_ones_are_not() -> None:
    gaps = Gaps()
    for _ in range(300):
        gaps.observe("fast", 1.0)
        gaps.observe("slow", 600.0)
    fast = gaps.best_stay("fast", 2.0, 0.05, 120.0)
    slow = gaps.best_stay("slow", 2.0, 0.05, 120.0)
    assert 1.0 <= fast.seconds < 30.0 and fast.returns > 0.8
    assert slow.seconds < 10.0


def test_free_memory_is_kept_for_as_long_as_allowed() -> None:
    assert Gaps().best_stay("any", 2.0, 0.0, 120.0).seconds == 120.0


def test_gaps_that_have_not_ended_count() -> None:
    seen, censored = Gaps(), Gaps()
    for _ in range(100):
        seen.observe("k", 1.0)
        censored.observe("k", 1.0)
        censored.still_away("k", 60.0)
    assert censored.returns_within("k", 2.0) < seen.returns_within("k", 2.0)


def test_a_gap_told_in_two_parts_is_one_gap() -> None:
    whole, parts = Gaps(), Gaps()
    for _ in range(50):
        whole.observe("k", 100.0)
        parts.still_away("k", 60.0)
        parts.observe("k", 100.0, counted=60.0)
    assert parts.returns_within("k", 120.0) == pytest.approx(whole.returns_within("k", 120.0))


def test_output_tokens_are_learned_by_step_and_a_declared_number_is_taken() -> None:
    tokens = Tokens()
    for _ in range(200):
        tokens.observe_output("short", 20)
        tokens.observe_output("long", 2_000)
    assert tokens.expected_output("short", None) < 200 < 1_000 < tokens.expected_output("long", None)
    assert tokens.expected_output("long", 7) == 7


def test_a_mean_follows() -> None:
    mean = Mean(100.0)
    for _ in range(2_000):
        mean.observe(10.0)
    assert mean.value == pytest.approx(10.0, rel=0.05)
