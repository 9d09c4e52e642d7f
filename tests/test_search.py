"""Full-text search: the index is what the stored texts make, whatever happens, and people find by their own words."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher import ConfigurationError, Hit, Interrupted, StoreError, search
from fetcher.model import Batch, Column, Counts, Detail, Interval, Page, Plan, Progress, RunState, Table
from fetcher.simulator import Simulator, World
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores import search as store_search
from fetcher.stores.sqlite import SqliteStore
from tests.fakes import death
from tests.helpers import (
    assert_search_is_exact,
    column,
    dump,
    eventually,
    mirror,
    one,
    query,
    run_fetcher,
    running,
    search_index,
)

THINGS = Table("things", (Column("id", "integer", required=True),))
NOTES = Table("notes", (Column("id", "integer", required=True), Column("note", "text")), "thing_id", search=("note",))
PAPERS = Table(
    "papers",
    (Column("id", "integer", required=True), Column("title", "text"), Column("body", "text")),
    "thing_id",
    search=("title", "body"),
)
TABLES = (THINGS, NOTES, PAPERS)
IDLE = RunState(Progress(Counts(), 0.0, 0, 0, 0.0, None))
DB = Path("m.db")


@contextmanager
def opened(path: Path = DB, tables: tuple[Table, ...] = TABLES, **more: Any) -> Iterator[SqliteStore]:
    store = SqliteStore.open(path, "toy", tables, "http://toy.test", **more)
    try:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        yield store
    finally:
        store.close()


def listed(store: SqliteStore, *ids: int) -> None:
    store.commit(Batch(pages=(Page(tuple((id, None) for id in ids), (1,), None, None),)), IDLE)


def detail(key: int, *notes: Any, papers: tuple[tuple[Any, Any], ...] = ()) -> Detail:
    return Detail(
        {
            "notes": [(key, at, note, None) for at, note in enumerate(notes)],
            "papers": [(key, at, *paper, None) for at, paper in enumerate(papers)],
        }
    )


def store_details(store: SqliteStore, **texts: str) -> None:
    """Commit one note for each item: `store_details(store, i5="text")`."""
    keys = {int(name[1:]): text for name, text in texts.items()}
    store.commit(Batch(details={key: detail(key, text) for key, text in keys.items()}), IDLE)


def found(words: str, db: Path = DB, **more: Any) -> list[int]:
    return sorted(hit.key for hit in search(db, words, **more))


# --- the index follows the rows ---------------------------------------------------------------------


def test_items_are_found_by_the_words_of_their_rows() -> None:
    with opened() as store:
        listed(store, 1, 2, 3)
        store.commit(Batch(details={1: detail(1, "red fox", papers=(("On foxes", "they run"),)), 2: detail(2)}), IDLE)
        store_details(store, i3="blue Füchse run")
        assert (found("fox"), found("run"), found("FUCHSE"), found("red run"), found("title")) == (
            [1], [1, 3], [3], [1], []
        )  # fmt: skip
        assert (found('"red fox"'), found('"fox red"'), found("papers : run"), found("fo*")) == ([1], [], [1], [1])
    assert_search_is_exact(DB)


def test_replaced_details_are_found_by_their_new_words_only() -> None:
    with opened() as store:
        listed(store, 1, 2)
        store_details(store, i1="old text", i2="old other")
        store_details(store, i1="new text")
        assert (found("old"), found("new"), found("text")) == ([2], [1], [1])
        store.commit(Batch(details={1: detail(1)}), IDLE)
        assert found("text") == []
    assert_search_is_exact(DB)


def test_an_item_that_is_gone_is_still_found_like_its_rows() -> None:
    with opened() as store:
        listed(store, 1)
        store_details(store, i1="kept")
        store.commit(Batch(gone=(1,)), IDLE)
        assert found("kept") == [1]
        store_details(store, i1="back")
    assert_search_is_exact(DB)


def test_of_two_rows_of_one_key_the_last_is_found() -> None:
    with opened() as store:
        listed(store, 1)
        rows = [(1, 2, "second", None), (1, 1, "first", None), (1, 1, "last", None)]
        store.commit(Batch(details={1: Detail({"notes": rows})}), IDLE)
        assert (found("first"), found("last")) == ([], [1])
        assert_search_is_exact(DB)
        store_details(store, i1="other")
    assert_search_is_exact(DB)


ODD = {
    "empty": ["", ""],
    "null": [None, "word", None, None],
    "a NUL": ["a\0hidden", "\0", "end\0"],
    "no words": ["🙂", "\\o/", " ", "\n\r\n"],
    "lines": ["one\ntwo", "\n", "three\r\n"],
    "not characters": ["\ufffe\uffff", "\x1b[31mred"],
    "no end": ["word " * 20_000, "x" * 100_000],
    "quotes": ["it's", '"', "c++", "'; DROP TABLE search; --"],
}


@pytest.mark.parametrize("texts", ODD.values(), ids=ODD)
def test_odd_texts_go_in_and_out_again(texts: list[Any]) -> None:
    papers = tuple(zip(texts, reversed(texts), strict=True))
    with opened() as store:
        listed(store, 1, 2)
        store.commit(Batch(details={key: detail(key, *texts, papers=papers) for key in (1, 2)}), IDLE)
        assert_search_is_exact(DB)
        store_details(store, i1="nothing odd")
        assert_search_is_exact(DB)
        store.commit(Batch(details={2: detail(2)}), IDLE)
    assert search_index(DB) == [("nothing", 1, "notes", 0), ("odd", 1, "notes", 1)]


words = st.text(st.characters(codec="utf-8", max_codepoint=0x2FF) | st.sampled_from("\0\n ab🙂ß"), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.integers(1, 6), st.lists(st.none() | words, max_size=3), min_size=1), max_size=6))
def test_whatever_is_replaced_by_whatever_the_index_is_what_the_texts_make(batches: list[Any]) -> None:
    DB.unlink(missing_ok=True)
    with opened() as store:
        store._conn.execute("PRAGMA synchronous = OFF")
        listed(store, *range(1, 7))
        for batch in batches:
            details = {
                key: detail(key, *texts, papers=tuple((each, each) for each in texts)) for key, texts in batch.items()
            }
            store.commit(Batch(details=details), IDLE)
    assert_search_is_exact(DB)


@pytest.mark.parametrize("bad", ["\ud800", b"\xff", [], 5], ids=repr)
def test_a_text_that_is_refused_makes_its_item_alone_a_failure(bad: Any) -> None:
    with opened() as store:
        listed(store, 1, 2, 3)
        store_details(store, i2="before")
        done = store.commit(Batch(details={key: detail(key, bad if key == 2 else "good") for key in (1, 2, 3)}), IDLE)
        assert (sorted(done.stored), [each.key for each in done.failed]) == ([1, 3], [2])
        assert (found("good"), found("before")) == ([1, 3], [2])
    assert_search_is_exact(DB)


def test_rows_and_search_stand_or_fall_together() -> None:
    with opened() as store:
        listed(store, 1, 2)
        store_details(store, i1="before")
    before = dump(DB)
    batch = Batch(details={1: detail(1, "after", papers=(("a", "b"),)), 2: detail(2, "new")})
    struck = 0
    while True:
        with death() as fate, opened() as store:
            fate.at, fate.error = fate.statements + struck + 1, lambda: sqlite3.OperationalError("disk I/O error")
            try:
                store.commit(batch, IDLE)
                break
            except StoreError:
                assert fate.struck
        assert dump(DB) == before
        assert_search_is_exact(DB)
        struck += 1
    assert struck > 5
    assert (found("before"), found("after"), found("new")) == ([], [1], [2])
    assert_search_is_exact(DB)


def test_one_statement_writes_a_batch_and_one_forgets_it() -> None:
    def statements(keys: range) -> int:
        with death() as counted, opened() as store:
            before = counted.statements
            store.commit(Batch(details={key: detail(key, "word") for key in keys}), IDLE)
            return counted.statements - before

    with opened() as store:
        listed(store, *range(1, 65))
    plain = (THINGS, replace(NOTES, search=()), replace(PAPERS, search=()))
    with opened(Path("plain.db"), plain) as store:
        listed(store, *range(1, 65))
    first, again = statements(range(1, 65)), statements(range(1, 65))
    with death() as counted, opened(Path("plain.db"), plain) as store:
        before = counted.statements
        store.commit(Batch(details={key: detail(key, "word") for key in range(1, 65)}), IDLE)
        without = counted.statements - before
    assert first == without + 1
    # The rows of two tables are cleared, too.
    assert again == first + 1 + 2


def test_a_source_whose_items_have_names_or_that_searches_nothing_has_no_search() -> None:
    named = replace(THINGS, columns=(Column("id", "text", required=True),))
    nothing = tuple(replace(table, search=()) for table in TABLES)
    for path, tables in ((Path("a.db"), (named, NOTES)), (Path("b.db"), nothing)):
        with opened(path, tables):
            pass
        assert column(path, "SELECT name FROM sqlite_master WHERE name LIKE 'search%'") == []
        with pytest.raises(StoreError, match="no full-text search"):
            search(path, "word")


def test_somebody_elses_table_of_that_name_is_left_alone() -> None:
    with opened(tables=(THINGS,)) as store:
        store._conn.execute("CREATE TABLE search (mine)")
    with pytest.raises(StoreError, match=r"table `search` of somebody else's"), opened():
        pass
    assert column(DB, "SELECT name FROM pragma_table_info('search')") == ["mine"]


# --- mirrors made before there was a search ---------------------------------------------------------


def as_of_the_first_release(db: Path) -> None:
    """Take from a database what later releases have added."""
    with closing(sqlite3.connect(db)) as conn:
        conn.executescript(
            """
            DROP TABLE search; DROP VIEW search_text;
            DROP VIEW IF EXISTS top_tags; DROP VIEW IF EXISTS recent; DROP VIEW IF EXISTS items_with_tags;
            DROP INDEX IF EXISTS tags_tag;
            ALTER TABLE sources DROP COLUMN search_filled_to;
            DELETE FROM _sqlite_migrations WHERE name = 'm003_search_of_older_mirrors';
            """
        )


def old_mirror(items: int) -> None:
    with opened() as store:
        keys = range(1, 2 * items, 2)
        listed(store, *range(1, 2 * items))
        store.commit(Batch(details={key: detail(key, f"note{key} all") for key in keys}), IDLE)
    as_of_the_first_release(DB)


def test_an_older_mirror_is_filled_when_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_search, "STEP", 7)
    old_mirror(50)
    with pytest.raises(StoreError, match="no full-text search yet: the next `fetcher fetch` makes it"):
        search(DB, "all")
    said: list[str] = []
    with opened(warn=said.append) as store:
        assert len(found("all", limit=99)) == 50
        assert found("note7") == [7]
        # From then on it is kept like any other.
        store_details(store, i7="changed", i8="added")
        assert (found("note7"), found("changed"), found("added")) == ([], [7], [8])
    assert [line for line in said if "50 items" not in line] == []
    assert_search_is_exact(DB)
    with death() as counted, opened():
        pass
    assert counted.statements < 60, "what is filled is not filled again"


def test_a_filling_that_dies_anywhere_goes_on_and_ends_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_search, "STEP", 7)
    old_mirror(20)
    old = DB.read_bytes()
    with death() as counted, opened():
        pass
    expected = dump(DB)
    for at in range(1, counted.statements + 1):
        for file in Path().glob("m.db*"):
            file.unlink()
        DB.write_bytes(old)
        with death(at, error=lambda: sqlite3.OperationalError("disk I/O error")):
            try:
                with opened():
                    pass
            except StoreError:
                pass
        with opened():
            pass
        assert dump(DB) == expected, f"died at statement {at}"
        assert_search_is_exact(DB)


def test_a_filling_is_stopped_between_steps_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_search, "STEP", 7)
    old_mirror(50)
    asked = 0

    def after_three() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Interrupted, match="what is done of it is kept"), opened(stopped=after_three):
        pass
    assert one(DB, "SELECT count(*) FROM search_docsize") == 21
    assert one(DB, "SELECT search_filled_to FROM sources") == 41
    with pytest.raises(StoreError, match="not whole yet"):
        search(DB, "all")
    with opened():
        pass
    assert len(found("all", limit=99)) == 50
    assert_search_is_exact(DB)


def test_a_search_of_other_columns_is_made_anew() -> None:
    with opened(tables=(THINGS, NOTES, replace(PAPERS, search=("title",)))) as store:
        listed(store, 1)
        store.commit(Batch(details={1: detail(1, "note", papers=(("title", "body"),))}), IDLE)
        assert (found("title"), found("body")) == ([1], [])
    with opened():
        assert (found("title"), found("body")) == ([1], [1])
    assert_search_is_exact(DB)


@pytest.mark.timeout(120)
def test_ctrl_c_ends_a_filling_within_two_seconds(simulate: Callable[..., Simulator]) -> None:
    simulator = simulate(World(items=400))
    mirror(DB, simulator)
    as_of_the_first_release(DB)
    # One step that takes several seconds.
    with closing(sqlite3.connect(DB, isolation_level=None)) as conn:
        conn.execute(
            "INSERT INTO comments (item_id, id, content) WITH RECURSIVE n (n) AS"
            " (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 25)"
            " SELECT items.id, -n, replace(hex(randomblob(2000)), '8', ' ') FROM items, n"
        )
    with running(simulator, DB) as process:
        eventually(lambda: bool(query(DB, "SELECT 1 FROM sqlite_master WHERE name = 'search'")))
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 3
    assert process.returncode == 130
    assert "full-text search" in err
    assert "Go on with:" in err


# --- words as people type them ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror whose three newest items are known, in a folder of its own."""
    db = tmp_path_factory.mktemp("search") / "m.db"
    with Simulator(World(seed=2, items=60)) as simulator:
        mirror(db, simulator)
    keys = column(db, "SELECT id FROM items ORDER BY id DESC LIMIT 3")
    texts = ("c++ code", "it's foo-bar, isn't it", "evil \x1b]0;title\x07 \x1b[31mred \u202eword")
    with closing(SqliteStore.open(db, "pr0gramm", Pr0gramm.tables, "http://x", views=Pr0gramm.views)) as store:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        details = {
            key: Detail({"tags": [(key, 1, f"zz{at} {text}", 0.5, None), (key, 2, "plain tag", 0.4, None)]})
            for at, (key, text) in enumerate(zip(keys, texts, strict=True))
        }
        store.commit(Batch(details=details), IDLE)
    return db


