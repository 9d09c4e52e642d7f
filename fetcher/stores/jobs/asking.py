"""What is asked over HTTP: to submit, to cancel, to retry; each in one short transaction."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Sequence

from fetcher.stores.database import Database
from fetcher.stores.jobs.facts import PRIORITIES, IdempotencyConflict, Job
from fetcher.stores.jobs.looking import job


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


def _required(conn: sqlite3.Connection, name: str) -> Job:
    found = job(conn, name)
    assert found is not None
    return found
