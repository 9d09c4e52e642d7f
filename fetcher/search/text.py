"""Full text: what the indexes of a database's items and chunks find by words."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError, FetcherError, StoreError
from fetcher.model import Key
from fetcher.place import Place
from fetcher.search.fusion import Found, distinct, fused
from fetcher.search.hits import PRIVATE_MARKS, WORDS
from fetcher.search.look import CHUNKS, ITEMS, Matches
from fetcher.sources import registry
from fetcher.sources.rest import from_stored
from fetcher.stores.origin import description_of

_RANKED = {
    ITEMS: "SELECT rank, rowid, NULL FROM search WHERE search MATCH ? ORDER BY rank",
    # In this order: each is looked up by its number as the index gives it, best first, and no further than asked.
    CHUNKS: "SELECT chunks_search.rank, documents.item, chunks.number FROM chunks_search"
    " CROSS JOIN chunks ON chunks.number = chunks_search.rowid"
    " CROSS JOIN documents ON documents.number = chunks.document"
    " WHERE chunks_search MATCH ? AND documents.unlisted_at IS NULL ORDER BY chunks_search.rank",
}


def indexes(conn: sqlite3.Connection, path: Path) -> list[str]:
    """The indexes that the database has. Raises StoreError when there is none yet, or one is not whole."""
    made = {
        name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE name IN ('search_text', ?)", [CHUNKS])
    }
    if "search_text" not in made and CHUNKS not in made:
        (name,) = conn.execute("SELECT name FROM sources").fetchone()
        raise nothing_searched(path, name)
    if "search_text" not in made:
        return [CHUNKS]
    if conn.execute("SELECT 1 FROM sources WHERE search_filled_to IS NOT NULL").fetchone():
        raise StoreError(f"the full-text search of {path} is not whole yet: let `fetcher fetch` go on with it")
    return [ITEMS, CHUNKS] if CHUNKS in made else [ITEMS]


def nothing_searched(path: Place, name: str) -> FetcherError:
    """Why there is no index in a database that mirrors the source of that name."""
    stored = description_of(path)
    kind = registry().get(name) if stored is None else from_stored(stored)
    if kind is not None and not any(table.search for table in kind.tables):
        return ConfigurationError(f"{name} has no texts that are searched: ask {path} in SQL")
    return StoreError(f"{path} has no full-text search yet: the next `fetcher fetch` makes it")


def matches(conn: sqlite3.Connection, path: Path, words: str, depth: int) -> Matches:
    """The best `depth` items and chunks that have all the words, which may be a query of FTS5's.

    Where both items and chunks are found, reciprocal rank makes one ranking of the two. Raises StoreError.
    """
    plain = " ".join('"' + word.replace('"', '""') + '"' for word in words.split())
    known = indexes(conn, path)
    for query in (words, plain):
        found = {}
        for index in known:
            try:
                with _explained(index, path):
                    found[index] = _ranking(conn, index, query, depth)
            except sqlite3.OperationalError as error:
                # So FTS5 calls what it cannot parse, and a column that it has not; the file's errors have other codes.
                if error.sqlite_errorcode != sqlite3.SQLITE_ERROR or query is plain:
                    raise
        if found:
            rankings = [ranking for ranking in found.values() if ranking]
            ranking = fused(rankings, depth) if len(rankings) > 1 else next(iter(rankings), [])
            return Matches(ranking, dict.fromkeys(found, query))
    raise AssertionError(words)


def _ranking(conn: sqlite3.Connection, index: str, query: str, depth: int) -> list[Found]:
    rows = conn.execute(_RANKED[index], [query])
    ranking = list(islice(distinct(Found(*row) for row in rows), depth))
    rows.close()
    return ranking


def snippets(
    conn: sqlite3.Connection, path: Path, found: Matches, index: str, rows: Iterable[Key]
) -> dict[Key, dict[str, str]]:
    """What an index shows of those of `rows` that it has found, by column, hits between private marks.

    Raises StoreError.
    """
    if index not in found.queries:
        return {}
    columns = [name for (name,) in conn.execute("SELECT name FROM pragma_table_info(?)", [index])]
    each = ", ".join(f"snippet({index}, {at}, ?, ?, '…', {WORDS})" for at in range(len(columns)))
    sql = f"SELECT rowid, {each} FROM {index} WHERE {index} MATCH ? AND rowid IN (SELECT value FROM json_each(?))"
    asked: list[Any] = [*PRIVATE_MARKS * len(columns), found.queries[index], json.dumps(list(rows))]
    with _explained(index, path):
        told = conn.execute(sql, asked).fetchall()
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in told}


@contextmanager
def _explained(index: str, path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        raise StoreError(
            f"the full-text search of {path} does not fit its tables, which somebody has changed: mend it by"
            f" sqlite-utils query {path} \"insert into {index} ({index}) values ('rebuild')\""
        ) from error
