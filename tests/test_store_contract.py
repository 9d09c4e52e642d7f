"""What every store promises about rows, work, coverage and counts, whichever database it writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import ConfigurationError, StoreError
from fetcher.learned import Learned
from fetcher.model import (
    Batch,
    Counts,
    Covered,
    Detail,
    Interval,
    Outcome,
    Page,
    Plan,
    Progress,
    RunState,
    StoreCounts,
    Work,
)
from fetcher.place import Place, place_of
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores.mirror import MirrorStore, Sweep
from fetcher.stores.opening import open_store, peek_store
from fetcher.stores.origin import source_of
from fetcher.stores.overview import overview
from tests.helpers import change, column, dump, dump_all, one, query
from tests.toy import IDLE, PARTS, TABLES, THINGS, Clock, claim, commit, detail, failed, opened, page, thing


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def new_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Place]:
    """Names a database that does not exist yet, of each kind in turn."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        return lambda: place_of(server.schema())
    folder, number = tmp_path_factory.mktemp("stores"), count()
    return lambda: folder / f"{next(number)}.db"


@pytest.fixture
def db(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(db: Place, clock: Clock) -> Iterator[Any]:
    with opened(db, clock=clock) as store:
        yield store


def test_opening_again_changes_nothing(db: Place) -> None:
    with opened(db) as store:
        commit(store, page(3, 5, proven=(1, 5)))
    rows = dump(db)
    for _ in range(2):
        with opened(db) as store:
            assert store.counts() == StoreCounts(2, 0, 2, 0)
    assert dump(db) == rows


def test_a_column_that_a_newer_release_declares_is_added(db: Place) -> None:
    older = (replace(THINGS, columns=(THINGS.columns[0], THINGS.columns[2])), replace(PARTS, columns=PARTS.columns[:1]))
    with opened(db, tables=older) as store:
        commit(store, Page(((1, 1, None),), (1,), None, None), details={})
        commit(store, details={1: Detail({"parts": [(1, 7, None)]})})
    with opened(db) as store:
        assert query(db, "SELECT id, name, kind FROM things") == [(1, None, 1)]
        assert query(db, "SELECT thing_id, id, text FROM parts") == [(1, 7, None)]
        commit(store, page(2), details={1: detail(1, 8)})
        assert query(db, "SELECT id, name FROM things ORDER BY 1") == [(1, None), (2, "n")]


# A batch


def test_a_page_is_items_work_and_coverage(db: Place, store: MirrorStore) -> None:
    done = commit(store, page(5, 3, proven=(2, 5)))
    assert (done.pages, done.listed, done.new, done.queued) == (1, 2, 2, 2)
    assert query(db, "SELECT id, first_seen_at, listed_at, fetched_at FROM things") == [
        (3, 1_000_000, 1_000_000, None),
        (5, 1_000_000, 1_000_000, None),
    ]
    assert query(db, "SELECT stage, key, priority, attempts FROM work ORDER BY key") == [
        ("detail", 3, 0, 0),
        ("detail", 5, 0, 0),
    ]
    assert store.coverage((1, 2)) == {1: [Covered(1, 2, 5, 2, 1_000_000)], 2: []}


def test_details_replace_what_was_stored_as_a_set_and_end_their_work(
    db: Place, store: MirrorStore, clock: Clock
) -> None:
    commit(store, page(3, 5))
    commit(store, details={5: detail(5, 2, 1), 3: detail(3)})
    assert query(db, "SELECT thing_id, id FROM parts") == [(5, 1), (5, 2)]
    assert claim(store) == []
    clock.at += 50
    done = commit(store, details={5: detail(5, 9)})
    assert done.stored == (5,)
    assert query(db, "SELECT thing_id, id FROM parts") == [(5, 9)]
    assert column(db, "SELECT fetched_at FROM things WHERE id = 5") == [1_000_050]
    assert store.counts() == StoreCounts(2, 2, 0, 0)


def test_many_parts_are_all_stored(db: Place, store: MirrorStore) -> None:
    commit(store, page(*range(1, 30)))
    commit(store, details={key: detail(key, *range(key * 13)) for key in range(1, 30)})
    assert query(db, "SELECT thing_id, count(*) FROM parts GROUP BY 1 ORDER BY 1") == [
        (key, key * 13) for key in range(1, 30)
    ]


def test_the_last_of_two_parts_of_one_name_is_kept(db: Place, store: MirrorStore) -> None:
    commit(store, page(5))
    commit(store, details={5: Detail({"parts": [(5, 1, "first", None), (5, 1, "last", None)]})})
    assert column(db, "SELECT text FROM parts") == ["last"]


def test_an_item_met_again_is_updated_and_queued_only_if_it_has_no_details(
    db: Place, store: MirrorStore, clock: Clock
) -> None:
    commit(store, page(3, 5))
    commit(store, details={5: detail(5, 1)})
    clock.at += 100
    again = Page((thing(5, name="new"), thing(3, name="new")), (1,), None, None)
    done = commit(store, again)
    assert (done.listed, done.new, done.queued) == (2, 0, 0)
    assert query(db, "SELECT id, name, first_seen_at, listed_at FROM things") == [
        (3, "new", 1_000_000, 1_000_100),
        (5, "new", 1_000_000, 1_000_100),
    ]
    assert claim(store) == [3]
    assert one(db, "SELECT count(*) FROM parts") == 1


def test_gone_is_a_tombstone_that_being_listed_again_lifts(db: Place, store: MirrorStore, clock: Clock) -> None:
    commit(store, page(3, 5))
    assert commit(store, gone=(5,)).gone == (5,)
    assert query(db, "SELECT id, gone_at FROM things") == [(3, None), (5, 1_000_000)]
    assert store.counts() == StoreCounts(2, 0, 1, 0)
    commit(store, page(5))
    assert column(db, "SELECT gone_at FROM things") == [None, None]


def test_a_failure_is_put_off_with_its_evidence_and_forgotten_when_it_ends_well(
    db: Place, store: MirrorStore, clock: Clock
) -> None:
    commit(store, page(5))
    done = commit(store, failures=(failed(5, clock.at + 60, attempts=2),))
    assert ([each.key for each in done.retried], done.failed) == ([5], ())
    assert store.claim("detail", 9, "newest", None, ()) == ([], clock.at + 60)
    assert query(db, "SELECT outcome, message, status, body, attempts FROM failures") == [
        ("unavailable", "answered 500", 500, b"body", 2)
    ]
    clock.at += 60
    assert store.claim("detail", 9, "newest", None, ()) == ([Work("detail", 5, 0, 2)], None)
    commit(store, details={5: detail(5)})
    assert (one(db, "SELECT count(*) FROM failures"), one(db, "SELECT count(*) FROM work")) == (0, 0)


def test_what_failed_for_good_is_parked_and_not_claimed(store: MirrorStore) -> None:
    commit(store, page(3, 5))
    done = commit(store, failures=(failed(5, None),))
    assert [each.key for each in done.failed] == [5]
    assert claim(store) == [3]
    assert store.counts() == StoreCounts(2, 0, 1, 1)
    # Being listed again does not take it up.
    commit(store, page(5))
    assert claim(store) == [3]
    assert store.counts() == StoreCounts(2, 0, 1, 1)


def test_a_listed_item_that_cannot_be_used_is_parked_until_it_can(db: Place, store: MirrorStore) -> None:
    broken = replace(failed(4, None, stage="item"), outcome=Outcome.MALFORMED)
    commit(store, page(5, proven=(1, 5), failures=(broken,)))
    commit(store, page(failures=(broken,)))
    assert query(db, "SELECT stage, key, due_at, outcome FROM work WHERE stage = 'item'") == [
        ("item", 4, None, "malformed")
    ]
    assert store.counts() == StoreCounts(1, 0, 1, 1)
    commit(store, page(4))
    assert claim(store) == [5, 4]
    assert store.counts() == StoreCounts(2, 0, 2, 0)
    assert one(db, "SELECT count(*) FROM failures") == 0


def test_an_item_that_was_listed_but_cannot_be_used_is_not_unlisted(db: Place, store: MirrorStore) -> None:
    commit(store, page(5, 4, proven=(1, 5)))
    broken = replace(failed(4, None, stage="item"), outcome=Outcome.MALFORMED)
    commit(store, page(5, proven=(1, 5), failures=(broken,)))
    assert column(db, "SELECT unlisted_at FROM things ORDER BY id") == [None, None]


def test_what_a_walk_does_not_meet_again_is_unlisted_and_may_come_back(
    db: Place, store: MirrorStore, clock: Clock
) -> None:
    commit(store, page(3, 5, 7, proven=(1, 9)))
    clock.at += 10
    commit(store, page(5, proven=(4, 6)))
    assert column(db, "SELECT id FROM things WHERE unlisted_at IS NOT NULL") == []
    commit(store, page(5, proven=(1, 9)))
    assert query(db, "SELECT id, unlisted_at FROM things ORDER BY id") == [(3, 1_000_010), (5, None), (7, 1_000_010)]
    assert store.coverage((1,))[1][0].items == 1
    commit(store, page(7))
    assert column(db, "SELECT unlisted_at FROM things ORDER BY id") == [1_000_010, None, None]


def test_a_walk_says_nothing_about_items_of_other_scopes(db: Place, store: MirrorStore) -> None:
    commit(store, Page((thing(3, kind=1), thing(4, kind=2)), (1, 2), Interval(1, 5), None))
    commit(store, Page((), (2,), Interval(1, 5), None))
    assert query(db, "SELECT id, unlisted_at IS NULL FROM things") == [(3, 1), (4, 0)]


def test_a_full_sweep_proves_anew_and_refreshes_after_all_that_is_missing(
    db: Place, store: MirrorStore, clock: Clock
) -> None:
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
    assert column(db, "SELECT DISTINCT sweep FROM coverage") == [2]


def test_the_failure_of_work_that_somebody_cancelled_meanwhile_is_not_counted(store: MirrorStore) -> None:
    commit(store, page(5))
    store._conn.execute("DELETE FROM work")
    store._conn.execute("UPDATE sources SET work = 0")
    commit(store, failures=(failed(5, None),))
    assert_counts_are_real(store)


# Rows that SQLite refuses

REFUSED: dict[str, Any] = {"a lone surrogate": "\ud800", "a blob in a text": b"\xff", "a list": []}


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
def test_a_refused_row_makes_its_key_alone_a_failure(db: Place, store: MirrorStore, bad: Any) -> None:
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
    assert column(db, "SELECT DISTINCT thing_id FROM parts ORDER BY 1") == [1, 2, 3, 5]
    assert query(db, "SELECT key FROM work WHERE due_at IS NULL") == [(4,)]
    assert query(db, "SELECT stored, gone, failed, retries, pages, new FROM runs") == [(4, 1, 1, 1, 1, 1)]
    assert store.counts() == StoreCounts(9, 4, 3, 1)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 12), max_size=12), st.sets(st.integers(1, 12)))
