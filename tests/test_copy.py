"""A database copied to another place: all of it, whichever kind both are, wherever it is interrupted."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fetcher.copying.job as copying
from fetcher import (
    ConfigurationError,
    Copied,
    CopyProgress,
    Interrupted,
    Stop,
    StoreError,
    copy,
    failures,
    ingest,
    search,
    verify,
)
from fetcher.cli import main
from fetcher.copying.ranges import Checksum, Difference, Range, differences
from fetcher.copying.target import Target
from fetcher.model import Batch, Column, Page, Table
from fetcher.place import place_of
from fetcher.simulator import Simulator, World
from fetcher.stores import jobs
from fetcher.stores.database import Database
from fetcher.stores.opening import open_store, peek_store
from fetcher.stores.rows import Relation
from tests.helpers import (
    ROOT,
    Rows,
    _environment,
    answer,
    assert_complete,
    assert_search_is_exact,
    change,
    column,
    details_of,
    dump,
    dump_all,
    mirror,
    one,
    query,
    run,
)
from tests.postgres import PostgresServer, Way
from tests.toy import IDLE, PARTS, THINGS, failed, opened

Simulate = Callable[..., Simulator]
Place = Callable[[str], str]

KINDS = ("sqlite", "postgres")
BOTH = [(a, b) for a in KINDS for b in KINDS]
OWN = ("fetcher_copied", "fetcher_copying", "fetcher_copy_ranges", "fetcher_copy_changes")


@pytest.fixture
def place(tmp_path: Path, postgres: PostgresServer) -> Place:
    """A new place for a database of a kind."""
    numbers = count(1)
    return lambda kind: postgres.schema() if kind == "postgres" else str(tmp_path / f"copy {next(numbers)}.db")


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=3, items=260)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """A mirror that nobody changes: some failed for good, some is left to do, one run of two was interrupted."""
    db = tmp_path_factory.mktemp("original") / "mirror.db"
    bad = {world.ids()[3]: answer({"error": "no"}, 500), world.ids()[9]: answer({"tags": 3})}
    with Simulator(world, faults=lambda kind, key, _: bad.get(key) if kind == "info" else None) as simulator:
        mirror(db, simulator, limit=150)
        with suppress(Exception):
            mirror(db, simulator, limit=20, max_retries=0)
    change(db, "UPDATE sources SET learned = ?", json.dumps({"a host": {"rate": 3}}))
    change(db, "INSERT INTO walks VALUES ('pr0gramm', 1, 'a token', 7)")
    change(db, "UPDATE comments SET extra = ?", '{"a": "\\ud800 \\u0000", "b": [1.50, 1e400]}')
    change(db, "UPDATE work SET due_at = 12345.678 WHERE key = (SELECT max(key) FROM work WHERE due_at IS NULL)")
    change(db, "INSERT OR REPLACE INTO failures VALUES ('pr0gramm', 'list', 'p 1', 'gone', 'ä', 500, x'00ff', 2, 9)")
    change(
        db,
        "UPDATE sources SET parked = (SELECT count(*) FROM work WHERE due_at IS NULL), work ="
        " (SELECT count(*) FROM work WHERE due_at IS NOT NULL)",
    )
    return db


def told(db: Path | str) -> dict[str, list[tuple[str, ...]]]:
    """All that a database holds, in one order, without the search and what it keeps of the copy; zero has no sign."""
    found = {}
    for table, rows in dump_all(place_of(db)).items():
        if table.startswith(("search", "chunks_search")) or table in OWN:
            continue
        found[table] = sorted(tuple(map(repr, row)) for row in rows)
    return {name: rows for name, rows in found.items() if rows or name not in ("jobs", "job_batches", "job_work")}


def assert_same(a: Path | str, b: Path | str) -> None:
    """Both hold the same, but for tables that are empty where only one has them."""
    ours, theirs = told(a), told(b)
    for table in ours.keys() | theirs.keys():
        if table == "sources":
            names = "name, base_url, created_at, sweep, items, fetched, work, parked, learned, scopes, options, wanted"
            assert query(a, f"SELECT {names} FROM sources") == query(b, f"SELECT {names} FROM sources")
        else:
            assert ours.get(table, []) == theirs.get(table, []), table


def commanded(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of `fetcher`, in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), err.getvalue())


# --- all of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "back"), BOTH)
def test_a_mirror_there_and_back_again_is_what_it_was(place: Place, original: Path, there: str, back: str) -> None:
    first, second = place(there), place(back)
    done = copy(original, first)
    assert (done.exit_code, done.differences, done.strangers) == (0, (), ())
    assert done.copied == sum(done.rows.values()) > 1000
    assert copy(first, second).exit_code == 0
    assert_same(original, first)
    assert_same(original, second)
    if back == "sqlite":
        assert_search_is_exact(Path(second))
    verdict = verify(second)
    assert (verdict.wrong, verdict.unfinished_count) == ((), verify(original).unfinished_count)
    assert len(failures(second)) == len(failures(original))


@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_has_the_views_and_indexes_of_a_mirror(place: Place, shared_simulator: Simulator, kind: str) -> None:
    a, b = place("sqlite"), place(kind)
    mirror(a, shared_simulator)
    assert copy(a, b).exit_code == 0
    assert verify(b).complete
    assert query(b, "SELECT tag, items FROM top_tags") == query(a, "SELECT tag, items FROM top_tags")
    # A run finds nothing to make, and its numbers go on.
    assert mirror(b, shared_simulator).counts.stored == 0
    assert column(b, "SELECT id FROM runs ORDER BY 1") == [1, 2]
    if kind == "sqlite":
        word = one(a, "SELECT tag FROM tags WHERE tag GLOB '[a-z]*' LIMIT 1")
        assert [hit.key for hit in search(b, word)] == [hit.key for hit in search(a, word)]
        sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite%' ORDER BY 1"
        assert column(b, sql) == column(a, sql)
    else:
        assert one(b, "SELECT to_regclass('tags_tag')::text") == "tags_tag"


@pytest.mark.parametrize(("from_", "to"), BOTH)
def test_a_mirror_in_progress_goes_on_in_its_copy(place: Place, simulate: Simulate, from_: str, to: str) -> None:
    world = World(seed=5, items=200)
    simulator = simulate(world)
    a, b, undisturbed = place(from_), place(to), place(to)
    mirror(a, simulator, limit=60)
    mirror(undisturbed, simulator)
    assert copy(a, b).exit_code == 0
    if (from_, to) == ("sqlite", "postgres"):
        done = run(simulator, b)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
    else:
        assert mirror(b, simulator).exit_code == 0
    assert_complete(b, world)  # type: ignore[arg-type]
    ours, theirs = dump(place_of(b)), dump(place_of(undisturbed))
    for table in theirs:
        assert ours[table] == theirs[table], table
    assert one(a, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") < 200


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_are_texts_are_copied_in_one_order(place: Place, kind: str) -> None:
    keys = ["", "0", "10", "9", "A", "Z", "a", "ä", "z", "é", "\uffff", "😀", "a b", "a\tb", "-1"]
    tables = (Table("things", (Column("id", "text", required=True), *THINGS.columns[1:])), PARTS)
    a, b, c = place("sqlite"), place(kind), place("sqlite")
    with opened(place_of(a), tables) as store:
        store.commit(Batch(pages=(Page(tuple((key, "n", 1, None) for key in keys), (1, "x"), None, None),)), IDLE)
        store.commit(Batch(failures=tuple(failed(key, None) for key in keys[::2])), IDLE)
    with registered("toy", tables):
        copying_small(lambda: copy(a, b), rows=2)
        copying_small(lambda: copy(b, c), rows=3)
    assert_same(a, c)
    assert sorted(column(b, "SELECT key FROM work")) == sorted(keys)


@contextmanager
def registered(name: str, tables: Any) -> Iterator[None]:
    """The source of that name is one with these tables."""
    from fetcher.sources import registry

    kind = type("Toy", (registry()["pr0gramm"],), {"name": name, "tables": tables, "views": ()})
    before = copying.kind_of
    copying.kind_of = lambda _: kind  # type: ignore[assignment]
    try:
        yield
    finally:
        copying.kind_of = before


def copying_small(call: Callable[[], Copied], rows: int) -> Copied:
    """Copy in ranges of so many rows, some read at a time."""
    before = copying.ROWS, copying.BYTES
    copying.ROWS, copying.BYTES = rows, 100_000
    try:
        return call()
    finally:
        copying.ROWS, copying.BYTES = before


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are small, so that there are many of them."""
    monkeypatch.setattr(copying, "ROWS", 100)
    monkeypatch.setattr("fetcher.stores.rows.CHUNK", 64)
    monkeypatch.setattr("fetcher.stores.postgres.rows.CHUNK", 64)


