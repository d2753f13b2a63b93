"""Policies by name."""

from __future__ import annotations

import pytest

from fairlead.errors import ConfigurationError
from fairlead.runtime.scheduling.policies import NAMES, policy
from fairlead.runtime.scheduling.port import CallEnded, CallReady, Dispatch, EngineAdded, Keep


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="no scheduling policy 'best'") as error:
        policy("best")
    assert all(name in str(error.value) for name in NAMES)


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="has no option 'age'") as error:
        policy("fairlead", age=1)
    assert "age_limit_s" in str(error.value)


def test_the_oracle_needs_facts() -> None:
    with pytest.raises(ConfigurationError, match="needs the option 'facts'"):
        policy("oracle")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "oracle"])
def test_every_policy_sends_a_call_to_a_free_engine(name: str) -> None:
    made = policy(name)
    made.handle(EngineAdded("e", 4, kv_tokens=100_000), 0.0)
    decisions = made.handle(CallReady(1, "p", prompt_tokens=1_000), 0.0)
    assert [each.call_id for each in decisions if isinstance(each, Dispatch)] == [1]


@pytest.mark.parametrize("name", ["saga", "kvflow", "fairlead"])
def test_engines_that_choose_victims_by_value_are_told_values(name: str) -> None:
    made = policy(name)
    made.handle(EngineAdded("e", 4, kv_tokens=100_000, values=True), 0.0)
    made.handle(CallReady(1, "p", prompt_tokens=1_000), 0.0)
    assert any(isinstance(each, Keep) for each in made.handle(CallEnded(1, 1_000, 0, 10, "tool"), 1.0))


def sends_next(name: str, *prompts: tuple[str, int], after: int = 1) -> list[int]:
    """One place in flight: the order in which waiting calls go."""
    made = policy(name)
    made.handle(EngineAdded("e", 1, kv_tokens=1_000_000), 0.0)
    sent = []
    for number, (program, prompt) in enumerate(prompts, start=1):
        decisions = made.handle(CallReady(number, program, program, prompt_tokens=prompt), 0.0)
        sent += [each.call_id for each in decisions if isinstance(each, Dispatch)]
    for _ in range(len(prompts)):
        decisions = made.handle(CallEnded(sent[-1], prompts[sent[-1] - 1][1], 0, 10), 5.0)
        sent += [each.call_id for each in decisions if isinstance(each, Dispatch)]
    return sent


def test_vtc_takes_turns_between_tenants() -> None:
    assert sends_next("vtc", ("a", 1_000), ("a", 1_000), ("a", 1_000), ("b", 1_000), ("b", 1_000)) == [1, 4, 2, 5, 3]


def test_program_fcfs_finishes_programs() -> None:
    assert sends_next("program-fcfs", ("a", 1_000), ("b", 1_000), ("a", 1_000), ("b", 1_000)) == [1, 3, 2, 4]


def test_plas_takes_who_had_least() -> None:
    # The first call of `a` takes 5 s, those of `b` no time.
    assert sends_next("plas", ("a", 1_000), ("a", 1_000), ("b", 1_000), ("b", 1_000)) == [1, 3, 4, 2]


def test_longest_prefix_goes_first() -> None:
    made = policy("longest-prefix")
    made.handle(EngineAdded("e", 1, kv_tokens=1_000_000), 0.0)
    made.handle(CallReady(1, "warm", prompt_tokens=1_000), 0.0)
    made.handle(CallEnded(1, 1_000, 0, 10), 1.0)
    made.handle(CallReady(2, "running", prompt_tokens=1_000), 1.0)
    made.handle(CallReady(3, "cold", prompt_tokens=1_000), 1.0)
    made.handle(CallReady(4, "warm", prompt_tokens=1_000), 1.0)
    decisions = made.handle(CallEnded(2, 1_000, 0, 10), 2.0)
    assert [each.call_id for each in decisions if isinstance(each, Dispatch)] == [4]


@pytest.mark.parametrize("part", ["admission", "fairness", "order", "placement", "keepalive", "ages"])
def test_each_part_can_be_left_out(part: str) -> None:
    made = policy("fairlead", without=part)
    made.handle(EngineAdded("e", 4, kv_tokens=100_000), 0.0)
    assert len(made.handle(CallReady(1, "p", prompt_tokens=1_000), 0.0)) == 1


def test_an_unknown_part_cannot_be_left_out() -> None:
    with pytest.raises(ConfigurationError, match="no part 'luck'"):
        policy("fairlead", without="luck")
