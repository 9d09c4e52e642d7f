"""All rows of a table by its key, out of a PostgreSQL database and into another."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import psycopg

from fetcher.model import Row
from fetcher.stores.marker import COPYING
from fetcher.stores.postgres.connection import PostgresSql
from fetcher.stores.postgres.database import Database
from fetcher.stores.rows import CHUNK, Change, Relation, unmark
from fetcher.stores.schema import quoted

HOLDS: frozenset[str] = frozenset()
"""Which parts of a database beside its mirror there can be in PostgreSQL, by the names that `fetcher copy` has."""

_TYPES = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
 WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"""


class PostgresRows:
    """The rows of a PostgreSQL database."""

    def __init__(self, sql: PostgresSql) -> None:
        self.sql = sql
        self._cursors = 0

    def tables(self) -> list[str]:
        """All tables of the schema."""
        rows = self.sql.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
            " AND relkind IN ('r', 'p') ORDER BY 1"
        )
        return [name for (name,) in rows]

    def columns(self, table: str) -> list[str]:
        """The columns of a table that are written, not computed; none where there is no such table."""
        return list(self._types(table))

    def _types(self, table: str) -> dict[str, str]:
        return dict(self.sql.execute(_TYPES, [quoted(table)]).fetchall())

    def rows(self, relation: Relation, columns: Sequence[str], after: Row | None = None) -> Iterator[Sequence[Row]]:
        """These columns of the rows whose key comes after `after`, some at a time; within a transaction."""
        types = self._types(relation.table)
        behind, values = self._behind(relation, types, after)
        order = ", ".join(each for name in relation.key for each in _ordered(name, types[name]))
        self._cursors += 1
        cursor = f"copied_{self._cursors}"
        self.sql.execute(
            f"DECLARE {cursor} NO SCROLL CURSOR FOR SELECT {', '.join(_read(each, types[each]) for each in columns)}"
            f" FROM {quoted(relation.table)} WHERE {behind} AND {relation.where} ORDER BY {order}",
            values,
        )
        conn = self.sql.conn
        while rows := conn.execute(f"FETCH {CHUNK} FROM {cursor}", prepare=False).fetchall():
            yield rows
        conn.execute(f"CLOSE {cursor}", prepare=False)

    def _behind(self, relation: Relation, types: dict[str, str], after: Row | None) -> tuple[str, list[Any]]:
        """The condition that a key comes after `after`."""
        if after is None:
            return "true", []
        names = [each for name in relation.key for each in _ordered(name, types[name])]
        values: list[Any] = []
        for name, value in zip(relation.key, after, strict=True):
            if types[name] == "jsonb":
                values += (True, 0, value) if isinstance(value, str) else (False, value, "")
            else:
                values.append(value)
        return f"({', '.join(names)}) > ({', '.join('?' * len(names))})", values


