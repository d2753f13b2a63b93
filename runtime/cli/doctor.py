"""`fairlead doctor`: looks at what a program will need - Python, packages, database, engine - and changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ... import __version__
from ...encoding import Json
from ...errors import ConfigurationError, FairleadError
from .exits import ExitCode
from .inputs import MEMORY, shown_database, sqlite_path
from .looking import as_json
from .messages import DOCUMENT_VERSION
from .settings import EngineSettings
from .terminal import clean, is_live, put, wants_colour

_PACKAGES = (
    "anyio",
    "httpx2",
    "openai",
    "pydantic",
    "sqlalchemy",
    "aiosqlite",
    "alembic",
    "networkx",
    "starlette",
    "uvicorn",
    "typer",
    "rich",
)
_OPTIONAL = {"psycopg": "for PostgreSQL: pip install 'fairlead[postgres]'"}
_FREE_BYTES_MIN = 256 * 2**20
_ENGINE_WAIT_S = 5.0
_LOCK_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `ok` is None for what is only information."""

    topic: str
    ok: bool | None
    text: str
    code: int = 0
    """Exit code if it is broken."""


def examine(db: str, settings: EngineSettings, *, json_wanted: bool) -> int:
    """Look at everything and write it; the exit code of the first thing that is broken."""
    findings = [*_python(), *_database(db), *_engine(settings), *_active()]
    if json_wanted:
        documents: list[Json] = [
            {name: value for name, value in asdict(finding).items() if name != "code"} for finding in findings
        ]
        put(
            as_json(
                {"version": DOCUMENT_VERSION, "ok": all(finding.ok is not False for finding in findings), "findings": documents}
            )
        )
    else:
        for finding in findings:
            put(f"{_mark(finding.ok)} {finding.topic:9} {clean(finding.text)}")
    return next((finding.code or int(ExitCode.FAILED) for finding in findings if finding.ok is False), int(ExitCode.OK))


def _mark(ok: bool | None) -> str:
    sign, colour = {True: ("✓", 32), False: ("✗", 31), None: ("·", 2)}[ok]
    return f"\x1b[{colour}m{sign}\x1b[0m" if wants_colour(sys.stdout) else sign


def _python() -> Iterator[Finding]:
    yield Finding("fairlead", None, f"{__version__} in {Path(__file__).resolve().parents[2]}")
    recent = sys.version_info >= (3, 11)
    yield Finding(
        "python",
        recent,
        f"{platform.python_version()} ({platform.machine()}, {platform.system()}){'' if recent else ': 3.11 is needed'}",
    )
    found = {name: _version(name) for name in _PACKAGES}
    missing = [name for name, number in found.items() if number is None]
    listed = ", ".join(f"{name} {number}" for name, number in found.items() if number is not None)
    yield Finding("packages", not missing, f"missing: {', '.join(missing)}: install fairlead again" if missing else listed)
    for name, purpose in _OPTIONAL.items():
        number = _version(name)
        yield Finding("packages", None, f"{name} {number}" if number else f"{name} is not installed ({purpose})")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _database(url: str) -> Iterator[Finding]:
    if url == MEMORY:
        yield Finding("database", None, "in memory: programs end with their process and cannot be resumed")
        return
    path = sqlite_path(url)
    try:
        if path is None:
            yield from _server(url)
        elif path.exists():
            yield from _sqlite(path)
        else:
            yield from _no_sqlite_yet(path)
    except FairleadError as error:
        yield Finding(
            "database", False, f"{error.message}{f' ({error.hint})' if error.hint else ''}", int(ExitCode.UNAVAILABLE)
        )


def _no_sqlite_yet(path: Path) -> Iterator[Finding]:
    folder = next(parent for parent in (path.absolute().parent, *path.absolute().parents) if parent.exists())
    writable = os.access(folder, os.W_OK)
    text = (
        f"{path} does not exist yet; it is made by the first `fairlead run`"
        if writable
        else f"{path} cannot be made: {folder} is read-only"
    )
    yield Finding("database", writable, text, int(ExitCode.UNAVAILABLE))
    yield _disk(folder)


def _sqlite(path: Path) -> Iterator[Finding]:
    from ..store.migrations import HEAD, VERSION_TABLE

    broken = int(ExitCode.UNAVAILABLE)
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_LOCK_WAIT_S, isolation_level=None)
        ) as connection:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            has_version = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (VERSION_TABLE,)).fetchone()
            number = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() if has_version else None
            yield Finding(
                "database",
                True,
                f"SQLite {sqlite3.sqlite_version} at {path.absolute()} ({path.stat().st_size / 2**20:.1f} MiB)",
            )
            yield _schema(number[0] if number else None, HEAD)
            yield Finding("database", None, f"journal mode {mode}{'' if mode == 'wal' else ': set to wal when it is used'}")
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("CREATE TABLE fairlead_doctor (x)")
                connection.execute("ROLLBACK")
                yield Finding("database", True, "can be written")
            except sqlite3.OperationalError as error:
                yield Finding("database", False, f"cannot be written: {error}", broken)
    except sqlite3.Error as error:
        yield Finding("database", False, f"{path.absolute()} cannot be read: {error}", broken)
    yield _disk(path.absolute().parent)