def test_any_number_of_refused_rows_is_told_apart_from_the_others(
    new_place: Callable[[], Place], keys: set[int], guilty: set[int]
) -> None:
    with memory(new_place) as store:
        commit(store, page(*range(1, 13)))
        details = {key: detail(key, 2**63 if key in guilty else 1) for key in keys}
        if not details:
            return
        done = commit(store, details=details)
        assert set(done.stored) == keys - guilty
        assert {each.key for each in done.failed} == keys & guilty
        assert_counts_are_real(store)


# Claims


def test_claims_come_by_priority_then_in_the_runs_order(store: MirrorStore) -> None:
    commit(store, page(*range(1, 7)))
    for key, priority in ((2, 3), (4, 3), (6, -1)):
        store._conn.execute("UPDATE work SET priority = ? WHERE key = ?", [priority, store._conn.any(key)])
    assert claim(store, order="newest") == [4, 2, 5, 3, 1, 6]
    assert claim(store, order="oldest") == [2, 4, 1, 3, 5, 6]
    assert claim(store, 3, order="oldest") == [2, 4, 1]
    assert claim(store, 0) == []


def test_claims_leave_out_what_is_claimed_already_and_what_is_out_of_bounds(store: MirrorStore) -> None:
    commit(store, page(*range(1, 9)))
    assert claim(store, 3, skip={8, 6}) == [7, 5, 4]
    assert claim(store, bounds=Interval(3, 5)) == [5, 4, 3]
    assert claim(store, 2, bounds=Interval(3, 5), skip={5, 1}) == [4, 3]
    assert claim(store, bounds=Interval(20, 30)) == []
    assert claim(store, skip=set(range(1, 9))) == []


