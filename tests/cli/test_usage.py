"""Parsing, bad input and exit codes: what goes wrong before anything runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairlead.errors import (
    ConflictError,
    EngineError,
    InputError,
    NotFoundError,
    PersonNeededError,
    ProgramStoppedError,
    StepFailedError,
    StepTimeoutError,
    StoreError,
)
from fairlead.runtime.cli.exits import ExitCode, exit_code, fairlead_error
from fairlead.runtime.cli.inputs import parse_json, read_age, read_decisions
from fairlead.runtime.cli.settings import EngineSettings

from .conftest import Shell


def test_help_lists_the_commands_and_exit_codes(shell: Shell) -> None:
    shown = shell.call("--help")
    assert shown.code == 0
    for word in ("run", "resume", "runs", "engine", "doctor", "130 Ctrl-C"):
        assert word in shown.out


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom fairlead.runtime.cli import main\nsys.argv = ['fairlead', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('pydantic', 'sqlalchemy', 'openai', 'anyio', 'httpx2')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    best = 99.0
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - began)
    assert done.stderr.strip() == "[]"
    assert best < 0.6  # 0.3 s on an idle machine; this one runs other tests as well


def test_version(shell: Shell) -> None:
    assert shell.call("--version").out.startswith("fairlead 0.")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["run"], 2, "Missing argument"),
        (["run", "flows.py:totals", "--input", '{"n": 2,}'], 2, "line 1, column 9"),
        (["run", "flows.py:totals", "--input", "[1]"], 2, "is a list"),
        (["run", "flows.py:totals", "--input", '{"n": NaN}'], 2, "NaN is not a JSON value"),
        (["run", "flows.py:totals", "--input", "@nothing.json"], 2, "nothing.json cannot be read"),
        (["run", "flows.py:totals", "--id", "../x"], 2, "--id"),
        (["run", "flows.py:totals", "--engine", "ftp://x", "--foreground"], 2, "not an http or https URL"),
        (["run", "flows.py:totals", "--engine-speed", "0"], 2, "must be more than 0"),
        (["run", "flows.py:totals", "--engine", "http://x", "--engine-seed", "1"], 2, "embedded engine"),
        (["run", "flows.py:totals", "--engine", "http://x", "--api-key-env", "NO_SUCH_KEY"], 2, "NO_SUCH_KEY"),
        (["resume", "x", "--all"], 2, "exclude each other"),
        (["resume"], 3, "there is no database"),
        (["runs", "list"], 3, "there is no database"),
        (["runs", "list", "--db", "memory:"], 2, "in memory"),
        (["runs", "graph", "flows.py:greet", "--input", '{"name": "x"}'], 2, "async def"),
        (["runs", "graph", "flows.py:nothing"], 3, "workflows there: asks, fails"),
        (["runs", "prune", "--older-than", "soon"], 3, "there is no database"),
        (["engine", "--host", "0.0.0.0"], 2, "no API key"),
        (["engine", "--profile", "toaster"], 2, "profiles: "),
        (["engine", "--speed", "-1"], 2, "must be more than 0"),
    ],
)  # fmt: skip
def test_bad_input_names_what_is_wrong(shell: Shell, args: list[str], code: int, said: str) -> None:
    shown = shell.call(*args)
    assert shown.code == code, shown.err
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("text", ["about", "about=maybe", "=run", "about=result"])
def test_a_decision_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_decisions([text])


def test_decisions_may_be_about_anything() -> None:
    read = read_decisions(["pay[a=b]=run", 'review:1:2=result:{"ok": "x=run"}', "a=fail"])
    assert read == {"pay[a=b]": ("run", None), "review:1:2": ("result", {"ok": "x=run"}), "a": ("fail", None)}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("7d", 604800), ("2W", 1209600)])
def test_ages(text: str, seconds: float) -> None:
    assert read_age(text) == seconds


def test_the_place_of_a_json_error_is_shown() -> None:
    with pytest.raises(InputError, match=r'line 2, column 7 \(at »:  "b": »}'):
        parse_json('{"a": 1,\n "b": }', "--input")


def _failed_by(cause: BaseException) -> StepFailedError:
    error = StepFailedError("s", "x")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), ExitCode.USAGE),
        (NotFoundError("x"), ExitCode.NOT_FOUND),
        (ConflictError("x"), ExitCode.CONFLICT),
        (StoreError("x"), ExitCode.UNAVAILABLE),
        (EngineError("x", engine="e"), ExitCode.UNAVAILABLE),
        (EngineError("x", engine="e", status=503), ExitCode.UNAVAILABLE),
        (EngineError("x", engine="e", status=400), ExitCode.FAILED),
        (_failed_by(_failed_by(EngineError("x", engine="e"))), ExitCode.UNAVAILABLE),
        (_failed_by(StepTimeoutError("s", "hard", 1)), ExitCode.TIMEOUT),
        (_failed_by(InputError("x")), ExitCode.FAILED),
        (ProgramStoppedError("p", "timed_out", "x", {}), ExitCode.TIMEOUT),
        (ProgramStoppedError("p", "cancelled", "x", {}), ExitCode.FAILED),
        (PersonNeededError("p", {}), ExitCode.PERSON),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ZeroDivisionError(), ExitCode.FAILED),
    ],
)
def test_exit_codes(error: BaseException, code: ExitCode) -> None:
    assert exit_code(error) is code


def test_an_error_of_ours_is_found_in_groups() -> None:
    inner = StoreError("x")
    assert fairlead_error(ExceptionGroup("a", [ValueError(), ExceptionGroup("b", [inner])])) is inner
    assert fairlead_error(ValueError()) is None


def test_a_resumed_program_keeps_its_engine_unless_another_is_named() -> None:
    started = EngineSettings("http://a/v1", "m", "KEY").as_options()
    assert EngineSettings().over(started) == EngineSettings("http://a/v1", "m", "KEY")
    assert EngineSettings(model="n").over(started) == EngineSettings("http://a/v1", "n", "KEY")
    assert EngineSettings(engine="embedded").over(started) == EngineSettings("embedded")


def test_an_api_key_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret")
    settings = EngineSettings("http://a/v1", api_key_env="KEY")
    assert settings.api_key() == "secret"
    assert "secret" not in str(settings.as_options())


def test_doctor_finds_what_is_broken(shell: Shell, tmp_path: Path) -> None:
    assert shell.call("doctor").code == 0
    (tmp_path / "broken.db").write_bytes(b"this is no database" * 100)
    shown = shell.call("doctor", "--db", "broken.db", "--json")
    assert shown.code == 8
    assert shown.document["ok"] is False
    assert shell.call("doctor", "--engine", "http://127.0.0.1:9").code == 8
    assert not (tmp_path / "fairlead.db").exists()