def newest(db: Path, at: int) -> int:
    """The key of the item whose first tag begins with `zz` and this number."""
    return int(column(db, "SELECT id FROM items ORDER BY id DESC LIMIT 3")[at])


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("zz0 c++", 0),
        ("c++ zz0", 0),
        ("zz1 it's", 1),
        ("zz1 foo-bar", 1),
        ('zz1 "foo', 1),
        ("zz1 (foo", 1),
        ("zz1 isn't", 1),
        ("zz1 foo-bar, isn't it", 1),
        ("ZZ1", 1),
        ("  zz2  ", 2),
        ("zz2\0evil", 2),
        ("-zz2", 2),
        ("zz2:evil", 2),
        ("^zz2", 2),
        ("tags : zz2", 2),
        ('"zz2 evil"', 2),
        ("zz2 OR nosuchword", 2),
        ("zz2 NOT nosuchword", 2),
        ("zz2*", 2),
        ("NEAR(zz2 evil)", 2),
    ],
)
def test_words_are_found_as_people_type_them(mirrored: Path, words: str, at: int) -> None:
    assert found(words, mirrored) == [newest(mirrored, at)]


@pytest.mark.parametrize(
    "words", ["++", "*", "'", "🙂🙂🙂🙂", "AND", "NEAR(", "(" * 500, "\ud800zz0", "nosuchword", ":", '"', '""']
)
def test_any_other_words_find_nothing_or_something_and_are_no_error(mirrored: Path, words: str) -> None:
    assert isinstance(search(mirrored, words), list)


