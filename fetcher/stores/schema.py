"""The tables and statements that follow from what a source declares."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from fetcher.model import Table

_TYPES = {"integer": "INTEGER", "boolean": "INTEGER", "real": "REAL", "text": "TEXT", "json": "TEXT"}
_LIFE = ("first_seen_at", "listed_at", "fetched_at", "unlisted_at", "gone_at")


def make_table(conn: sqlite3.Connection, table: Table, item: Table) -> None:
    """Make a source's table, or add the columns that it lacks; `item` is the source's item table."""
    columns = {column.name: _TYPES[column.type] for column in table.columns} | {"extra": "TEXT"}
    key_type = _TYPES[item.columns[0].type]
    if table.parent is None:
        columns |= dict.fromkeys(_LIFE, "INTEGER")
        key = f'PRIMARY KEY ("{item.columns[0].name}")'
        ending = "STRICT"
    else:
        columns = {table.parent: f'{key_type} NOT NULL REFERENCES "{item.name}"'} | columns
        key = f'PRIMARY KEY ("{table.parent}", "{table.columns[0].name}")'
        ending = "STRICT, WITHOUT ROWID"
    present = {row[1] for row in conn.execute(f'PRAGMA table_info("{table.name}")')}
    if not present:
        needed = {column.name for column in table.columns if column.required}
        declared = [f'"{name}" {type_}{" NOT NULL" if name in needed else ""}' for name, type_ in columns.items()]
        conn.execute(f'CREATE TABLE "{table.name}" ({", ".join([*declared, key])}) {ending}')
        if table.parent is None:
            for mark in ("unlisted_at", "gone_at"):
                conn.execute(
                    f'CREATE INDEX "{table.name}_{mark}" ON "{table.name}" ("{mark}") WHERE "{mark}" IS NOT NULL'
                )
    for name, type_ in columns.items():
        if present and name not in present:
            conn.execute(f'ALTER TABLE "{table.name}" ADD COLUMN "{name}" {type_}')


class Statements:
    """The SQL that depends on a source's tables, composed once."""

    def __init__(self, item: Table, children: Mapping[str, Table]) -> None:
        table, key = quoted(item.name), quoted(item.columns[0].name)
        columns = [*(quoted(column.name) for column in item.columns), "extra"]
        listed = [*columns, "listed_at"]
        changes = [f"{name} = excluded.{name}" for name in listed[1:]] + ["unlisted_at = NULL", "gone_at = NULL"]
        self.upsert_item = (
            f"INSERT INTO {table} ({', '.join([*columns, 'first_seen_at', 'listed_at'])})"
            f" VALUES ({_marks(len(columns) + 2)}) ON CONFLICT ({key}) DO UPDATE SET {', '.join(changes)}"
        )
        self.known = f"SELECT {key}, fetched_at FROM {table} WHERE {key} BETWEEN ? AND ?"
        self.in_scope = (
            f"SELECT {key} FROM {table} WHERE {key} BETWEEN :lo AND :hi AND unlisted_at IS NULL AND ({item.in_scope})"
        )
        self.unlist = f"UPDATE {table} SET unlisted_at = ? WHERE {key} = ?"
        self.gone = f"UPDATE {table} SET gone_at = ? WHERE {key} = ? AND gone_at IS NULL"
        self.fetched = f"UPDATE {table} SET fetched_at = ?, gone_at = NULL WHERE {key} = ?"
        self.fetched_among = f"SELECT {key} FROM {table} WHERE {key} IN ({{}}) AND fetched_at IS NOT NULL"
        self.clear: dict[str, str] = {}
        self._insert: dict[str, tuple[str, str]] = {}
        for name, child in children.items():
            parent = quoted(child.parent or "")
            self.clear[name] = f"DELETE FROM {quoted(name)} WHERE {parent} = ?"
            names = [parent, *(quoted(column.name) for column in child.columns), "extra"]
            # An answer that names one thing twice keeps the last.
            into = f"INSERT OR REPLACE INTO {quoted(name)} ({', '.join(names)}) VALUES "
            self._insert[name] = (into, f"({_marks(len(names))})")

    def insert(self, name: str, rows: int) -> str:
        """The statement that inserts so many rows of a child table at once."""
        into, one = self._insert[name]
        return into + ", ".join([one] * rows)


def quoted(name: str) -> str:
    """A name as SQL wants it."""
    return f'"{name}"'


def _marks(count: int) -> str:
    return ", ".join("?" * count)
