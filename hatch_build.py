"""A build that refuses to leave the rooms out.

The five rooms are links in src/fairlead to the folders in the root. Where a checkout does not create links (Windows
without the setting) each is a small text file instead, and a wheel built from it would be nearly empty and yet a success.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = ("budgets", "graphs", "memory", "runtime", "tools")


class RoomsHook(BuildHookInterface[Any]):
    """Checks the rooms before any target (wheel, sdist, editable) is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raise `RuntimeError` naming every room whose Python files this build would not contain."""
        package = Path(self.root, "src", "fairlead")
        missing = [room for room in ROOMS if not (package / room / "__init__.py").is_file()]
        if missing:
            paths = ", ".join(f"src/fairlead/{room}" for room in missing)
            raise RuntimeError(
                f"{paths}: not a folder with Python files, so the build would lack it. In a checkout these are symbolic links "
                "to the folders in the root; `git config core.symlinks true` and `git checkout -- src` restore them "
                "(on Windows, turn on developer mode first)."
            )
