"""The one way to end early: every wait in the program goes through a Stop, so that all of them end at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

LONGEST = 3e9
"""No wait takes more seconds, which is a century: the system's clock cannot count many more."""


class Stop:
    """A request to end early, and the clock: the two things that every waiter needs.

    Safe to share between threads. `set` never comes back to unset.
    """

    def __init__(self) -> None:
        self._set = False
        self._changed = threading.Condition()
        self._conditions: list[threading.Condition] = [self._changed]
        self._callbacks: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._set

    def set(self) -> None:
        """Ask for the end: wakes every waiter, then calls back those who asked for it."""
        with self._changed:
            if self._set:
                return
            self._set = True
            callbacks = list(self._callbacks)
            conditions = list(self._conditions)
        for condition in conditions:
            with condition:
                condition.notify_all()
        for callback in callbacks:
            callback()

    def on_set(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the end is asked for, or now if it was; from the thread that asks."""
        with self._changed:
            if not self._set:
                self._callbacks.append(callback)
                return
        callback()

    def condition(self) -> threading.Condition:
        """A condition whose waiters `set` wakes."""
        condition = threading.Condition()
        with self._changed:
            self._conditions.append(condition)
        return condition

    def now(self) -> float:
        """Seconds on a clock that never goes back; for durations."""
        return time.monotonic()

    def time(self) -> float:
        """Unix time in seconds; for what is written down."""
        return time.time()

    def wait(self, seconds: float, condition: threading.Condition | None = None) -> bool:
        """Wait that long, or until the end is asked for; returns whether it was.

        With a `condition` of this Stop, whose lock the caller holds, its notification ends the wait too.
        """
        seconds = min(seconds, LONGEST)
        if condition is None:
            with self._changed:
                self._changed.wait_for(self.is_set, seconds)
        elif not self._set:
            condition.wait(seconds)
        return self._set

    def receive(self, queue: SimpleQueue[T], seconds: float) -> T:
        """The next thing in `queue`; raises queue.Empty after that many seconds.

        The end being asked for does not end this wait: whoever waits here has `on_set` put something into the queue.
        """
        return queue.get(timeout=min(seconds, LONGEST))


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM ask for the end; a second one kills at once. For the main thread only.

    A handler runs between two bytecodes of the main thread, which may hold any lock; so it only puts into a SimpleQueue
    (safe there, says its documentation), and a thread of its own passes the word on.
    """
    told: SimpleQueue[bool] = SimpleQueue()
    signals = (signal.SIGINT, signal.SIGTERM)

    def handle(_number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        told.put(True)

    def pass_on() -> None:
        if told.get():
            stop.set()

    before = {each: signal.signal(each, handle) for each in signals}
    thread = threading.Thread(target=pass_on, name="fetcher-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        told.put(False)
        thread.join(1)
        for each, handler in before.items():
            signal.signal(each, handler)
