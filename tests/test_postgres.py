"""A mirror in PostgreSQL: what it cannot hold, who else is in the database, and that its password is told nobody."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet
import pytest

from fetcher import StoreError, failures, preview, retry, search, verify
from fetcher.export import export
from fetcher.model import Batch, Detail, Interval, Outcome, Page, View
from fetcher.place import PostgresUrl, place_of
from fetcher.settings import Settings, load
from fetcher.simulator import Answer, Simulator, StacWorld, World
from fetcher.sources import of, registry
from fetcher.stores.opening import open_store, peek_store
from fetcher.stores.overview import overview
from fetcher.stores.postgres import store
from fetcher.stores.postgres.store import LONGEST_KEY
from tests.helpers import (
    FAST,
    answer,
    assert_complete,
    change,
    column,
    details_of,
    dump,
    dump_all,
    eventually,
    mirror,
    one,
    query,
    run,
    run_fetcher,
    running,
)
from tests.postgres import PostgresServer
from tests.toy import IDLE, PARTS, TABLES, THINGS, commit, detail, opened, page, thing

Simulate = Callable[..., Simulator]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url()


# --- as in SQLite ----------------------------------------------------------------------------------------


def test_it_holds_what_sqlite_holds(url: str, db: Path, shared_simulator: Simulator) -> None:
    for place in (url, db):
        assert mirror(place, shared_simulator).exit_code == 0
    ours, theirs = dump(url), dump(db)
    # Jobs are kept in files alone.
    shared = [name for name in theirs if not name.startswith(("search", "job"))]
    assert sorted(name for name in ours if not name.startswith(("search", "job"))) == sorted(shared)
    for name in shared:
        # SQLite keeps text where PostgreSQL keeps JSON, which comes as text too.
        assert sorted(map(repr, ours[name])) == sorted(map(repr, theirs[name])), name
    assert verify(url).complete


def test_a_mirror_whose_keys_and_scopes_are_texts_is_that_of_sqlite(url: str, db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=3, items=130)
    simulator = simulate(world)
    for more in ({}, {}, {"full_update": True}):
        for place in (url, db):
            summary = mirror(place, simulator, source="stac", stac_page_size=20, max_backoff_seconds=0.2, **more)
            assert summary.exit_code == 0
            assert verify(place).complete
        # The last day before now is another for each.
        covered = "SELECT scope, sweep, lo, items FROM coverage"
        assert sorted(map(repr, query(url, covered))) == sorted(map(repr, query(db, covered)))
        for table in registry()["stac"].tables:
            names = [each.name for each in (*table.columns, *table.generated)]
            sql = 'SELECT "' + '", "'.join([*names, "extra"]) + f'" FROM {table.name}'
            # A number that is read out of JSON is one of its column's type here, and as it was written there.
            ours, theirs = (
                sorted(
                    repr([float(each) if isinstance(each, int) else each for each in row]) for row in query(place, sql)
                )
                for place in (url, db)
            )
            assert ours == theirs, table.name
    for collection, id, text in query(url, "SELECT collection, id, item FROM stac_items"):
        assert json.loads(text) == world.item(collection, id, simulator.url)
    sql = "SELECT collection, items, first, last FROM per_collection"
    assert query(url, sql) == query(db, sql)


def test_every_view_of_every_source_is_made_and_answers(postgres: PostgresServer) -> None:
    for name, kind in registry().items():
        said: list[str] = []
        place = place_of(postgres.schema())
        for _ in range(2):
            open_store(place, name, kind.tables, "", views=of(kind, "views"), warn=said.append).close()
        assert said == []
        for view in of(kind, "views"):
            assert query(str(place.secret), f'SELECT * FROM "{view.name}"') == []  # type: ignore[union-attr]


def test_views_say_what_they_say_in_sqlite(url: str, db: Path, shared_simulator: Simulator) -> None:
    for place in (url, db):
        mirror(place, shared_simulator)
    sql = "SELECT id, created, user, score, tags, comments, image FROM recent"
    ours, theirs = query(url, sql.replace("user", '"user"')), query(db, sql)
    assert [(*row[:4], json.loads(row[4]), *row[5:]) for row in ours] == [
        (*row[:4], json.loads(row[4]), *row[5:]) for row in theirs
    ]
    assert query(url, "SELECT tag, items FROM top_tags") == query(db, "SELECT tag, items FROM top_tags")


def test_a_view_that_changes_is_made_anew_and_one_that_somebody_builds_upon_stays(url: str) -> None:
    place = place_of(url)
    said: list[str] = []

    def open_with(*views: View) -> None:
        open_store(place, "toy", TABLES, "http://toy.test", views=views, warn=said.append).close()

    open_with(View("few", "SELECT 1 AS a"), View("many", "SELECT * FROM few"))
    open_with(View("few", "SELECT 2 AS a"), View("many", "SELECT * FROM few"))
    assert (one(url, "SELECT a FROM many"), said) == (2, [])
    change(url, "CREATE VIEW mine AS SELECT a FROM few")
    open_with(View("few", "SELECT 3 AS a"))
    assert one(url, "SELECT a FROM mine") == 2
    assert len(said) == 1
    assert "the view few stays as it is" in said[0]
    open_with(View("wrong", "SELECT nothing FROM nowhere"))
    assert "the view wrong is not made" in said[-1]


QUERIES = (
    *("wrong ocean", "WRONG", "Käse*", "kase*", "tags : wrong", '"wrong ocean"', "wrong OR lake", "wrong NOT ocean"),
    *("(wrong OR lake) AND das", "comments : das", "nothing : x", 'a"b', "of*", "<b>kein</b>", "''", "wrong & ocean"),
)


def test_search_finds_what_sqlites_finds(url: str, db: Path, shared_simulator: Simulator) -> None:
    for place in (url, db):
        mirror(place, shared_simulator)
    found = 0
    for words in QUERIES:
        ours, theirs = search(url, words, 1000), search(db, words, 1000)
        assert {hit.key for hit in ours} == {hit.key for hit in theirs}, words
        assert all(any("[" in line for lines in hit.snippets.values() for line in lines) for hit in ours), words
        found += len(ours)
    assert found > 300
    done = run_fetcher("search", url, "wrong", "--limit", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("[wrong]") >= 2
    with pytest.raises(StoreError, match="has no vectors yet"):
        search(url, "wrong", mode="vector")


def test_a_mirror_without_search_gets_it_and_replaced_texts_are_replaced(url: str, simulate: Simulate) -> None:
    world = World(seed=1, items=60)
    simulator = simulate(world)
    mirror(url, simulator)
    expected = dump(url)["search"]
    change(url, "DROP TABLE search")
    with pytest.raises(StoreError, match="no full-text search yet"):
        search(url, "wrong")
    mirror(url, simulator)
    assert dump(url)["search"] == expected
    mirror(url, simulator, full_update=True)
    assert dump(url)["search"] == expected
    assert verify(url).complete


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"format": "csv", "table": "tags"},
        {"table": "work"},
        {"table": "top_tags"},
        {"table": "comments", "by": ["name"], "format": "csv"},
        {"format": "json"},
        {"format": "parquet"},
    ],
    ids=str,
)
def test_exports_are_those_of_sqlite(
    options: Any, url: str, db: Path, shared_simulator: Simulator, tmp_path: Path
) -> None:
    for place in (url, db):
        mirror(place, shared_simulator, limit=40)
        done = export(place, tmp_path / type(place).__name__, **options)
        assert done.rows
    ours, theirs = (tmp_path / name for name in ("str", type(db).__name__))
    files = sorted(each.relative_to(theirs) for each in theirs.rglob("*.*"))
    assert sorted(each.relative_to(ours) for each in ours.rglob("*.*")) == files
    if options.get("format") == "parquet":
        for each in files:
            mine, other = (pyarrow.parquet.read_table(folder / each).to_pylist() for folder in (ours, theirs))
            assert [_timeless(row) for row in mine] == [_timeless(row) for row in other]
        return
    for each in files:
        texts = [re.sub(r"17\d{8}|18\d{8}", "TIME", (folder / each).read_text()) for folder in (ours, theirs)]
        assert texts[0] == texts[1], each


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.endswith("_at")}


def test_an_export_says_what_there_is(url: str, shared_simulator: Simulator) -> None:
    mirror(url, shared_simulator, limit=5)
    done = run_fetcher("export", url, "--table", "nothing")
    assert done.returncode == 2
    assert "has no table or view nothing: it has comments, coverage, engines" in done.stderr
    done = run_fetcher("export", url, "--table", "tags")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == one(url, "SELECT count(*) FROM tags")


def test_doctor_looks_at_a_server_as_at_a_file(url: str, shared_simulator: Simulator) -> None:
    options = ("--base-url", shared_simulator.url, "--max-rate", "0")
    done = run_fetcher("doctor", url, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"there is no {place_of(url)} yet" in done.stdout
    mirror(url, shared_simulator)
    done = run_fetcher("doctor", url, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{place_of(url)} is ours and answers" in done.stdout
    assert "300 items listed, nothing left to fetch" in done.stdout
    assert "file system" not in done.stdout
    assert "secret" not in done.stdout
    change(url, "ALTER TABLE comments DROP COLUMN name")
    assert "lacks comments.name" in run_fetcher("doctor", url, *options, "--offline").stdout
    done = run_fetcher("doctor", "postgresql://fetcher:a-secret@127.0.0.1:1/nowhere", *options, "--offline")
    assert done.returncode == 6
    assert "Connection refused" in done.stdout
    assert "secret" not in done.stdout


# --- what it cannot hold ---------------------------------------------------------------------------------


def test_an_item_whose_text_holds_a_nul_character_fails_alone(url: str, simulate: Simulate) -> None:
    world = World(seed=1, items=40)
    bad = world.ids()[7]
    info = details_of(world, bad)
    info["tags"].append({"id": 1, "confidence": 0.5, "tag": "half\0way"})
    faults = lambda kind, key, _: answer(info) if (kind, key) == ("info", bad) else None  # noqa: E731
    assert mirror(url, simulate(world, faults=faults)).exit_code == 3
    assert [(each.key, each.outcome, each.due_at) for each in failures(url)] == [(bad, "malformed", None)]
    assert "NUL" in failures(url)[0].message
    assert column(url, "SELECT id FROM items WHERE fetched_at IS NULL") == [bad]
    assert column(url, "SELECT DISTINCT item_id FROM tags WHERE item_id = ?", bad) == []
    assert retry(url, api_base_url=simulate(world).url, **FAST).exit_code == 0  # type: ignore[union-attr]
    assert_complete(url, world)


UNUSABLE = {
    "a NUL character": (2, "a\0b", 1, None),
    "half of a character": (2, "\ud800", 1, None),
    "a number beyond 64 bits": (2, "n", 2**63, None),
}


@pytest.mark.parametrize("row", UNUSABLE.values(), ids=UNUSABLE)
def test_a_listed_item_that_cannot_be_held_is_a_failure_and_its_page_is_proven(url: str, row: Any) -> None:
    with opened(place_of(url)) as store:
        rows = (thing(1), row, thing(3))
        done = store.commit(Batch(pages=(Page(rows, (1,), Interval(1, 3), None),)), IDLE)
        assert (done.new, done.queued) == (2, 2)
        assert query(url, "SELECT key, outcome FROM work WHERE stage = 'item'") == [(2, "malformed")]
        assert store.coverage((1,))[1][0].items == 2
        commit(store, page(2))
        assert query(url, "SELECT key FROM work WHERE stage = 'item'") == []


def test_keys_that_fit_into_no_index_fail_alone(url: str) -> None:
    texts = THINGS.columns[0].__class__("id", "text", required=True)
    tables = (THINGS.__class__("things", (texts, *THINGS.columns[1:])), PARTS)
    long = "".join(map(str, range(1000)))
    assert len(long) > LONGEST_KEY
    with opened(place_of(url), tables) as store:
        store.commit(Batch(pages=(Page((("short", "n", 1, None), (long, "n", 1, None)), (1,), None, None),)), IDLE)
        assert column(url, "SELECT id FROM things") == ["short"]
        assert query(url, "SELECT key FROM work WHERE stage = 'item'") == [(long[:LONGEST_KEY],)]


def test_what_nobody_foresaw_is_found_by_halves(url: str) -> None:
    """A text that fits into its column, and not into the index on it."""
    tables = (replace(THINGS, index=("name",)), PARTS)
    with opened(place_of(url), tables) as store:
        store.finish_load()
        long = "".join(map(str, range(2000)))
        names = {id: long if id in (7, 31) else "n" for id in range(1, 60)}
        page_ = Page(tuple(thing(id, name=name) for id, name in names.items()), (1,), Interval(1, 60), None)
        assert store.commit(Batch(pages=(page_,)), IDLE).new == 57
        assert column(url, "SELECT key FROM work WHERE stage = 'item' ORDER BY 1") == [7, 31]
        assert "index" in one(url, "SELECT message FROM failures WHERE key = '7'")
        assert [(each.lo, each.hi, each.items) for each in store.coverage((1,))[1]] == [(1, 60, 57)]


def test_a_run_on_another_machine_goes_on_as_long_as_it_tells_of_itself(url: str) -> None:
    with opened(place_of(url)):
        change(url, "UPDATE engines SET host = 'elsewhere'")
        change(url, "UPDATE runs SET pid = 99999999, updated_at = ?", int(time.time()))
        assert overview(place_of(url), TABLES).running is not None
        change(url, "UPDATE runs SET updated_at = updated_at - 100")
        assert overview(place_of(url), TABLES).running is None


def test_a_key_with_a_nul_character_is_told_in_words(url: str) -> None:
    with opened(place_of(url)) as store:
        commit(store, page(1))
        failure = commit(store, details={1: Detail({"parts": [(1, 1, "a\0", None)]})}).failed[0]
        assert (failure.outcome, failure.message) == (
            Outcome.MALFORMED,
            "the database cannot hold it: a NUL character in a text",
        )


# --- who else is there -----------------------------------------------------------------------------------


def test_a_second_run_ends_with_exit_6(url: str, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=300), latency=0.3)
    with running(simulator, url, "--workers", "2") as first:
        eventually(lambda: simulator.requests["info"] > 2)
        second = run(simulator, url)
        assert first.poll() is None
        assert second.returncode == 6
        assert second.stderr == f"fetcher: {place_of(url)} is in use by another run: wait for it, or stop it\n"
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 130


def test_a_database_with_tables_of_something_else_stays_as_it_is(url: str) -> None:
    change(url, "CREATE TABLE items (mine int)")
    with pytest.raises(StoreError, match="has a table items of something else"):
        open_store(place_of(url), "pr0gramm", registry()["pr0gramm"].tables, "http://x.test")
    assert dump_all(url) == {"items": []}
    change(url, "ALTER TABLE items RENAME TO work")
    with pytest.raises(StoreError, match="has a table work of something else"):
        open_store(place_of(url), "pr0gramm", registry()["pr0gramm"].tables, "http://x.test")
    schema = f"{url}?options=-csearch_path%3Dours"
    with pytest.raises(StoreError, match="there is no schema to write to"):
        open_store(place_of(schema), "toy", TABLES, "http://x.test")
    change(url, "CREATE SCHEMA ours")
    open_store(place_of(schema), "toy", TABLES, "http://x.test").close()


def test_looking_at_what_is_not_there_makes_nothing(url: str, shared_simulator: Simulator) -> None:
    assert peek_store(place_of(url), "toy", TABLES) is None
    assert preview(db=url, api_base_url=shared_simulator.url, **FAST).start.queued == 0
    for command in ("status", "verify", "failures", "retry"):
        done = run_fetcher(command, url)
        assert (done.returncode, done.stdout) == (6, "")
        assert done.stderr == f"fetcher: there is no mirror in {place_of(url)}: `fetcher fetch` makes it\n"
    assert dump_all(url) == {}


def test_a_set_up_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(store, "make_views", fail)
        with pytest.raises(RuntimeError):
            open_store(place_of(url), "toy", TABLES, "http://x.test")
    assert dump_all(url) == {}
    with opened(place_of(url)) as made:
        assert commit(made, page(1)).new == 1


# --- the command line, and secrets --------------------------------------------------------------------------


def test_every_command_takes_a_url_and_tells_nobody_its_password(url: str, simulate: Simulate) -> None:
    world = World(seed=1, items=60)
    bad = world.ids()[3]
    spoilt = simulate(world, faults=lambda kind, key, _: Answer(200, {}, b"{}") if key == bad else None)
    told = []
    once = "import os; os.environ['MAX_RETRIES'] = '0'"
    told.append(run(spoilt, url, "-vv", "--batch-size", "9", code=once))
    for command, code in (("status", 0), ("status --json", 0), ("verify", 3), ("failures", 0)):
        told.append(run_fetcher(*command.split(), url))
        assert told[-1].returncode == code, told[-1].stderr
    told.append(run_fetcher("retry", url, "--base-url", simulate(world).url, "--delay", "0", "--max-rate", "0"))
    assert told[-1].returncode == 0, told[-1].stderr
    told.append(run_fetcher("verify", url))
    assert told[-1].returncode == 0
    assert f"{place_of(url)}: 60 items; complete as of" in told[-1].stdout
    told.append(run_fetcher("status", url.replace("secret", "guess")))
    assert told[-1].returncode == 6
    assert "password authentication failed" in told[-1].stderr
    told.append(run_fetcher("verify", "postgresql://fetcher:a-secret@127.0.0.1:1/nowhere"))
    assert told[-1].returncode == 6
    told.append(run_fetcher("verify", "postgresql://fetcher:a-secret@127.0.0.1:port/nowhere"))
    assert told[-1].returncode == 6
    for each in told:
        assert "a-secret" not in each.stdout + each.stderr, each.args
        assert "a-guess" not in each.stdout + each.stderr, each.args
        assert "Traceback" not in each.stderr
    assert "a-secret" not in repr(dump_all(url))


def test_how_to_go_on_is_told_without_the_password(url: str, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=200), latency=0.05)
    with running(simulator, url) as process:
        eventually(lambda: simulator.requests["info"] > 5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"fetch {place_of(url)}" in err
    assert "secret" not in out + err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@host:5432/db?sslmode=require", "postgresql://me@host:5432/db"),
        ("postgres://host/db?user=me&password=pass", "postgresql://host/db"),
        ("postgresql:///db", "postgresql:///db"),
        ("postgresql://me:pa@ss/wo?rd@host/db", "postgresql://me@host/db"),
        ("POSTGRESQL://me:pass@[::1]/db", "postgresql://me@[::1]/db"),
    ],
)
def test_a_url_shows_where_and_who_and_nothing_else(text: str, shown: str) -> None:
    place = place_of(text)
    assert isinstance(place, PostgresUrl)
    assert (str(place), f"{place!r}", place.secret) == (shown, f"PostgresUrl('{shown}')", text)
    assert "pass" not in f"{load(Settings, {'db_path': text})!r}"


def test_db_path_may_be_a_url(url: str, shared_simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PATH", url)
    mirror(None, shared_simulator)
    assert verify(url).complete
    assert not Path("postgresql:").exists()


def test_without_its_client_it_is_said_what_to_install(url: str, shared_simulator: Simulator) -> None:
    done = run(shared_simulator, url, code="import sys; sys.modules['psycopg'] = None")
    assert done.returncode == 2
    assert "pip install 'fetcher[postgres]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_committed_is_on_the_servers_disk(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        name = one(url, "SELECT current_database()")
        conn.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with closing(open_store(place_of(url), "toy", TABLES, "http://toy.test")) as store:
        assert store._conn.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_the_row_of_an_engine_goes_with_it(url: str) -> None:
    with opened(place_of(url)) as store:
        commit(store, page(1))
        commit(store, details={1: detail(1)})
        ((commits,),) = query(url, "SELECT commits FROM engines")
        assert commits >= 3
    assert query(url, "SELECT commits FROM engines") == []
