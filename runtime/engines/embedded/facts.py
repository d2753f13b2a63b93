"""What a conversation mentions: the raw material of the embedded engine's arguments and answers.

Paths, names, quoted values, numbers and `key: value` pairs are picked out of user messages and tool results by regular
expressions and JSON parsing, so that a tool call asks for something that exists and a report contains what tools found.
Nothing here understands anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ....encoding import Json
from .tokens import content_text, spoken_calls

_DEPTH_MAX = 50
_SCAN_CHARS = 24_000
"""How much of one message is looked at."""

_KINDS: dict[str, frozenset[str]] = {
    "path": frozenset(("path", "file", "filename", "filepath", "module", "document")),
    "directory": frozenset(("directory", "dir", "folder", "root")),
    "url": frozenset(("url", "uri", "link", "href", "website")),
    "name": frozenset(
        ["query", "q", "pattern", "search", "term", "keyword", "symbol", "needle", "regex", "identifier", "function"]
    ),
    "email": frozenset(("email", "mail", "recipient", "to")),
    "date": frozenset(("date", "day", "since", "until", "deadline")),
}
_PATTERNS: dict[str, re.Pattern[str]] = {
    "path": re.compile(
        r"(?<![\w/.:-])(?:[\w.-]*/)*[\w-][\w.-]*\.(?:py|pyi|md|rst|txt|json|jsonl|toml|ya?ml|cfg|ini|sql|sh|js|jsx|ts|tsx|css|html?"
        r"|csv|xml|pdf|go|rs|c|h|cc|cpp|hpp|java|kt|rb|php|swift|ipynb|lock|log)(?![\w/])"
    ),
    "directory": re.compile(r"(?<![\w/.:-])(?:\.{0,2}/)?(?:[\w.-]+/)+(?![\w])"),
    "url": re.compile(r"https?://[^\s\"'<>)\]]+"),
    "email": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+\w"),
    "date": re.compile(r"\b\d{4}-\d\d-\d\d\b"),
}
_QUOTED = re.compile(r"`([^`\n]{1,200})`|\"([^\"\n]{1,200})\"|(?<!\w)'([^'\n]{1,200})'(?!\w)|[“«]([^”»\n]{1,200})[”»]")
_DEFINED = re.compile(r"\b(?:def|class|func|function|fn)\s+([A-Za-z_]\w{2,})")
_NAMED = re.compile(r"\b(?:[a-z]+(?:_[a-z0-9]+)+|[A-Z][a-z]+(?:[A-Z]\w*)+)\b")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_PAIR = re.compile(r"(?m)\b([A-Za-z][\w-]{1,30})\s*[:=]\s*(\"[^\"\n]{1,200}\"|'[^'\n]{1,200}'|[^\s,;]{1,100})")
_FINDING = re.compile(r"(?m)^\s*(\S+?):(\d+)(?::(\d+))?:?\s+(\S.*)$")
# How the result of a background tool call enters a conversation (runtime/tickets.py): as a message of the user's.
_LATE_RESULT = re.compile(r"\[[\w-]+\] ([\w.-]+) (?:finished|failed): (.*)", re.DOTALL)
_NOTABLE = re.compile(r"(?im)^.*\b(?:TODO|FIXME|XXX|HACK|warning|error|failed|deprecated|except\s*:|eval\(|pass\s*#).*$")


def kind_of(name: str) -> str | None:
    """What kind of value a parameter of this name takes, as far as its words tell: `path`, `url`, `name` and so on."""
    words = words_of(name)
    return next((kind for word in reversed(words) for kind, known in _KINDS.items() if word in known), None)


def words_of(name: str) -> list[str]:
    """`filePaths` and `file_paths` -> `["file", "path"]`: lower case, singular."""
    words = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)
    return [_singular(word.lower()) for word in words]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@dataclass(frozen=True, slots=True)
class Mentions:
    """What one text mentions, in order of appearance."""

    kinds: Mapping[str, tuple[str, ...]]
    quoted: tuple[str, ...]
    numbers: tuple[int | float, ...]
    keyed: Mapping[str, tuple[Json, ...]]
    """Values by key (`words_of`, joined): from JSON, or `key: value` in text."""
    items: tuple[Mapping[str, Json], ...]
    """Things that look like findings: JSON objects in lists, and `file:line: message` lines."""
    notable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToolResult:
    name: str
    arguments: str
    text: str


@dataclass(slots=True)
class Facts:
    """What a conversation mentions. Built by `facts_of`."""

    request: str = ""
    """The text of the last user message."""
    asked: list[Mentions] = field(default_factory=list)
    """Of user messages, the last one first."""
    found: list[Mentions] = field(default_factory=list)
    """Of tool results, in order."""
    results: list[ToolResult] = field(default_factory=list)
    """Tool results since the last user message."""
    earlier_calls: set[tuple[str, str]] = field(default_factory=set)
    """(tool, canonical arguments) of every call in the conversation."""
    called: list[str] = field(default_factory=list)
    """Names of the tools called since the last user message, in order."""
    rounds: int = 0
    """Assistant messages with tool calls since the last user message."""

    def candidates(self, name: str) -> tuple[list[Json], list[Json]]:
        """Values that a parameter of this name could take: from what was asked, and from what tools found."""
        return _unique(_values(self.asked, name)), _unique(_values(self.found, name))

    def numbers(self) -> list[int | float]:
        return [number for mentions in self.asked[:1] for number in mentions.numbers]

    def quoted(self) -> list[str]:
        return [text for mentions in self.asked for text in mentions.quoted]

    def items(self) -> list[Mapping[str, Json]]:
        return [item for mentions in self.found for item in mentions.items]

    def notable(self) -> list[str]:
        return [line for mentions in self.found for line in mentions.notable]


def facts_of(messages: Sequence[Json]) -> Facts:
    """Read a conversation in chat form. Only its last 200 messages are looked at."""
    facts = Facts()
    calls: dict[str, tuple[str, str]] = {}
    recent = [message for message in messages[-200:] if isinstance(message, dict)]
    for message in recent:
        text = content_text(message.get("content"))
        match message.get("role"):
            case "user" if late := _LATE_RESULT.fullmatch(text):
                facts.results.append(ToolResult(late[1], "", late[2]))
                facts.found.append(mentions_of(late[2][:_SCAN_CHARS]))
            case "user":
                facts.request, facts.results, facts.called, facts.rounds = text, [], [], 0
                facts.asked.insert(0, mentions_of(text[:_SCAN_CHARS], pairs=True))
            case "assistant":
                spoken = spoken_calls(message)
                facts.rounds += 1 if spoken else 0
                for call in spoken:
                    calls[call.id] = (call.name, call.arguments)
                    facts.called.append(call.name)
                    facts.earlier_calls.add((call.name, canonical(call.arguments)))
            case "tool" | "function":
                call_id = message.get("tool_call_id")
                name, arguments = calls.get(call_id if isinstance(call_id, str) else "", ("tool", "{}"))
                facts.results.append(ToolResult(name, arguments, text))
                facts.found.append(mentions_of(text[:_SCAN_CHARS]))
    if not facts.asked:
        system = next((content_text(message.get("content")) for message in recent), "")
        facts.request, facts.asked = system, [mentions_of(system[:_SCAN_CHARS], pairs=True)]
    return facts


def canonical(arguments: str) -> str:
    """JSON text with sorted keys, so that equal arguments compare equal; other text as it is."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return arguments


