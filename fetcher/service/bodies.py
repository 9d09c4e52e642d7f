"""What the service takes and answers, as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from fetcher.service.service import HIGHEST_ID, MOST_IDS
from fetcher.stores.jobs import Job, JobBatch, JobFailure, Retrying

Priority = Literal["HIGH", "MEDIUM", "LOW"]
JobStatus = Literal["yet_to_start", "triggered", "completed"]

EXAMPLE_ID = "5d1f0f4e-6c0f-4bb4-9a57-0e3f6f0c2a11"
"""The id of a job, where one is shown."""

_TIME = "2026-11-28T15:04:05.250000Z"

Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Id = Annotated[int, Field(strict=True, ge=1, le=HIGHEST_ID)]


# Without nulls, which the framework would leave out of what it tells.
_JOB: dict[str, Any] = {
    "ingestion_id": EXAMPLE_ID,
    "status": "completed",
    "priority": "HIGH",
    "ids": 5,
    "counts": {"ok": 4, "gone": 1, "failed": 0, "cancelled": 0, "open": 0},
    "batch_count": 2,
    "batches_waiting": 0,
    "created_at": _TIME,
    "started_at": _TIME,
    "finished_at": _TIME,
}
_BATCH: dict[str, Any] = {
    "batch_id": "0b4e6f0a-3c59-5a3c-9b6c-2f6a4f1f7d10",
    "ids": [1, 2, 3],
    "status": "completed",
    "outcome": "ok",
    "triggered_at": _TIME,
    "finished_at": _TIME,
    "retrying": [],
    "failures": [],
}


def _as_written_elsewhere(ids: Any) -> Any:
    """Whole numbers, with those as integers that a client wrote as 3.0: in JSON, and by our description, they are."""
    if isinstance(ids, list) and float in set(map(type, ids)):
        return [int(each) if isinstance(each, float) and each.is_integer() else each for each in ids]
    return ids


class Submission(BaseModel):
    """Ids that are to be fetched."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"ids": [1, 2, 3, 4, 5], "priority": "HIGH"}]}
    )

    ids: Annotated[
        list[Id], FailFast(), Field(min_length=1, max_length=MOST_IDS), BeforeValidator(_as_written_elsewhere)
    ] = Field(description=f"1 to {MOST_IDS:,} ids, each from 1 to {HIGHEST_ID:,}; what comes twice counts once")
    priority: Priority = Field("MEDIUM", description="what is submitted with a higher one is fetched first")


class Accepted(BaseModel):
    """A submission is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ingestion_id": EXAMPLE_ID}]})

    ingestion_id: Uuid = Field(description="names the job in all that asks for it")


class Counts(BaseModel):
    """How many ids of a job have ended how, and how many have not."""

    ok: int = Field(description="fetched and stored")
    gone: int = Field(description="the API says that there is no such item")
    failed: int = Field(description="failed for good, after all retries")
    cancelled: int = Field(description="taken back before they were triggered")
    open: int = Field(description="not ended yet")


class Ingestion(BaseModel):
    """A job without its batches."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    ingestion_id: Uuid
    status: JobStatus = Field(
        description="yet_to_start while every batch is, completed when every batch is, else triggered"
    )
    priority: Priority
    ids: int = Field(description="how many ids it has")
    counts: Counts
    batch_count: int
    batches_waiting: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, **more: Any) -> Self:
        """A job, as it is told."""
        return cls(
            ingestion_id=job.id,
            status=job.status,
            priority=job.priority,  # type: ignore[arg-type]
            ids=job.ids,
            counts=Counts(ok=job.stored, gone=job.gone, failed=job.failed, cancelled=job.cancelled, open=job.open_ids),
            batch_count=job.batches,
            batches_waiting=job.waiting,
            created_at=_moment(job.created_at),
            started_at=_moment(job.started_at),
            finished_at=_moment(job.finished_at),
            **more,
        )


class Failure(BaseModel):
    """An id that was not stored, and why."""

    id: int
    outcome: str = Field(description="gone, denied, unavailable or malformed")
    reason: str
    attempts: int
    ended_at: datetime

    @classmethod
    def of(cls, failure: JobFailure) -> Self:
        """A failure, as it is told."""
        return cls(
            id=failure.key,
            outcome=failure.outcome,
            reason=failure.message,
            attempts=failure.attempts,
            ended_at=_moment(failure.ended_at),
        )


class Retry(BaseModel):
    """An id that has failed and is asked for again."""

    id: int
    outcome: str = Field(description="how the last attempt ended")
    reason: str
    attempts: int
    next_attempt_at: datetime

    @classmethod
    def of(cls, retrying: Retrying) -> Self:
        """A retry, as it is told."""
        return cls(
            id=retrying.key,
            outcome=retrying.outcome,
            reason=retrying.message,
            attempts=retrying.attempts,
            next_attempt_at=_moment(retrying.due_at),
        )


class Batch(BaseModel):
    """Ids that are triggered together."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BATCH]})

    batch_id: Uuid
    ids: list[int]
    status: JobStatus
    outcome: Literal["ok", "failed", "cancelled"] | None = Field(description="how it ended; null while it has not")
    triggered_at: datetime | None
    finished_at: datetime | None
    retrying: list[Retry] = Field(description="ids that failed and are asked for again")
    failures: list[Failure] = Field(description="ids that were not stored, and why")

    @classmethod
    def of(cls, batch: JobBatch) -> Self:
        """A batch, as it is told."""
        return cls(
            batch_id=batch.id,
            ids=list(batch.ids),
            status=batch.status,
            outcome=batch.outcome,
            triggered_at=_moment(batch.triggered_at),
            finished_at=_moment(batch.finished_at),
            retrying=[Retry.of(each) for each in batch.retrying],
            failures=[Failure.of(each) for each in batch.failures],
        )


class Status(Ingestion):
    """A job with its batches, or some of them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_JOB, "batches": [_BATCH], "next": f"/status/{EXAMPLE_ID}?limit=1&after=0"}]}
    )

    batches: list[Batch]
    next: str | None = Field(description="where further batches are; null at the end")


class Ingestions(BaseModel):
    """Jobs, the newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ingestions": [_JOB], "next": "/ingest?limit=1&before=17"}]}
    )

    ingestions: list[Ingestion]
    next: str | None = Field(description="where older ones are; null at the end")


class Item(BaseModel):
    """An item: the columns of its table, and the rows of each table that belongs to it."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{"id": 4711, "user": "somebody", "tags": [{"id": 1, "tag": "ocean"}]}]},
    )


class Health(BaseModel):
    """Whether the service lives, or works ids off."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "waiting", "reason": "the API is unavailable"}]}
    )

    status: Literal["ok", "draining", "waiting", "stuck", "unusable"] = Field(
        description="waiting: it goes on by itself; stuck: somebody has to do something about it"
    )
    reason: str | None = None


class Problem(BaseModel):
    """Why a request was refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"detail": f"there is no job {EXAMPLE_ID}"}]})

    detail: str


class Fault(BaseModel):
    """A value that is wrong."""

    type: str = Field(description="the kind of fault, in a word")
    loc: list[str | int] = Field(description="where it is: body, query, path or header, then its name")
    msg: str = Field(description="what is wrong with it")


class Faults(BaseModel):
    """Why a request was refused: the values that are wrong, the first ones of many."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "detail": [
                        {
                            "type": "greater_than_equal",
                            "loc": ["body", "ids", 0],
                            "msg": "Input should be greater than or equal to 1",
                        }
                    ]
                }
            ]
        }
    )

    detail: list[Fault]


def _moment(seconds: float | None) -> Any:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
