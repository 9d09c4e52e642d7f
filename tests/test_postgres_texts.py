"""Texts in PostgreSQL: read, embedded, found, checked and retried as in SQLite, and safe from whoever dies."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fetcher import StoreError, failures, retry, verify
from fetcher.export import export
from fetcher.place import is_url, place_of
from fetcher.search import Search
from fetcher.simulator import Simulator, World
from fetcher.stores.opening import connections
from fetcher.stores.postgres import texts as server_texts
from fetcher.stores.texts import open_texts
from fetcher.stores.texts_overview import texts_overview
from fetcher.texts.chunk import Chunk
from fetcher.texts.ingest import embed, ingest
from tests.helpers import _environment, change, column, eventually, mirror, one, query, run_fetcher
from tests.postgres import PostgresServer, Way, postgres_server
from tests.texts import Embedder, assert_totals, assert_whole, embed_here, texts_dump, vector, write_book

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]

NUMBER = {"embedder": embed_here}


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    with postgres_server(durable=True) as server:
        yield server


def run(paths: Any, db: Any, **more: Any) -> Any:
    return ingest(paths, db, **{"embedder": embed_here, "chunk_size": 200, "chunk_overlap": 0, **more})


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps({'text': line})}\n" for line in lines))
    return path


# --- as in SQLite ----------------------------------------------------------------------------------------


def test_it_holds_what_sqlite_holds_also_after_changes(url: str, tmp_path: Path) -> None:
    books, file = tmp_path / "books", tmp_path / "t.db"
    for name in ("whales", "bread", "stars"):
        write_book(books, name)

    def run_both(**more: Any) -> None:
        for db in (url, file):
            folder = tmp_path / ("ours" if db is url else "theirs")
            assert run([books], db, aggregate=folder, **more).exit_code == 0
        assert texts_dump(url) == texts_dump(file)
        assert_whole(url)
        assert verify(url).complete
        ours, theirs = (
            {path.relative_to(out): path.read_bytes() for path in out.rglob("*.json")}
            for out in (tmp_path / "ours", tmp_path / "theirs")
        )
        assert ours == theirs
        assert ours

    run_both()
    before = query(url, "SELECT max(number) FROM chunks")
    run_both()
    assert query(url, "SELECT max(number) FROM chunks") == before, "what has not changed is not written again"
    write_book(books, "bread", chapters=2)
    (books / "stars.md").rename(tmp_path / "stars.md")
    run_both()
    write_book(books, "bread", chapters=5)
    (tmp_path / "stars.md").rename(books / "stars.md")
    run_both(domain="other")
    (books / "whales.md").unlink()
    run_both(domain="other")


def test_items_of_a_mirror_are_texts_too(url: str, tmp_path: Path, simulate: Simulate) -> None:
    simulator, file = simulate(World(seed=5, items=60)), tmp_path / "m.db"
    for db in (url, file):
        mirror(db, simulator)
        assert embed(db, items=True, **NUMBER).documents == 60
        assert embed(db, items=True, **NUMBER).documents == 0
    ours, theirs = texts_dump(url), texts_dump(file)
    for each in (ours, theirs):
        # When an item was fetched is no business of its texts.
        each["documents"] = [(name, item, *rest) for name, item, _, *rest in each["documents"]]
    assert ours == theirs
    assert verify(url).complete
    assert one(url, "SELECT work + parked FROM sources") == 0
    word = column(file, "SELECT tag FROM tags WHERE tag NOT LIKE '% %' ORDER BY 1 LIMIT 1")[0]
    hits, others = ({hit.key for hit in Search(db, embed_here).find(word, 100, mode="text")} for db in (url, file))
    assert hits == others
    assert hits


def test_chunks_are_found_as_in_sqlite(url: str, tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    for name in ("whales", "bread"):
        write_book(tmp_path / "books", name)
    for db in (url, file):
        run([tmp_path / "books"], db)
    ours, theirs = Search(url, embed_here), Search(file, embed_here)
    for words in ("whales", "bread 1", '"whales 2 3"', "source_chapter : 2", "bre*", "bread NOT 1", "nothing"):
        found, others = ({hit.key: hit for hit in each.find(words, 100, mode="text")} for each in (ours, theirs))
        assert found.keys() == others.keys(), words
        for key, hit in found.items():
            assert (hit.chunk, hit.document, hit.snippets.keys()) == (
                others[key].chunk,
                others[key].document,
                others[key].snippets.keys(),
            )
    for words in ("whales", "anything else"):
        found_, others_ = (
            [(hit.key, hit.snippets) for hit in each.find(words, 10, mode="vector")] for each in (ours, theirs)
        )
        assert found_ == others_, words
        hybrid = [hit.key for hit in ours.find(words, 10)]
        assert len(set(hybrid)) == 10
        assert ours.find(words, 3)[0].rank == theirs.find(words, 3)[0].rank
    (tmp_path / "books" / "bread.md").unlink()
    run([tmp_path / "books"], url)
    assert not [hit for hit in ours.find("bread", 100) if "bread" in (hit.document or "")]


def test_chunks_are_exported_with_their_vectors(url: str, tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    write_book(tmp_path / "books", "whales")
    for db in (url, file):
        run([tmp_path / "books"], db)
        out = tmp_path / ("ours" if is_url(db) else "theirs")
        export(db, out, format="ndjson", vectors=True, batch=5)
        export(db, out, format="json", batch=5)
        export(db, out, format="parquet", vectors=True)
        export(db, out, format="csv", table="chunks", by=["source_chapter"])
    ours, theirs = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}
        for out in (tmp_path / "ours", tmp_path / "theirs")
    )
    assert ours == theirs
    assert len(ours) == 6


def test_commands_say_what_they_say_in_sqlite(url: str, tmp_path: Path) -> None:
    file = str(tmp_path / "t.db")
    write_lines(tmp_path / "in" / "a.ndjson", *(f"text {number}" for number in range(30)))
    (tmp_path / "in" / "b.json").write_text("{")
    options = ("--embedder", "tests.texts:embed_here")
    told: dict[str, list[str]] = {}
    for db in (url, file):
        done = run_fetcher("ingest", str(tmp_path / "in"), db, *options)
        assert done.returncode == 3, done.stderr
        shown = str(place_of(db))
        lines = [done.stdout.splitlines()[0]]
        for command in (
            ["status"],
            ["verify"],
            ["failures"],
            ["retry", *options],
            ["search", "--limit", "2"],
            ["embed", *options],
        ):
            extra = ["text 7"] if command[0] == "search" else []
            done = run_fetcher(command[0], db, *extra, *command[1:])
            assert "secret" not in done.stdout + done.stderr
            assert done.returncode in (0, 3), done.stderr
            lines += [line.replace(shown, "DB") for line in done.stdout.splitlines()]
        told[db] = [
            line
            for line in lines
            if not any(
                each in line for each in ("Runs:", " stored, ", "/s", "MB", "kB", "Embedded", "embed  ", "write  ")
            )
        ]
    assert [line.split("  ")[0] for line in told[url]] == [line.split("  ")[0] for line in told[file]]
    assert any("1 failed for good" in line for line in told[url])


def test_what_fails_fails_alone_and_is_retried(url: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.ndjson", *(f"text {number}" for number in range(20)))
    broken = True

    def picky(texts: Sequence[str]) -> list[Any]:
        return [[1.0] * (3 if broken and text == "text 7" else 8) for text in texts]

    assert run([tmp_path / "a.ndjson"], url, embedder=picky, max_retries=0).exit_code == 3
    (failed,) = failures(url)
    assert (failed.stage, failed.outcome, failed.due_at) == ("embed", "malformed", None)
    assert failed.where is not None
    assert failed.where.endswith("a.ndjson, position 7")
    overview = texts_overview(place_of(url))
    assert overview is not None
    assert (overview.parked, overview.vectors, overview.dimension, overview.chunks) == (1, 19, 8, 20)
    assert [each.parked for each in verify(url).texts.unfinished] == [True]  # type: ignore[union-attr]
    broken = False
    assert retry(url, embedder=picky).exit_code == 0  # type: ignore[union-attr]
    assert verify(url).complete
    assert_totals(url)


def test_two_chunks_of_one_id_fail_alone(url: str, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)

    def parser(path: Path) -> list[Chunk]:
        return [Chunk(f"{path.stem}\0{number}\ud800", id="same" if path.stem == "b" else None) for number in range(2)]

    assert run([tmp_path], url, parser=parser).exit_code == 3
    assert column(url, "SELECT name FROM documents WHERE version IS NOT NULL ORDER BY 1") == [
        str(tmp_path / f"{name}.txt") for name in "ac"
    ]
    assert column(url, "SELECT text FROM chunks ORDER BY 1") == ["a0�", "a1�", "c0�", "c1�"]
    assert_totals(url)


def test_very_long_texts_and_words_are_kept(url: str, tmp_path: Path) -> None:
    texts = ["x" * 60_000, "word " * 40_000, " ".join(f"w{number}" for number in range(150_000)), "é" * 3_000]

    def parser(_: Path) -> list[Chunk]:
        return [Chunk(text) for text in texts]

    (tmp_path / "a.txt").write_text("a")
    assert run([tmp_path / "a.txt"], url, parser=parser).exit_code == 0
    assert column(url, "SELECT text FROM chunks ORDER BY position") == [
        text.strip() if text.isspace() else text for text in texts
    ]
    assert len(Search(url, embed_here).find("word", mode="text")) == 1


# --- pgvector ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 384, 1536, 3000])
def test_many_vectors_get_an_index_that_is_used(
    size: int, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_texts, "APPROXIMATE_FROM", 100)
    chance = random.Random(1)

    def wide(texts: Sequence[str]) -> list[list[float]]:
        return [[chance.random() - 0.5 for _ in range(size)] for _ in texts]

    run(write_lines(tmp_path / "a.ndjson", *(f"text {number}" for number in range(120))), url, embedder=wide)
    assert one(url, "SELECT to_regclass('vectors_nearest') IS NOT NULL")
    stored = one(
        url, "SELECT attstorage::text FROM pg_attribute WHERE attrelid = 'vectors'::regclass AND attname = 'vector'"
    )
    assert stored == ("p" if size <= 2000 else "e")
    with psycopg.connect(url) as conn:
        conn.execute("SET enable_seqscan = off")
        column_ = "vector" if size <= 2000 else f"vector::halfvec({size})"
        plan = conn.execute(
            f"EXPLAIN SELECT hash FROM vectors ORDER BY {column_} <=> (SELECT {column_} FROM vectors LIMIT 1) LIMIT 5"
        ).fetchall()
    assert any("vectors_nearest" in line for (line,) in plan)
    found = Search(url, wide).find("anything", 20, mode="vector")
    assert len({hit.key for hit in found}) == 20
    write_lines(tmp_path / "b.ndjson", *(f"more {number}" for number in range(100)))
    run([tmp_path / "a.ndjson", tmp_path / "b.ndjson"], url, embedder=wide)
    assert one(url, "SELECT count(*) FROM vectors") == 220
    assert one(url, "SELECT to_regclass('vectors_nearest') IS NOT NULL")


def test_without_pgvector_it_is_said_what_to_do(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.url()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("DROP ROLE IF EXISTS plain")
        conn.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        conn.execute("GRANT ALL ON SCHEMA public TO plain")
    theirs = f"postgresql://plain:plain@127.0.0.1:{postgres.port}/{url.rpartition('/')[2]}"
    with pytest.raises(StoreError, match=r"has no pgvector .*CREATE EXTENSION vector") as told:
        run(write_lines(tmp_path / "a.ndjson", "one"), theirs)
    assert "\n" not in str(told.value)
    assert not one(url, "SELECT to_regclass('chunks') IS NOT NULL")


def test_in_a_schema_of_ones_own(postgres: PostgresServer, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.ndjson", "one", "two")
    for _ in range(2):
        url = postgres.schema()
        run(file, url)
        assert verify(url).complete
        assert len(Search(url, embed_here).find("one", mode="vector")) == 2


# --- whoever dies ------------------------------------------------------------------------------------------


def test_only_one_run_at_a_time(url: str, tmp_path: Path) -> None:
    db, _ = open_texts(place_of(url), clock=time.time)
    try:
        with pytest.raises(StoreError, match="in use by another run"):
            run(write_lines(tmp_path / "a.ndjson", "one"), url)
        beside = db.beside()
        change(url, "DELETE FROM engines")
        with pytest.raises(StoreError, match="another run has had it meanwhile"), beside.transaction():
            pass
    finally:
        db.close()


@pytest.mark.timeout(200)
def test_a_run_killed_again_and_again_ends_in_what_an_undisturbed_one_makes(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    books = tmp_path / "books"
    for number in range(3):
        write_book(books, f"book{number}", chapters=8, paragraphs=12)
    options = ["--chunk-size", "200", "--chunk-overlap", "0", "--embedder", "tests.texts:embed_here", "--readers", "1"]
    killed, whole = postgres.url(), tmp_path / "whole.db"
    environment = {**_environment(), "EMBED_BATCH_SIZE": "3", "DB_BATCH_SIZE": "20"}
    command = [sys.executable, "-m", "fetcher", "ingest", str(books), killed, *options]
    chance = random.Random(3)
    for _ in range(3):
        before = one(killed, "SELECT count(*) FROM vectors") if _made(killed) else 0
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            wanted = before + chance.randint(0, 60)
            eventually(
                lambda wanted=wanted, process=process: (
                    process.poll() is not None
                    or (_made(killed) and one(killed, "SELECT count(*) FROM vectors") > wanted)
                ),
                40,
            )
            process.send_signal(signal.SIGKILL)
        eventually(lambda: one(killed, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0)
        assert_totals(killed)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    run([books], whole)
    ours, theirs = texts_dump(killed), texts_dump(whole)
    assert ours == theirs
    assert_whole(killed)


def _made(url: str) -> bool:
    return bool(one(url, "SELECT to_regclass('vectors') IS NOT NULL"))


@pytest.mark.timeout(120)
def test_a_server_that_is_killed_and_started_again_costs_nothing(own_server: PostgresServer, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.ndjson", *(f"text {number}" for number in range(600)))
    url, whole = own_server.url(), tmp_path / "whole.db"
    embedder = Embedder(lambda _: time.sleep(0.01))
    done: list[Any] = []
    thread = threading.Thread(
        target=lambda: done.append(
            run(file, url, embedder=embedder, embed_batch_size=3, db_batch_size=10, max_embed_concurrency=2)
        )
    )
    thread.start()
    for number in range(3):
        moment = 80 * (number + 1)
        eventually(lambda moment=moment: len(embedder.texts) >= moment or not thread.is_alive(), 30)
        own_server.kill()
        own_server.start()
    thread.join(60)
    assert [each.exit_code for each in done] == [0]
    run(file, whole, embedder=Embedder())
    ours, theirs = texts_dump(url), texts_dump(whole)
    assert ours == theirs
    assert_whole(url)


def test_a_reader_is_lent_once_a_server_is_back(own_server: PostgresServer) -> None:
    """Whoever has no connection yet waits for a server that is being started, as those do that lost theirs."""
    url = place_of(own_server.url())
    readers = connections(url, stopped=lambda: False, warn=lambda _: None)
    own_server.kill()
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.append(readers.read(lambda sql: int(sql.execute("SELECT 1").fetchone()[0])))
    )
    thread.start()
    own_server.start()
    thread.join(30)
    readers.close()
    assert found == [1]


@pytest.mark.parametrize("how", ["before", "after", "at once"])
@pytest.mark.timeout(120)
def test_the_outcome_of_a_commit_that_nobody_answered_is_found_out(
    how: str, postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every fifth COMMIT is cut; the run goes on as if nothing had been, and writes nothing twice."""
    file, whole = write_lines(tmp_path / "a.ndjson", *(f"text {n}" for n in range(200))), tmp_path / "whole.db"
    url = postgres.url()
    commits = 0
    lock = threading.Lock()

    def cut(data: bytes, _: int) -> str | None:
        nonlocal commits
        with lock:
            is_commit = b"COMMIT\0" in data
            commits += is_commit
            return how if is_commit and commits > 3 and commits % 5 == 0 else None

    with Way(postgres.port, cut) as way:
        done = run(file, way.through(url), embed_batch_size=4, db_batch_size=10)
        assert way.cuts >= 2
    assert done.exit_code == 0
    assert query(url, "SELECT stage, done FROM stages WHERE stage != 'aggregate' ORDER BY 1") == [
        ("embed", 200),
        ("read", 1),
    ]
    run(file, whole)
    assert texts_dump(url) == texts_dump(whole)
    assert_whole(url)
    assert "a-secret" not in caplog.text


def test_vectors_come_back_as_they_went_in(url: str, tmp_path: Path) -> None:
    run(write_lines(tmp_path / "a.ndjson", "one"), url)
    (numbers,) = column(url, "SELECT vector::text FROM vectors")
    assert json.loads(numbers) == pytest.approx(vector("one"), abs=1e-7)


def test_the_doctor_looks_at_texts_and_mirrors_there(url: str, tmp_path: Path, simulate: Simulate) -> None:
    def told(*more: str) -> str:
        done = run_fetcher("doctor", url, "--offline", *more)
        assert "secret" not in done.stdout + done.stderr
        assert (done.returncode, "could not be examined" in done.stdout) == (0, False), done.stdout
        return done.stdout

    assert "yet" in told()
    simulator = simulate(World(seed=5, items=20))
    mirror(url, simulator)
    assert "has its search: search" in told()
    assert "20 items listed, nothing left to fetch" in told()
    embed(url, items=True, **NUMBER)
    said = told()
    assert "has its search: search, chunks" in said
    assert "20 documents" in said
