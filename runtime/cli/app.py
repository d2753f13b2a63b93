"""The commands and their options. Their bodies import what they need: `fairlead --help` needs none of it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

from ...errors import FairleadError
from .exits import ExitCode, exit_code, fairlead_error

P = ParamSpec("P")

app = typer.Typer(
    help="Run agent programs - whole multi-turn workflows - durably.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage or bad input, 3 not found, 5 conflict, 6 timeout, 8 engine or database "
    "unavailable, 9 waits for a person, 130 Ctrl-C, 143 SIGTERM. Results go to standard output, progress to standard error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runs = typer.Typer(help="Look at programs, and tidy up.", no_args_is_help=True)
app.add_typer(runs, name="runs")

Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="Where programs are kept: sqlite:///file.db, postgresql://..., memory:. "
        "Default: FAIRLEAD_DB, or fairlead.db in the current folder.",
    ),
]
ENGINE_HELP = "URL of an OpenAI-compatible API, or `embedded`."
MODEL_HELP = "Model of agents that name none."
Engine = Annotated[str | None, typer.Option("--engine", envvar="FAIRLEAD_ENGINE", metavar="URL|embedded", help=ENGINE_HELP)]
Model = Annotated[str | None, typer.Option("--model", envvar="FAIRLEAD_MODEL", help=MODEL_HELP)]
# A program is resumed with what it was started with, whatever the environment says now.
OtherEngine = Annotated[str | None, typer.Option("--engine", metavar="URL|embedded", help=ENGINE_HELP)]
OtherModel = Annotated[str | None, typer.Option("--model", help=MODEL_HELP)]
ApiKeyEnv = Annotated[
    str | None, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the engine's API key.")
]
Speed = Annotated[
    float | None,
    typer.Option("--engine-speed", metavar="X", help="Embedded engine: times faster than real; left out, it answers at once."),
]
Seed = Annotated[int | None, typer.Option("--engine-seed", metavar="N", help="Embedded engine: varies what it says.")]
Script = Annotated[
    str | None, typer.Option("--engine-script", metavar="FILE", help="Embedded engine: file that dictates its replies.")
]
KvTokens = Annotated[
    int | None,
    typer.Option("--engine-kv-tokens", metavar="N", help="Size of the engine's KV cache, for scheduling; left out: no limit."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Foreground = Annotated[
    bool, typer.Option("--foreground", help="Run in this process: Ctrl-C parks the program instead of leaving it to run on.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]
ProgramId = Annotated[str, typer.Argument(metavar="ID", help="Of a program: `fairlead runs list` shows them.")]


def command(typer_app: typer.Typer, name: str) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Register a command whose function gives the exit code, and whose errors are shown without tracebacks."""

    def register(function: Callable[P, int | None]) -> Callable[P, None]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            raise typer.Exit(_guarded(functools.partial(function, *args, **kwargs), debug=bool(kwargs.get("debug"))))

        typer_app.command(name)(guarded)
        return guarded

    return register


def _guarded(function: Callable[[], int | None], *, debug: bool) -> int:
    try:
        code = function()
        sys.stdout.flush()
        return int(code or 0)
    except BrokenPipeError:
        # Whoever read our output has had enough; what is left to flush at exit has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(ExitCode.OK)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except Exception as error:
        found = fairlead_error(error)
        _say(error, found, debug)
        return int(exit_code(found or error))


def _say(error: Exception, found: FairleadError | None, debug: bool) -> None:
    import traceback

    from .execute import say_error

    message = found.message if found is not None else f"{type(error).__name__}: {error}"
    hint = found.hint if found is not None else "this is a fault in Fairlead; --debug shows where"
    say_error(message, hint, "".join(traceback.format_exception(error)) if debug else "")


def _show_version(wanted: bool) -> None:
    if wanted:
        from ... import __version__

        typer.echo(f"fairlead {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    return


@command(app, "run")
def run_workflow(
    workflow: Annotated[str, typer.Argument(metavar="MODULE:WORKFLOW|FILE.py:WORKFLOW", help="The workflow to run.")],
    input: Annotated[
        str | None, typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="Its arguments by name; - reads standard input.")
    ] = None,
    engine: Engine = None,
    model: Model = None,
    api_key_env: ApiKeyEnv = None,
    db: Db = None,
    id: Annotated[str | None, typer.Option("--id", help="Of the new program; made up if left out.")] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="On whose behalf it runs.")] = "default",
    as_json: AsJson = False,
    quiet: Quiet = False,
    foreground: Foreground = False,
    engine_speed: Speed = None,
    engine_seed: Seed = None,
    engine_script: Script = None,
    engine_kv_tokens: KvTokens = None,
    debug: Debug = False,
) -> int:
    """Run a workflow and write its result.

    The program runs in a process of its own: Ctrl-C stops watching, and it goes on. It can be resumed after anything.
    """
    from .execute import Output, execute
    from .inputs import checked_id, database, read_input
    from .jobs import Job
    from .settings import EngineSettings

    settings = EngineSettings(engine, model, api_key_env, engine_speed, engine_seed, engine_script, engine_kv_tokens).checked()
    settings.api_key()
    job = Job(database(db), settings, workflow, read_input(input), checked_id(id), tenant, watch=not quiet)
    return execute(job, Output(as_json, quiet, debug), foreground=foreground)


