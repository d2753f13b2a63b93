"""The command line: `fairlead run`, `resume`, `runs`, `engine`, `doctor`, `simulate`.

Light to import: typer comes with `main`, everything else with the command that needs it.
"""

from __future__ import annotations


def main() -> None:
    """The entry point of the `fairlead` command."""
    from .app import app
    from .terminal import open_standard_streams

    open_standard_streams()
    app(prog_name="fairlead")
