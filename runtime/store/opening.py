"""Opening a journal by URL. Light to import: the SQL journal is imported only when a database is wanted."""

from __future__ import annotations

from .journal import Journal
from .memory import MemoryJournal


async def open_journal(url: str | None) -> Journal:
    """The journal at a URL, connected and with its schema up to date. The caller closes it.

    None and `memory:` mean memory; otherwise `sqlite:///path`, a path that ends in `.db`, or `postgresql://user@host/name`.
    Raises `ConfigurationError` for anything else, and `StoreError` if the database cannot be used.
    """
    if url is None or url == "memory:":
        return MemoryJournal()
    from .connecting import place_of
    from .sql import SqlJournal

    return await SqlJournal.open(place_of(url))
