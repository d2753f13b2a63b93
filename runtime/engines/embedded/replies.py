"""What the embedded engine says: a deterministic function of (seed, request), and plainly not a language model.

With tools offered it calls the ones it can find arguments for, several at once; a tool whose required arguments nothing in the
conversation supplies waits until another tool's result does. Each tool is asked once after a user message (a few times at
once for a list of values), then it answers: with excerpts of what the tools found, or with JSON of the wanted schema. A tool
that ends a task by its name (`final_result`, `submit_report`) is called last and alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ....encoding import Json
from .facts import Facts, ToolResult, canonical, facts_of, words_of
from .requests import Ask, OfferedTool
from .schemas import Filler
from .tokens import SpokenCall

DISCLAIMER = "This is Fairlead's embedded engine: deterministic text, not a language model."

_CALLS_MAX = 6
_SAME_TOOL_MAX = 3
_ROUNDS_MAX = 8
_ENDING = frozenset(("final", "submit", "finish", "respond", "answer", "done", "complete"))
_CLOSINGS = (
    "Nothing above was reasoned about.",
    "Attach a real engine for an answer with meaning.",
    "The same request with the same seed gives this text again.",
    "Only timing, caching, usage and structure are modelled.",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say: text, or tool calls (never both here)."""

    text: str
    calls: tuple[SpokenCall, ...] = ()


def compose(ask: Ask, seed: int, choice: int = 0) -> Answer:
    """The answer to a request; `choice` numbers the answers of one request with `n`."""
    if ask.endpoint == "completions":
        return Answer(_continuation(ask, seed, choice))
    facts = facts_of(ask.messages)
    calls = _tool_calls(ask, facts)
    if calls:
        return Answer("", calls)
    if ask.schema is not None:
        return Answer(_structured(ask, facts))
    return Answer(_report(ask, facts, seed, choice))


def _tool_calls(ask: Ask, facts: Facts) -> tuple[SpokenCall, ...]:
    if not ask.tools or ask.tool_choice == "none":
        return ()
    forced = ask.tool_choice != "auto"
    offered = [tool for tool in ask.tools if ask.tool_choice in ("auto", "required", f"={tool.name}")]
    fresh = [tool for tool in offered if tool.name not in facts.called] if facts.rounds < _ROUNDS_MAX else []
    ending = [tool for tool in fresh if _ends_task(tool)]
    calls = _known_calls([tool for tool in fresh if tool not in ending], facts)
    if not calls and (facts.rounds == 0 or forced):
        # Nothing can be filled from the conversation: ask anyway, once, with values that at least fit the schema.
        guesses = [(tool.name, _arguments(tool, facts)) for tool in fresh if tool not in ending]
        calls = [(name, text) for name, text in guesses if (name, canonical(text)) not in facts.earlier_calls]
    if not calls and ending:
        calls = [(ending[0].name, _arguments(ending[0], facts))]
    if not calls and forced:
        last = next((tool for tool in offered if _ends_task(tool)), offered[-1])
        calls = [(last.name, _arguments(last, facts))]
    calls = calls[: _CALLS_MAX if ask.parallel_tool_calls else 1]
    return tuple(
        SpokenCall(f"call_{len(ask.messages)}_{index}", name, arguments) for index, (name, arguments) in enumerate(calls)
    )


def _known_calls(tools: Sequence[OfferedTool], facts: Facts) -> list[tuple[str, str]]:
    """Calls whose required arguments the conversation supplies, and that were not made before."""
    calls: list[tuple[str, str]] = []
    for tool in tools:
        filled = Filler(facts, tool.parameters).fill({"type": "object", **tool.parameters})
        if not filled.known or not isinstance(filled.value, dict):
            continue
        variants = [_dump(filled.value), *(_dump({**filled.value, **other}) for other in _variants(tool, facts))]
        new = [text for text in dict.fromkeys(variants) if (tool.name, canonical(text)) not in facts.earlier_calls]
        calls.extend((tool.name, arguments) for arguments in new[:_SAME_TOOL_MAX])
    return calls