def test_claims_of_another_stage_find_nothing(store: MirrorStore) -> None:
    commit(store, page(1))
    assert store.claim("embed", 5, "newest", None, ()) == ([], None)


def test_a_claim_says_when_the_next_is_due_within_bounds(store: MirrorStore, clock: Clock) -> None:
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
    new_place: Callable[[], Place],
    work: dict[int, Any],
    order: Any,
    most: int,
    skip: set[int],
    bounds: Interval | None,
) -> None:
    clock = Clock()
    with memory(new_place, clock) as store:
        commit(store, page(*work))
        for key, (priority, due) in work.items():
            at = None if due is None else clock.at + due
            store._conn.execute(
                "UPDATE work SET priority = ?, due_at = ? WHERE key = ?", [priority, at, store._conn.any(key)]
            )
        sign = -1 if order == "newest" else 1
        due_now = [key for key, (_, due) in work.items() if due == 0 and (bounds is None or key in bounds)]
        expected = sorted(set(due_now) - skip, key=lambda key: (-work[key][0], sign * key))[:most]
        assert claim(store, most, order, skip=skip, bounds=bounds) == expected


# Counts and coverage, against models


@contextmanager
def memory(new_place: Callable[[], Place], clock: Clock | None = None) -> Iterator[Any]:
    """A store of its own for one example."""
    place = new_place()
    with opened(place, clock=clock) as store:
        if isinstance(place, Path):
            store._conn.execute("PRAGMA synchronous = OFF")
        yield store


