"""The tables and statements that follow from what a source declares."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from fetcher.model import Table, View

_TYPES = {"integer": "INTEGER", "boolean": "INTEGER", "real": "REAL", "text": "TEXT", "json": "TEXT"}
_OURS = "/* of fetcher */"
"""Marks a view that we may make anew: a view that its owner made under the same name is not ours to touch."""

_LIFE = ("first_seen_at", "listed_at", "fetched_at", "unlisted_at", "gone_at")


def make_table(conn: sqlite3.Connection, table: Table, item: Table) -> None:
    """Make a source's table, or add the columns that it lacks; `item` is the source's item table."""
    columns = {column.name: _TYPES[column.type] for column in table.columns} | {"extra": "TEXT"}
    key_type = _TYPES[item.columns[0].type]
    if table.parent is None:
        if table is item:
            columns |= dict.fromkeys(_LIFE, "INTEGER")
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


DETAILED = "the item's own"
"""Names the statement that writes rows of items which their own requests gave."""


class Statements:
    """The SQL that depends on a source's tables, composed once.

    Rows are asked for as one JSON text, and written many at a time: sqlite3 gives up the GIL for every row that it
    steps to, and beside busy workers each time costs more than the row. Those that end in IN take a list of keys.
    """

    def __init__(self, item: Table, children: Mapping[str, Table], others: Sequence[Table] = ()) -> None:
        table, key = quoted(item.name), quoted(item.columns[0].name)
        columns = [*(quoted(column.name) for column in item.columns), "extra"]
        listed = [*columns, "listed_at"]
        # What comes with an item's own request is not for its listing to overwrite.
        later = {*map(quoted, item.detailed), *(("extra",) if item.detailed else ())}
        changes = [f"{name} = excluded.{name}" for name in listed[1:] if name not in later]
        changes += ["fetched_at = ifnull(excluded.fetched_at, fetched_at)", "unlisted_at = NULL", "gone_at = NULL"]
        # What its listing gives too, and its own request does not, stays.
        own = ", ".join(
            f"{name} = excluded.{name}" if name in later else f"{name} = ifnull(excluded.{name}, {table}.{name})"
            for name in columns[1:]
        )
        self.numbered = item.is_numbered
        position = quoted(item.position[-1]) if item.position else key if self.numbered else None
        within = f"{position} BETWEEN :lo AND :hi" if position else "1"
        self._many: dict[str, tuple[str, int, str]] = {
            item.name: (
                f"INSERT INTO {table} ({', '.join([*columns, 'first_seen_at', 'listed_at', 'fetched_at'])}) VALUES ",
                len(columns) + 3,
                f" ON CONFLICT ({key}) DO UPDATE SET {', '.join(changes)}",
            ),
            DETAILED: (
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ",
                len(columns),
                f" ON CONFLICT ({key}) DO UPDATE SET {own}",
            ),
            "work": (
                "INSERT INTO work (source, stage, key, priority, due_at) VALUES ",
                5,
                " ON CONFLICT DO NOTHING",
            ),
        }
        known = ", ".join([key, "fetched_at", *map(quoted, item.version)])
        self.known = f"SELECT json_group_array(json_array({known})) FROM {table} WHERE {key} "
        self.in_scope = (
            f"SELECT json_group_array({key}) FROM {table} WHERE {within} AND unlisted_at IS NULL AND ({item.in_scope})"
        )
        self.count_in_scope = self.in_scope.replace(f"json_group_array({key})", "count(*)")
        in_scope = item.in_scope.replace(":scope", "covered.scope")
        within = within.replace(":lo", "covered.lo").replace(":hi", "covered.hi")
        self.count_by_stretch = (
            # CROSS keeps the order: from the few items to the stretches that hold them.
            f"SELECT covered.scope, covered.lo, count(*) FROM {table} CROSS JOIN coverage AS covered"
            f" ON covered.source = ? AND covered.sweep = ? AND {within} AND ({in_scope})"
            f" WHERE unlisted_at IS NULL AND {table}.{key} IN "
        )
        self.not_listed_since = (
            f"{self.in_scope} AND listed_at < :began"
            " AND NOT EXISTS (SELECT 1 FROM work WHERE source = :source AND stage = 'item'"
            f" AND work.key = {table}.{key})"
        )
        self.listed = f"UPDATE {table} SET listed_at = ? WHERE {key} IN "
        self.unlist = f"UPDATE {table} SET unlisted_at = ? WHERE {key} IN "
        self.gone = f"UPDATE {table} SET gone_at = ? WHERE gone_at IS NULL AND {key} IN "
        self.fetched = f"UPDATE {table} SET fetched_at = ?, gone_at = NULL WHERE {key} IN "
        self.fetched_among = f"SELECT json_group_array({key}) FROM {table} WHERE fetched_at IS NOT NULL AND {key} IN "
        for other in others:
            names = [*(quoted(column.name) for column in other.columns), "extra"]
            self._many[other.name] = (
                f"INSERT OR REPLACE INTO {quoted(other.name)} ({', '.join(names)}) VALUES ",
                len(names),
                "",
            )
        self.clear: dict[str, str] = {}
        for name, child in children.items():
            parent = quoted(child.parent or "")
            self.clear[name] = f"DELETE FROM {quoted(name)} WHERE {parent} IN "
            names = [parent, *(quoted(column.name) for column in child.columns), "extra"]
            # An answer that names one thing twice keeps the last.
            self._many[name] = (
                f"INSERT OR REPLACE INTO {quoted(name)} ({', '.join(names)}) VALUES ",
                len(names),
                "",
            )

    def insert(self, table: str, rows: int) -> str:
        """The statement that writes so many rows of a table at once."""
        into, width, then = self._many[table]
        return into + ", ".join([f"({marks(width)})"] * rows) + then


def quoted(name: str) -> str:
    """A name as SQL wants it."""
    return f'"{name}"'


def marks(count: int) -> str:
    """So many parameters."""
    return ", ".join("?" * count)
