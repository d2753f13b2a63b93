"""What holds for all tests: asyncio is the backend, and Hypothesis does not judge by the clock of a busy machine."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.postgres import postgres_server, postgres_url

__all__ = ["anyio_backend", "postgres_server", "postgres_url"]

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
