"""Submitted ids: jobs, the batches they are worked off in, and how each id ended.

A batch's ids lie in `job_batches` until its turn comes; only then do they become rows of `work`, and the end of that
work settles them, in the transaction that writes what came of it.
"""

from fetcher.stores.jobs.asking import cancel, retry, submit
from fetcher.stores.jobs.facts import (
    COUNTED,
    PRIORITIES,
    Backlog,
    IdempotencyConflict,
    Job,
    JobBatch,
    JobFailure,
    JobTotals,
    Retrying,
    Status,
    Triggered,
)
from fetcher.stores.jobs.looking import (
    backlog,
    batches,
    contradictions,
    ended,
    failures,
    in_turn,
    job,
    jobs,
    retrying,
    totals,
)
from fetcher.stores.jobs.turns import due_work, is_busy, settle, trigger, triggered_at

__all__ = [
    "COUNTED",
    "PRIORITIES",
    "Backlog",
    "IdempotencyConflict",
    "Job",
    "JobBatch",
    "JobFailure",
    "JobTotals",
    "Retrying",
    "Status",
    "Triggered",
    "backlog",
    "batches",
    "cancel",
    "contradictions",
    "due_work",
    "ended",
    "failures",
    "in_turn",
    "is_busy",
    "job",
    "jobs",
    "retry",
    "retrying",
    "settle",
    "submit",
    "totals",
    "trigger",
    "triggered_at",
]
