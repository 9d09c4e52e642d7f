"""Whatever happens to files and runs: an undisturbed run afterwards ends in what a first one makes."""

from __future__ import annotations

import gc
import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher import Interrupted, StoreError
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.texts_verify import check_texts
from fetcher.texts import reading
from fetcher.texts.chunk import Chunk
from fetcher.texts.ingest import ingest, retry
from tests.fakes import Died, death
from tests.helpers import query
from tests.texts import Embedder, assert_totals, assert_whole

NAMES = ("a.txt", "b.txt", "sub/c.txt", "sub/d.txt")
TEXTS = ("one", "two", "three", "four", "five", "bad", "worse")


def _in_order(path: Path) -> Any:
    return [Chunk(line) for line in path.read_text().splitlines()]


def _sparse(path: Path) -> Any:
    return [Chunk(line, position=3 * number + 1) for number, line in enumerate(path.read_text().splitlines())]


def _named(path: Path) -> Any:
    """Each text is named after itself and the file's content, so that names move; in one file only."""
    count: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        count[line] += 1
        yield Chunk(line, id=f"{path.parent.name}/{path.stem}/{line}/{count[line]}")


PARSERS = (_in_order, _sparse, _named)
for _each in PARSERS:
    _each.__module__ = "__main__"  # What cannot be sent to another process is run here.


@dataclass(frozen=True)
class Run:
    """One run: of which folder, how it reads, what it cannot embed, whether it writes files, and where it dies."""

    root: str = ""
    parser: Callable[..., Any] = _in_order
    domain: str | None = None
    refuses: frozenset[str] = frozenset()
    out: bool = True
    dies_at: int | None = None
    dies_after: bool = False
    full: bool = False


@dataclass(frozen=True)
class Write:
    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Move:
    """To another name, or away where there is none."""

    name: str
    to: str | None


@dataclass(frozen=True)
class Retry:
    """What failed is made due again."""


_run = st.builds(
    Run,
    root=st.sampled_from(["", "", "sub"]),
    parser=st.sampled_from(PARSERS),
    domain=st.sampled_from([None, "d"]),
    refuses=st.sampled_from([frozenset(), frozenset(), frozenset({"bad"}), frozenset({"bad", "worse"})]),
    out=st.booleans(),
    dies_at=st.none() | st.integers(20, 260),
    dies_after=st.booleans(),
    full=st.booleans(),
)
_write = st.builds(Write, st.sampled_from(NAMES), st.lists(st.sampled_from(TEXTS), max_size=8).map(tuple))
_move = st.builds(Move, st.sampled_from(NAMES), st.none() | st.sampled_from(NAMES))
_histories = st.lists(st.one_of(_write, _write, _move, _run, _run, st.just(Retry())), min_size=3, max_size=10)


@dataclass
class World:
    """A folder of files, and the database that they are read into."""

    place: Path
    books: Path = field(init=False)
    db: Path = field(init=False)

    def __post_init__(self) -> None:
        self.books, self.db = self.place / "in", self.place / "t.db"
        (self.books / "sub").mkdir(parents=True)
        (self.books / "a.txt").write_text("one\n")

    def do(self, step: Any) -> None:
        if isinstance(step, Write):
            (self.books / step.name).write_text("".join(f"{text}\n" for text in step.texts))
        elif isinstance(step, Move):
            here = self.books / step.name
            if here.exists():
                here.rename(self.books / step.to if step.to else self.place / "away")
        elif isinstance(step, Retry):
            if query_or(self.db, "SELECT 1 FROM sqlite_master WHERE name = 'stages'"):
                retry(self.db, embedder=Embedder(), **SETTINGS)
        else:
            self.run(step, self.db, self.place / "out")

    def run(self, how: Run, db: Path, out: Path) -> None:
        """A run, and what is true of every one."""
        embedded = {text for (text,) in query_or(db, "SELECT text FROM chunks JOIN vectors USING (hash)")}

        def refuse(texts: Sequence[str]) -> None:
            if how.refuses.intersection(texts):
                raise ValueError("not this one")

        embedder = Embedder(refuse)
        error = (lambda: sqlite3.OperationalError("database or disk is full")) if how.full else Died
        fate = death(how.dies_at, after=how.dies_after, error=error) if how.dies_at else nullcontext()
        try:
            with fate:
                ingest(
                    self.books / how.root,
                    db,
                    parser=how.parser,
                    embedder=embedder,
                    domain=how.domain,
                    aggregate=out if how.out else None,
                    **SETTINGS,
                )
        except (Died, Interrupted, StoreError):
            assert how.dies_at, "it was not disturbed"
        finally:
            gc.collect()  # A dead process holds no statement; here one may be kept by the error.
        assert embedded.isdisjoint(embedder.texts), "a text is embedded twice"
        if not how.refuses:
            assert max(Counter(embedder.texts).values(), default=1) == 1
        if query_or(db, "SELECT 1 FROM sqlite_master WHERE name = 'stages'"):
            assert_totals(db)


