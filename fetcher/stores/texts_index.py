"""What of the tables of texts differs from database to database: full-text search, and how vectors are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from fetcher.model import Failure, Row
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.sql import Session, Sql, Upsert

COLUMNS = ("document", "id", "position", "text", "hash", "domain", "category", "source_book", "source_chapter")
"""What is written of a chunk."""


class TextsIndex(Protocol):
    """Keeps the search of chunks in step with their rows, within each transaction."""

    def insert(self, chunks: Sequence[Row]) -> int:
        """Write chunks, but those whose ids are taken; how many were written."""
        ...

    def add(self, document: int, lo: int, hi: int, positions: Sequence[int] | None) -> None:
        """Chunks of a document were written between these positions; only those at `positions`, if any are named."""
        ...

    def forget(self, numbers: Sequence[int]) -> None:
        """These chunks are about to be removed."""
        ...

    def takes(self, name: str) -> bool:
        """Whether a document of this name can be kept."""
        ...

    def fit(self, dimension: int) -> None:
        """The vectors will have so many numbers; there are none yet."""
        ...

    def told(self, failure: Failure) -> Failure:
        """The failure as it can be written down."""
        ...

    def prepare_load(self, estimate: int) -> None:
        """About so many vectors are to come."""
        ...

    def finish_load(self) -> None:
        """Make what is made when all is written."""
        ...


class FileIndex:
    """SQLite: the table `chunks_search` (FTS5), and vectors as they are."""

    _INTO = Upsert("chunks", COLUMNS, ("id",), "")

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def insert(self, chunks: Sequence[Row]) -> int:
        """Write chunks, but those whose ids are taken; how many were written."""
        return self._sql.insert(self._INTO, chunks)

    def add(self, document: int, lo: int, hi: int, positions: Sequence[int] | None) -> None:
        """Put the chunks into the full-text search."""
        among = "" if positions is None else " AND position IN (SELECT value FROM json_each(?))"
        self._sql.execute(
            "INSERT INTO chunks_search (rowid, text, source_chapter) SELECT number, text, source_chapter FROM chunks"
            f" WHERE document = ? AND position BETWEEN ? AND ?{among}",
            [document, lo, hi, *([] if positions is None else [json.dumps(positions)])],
        )

    def forget(self, numbers: Sequence[int]) -> None:
        """Take the chunks out of the full-text search, word for word as they went in."""
        self._sql.for_keys(
            "INSERT INTO chunks_search (chunks_search, rowid, text, source_chapter)"
            " SELECT 'delete', number, text, source_chapter FROM chunks WHERE number IN ",
            numbers,
        )

    def takes(self, name: str) -> bool:  # noqa: ARG002 - the contract
        """Any name will do."""
        return True

    def fit(self, dimension: int) -> None:
        """Vectors are bytes: any number of them fits."""

    def told(self, failure: Failure) -> Failure:
        """The failure as it is."""
        return failure

    def prepare_load(self, estimate: int) -> None:
        """Nothing slows a load down here."""

    def finish_load(self) -> None:
        """All is made as it is written."""


def index_of(db: Session) -> TextsIndex:
    """What keeps the search of an open database."""
    if isinstance(db.sql, SqliteSql):
        return FileIndex(db.sql)
    from fetcher.stores.postgres.texts import ServerIndex

    return ServerIndex(db)
