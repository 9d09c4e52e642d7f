"""How a database is, as far as it can be told within seconds and without writing; `verify` reads all of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fetcher.errors import StoreError
from fetcher.model import Table
from fetcher.place import Place, PostgresUrl
from fetcher.stores import migrations
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.file import connect_readonly, explained, is_made
from fetcher.stores.overview import Overview, overview
from fetcher.stores.schema import make_table, quoted
from fetcher.stores.texts import SCHEMA
from fetcher.stores.texts_overview import TextsOverview, texts_overview
from fetcher.stores.verify import Uncovered, uncovered

CHECK_SECONDS = 20.0
"""After so long SQLite's own check of the file is broken off: on a slow disk it may take an hour."""


@dataclass(frozen=True, slots=True)
class Health:
    """What `examine` found.

    `behind` are steps of the schema that the database has not been through, `ahead` those that this program does not
    know. `lacking` are tables and columns that are to be there, `unindexed` the statements that make its missing
    indexes; `search` names its tables for full-text search. `overview` is None where nothing is mirrored, `texts` where
    there are none, both where another schema forbids it.
    `wrong` is what SQLite's check complains of, `checked` whether it came to its end. `learned` is JSON text.
    """

    overview: Overview | None
    texts: TextsOverview | None
    behind: tuple[str, ...]
    ahead: tuple[str, ...]
    lacking: tuple[str, ...]
    unindexed: tuple[str, ...]
    search: tuple[str, ...]
    uncovered: tuple[Uncovered, ...]
    learned: str | None
    wrong: tuple[str, ...]
    checked: bool
    wal_bytes: int


def is_begun(path: Place) -> bool:
    """Whether a database of ours says what it mirrors: a run that was killed at its start left one that does not.

    Raises StoreError.
    """
    if isinstance(path, PostgresUrl):
        # Only now: the client may not be installed.
        from fetcher.stores.postgres import health

        return health.is_begun(path)
    conn = connect_readonly(path)
    try:
        with explained(path):
            return is_made(conn) and conn.execute("SELECT 1 FROM sources").fetchone() is not None
    finally:
        conn.close()


def examine(path: Place, tables: Sequence[Table], *, seconds: float = CHECK_SECONDS) -> Health:
    """Look at a database of ours, also while a run writes it; the check of the file ends after `seconds`.

    Where there are no `tables` nothing is mirrored. Raises StoreError.
    """
    if isinstance(path, PostgresUrl):
        from fetcher.stores.postgres import health

        return health.examine(path, tables)
    conn = connect_readonly(path)
    try:
        with explained(path):
            schema = _Schema(conn)
            behind, ahead = schema.steps()
            lacking, unindexed = schema.missing(tables)
            fits = not (behind or ahead or lacking)
            known = overview(path, tables) if fits and tables else None
            texts = texts_overview(path) if fits else None
            holes = tuple(uncovered(SqliteSql(conn), tables)) if known else ()
            (learned,) = conn.execute("SELECT learned FROM sources").fetchone() if fits else (None,)
            wal = Path(f"{path.resolve()}-wal")
            wal_bytes = wal.stat().st_size if wal.exists() else 0
            wrong, checked = _check(conn, seconds)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None
    finally:
        conn.close()
    return Health(
        overview=known,
        texts=texts,
        behind=behind,
        ahead=ahead,
        lacking=lacking,
        unindexed=unindexed,
        search=schema.search(),
        uncovered=holes,
        learned=learned,
        wrong=wrong,
        checked=checked,
        wal_bytes=wal_bytes,
    )


class _Schema:
    """What a database is made of."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._there = dict(_objects(conn))
        self._columns = set(_columns(conn))
        self._steps = migrations.done(conn)

    def steps(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The steps that it has not been through, and those it has been through that this program does not know."""
        known = migrations.names()
        behind = tuple(name for name in known if name not in self._steps)
        return behind, tuple(name for name in self._steps if name not in known)

    def missing(self, tables: Sequence[Table]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tables and columns, and the statements of indexes, that a new database would have and this one has not."""
        new = sqlite3.connect(":memory:", isolation_level=None)
        try:
            migrations.apply(new)
            for table in tables:
                make_table(new, table, tables[0])
            if "chunks" in self._there:
                for statement in SCHEMA:
                    new.execute(statement)
            lacking = [f"{table}.{column}" for table, column in _columns(new) if (table, column) not in self._columns]
            unindexed = [
                sql
                for name, sql in _objects(new)
                if sql.startswith(("CREATE INDEX", "CREATE UNIQUE INDEX")) and name not in self._there
            ]
        finally:
            new.close()
        return tuple(lacking), tuple(unindexed)

    def search(self) -> tuple[str, ...]:
        """Its tables for full-text search."""
        made = {name: " ".join(sql.upper().split()) for name, sql in self._there.items()}
        return tuple(
            name for name, sql in made.items() if sql.startswith("CREATE VIRTUAL TABLE") and "USING FTS" in sql
        )


def _objects(conn: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """What there is by name, with the statement that made it."""
    yield from conn.execute("SELECT name, coalesce(sql, '') FROM sqlite_master ORDER BY name")


def _columns(conn: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for (table,) in conn.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    ).fetchall():
        for (column,) in conn.execute(f"SELECT name FROM pragma_table_info({quoted(table)})"):
            yield table, column


def _check(conn: sqlite3.Connection, seconds: float) -> tuple[tuple[str, ...], bool]:
    """What SQLite's quick check complains of, and whether it came to its end within `seconds`."""
    late = threading.Event()

    def break_off() -> None:
        late.set()
        conn.interrupt()

    timer = threading.Timer(seconds, break_off)
    timer.daemon = True
    timer.start()
    try:
        found = [" ".join(str(line).split()) for (line,) in conn.execute("PRAGMA quick_check(20)") if line != "ok"]
    except sqlite3.OperationalError:
        if not late.is_set():
            raise
        return (), False
    finally:
        timer.cancel()
        timer.join()
    return tuple(found), not late.is_set()
