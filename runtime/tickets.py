"""Tool calls that go on while the model does: each has a ticket, and its result enters the conversation when it is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio

from ..encoding import Json
from ..errors import ToolError
from ..tools.declare import Tool
from .body import Body, Entry, Suspend
from .replay import Issued


@dataclass(slots=True)
class Ticket:
    """One background tool call."""

    id: str
    tool: str
    ended: anyio.Event = field(default_factory=anyio.Event)
    content: str = ""
    failed: bool = False
    suspended: Suspend | None = None

    def message(self) -> dict[str, Json]:
        """The result as it enters the conversation."""
        verb = "failed" if self.failed else "finished"
        return {"role": "user", "content": f"[{self.id}] {self.tool} {verb}: {self.content}"}


class Tickets:
    """The background calls of one agent run."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._open: dict[str, Ticket] = {}
        self._finished: list[str] = []
        """Ended, not yet delivered, in the order in which they ended."""
        self._count = 0
        self._news = anyio.Event()

    @property
    def pending(self) -> bool:
        """Whether a result is still to be delivered."""
        return bool(self._open)

    def start(self, tool: Tool[..., Any], arguments: dict[str, bytes], issued: Issued[Entry]) -> Ticket:
        """Carry out a call in the background; its ticket at once."""
        self._count += 1
        ticket = self._open[f"ticket-{self._count}"] = Ticket(f"ticket-{self._count}", tool.name)
        self._body.tasks.start_soon(self._carry_out, ticket, tool, arguments, issued)
        return ticket

    async def deliver(self) -> list[Ticket]:
        """The tickets whose results enter the conversation now.

        Which ones had ended is recorded, because a resumed agent must put them in the same place.
        """
        if not self._open:
            return []
        names = await self._body.observe("tickets", lambda: list(self._finished))
        delivered = []
        for name in names:
            ticket = self._open[name]
            await ticket.ended.wait()
            if ticket.suspended is not None:
                raise ticket.suspended
            self._finished.remove(name)
            del self._open[name]
            delivered.append(ticket)
        return delivered

    async def wait(self) -> None:
        """Return when a result waits to be delivered."""
        while not self._finished:
            self._news = anyio.Event()
            await self._news.wait()

    async def _carry_out(
        self, ticket: Ticket, tool: Tool[..., Any], arguments: dict[str, bytes], issued: Issued[Entry]
    ) -> None:
        try:
            ticket.content = (await self._body.tools.carry_out(tool, arguments, issued)).decode()
        except ToolError as error:
            ticket.content, ticket.failed = error.message, True
        except Suspend as suspend:
            ticket.suspended = suspend
        self._finished.append(ticket.id)
        ticket.ended.set()
        self._news.set()
