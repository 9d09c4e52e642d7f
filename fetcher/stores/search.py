"""Full-text search: its tables, the statements by which a batch keeps them, and filling them for an older mirror."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from fetcher.errors import Interrupted, Stopped, StoreError
from fetcher.model import Key, Row, Table
from fetcher.stores.file import interruptible
from fetcher.stores.schema import marks, quoted

STEP = 500
"""So many items are filled in, in one transaction, or have their old text taken out by one statement."""

_BEFORE_ALL = -(2**63)

# The index is an LSM tree. Merged later than by default (4) it costs less to write; at 16 a commit stalls.
_AUTOMERGE = 8


class Search:
    """The table `search` (FTS5) over `search_text`, a view of each fetched item's texts; one column for each table.

    Its content is external: the index alone is stored, and the texts are those of the rows. So whoever replaces an
    item's rows has to take its old text out beforehand, word for word as it went in.
    """

    def __init__(self, item: Table, tables: Sequence[Table]) -> None:
        self._item = item
        # Last first: FTS5 stores two bytes less a word in its first column, and what comes last is longest.
        self._tables = [table for table in reversed(tables) if table.search]
        self._at = {table.name: places(table) for table in self._tables}
        columns = ", ".join(quoted(table.name) for table in self._tables)
        key = quoted(item.columns[0].name)
        texts = ", ".join(f"({_text_sql(table, item)}) AS {quoted(table.name)}" for table in self._tables)
        self._view = (
            f"CREATE VIEW search_text AS SELECT {key} AS id, {texts} FROM {quoted(item.name)}"
            " WHERE fetched_at IS NOT NULL"
        )
        self._table = (
            f"CREATE VIRTUAL TABLE search USING fts5({columns}, content='search_text', content_rowid='id',"
            " tokenize='unicode61 remove_diacritics 2')"
        )
        self._add = f"INSERT INTO search (rowid, {columns}) VALUES ({marks(len(self._tables) + 1)})"
        self._forget = (
            f"INSERT INTO search (search, rowid, {columns}) SELECT 'delete', id, {columns}"
            " FROM search_text WHERE id IN "
        )
        self._fill = (
            f"INSERT INTO search (rowid, {columns}) SELECT id, {columns} FROM search_text WHERE id > ? AND id <= ?"
        )
        self._step_end = (
            f"SELECT max(id) FROM (SELECT {key} AS id FROM {quoted(item.name)}"
            f" WHERE {key} > ? AND fetched_at IS NOT NULL ORDER BY {key} LIMIT {STEP})"
        )

    @classmethod
    def of(cls, item: Table, children: Mapping[str, Table]) -> Search | None:
        """The search of a source's tables; None when nothing of them is searched or items have no whole numbers."""
        searched = any(table.search for table in children.values())
        return cls(item, list(children.values())) if searched and item.columns[0].type == "integer" else None

    def make(self, conn: sqlite3.Connection, source: str) -> None:
        """Make its tables, anew where they are not what the source declares now; to be filled then.

        Within a transaction, when the row of `source` is there. Raises StoreError when something else has their name.
        """
        present = dict(conn.execute("SELECT name, sql FROM sqlite_master WHERE name IN ('search', 'search_text')"))
        if present == {"search": self._table, "search_text": self._view}:
            return
        if "content='search_text'" not in present.get("search", "content='search_text'"):
            raise StoreError("the database has a table `search` of somebody else's: rename it")
        conn.execute("DROP TABLE IF EXISTS search")
        conn.execute("DROP VIEW IF EXISTS search_text")
        conn.execute(self._view)
        conn.execute(self._table)
        conn.execute("INSERT INTO search (search, rank) VALUES ('automerge', ?)", [_AUTOMERGE])
        conn.execute("UPDATE sources SET search_filled_to = ? WHERE name = ? AND fetched > 0", [_BEFORE_ALL, source])

    def forget(self, conn: sqlite3.Connection, keys: Sequence[Key]) -> None:
        """Take out fetched items, whose rows are about to be replaced."""
        for start in range(0, len(keys), STEP):
            some = keys[start : start + STEP]
            conn.execute(f"{self._forget}({marks(len(some))})", some)

    def add(
        self, conn: sqlite3.Connection, keys: Sequence[Key], written: Mapping[str, Sequence[Sequence[Row]]]
    ) -> None:
        """Put in items that are not in it, by one statement, once their rows are written.

        `written` has, for each table, the rows of each of `keys`, sorted. Raises sqlite3.DataError when a value that is
        searched is no text.
        """
        # The texts come from memory: to read back the rows just written takes more time.
        texts = [[text_of(rows, at) for rows in written[name]] for name, at in self._at.items()]
        conn.executemany(self._add, zip(keys, *texts, strict=True))

    def fill(
        self,
        conn: sqlite3.Connection,
        source: str,
        transaction: Callable[[], AbstractContextManager[None]],
        stopped: Callable[[], bool],
        warn: Callable[[str], None],
    ) -> None:
        """Put in all that was fetched before there was a search, or go on with that, a step a transaction.

        Raises Interrupted when it is to stop; what is done by then is kept.
        """
        state = conn.execute("SELECT search_filled_to, fetched FROM sources WHERE name = ?", [source]).fetchone()
        filled, fetched = state
        if filled is None:
            return
        if fetched > 10 * STEP:
            warn(f"making the full-text search of up to {fetched:,} items fetched before; this happens once")
        try:
            while filled is not None:
                filled = self._fill_on(conn, source, filled, transaction, stopped)
        except Stopped:
            raise Interrupted("interrupted while the full-text search was made; what is done of it is kept") from None

    def _fill_on(
        self,
        conn: sqlite3.Connection,
        source: str,
        filled: int,
        transaction: Callable[[], AbstractContextManager[None]],
        stopped: Callable[[], bool],
    ) -> int | None:
        """Put in some items above the key `filled`; the highest of them, None when there was none."""
        if stopped():
            raise Stopped("stopped")
        with transaction(), interruptible(conn, stopped):
            (end,) = conn.execute(self._step_end, [filled]).fetchone()
            if end is not None:
                conn.execute(self._fill, [filled, end])
            conn.execute("UPDATE sources SET search_filled_to = ? WHERE name = ?", [end, source])
        return None if end is None else int(end)


def places(table: Table) -> tuple[int, ...]:
    """Where the searched columns are in a row, which begins with the item."""
    names = [column.name for column in table.columns]
    return tuple(names.index(name) + 1 for name in table.search)


def _text_sql(table: Table, item: Table) -> str:
    """The SELECT of an item's text in one table: what `text_of` makes of the same rows."""
    text = " || char(10) || ".join(f"ifnull({quoted(name)}, '')" for name in table.search)
    name, parent, first = quoted(table.name), quoted(table.parent or ""), quoted(table.columns[0].name)
    key = f"{quoted(item.name)}.{quoted(item.columns[0].name)}"
    return (
        f"SELECT group_concat(text, char(10)) FROM (SELECT {text} AS text FROM {name}"
        f" WHERE {parent} = {key} ORDER BY {name}.{first})"
    )


def text_of(rows: Sequence[Row], at: Sequence[int]) -> str:
    """The searched texts of an item's sorted rows; of two rows of one key the last counts."""
    kept = {row[1]: row for row in rows}.values()
    try:
        if len(at) == 1:
            (place,) = at
            return "\n".join([row[place] or "" for row in kept])
        return "\n".join([row[place] or "" for row in kept for place in at])
    except TypeError as error:
        raise sqlite3.DataError(f"a column that is searched holds texts: {error}") from None
