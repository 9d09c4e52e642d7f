"""The turn of a batch: its ids become work, and the end of that work settles them."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence

from fetcher.model import Failure, Key, Table
from fetcher.stores.database import Database
from fetcher.stores.jobs.facts import Triggered
from fetcher.stores.jobs.looking import ITS_WORK
from fetcher.stores.schema import quoted
from fetcher.stores.sql import Sql, Upsert
from fetcher.stores.worklist import ITEM, Worklist

_FAILURES = Upsert(
    "job_failures", ("job", "batch", "key", "outcome", "message", "attempts", "ended_at"), ("job", "batch", "key")
)


def triggered_at(conn: sqlite3.Connection, source: str) -> float | None:
    """When the last batch was triggered, in this run or an earlier one (Unix seconds)."""
    row = conn.execute("SELECT batch_triggered_at FROM sources WHERE name = ?", [source]).fetchone()
    return None if row is None else row[0]


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
        f"SELECT 1 FROM job_work CROSS JOIN work ON source = ? AND {ITS_WORK} WHERE due_at <= ? LIMIT 1",
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
