"""Rows of a PostgreSQL database, and what it says of its tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from fetcher.errors import ConfigurationError, StoreError
from fetcher.export.tables import Child, Field, Kind, Relation, chunk_fields, declared_tables, no_such_column, quoted
from fetcher.model import Row
from fetcher.place import PostgresUrl
from fetcher.stores.sql import Sql

_KINDS: dict[str, tuple[Kind, str]] = {
    **dict.fromkeys(("int2", "int4", "int8"), ("integer", "{}")),
    **dict.fromkeys(("float4", "float8"), ("real", "{}")),
    "bool": ("integer", "{}::int"),
    "text": ("text", "{}"),
    "bytea": ("blob", "{}"),
    "json": ("json", "{}"),
    "jsonb": ("any", "{}"),
    "numeric": ("any", "{}"),
    # As pgvector shows them they are JSON.
    "vector": ("json", "{}::text"),
}
"""What a column of a type holds, and the SQL that gives it; of any other type it is its text."""

_FETCHED = 500
"""Rows of a long read that come at once."""


class ServerRows:
    """The rows of a database of a server."""

    def __init__(self, sql: Sql, url: PostgresUrl) -> None:
        self.sql = sql
        self._url = url
        self._cursors = count(1)

    def fetched(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """The few rows of a query."""
        return self.sql.execute(sql, parameters).fetchall()

    def stream(self, sql: str, parameters: Sequence[Any]) -> Iterator[Row]:
        """The rows of a query, however many, some at a time: by a cursor, in a transaction of its own."""
        name = f"exported_{next(self._cursors)}"
        with self.moment():
            self.sql.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}", parameters)
            while rows := self.sql.execute(f"FETCH {_FETCHED} FROM {name}").fetchall():
                yield from rows

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Let all that is read be as of one moment."""
        self.sql.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        try:
            yield
        finally:
            self.sql.execute("ROLLBACK")

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """The condition that a column has one of these values, and its parameters."""
        return f"{column} = ANY(?)", [list(values)]

    def in_order(self, column: str) -> str:
        """What to order by for the values of a column to come in one order everywhere."""
        return column

    def chunks(self, *, dimension: int = 0) -> Relation:
        """The chunks of all documents that are still there, by document and position; also with their vectors."""
        fields = chunk_fields()
        origin = "chunks JOIN documents ON documents.number = chunks.document AND documents.unlisted_at IS NULL"
        if dimension:
            fields.append(Field("vector", "vector", "vectors.vector::real[]", dimension))
            origin += " LEFT JOIN vectors ON vectors.hash = chunks.hash"
        return Relation("chunks", origin, tuple(fields), ("chunks.document", "chunks.position"))

    def chosen(self, table: str | None, json_columns: Collection[str]) -> Relation:
        """The table or view of that name, or the chunks if there are any, else the mirror's items.

        Raises ConfigurationError, StoreError.
        """
        if table is None:
            has_chunks = self.sql.has("chunks") and self.sql.execute("SELECT 1 FROM chunks LIMIT 1").fetchone()
            table = "chunks" if has_chunks else self._items()
        if table == "chunks" and self.sql.has("chunks") and self.sql.has("documents"):
            return self.chunks()
        found = self._relation(table, json_columns)
        unknown = set(json_columns) - {each.name for each in found.fields}
        if unknown:
            raise no_such_column(found, unknown)
        return found

    def typed(self, relation: Relation) -> Relation:
        """The same with the types of all columns known: of numbers without end, whether they are whole."""
        found = []
        for each in relation.fields:
            if each.kind == "any":
                is_number, whole = self.sql.execute(
                    "SELECT true, coalesce(bool_and(x = trunc(x) AND abs(x) < 1e18), true)"
                    f" FROM (SELECT {each.sql} AS x FROM {relation.origin}) AS all_"
                    if self._is_numeric(relation, each)
                    else "SELECT false, false"
                ).fetchone()
                kind: Kind = ("integer" if whole else "real") if is_number else "text"
                each = replace(each, kind=kind, sql=_CASTS[kind].format(each.sql))
            found.append(each)
        return replace(relation, fields=tuple(found))

    def _is_numeric(self, relation: Relation, field: Field) -> bool:
        row = self.sql.execute(
            f"SELECT (SELECT pg_typeof(x)::text FROM (SELECT {field.sql} AS x FROM {relation.origin}) AS all_ LIMIT 1)"
        ).fetchone()
        return bool(row[0] == "numeric")

    def _items(self) -> str:
        for name in ("items", *(table.name for table in declared_tables(self._url)[:1]), "chunks"):
            if self.sql.has(name):
                return name
        raise StoreError(f"{self._url} has neither chunks nor items yet")

    def _relation(self, name: str, json_columns: Collection[str] = ()) -> Relation:
        relations = dict(
            self.sql.execute(
                "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
                " AND relkind IN ('r', 'v', 'm', 'p', 'f') ORDER BY 1"
            ).fetchall()
        )
        name = next((each for each in relations if each.lower() == name.lower()), name)
        if name not in relations:
            raise ConfigurationError(f"{self._url} has no table or view {name}: it has {', '.join(relations)}")
        columns = self.sql.execute(
            "SELECT attname, typname, attnum = ANY(coalesce(key, '{}')), array_position(key, attnum) FROM pg_attribute"
            " JOIN pg_type ON pg_type.oid = atttypid LEFT JOIN (SELECT indrelid,"
            " string_to_array(indkey::text, ' ')::int2[] AS key FROM pg_index WHERE indisprimary) AS keys"
            " ON indrelid = attrelid"
            " WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [quoted(name)],
        ).fetchall()
        holding_json = set(json_columns)
        fields = []
        for column, type_, _, _ in columns:
            kind, sql = _KINDS.get(type_, ("text", "{}::text"))
            fields.append(Field(column, "json" if column in holding_json else kind, sql.format(quoted(column))))
        primary = sorted((place, quoted(column), type_) for column, type_, is_key, place in columns if is_key)
        key, origin = tuple(column for _, column, _ in primary), quoted(name)
        if any(type_ == "jsonb" for _, _, type_ in primary):
            # Keys that are numbers as well as texts are no parameters: such a table is read in one go, in their order.
            key, origin = (), f"(SELECT * FROM {origin} ORDER BY {', '.join(key)}) AS {origin}"
        children: tuple[Child, ...] = ()
        tables = declared_tables(self._url)
        if tables and name == tables[0].name:
            own = quoted(tables[0].columns[0].name).strip('"')
            children = tuple(
                Child(self._relation(table.name), str(table.parent), own)
                for table in sorted(tables, key=lambda each: each.name)
                if table.parent is not None and table.name in relations
            )
        return Relation(name, origin, tuple(fields), key, children)


_CASTS = {"integer": "{}::bigint", "real": "{}::double precision", "text": "(to_jsonb({}) #>> '{{}}')"}
