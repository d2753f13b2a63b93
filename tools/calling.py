"""The seam between a tool that is called and the step that records the call, and what a tool may ask about its call."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..encoding import Json

if TYPE_CHECKING:
    from .declare import Tool


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool can know about its call: annotate a parameter with this type to receive it."""

    __fairlead_injected__: ClassVar[str] = "ToolContext"

    program_id: str
    step: str
    input: Mapping[str, Json]
    """What the program was started with, by parameter name, defaults included: the place for what its tools share."""
    idempotency_key: str
    """The same each time this very call is carried out, also after a crash: pass it to services that deduplicate."""


class ToolRunner(Protocol):
    """Carries out and records tool calls; the running step is one."""

    async def call_tool(self, tool: Tool[..., Any], arguments: dict[str, bytes]) -> Any:
        """The result, of the tool's type, of one call with these arguments (JSON by parameter name)."""

    def call_tool_blocking(self, tool: Tool[..., Any], arguments: dict[str, bytes]) -> Any:
        """The same, from a step that runs in a thread."""


current_runner: ContextVar[ToolRunner | None] = ContextVar("fairlead_tool_runner", default=None)
