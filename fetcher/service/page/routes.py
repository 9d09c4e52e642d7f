"""The addresses that people look at, and those that their forms go to."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from fetcher.errors import StoreError
from fetcher.service.page.charts import charts
from fetcher.service.page.ids import read_ids
from fetcher.service.page.rendering import environment
from fetcher.service.page.standing import standing
from fetcher.service.service import HIGHEST_ID, MOST_IDS, Service
from fetcher.stores.jobs import PRIORITIES, IdempotencyConflict, Job, Status

SHOWN_JOBS = 20
"""So many jobs that run or wait are shown."""

SHOWN_ENDED = 6
"""So many that have ended are, of each kind."""

SHOWN_ROWS = 50
"""So many batches or failures are, at once."""

SHOWN_GONE = 200
"""So many ids that are gone are."""

LISTED_JOBS = 50
"""So many jobs are on a page of all of them."""

_READ = ["GET", "HEAD"]
_CHOICES: dict[str, tuple[str, Status | None]] = {
    "": ("All", None),
    "waiting": ("Waiting", "yet_to_start"),
    "running": ("Under way", "triggered"),
    "ended": ("Ended", "completed"),
    "failed": ("Ended with failures", "completed"),
}
_FIELDS = 10
"""A form has no more."""


class _Unknown(Exception):
    """There is nothing at the address."""


class _PageRoute(APIRoute):
    """Answers with a page also where it cannot be shown."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            page: Page = request.app.state.page
            try:
                return await answer(request)
            except _Unknown:
                return page.problem(
                    404, "There is no such job", "It may have been mistyped, or be of another database."
                )
            except StoreError as error:
                return page.problem(503, "The database cannot be used", f"{error}.")

        return handler


@dataclass(frozen=True, slots=True)
class Form:
    """What is in the form for submitting, and what is wrong with it. `key` names it, however often it is sent."""

    ids: str = ""
    priority: str = "MEDIUM"
    key: str = ""
    mistakes: tuple[str, ...] = ()
    further: int = 0


class Page:
    """Makes the pages of a service; its methods may be called from any thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._templates = environment(
            service=service, most_ids=MOST_IDS, highest_id=HIGHEST_ID, priorities=list(reversed(PRIORITIES))
        )

    def overview(self, form: Form | None = None, status: int = 200) -> Response:
        """All of the first page. Raises StoreError."""
        form = form or Form()
        if not form.key:
            form = replace(form, key=str(uuid.uuid4()))
        return self._made("overview.html", status, form=form, totals=self._service.totals(), **self._overview())

    def overview_parts(self) -> Response:
        """What changes of it. Raises StoreError."""
        return self._made("overview_live.html", **self._overview())

    def job(self, job: Job, after: int | None, failed: tuple[int, int]) -> Response:
        """All of the page of a job. Raises StoreError."""
        return self._made("job.html", **self._job(job, after, failed))

    def job_parts(self, job: Job, after: int | None, failed: tuple[int, int]) -> Response:
        """What changes of it. Raises StoreError."""
        return self._made("job_live.html", **self._job(job, after, failed))

    def jobs(self, choice: str, before: int | None) -> Response:
        """All jobs, or those of a kind, the newest first. Raises StoreError."""
        choice = choice if choice in _CHOICES else ""
        if choice == "failed":
            found = self._service.ended_jobs(failed=True, most=LISTED_JOBS)
        else:
            found = self._service.jobs(status=_CHOICES[choice][1], before=before, most=LISTED_JOBS + 1)
        more = urlencode({"show": choice, "before": found[LISTED_JOBS - 1].number}) if len(found) > LISTED_JOBS else ""
        names = {name: text for name, (text, _) in _CHOICES.items()}
        return self._made("jobs.html", jobs=found[:LISTED_JOBS], choices=names, choice=choice, more=more, before=before)

    def problem(self, status: int, title: str, sentence: str) -> Response:
        """A page that says that there is none."""
        return self._made("problem.html", status, title=title, sentence=sentence)

    def _made(self, template: str, status: int = 200, **values: Any) -> Response:
        # It is about now, and may be for those alone who have a key.
        text = self._templates.get_template(template).render(values)
        return HTMLResponse(text, status, headers={"Cache-Control": "no-store"})

    def _common(self) -> dict[str, Any]:
        now = time.time()
        service = self._service
        samples = service.samples()
        fresh = [each.rate for each in samples[-30:] if each.at > now - 30]
        rate = sum(fresh) / len(fresh) if fresh else 0.0
        interval = service.settings.ingest_batch_interval
        stands = standing(
            service.state(), service.backlog(), draining=service.draining, rate=rate, interval=interval, now=now
        )
        return {"standing": stands, "samples": samples, "rate": rate, "interval": interval, "now": now}

    def _overview(self) -> dict[str, Any]:
        common = self._common()
        turn = self._service.in_turn(SHOWN_JOBS + 1)
        failed = self._service.ended_jobs(failed=True, most=SHOWN_ENDED + 1)
        return {
            **common,
            "live": "/live",
            "charts": charts(common["samples"], common["now"]),
            "turn": turn[:SHOWN_JOBS],
            "more_in_turn": len(turn) > SHOWN_JOBS,
            "failed": failed[:SHOWN_ENDED],
            "more_failed": len(failed) > SHOWN_ENDED,
            "ended": self._service.ended_jobs(failed=False, most=SHOWN_ENDED),
            "back": "overview",
        }

    def _job(self, job: Job, after: int | None, failed: tuple[int, int]) -> dict[str, Any]:
        """`after` None follows what is under way."""
        service = self._service
        # Large ones are fewer, so that a page has some thousands of ids at most.
        most = max(5, min(SHOWN_ROWS, 5 * 1000 // service.settings.ingest_batch_size))
        begun = job.batches - job.waiting
        begin = max(-1, min(begun - most // 2, job.batches - most) - 1) if after is None else after
        found = service.batches(job.id, after=begin, most=most)
        job, batches = found if found is not None else (job, [])
        failures = service.failures(job, after=failed, most=SHOWN_ROWS + 1) if job.failed else []
        gone = service.failures(job, gone=True, most=SHOWN_GONE) if job.gone else []
        more_failures = len(failures) > SHOWN_ROWS
        return {
            **self._common(),
            "live": _address(f"/jobs/{job.id}/live", after, failed),
            "job": job,
            "batches": batches,
            "earlier": _address(f"/jobs/{job.id}", max(-1, begin - most), failed) if begin >= 0 else "",
            "later": _address(f"/jobs/{job.id}", batches[-1].number, failed)
            if batches and batches[-1].number + 1 < job.batches
            else "",
            "following": after is None,
            "failures": failures[:SHOWN_ROWS],
            "more_failures": _address(f"/jobs/{job.id}", after, (failures[-2][0], failures[-2][1].key))
            if more_failures
            else "",
            "first_failures": _address(f"/jobs/{job.id}", after, _FIRST) if failed != _FIRST else "",
            "gone": tuple(each.key for _, each in gone),
            "retrying": service.retrying(job, SHOWN_ROWS) if job.triggered else [],
            "back": "job",
        }


_FIRST = (-1, 0)


def _address(path: str, after: int | None, failed: tuple[int, int]) -> str:
    asked: dict[str, int] = {}
    if after is not None:
        asked["after"] = after
    if failed != _FIRST:
        asked["failed_batch"], asked["failed_id"] = failed
    return f"{path}?{urlencode(asked)}" if asked else path


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form as browsers send it."""
    try:
        fields = parse_qs(
            (await request.body()).decode("ascii"), keep_blank_values=True, errors="replace", max_num_fields=_FIELDS
        )
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _job_of(job_id: str, request: Request) -> Job:
    """The job that an address names. Raises _Unknown."""
    service: Service = request.app.state.service
    try:
        found = service.job(str(uuid.UUID(job_id)))
    except ValueError:
        found = None
    if found is None:
        raise _Unknown
    return found


