"""The shell around the scheduler: places in engines are given, waited for, given up and given back."""

from __future__ import annotations

import anyio
import pytest

from fairlead.runtime.dispatch import Ask, Dispatcher
from fairlead.runtime.scheduling.fcfs import ProgramFCFS
from tests.support.engines import OpenEngine
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio
anyio_backend = virtual_time


class Calls:
    """Calls that hold a place for a while, and when each had it."""

    def __init__(self, bound: int) -> None:
        engine = OpenEngine()
        self.dispatcher = Dispatcher(ProgramFCFS(), {engine.name: engine}, bound)
        self.begun: dict[str, float] = {}

    async def call(self, name: str, seconds: float) -> None:
        async with self.dispatcher.slot(Ask(name, "default", "", "", 100)) as (_, engine):
            assert engine.name == "open"
            self.begun[name] = anyio.current_time()
            await anyio.sleep(seconds)


async def test_a_call_waits_for_a_place_and_gives_it_back() -> None:
    calls = Calls(2)
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for name, seconds in (("a", 3.0), ("b", 1.0), ("c", 5.0), ("d", 1.0)):
            tasks.start_soon(calls.call, name, seconds)
    assert {name: round(at - began, 6) for name, at in calls.begun.items()} == {"a": 0, "b": 0, "c": 1, "d": 3}


async def test_a_call_that_is_cancelled_while_it_waits_takes_no_place() -> None:
    calls = Calls(1)
    began = anyio.current_time()

    async def impatient() -> None:
        with anyio.move_on_after(2):
            await calls.call("b", 1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(calls.call, "a", 5.0)
        tasks.start_soon(impatient)
        await anyio.sleep(1)
        tasks.start_soon(calls.call, "c", 1.0)
    assert {name: round(at - began, 6) for name, at in calls.begun.items()} == {"a": 0, "c": 5}


async def test_a_call_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    calls = Calls(1)
    began = anyio.current_time()

    async def fails() -> None:
        async with calls.dispatcher.slot(Ask("x", "default", "", "", 100)):
            await anyio.sleep(1)
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    with anyio.move_on_after(2):
        await calls.call("b", 60)
    await calls.call("c", 1)
    assert {name: round(at - began, 6) for name, at in calls.begun.items()} == {"b": 1, "c": 3}
