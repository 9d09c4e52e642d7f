"""A PostgreSQL connection as the parts of a store see it: the shared SQL, and many rows by COPY."""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg import adapt, errors, pq
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import TextLoader

from fetcher.model import Key, Row
from fetcher.stores.postgres import words
from fetcher.stores.schema import quoted
from fetcher.stores.sql import Cursor, Upsert

REFUSED = (
    psycopg.DataError,
    psycopg.IntegrityError,
    # What fits no index, or no column.
    errors.ProgramLimitExceeded,
    errors.DatatypeMismatch,
    OverflowError,
    UnicodeEncodeError,
)
"""What comes of a row that PostgreSQL cannot take."""

DETOURS = 100
"""So often rows are first sought in a table once some were there already."""

_FLOATS = 1021  # the number of the type real[]

LOST = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.DatabaseDropped,
    errors.IdleSessionTimeout,
)


def is_lost(conn: psycopg.Connection[Any], error: BaseException) -> bool:
    """Whether an error means that the server, or the way to it, is gone."""
    return isinstance(error, LOST) or (isinstance(error, psycopg.Error) and (conn.closed or conn.broken))


class _JsonLoader(adapt.Loader):
    """A key: mostly a number, which needs no JSON parser."""

    def load(self, data: bytes | bytearray | memoryview) -> Any:
        text = bytes(data)
        return int(text) if text.isdigit() else _decode(text)


class _NumberLoader(adapt.Loader):
    """A number without end, as SQLite would have it."""

    def load(self, data: bytes | bytearray | memoryview) -> Any:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


class _FloatsLoader(adapt.Loader):
    """Numbers of a vector: as they are stored in SQLite, four bytes each, the lowest first."""

    def load(self, data: bytes | bytearray | memoryview) -> bytes:
        numbers = array("f", map(float, bytes(data)[1:-1].split(b",")))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()


def _decode(text: bytes) -> Any:
    from fetcher.stores.bulk import decode

    return decode(text)


class VectorDumper(adapt.Dumper):
    """A vector of pgvector's, made of numbers of four bytes each, the lowest first."""

    format = pq.Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        """Its size, and the numbers with the highest byte first."""
        numbers = array("f", obj)
        if sys.byteorder == "little":
            numbers.byteswap()
        return struct.pack("!HH", len(numbers), 0) + numbers.tobytes()


def adapted(conn: psycopg.Connection[Any]) -> None:
    """Numbers are of one size, so that a statement is planned once; JSON comes as the text that it was stored as."""
    conn.adapters.register_dumper(int, Int8Dumper)
    conn.adapters.register_loader("json", TextLoader)
    conn.adapters.register_loader("jsonb", _JsonLoader)
    conn.adapters.register_loader("numeric", _NumberLoader)
    conn.adapters.register_loader(_FLOATS, _FloatsLoader)