@command(app, "resume")
def resume_programs(
    program_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The program; may be left out when only one can be resumed.")
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Resume every program that has not ended, at the same time.")] = False,
    decide: Annotated[
        list[str] | None,
        typer.Option("--decide", metavar="ABOUT=run|fail|result:JSON", help="Answer the question of a waiting program."),
    ] = None,
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="Go on although the workflow's code changed.")
    ] = False,
    engine: OtherEngine = None,
    model: OtherModel = None,
    api_key_env: ApiKeyEnv = None,
    db: Db = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    foreground: Foreground = False,
    engine_speed: Speed = None,
    engine_seed: Seed = None,
    engine_script: Script = None,
    engine_kv_tokens: KvTokens = None,
    debug: Debug = False,
) -> int:
    """Go on with programs that crashed, were parked, wait for a person, or failed.

    What is finished is not run again. Engine and model are those the program was started with, unless given here.
    """
    from ...errors import InputError
    from .execute import Output, execute
    from .inputs import existing_database, read_decisions
    from .jobs import Job
    from .settings import EngineSettings

    if all and program_id is not None:
        raise InputError("an ID and --all exclude each other", hint="leave one of them out")
    settings = EngineSettings(engine, model, api_key_env, engine_speed, engine_seed, engine_script, engine_kv_tokens)
    decisions = read_decisions(decide or [])
    job = Job(
        existing_database(db),
        settings,
        id=program_id,
        all=all,
        decisions=decisions,
        accept_changed=accept_changed,
        watch=not quiet,
    )
    return execute(job, Output(as_json, quiet, debug), foreground=foreground)


