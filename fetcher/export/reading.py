"""Rows of a database, page by page: by key where there is one, so that no page waits for those before it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby, islice
from typing import Any

from fetcher.export.names import Value
from fetcher.export.tables import Child, Relation, quoted
from fetcher.model import Row
from fetcher.stores.bulk import decode
from fetcher.stores.schema import marks
from fetcher.stores.sql import Sql

Connection = sqlite3.Connection | Sql
"""A database as it is read."""

Group = tuple[tuple[Value, ...], Iterator[Sequence[Row]]]
"""What the rows have in common, and the rows in pages."""


def pages(
    conn: Connection,
    relation: Relation,
    size: int,
    where: str = "true",
    parameters: Sequence[Value] = (),
) -> Iterator[Sequence[Row]]:
    """All rows in pages of `size`, each a short read of its own, as of one moment; a view is one long read."""
    columns = [*relation.key, *(each.sql for each in relation.fields)]
    select = f"SELECT {', '.join(columns)} FROM {relation.origin} WHERE {where}"
    width = len(relation.key)
    if not width:
        yield from _in_one_go(conn, relation, size, select, parameters)
        return
    keys = ", ".join(relation.key)
    last: Sequence[Value] = ()
    while True:
        after = f" AND ({keys}) > ({marks(width)})" if last else ""
        sql = f"{select}{after} ORDER BY {keys} LIMIT {size}"
        with _moment(conn, needed=bool(relation.children)):
            rows = _fetched(conn, sql, [*parameters, *last])
            found = _with_children(conn, relation, [row[width:] for row in rows])
        if found:
            yield found
        if len(rows) < size:
            return
        last = rows[-1][:width]


def groups_of_chunks(conn: Connection, relation: Relation, size: int) -> Iterator[Group]:
    """The chunks by domain and category: from one to the next by the index, and the rows of each in pages."""
    sql = "SELECT domain, category FROM chunks WHERE (domain, category) > (?, ?) ORDER BY 1, 2 LIMIT 1"
    row = conn.execute("SELECT domain, category FROM chunks ORDER BY 1, 2 LIMIT 1").fetchone()
    while row is not None:
        yield row, chunks_of(conn, relation, row, size)
        row = conn.execute(sql, row).fetchone()


def chunks_of(conn: Connection, relation: Relation, group: Sequence[Value], size: int) -> Iterator[Sequence[Row]]:
    """The chunks of a domain and category."""
    where = "chunks.domain = ? AND chunks.category = ?"
    return pages(conn, relation, size, where, group)


def values_up_to(conn: Connection, column: str, last: str, where: str, *parameters: str) -> list[str]:
    """The different values of a column of the chunks, in order up to `last`, one step of the index each."""
    sql = f"""WITH RECURSIVE each (value) AS (
            SELECT min({column}) FROM chunks WHERE {where}
            UNION ALL
            SELECT (SELECT min({column}) FROM chunks WHERE {where} AND {column} > each.value) FROM each
             WHERE each.value < ?)
        SELECT json_group_array(value) FROM each WHERE value <= ?"""
    found = conn.execute(sql, [*parameters, *parameters, last, last]).fetchone()[0]
    return list(decode(found))


def groups(conn: Connection, relation: Relation, by: Sequence[str], size: int) -> Iterator[Group]:
    """The rows by the values of some columns (SQL), in one long read: SQLite sorts, in a file of its own if need be."""
    columns = [each.sql for each in relation.fields]
    # A column of SQLite's may hold values of several types.
    each_type = "typeof({0}), {0} COLLATE BINARY" if isinstance(conn, sqlite3.Connection) else "{0}"
    order = [each_type.format(each) for each in by]
    sql = f"SELECT {', '.join([*by, *columns])} FROM {relation.origin} ORDER BY {', '.join([*order, *relation.key])}"
    width = len(by)
    with _tolerant(conn):
        rows = _streamed(conn, sql, ())
        for group, found in groupby(rows, lambda row: [(type(each), each) for each in row[:width]]):
            stripped = (row[width:] for row in found)
            yield tuple(value for _, value in group), _paged(conn, relation, stripped, size)


def _in_one_go(
    conn: Connection, relation: Relation, size: int, select: str, parameters: Sequence[Value]
) -> Iterator[Sequence[Row]]:
    with _tolerant(conn):
        yield from _paged(conn, relation, _streamed(conn, select, parameters), size)


def _paged(conn: Connection, relation: Relation, rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    while page := list(islice(rows, size)):
        yield _with_children(conn, relation, page)


def _with_children(conn: Connection, relation: Relation, rows: list[Row]) -> Sequence[Row]:
    """The rows, each with a list of those that belong to it for every child."""
    if not relation.children or not rows:
        return rows
    names = [each.name for each in relation.fields]
    for child in relation.children:
        at = names.index(child.of)
        found = _rows_of(conn, child, [row[at] for row in rows])
        rows = [(*row, found.get(row[at], ())) for row in rows]
    return rows


def _rows_of(conn: Connection, child: Child, keys: Sequence[Value]) -> dict[Value, list[Row]]:
    parent, relation = quoted(child.parent), child.relation
    columns = ", ".join([parent, *(each.sql for each in relation.fields)])
    sql = f"SELECT {columns} FROM {relation.origin} WHERE {parent} IN ({marks(len(keys))})"
    found: dict[Value, list[Row]] = {}
    for row in _fetched(conn, f"{sql} ORDER BY {', '.join(relation.key)}", keys):
        found.setdefault(row[0], []).append(row[1:])
    return found


def _fetched(conn: Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """The rows of a query; of a text that is no UTF-8, what can be read."""
    try:
        return conn.execute(sql, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
    with _tolerant(conn):
        return conn.execute(sql, parameters).fetchall()


def _streamed(conn: Connection, sql: str, parameters: Sequence[Any]) -> Iterator[Row]:
    """The rows of a long read, as they are asked for."""
    return iter(conn.execute(sql, parameters)) if isinstance(conn, sqlite3.Connection) else conn.stream(sql, parameters)


@contextmanager
def _tolerant(conn: Connection) -> Iterator[None]:
    if not isinstance(conn, sqlite3.Connection):
        yield  # There is no text that is no UTF-8.
        return
    before = conn.text_factory
    conn.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        yield
    finally:
        conn.text_factory = before


@contextmanager
def _moment(conn: Connection, *, needed: bool) -> Iterator[None]:
    """Let all that is read be as of one moment."""
    if not needed:
        yield
        return
    conn.execute("BEGIN" if isinstance(conn, sqlite3.Connection) else "BEGIN ISOLATION LEVEL REPEATABLE READ")
    try:
        yield
    finally:
        conn.execute("COMMIT")