@settings(max_examples=200, deadline=None)
@given(words=st.text(st.characters() | st.sampled_from("\"'*:()+-^{}zN "), min_size=1))
def test_no_words_make_an_error(mirrored: Path, words: str) -> None:
    try:
        search(mirrored, words, 3)
    except ConfigurationError:
        assert not words.replace("\0", " ").strip()


@pytest.mark.parametrize("words", ["", " ", "\n\t", "\0"])
def test_no_words_are_refused(mirrored: Path, words: str) -> None:
    with pytest.raises(ConfigurationError, match="no words"):
        search(mirrored, words)


def test_a_limit_below_one_is_refused(mirrored: Path) -> None:
    with pytest.raises(ConfigurationError, match="limit: must be at least 1, not 0"):
        search(mirrored, "tag", 0)


def test_a_hit_tells_where_the_words_are(mirrored: Path) -> None:
    (hit,) = search(mirrored, "zz1 foo")
    assert hit == Hit(newest(mirrored, 1), hit.rank, {"tags": ("[zz1] it's [foo]-bar, isn't it",)})
    (hit,) = search(str(mirrored), "tags : zz1", marks=("<b>", "</b>"))
    assert hit.snippets == {"tags": ("<b>zz1</b> it's foo-bar, isn't it",)}


