"""What a run has done so far, how fast, and what is left of it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from fetcher.batch import OpenBatch
from fetcher.listing import Listings
from fetcher.model import Committed, Counts, Plan, Progress, Traffic

RATE_SECONDS = 60.0
"""The pace shown is that of about the last minute."""


class Tally:
    """The counts of one run, and its pace. Times are monotonic seconds."""

    def __init__(self, plan: Plan, now: float) -> None:
        self._limit = plan.limit
        self._began = now
        self._counts = Counts()
        self._density: float | None = None
        self._paces: deque[tuple[float, int]] = deque()
        self._batch_seconds = 0.0
        self.queued = 0
        """How much work there is in the store."""

    def begin(self, queued: int, density: float | None, now: float) -> None:
        """What there is at first; `density` is how many items a position stands for, if anybody can tell."""
        self.queued = queued
        self._density = density
        self._paces.append((now, 0))

    def committed(self, done: Committed, queued: int, began: float, now: float) -> None:
        """A transaction that began then has ended now."""
        self._batch_seconds = now - began
        self._counts = self._counts.plus_committed(done)
        self.queued = queued
        self._paces.append((now, self._fetched))
        while len(self._paces) > 2 and self._paces[0][0] < now - RATE_SECONDS:
            self._paces.popleft()

    @property
    def limit_left(self) -> int | None:
        """How many details may still be claimed and committed, None = any number."""
        return None if self._limit is None else max(0, self._limit - self._counts.stored)

    def left(self, listings: Listings, batch: OpenBatch) -> int | None:
        """How many items are still to fetch, an estimate while listing goes on; None where nobody can tell."""
        listed = listings.items_left(self._density)
        return None if listed is None else self.queued + batch.queues + listed

    def progress(self, now: float, traffic: Traffic, listings: Listings, batch: OpenBatch, window: int) -> Progress:
        """Where the run stands; `window` is how much work is claimed."""
        left = self.left(listings, batch)
        if self.limit_left is not None:
            left = self.limit_left if left is None else min(left, self.limit_left)
        rate = self._rate(now)
        retries = self._counts.retries + listings.retries
        return Progress(
            counts=replace(self._counts, retries=retries, requests=traffic.requests, limited=traffic.limited),
            seconds=now - self._began,
            queued=self.queued,
            left=self.queued if left is None else left,
            rate=rate,
            eta=left / rate if rate and left is not None else None,
            paused=traffic.paused,
            reason=traffic.reason,
            listing=listings.unfinished,
            window=window,
            batch_seconds=self._batch_seconds,
            traffic=traffic,
        )

    @property
    def _fetched(self) -> int:
        return self._counts.stored + self._counts.gone

    def _rate(self, now: float) -> float:
        since, before = self._paces[0] if self._paces else (now, 0)
        return (self._fetched - before) / (now - since) if now > since else 0.0
