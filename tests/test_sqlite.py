"""A mirror in one SQLite file: what it promises about rows, work, coverage and counts."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import ConfigurationError, StoreError
from fetcher.learned import Learned
from fetcher.model import (
    Batch,
    Column,
    Committed,
    Counts,
    Covered,
    Detail,
    Failure,
    Interval,
    Outcome,
    Page,
    Plan,
    Progress,
    RunState,
    StoreCounts,
    Table,
    Work,
)
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores import file
from fetcher.stores.file import source_of
from fetcher.stores.migrations import APPLICATION_ID
from fetcher.stores.overview import overview
from fetcher.stores.sqlite import SqliteStore, Sweep
from tests.fakes import death
from tests.helpers import column, dump, dump_all, one, query

THINGS = Table(
    "things",
    (Column("id", "integer", required=True), Column("name", "text"), Column("kind", "integer", required=True)),
    in_scope='"kind" & :scope != 0',
)
PARTS = Table("parts", (Column("id", "integer", required=True), Column("text", "text")), parent="thing_id")
TABLES = (THINGS, PARTS)
IDLE = RunState(Progress(Counts(), 0.0, 0, 0, 0.0, None))
DB = Path("m.db")


class Clock:
    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Iterator[SqliteStore]:
    with opened(clock=clock) as store:
        yield store


@contextmanager
def opened(
    path: Path = DB, tables: Sequence[Table] = TABLES, *, clock: Any = None, **more: Any
) -> Iterator[SqliteStore]:
    store = SqliteStore.open(path, "toy", tables, "http://toy.test", clock=clock or Clock(), **more)
    try:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        yield store
    finally:
        store.close()


def thing(id: int, kind: int = 1, name: str | None = "n") -> tuple[Any, ...]:
    return (id, name, kind, None)


def page(*ids: int, proven: tuple[int, int] | None = None, scopes: tuple[int, ...] = (1,), **more: Any) -> Page:
    return Page(tuple(thing(id) for id in ids), scopes, Interval(*proven) if proven else None, None, **more)


def detail(key: int, *parts: int, text: Any = "t") -> Detail:
    return Detail({"parts": [(key, part, text, None) for part in parts]})


def commit(store: SqliteStore, *pages: Page, **parts: Any) -> Committed:
    return store.commit(Batch(pages=pages, **parts), IDLE)


def failed(key: int, due_at: float | None, attempts: int = 1, stage: str = "detail") -> Failure:
    return Failure(stage, key, Outcome.UNAVAILABLE, "answered 500", 500, b"body", attempts, due_at)


def claim(store: SqliteStore, most: int = 100, order: Any = "newest", **more: Any) -> list[Any]:
    works, _ = store.claim("detail", most, order, more.get("bounds"), more.get("skip", ()))
    return [work.key for work in works]


# The schema


def columns_of(table: str) -> list[tuple[str, str]]:
    return [tuple(row) for row in query(DB, f"SELECT name, type FROM pragma_table_info('{table}')")]


def test_the_tables_of_a_pr0gramm_mirror_are_the_contract() -> None:
    with opened(tables=Pr0gramm.tables):
        pass
    names = [name for name, _ in columns_of("items")]
    assert names[0] == "id"
    api = (
        "id promoted userId up down created image thumb fullsize preview width height audio source flags user mark gift"
        " deleted repost variants subtitles extra"
    )
    life = ["first_seen_at", "listed_at", "fetched_at", "unlisted_at", "gone_at"]
    assert names == api.split() + life
    assert [name for name, _ in columns_of("tags")] == ["item_id", "id", "tag", "confidence", "extra"]
    assert [name for name, _ in columns_of("comments")] == (
        ["item_id", "id", "parent", "content", "created", "up", "down", "confidence", "name", "mark", "extra"]
    )
    keys = "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk"
    assert column(DB, keys, "items") == ["id"]
    assert column(DB, keys, "tags") == column(DB, keys, "comments") == ["item_id", "id"]


def test_the_engines_tables_are_the_designs() -> None:
    with opened():
        pass
    assert [name for name, _ in columns_of("coverage")] == [
        "source",
        "scope",
        "sweep",
        "lo",
        "hi",
        "items",
        "walked_at",
    ]
    assert [name for name, _ in columns_of("work")] == (
        ["source", "stage", "key", "priority", "attempts", "due_at", "outcome", "error"]
    )
    keys = "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk"
    assert column(DB, keys, "work") == ["source", "stage", "key"]
    assert {"outcome", "message", "status", "body"} <= {name for name, _ in columns_of("failures")}
    assert {"coverage", "work", "failures", "runs", "sources"} <= set(column(DB, "SELECT name FROM sqlite_master"))


def test_every_table_is_strict_and_children_lie_beside_their_item() -> None:
    with opened():
        pass
    tables = query(DB, "SELECT name, strict, wr FROM pragma_table_list WHERE type = 'table' AND schema = 'main'")
    ours = {name: (strict, wr) for name, strict, wr in tables if not name.startswith(("sqlite_", "_sqlite"))}
    assert all(strict for strict, _ in ours.values())
    assert (ours["things"][1], ours["parts"][1], ours["work"][1], ours["coverage"][1]) == (0, 1, 1, 1)


def test_the_file_is_ours_in_wal_mode_and_fully_synchronous(store: SqliteStore) -> None:
    assert one(DB, "PRAGMA application_id") == APPLICATION_ID
    assert one(DB, "PRAGMA journal_mode") == "wal"
    assert store._conn.execute("PRAGMA synchronous").fetchone() == (2,)


def schema() -> list[Any]:
    return query(DB, "SELECT type, name, sql FROM sqlite_master ORDER BY name")


def test_opening_again_changes_nothing() -> None:
    with opened() as store:
        commit(store, page(3, 5, proven=(1, 5)))
    before, rows = schema(), dump(DB)
    for _ in range(2):
        with opened() as store:
            assert store.counts() == StoreCounts(2, 0, 2, 0)
    assert (schema(), dump(DB)) == (before, rows)


def test_a_column_that_a_newer_release_declares_is_added() -> None:
    older = (replace(THINGS, columns=(THINGS.columns[0], THINGS.columns[2])), replace(PARTS, columns=PARTS.columns[:1]))
    with opened(tables=older) as store:
        commit(store, Page(((1, 1, None),), (1,), None, None), details={})
        commit(store, details={1: Detail({"parts": [(1, 7, None)]})})
    with opened() as store:
        assert query(DB, "SELECT id, name, kind FROM things") == [(1, None, 1)]
        assert query(DB, "SELECT thing_id, id, text FROM parts") == [(1, 7, None)]
        commit(store, page(2), details={1: detail(1, 8)})
        assert query(DB, "SELECT id, name FROM things") == [(1, None), (2, "n")]
    assert one(DB, "SELECT strict FROM pragma_table_list WHERE name = 'things'") == 1


def test_a_set_up_that_died_half_way_is_finished_by_the_next() -> None:
    with opened(Path("whole.db")):
        pass
    with death() as none, opened(Path("count.db")):
        total = none.statements
    for at in range(1, total + 1, 2):
        path = Path(f"{at}.db")
        with death(at, error=lambda: sqlite3.OperationalError("disk I/O error")):
            try:
                with opened(path):
                    pass
            except StoreError:
                pass
        with opened(path) as store:
            commit(store, page(1, proven=(1, 1)))
        sql = "SELECT name FROM sqlite_master WHERE instr(name, '_sqlite_') = 0 ORDER BY name"
        assert column(path, sql) == column(Path("whole.db"), sql)


# A batch


def test_a_page_is_items_work_and_coverage(store: SqliteStore) -> None:
    done = commit(store, page(5, 3, proven=(2, 5)))
    assert (done.pages, done.listed, done.new, done.queued) == (1, 2, 2, 2)
    assert query(DB, "SELECT id, first_seen_at, listed_at, fetched_at FROM things") == [
        (3, 1_000_000, 1_000_000, None),
        (5, 1_000_000, 1_000_000, None),
    ]
    assert query(DB, "SELECT stage, key, priority, attempts FROM work ORDER BY key") == [
        ("detail", 3, 0, 0),
        ("detail", 5, 0, 0),
    ]
    assert store.coverage((1, 2)) == {1: [Covered(1, 2, 5, 2, 1_000_000)], 2: []}


def test_details_replace_what_was_stored_as_a_set_and_end_their_work(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(3, 5))
    commit(store, details={5: detail(5, 2, 1), 3: detail(3)})
    assert query(DB, "SELECT thing_id, id FROM parts") == [(5, 1), (5, 2)]
    assert claim(store) == []
    clock.at += 50
    done = commit(store, details={5: detail(5, 9)})
    assert done.stored == (5,)
    assert query(DB, "SELECT thing_id, id FROM parts") == [(5, 9)]
    assert column(DB, "SELECT fetched_at FROM things WHERE id = 5") == [1_000_050]
    assert store.counts() == StoreCounts(2, 2, 0, 0)


def test_many_parts_are_all_stored(store: SqliteStore) -> None:
    commit(store, page(*range(1, 30)))
    commit(store, details={key: detail(key, *range(key * 13)) for key in range(1, 30)})
    assert query(DB, "SELECT thing_id, count(*) FROM parts GROUP BY 1") == [(key, key * 13) for key in range(1, 30)]


def test_the_last_of_two_parts_of_one_name_is_kept(store: SqliteStore) -> None:
    commit(store, page(5))
    commit(store, details={5: Detail({"parts": [(5, 1, "first", None), (5, 1, "last", None)]})})
    assert column(DB, "SELECT text FROM parts") == ["last"]


def test_an_item_met_again_is_updated_and_queued_only_if_it_has_no_details(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(3, 5))
    commit(store, details={5: detail(5, 1)})
    clock.at += 100
    again = Page((thing(5, name="new"), thing(3, name="new")), (1,), None, None)
    done = commit(store, again)
    assert (done.listed, done.new, done.queued) == (2, 0, 0)
    assert query(DB, "SELECT id, name, first_seen_at, listed_at FROM things") == [
        (3, "new", 1_000_000, 1_000_100),
        (5, "new", 1_000_000, 1_000_100),
    ]
    assert claim(store) == [3]
    assert one(DB, "SELECT count(*) FROM parts") == 1


def test_gone_is_a_tombstone_that_being_listed_again_lifts(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(3, 5))
    assert commit(store, gone=(5,)).gone == (5,)
    assert query(DB, "SELECT id, gone_at FROM things") == [(3, None), (5, 1_000_000)]
    assert store.counts() == StoreCounts(2, 0, 1, 0)
    commit(store, page(5))
    assert column(DB, "SELECT gone_at FROM things") == [None, None]


def test_a_failure_is_put_off_with_its_evidence_and_forgotten_when_it_ends_well(
    store: SqliteStore, clock: Clock
) -> None:
    commit(store, page(5))
    done = commit(store, failures=(failed(5, clock.at + 60, attempts=2),))
    assert ([each.key for each in done.retried], done.failed) == ([5], ())
    assert store.claim("detail", 9, "newest", None, ()) == ([], clock.at + 60)
    assert query(DB, "SELECT outcome, message, status, body, attempts FROM failures") == [
        ("unavailable", "answered 500", 500, b"body", 2)
    ]
    clock.at += 60
    assert store.claim("detail", 9, "newest", None, ()) == ([Work("detail", 5, 0, 2)], None)
    commit(store, details={5: detail(5)})
    assert (one(DB, "SELECT count(*) FROM failures"), one(DB, "SELECT count(*) FROM work")) == (0, 0)


def test_what_failed_for_good_is_parked_and_not_claimed(store: SqliteStore) -> None:
    commit(store, page(3, 5))
    done = commit(store, failures=(failed(5, None),))
    assert [each.key for each in done.failed] == [5]
    assert claim(store) == [3]
    assert store.counts() == StoreCounts(2, 0, 1, 1)
    # Being listed again does not take it up.
    commit(store, page(5))
    assert claim(store) == [3]
    assert store.counts() == StoreCounts(2, 0, 1, 1)


def test_a_listed_item_that_cannot_be_used_is_parked_until_it_can(store: SqliteStore) -> None:
    broken = replace(failed(4, None, stage="item"), outcome=Outcome.MALFORMED)
    commit(store, page(5, proven=(1, 5), failures=(broken,)))
    commit(store, page(failures=(broken,)))
    assert query(DB, "SELECT stage, key, due_at, outcome FROM work WHERE stage = 'item'") == [
        ("item", 4, None, "malformed")
    ]
    assert store.counts() == StoreCounts(1, 0, 1, 1)
    commit(store, page(4))
    assert claim(store) == [5, 4]
    assert store.counts() == StoreCounts(2, 0, 2, 0)
    assert one(DB, "SELECT count(*) FROM failures") == 0


def test_an_item_that_was_listed_but_cannot_be_used_is_not_unlisted(store: SqliteStore) -> None:
    commit(store, page(5, 4, proven=(1, 5)))
    broken = replace(failed(4, None, stage="item"), outcome=Outcome.MALFORMED)
    commit(store, page(5, proven=(1, 5), failures=(broken,)))
    assert column(DB, "SELECT unlisted_at FROM things") == [None, None]


def test_what_a_walk_does_not_meet_again_is_unlisted_and_may_come_back(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(3, 5, 7, proven=(1, 9)))
    clock.at += 10
    commit(store, page(5, proven=(4, 6)))
    assert column(DB, "SELECT id FROM things WHERE unlisted_at IS NOT NULL") == []
    commit(store, page(5, proven=(1, 9)))
    assert query(DB, "SELECT id, unlisted_at FROM things") == [(3, 1_000_010), (5, None), (7, 1_000_010)]
    assert store.coverage((1,))[1][0].items == 1
    commit(store, page(7))
    assert column(DB, "SELECT unlisted_at FROM things") == [1_000_010, None, None]


def test_a_walk_says_nothing_about_items_of_other_scopes(store: SqliteStore) -> None:
    commit(store, Page((thing(3, kind=1), thing(4, kind=2)), (1, 2), Interval(1, 5), None))
    commit(store, Page((), (2,), Interval(1, 5), None))
    assert query(DB, "SELECT id, unlisted_at IS NULL FROM things") == [(3, 1), (4, 0)]


def test_a_full_sweep_proves_anew_and_refreshes_after_all_that_is_missing(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(3, 5, proven=(1, 5)))
    commit(store, details={5: detail(5)})
    assert store.begin_sweep(full=True).number == 1, "the first sweep is still open"
    store.end_sweep((1,))
    assert not store.sweep().open
    assert store.begin_sweep(full=False).number == 1
    assert store.begin_sweep(full=True) == Sweep(2, 1_000_001, True)
    assert store.begin_sweep(full=True).number == 2, "an open sweep is continued"
    assert store.coverage((1,)) == {1: []}
    clock.at += 10
    commit(store, page(3, 5, 4, proven=(1, 5)))
    assert [(work.key, work.priority) for work in store.claim("detail", 9, "newest", None, ())[0]] == [
        (4, 0),
        (3, 0),
        (5, -1),
    ]
    commit(store, details={5: detail(5)})
    commit(store, page(5))
    assert claim(store) == [4, 3], "what this sweep has fetched is not fetched again"
    store.end_sweep((1,))
    assert column(DB, "SELECT DISTINCT sweep FROM coverage") == [2]


def test_a_batch_that_breaks_anywhere_leaves_nothing(clock: Clock) -> None:
    batch = Batch(
        pages=(page(8, 9, proven=(6, 9), failures=(failed(7, None, stage="item"),)),),
        details={5: detail(5, 1), 4: detail(4, 1)},
        gone=(3,),
        failures=(failed(2, clock.at + 5), failed(1, None)),
    )
    with opened(clock=clock) as store:
        commit(store, page(1, 2, 3, 4, 5, proven=(1, 5)))
        before = dump_all(DB)
    with death() as none, opened(clock=clock) as store:
        at_first = none.statements
        store.commit(batch, IDLE)
        total = none.statements
    DB.unlink()
    with opened(clock=clock) as store:
        commit(store, page(1, 2, 3, 4, 5, proven=(1, 5)))
    assert total - at_first > 15
    for at in range(at_first + 1, total + 1):
        broken = death(at, error=lambda: sqlite3.OperationalError("disk I/O error"))
        with broken, opened(clock=clock) as store, pytest.raises(StoreError, match="the disk failed"):
            store.commit(batch, IDLE)
        after = dump_all(DB)
        assert {name: rows for name, rows in after.items() if name != "runs"} == {
            name: rows for name, rows in before.items() if name != "runs"
        }
    with opened(clock=clock) as store:
        assert store.commit(batch, IDLE).stored == (5, 4)
        assert store.counts() == StoreCounts(7, 2, 3, 2)


def test_a_full_disk_is_told_and_costs_nothing_that_was_stored(store: SqliteStore) -> None:
    commit(store, page(*range(1, 9)))
    (pages,) = store._conn.execute("PRAGMA page_count").fetchone()
    store._conn.execute(f"PRAGMA max_page_count = {pages + 1}")
    before = dump(DB)
    with pytest.raises(StoreError, match="the disk is full"):
        commit(store, details={key: detail(key, *range(100), text="x" * 100) for key in range(1, 9)})
    assert dump(DB) == before


def test_the_failure_of_work_that_somebody_cancelled_meanwhile_is_not_counted(store: SqliteStore) -> None:
    commit(store, page(5))
    store._conn.execute("DELETE FROM work")
    store._conn.execute("UPDATE sources SET work = 0")
    commit(store, failures=(failed(5, None),))
    assert_counts_are_real(store)


# Rows that SQLite refuses

REFUSED: dict[str, Any] = {"a lone surrogate": "\ud800", "a blob in a text": b"\xff", "a list": []}


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
def test_a_refused_row_makes_its_key_alone_a_failure(store: SqliteStore, bad: Any) -> None:
    commit(store, page(*range(1, 9)))
    details = {key: detail(key, 1, 2) for key in range(1, 6)}
    details[4] = Detail({"parts": [(4, 1, "good", None), (4, 2, bad, None)]})
    done = store.commit(
        Batch(pages=(page(20, proven=(9, 20)),), details=details, gone=(6,), failures=(failed(7, 9e9),)), IDLE
    )
    assert sorted(done.stored) == [1, 2, 3, 5]
    assert (done.gone, [each.key for each in done.retried]) == ((6,), [7])
    assert [(each.key, each.outcome, each.due_at) for each in done.failed] == [(4, Outcome.MALFORMED, None)]
    assert (done.pages, done.new) == (1, 1)
    assert column(DB, "SELECT DISTINCT thing_id FROM parts") == [1, 2, 3, 5]
    assert query(DB, "SELECT key FROM work WHERE due_at IS NULL") == [(4,)]
    assert query(DB, "SELECT stored, gone, failed, retries, pages, new FROM runs") == [(4, 1, 1, 1, 1, 1)]
    assert store.counts() == StoreCounts(9, 4, 3, 1)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 12), max_size=12), st.sets(st.integers(1, 12)))
def test_any_number_of_refused_rows_is_told_apart_from_the_others(keys: set[int], guilty: set[int]) -> None:
    with memory() as store:
        commit(store, page(*range(1, 13)))
        details = {key: detail(key, 2**63 if key in guilty else 1) for key in keys}
        if not details:
            return
        done = commit(store, details=details)
        assert set(done.stored) == keys - guilty
        assert {each.key for each in done.failed} == keys & guilty
        assert_counts_are_real(store)


def test_a_refused_listed_row_is_an_error_of_the_store_and_leaves_nothing(store: SqliteStore) -> None:
    bad = Page((thing(1), (2**63, "n", 1, None)), (1,), Interval(1, 2), None)
    with pytest.raises(StoreError, match="refuses a listed row"):
        store.commit(Batch(pages=(bad,)), IDLE)
    assert store.counts() == StoreCounts()
    assert store.coverage((1,)) == {1: []}


# Claims


def test_claims_come_by_priority_then_in_the_runs_order(store: SqliteStore) -> None:
    commit(store, page(*range(1, 7)))
    store._conn.execute("UPDATE work SET priority = 3 WHERE key IN (2, 4)")
    store._conn.execute("UPDATE work SET priority = -1 WHERE key IN (6)")
    assert claim(store, order="newest") == [4, 2, 5, 3, 1, 6]
    assert claim(store, order="oldest") == [2, 4, 1, 3, 5, 6]
    assert claim(store, 3, order="oldest") == [2, 4, 1]
    assert claim(store, 0) == []


def test_claims_leave_out_what_is_claimed_already_and_what_is_out_of_bounds(store: SqliteStore) -> None:
    commit(store, page(*range(1, 9)))
    assert claim(store, 3, skip={8, 6}) == [7, 5, 4]
    assert claim(store, bounds=Interval(3, 5)) == [5, 4, 3]
    assert claim(store, 2, bounds=Interval(3, 5), skip={5, 1}) == [4, 3]
    assert claim(store, bounds=Interval(20, 30)) == []
    assert claim(store, skip=set(range(1, 9))) == []


def test_claims_of_another_stage_find_nothing(store: SqliteStore) -> None:
    commit(store, page(1))
    assert store.claim("embed", 5, "newest", None, ()) == ([], None)


def test_a_claim_says_when_the_next_is_due_within_bounds(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(1, 2, 3, 4))
    commit(store, failures=(failed(1, clock.at + 5), failed(2, clock.at + 9), failed(3, None)))
    assert store.claim("detail", 1, "newest", None, ()) == ([Work("detail", 4)], None)
    assert store.claim("detail", 9, "newest", None, ()) == ([Work("detail", 4)], clock.at + 5)
    assert store.claim("detail", 9, "newest", Interval(2, 3), ()) == ([], clock.at + 9)
    assert store.claim("detail", 9, "newest", Interval(3, 3), ()) == ([], None)
    clock.at += 5
    assert claim(store) == [4, 1]


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.integers(1, 30), st.tuples(st.integers(-1, 3), st.sampled_from([None, 0.0, 5.0])), min_size=1),
    st.sampled_from(["newest", "oldest"]),
    st.integers(1, 40),
    st.sets(st.integers(1, 30)),
    st.none() | st.builds(Interval, st.integers(1, 15), st.integers(10, 30)),
)
def test_a_claim_is_the_first_of_the_sorted_due_work(
    work: dict[int, Any], order: Any, most: int, skip: set[int], bounds: Interval | None
) -> None:
    clock = Clock()
    with memory(clock) as store:
        commit(store, page(*work))
        for key, (priority, due) in work.items():
            at = None if due is None else clock.at + due
            store._conn.execute("UPDATE work SET priority = ?, due_at = ? WHERE key = ?", [priority, at, key])
        sign = -1 if order == "newest" else 1
        due_now = [key for key, (_, due) in work.items() if due == 0 and (bounds is None or key in bounds)]
        expected = sorted(set(due_now) - skip, key=lambda key: (-work[key][0], sign * key))[:most]
        assert claim(store, most, order, skip=skip, bounds=bounds) == expected


# Counts and coverage, against models


@contextmanager
def memory(clock: Clock | None = None) -> Iterator[SqliteStore]:
    """A store of its own for one example."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "m.db", clock=clock) as store:
        store._conn.execute("PRAGMA synchronous = OFF")
        yield store


