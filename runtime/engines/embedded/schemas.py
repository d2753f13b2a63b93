"""Values that fit a JSON schema, taken from the conversation where it has something that fits.

Covers what tools and structured outputs use: types and unions, `enum`, `const`, `default`, `anyOf`/`oneOf`/`allOf`, `$ref`,
required properties, array and string lengths, formats, patterns, numeric bounds. A recursive schema ends at its first way out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ....encoding import Json
from .facts import Facts, kind_of, words_of
from .patterns import example_of
from .requests import Schema

_DEPTH_MAX = 12
_NESTING_MAX = 40
_ITEMS_MAX = 5
_BOUND_MAX = 10_000
"""Lengths and counts that a schema asks for are obeyed up to here."""
_PROSE = frozenset(
    [
        "summary",
        "text",
        "message",
        "description",
        "title",
        "detail",
        "reason",
        "explanation",
        "answer",
        "content",
        "comment",
        "note",
    ]
)
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_SYNONYMS = {"file": "path", "filename": "path"} | dict.fromkeys(("text", "title", "description", "detail"), "message")


@dataclass(frozen=True, slots=True)
class Filled:
    """A value, and whether the conversation gave it (a required value that had to be made up makes this False)."""

    value: Json
    known: bool


class Filler:
    """Fills schemas from one conversation. `prose` is offered, in order, where free text is wanted; `root` resolves `$ref`."""

    def __init__(self, facts: Facts, root: Schema, prose: Sequence[str] = (), item: Mapping[str, Json] | None = None) -> None:
        self._facts = facts
        self._root = root
        self._prose = [text for text in prose if text] or [facts.request or "embedded engine"]
        self._item = item or {}

    def fill(self, schema: Json, name: str = "", depth: int = 0) -> Filled:
        """A value that fits `schema`, for a parameter or property called `name`."""
        if depth > _NESTING_MAX:
            return Filled(None, False)  # a schema that never ends has no value that fits
        node = self._resolve(schema)
        if "const" in node:
            return Filled(node["const"], True)
        if isinstance(options := node.get("enum"), list) and options:
            return self._choose(options, node, name)
        for union in ("anyOf", "oneOf"):
            if isinstance(branches := node.get(union), list) and branches:
                return self._fill_union(branches, name, depth)
        match _type_of(node):
            case "object":
                return self._fill_object(node, depth)
            case "array":
                return self._fill_array(node, name, depth)
            case "integer" | "number" as kind:
                return self._fill_number(node, name, kind == "integer")
            case "boolean":
                return self._fill_boolean(node, name)
            case "null":
                return Filled(None, True)
            case _:
                return self._fill_string(node, name)

    def _resolve(self, schema: Json) -> Schema:
        """The schema with `$ref` followed and `allOf` merged."""
        node: Schema = schema if isinstance(schema, dict) else {}
        for _ in range(_DEPTH_MAX):
            reference = node.get("$ref")
            if not isinstance(reference, str):
                break
            target = _lookup(self._root, reference)
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        if isinstance(parts := node.get("allOf"), list):
            node = {key: value for key, value in node.items() if key != "allOf"}
            for part in parts:
                node = _merge(node, self._resolve(part))
        return node

    def _choose(self, options: list[Json], node: Schema, name: str) -> Filled:
        given = self._given(name)
        for option in options:
            if any(_same_word(option, value) for value in given):
                return Filled(option, True)
        if "default" in node:
            return Filled(node["default"], True)
        request = self._facts.request.lower()
        for option in options:
            if isinstance(option, str) and re.search(rf"\b{re.escape(option.lower())}\b", request):
                return Filled(option, True)
        return Filled(options[0], True)

    def _fill_union(self, branches: list[Json], name: str, depth: int) -> Filled:
        real = [branch for branch in branches if _type_of(self._resolve(branch)) != "null"]
        if len(real) < len(branches) and (depth >= _DEPTH_MAX // 2 or not real):
            return Filled(None, True)
        scalars = [branch for branch in real if _type_of(self._resolve(branch)) not in ("object", "array")]
        return self.fill((scalars or real or branches)[0] if depth >= _DEPTH_MAX // 2 else real[0], name, depth + 1)

    def _fill_object(self, node: Schema, depth: int) -> Filled:
        properties = node.get("properties")
        required = node.get("required")
        names = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
        value: dict[str, Json] = {}
        known = True
        for key, inner in (properties if isinstance(properties, dict) else {}).items():
            if key in names:
                filled = self.fill(inner, key, depth + 1)
                value[key] = filled.value
                known = known and filled.known
            elif depth == 0 and self._given(key):
                filled = self.fill(inner, key, depth + 1)
                if filled.known:
                    value[key] = filled.value
        for key in names:
            if key not in value:
                value[key] = self.fill(node.get("additionalProperties"), key, depth + 1).value
        while len(value) < _bound(node, "minProperties", 0):
            value[f"key_{len(value) + 1}"] = self.fill(node.get("additionalProperties"), "value", depth + 1).value
        return Filled(value, known)

    def _fill_array(self, node: Schema, name: str, depth: int) -> Filled:
        low, high = _bound(node, "minItems", 0), _bound(node, "maxItems", _ITEMS_MAX)
        if isinstance(fixed := node.get("prefixItems"), list):
            return Filled([self.fill(inner, name, depth + 1).value for inner in fixed], True)
        items = node.get("items")
        if depth >= _DEPTH_MAX:
            return Filled([], low == 0)
        values = list(self._array_values(items, name, depth, max(low, min(high, _ITEMS_MAX))))
        known = bool(values)
        if node.get("uniqueItems") is True:
            values = list({repr(value): value for value in values}.values())
        while len(values) < max(low, 1 if depth < 3 and high > 0 else 0):
            values.append(self._distinct(items, name, depth, values if node.get("uniqueItems") is True else []))
        return Filled(values[: max(high, low)], known)

    def _array_values(self, items: Json, name: str, depth: int, limit: int) -> Iterator[Json]:
        node = self._resolve(items)
        if _type_of(node) == "object":
            properties = node.get("properties")
            wanted = {_key(key) for key in properties} if isinstance(properties, dict) else set()
            found = [item for item in self._facts.items() if wanted & {_key(key) for key in item}]
            notable: list[Mapping[str, Json]] = [{"message": line} for line in self._facts.notable()]
            for item in (found or notable)[:limit]:
                yield Filler(self._facts, self._root, self._prose, item).fill(node, name, depth + 1).value
            return
        count = 0
        for value in self._given(name):
            if count < limit and _fits(node, value):
                count += 1
                yield value
        if count == 0 and _type_of(node) == "string" and kind_of(name) is None:
            lines = self._facts.notable() or self._prose
            yield from (_sized(node, line) for line in lines[: min(limit, 3)])

    def _distinct(self, items: Json, name: str, depth: int, taken: list[Json]) -> Json:
        value = self.fill(items, name, depth + 1).value
        step = 0
        while value in taken and step < 1000:
            step += 1
            value = f"{name or 'item'} {step}" if isinstance(value, str) else step if isinstance(value, int | float) else [step]
        return value

    def _fill_number(self, node: Schema, name: str, whole: bool) -> Filled:
        for value in self._given(name):
            number = _number(value)
            if number is not None and (not whole or number == int(number)) and _in_bounds(node, number):
                return Filled(int(number) if whole else number, True)
        if "default" in node:
            return Filled(node["default"], True)
        for asked in self._facts.numbers() if not self._item else ():
            if (not whole or asked == int(asked)) and _in_bounds(node, asked):
                return Filled(int(asked) if whole else asked, True)
        # A number is always at hand; that alone is no reason to leave a tool uncalled.
        return Filled(_smallest(node, whole), True)

    def _fill_boolean(self, node: Schema, name: str) -> Filled:
        for value in self._given(name):
            if isinstance(value, bool):
                return Filled(value, True)
            if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
                return Filled(value.lower() in ("true", "yes"), True)
        default = node.get("default", False)
        return Filled(default if isinstance(default, bool) else False, True)

    def _fill_string(self, node: Schema, name: str) -> Filled:
        for value in self._given(name):
            if isinstance(value, str | int | float) and not isinstance(value, bool) and _fits(node, str(value)):
                return Filled(str(value), True)
        if "default" in node:
            return Filled(node["default"], True)
        if isinstance(form := node.get("format"), str) and form in _FORMATS:
            return Filled(_FORMATS[form], False)
        if not set(words_of(name)) & _PROSE:
            for text in self._facts.quoted() if kind_of(name) in (None, "name") else ():
                if _fits(node, text):
                    return Filled(text, True)
        free = self._prose[0] if set(words_of(name)) & _PROSE else _phrase(self._prose[0])
        return Filled(_sized(node, free), False)

    def _given(self, name: str) -> list[Json]:
        """What the conversation has for this name: the item being described first, then what was asked, then what was found."""
        for key in (_key(name), _SYNONYMS.get(_key(name), "")):
            for other, value in self._item.items():
                if key and _key(other) == key and value is not None:
                    return [value]
        asked, found = self._facts.candidates(name)
        return [*asked, *found]


def _type_of(node: Schema) -> str:
    kind = node.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if isinstance(one, str) and one != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in node else "array" if "items" in node else "string"


def _lookup(root: Schema, reference: str) -> Schema:
    node: Json = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _merge(left: Schema, right: Schema) -> Schema:
    merged = {**left, **right}
    for key in ("properties", "required"):
        a, b = left.get(key), right.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            merged[key] = {**a, **b}
        elif isinstance(a, list) and isinstance(b, list):
            merged[key] = [*a, *(item for item in b if item not in a)]
    return merged


def _key(name: str) -> str:
    return " ".join(words_of(name))


def _same_word(option: Json, value: Json) -> bool:
    if isinstance(option, str) and isinstance(value, str):
        return option.lower() == value.lower()
    return option == value and type(option) is type(value)


def _bound(node: Schema, key: str, default: int) -> int:
    value = node.get(key)
    return min(value, _BOUND_MAX) if isinstance(value, int) and value >= 0 else default


def _number(value: Json) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _limits(node: Schema) -> tuple[float, float, bool, bool]:
    """Lowest, highest, and whether each is excluded."""
    low, high = _number(node.get("minimum")), _number(node.get("maximum"))
    above, below = _number(node.get("exclusiveMinimum")), _number(node.get("exclusiveMaximum"))
    return (
        -math.inf if low is None and above is None else max(x for x in (low, above) if x is not None),
        math.inf if high is None and below is None else min(x for x in (high, below) if x is not None),
        above is not None and (low is None or above >= low),
        below is not None and (high is None or below <= high),
    )


def _in_bounds(node: Schema, number: int | float) -> bool:
    low, high, above, below = _limits(node)
    step = _number(node.get("multipleOf"))
    on_grid = not step or math.isclose(number / step, round(number / step), abs_tol=1e-9)
    return (number > low if above else number >= low) and (number < high if below else number <= high) and on_grid


def _smallest(node: Schema, whole: bool) -> int | float:
    """A number in the bounds: 1 or 0 if they are, else next to a bound."""
    low, high, _, _ = _limits(node)
    step = _number(node.get("multipleOf")) or (1 if whole else 0)
    options: list[int | float] = [1, 0, step]
    if math.isfinite(low):
        base = math.floor(low / step) * step if step else low
        options += (
            [base, base + step, base + 2 * step] if step else [low, low + 1, *([(low + high) / 2] if high < math.inf else [])]
        )
    elif math.isfinite(high):
        base = math.ceil(high / step) * step if step else high
        options += [base, base - step, base - 2 * step] if step else [high, high - 1]
    for number in options:
        if _in_bounds(node, number) and (not whole or number == int(number)):
            return int(number) if whole else number
    return 1


def _fits(node: Schema, value: Json) -> bool:
    """Whether a value found in the conversation may stand for this (scalar) schema."""
    kind = _type_of(node)
    if kind in ("integer", "number"):
        return isinstance(value, int | float) and not isinstance(value, bool) and _in_bounds(node, value)
    if kind == "boolean":
        return isinstance(value, bool)
    if not isinstance(value, str) or not _bound(node, "minLength", 0) <= len(value) <= _bound(node, "maxLength", 10_000):
        return False
    if isinstance(options := node.get("enum"), list) and value not in options:
        return False
    if isinstance(form := node.get("format"), str) and form in _CHECKS and not _CHECKS[form].fullmatch(value):
        return False
    return _matches(node, value)


_CHECKS = {
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "time": re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)?"),
    "duration": re.compile(r"P(?=.)(\d+[YMWD])*(T(\d+[HMS])+)?"),
    "email": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"),
    "uri": re.compile(r"[a-z][a-z0-9+.-]*://\S+"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "hostname": re.compile(r"[\w.-]+"),
    "ipv4": re.compile(r"\d{1,3}(\.\d{1,3}){3}"),
    "ipv6": re.compile(r"[0-9a-fA-F:]+:[0-9a-fA-F:]*"),
}


def _matches(node: Schema, value: str) -> bool:
    pattern = node.get("pattern")
    if not isinstance(pattern, str):
        return True
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True


def _phrase(text: str) -> str:
    """The first few words: for a free parameter such as a query."""
    return " ".join(text.split()[:8]).rstrip(".,;:!?") or "embedded engine"


def _sized(node: Schema, text: str) -> str:
    """The text cut or padded to the schema's lengths; a text that misses its pattern is replaced by one made from it."""
    if not _matches(node, text):
        text = example_of(str(node["pattern"]))
    low, high = _bound(node, "minLength", 0), _bound(node, "maxLength", 2_000)
    if len(text) > high:
        text = text[:high].rstrip() if len(text[:high].rstrip()) >= low else text[:high]
    while len(text) < low:
        text += (text or ".")[: low - len(text)]
    return text
