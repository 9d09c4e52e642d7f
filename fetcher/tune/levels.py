"""One level of a measurement: so many threads, each asking one question after the other."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

from fetcher.errors import RequestFailed, Stopped
from fetcher.model import Outcome
from fetcher.stop import Stop
from fetcher.tune.meter import Meter
from fetcher.tune.scaling import Point
from fetcher.workers import Done, Workers

FEWEST = 10
ROUNDS = 3
"""Questions of a level: so many, or so many for each thread, whose first one opens a connection and does not count."""

MOST_SECONDS = 15.0
"""After so long no more questions of a level are begun."""

AN_HOUR = 3600.0
"""Longer than any request takes, and not longer than a queue can wait."""

PATIENCE = 2.0
"""Seconds for threads to leave once the end was asked for."""

OUT_OF_ORDER = 5
"""So many errors one after the other end a level: the host is down, or not as it was."""


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured with `at_once` requests open: questions asked, good answers counted, errors.

    `rate` is requests a second, `median`, `p95` and `mean` are latencies in seconds, `error` the mean's relative error,
    `in_flight` how many were open on average. `refused` says that the host refused meanwhile, `held` that it was asked
    with as many at once as are recommended, for as long as requests were left.
    """

    at_once: int
    requests: int
    answers: int
    errors: int
    rate: float
    median: float
    p95: float
    mean: float
    error: float
    in_flight: float
    refused: bool
    held: bool = False

    @property
    def point(self) -> Point:
        """What the curve is made from."""
        return Point(self.at_once, self.in_flight, self.mean, self.error, self.rate)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question: how long it took with all its waits, how long its good answers took, and whether it failed."""

    seconds: float
    answers: tuple[float, ...]
    failed: bool
    counts: bool


class Measuring:
    """Measures levels; what a level is asked again for is added to what it was before."""

    def __init__(self, ask: Callable[[], None], meter: Meter, stop: Stop) -> None:
        self._ask = ask
        self._meter = meter
        self._stop = stop
        self._asked: dict[int, list[_Asked]] = {}

    def hold(self, at_once: int, count: int) -> Level:
        """Ask so often with so many threads, whatever was asked before. Raises SourceError."""
        self._asked.pop(at_once, None)
        return replace(self.level(at_once, count), held=True)

    def level(self, at_once: int, count: int = 0) -> Level:
        """Ask with so many threads until enough was asked, time is up, or all is to end. Raises SourceError."""
        done: SimpleQueue[Done[int] | None] = SimpleQueue()
        workers: Workers[int] = Workers(at_once, done, "fetcher-tune")
        asked = self._asked.setdefault(at_once, [])
        count = count or max(FEWEST, ROUNDS * at_once)
        self._stop.on_set(lambda: done.put(None))
        try:
            for number in range(count):
                workers.send(number, self._one, number >= at_once)
            self._collect(workers, done, count, asked)
        finally:
            workers.discard()
            workers.close(PATIENCE if self._stop.is_set() else None)
        return _level(at_once, asked, refused=self._meter.refused is not None)

    def _collect(
        self, workers: Workers[int], done: SimpleQueue[Done[int] | None], left: int, asked: list[_Asked]
    ) -> None:
        ends, in_a_row = self._stop.now() + MOST_SECONDS, 0
        while left:
            try:
                got = self._stop.receive(done, min(max(0.0, ends - self._stop.now()), AN_HOUR))
            except queue.Empty:
                left, ends = left - len(workers.discard()), math.inf
                continue
            if got is None:
                return
            left -= 1
            if isinstance(got.result, _Asked):
                asked.append(got.result)
                in_a_row = in_a_row + 1 if got.result.failed else 0
                if in_a_row == OUT_OF_ORDER:
                    left -= len(workers.discard())
            elif not isinstance(got.result, Stopped):
                raise got.result

    def _one(self, counts: bool) -> _Asked:
        answers = self._meter.answered.seconds
        answers.clear()
        began = self._stop.now()
        failed = False
        try:
            self._ask()
        except RequestFailed as error:
            if error.outcome is Outcome.LIMITED:
                raise Stopped("refused") from None
            failed = error.outcome is not Outcome.GONE
        return _Asked(self._stop.now() - began, tuple(answers), failed, counts)


def _level(at_once: int, asked: Sequence[_Asked], *, refused: bool) -> Level:
    """What the questions of a level come to; where none counts, all do."""
    counted = [each for each in asked if each.counts and each.answers] or [each for each in asked if each.answers]
    latencies = sorted(seconds for each in counted for seconds in each.answers)
    spent = sum(each.seconds for each in counted)
    if not latencies:
        nothing = math.nan
        failed = sum(each.failed for each in asked)
        return Level(at_once, len(asked), 0, failed, 0.0, nothing, nothing, nothing, nothing, 0.0, refused)
    mean = sum(latencies) / len(latencies)
    spread = sum((each - mean) ** 2 for each in latencies) / max(1, len(latencies) - 1)
    return Level(
        at_once,
        len(asked),
        len(latencies),
        sum(each.failed for each in asked),
        # Each thread asks one question after the other: so the first round and the last do not distort it.
        at_once * len(latencies) / spent,
        median(latencies),
        latencies[math.ceil(0.95 * len(latencies)) - 1],
        mean,
        math.sqrt(spread / len(latencies)) / mean,
        at_once * sum(latencies) / spent,
        refused,
    )


def median(values: Sequence[float]) -> float:
    """The middle one of sorted values."""
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