# --- texts and jobs --------------------------------------------------------------------------------------


def read_books(db: Path | str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in "abc":
        (folder / f"{name}.md").write_text(f"# {name}\n\nHow bees {name} find their way, by the light of the sky.\n")
    ingest(str(folder), str(db), embedder="tests.texts:embed_here")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, shared_simulator: Simulator) -> Path:
    """A mirror with three books beside it, and a job: do not change it."""
    folder = tmp_path_factory.mktemp("library")
    db = folder / "library.db"
    mirror(db, shared_simulator)
    read_books(db, folder / "books")
    with closing(Database(db)) as opened_:
        jobs.submit(opened_, "pr0gramm", list(range(1, 90)), "HIGH", batch_size=7, now=1.5)
    return db


def test_texts_and_jobs_are_copied_and_texts_found_again(place: Place, library: Path) -> None:
    b = place("sqlite")
    done = copy(library, b)
    assert (done.exit_code, done.rows["chunks"], done.rows["vectors"], done.rows["job_batches"]) == (0, 3, 3, 13)
    assert_same(library, b)
    verdict = verify(b)
    assert (verdict.wrong, verdict.submitted) == ((), 89)
    assert verdict.texts is not None
    assert verdict.texts.complete
    assert len(search(b, "bees sky", mode="text")) == 3
    # What has not changed is not read again.
    read_books(b, library.parent / "books")
    assert column(b, "SELECT number FROM chunks ORDER BY 1") == column(library, "SELECT number FROM chunks ORDER BY 1")


