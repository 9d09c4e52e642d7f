"""The calls that threads make for the engine: what each is made for, how many are under way, and their answers."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from enum import Enum
from queue import SimpleQueue
from typing import Any, Literal

from fetcher.listing import Listing
from fetcher.model import Key
from fetcher.stop import Stop
from fetcher.workers import Done, Workers

GATHER_SECONDS = 0.01
"""How long results gather before they are taken, while the workers have enough to do."""


class Asked(Enum):
    """What is asked for besides pages and details: the list head, any sign of life, what only a login shows."""

    HEAD = 1
    LIFE = 2
    LOGIN = 3


Due = Listing | tuple[Key, ...]
"""What can fail and be asked for again: the next page of a listing, the details of keys."""

About = Listing | tuple[Key, ...] | Literal[Asked.HEAD, Asked.LIFE, Asked.LOGIN]
"""What a call is made for: the next page of a listing, the details of keys, or something besides."""


class Calls:
    """The threads of a run, what they were sent for, and the one queue through which they answer."""

    def __init__(self, stop: Stop, workers: int) -> None:
        self._stop = stop
        self._workers = workers
        self._answers: SimpleQueue[Done[About] | None] = SimpleQueue()
        self._pools: list[Workers[About]] = []
        self._prober: Workers[About] | None = None
        self.under_way = 0
        """How many there are besides list pages and probes."""

    def open(self, listers: int) -> None:
        """Start the threads, `listers` of them for all but details (0: the same as for details).

        Raises ConfigurationError where so many cannot be started.
        """
        self._stop.on_set(self.wake)
        self._details = self._lists = self._pool(self._workers, "fetcher-detail")
        if listers:
            try:
                self._lists = self._pool(listers, "fetcher-list")
            except BaseException:
                self._details.close()
                raise

    def wake(self) -> None:
        """End the wait for an answer; may be called from any thread."""
        self._answers.put(None)

    def details(self, keys: tuple[Key, ...], call: Callable[..., Any], *args: Any) -> None:
        """Have the details of these keys fetched."""
        self.under_way += 1
        self._details.send(keys, call, *args)

    def page(self, listing: Listing, call: Callable[..., Any]) -> None:
        """Have the next page of a walk fetched."""
        listing.flying = True
        self._lists.send(listing, call, listing.walk)

    def question(self, about: Literal[Asked.HEAD, Asked.LOGIN], call: Callable[..., Any], *args: Any) -> None:
        """Have something asked besides."""
        self.under_way += 1
        self._lists.send(about, call, *args)

    def probe(self, call: Callable[..., Any], *args: Any) -> None:
        """Have the host asked for a sign of life, by a thread of its own: all the others may be held back."""
        if self._prober is None:
            self._prober = self._pool(1, "fetcher-probe")
        self._prober.send(Asked.LIFE, call, *args)

    def receive(self, patience: float) -> Done[About] | None:
        """The next answer, or None when woken; raises queue.Empty when there is none for that many seconds."""
        return self._landed(self._stop.receive(self._answers, patience))

    def last(self, patience: float) -> Done[About] | None:
        """The same once the end was asked for, when nobody waits through the Stop any more."""
        return self._landed(self._answers.get(timeout=patience))

    def answers(self, patience: float) -> Iterator[Done[About]]:
        """Wait for the next answer at most that many seconds, then all that have come, one after the other."""
        try:
            first = self.receive(patience)
        except queue.Empty:
            return
        if first is not None:
            yield first
        if self.under_way > 2 * self._workers:
            # Every wake-up takes the GIL from a worker: while they have calls enough, results gather.
            self._stop.wait(GATHER_SECONDS)
        yield from self.left()

    def left(self) -> Iterator[Done[About]]:
        """The answers that have come by now, without a wait."""
        for _ in range(self._answers.qsize()):
            answer = self._landed(self._answers.get())
            if answer is not None:
                yield answer

    def discard(self) -> None:
        """Take back the calls that no thread has begun."""
        for workers in self._pools:
            for about in workers.discard():
                self._ended(about)

    def close(self, patience: float | None = None) -> None:
        """End the threads; one that is stuck for longer than `patience` seconds is left behind."""
        for workers in self._pools:
            workers.close(patience)

    def _pool(self, threads: int, name: str) -> Workers[About]:
        pool: Workers[About] = Workers(threads, self._answers, name)
        self._pools.append(pool)
        return pool

    def _landed(self, answer: Done[About] | None) -> Done[About] | None:
        if answer is not None:
            self._ended(answer.about)
        return answer

    def _ended(self, about: About) -> None:
        if isinstance(about, Listing):
            about.flying = False
        elif about is not Asked.LIFE:
            self.under_way -= 1
