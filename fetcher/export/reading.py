"""Rows of a database, page by page: by key where there is one, so that no page waits for those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby, islice

from fetcher.export.names import Value
from fetcher.export.rows import Rows
from fetcher.export.tables import Child, Relation, quoted
from fetcher.model import Row
from fetcher.stores.schema import marks

Group = tuple[tuple[Value, ...], Iterator[Sequence[Row]]]
"""What the rows have in common, and the rows in pages."""


def pages(
    source: Rows,
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
        yield from _paged(source, relation, source.stream(select, parameters), size)
        return
    keys = ", ".join(relation.key)
    last: Sequence[Value] = ()
    while True:
        after = f" AND ({keys}) > ({marks(width)})" if last else ""
        sql = f"{select}{after} ORDER BY {keys} LIMIT {size}"
        with source.moment() if relation.children else nullcontext():
            rows = source.fetched(sql, [*parameters, *last])
            found = _with_children(source, relation, [row[width:] for row in rows])
        if found:
            yield found
        if len(rows) < size:
            return
        last = rows[-1][:width]


def groups_of_chunks(source: Rows, relation: Relation, size: int) -> Iterator[Group]:
    """The chunks by domain and category: from one to the next by the index, and the rows of each in pages."""
    sql = "SELECT domain, category FROM chunks WHERE (domain, category) > (?, ?) ORDER BY 1, 2 LIMIT 1"
    found = source.fetched("SELECT domain, category FROM chunks ORDER BY 1, 2 LIMIT 1", [])
    while found:
        yield tuple(found[0]), chunks_of(source, relation, found[0], size)
        found = source.fetched(sql, found[0])


def chunks_of(source: Rows, relation: Relation, group: Sequence[Value], size: int) -> Iterator[Sequence[Row]]:
    """The chunks of a domain and category."""
    where = "chunks.domain = ? AND chunks.category = ?"
    return pages(source, relation, size, where, group)


def values_up_to(source: Rows, column: str, last: str, where: str, *parameters: str) -> list[str]:
    """The different values of a column of the chunks, in order up to `last`, one step of the index each."""
    sql = f"""WITH RECURSIVE each (value) AS (
            SELECT min({column}) FROM chunks WHERE {where}
            UNION ALL
            SELECT (SELECT min({column}) FROM chunks WHERE {where} AND {column} > each.value) FROM each
             WHERE each.value < ?)
        {source.sql.select("value")} FROM each WHERE value <= ?"""
    return source.sql.array(sql, [*parameters, *parameters, last, last])


def groups(source: Rows, relation: Relation, by: Sequence[str], size: int) -> Iterator[Group]:
    """The rows by the values of some columns (SQL), in one long read: the database sorts, on its disk if need be."""
    columns = [each.sql for each in relation.fields]
    order = ", ".join([*map(source.in_order, by), *relation.key])
    rows = source.stream(f"SELECT {', '.join([*by, *columns])} FROM {relation.origin} ORDER BY {order}", [])
    width = len(by)
    for group, found in groupby(rows, lambda row: [(type(each), each) for each in row[:width]]):
        stripped = (row[width:] for row in found)
        yield tuple(value for _, value in group), _paged(source, relation, stripped, size)


def _paged(source: Rows, relation: Relation, rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    while page := list(islice(rows, size)):
        yield _with_children(source, relation, page)


def _with_children(source: Rows, relation: Relation, rows: list[Row]) -> Sequence[Row]:
    """The rows, each with a list of those that belong to it for every child."""
    if not relation.children or not rows:
        return rows
    names = [each.name for each in relation.fields]
    for child in relation.children:
        at = names.index(child.of)
        found = _rows_of(source, child, [row[at] for row in rows])
        rows = [(*row, found.get(row[at], ())) for row in rows]
    return rows


def _rows_of(source: Rows, child: Child, keys: Sequence[Value]) -> dict[Value, list[Row]]:
    parent, relation = quoted(child.parent), child.relation
    columns = ", ".join([parent, *(each.sql for each in relation.fields)])
    among, parameters = source.among(parent, keys)
    sql = f"SELECT {columns} FROM {relation.origin} WHERE {among} ORDER BY {', '.join(relation.key)}"
    found: dict[Value, list[Row]] = {}
    for row in source.fetched(sql, parameters):
        found.setdefault(row[0], []).append(row[1:])
    return found