SETTINGS: dict[str, Any] = {
    "embed_batch_size": 2,
    "db_batch_size": 3,
    "max_embed_concurrency": 2,
    "max_embed_concurrency_max": 2,
    "max_retries": 1,
    "max_backoff_seconds": 0.001,
}


def query_or(db: Path, sql: str) -> list[Any]:
    """What is in a database that may not be there yet, or not all of it."""
    try:
        return query(db, sql) if db.exists() else []
    except sqlite3.OperationalError:
        return []


def told(db: Path) -> dict[str, Any]:
    """What does not depend on how it came to be."""
    listed = "FROM chunks JOIN documents ON documents.number = document WHERE unlisted_at IS NULL"
    return {
        "documents": query(db, "SELECT name, version, chunks FROM documents WHERE unlisted_at IS NULL ORDER BY name"),
        "chunks": query(
            db,
            "SELECT chunks.id, name, position, text, hash, domain, category, source_book, source_chapter"
            f" {listed} ORDER BY name, position",
        ),
        "vectors": query(db, f"SELECT hash, vector FROM vectors WHERE hash IN (SELECT hash {listed}) ORDER BY hash"),
        "work": query(db, "SELECT stage, key, outcome FROM work"),
        "failures": query(db, "SELECT stage, key, message FROM failures"),
    }


def files(out: Path) -> dict[str, Any]:
    """The files written that have any chunks; their documents stand in the order that they were first seen in."""
    found = {str(path.relative_to(out)): json.loads(path.read_text()) for path in out.rglob("*") if path.is_file()}
    for each in found.values():
        each["chunks"].sort(key=lambda chunk: (chunk["document"], chunk["position"]))
    return {name: each for name, each in found.items() if each["chunks"]}


def assert_searchable(db: Path) -> None:
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("INSERT INTO chunks_search (chunks_search, rank) VALUES ('integrity-check', 1)")
        conn.rollback()
        verdict = check_texts(SqliteSql(conn), lambda _: None)
    assert verdict.complete, verdict


def check(history: Sequence[Any], last: Run) -> None:
    with tempfile.TemporaryDirectory() as place, mock.patch.object(reading, "PIECE_ROWS", 2):
        world = World(Path(place))
        for step in history:
            world.do(step)
        world.run(last, world.db, world.place / "out")
        # What failed is tried again when it is asked for, and not before.
        world.do(Retry())
        world.run(last, world.db, world.place / "out")
        fresh, out = world.place / "fresh.db", world.place / "fresh"
        world.run(last, fresh, out)
        assert told(world.db) == told(fresh)
        assert_whole(fresh)
        assert_searchable(world.db)
        assert files(world.place / "out") == files(out)


@pytest.mark.usefixtures("no_threads_left")
def test_a_text_that_failed_and_is_no_more_is_missed_by_nobody_till_it_comes_back() -> None:
    bad = Write("sub/c.txt", ("bad",))
    gone = [bad, Run(refuses=frozenset({"bad"})), Move("sub/c.txt", None)]
    check(gone, Run())
    check([*gone, Run(), bad], Run())


@pytest.mark.usefixtures("no_threads_left")
@settings(max_examples=7, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_histories, st.builds(Run, parser=st.sampled_from(PARSERS), domain=st.sampled_from([None, "d"])))
def test_any_history_ends_in_what_a_first_run_makes(history: Sequence[Any], last: Run) -> None:
    check(history, last)
