"""The tables, indexes and views that follow from what a source declares, in PostgreSQL's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import psycopg

from fetcher.errors import StoreError
from fetcher.model import Column, Generated, Table, View
from fetcher.stores.postgres.connection import PostgresSql, one_line
from fetcher.stores.schema import LIFE, quoted

_TYPES = {
    "integer": "bigint",
    "boolean": "smallint",
    "real": "double precision",
    # In the order of the bytes, as in SQLite: no index is spoilt when the machine learns to sort anew.
    "text": 'text COLLATE "C"',
    "json": "json",
}
_OURS = "of fetcher"
"""Marks a view that we may make anew: a view that its owner made under the same name is not ours to touch."""


def make_table(sql: PostgresSql, table: Table, item: Table) -> None:
    """Make a source's table, or add the columns that it lacks; `item` is the source's item table."""
    columns = {column.name: _declared(column) for column in table.columns} | {"extra": "json"}
    if table.parent is None:
        if table is item:
            columns |= dict.fromkeys(LIFE, "bigint")
        key = f"PRIMARY KEY ({quoted(table.columns[0].name)})"
    else:
        columns = {table.parent: f"{_TYPES[item.columns[0].type]} NOT NULL"} | columns
        key = f"PRIMARY KEY ({quoted(table.parent)}, {quoted(table.columns[0].name)})"
    columns |= {each.name: _generated(each) for each in table.generated}
    name = quoted(table.name)
    if not sql.has(table.name):
        declared = [f"{quoted(column)} {type_}" for column, type_ in columns.items()]
        sql.execute(f"CREATE TABLE {name} ({', '.join([*declared, key])})")
        if table.position:
            at = ", ".join(map(quoted, table.position))
            sql.execute(f"CREATE INDEX {quoted(f'{table.name}_position')} ON {name} ({at})")
        if table is item:
            for mark in ("unlisted_at", "gone_at"):
                sql.execute(
                    f"CREATE INDEX {quoted(f'{table.name}_{mark}')} ON {name} ({quoted(mark)})"
                    f" WHERE {quoted(mark)} IS NOT NULL"
                )
        return
    for column, type_ in columns.items():
        if not sql.has(table.name, column):
            sql.execute(f"ALTER TABLE {name} ADD COLUMN {quoted(column)} {type_.removesuffix(' NOT NULL')}")


def _declared(column: Column) -> str:
    return f"{_TYPES[column.type]}{' NOT NULL' if column.required else ''}"


def _generated(column: Generated) -> str:
    """A column that is read out of JSON; a value of another type is the API's own business, and null here."""
    path = ", ".join("'" + each.replace("'", "''") + "'" for each in _steps(column.path))
    source = quoted(column.column)
    value, text = f"json_extract_path({source}, {path})", f"json_extract_path_text({source}, {path})"
    if column.type == "text":
        return f'text COLLATE "C" GENERATED ALWAYS AS ({text}) STORED'
    is_number = f"json_typeof({value}) = 'number'"
    if column.type == "integer":
        is_number += f" AND {text} ~ '^-?[0-9]{{1,18}}$'"
    type_ = _TYPES[column.type]
    return f"{type_} GENERATED ALWAYS AS (CASE WHEN {is_number} THEN ({text})::{type_} END) STORED"


def _steps(path: str) -> list[str]:
    """The names in a path of SQLite's: `$.a."b:c"`."""
    return [quoted_ or plain for quoted_, plain in re.findall(r'\.(?:"([^"]*)"|([^."\[]+))', path)]


def make_views(sql: PostgresSql, views: Sequence[View], warn: Callable[[str], None]) -> None:
    """Make a source's views, anew where what they say has changed, and drop those that it declares no more."""
    wanted = {view.name: view.postgres or view.sql for view in views}
    present = dict(
        sql.execute(
            "SELECT relname, CASE relkind WHEN 'v' THEN coalesce(obj_description(oid, 'pg_class'), '') ELSE '' END"
            " FROM pg_class"
            " WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'f')"
        ).fetchall()
    )
    ours = {name: said for name, said in present.items() if said.startswith(_OURS)}
    if ours == {name: _comment(said) for name, said in wanted.items()}:
        return
    # One may need another that was declared before it.
    for name in [*sorted(ours.keys() - wanted.keys()), *(each for each in reversed(wanted) if each in ours)]:
        _tried(sql, [f"DROP VIEW {quoted(name)}"], f"the view {name} stays as it is", warn)
    for name, said in wanted.items():
        if name in present and name not in ours:
            warn(f"the view {name} is not made: the database has something else of that name")
        elif not sql.has(name):
            comment = _comment(said).replace("'", "''")
            statements = [
                f"CREATE VIEW {quoted(name)} AS {said}",
                f"COMMENT ON VIEW {quoted(name)} IS '{comment}'",
            ]
            _tried(sql, statements, f"the view {name} is not made", warn)


def _comment(said: str) -> str:
    return f"{_OURS}: {said}"


def _tried(sql: PostgresSql, statements: Sequence[str], otherwise: str, warn: Callable[[str], None]) -> None:
    """Execute statements, or none of them and say why."""
    sql.execute("SAVEPOINT tried")
    try:
        for each in statements:
            sql.execute(each)
    except psycopg.Error as error:
        sql.execute("ROLLBACK TO SAVEPOINT tried")
        warn(f"{otherwise}: {one_line(error)}")
    sql.execute("RELEASE SAVEPOINT tried")


def refuse_taken(sql: PostgresSql, where: object, tables: Sequence[Table]) -> None:
    """Raise StoreError when something else has the name of a source's table, and nothing of ours is there yet."""
    for table in tables:
        if sql.has(table.name):
            raise StoreError(
                f"{where} has a table {table.name} of something else: name another database, or a schema in it by"
                " ?options=-csearch_path%3DNAME"
            )
