"""Search in a PostgreSQL database: words by `tsvector`, vectors by pgvector."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from fetcher.errors import ConfigurationError, StoreError
from fetcher.model import Key
from fetcher.place import PostgresUrl
from fetcher.search.fusion import Found, distinct, fused
from fetcher.search.hits import PRIVATE_MARKS, WORDS
from fetcher.search.look import CHUNKS, ITEMS, Look, Matches
from fetcher.search.query import NoQuery, Phrase, Query, parsed, phrases, plain, tsquery
from fetcher.search.text import nothing_searched
from fetcher.stores.opening import reading
from fetcher.stores.postgres.words import WORD, words_of
from fetcher.stores.sql import Sql
from fetcher.texts.chunk import Chunk

_CHUNKS = ("text", "source_chapter")

_RANK = "-ts_rank_cd('{1,1,1,1}', words, to_tsquery('simple', ?), 1)"
"""By how close together the words stand, longer texts a little lower; all columns count alike."""

_RANKED = {
    ITEMS: f"SELECT {_RANK} AS rank, id, NULL FROM search WHERE words @@ to_tsquery('simple', ?) ORDER BY 1, 2 LIMIT ?",
    CHUNKS: f"SELECT {_RANK} AS rank, documents.item, chunks.number FROM chunks"
    " JOIN documents ON documents.number = chunks.document"
    " WHERE words @@ to_tsquery('simple', ?) AND documents.unlisted_at IS NULL ORDER BY 1, 3 LIMIT ?",
}

MOST_WHOLE = 2000
"""Numbers of a vector that pgvector has an index for; longer ones it takes with half the digits."""

_FIRST = 200
"""So many of what is found are asked for at first, four times as many each time that those were not enough."""


class ServerLooker:
    """Looks into a database of a server, by a connection each time."""

    needs_numpy = False

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url

    @contextmanager
    def looking(self) -> Iterator[Look]:
        """The database, open for one search. Raises StoreError."""
        with reading(self._url) as sql:
            yield _Look(self._url, sql)


class _Look:
    def __init__(self, url: PostgresUrl, sql: Sql) -> None:
        self._url = url
        self._sql = sql

    def model(self) -> tuple[str, int] | None:
        """The model that made the vectors and their dimension; None where there are no vectors."""
        if not self._sql.has("vectors"):
            return None
        row = self._sql.execute("SELECT name, dimension FROM models WHERE EXISTS (SELECT 1 FROM vectors)").fetchone()
        return None if row is None else (row[0], row[1])

    def as_of_now(self) -> None:
        """From here on all is seen as of one moment."""
        self._sql.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")

    def matches(self, words: str, depth: int) -> Matches:
        """The best `depth` items and chunks that have all the words, which may be a query of FTS5's."""
        columns = self._columns()
        queries: dict[str, Query | None] = {}
        for index, names in columns.items():
            try:
                queries[index] = parsed(words, names)
            except NoQuery:
                continue
        if not queries:
            queries = dict.fromkeys(columns, plain(words))
        found = [
            ranking
            for index, query in queries.items()
            if query is not None and (ranking := self._ranking(index, tsquery(query, columns[index]), depth))
        ]
        return Matches(fused(found, depth) if len(found) > 1 else next(iter(found), []), queries)

    def _ranking(self, index: str, query: str, depth: int) -> list[Found]:
        most = max(_FIRST, depth)
        while True:
            rows = self._sql.execute(_RANKED[index], [query, query, most]).fetchall()
            ranking = list(islice(distinct(Found(*row) for row in rows), depth))
            # Many chunks may be of one item.
            if len(ranking) == depth or len(rows) < most:
                return ranking
            most *= 4

    def _columns(self) -> dict[str, Sequence[str]]:
        """The columns of each index that there is. Raises StoreError."""
        found: dict[str, Sequence[str]] = {}
        if self._sql.has("search"):
            if self._sql.execute("SELECT 1 FROM sources WHERE search_filled_to IS NOT NULL").fetchone():
                raise StoreError(
                    f"the full-text search of {self._url} is not whole yet: let `fetcher fetch` go on with it"
                )
            rows = self._sql.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('search_text') AND attnum > 1"
                " AND NOT attisdropped ORDER BY attnum"
            )
            found[ITEMS] = [name for (name,) in rows]
        if self._sql.has("chunks"):
            found[CHUNKS] = _CHUNKS
        if not found:
            (name,) = self._sql.execute("SELECT name FROM sources").fetchone()
            raise nothing_searched(self._url, name)
        return found

    def nearest(self, vector: bytes) -> Iterator[Found]:
        """All chunks but those of documents that are no longer listed, those first whose vectors are nearest."""
        home = self._sql.execute(
            "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
            " WHERE extname = 'vector'"
        ).fetchone()[0]
        (name, size) = self._sql.execute("SELECT name, dimension FROM models").fetchone()
        if 4 * size != len(vector):
            raise ConfigurationError(f"the vectors of {self._url} are of {name} ({size} dimensions)")
        numbers = array("f", vector)
        if sys.byteorder == "big":
            numbers.byteswap()
        distance = distance_of(home, size)
        # Where there is an index it is walked on for as long as more is wanted.
        self._sql.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")
        self._sql.execute("SELECT set_config('hnsw.ef_search', '200', true)")
        self._sql.execute(
            f"DECLARE nearest NO SCROLL CURSOR FOR SELECT hash, {distance} FROM vectors ORDER BY {distance}",
            [f"[{','.join(map(repr, numbers))}]"] * 2,
        )
        some = 128
        while rows := self._sql.execute(f"FETCH {some} FROM nearest").fetchall():
            # To a vector without direction nothing is near.
            near = {hash_: distance for hash_, distance in rows if distance == distance}
            found = self._sql.execute(
                "SELECT hash, documents.item, chunks.number FROM chunks JOIN documents ON documents.number = document"
                " WHERE hash = ANY(?) AND unlisted_at IS NULL ORDER BY chunks.number",
                [list(near)],
            ).fetchall()
            yield from sorted((Found(near[hash_], item, number) for hash_, item, number in found), key=_rank)
            some = min(4 * some, 4096)

    def chunks(self, numbers: list[int]) -> dict[Key, tuple[Chunk, str]]:
        """Chunks by their numbers, each with the name of its document."""
        if not numbers:
            return {}
        rows = self._sql.execute(
            "SELECT chunks.number, documents.name, text, source_chapter, source_book, domain, category, position, id"
            " FROM chunks JOIN documents ON documents.number = chunks.document WHERE chunks.number = ANY(?)",
            [numbers],
        ).fetchall()
        return {number: (Chunk(*columns), document) for number, document, *columns in rows}

    def snippets(self, found: Matches, index: str, rows: Iterable[Key]) -> dict[Key, dict[str, str]]:
        """What an index shows of those of `rows` that it has found, by column, hits between private marks."""
        query = found.queries.get(index)
        keys = list(rows)
        if query is None or not keys:
            return {}
        columns = self._columns()[index]
        table, key = ("search_text", "id") if index == ITEMS else ("chunks", "number")
        searched = "search" if index == ITEMS else "chunks"
        among = f"SELECT {key} FROM {searched} WHERE words @@ to_tsquery('simple', ?) AND {key} = ANY(?)"
        names = ", ".join(f'"{name}"' for name in columns)
        told = self._sql.execute(
            f"SELECT {key}, {names} FROM {table} WHERE {key} IN ({among})", [tsquery(query, columns), keys]
        ).fetchall()
        wanted = list(phrases(query))
        return {
            number: {name: _snippet(text or "", name, wanted) for name, text in zip(columns, texts, strict=True)}
            for number, *texts in told
        }