def _server(url: str) -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from ..store.connecting import place_of, writing_engine
    from ..store.migrations import HEAD, current_revision

    place = place_of(url)
    engine = writing_engine(place, _LOCK_WAIT_S)
    try:
        with engine.connect() as connection:
            number = ".".join(map(str, connection.dialect.server_version_info or ()))
            yield Finding("database", True, f"PostgreSQL {number} at {place.name}")
            yield _schema(current_revision(connection), HEAD)
            read_only = connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
            yield Finding(
                "database", not read_only, "can only be read" if read_only else "can be written", int(ExitCode.UNAVAILABLE)
            )
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        yield Finding("database", False, f"{shown_database(url)} cannot be reached: {reason}", int(ExitCode.UNAVAILABLE))
    finally:
        engine.dispose()


def _schema(found: str | None, newest: str) -> Finding:
    if found is None:
        return Finding("database", None, "has no tables of Fairlead yet; the first program makes them")
    if found > newest:
        return Finding(
            "database",
            False,
            f"schema {found} is newer than this fairlead knows ({newest}): upgrade fairlead",
            int(ExitCode.UNAVAILABLE),
        )
    return Finding("database", True, f"schema {found}" + ("" if found == newest else f"; brought to {newest} when it is used"))


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    return Finding("disk", free >= _FREE_BYTES_MIN, f"{free / 2**30:.1f} GiB free at {folder}", int(ExitCode.UNAVAILABLE))


def _engine(settings: EngineSettings) -> Iterator[Finding]:
    if settings.is_embedded:
        from ..engines.embedded.engine import EmbeddedEngine

        engine = EmbeddedEngine(model=settings.model or "fairlead-embedded")
        yield Finding("engine", True, f"embedded, in process (it is not a language model); models: {', '.join(engine.models)}")
        return
    try:
        models = _models(settings)
    except FairleadError as error:
        code = ExitCode.USAGE if isinstance(error, ConfigurationError) else ExitCode.UNAVAILABLE
        yield Finding("engine", False, f"{error.message}{f' ({error.hint})' if error.hint else ''}", int(code))
        return
    yield Finding("engine", True, f"{settings.engine} answers; models: {', '.join(models) or 'none listed'}")
    if settings.model is not None and models and settings.model not in models:
        yield Finding("engine", False, f"--model {settings.model}: the engine does not list it", int(ExitCode.USAGE))


def _models(settings: EngineSettings) -> list[str]:
    """The models that an engine lists. Raises `EngineError` if it does not answer as an OpenAI-compatible API does."""
    import httpx2

    from ...errors import EngineError
    from ..engines.http import normalised_base_url

    base = normalised_base_url(settings.engine or "")
    key = settings.api_key()
    try:
        reply = httpx2.get(f"{base}/models", headers={"authorization": f"Bearer {key}"} if key else {}, timeout=_ENGINE_WAIT_S)
    except (httpx2.HTTPError, OSError) as error:
        raise EngineError(f"no answer from {base}: {error}", engine=base, hint="is it running there?") from error
    if reply.status_code in (401, 403):
        raise EngineError(
            f"refuses the key with status {reply.status_code}", engine=base, status=reply.status_code, hint="--api-key-env NAME"
        )
    try:
        listed = reply.json()["data"]
        return [str(item["id"]) for item in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{base}/models answered {reply.status_code} with something else than a list of models",
            engine=base, status=reply.status_code,
            hint="does the URL point at an OpenAI-compatible API (often it ends in /v1)?",
        ) from error  # fmt: skip


def _active() -> Iterator[Finding]:
    detaching = hasattr(os, "setsid")
    yield Finding(
        "active",
        None,
        "Ctrl-C detaches, and the program goes on" if detaching else "Ctrl-C parks programs: this system cannot detach",
    )
    yield Finding(
        "active",
        None,
        "scheduling: fair between tenants, programs with the least expected work first, with a bound on the calls in flight",
    )
    look = "a live tree" if is_live(sys.stderr) else "one line per event"
    yield Finding("active", None, f"progress is shown as {look}, {'with' if wants_colour(sys.stderr) else 'without'} colours")