def real(store: SqliteStore, sql: str, *parameters: Any) -> Any:
    return store._conn.execute(sql, parameters).fetchone()[0]


def assert_counts_are_real(store: SqliteStore) -> None:
    assert store.counts() == StoreCounts(
        items=real(store, "SELECT count(*) FROM things"),
        fetched=real(store, "SELECT count(*) FROM things WHERE fetched_at IS NOT NULL"),
        work=real(store, "SELECT count(*) FROM work WHERE due_at IS NOT NULL"),
        parked=real(store, "SELECT count(*) FROM work WHERE due_at IS NULL"),
    )


keys = st.integers(1, 12)
spans = st.tuples(keys, keys).map(lambda pair: (min(pair), max(pair)))
endings = st.sampled_from(["stored", "gone", "later", "never", "refused", "left"])
listings = st.tuples(st.just("list"), spans, st.sets(keys, max_size=6), st.sets(keys, max_size=2))
fetchings = st.tuples(st.just("fetch"), st.lists(endings, min_size=1, max_size=8))


@settings(max_examples=40, deadline=None)
@given(st.lists(listings | fetchings | st.tuples(st.just("sweep")) | st.tuples(st.just("both"), listings, fetchings)))
def test_the_totals_are_always_what_counting_gives(steps: list[Any]) -> None:
    clock = Clock()
    with memory(clock) as store:

        def part_of(step: Any) -> Batch:
            if step[0] == "list":
                _, span, listed, broken = step
                unusable = tuple(failed(key, None, stage="item") for key in broken)
                return Batch(pages=(page(*listed, proven=span, failures=unusable),))
            ends: dict[str, list[int]] = {}
            works, _ = store.claim("detail", 20, "newest", None, ())
            for work, how in zip(works, step[1], strict=False):
                ends.setdefault(how, []).append(work.key)
            return Batch(
                details={key: detail(key, 1) for key in ends.get("stored", ())}
                | {key: detail(key, 2**63) for key in ends.get("refused", ())},
                gone=tuple(ends.get("gone", ())),
                failures=(
                    *(failed(key, clock.at + 15) for key in ends.get("later", ())),
                    *(failed(key, None) for key in ends.get("never", ())),
                ),
            )

        for step in steps:
            clock.at += 10
            if step[0] == "sweep":
                store.end_sweep((1,))
                store.begin_sweep(full=True)
                continue
            if step[0] == "both":
                listed, fetched = part_of(step[1]), part_of(step[2])
                batch = replace(fetched, pages=listed.pages)
            else:
                batch = part_of(step)
            if not batch.empty:
                store.commit(batch, IDLE)
            assert_counts_are_real(store)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(spans, st.sampled_from([(1,), (2,), (1, 2)]), st.sets(keys)),
        max_size=8,
    )
)
def test_coverage_is_the_union_of_what_was_proven_kept_merged(pages: list[Any]) -> None:
    clock = Clock()
    walked: dict[int, dict[int, int]] = {1: {}, 2: {}}
    with memory(clock) as store:
        for (lo, hi), scopes, present in pages:
            clock.at += 1
            rows = tuple(
                thing(id, kind=1 + id % 2) for id in sorted(present) if lo <= id <= hi and 1 + id % 2 in scopes
            )
            commit(store, Page(rows, scopes, Interval(lo, hi), None))
            for scope in scopes:
                walked[scope] |= dict.fromkeys(range(lo, hi + 1), int(clock.at))
            found = store.coverage((1, 2))
            for scope, numbers in walked.items():
                assert [(each.lo, each.hi) for each in found[scope]] == runs_of(set(numbers))
                for each in found[scope]:
                    # Never younger than its oldest part.
                    assert each.walked_at <= min(numbers[n] for n in range(each.lo, each.hi + 1))
                    assert each.items == real(
                        store,
                        "SELECT count(*) FROM things WHERE id BETWEEN ? AND ? AND kind & ? AND unlisted_at IS NULL",
                        each.lo,
                        each.hi,
                        scope,
                    )


