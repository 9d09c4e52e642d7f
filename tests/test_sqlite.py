"""A mirror in one SQLite file: its schema, its transactions, its lock, and what is wrong with a file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fetcher.errors import StoreError
from fetcher.model import (
    Batch,
    Interval,
    Page,
    StoreCounts,
    Table,
)
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores import file
from fetcher.stores.migrations import APPLICATION_ID
from fetcher.stores.origin import source_of
from fetcher.stores.overview import overview
from fetcher.stores.sqlite import SqliteStore
from tests.fakes import death
from tests.helpers import column, dump, dump_all, one, query
from tests.toy import IDLE, TABLES, Clock, commit, detail, failed, page, thing
from tests.toy import opened as opened_at

DB = Path("m.db")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Iterator[SqliteStore]:
    with opened(clock=clock) as store:
        yield store


@contextmanager
def opened(path: Path = DB, tables: Sequence[Table] = TABLES, **more: Any) -> Iterator[SqliteStore]:
    with opened_at(path, tables, **more) as store:
        yield store


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


# Rows that SQLite refuses


def test_a_refused_listed_row_is_an_error_of_the_store_and_leaves_nothing(store: SqliteStore) -> None:
    bad = Page((thing(1), (2**63, "n", 1, None)), (1,), Interval(1, 2), None)
    with pytest.raises(StoreError, match="refuses a listed row"):
        store.commit(Batch(pages=(bad,)), IDLE)
    assert store.counts() == StoreCounts()
    assert store.coverage((1,)) == {1: []}


# Claims


# Counts and coverage, against models


# Runs and the overview


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
