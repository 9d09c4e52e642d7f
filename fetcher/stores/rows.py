"""All rows of a table by its key, out of one database and into another: what a copy asks of a store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from fetcher.model import Row
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.database import Database
from fetcher.stores.file import interruptible
from fetcher.stores.marker import COPIED, COPYING, COPYING_ID
from fetcher.stores.migrations import APPLICATION_ID
from fetcher.stores.schema import marks, quoted
from fetcher.stores.sql import Session, Sql

CHUNK = 500
"""So many rows are read at a time."""

Change = tuple[str, str]
"""What became of a value that cannot be held: its column, and why."""


@dataclass(frozen=True, slots=True)
class Relation:
    """The rows of a table, or those for which `where` holds, in the order of `key`: numbers first, texts by bytes."""

    table: str
    key: tuple[str, ...]
    where: str = "true"


class Reader(Protocol):
    """A database as of one moment."""

    @property
    def sql(self) -> Sql:
        """Its connection."""
        ...

    def tables(self) -> list[str]:
        """All tables, but for the database's own."""
        ...

    def columns(self, table: str) -> list[str]:
        """The columns of a table that are written, not computed; none where there is no such table."""
        ...

    def rows(self, relation: Relation, columns: Sequence[str], after: Row | None = None) -> Iterator[Sequence[Row]]:
        """These columns of the rows whose key comes after `after`, some at a time; the key is among the columns."""
        ...


class Writer(Protocol):
    """A database that is being made."""

    @property
    def db(self) -> Session:
        """The open database."""
        ...

    def tables(self) -> list[str]:
        """All tables, but for the database's own."""
        ...

    def columns(self, table: str) -> list[str]:
        """The columns of a table that are written, not computed; none where there is no such table."""
        ...

    def write(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Add rows, within a transaction. Raises what the session calls refused."""
        ...

    def held(self, table: str, columns: Sequence[str], row: Row, *, hard: bool) -> tuple[Row, list[Change]]:
        """The row as this database can hold it, and what had to be changed; with `hard` whatever else may help."""
        ...

    def remove_after(self, relation: Relation, after: Row | None) -> None:
        """Remove the rows behind this key, or all, within a transaction. Raises Stopped."""
        ...

    def empty_search(self) -> None:
        """Have the search of items filled anew when the mirror is opened next, within a transaction."""
        ...

    def fill_text_search(self) -> None:
        """Make what chunks are searched by of those that are there, in a transaction of its own. Raises Stopped."""
        ...

    def finish(self, tables: Sequence[str]) -> None:
        """See to what the database counts and knows of its rows."""
        ...

    def unmark(self) -> None:
        """It is complete: say so, within a transaction."""
        ...


class SqliteRows:
    """The rows of an SQLite file."""

    def __init__(self, sql: SqliteSql) -> None:
        self.sql = sql
        self._conn = sql.conn

    def tables(self) -> list[str]:
        """All tables, but for SQLite's own, and those within which a full-text search keeps itself."""
        rows = self._conn.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
            r" AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE '\_sqlite%' ESCAPE '\' ORDER BY 1"
        )
        return [name for (name,) in rows]

    def columns(self, table: str) -> list[str]:
        """The columns of a table that are written, not computed; none where there is no such table."""
        rows = self._conn.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", [table])
        return [name for (name,) in rows]

    def rows(self, relation: Relation, columns: Sequence[str], after: Row | None = None) -> Iterator[Sequence[Row]]:
        """These columns of the rows whose key comes after `after`, some at a time.

        A text whose bytes are no UTF-8, which only other programs write, comes with lone surrogates in their place.
        """
        places = [columns.index(name) for name in relation.key]
        try:
            for rows in self._rows(relation, columns, after):
                yield rows
                after = tuple(rows[-1][place] for place in places)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            # Python's own way to make texts is the faster one, and knows no other.
            self._conn.text_factory = lambda text: text.decode(errors="surrogateescape")
            yield from self._rows(relation, columns, after)

    def _rows(self, relation: Relation, columns: Sequence[str], after: Row | None) -> Iterator[Sequence[Row]]:
        behind, values = _behind(relation, after)
        found = self._conn.execute(
            f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(relation.table)}"
            f" WHERE {behind} AND {relation.where} ORDER BY {', '.join(map(quoted, relation.key))}",
            values,
        )
        while rows := found.fetchmany(CHUNK):
            yield rows


