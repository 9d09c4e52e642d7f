"""The batch that is being filled: what has come since the last commit, and when that is enough for the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from fetcher.model import Batch, Detail, Failure, Key, Page, Plan

FULL_BYTES = 16_000_000
"""A batch is full with so many bytes of rows, however few these are."""

LISTED_PER_DETAIL = 10
"""Listed rows that weigh as much in a batch as one detail: about what they cost to write."""

BROUGHT_PER_DETAIL = 5
"""Items listed with their details that weigh as much as one detail: each batch holds up the requests that follow."""


@dataclass(slots=True)
class OpenBatch:
    """What has come and is not committed yet; `since` when (monotonic seconds), None while nothing has.

    `pieces` is the weight, in details, of what came in pieces.
    """

    pages: list[Page] = field(default_factory=list)
    parts: list[tuple[Key, Detail]] = field(default_factory=list)
    details: dict[Key, Detail] = field(default_factory=dict)
    gone: list[Key] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    pieces: float = 0
    bytes: int = 0
    since: float | None = None

    def at(self, now: float) -> OpenBatch:
        """This batch, to which something is added now."""
        if self.since is None:
            self.since = now
        return self

    def weight(self) -> float:
        """How full it is, in details."""
        listed = sum(len(page.rows) for page in self.pages)
        details = len(self.details) + len(self.gone) + len(self.failures)
        return max(details + self.brought / BROUGHT_PER_DETAIL, listed / LISTED_PER_DETAIL + self.pieces)

    def full(self, now: float, plan: Plan) -> bool:
        """Whether it is large or old enough to be written."""
        return self.since is not None and (
            self.weight() >= plan.batch_size or self.bytes >= FULL_BYTES or now - self.since >= plan.batch_seconds
        )

    @property
    def brought(self) -> int:
        """How many items came with their details on the page that lists them."""
        return sum(len(page.details) for page in self.pages)

    @property
    def queues(self) -> int:
        """How many items it is about to make due."""
        return sum(len(page.rows) - len(page.details) for page in self.pages)

    @property
    def feeds(self) -> bool:
        """Whether committing it makes work due."""
        return any(len(page.rows) > len(page.details) for page in self.pages)

    def closed(self, stage: str) -> Batch:
        """What one transaction is to write."""
        return Batch(tuple(self.pages), tuple(self.parts), self.details, tuple(self.gone), tuple(self.failures), stage)
