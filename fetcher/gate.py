"""How many requests a host can bear at once, found by how long it takes to answer.

Pure arithmetic: the time is passed in, in seconds on a clock that never goes back.

The mean latency of a round of answers is held against the lowest there was: as in TCP Vegas (Brakmo and Peterson, 1995)
and the gradient of Netflix's concurrency-limits, a host that takes longer the more it is asked is asked less before it
refuses.
"""

from __future__ import annotations

import math
from collections import deque

from fetcher.learned import Learned

FIRST = 3
"""Requests in flight at first: each of them is one more refusal if the host has a limit."""

LEAST_ROUND = 0.05
"""Seconds over which latency is averaged at least; else it is one round trip."""

QUICK = 0.02
QUICK_ROUND = 0.25
"""Where answers take less than `QUICK`, few requests in flight keep a client busy: there is no hurry for more."""

FEWEST_ANSWERS = 8
"""Answers of which an average is worth something; while the gate doubles, as many as fit through it are enough."""

MOST_ANSWERS = 50
"""Answers after which a round may end, however wide the gate is."""

SLOWER = 1.15
"""So many times the floor a latency may be."""

SCATTER = 0.01
"""Seconds by which a latency may be greater besides: threads of our own wait for each other."""

CERTAIN = 3.0
"""So many standard errors a mean latency has to be away from where it may be."""

OUTLIER = 5.0
"""An answer counts as at most so many times as slow as the floor."""

CUT = 0.8
DEEPEST_CUT = 0.5
"""A slowing host is asked for this share of requests at once, or less; afterwards its floor is seen again."""

NO_BETTER = 0.95
"""A cut after which the latency is still this share of what it was did not help."""

FIRST_ANSWERS = 200
"""Of so many answers the floor is the mean at first."""

RISEN = 1.05
DIP_SECONDS = 20.0
"""So long after it was seen, when latency keeps the gate small and is so much higher, the floor is looked for again."""

REFUSED_CUT = 0.7
REFUSED_SECONDS = 60.0
"""So many refusals as the threshold says within this time lower the gate too, to this share."""


