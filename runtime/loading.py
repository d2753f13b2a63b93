"""Finds workflows by name: `module:workflow` or `path/to/file.py:workflow`, and remembers where a workflow came from."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..encoding import digest
from ..errors import FairleadError, NotFoundError, line_in_user_code
from ..graphs.declare import Workflow


def load_workflow(entry: str, search_path: str | None = None) -> Workflow[..., Any]:
    """The workflow that `MODULE:NAME` or `FILE.py:NAME` names; `search_path` is a folder to look for modules in as well.

    Raises `NotFoundError` saying which part does not exist and, for a wrong name, which workflows there are.
    """
    where, _, name = entry.rpartition(":")
    if not where or not name:
        raise NotFoundError(f"{entry!r} does not name a workflow", hint="write MODULE:WORKFLOW or FILE.py:WORKFLOW")
    module = _load_file(Path(where), name, search_path) if where.endswith(".py") else _load_module(where, search_path)
    found = getattr(module, name, None)
    if isinstance(found, Workflow):
        return found
    there = sorted(key for key, value in vars(module).items() if isinstance(value, Workflow))
    hint = f"workflows there: {', '.join(there)}" if there else "decorate a function there with @workflow"
    what = "is not a workflow" if found is not None else "does not exist"
    raise NotFoundError(f"{name!r} in {where} {what}", hint=hint)


def entry_of(workflow: Workflow[..., Any]) -> str:
    """Where `load_workflow` finds this workflow again; empty for one that no module holds."""
    function = workflow.function
    module = sys.modules.get(function.__module__)
    if module is None or getattr(module, function.__name__, None) is not workflow:
        return ""
    if function.__module__ == "__main__" or module.__name__ in _from_files:
        file = getattr(module, "__file__", None)
        return f"{Path(file).resolve()}:{function.__name__}" if file else ""
    return f"{function.__module__}:{function.__name__}"


_from_files: set[str] = set()
"""Names of modules that were loaded from a file given on the command line."""


def _search(*folders: str | None) -> None:
    """Let modules be found in these folders, the last first."""
    for folder in folders:
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)


def _load_file(path: Path, name: str, search_path: str | None) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint="check the path; it is relative to the current folder")
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).resolve() == path and hasattr(module, name):
            return module
    _search(str(Path.cwd()), search_path, str(path.parent))
    called = path.stem if path.stem not in sys.modules else f"{path.stem}_{digest(str(path).encode())[:8]}"
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    _from_files.add(called)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[called]
        _from_files.discard(called)
        if isinstance(error, FairleadError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _not_loaded(str(path), error) from error
    return module


def _load_module(name: str, search_path: str | None) -> ModuleType:
    _search(search_path, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise NotFoundError(
                f"there is no module {error.name!r}", hint="run from the folder that holds it, or give a file: FILE.py:WORKFLOW"
            ) from error
        raise NotFoundError(f"module {name!r} needs {error.name!r}, which is not installed") from error
    except FairleadError:
        raise
    except (Exception, SystemExit) as error:
        raise _not_loaded(f"module {name!r}", error) from error


def _not_loaded(what: str, error: BaseException) -> NotFoundError:
    """The error for code that fails while it is loaded."""
    return NotFoundError(f"{what} cannot be loaded: {type(error).__name__}: {error}{line_in_user_code(error)}")
