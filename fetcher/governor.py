"""How fast one host may be asked: pace, gate and pause, shared by every thread that asks it."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from fetcher.errors import Stopped
from fetcher.gate import FIRST, Gate
from fetcher.learned import Learned
from fetcher.limits import Limits, Ticket
from fetcher.metrics import Latency
from fetcher.model import Outcome, Traffic
from fetcher.pace import DAY, Pace
from fetcher.stop import Stop

IDLE_SECONDS = 60.0
"""How long a thread waits for another to leave, who wakes it."""


def backoff(attempts: int, most: float, random_: Callable[[], float] = random.random) -> float:
    """Seconds until the next try after `attempts` failures: full jitter below a doubling bound.

    (Marc Brooker, "Exponential Backoff And Jitter", 2015.)
    """
    return random_() * min(most, 2.0 ** min(attempts, 32))


class Governor:
    """Lets requests to one host begin: never more than `parallel` at once, nor more than `ceiling` a second (0 = any).

    Starts are evenly spaced, and no second holds more than `ceiling` of them. A refusal pauses all threads at once, for
    the time that the host names (at most `max_pause` seconds) or a cool-down that doubles while it goes on; then a
    single probe goes first, and its good answer lets the others follow.

    Below these bounds pace and gate (`least` to `parallel` at once; None: always `parallel`) are what the host allows:
    learned from its refusals and its latency. `lower` and `upper` are absolute latencies (seconds) for the gate,
    `refusals` within a minute lower it too; it begins at `first`.
    """

    def __init__(
        self,
        stop: Stop,
        *,
        parallel: int,
        ceiling: float = 0.0,
        max_pause: float = 300.0,
        least: int | None = None,
        lower: float | None = None,
        upper: float | None = None,
        refusals: int = 3,
        first: int = FIRST,
    ) -> None:
        self._stop = stop
        self._make_pace = partial(Pace, ceiling)
        self._make_gate = partial(
            Gate,
            parallel if least is None else least,
            parallel,
            lower=lower,
            upper=upper,
            refusals=refusals,
            first=first,
        )
        self._make_limits = partial(Limits, most=parallel, ceiling=ceiling, max_pause=max_pause)
        self._limits = self._make_limits(self._make_pace(), self._make_gate())
        # Only the thread whose turn it is waits, for the clock or for room: the others queue behind it without waking.
        self._turn = threading.Lock()
        self._changed = stop.condition()
        self._waiting = 0
        self._outcomes: Counter[str] = Counter()
        self._latency = Latency()
        self._held = False

    def recall(self, learned: Learned | None) -> None:
        """Begin with what an earlier run has learned; before the first request."""
        if learned is not None:
            age = self._stop.time() - learned.at
            gate = self._make_gate(learned=learned if age < DAY else None)
            self._limits = self._make_limits(self._make_pace(learned, age), gate)

    def enter(self, *, first: bool = False) -> Ticket:
        """Wait until a request may begin; one that goes `first` waits neither for others nor for `release`.

        Raises Stopped when the run is to end.
        """
        with nullcontext() if first else self._turn, self._changed:
            waited = False
            while True:
                if self._stop.is_set():
                    raise Stopped("stopped before a request began")
                now = self._stop.now()
                wait = self._limits.wait(now, first=first) if first or not self._held else None
                if wait is None:
                    self._waiting += 1
                    self._stop.wait(IDLE_SECONDS, self._changed)
                    self._waiting -= 1
                elif wait <= 0:
                    return self._limits.begin(now, waited=waited)
                else:
                    waited = True
                    self._stop.wait(wait, self._changed)

    def leave(
        self, ticket: Ticket, outcome: Outcome, *, status: int | None = None, retry_after: float | None = None
    ) -> Outcome:
        """Say how a request ended; returns the outcome as the host meant it (a burst of 503 is a refusal)."""
        with self._changed:
            now = self._stop.now()
            meant = self._limits.end(ticket, now, outcome, status=status, retry_after=retry_after)
            self._outcomes[meant] += 1
            self._latency.add(now - ticket.started)
            if self._waiting:
                self._changed.notify_all()
            return meant

    def told(self, allowance: int, left: int, reset: float) -> None:
        """The host has said how many requests are left of its allowance, and after how many seconds all of it is."""
        with self._changed:
            self._limits.told(self._stop.now(), allowance, left, reset)

    def abandon(self, ticket: Ticket) -> None:
        """Take back a request that was never answered: its connection was stale, or the run ends."""
        with self._changed:
            self._limits.take_back(ticket)
            self._changed.notify_all()

    def hold(self) -> None:
        """Let no request begin until `release`, except those that go first."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """Let requests begin again."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def traffic(self) -> Traffic:
        """What has gone through so far, and what holds now."""
        with self._changed:
            limits = self._limits
            paused = max(0.0, limits.paused_until - self._stop.now()) if limits.shut else 0.0
            pace = limits.pace.rate
            return Traffic(
                requests=limits.requests,
                limited=limits.limited,
                paused=paused,
                reason=limits.reason if limits.shut else "",
                pace=pace if math.isfinite(pace) else 0.0,
                gate=limits.gate.limit,
                in_flight=limits.in_flight,
                outcomes=dict(self._outcomes),
                latencies=self._latency.so_far(),
                pauses=limits.pauses,
                paused_seconds=limits.paused_seconds,
            )

    def learned(self) -> Learned:
        """What is known of the host now, for the next run."""
        with self._changed:
            pace, gate = self._limits.pace, self._limits.gate
            return Learned(pace.limit, pace.patience, pace.cumulative, gate.size, self._stop.time())