def runs_of(numbers: set[int]) -> list[tuple[int, int]]:
    starts = sorted(n for n in numbers if n - 1 not in numbers)
    ends = sorted(n for n in numbers if n + 1 not in numbers)
    return list(zip(starts, ends, strict=True))


# Runs and the overview


def test_the_runs_row_follows_the_run(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(1, 2))
    progress = Progress(Counts(stored=1, requests=7), 5.0, 4, 9, 2.5, None, paused=30.0, reason="answered 429")
    clock.at += 5
    store.update_run(RunState(progress))
    assert query(DB, 'SELECT stored, requests, queued, "left", rate, paused_until, reason, updated_at FROM runs') == [
        (1, 7, 4, 9, 2.5, 1_000_035, "answered 429", 1_000_005)
    ]
    store.update_run(RunState(IDLE.progress, "complete", "all of it"))
    assert query(DB, "SELECT ended, message, ended_at, paused_until, pid FROM runs") == [
        ("complete", "all of it", 1_000_005, None, os.getpid())
    ]


def test_a_run_that_died_without_a_word_is_marked_by_the_next() -> None:
    with opened():
        pass
    with opened():
        assert column(DB, "SELECT ended FROM runs ORDER BY id") == ["died", None]


def test_no_secret_is_in_the_plan_that_is_written_down(store: SqliteStore) -> None:
    assert "user_agent" not in one(DB, "SELECT plan FROM runs")


