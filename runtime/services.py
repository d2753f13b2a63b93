"""What the programs of one process share: the journal, the way to the engines, threads, clients."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import DeclarationError
from ..graphs.declare import Workflow
from .calls import CallPath
from .clock import Clock
from .dispatch import Dispatcher
from .ids import child_program_id
from .program import Program
from .recorded import new_record
from .store.journal import Journal

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


class Services:
    """Created on the event loop's thread that its programs run on."""

    def __init__(
        self, journal: Journal, clock: Clock, dispatcher: Dispatcher, calls: CallPath, *, model: str, threads: int
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.dispatcher = dispatcher
        self.calls = calls
        self.model = model
        """The model of agents that name none."""
        self.threads = anyio.CapacityLimiter(threads)
        self.loop_thread = threading.get_ident()

    @cached_property
    def async_client(self) -> AsyncOpenAI:
        """The `openai` client whose transport is the call path; one serves all steps."""
        from .transport import async_client

        return async_client(self)

    @cached_property
    def client(self) -> OpenAI:
        """The same for plain `def` steps."""
        from .transport import blocking_client

        return blocking_client(self)

    def inject(self, what: str) -> Any:
        """The value for an injected parameter."""
        match what:
            case "AsyncOpenAI":
                return self.async_client
            case "OpenAI":
                return self.client
            case _:
                raise DeclarationError(
                    f"a parameter of type {what} is not provided here",
                    hint="StepContext belongs in steps, ToolContext in tools",
                )

    async def child(self, parent: Program, node: str, workflow: Workflow[..., Any], arguments: dict[str, bytes]) -> Program:
        """The child program at a node of `parent`: the recorded one, or a new one."""
        child_id = child_program_id(parent.id, node)
        history = await self.journal.history(child_id) if parent.resumed else None
        if history is not None:
            return Program(self, workflow, history.program, history=history, parent=parent)
        arguments = workflow.signature.with_defaults(arguments)
        for name, data in arguments.items():
            workflow.signature.parameters[name].read(data)
        record = new_record(
            workflow,
            arguments,
            id=child_id,
            entry="",
            tenant=parent.tenant,
            options={},
            now=self.clock.now(),
            parent=parent,
            node=node,
        )
        self.journal.append(record)
        return Program(self, workflow, record, parent=parent)
