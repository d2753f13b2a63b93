"""One's own past programs as a workload: sizes, pauses, prefixes and who waited for whom come out as they were."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from fairlead import Agent, Handle, step, tool, workflow
from fairlead.errors import InputError
from fairlead.runtime.engines.embedded import EmbeddedEngine, Reply, ToolCall
from fairlead.runtime.engines.embedded.hardware import PROFILES
from fairlead.runtime.engines.port import EngineRequest
from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from fairlead.runtime.simulation.engines import engine_pool
from fairlead.runtime.simulation.journals import read_journal, recorded_workload
from fairlead.runtime.simulation.loop import simulate
from fairlead.runtime.store.memory import MemoryJournal
from tests.support.journals import CuttableJournal, runtime_on
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio
anyio_backend = virtual_time


@tool(idempotency="pure")
async def look(name: str) -> str:
    """Look a name up."""
    await anyio.sleep(2.0)
    return f"All that is known of {name}. " * 40


reader = Agent("You look names up and say what you found. " * 30, tools=[look])


@step
async def find(name: str) -> str:
    return (await reader.run(f"Who is {name}?")).output


@step
async def join(one: str, two: str) -> str:
    return (await reader.run(f"Join {one} and {two}")).output


@workflow
def search(first: str, second: str) -> Handle[str]:
    return join(find(first).value, find(second).value)


def replies(request: EngineRequest) -> Reply:
    """Every finder looks once and then answers; the joiner answers at once."""
    messages = request.body["messages"]
    assert isinstance(messages, list)
    last = messages[-1]
    assert isinstance(last, dict)
    if last["role"] == "user" and str(last["content"]).startswith("Who"):
        return Reply(tool_calls=[ToolCall("look", {"name": "x"})], modelled=True)
    return Reply("It was found. " * 5, modelled=True)


async def past_programs() -> CuttableJournal:
    journal = CuttableJournal()
    engine = EmbeddedEngine(profile="demo", speed=1.0, script=replies)
    async with runtime_on(journal, engine) as runtime:
        await runtime.run(search, "Ada", "Grace")
        await runtime.run(search, "Alan", "Edsger")
    return journal


async def test_a_journal_becomes_the_programs_that_it_recorded() -> None:
    journal = await past_programs()
    load = recorded_workload(await read_journal(journal))
    assert len(load.programs) == 2 and load.programs[0].arrival_s == 0.0
    program = load.programs[0]
    assert program.workflow == "search"
    assert sorted(call.step for call in program.calls) == ["find", "find", "find", "find", "join"]
    assert [call.tool for call in program.calls].count("look") == 2
    firsts = [position for position, call in enumerate(program.calls) if not call.needs]
    assert len(firsts) == 2, "both finders began at once"
    last = program.calls[-1]
    assert {program.calls[need].step for need in last.needs} == {"find"} and len(last.needs) == 2
    for position, call in enumerate(program.calls[:-1]):
        if position not in firsts:
            [need] = call.needs
            assert program.calls[need].agent == call.agent


async def test_sizes_are_what_the_engine_said_and_the_cache_behaves_as_it_did() -> None:
    journal = await past_programs()
    load = recorded_workload(await read_journal(journal))
    histories = [await journal.history(program.name) for program in load.programs]
    calls = [call for history in histories if history is not None for call in history.calls]
    run = simulate(load, engine_pool(1, PROFILES["demo"]), ProgramFCFS())
    assert sorted(c.prompt_tokens for c in run.calls) == sorted(c.input_tokens or 0 for c in calls)
    assert sorted(c.output_tokens for c in run.calls) == sorted(c.output_tokens or 0 for c in calls)
    recorded = sum(call.cached_tokens or 0 for call in calls)
    assert sum(call.cached_tokens for call in run.calls) == pytest.approx(recorded, rel=0.15)


async def test_pauses_are_the_times_between_calls() -> None:
    # The stamps are of the wall clock, which stands still while virtual time passes: here they are set.
    [entry] = await read_journal(await past_programs(), limit=1)
    order = {call.node + str(call.ordinal): n for n, call in enumerate(entry.root.calls)}
    calls = []
    for call in entry.root.calls:
        began = entry.root.program.created_at + 1.5 + 10.0 * order[call.node + str(call.ordinal)]
        calls.append(replace(call, queued_at=began, ended_at=began + 4.0))
    [program] = recorded_workload([replace(entry, root=replace(entry.root, calls=calls))]).programs
    assert program.calls[0].gap_s == pytest.approx(1.5)
    for position, later in enumerate(program.calls[1:], 1):
        ended = [5.5 + 10.0 * need for need in later.needs]
        began = 1.5 + 10.0 * position
        assert later.gap_s == pytest.approx(began - max(ended, default=0.0))


async def test_a_journal_without_calls_is_an_error() -> None:
    with pytest.raises(InputError, match="no program that made a model call"):
        recorded_workload(await read_journal(MemoryJournal()))