class SqliteWriter(SqliteRows):
    """An SQLite file that is being made."""

    def __init__(self, db: Database) -> None:
        super().__init__(db.sql)
        self.db = db

    def write(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Add rows, within a transaction."""
        for place in self._reals(table, columns):
            if any(row[place] != row[place] for row in rows):
                raise sqlite3.DataError("SQLite makes null of a number that is none")
        begin = f"INSERT INTO {quoted(table)} ({', '.join(map(quoted, columns))}) VALUES"
        self._conn.execute("SAVEPOINT written")
        try:
            self._conn.executemany(f"{begin} ({marks(len(columns))})", rows)
        except UnicodeEncodeError:
            self._conn.execute("ROLLBACK TO written")
            for row in rows:
                self._conn.execute(f"{begin} ({', '.join(map(_mark, row))})", list(map(_bound, row)))
        finally:
            # Some errors have ended the transaction by then.
            with suppress(sqlite3.OperationalError):
                self._conn.execute("RELEASE written")

    def _reals(self, table: str, columns: Sequence[str]) -> list[int]:
        rows = self._conn.execute("SELECT name FROM pragma_table_xinfo(?) WHERE type = 'REAL'", [table])
        reals = {name for (name,) in rows}
        return [place for place, name in enumerate(columns) if name in reals]

    def held(self, table: str, columns: Sequence[str], row: Row, *, hard: bool) -> tuple[Row, list[Change]]:  # noqa: ARG002 - the contract
        """The row as SQLite can hold it: with null for a number that is none (NaN)."""
        flawed = [place for place, value in enumerate(row) if value != value]
        if not flawed:
            return row, []
        return (
            tuple(None if place in flawed else value for place, value in enumerate(row)),
            [(columns[place], "a number that is none (NaN)") for place in flawed],
        )

    def remove_after(self, relation: Relation, after: Row | None) -> None:
        """Remove the rows behind this key, or all, within a transaction. Raises Stopped."""
        behind, values = _behind(relation, after)
        with interruptible(self._conn, self.db.stopped):
            self._conn.execute(f"DELETE FROM {quoted(relation.table)} WHERE {behind} AND {relation.where}", values)

    def empty_search(self) -> None:
        """Have the search of items filled anew, as that of a mirror which is older than the search is."""
        if self.sql.has("search"):
            self._conn.execute("INSERT INTO search (search) VALUES ('delete-all')")
            self._conn.execute("UPDATE sources SET search_filled_to = ? WHERE fetched > 0", [-(2**63)])

    def fill_text_search(self) -> None:
        """Make the full-text index of the chunks, if there are any."""
        if self.sql.has("chunks_search"):
            with self.db.transaction(), interruptible(self._conn, self.db.stopped):
                self._conn.execute("INSERT INTO chunks_search (chunks_search) VALUES ('rebuild')")

    def finish(self, tables: Sequence[str]) -> None:
        """Nothing: SQLite counts by looking."""

    def unmark(self) -> None:
        """It is complete: from here on everybody may use it."""
        unmark(self.sql)
        (application,) = self._conn.execute("PRAGMA application_id").fetchone()
        if application == COPYING_ID:
            self._conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def unmark(sql: Sql) -> None:
    """Name the table anew that says of what a database is a copy."""
    sql.execute(f"CREATE TABLE {COPIED} AS SELECT * FROM {COPYING}")
    sql.execute(f"DROP TABLE {COPYING}")


def _behind(relation: Relation, after: Row | None) -> tuple[str, list[Any]]:
    """The condition that a key comes after `after`."""
    if after is None:
        return "true", []
    names = ", ".join(map(quoted, relation.key))
    return f"({names}) > ({', '.join(map(_mark, after))})", list(map(_bound, after))


def _mark(value: Any) -> str:
    return "CAST(? AS TEXT)" if isinstance(value, str) and not _encodes(value) else "?"


def _bound(value: Any) -> Any:
    return value if not isinstance(value, str) or _encodes(value) else value.encode(errors="surrogateescape")


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