def test_the_overview_tells_it_all_while_a_run_writes(store: SqliteStore, clock: Clock) -> None:
    commit(store, page(1, 2, 3, 4, 5, 6, proven=(1, 6)))
    commit(store, page(20, proven=(20, 20)))
    commit(
        store, details={6: detail(6)}, gone=(5,), failures=(failed(4, clock.at + 9), failed(3, None), failed(2, None))
    )
    store._conn.execute("BEGIN IMMEDIATE")
    found = overview(DB, TABLES)
    store._conn.execute("ROLLBACK")
    assert (found.source, found.base_url) == ("toy", "http://toy.test")
    assert (found.items, found.fetched, found.gone, found.unlisted, found.work, found.parked) == (7, 1, 1, 0, 3, 2)
    assert (found.waiting, found.failed) == ({"unavailable": 1}, {"unavailable": 2})
    assert [(each.lo, each.hi, each.items) for each in found.coverage] == [(20, 20, 1), (1, 6, 6)]
    assert (found.sweep, found.sweep_open) == (1, True)
    assert [run.stored for run in found.runs] == [1]
    assert found.runs[0].pid == os.getpid()
    assert source_of(DB) == "toy"


# The file


def test_a_second_writer_is_refused_under_any_name_of_the_file(store: SqliteStore) -> None:
    Path("other.db").symlink_to(DB)
    for path in (DB, DB.absolute(), Path("other.db"), Path() / ".." / Path.cwd().name / DB):
        with pytest.raises(StoreError, match="in use by another run"):
            SqliteStore.open(path, "toy", TABLES, "http://toy.test")
    commit(store, page(1))


