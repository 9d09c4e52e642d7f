"""Full-text search of a mirror's items in PostgreSQL: their words, kept in step with their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from fetcher.errors import Interrupted, StoreError
from fetcher.model import Key, Row, Table
from fetcher.stores.postgres.connection import PostgresSql
from fetcher.stores.postgres.database import Database
from fetcher.stores.postgres.words import folded
from fetcher.stores.schema import quoted
from fetcher.stores.search import STEP, places, text_of
from fetcher.stores.sql import Sql, Upsert

_OURS = "of fetcher: "
_BEFORE_ALL = -(2**63)
_WORDS = Upsert("search", ("id", "words"), ("id",))


class Search:
    """The table `search`: the words of each fetched item, and `search_text`, a view of its texts.

    The columns of the view are the searched tables, in the order of their weights.
    """

    def __init__(self, item: Table, tables: Sequence[Table]) -> None:
        # As in SQLite what comes last is longest, and comes first.
        self._tables = [table for table in reversed(tables) if table.search]
        self._at = {table.name: places(table) for table in self._tables}
        key = quoted(item.columns[0].name)
        texts = ", ".join(f"({_text_sql(table, item)}) AS {quoted(table.name)}" for table in self._tables)
        self._view = f"SELECT {key} AS id, {texts} FROM {quoted(item.name)} WHERE fetched_at IS NOT NULL"

    @classmethod
    def of(cls, item: Table, children: Mapping[str, Table]) -> Search | None:
        """The search of a source's tables; None when nothing of them is searched or items have no whole numbers."""
        searched = any(table.search for table in children.values())
        return cls(item, list(children.values())) if searched and item.columns[0].type == "integer" else None

    def make(self, sql: PostgresSql, source: str) -> None:
        """Make its table and view, anew where they are not what the source declares now; to be filled then.

        Within a transaction. Raises StoreError when something else has their name.
        """
        said = f"{_OURS}{self._view}"
        present = {}
        for name in ("search", "search_text"):
            if sql.has(name):
                (comment,) = sql.execute("SELECT obj_description(to_regclass(?), 'pg_class')", [name]).fetchone()
                if not (comment or "").startswith(_OURS):
                    raise StoreError(f"the database has a table `{name}` of somebody else's: rename it")
                present[name] = comment
        if present == {"search": said, "search_text": said}:
            return
        sql.execute("DROP TABLE IF EXISTS search")
        sql.execute("DROP VIEW IF EXISTS search_text")
        sql.execute("CREATE TABLE search (id bigint PRIMARY KEY, words tsvector NOT NULL)")
        # To compress them takes longer than to make them.
        sql.execute("ALTER TABLE search SET (toast_tuple_target = 8160)")
        sql.execute(f"CREATE VIEW search_text AS {self._view}")
        comment = said.replace("'", "''")
        sql.execute(f"COMMENT ON TABLE search IS '{comment}'")
        sql.execute(f"COMMENT ON VIEW search_text IS '{comment}'")
        sql.execute("UPDATE sources SET search_filled_to = ? WHERE name = ? AND fetched > 0", [_BEFORE_ALL, source])

    def forget(self, conn: Sql, keys: Sequence[Key]) -> None:
        """Nothing: what is added takes the place of what was there."""

    def add(self, conn: Sql, keys: Sequence[Key], written: Mapping[str, Sequence[Sequence[Row]]]) -> None:
        """Put in items, once their rows are written; `written` has the rows of each of `keys`, sorted."""
        try:
            texts = [[text_of(rows, at) for rows in written[name]] for name, at in self._at.items()]
        except sqlite3.DataError as error:
            raise psycopg.DataError(str(error)) from None
        conn.insert(_WORDS, [(key, folded(each)) for key, *each in zip(keys, *texts, strict=True)])

    def fill(self, db: Database, source: str, stopped: Callable[[], bool], warn: Callable[[str], None]) -> None:
        """Put in all that was fetched before there was a search, or go on with that, a step a transaction.

        Raises Interrupted when it is to stop; what is done by then is kept.
        """
        filled, fetched = db.sql.execute(
            "SELECT search_filled_to, fetched FROM sources WHERE name = ?", [source]
        ).fetchone()
        if filled is not None and fetched > 10 * STEP:
            warn(f"making the full-text search of up to {fetched:,} items fetched before; this happens once")
        while filled is not None:
            if stopped():
                raise Interrupted("interrupted while the full-text search was made; what is done of it is kept")
            with db.transaction():
                rows: list[Any] = db.sql.execute(
                    f"SELECT * FROM search_text WHERE id > ? ORDER BY id LIMIT {STEP}", [filled]
                ).fetchall()
                db.sql.insert(_WORDS, [(key, folded(texts)) for key, *texts in rows])
                filled = rows[-1][0] if rows else None
                db.sql.execute("UPDATE sources SET search_filled_to = ? WHERE name = ?", [filled, source])


def _text_sql(table: Table, item: Table) -> str:
    """The SELECT of an item's text in one table: what `text_of` makes of the same rows."""
    text = " || chr(10) || ".join(f"coalesce({quoted(name)}, '')" for name in table.search)
    parent, first = quoted(table.parent or ""), quoted(table.columns[0].name)
    key = f"{quoted(item.name)}.{quoted(item.columns[0].name)}"
    return (
        f"SELECT string_agg({text}, chr(10) ORDER BY child.{first}) FROM {quoted(table.name)} AS child"
        f" WHERE child.{parent} = {key}"
    )
