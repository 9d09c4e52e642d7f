"""Where rows to be exported come from, whichever database it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fetcher.export import tables
from fetcher.export.tables import Relation
from fetcher.model import Row
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.schema import marks
from fetcher.stores.sql import Sql


class Rows(Protocol):
    """A database that is read, and what it says of its tables."""

    sql: Sql

    def fetched(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """The few rows of a query."""
        ...

    def stream(self, sql: str, parameters: Sequence[Any]) -> Iterator[Row]:
        """The rows of a query, however many, some at a time."""
        ...

    def moment(self) -> AbstractContextManager[None]:
        """Let all that is read be as of one moment."""
        ...

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """The condition that a column has one of these values, and its parameters."""
        ...

    def in_order(self, column: str) -> str:
        """What to order by for the values of a column to come in one order everywhere."""
        ...

    def chosen(self, table: str | None, json_columns: Sequence[str]) -> Relation:
        """The table or view of that name, or the chunks if there are any, else the mirror's items."""
        ...

    def chunks(self, *, dimension: int = 0) -> Relation:
        """The chunks of all documents that are still there; with a dimension their vectors too."""
        ...

    def typed(self, relation: Relation) -> Relation:
        """The same with the types of all columns known."""
        ...


class FileRows:
    """The rows of an SQLite file; of a text that is no UTF-8, what can be read."""

    def __init__(self, sql: SqliteSql, path: Path) -> None:
        self.sql: Sql = sql
        self._conn = sql.conn
        self._path = path
        self.chosen: Callable[..., Relation] = partial(tables.chosen, sql.conn, path)
        self.chunks: Callable[..., Relation] = tables.chunks
        self.typed: Callable[[Relation], Relation] = partial(tables.typed, sql.conn)

    def fetched(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """The few rows of a query."""
        try:
            return self._conn.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if "decode to UTF-8" not in str(error):
                raise
        with self._tolerant():
            return self._conn.execute(sql, parameters).fetchall()

    def stream(self, sql: str, parameters: Sequence[Any]) -> Iterator[Row]:
        """The rows of a query, however many, some at a time."""
        with self._tolerant():
            yield from self._conn.execute(sql, parameters)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        before = self._conn.text_factory
        self._conn.text_factory = partial(str, encoding="utf-8", errors="replace")
        try:
            yield
        finally:
            self._conn.text_factory = before

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Let all that is read be as of one moment."""
        self._conn.execute("BEGIN")
        try:
            yield
        finally:
            self._conn.execute("COMMIT")

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """The condition that a column has one of these values, and its parameters."""
        return f"{column} IN ({marks(len(values))})", values

    def in_order(self, column: str) -> str:
        """What to order by for the values of a column to come in one order everywhere."""
        return f"typeof({column}), {column} COLLATE BINARY"


def rows_of(sql: Sql, path: Any) -> Rows:
    """The rows of an open database."""
    if isinstance(sql, SqliteSql):
        return FileRows(sql, path)
    from fetcher.export.server import ServerRows

    return ServerRows(sql, path)
