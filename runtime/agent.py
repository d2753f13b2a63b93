"""`Agent`: a small multi-turn loop of model calls and tool calls, for steps that bring no agent library of their own."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

import anyio
from pydantic_core import from_json

from ..budgets.usage import Usage
from ..encoding import Json, encode
from ..errors import ConfigurationError, DeclarationError, EngineError, InputError, ProgramError, ToolError
from ..memory.conversation import Conversation
from ..signature import Border, type_name
from ..tools.declare import Tool
from .body import Body, Entry, running_body, wait_blocking
from .calls import Head, ModelCall
from .chat import Reply, ReplyStream, ToolRequest, error_of, reply_of
from .replay import Issued
from .tickets import Ticket, Tickets

T = TypeVar("T")
R = TypeVar("R")

BAD_REQUESTS_MAX = 8
"""Tool calls in a row that no tool could be called with, before an agent gives up."""
EVENTS_BUFFER = 64
"""Events that may wait for a slow reader of a stream; then the agent waits too."""
OUTPUT_TRIES = 3
"""Answers that may miss the output type before an agent gives up."""


@dataclass(frozen=True, slots=True)
class TurnStarted:
    turn: int
    """1 for the first."""


@dataclass(frozen=True, slots=True)
class TextArrived:
    """A piece of the model's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """The result of a tool as the model gets it; for a background tool, when it enters the conversation."""

    tool: str
    content: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of one tool call."""

    tool: str
    content: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class AgentResult(Generic[T]):
    """What an agent came to."""

    output: T
    turns: int
    usage: Usage
    messages: Sequence[Json]
    """The whole conversation."""
    tool_results: Sequence[ToolResult] = ()
    """What tools returned, background ones included, in the order in which the model got it."""

    def results(self, tool: Tool[..., R]) -> list[R]:
        """What one tool returned to this agent, as values of its type; failed calls are left out."""
        read = tool.signature.result.read
        return [read(item.content.encode()) for item in self.tool_results if item.tool == tool.name]


AgentEvent: TypeAlias = TurnStarted | TextArrived | ToolCalled | ToolReturned | AgentResult[Any]

Watcher: TypeAlias = Callable[[AgentEvent], Awaitable[None] | None]


class TurnLimitError(ProgramError):
    """An agent used all its turns without an answer."""


class Agent(Generic[T]):
    """Instructions, tools and a type of answer; `run` it in a step, as often as you like.

    `tools` are offered in the order given. `output` is the type of the answer: str, or anything pydantic knows, which the
    model is asked for as JSON. `settings` go into each request as they are (`temperature`, `max_completion_tokens`, ...).
    """

    @overload
    def __init__(
        self: Agent[str],
        instructions: str = ...,
        *,
        tools: Sequence[Tool[..., Any]] = ...,
        model: str | None = ...,
        max_turns: int = ...,
        settings: Mapping[str, Json] | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        instructions: str = ...,
        *,
        output: type[T],
        tools: Sequence[Tool[..., Any]] = ...,
        model: str | None = ...,
        max_turns: int = ...,
        settings: Mapping[str, Json] | None = ...,
    ) -> None: ...
    def __init__(
        self,
        instructions: str = "",
        *,
        output: Any = str,
        tools: Sequence[Tool[..., Any]] = (),
        model: str | None = None,
        max_turns: int = 20,
        settings: Mapping[str, Json] | None = None,
    ) -> None:
        if max_turns < 1:
            raise DeclarationError(f"max_turns={max_turns}: an agent needs at least one turn")
        self.tools = {tool.name: tool for tool in tools}
        if len(self.tools) < len(tools):
            raise DeclarationError("two tools of an agent have the same name", hint="give one of them another: @tool(name=...)")
        self.instructions = instructions
        self.output = Border("the agent's answer", output)
        self.model = model
        self.max_turns = max_turns
        self.settings = dict(settings or {})

    @property
    def __fairlead_facts__(self) -> str:
        """What counts for the version of a workflow that names this agent, besides its tools."""
        output = type_name(self.output.annotation)
        facts = [self.instructions, list(self.tools), output, self.model, self.max_turns, self.settings]
        return json.dumps(facts, sort_keys=True, default=str)

    async def run(self, task: str | Sequence[Json], *, watcher: Watcher | None = None) -> AgentResult[T]:
        """Work on a task (a user message, or a list of chat messages) until there is an answer.

        With a `watcher`, the model's text is streamed to it, and every turn and tool call reported. Raises
        `TurnLimitError`, `EngineError` if the engine refuses or does not answer, `InputError` if the answer never fits the
        output type, `ToolError` if the model keeps asking for calls that cannot be made.
        """
        return await _Run(self, running_body("Agent.run()"), task, watcher).run()

    def run_blocking(self, task: str | Sequence[Json]) -> AgentResult[T]:
        """The same from a plain `def` step."""
        return wait_blocking(running_body("Agent.run_blocking()"), "Agent.run_blocking()", partial(self.run, task))

    async def stream(self, task: str | Sequence[Json]) -> AsyncGenerator[AgentEvent, None]:
        """The events of a run as they come; the last is the `AgentResult`. Leaving the iteration early stops the run (at once
        with `contextlib.aclosing`)."""
        send, receive = anyio.create_memory_object_stream[AgentEvent](EVENTS_BUFFER)
        scope = anyio.CancelScope()
        failures: list[Exception] = []

        async def work() -> None:
            with scope, send:
                try:
                    await send.send(await self.run(task, watcher=send.send))
                except Exception as error:  # raised where the events are read
                    failures.append(error)

        # In the body's tasks: a task group around a `yield` would be left in another order than it was entered.
        running_body("Agent.stream()").tasks.start_soon(work)
        try:
            with receive:
                async for event in receive:
                    yield event
        finally:
            scope.cancel()
        if failures:
            raise failures[0]


@dataclass(slots=True)
class _Pending:
    """A tool call of this turn: its request, and what it needs to be carried out or why it cannot be."""

    request: ToolRequest
    tool: Tool[..., Any] | None = None
    arguments: dict[str, bytes] = field(default_factory=dict)
    issued: Issued[Entry] | None = None
    content: str = ""
    result: str | None = None
    """JSON, if the call gave one."""


class _Run(Generic[T]):
    def __init__(self, agent: Agent[T], body: Body, task: str | Sequence[Json], watcher: Watcher | None) -> None:
        self.agent = agent
        self.body = body
        self.watcher = watcher
        start: list[Json] = [{"role": "system", "content": agent.instructions}] if agent.instructions else []
        start += [{"role": "user", "content": task}] if isinstance(task, str) else task
        self.conversation = Conversation.of(start)
        self.tickets = Tickets(body)
        self.usage = Usage()
        self.tool_results: list[ToolResult] = []
        self.bad_requests = 0
        self.misses = 0
        self.request, self.params = self._request()

    async def run(self) -> AgentResult[T]:
        for turn in range(1, self.agent.max_turns + 1):
            await self._tell(TurnStarted(turn))
            for ticket in await self.tickets.deliver():
                await self._delivered(ticket)
            reply = await self._ask()
            self.conversation.append(reply.message())
            if reply.tool_requests:
                await self._call_tools(reply.tool_requests)
            elif self.tickets.pending:
                await self.tickets.wait()
            else:
                output = self._output(reply)
                if not isinstance(output, _Miss):
                    return AgentResult(output, turn, self.usage, self.conversation.messages, self.tool_results)
                self.conversation.append({"role": "user", "content": output.complaint})
        raise TurnLimitError(
            f"the agent used its {self.agent.max_turns} turns without an answer",
            hint="raise max_turns, or see in its calls why it goes on",
        )

    def _request(self) -> tuple[dict[str, Json], bytes]:
        """What is the same in every turn: the request (whose `messages` grow with the conversation) and its parameters."""
        agent = self.agent
        model = agent.model or self.body.program.services.model
        if not model:
            raise ConfigurationError("no model is named for this agent", hint="Agent(model=...), Runtime(model=...) or --model")
        params: dict[str, Json] = {"model": model, **agent.settings}
        if agent.tools:
            params["tools"] = [tool.schema for tool in agent.tools.values()]
        if agent.output.annotation is not str:
            schema: Json = agent.output.adapter.json_schema()
            params["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        if self.watcher is not None:
            params |= {"stream": True, "stream_options": {"include_usage": True}}
        return {**params, "messages": self.conversation.messages}, encode(params)

    async def _ask(self) -> Reply:
        calls = self.body.program.services.calls
        call = ModelCall("chat/completions", self.request, self.conversation, self.params)
        stream = ReplyStream() if self.watcher is not None else None

        async def relay(head: Head, chunk: bytes) -> None:
            assert stream is not None
            for text in stream.feed(chunk, head.engine):
                await self._tell(TextArrived(text))

        answer = await calls.perform(self.body, call, relay if stream is not None else None)
        self.usage += answer.usage
        if not answer.ok:
            raise EngineError(
                f"refused with status {answer.head.status}: {error_of(answer.content)}",
                engine=answer.head.engine,
                status=answer.head.status,
            )
        return stream.reply() if stream is not None else reply_of(answer.content, answer.head.engine)

    async def _call_tools(self, requests: tuple[ToolRequest, ...]) -> None:
        """Carry out the calls of one turn at the same time; their results enter the conversation in the order asked."""
        pending = [self._prepared(request) for request in requests]
        async with anyio.create_task_group() as tasks:
            for item in pending:
                await self._tell(ToolCalled(item.request.name, item.request.arguments))
                if item.tool is None or item.issued is None:
                    continue
                if item.tool.settings.background:
                    ticket = self.tickets.start(item.tool, item.arguments, item.issued)
                    item.content = encode({"ticket": ticket.id, "status": "running"}).decode()
                else:
                    tasks.start_soon(self._carry_out, item)
        for item in pending:
            self.conversation.append({"role": "tool", "tool_call_id": item.request.id, "content": item.content})
            if item.result is not None:
                self.tool_results.append(ToolResult(item.request.name, item.result))
            if item.tool is None or not item.tool.settings.background:
                await self._tell(ToolReturned(item.request.name, item.content))
        if self.bad_requests > BAD_REQUESTS_MAX:
            raise ToolError(
                f"the model asked for {self.bad_requests} calls in a row that cannot be made; the last: {pending[-1].content}"
            )

    def _prepared(self, request: ToolRequest) -> _Pending:
        tool = self.agent.tools.get(request.name)
        if tool is None:
            self.bad_requests += 1
            return _Pending(
                request, content=f"error: there is no tool {request.name!r}; there are: {', '.join(self.agent.tools) or 'none'}"
            )
        try:
            arguments = tool.signature.read_json(_object(request.arguments))
        except InputError as error:
            self.bad_requests += 1
            return _Pending(request, content=f"error: {error.message}")
        self.bad_requests = 0
        return _Pending(request, tool, arguments, self.body.tools.issue(tool, arguments))

    async def _carry_out(self, item: _Pending) -> None:
        assert item.tool is not None and item.issued is not None
        try:
            result = await self.body.tools.carry_out(item.tool, item.arguments, item.issued)
            item.result, item.content = result.decode(), _as_text(result)
        except ToolError as error:
            item.content = f"error: {error.message}"

    async def _delivered(self, ticket: Ticket) -> None:
        message = ticket.message()
        self.conversation.append(message)
        if not ticket.failed:
            self.tool_results.append(ToolResult(ticket.tool, ticket.content))
        await self._tell(ToolReturned(ticket.tool, str(message["content"])))

    def _output(self, reply: Reply) -> T | _Miss:
        if self.agent.output.annotation is str:
            return cast(T, reply.text)
        try:
            return cast(T, self.agent.output.read(reply.text.encode()))
        except InputError as error:
            self.misses += 1
            if self.misses >= OUTPUT_TRIES:
                raise
            return _Miss(f"This answer cannot be read: {error.message}\nAnswer again, with JSON of the asked form only.")

    async def _tell(self, event: AgentEvent) -> None:
        if self.watcher is not None:
            told = self.watcher(event)
            if told is not None:
                await told


@dataclass(frozen=True, slots=True)
class _Miss:
    complaint: str


def _object(text: str) -> dict[str, Json]:
    """The arguments a model wrote. Raises `InputError`."""
    try:
        value = from_json(text or "{}")
    except ValueError as error:
        raise InputError(f"the arguments are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"the arguments are not a JSON object: {text[:80]}")
    return value


def _as_text(result: bytes) -> str:
    """A tool's result for the model: strings as they are, everything else as JSON."""
    value = from_json(result)
    return value if isinstance(value, str) else result.decode()