def _variants(tool: OfferedTool, facts: Facts) -> list[dict[str, Json]]:
    """Further values of a tool's only required text argument, when the conversation has a list of them."""
    required = tool.parameters.get("required")
    properties = tool.parameters.get("properties")
    if not isinstance(required, list) or len(required) != 1 or not isinstance(properties, dict):
        return []
    name = required[0]
    node = properties.get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or not isinstance(node, dict) or node.get("type") != "string" or "enum" in node:
        return []
    asked, found = facts.candidates(name)
    # Values that were asked for are all meant; of what tools found, a few are looked at when nothing was asked for.
    return [{name: value} for value in (asked or found)[1:_SAME_TOOL_MAX] if isinstance(value, str)]


def _ends_task(tool: OfferedTool) -> bool:
    return bool(words_of(tool.name)) and words_of(tool.name)[0] in _ENDING


def _arguments(tool: OfferedTool, facts: Facts) -> str:
    prose = [_summary(facts), *(_excerpt(result.text, 200) for result in facts.results)]
    filler = Filler(facts, tool.parameters, prose if _ends_task(tool) else ())
    return _dump(filler.fill({"type": "object", **tool.parameters}).value)


def _structured(ask: Ask, facts: Facts) -> str:
    prose = [_summary(facts), *(_excerpt(result.text, 200) for result in facts.results)]
    if not ask.schema:
        return _dump({"note": DISCLAIMER, "request": _excerpt(facts.request, 200), "summary": prose[0]})
    return _dump(Filler(facts, ask.schema, prose).fill(ask.schema).value)


def _summary(facts: Facts) -> str:
    """A few sentences for a `summary` property: what was asked, what the tools returned."""
    if not facts.results:
        return f"{_excerpt(facts.request, 160)} ({DISCLAIMER})"
    parts = [f"{_call_text(result)}: {_measure(result.text)}" for result in facts.results[:8]]
    notable = facts.notable()
    ending = f" Notable: {_excerpt(notable[0], 120)}." if notable else ""
    return f"{len(facts.results)} tool results: {'; '.join(parts)}.{ending}"


def _report(ask: Ask, facts: Facts, seed: int, choice: int) -> str:
    closing = _CLOSINGS[_draw(seed + ask.seed, f"{facts.request}\0{len(ask.messages)}\0{choice}") % len(_CLOSINGS)]
    if not facts.results:
        size = f"{len(facts.request)} characters, message {len(ask.messages)} of this conversation"
        return f"{DISCLAIMER} You wrote ({size}): “{_excerpt(facts.request, 240)}” {closing}"
    lines = [f"{DISCLAIMER} Request: “{_excerpt(facts.request, 160)}”", "", "What the tools returned:"]
    lines += [
        f"- {_call_text(result)}: {_measure(result.text)}; begins “{_excerpt(result.text, 160)}”"
        for result in facts.results[:20]
    ]
    located = [item for item in facts.items() if {"path", "line", "message"} <= item.keys()]
    findings = [f"{item['path']}:{item['line']}: {item['message']}" for item in located]
    notable = list(dict.fromkeys([*findings, *facts.notable()]))[:12]
    if notable:
        lines += ["", "Lines that stand out:", *(f"- {_excerpt(line, 200)}" for line in notable)]
    return "\n".join([*lines, "", closing])


def _continuation(ask: Ask, seed: int, choice: int) -> str:
    prompt = ask.prompt if isinstance(ask.prompt, str) else f"{len(ask.prompt or ())} token ids"
    closing = _CLOSINGS[_draw(seed + ask.seed, f"{prompt}\0{choice}") % len(_CLOSINGS)]
    return f" {DISCLAIMER} The prompt ended with “{_excerpt(prompt[-200:], 200)}” {closing}"


def _call_text(result: ToolResult) -> str:
    try:
        arguments = json.loads(result.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return f"{result.name}()"
    return f"{result.name}({', '.join(f'{key}={_excerpt(_dump(value), 60)}' for key, value in arguments.items())})"


def _measure(text: str) -> str:
    lines = text.count("\n") + 1
    return f"{len(text):,} characters" + (f" in {lines:,} lines" if lines > 1 else "")


def _excerpt(text: str, limit: int) -> str:
    """The text on one line, cut at a word."""
    flat = " ".join(text[: limit * 2].split())
    if len(flat) <= limit:
        return flat
    return flat[: limit - 1].rsplit(" ", 1)[0] + "…"


def _dump(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _draw(seed: int, text: str) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
