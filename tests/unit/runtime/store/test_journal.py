"""The contract of the port, for every kind of journal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairlead.errors import StoreError
from fairlead.runtime.store import Journal
from fairlead.runtime.store.records import CachedRecord, EventRecord, LinkRecord, ObservationRecord, PartRecord
from tests.unit.runtime.store.building import call, conversation, event, part, program, step, tool_call

pytestmark = pytest.mark.anyio


async def test_an_unknown_program_has_no_history(journal: Journal) -> None:
    assert await journal.history("nobody") is None
    assert await journal.events("nobody") == []
    assert await journal.part("nothing") is None


async def test_one_program_can_be_asked_for_alone(journal: Journal) -> None:
    journal.append(program("p"), program("other"), replace(program("child"), parent_id="p", root_id="p"))
    assert await journal.program("p") == program("p")
    assert await journal.program("child") == replace(program("child"), parent_id="p", root_id="p")
    assert await journal.program("nobody") is None


async def test_a_history_holds_everything_appended(journal: Journal) -> None:
    observation = ObservationRecord("p", "node", 1, 2, False, "time", "12.5")
    journal.append(
        program("p"), step("p", "node"), call("p", 0, answer=b"x" * 5000), tool_call("p", 1), observation, event("p", 1)
    )
    history = await journal.history("p")
    assert history is not None
    assert history.program == program("p")
    assert history.steps == [step("p", "node")]
    assert history.calls == [call("p", 0, answer=b"x" * 5000)]
    assert history.tool_calls == [tool_call("p", 1)]
    assert history.observations == [observation]
    assert history.last_seq == 1


async def test_a_history_holds_nothing_of_other_programs(journal: Journal) -> None:
    journal.append(program("p"), program("other"), step("other", "node"), call("other"), tool_call("other"), event("other", 1))
    history = await journal.history("p")
    assert history is not None
    assert (history.steps, history.calls, history.tool_calls, history.last_seq) == ([], [], [], 0)


async def test_the_last_record_with_a_key_counts(journal: Journal) -> None:
    journal.append(program("p"), step("p", "node"), step("p", "node", state="succeeded", result="1"))
    await journal.flushed()
    journal.append(replace(program("p"), state="waiting"), tool_call("p"))
    await journal.flushed()
    journal.append(tool_call("p", state="succeeded"))
    history = await journal.history("p")
    assert history is not None
    assert history.program.state == "waiting"
    assert history.steps == [step("p", "node", state="succeeded", result="1")]
    assert [known.state for known in history.tool_calls] == ["succeeded"]


@pytest.mark.parametrize("apart", [False, True])
async def test_parts_links_and_events_are_written_once(journal: Journal, apart: bool) -> None:
    journal.append(PartRecord("d", b"first"), LinkRecord("l", None, "d"), event("p", 1, "first"))
    if apart:
        await journal.flushed()
    journal.append(PartRecord("d", b"second"), LinkRecord("l", "other", "e"), event("p", 1, "second"))
    assert await journal.part("d") == b"first"
    assert await journal.conversation("l") == [b"first"]
    assert [known.kind for known in await journal.events("p")] == ["first"]


async def test_history_comes_in_the_order_a_resume_needs(journal: Journal) -> None:
    journal.append(
        program("p"),
        step("p", "b/z", parent="b", ordinal=0),
        step("p", "b/a", parent="b", ordinal=1),
        step("p", "b"),
        step("p", "B"),
        call("p", 2),
        call("p", 10),
        call("p", 1, node="é"),
        call("p", 1, node="z"),
    )
    history = await journal.history("p")
    assert history is not None
    assert [known.node for known in history.steps] == ["B", "b", "b/z", "b/a"]
    assert [(known.node, known.ordinal) for known in history.calls] == [("node", 2), ("node", 10), ("z", 1), ("é", 1)]


async def test_programs_are_listed_newest_first(journal: Journal) -> None:
    journal.append(
        program("old", created_at=1), program("new", created_at=3), program("b", created_at=2), program("B", created_at=2)
    )
    assert [known.id for known in await journal.programs()] == ["new", "B", "b", "old"]
    assert [known.id for known in await journal.programs(limit=2)] == ["new", "B"]


async def test_programs_are_chosen_by_state_workflow_and_parent(journal: Journal) -> None:
    journal.append(
        program("a", state="failed"),
        program("b", state="running", workflow="other"),
        program("c", state="succeeded"),
        program("child", parent_id="a"),
    )
    assert {known.id for known in await journal.programs()} == {"a", "b", "c"}
    assert {known.id for known in await journal.programs(states=("failed", "running"))} == {"a", "b"}
    assert {known.id for known in await journal.programs(workflow="other")} == {"b"}
    assert {known.id for known in await journal.programs(parent_id="a")} == {"child"}
    assert await journal.programs(parent_id="b") == []


async def test_events_continue_after_a_number(journal: Journal) -> None:
    journal.append(*(event("p", seq) for seq in range(1, 301)))
    await journal.flushed()
    journal.append(*(event("p", seq) for seq in range(301, 601)))
    assert [known.seq for known in await journal.events("p", after=290, limit=20)] == list(range(291, 311))
    assert len(await journal.events("p")) == 600


async def test_watchers_see_durable_events_in_order(journal: Journal) -> None:
    seen: list[EventRecord] = []
    stop = journal.watch(seen.append)
    for seq in range(1, 501):
        journal.append(step("p", "node"), event("p", seq))
    await journal.flushed()
    assert [known.seq for known in seen] == list(range(1, 501))
    stop()
    stop()
    journal.append(event("p", 501))
    await journal.flushed()
    assert len(seen) == 500


async def test_a_failing_watcher_harms_neither_the_journal_nor_other_watchers(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def fails(_: EventRecord) -> None:
        raise RuntimeError("broken")

    journal.watch(fails)
    journal.watch(lambda known: seen.append(known.seq))
    journal.append(event("p", 1), event("p", 2))
    await journal.flushed()
    assert seen == [1, 2]
    assert "a watcher failed on event 1 of program p" in caplog.text


async def test_conversations_share_their_beginning(journal: Journal) -> None:
    short, first = conversation(b'"system"', b'"question"')
    long, second = conversation(b'"system"', b'"question"', b'"answer"')
    journal.append(*short, *long)
    assert await journal.conversation(first) == [b'"system"', b'"question"']
    assert await journal.conversation(second) == [b'"system"', b'"question"', b'"answer"']


async def test_a_conversation_of_thousands_of_messages_is_whole(journal: Journal) -> None:
    messages = [f'"{number}"'.encode() for number in range(3000)]
    records, last = conversation(*messages)
    journal.append(*records)
    assert await journal.conversation(last) == messages


@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_a_conversation_with_a_hole_is_an_error(journal: Journal, missing: int) -> None:
    records, last = conversation(b"1", b"2")
    del records[missing]
    journal.append(*records)
    with pytest.raises(StoreError, match=f"ends with link {last} is not whole"):
        await journal.conversation(last)


async def test_an_unknown_conversation_is_an_error(journal: Journal) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        await journal.conversation("nowhere")


async def test_cached_results_expire(journal: Journal) -> None:
    for_ever, a_while = CachedRecord("a", "1", "p", None), CachedRecord("b", "2", "p", 100.0)
    journal.append(for_ever, a_while)
    assert await journal.cached("a", 1e9) == for_ever
    assert await journal.cached("b", 99.9) == a_while
    assert await journal.cached("b", 100.0) is None
    assert await journal.cached("c", 0.0) is None


async def test_a_program_that_nobody_runs_can_be_claimed_once(journal: Journal) -> None:
    journal.append(program("p"))
    assert await journal.claim("p", "one", now=10.0, stale_before=5.0)
    assert not await journal.claim("p", "two", now=11.0, stale_before=6.0)
    assert await journal.claim("p", "one", now=12.0, stale_before=7.0)
    history = await journal.history("p")
    assert history is not None
    assert (history.program.owner, history.program.owner_seen_at) == ("one", 12.0)


async def test_a_program_of_a_silent_owner_can_be_claimed(journal: Journal) -> None:
    journal.append(program("p", owner="one", owner_seen_at=10.0), program("q", owner="one"))
    assert not await journal.claim("p", "two", now=20.0, stale_before=10.0)
    assert await journal.claim("p", "two", now=20.0, stale_before=10.1)
    assert await journal.claim("q", "two", now=20.0, stale_before=0.0)


async def test_an_unknown_program_cannot_be_claimed(journal: Journal) -> None:
    assert not await journal.claim("nobody", "one", now=1.0, stale_before=0.0)


async def test_an_owner_that_was_seen_keeps_its_programs(journal: Journal) -> None:
    """Also when the program's own record is written again with an older time."""
    journal.append(program("p", owner="one", owner_seen_at=10.0))
    await journal.seen("one", 20.0)
    await journal.seen("one", 30.0)
    journal.append(program("p", owner="one", owner_seen_at=10.0))
    assert not await journal.claim("p", "two", now=40.0, stale_before=30.0)
    history = await journal.history("p")
    assert history is not None
    assert history.program.owner_seen_at == 30.0
    assert [known.owner_seen_at for known in await journal.programs()] == [30.0]
    assert await journal.claim("p", "two", now=40.0, stale_before=30.1)


async def test_a_request_reaches_the_owner_once(journal: Journal) -> None:
    journal.append(program("p", owner="one"), program("q", owner="two"))
    await journal.request("p", "cancel", 1.0)
    await journal.request("p", "cancel", 2.0)
    await journal.request("q", "cancel", 3.0)
    assert await journal.requests("one") == [("p", "cancel")]
    assert await journal.requests("one") == []
    assert await journal.requests("two") == [("q", "cancel")]


async def test_a_request_waits_for_an_owner_and_goes_with_its_program(journal: Journal) -> None:
    journal.append(program("p"), program("old", owner="one", ended_at=1.0))
    await journal.request("p", "cancel", 1.0)
    await journal.request("old", "cancel", 1.0)
    assert await journal.requests("two") == []
    await journal.claim("p", "two", 2.0, 0.0)
    assert await journal.requests("two") == [("p", "cancel")]
    assert await journal.prune(2.0) == 1
    journal.append(program("old", owner="one"))
    assert await journal.requests("one") == []


async def test_a_closed_journal_takes_nothing(journal: Journal) -> None:
    await journal.close()
    await journal.close()
    with pytest.raises(StoreError, match="the journal is closed"):
        journal.append(part(b"late"))