def test_the_lock_ends_with_the_store_also_when_opening_fails() -> None:
    DB.write_bytes(b"no database, but long enough to be looked at" * 50)
    for _ in range(2):
        with pytest.raises(StoreError, match="no SQLite database"):
            SqliteStore.open(DB, "toy", TABLES, "http://toy.test")
    DB.unlink()
    for _ in range(2):
        with opened():
            pass


def test_a_database_that_another_program_keeps_locked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "BUSY_SECONDS", 0.05)
    with opened() as store, closing(sqlite3.connect(DB, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            commit(store, page(1))
        other.execute("ROLLBACK")
        assert commit(store, page(1)).new == 1


def test_the_database_of_another_source_is_refused_and_stays_as_it_is() -> None:
    with opened() as store:
        commit(store, page(1))
    before = schema(), dump_all(DB)
    for open_it in (
        lambda: SqliteStore.open(DB, "pr0gramm", Pr0gramm.tables, "http://x.test"),
        lambda: SqliteStore.peek(DB, "pr0gramm", Pr0gramm.tables),
    ):
        with pytest.raises(ConfigurationError, match="mirrors toy, not pr0gramm"):
            open_it()
        assert (schema(), dump_all(DB)) == before


def test_a_changed_address_is_a_warning() -> None:
    warnings: list[str] = []
    for address in ("http://a.test", "http://a.test", "http://b.test", "http://b.test"):
        SqliteStore.open(DB, "toy", TABLES, address, warn=warnings.append).close()
    assert len(warnings) == 1
    assert "http://a.test" in warnings[0]
    assert "http://b.test" in warnings[0]


def test_a_foreign_database_stays_as_it_is_byte_for_byte() -> None:
    with closing(sqlite3.connect(DB)) as conn:
        conn.executescript("CREATE TABLE mine (a); INSERT INTO mine VALUES (1);")
    before = DB.read_bytes()
    for open_it in (
        lambda: SqliteStore.open(DB, "toy", TABLES, "http://toy.test"),
        lambda: SqliteStore.peek(DB, "toy", TABLES),
        lambda: overview(DB, TABLES),
        lambda: source_of(DB),
    ):
        with pytest.raises(StoreError, match=r"m\.db is (a database of something else|no database of fetcher's)"):
            open_it()
        assert DB.read_bytes() == before
    assert {each.name for each in Path().iterdir()} <= {"m.db", "m.db.lock"}


def test_a_foreign_file_stays_as_it_is() -> None:
    DB.write_bytes(b"a diary\n" * 200)
    with pytest.raises(StoreError, match="no SQLite database"):
        SqliteStore.open(DB, "toy", TABLES, "http://toy.test")
    assert DB.read_bytes() == b"a diary\n" * 200


def test_an_empty_file_becomes_a_mirror() -> None:
    DB.touch()
    with opened() as store:
        assert commit(store, page(1)).new == 1


def test_a_folder_is_no_database() -> None:
    DB.mkdir()
    with pytest.raises(StoreError, match="is a folder"):
        SqliteStore.open(DB, "toy", TABLES, "http://toy.test")
    with pytest.raises(StoreError, match="is a folder"):
        overview(DB, TABLES)


def test_a_missing_database_is_nothing_yet_and_is_not_made_by_looking() -> None:
    assert SqliteStore.peek(DB, "toy", TABLES) is None
    with pytest.raises(StoreError, match=r"there is no database m\.db"):
        overview(DB, TABLES)
    with pytest.raises(StoreError, match=r"cannot be written: No such file or directory"):
        SqliteStore.open(Path("none") / "m.db", "toy", TABLES, "http://toy.test")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("how", ["overwritten", "truncated"])
def test_a_damaged_file_is_told_in_one_line(how: str) -> None:
    with opened() as store:
        commit(store, page(*range(1, 2000), proven=(1, 2000)))
    whole = DB.read_bytes()
    # The first page is left, so that it still passes for a database of ours.
    DB.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096) if how == "overwritten" else whole[: 4096 * 3])
    with pytest.raises(StoreError) as told, opened() as store:
        commit(store, page(*range(1, 2000), proven=(1, 2000)))
    assert "damaged" in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(StoreError):
        overview(DB, TABLES)


