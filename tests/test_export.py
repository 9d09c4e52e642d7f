"""Exports: what is written equals what is stored, whole files or none, under names that are safe and never meet."""

from __future__ import annotations

import base64
import csv
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher import ConfigurationError, Interrupted, StoreError
from fetcher.export import export, write_category
from fetcher.export.names import LONGEST, Names
from fetcher.export.reading import chunks_of, pages
from fetcher.export.replacement import ENDING, Replacement
from fetcher.export.rows import FileRows
from fetcher.export.tables import chunks
from fetcher.simulator import Simulator
from fetcher.stop import Stop
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.migrations import APPLICATION_ID
from fetcher.stores.texts import SCHEMA
from fetcher.texts.chunk import chunk_id, text_hash
from tests.helpers import ROOT, column, mirror, one, query, run_fetcher

DB = Path("texts.db")
OUT = Path("out")


def made(path: Path = DB, *statements: str) -> sqlite3.Connection:
    """A connection to a new database of ours."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    conn.execute("PRAGMA journal_mode = WAL")
    for statement in statements:
        conn.execute(statement)
    return conn


def texts(path: Path = DB) -> sqlite3.Connection:
    return made(path, *SCHEMA)


def add(conn: sqlite3.Connection, name: str, *found: str, domain: str = "texts", category: str = "physics") -> None:
    """A document of some chunks."""
    (number,) = conn.execute(
        "INSERT INTO documents (name, chunks, first_seen_at, listed_at) VALUES (?, ?, 1, 1) RETURNING number",
        [name, len(found)],
    ).fetchone()
    conn.executemany(
        "INSERT INTO chunks (id, document, position, text, hash, domain, category, source_book, source_chapter)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        [
            (chunk_id(name, at), number, at, text, text_hash(text), domain, category, Path(name).stem)
            for at, text in enumerate(found)
        ],
    )


def three_categories() -> sqlite3.Connection:
    conn = texts()
    add(conn, "/b.txt", "one", "two", "three")
    add(conn, "/a.txt", "four", category="history")
    add(conn, "/c.txt", "five", "six", domain="notes")
    return conn


def files(folder: Path = OUT) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def stamps(folder: Path = OUT) -> dict[str, tuple[int, int]]:
    return {str(each): (each.stat().st_ino, each.stat().st_mtime_ns) for each in folder.rglob("*") if each.is_file()}


# --- what is written ----------------------------------------------------------------------------


def test_chunks_as_json_are_one_file_for_each_domain_and_category() -> None:
    with closing(three_categories()):
        done = export(DB, OUT, format="json")
    assert sorted(files()) == ["notes/physics.json", "texts/history.json", "texts/physics.json"]
    assert (done.table, done.written, done.unchanged, done.rows) == ("chunks", 3, 0, 6)
    assert done.bytes == sum(map(len, files().values()))
    found = read(OUT / "texts/physics.json")
    assert list(found) == ["domain", "category", "chunks"]
    assert (found["domain"], found["category"]) == ("texts", "physics")
    assert found["chunks"][1] == {
        "id": chunk_id("/b.txt", 1),
        "text": "two",
        "source_book": "b",
        "source_chapter": None,
        "position": 1,
        "document": "/b.txt",
    }
    assert [each["text"] for each in found["chunks"]] == ["one", "two", "three"]


def test_chunks_of_a_category_are_in_the_order_of_their_documents_whenever_they_were_written() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", "a0", "a1")
        add(conn, "/b.txt", "b0", "b1")
        conn.execute(
            "INSERT INTO chunks (id, document, position, text, hash, domain, category)"
            " VALUES ('late', 1, 2, 'a2', '', 'texts', 'physics')"
        )
        export(DB, OUT, format="json", batch=2)
    assert [each["text"] for each in read(OUT / "texts/physics.json")["chunks"]] == ["a0", "a1", "a2", "b0", "b1"]


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 7, 100])
def test_every_row_is_written_once_whatever_is_read_at_once(batch: int) -> None:
    with closing(three_categories()):
        export(DB, OUT, format="json", batch=batch)
        export(DB, OUT, format="ndjson", batch=batch)
    in_categories = [each["text"] for path in sorted(OUT.glob("*/*.json")) for each in read(path)["chunks"]]
    assert in_categories == ["five", "six", "four", "one", "two", "three"]
    assert [each["text"] for each in lines(OUT / "chunks.ndjson")] == ["one", "two", "three", "four", "five", "six"]


def test_documents_that_are_there_no_more_are_left_out_and_their_category_says_so() -> None:
    with closing(three_categories()) as conn:
        conn.execute("UPDATE documents SET unlisted_at = 1 WHERE name IN ('/a.txt')")
        export(DB, OUT, format="json")
        assert read(OUT / "texts/history.json")["chunks"] == []
        assert write_category(DB, OUT, "texts", "history").changed is False
        assert export(DB, OUT).rows == 5


def test_a_page_is_found_by_the_index_and_nothing_is_sorted() -> None:
    with closing(three_categories()) as conn:
        plans: list[str] = []

        class Explaining(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                plans.extend(row[3] for row in super().execute(f"EXPLAIN QUERY PLAN {sql}", parameters))
                return super().execute(sql, parameters)

        with closing(sqlite3.connect(DB, factory=Explaining)) as watched:
            rows = FileRows(SqliteSql(watched), DB)
            list(chunks_of(rows, chunks(), ("texts", "physics"), 2))
            list(chunks_of(rows, chunks(dimension=3), ("texts", "physics"), 2))
            list(pages(rows, chunks(), 2))
        assert len(plans) > 6
        assert not [each for each in plans if "TEMP B-TREE" in each or ("SCAN chunks" in each and "INDEX" not in each)]
        conn.execute("SELECT 1")


def test_by_other_columns_there_is_a_file_for_each_of_their_values() -> None:
    with closing(three_categories()) as conn:
        conn.execute("UPDATE chunks SET source_book = NULL WHERE text = 'five'")
        export(DB, OUT, format="json", by=["source_book"])
        assert sorted(files()) == ["_null.json", "a.json", "b.json", "c.json"]
        assert read(OUT / "_null.json")["source_book"] is None
        assert [each["text"] for each in read(OUT / "b.json")["chunks"]] == ["one", "two", "three"]
        export(DB, OUT, format="csv", by=["category", "domain"])
        with (OUT / "physics/notes.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["text"], row["domain"]) for row in rows] == [("five", "notes"), ("six", "notes")]


def test_values_that_only_sqlite_takes_for_equal_have_files_of_their_own() -> None:
    with closing(made(DB, "CREATE TABLE t (a, b COLLATE NOCASE)")) as conn:
        rows = [(1, "x"), (1.0, "X"), (1, "X"), ("1", "x"), (b"1", "x"), (None, "x"), ("", "x"), (1, "x")]
        conn.executemany("INSERT INTO t VALUES (?, ?)", rows)
        done = export(DB, OUT, table="t", by=["a", "b"])
        assert (done.written, done.rows) == (7, 8)
        assert sum(len(lines(each)) for each in OUT.glob("*/*.ndjson")) == 8


@pytest.mark.parametrize("format", ["json", "ndjson", "csv", "parquet"])
def test_the_same_content_is_the_same_bytes(format: str) -> None:
    with closing(three_categories()):
        export(DB, "one", format=format)
        export(DB, "two", format=format)
    assert files(Path("one")) == files(Path("two"))


def test_vectors_come_with_their_chunks() -> None:
    with closing(three_categories()) as conn:
        with pytest.raises(ConfigurationError, match="has no vectors yet"):
            export(DB, OUT, vectors=True)
        conn.execute("INSERT INTO models VALUES ('m', 3, 1)")
        vector = [0.1, -1.5, 3e38]
        conn.execute(
            "INSERT INTO vectors VALUES (?, ?)", [text_hash("two"), pa.array(vector, pa.float32()).buffers()[1]]
        )
        export(DB, OUT, vectors=True)
        export(DB, OUT, vectors=True, format="parquet")
        with pytest.raises(ConfigurationError, match="CSV has no place for vectors"):
            export(DB, OUT, vectors=True, format="csv")
    table = pa.parquet.read_table(OUT / "chunks.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
    exact = pa.array(vector, pa.float32()).to_pylist()
    in_parquet = dict(zip(table["text"].to_pylist(), table["vector"].to_pylist(), strict=True))
    in_lines = {each["text"]: each["vector"] for each in lines(OUT / "chunks.ndjson")}
    assert in_parquet == in_lines == {**dict.fromkeys(["one", "three", "four", "five", "six"]), "two": exact}


def test_a_mirrors_items_are_exported_with_what_belongs_to_them(shared_simulator: Simulator) -> None:
    mirror(DB, shared_simulator)
    done = export(DB, OUT)
    found = lines(OUT / "items.ndjson")
    assert done.rows == len(found) == one(DB, "SELECT count(*) FROM items")
    assert [each["id"] for each in found] == column(DB, "SELECT id FROM items ORDER BY id")
    tags = [(each["id"], tag["id"], tag["tag"], tag["confidence"]) for each in found for tag in each["tags"]]
    assert tags == query(DB, "SELECT item_id, id, tag, confidence FROM tags ORDER BY 1, 2")
    comments = [(each["id"], comment["id"], comment["content"]) for each in found for comment in each["comments"]]
    assert comments == query(DB, "SELECT item_id, id, content FROM comments ORDER BY 1, 2")
    assert "item_id" not in found[0]["tags"][0]
    extras = column(DB, "SELECT extra FROM items ORDER BY id")
    assert [each["extra"] for each in found] == [each and json.loads(each) for each in extras]
    variants = column(DB, "SELECT variants FROM items ORDER BY id")
    assert [each["variants"] for each in found] == [each and json.loads(each) for each in variants]


def test_where_rows_cannot_be_nested_each_table_has_a_file(shared_simulator: Simulator) -> None:
    mirror(DB, shared_simulator)
    done = export(DB, OUT, format="parquet")
    assert sorted(files()) == ["comments.parquet", "items.parquet", "tags.parquet"]
    tags = pa.parquet.read_table(OUT / "tags.parquet")
    assert tags.schema.field("confidence").type == pa.float64()
    assert tags.select(["item_id", "id", "tag"]).to_pydict() == {
        name: column(DB, f"SELECT {name} FROM tags ORDER BY item_id, id") for name in ("item_id", "id", "tag")
    }
    assert done.written == 3
    by_user = export(DB, "users", format="csv", by=["user"])
    assert by_user.left_out == ("comments", "tags")
    assert by_user.rows == one(DB, "SELECT count(*) FROM items")


def test_nested_rows_come_by_group_too(shared_simulator: Simulator) -> None:
    mirror(DB, shared_simulator)
    done = export(DB, OUT, format="json", by=["promoted"])
    assert done.rows == one(DB, "SELECT count(*) FROM items")
    found = [(item["id"], len(item["tags"])) for each in OUT.glob("*.json") for item in read(each)["items"]]
    assert sorted(found) == query(
        DB, "SELECT id, (SELECT count(*) FROM tags WHERE item_id = items.id) FROM items ORDER BY 1"
    )


def test_a_view_is_exported_and_told_which_columns_are_json(shared_simulator: Simulator) -> None:
    mirror(DB, shared_simulator)
    export(DB, OUT, table="items_with_tags", json_columns=["tags"])
    found = {each["id"]: each["tags"] for each in lines(OUT / "items_with_tags.ndjson")}
    assert found == {id: json.loads(tags) for id, tags in query(DB, "SELECT id, tags FROM items_with_tags")}
    export(DB, OUT, table="items_with_tags", format="parquet")
    types = pa.parquet.read_schema(OUT / "items_with_tags.parquet")
    assert (types.field("id").type, types.field("tags").type) == (pa.int64(), pa.string())


def test_a_child_named_like_a_column_is_a_list_of_another_name() -> None:
    sql = (
        "CREATE TABLE items (id INTEGER PRIMARY KEY, notes INTEGER, extra TEXT) STRICT",
        "CREATE TABLE notes (item TEXT REFERENCES items, at INTEGER, PRIMARY KEY (item, at)) WITHOUT ROWID",
    )
    with closing(made(DB, *sql)) as conn:
        conn.execute("""INSERT INTO items VALUES (1, 2, '{"a":\n[1.10, 123456789012345678901234567890]}')""")
        conn.execute("INSERT INTO items VALUES (2, 0, 'no JSON')")
        conn.execute("INSERT INTO notes VALUES (1, 1)")
        export(DB, OUT)
    assert (OUT / "items.ndjson").read_text() == (
        '{"id":1,"notes":2,"extra":{"a":[1.10,123456789012345678901234567890]},"notes_list":[]}\n'
        '{"id":2,"notes":0,"extra":"no JSON","notes_list":[]}\n'
    )


ANY = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
WORDS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(ANY, WORDS, st.integers(-(2**63), 2**63 - 1)), max_size=8), st.sampled_from(["a,b", "b"]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_exported_is_what_is_stored(tmp_path: Path, rows: list[tuple[Any, str, int]], by: str) -> None:
    db, out = tmp_path / "any.db", tmp_path / "any"
    db.unlink(missing_ok=True)
    for each in out.rglob("*.ndjson") if out.exists() else ():
        each.unlink()
    with closing(made(db, 'CREATE TABLE "t ""x" (a, b TEXT, "c,\u00e9" INTEGER)')) as conn:
        conn.executemany('INSERT INTO "t ""x" VALUES (?, ?, ?)', rows)
        for format in ("json", "ndjson", "csv", "parquet"):
            export(db, out, format=format, table='t "x')
        export(db, out, format="ndjson", table='t "x', by=by.split(","))
    plain = [(_as_json(a), b, c) for a, b, c in rows]
    name = 't "x'
    assert [tuple(each.values()) for each in read(out / f"{name}.json")] == plain
    assert [tuple(each.values()) for each in lines(out / f"{name}.ndjson")] == plain
    with (out / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["a", "b", "c,é"], *([_as_text(a), b, str(c)] for a, b, c in plain)]
    table = pa.parquet.read_table(out / f"{name}.parquet")
    assert table["b"].to_pylist() == [b for _, b, _ in rows]
    assert table["c,é"].to_pylist() == [c for *_, c in rows]
    grouped = [
        tuple(each.values()) for path in out.rglob("*.ndjson") if path.name != f"{name}.ndjson" for each in lines(path)
    ]
    assert sorted(grouped, key=repr) == sorted(plain, key=repr)


def _as_json(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


@given(st.lists(WORDS, min_size=1, max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_category_has_its_texts_whoever_writes_it(tmp_path: Path, found: list[str]) -> None:
    db = tmp_path / "category.db"
    db.unlink(missing_ok=True)
    with closing(texts(db)) as conn:
        add(conn, "/any.txt", *found)
        written = write_category(db, tmp_path / "o", "texts", "physics", batch=3)
        assert [each["text"] for each in read(written.path)["chunks"]] == found
        assert written.chunks == len(found)
        assert export(db, tmp_path / "o", format="json").unchanged == 1


def test_a_column_of_parquet_has_the_type_that_holds_all_its_values() -> None:
    columns = {
        "whole": [1, 2**63 - 1, None],
        "real": [1, 1.5, 2**53],
        "digits": [1.5, 2**53 + 1, None],
        "mixed": [1, "a", b"a"],
        "bytes": [b"a", None, b""],
        "empty": [None, None, None],
    }
    with closing(made(DB, f"CREATE TABLE t ({', '.join(columns)})")) as conn:
        conn.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", zip(*columns.values(), strict=True))
        export(DB, OUT, table="t", format="parquet")
    table = pa.parquet.read_table(OUT / "t.parquet")
    types = [pa.int64(), pa.float64(), pa.string(), pa.string(), pa.binary(), pa.string()]
    assert table.schema.types == types
    as_text = {"digits": ["1.5", str(2**53 + 1), None], "mixed": ["1", "a", "YQ=="]}
    assert table.to_pydict() == {**columns, **as_text}


def test_a_text_that_is_no_utf8_is_exported_as_far_as_it_can_be_read() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", "good", "bad")
        conn.execute("UPDATE chunks SET text = CAST(x'61ff62' AS TEXT) WHERE text = 'bad'")
        export(DB, OUT)
        write_category(DB, OUT, "texts", "physics")
        export(DB, OUT, by=["text"])
    assert [each["text"] for each in lines(OUT / "chunks.ndjson")] == ["good", "a\ufffdb"]
    assert [each["text"] for each in read(OUT / "texts/physics.json")["chunks"]] == ["good", "a\ufffdb"]


# --- only what changed ----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "ndjson", "csv", "parquet"])
def test_a_file_that_would_not_change_is_not_touched(format: str) -> None:
    with closing(three_categories()) as conn:
        by = ["domain", "category"]
        export(DB, OUT, format=format, by=by)
        before = stamps()
        assert export(DB, OUT, format=format, by=by).unchanged == 3
        assert stamps() == before
        add(conn, "/d.txt", "seven")
        done = export(DB, OUT, format=format, by=by)
        assert (done.written, done.unchanged) == (1, 2)
        assert {name for name, stamp in stamps().items() if before[name] != stamp} == {f"out/texts/physics.{format}"}


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 5), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_replaced_file_holds_what_was_written(
    tmp_path: Path, old: bytes, new: bytes, pieces: int, begins: bool
) -> None:
    path = tmp_path / "f"
    path.write_bytes(old)
    content = old + new if begins else new
    step = len(content) // (pieces + 1) + 1
    with Replacement(path) as file:
        for at in range(0, len(content), step):
            file.write(content[at : at + step])
        assert path.read_bytes() == old
        assert file.commit() is (content != old)
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_a_file_that_is_given_up_is_as_it_was() -> None:
    Path("f").write_bytes(b"old")
    with Replacement(Path("f")) as file:
        file.write(b"new")
        assert len(list(Path().glob(f".*{ENDING}"))) == 1
    assert Path("f").read_bytes() == b"old"
    assert not list(Path().glob(f".*{ENDING}"))


def test_files_of_groups_that_are_no_more_are_named_and_left() -> None:
    with closing(three_categories()) as conn:
        export(DB, OUT, format="json")
        conn.execute("DELETE FROM chunks WHERE domain = 'notes'")
        done = export(DB, OUT, format="json")
    assert done.strangers == (OUT / "notes/physics.json",)
    assert done.strangers[0].exists()


def test_a_category_is_written_alone_as_an_export_writes_it() -> None:
    with closing(three_categories()) as conn:
        for name in ("Physics", "PHYSICS", "a/b", "phYsics"):
            add(conn, f"/{name}.txt", name, category=name)
        export(DB, OUT, format="json")
        found = {(each["domain"], each["category"]): path for path in OUT.rglob("*.json") for each in [read(path)]}
        assert len(found) == 7
        with closing(sqlite3.connect(f"{DB.absolute().as_uri()}?mode=ro", uri=True)) as reading:
            for (domain, category), path in found.items():
                written = write_category(reading, OUT, domain, category)
                assert (written.path, written.changed) == (path, False)
        add(conn, "/more.txt", "more")
        written = write_category(DB, OUT, "texts", "physics")
        assert (written.changed, written.chunks) == (True, 4)
        empty = write_category(DB, OUT, "texts", "none")
        assert (empty.changed, empty.chunks, read(empty.path)["chunks"]) == (True, 0, [])


def test_a_run_may_write_while_an_export_reads() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", *map(str, range(40)))
        add(conn, "/b.txt", *map(str, range(40)))

        def write(_: int) -> None:
            conn.execute("UPDATE chunks SET text = text || '!' WHERE document = 1 AND position % 7 = 0")
            conn.execute("DELETE FROM chunks WHERE document = 1 AND position = (SELECT max(position) FROM chunks)")
            # No read that is still open keeps the log from being emptied.
            assert conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

        export(DB, OUT, batch=5, on_rows=write)
    found = lines(OUT / "chunks.ndjson")
    ids = [each["id"] for each in found]
    assert len(ids) == len(set(ids))
    assert set(column(DB, "SELECT id FROM chunks")) <= set(ids)
    assert {each["text"] for each in found if each["document"] == "/b.txt"} == set(map(str, range(40)))


# --- names ------------------------------------------------------------------------------------------

NASTY = st.sampled_from(
    [
        "",
        ".",
        "..",
        "a/b",
        "a_b",
        "A_b",
        "CON",
        "con.txt",
        "nul",
        "x.",
        "x ",
        " x",
        "-rf",
        "~",
        "\0",
        "a\nb",
        "é",
        "e\u0301",
        "x" * 300,
        "ä" * 100,
        "ſ",
        "s",
        "ß",
        "ss",
        "_null",
        "_empty",
        "a-0123abcd",
        "K",
        "\u212a",
        "k",
        "a:b",
        "\u202e",
    ]
)
VALUES = st.one_of(NASTY, st.text(), st.none(), st.integers(), st.binary(max_size=4), st.floats(allow_nan=False))


@given(st.lists(st.tuples(VALUES, VALUES), max_size=30))
@settings(max_examples=300, deadline=None)
def test_names_are_safe_and_never_meet(values: list[tuple[Any, Any]]) -> None:
    names = Names()
    found: dict[Any, tuple[str, ...]] = {}
    for each in values:
        found.setdefault(tuple((type(value).__name__, value) for value in each), names.of(each))
        assert names.of(each) == found[tuple((type(value).__name__, value) for value in each)]
    folded = [tuple(unicodedata.normalize("NFD", part).casefold() for part in parts) for parts in found.values()]
    assert len(set(folded)) == len(found)
    for part in (part for parts in found.values() for part in parts):
        assert part
        assert not set(part) & set('/\\:*?"<>|\0')
        assert part.isprintable()
        assert part[0] not in ". -~"
        assert part[-1] not in ". "
        assert len(part.encode()) <= LONGEST + 34
        assert part.split(".")[0].lower() not in ("con", "prn", "aux", "nul", "com1", "lpt1")
        assert unicodedata.is_normalized("NFC", part)


def test_ordinary_names_stay_what_they_are() -> None:
    names = Names()
    for each in ("physics", "Machine Learning", "C++", "größe", "日本語", "v1.2", "a-b_c (d)", "3"):
        assert names.of([each]) == (each,)
    assert names.of([3]) != ("3",)
    assert names.of(["PHYSICS"])[0].startswith("PHYSICS-")
    assert names.of(["a/b"])[0].startswith("a_b-")
    assert names.of(["a_b"]) == ("a_b",)


# --- when something is wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "parquet"], "parquet needs a folder"),
        (["--by", "domain"], "--by makes many files"),
        (["--by", "domain,nothing", "--out", "out"], "chunks has no column nothing: it has id, text"),
        (["--table", "nothing"], "has no table or view nothing: it has categories, chunks"),
        (["--out", "a file"], "a file is a file: name a folder"),
        (["--out", "a file/x"], "a file"),
        (["--format", "csv", "--vectors"], "CSV has no place for vectors"),
        (["--table", "documents", "--json-column", "x"], "documents has no column x"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], said: str) -> None:
    three_categories().close()
    Path("a file").touch()
    ended = run_fetcher("export", str(DB), *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_the_command_writes_to_stdout_and_says_what_it_did_on_stderr() -> None:
    three_categories().close()
    ended = run_fetcher("export", str(DB))
    assert [json.loads(line)["text"] for line in ended.stdout.splitlines()][:2] == ["one", "two"]
    assert ended.stderr.startswith("Exported 6 rows of chunks, ")
    as_json = run_fetcher("export", str(DB), "--format", "json")
    assert len(json.loads(as_json.stdout)) == 6
    ended = run_fetcher("export", str(DB), "--format", "json", "--out", "out")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith("out: 3 files written, 0 unchanged; 6 rows of chunks, ")


def test_an_empty_database_gives_empty_files() -> None:
    texts().close()
    export(DB, OUT, format="json", by=[])
    export(DB, OUT, format="csv")
    export(DB, OUT, format="parquet")
    assert read(OUT / "chunks.json") == []
    assert (OUT / "chunks.csv").read_text().startswith("id,text,")
    assert pa.parquet.read_table(OUT / "chunks.parquet").num_rows == 0


def test_a_full_disk_leaves_the_old_files_whole() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", "short")
        for format in ("ndjson", "parquet"):
            export(DB, OUT, format=format)
        before = files()
        add(conn, "/b.txt", *(base64.b64encode(os.urandom(600)).decode() for _ in range(400)))
        for format in ("ndjson", "parquet"):
            ended = subprocess.run(
                [sys.executable, "-m", "fetcher", "export", DB, "--out", OUT, "--format", format],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
                timeout=50,
            )
            assert (ended.returncode, ended.stderr.count("\n")) == (6, 1), ended.stderr
            assert f"out/chunks.{format}: the disk is full" in ended.stderr
            assert files() == before


def test_a_full_stdout_is_an_error_and_a_closed_one_is_not() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", *(str(each) * 100 for each in range(3000)))
    command = [sys.executable, "-m", "fetcher", "export", str(DB)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=50)
    assert (ended.returncode, ended.stderr.count("\n")) == (6, 1)
    assert "the output cannot be written: No space left on device" in ended.stderr
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"id"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


ENDLESS = """
import sys, threading
from fetcher import export as package
from fetcher.export import export
def wait(rows, seen=[0]):
    seen[0] += rows
    if seen[0] > 100:
        print("half-way", flush=True)
        threading.Event().wait()