class PostgresWriter(PostgresRows):
    """A PostgreSQL database that is being made."""

    def __init__(self, db: Database) -> None:
        super().__init__(db.sql)
        self.db = db
        self._known: dict[str, dict[str, str]] = {}

    def write(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Add rows by COPY, within a transaction."""
        types = self._types_of(table)
        names = ", ".join(map(quoted, columns))
        with (
            self.sql.conn.cursor() as cursor,
            cursor.copy(f"COPY {quoted(table)} ({names}) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            # JSON comes as text, which is what it is on the wire.
            copy.set_types(["text" if types[name] == "json" else types[name] for name in columns])
            try:
                for row in rows:
                    copy.write_row(row)
            except (TypeError, AttributeError, ValueError, struct.error) as error:
                raise psycopg.DataError(f"a value is of another type than its column: {error}") from None

    def _types_of(self, table: str) -> dict[str, str]:
        if table not in self._known:
            self._known[table] = self._types(table)
        return self._known[table]

    def held(self, table: str, columns: Sequence[str], row: Row, *, hard: bool) -> tuple[Row, list[Change]]:
        r"""The row as PostgreSQL can hold it: NUL characters and lone surrogates are told as `\0` and `\udc80`.

        With `hard` so are those that JSON holds escaped, and what is no JSON becomes a JSON text.
        """
        types = self._types_of(table)
        values, changes = list(row), []
        for place, (name, value) in enumerate(zip(columns, row, strict=True)):
            if not isinstance(value, str):
                continue
            flaw = _flaw(value)
            if types[name] != "json":
                if flaw:
                    values[place] = _told(value)
                    changes.append((name, flaw))
            elif flaw:
                values[place] = json.dumps(_told(value))
                changes.append((name, f"{flaw}, which is no JSON"))
            elif hard and (mended := _mended(value)) != value:
                values[place] = mended
                changes.append((name, "JSON that PostgreSQL does not take"))
        return tuple(values), changes

    def remove_after(self, relation: Relation, after: Row | None) -> None:
        """Remove the rows behind this key, or all, within a transaction. Raises Stopped."""
        behind, values = self._behind(relation, self._types_of(relation.table), after)
        with self.db.interruptible():
            self.sql.execute(f"DELETE FROM {quoted(relation.table)} WHERE {behind} AND {relation.where}", values)

    def empty_search(self) -> None:
        """Have the search of items filled anew, as that of a mirror which is older than the search is."""
        if self.sql.has("search"):
            self.sql.execute("DELETE FROM search")
            self.sql.execute("UPDATE sources SET search_filled_to = ? WHERE fetched > 0", [-(2**63)])

    def fill_text_search(self) -> None:
        """Nothing: there are no chunks."""

    def finish(self, tables: Sequence[str]) -> None:
        """Have numbers that are given out go on behind those that are there, and the planner know what is there."""
        with self.db.transaction(), self.db.interruptible():
            for table in tables:
                rows = self.sql.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attidentity != ''",
                    [quoted(table)],
                )
                for (name,) in rows.fetchall():
                    self.sql.execute(
                        f"SELECT setval(pg_get_serial_sequence(?, ?), coalesce(max({quoted(name)}), 1),"
                        f" count(*) > 0) FROM {quoted(table)}",
                        [quoted(table), name],
                    )
                self.sql.execute(f"ANALYZE {quoted(table)}")

    def unmark(self) -> None:
        """It is complete: from here on everybody may use it."""
        if self.sql.has(COPYING):
            unmark(self.sql)


def _ordered(name: str, type_: str) -> list[str]:
    """The SQL by which a column has the order of SQLite: numbers first, texts by their bytes."""
    column = quoted(name)
    if type_ == "jsonb":
        # Its own order has texts first, and sorts them as the server is used to.
        is_text = f"(jsonb_typeof({column}) = 'string')"
        return [
            is_text,
            f"(CASE WHEN {is_text} THEN 0 ELSE {column}::bigint END)",
            f"(CASE WHEN {is_text} THEN {column} #>> '{{}}' ELSE '' END) COLLATE \"C\"",
        ]
    return [f'{column} COLLATE "C"'] if type_ == "text" else [column]


def _read(name: str, type_: str) -> str:
    """The SQL that gives a column's value: zero has no sign in SQLite."""
    return f"{quoted(name)} + 0.0::float8" if type_ == "double precision" else quoted(name)


def _flaw(text: str) -> str:
    if "\0" in text:
        return "a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "half of a character"
    return ""


def _told(text: str) -> str:
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _mended(text: str) -> str:
    """JSON that PostgreSQL takes wherever it is looked into, from what need be none."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return json.dumps(text)
    return json.dumps(_mended_value(value)) if _ESCAPED.search(text) else text


_ESCAPED = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def _mended_value(value: Any) -> Any:
    if isinstance(value, str):
        return _told(value)
    if isinstance(value, list):
        return [_mended_value(each) for each in value]
    if isinstance(value, dict):
        return {_told(name): _mended_value(each) for name, each in value.items()}
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
