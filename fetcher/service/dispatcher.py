"""When the next batch is triggered: one an interval, the highest priority first, in the order of submission."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fetcher.model import Table
from fetcher.stop import Stop
from fetcher.stores.database import Database
from fetcher.stores.file import explained
from fetcher.stores.jobs import Triggered, due_work, trigger, triggered_at

LOOK_SECONDS = 1.0
"""How often it is looked for what waits when nobody has said that there is anything."""

TOGETHER = 50
"""So many batches become work in one transaction where no interval lies between them."""


class Dispatcher:
    """Turns waiting batches into work; `run` does it until the end, in a thread and with a connection of its own.

    Never are two batches triggered within `interval` seconds, also when the program was started anew in between.
    Without an interval only so much is triggered that `most` ids are due; what failed and is tried again later holds
    nothing up.
    """

    def __init__(
        self,
        db: Database,
        source: str,
        item: Table,
        stop: Stop,
        *,
        interval: float,
        most: int,
        on_triggered: Callable[[Sequence[Triggered]], None],
    ) -> None:
        self._db = db
        self._source = source
        self._item = item
        self._stop = stop
        self._interval = interval
        self._most = most
        self._on_triggered = on_triggered
        self._changed = stop.condition()
        self._news = False
        self._ended = threading.Event()
        self._draining = False

    def wake(self) -> None:
        """There may be something to trigger: a job was submitted, or ids have ended."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        """Trigger nothing from now on; returns once that is sure, at latest after so many seconds."""
        self._draining = True
        self.wake()
        self._ended.wait(seconds)

    def run(self) -> None:
        """Trigger what waits, until the end was asked for. Raises StoreError."""
        try:
            due = self._stop.now() + self._first_wait()
            while not (self._draining or self._stop.is_set()):
                wait = due - self._stop.now()
                if wait > 0:
                    self._rest(wait, woken=False)
                    continue
                triggered = self._trigger()
                if triggered:
                    # Counted from the end of the transaction, so that nobody can see two closer together.
                    due = self._stop.now() + self._interval
                    self._on_triggered(triggered)
                else:
                    self._rest(LOOK_SECONDS, woken=True)
        finally:
            self._ended.set()

    def _first_wait(self) -> float:
        """What is left of the interval that an earlier run has begun."""
        with explained(self._db.path):
            last = triggered_at(self._db.conn, self._source)
        if last is None:
            return 0.0
        # A clock that was put back must not keep the first batch waiting for longer than any other.
        return min(self._interval, max(0.0, last + self._interval - self._stop.time()))

    def _trigger(self) -> Sequence[Triggered]:
        most = 1
        if not self._interval:
            with explained(self._db.path):
                due = due_work(self._db.conn, self._source, self._stop.time(), self._most)
            if due >= self._most:
                return ()
            most = TOGETHER
        return trigger(self._db, self._source, self._item, self._stop.time, most=most)

    def _rest(self, seconds: float, *, woken: bool) -> None:
        """Wait; with `woken` news end it."""
        with self._changed:
            if not (self._draining or (woken and self._news)):
                self._stop.wait(seconds, self._changed)
            if woken:
                self._news = False
