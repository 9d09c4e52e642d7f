"""Full-text search in PostgreSQL: its table, by what a batch keeps it, and filling it for an older mirror."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from fetcher.errors import Interrupted, StoreError
from fetcher.model import Key, Row, Table
from fetcher.stores.postgres.database import Database
from fetcher.stores.schema import quoted
from fetcher.stores.search import places, text_of

STEP = 500
"""So many items are filled in, in one transaction."""

MOST_CHARACTERS = 400_000
"""So much of a text is indexed: a tsvector of more than a megabyte is refused."""

_BEFORE_ALL = -(2**63)
_OURS = "of fetcher"
_BEYOND = re.compile(r"[^\x00-\x7f]+")
_SIGNS = re.compile(r"[^\w\x00-\x7f]+")
_MARKS = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_BYTES = bytes(each if each > 127 else ord(chr(each).lower()) if chr(each).isalnum() else 32 for each in range(256))
"""What becomes of the bytes of a text in UTF-8."""

WEIGHTS = "ABCD"
"""The words of each table have a weight of their own, by which they can be asked for alone."""


def folded(text: str) -> str:
    """The words of a text, as they are indexed and asked for: case and accents make no difference."""
    # Whoever commits competes with busy threads for the interpreter: each step is one call of C's.
    if not text.isascii():
        text = _BEYOND.sub(lambda found: _plain(found[0]), text)
    return text.encode("utf-8", "replace").translate(_BYTES).decode()


@lru_cache(10_000)
def _plain(signs: str) -> str:
    """Some characters beyond ASCII without accents and case, and without what is no letter or digit."""
    return _SIGNS.sub(" ", _MARKS.sub("", unicodedata.normalize("NFKD", signs)).casefold())


class Search:
    """The table `search`: for each fetched item the words of its texts, as a tsvector with an index (GIN)."""

    def __init__(self, db: Database, source: str, item: Table, tables: Sequence[Table]) -> None:
        self._db = db
        self._source = source
        self._item = item
        self.tables = [table for table in tables if table.search]
        self._at = {table.name: places(table) for table in self.tables}
        names = [f"t{number}" for number in range(len(self.tables))]
        words = " || ".join(
            f"setweight(to_tsvector('simple', {name}), '{weight}')"
            for name, weight in zip(names, _weights(len(names)), strict=True)
        )
        self._add = (
            f"INSERT INTO search (id, words) SELECT id, {words}"
            f" FROM unnest(%b::bigint[]{', %b::text[]' * len(names)}) AS new (id, {', '.join(names)})"
            " ON CONFLICT (id) DO UPDATE SET words = excluded.words"
        )

    @classmethod
    def of(cls, db: Database, source: str, item: Table, children: Mapping[str, Table]) -> Search | None:
        """The search of a source's tables; None when nothing of them is searched or items have no whole numbers."""
        searched = any(table.search for table in children.values())
        return (
            cls(db, source, item, list(children.values())) if searched and item.columns[0].type == "integer" else None
        )

    def make(self) -> None:
        """Make its table, anew where it is not what the source declares now; to be filled then.

        Within a transaction, when the row of the source is there. Raises StoreError when something else has its name.
        """
        sql = self._db.sql
        searched = [f"{table.name} ({', '.join(table.search)})" for table in self.tables]
        declared = f"{_OURS}: {'; '.join(searched)}"
        if sql.has("search"):
            (said,) = sql.execute("SELECT coalesce(obj_description(to_regclass('search')), '')").fetchone()
            if said == declared:
                return
            if not said.startswith(_OURS):
                raise StoreError(f"{self._db.path} has a table `search` of somebody else's: rename it")
            sql.execute("DROP TABLE search")
        sql.execute("CREATE TABLE search (id bigint PRIMARY KEY, words tsvector NOT NULL)")
        sql.execute("CREATE INDEX search_words ON search USING gin (words)")
        sql.execute(f"COMMENT ON TABLE search IS '{declared}'")
        sql.execute(
            "UPDATE sources SET search_filled_to = ? WHERE name = ? AND fetched > 0", [_BEFORE_ALL, self._source]
        )

    def forget(self, conn: Any, keys: Sequence[Key], /) -> None:
        """Nothing: whose rows are replaced, their words are too."""

    def add(self, conn: Any, keys: Sequence[Key], written: Mapping[str, Sequence[Sequence[Row]]], /) -> None:  # noqa: ARG002
        """Put in items, by one statement; `written` has for each table the rows of each of `keys`, sorted."""
        if keys:
            try:
                texts = [[_words(text_of(rows, at)) for rows in written[name]] for name, at in self._at.items()]
            except sqlite3.DataError as error:
                raise psycopg.DataError(str(error)) from None
            self._db.sql.conn.execute(self._add, [list(keys), *texts])

    def fill(self, stopped: Callable[[], bool], warn: Callable[[str], None]) -> None:
        """Put in all that was fetched before there was a search, or go on with that, a step a transaction.

        Raises Interrupted when it is to stop; what is done by then is kept.
        """
        sql = self._db.sql
        filled, fetched = sql.execute(
            "SELECT search_filled_to, fetched FROM sources WHERE name = ?", [self._source]
        ).fetchone()
        if filled is not None and fetched > 10 * STEP:
            warn(f"making the full-text search of up to {fetched:,} items fetched before; this happens once")
        while filled is not None:
            if stopped():
                raise Interrupted("interrupted while the full-text search was made; what is done of it is kept")
            with self._db.transaction():
                filled = self._fill_on(filled)

    def _fill_on(self, filled: int) -> int | None:
        """Put in some items above the key `filled`; the highest of them, None when there was none."""
        sql, key = self._db.sql, quoted(self._item.columns[0].name)
        keys = sql.array(
            f"SELECT {key} FROM {quoted(self._item.name)} WHERE {key} > ? AND fetched_at IS NOT NULL"
            f" ORDER BY {key} LIMIT {STEP}",
            [filled],
        )
        self.add(None, keys, {table.name: self._rows(table, keys) for table in self.tables})
        end = int(keys[-1]) if keys else None
        sql.execute("UPDATE sources SET search_filled_to = ? WHERE name = ?", [end, self._source])
        return end

    def _rows(self, table: Table, keys: Sequence[Key]) -> list[list[Row]]:
        found = rows_of(self._db.sql, table, keys)
        return [found.get(key, []) for key in keys]


def rows_of(sql: Any, table: Table, keys: Sequence[Key]) -> dict[Key, list[Row]]:
    """The rows that belong to some items, by item, in their order."""
    names = [str(table.parent), *(column.name for column in table.columns)]
    columns = ", ".join(map(quoted, names))
    found: dict[Key, list[Row]] = {}
    for row in sql.rows_for_keys(
        f"SELECT {columns} FROM {quoted(table.name)} WHERE {quoted(names[0])} IN ", keys, then="ORDER BY 1, 2"
    ):
        found.setdefault(row[0], []).append(row)
    return found


def weight_of(tables: Sequence[Table], name: str) -> str | None:
    """The weight of a table's words, by which alone they are asked for; None where there is no such table."""
    weights = dict(zip((table.name for table in tables), _weights(len(tables)), strict=True))
    return weights.get(name)


def _weights(count: int) -> str:
    return (WEIGHTS + WEIGHTS[-1] * count)[:count]


def _words(text: str) -> str:
    return folded(text[:MOST_CHARACTERS])[:MOST_CHARACTERS]
