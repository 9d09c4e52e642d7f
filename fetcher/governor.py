"""How fast one host may be asked: pace, gate and pause, shared by every thread that asks it."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from fetcher.errors import Stopped
from fetcher.model import Outcome
from fetcher.stop import Stop

FIRST_COOL_DOWN = 1.0
"""Seconds of the first pause after a refusal that names no time; doubled while probes are refused."""

MOST_SLACK = 0.01
"""Seconds by which a start may be late without putting off those after it; at most half the time between two."""

BURST_OF_503 = 3
BURST_SECONDS = 2.0
"""So many 503 within so many seconds are a refusal; a lone one concerns its item only."""


def backoff(attempts: int, most: float, random_: Callable[[], float] = random.random) -> float:
    """Seconds until the next try after `attempts` failures: full jitter below a doubling bound.

    (Marc Brooker, "Exponential Backoff And Jitter", 2015.)
    """
    return random_() * min(most, 2.0 ** min(attempts, 32))


class Ticket(NamedTuple):
    """Permission for one request; handed back when it has ended."""

    started: float
    probe: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through a governor: requests begun, those refused, and the pause that holds now (seconds left)."""

    requests: int
    limited: int
    paused: float
    reason: str


class Governor:
    """Lets requests to one host begin: never more than `parallel` at once, nor more than `ceiling` a second (0 = any).

    Starts are evenly spaced, and no second holds more than `ceiling` of them. A refusal pauses all threads at once, for
    the time that the host names (at most `max_pause` seconds) or a cool-down that doubles while it goes on; then a
    single probe goes first, and its good answer lets the others follow.
    """

    def __init__(self, stop: Stop, *, parallel: int, ceiling: float = 0.0, max_pause: float = 300.0) -> None:
        self._stop = stop
        self._parallel = parallel
        # Threads wake late on a busy machine. What is lost by it, up to `slack`, is caught up with, and the pace is
        # slower by just as much: `ceiling` intervals later a second has passed, however late the first of them was.
        self._slack = min(0.5 / ceiling, MOST_SLACK) if ceiling else 0.0
        self._interval = (1.0 + self._slack) / ceiling if ceiling else 0.0
        self._max_pause = max_pause
        # Only the thread whose turn it is waits for the clock: the others queue behind it without waking.
        self._turn = threading.Lock()
        self._changed = stop.condition()
        self._in_flight = 0
        self._next_start = 0.0
        self._paused_at = 0.0
        self._paused_until = 0.0
        self._reason = ""
        self._shut = False
        self._held = False
        self._probing = False
        self._cool_down = FIRST_COOL_DOWN
        self._recent_503: deque[float] = deque(maxlen=BURST_OF_503)
        self._requests = 0
        self._limited = 0

    def enter(self, *, first: bool = False) -> Ticket:
        """Wait until a request may begin; one that goes `first` waits neither for others nor for `release`.

        Raises Stopped when the run is to end.
        """
        with nullcontext() if first else self._turn, self._changed:
            late = 0.0
            while True:
                if self._stop.is_set():
                    raise Stopped("stopped before a request began")
                now = self._stop.now()
                wait = self._wait_needed(now, first)
                if wait <= 0:
                    break
                self._stop.wait(wait, self._changed)
                late = min(self._slack, max(0.0, self._stop.now() - self._next_start))
            probe = self._shut
            self._probing = probe
            self._in_flight += 1
            self._requests += 1
            self._next_start = now - late + self._interval
            return Ticket(now, probe)

    def _wait_needed(self, now: float, first: bool) -> float:
        full = self._in_flight >= self._parallel or (self._shut and self._probing)
        if full or (self._held and not first):
            return 60.0  # until somebody leaves or lets go, who notifies
        return max(self._next_start, self._paused_until if self._shut else 0.0) - now

    def leave(
        self, ticket: Ticket, outcome: Outcome, *, status: int | None = None, retry_after: float | None = None
    ) -> Outcome:
        """Say how a request ended; returns the outcome as the host meant it (a burst of 503 is a refusal)."""
        with self._changed:
            now = self._stop.now()
            if status == 503 and outcome is Outcome.UNAVAILABLE:
                self._recent_503.append(now)
                burst = len(self._recent_503) == BURST_OF_503 and now - self._recent_503[0] <= BURST_SECONDS
                if retry_after is not None or burst:
                    outcome = Outcome.LIMITED
            self._in_flight -= 1
            if ticket.probe:
                self._probing = False
            if outcome is Outcome.LIMITED:
                self._limited += 1
                self._pause(ticket, now, status, retry_after)
            elif self._shut and ticket.probe:
                if outcome is Outcome.UNAVAILABLE:
                    self._pause(ticket, now, status, retry_after)
                else:
                    self._shut = False
                    self._cool_down = FIRST_COOL_DOWN
            self._changed.notify_all()
            return outcome

    def hold(self) -> None:
        """Let no request begin until `release`, except those that go first."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """Let requests begin again."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def abandon(self, ticket: Ticket) -> None:
        """Take back a request that was never answered: its connection was stale, or the run ends."""
        with self._changed:
            self._in_flight -= 1
            self._probing = self._probing and not ticket.probe
            self._changed.notify_all()

    def _pause(self, ticket: Ticket, now: float, status: int | None, retry_after: float | None) -> None:
        # A request that began before the pause did was on its way: its refusal is no news, unless it names a time.
        news = ticket.probe or not self._shut or ticket.started >= self._paused_at
        if not news and retry_after is None:
            return
        if ticket.probe:
            self._cool_down = min(self._cool_down * 2, self._max_pause)
        # "Now" and dates that our clock has passed already are no answer to when.
        seconds = min(retry_after, self._max_pause) if retry_after else self._cool_down
        if not self._shut or ticket.probe:
            self._paused_at = now
            self._paused_until = now + seconds
        else:
            self._paused_until = max(self._paused_until, now + seconds)
        self._reason = f"answered {status}" if status else "no answer"
        self._shut = True

    def traffic(self) -> Traffic:
        """What has gone through so far, and the pause that holds now."""
        with self._changed:
            paused = max(0.0, self._paused_until - self._stop.now()) if self._shut else 0.0
            return Traffic(self._requests, self._limited, paused, self._reason if self._shut else "")
