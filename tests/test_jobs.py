"""Submitted ids in the database: whatever happens to jobs in whatever order, each id is counted once, and ends."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fetcher.errors import StoreError
from fetcher.model import Batch, Counts, Detail, Failure, Interval, Outcome, Page, Plan, Progress, RunState
from fetcher.simulator.world import LAST_CREATED
from fetcher.sources.pr0gramm import COMMENTS, ITEMS, TAGS, VIEWS
from fetcher.stores import jobs as stored
from fetcher.stores import migrations
from fetcher.stores.jobs import IdempotencyConflict, Job, JobBatch, Triggered
from fetcher.stores.sqlite import SqliteStore
from fetcher.stores.verify import verify
from tests.fakes import death
from tests.helpers import column, dump_all, one, query

TABLES = (ITEMS, TAGS, COMMENTS)
STATE = RunState(Progress(Counts(), 1.0, 0, 0, 0.0, None))
MORE = int(os.environ.get("FETCHER_EXAMPLES", "0"))
"""Set it to explore so many examples, chosen anew, instead of a few that are always the same."""


def row(id: int) -> tuple[Any, ...]:
    """An item's row as a source gives it."""
    values = {"id": id, "created": LAST_CREATED, "flags": 1}
    return (*(values.get(each.name) for each in ITEMS.columns), None)


def details(id: int) -> Detail:
    return Detail({"tags": [(id, 1, "tag", 0.5, None)], "comments": []})


@dataclass
class Mirror:
    """A database with the words to submit ids to it, and to say how they end."""

    path: Path
    now: float = 1_000.0
    size: int = 3
    url: str = "http://localhost"
    store: SqliteStore = field(init=False)
    _opened: list[SqliteStore] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.close()
        self.store = SqliteStore.open(self.path, "pr0gramm", TABLES, self.url, views=VIEWS, clock=lambda: self.now)
        self._opened.append(self.store)
        self.asked = self.store.beside("item")
        self.store.begin_run(Plan())
        self.asked.begin_run(Plan())

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()

    # --- jobs -----------------------------------------------------------------------------------

    def submit(self, *ids: int, priority: str = "MEDIUM", **more: Any) -> Job:
        job, _ = stored.submit(
            self.store.db, "pr0gramm", ids, priority, batch_size=more.pop("size", self.size), now=self.now, **more
        )
        return job

    def trigger(self, most: int = 1) -> list[Triggered]:
        return stored.trigger(self.store.db, "pr0gramm", ITEMS, lambda: self.now, most=most)

    def cancel(self, job: Job) -> Job:
        found = stored.cancel(self.store.db, job.id, self.now)
        assert found is not None
        return found

    def retry(self, job: Job) -> Job:
        found = stored.retry(self.store.db, job.id)
        assert found is not None
        return found

    def job(self, job: Job) -> Job:
        found = stored.job(self.store.db.conn, job.id)
        assert found is not None
        return found

    def batches(self, job: Job) -> list[JobBatch]:
        return stored.batches(self.store.db.conn, self.job(job), most=1000)

    # --- how work ends --------------------------------------------------------------------------

    def list_(self, *ids: int, lo: int, hi: int) -> None:
        """A page that lists these items and proves that there are no others from `lo` to `hi`."""
        self.store.want({1: Interval(lo, hi)})
        self.store.commit(Batch(pages=(Page(tuple(map(row, ids)), (1,), Interval(lo, hi), None),)), STATE)

    def found(self, *ids: int) -> None:
        """They were asked for by themselves, and are there."""
        self.asked.commit(Batch(details={id: Detail({"items": [row(id)]}) for id in ids}, stage="item"), STATE)

    def fetched(self, *ids: int) -> None:
        self.store.commit(Batch(details={id: details(id) for id in ids}), STATE)

    def gone(self, *ids: int, stage: str = "detail") -> None:
        self._of(stage).commit(Batch(gone=ids, stage=stage), STATE)

    def failed(self, *ids: int, stage: str = "detail", again_at: float | None = None, attempts: int = 1) -> None:
        """They failed for good, or are tried again later."""
        failures = tuple(
            Failure(stage, id, Outcome.UNAVAILABLE, "answered 500", 500, b"", attempts, again_at) for id in ids
        )
        self._of(stage).commit(Batch(failures=failures, stage=stage), STATE)

    def _of(self, stage: str) -> SqliteStore:
        return self.asked if stage == "item" else self.store

    def due(self, stage: str) -> list[int]:
        return column(self.path, "SELECT key FROM work WHERE stage = ? AND due_at IS NOT NULL ORDER BY key", stage)

    def work(self) -> list[tuple[Any, ...]]:
        return query(self.path, "SELECT stage, key, priority FROM work WHERE due_at IS NOT NULL ORDER BY 1, 2")


