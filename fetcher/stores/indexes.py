"""Indexes for lookups by value: dropped for a large load, made when all is fetched, kept live in between.

An index on texts that is kept live makes each row of a large load dearer than the one before; made afterwards, by
sorting, it costs the same for each (docs/decisions/0005-search-and-lookups.md).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fetcher.errors import StoreError
from fetcher.model import Table
from fetcher.stores.database import Database
from fetcher.stores.file import interruptible
from fetcher.stores.schema import quoted

_SORT_KIB = 4_000
"""What sorting may take of memory; more was slower."""

_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY}

_LOOKED_UP = """
SELECT ii.name FROM pragma_index_list(?) AS il, pragma_index_info(il.name) AS ii
 WHERE il.origin = 'c' AND NOT il.partial AND ii.seqno = 0"""


class Indexes:
    """What a source's tables are looked up by: the index `TABLE_COLUMN` for each."""

    def __init__(self, tables: Sequence[Table], db: Database) -> None:
        self._wanted = {f"{table.name}_{column}": (table.name, column) for table in tables for column in table.index}
        self._db = db
        self._conn = db.conn

    def present(self) -> list[str]:
        """Ours that are there."""
        return [name for name in self._wanted if self._conn.execute(_NAMED, [name]).fetchone()]

    def missing(self) -> list[str]:
        """Those to be made; where the owner of the database has made one that serves as well, it is not."""
        return [
            name
            for name, (table, column) in self._wanted.items()
            if (column,) not in self._conn.execute(_LOOKED_UP, [table]).fetchall()
        ]

    def drop(self) -> None:
        """Drop ours; one that the owner of the database has made stays."""
        names = self.present()
        if names:
            with self._db.transaction():
                for name in names:
                    self._conn.execute(f"DROP INDEX {quoted(name)}")

    def make(self) -> None:
        """Make those that are missing, in little memory; where there is no room for one, say so and do without.

        Raises Stopped when it is to stop: an index is there as a whole or not at all.
        """
        conn, db = self._conn, self._db
        for name in self.missing():
            table, column = self._wanted[name]
            try:
                with _sorting_on_disk(conn), db.transaction(), interruptible(conn, db.stopped):
                    conn.execute(f"CREATE INDEX {quoted(name)} ON {quoted(table)} ({quoted(column)})")
            except StoreError as error:
                if _code(error) not in _NO_ROOM:
                    raise
                db.warn(
                    f"no index of {table}.{column} yet ({error.__cause__}): all is stored, the next complete run tries"
                    " again; SQLITE_TMPDIR names a folder with room for sorting"
                )


_NAMED = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?"


def _code(error: StoreError) -> int | None:
    """The primary code of the SQLite error behind one of ours."""
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


@contextmanager
def _sorting_on_disk(conn: sqlite3.Connection) -> Iterator[None]:
    """Temporary data goes to files for now; and what is sorted at once is as much as the cache may hold."""
    settings = {"temp_store": "FILE", "cache_size": -_SORT_KIB}
    before = {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in settings}
    for name, value in settings.items():
        conn.execute(f"PRAGMA {name} = {value}")
    try:
        yield
    finally:
        for name, value in before.items():
            conn.execute(f"PRAGMA {name} = {value}")
