"""How many requests a second a host allows, found by counting what it answers between its refusals.

Pure arithmetic: the time is passed in, in seconds on a clock that never goes back.

A token bucket that was empty at one refusal and is empty at the next has let through just what flowed in between, so
its rate is their number by that time; a bucket that was full as the first request came has then let through its burst
too, which is about what flows in during the pause. From the measured limit the pace is found as CUBIC finds a window
(RFC 9438): back to the limit quickly, level around it, then faster and faster in case the limit is gone.
"""

from __future__ import annotations

import math
from collections import deque

from fetcher.learned import Learned

LEAST = 0.1
"""Requests a second that are always tried."""

BACKED_OFF = 0.95
"""The share of the measured limit with which the pace begins after a refusal."""

FIRST_PATIENCE = 3.0
PATIENCE = 6.0
"""Seconds of use from there back to the limit; as many again are spent just above it.

The first measurement knows nothing of the burst that a host allows, and may be far below the limit.
"""

MOST_PATIENCE = 300.0
"""It doubles, up to so many seconds, with each refusal met by trying more."""

DAY = 86_400.0

LONG_PAUSE = 5.0
"""Seconds of refusals for which a token bucket has no use: the host counts over a longer time."""

SAFE_SHARE = 0.8
"""The share of a cumulative limit that is used."""

LONG_PATIENCE = 15.0
"""How many times as long as its block one waits before more is tried of a cumulative limit."""

MOST_LONG_PATIENCE = 3600.0

RELIEF = 0.75
"""The share of what it answered that an overloaded host is asked."""

MARKS = 256
MARK_SECONDS = 0.1
"""So many moments, so far apart, are remembered with the number of answers until then."""

ENOUGH = 5
"""So many answers before the first refusal tell something; fewer may come from a limit that others had used up."""


class Pace:
    """The pace for one host: `rate` requests a second (infinite until the first refusal), never above `ceiling`.

    `began`, `answered`, `refused` and `reopened` tell it what happens; `rate` is what to do.
    """

    def __init__(self, ceiling: float = 0.0, learned: Learned | None = None, age: float = 0.0) -> None:
        self.ceiling = ceiling or math.inf
        self.rate = self.ceiling
        self.answers = 0
        self._least = min(LEAST, self.ceiling)
        self._limit = math.inf
        self._patience = PATIENCE
        self._cumulative = False
        self._disproved = False
        self._used = 0.0
        self._next_change = 0.0
        self._opened_at: float | None = None
        self._emptied_at: float | None = None
        self._next_mark = -math.inf
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)
        self._refused_at = 0.0
        self._overloaded = False
        if learned is not None and learned.rate is not None:
            self._limit = max(self._least, learned.rate)
            self._cumulative = learned.cumulative
            # Yesterday's limit is tried again slowly, last week's less so.
            self._patience = max(PATIENCE, 2.0 * learned.patience * 0.5 ** max(0.0, age / DAY))
            self._change()

    @property
    def limit(self) -> float | None:
        """The limit as measured, or the pace that went well far above it; None when there is none known."""
        if not math.isfinite(self._limit):
            return None
        return max(self._limit, 0.9 * self.rate)

    @property
    def patience(self) -> float:
        """Seconds of use from a refusal back to the limit."""
        return self._patience

    @property
    def cumulative(self) -> bool:
        """Whether the host blocks for long after a number of requests."""
        return self._cumulative

    def began(self, now: float, *, used: bool) -> None:
        """A request begins; `used` says that it had to wait for the pace, for only a pace that is used may grow."""
        if self._opened_at is None:
            self._opened_at = now
        if now >= self._next_mark:
            self._next_mark = now + MARK_SECONDS
            self._marks.append((now, self.answers))
        if used and self.rate < self.ceiling:
            self._used += 1.0 / self.rate
            if self._used >= self._next_change:
                self._change()

    def answered(self) -> None:
        """A request was not refused."""
        self.answers += 1

    def refused(self, now: float, *, overloaded: bool) -> None:
        """The host refuses; told once for all refusals up to `reopened`; `overloaded`: for no limit of its own."""
        self._refused_at = now
        self._overloaded = overloaded

    def reopened(self, now: float, asked_at: float) -> None:
        """The host answers again, asked at `asked_at`."""
        before = self.rate
        answers, self.answers = self.answers, 0
        assert self._opened_at is not None
        open_for = max(self._refused_at - self._opened_at, 1e-3)
        pause = asked_at - self._refused_at
        average = answers / open_for
        if self._overloaded:
            if answers:
                self._measure(RELIEF * min(average, before), PATIENCE)
        elif answers >= ENOUGH or self._emptied_at is not None:
            self._count(max(1, answers), self._opened_at, pause)
        elif math.isfinite(before):
            self._measure(RELIEF * before, PATIENCE)
        self._emptied_at = self._refused_at
        self._opened_at = now
        self._marks.clear()

    def _count(self, answers: int, opened_at: float, pause: float) -> None:
        """Measure the limit by what was answered since the last refusal."""
        before = self.rate
        # However full the bucket was at a mark: what it let through from then on is no more than flows in by the end
        # of the pause, if a pause is enough to fill it.
        marks = [(opened_at, 0), *self._marks]
        limit = max((answers - count) / max(self._refused_at - at + pause, 1e-3) for at, count in marks)
        long = pause >= LONG_PAUSE
        if long and not self._disproved:
            patience = max(LONG_PATIENCE * pause, 2.0 * self._patience if self._cumulative else 0.0)
            self._cumulative = True
            limit *= SAFE_SHARE
        else:
            usual = max(FIRST_PATIENCE if self._emptied_at is None else PATIENCE, LONG_PAUSE * pause if long else 0.0)
            met_by_trying = math.isfinite(before) and 0.9 * self._limit <= before <= 2.0 * self._limit
            patience = max(usual, min(2.0 * self._patience, MOST_PATIENCE)) if met_by_trying else usual
            if self._emptied_at is not None:
                limit = max(limit, answers / max(self._refused_at - self._emptied_at, 1e-3))
        if long and answers < RELIEF * before * (self._refused_at - opened_at) < math.inf:
            # Most of the time the pace was far below what it was in the end: the count tells little.
            limit = max(limit, RELIEF * before)
        self._measure(min(limit, before), min(patience, MOST_LONG_PATIENCE))

    def _measure(self, limit: float, patience: float) -> None:
        self._limit = max(self._least, limit)
        self._patience = patience
        self._used = 0.0
        self._change()

    def _change(self) -> None:
        """Find the rate after so much use."""
        distance = self._used / self._patience - 1.0
        if self._cumulative and SAFE_SHARE * (1.0 + (1.0 - BACKED_OFF) * distance**3) > 1.15:
            # More than the count has gone through in its time: it is no such limit, or none any more.
            self._cumulative, self._disproved = False, True
            self._limit, self._patience = self.rate, PATIENCE
            self._used, distance = PATIENCE, 0.0
        rate = self._limit * (1.0 + (1.0 - BACKED_OFF) * distance**3)
        self.rate = min(self.ceiling, max(self._least, rate))
        self._next_change = self._used + self._patience / 64.0
