"""The durable record of programs: its port, its records, and the journals in memory and in SQL databases."""

from .journal import Journal
from .memory import MemoryJournal
from .opening import open_journal

__all__ = ["Journal", "MemoryJournal", "open_journal"]
