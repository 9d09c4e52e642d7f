"""The walks of a run: those under way, those that wait their turn, and what becomes of pages that do not come."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fetcher.contracts import Source
from fetcher.coverage import list_key
from fetcher.errors import RemoteError, RequestFailed
from fetcher.governor import backoff
from fetcher.model import Failure, Page, Plan, Walk
from fetcher.stop import Stop

log = logging.getLogger("fetcher")

LOST_PAGES = 3
"""So many list pages that fail for good, one after the other, and the listing is given up."""


@dataclass(slots=True, eq=False)
class Listing:
    """A walk under way: where it is, when its next page is due (monotonic), failures of that page so far.

    `good_before` is how many pages of any walk had come when that page first failed.
    """

    walk: Walk
    due: float
    attempts: int = 0
    flying: bool = False
    good_before: int = 0


class Listings:
    """All walks of a run, and what they have come to."""

    def __init__(self, source: Source, plan: Plan, stop: Stop) -> None:
        self._source = source
        self._plan = plan
        self._stop = stop
        self._waiting: deque[Walk] = deque()
        self._lost_pages = 0
        self._good_pages = 0
        self.under_way: list[Listing] = []
        self.retries = 0
        self.unlisted = False
        """Whether something could not be listed."""
        self.lost: RemoteError | None = None
        """Why the listing was given up."""

    def add(self, walks: Iterable[Walk]) -> None:
        """Walk these after what waits already."""
        self._waiting.extend(walks)

    @property
    def unfinished(self) -> bool:
        """Whether there is anything left to walk."""
        return bool(self._waiting or self.under_way)

    @property
    def flying(self) -> bool:
        """Whether any page has been sent for and has not come."""
        return any(each.flying for each in self.under_way)

    @property
    def next_due(self) -> float:
        """When the next page of a walk under way is due."""
        return min((each.due for each in self.under_way if not each.flying), default=float("inf"))

    def due(self) -> Iterator[Listing]:
        """Those whose next page is to be sent for now; takes up what waits."""
        now = self._stop.now()
        while self._waiting and len(self.under_way) < self._source.walks:
            # The first page of all follows the request for the universe like any other page.
            self.under_way.append(Listing(self._waiting.popleft(), now + self._plan.delay))
        return (each for each in self.under_way if not each.flying and each.due <= now)

    def listed(self, listing: Listing, page: Page) -> None:
        """A page has come: its walk goes on behind it."""
        for failure in page.failures:
            log.info("%s %s cannot be used: %s", failure.stage, failure.key, failure.message)
            self.unlisted = self.unlisted or failure.stage == "list"
        self._lost_pages = 0
        self._good_pages += 1
        self._waiting.extendleft(reversed(page.more))
        self._go_on(listing, page.next)

    def failed(self, listing: Listing, error: RequestFailed) -> list[Failure]:
        """A page did not come; one more attempt is spent on it. Returns what to keep of it, if it failed for good."""
        listing.attempts += 1
        if listing.attempts == 1:
            listing.good_before = self._good_pages
        where = f"list page at {listing.walk.where}"
        if listing.attempts > self._plan.max_retries:
            return self._lose_page(listing, where, error)
        wait = backoff(listing.attempts, self._plan.max_backoff)
        self.retries += 1
        log.info("%s: %s; again in %.1f s", where, error, wait)
        listing.due = self._stop.now() + wait
        return []

    def items_left(self, density: float | None) -> int | None:
        """How many items are still to be listed, about; None where nobody can tell."""
        left = 0
        for walk in (*self._waiting, *(each.walk for each in self.under_way)):
            if walk.items is not None:
                left += walk.items
            elif density is not None:
                left += round(walk.hole.size * density)
            else:
                return None
        return left

    def _lose_page(self, listing: Listing, where: str, error: RequestFailed) -> list[Failure]:
        """A page failed for good: the walk goes on behind it, and what it would have listed stays uncovered."""
        # Where others have come meanwhile, this one is at fault, and not the host.
        self._lost_pages += self._good_pages == listing.good_before
        skipped = self._source.skip(listing.walk)
        if skipped is None or self._lost_pages >= LOST_PAGES:
            # Details that are queued already can still be had: the run ends with this error, after them.
            self.lost = RemoteError(f"{where} failed {listing.attempts} times: {error}; run again later to go on")
            log.warning("%s", self.lost)
            self.under_way.clear()
            self._waiting.clear()
            return []
        self.unlisted = True
        unlisted, rest = skipped
        name = listing.walk.label or f"{unlisted.lo:,} to {unlisted.hi:,}"
        message = f"{name} could not be listed: {error}"
        key = list_key(listing.walk.scopes, unlisted.lo)
        log.info("%s: set aside as failed", message)
        failure = Failure("list", key, error.outcome, message, error.status, error.body, listing.attempts)
        self._go_on(listing, rest)
        return [failure]

    def _go_on(self, listing: Listing, walk: Walk | None) -> None:
        listing.attempts = 0
        if listing not in self.under_way:
            return  # The listing was given up while this page was on its way.
        if walk is not None:
            listing.walk = walk
            listing.due = self._stop.now() + self._plan.delay
        else:
            self.under_way.remove(listing)
            self._waiting.extend(listing.walk.then)
