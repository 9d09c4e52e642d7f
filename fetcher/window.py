"""The window: work that is claimed and not committed yet, and the order in which it is sent for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fetcher.calls import Calls
from fetcher.contracts import Store
from fetcher.errors import FetcherError, RequestFailed
from fetcher.governor import backoff
from fetcher.model import Detail, Failure, Gone, Key, Outcome, Plan, Stage, Work
from fetcher.stop import Stop

log = logging.getLogger("fetcher")

LOOK_SECONDS = 1.0
"""How often an idle engine looks for work that another process has added."""


class Window:
    """What one stage has claimed: of bounded size, so that memory is flat whatever the size of the job."""

    def __init__(self, stage: Stage, plan: Plan, stop: Stop, calls: Calls) -> None:
        self._stage = stage
        self._plan = plan
        self._stop = stop
        self._calls = calls
        # So many calls keep the workers busy until more is claimed, and so many keys they are about.
        self._enough = 2 * plan.workers if stage.batch == 1 else plan.workers
        self._size = plan.window if stage.batch == 1 else 2 * plan.workers * stage.batch + 2 * plan.batch_size
        self._claimed: dict[Key, Work] = {}
        self._holding: set[Key] = set()
        self._held_up: deque[tuple[Key, ...]] = deque()
        self._rests: deque[tuple[Key, Callable[[], Detail]]] = deque()
        self._in_pieces: set[Key] = set()
        self._waits_for: float | None = None
        self._look_at = 0.0
        self.dry = False
        """Whether less was due than could be claimed."""

    def __len__(self) -> int:
        """How many works are claimed."""
        return len(self._claimed)

    def __contains__(self, key: object) -> bool:
        """Whether a work is claimed."""
        return key in self._claimed

    @property
    def exhausted(self) -> bool:
        """Whether nothing is due, now or later."""
        return self.dry and self._waits_for is None

    def look(self) -> None:
        """Look for work at once; may be called from any thread."""
        self._look_at = 0.0

    def next_look(self, most: int | None) -> float:
        """When work is looked for again, for at most so many claims in all; infinite until something else happens."""
        return self._look_at if self.dry and self._free(most) > 0 else float("inf")

    def claim(self, store: Store, most: int | None, *, more: bool) -> None:
        """Claim due work, in blocks, up to `most` in all, and send for it; `more` says that others may add work."""
        free = self._free(most)
        if free <= 0 or (self.dry and self._stop.now() < self._look_at):
            return
        works, due = store.claim(self._stage.name, free, self._plan.order, self._plan.bounds, self._claimed)
        self.dry = len(works) < free
        if more or not self.dry:
            works = self._whole_batches(works)
        self._waits_for = due
        wait = LOOK_SECONDS if due is None else min(LOOK_SECONDS, max(0.0, due - self._stop.time()))
        self._look_at = self._stop.now() + wait
        for work in works:
            self._claimed[work.key] = work
        for keys in self._batches(works):
            self.send_for(keys)

    def send_for(self, keys: tuple[Key, ...]) -> None:
        """Have the details of these claimed keys fetched."""
        if self._stage.holds:
            if len(self._holding) >= self._plan.workers:
                self._held_up.append(keys)
                return
            self._holding.update(keys)
        self._calls.details(keys, self._stage.run, keys)

    def came(self, keys: Sequence[Key], rests: Sequence[tuple[Key, Callable[[], Detail]]]) -> None:
        """What was sent for has come, whole but for `rests`: that is sent for, and what was held up for it."""
        self._in_pieces.difference_update(keys)
        if rests:
            # What has begun goes on before other things begin; what has not waits for its turn.
            (self._rests.extendleft if len(keys) == 1 else self._rests.extend)(rests)
            unfinished = {key for key, _ in rests}
            keys = [key for key in keys if key not in unfinished]
        self._let_go(keys)
        self._send_for_rests()

    def attempts(self, key: Key) -> int:
        """How many there were for this key, with the one that has just ended."""
        return self._claimed[key].attempts + 1

    def failed(self, keys: Sequence[Key], error: RequestFailed) -> list[Failure]:
        """What was asked for together did not come; one more attempt is spent on each, and they come back together."""
        wait = backoff(self.attempts(keys[0]), self._plan.max_backoff)
        due_at = self._stop.time() + wait
        return [self._failure(key, error, wait, due_at) for key in keys]

    def drop(self, keys: Iterable[Key]) -> None:
        """These are claimed no more."""
        for key in keys:
            self._claimed.pop(key, None)

    def _free(self, most: int | None) -> int:
        """How much may be claimed now; 0 while the workers have enough and there is room for less than a batch."""
        free = (self._size if most is None else min(self._size, most)) - len(self._claimed)
        busy = self._calls.under_way > self._enough
        worth = max(self._plan.batch_size, self._plan.workers * (self._stage.batch - 1))
        return 0 if busy and free < worth else free

    def _whole_batches(self, works: list[Work]) -> list[Work]:
        """Those of claimed works that fill batches: the rest waits for company, as long as others are under way."""
        spare = len(works) % self._stage.batch
        return works[: len(works) - spare] if self._calls.under_way or spare < len(works) else works

    def _batches(self, works: Sequence[Work]) -> Iterator[tuple[Key, ...]]:
        """The keys of works as they are sent for together."""
        size = self._stage.batch
        by_size: dict[int, list[Key]] = {}
        for work in works:
            # What failed before is asked for in smaller company, so that one bad key does not take others with it.
            by_size.setdefault(max(1, size >> 2 * work.attempts), []).append(work.key)
        for most, keys in by_size.items():
            for first in range(0, len(keys), most):
                yield tuple(keys[first : first + most])

    def _let_go(self, keys: Sequence[Key]) -> None:
        """These hold nothing any more: others may begin."""
        self._holding.difference_update(keys)
        while self._held_up and len(self._holding) < self._plan.workers and not self._stop.is_set():
            self.send_for(self._held_up.popleft())

    def _send_for_rests(self) -> None:
        """Have more pieces made, of as many items at once as there are workers: each may hold some megabytes."""
        while self._rests and len(self._in_pieces) < self._plan.workers and not self._stop.is_set():
            key, rest = self._rests.popleft()
            self._in_pieces.add(key)
            self._calls.details((key,), _go_on_with, key, rest)

    def _failure(self, key: Key, error: RequestFailed, wait: float, due_at: float) -> Failure:
        name, attempts = self._stage.name, self.attempts(key)
        for_good = error.lasting or error.outcome is Outcome.DENIED or attempts > self._plan.max_retries
        log.info("%s %s: %s; %s", name, key, error, "set aside as failed" if for_good else f"again in {wait:.1f} s")
        due = None if for_good else due_at
        return Failure(name, key, error.outcome, str(error), error.status, error.body, attempts, due)


def _go_on_with(key: Key, rest: Callable[[], Detail]) -> Mapping[Key, Detail | Gone | Exception]:
    """The next piece of one item's details."""
    try:
        return {key: rest()}
    except FetcherError as error:
        return {key: error}
