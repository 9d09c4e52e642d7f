"""Full-text search in a mirror, also while a run writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError, StoreError
from fetcher.sources import registry
from fetcher.sources.rest import from_stored
from fetcher.stores.file import connect_readonly, description_of, explained

_WORDS = 64
"""Words in a snippet; FTS5 makes none longer."""

PRIVATE_MARKS = ("\ue000", "\ue001")
"""Marks that no text has: Unicode leaves them to private use."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that was found: its key, its rank (the lower, the better), and where the words are.

    `snippets` has, for each table with a hit, the lines around it: of short texts such as tags one line is one text.
    """

    key: int
    rank: float
    snippets: Mapping[str, tuple[str, ...]]


def search(db: str | Path, words: str, limit: int = 20, *, marks: tuple[str, str] = ("[", "]")) -> list[Hit]:
    """The items of the mirror `db` in whose texts all `words` are, best first, at most `limit`.

    `words` may be an FTS5 query (`"a phrase"`, `tags : word`, `one OR two`, `begin*`); what is none is searched word
    by word. Case and accents make no difference. Each hit in a snippet stands between the two `marks`.

    Raises ConfigurationError when there is nothing to look for, StoreError when `db` cannot be read or has no search.
    """
    # What no UTF-8 can be made of is in no text either.
    wanted = words.encode("utf-8", "replace").decode().replace("\0", " ").strip()
    if not wanted:
        raise ConfigurationError("there are no words to search for")
    if limit < 1:
        raise ConfigurationError(f"limit: must be at least 1, not {limit}")
    path = Path(db)
    with closing(connect_readonly(path)) as conn, explained(path):
        # A text that somebody else wrote may be anything.
        conn.text_factory = lambda data: data.decode("utf-8", "replace")
        tables = _tables(conn, path)
        snippets = ", ".join(f"snippet(search, {at}, ?, ?, '…', {_WORDS})" for at in range(len(tables)))
        sql = f"SELECT rowid, rank, {snippets} FROM search WHERE search MATCH ? ORDER BY rank LIMIT ?"
        rows = _rows(conn, sql, path, [*PRIVATE_MARKS * len(tables)], wanted, limit)
    # The table whose texts are the longest comes first in the index, and last to a reader.
    order = range(len(tables) - 1, -1, -1)
    return [
        Hit(row[0], row[1], {tables[at]: lines for at in order if (lines := _lines(row[2 + at], marks))})
        for row in rows
    ]


def _tables(conn: sqlite3.Connection, path: Path) -> list[str]:
    """The tables that are searched, as the index has them. Raises StoreError when there is no whole search yet."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'search_text'").fetchone():
        (name,) = conn.execute("SELECT name FROM sources").fetchone()
        stored = description_of(path)
        kind = registry().get(name) if stored is None else from_stored(stored)
        if kind is not None and not any(table.search for table in kind.tables):
            raise ConfigurationError(f"{name} has no texts that are searched: ask {path} in SQL")
        raise StoreError(f"{path} has no full-text search yet: the next `fetcher fetch` makes it")
    if conn.execute("SELECT 1 FROM sources WHERE search_filled_to IS NOT NULL").fetchone():
        raise StoreError(f"the full-text search of {path} is not whole yet: let `fetcher fetch` go on with it")
    return [name for (name,) in conn.execute("SELECT name FROM pragma_table_info('search')")]


def _rows(conn: sqlite3.Connection, sql: str, path: Path, marks: list[str], words: str, limit: int) -> list[Any]:
    plain = " ".join('"' + word.replace('"', '""') + '"' for word in words.split())
    for query in (words, plain):
        try:
            return conn.execute(sql, [*marks, query, limit]).fetchall()
        except sqlite3.OperationalError as error:
            # So FTS5 calls what it cannot parse, and a column that there is not; the file's errors have other codes.
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR or query is plain:
                raise
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            raise StoreError(
                f"the full-text search of {path} does not fit its tables, which somebody has changed: mend it by"
                f" sqlite-utils query {path} \"insert into search (search) values ('rebuild')\""
            ) from error
    raise AssertionError(words)


def _lines(snippet: str | None, marks: tuple[str, str]) -> tuple[str, ...]:
    """The lines of a snippet that have a hit, between marks of the caller's."""
    begin, end = PRIVATE_MARKS
    lines = (snippet or "").splitlines()
    return tuple(line.replace(begin, marks[0]).replace(end, marks[1]) for line in lines if begin in line)