@pytest.fixture
def mirror(db: Path) -> Iterator[Mirror]:
    made = Mirror(db)
    yield made
    made.close()


def counts(job: Job) -> dict[str, int]:
    """How ids of a job have ended, without what none has."""
    names = {
        "stored": job.stored,
        "gone": job.gone,
        "failed": job.failed,
        "cancelled": job.cancelled,
        "open": job.open_ids,
    }
    return {name: count for name, count in names.items() if count}


def assert_sound(path: Path) -> None:
    """Jobs, batches, work and totals agree with each other."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
        wrong = {name: conn.execute(sql).fetchall() for name, sql in _WRONG.items()}
    assert not {name: rows for name, rows in wrong.items() if rows}
    assert verify(path, TABLES).wrong == ()


_ENDED = "stored + gone + failed + cancelled"
_WRONG = {
    "ids are counted once": f"SELECT * FROM jobs WHERE {_ENDED} > ids OR min(stored, gone, failed, cancelled) < 0",
    "a job is the sum of its batches": """
        SELECT * FROM jobs WHERE (ids, batches, stored, gone, failed, cancelled, waiting, triggered) !=
        (SELECT sum(size), count(*), sum(stored), sum(gone), sum(failed), sum(cancelled),
         count(*) FILTER (WHERE status = 'yet_to_start'), count(*) FILTER (WHERE status = 'triggered')
         FROM job_batches WHERE job = jobs.number)""",
    "a batch is completed once all of its ids have ended": f"""
        SELECT * FROM job_batches WHERE (status = 'completed') != ({_ENDED} = size)
        OR (status = 'completed') != (finished_at IS NOT NULL) OR size != json_array_length(ids)""",
    "a job is finished once all of its batches are": """
        SELECT * FROM jobs WHERE (finished_at IS NOT NULL) != (waiting + triggered = 0)""",
    "what is triggered and has not ended is waited for": f"""
        SELECT job, number FROM job_batches AS batches WHERE (SELECT count(*) FROM job_work
         WHERE job_work.job = batches.job AND batch = number) != iif(status = 'triggered', size - ({_ENDED}), 0)""",
    "what is waited for is due": """
        SELECT * FROM job_work WHERE NOT EXISTS (SELECT 1 FROM work WHERE source = 'pr0gramm'
         AND stage IN ('item', 'detail') AND work.key = job_work.key AND due_at IS NOT NULL)""",
    "a failure is told for each id that failed": """
        SELECT job, number FROM job_batches AS batches WHERE (failed, gone) !=
        (SELECT count(*) FILTER (WHERE outcome != 'gone'), count(*) FILTER (WHERE outcome = 'gone')
         FROM job_failures WHERE job_failures.job = batches.job AND batch = number)""",
}


# --- batches and their order ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_batches_hold_the_ids_in_the_order_of_their_submission(mirror: Mirror, size: int) -> None:
    ids = [(number * 7919) % 30_011 + 1 for number in range(30_000)]
    job = mirror.submit(*ids, size=size)
    rows = query(mirror.path, "SELECT number, size, ids FROM job_batches ORDER BY number")
    assert [number for number, *_ in rows] == list(range(-(-len(ids) // size)))
    assert all(count == size for _, count, _ in rows[:-1])
    again = stored.batches(mirror.store.db.conn, job, most=len(rows))
    assert [id for batch in again for id in batch.ids] == ids
    assert_sound(mirror.path)


def test_a_job_of_higher_priority_goes_before_the_remaining_batches_of_another(mirror: Mirror) -> None:
    low = mirror.submit(*range(1, 10), priority="LOW")
    first = mirror.trigger()
    medium = mirror.submit(21, 22)
    high = mirror.submit(31, 32, 33, 34, priority="HIGH")
    late = mirror.submit(41, priority="HIGH")
    order = [*first, *(each for _ in range(9) for each in mirror.trigger())]
    assert [(each.job, each.ids) for each in order] == [
        (low.id, (1, 2, 3)),
        (high.id, (31, 32, 33)),
        (high.id, (34,)),
        (late.id, (41,)),
        (medium.id, (21, 22)),
        (low.id, (4, 5, 6)),
        (low.id, (7, 8, 9)),
    ]


def test_many_batches_are_triggered_together_in_the_same_order(mirror: Mirror) -> None:
    mirror.submit(*range(1, 5), priority="LOW")
    mirror.submit(*range(11, 15), priority="HIGH")
    assert [each.ids for each in mirror.trigger(3)] == [(11, 12, 13), (14,), (1, 2, 3)]
    assert [each.ids for each in mirror.trigger(3)] == [(4,)]
    assert mirror.trigger(3) == []


def test_what_waits_is_no_work_until_it_is_triggered(mirror: Mirror) -> None:
    job = mirror.submit(1, 2, 3, 4)
    assert mirror.work() == []
    assert job.status == "yet_to_start"
    mirror.trigger()
    assert mirror.work() == [("item", id, 2) for id in (1, 2, 3)]
    assert [each.status for each in mirror.batches(job)] == ["triggered", "yet_to_start"]
    assert mirror.job(job).status == "triggered"


def test_the_moment_of_a_trigger_is_taken_once_it_may_write(mirror: Mirror) -> None:
    mirror.submit(1)
    # Whoever waited for the database for long must not shorten the next interval.
    began: list[bool] = []

    def clock() -> float:
        began.append(mirror.store.db.conn.in_transaction)
        return 77.0

    stored.trigger(mirror.store.db, "pr0gramm", ITEMS, clock)
    assert began == [True]
    assert stored.triggered_at(mirror.store.db.conn, "pr0gramm") == 77.0


# --- ids ----------------------------------------------------------------------------------------------


def test_an_unknown_id_is_asked_for_first_and_then_fetched(mirror: Mirror) -> None:
    job = mirror.submit(5, priority="HIGH")
    mirror.trigger()
    assert mirror.work() == [("item", 5, 3)]
    mirror.found(5)
    assert mirror.work() == [("detail", 5, 3)]
    assert counts(mirror.job(job)) == {"open": 1}
    mirror.fetched(5)
    assert mirror.work() == []
    assert counts(mirror.job(job)) == {"stored": 1}
    assert mirror.job(job).status == "completed"
    assert_sound(mirror.path)


def test_a_known_id_is_fetched_anew_also_one_with_a_tombstone_and_one_that_failed_for_good(mirror: Mirror) -> None:
    mirror.list_(1, 2, 3, 4, lo=1, hi=9)
    mirror.fetched(1)
    mirror.gone(2)
    mirror.failed(3)
    assert_sound(mirror.path)
    job = mirror.submit(1, 2, 3, 4, priority="LOW", size=4)
    mirror.trigger()
    # 4 was still to be mirrored: its priority rises.
    assert mirror.work() == [("detail", id, 1) for id in (1, 2, 3, 4)]
    assert_sound(mirror.path)
    mirror.fetched(1, 2, 3, 4)
    assert counts(mirror.job(job)) == {"stored": 4}
    assert one(mirror.path, "SELECT count(*) FROM items WHERE gone_at IS NULL AND fetched_at IS NOT NULL") == 4
    assert query(mirror.path, "SELECT * FROM failures") == []
    assert_sound(mirror.path)


def test_an_item_that_is_asked_for_by_itself_proves_nothing_and_is_counted_where_it_lies(mirror: Mirror) -> None:
    mirror.list_(10, 20, lo=5, hi=25)
    mirror.fetched(10, 20)
    before = query(mirror.path, "SELECT scope, lo, hi, walked_at FROM coverage")
    # Within what is covered, below it, and above the head.
    mirror.submit(15, 2, 40)
    mirror.trigger()
    mirror.found(15, 2, 40)
    assert query(mirror.path, "SELECT scope, lo, hi, walked_at FROM coverage") == before
    assert one(mirror.path, "SELECT items FROM coverage") == 3
    assert_sound(mirror.path)
    mirror.fetched(15, 2, 40)
    assert_sound(mirror.path)
    # A mirror that goes on walks over them as over any.
    mirror.list_(40, lo=26, hi=50)
    mirror.list_(2, lo=1, hi=4)
    assert query(mirror.path, "SELECT lo, hi, items FROM coverage") == [(1, 50, 5)]
    assert verify(mirror.path, TABLES).complete
    mirror.now += 1000
    mirror.store.begin_sweep(full=True)
    mirror.list_(10, 15, 20, 40, lo=3, hi=50)
    assert_sound(mirror.path)


def test_the_same_id_in_two_jobs_ends_in_both_and_is_asked_for_once(mirror: Mirror) -> None:
    one_, other = mirror.submit(1, 2), mirror.submit(2, 3, priority="HIGH")
    mirror.trigger(2)
    assert mirror.work() == [("item", 1, 2), ("item", 2, 3), ("item", 3, 3)]
    mirror.found(1, 2)
    mirror.fetched(2)
    assert counts(mirror.job(one_)) == {"stored": 1, "open": 1}
    assert counts(mirror.job(other)) == {"stored": 1, "open": 1}
    mirror.gone(3, stage="item")
    mirror.failed(1)
    assert counts(mirror.job(one_)) == {"stored": 1, "failed": 1}
    assert counts(mirror.job(other)) == {"stored": 1, "gone": 1}
    assert_sound(mirror.path)


def test_an_id_that_is_submitted_again_between_its_two_stages_waits_for_the_second(mirror: Mirror) -> None:
    first = mirror.submit(7)
    mirror.trigger()
    mirror.found(7)
    second = mirror.submit(7, priority="HIGH")
    mirror.trigger()
    assert mirror.work() == [("detail", 7, 3)]
    mirror.fetched(7)
    assert [counts(mirror.job(each)) for each in (first, second)] == [{"stored": 1}] * 2
    assert_sound(mirror.path)


def test_priorities_in_work_only_rise(mirror: Mirror) -> None:
    mirror.submit(1, priority="HIGH")
    mirror.trigger()
    mirror.submit(1, priority="LOW")
    mirror.trigger()
    assert mirror.work() == [("item", 1, 3)]
    mirror.found(1)
    assert mirror.work() == [("detail", 1, 3)]


def test_an_idempotency_key_makes_a_repeat_harmless(mirror: Mirror) -> None:
    first = mirror.submit(1, 2, idempotency_key="k", digest="d")
    assert mirror.submit(1, 2, idempotency_key="k", digest="d") == first
    with pytest.raises(IdempotencyConflict):
        mirror.submit(1, 3, idempotency_key="k", digest="e")
    assert one(mirror.path, "SELECT count(*) FROM jobs") == 1
    assert one(mirror.path, "SELECT count(*) FROM job_batches") == 1


# --- failures -----------------------------------------------------------------------------------------


def test_a_batch_says_what_is_tried_again_and_then_why_it_failed_for_good(mirror: Mirror) -> None:
    job = mirror.submit(1, 2)
    mirror.trigger()
    mirror.failed(1, stage="item", again_at=2_000.0, attempts=1)
    (batch,) = mirror.batches(job)
    assert batch.status == "triggered"
    assert [(each.key, each.stage, each.outcome, each.attempts, each.due_at) for each in batch.retrying] == [
        (1, "item", "unavailable", 1, 2_000.0)
    ]
    assert batch.failures == ()
    mirror.failed(1, stage="item", attempts=6)
    mirror.found(2)
    mirror.fetched(2)
    (batch,) = mirror.batches(job)
    assert (batch.status, batch.outcome, batch.retrying) == ("completed", "failed", ())
    assert [(each.key, each.outcome, each.message, each.attempts) for each in batch.failures] == [
        (1, "unavailable", "answered 500", 6)
    ]
    assert_sound(mirror.path)


def test_what_is_tried_again_later_holds_nothing_up(mirror: Mirror) -> None:
    mirror.submit(*range(1, 4))
    mirror.trigger()
    due = lambda: stored.due_work(mirror.store.db.conn, "pr0gramm", mirror.now, 10)  # noqa: E731
    assert due() == 3
    mirror.failed(1, 2, stage="item", again_at=mirror.now + 300)
    assert due() == 1
    assert stored.is_busy(mirror.store.db.conn, "pr0gramm", mirror.now)
    mirror.failed(3, stage="item", again_at=mirror.now + 300)
    assert not stored.is_busy(mirror.store.db.conn, "pr0gramm", mirror.now)
    mirror.now += 300
    assert due() == 3
    assert stored.is_busy(mirror.store.db.conn, "pr0gramm", mirror.now)


def test_failed_ids_are_asked_for_again_those_that_are_gone_are_not(mirror: Mirror) -> None:
    job = mirror.submit(1, 2, 3, 4, 5, 6)
    mirror.trigger(2)
    mirror.found(1, 2, 4, 5, 6)
    mirror.fetched(1, 4, 5, 6)
    mirror.failed(2)
    mirror.gone(3, stage="item")
    assert counts(mirror.job(job)) == {"stored": 4, "gone": 1, "failed": 1}
    again = mirror.retry(job)
    assert counts(again) == {"stored": 4, "gone": 1, "open": 1}
    assert (again.status, again.finished_at) == ("triggered", None)
    assert_sound(mirror.path)
    assert [each.ids for each in mirror.trigger(5)] == [(2,)]
    assert mirror.due("detail") == [2]
    mirror.fetched(2)
    assert counts(mirror.job(job)) == {"stored": 5, "gone": 1}
    assert_sound(mirror.path)


# --- cancel and retry in every state ------------------------------------------------------------------


def test_a_job_that_waits_is_cancelled_whole(mirror: Mirror) -> None:
    job = mirror.submit(1, 2, 3, 4)
    cancelled = mirror.cancel(job)
    assert (cancelled.status, counts(cancelled)) == ("completed", {"cancelled": 4})
    assert cancelled.finished_at == mirror.now
    assert mirror.trigger(9) == []
    assert [each.outcome for each in mirror.batches(job)] == ["cancelled"] * 2
    assert mirror.cancel(job) == cancelled
    assert mirror.retry(job) == cancelled
    assert_sound(mirror.path)


def test_what_is_triggered_goes_on_when_its_job_is_cancelled(mirror: Mirror) -> None:
    job = mirror.submit(1, 2, 3, 4, 5)
    mirror.trigger()
    cancelled = mirror.cancel(job)
    assert (cancelled.status, counts(cancelled)) == ("triggered", {"cancelled": 2, "open": 3})
    mirror.found(1, 2, 3)
    mirror.fetched(1, 2)
    mirror.now += 5
    mirror.failed(3)
    ended = mirror.job(job)
    assert (ended.status, counts(ended)) == ("completed", {"stored": 2, "failed": 1, "cancelled": 2})
    assert ended.finished_at == mirror.now
    assert_sound(mirror.path)
    # Only what failed is asked for again.
    mirror.retry(job)
    assert [each.ids for each in mirror.trigger(9)] == [(3,)]
    mirror.fetched(3)
    assert counts(mirror.job(job)) == {"stored": 3, "cancelled": 2}
    assert_sound(mirror.path)


def test_a_retry_can_be_cancelled_and_the_rest_of_its_batch_stays_as_it_ended(mirror: Mirror) -> None:
    job = mirror.submit(1, 2, 3)
    mirror.trigger()
    mirror.found(1, 2, 3)
    mirror.fetched(1)
    mirror.failed(2, 3)
    assert mirror.retry(job).status == "yet_to_start"
    cancelled = mirror.cancel(job)
    assert (cancelled.status, counts(cancelled)) == ("completed", {"stored": 1, "cancelled": 2})
    assert mirror.retry(job) == cancelled
    assert mirror.trigger() == []
    assert_sound(mirror.path)


def test_a_retry_while_a_batch_goes_on_leaves_that_one_alone(mirror: Mirror) -> None:
    job = mirror.submit(1, 2, 3, 4, 5, 6)
    mirror.trigger(2)
    mirror.found(*range(1, 7))
    mirror.failed(1, 4)
    mirror.fetched(2, 3)
    again = mirror.retry(job)
    assert (again.waiting, again.triggered) == (1, 1)
    assert counts(again) == {"stored": 2, "failed": 1, "open": 3}
    assert_sound(mirror.path)
    mirror.fetched(5, 6)
    mirror.trigger()
    mirror.fetched(1)
    assert counts(mirror.job(job)) == {"stored": 5, "failed": 1}
    assert_sound(mirror.path)


def test_a_job_whose_ids_have_all_ended_well_is_left_as_it_is(mirror: Mirror) -> None:
    job = mirror.submit(1)
    mirror.trigger()
    mirror.gone(1, stage="item")
    ended = mirror.job(job)
    assert mirror.retry(job) == ended
    assert mirror.cancel(job) == ended


def test_a_job_of_no_ids_is_none_at_all(mirror: Mirror) -> None:
    with pytest.raises(ValueError, match="one id at least"):
        mirror.submit()
    assert query(mirror.path, "SELECT * FROM jobs") == []


def test_an_unknown_job_is_none(mirror: Mirror) -> None:
    assert stored.job(mirror.store.db.conn, "x") is None
    assert stored.cancel(mirror.store.db, "x", 1.0) is None
    assert stored.retry(mirror.store.db, "x") is None


# --- half a transaction -------------------------------------------------------------------------------


def _prepared(mirror: Mirror) -> Job:
    """A mirror with everything in it: covered items, one parked, a job half done, another that waits."""
    mirror.list_(1, 2, 3, lo=1, hi=20)
    mirror.fetched(1, 2)
    mirror.failed(3)
    job = mirror.submit(*range(4, 12), 3)
    mirror.trigger(2)
    mirror.found(*range(4, 9))
    mirror.fetched(4, 5)
    mirror.failed(6)
    mirror.failed(7)
    mirror.gone(8)
    mirror.found(9)
    mirror.fetched(9)
    mirror.submit(4, 30, priority="HIGH")
    return job


@pytest.mark.parametrize(
    "change",
    [
        lambda mirror, _: mirror.submit(50, 51, 52, 53, idempotency_key="k", digest="d"),
        lambda mirror, _: mirror.trigger(2),
        lambda mirror, job: mirror.cancel(job),
        lambda mirror, job: mirror.retry(job),
    ],
    ids=["submit", "trigger", "cancel", "retry"],
)
def test_half_a_transaction_leaves_nothing(db: Path, change: Callable[[Mirror, Job], object]) -> None:
    mirror = Mirror(db)
    job = _prepared(mirror)
    mirror.close()
    before = dump_all(db)
    struck = 0
    for number in range(1, 200):
        with death() as fate:
            mirror.open()
            # Opening begins runs: that is no part of the change.
            runs = dump_all(db)["runs"]
            fate.at, fate.error = fate.statements + number, lambda: sqlite3.OperationalError("disk I/O error")
            try:
                change(mirror, job)
            except StoreError:
                assert fate.struck
            else:
                break
            finally:
                mirror.close()
        struck += 1
        assert dump_all(db) == {**before, "runs": runs}, f"statement {number} failed and left something"
    assert struck > 4, "every statement of the transaction was made to fail"
    assert_sound(db)


def test_a_failing_statement_of_a_commit_undoes_what_was_settled_too(mirror: Mirror) -> None:
    job = mirror.submit(1, 2)
    mirror.trigger()
    mirror.found(1, 2)
    mirror.close()
    before = dump_all(mirror.path)
    struck = 0
    for number in range(1, 200):
        with death() as fate:
            mirror.open()
            runs = dump_all(mirror.path)["runs"]
            fate.at, fate.error = fate.statements + number, lambda: sqlite3.OperationalError("disk I/O error")
            try:
                mirror.store.commit(
                    Batch(
                        details={1: details(1)},
                        failures=(Failure("detail", 2, Outcome.MALFORMED, "no list of tags", 200, b"{}", 1, None),),
                    ),
                    STATE,
                )
            except StoreError:
                assert fate.struck
            else:
                break
            finally:
                mirror.close()
        struck += 1
        assert dump_all(mirror.path) == {**before, "runs": runs}, f"statement {number} failed and left something"
    assert struck >= 20
    mirror.open()
    assert counts(mirror.job(job)) == {"stored": 1, "failed": 1}


# --- older databases ----------------------------------------------------------------------------------


def test_a_database_of_an_older_release_takes_jobs_and_keeps_its_data(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(migrations, "STEPS", migrations.STEPS[:-1])
        older.setattr("fetcher.stores.mirror.settle", lambda *_: None)
        mirror = Mirror(db)
        mirror.list_(1, 2, 3, lo=1, hi=5)
        mirror.fetched(1)
        mirror.failed(2)
        mirror.close()
    assert query(db, "SELECT 1 FROM sqlite_master WHERE name = 'jobs'") == []
    before = {table: rows for table, rows in dump_all(db).items() if table not in ("runs", "sources")}
    mirror = Mirror(db)
    assert {table: rows for table, rows in dump_all(db).items() if table in before} == before
    job = mirror.submit(1, 2, 3, 9)
    mirror.trigger(2)
    assert mirror.work() == [("detail", 1, 2), ("detail", 2, 2), ("detail", 3, 2), ("item", 9, 2)]
    mirror.fetched(1, 2, 3)
    mirror.gone(9, stage="item")
    assert counts(mirror.job(job)) == {"stored": 3, "gone": 1}
    assert_sound(db)
    mirror.close()


# --- whatever happens ---------------------------------------------------------------------------------

Step = tuple[Any, ...]
IDS = st.integers(1, 14)
PRIORITY = st.sampled_from(["LOW", "MEDIUM", "HIGH"])
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("submit"), st.lists(IDS, min_size=1, max_size=7, unique=True), PRIORITY, st.integers(1, 3)),
    st.tuples(st.just("trigger"), st.integers(1, 4)),
    # How up to so many due ids of a stage end, one after the other.
    st.tuples(
        st.just("end"),
        st.sampled_from(["item", "detail"]),
        st.lists(st.sampled_from(["ok", "ok", "gone", "failed", "later"]), min_size=1, max_size=6),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("retry"), st.integers(0, 5)),
    st.tuples(st.just("list"), st.lists(IDS, max_size=6, unique=True)),
    st.tuples(st.just("reopen")),
)


@settings(
    max_examples=MORE or 25,
    derandomize=not MORE,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink) if MORE else (Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(STEPS, min_size=3, max_size=25))
@pytest.mark.timeout(120 + MORE)
def test_whatever_happens_each_id_is_counted_once_and_ends(steps: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mirror = Mirror(Path(folder) / "mirror.db")
        try:
            jobs: list[Job] = []
            for step in steps:
                before = {(stage, key): priority for stage, key, priority in mirror.work()}
                take(mirror, step, jobs)
                assert_sound(mirror.path)
                after = {(stage, key): priority for stage, key, priority in mirror.work()}
                assert all(after[each] >= before[each] for each in after.keys() & before.keys())
            finish(mirror)
            assert_sound(mirror.path)
            for job in jobs:
                ended = mirror.job(job)
                assert (ended.status, ended.open_ids) == ("completed", 0)
        finally:
            mirror.close()


def take(mirror: Mirror, step: Step, jobs: list[Job]) -> None:
    """One step."""
    mirror.now += 1
    what, *rest = step
    if what == "submit":
        ids, priority, size = rest
        jobs.append(mirror.submit(*ids, priority=priority, size=size))
    elif what == "trigger":
        mirror.trigger(rest[0])
    elif what == "end":
        end(mirror, *rest)
    elif what in ("cancel", "retry") and jobs:
        getattr(mirror, what)(jobs[rest[0] % len(jobs)])
    elif what == "list":
        stored_ids = column(mirror.path, "SELECT id FROM items")
        mirror.list_(*sorted({*rest[0], *stored_ids}), lo=1, hi=14)
    elif what == "reopen":
        mirror.open()


def end(mirror: Mirror, stage: str, how: Sequence[str]) -> None:
    """Let due work of a stage end so."""
    ended: dict[str, list[int]] = {}
    for key, each in zip(mirror.due(stage), how, strict=False):
        ended.setdefault(each, []).append(key)
    for each, keys in ended.items():
        if each == "ok":
            (mirror.found if stage == "item" else mirror.fetched)(*keys)
        elif each == "gone":
            mirror.gone(*keys, stage=stage)
        else:
            mirror.failed(*keys, stage=stage, again_at=mirror.now + 9 if each == "later" else None)


def finish(mirror: Mirror) -> None:
    """Trigger all that waits, and let all of it end."""
    while mirror.trigger(50):
        pass
    for stage in ("item", "detail"):
        end(mirror, stage, ["ok"] * 20)


# --- looking ------------------------------------------------------------------------------------------


def test_jobs_are_listed_by_status_and_priority_a_page_at_a_time(mirror: Mirror) -> None:
    done, running, waiting = mirror.submit(1, priority="HIGH"), mirror.submit(2, priority="HIGH"), mirror.submit(3)
    mirror.trigger(2)
    mirror.gone(1, stage="item")
    conn = mirror.store.db.conn
    found = lambda **how: [each.id for each in stored.jobs(conn, **how)]  # noqa: E731
    assert found() == [waiting.id, running.id, done.id]
    assert found(status="completed") == [done.id]
    assert found(status="triggered") == [running.id]
    assert found(status="yet_to_start") == [waiting.id]
    assert found(priority="HIGH") == [running.id, done.id]
    assert found(most=1, before=waiting.number) == [running.id]


def test_failures_of_a_job_are_told_in_the_order_of_its_batches(mirror: Mirror) -> None:
    job = mirror.submit(5, 4, 3, 2, 1, size=2)
    mirror.trigger(3)
    mirror.gone(1, 2, 3, 4, 5, stage="item")
    conn = mirror.store.db.conn
    every = stored.failures(conn, mirror.job(job), gone=True)
    assert [(batch, each.key) for batch, each in every] == [(0, 4), (0, 5), (1, 2), (1, 3), (2, 1)]
    assert stored.failures(conn, mirror.job(job), gone=True, after=(0, 5), most=2) == every[2:4]


def test_every_question_about_jobs_is_answered_by_an_index(mirror: Mirror) -> None:
    """Whatever is asked for at each batch or by each request reads no more than it tells, however much is queued."""
    job = _prepared(mirror)
    asked: Counter[str] = Counter()
    conn = mirror.store.db.conn
    conn.set_trace_callback(lambda statement: asked.update([statement]))
    mirror.submit(60, 61, idempotency_key="k", digest="d")
    mirror.trigger()
    mirror.trigger()
    assert len(mirror.store.claim("detail", 1, "oldest", None, set())[0]) == 1
    mirror.found(30)
    mirror.fetched(30)
    mirror.job(job)
    mirror.batches(job)
    stored.failures(conn, mirror.job(job), gone=True)
    stored.due_work(conn, "pr0gramm", mirror.now, 10)
    stored.is_busy(conn, "pr0gramm", mirror.now)
    mirror.retry(job)
    mirror.cancel(job)
    conn.set_trace_callback(None)
    plans = {
        statement: [detail for *_, detail in conn.execute(f"EXPLAIN QUERY PLAN {statement}")]
        for statement in asked
        if any(table in statement for table in ("job", "work"))
        and statement.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT")
    }
    assert len(plans) > 15
    work = [step for plan in plans.values() for step in plan if step.startswith("SEARCH work ")]
    assert work
    assert [step for step in work if "key" not in step.partition("(")[2] and "priority" not in step] == []
    # What reads one row, or looks only whether there is any.
    harmless = (
        "SCAN json_each",
        "SCAN CONSTANT ROW",
        "SCAN 2 CONSTANT ROWS",
        "SCAN (subquery",
        "SCAN due",
        "SCAN VALUES",
    )
    scans = {
        statement: plan
        for statement, plan in plans.items()
        if any(step.startswith("SCAN") and not step.startswith(harmless) for step in plan)
        and not statement.rstrip().endswith(("LIMIT 1", "LIMIT 10)"))
    }
    assert scans == {}
