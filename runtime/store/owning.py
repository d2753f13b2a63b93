"""What processes agree on through the database: who runs a program, whether it lives, and what others ask of it.

That an owner lives is noted once for all its programs, not in their rows: a beat costs one row however many programs wait,
and a program's record, written later with an older time, cannot undo it.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, or_, select, update

from .statements import insert_into
from .tables import owners, programs, requests


def claim(connection: Connection, program_id: str, owner: str, now: float, stale_before: float) -> bool:
    """Make `owner` the owner, if the program has none, or one that was not seen since `stale_before`; whether it is."""
    noted_since = exists().where(owners.c.owner == programs.c.owner, owners.c.seen_at >= stale_before)
    stale = or_(programs.c.owner_seen_at.is_(None), programs.c.owner_seen_at < stale_before) & ~noted_since
    free = or_(programs.c.owner.is_(None), programs.c.owner == owner, stale)
    taken = update(programs).where(programs.c.id == program_id, free).values(owner=owner, owner_seen_at=now)
    return connection.execute(taken).rowcount == 1


def note_seen(connection: Connection, owner: str, now: float) -> None:
    """Note that an owner lives."""
    note = insert_into(owners, connection.dialect.name).values(owner=owner, seen_at=now)
    connection.execute(note.on_conflict_do_update(index_elements=["owner"], set_={"seen_at": note.excluded.seen_at}))


def ask(connection: Connection, program_id: str, kind: str, now: float) -> None:
    """Leave a request for whoever runs a program, unless the same is asked already."""
    asked = insert_into(requests, connection.dialect.name).values(program_id=program_id, kind=kind, asked_at=now)
    connection.execute(asked.on_conflict_do_nothing(index_elements=["program_id", "kind"]))


def take_requests(connection: Connection, owner: str) -> list[tuple[str, str]]:
    """What is asked of the programs of an owner, oldest first, and ask it no more."""
    of_owner = select(requests.c.program_id, requests.c.kind).join(programs, programs.c.id == requests.c.program_id)
    rows = connection.execute(of_owner.where(programs.c.owner == owner).order_by(requests.c.asked_at)).all()
    for program_id, kind in rows:
        connection.execute(delete(requests).where(requests.c.program_id == program_id, requests.c.kind == kind))
    return [(program_id, kind) for program_id, kind in rows]