class PostgresSql:
    """PostgreSQL's `Sql`. Columns for numbers as well as texts are `jsonb`, which sorts both."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self._copied: dict[Upsert, _Copied] = {}
        self._numbers: dict[Upsert, int] = {}
        self._scope: str | None = None

    def moved_to(self, conn: psycopg.Connection[Any]) -> None:
        """From here on it is another connection to the same database."""
        self.conn = conn
        self.rolled_back()

    def rolled_back(self) -> None:
        """What the transaction made for itself is there no more."""
        self._copied.clear()

    def execute(self, statement: str, parameters: Any = (), /) -> Cursor:
        """What one statement gives."""
        if not parameters:
            return cast("Cursor", self.conn.execute(_spoken(statement).replace("%%", "%")))
        return cast("Cursor", self.conn.execute(_spoken(statement), parameters))

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> Cursor:
        """One statement for each of many sets of parameters."""
        cursor = self.conn.cursor()
        cursor.executemany(_spoken(statement), list(parameters))
        return cast("Cursor", cursor)

    def insert(self, into: Upsert, rows: Sequence[Row]) -> int:
        """Write many rows, by COPY into a temporary table and one INSERT from there; returns how many were written."""
        if not rows:
            return 0
        copied = self._copied.get(into)
        if copied is None:
            number = self._numbers.setdefault(into, len(self._numbers))
            copied = self._copied[into] = _Copied(self.conn, into, f"copied_{number}")
        return copied.write(rows)

    def for_keys(self, statement: str, keys: Sequence[Any], *values: Any) -> int:
        """Execute a statement that ends in IN for many keys; returns how many rows it changed."""
        return self._for_keys(statement, keys, values).rowcount if keys else 0

    def rows_for_keys(self, statement: str, keys: Sequence[Any], *values: Any, then: str = "") -> Iterable[Any]:
        """What a statement gives that ends in IN, but for `then`, for many keys."""
        return self._for_keys(statement, keys, values, then) if keys else ()

    def _for_keys(self, statement: str, keys: Sequence[Any], values: Sequence[Any], then: str = "") -> Cursor:
        return self.execute(f"{statement.rstrip().removesuffix('IN')} = ANY(?) {then}", [*values, list(keys)])

    def select(self, *columns: str) -> str:
        """The beginning of a statement for `array`: SELECT with these columns."""
        return f"SELECT {', '.join(columns)}"

    def array(self, statement: str, parameters: Any = ()) -> list[Any]:
        """What `select` gives in a go."""
        return _listed(self.execute(statement, parameters))

    def array_for_keys(self, statement: str, keys: Sequence[Any]) -> list[Any]:
        """What `select` gives, of a statement that ends in IN, for many keys."""
        return _listed(self._for_keys(statement, keys, ())) if keys else []

    def any(self, value: Key) -> Jsonb:
        """A value for a column that holds numbers as well as texts."""
        return Jsonb(value)

    def any_sql(self, expression: str) -> str:
        """An expression, to be compared with such a column."""
        return f"to_jsonb({expression})"

    def key_text(self, expression: str) -> str:
        """The text in such a column, to be compared with another."""
        return f"({expression} #>> '{{}}')"

    def listed(self, values: Sequence[str]) -> tuple[str, list[str]]:
        """What stands for a table of these values, in its column `value`, and the parameter that it takes."""
        return "unnest(CAST(? AS text[])) AS listed (value)", list(values)

    def condition(self, of_source: str) -> str:
        """A condition that a source declares, where SQLite has other words for it."""
        return "true" if of_source.strip() == "1" else _FUNCTIONS.sub(lambda found: _NAMES[found[1].lower()], of_source)

    def join_coverage(self) -> str:
        """What joins `coverage` as `covered`; its scope is a number or a text, as all of them are."""
        if self._scope is None:
            row = self.execute("SELECT scope FROM coverage LIMIT 1").fetchone()
            self._scope = None if row is None else "::bigint" if isinstance(row[0], int) else ""
        columns = f"source, sweep, lo, hi, (scope #>> '{{}}'){self._scope or ''} AS scope"
        return f"JOIN (SELECT {columns} FROM coverage) AS covered"

    def by_index(self, name: str) -> str:  # noqa: ARG002 - the contract
        """Nothing: PostgreSQL knows what is where."""
        return ""

    def has(self, table: str, column: str | None = None) -> bool:
        """Whether there is a table or view, or a column of it."""
        found = self.execute(
            "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"
            f"{'' if column is None else ' AND attname = ?'} LIMIT 1",
            [quoted(table), *([] if column is None else [column])],
        )
        return found.fetchone() is not None

    def bytes(self) -> int:
        """How large the database is."""
        return int(self.execute("SELECT pg_database_size(current_database())").fetchone()[0])

    def damage(self) -> list[str]:
        """Nothing: the server looks after its files."""
        return []


class _Copied:
    """The way of rows into one table: COPY into a temporary table that is empty between statements, then an INSERT.

    Rows that take the place of others are commonly all new, for those have been taken out: they go straight into the
    table, which takes half the time, unless some turn out to be there.
    """

    def __init__(self, conn: psycopg.Connection[Any], into: Upsert, name: str) -> None:
        columns = ", ".join(map(quoted, into.columns))
        found = conn.execute(
            "SELECT attname, format_type(atttypid, NULL), atttypid::bigint FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            [quoted(into.table)],
        ).fetchall()
        types = {name: type_ for name, type_, _ in found}
        oids = {name: number for name, _, number in found}
        for column, type_ in types.items():
            if type_.rpartition(".")[2] == "vector":
                conn.adapters.register_dumper(None, type("OfExtension", (VectorDumper,), {"oid": oids[column]}))
        self._conn = conn
        # JSON comes as text, which is what it is on the wire; words come as texts, for the server to index.
        as_text: dict[str, str | int] = {"json": "text", "tsvector": "text[]"}
        self._types = [as_text.get(types[name], oids[name]) for name in into.columns]
        given = ", ".join(
            words.tsvector(quoted(each)) if types[each] == "tsvector" else quoted(each) for each in into.columns
        )
        self._key = [into.columns.index(name) for name in into.key]
        self._copy = f"COPY pg_temp.{name} ({columns}) FROM STDIN (FORMAT BINARY)"
        self._straight = f"COPY {quoted(into.table)} ({columns}) FROM STDIN (FORMAT BINARY)"
        # So many writes are done before it is tried again whether all rows are new; None where they never are.
        made_here = all(types[each] != "tsvector" for each in into.columns)
        self._detours = 0 if into.changes is None and made_here else None
        changes = into.changes
        if changes is None:
            changes = ", ".join(
                f"{quoted(each)} = excluded.{quoted(each)}" for each in into.columns if each not in into.key
            )
        then = f"UPDATE SET {changes}" if changes else "NOTHING"
        self._insert = (
            f"WITH taken AS (DELETE FROM pg_temp.{name} RETURNING *)"
            f" INSERT INTO {quoted(into.table)} ({columns}) SELECT {given} FROM taken"
            f" ON CONFLICT ({', '.join(map(quoted, into.key))}) DO {then}"
        )
        declared = ", ".join(
            f"{quoted(each)} {'text[]' if types[each] == 'tsvector' else types[each]}" for each in into.columns
        )
        conn.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({declared}) ON COMMIT DELETE ROWS")

    def write(self, rows: Sequence[Row]) -> int:
        # One INSERT cannot write a row twice: of several with one key the last is kept, as if they came one by one.
        if len(rows) > 1:
            rows = list({tuple([row[at] for at in self._key]): row for row in rows}.values())
        with self._conn.cursor() as cursor:
            if self._detours == 0:
                cursor.execute("SAVEPOINT straight")
                try:
                    self._send(cursor, self._straight, rows)
                except errors.UniqueViolation:
                    cursor.execute("ROLLBACK TO SAVEPOINT straight")
                    self._detours = DETOURS
                else:
                    return len(rows)
            elif self._detours is not None:
                self._detours -= 1
            self._send(cursor, self._copy, rows)
            cursor.execute(self._insert)
            return cursor.rowcount

    def _send(self, cursor: psycopg.Cursor[Any], statement: str, rows: Sequence[Row]) -> None:
        with cursor.copy(statement) as copy:
            copy.set_types(self._types)
            try:
                for row in rows:
                    copy.write_row(row)
            except (TypeError, AttributeError, struct.error) as error:
                raise psycopg.DataError(f"a value is of another type than its column: {error}") from None


_NAMES: Mapping[str, str] = {"instr": "strpos", "ifnull": "coalesce"}
_FUNCTIONS = re.compile(rf"\b({'|'.join(_NAMES)})(?=\s*\()", re.IGNORECASE)
_TOKENS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|%|::|\?|:(\w+)""")


@lru_cache(1024)
def _spoken(statement: str) -> str:
    """A statement with its parameters named as psycopg wants them."""

    def each(found: re.Match[str]) -> str:
        text = found[0]
        if text == "?":
            return "%s"
        return f"%({found[1]})s" if found[1] else text.replace("%", "%%")

    return _TOKENS.sub(each, statement)


def _listed(rows: Any) -> list[Any]:
    found = rows.fetchall()
    return [row[0] for row in found] if found and len(found[0]) == 1 else [list(row) for row in found]


def one_line(error: BaseException, secret: str = "") -> str:
    """What an error of the server's says, in one line, without a password."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.replace(secret, "…") if secret else text
