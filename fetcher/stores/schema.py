"""The tables and statements that follow from what a source declares."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from fetcher.model import Table, View
from fetcher.stores.sql import Sql, Upsert

_TYPES = {"integer": "INTEGER", "boolean": "INTEGER", "real": "REAL", "text": "TEXT", "json": "TEXT"}
_OURS = "/* of fetcher */"
"""Marks a view that we may make anew: a view that its owner made under the same name is not ours to touch."""

LIFE = ("first_seen_at", "listed_at", "fetched_at", "unlisted_at", "gone_at")


def make_table(conn: sqlite3.Connection, table: Table, item: Table) -> None:
    """Make a source's table, or add the columns that it lacks; `item` is the source's item table."""
    columns = {column.name: _TYPES[column.type] for column in table.columns} | {"extra": "TEXT"}
    key_type = _TYPES[item.columns[0].type]
    if table.parent is None:
        if table is item:
            columns |= dict.fromkeys(LIFE, "INTEGER")
        key = f'PRIMARY KEY ("{table.columns[0].name}")'
        ending = "STRICT"
    else:
        columns = {table.parent: f'{key_type} NOT NULL REFERENCES "{item.name}"'} | columns
        key = f'PRIMARY KEY ("{table.parent}", "{table.columns[0].name}")'
        ending = "STRICT, WITHOUT ROWID"
    # Of type ANY: a value of an unexpected type is the API's own business, and no reason to refuse the row.
    columns |= {
        each.name: f"ANY GENERATED ALWAYS AS (json_extract(\"{each.column}\", '{each.path}')) VIRTUAL"
        for each in table.generated
    }
    present = {row[1] for row in conn.execute(f'PRAGMA table_xinfo("{table.name}")')}
    if not present:
        needed = {column.name for column in table.columns if column.required}
        declared = [f'"{name}" {type_}{" NOT NULL" if name in needed else ""}' for name, type_ in columns.items()]
        conn.execute(f'CREATE TABLE "{table.name}" ({", ".join([*declared, key])}) {ending}')
        if table.position:
            at = ", ".join(f'"{name}"' for name in table.position)
            conn.execute(f'CREATE INDEX "{table.name}_position" ON "{table.name}" ({at})')
        if table is item:
            for mark in ("unlisted_at", "gone_at"):
                conn.execute(
                    f'CREATE INDEX "{table.name}_{mark}" ON "{table.name}" ("{mark}") WHERE "{mark}" IS NOT NULL'
                )
    for name, type_ in columns.items():
        if present and name not in present:
            conn.execute(f'ALTER TABLE "{table.name}" ADD COLUMN "{name}" {type_}')


def make_views(conn: sqlite3.Connection, views: Sequence[View], warn: Callable[[str], None]) -> None:
    """Make a source's views, anew where what they say has changed, and drop those that it declares no more."""
    wanted = {view.name: f"CREATE VIEW {quoted(view.name)} AS {_OURS} {view.sql}" for view in views}
    present = dict(conn.execute("SELECT name, ifnull(sql, '') FROM sqlite_master WHERE type != 'index'").fetchall())
    for name, sql in present.items():
        if _OURS in sql and wanted.get(name) != sql:
            conn.execute(f"DROP VIEW {quoted(name)}")
    for name, sql in wanted.items():
        had = present.get(name, _OURS)
        if had == sql:
            continue
        if _OURS in had:
            conn.execute(sql)
        else:
            warn(f"the view {name} is not made: the database has something else of that name")


WORK = Upsert("work", ("source", "stage", "key", "priority", "due_at"), ("source", "stage", "key"), "")
"""Work that is added: what is there already stays as it is."""


