"""Search in an SQLite file: words by FTS5, vectors all in memory."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fetcher.model import Key
from fetcher.search import text
from fetcher.search.fusion import Found
from fetcher.search.look import Look, Matches
from fetcher.stores.file import connect_readonly, explained
from fetcher.texts.chunk import Chunk

if TYPE_CHECKING:
    from fetcher.search.vectors import Vectors


class FileLooker:
    """Looks into a file, which it keeps closed in between; its vectors are loaded once, at the first need."""

    needs_numpy = True

    def __init__(self, path: Path, say: Callable[[str], None], lock: threading.Lock) -> None:
        self.path = path
        self.say = say
        self.lock = lock
        self.vectors: Vectors | None = None

    @contextmanager
    def looking(self) -> Iterator[Look]:
        """The file, open for one search. Raises StoreError."""
        with closing(connect_readonly(self.path)) as conn, explained(self.path):
            # A text that somebody else wrote may be anything.
            conn.text_factory = lambda data: data.decode("utf-8", "replace")
            yield _Look(self, conn)


class _Look:
    def __init__(self, looker: FileLooker, conn: sqlite3.Connection) -> None:
        self._looker = looker
        self._path = looker.path
        self._conn = conn

    def model(self) -> tuple[str, int] | None:
        """The model that made the vectors and their dimension; None where there are no vectors."""
        conn = self._conn
        (made,) = conn.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('models', 'vectors')").fetchone()
        model = conn.execute("SELECT name, dimension FROM models").fetchone() if made == 2 else None
        if model is None or conn.execute("SELECT 1 FROM vectors LIMIT 1").fetchone() is None:
            return None
        return str(model[0]), int(model[1])

    def as_of_now(self) -> None:
        """From here on all is seen as of one moment."""
        self._conn.execute("BEGIN")

    def matches(self, words: str, depth: int) -> Matches:
        """The best `depth` items and chunks that have all the words."""
        return text.matches(self._conn, self._path, words, depth)

    def nearest(self, vector: bytes) -> Iterator[Found]:
        """All chunks but those of documents that are no longer listed, those first whose vectors are nearest."""
        sql = (
            "SELECT documents.item, chunks.number FROM vectors JOIN chunks ON chunks.hash = vectors.hash"
            " JOIN documents ON documents.number = chunks.document"
            " WHERE vectors.rowid = ? AND documents.unlisted_at IS NULL ORDER BY chunks.number"
        )
        # Not only when the first is asked for: the lock orders the moments at which threads look.
        ranked = self._nearest(vector)
        return (
            Found(distance, item, number) for row, distance in ranked for item, number in self._conn.execute(sql, [row])
        )

    def _nearest(self, vector: bytes) -> Iterator[tuple[int, float]]:
        """The rows of all vectors that there are by now, nearest first."""
        # Only now: a search by words needs no numpy.
        from fetcher.search.vectors import Vectors

        looker = self._looker
        with looker.lock:
            if looker.vectors is None or 4 * looker.vectors.dimension != len(vector):
                looker.vectors = Vectors(len(vector) // 4)
            looker.vectors.refresh(self._conn)
            nearest = looker.vectors.nearest(vector)
            if skipped := looker.vectors.skipped:
                looker.say(
                    f"vectors of {self._path} that are passed over, being of another length or without direction:"
                    f" {skipped:,}"
                )
        return nearest

    def chunks(self, numbers: list[int]) -> dict[Key, tuple[Chunk, str]]:
        """Chunks by their numbers, each with the name of its document."""
        if not numbers:
            return {}
        rows = self._conn.execute(
            "SELECT chunks.number, documents.name, text, source_chapter, source_book, domain, category, position, id"
            " FROM chunks JOIN documents ON documents.number = chunks.document"
            " WHERE chunks.number IN (SELECT value FROM json_each(?))",
            [json.dumps(numbers)],
        )
        return {number: (Chunk(*columns), document) for number, document, *columns in rows}

    def snippets(self, found: Matches, index: str, rows: Iterable[Key]) -> dict[Key, dict[str, str]]:
        """What an index shows of those of `rows` that it has found, by column, hits between private marks."""
        return text.snippets(self._conn, self._path, found, index, rows)
