"""What can be exported of a database: the chunks, or any table or view, with what belongs to its rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fetcher.errors import ConfigurationError, StoreError
from fetcher.model import Table
from fetcher.place import Place
from fetcher.sources import registry
from fetcher.sources.rest import from_stored
from fetcher.stores.origin import description_of, source_of

Kind = Literal["integer", "real", "text", "blob", "any", "json", "vector", "rows"]
_KINDS: dict[str, Kind] = {"INTEGER": "integer", "INT": "integer", "REAL": "real", "TEXT": "text", "BLOB": "blob"}

_EXACT = 2**53
"""A whole number up to this is the same as a real one."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of what is exported: its name, what it holds, and the SQL that gives it.

    A `vector` has `dimension` numbers; `rows` are lists of what is made of the columns `fields`.
    """

    name: str
    kind: Kind
    sql: str
    dimension: int = 0
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows that can be read in the order of `key`; without a key, of a view, they are read in one go.

    `origin` is the SQL after FROM. Rows of `children` belong to those that their column `parent` names,
    and come as `lists` after the fields.
    """

    name: str
    origin: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    children: tuple[Child, ...] = ()
    lists: tuple[Field, ...] = ()

    def without(self, names: Collection[str]) -> Relation:
        """The same without some of the columns."""
        return replace(self, fields=tuple(each for each in self.fields if each.name not in names))


@dataclass(frozen=True, slots=True)
class Child:
    """A table whose rows belong to those of another: `parent` is its column that names them."""

    relation: Relation
    parent: str
    of: str


def quoted(name: str) -> str:
    """Any name as SQL wants it."""
    return '"' + name.replace('"', '""') + '"'


def chosen(conn: sqlite3.Connection, path: Path, table: str | None, json_columns: Collection[str]) -> Relation:
    """The table or view of that name, or the chunks if there are any, else the mirror's items.

    `json_columns` are those that hold JSON beside the ones known to. Raises ConfigurationError, StoreError.
    """
    if table is None:
        table = "chunks" if _has_chunks(conn) else _items(conn, path)
    if table == "chunks" and _exists(conn, "chunks") and _exists(conn, "documents"):
        return chunks()
    found = _relation(conn, path, table, json_columns)
    unknown = set(json_columns) - {each.name for each in found.fields}
    if unknown:
        raise no_such_column(found, unknown)
    return found


def chunks(*, dimension: int = 0) -> Relation:
    """The chunks of all documents that are still there, by document and position; with a dimension their vectors too.

    The index `chunks_category` has them in this order for each domain and category.
    """
    fields = chunk_fields()
    # CROSS keeps the order of the two: SQLite is not to sort what an index has sorted.
    origin = "chunks CROSS JOIN documents ON documents.number = chunks.document AND documents.unlisted_at IS NULL"
    if dimension:
        fields.append(Field("vector", "vector", "vectors.vector", dimension))
        origin += " LEFT JOIN vectors ON vectors.hash = chunks.hash"
    return Relation("chunks", origin, tuple(fields), ("chunks.document", "chunks.position"))


def chunk_fields() -> list[Field]:
    """What is exported of a chunk."""
    names = ("id", "text", "domain", "category", "source_book", "source_chapter", "position")
    fields = [Field(name, "integer" if name == "position" else "text", f"chunks.{name}") for name in names]
    return [*fields, Field("document", "text", "documents.name")]


def typed(conn: sqlite3.Connection, relation: Relation) -> Relation:
    """The same with the types of all columns known; where they are not declared, every row is asked."""
    unknown = [each for each in relation.fields if each.kind == "any"]
    if not unknown:
        return relation
    asked = [
        f"max({each.sql} IS NOT NULL AND ({what}))"
        for each in unknown
        for what in (
            *(f"typeof({each.sql}) = '{kind}'" for kind in ("integer", "real", "text", "blob")),
            f"typeof({each.sql}) = 'integer' AND {each.sql} NOT BETWEEN -{_EXACT} AND {_EXACT}",
        )
    ]
    row = conn.execute(f"SELECT {', '.join(asked)} FROM {relation.origin}").fetchone()
    kinds = {each.name: _kind_of(*map(bool, row[5 * at : 5 * at + 5])) for at, each in enumerate(unknown)}
    return replace(
        relation, fields=tuple(replace(each, kind=kinds.get(each.name, each.kind)) for each in relation.fields)
    )