class Statements:
    """The SQL that depends on a source's tables, composed once. Statements that end in IN take a list of keys."""

    def __init__(self, sql: Sql, item: Table, children: Mapping[str, Table], others: Sequence[Table] = ()) -> None:
        table, key = quoted(item.name), quoted(item.columns[0].name)
        names = (*(column.name for column in item.columns), "extra")
        # What comes with an item's own request is not for its listing to overwrite.
        later = {*item.detailed, *(("extra",) if item.detailed else ())}
        changes = [_excluded(name) for name in (*names[1:], "listed_at") if name not in later]
        changes += [_kept(table, "fetched_at"), "unlisted_at = NULL", "gone_at = NULL"]
        # What its listing gives too, and its own request does not, stays.
        own = ", ".join(_excluded(name) if name in later else _kept(table, name) for name in names[1:])
        self.numbered = item.is_numbered
        position = quoted(item.position[-1]) if item.position else key if self.numbered else None
        within = f"{position} BETWEEN :lo AND :hi" if position else "true"
        in_scope = sql.condition(item.in_scope)
        self.items = Upsert(
            item.name, (*names, "first_seen_at", "listed_at", "fetched_at"), names[:1], ", ".join(changes)
        )
        self.own = Upsert(item.name, names, names[:1], own)
        self.work = WORK
        # An answer that names one thing twice keeps the last.
        self.others = {each.name: Upsert(each.name, _names(each), _names(each)[:1]) for each in others}
        self.children = {
            name: Upsert(name, (str(child.parent), *_names(child)), (str(child.parent), child.columns[0].name))
            for name, child in children.items()
        }
        self.known = f"{sql.select(key, 'fetched_at', *map(quoted, item.version))} FROM {table} WHERE {key} "
        stored = f"FROM {table} WHERE {within} AND unlisted_at IS NULL AND ({in_scope})"
        self.in_scope = f"{sql.select(key)} {stored}"
        self.count_in_scope = f"SELECT count(*) {stored}"
        self.not_listed_since = (
            f"{self.in_scope} AND listed_at < :began"
            " AND NOT EXISTS (SELECT 1 FROM work WHERE source = :source AND stage = 'item'"
            f" AND work.key = {sql.any_sql(f'{table}.{key}')})"
        )
        within = within.replace(":lo", "covered.lo").replace(":hi", "covered.hi")
        self._in_stretch = (
            f" ON covered.source = ? AND covered.sweep = ? AND {within}"
            f" AND ({in_scope.replace(':scope', 'covered.scope')}) WHERE unlisted_at IS NULL AND {table}.{key} IN "
        )
        self._table = table
        self.listed = f"UPDATE {table} SET listed_at = ? WHERE {key} IN "
        self.unlist = f"UPDATE {table} SET unlisted_at = ? WHERE {key} IN "
        self.gone = f"UPDATE {table} SET gone_at = ? WHERE gone_at IS NULL AND {key} IN "
        self.fetched = f"UPDATE {table} SET fetched_at = ?, gone_at = NULL WHERE {key} IN "
        self.fetched_among = f"{sql.select(key)} FROM {table} WHERE fetched_at IS NOT NULL AND {key} IN "
        self.clear = {
            name: f"DELETE FROM {quoted(name)} WHERE {quoted(str(child.parent))} IN "
            for name, child in children.items()
        }

    def count_by_stretch(self, join_coverage: str) -> str:
        """How many of some items each stretch of coverage holds."""
        return f"SELECT covered.scope, covered.lo, count(*) FROM {self._table} {join_coverage}{self._in_stretch}"


def _names(table: Table) -> tuple[str, ...]:
    return (*(column.name for column in table.columns), "extra")


def _excluded(name: str) -> str:
    return f"{quoted(name)} = excluded.{quoted(name)}"


def _kept(table: str, name: str) -> str:
    """What was there stays where nothing comes instead."""
    return f"{quoted(name)} = coalesce(excluded.{quoted(name)}, {table}.{quoted(name)})"


def quoted(name: str) -> str:
    """A name as SQL wants it."""
    return f'"{name}"'


def marks(count: int) -> str:
    """So many parameters."""
    return ", ".join("?" * count)
