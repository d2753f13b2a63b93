"""Who may write: a process that slept through the loss of its programs must not go on with them."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from fairlead import ProgramError, Runtime, step, tool, workflow
from fairlead.runtime import runtime as module
from tests.support.virtual_time import SetClock

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("taken", [True, False])
async def test_a_program_that_was_taken_over_during_a_pause_is_let_go(
    taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUESTS_S", 0.01)
    begun, go_on = anyio.Event(), anyio.Event()
    ran: list[str] = []

    @tool(idempotency="idempotent")
    async def act(what: str) -> str:
        ran.append(what)
        return what

    @step
    async def waits() -> str:
        begun.set()
        await go_on.wait()
        return await act("once")

    @workflow
    async def flow() -> str:
        return await waits()

    clock = SetClock()
    async with Runtime(db=f"sqlite:///{tmp_path}/runs.db", clock=clock) as runtime:
        program = runtime.start(flow)
        await begun.wait()
        clock.time += 1000
        if taken:
            assert await runtime.journal.claim(program.id, "elsewhere:1:1", clock.time, clock.time - 30)
            with anyio.fail_after(5), pytest.raises(ProgramError, match="another process took it over"):
                await runtime.outcome(program)
            history = await runtime.journal.history(program.id)
            assert history is not None
            assert (history.program.state, history.program.owner) == ("running", "elsewhere:1:1")
            assert ran == []
        else:
            await anyio.sleep(0.05)
            go_on.set()
            assert await runtime.outcome(program) == "once"