@command(runs, "list")
def list_runs(
    state: Annotated[list[str] | None, typer.Option("--state", help="Only programs in this state; may be repeated.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only programs of this workflow.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many, newest first.")] = 30,
    db: Db = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """List programs, newest first."""
    from .inputs import existing_database
    from .runs import list_programs

    return list_programs(existing_database(db), state or [], workflow, limit, json_wanted=as_json)


@command(runs, "show")
def show_run(
    program_id: ProgramId,
    everything: Annotated[bool, typer.Option("--all", help="Show every step, however many.")] = False,
    db: Db = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Show a program: its steps with attempts, turns, tokens and tool calls, and what came of it."""
    from .execute import db_option
    from .inputs import existing_database
    from .runs import show_program

    url = existing_database(db)
    return show_program(url, program_id, everything=everything, json_wanted=as_json, db_option=db_option(url))


@command(runs, "events")
def show_run_events(
    program_id: ProgramId,
    after: Annotated[int, typer.Option("--after", metavar="N", min=0, help="Only events with a greater number.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the program ends, parks or waits for a person.")
    ] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Write one JSON document per line.")] = False,
    db: Db = None,
    debug: Debug = False,
) -> int:
    """Write the events of a program."""
    from .inputs import existing_database
    from .runs import show_events

    return show_events(existing_database(db), program_id, after=after, follow=follow, jsonl=jsonl)


@command(runs, "watch")
def watch_run(program_id: ProgramId, db: Db = None, as_json: AsJson = False, quiet: Quiet = False, debug: Debug = False) -> int:
    """Watch a program that another process runs, and write its result. Ctrl-C stops watching only."""
    from .execute import db_option
    from .inputs import existing_database
    from .runs import watch_program

    url = existing_database(db)
    return watch_program(url, program_id, quiet=quiet, json_wanted=as_json, db_option=db_option(url))


@command(runs, "graph")
def show_run_graph(
    target: Annotated[
        str, typer.Argument(metavar="ID|MODULE:WORKFLOW", help="A program, or a composing workflow that has not run.")
    ],
    input: Annotated[
        str | None, typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="Arguments of the workflow.")
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Write the Mermaid text only.")] = False,
    as_json: AsJson = False,
    db: Db = None,
    debug: Debug = False,
) -> int:
    """Draw a graph: a picture for the terminal, and Mermaid text."""
    from .drawing import show_graph
    from .inputs import existing_database, read_input

    url = None if ":" in target else existing_database(db)
    return show_graph(target, read_input(input), url, mermaid_only=mermaid, json_wanted=as_json)


@command(runs, "cancel")
def cancel_run(program_id: ProgramId, db: Db = None, debug: Debug = False) -> int:
    """Stop a program with everything it has going on, and say what was stopped."""
    from .inputs import existing_database
    from .runs import cancel_program

    return cancel_program(existing_database(db), program_id)


@command(runs, "prune")
def prune_runs(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="AGE", help="Delete programs that ended longer ago than this: 90s, 30m, 12h, 7d, 2w."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    db: Db = None,
    debug: Debug = False,
) -> int:
    """Delete programs that ended long ago, with all that belongs to them alone."""
    from .inputs import existing_database
    from .runs import prune_programs

    return prune_programs(existing_database(db), older_than, yes=yes)


@command(app, "engine")
def serve_embedded_engine(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8077,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    model: Annotated[str, typer.Option("--model", help="Name of the model it claims to serve.")] = "fairlead-embedded",
    profile: Annotated[
        str, typer.Option("--profile", help="Model and machine whose times it copies: demo, 8b-a100, 70b-tp4-a100, 8b-h100.")
    ] = "demo",
    speed: Annotated[float, typer.Option("--speed", metavar="X", help="Times faster than real; inf answers at once.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Varies what it says.")] = 0,
    script: Annotated[str | None, typer.Option("--script", metavar="FILE", help="File that dictates its replies.")] = None,
    kv_tokens: Annotated[
        int | None, typer.Option("--kv-tokens", min=16, help="Size of its KV cache, instead of the profile's.")
    ] = None,
    priority: Annotated[bool, typer.Option("--priority", help="Obey the `priority` of requests, lower first.")] = False,
    requests: Annotated[
        str | None, typer.Option("--requests", metavar="FILE", help="Log the digest of every request, here and at /requests.")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key that clients must send."),
    ] = None,
    debug: Debug = False,
) -> int:
    """Serve the embedded engine over HTTP, as vLLM would serve a model. It is not a language model."""
    from .serving import Serving, serve_engine

    return serve_engine(Serving(host, port, model, profile, speed, seed, script, kv_tokens, priority, requests, api_key_env))


@command(app, "doctor")
def examine_installation(
    db: Db = None,
    engine: Engine = None,
    model: Model = None,
    api_key_env: ApiKeyEnv = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Look at Python, packages, database and engine, and say what is broken. Changes nothing."""
    from .doctor import examine
    from .inputs import database
    from .settings import EngineSettings

    return examine(database(db), EngineSettings(engine, model, api_key_env), json_wanted=as_json)


@command(app, "simulate")
def simulate_policies(
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            metavar="FILE|NAME",
            help="Recorded programs: a file, a name in the folders of FAIRLEAD_TRACES, or swe-bench, webarena, mini-swe-agent, "
            "bfcl-web-search, known-graphs.",
        ),
    ] = None,
    journal: Annotated[
        bool, typer.Option("--journal", help="Your own past programs instead, from the database of --db.")
    ] = False,
    workflow: Annotated[str | None, typer.Option("--workflow", help="With --journal: only programs of this workflow.")] = None,
    policies: Annotated[
        str,
        typer.Option("--policy", metavar="NAME[,NAME...]", help="Schedulers to compare; NAME@N runs one on N engines."),
    ] = "vllm,fairlead",
    engines: Annotated[int, typer.Option("--engines", metavar="N", help="How many engines.")] = 1,
    hardware: Annotated[
        str, typer.Option("--hardware", metavar="PROFILE", help="Of each: 8b-a100, 70b-tp4-a100, 8b-h100, demo.")
    ] = "8b-a100",
    level: Annotated[
        str, typer.Option("--level", help="What they can do: plain (prefix cache), priority, session (keep a prefix), values.")
    ] = "plain",
    kv_tokens: Annotated[
        int | None, typer.Option("--kv-tokens", metavar="N", min=16, help="KV cache of each, instead of the profile's.")
    ] = None,
    load: Annotated[
        str | None, typer.Option("--load", metavar="X[,X...]", help="Programs per second; several give a curve.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="N", min=1, help="Programs at once: one ends, the next begins.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", metavar="H", help="With --concurrency: go on with new programs for so long.")
    ] = None,
    programs: Annotated[int | None, typer.Option("--programs", metavar="N", min=1, help="How many programs.")] = None,
    tenants: Annotated[
        str | None, typer.Option("--tenants", metavar="SPEC", help="3 for three equal ones, or heavy=3,light=1 (weights).")
    ] = None,
    scale: Annotated[float, typer.Option("--scale", metavar="X", help="Factor on the context sizes of a trace.")] = 1.0,
    context_max: Annotated[
        int | None, typer.Option("--context-max", metavar="N", min=1, help="Leave programs with longer contexts out.")
    ] = None,
    gap_cap: Annotated[
        float | None, typer.Option("--gap-cap", metavar="S", help="Longest pause between calls, in seconds.")
    ] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="Cut conversations into tasks at the messages of people.")] = False,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Repetitions, each with other programs.")] = 1,
    processes: Annotated[int, typer.Option("--processes", metavar="N", min=1, help="Seeds that run at once.")] = 1,
    exact: Annotated[bool, typer.Option("--exact", help="Bounds by linear programs too (needs scipy; slower).")] = False,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE.svg", help="Draw completion against load, or service over time for one load."),
    ] = None,
    db: Db = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Compare schedulers on recorded programs: what would another policy, or more engines, have done?"""
    from .inputs import existing_database
    from .simulate import Wish, simulate

    url = existing_database(db) if journal else None
    return simulate(
        Wish(
            trace, url, workflow, policies, engines, hardware, level, kv_tokens, load, concurrency, hours, programs, tenants,
            scale, context_max, gap_cap, tasks, seeds, processes, exact, plot, as_json,
        )
    )  # fmt: skip