def test_the_best_hits_come_first_and_no_more_than_asked_for(mirrored: Path) -> None:
    hits = search(mirrored, "katze", 5)
    assert len(hits) == 5
    assert [hit.rank for hit in hits] == sorted(hit.rank for hit in hits)
    everything = search(mirrored, "katze", 1000)
    assert everything[:5] == hits
    assert len(everything) > 10
    for hit in everything:
        for table, lines in hit.snippets.items():
            assert table in ("tags", "comments")
            assert all("[katze" in line.lower() for line in lines)


def test_hits_are_those_that_looking_through_all_texts_gives(mirrored: Path) -> None:
    expected = column(
        mirrored,
        "SELECT DISTINCT item_id FROM comments WHERE content LIKE '%nice one%'"
        " UNION SELECT item_id FROM tags WHERE tag LIKE '%nice one%' ORDER BY 1",
    )
    assert expected
    assert found('"nice one"', mirrored, limit=1000) == expected


def test_a_mirror_is_searched_while_a_batch_is_written() -> None:
    with opened() as store:
        listed(store, 1)
        store_details(store, i1="word")
        store._conn.execute("BEGIN IMMEDIATE")
        store._conn.execute("DELETE FROM notes")
        assert found("word") == [1]
        store._conn.execute("ROLLBACK")


