"""When a request to one host may begin: pace, gate and pause together.

Pure arithmetic: neither threads nor a clock; `now` is passed in, in seconds on a clock that never goes back.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from fetcher.gate import Gate
from fetcher.model import Outcome
from fetcher.pace import Pace

FIRST_COOL_DOWN = 1.0
"""Seconds of the first pause after a refusal that names no time; doubled while probes are refused."""

MOST_SLACK = 0.01
"""Seconds by which a start may be late without putting off those after it; at most half the time between two."""

MOST_LEARNED_SLACK = 0.05
"""The same where the pace is learned, so that no user's ceiling depends on it."""

BURST_OF_503 = 3
BURST_SECONDS = 2.0
BURST_ANSWERS = 15
"""So many 503 within so many seconds and answers are a refusal; a lone one concerns its item only.

Where one of a hundred fails and hundreds are answered in a second, three within two seconds are no burst.
"""


IDLE_SECONDS = 0.1
"""So long without any request counts as a rest."""


class Ticket(NamedTuple):
    """Permission for one request; handed back when it has ended."""

    started: float
    probe: bool


class Limits:
    """What holds now for requests to one host; `wait` says for how long, `begin`, `end` and `take_back` are told.

    Starts are evenly spaced, and no second holds more than `ceiling` of them (0 = any number).
    """

    def __init__(self, pace: Pace, gate: Gate, *, most: int, ceiling: float = 0.0, max_pause: float = 300.0) -> None:
        self.pace = pace
        self.gate = gate
        self.in_flight = 0
        self.next_start = 0.0
        self.paused_until = 0.0
        self.shut = False
        self.reason = ""
        self.requests = 0
        self.limited = 0
        self.pauses = 0
        self.paused_seconds = 0.0
        self._refused_at = 0.0
        self._most = most
        self._ceiling = ceiling
        # Threads wake late on a busy machine. What is lost by it, up to `slack`, is caught up with, and the pace is
        # slower by just as much: `ceiling` intervals later a second has passed, however late the first of them was.
        self._slack = min(0.5 / ceiling, MOST_SLACK) if ceiling else 0.0
        self._least_interval = (1.0 + self._slack) / ceiling if ceiling else 0.0
        self._interval = self._least_interval
        self._rate = pace.rate
        self._max_pause = max_pause
        self._paused_at = 0.0
        # Whether the pause began with a 503, and whether a probe was refused in it.
        self._unavailable = False
        self._insisted = False
        # When the first probe began that was not refused, whatever else it met.
        self._unrefused_at = math.inf
        self._probing = False
        self._cool_down = FIRST_COOL_DOWN
        self._ended = 0
        self._idle_since = -math.inf
        self._recent_503: deque[tuple[float, int]] = deque(maxlen=BURST_OF_503)
        self._began_at = -math.inf
        self._told_interval = 0.0
        self._told_until = -math.inf
        self._keep_pace()

    def wait(self, now: float, *, first: bool = False) -> float | None:
        """Seconds until a request may begin, none left at 0 or below; None until another has ended.

        One that goes `first` heeds no gate but the widest.
        """
        if self.in_flight >= (self._most if first else self.gate.limit):
            self.gate.used = True
            return None
        if self.shut:
            if self._probing:
                return None
            return max(self.next_start, self.paused_until) - now
        return self.next_start - now

    def begin(self, now: float, *, waited: bool) -> Ticket:
        """A request begins; `waited` says that it had to wait for its time, and may be late only as its thread woke."""
        late = min(self._slack, max(0.0, now - self.next_start)) if waited else 0.0
        probe = self._probing = self.shut
        pace = self.pace
        if not (self.in_flight or waited or probe) and now - self._idle_since > IDLE_SECONDS:
            self.gate.idled()
        self.in_flight += 1
        self.requests += 1
        if self.in_flight >= self.gate.limit:
            self.gate.used = True
        pace.began(now, used=waited)
        if pace.rate != self._rate:
            self._keep_pace()
        self._began_at = now - late
        self.next_start = self._began_at + self._interval
        if now < self._told_until:
            self.next_start = max(self.next_start, self._began_at + self._told_interval)
        return Ticket(now, probe)

    def told(self, now: float, allowance: int, left: int, reset: float) -> None:
        """The host has said that `left` requests of its `allowance` are left, all of it again in `reset` seconds.

        Starts are spaced so that what is left lasts until then. A bucket that fills again at the same time settles at
        that rate, with what is under way to spare; while nothing is left, it is half the rate at which it fills.
        """
        if reset <= 0 or left >= allowance:
            self._told_until = now
            return
        rate = max((left - self.in_flight) / reset, 0.5 * (allowance - left) / reset)
        self._told_interval = min(1.0 / rate, self._max_pause)
        self._told_until = now + reset
        self.next_start = max(self.next_start, self._began_at + self._told_interval)

    def end(
        self, ticket: Ticket, now: float, outcome: Outcome, *, status: int | None, retry_after: float | None
    ) -> Outcome:
        """A request has ended; returns the outcome as the host meant it (a burst of 503 is a refusal)."""
        self.in_flight -= 1
        self._ended += 1
        if not self.in_flight:
            self._idle_since = now
        if outcome is Outcome.OK and not ticket.probe:
            self.pace.answered()
            self.gate.answered(now, now - ticket.started)
            return outcome
        burst = status == 503 and outcome is Outcome.UNAVAILABLE and self._is_burst(now)
        if burst or (status == 503 and outcome is Outcome.UNAVAILABLE and retry_after is not None):
            outcome = Outcome.LIMITED
        if ticket.probe:
            self._probing = False
        if outcome is Outcome.LIMITED:
            self.limited += 1
            self._unrefused_at = math.inf
            self._insisted = ticket.probe or (self.shut and self._insisted)
            if not self.shut:
                self.pauses += 1
                self._refused_at = now
                self._unavailable = status == 503
                self.pace.refused(now, overloaded=burst and retry_after is None, unavailable=status == 503)
                if not self.pace.in_vain:
                    self.gate.refused(now)
            self._pause(ticket, now, status, retry_after)
        elif self.shut and ticket.probe:
            alone = status is not None and self._unrefused_at == math.inf and not self._unavailable
            self._unrefused_at = min(self._unrefused_at, ticket.started)
            if outcome is Outcome.UNAVAILABLE and alone and retry_after is None:
                # It may concern its item only, and the host refuses no more: another goes first, at once.
                self.paused_until = now
            elif outcome is Outcome.UNAVAILABLE:
                self._pause(ticket, now, status, retry_after)
            else:
                self._reopen(now)
        elif status is not None:
            self.pace.answered()
        return outcome

    def take_back(self, ticket: Ticket) -> None:
        """A request was never answered: its connection was stale, or the run ends."""
        self.in_flight -= 1
        self._probing = self._probing and not ticket.probe

    def _is_burst(self, now: float) -> bool:
        """Whether this 503 is the last of many in short time."""
        recent = self._recent_503
        recent.append((now, self._ended))
        since, ended = recent[0]
        return len(recent) == BURST_OF_503 and now - since <= BURST_SECONDS and self._ended - ended < BURST_ANSWERS

    def _pause(self, ticket: Ticket, now: float, status: int | None, retry_after: float | None) -> None:
        # A request that began before the pause did was on its way: its refusal is no news, unless it names a time.
        news = ticket.probe or not self.shut or ticket.started >= self._paused_at
        if not news and retry_after is None:
            return
        if ticket.probe:
            self._cool_down = min(self._cool_down * 2, self._max_pause)
        # "Now" and dates that our clock has passed already are no answer to when.
        seconds = min(retry_after or self._cool_down, self._max_pause)
        if not self.shut or ticket.probe:
            self._paused_at = now
            self.paused_until = now + seconds
        else:
            self.paused_until = max(self.paused_until, now + seconds)
        self.reason = f"answered {status}" if status else "no answer"
        self.shut = True

    def _reopen(self, now: float) -> None:
        self.shut = False
        self.paused_seconds += now - self._refused_at
        self._cool_down = FIRST_COOL_DOWN
        self.pace.reopened(now, self._unrefused_at, insisted=self._insisted)
        self.pace.answered()
        self._keep_pace()
        self.next_start = max(self.next_start, now)

    def _keep_pace(self) -> None:
        """Take over the pace."""
        self._rate = rate = self.pace.rate
        self._interval = max(self._least_interval, 1.0 / rate)
        if not self._ceiling:
            self._slack = min(0.5 / rate, MOST_LEARNED_SLACK) if self._interval else 0.0