export(sys.argv[1], sys.argv[2], format="json", batch=10, on_rows=wait)
"""


def test_a_kill_leaves_the_old_file_whole_and_the_next_export_clears_what_was_begun() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", "old")
        export(DB, OUT, format="json")
        before = files()
        add(conn, "/b.txt", *map(str, range(1000)))
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS, DB, OUT],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"half-way\n"
            parts = list(OUT.rglob(f".*{ENDING}"))
            assert len(parts) == 1
            # Whoever else exports now lets alone what is being written.
            write_category(DB, OUT, "texts", "other")
            assert parts[0].exists()
            (OUT / "texts/other.json").unlink()
            process.kill()
        assert {name: data for name, data in files().items() if ENDING not in name} == before
        assert parts[0].exists()
        export(DB, OUT, format="json")
        assert sorted(files()) == ["texts/physics.json"]
        assert len(read(OUT / "texts/physics.json")["chunks"]) == 1001


def test_ctrl_c_ends_an_export_that_nobody_reads() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", *(str(each) * 100 for each in range(3000)))
    with subprocess.Popen(
        [sys.executable, "-m", "fetcher", "export", str(DB)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(2 + 8) == 130
        assert process.stderr.read().startswith(b"fetcher: interrupted")


def test_a_stop_ends_an_export_in_the_middle_of_a_long_statement() -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000)"
    made(DB, f"CREATE VIEW endless AS {numbers} SELECT i FROM n ORDER BY -i").close()
    stop = Stop()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    with pytest.raises(Interrupted):
        export(DB, OUT, table="endless", stop=stop)
    timer.join()
    assert files() == {}


def test_a_database_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(StoreError, match="there is no database"):
        export("none.db", OUT)
    made(Path("empty.db"), "CREATE TABLE sources (name TEXT)").close()
    with pytest.raises(StoreError, match="neither chunks nor items"):
        export("empty.db", OUT)


def test_a_stop_ends_an_export_between_two_pages() -> None:
    with closing(texts()) as conn:
        add(conn, "/a.txt", *map(str, range(100)))
    stop, seen = Stop(), list[int]()

    def show(rows: int) -> None:
        seen.append(rows)
        stop.set()

    with pytest.raises(Interrupted):
        export(DB, OUT, batch=10, stop=stop, on_rows=show)
    assert (seen, files()) == ([10], {})
