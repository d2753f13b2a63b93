"""Carries out tool calls for a running body: recorded before and after, never repeated when that could do harm."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from ..encoding import Json, digest, encode, encoded_object
from ..errors import ToolError
from ..tools.calling import ToolContext
from ..tools.declare import Tool
from .body import Suspend, wait_blocking
from .calls import GIVEN_UP_GRACE_S
from .failures import brief, recorded_tool_error
from .replay import Issued
from .store.records import ToolCallRecord

if TYPE_CHECKING:
    from .body import Body, Entry


class ToolCaller:
    """The tool runner of one body."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._asked: dict[str, int] = {}
        """How often each call has been asked for, by digest."""

    async def call_tool(self, tool: Tool[..., Any], arguments: dict[str, bytes]) -> Any:
        result = await self.call(tool, arguments)
        return tool.signature.result.read(result)

    def call_tool_blocking(self, tool: Tool[..., Any], arguments: dict[str, bytes]) -> Any:
        return wait_blocking(self._body, f"tool {tool.name!r}", functools.partial(self.call_tool, tool, arguments))

    async def call(self, tool: Tool[..., Any], arguments: dict[str, bytes]) -> bytes:
        """The result (JSON) of one call. Raises `ToolError` if the tool failed, `Suspend` if its outcome is unknown."""
        issued = self.issue(tool, arguments)
        return await self.carry_out(tool, arguments, issued)

    def issue(self, tool: Tool[..., Any], arguments: dict[str, bytes]) -> Issued[Entry]:
        """Give a call its number now, so that calls carried out later keep the order in which they were asked for."""
        return self._body.issue(_asked(tool, arguments), f"tool {tool.name}({encoded_object(arguments)})")

    async def carry_out(self, tool: Tool[..., Any], arguments: dict[str, bytes], issued: Issued[Entry]) -> bytes:
        body, program = self._body, self._body.program
        try:
            recorded = issued.recorded
            call = _Call(body, tool, arguments, issued, self._key(tool, arguments))
            if isinstance(recorded, ToolCallRecord):
                outcome = await self._from_record(call, recorded)
                if outcome is not None:
                    return outcome
            call.note("started")
            if tool.settings.idempotency == "unsafe":
                await program.journal.flushed()
            return await self._run(call)
        finally:
            body.effects.close()
            body.progress()

    def _key(self, tool: Tool[..., Any], arguments: dict[str, bytes]) -> str:
        """The idempotency key: of the program, the attempt of the step, the call, and how many like it came before."""
        body, asked = self._body, _asked(tool, arguments)
        count = self._asked[asked] = self._asked.get(asked, 0) + 1
        return digest(b"tool", body.program.id.encode(), body.path.encode(), asked.encode(), str(count).encode())

    async def _from_record(self, call: _Call, recorded: ToolCallRecord) -> bytes | None:
        """The recorded outcome, or None if the call has to be carried out (again)."""
        program, tool = self._body.program, call.tool
        if recorded.state == "succeeded":
            program.count_reused_tool()
            return (recorded.result or "null").encode()
        if recorded.state == "failed":
            raise recorded_tool_error(recorded.error)
        if recorded.state == "cancelled":
            # The body gave this call up by a timeout of its own, and will do so again; if not, its outcome is unknown.
            await anyio.sleep((recorded.ended_at or recorded.started_at) - recorded.started_at + GIVEN_UP_GRACE_S)
        if recorded.idempotency != "unsafe":
            return None
        about = f"{recorded.node}:{recorded.attempt}:{recorded.ordinal}"
        decision = program.decision(about)
        if decision is None:
            raise Suspend(
                {
                    "kind": "unknown_outcome",
                    "about": about,
                    "tool": recorded.tool,
                    "arguments": recorded.arguments,
                    "idempotency_key": recorded.idempotency_key,
                    "message": f"tool {recorded.tool!r} was started by step {recorded.node!r} and did not record its end: "
                    "it may or may not have had its effect, and it is declared unsafe",
                    "choices": ["run", "result", "fail"],
                }
            )
        if decision.action == "fail":
            raise call.failed("Decision", f"tool {recorded.tool!r} counts as failed: a person decided so")
        if decision.action == "result":
            result = decision.read(tool.signature.result)
            call.note("succeeded", result=result)
            return result
        return None

    async def _run(self, call: _Call) -> bytes:
        program, tool = call.body.program, call.tool
        try:
            with anyio.fail_after(tool.settings.timeout):
                value = await self._function(call)
            result = tool.signature.result.write(value)
        except anyio.get_cancelled_exc_class():
            # Cut off, its outcome is unknown: the record goes on saying only that it started.
            program.count_tool(call.body.node, tool.name, "stopped")
            program.emit("tool.cancelled", call.body.node, call=call.issued.ordinal, tool=tool.name)
            call.body.cut_off(lambda: call.note("cancelled"))
            raise
        except Exception as error:
            fault = call.inner.fault if call.inner is not None else None
            if fault is not None:
                raise fault from None
            raise call.failed(type(error).__name__, f"tool {tool.name!r} failed: {_reason(error, tool)}") from error
        call.note("succeeded", result=result)
        return result

    async def _function(self, call: _Call) -> object:
        body, tool, signature = call.body, call.tool, call.tool.signature
        values = {name: signature.parameters[name].read(data) for name, data in call.arguments.items()}
        for name, what in signature.injections.items():
            values[name] = (
                ToolContext(body.program.id, body.node, body.program.input, call.key)
                if what == "ToolContext"
                else body.program.services.inject(what)
            )
        # What the tool itself asks for is filed under the call: when the call is answered from its record, so is all of it.
        inner = call.inner = body.program.body(f"{body.path}:{call.issued.ordinal}", 1)
        inner.in_thread = not tool.is_async
        function = functools.partial(tool.function, **values)
        if tool.is_async:
            return await inner.live(function)
        threads = body.program.services.threads
        in_thread = functools.partial(anyio.to_thread.run_sync, function, abandon_on_cancel=True, limiter=threads)
        return await inner.live(in_thread)


