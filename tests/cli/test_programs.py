"""Programs run, watched, left, killed and resumed by real processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from .conftest import Shell

pytestmark = pytest.mark.skipif(not hasattr(os, "setsid"), reason="needs POSIX sessions")


def test_the_result_alone_is_on_stdout(shell: Shell) -> None:
    shown = shell.run("run", "flows.py:greet", "--input", "-", stdin='{"name": "Ada"}')
    assert (shown.code, shown.out) == (0, "hello Ada\n")
    assert "printed by the workflow" in shown.err
    assert "program succeeded" in shown.err
    assert "kept in fairlead.db" in shown.err


@pytest.mark.parametrize("foreground", [[], ["--foreground"]])
def test_json_is_one_document(shell: Shell, foreground: list[str]) -> None:
    shown = shell.run("run", "flows.py:totals", "--input", '{"n": 4}', "--json", "--quiet", *foreground)
    assert shown.err == ""
    document = shown.document
    assert (document["version"], document["state"], document["result"], document["error"]) == (1, "succeeded", 12, None)
    assert document["counts"] == {"steps": 5, "steps_reused": 0, "calls": 0, "calls_replayed": 0, "tools": 0, "tools_reused": 0}


def test_in_memory_nothing_is_left_behind(shell: Shell, tmp_path: Path) -> None:
    shown = shell.run("run", "flows.py:totals", "--db", "memory:")
    assert (shown.code, shown.out) == (0, "6\n")
    assert "kept in memory only" in shown.err
    assert not (tmp_path / "fairlead.db").exists()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["flows.py:fails"], 1, "error: step 'broken' failed: ValueError: no luck with 2"),
        (["flows.py:too_slow"], 6, "hard timeout of 0.05 s"),
        (["flows.py:asks", "--engine", "http://127.0.0.1:9", "--model", "m"], 8, "cannot connect"),
        (["flows.py:nothing"], 3, "workflows there: asks, fails"),
        (["flows.py:totals", "--input", '{"n": "x"}'], 2, "parameter 'n' expects int"),
        (["flows.py:totals", "--input", '{"m": 1}'], 2, "no parameter 'm'"),
        (["flows.py:totals", "--db", "/proc/nothing/x.db"], 8, "cannot be created"),
        (["flows.py:totals", "--db", "x.toml"], 2, "not a database URL"),
    ],
)
def test_failures_say_why_and_exit_with_their_code(shell: Shell, args: list[str], code: int, said: str) -> None:
    shown = shell.run("run", *([] if "--db" in args else ["--db", "memory:"]), *args, "--quiet")
    assert shown.code == code, shown.err
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_debug_shows_where(shell: Shell) -> None:
    assert 'raise ValueError(f"no luck' in shell.run("run", "flows.py:fails", "--debug", "--db", "memory:").err


def test_a_second_program_with_the_same_id_is_refused(shell: Shell) -> None:
    assert shell.run("run", "flows.py:totals", "--id", "one", "-q").code == 0
    shown = shell.run("run", "flows.py:totals", "--id", "one", "-q")
    assert shown.code == 5
    assert "there is a program 'one' already" in shown.err


def test_ctrl_c_detaches_and_the_program_goes_on(shell: Shell, tmp_path: Path) -> None:
    process = shell.start_waiting("--id", "here")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "detached: program here goes on in the background" in err
    assert "fairlead runs cancel here" in err
    assert shell.program()["condition"] == "running"
    (tmp_path / "release").touch()
    watched = shell.call("runs", "watch", "here")
    assert (watched.code, watched.out) == (0, "waited\n")


def test_a_second_ctrl_c_cancels(shell: Shell) -> None:
    process = shell.start_waiting("--id", "here")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    for line in process.stderr:
        if "detached" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped: 1 step (wait_for)" in err
    assert shell.program()["state"] == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_signals_park(shell: Shell, tmp_path: Path, number: signal.Signals) -> None:
    process = shell.start_waiting("--foreground", "--id", "here")
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "parked: program here stopped; go on with `fairlead resume here`" in err
    assert shell.program()["condition"] == "parked"
    (tmp_path / "release").touch()
    shown = shell.run("resume", "here", "--json", "-q")
    assert shown.code == 0
    counts = shown.document["counts"]
    assert isinstance(counts, dict)
    assert (counts["steps"], counts["steps_reused"]) == (1, 1)


def test_sigterm_to_the_viewer_parks(shell: Shell) -> None:
    process = shell.start_waiting()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert shell.program()["condition"] == "parked"


def test_a_killed_viewer_leaves_nothing_running(shell: Shell, tmp_path: Path) -> None:
    process = shell.start_waiting("--id", "here")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "release").touch()
    shown = shell.run("resume", "here", "-q")
    assert (shown.code, shown.out) == (0, "waited\n")


def test_a_killed_worker_is_noticed_and_resumed(shell: Shell, tmp_path: Path) -> None:
    process = shell.start_waiting("--id", "here")
    owner = str(shell.program()["owner"])
    os.kill(int(owner.split(":")[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ended by signal 9" in err
    assert "fairlead resume here" in err
    assert shell.program()["condition"] == "crashed"
    (tmp_path / "release").touch()
    shown = shell.run("resume")
    assert (shown.code, shown.out) == (0, "waited\n")


def test_a_thread_that_cannot_be_stopped_does_not_keep_the_process(shell: Shell) -> None:
    process = shell.start_waiting("--foreground", workflow="stuck")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_a_program_that_runs_elsewhere_is_not_run_twice(shell: Shell) -> None:
    shell.start_waiting("--id", "here")
    shown = shell.run("resume", "here")
    assert shown.code == 5
    assert "being run by another process" in shown.err


def test_cancel_reaches_another_process(shell: Shell) -> None:
    process = shell.start_waiting("--id", "here")
    shown = shell.call("runs", "cancel", "here")
    assert (shown.code, shown.out) == (0, "here cancelled; stopped: 1 step (wait_for)\n")
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert shell.call("runs", "cancel", "here").code == 5


def test_resume_all_resumes_everything(shell: Shell, tmp_path: Path) -> None:
    for name in ("one", "two"):
        process = shell.start_waiting("--foreground", "--id", name)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert shell.run("resume").code == 2
    (tmp_path / "release").touch()
    shown = shell.run("resume", "--all", "--json", "-q")
    programs = shown.document["programs"]
    assert isinstance(programs, list)
    assert {(program["id"], program["result"]) for program in programs} == {("one", "waited"), ("two", "waited")}
    assert "nothing to resume" in shell.run("resume", "--all").err


def test_an_unsafe_step_with_unknown_outcome_asks_and_takes_the_answer(shell: Shell) -> None:
    process = shell.start_waiting("--foreground", "--id", "here", workflow="pays")
    process.send_signal(signal.SIGKILL)
    process.wait()
    asked = shell.run("resume", "here", "-q")
    assert asked.code == 9
    assert "fairlead resume here --decide 'pay=run'" in asked.err
    assert "--decide 'pay=result:JSON'" in shell.call("runs", "show", "here").err
    shown = shell.run("resume", "here", "--decide", 'pay=result:"paid"')
    assert (shown.code, shown.out) == (0, "paid\n")


def test_changed_code_is_refused_until_accepted(shell: Shell, tmp_path: Path) -> None:
    process = shell.start_waiting("--foreground", "--id", "here")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    flows = tmp_path / "flows.py"
    flows.write_text(flows.read_text().replace('return "waited"', 'return "changed"'))
    (tmp_path / "release").touch()
    refused = shell.run("resume", "here")
    assert refused.code == 5
    assert "--accept-changed" in refused.err
    assert shell.run("resume", "here", "--accept-changed").out == "changed\n"


def test_runs_show_what_happened(shell: Shell) -> None:
    shell.run("run", "flows.py:asks", "--id", "asked", "-q")
    shell.run("run", "flows.py:fails", "--id", "failed", "-q")
    listed = shell.call("runs", "list", "--state", "failed")
    assert "failed" in listed.out
    assert "asked" not in listed.out
    shown = shell.call("runs", "show", "asked")
    assert "1 turn" in shown.out
    assert " in (" in shown.out
    assert "no luck with 2" in shell.call("runs", "show", "failed").out
    steps = shell.call("runs", "show", "asked", "--json").document["steps"]
    assert isinstance(steps, list)
    assert [step["node"] for step in steps] == ["ask"]
    events = [json.loads(line) for line in shell.call("runs", "events", "asked", "--jsonl", "--follow").out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "program.succeeded"
    assert "✗ broken" in shell.call("runs", "graph", "failed").out
    assert shell.call("runs", "show", "nobody").code == 3


def test_prune_asks_first(shell: Shell) -> None:
    shell.run("run", "flows.py:totals", "-q")
    assert shell.call("runs", "prune", "--older-than", "0s").code == 2
    assert shell.call("runs", "prune", "--older-than", "0s", "--yes").out == "deleted 1 program\n"
    assert "no programs" in shell.call("runs", "list").err


def test_a_closed_pipe_ends_quietly(shell: Shell) -> None:
    shell.run("run", "flows.py:totals", "--input", '{"n": 2000}', "--id", "many", "-q")
    process = shell.start("runs", "events", "many")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(20) == 0


@pytest.mark.parametrize(("environment", "coloured"), [({"NO_COLOR": "1"}, False), ({"FORCE_COLOR": "1"}, True), ({}, False)])
def test_colours_are_as_the_environment_says(shell: Shell, environment: dict[str, str], coloured: bool) -> None:
    assert ("\x1b[" in shell.run("run", "flows.py:fails", "--db", "memory:", **environment).err) is coloured


def test_the_embedded_engine_serves_and_is_found(shell: Shell) -> None:
    engine = shell.start("engine", "--port", "0", "--speed", "inf")
    assert engine.stdout is not None
    url = engine.stdout.readline().strip()
    assert shell.call("doctor", "--engine", url).code == 0
    shown = shell.run("run", "flows.py:asks", "--engine", url, "--model", "fairlead-embedded", "-q")
    assert shown.code == 0
    assert shown.out.strip()
    engine.send_signal(signal.SIGTERM)
    engine.communicate(timeout=20)
