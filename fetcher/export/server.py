"""What can be exported of a mirror in PostgreSQL: any table or view, with what belongs to its rows."""

from __future__ import annotations

from collections.abc import Collection

from fetcher.errors import ConfigurationError, StoreError
from fetcher.export.tables import Child, Field, Kind, Relation, declared_tables, no_such_column, quoted
from fetcher.place import PostgresUrl
from fetcher.stores.sql import Sql

_KINDS: dict[str, Kind] = {
    "bigint": "integer",
    "integer": "integer",
    "smallint": "integer",
    "double precision": "real",
    "real": "real",
    "bytea": "blob",
    "json": "json",
}


def chosen(sql: Sql, place: PostgresUrl, table: str | None, json_columns: Collection[str]) -> Relation:
    """The table or view of that name, or the mirror's items. Raises ConfigurationError, StoreError."""
    declared = declared_tables(place)
    if table is None:
        table = next((each.name for each in declared[:1] if sql.has(each.name)), None)
        if table is None:
            raise StoreError(f"{place} has no items yet")
    found = _relation(sql, place, table, json_columns)
    unknown = set(json_columns) - {each.name for each in found.fields}
    if unknown:
        raise no_such_column(found, unknown)
    parents = [each for each in declared if each.parent is not None]
    if found.key and declared and table == declared[0].name:
        key = declared[0].columns[0].name
        children = [(_relation(sql, place, each.name, ()), each.parent) for each in parents if sql.has(each.name)]
        found = Relation(
            found.name,
            found.origin,
            found.fields,
            found.key,
            tuple(
                Child(relation, str(parent), key)
                for relation, parent in sorted(children, key=lambda each: each[0].name)
            ),
        )
    return found


def _relation(sql: Sql, place: PostgresUrl, name: str, json_columns: Collection[str]) -> Relation:
    columns = sql.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(?)"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [quoted(name)],
    ).fetchall()
    if not columns:
        known = sql.array(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
            " AND relkind IN ('r', 'v', 'm', 'p', 'f') ORDER BY 1"
        )
        raise ConfigurationError(f"{place} has no table or view {name}: it has {', '.join(known)}")
    key = sql.array(
        "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)"
        " WHERE indrelid = to_regclass(?) AND indisprimary ORDER BY array_position(indkey::smallint[], attnum)",
        [quoted(name)],
    )
    fields = tuple(_field(column, type_, is_json=column in json_columns) for column, type_ in columns)
    return Relation(name, quoted(name), fields, tuple(map(quoted, key)))


def _field(name: str, type_: str, *, is_json: bool) -> Field:
    column = quoted(name)
    if type_ == "jsonb":
        return Field(name, "any", column)  # A number, or a text.
    kind = "json" if is_json else _KINDS.get(type_, "text")
    return Field(name, kind, column if kind not in ("json", "text") or type_ == "text" else f"{column}::text")
