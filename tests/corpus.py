"""Databases of documents, chunks and vectors made by hand, and an embedder of a few lines, for tests of the search."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fetcher.stores.file import connect
from fetcher.stores.texts import SCHEMA
from fetcher.texts.chunk import chunk_id, text_hash

DIMENSION = 64


class WordHashes:
    """Counts the words of a text in so many places, chosen by what each word begins with: `whales` is near `whaling`.

    It can be told to fail, and counts what it was asked.
    """

    def __init__(self, name: str = "word-hashes", dimension: int = DIMENSION) -> None:
        self.name = name
        self.dimension = dimension
        self.asked: list[str] = []
        self.error: Exception | None = None

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        self.asked += texts
        if self.error is not None:
            raise self.error
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> bytes:
        counts = [0.0] * self.dimension
        for word in re.findall(r"\w+", text.casefold()):
            digest = hashlib.blake2b(word[:4].encode(), digest_size=8).digest()
            counts[int.from_bytes(digest, "big") % self.dimension] += 1
        return struct.pack(f"<{self.dimension}f", *counts)


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes, committed at the end; a new database gets the tables of texts."""
    conn = connect(path)
    try:
        conn.execute("BEGIN")
        if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'chunks'").fetchone():
            for statement in SCHEMA:
                conn.execute(statement)
        yield conn
        conn.execute("COMMIT")
    finally:
        conn.close()


def add(
    path: Path,
    document: str,
    *texts: str,
    item: Any = None,
    chapter: str | None = None,
    embedder: WordHashes | None = None,
) -> None:
    """Add a document with a chunk for each text; with an embedder also their vectors."""
    with writing(path) as conn:
        (number,) = conn.execute(
            "INSERT INTO documents (name, item, first_seen_at, listed_at) VALUES (?, ?, 0, 0) RETURNING number",
            [document, item],
        ).fetchone()
        for position, text in enumerate(texts):
            (chunk,) = conn.execute(
                "INSERT INTO chunks (id, document, position, text, hash, domain, category, source_book, source_chapter)"
                " VALUES (?, ?, ?, ?, ?, 'nature', 'animals', ?, ?) RETURNING number",
                [chunk_id(document, position), number, position, text, text_hash(text), Path(document).stem, chapter],
            ).fetchone()
            conn.execute(
                "INSERT INTO chunks_search (rowid, text, source_chapter) VALUES (?, ?, ?)", [chunk, text, chapter]
            )
            if embedder is not None:
                store_vector(conn, text, embedder)


def store_vector(conn: sqlite3.Connection, text: str, embedder: WordHashes) -> None:
    """The vector of a text, and the model it is of, where they are not there yet."""
    vector = embedder._vector(text)
    conn.execute("INSERT OR IGNORE INTO models VALUES (?, ?, 0)", [embedder.name, embedder.dimension])
    conn.execute("INSERT OR IGNORE INTO vectors VALUES (?, ?)", [text_hash(text), vector])
