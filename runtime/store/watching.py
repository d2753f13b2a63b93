"""Whoever wants to see events as they become durable. Used on the event loop's thread only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from .records import EventRecord

_log = logging.getLogger(__name__)


class Watchers:
    """A list of functions to call with events. A watcher that raises is logged and kept; the record does not depend on it."""

    def __init__(self) -> None:
        self._watchers: tuple[Callable[[EventRecord], None], ...] = ()

    def add(self, watcher: Callable[[EventRecord], None]) -> Callable[[], None]:
        """Call `watcher` with every later event until the returned function is called (once or more)."""

        def entry(event: EventRecord) -> None:
            watcher(event)

        def stop() -> None:
            self._watchers = tuple(known for known in self._watchers if known is not entry)

        self._watchers = (*self._watchers, entry)
        return stop

    def tell(self, events: Sequence[EventRecord]) -> None:
        """Give events, in order, to every watcher."""
        if not self._watchers:
            return
        for event in events:
            for watcher in self._watchers:
                try:
                    watcher(event)
                except Exception:
                    _log.exception("a watcher failed on event %s of program %s", event.seq, event.program_id)
