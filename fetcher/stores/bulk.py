"""Many rows and keys by few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import msgspec

from fetcher.model import Key, Row
from fetcher.stores.schema import marks, quoted
from fetcher.stores.sql import Upsert

PARAMETERS = 500
"""About as many values go into one INSERT: more are no faster (docs/benchmarks.md)."""

T = TypeVar("T")

decode = msgspec.json.Decoder().decode
encode = msgspec.json.encode


class SqliteSql:
    """SQLite's `Sql`.

    Rows are asked for as one JSON text, and written many at a time: sqlite3 gives up the GIL for every row that it
    steps to, and beside busy workers each time costs more than the row.
    """

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn
        self.execute = conn.execute
        self.executemany = conn.executemany

    def insert(self, into: Upsert, rows: Sequence[Row]) -> int:
        """Write many rows; returns how many were written."""
        begin, each, end = _insert(into)
        written = 0
        for some in parts(rows, PARAMETERS // len(into.columns)):
            statement = f"{begin}{', '.join([each] * len(some))}{end}"
            written += self.execute(statement, list(chain.from_iterable(some))).rowcount
        return written

    def for_keys(self, statement: str, keys: Sequence[Any], *values: Any) -> int:
        """Execute a statement that ends in IN for many keys; returns how many rows it changed."""
        return for_keys(self.conn, statement, keys, *values)

    def rows_for_keys(self, statement: str, keys: Sequence[Any], *values: Any, then: str = "") -> Iterator[Any]:
        """What a statement gives that ends in IN, but for `then`, for many keys."""
        for some in parts(keys, PARAMETERS):
            yield from self.execute(f"{statement}({marks(len(some))}) {then}", [*values, *some])

    def select(self, *columns: str) -> str:
        """The beginning of a statement for `array`: SELECT with these columns."""
        each = columns[0] if len(columns) == 1 else f"json_array({', '.join(columns)})"
        return f"SELECT json_group_array({each})"

    def array(self, statement: str, parameters: Any = ()) -> list[Any]:
        """What `select` gives in a go."""
        return list(array(self.conn, statement, parameters))

    def array_for_keys(self, statement: str, keys: Sequence[Any]) -> list[Any]:
        """What `select` gives, of a statement that ends in IN, for many keys."""
        return array_for_keys(self.conn, statement, keys)

    def any(self, value: Key) -> Key:
        """The value: a column of type ANY takes it as it is."""
        return value

    def any_sql(self, expression: str) -> str:
        """The expression."""
        return expression

    def key_text(self, expression: str) -> str:
        """The expression."""
        return expression

    def listed(self, values: Sequence[str]) -> tuple[str, str]:
        """What stands for a table of these values, in its column `value`, and the parameter that it takes."""
        return "json_each(?)", encode(values).decode()

    def condition(self, of_source: str) -> str:
        """The condition: sources speak SQLite's language."""
        return of_source

    def join_coverage(self) -> str:
        """What joins `coverage` as `covered`."""
        # CROSS keeps the order: from the few rows to the stretches that hold them.
        return "CROSS JOIN coverage AS covered"

    def by_index(self, name: str) -> str:
        """What has SQLite read a table by this index."""
        return f"INDEXED BY {name}"

    def has(self, table: str, column: str | None = None) -> bool:
        """Whether there is a table or view, or a column of it."""
        found = (
            self.execute("SELECT 1 FROM sqlite_master WHERE name = ? AND type IN ('table', 'view')", [table])
            if column is None
            else self.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", [table, column])
        )
        return found.fetchone() is not None

    def bytes(self) -> int:
        """How large the file is."""
        (pages,), (size,) = (self.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
        return int(pages) * int(size)

    def damage(self) -> list[str]:
        """What SQLite's check of the file complains of."""
        return [f"SQLite: {line}" for (line,) in self.execute("PRAGMA quick_check(20)") if line != "ok"]


@lru_cache(64)
def _insert(into: Upsert) -> tuple[str, str, str]:
    """What an INSERT begins with, has for each row, and ends in."""
    end = ""
    if into.changes is not None:
        what = f"UPDATE SET {into.changes}" if into.changes else "NOTHING"
        end = f" ON CONFLICT ({', '.join(map(quoted, into.key))}) DO {what}"
    begin = f"INSERT{' OR REPLACE' if into.changes is None else ''} INTO {quoted(into.table)}"
    return f"{begin} ({', '.join(map(quoted, into.columns))}) VALUES ", f"({marks(len(into.columns))})", end


def for_keys(conn: sqlite3.Connection, statement: str, keys: Sequence[Key], *values: Any) -> int:
    """Execute a statement that ends in IN for many keys; returns how many rows it changed."""
    changed = 0
    for some in parts(keys, PARAMETERS):
        changed += conn.execute(f"{statement}({marks(len(some))})", [*values, *some]).rowcount
    return changed


def array_for_keys(conn: sqlite3.Connection, statement: str, keys: Sequence[Key], *values: Any) -> list[Any]:
    """What a SELECT of a JSON array that ends in IN gives for many keys."""
    found: list[Any] = []
    for some in parts(keys, PARAMETERS):
        found += array(conn, f"{statement}({marks(len(some))})", [*values, *some])
    return found


def array(conn: sqlite3.Connection, statement: str, parameters: Any) -> Any:
    """The JSON array that a SELECT makes."""
    return decode(conn.execute(statement, parameters).fetchone()[0])


def parts(things: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Cut into parts of `most`, and what is left into powers of two.

    A statement is kept prepared for each number of things: for every number there can be, that would be megabytes.
    """
    start, size = 0, max(1, most)
    while start < len(things):
        left = len(things) - start
        if left < size:
            size = 1 << (left.bit_length() - 1)
        yield things[start : start + size]
        start += size
