"""Stand-ins: a clock that jumps instead of waiting, and a database connection that dies on demand."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from unittest import mock

from fetcher.stop import Stop

T = TypeVar("T")


class FakeStop(Stop):
    """A Stop whose clock stands still while anything happens, and jumps to the next deadline when nothing does.

    `GRACE` real seconds without a sign of life count as nothing happening. `time()` starts at the real time.
    """

    GRACE = 0.02

    def __init__(self) -> None:
        super().__init__()
        self._began = time.time()
        self._elapsed = 0.0
        self._deadlines: list[float] = []
        self._clock = threading.Lock()

    def now(self) -> float:
        return self._elapsed

    def time(self) -> float:
        return self._began + self._elapsed

    def wait(self, seconds: float, condition: threading.Condition | None = None) -> bool:
        if condition is None:
            with self._changed:
                self._until(seconds, lambda: self._changed.wait(self.GRACE))
        else:
            self._until(seconds, lambda: condition.wait(self.GRACE))
        return self.is_set()

    def receive(self, queue: SimpleQueue[T], seconds: float) -> T:
        got: list[T] = []

        def came() -> bool:
            try:
                got.append(queue.get(timeout=self.GRACE))
            except Empty:
                return False
            return True

        self._until(seconds, came, even_if_set=True)
        if not got:
            got.append(queue.get_nowait())
        return got[0]

    def _until(self, seconds: float, happened: Callable[[], bool], *, even_if_set: bool = False) -> None:
        """Let virtual seconds pass, in jumps to the earliest deadline of all who wait, until it happened."""
        deadline = self._elapsed + seconds
        with self._clock:
            self._deadlines.append(deadline)
        try:
            while self._elapsed < deadline and (even_if_set or not self.is_set()):
                if happened():
                    return
                with self._clock:
                    self._elapsed = max(self._elapsed, min(self._deadlines))
        finally:
            with self._clock:
                self._deadlines.remove(deadline)


class Died(BaseException):
    """The process is dead: nothing of ours catches this, and nothing reaches the file any more."""


class Death:
    """Watches the statements of the store's connection, and strikes at one of them (counted from 1)."""

    def __init__(self, at: int | None, after: bool, error: Callable[[], BaseException]) -> None:
        self.at = at
        self.after = after
        self.error = error
        self.statements = 0
        self.struck = False

    def watch(self, statement: Callable[..., T], *args: Any) -> T:
        if self.struck and self.error is Died:
            raise Died
        self.statements += 1
        now = self.statements == self.at
        self.struck = self.struck or now
        if now and not self.after:
            raise self.error()
        result = statement(*args)
        if now:
            raise self.error()
        return result


class _Mortal(sqlite3.Connection):
    death: Death

    def execute(self, *args: Any) -> sqlite3.Cursor:
        return self.death.watch(super().execute, *args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        return self.death.watch(super().executemany, *args)


@contextmanager
def death(at: int | None = None, *, after: bool = False, error: Callable[[], BaseException] = Died) -> Iterator[Death]:
    """The store dies before (or right after) its statement number `at`; with None it only counts.

    What is open then is neither committed nor rolled back by us, as when a process is killed. With another `error` only
    that one statement fails, and the program goes on as it likes.
    """
    fate = Death(at, after, error)
    connect = sqlite3.connect

    def mortal(*args: Any, **options: Any) -> _Mortal:
        made = connect(*args, **options, factory=_Mortal)
        made.death = fate
        return made

    with mock.patch.object(sqlite3, "connect", mortal):
        yield fate