def test_what_a_database_cannot_hold_is_refused_or_left_out(
    place: Place, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fetcher.stores.postgres.rows.HOLDS", frozenset())
    b = place("postgres")
    with pytest.raises(ConfigurationError, match=r"cannot hold the texts of .*: --without texts copies all else"):
        copy(library, b)
    with pytest.raises(ConfigurationError, match="cannot hold the jobs of"):
        copy(library, b, without=["texts"])
    assert dump_all(place_of(b)) == {}
    done = copy(library, b, without=["texts", "jobs"])
    assert done.exit_code == 0
    assert column(b, "SELECT DISTINCT stage FROM runs") == ["detail"]
    assert verify(b).complete
    with pytest.raises(ConfigurationError, match="there is no part walks"):
        copy(library, b, without=["walks"])


# --- interrupted -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """As if the process were no more: nothing is tidied up but what the system does."""


STEPS = (
    (Target, "begin", 0),
    (copying.Copy, "_make", 0),
    (copying.Copy, "_match_columns", 0),
    (Target, "clean", 1),
    (Target, "put", 3),
    (copying.Copy, "_compare", 0),
    (Target, "replace_sources", 0),
    # The second time it makes what is made of rows.
    (copying.Copy, "_make", 1),
    (Target, "complete", 0),
)
"""Where it is killed, before it or after it: when it has been there so often."""


@pytest.mark.parametrize("kind", KINDS)
def test_it_may_be_killed_at_any_step_and_goes_on(
    place: Place, original: Path, kind: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = place(kind)
    written = 0
    for owner, name, times in STEPS:
        for after in (False, True):
            with monkeypatch.context() as patch:
                method = getattr(owner, name)
                left = [times]

                def killed(*args: Any, method: Any = method, after: bool = after, left: Any = left, **more: Any) -> Any:
                    left[0] -= 1
                    if left[0] >= 0:
                        return method(*args, **more)
                    if after:
                        method(*args, **more)
                    raise Killed

                patch.setattr(owner, name, killed)
                with pytest.raises(Killed):
                    copy(original, b)
            if (owner, name, after) == (Target, "complete", True):
                break
            if (owner, name, after) != (Target, "begin", False):
                assert_unusable(b)
    done = copy(original, b)
    written = done.copied
    # All had been written before the last kill.
    assert (done.exit_code, written) == (0, 0)
    assert_same(original, b)
    if kind == "sqlite":
        assert_search_is_exact(Path(b))
        # Filled twice it would have each word once, but count it twice.
        change(b, "INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")


def assert_unusable(db: str) -> None:
    """Nothing but the copy uses what is not complete, and is told so in a line."""
    for use in (
        lambda: verify(db),
        lambda: failures(db),
        lambda: peek_store(place_of(db), "pr0gramm", ()),
        lambda: open_store(place_of(db), "pr0gramm", copying_tables(), "http://x.test"),
        lambda: copy(db, f"{db}-again"),
    ):
        with pytest.raises(StoreError, match=r"is a copy( of .*)? that is not complete: go on with `fetcher copy"):
            use()


def copying_tables() -> Any:
    from fetcher.sources import registry

    return registry()["pr0gramm"].tables


@pytest.mark.parametrize(("from_", "to"), [("sqlite", "postgres"), ("postgres", "sqlite")])
def test_a_process_that_is_killed_again_and_again_gets_there(place: Place, original: Path, from_: str, to: str) -> None:
    a, b = str(original), place(to)
    if from_ == "postgres":
        a = place("postgres")
        copy(original, a)
    # It kills itself after so many ranges, in the middle of the transaction of the next one.
    code = (
        "import os, signal\nimport fetcher.copying.job as c\nfrom fetcher.copying.target import Target\n"
        "c.ROWS = 400\nput, left = Target._record, [7]\n"
        "def record(*args):\n    put(*args)\n    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Target._record = record\nfrom fetcher.cli import main\nmain()"
    )
    codes = []
    for _ in range(12):
        codes.append(
            subprocess.run(
                [sys.executable, "-c", code, "copy", a, b],
                env=_environment(),
                check=False,
                capture_output=True,
                timeout=30,
            ).returncode
        )
        if codes[-1] != -signal.SIGKILL:
            break
    assert codes[-1] == 0
    assert 2 < len(codes) < 12
    assert_same(a, b)


def test_ctrl_c_ends_it_and_says_how_to_go_on(place: Place, original: Path) -> None:
    b = place("sqlite")
    code = (
        "import os, signal, time\nimport fetcher.copying.job as c\nfrom fetcher.copying.target import Target\n"
        "c.ROWS = 50\nput, left = Target.put, [5]\n"
        "def once(*args):\n    left[0] -= 1\n    if not left[0]: os.kill(os.getpid(), signal.SIGINT)\n"
        "    if left[0] < 0: time.sleep(0.05)\n    return put(*args)\n"
        "Target.put = once\nfrom fetcher.cli import main\nmain()"
    )
    command = [sys.executable, "-c", code, "copy", str(original), b]
    done = subprocess.run(command, env=_environment(), check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 130
    assert re.fullmatch(r"fetcher: interrupted; what was copied to .* is kept\. Go on with: .*copy .*\n", done.stderr)
    assert_unusable(b)
    assert copy(original, b).copied < copying_total(original)
    assert_same(original, b)


def copying_total(db: Path) -> int:
    return sum(len(rows) for rows in told(db).values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_ends_it_wherever_it_is(place: Place, original: Path, small: None, kind: str) -> None:
    b = place(kind)
    for step in ("copying", "comparing"):
        stop = Stop()

        def on_progress(progress: CopyProgress, step: str = step, stop: Stop = stop) -> None:
            if progress.step == step:
                stop.set()

        with pytest.raises(Interrupted):
            copy(original, b, stop=stop, on_progress=on_progress)
        assert_unusable(b)
    assert copy(original, b).exit_code == 0
    assert_same(original, b)


def test_a_connection_that_is_cut_costs_nothing(original: Path, postgres: PostgresServer, small: None) -> None:
    url = postgres.url()
    cuts = iter(["before", None, None, "after", None, "at once"])

    def cut(data: bytes, _: int) -> str | None:
        return next(cuts, None) if b"COMMIT" in data and b"fetcher_copy" not in data else None

    with Way(postgres.port, cut) as way:
        done = copy(original, way.through(url))
        assert way.cuts >= 2
    assert done.exit_code == 0
    assert_same(original, url)


def test_a_mirror_that_changes_before_its_copy_is_complete_is_copied_anew(
    place: Place, simulate: Simulate, small: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate(World(seed=5, items=120))
    a, b = place("sqlite"), place("postgres")
    mirror(a, simulator, limit=60)
    with monkeypatch.context() as patch:
        patch.setattr(copying.Copy, "_compare", killing)
        with pytest.raises(Killed):
            copy(a, b)
    mirror(a, simulator)
    assert copy(a, b).exit_code == 0
    assert "has changed since its copy was begun: it is copied anew" in caplog.text
    assert_same(a, b)


def killing(*_: Any) -> Any:
    raise Killed


# --- compared --------------------------------------------------------------------------------------------

DAMAGES = {
    "a value": ("UPDATE tags SET confidence = confidence / 2 WHERE item_id = :key", "tags"),
    "a row that is gone": ("DELETE FROM comments WHERE item_id = :key", "comments"),
    "another key": ("UPDATE items SET id = id + 100000 WHERE id = :key", "items"),
    "coverage": ("UPDATE coverage SET hi = hi + 1", "coverage"),
    "work": ("UPDATE work SET priority = 1", "work"),
    "a row behind the last": (
        "INSERT INTO failures VALUES ('z', 'detail', '1', 'gone', 'x', 404, NULL, 1, 1)",
        "failures",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_difference_is_named_by_table_and_range_and_mended(
    place: Place, original: Path, kind: str, damage: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = place(kind)
    key = query(original, "SELECT item_id FROM comments GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")[0][0]
    sql, table = DAMAGES[damage]
    with monkeypatch.context() as patch:
        compare = copying.Copy._compare

        def damaged(self: Any, target: Any) -> Any:
            change(b, sql.replace(":key", str(key)))
            return compare(self, target)

        patch.setattr(copying.Copy, "_compare", damaged)
        done = copy(original, b)
    assert done.exit_code == 3
    assert {each.table for each in done.differences} == {table}
    assert re.match(rf"{table} (from the first|behind \S+).*: [\d,]+ rows", str(done.differences[0]))
    assert_unusable(b)
    again = copy(original, b)
    assert (again.exit_code, again.differences) == (0, ())
    assert 0 < again.copied < copying_total(original) or damage == "a row behind the last"
    assert_same(original, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_copy_is_compared_again_until_a_run_changes_it(place: Place, simulate: Simulate, kind: str) -> None:
    simulator = simulate(World(seed=5, items=120))
    a, b = place("sqlite"), place(kind)
    mirror(a, simulator)
    assert copy(a, b).exit_code == 0
    assert (copy(a, b).exit_code, copy(a, b).copied) == (0, 0)
    item = one(b, "SELECT max(item_id) FROM tags")
    change(b, "UPDATE tags SET tag = 'x' WHERE item_id = ?", item)
    done = commanded("copy", a, b)
    assert done.returncode == 3
    assert re.search(r"^Differs: tags from the first up to \d+/\d+: [\d,]+ rows, and not the same$", done.stdout, re.M)
    mirror(b, simulator)
    with pytest.raises(StoreError, match=r"holds a mirror already, which was copied from .*; since then a run has"):
        copy(a, b)


def test_the_same_rows_have_one_checksum_however_they_are_read() -> None:
    rows: Rows = [(1, "a", None, 1.5), (2, "ä\0", b"\xff", -0.0 + 0.0), (3, "\udc80", b"", 2**62)]
    whole, parts = Checksum(), Checksum()
    whole.add(rows)
    for row in rows:
        parts.add([row])
    assert whole.text() == parts.text()
    for other in ([(1, "a", None, 1.5)], [*rows[:2], (3, b"\x80", b"", 2**62)], rows[::-1]):
        differing = Checksum()
        differing.add(other)
        assert differing.text() != whole.text()


def test_ranges_are_cut_by_key_whatever_is_missing_or_too_much() -> None:
    def of(number: int, *keys: int) -> Range:
        checksum = Checksum()
        checksum.add([(key, "x") for key in keys])
        return Range(number, (keys[-1],), len(keys), checksum.text())

    ranges = [of(0, 1, 2, 3), of(1, 4, 5), of(2, 8, 9)]

    def found(*chunks: list[int]) -> list[Difference]:
        return list(differences("t", 1, iter([[(key, "x") for key in keys] for keys in chunks]), ranges))

    assert found([1, 2, 3, 4, 5, 8, 9]) == found([1], [2, 3, 4], [5, 8], [9]) == []
    assert [(each.number, each.expected, each.found) for each in found([1, 3], [4, 5, 8, 9])] == [(0, 3, 2)]
    assert [(each.number, each.found) for each in found([1, 2, 3, 6, 8, 9])] == [(1, 0), (2, 3)]
    assert [each.number for each in found()] == [0, 1, 2]
    extra = found([1, 2, 3, 4, 5, 8, 9, 10], [11])
    assert [(each.number, each.first, each.last, each.found) for each in extra] == [(3, (9,), None, 2)]


# --- what cannot be held ---------------------------------------------------------------------------------


def test_values_that_postgresql_cannot_hold_are_changed_counted_and_named(place: Place, simulate: Simulate) -> None:
    world = World(seed=2, items=60)
    bad = world.ids()[7]
    info = details_of(world, bad)
    info["tags"].append({"id": 1, "confidence": 0.5, "tag": "half\0way"})
    a, b, c = place("sqlite"), place("postgres"), place("sqlite")
    mirror(a, simulate(world, faults=lambda kind, key, _: answer(info) if (kind, key) == ("info", bad) else None))
    other = one(a, "SELECT item_id FROM comments WHERE item_id != ? GROUP BY 1 ORDER BY count(*) LIMIT 1", bad)
    with closing(sqlite3.connect(a)) as conn, conn:
        conn.execute("UPDATE comments SET content = CAST(x'61eda08062' AS TEXT) WHERE item_id = ?", [other])
        conn.execute("UPDATE items SET extra = 'no JSON' WHERE id = ?", [bad])
        comments = conn.execute("SELECT count(*) FROM comments WHERE item_id = ?", [other]).fetchone()[0]
    assert comments
    done = copy(a, b)
    assert (done.exit_code, done.changed, done.left_out, done.differences) == (3, 2 + comments, 0, ())
    assert {(each.table, each.column) for each in done.changes} == {
        ("items", "extra"),
        ("tags", "tag"),
        ("comments", "content"),
    }
    assert one(b, "SELECT tag FROM tags WHERE item_id = ? AND id = 1", bad) == "half\\0way"
    assert one(b, "SELECT extra FROM items WHERE id = ?", bad) == '"no JSON"'
    assert set(column(b, "SELECT content FROM comments WHERE item_id = ?", other)) == {"a\\udced\\udca0\\udc80b"}
    # What it was is kept.
    assert column(b, "SELECT original FROM fetcher_copy_changes WHERE field = 'tag'") == [b"half\0way"]
    assert set(column(b, "SELECT original FROM fetcher_copy_changes WHERE field = 'content'")) == {b"a\xed\xa0\x80b"}
    assert verify(b).complete
    said = commanded("copy", a, b)
    assert said.returncode == 3
    assert f"Changed: tags {bad}/1, tag: a NUL character" in said.stdout
    # An SQLite file takes what another one held, whatever its bytes.
    assert copy(a, c).exit_code == 0
    assert one(c, "SELECT hex(max(content)) FROM comments WHERE item_id = ?", other) == "61EDA08062"


def test_rows_whose_key_cannot_be_held_are_left_out_and_kept_aside(place: Place) -> None:
    tables = (Table("things", (Column("id", "text", required=True), *THINGS.columns[1:])), PARTS)
    long = "".join(map(str, range(3000)))
    a, b = place("sqlite"), place("postgres")
    with opened(place_of(a), tables) as store:
        rows = tuple((key, "n", 1, None) for key in ("a", "b\0", "c", long, "d"))
        store.commit(Batch(pages=(Page(rows, (1,), None, None),)), IDLE)
    with registered("toy", tables):
        done = copy(a, b)
    assert (done.exit_code, done.changed, done.differences) == (3, 0, ())
    assert column(b, "SELECT id FROM things ORDER BY 1") == ["a", "c", "d"]
    assert {each.key[-1] for each in done.changes} == {"b\0", long}
    assert {each.table for each in done.changes} == {"things", "work"}
    kept = [json.loads(each) for each in column(b, "SELECT original FROM fetcher_copy_changes WHERE name = 'things'")]
    assert {each["id"] for each in kept} == {"b\0", long}


def test_a_number_that_is_none_becomes_null_in_sqlite(place: Place, shared_simulator: Simulator) -> None:
    a, b = place("postgres"), place("sqlite")
    mirror(a, shared_simulator)
    item = one(a, "SELECT max(item_id) FROM tags")
    change(a, "UPDATE tags SET confidence = 'NaN' WHERE item_id = ?", item)
    change(a, "UPDATE tags SET confidence = '-0' WHERE item_id = (SELECT min(item_id) FROM tags)")
    change(a, "UPDATE tags SET confidence = 'Infinity' WHERE item_id = (SELECT min(item_id) + 1 FROM tags)")
    done = copy(a, b)
    assert done.changed == one(a, "SELECT count(*) FROM tags WHERE confidence = 'NaN'") > 0
    assert (done.exit_code, done.differences) == (3, ())
    assert column(b, "SELECT DISTINCT confidence FROM tags WHERE item_id = ?", item) == [None]


TEXT = st.text(st.characters(codec=None), max_size=6) | st.sampled_from(
    ["\0", "\ud800", "a\udc80", "", "'\"\\", "\\N", "\u2028", "0", "1", "😀" * 3]
)
NUMBER = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1]) | st.integers(-(2**63), 2**63 - 1)
JSON = st.sampled_from([None, "{}", '{"a":"\\u0000"}', '{"a":"\\ud800"}', "NaN", "{", '{"a": 1e999}', "\0", '"\udc80"'])


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    things=st.dictionaries(TEXT, st.tuples(TEXT | st.none(), NUMBER, JSON), max_size=30),
    parts=st.dictionaries(st.tuples(TEXT, NUMBER), st.tuples(TEXT | st.none(), JSON), max_size=30),
    works=st.sets(TEXT | NUMBER, max_size=30),
    rows=st.sampled_from([2, 7, 100]),
)
def test_whatever_is_stored_is_copied_or_named(
    place: Place, postgres: PostgresServer, things: Any, parts: Any, works: Any, rows: int
) -> None:
    tables = (Table("things", (Column("id", "text", required=True), *THINGS.columns[1:])), PARTS)
    a, b, c, d = place("sqlite"), postgres.schema(), place("sqlite"), place("sqlite")
    open_store(place_of(a), "toy", tables, "http://toy.test").close()
    with closing(sqlite3.connect(a)) as conn, conn:

        def text(value: Any) -> Any:
            return value if not isinstance(value, str) else value.encode(errors="surrogatepass")

        def given_(sql: str, values: list[Any]) -> None:
            marked = ", ".join("CAST(? AS TEXT)" if isinstance(each, str) else "?" for each in values)
            conn.execute(f"{sql} VALUES ({marked})", [text(each) for each in values])

        for key, (name, kind, extra) in things.items():
            given_("INSERT INTO things (id, name, kind, extra)", [key, name, kind, extra])
        for (key, id_), (body, extra) in parts.items():
            given_("INSERT INTO parts (thing_id, id, text, extra)", [key, id_, body, extra])
        for each in works:
            given_("INSERT INTO work (source, stage, key, error)", ["toy", "detail", each, each])
    with registered("toy", tables):
        there = copying_small(lambda: copy(a, b), rows)
        back = copying_small(lambda: copy(b, c), rows)
        whole = copying_small(lambda: copy(a, d), rows)
    assert (there.differences, back.differences, whole.exit_code, back.exit_code) == ((), (), 0, 0)
    total = len(things) + len(parts) + len(works)
    assert there.left_out + there.rows["things"] + there.rows["parts"] + there.rows["work"] == total
    assert_same(b, c)
    with closing(sqlite3.connect(a)) as one_, closing(sqlite3.connect(d)) as other:
        for conn in (one_, other):
            conn.text_factory = bytes
        for table in ("things", "parts", "work"):
            sql = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
            assert one_.execute(sql).fetchall() == other.execute(sql).fetchall()
    # What needed no change is what it was, and each change is named.
    named = {(each.table, each.key) for each in there.changes}
    for key, (name, kind, _) in things.items():
        if ("things", (_read(key),)) not in named:
            assert query(b, "SELECT name, kind FROM things WHERE id = ?", key) == [(name, kind)]


def _read(text: str) -> str:
    """A text as it is read when its bytes are no UTF-8."""
    return text.encode(errors="surrogatepass").decode(errors="surrogateescape")


# --- who else is there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_holds_something_else_is_refused_and_stays_as_it_is(
    place: Place, original: Path, shared_simulator: Simulator, kind: str
) -> None:
    b = place(kind)
    mirror(b, shared_simulator, limit=5)
    before = dump_all(place_of(b))
    with pytest.raises(StoreError, match="holds a mirror already: name a new database to copy to"):
        copy(original, b)
    assert dump_all(place_of(b)) == before
    other = place(kind)
    change(other, "CREATE TABLE work (mine int)")
    with pytest.raises(StoreError, match="something else"):
        copy(original, other)
    assert dump_all(place_of(other)) == {"work": []}


def test_no_run_changes_it_meanwhile(place: Place, original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.stores.postgres.database.LOCK_SECONDS", 0.3)
    said: list[str] = []
    for kind in KINDS:
        a, b = place(kind), place("sqlite")
        copy(original, a)

        def on_progress(progress: CopyProgress, a: str = a) -> None:
            if not said and progress.step == "copying":
                with pytest.raises(StoreError) as refused:
                    open_store(place_of(a), "pr0gramm", copying_tables(), "http://x.test")
                said.append(str(refused.value))

        said.clear()
        copy(a, b, on_progress=on_progress)
        assert said
        assert "in use by another run" in said[0]
    with opened_mirror(a) as _, pytest.raises(StoreError, match="in use by another run"):
        copy(a, place("sqlite"))


@contextmanager
def opened_mirror(db: str) -> Iterator[Any]:
    store = open_store(place_of(db), "pr0gramm", copying_tables(), "http://x.test")
    try:
        yield store
    finally:
        store.close()


def test_what_is_no_part_of_a_mirror_is_left_out_and_said(place: Place, original: Path) -> None:
    a, b, c = place("sqlite"), place("postgres"), place("sqlite")
    copy(original, a)
    change(a, "CREATE TABLE notes (mine TEXT)")
    change(a, "ALTER TABLE items ADD COLUMN mark_of_mine TEXT")
    change(a, "ALTER TABLE tags ADD COLUMN unused TEXT")
    change(a, "UPDATE items SET mark_of_mine = 'x' WHERE id = (SELECT max(id) FROM items)")
    done = commanded("copy", a, b)
    assert done.returncode == 0, done.stderr
    assert "No part of a mirror, so left out: notes, items.mark_of_mine" in done.stdout
    assert copy(b, c).strangers == ()


@pytest.mark.parametrize("nothing", ["it is not there", "it is itself", "another file"])
def test_what_cannot_be_copied_is_said_in_a_line(place: Place, original: Path, tmp_path: Path, nothing: str) -> None:
    (tmp_path / "text.db").write_text("no database at all, but a text")
    a, b = {
        "it is not there": (str(tmp_path / "none.db"), place("sqlite")),
        "it is itself": (str(original), str(original)),
        "another file": (str(original), str(tmp_path / "text.db")),
    }[nothing]
    done = commanded("copy", a, b)
    assert done.returncode == (2 if nothing == "it is itself" else 6)
    assert re.fullmatch(r"fetcher: .*\n", done.stderr)


# --- told ------------------------------------------------------------------------------------------------


def test_the_command_tells_what_it_did_and_keeps_the_password_to_itself(place: Place, original: Path) -> None:
    b = place("postgres")
    done = commanded("copy", str(original), b)
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert re.fullmatch(r"Copied [\d,]+ rows and compared [\d,]+ in .* \([\d,]+ rows/s\)", first)
    assert "tags 2," in second or "tags 1," in second or "tags" in second
    assert last == f"{place_of(b)} holds what {original} does"
    assert "a-secret" not in done.stdout + done.stderr
    lines = [
        json.loads(line) for line in commanded("copy", str(original), b, "--log-format", "json").stdout.splitlines()
    ]
    assert [line["event"] for line in lines] == ["end"]
    assert (lines[0]["exit_code"], lines[0]["copied"], lines[0]["differences"]) == (0, 0, [])


def test_progress_is_told_with_rate_and_time_left(place: Place, original: Path, small: None) -> None:
    told_: list[CopyProgress] = []
    copy(original, place("sqlite"), on_progress=told_.append)
    assert {each.step for each in told_} == {"copying", "comparing", "completing"}
    assert all(each.rows <= each.total for each in told_)


def test_memory_is_bounded_by_a_range_not_by_the_database(
    place: Place, original: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    put = Target.put

    def noted(self: Any, relation: Relation, columns: Any, number: int, rows: Any, sum_: Any) -> int:
        sizes.append(len(rows))
        return put(self, relation, columns, number, rows, sum_)

    monkeypatch.setattr(Target, "put", noted)
    copy(original, place("postgres"))
    assert len(sizes) > 10
    assert max(sizes) < 100 + 64


def test_the_example_of_the_guide_runs(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    copy(original, "pr0gramm.db")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/copy.md").read_text("utf-8"), re.DOTALL)
    exec(compile(code, "copy.md", "exec"), {})
    assert "0 {'items': 260, " in capsys.readouterr().out
