"""Reads what is written on the command line: JSON input, decisions, ages, databases. Nothing is started here."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ...encoding import Json
from ...errors import InputError, NotFoundError

DEFAULT_DB = "sqlite:///fairlead.db"
"""Where programs are kept unless `--db` or FAIRLEAD_DB says otherwise: a file in the current folder."""

MEMORY = "memory:"

_AGE_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def read_input(text: str | None) -> dict[str, Json]:
    """The arguments in `--input`: JSON, `@file`, or `-` for standard input. Raises `InputError` saying where it is wrong."""
    if text is None:
        return {}
    if text == "-":
        return _object_of(sys.stdin.read(), "standard input")
    if text.startswith("@"):
        path = Path(text[1:]).expanduser()
        try:
            return _object_of(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--input: {path} cannot be read: {_reason(error)}", hint="check the path after the @") from error
    return _object_of(text, "--input")


def read_decisions(texts: Sequence[str]) -> dict[str, tuple[str, Json]]:
    """`ABOUT=run`, `ABOUT=fail` and `ABOUT=result:JSON` by what they are about. Raises `InputError`."""
    decisions: dict[str, tuple[str, Json]] = {}
    for text in texts:
        # What a question is about may hold an equals sign (a key of a step); an action and its colon do not.
        found = re.fullmatch(r"(.+?)=(run|fail|result:.*)", text, re.DOTALL)
        if found is None:
            raise InputError(
                f"--decide {text!r} is not a decision",
                hint="write ABOUT=run, ABOUT=fail or ABOUT=result:JSON (quoted for the shell)",
            )
        about, decision = found.groups()
        action, _, data = decision.partition(":")
        decisions[about] = (action, parse_json(data, f"--decide {about}=result") if action == "result" else None)
    return decisions


def read_age(text: str) -> float:
    """Seconds of an age like `7d`, `12h`, `30m`, `90s`, `2w`. Raises `InputError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip().lower())
    if found is None:
        raise InputError(f"{text!r} is not an age", hint="write a number and a unit: 90s, 30m, 12h, 7d, 2w")
    return float(found[1]) * _AGE_UNITS_S[found[2]]


def database(given: str | None) -> str:
    """The database to use: the option, else FAIRLEAD_DB, else a file in the current folder."""
    return given or os.environ.get("FAIRLEAD_DB") or DEFAULT_DB


def existing_database(given: str | None) -> str:
    """The same, for commands that only look: raises `NotFoundError` instead of letting an empty file be made."""
    url = database(given)
    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise NotFoundError(
            f"there is no database {path}",
            hint="go to the folder in which `fairlead run` was used, or name it: --db, or FAIRLEAD_DB",
        )
    if url == MEMORY:
        raise InputError("a database in memory ends with its process: there is nothing to look at", hint="name another: --db")
    return url


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite database, or None for another kind."""
    if url.startswith("sqlite") and ":///" in url:
        return Path(url.partition(":///")[2].partition("?")[0])
    return Path(url).expanduser() if "://" not in url and url != MEMORY else None


def shown_database(url: str) -> str:
    """A database as people may see it: without a password."""
    path = sqlite_path(url)
    return str(path) if path is not None else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def parse_json(text: str, place: str) -> Json:
    """The value of JSON text. Raises `InputError` with the line, the column and the text around it."""
    try:
        value: Json = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        before, after = error.doc[: error.pos][-24:].lstrip("\n"), error.doc[error.pos :][:16]
        near = f"{before}»{after}".splitlines()
        shown = next((line for line in near if "»" in line), "»")
        raise InputError(
            f"{place} is not JSON: {error.msg} at line {error.lineno}, column {error.colno} (at »: {shown})",
            hint='names and texts in double quotes, the whole in single quotes for the shell: \'{"path": "src"}\'',
        ) from error
    except RecursionError as error:
        raise InputError(f"{place} cannot be read: it is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    return value


def _object_of(text: str, place: str) -> dict[str, Json]:
    value = parse_json(text, place)
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}.get(type(value), "a number")
        raise InputError(
            f"{place} is {kind}; the input of a workflow is an object", hint='write the arguments by name: {"name": value}'
        )
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"


def checked_id(text: str | None) -> str | None:
    """An identifier for a new program. Raises `InputError` for one that could not be used in a command or a path."""
    if text is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", text):
        raise InputError(f"--id {text!r}: an id has up to 100 letters, digits, - and _, and begins with a letter or digit")
    return text