class _Call:
    """One tool call under way, and its records."""

    def __init__(self, body: Body, tool: Tool[..., Any], arguments: dict[str, bytes], issued: Issued[Entry], key: str) -> None:
        self.body = body
        self.tool = tool
        self.arguments = arguments
        self.issued = issued
        self.started_at = body.program.now()
        self.key = key
        self.inner: Body | None = None
        """The body of the tool itself, while it runs."""
        self._text = encoded_object(arguments)
        self._asked = _asked(tool, arguments)

    def note(self, state: str, *, result: bytes | None = None, error: dict[str, Json] | None = None) -> None:
        body, settings, program = self.body, self.tool.settings, self.body.program
        ended_at = None if state == "started" else program.now()
        record = ToolCallRecord(
            program_id=program.id,
            node=body.node,
            attempt=body.attempt,
            ordinal=self.issued.ordinal,
            overlapped=self.issued.overlapped,
            tool=self.tool.name,
            idempotency=settings.idempotency,
            idempotency_key=self.key,
            arguments=self._text,
            request_digest=self._asked,
            state=state,
            background=settings.background,
            result=result.decode() if result is not None else None,
            error=encode(error).decode() if error else None,
            started_at=self.started_at,
            ended_at=ended_at,
        )
        told: dict[str, Json] = {"call": self.issued.ordinal, "tool": self.tool.name, "background": settings.background}
        if ended_at is not None:
            told["seconds"] = round(ended_at - self.started_at, 6)
            program.count_tool(body.node, self.tool.name, state)
        if error is not None:
            told["error"] = error["message"]
        program.journal.append(record, program.event(f"tool.{state}", body.node, **told))

    def failed(self, kind: str, message: str) -> ToolError:
        """Note the failure; the error to raise."""
        self.note("failed", error={"kind": kind, "message": message})
        return ToolError(message)


def _asked(tool: Tool[..., Any], arguments: dict[str, bytes]) -> str:
    return digest(b"tool", tool.name.encode(), encoded_object(arguments).encode())


def _reason(error: Exception, tool: Tool[..., Any]) -> str:
    if isinstance(error, TimeoutError) and tool.settings.timeout is not None and not str(error):
        return f"no result within {tool.settings.timeout:g} s"
    return brief(error)
