"""A text that matches a regular expression: for schemas that ask for a `pattern`, which no text of a conversation may have."""

from __future__ import annotations

import re
import string

_ESCAPES = {
    "d": "0",
    "w": "a",
    "s": " ",
    "D": "a",
    "W": "-",
    "S": "a",
    "b": "",
    "B": "",
    "A": "",
    "Z": "",
    "n": "\n",
    "t": "\t",
}


_TYPICAL = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation + " "


def example_of(pattern: str) -> str:
    """A short text that matches a regular expression of the simple kind that schemas use.

    Literals, classes, groups, alternation (the first branch) and quantifiers (the fewest repeats); no look-around.
    """
    text, _ = _branch(pattern, 0)
    return text


def _branch(pattern: str, at: int) -> tuple[str, int]:
    """The first alternative from `at`, and where its group or the pattern ends."""
    out: list[str] = []
    first: str | None = None
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            first = "".join(out) if first is None else first
            out, at = [], at + 1
            continue
        atom, at = _atom(pattern, at)
        times, at = _repeats(pattern, at)
        out.append(atom * times)
    return ("".join(out) if first is None else first), at


def _atom(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at]
    if char in "^$":
        return "", at + 1
    if char == ".":
        return "a", at + 1
    if char == "\\":
        return _ESCAPES.get(pattern[at + 1 : at + 2], pattern[at + 1 : at + 2]), at + 2
    if char == "[":
        return _class(pattern, at + 1)
    if char == "(":
        start = re.compile(r"\?(?:P<\w+>|<\w+>|:)").match(pattern, at + 1)
        text, end = _branch(pattern, start.end() if start else at + 1)
        return text, end + 1
    return char, at + 1


def _class(pattern: str, at: int) -> tuple[str, int]:
    end = pattern.find("]", at + 1)
    end = len(pattern) if end < 0 else end
    while end < len(pattern) and pattern[end - 1] == "\\" and pattern[end - 2] != "\\":
        end = pattern.find("]", end + 1) if "]" in pattern[end + 1 :] else len(pattern)
    allowed = re.compile(f"[{pattern[at:end]}]")
    return next((char for char in _TYPICAL if allowed.match(char)), "a"), end + 1


def _repeats(pattern: str, at: int) -> tuple[int, int]:
    match = re.compile(r"\{(\d*)(?:,\d*)?\}\??|[*+?]\??").match(pattern, at)
    if match is None:
        return 1, at
    if match[0][0] == "{":
        return int(match[1] or 0), match.end()
    return (1 if match[0][0] == "+" else 0), match.end()
