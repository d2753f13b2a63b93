"""The public API end to end: every test that takes `db` runs in memory and on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "sqlite"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """What `Runtime(db=...)` takes."""
    return None if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"