# --- the command ------------------------------------------------------------------------------------


def test_the_command_shows_item_tags_and_comments(mirrored: Path) -> None:
    left = run_fetcher("search", str(mirrored), "zz0", "code")
    assert (left.returncode, left.stderr) == (0, "")
    assert left.stdout == f"{newest(mirrored, 0)}  tags: [zz0] c++ [code]\n"
    left = run_fetcher("search", str(mirrored), "katze", "--limit", "2")
    assert left.returncode == 0
    assert len({line.split()[0] for line in left.stdout.splitlines() if not line.startswith(" ")}) == 2
    assert all(len(line) <= 120 for line in left.stdout.splitlines())


def test_nothing_that_a_terminal_obeys_comes_from_a_text(mirrored: Path) -> None:
    left = run_fetcher("search", str(mirrored), "zz2")
    assert left.returncode == 0
    assert left.stdout == f"{newest(mirrored, 2)}  tags: [zz2] evil  ]0;title   [31mred  word\n"


def test_as_json_it_is_one_list(mirrored: Path) -> None:
    left = run_fetcher("search", str(mirrored), "zz2", "--json")
    (hit,) = json.loads(left.stdout)
    assert hit["key"] == newest(mirrored, 2)
    assert set(hit) == {"key", "rank", "snippets"}
    assert hit["snippets"]["tags"][0].startswith("[zz2] evil \x1b]0;title")
    assert json.loads(run_fetcher("search", str(mirrored), "nosuchword", "--json").stdout) == []


def assert_one_line(left: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert (left.returncode, left.stdout, left.stderr.count("\n")) == (code, "", 1), left
    assert left.stderr.startswith("fetcher: ")
    for word in words:
        assert word in left.stderr


def test_no_hits_are_no_error(mirrored: Path) -> None:
    assert_one_line(run_fetcher("search", str(mirrored), "nosuchword"), 0, "nothing in")


def test_every_error_is_one_line(mirrored: Path) -> None:
    assert_one_line(run_fetcher("search", str(mirrored), ""), 2, "no words to search for")
    assert_one_line(run_fetcher("search", str(mirrored), " ", ""), 2, "no words to search for")
    assert_one_line(run_fetcher("search", "none.db", "word"), 6, "there is no database none.db")
    Path("other.db").write_text("no database " * 500)
    assert_one_line(run_fetcher("search", "other.db", "word"), 6, "other.db")
    old_mirror(3)
    assert_one_line(run_fetcher("search", str(DB), "word"), 6, "has no full-text search yet")
    for arguments in (("search", str(mirrored)), ("search", str(mirrored), "word", "--limit", "0")):
        left = run_fetcher(*arguments)
        assert (left.returncode, left.stdout) == (2, "")
        assert "Traceback" not in left.stderr


def test_a_search_that_does_not_fit_its_tables_is_one_line_that_says_how_to_mend_it(mirrored: Path) -> None:
    DB.write_bytes(mirrored.read_bytes())
    with closing(sqlite3.connect(DB, isolation_level=None)) as conn:
        conn.execute("DELETE FROM items")
    left = run_fetcher("search", str(DB), "katze")
    assert_one_line(left, 6, "does not fit", mend := "insert into search (search) values ('rebuild')")
    with closing(sqlite3.connect(DB, isolation_level=None)) as conn:
        conn.execute(mend)
    assert search(DB, "katze") == []
