"""The journal's tables: one per kind of record, one column per field of the record, in the record's order; and two between
processes, which are no records: when each owner of programs last said that it lives, and what is asked of owners.

A row belongs to a tenant through its program. Parts and links belong to whoever refers to them; `used_at` (the only column
that is no field) says when they were last stored, so that pruning spares what a running program is about to refer to.
There are no foreign keys: records arrive in batches in the order of the journal, and pruning deletes by set.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()


def _effect_key() -> list[Column[str] | Column[int] | Column[bool]]:
    """What names a call, tool call or observation: its program, its step's attempt and its position in that."""
    return [
        Column("program_id", Text, primary_key=True),
        Column("node", Text, primary_key=True),
        Column("attempt", Integer, primary_key=True, autoincrement=False),
        Column("ordinal", Integer, primary_key=True, autoincrement=False),
        Column("overlapped", Boolean, nullable=False),
    ]


programs = Table(
    "programs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("entry", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("parent_id", Text),
    Column("parent_node", Text),
    Column("root_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("waiting_for", Text),
    Column("input", Text, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("options", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("owner", Text),
    Column("owner_seen_at", Double),
    Index("programs_by_parent", "parent_id", "created_at"),
    Index("programs_by_state", "state", "created_at"),
    Index("programs_by_root", "root_id"),
    Index("programs_by_owner", "owner"),
)

steps = Table(
    "steps",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("step", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("parent", Text),
    Column("needs", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("overlapped", Boolean, nullable=False),
    Column("input_digest", Text),
    Column("result", Text),
    Column("error", Text),
    Column("started_at", Double),
    Column("ended_at", Double),
    sqlite_with_rowid=False,
)

calls = Table(
    "calls",
    metadata,
    *_effect_key(),
    Column("state", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("conversation", Text),
    Column("status", Integer),
    Column("content_type", Text),
    Column("request_id", Text),
    Column("answer", LargeBinary),
    Column("error", Text),
    Column("input_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("queued_at", Double, nullable=False),
    Column("sent_at", Double),
    Column("first_token_at", Double),
    Column("ended_at", Double, nullable=False),
    Index("calls_by_conversation", "conversation"),
    Index("calls_by_params", "params"),
)

tool_calls = Table(
    "tool_calls",
    metadata,
    *_effect_key(),
    Column("tool", Text, nullable=False),
    Column("idempotency", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("background", Boolean, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
)

observations = Table(
    "observations",
    metadata,
    *_effect_key(),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

parts = Table(
    "parts",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("used_at", Double, nullable=False),
)

links = Table(
    "links",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("parent", Text),
    Column("part", Text, nullable=False),
    Column("used_at", Double, nullable=False),
    Index("links_by_part", "part"),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("node", Text),
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)

cached = Table(
    "cached",
    metadata,
    Column("key", Text, primary_key=True),
    Column("result", Text, nullable=False),
    Column("program_id", Text, nullable=False),
    Column("expires_at", Double),
    Index("cached_by_expiry", "expires_at"),
)

owners = Table(
    "owners",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("seen_at", Double, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("program_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("asked_at", Double, nullable=False),
)
