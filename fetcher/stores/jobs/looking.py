"""What a person or a program looks at: jobs, their batches, and what became of ids."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from fetcher.stores.jobs.facts import (
    COUNTED,
    PRIORITIES,
    Backlog,
    Job,
    JobBatch,
    JobFailure,
    JobTotals,
    Retrying,
    Status,
)
from fetcher.stores.sql import Sql

ITS_WORK = "stage IN ('detail', 'item') AND work.key = +job_work.key"
"""Without the plus SQLite would make numbers of the keys of `work`, which are of any type, and could use no index."""

_JOB = (
    "number, id, priority, created_at, started_at, finished_at, ids, batches, waiting, triggered, stored, gone, failed,"
    " cancelled"
)
_NAMES = {number: name for name, number in PRIORITIES.items()}


def job(conn: sqlite3.Connection, name: str) -> Job | None:
    """The job of that id, None where there is none."""
    row = conn.execute(f"SELECT {_JOB} FROM jobs WHERE id = ?", [name]).fetchone()
    return None if row is None else _job(row)


def jobs(
    conn: sqlite3.Connection,
    *,
    status: Status | None = None,
    priority: str | None = None,
    before: int | None = None,
    most: int = 100,
) -> list[Job]:
    """Jobs, the newest first: those with a `number` below `before`, of that status and priority where one is named."""
    where = ["1"]
    values: list[Any] = []
    if status is not None:
        where.append(_OF_STATUS[status])
    if priority is not None:
        where.append("priority = ?")
        values.append(PRIORITIES[priority])
    if before is not None:
        where.append("number < ?")
        values.append(before)
    rows = conn.execute(
        f"SELECT {_JOB} FROM jobs WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?", [*values, most]
    )
    return [_job(row) for row in rows]


_OF_STATUS = {
    "yet_to_start": "finished_at IS NULL AND waiting > 0 AND waiting = batches",
    "triggered": "finished_at IS NULL AND waiting < batches",
    "completed": "finished_at IS NOT NULL",
}


def totals(conn: Sql) -> JobTotals | None:
    """Those of all jobs; None where nothing was ever submitted."""
    if not conn.has("jobs"):
        return None  # An older database that is only looked at.
    row = conn.execute(
        "SELECT count(*), count(*) FILTER (WHERE finished_at IS NULL),"
        " coalesce(sum(ids - stored - gone - failed - cancelled), 0), coalesce(sum(failed), 0),"
        " max(coalesce(finished_at, created_at)) FROM jobs"
    ).fetchone()
    return JobTotals(*row) if row[0] else None


def contradictions(conn: Sql) -> list[str]:
    """Where the tables of jobs do not agree with each other, or with the work that there is."""
    if totals(conn) is None:
        return []
    key = conn.any_sql("job_work.key")
    (idle,) = conn.execute(
        "SELECT count(*) FROM job_work JOIN jobs ON jobs.number = job WHERE NOT EXISTS (SELECT 1 FROM work"
        f" WHERE work.source = jobs.source AND stage IN ('detail', 'item') AND work.key = {key} AND due_at IS NOT NULL)"
    ).fetchone()
    (miscounted,) = conn.execute(
        "SELECT count(*) FROM jobs JOIN (SELECT job, sum(size) AS a, sum(stored) AS b, sum(gone) AS c,"
        " sum(failed) AS d, sum(cancelled) AS e, count(*) FILTER (WHERE status = 'yet_to_start') AS f,"
        " count(*) FILTER (WHERE status = 'triggered') AS g FROM job_batches GROUP BY job) AS counted ON job = number"
        " WHERE (ids, stored, gone, failed, cancelled, waiting, triggered) != (a, b, c, d, e, f, g)"
    ).fetchone()
    return [
        *([f"jobs: {idle:,} ids are under way, and there is no work for them"] if idle else []),
        *([f"jobs: {miscounted:,} of them count something else than their batches"] if miscounted else []),
    ]


def batches(conn: sqlite3.Connection, of: Job, *, after: int = -1, most: int = 100) -> list[JobBatch]:
    """The batches of a job whose number is above `after`, in their order, with what became of their ids."""
    rows = conn.execute(
        "SELECT number, ids, status, triggered_at, finished_at, stored, gone, failed, cancelled FROM job_batches"
        " WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
        [of.number, after, most],
    ).fetchall()
    found = [JobBatch(of.id, number, tuple(json.loads(ids)), *rest) for number, ids, *rest in rows]
    return list(_told(conn, of, found))


def failures(
    conn: sqlite3.Connection, of: Job, *, gone: bool = False, after: tuple[int, int] = (-1, 0), most: int = 100
) -> list[tuple[int, JobFailure]]:
    """The ids of a job that failed, or else those that are gone, with their batch: behind the batch and key `after`."""
    rows = conn.execute(
        "SELECT batch, key, outcome, message, attempts, ended_at FROM job_failures"
        f" WHERE job = ? AND (batch, key) > (?, ?) AND outcome {'=' if gone else '!='} 'gone'"
        " ORDER BY batch, key LIMIT ?",
        [of.number, *after, most],
    )
    return [(batch, JobFailure(*rest)) for batch, *rest in rows]


def backlog(conn: sqlite3.Connection) -> Backlog:
    """What is left to do of all jobs."""
    row = conn.execute(
        "SELECT count(*), ifnull(sum(ids - stored - gone - failed - cancelled), 0), ifnull(sum(waiting), 0)"
        " FROM (SELECT * FROM jobs WHERE finished_at IS NULL LIMIT ?)",
        [COUNTED + 1],
    ).fetchone()
    return Backlog(*row)


def in_turn(conn: sqlite3.Connection, most: int) -> list[Job]:
    """Jobs that have not ended: those with a batch under way, then those that wait, each in the order of their turn."""
    # From job to job along the index, however many ids of each there are.
    under_way = conn.execute(
        "WITH RECURSIVE under_way (number) AS (SELECT min(job) FROM job_work UNION ALL"
        " SELECT (SELECT min(job) FROM job_work WHERE job > number) FROM under_way WHERE number IS NOT NULL LIMIT ?)"
        f" SELECT {_JOB} FROM under_way JOIN jobs USING (number) ORDER BY priority DESC, number",
        [most],
    ).fetchall()
    waiting = conn.execute(
        f"SELECT {_JOB} FROM jobs WHERE waiting > 0 AND triggered = 0 ORDER BY priority DESC, number LIMIT ?",
        [most],
    ).fetchall()
    return [_job(row) for row in (*under_way, *waiting)][:most]


def ended(conn: sqlite3.Connection, *, failed: bool, most: int) -> list[Job]:
    """Jobs that have ended, the last one first: those with ids that failed for good, or the others."""
    rows = conn.execute(
        f"SELECT {_JOB} FROM jobs WHERE finished_at IS NOT NULL AND failed {'>' if failed else '='} 0"
        " ORDER BY finished_at DESC LIMIT ?",
        [most],
    )
    return [_job(row) for row in rows]


def retrying(conn: sqlite3.Connection, of: Job, most: int) -> list[Retrying]:
    """Ids of a job that have failed and are tried again, by their numbers."""
    rows = conn.execute(
        "SELECT work.key, stage, outcome, error, attempts, due_at FROM job_work CROSS JOIN work"
        " ON source = (SELECT source FROM jobs WHERE jobs.number = job) AND stage IN ('detail', 'item')"
        " AND work.key = job_work.key WHERE job = ? AND outcome IS NOT NULL AND due_at IS NOT NULL"
        " ORDER BY 1 LIMIT ?",
        [of.number, most],
    )
    return [Retrying(*row) for row in rows]


def _told(conn: sqlite3.Connection, of: Job, found: Sequence[JobBatch]) -> Iterator[JobBatch]:
    for batch in found:
        failed: tuple[JobFailure, ...] = ()
        retrying: tuple[Retrying, ...] = ()
        if batch.failed or batch.gone:
            rows = conn.execute(
                "SELECT key, outcome, message, attempts, ended_at FROM job_failures WHERE job = ? AND batch = ?"
                " ORDER BY key",
                [of.number, batch.number],
            )
            failed = tuple(JobFailure(*row) for row in rows)
        if batch.status == "triggered":
            rows = conn.execute(
                "SELECT work.key, stage, outcome, error, attempts, due_at FROM job_work CROSS JOIN work"
                f" ON source = (SELECT source FROM jobs WHERE jobs.number = job) AND {ITS_WORK}"
                " WHERE job = ? AND batch = ? AND outcome IS NOT NULL AND due_at IS NOT NULL ORDER BY 1",
                [of.number, batch.number],
            )
            retrying = tuple(Retrying(*row) for row in rows)
        yield replace(batch, failures=failed, retrying=retrying)


def _job(row: Sequence[Any]) -> Job:
    number, name, priority, *rest = row
    return Job(number, name, _NAMES[priority], *rest)