def no_such_column(relation: Relation, names: Collection[str]) -> ConfigurationError:
    """The error that a table has no such columns."""
    known = ", ".join(each.name for each in relation.fields)
    return ConfigurationError(f"{relation.name} has no column {', '.join(sorted(names))}: it has {known}")


def _kind_of(integer: bool, real: bool, text: bool, blob: bool, large: bool) -> Kind:
    """What holds all values of a column as they are; where nothing else does, their text."""
    match (integer, real, text, blob):
        case (True, False, False, False):
            return "integer"
        case (_, True, False, False) if not large:
            return "real"
        case (False, False, False, True):
            return "blob"
    return "text"


def _exists(conn: sqlite3.Connection, name: str) -> bool:
    return conn.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [name]).fetchone() is not None


def _has_chunks(conn: sqlite3.Connection) -> bool:
    return _exists(conn, "chunks") and conn.execute("SELECT 1 FROM chunks LIMIT 1").fetchone() is not None


def _items(conn: sqlite3.Connection, path: Path) -> str:
    declared = [table.name for table in declared_tables(path)]
    for name in ("items", *declared[:1], "chunks"):
        if _exists(conn, name):
            return name
    raise StoreError(f"{path} has neither chunks nor items yet")


def declared_tables(path: Place) -> Sequence[Table]:
    """The tables of the source that a database mirrors; none where nobody knows it."""
    try:
        stored, name = description_of(path), source_of(path)
    except StoreError:
        return ()
    kind = registry().get(name) if stored is None else from_stored(stored)
    return kind.tables if kind is not None else ()


def _relation(conn: sqlite3.Connection, path: Path, name: str, json_columns: Collection[str] = ()) -> Relation:
    row = conn.execute(
        "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE", [name]
    ).fetchone()
    if row is None or row[0].startswith("sqlite_"):
        known = [
            each
            for (each,) in conn.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY 1")
            if not re.match(r"_?sqlite|.*_(config|data|docsize|idx|content)$", each)
        ]
        raise ConfigurationError(f"{path} has no table or view {name}: it has {', '.join(known)}")
    name, kind, without_rowid, strict = row
    columns = conn.execute(f"SELECT name, type, pk FROM pragma_table_xinfo({_text(name)}) WHERE hidden != 1").fetchall()
    holding_json = {"extra", *json_columns} | {
        column.name
        for table in declared_tables(path)
        if table.name == name
        for column in table.columns
        if column.type == "json"
    }
    if kind == "view":
        holding_json = set(json_columns)
    fields = tuple(
        Field(
            column,
            "json" if column in holding_json else _KINDS.get(declared.upper(), "any") if strict else "any",
            quoted(column),
        )
        for column, declared, _ in columns
    )
    primary = [quoted(column) for column, _, place in sorted(columns, key=lambda each: each[2]) if place]
    if kind == "view":
        key: Sequence[str] = ()
    elif primary and (strict or without_rowid):
        key = primary
    else:
        # Elsewhere a primary key may be null.
        taken = {column.lower() for column, _, _ in columns}
        key = [each for each in ("rowid", "_rowid_", "oid") if each not in taken][:1]
    children = _children(conn, path, name, [column for column, _, place in columns if place == 1])
    return Relation(name, quoted(name), fields, tuple(key), children)


def _children(conn: sqlite3.Connection, path: Path, name: str, key: Sequence[str]) -> tuple[Child, ...]:
    """The tables clustered by the rows of another: the first column of their key refers to it."""
    found = conn.execute(
        """SELECT child.name, referring."from" FROM pragma_table_list AS child
             JOIN pragma_foreign_key_list(child.name) AS referring
             JOIN pragma_table_info(child.name) AS own ON own.name = referring."from" AND own.pk = 1
            WHERE child.schema = 'main' AND child.wr AND referring."table" = ? ORDER BY child.name""",
        [name],
    ).fetchall()
    return tuple(Child(_relation(conn, path, child), parent, key[0]) for child, parent in found if key)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
