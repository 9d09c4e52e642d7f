"""Lookups by value: the index is made once all is fetched, out of the way of large loads, and never ends a run."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fetcher import Interrupted, Stop
from fetcher.errors import Stopped
from fetcher.model import Batch, Column, Counts, Detail, Interval, Page, Plan, Progress, RunState, Table
from fetcher.simulator import Simulator, World
from fetcher.stores.indexes import Indexes
from fetcher.stores.sqlite import SqliteStore
from tests.fakes import death
from tests.helpers import assert_complete, column, dump, eventually, mirror, one, query, running

THINGS = Table("things", (Column("id", "integer", required=True),))
NOTES = Table("notes", (Column("id", "integer", required=True), Column("note", "text")), "thing_id", index=("note",))
IDLE = RunState(Progress(Counts(), 0.0, 0, 0, 0.0, None))
DB = Path("m.db")


@contextmanager
def opened(**more: Any) -> Iterator[SqliteStore]:
    store = SqliteStore.open(DB, "toy", (THINGS, NOTES), "http://toy.test", **more)
    try:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        yield store
    finally:
        store.close()


def fetched(store: SqliteStore, *keys: int, notes: int = 1) -> None:
    store.commit(Batch(pages=(Page(tuple((key, None) for key in keys), (1,), None, None),)), IDLE)
    rows = {key: Detail({"notes": [(key, at, f"note {key % 7} {at}", None) for at in range(notes)]}) for key in keys}
    store.commit(Batch(details=rows), IDLE)


def is_there(name: str = "notes_note") -> bool:
    return bool(query(DB, "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?", name))


def plan_of(sql: str) -> str:
    return " ".join(str(row[3]) for row in query(DB, f"EXPLAIN QUERY PLAN {sql}"))


def test_the_index_is_made_at_the_end_and_used() -> None:
    with opened() as store:
        store.prepare_load(20)
        fetched(store, *range(20))
        assert not is_there()
        assert "notes_note" not in plan_of("SELECT thing_id FROM notes WHERE note = 'x'")
        store.finish_load()
        assert "USING COVERING INDEX notes_note (note=?)" in plan_of("SELECT thing_id FROM notes WHERE note = 'x'")
        assert column(DB, "SELECT thing_id FROM notes WHERE note = 'note 3 0'") == [3, 10, 17]
        with death() as counted:
            store.finish_load()
        assert counted.statements == 0


@pytest.mark.parametrize(("estimate", "stays"), [(0, True), (2, True), (3, False), (1000, False)])
def test_it_is_kept_live_for_a_small_update_and_dropped_for_a_large_load(estimate: int, *, stays: bool) -> None:
    with opened() as store:
        fetched(store, *range(20))
        store.finish_load()
        store.prepare_load(estimate)
        assert is_there() == stays
        fetched(store, 3, 20)
        store.finish_load()
        assert is_there()
        assert column(DB, "SELECT thing_id FROM notes WHERE note = 'note 6 0'") == [6, 13, 20]
    assert one(DB, "PRAGMA integrity_check") == "ok"


def test_an_index_that_the_owner_made_is_used_and_left_alone() -> None:
    with opened() as store:
        fetched(store, *range(20))
        store._conn.execute("CREATE INDEX mine ON notes (note, id)")
        store.finish_load()
        assert (is_there("mine"), is_there()) == (True, False)
        store.prepare_load(1000)
        assert is_there("mine")


def test_one_that_serves_only_some_rows_is_no_substitute() -> None:
    with opened() as store:
        store._conn.execute("CREATE INDEX partly ON notes (note) WHERE id > 5")
        store._conn.execute("CREATE INDEX second ON notes (id, note)")
        store.finish_load()
        assert is_there()


def test_building_is_stopped_in_the_middle_and_the_next_run_builds_it() -> None:
    asked = 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    with opened() as store:
        fetched(store, *range(100), notes=500)
    before = dump(DB)
    with opened(stopped=soon) as store:
        with pytest.raises(Stopped):
            store.finish_load()
        assert asked == 6, "it was in the middle of the work"
        assert not is_there()
        # The store goes on as it was, with its settings.
        assert [store._conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("temp_store", "cache_size")] == [
            2,
            -16000,
        ]
        asked = -100_000
        store.update_run(IDLE)
        assert dump(DB) == before
        store.finish_load()
    assert is_there()
    assert (one(DB, "PRAGMA integrity_check"), dump(DB)) == ("ok", before)


def test_no_room_is_a_warning_and_the_next_run_builds_it() -> None:
    said: list[str] = []
    with opened(warn=said.append) as store:
        fetched(store, *range(100), notes=50)
        (pages,) = store._conn.execute("PRAGMA page_count").fetchone()
        store._conn.execute(f"PRAGMA max_page_count = {pages}")
        store.finish_load()
        assert not is_there()
        (line,) = said
        assert "no index of notes.note yet (database or disk is full): all is stored" in line
        assert "\n" not in line
        store._conn.execute("PRAGMA max_page_count = 1000000")
        store.update_run(IDLE)
        store.finish_load()
        assert is_there()


def test_what_is_sorted_goes_to_files_while_it_is_sorted() -> None:
    said: list[str] = []
    with opened() as store:
        fetched(store, *range(20))
        store._file.conn.set_trace_callback(said.append)
        store.finish_load()
    at = said.index('CREATE INDEX "notes_note" ON "notes" ("note")')
    assert [sql for sql in said[:at] if "=" in sql][-2:] == ["PRAGMA temp_store = FILE", "PRAGMA cache_size = -4000"]
    assert [sql for sql in said[at:] if "=" in sql] == ["PRAGMA temp_store = 2", "PRAGMA cache_size = -16000"]


# --- a whole run ------------------------------------------------------------------------------------


def test_a_complete_run_makes_it_and_a_limited_one_does_not(simulate: Callable[..., Simulator]) -> None:
    world = World(seed=3, items=60)
    simulator = simulate(world)
    mirror(DB, simulator, limit=20)
    assert not is_there("tags_tag")
    mirror(DB, simulator)
    assert "USING COVERING INDEX tags_tag (tag=?)" in plan_of("SELECT item_id FROM tags WHERE tag = 'x'")
    tag = one(DB, "SELECT tag FROM top_tags LIMIT 1")
    expected = [id for id in world.ids() if tag in [each["tag"] for each in world.info(id)["tags"]]]
    assert column(DB, "SELECT item_id FROM tags WHERE tag = ? ORDER BY 1", tag) == expected
    # A few items more, or a limit that keeps a large load small, leave it there.
    world.arrive(10)
    mirror(DB, simulator, limit=1)
    assert is_there("tags_tag")
    world.arrive(100)
    mirror(DB, simulator, limit=20)
    assert not is_there("tags_tag")
    mirror(DB, simulator, full_update=True)
    assert is_there("tags_tag")
    assert_complete(DB, world)


def test_a_run_stopped_while_it_builds_the_index_is_interrupted_and_has_lost_nothing(
    simulate: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(seed=3, items=60)
    simulator = simulate(world)
    stop = Stop()
    make = Indexes.make

    def stopping(self: Indexes) -> None:
        conn = self._conn
        conn.execute(
            "INSERT INTO tags (item_id, id, tag) WITH RECURSIVE n (n) AS"
            " (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 20000) SELECT 1, -n, hex(n) FROM n"
        )
        stop.set()
        try:
            make(self)
        finally:
            conn.execute("DELETE FROM tags WHERE id < 0")

    monkeypatch.setattr(Indexes, "make", stopping)
    with pytest.raises(Interrupted, match="the 60 items fetched in this run are stored"):
        mirror(DB, simulator, stop=stop)
    assert not is_there("tags_tag")
    assert query(DB, "SELECT ended, stored FROM runs") == [("interrupted", 60)]
    assert_complete(DB, world)
    monkeypatch.setattr(Indexes, "make", make)
    mirror(DB, simulator)
    assert is_there("tags_tag")


@pytest.mark.timeout(120)
def test_ctrl_c_is_answered_while_the_index_is_built(simulate: Callable[..., Simulator]) -> None:
    world = World(seed=3, items=60)
    simulator = simulate(world)
    mirror(DB, simulator)
    # Tags enough for some seconds.
    with closing(sqlite3.connect(DB, isolation_level=None)) as conn:
        conn.execute("DROP INDEX tags_tag")
        conn.execute(
            "INSERT INTO tags (item_id, id, tag) WITH RECURSIVE n (n) AS"
            " (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 2000000) SELECT 1, -n, hex(n * 7919 % 1000003) FROM n"
        )
    with running(simulator, DB) as process, closing(sqlite3.connect(DB, timeout=0, isolation_level=None)) as conn:

        def it_is_writing_for_long() -> bool:
            for _ in range(20):
                try:
                    conn.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    time.sleep(0.01)
                else:
                    conn.execute("ROLLBACK")
                    return False
            return True

        eventually(it_is_writing_for_long)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 3
    assert process.returncode == 130
    assert "Go on with:" in err
    assert not is_there("tags_tag")