class Gate:
    """The gate for one host: at most `limit` requests in flight, between `least` and `most`.

    `lower` and `upper` are absolute latencies in seconds: below `lower` it grows, above `upper` it is cut, whatever
    the floor is. It begins at `first`. `answered` and `refused` tell it what happens; set `used`
    whenever it was full.
    """

    def __init__(
        self,
        least: int,
        most: int,
        *,
        lower: float | None = None,
        upper: float | None = None,
        refusals: int = 3,
        learned: Learned | None = None,
        first: int = FIRST,
    ) -> None:
        self._least = least
        self._most = most
        self._lower = lower
        self._upper = upper
        self._refusals: deque[float] = deque(maxlen=refusals)
        self._size = float(min(most, max(least, first if learned is None or learned.gate > first else learned.gate)))
        # Up to where it doubles.
        self._doubles_below = float(most) if learned is None else min(float(most), learned.gate)
        self._floor = math.inf
        self._slow: tuple[float, float] | None = None
        self.limit = int(self._size)
        self.used = False
        self._answers = 0
        self._sum = 0.0
        self._squares = 0.0
        self._counts_from = -math.inf
        self._round_ends = math.inf
        self._cap = math.inf
        self._fastest = math.inf
        self._seen = 0
        self._usual = 0.0
        self._before_dip: float | None = None
        self._next_dip = -math.inf
        self._suspect = False

    @property
    def size(self) -> float:
        """What was learned of how many requests the host bears."""
        return self._size

    def answered(self, now: float, seconds: float) -> None:
        """A request got a good answer after so many seconds. Errors are never told: they are neither fast nor slow."""
        if now - seconds < self._counts_from:
            return
        if seconds > self._cap:
            seconds = self._cap
        elif seconds < self._fastest:
            self._fastest = seconds
        if not self._answers:
            self._round_ends = now - seconds + (QUICK_ROUND if self._fastest < QUICK else max(LEAST_ROUND, seconds))
        self._answers += 1
        self._sum += seconds
        self._squares += seconds * seconds
        enough = self._answers >= FEWEST_ANSWERS or self._size < self._doubles_below
        if now >= self._round_ends and enough and self._answers >= min(self.limit, MOST_ANSWERS):
            self._end_round(now)

    def idled(self) -> None:
        """Nothing was asked for a while: a round begins anew."""
        self._answers = 0
        self._sum = self._squares = 0.0
        self.used = False

    def refused(self, now: float) -> None:
        """The host refuses; told once for all refusals up to the end of the pause."""
        self._doubles_below = min(self._doubles_below, self._size)
        self._refusals.append(now)
        if len(self._refusals) == self._refusals.maxlen and now - self._refusals[0] <= REFUSED_SECONDS:
            self._refusals.clear()
            self._resize(self._size * REFUSED_CUT)

    def _end_round(self, now: float) -> None:
        answers, mean = self._answers, self._sum / self._answers
        error = CERTAIN * math.sqrt(max(0.0, self._squares / answers - mean * mean) / answers)
        if self._before_dip is not None:
            self._end_dip(now, mean)
        else:
            self._follow(mean, answers, error)
            bound = self._floor * SLOWER + SCATTER + error
            slow = mean > bound if self._upper is None else mean > self._upper
            fast = mean <= bound if self._lower is None else mean < self._lower
            if slow and self._suspect:
                self._cut(now, mean, bound if self._upper is None else self._upper)
            elif self.used and self._is_worth_a_dip(now):
                self._begin_dip(now)
            elif self.used and fast and not slow:
                self._grow()
            # One slow round may be chance.
            self._suspect = slow and not self._suspect
        self.used = False
        self._answers = 0
        self._sum = self._squares = 0.0

    def _grow(self) -> None:
        step = max(1.0, self._size / 16.0)
        if self._size < self._doubles_below:
            self._resize(min(2.0 * self._size, max(self._doubles_below, self._size + step)))
        else:
            self._resize(self._size + step)

    def _cut(self, now: float, mean: float, bound: float) -> None:
        self._slow = (self._size, mean)
        self._doubles_below = self._size * CUT
        self._resize(self._size * max(DEEPEST_CUT, min(CUT, CUT * bound / mean)))
        # What is under way began before the cut: once a round trip is often enough.
        self._counts_from = now

    def _follow(self, mean: float, answers: int, error: float) -> None:
        """Bring the floor up to date: at first it is the mean, then what is lower beyond chance."""
        self._seen += answers
        if self._floor is math.inf:
            self._floor = self._usual = mean
            self._next_dip = self._round_ends + DIP_SECONDS
        self._usual += 0.1 * (mean - self._usual)
        if self._slow is not None:
            (size, before), self._slow = self._slow, None
            if mean > NO_BETTER * before:
                # Fewer requests made it no faster: the host is slower by itself, and the cut was for nothing.
                self._floor = max(self._floor, mean if self._size <= self._least else math.sqrt(self._floor * mean))
                self._doubles_below = size
        elif mean + error < self._floor:
            self._floor = mean
        elif self._seen <= FIRST_ANSWERS and mean <= self._floor * SLOWER + SCATTER + error:
            self._floor += answers / self._seen * (mean - self._floor)
        self._cap = max(OUTLIER * self._floor + SCATTER, 2.0 * (self._upper or 0.0))

    def _is_worth_a_dip(self, now: float) -> bool:
        held_back = self._doubles_below <= self._size < self._most
        return held_back and now >= self._next_dip and self._usual > self._floor * RISEN

    def _begin_dip(self, now: float) -> None:
        """Ask for less during a round, to see the floor again."""
        self._before_dip = self._size
        self._counts_from = now
        self._resize(0.5 * self._size)

    def _end_dip(self, now: float, mean: float) -> None:
        assert self._before_dip is not None
        self._floor = 0.5 * (self._floor + mean)
        self._usual = self._floor
        self._resize(self._before_dip)
        self._before_dip = None
        self._counts_from = now
        self._next_dip = now + DIP_SECONDS

    def _resize(self, size: float) -> None:
        self._size = min(float(self._most), max(float(self._least), size))
        self.limit = int(self._size)