def real(store: MirrorStore, sql: str, *parameters: Any) -> Any:
    return store._conn.execute(sql, parameters).fetchone()[0]


def assert_counts_are_real(store: MirrorStore) -> None:
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
def test_the_totals_are_always_what_counting_gives(new_place: Callable[[], Place], steps: list[Any]) -> None:
    clock = Clock()
    with memory(new_place, clock) as store:

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
def test_coverage_is_the_union_of_what_was_proven_kept_merged(new_place: Callable[[], Place], pages: list[Any]) -> None:
    clock = Clock()
    walked: dict[int, dict[int, int]] = {1: {}, 2: {}}
    with memory(new_place, clock) as store:
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
                        "SELECT count(*) FROM things WHERE id BETWEEN ? AND ? AND kind & ? != 0"
                        " AND unlisted_at IS NULL",
                        each.lo,
                        each.hi,
                        scope,
                    )


def runs_of(numbers: set[int]) -> list[tuple[int, int]]:
    starts = sorted(n for n in numbers if n - 1 not in numbers)
    ends = sorted(n for n in numbers if n + 1 not in numbers)
    return list(zip(starts, ends, strict=True))


# Runs and the overview


def test_the_runs_row_follows_the_run(db: Place, store: MirrorStore, clock: Clock) -> None:
    commit(store, page(1, 2))
    progress = Progress(Counts(stored=1, requests=7), 5.0, 4, 9, 2.5, None, paused=30.0, reason="answered 429")
    clock.at += 5
    store.update_run(RunState(progress))
    assert query(db, 'SELECT stored, requests, queued, "left", rate, paused_until, reason, updated_at FROM runs') == [
        (1, 7, 4, 9, 2.5, 1_000_035, "answered 429", 1_000_005)
    ]
    store.update_run(RunState(IDLE.progress, "complete", "all of it"))
    assert query(db, "SELECT ended, message, ended_at, paused_until, pid FROM runs") == [
        ("complete", "all of it", 1_000_005, None, os.getpid())
    ]


def test_a_run_that_died_without_a_word_is_marked_by_the_next(db: Place) -> None:
    with opened(db):
        pass
    with opened(db):
        assert column(db, "SELECT ended FROM runs ORDER BY id") == ["died", None]


def test_no_secret_is_in_the_plan_that_is_written_down(db: Place, store: MirrorStore) -> None:
    assert "user_agent" not in one(db, "SELECT plan FROM runs")


