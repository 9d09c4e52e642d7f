"""How many requests a second a host allows, found by counting what it answers between its refusals.

Pure arithmetic: the time is passed in, in seconds on a clock that never goes back.

A token bucket that was empty at one refusal and is empty at the next has let through just what flowed in between, so
its rate is their number by that time; a bucket that was full as the first request came has then let through its burst
too, which is about what flows in during the pause. From the measured limit the pace is found as CUBIC finds a window
(RFC 9438): back to the limit quickly, level around it; then it doubles each second in case the limit is gone.

Not every refusal is the fault of our pace. One measurement is a guess: the pace before it is tried again soon, fast.
If the host then refuses after as many as before, the guess was right; if more goes through, refusals measure nothing.
"""

from __future__ import annotations

import math
from collections import deque

from fetcher.learned import Learned

LEAST = 0.1
"""Requests a second that are always tried."""

BACKED_OFF = 0.95
"""The share of the measured limit with which the pace begins after a refusal."""

PATIENCE = 8.0
"""Seconds of use from there back to the limit; as many again are spent just above it."""

MOST_PATIENCE = 300.0
"""It doubles, up to so many seconds, with each refusal met by trying more."""

GUESS_PAUSES = 3.0
"""So many times the pause of a refusal (at least a second) a limit that was measured once is kept to.

Then the pace doubles each second. A host that blocks whoever asks 70 times has been asked 200 times by then.
"""

ODD = 0.8
"""A measurement below this share of the limit is not of the same limit: it fell, or there is none."""

ALIKE = 0.9
"""Two measurements are of the same limit if the lower is at least this share of the other."""

DISPROVED = 1.1
"""A guess is wrong when so many times the limit has gone through."""

SURELY_DISPROVED = 2.0
"""Refusals measure nothing when so many times the guess has gone through."""

DAY = 86_400.0

LONG_PAUSE = 5.0
"""Seconds of refusals for which a token bucket has no use: the host counts over a longer time."""

SAFE_SHARE = 0.8
"""The share of a cumulative limit that is used."""

MOST_LONG_PATIENCE = 3600.0

