"""How long shared content (parts, links) outlives the programs that refer to it. Pure; the rule of every kind of journal.

A program stores content before it refers to it: the call that does so is recorded when it ends. What nobody refers to may
therefore be wanted in a moment, and only its time tells. This rests on each program appending the parts and links that it
refers to itself, even if it could know that the journal has them: that renews their time.
"""

from __future__ import annotations

USE_GRANULARITY_S = 600.0
"""The time of content is renewed only when it is older than this, so that storing known content again is nearly free."""


def swept_before(ended_before: float, oldest_open: float | None) -> float:
    """Unreferred content is deleted if last stored before this time.

    `oldest_open` is when the oldest program that has not ended was created: nothing stored since then is touched.
    """
    since = ended_before if oldest_open is None else min(ended_before, oldest_open)
    return since - USE_GRANULARITY_S
