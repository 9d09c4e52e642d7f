"""What a job is, its batches, and how ids end, as plain facts."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Literal

from fetcher.errors import FetcherError

Status = Literal["yet_to_start", "triggered", "completed"]

PRIORITIES = {"LOW": 1, "MEDIUM": 2, "HIGH": 3}
"""The priorities of jobs, as `work` has them: a mirror's own items have 0."""

COUNTED = 10_000
"""So many open jobs are counted at most where a person only looks: further ones are "more"."""


class IdempotencyConflict(FetcherError):
    """An idempotency key was used before, for another request."""


@dataclass(frozen=True, slots=True)
class Job:
    """One submission: times are Unix seconds, the counts below `batches` are of batches, then of ids.

    `stored` ids were fetched, `gone` ones are no more, `failed` ones failed for good; `open_ids` have not ended yet.
    """

    number: int
    id: str
    priority: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    ids: int
    batches: int
    waiting: int
    triggered: int
    stored: int
    gone: int
    failed: int
    cancelled: int

    @property
    def status(self) -> Status:
        """`yet_to_start` while every batch is, `completed` when every batch is, else `triggered`."""
        if self.waiting == self.batches:
            return "yet_to_start"
        return "triggered" if self.waiting or self.triggered else "completed"

    @property
    def open_ids(self) -> int:
        """How many ids have not ended yet."""
        return self.ids - self.stored - self.gone - self.failed - self.cancelled


@dataclass(frozen=True, slots=True)
class JobFailure:
    """How an id ended that was not stored: `outcome` is gone, denied, unavailable or malformed."""

    key: int
    outcome: str
    message: str
    attempts: int
    ended_at: float


@dataclass(frozen=True, slots=True)
class Retrying:
    """An id that failed and is tried again at `due_at` (Unix seconds)."""

    key: int
    stage: str
    outcome: str
    message: str
    attempts: int
    due_at: float


@dataclass(frozen=True, slots=True)
class JobBatch:
    """Ids that are triggered together; `retrying` and `failures` say what became of those that did not go well."""

    job: str
    number: int
    ids: tuple[int, ...]
    status: Status
    triggered_at: float | None
    finished_at: float | None
    stored: int
    gone: int
    failed: int
    cancelled: int
    retrying: tuple[Retrying, ...] = ()
    failures: tuple[JobFailure, ...] = ()

    @property
    def id(self) -> str:
        """A name of its own, which its place in its job gives."""
        return str(uuid.uuid5(uuid.UUID(self.job), str(self.number)))

    @property
    def outcome(self) -> Literal["ok", "failed", "cancelled"] | None:
        """How it ended: `cancelled` when ids of it were, `failed` when ids failed for good; None while it goes on."""
        if self.status != "completed":
            return None
        return "cancelled" if self.cancelled else "failed" if self.failed else "ok"


@dataclass(frozen=True, slots=True)
class JobTotals:
    """All jobs of a database: how many, how many go on; how many ids wait for their turn or have not ended."""

    jobs: int
    unfinished: int
    open_ids: int
    failed_ids: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Triggered:
    """A batch that has just become work."""

    job: str
    batch: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has not ended, counted up to `COUNTED` jobs: jobs, their open ids, the batches that wait."""

    jobs: int
    ids: int
    batches: int

    @property
    def is_more(self) -> bool:
        """Whether there is more than was counted."""
        return self.jobs > COUNTED