PLATEAU = 2.0 - BACKED_OFF
"""So many times the limit is the pace before more is tried in earnest."""

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
        # A limit that was measured once, and the pace that went well before.
        self._guessed = False
        self._former = math.inf
        self._first_guess = 0.0
        # The last measurement that was far below the limit, and how many there were since one was right.
        self._odd = math.inf
        self._oddities = 0
        self._cumulative = False
        self._disproved = False
        self._brief = False
        # So many requests a bucket has saved at most.
        self._burst = math.inf
        self._pause = 0.0
        # In so many seconds the pace doubles: where a refusal costs much it is met slowly, and measured well.
        self._tempo = 1.0
        self._used = 0.0
        self._next_change = 0.0
        self._opened_at: float | None = None
        self._emptied_at: float | None = None
        self._is_least = False
        self._next_mark = -math.inf
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)
        self._refused_at = 0.0
        self._overloaded = False
        self._unavailable = False
        # After an overload more is tried slowly: the gate has to keep up.
        self._gently = False
        # Whether it was refused below the limit, by a little.
        self._early = False
        if learned is not None and learned.rate is not None:
            self._cumulative = self._guessed = learned.cumulative
            # Yesterday's limit is tried again slowly, last week's less so.
            self._measure(learned.rate, max(PATIENCE, 2.0 * learned.patience * 0.5 ** max(0.0, age / DAY)))
            self._pause = self._patience / GUESS_PAUSES

    @property
    def limit(self) -> float | None:
        """The limit as measured; None when there is none known."""
        return self._limit if math.isfinite(self._limit) else None

    @property
    def patience(self) -> float:
        """Seconds of use from a refusal back to the limit."""
        return self._patience

    @property
    def in_vain(self) -> bool:
        """Whether the host refuses at any pace, as far as is known."""
        return self._oddities == 2

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
                if self._used > self._patience:
                    self._doubt(now)
                self._change()

    def answered(self) -> None:
        """A request was not refused."""
        self.answers += 1

    def refused(self, now: float, *, overloaded: bool = False, unavailable: bool = False) -> None:
        """The host refuses; told once for all refusals up to `reopened`.

        `overloaded`: for no limit of its own; `unavailable`: it may be down, and the pause tells nothing.
        """
        self._refused_at = now
        self._overloaded = overloaded
        self._unavailable = unavailable

    def reopened(self, now: float, asked_at: float, *, insisted: bool = False) -> None:
        """The host answers again, asked at `asked_at`; `insisted`: it refused a probe before."""
        assert self._opened_at is not None
        answers, self.answers = self.answers, 0
        self._pause = asked_at - self._refused_at
        self._tempo = max(1.0, self._pause) if insisted else 1.0
        if self._overloaded:
            self._relieve(answers)
        elif answers >= ENOUGH or self._emptied_at is not None:
            self._count(max(1, answers), insisted=insisted)
        elif math.isfinite(self.rate):
            self._relieve(answers)
        # What the first refusal tells is the least that a host allows, above all if nobody was let in for long.
        self._is_least = self._emptied_at is None and insisted and self._pause >= LONG_PAUSE
        self._emptied_at = self._refused_at
        self._opened_at = now
        self._marks.clear()

    def _relieve(self, answers: int) -> None:
        """Ask less for a while of a host that is overloaded."""
        assert self._opened_at is not None
        before = self.rate
        if not math.isfinite(before):
            before = answers / max(self._refused_at - self._opened_at, 1e-3)
        if before:
            self._guessed = False
            self._measure(RELIEF * before, PATIENCE)
            self._gently = True

    def _count(self, answers: int, *, insisted: bool) -> None:
        """Measure the limit by what was answered since the last refusal."""
        before, pause = self.rate, self._pause
        tried = self._used >= self._patience
        limit = self._through(self._refused_at, answers)
        long = pause >= LONG_PAUSE
        # A host that was brief before has to insist: a long time may be named by chance.
        believed = insisted or self._cumulative or not self._brief
        if long and believed and not (self._disproved or self._unavailable):
            again = self._cumulative and tried
            patience = max(GUESS_PAUSES * pause, 2.0 * self._patience if self._cumulative else 0.0)
            limit = SAFE_SHARE * min(limit, before)
            self._cumulative, self._guessed, self._former = True, not again, math.inf
            self._measure(max(limit, self._limit) if again else limit, min(patience, MOST_LONG_PATIENCE))
            return
        if long and self._brief and not insisted:
            return
        self._brief = self._brief or not long
        if self._emptied_at is not None:
            limit = max(limit, answers / max(self._refused_at - self._emptied_at, 1e-3))
        if long and math.isfinite(before) and not insisted:
            # What a bucket saved in such a time nobody knows.
            limit = max(limit, RELIEF * before)
        limit = min(limit, before)
        odd = limit * (1.0 + 1.0 / answers) < (ALIKE if self._guessed and tried else ODD) * self._limit
        if not math.isfinite(self._limit):
            self._burst = answers
            self._guess(limit, GUESS_PAUSES * max(1.0, pause), former=math.inf)
        elif odd:
            self._wonder(limit)
        elif tried and not self._guessed and before <= PLATEAU * self._limit:
            # As many go through at this pace whether it is the limit or not: only a faster one tells.
            self._guess(limit, self._patience, former=math.inf)
        elif tried:
            usual = max(PATIENCE, LONG_PAUSE * pause if long else 0.0)
            self._guessed, self._former, self._oddities = limit * ALIKE > self._limit, math.inf, 0
            self._measure(limit, max(usual, min(2.0 * self._patience, MOST_PATIENCE)))
        elif self._early and not self._guessed and not self.in_vain:
            # The second time that it refuses below the limit, by a little: the limit is lower.
            self._guess(limit, self._patience, former=math.inf)
        else:
            self._early = True

    def _wonder(self, limit: float) -> None:
        """The host has refused far earlier than it should have: a limit that fell, or no limit at all."""
        again = ALIKE * self._odd <= limit <= self._odd / ALIKE
        self._odd = limit
        self._oddities = min(2, self._oddities + 1)
        if self._oddities < 2 or again:
            self._guess(limit, GUESS_PAUSES * max(2.0, self._pause), former=self._well())
        elif self._guessed and math.isfinite(self._former):
            self._trust(self._former)

    def _doubt(self, now: float) -> None:
        """Give up a limit that more has gone through than it allows."""
        assert self._opened_at is not None
        allowed = self._limit / SAFE_SHARE if self._cumulative else self._limit
        if self._guessed or self._cumulative:
            through = self._through(now, self.answers, saved=1.0)
        else:
            # What a bucket may have saved in all this time is more than what flows in during a pause.
            through = self.answers / (now - self._opened_at + max(self._pause, 1.0))
        if through <= DISPROVED * allowed:
            return
        if self._is_least:
            # That a host allows more than at least is no wonder: how much more is found slowly.
            self._cumulative, self._disproved = False, True
            return
        self._disproved = self._disproved or self._cumulative
        self._cumulative = False
        if not self._guessed:
            self._guessed, self._former = True, math.inf
            self._trust(self.rate)
            return
        if through <= SURELY_DISPROVED * self._first_guess:
            # A small bucket is measured too low at first, for it saves less than what flows in during a pause.
            self._limit = through
            return
        self._oddities = 2
        self._trust(self._former if math.isfinite(self._former) else self.rate)

    def _well(self) -> float:
        """The pace that went well before, infinite when there was none."""
        return self._former if self._guessed else self._limit

    def _trust(self, limit: float) -> None:
        """Go on from a limit that went well; none that is known now keeps the pace from growing fast."""
        self._guessed = self._guessed and not math.isfinite(self._former)
        self._measure(limit, PATIENCE, used=PATIENCE)

    def _guess(self, limit: float, patience: float, former: float) -> None:
        """Keep to a limit that was measured once, then go back towards the pace that went well before."""
        self._guessed, self._former, self._cumulative = True, former, False
        self._measure(limit, patience)
        self._first_guess = self._limit

    def _through(self, now: float, answers: int, saved: float = 0.0) -> float:
        """Requests a second that a bucket surely lets through.

        However full it was at a mark: it let through no more from then on than it had saved and what flowed in. And it
        had saved no more than what flows in during a pause (or `saved` seconds at least), nor than it had at first.
        """
        assert self._opened_at is not None
        saved = max(self._pause, saved)
        since = [(answers - count, now - at) for at, count in ((self._opened_at, 0), *self._marks)]
        return max(
            max(count / max(seconds + saved, 1e-3), (count - self._burst) / max(seconds, 1e-3))
            for count, seconds in since
        )

    def _measure(self, limit: float, patience: float, used: float = 0.0) -> None:
        self._limit = max(self._least, limit)
        self._patience = patience
        self._used = used
        self._gently = self._early = False
        self._change()

    def _change(self) -> None:
        """Find the rate after so much use."""
        distance = self._used / self._patience - 1.0
        level = math.inf if self._gently else 0.0 if self._guessed else 1.0
        rate = self._limit * (1.0 + (1.0 - BACKED_OFF) * min(distance, level) ** 3)
        if distance > level:
            rate *= 2.0 ** min((self._used - (1.0 + level) * self._patience) / self._tempo, 64.0)
        if self._guessed:
            rate = min(rate, self._former)
        self.rate = min(self.ceiling, max(self._least, rate))
        self._next_change = self._used + min(self._patience / 64.0, 0.25)
