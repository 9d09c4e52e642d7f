"""The service over HTTP: what is asked for by which address."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fetcher._version import __version__
from fetcher.errors import StoreError
from fetcher.service.bodies import (
    Accepted,
    Batch,
    Health,
    Ingestion,
    Ingestions,
    JobStatus,
    Priority,
    Problem,
    Status,
    Submission,
)
from fetcher.service.figures import Figures
from fetcher.service.guard import App, Guard
from fetcher.service.keys import Keys
from fetcher.service.service import HIGHEST_ID, Service
from fetcher.stores.jobs import IdempotencyConflict, Job

EVENT_SECONDS = 0.5
"""How often it is looked whether there is something to tell."""

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "there is no such job"}}
_NEEDS_KEY = [Depends(HTTPBearer(auto_error=False)), Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]
"""For the description alone: the guard has looked at the key before."""

Limit = Annotated[int, Query(ge=1, le=1000, description="so many at most")]


def create_app(service: Service, keys: Keys) -> App:
    """The ASGI application for a service that is open."""
    app = FastAPI(
        title="fetcher",
        version=__version__,
        summary=f"Fetches submitted ids of {service.source} into a database, by priority, and loses none.",
        docs_url=None,
        redoc_url=None,
        dependencies=_NEEDS_KEY if keys else None,
    )
    app.state.service = service
    figures = Figures(service)
    _jobs(app, service)
    _others(app, service, figures)
    app.add_exception_handler(StoreError, _unusable)
    return Guard(figures.counting(app), keys)


def _unusable(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "5"})


def _job_of(
    ingestion_id: Annotated[str, Path(description="what the submission was answered with")], request: Request
) -> Job:
    """The job that an address names."""
    try:
        found: Job | None = request.app.state.service.job(str(uuid.UUID(ingestion_id)))
    except ValueError:
        found = None
    if found is None:
        raise _unknown(ingestion_id)
    return found


TheJob = Annotated[Job, Depends(_job_of)]


def _jobs(app: FastAPI, service: Service) -> None:
    @app.post(
        "/ingest",
        status_code=202,
        responses={409: {"model": Problem, "description": "the Idempotency-Key was used for another request"}},
    )
    def submit(
        submission: Submission,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                min_length=1,
                max_length=255,
                description="a name for this request: sent again with the same one, it is stored once",
            ),
        ] = None,
    ) -> Accepted:
        """Submit ids. They are on the disk when this is answered."""
        try:
            job = service.submit(submission.ids, submission.priority, idempotency_key=idempotency_key)
        except IdempotencyConflict as error:
            raise HTTPException(409, str(error)) from None
        response.headers["Location"] = f"/status/{job.id}"
        return Accepted(ingestion_id=job.id)

    @app.get("/ingest")
    def list_jobs(
        status: JobStatus | None = None,
        priority: Priority | None = None,
        limit: Limit = 100,
        before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="from `next` of the page before")] = None,
    ) -> Ingestions:
        """The jobs, the newest first."""
        found = service.jobs(status=status, priority=priority, before=before, most=limit + 1)
        more = None
        if len(found) > limit:
            found = found[:limit]
            asked = {"status": status, "priority": priority, "limit": limit, "before": found[-1].number}
            more = "/ingest?" + "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
        return Ingestions(ingestions=[Ingestion.of(job) for job in found], next=more)

    @app.get("/status/{ingestion_id}", responses=_UNKNOWN)
    def status(
        job: TheJob,
        limit: Limit = 100,
        after: Annotated[int, Query(ge=-1, le=2**63 - 1, description="from `next` of the page before")] = -1,
    ) -> Status:
        """A job and its batches."""
        found = service.batches(job, after=after, most=limit + 1)
        more = None
        if len(found) > limit:
            found = found[:limit]
            more = f"/status/{job.id}?limit={limit}&after={found[-1].number}"
        return Status.of(job, batches=[Batch.of(each) for each in found], next=more)

    @app.get("/status/{ingestion_id}/events", response_class=EventSourceResponse, responses=_UNKNOWN)
    async def events(job: TheJob) -> AsyncIterable[ServerSentEvent]:
        """The job whenever something of it has changed, till it is completed: events `status`, then `completed`."""
        told: Job | None = None
        number = 0
        found: Job | None = job
        while found is not None and not service.ended:
            if found != told:
                told, number = found, number + 1
                yield ServerSentEvent(data=Ingestion.of(found), event="status", id=str(number))
            if found.status == "completed":
                yield ServerSentEvent(data=Ingestion.of(found), event="completed", id=str(number + 1))
                return
            await asyncio.sleep(EVENT_SECONDS)
            found = await run_in_threadpool(service.job, job.id)

    @app.delete("/ingest/{ingestion_id}", responses=_UNKNOWN)
    def cancel(job: TheJob) -> Ingestion:
        """Cancel the batches that wait; what is triggered goes on."""
        return Ingestion.of(_still(service.cancel, job))

    @app.post("/ingest/{ingestion_id}/retry", status_code=202, responses=_UNKNOWN)
    def retry(job: TheJob) -> Ingestion:
        """Ask for the failed ids again, in the turn of their job."""
        return Ingestion.of(_still(service.retry, job))


def _others(app: FastAPI, service: Service, figures: Figures) -> None:
    @app.get("/items/{item_id}", responses={404: {"model": Problem, "description": "the item is not stored"}})
    def item(item_id: Annotated[int, Path(ge=1, le=HIGHEST_ID)]) -> dict[str, Any]:
        """An item as it is stored, with what belongs to it."""
        found = service.item(item_id)
        if found is None:
            raise HTTPException(404, f"item {item_id} is not stored")
        return dict(found)

    @app.get("/healthz")
    def alive() -> Health:
        """Whether the service answers at all."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: {"model": Health, "description": "ids are taken, and not worked off"}})
    def ready(response: Response) -> Health:
        """Whether ids are worked off now."""
        state = service.state()
        if service.draining:
            response.status_code = 503
            return Health(status="draining", reason="the service is about to end")
        if state.trouble:
            response.status_code = 503
            return Health(status="stuck" if state.lasting else "waiting", reason=state.trouble)
        service.totals()  # Raises where the database cannot be read.
        return Health(status="ok", reason=state.reason or None)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Figures for Prometheus."""
        return PlainTextResponse(figures.text(), media_type="text/plain; version=0.0.4")


def _still(change: Callable[[str], Job | None], job: Job) -> Job:
    found = change(job.id)
    if found is None:
        raise _unknown(job.id)
    return found


def _unknown(name: str) -> HTTPException:
    return HTTPException(404, f"there is no job {name[:100]}")
