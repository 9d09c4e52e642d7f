"""Threads that make calls for the engine and hand it the results."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from fetcher.errors import ConfigurationError

A = TypeVar("A")

_moments = count(1)


class Done(NamedTuple, Generic[A]):
    """A call that has ended; `began` and `ended` are moments of one count, which tell what was before what."""

    about: A
    result: Any
    began: int
    ended: int


class Workers(Generic[A]):
    """A ThreadPoolExecutor whose threads take calls from one queue and put what is Done into another.

    The result of a call that raised is its exception. A future for each call would cost several times what the two
    queues do (docs/decisions/0002-worker-loops.md).
    """

    def __init__(self, threads: int, done: SimpleQueue[Done[A] | None], name: str) -> None:
        self._calls: SimpleQueue[tuple[A, Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._done = done
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._loops: list[Future[None]] = []
        try:
            for _ in range(threads):
                self._loops.append(self._pool.submit(self._work))
        except RuntimeError as error:
            # The loops that did begin would be waited for at exit; one may be counted that has no thread.
            for _ in range(threads):
                self._calls.put(None)
            raise ConfigurationError(f"{threads} threads cannot be started ({error}): set fewer --workers") from None

    def send(self, about: A, call: Callable[..., Any], *args: Any) -> None:
        """Have `call(*args)` made by the next free thread."""
        self._calls.put((about, call, args))

    def discard(self) -> list[A]:
        """Forget the calls that no thread has begun; returns what they were made for."""
        abouts = []
        try:
            while (called := self._calls.get_nowait()) is not None:
                abouts.append(called[0])
        except queue.Empty:
            pass
        return abouts

    def close(self, patience: float | None = None) -> None:
        """End the threads once they are done with what they do; wait for them at most `patience` seconds.

        A thread that is stuck for longer is left behind.
        """
        for _ in self._loops:
            self._calls.put(None)
        wait(self._loops, patience)
        self._pool.shutdown(wait=False)

    def _work(self) -> None:
        while (called := self._calls.get()) is not None:
            about, call, args = called
            began = next(_moments)
            try:
                result = call(*args)
            except BaseException as error:  # noqa: BLE001 - the engine decides what an error means
                result = error
            self._done.put(Done(about, result, began, next(_moments)))
