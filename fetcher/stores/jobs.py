"""Submitted ids: jobs, the batches they are worked off in, and how each id ended.

A batch's ids lie in `job_batches` until its turn comes; only then do they become rows of `work`, and the end of that
work settles them, in the transaction that writes what came of it.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fetcher.errors import FetcherError
from fetcher.model import Failure, Key, Table
from fetcher.stores.database import Database
from fetcher.stores.schema import quoted
from fetcher.stores.sql import Sql, Upsert
from fetcher.stores.worklist import ITEM, Worklist

Status = Literal["yet_to_start", "triggered", "completed"]

PRIORITIES = {"LOW": 1, "MEDIUM": 2, "HIGH": 3}
"""The priorities of jobs, as `work` has them: a mirror's own items have 0."""


COUNTED = 10_000
"""So many open jobs are counted at most where a person only looks: further ones are "more"."""

_ITS_WORK = "stage IN ('detail', 'item') AND work.key = +job_work.key"
"""Without the plus SQLite would make numbers of the keys of `work`, which are of any type, and could use no index."""


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


# --- what HTTP asks for: each in one short transaction ----------------------------------------------


def submit(
    db: Database,
    source: str,
    ids: Sequence[int],
    priority: str,
    *,
    batch_size: int,
    now: float,
    idempotency_key: str | None = None,
    digest: str | None = None,
) -> tuple[Job, bool]:
    """Store a job, and say whether it is new: with an `idempotency_key` used before it is the one of then.

    `ids` are in order, without duplicates, and one at least. `digest` stands for the whole request. Raises
    IdempotencyConflict when the key was used for another one, StoreError.
    """
    if not ids:
        raise ValueError("a job has one id at least")
    name = str(uuid.uuid4())
    batches = -(-len(ids) // batch_size)
    # Before the transaction, which everybody else who writes waits for.
    cut = [ids[first : first + batch_size] for first in range(0, len(ids), batch_size)]
    parts = json.dumps(cut, separators=(",", ":"))
    with db.transaction():
        if idempotency_key is not None:
            before = db.conn.execute(
                "SELECT id, digest FROM jobs WHERE idempotency_key = ?", [idempotency_key]
            ).fetchone()
            if before is not None and before[1] != digest:
                raise IdempotencyConflict("the Idempotency-Key was used before, for another request")
            if before is not None:
                return _required(db.conn, before[0]), False
        (number,) = db.conn.execute(
            "INSERT INTO jobs (id, source, priority, idempotency_key, digest, created_at, ids, batches, waiting)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
            [name, source, PRIORITIES[priority], idempotency_key, digest, now, len(ids), batches, batches],
        ).fetchone()
        # One statement: sqlite3 gives up the GIL once for all of a hundred thousand ids.
        db.conn.execute(
            "INSERT INTO job_batches (job, number, ids, size)"
            " SELECT ?, key, value, json_array_length(value) FROM json_each(?)",
            [number, parts],
        )
        return _required(db.conn, name), True


def cancel(db: Database, name: str, now: float) -> Job | None:
    """End all batches of a job that wait, their ids being `cancelled`; those triggered go on. None where there is none.

    Raises StoreError.
    """
    with db.transaction():
        found = job(db.conn, name)
        if found is None or not found.waiting:
            return found
        (ids,) = db.conn.execute(
            "SELECT sum(size - stored - gone - failed - cancelled) FROM job_batches"
            " WHERE job = ? AND status = 'yet_to_start'",
            [found.number],
        ).fetchone()
        db.conn.execute(
            "UPDATE job_batches SET status = 'completed', finished_at = ?, retry = NULL,"
            " cancelled = size - stored - gone - failed WHERE job = ? AND status = 'yet_to_start'",
            [now, found.number],
        )
        db.conn.execute(
            "UPDATE jobs SET waiting = 0, cancelled = cancelled + ?, finished_at = iif(triggered, NULL, ?)"
            " WHERE number = ?",
            [ids, now, found.number],
        )
        return job(db.conn, name)


def retry(db: Database, name: str) -> Job | None:
    """Let all batches of a job wait again that have ended with failed ids: only these are asked for.

    None where there is no such job. Raises StoreError.
    """
    with db.transaction():
        found = job(db.conn, name)
        if found is None or not found.failed:
            return found
        batches = db.conn.execute(
            "UPDATE job_batches SET status = 'yet_to_start', finished_at = NULL, failed = 0, retry = keys"
            " FROM (SELECT batch, json_group_array(key) AS keys FROM job_failures"
            " WHERE job = :job AND outcome != 'gone' GROUP BY batch)"
            " WHERE job = :job AND number = batch AND status = 'completed'",
            {"job": found.number},
        ).rowcount
        # A batch that goes on keeps its failures: it has not ended.
        keys = db.conn.execute(
            "DELETE FROM job_failures WHERE job = :job AND outcome != 'gone' AND (SELECT retry FROM job_batches"
            " WHERE job = :job AND number = batch) IS NOT NULL",
            {"job": found.number},
        ).rowcount
        db.conn.execute(
            "UPDATE jobs SET waiting = waiting + ?, failed = failed - ?, finished_at = iif(?, NULL, finished_at)"
            " WHERE number = ?",
            [batches, keys, batches, found.number],
        )
        return job(db.conn, name)


_FAILURES = Upsert(
    "job_failures", ("job", "batch", "key", "outcome", "message", "attempts", "ended_at"), ("job", "batch", "key")
)


# --- the turn of a batch ----------------------------------------------------------------------------


def triggered_at(conn: sqlite3.Connection, source: str) -> float | None:
    """When the last batch was triggered, in this run or an earlier one (Unix seconds)."""
    row = conn.execute("SELECT batch_triggered_at FROM sources WHERE name = ?", [source]).fetchone()
    return None if row is None else row[0]


def has_waiting(conn: sqlite3.Connection) -> bool:
    """Whether any batch waits for its turn."""
    return conn.execute("SELECT 1 FROM jobs WHERE waiting > 0 LIMIT 1").fetchone() is not None


def due_work(conn: sqlite3.Connection, source: str, now: float, most: int) -> int:
    """How many ids that were submitted are due now, counted up to `most`: what is tried again later is not."""
    (count,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM work WHERE source = ? AND stage IN ('detail', 'item') AND priority > 0"
        " AND due_at IS NOT NULL AND due_at <= ? LIMIT ?)",
        [source, now, most],
    ).fetchone()
    return int(count)


def is_busy(conn: sqlite3.Connection, source: str, now: float) -> bool:
    """Whether any id that has been triggered is due now: what failed and is tried again later is not."""
    row = conn.execute(
        f"SELECT 1 FROM job_work CROSS JOIN work ON source = ? AND {_ITS_WORK} WHERE due_at <= ? LIMIT 1",
        [source, now],
    ).fetchone()
    return row is not None


def trigger(db: Database, source: str, item: Table, clock: Callable[[], float], *, most: int = 1) -> list[Triggered]:
    """Turn up to `most` waiting batches into work, by priority, then in the order of their submission.

    An id that the mirror does not know is asked for by itself first; one that it knows is fetched anew. Raises
    StoreError.
    """
    done: list[Triggered] = []
    with db.transaction():
        # Only now: there may have been others to wait for, and the next interval begins with what is written here.
        now = clock()
        while len(done) < most:
            row = db.conn.execute(
                "SELECT number, id, priority FROM jobs WHERE waiting > 0 ORDER BY priority DESC, number LIMIT 1"
            ).fetchone()
            if row is None:
                break
            done.append(_trigger(db.sql, source, item, row, now))
        if done:
            db.conn.execute("UPDATE sources SET batch_triggered_at = ? WHERE name = ?", [now, source])
    return done


def _trigger(conn: Sql, source: str, item: Table, of: tuple[int, str, int], now: float) -> Triggered:
    number, name, priority = of
    batch, text = conn.execute(
        # Else all that have ended are walked over, at each batch anew.
        f"SELECT number, coalesce(retry, ids) FROM job_batches {conn.by_index('job_batches_waiting')}"
        " WHERE job = ? AND status = 'yet_to_start' ORDER BY number LIMIT 1",
        [number],
    ).fetchone()
    ids: list[int] = json.loads(text)
    key = quoted(item.columns[0].name)
    known = set(conn.array_for_keys(f"{conn.select(key)} FROM {quoted(item.name)} WHERE {key} IN ", sorted(ids)))
    worklist = Worklist(conn, source)
    added = again = 0
    for stage, keys in (
        (ITEM, [each for each in ids if each not in known]),
        ("detail", [each for each in ids if each in known]),
    ):
        if keys:
            more = worklist.ask(stage, sorted(keys), priority)
            added, again = added + more[0], again + more[1]
    conn.execute(
        "UPDATE sources SET work = work + ?, parked = parked - ? WHERE name = ?", [added + again, again, source]
    )
    conn.executemany("INSERT INTO job_work (key, job, batch) VALUES (?, ?, ?)", [(each, number, batch) for each in ids])
    conn.execute(
        "UPDATE job_batches SET status = 'triggered', triggered_at = ?, retry = NULL WHERE job = ? AND number = ?",
        [now, number, batch],
    )
    conn.execute(
        "UPDATE jobs SET waiting = waiting - 1, triggered = triggered + 1, started_at = coalesce(started_at, ?)"
        " WHERE number = ?",
        [now, number],
    )
    return Triggered(name, batch, tuple(ids))


def settle(conn: Sql, stored: Sequence[Key], gone: Sequence[Key], failed: Sequence[Failure], now: float) -> None:
    """Write down how keys have ended, in each job that waits for them; within the transaction that ends their work."""
    if not conn.execute("SELECT 1 FROM job_work LIMIT 1").fetchone():
        return
    causes = {failure.key: failure for failure in failed}
    keys = sorted({*stored, *gone, *causes}, key=str)
    waiting = list(conn.rows_for_keys("SELECT key, job, batch FROM job_work WHERE key IN ", keys))
    if not waiting:
        return
    conn.for_keys("DELETE FROM job_work WHERE key IN ", keys)
    gone_keys = set(gone)
    by_batch: dict[tuple[int, int], Counter[str]] = {}
    failures = []
    for key, number, batch in waiting:
        cause = causes.get(key)
        how = "gone" if key in gone_keys else "failed" if cause is not None else "stored"
        by_batch.setdefault((number, batch), Counter())[how] += 1
        if how == "gone":
            failures.append((number, batch, key, "gone", "the API says that there is no such item", 1, now))
        elif cause is not None:
            failures.append((number, batch, key, cause.outcome, cause.message, cause.attempts, now))
    conn.insert(_FAILURES, failures)
    for (number, batch), counts in by_batch.items():
        ends = [counts["stored"], counts["gone"], counts["failed"]]
        (ended,) = conn.execute(
            "UPDATE job_batches SET stored = stored + ?, gone = gone + ?, failed = failed + ?"
            " WHERE job = ? AND number = ? RETURNING stored + gone + failed + cancelled = size",
            [*ends, number, batch],
        ).fetchone()
        if ended:
            conn.execute(
                "UPDATE job_batches SET status = 'completed', finished_at = ? WHERE job = ? AND number = ?",
                [now, number, batch],
            )
        conn.execute(
            "UPDATE jobs SET stored = stored + ?, gone = gone + ?, failed = failed + ?, triggered = triggered - ?"
            " WHERE number = ?",
            [*ends, int(ended), number],
        )
    conn.executemany(
        "UPDATE jobs SET finished_at = ? WHERE number = ? AND waiting = 0 AND triggered = 0 AND finished_at IS NULL",
        [(now, number) for number in {number for number, _ in by_batch}],
    )


# --- looking ------------------------------------------------------------------------------------------

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
                f" ON source = (SELECT source FROM jobs WHERE jobs.number = job) AND {_ITS_WORK}"
                " WHERE job = ? AND batch = ? AND outcome IS NOT NULL AND due_at IS NOT NULL ORDER BY 1",
                [of.number, batch.number],
            )
            retrying = tuple(Retrying(*row) for row in rows)
        yield replace(batch, failures=failed, retrying=retrying)


def _required(conn: sqlite3.Connection, name: str) -> Job:
    found = job(conn, name)
    assert found is not None
    return found


def _job(row: Sequence[Any]) -> Job:
    number, name, priority, *rest = row
    return Job(number, name, _NAMES[priority], *rest)