@lru_cache(maxsize=512)
def mentions_of(text: str, *, pairs: bool = False) -> Mentions:
    """Read one text. Texts of a conversation come again with every turn, so the last ones are remembered.

    `pairs` looks for `key: value` in text that is not JSON: a person's words may mean it, source code in a result does not.
    """
    keyed: dict[str, list[Json]] = {}
    items: list[Mapping[str, Json]] = []
    value = _json(text)
    if value is not None:
        _walk(value, "", keyed, items)
    elif pairs:
        for match in _PAIR.finditer(text):
            keyed.setdefault(" ".join(words_of(match[1])), []).append(match[2].strip("\"'"))
    items.extend(_findings(text))
    kinds = {kind: tuple(dict.fromkeys(pattern.findall(text))) for kind, pattern in _PATTERNS.items()}
    quoted = tuple(dict.fromkeys(next(group for group in match.groups() if group) for match in _QUOTED.finditer(text)))
    placed = tuple(text for text in quoted if "/" in text and " " not in text and "://" not in text)
    for kind in ("path", "directory"):
        kinds[kind] = tuple(dict.fromkeys((*kinds[kind], *placed)))
    names = [*(quoted if value is None else ()), *_DEFINED.findall(text), *_NAMED.findall(text)]
    kinds["name"] = tuple(dict.fromkeys(name for name in names if " " not in name and "/" not in name))[:50]
    return Mentions(
        kinds=kinds,
        quoted=quoted[:50],
        numbers=tuple(float(number) if "." in number else int(number) for number in _NUMBER.findall(text)[:50]),
        keyed={key: tuple(values) for key, values in keyed.items()},
        items=tuple(items[:50]),
        notable=tuple(dict.fromkeys(line.strip() for line in _NOTABLE.findall(text)))[:20],
    )


def _findings(text: str) -> Iterable[Mapping[str, Json]]:
    """The `file:line: message` lines of a text, as linters and search tools write them."""
    for match in _FINDING.finditer(text):
        yield {"path": match[1], "line": int(match[2]), "column": int(match[3] or 1), "message": match[4].strip()}


def _json(text: str) -> Json:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _walk(value: Json, key: str, keyed: dict[str, list[Json]], items: list[Mapping[str, Json]], depth: int = 0) -> None:
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            _walk(inner, name, keyed, items, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict):
                items.append(inner)
            _walk(inner, key, keyed, items, depth + 1)
    elif value is not None:
        keyed.setdefault(" ".join(words_of(key)), []).append(value)
        if isinstance(value, str):
            items.extend(_findings(value))


def _values(texts: Iterable[Mentions], name: str) -> Iterable[Json]:
    """Values for a parameter, best first: same key, a key that shares the last word, then things of the parameter's kind."""
    words = words_of(name)
    key, kind = " ".join(words), kind_of(name)
    for mentions in texts:
        yield from mentions.keyed.get(key, ())
        for other, values in mentions.keyed.items():
            if other != key and words and other.split()[-1:] == words[-1:]:
                yield from values
    for mentions in texts if kind is not None else ():
        yield from mentions.kinds.get(kind or "", ())


def _unique(values: Iterable[Json]) -> list[Json]:
    seen: dict[str, Json] = {}
    for value in values:
        seen.setdefault(repr(value), value)
    return list(seen.values())