_Number = Annotated[int, Query(ge=-1, le=2**63 - 1)]
TheForm = Annotated[dict[str, str], Depends(_form)]
TheJob = Annotated[Job, Depends(_job_of)]


def add_page(app: FastAPI, service: Service) -> None:
    """Have an application answer people too. `app.state.service` is the service."""
    page = app.state.page = Page(service)
    router = APIRouter(route_class=_PageRoute, include_in_schema=False)

    @router.api_route("/", methods=_READ)
    def overview() -> Response:
        return page.overview()

    @router.get("/live")
    def overview_parts() -> Response:
        return page.overview_parts()

    @router.api_route("/jobs", methods=_READ)
    def jobs(show: str = "", before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None) -> Response:
        return page.jobs(show, before)

    @router.post("/jobs")
    def submit(form: TheForm) -> Response:
        return _submitted(page, service, form)

    @router.api_route("/jobs/{job_id}", methods=_READ)
    def job(job: TheJob, after: _Number | None = None, failed_batch: _Number = -1, failed_id: _Number = 0) -> Response:
        return page.job(job, after, (failed_batch, failed_id))

    @router.get("/jobs/{job_id}/live")
    def job_parts(
        job: TheJob, after: _Number | None = None, failed_batch: _Number = -1, failed_id: _Number = 0
    ) -> Response:
        return page.job_parts(job, after, (failed_batch, failed_id))

    @router.post("/jobs/{job_id}/cancel")
    def cancel(job: TheJob, form: TheForm) -> Response:
        service.cancel(job.id)
        return _back(job, form)

    @router.post("/jobs/{job_id}/retry")
    def retry(job: TheJob, form: TheForm) -> Response:
        service.retry(job.id)
        return _back(job, form)

    app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")


def _back(job: Job, form: dict[str, str]) -> Response:
    return RedirectResponse("/" if form.get("back") == "overview" else f"/jobs/{job.id}", 303)


def _submitted(page: Page, service: Service, fields: dict[str, str]) -> Response:
    """Store a job and show it; or the form again, as it was typed, with what is wrong."""
    text = fields.get("ids", "").replace("\r\n", "\n")
    key = fields.get("key", "")[:100]
    form = Form(text, fields.get("priority", "MEDIUM"), key)
    if form.priority not in PRIORITIES:
        wrong = (f"“{form.priority[:20]}” is no priority: choose one of {', '.join(PRIORITIES)}.",)
        return page.overview(Form(text, "MEDIUM", key, wrong), 422)
    typed = read_ids(text)
    if typed.mistakes:
        return page.overview(Form(text, form.priority, key, tuple(map(str, typed.mistakes)), typed.further), 422)
    try:
        job = service.submit(typed.ids, form.priority, idempotency_key=f"page:{key}" if key else None)
    except IdempotencyConflict:
        # Somebody went back to a form that was sent, and changed it.
        wrong = (
            "This form was submitted before, with other ids. To submit these as a further job, press Submit again.",
        )
        return page.overview(Form(text, form.priority, mistakes=wrong), 409)
    return RedirectResponse(f"/jobs/{job.id}", 303)
