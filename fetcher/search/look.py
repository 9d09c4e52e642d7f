"""What a search asks of a database, whichever it is, and what is found by words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from fetcher.model import Key
from fetcher.search.fusion import Found
from fetcher.texts.chunk import Chunk

ITEMS, CHUNKS = "search", "chunks_search"
"""The indexes: of a mirror's items, and of the chunks."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What words find: a ranking, and for each index that took it the query that they are."""

    ranking: list[Found]
    queries: Mapping[str, Any]


class Look(Protocol):
    """A database that is looked into."""

    def model(self) -> tuple[str, int] | None:
        """The model that made the vectors and their dimension; None where there are no vectors."""
        ...

    def as_of_now(self) -> None:
        """From here on all is seen as of one moment."""
        ...

    def matches(self, words: str, depth: int) -> Matches:
        """The best `depth` items and chunks that have all the words. Raises StoreError."""
        ...

    def nearest(self, vector: bytes) -> Iterator[Found]:
        """All chunks but those of documents that are no longer listed, those first whose vectors are nearest."""
        ...

    def chunks(self, numbers: list[int]) -> dict[Key, tuple[Chunk, str]]:
        """Chunks by their numbers, each with the name of its document."""
        ...

    def snippets(self, found: Matches, index: str, rows: Iterable[Key]) -> dict[Key, dict[str, str]]:
        """What an index shows of those of `rows` that it has found, by column, hits between private marks."""
        ...


class Looker(Protocol):
    """Looks into one database again and again; safe to share between threads."""

    needs_numpy: bool

    def looking(self) -> AbstractContextManager[Look]:
        """The database, open for one search. Raises StoreError."""
        ...
