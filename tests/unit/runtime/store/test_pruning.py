"""What pruning deletes and what it spares, for every kind of journal."""

from __future__ import annotations

import pytest

from fairlead.runtime.store import Journal
from fairlead.runtime.store.records import CachedRecord, ObservationRecord
from tests.unit.runtime.store.building import SetClock, call, conversation, event, part, program, step, tool_call

pytestmark = pytest.mark.anyio


async def test_ended_roots_go_with_their_children_and_all_their_records(journal: Journal) -> None:
    for program_id, root in (("root", "root"), ("child", "root"), ("grandchild", "root")):
        parent = {"root": None, "child": "root", "grandchild": "child"}[program_id]
        journal.append(program(program_id, parent_id=parent, root_id=root, state="succeeded", ended_at=10.0))
        journal.append(step(program_id, "node"), call(program_id), tool_call(program_id), event(program_id, 1))
        journal.append(ObservationRecord(program_id, "node", 1, 5, False, "time", "1"))
    assert await journal.prune(11.0) == 1
    for program_id in ("root", "child", "grandchild"):
        assert await journal.history(program_id) is None
        assert await journal.events(program_id) == []
    # Nothing of the old program shows up under its name again.
    journal.append(program("root"))
    history = await journal.history("root")
    assert history is not None
    assert (history.steps, history.calls, history.tool_calls, history.observations) == ([], [], [], [])


async def test_programs_that_run_or_ended_later_stay(journal: Journal) -> None:
    journal.append(
        program("open"),
        program("late", state="succeeded", ended_at=20.0),
        program("old", state="failed", ended_at=5.0),
        program("child", parent_id="open", state="succeeded", ended_at=5.0),
        step("open", "node"),
    )
    assert await journal.prune(20.0) == 1
    assert {known.id for known in await journal.programs()} == {"open", "late"}
    assert [known.id for known in await journal.programs(parent_id="open")] == ["child"]


async def test_many_programs_go_in_one_call(journal: Journal) -> None:
    for number in range(130):
        journal.append(program(f"p{number}", state="succeeded", ended_at=1.0), step(f"p{number}", "node"))
    assert await journal.prune(2.0) == 130
    assert await journal.prune(2.0) == 0
    assert await journal.programs() == []


async def test_content_that_remaining_programs_refer_to_stays(journal: Journal) -> None:
    old, old_last = conversation(b"system", b"question", b"old answer")
    new, new_last = conversation(b"system", b"question", b"new answer", b"more")
    params, old_params = part(b"params of both"), part(b"params of the old")
    journal.append(*old, *new, params, old_params)
    journal.append(program("old", state="succeeded", ended_at=1000.0, created_at=900.0))
    journal.append(call("old", 0, params=params.digest, conversation=old_last), call("old", 1, params=old_params.digest))
    journal.append(program("new", state="succeeded", ended_at=9000.0, created_at=900.0))
    journal.append(call("new", params=params.digest, conversation=new_last))

    assert await journal.prune(2000.0) == 1

    assert await journal.conversation(new_last) == [b"system", b"question", b"new answer", b"more"]
    assert await journal.part(params.digest) == b"params of both"
    assert await journal.part(old_params.digest) is None
    assert await journal.part(part(b"old answer").digest) is None


async def test_all_content_goes_with_the_last_program(journal: Journal) -> None:
    records, last = conversation(*(b"message %d" % number for number in range(5000)))
    journal.append(*records, program("p", state="succeeded", ended_at=1000.0), call("p", conversation=last))
    assert await journal.prune(2000.0) == 1
    for message in (b"message 0", b"message 2500", b"message 4999"):
        assert await journal.part(part(message).digest) is None


async def test_content_of_a_call_under_way_stays(journal: Journal, clock: SetClock) -> None:
    """Stored by an open program that has not referred to it yet, and first stored long ago by one that is pruned."""
    records, last = conversation(b"system", b"question")
    clock.time = 1000.0
    journal.append(program("old", state="succeeded", ended_at=1500.0), *records, call("old", conversation=last))
    await journal.flushed()
    clock.time = 5000.0
    journal.append(program("open", created_at=5000.0), *records)
    await journal.flushed()

    clock.time = 9000.0
    assert await journal.prune(9000.0) == 1

    journal.append(call("open", conversation=last))
    assert await journal.conversation(last) == [b"system", b"question"]


async def test_expired_results_go_and_others_stay(journal: Journal) -> None:
    kept, gone = CachedRecord("kept", "1", "p", None), CachedRecord("gone", "1", "p", 10.0)
    journal.append(kept, gone)
    await journal.prune(11.0)
    assert await journal.cached("kept", 0.0) == kept
    assert await journal.cached("gone", 0.0) is None