def test_looking_at_a_mirror_writes_nothing() -> None:
    with opened() as store:
        commit(store, page(3, proven=(1, 3)))
    before = DB.read_bytes()
    peeked = SqliteStore.peek(DB, "toy", TABLES)
    assert peeked is not None
    assert (peeked.counts(), peeked.coverage((1,))[1][0].hi) == (StoreCounts(1, 0, 1, 0), 3)
    with pytest.raises(StoreError, match="read-only"):
        peeked.begin_run(Plan())
    peeked.close()
    assert DB.read_bytes() == before


@contextmanager
def somebody() -> Iterator[Path]:
    """A folder of somebody who is not allowed everything, and being that person."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        was_root = os.geteuid() == 0
        if was_root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if was_root:
                os.seteuid(0)
            folder.chmod(stat.S_IRWXU)


def test_a_folder_that_cannot_be_written_is_told() -> None:
    with somebody() as folder:
        folder.chmod(0o555)
        with pytest.raises(StoreError, match="cannot be written: Permission denied"):
            SqliteStore.open(folder / "m.db", "toy", TABLES, "http://toy.test")


def test_a_file_that_cannot_be_written_is_told() -> None:
    with somebody() as folder:
        path = folder / "m.db"
        with opened(path) as store:
            commit(store, page(1))
        path.chmod(0o444)
        with pytest.raises(StoreError, match="read-only: change its permissions"), opened(path):
            pass
        assert overview(path, TABLES).items == 1


def test_a_mirror_whose_run_was_killed_in_its_first_moments_is_said_to_be_empty(tmp_path: Path) -> None:
    born, killed = tmp_path / "born.db", tmp_path / "killed.db"
    with closing(sqlite3.connect(born, isolation_level=None)) as conn:
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        conn.execute("PRAGMA cache_spill = 1")
        conn.execute("PRAGMA cache_size = 1")
        conn.execute("BEGIN")
        for number in range(200):
            conn.execute(f"CREATE TABLE t{number} (a)")
        shutil.copy(born, killed)
        shutil.copy(f"{born}-journal", f"{killed}-journal")
    with pytest.raises(StoreError, match="is still empty: run `fetcher fetch`"):
        overview(killed, TABLES)


# What was learned


KNOWN = Learned(40.0, 6.0, False, 8.0, 1.0)


def learned_column() -> Any:
    return one(DB, "SELECT learned FROM sources")


def test_what_was_learned_is_written_with_the_run_when_it_changed_and_kept_per_host(store: SqliteStore) -> None:
    known = KNOWN
    store.begin_run(Plan())
    store.want({1: Interval(1, 1)})
    assert store.learned("here") is None
    store.learn("here", lambda: known)
    store.update_run(IDLE)
    assert store.learned("here") == KNOWN
    known = replace(KNOWN, rate=41.0)
    store.update_run(IDLE)
    assert store.learned("here") == KNOWN, "a little more is not worth writing"
    known = replace(KNOWN, rate=80.0)
    store.commit(Batch(), IDLE)
    assert store.learned("here") == known
    store.learn("there", lambda: KNOWN)
    known = replace(KNOWN, rate=81.0)
    store.update_run(replace(IDLE, ended="complete"))
    assert (store.learned("here"), store.learned("there")) == (replace(KNOWN, rate=80.0), KNOWN)


def test_at_the_end_of_a_run_all_is_written_that_was_learned(store: SqliteStore) -> None:
    known = KNOWN
    store.begin_run(Plan())
    store.want({1: Interval(1, 1)})
    store.learn("here", lambda: known)
    store.update_run(IDLE)
    known = replace(KNOWN, rate=41.0)
    store.update_run(replace(IDLE, ended="complete"))
    assert store.learned("here") == known


def test_of_many_hosts_the_last_ones_asked_are_kept(store: SqliteStore) -> None:
    store.begin_run(Plan())
    store.want({1: Interval(1, 1)})
    for port in range(15):
        store.learn(f"host:{port}", lambda: KNOWN)
        store.update_run(replace(IDLE, ended="complete"))
    assert [port for port in range(15) if store.learned(f"host:{port}")] == list(range(5, 15))


@pytest.mark.parametrize("damage", ["{", "[]", '"text"', '{"here": {}}', '{"here": {"rate": "x"}}', '{"here": [1]}'])
def test_damaged_knowledge_is_ignored_with_a_warning_and_written_anew(damage: str) -> None:
    said: list[str] = []
    with opened(warn=said.append) as store:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        with closing(sqlite3.connect(DB)) as conn, conn:
            conn.execute("UPDATE sources SET learned = ?", [damage])
        assert store.learned("here") is None
        assert len(said) == 1
        assert "damaged" in said[0]
        store.learn("here", lambda: KNOWN)
        store.update_run(IDLE)
        assert store.learned("here") == KNOWN
