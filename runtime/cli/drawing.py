"""`fairlead runs graph`: the graph of a program, as far as it has got, or of a workflow that has not run."""

from __future__ import annotations

import shutil
import sys

import anyio

from ...encoding import Json
from ...errors import InputError, NotFoundError
from ...graphs.compose import compose
from ...graphs.draw import Drawing, Spot, mermaid, picture, recorded
from ..loading import load_workflow
from ..states import ENDED
from .exits import ExitCode
from .looking import as_json, history_of, opened, value_of
from .messages import DOCUMENT_VERSION
from .terminal import PIPE_WIDTH, put


def show_graph(target: str, arguments: dict[str, Json], db: str | None, *, mermaid_only: bool, json_wanted: bool) -> int:
    """Write the graph of a program (with `db`) or of a workflow."""
    drawing = _of_workflow(target, arguments) if db is None else anyio.run(_of_program, db, target)
    if json_wanted:
        put(as_json(_document(drawing)))
    elif mermaid_only:
        put(mermaid(drawing))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
        put(picture(drawing, width))
        put("")
        put(mermaid(drawing))
    return ExitCode.OK


def _of_workflow(entry: str, arguments: dict[str, Json]) -> Drawing:
    workflow = load_workflow(entry)
    try:
        checked = workflow.signature.read_json(arguments)
    except InputError as error:
        raise InputError(
            error.message, hint=error.hint or "the graph depends on the arguments: give them with --input"
        ) from error
    return Drawing.of(compose(workflow, checked))


async def _of_program(db: str, program_id: str) -> Drawing:
    """What the journal recorded, and for a declared graph that has not ended also what is still to come."""
    async with opened(db) as journal:
        history = await history_of(journal, program_id)
    rows = {
        step.node: Spot(step.node, step.node, step.kind, _names(value_of(step.needs)), step.parent or None, step.state)
        for step in history.steps
    }
    if history.program.state not in ENDED and history.program.entry:
        for spot in _to_come(history.program.entry, history.program.input, history.program.options):
            rows.setdefault(spot.id, spot)
    return recorded(history.program.workflow, rows.values())


def _to_come(entry: str, input_text: str, options_text: str) -> tuple[Spot, ...]:
    """The declared graph of a program's workflow, if it is still there and has one."""
    from dataclasses import replace

    options, arguments = value_of(options_text), value_of(input_text)
    folder = options.get("search_path") if isinstance(options, dict) else None
    try:
        workflow = load_workflow(entry, folder if isinstance(folder, str) else None)
    except NotFoundError:
        return ()
    if not workflow.composes or not isinstance(arguments, dict):
        return ()
    return tuple(
        replace(spot, state="pending") for spot in Drawing.of(compose(workflow, workflow.signature.read_json(arguments))).spots
    )


def _names(value: Json) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _document(drawing: Drawing) -> dict[str, Json]:
    nodes: list[Json] = [
        {
            "id": spot.id,
            "kind": spot.kind,
            "needs": [*spot.needs],
            "parent": spot.parent,
            "state": spot.state,
            "critical": spot.id in drawing.critical,
        }
        for spot in drawing.spots
    ]
    return {"version": DOCUMENT_VERSION, "workflow": drawing.title, "nodes": nodes}