def distance_of(home: str, size: int) -> str:
    """The cosine distance (SQL) of a vector of this size, with pgvector in the schema `home`, as an index has it."""
    kind, column = "vector", "vectors.vector"
    if size > MOST_WHOLE:
        kind, column = "halfvec", f"vectors.vector::{home}.halfvec({size})"
    return f"({column} OPERATOR({home}.<=>) CAST(? AS {home}.{kind}({size})))"


def _rank(found: Found) -> float:
    return found.rank


def _snippet(text: str, column: str, wanted: Sequence[Phrase]) -> str:
    """The part of a text with the most of the phrases, hits between private marks; its beginning where it has none."""
    places = list(WORD.finditer(text))
    words = ["".join(words_of(each[0])) for each in places]
    hits = list(_hits(words, [each for each in wanted if each.columns is None or column in each.columns]))
    start = 0
    if len(words) > WORDS and hits:
        start = _best(hits, len(words))
    end = min(len(words), start + WORDS)
    shown = text[places[start].start() if start else 0 : places[end - 1].end() if 0 < end < len(words) else len(text)]
    offset = places[start].start() if start else 0
    for first, last in reversed([each for each in hits if start <= each[0] and each[1] < end]):
        begin, stop = places[first].start() - offset, places[last].end() - offset
        shown = f"{shown[:begin]}{PRIVATE_MARKS[0]}{shown[begin:stop]}{PRIVATE_MARKS[1]}{shown[stop:]}"
    return f"{'…' if start else ''}{shown}{'…' if end < len(words) else ''}"


def _hits(words: Sequence[str], wanted: Sequence[Phrase]) -> Iterator[tuple[int, int]]:
    """From which to which word the phrases stand, in order; what overlaps is one hit."""
    found = []
    for phrase in wanted:
        *whole, last = phrase.words
        for at in range(len(words) - len(whole)):
            end = at + len(whole)
            if (words[end] == last or (phrase.begun and words[end].startswith(last))) and words[at:end] == whole:
                found.append((at, end))
    at = -1
    begun: tuple[int, int] | None = None
    for first, last_ in sorted(found):
        if begun is not None and first <= at:
            at = max(at, last_)
            begun = (begun[0], at)
            continue
        if begun is not None:
            yield begun
        begun, at = (first, last_), last_
    if begun is not None:
        yield begun


def _best(hits: Sequence[tuple[int, int]], count: int) -> int:
    """Where the part with the most hits begins, with a little of what stands before them."""
    best, most, behind = 0, 0, 0
    for number, (first, _) in enumerate(hits):
        while behind < len(hits) and hits[behind][1] < first + WORDS:
            behind += 1
        if behind - number > most:
            best, most = number, behind - number
    span = hits[best + most - 1][1] - hits[best][0] + 1 if most else 1
    return max(0, min(hits[best][0] - (WORDS - span) // 2, count - WORDS))
