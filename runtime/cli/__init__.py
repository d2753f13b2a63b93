"""The command line: `fairlead run`, `resume`, `runs`, `engine`, `doctor`.

Light to import: typer comes with `main`, everything else with the command that needs it.
"""

from __future__ import annotations


def main() -> None:
    """The entry point of the `fairlead` command."""
    from .app import app

    app(prog_name="fairlead")