def test_the_overview_tells_it_all_while_a_run_writes(db: Place, store: MirrorStore, clock: Clock) -> None:
    commit(store, page(1, 2, 3, 4, 5, 6, proven=(1, 6)))
    commit(store, page(20, proven=(20, 20)))
    commit(
        store, details={6: detail(6)}, gone=(5,), failures=(failed(4, clock.at + 9), failed(3, None), failed(2, None))
    )
    with store._db.transaction():
        store._conn.execute("UPDATE sources SET items = 0")
        found = overview(db, TABLES)
        store._conn.execute("UPDATE sources SET items = 7")
    assert (found.source, found.base_url) == ("toy", "http://toy.test")
    assert (found.items, found.fetched, found.gone, found.unlisted, found.work, found.parked) == (7, 1, 1, 0, 3, 2)
    assert (found.waiting, found.failed) == ({"unavailable": 1}, {"unavailable": 2})
    assert [(each.lo, each.hi, each.items) for each in found.coverage] == [(20, 20, 1), (1, 6, 6)]
    assert (found.sweep, found.sweep_open) == (1, True)
    assert [run.stored for run in found.runs] == [1]
    assert found.runs[0].pid == os.getpid()
    assert source_of(db) == "toy"


def test_the_database_of_another_source_is_refused_and_stays_as_it_is(db: Place) -> None:
    with opened(db) as store:
        commit(store, page(1))
    before = dump_all(db)
    for open_it in (
        lambda: open_store(db, "pr0gramm", Pr0gramm.tables, "http://x.test"),
        lambda: peek_store(db, "pr0gramm", Pr0gramm.tables),
    ):
        with pytest.raises(ConfigurationError, match="mirrors toy, not pr0gramm"):
            open_it()
        assert dump_all(db) == before


def test_a_changed_address_is_a_warning(db: Place) -> None:
    warnings: list[str] = []
    for address in ("http://a.test", "http://a.test", "http://b.test", "http://b.test"):
        open_store(db, "toy", TABLES, address, warn=warnings.append).close()
    assert len(warnings) == 1
    assert "http://a.test" in warnings[0]
    assert "http://b.test" in warnings[0]


def test_looking_at_a_mirror_writes_nothing(db: Place) -> None:
    with opened(db) as store:
        commit(store, page(3, proven=(1, 3)))
    before = dump_all(db)
    peeked = peek_store(db, "toy", TABLES)
    assert peeked is not None
    assert (peeked.counts(), peeked.coverage((1,))[1][0].hi) == (StoreCounts(1, 0, 1, 0), 3)
    with pytest.raises(StoreError, match="read-only"):
        peeked.begin_run(Plan())
    peeked.close()
    assert dump_all(db) == before


# What was learned


KNOWN = Learned(40.0, 6.0, False, 8.0, 1.0)


def test_what_was_learned_is_written_with_the_run_when_it_changed_and_kept_per_host(store: MirrorStore) -> None:
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


def test_at_the_end_of_a_run_all_is_written_that_was_learned(store: MirrorStore) -> None:
    known = KNOWN
    store.begin_run(Plan())
    store.want({1: Interval(1, 1)})
    store.learn("here", lambda: known)
    store.update_run(IDLE)
    known = replace(KNOWN, rate=41.0)
    store.update_run(replace(IDLE, ended="complete"))
    assert store.learned("here") == known


def test_of_many_hosts_the_last_ones_asked_are_kept(store: MirrorStore) -> None:
    store.begin_run(Plan())
    store.want({1: Interval(1, 1)})
    for port in range(15):
        store.learn(f"host:{port}", lambda: KNOWN)
        store.update_run(replace(IDLE, ended="complete"))
    assert [port for port in range(15) if store.learned(f"host:{port}")] == list(range(5, 15))


@pytest.mark.parametrize("damage", ["{", "[]", '"text"', '{"here": {}}', '{"here": {"rate": "x"}}', '{"here": [1]}'])
def test_damaged_knowledge_is_ignored_with_a_warning_and_written_anew(db: Place, damage: str) -> None:
    said: list[str] = []
    with opened(db, warn=said.append) as store:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        change(db, "UPDATE sources SET learned = ?", damage)
        assert store.learned("here") is None
        assert len(said) == 1
        assert "damaged" in said[0]
        store.learn("here", lambda: KNOWN)
        store.update_run(IDLE)
        assert store.learned("here") == KNOWN
