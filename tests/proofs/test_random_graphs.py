"""Random workflows of both kinds against a reference interpreter, and resumed from what a crash leaves of their journal.

`FAIRLEAD_EXAMPLES` is the number of examples of each proof (default 25).
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead import Handle, Workflow, step, workflow
from fairlead.graphs.graph import Graph, ReadySet
from fairlead.runtime.store.records import EventRecord, StepRecord
from tests.support.descriptions import Block, Builder, Env, Reference, awaited, declared
from tests.support.journals import CuttableJournal, runtime_on
from tests.support.library import LEDGER, Box
from tests.support.resuming import ID, Outcome, check_events, check_no_orphans, check_resume, has_ended, started

EXAMPLES = int(os.environ.get("FAIRLEAD_EXAMPLES", "25"))
CUTS = 20
"""Crashes tried of each example, spread over its journal."""

proof = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def composed_of(block: Block) -> Workflow[..., Any]:
    @workflow(version="1")
    def composed(given: int) -> Handle[list[int]]:
        numbers: Any = Builder(block).compose(block, Env.of(given, Box(n=2, tag="b")))
        return numbers  # type: ignore[no-any-return]

    return composed


def plain_of(block: Block) -> Workflow[..., Any]:
    @workflow(version="1")
    async def plain(given: int) -> list[int]:
        return await Builder(block).run(block, Env.of(given, Box(n=2, tag="b")))

    return plain


def reference_of(block: Block, given: int, *, composed: bool) -> tuple[list[Any], Reference]:
    reference = Reference()
    return reference.evaluate(block, Env.of(given, (2, "b")), composed=composed), reference


def check_against_reference(outcome: Outcome, numbers: list[Any], reference: Reference) -> None:
    """The same result and the same bodies; for a program that fails, one of the failures and nothing beyond the bodies."""
    if reference.failed:
        assert outcome.error is not None and any(f"step {name!r} failed" in outcome.error for name in reference.failed), outcome
        assert not LEDGER.bodies - reference.bodies
    else:
        assert outcome == Outcome(numbers)
        assert LEDGER.bodies == reference.bodies


@proof
@given(declared("consult"), st.integers(0, 9))
def test_a_composed_workflow_does_what_its_description_says(block: Block, given: int) -> None:
    async def main() -> None:
        journal, composed = CuttableJournal(), composed_of(block)
        numbers, reference = reference_of(block, given, composed=True)
        check_against_reference(await started(composed, {"given": given}, journal), numbers, reference)
        check_events(journal)
        check_order(composed.graph(given), journal)
        if not reference.failed:
            check_no_orphans(journal)
            assert skipped(composed.graph(given), journal) == reference.skipped

    anyio.run(main)


@proof
@given(awaited("consult"), st.integers(0, 9))
def test_a_plain_workflow_does_what_its_description_says(block: Block, given: int) -> None:
    async def main() -> None:
        journal = CuttableJournal()
        numbers, reference = reference_of(block, given, composed=False)
        check_against_reference(await started(plain_of(block), {"given": given}, journal), numbers, reference)
        check_events(journal)
        if not reference.failed:
            check_no_orphans(journal)

    anyio.run(main)


@proof
@given(declared("consult", "converse", lines=4), st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_composed_workflow_resumes_from_every_prefix_of_its_journal(block: Block, given: int, random: Any) -> None:
    anyio.run(check_prefixes, composed_of(block), given, random)


@proof
@given(awaited("consult", "converse", lines=4), st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_plain_workflow_resumes_from_every_prefix_of_its_journal(block: Block, given: int, random: Any) -> None:
    anyio.run(check_prefixes, plain_of(block), given, random)


async def check_prefixes(tested: Workflow[..., Any], given: int, random: Any) -> None:
    """Crash at many places, and crash the resumed program again; every time the outcome is that of the undisturbed run."""
    journal = CuttableJournal()
    undisturbed = await started(tested, {"given": given}, journal)
    places = range(1, len(journal.entries) + 1)
    for kept in places if len(places) <= CUTS else sorted(random.sample(places, CUTS)):
        if has_ended(journal.cut(kept)):
            continue
        outcome, second = await check_resume(tested, journal, kept)
        check_same(outcome, undisturbed)
        again = random.randint(kept, len(second.entries))
        if not has_ended(second.cut(again)):
            outcome, _ = await check_resume(tested, second, again)
            check_same(outcome, undisturbed)


def check_same(outcome: Outcome, undisturbed: Outcome) -> None:
    """Equal, but of several failures a resumed program may meet another one first."""
    if undisturbed.error is None:
        assert outcome == undisturbed
    else:
        assert outcome.error is not None and outcome.error.startswith("StepFailedError"), (outcome, undisturbed)


@proof
@given(st.lists(st.integers(0, 9), max_size=12), st.none() | st.integers(1, 5))
def test_a_map_runs_as_many_elements_at_once_as_it_may_and_keeps_their_order(items: list[int], limit: int | None) -> None:
    now = most = 0

    @step
    async def element(n: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(n + 20):
            await anyio.lowlevel.checkpoint()
        now -= 1
        return -n

    @workflow
    def mapping(xs: list[int]) -> Handle[list[int]]:
        return element.options(limit=limit).map(xs)

    async def main() -> None:
        async with runtime_on(CuttableJournal()) as runtime:
            assert await runtime.run(mapping, items) == [-item for item in items]

    anyio.run(main)
    assert most == min(len(items), limit or len(items))


@settings(max_examples=4 * EXAMPLES)
@given(declared("consult", lines=12), st.integers(0, 9), st.data())
def test_the_ready_set_gives_each_node_once_after_its_needs_and_the_most_urgent_first(
    block: Block, given: int, data: st.DataObject
) -> None:
    graph = composed_of(block).graph(given)
    ready, ranks = ReadySet(graph), graph.ranks
    taken: list[str] = []
    running: list[str] = []
    ended: set[str] = set()

    def startable() -> set[str]:
        return {node.id for node in graph.nodes.values() if node.id not in taken and set(node.needs) <= ended}

    while len(ended) < len(graph.nodes):
        assert ready.open == len(graph.nodes) - len(ended)
        expected = startable()
        if not expected or (running and data.draw(st.booleans())):
            node = running.pop(data.draw(st.integers(0, len(running) - 1)))
            ended.add(node)
            ready.ended(node)
            continue
        chosen = ready.take()
        assert chosen in expected and ranks[chosen] == max(ranks[node] for node in expected)
        taken.append(chosen)
        running.append(chosen)
    assert ready.take() is None and sorted(taken) == sorted(graph.nodes)


def check_order(graph: Graph, journal: CuttableJournal) -> None:
    """No node starts before everything it needs has ended; every node starts at most once."""
    ended: set[str] = set()
    begun: Counter[str] = Counter()
    for entry in journal.entries:
        for record in entry:
            if not isinstance(record, EventRecord) or record.program_id != ID or record.node not in graph.nodes:
                continue
            if record.kind == "step.started" and '"attempt":1' in record.data:
                begun[record.node] += 1
                missing = [need for need in _recorded_needs(graph, record.node) if need not in ended]
                assert not missing, f"{record.node} started before {missing} ended"
            elif record.kind in ("step.succeeded", "step.skipped"):
                ended.add(record.node)
    assert all(count == 1 for count in begun.values()), begun


def _recorded_needs(graph: Graph, node: str) -> set[str]:
    """What a node waits for, seen through the branches, which leave no events."""
    found: set[str] = set()
    for need in graph.nodes[node].needs:
        found |= _recorded_needs(graph, need) if graph.nodes[need].kind == "branch" else {need}
    return found


def skipped(graph: Graph, journal: CuttableJournal) -> Counter[str]:
    """The skipped nodes by name."""
    nodes = {
        r.node
        for entry in journal.entries
        for r in entry
        if isinstance(r, StepRecord) and r.program_id == ID and r.state == "skipped"
    }
    return Counter(graph.nodes[node].name for node in nodes)
