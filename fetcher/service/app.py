"""The service over HTTP: what is asked for by which address."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fetcher._version import __version__
from fetcher.errors import StoreError
from fetcher.service.bodies import (
    EXAMPLE_ID,
    Accepted,
    Batch,
    Faults,
    Health,
    Ingestion,
    Ingestions,
    Item,
    JobStatus,
    Priority,
    Problem,
    Status,
    Submission,
)
from fetcher.service.description import describe
from fetcher.service.figures import Figures
from fetcher.service.guard import App, Guard
from fetcher.service.keys import Keys
from fetcher.service.page import add_page
from fetcher.service.refusals import invalid, refuse_well
from fetcher.service.service import HIGHEST_ID, Service
from fetcher.stores.jobs import IdempotencyConflict, Job

EVENT_SECONDS = 0.5
"""How often it is looked whether there is something to tell."""

T = TypeVar("T")

Answers = dict[int | str, dict[str, Any]]

_UNKNOWN: Answers = {404: {"model": Problem, "description": "there is no such job"}}
_INVALID: Answers = {422: {"model": Faults, "description": "a value is wrong; nothing was done"}}

Limit = Annotated[int, Query(ge=1, le=1000, description="so many at most")]


def create_app(service: Service, keys: Keys) -> App:
    """The ASGI application for a service that is open."""
    app = FastAPI(
        title="fetcher",
        version=__version__,
        summary=f"Fetches submitted ids of {service.source} into a database, by priority, and loses none.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    figures = Figures(service)
    _jobs(app, service)
    _others(app, service, figures)
    add_page(app, service)
    refuse_well(app)
    describe(app, keys=bool(keys))
    return figures.counting(Guard(app, keys))


async def _job_id(
    ingestion_id: Annotated[
        str,
        Path(
            description="what the submission was answered with",
            json_schema_extra={"format": "uuid", "examples": [EXAMPLE_ID]},
        ),
    ],
) -> str:
    """The id of a job, as it is stored; what is no id names no job."""
    try:
        return str(uuid.UUID(ingestion_id))
    except ValueError:
        raise _unknown(ingestion_id) from None


JobId = Annotated[str, Depends(_job_id)]


def _job_of(job_id: JobId, request: Request) -> Job:
    """The job that an address names."""
    service: Service = request.app.state.service
    return _there(service.job(job_id), job_id)


TheJob = Annotated[Job, Depends(_job_of)]


def _jobs(app: FastAPI, service: Service) -> None:
    @app.post(
        "/ingest",
        status_code=202,
        response_description="the ids are stored",
        responses={
            202: {"headers": {"Location": {"description": "where its status is", "schema": {"type": "string"}}}},
            408: {"model": Problem, "description": "the body came too slowly"},
            415: {"model": Problem, "description": "the body is said to be something else than JSON"},
            422: {
                "model": Faults,
                "description": "a value is wrong, or the Idempotency-Key stands for another request; nothing is stored",
            },
        },
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
            # As draft-ietf-httpapi-idempotency-key-header has it; 409 is for a first request that is still under way,
            # which here is waited for.
            raise invalid("header", "Idempotency-Key", str(error), "idempotency_conflict") from None
        response.headers["Location"] = f"/status/{job.id}"
        return Accepted(ingestion_id=job.id)

    @app.get("/ingest", responses=_INVALID)
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

    # Asked more often than all else: by one thread in one go, and no body is checked that was just made.
    @app.get("/status/{ingestion_id}", responses={**_UNKNOWN, **_INVALID}, response_model=Status)
    def status(
        job_id: JobId,
        limit: Limit = 100,
        after: Annotated[int, Query(ge=-1, le=2**63 - 1, description="from `next` of the page before")] = -1,
    ) -> Response:
        """A job and its batches."""
        job, found = _there(service.batches(job_id, after=after, most=limit + 1), job_id)
        more = None
        if len(found) > limit:
            found = found[:limit]
            more = f"/status/{job.id}?limit={limit}&after={found[-1].number}"
        told = Status.of(job, batches=[Batch.of(each) for each in found], next=more)
        return Response(told.model_dump_json(), media_type="application/json")

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
            try:
                found = await run_in_threadpool(service.job, job.id)
            except StoreError:
                return  # Who follows asks again, and is told.

    @app.delete("/ingest/{ingestion_id}", responses=_UNKNOWN)
    def cancel(job_id: JobId) -> Ingestion:
        """Cancel the batches that wait; what is triggered goes on."""
        return Ingestion.of(_there(service.cancel(job_id), job_id))

    @app.post("/ingest/{ingestion_id}/retry", status_code=202, responses=_UNKNOWN)
    def retry(job_id: JobId) -> Ingestion:
        """Ask for the failed ids again, in the turn of their job."""
        return Ingestion.of(_there(service.retry(job_id), job_id))


def _others(app: FastAPI, service: Service, figures: Figures) -> None:
    @app.get(
        "/items/{item_id}",
        response_model=Item,
        responses={404: {"model": Problem, "description": "the item is not stored"}, **_INVALID},
    )
    def item(item_id: Annotated[int, Path(ge=1, le=HIGHEST_ID)]) -> Response:
        """An item as it is stored, with what belongs to it."""
        found = service.item(item_id)
        if found is None:
            raise HTTPException(404, f"item {item_id} is not stored")
        # In ASCII: what an API sends escaped, as half of a pair, need not be encodable.
        return Response(json.dumps(found), media_type="application/json")

    @app.get("/healthz")
    def alive() -> Health:
        """Whether the service answers at all."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: {"model": Health, "description": "ids are taken, and not worked off"}})
    def ready(request: Request, response: Response) -> Health:
        """Whether ids are worked off now; why not is told to whoever has a key, where one is needed."""
        found = _health(service)
        if found.status != "ok":
            response.status_code = 503
        if not request.state.admitted:
            found.reason = None
        return found

    @app.get("/metrics", response_class=PlainTextResponse, response_description="version 0.0.4 of the text format")
    def metrics() -> Response:
        """Figures for Prometheus."""
        return PlainTextResponse(figures.text(), media_type="text/plain; version=0.0.4")


def _health(service: Service) -> Health:
    if service.draining:
        return Health(status="draining", reason="the service is about to end")
    state = service.state()
    if state.trouble:
        return Health(status="stuck" if state.lasting else "waiting", reason=state.trouble)
    try:
        service.totals()
    except StoreError as error:
        return Health(status="unusable", reason=str(error))
    return Health(status="ok", reason=state.reason or None)


def _there(found: T | None, name: str) -> T:
    if found is None:
        raise _unknown(name)
    return found


def _unknown(name: str) -> HTTPException:
    return HTTPException(404, f"there is no job {name[:100]}")
