"""What the tests of texts share: books to read, a function that embeds, and what databases agree on."""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fetcher.place import is_url
from tests.helpers import Rows, query

DIMENSION = 8


def vector(text: str) -> list[float]:
    """Another vector for every text, of length 1."""
    numbers = [byte - 127.5 for byte in hashlib.blake2b(text.encode(), digest_size=DIMENSION).digest()]
    length = math.sqrt(sum(each * each for each in numbers))
    return [each / length for each in numbers]


def stored(text: str) -> bytes:
    """The vector of a text as the database has it."""
    return struct.pack(f"<{DIMENSION}f", *vector(text))


def embed_here(texts: Sequence[str]) -> list[list[float]]:
    """An embedder for runs in processes of their own: `tests.texts:embed_here`."""
    return [vector(text) for text in texts]


class Embedder:
    """Embeds in memory, and keeps what it was asked for; `before` is called with each batch."""

    __qualname__ = "Embedder"

    def __init__(self, before: Callable[[Sequence[str]], Any] = lambda _: None) -> None:
        self.batches: list[list[str]] = []
        self._before = before
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self._before(texts)
        with self._lock:
            self.batches.append(list(texts))
        return embed_here(texts)

    @property
    def texts(self) -> list[str]:
        """All texts but those that ask for a sign of life."""
        return [text for batch in self.batches for text in batch if text != "fetcher"]


def write_book(folder: Path, name: str, chapters: int = 3, paragraphs: int = 4) -> Path:
    """A Markdown book of which each paragraph is a chunk of its own, for a `chunk_size` of 200."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {name}"]
    for chapter in range(chapters):
        lines.append(f"## Chapter {chapter}")
        lines += [f"{name} {chapter} {number} " + "word " * 25 for number in range(paragraphs)]
    path = folder / f"{name}.md"
    path.write_text("\n\n".join(lines) + "\n")
    return path


def texts_dump(db: Path | str) -> dict[str, Rows]:
    """What two databases agree on that the same documents were read into, whatever befell the runs."""
    vector = "vector::real[]" if is_url(db) else "vector"
    key = "key #>> '{}'" if is_url(db) else "key"
    listed = query(db, "SELECT name, item, version, chunks, unlisted_at IS NULL FROM documents ORDER BY name")
    return {
        # Whether something is so is a number in SQLite.
        "documents": [(*row[:4], int(row[4])) for row in listed],
        "chunks": query(
            db,
            "SELECT chunks.id, name, position, text, hash, domain, category, source_book, source_chapter"
            " FROM chunks JOIN documents ON documents.number = document ORDER BY name, position",
        ),
        "vectors": query(db, f"SELECT hash, {vector} FROM vectors ORDER BY hash"),
        "models": query(db, "SELECT name, dimension FROM models"),
        "work": query(db, f"SELECT stage, {key}, outcome FROM work WHERE stage != 'aggregate' ORDER BY 1, 2"),
    }


def assert_whole(db: Path | str) -> None:
    """Every document is read, every text has its vector, the totals and the full-text search say what is there."""
    assert query(db, "SELECT name FROM documents WHERE version IS NULL AND unlisted_at IS NULL") == []
    missing = "SELECT id FROM chunks WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.hash = chunks.hash)"
    assert query(db, missing) == []
    vector = "vector::real[]" if is_url(db) else "vector"
    for hash_, text, blob in query(db, f"SELECT chunks.hash, text, {vector} FROM chunks JOIN vectors USING (hash)"):
        assert blob == stored(text), hash_
    counted = query(
        db,
        "SELECT number, chunks, (SELECT count(*) FROM chunks WHERE document = documents.number) FROM documents"
        " WHERE version IS NOT NULL",
    )
    assert [(number, chunks) for number, chunks, real in counted if chunks != real] == []
    assert_totals(db)


def assert_totals(db: Path | str) -> None:
    """What is kept of each stage is what its work is."""
    kept = {stage: (work, parked) for stage, work, parked in query(db, "SELECT stage, work, parked FROM stages")}
    real = {
        stage: (work, parked)
        for stage, work, parked in query(
            db, "SELECT stage, count(due_at), count(*) - count(due_at) FROM work GROUP BY stage"
        )
    }
    assert {stage: each for stage, each in kept.items() if each != (0, 0)} == real
