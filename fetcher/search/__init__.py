"""Search in a database, also while a run writes it: full text, nearest vectors, or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fetcher.embedders import Embedder
from fetcher.place import Place
from fetcher.search.finder import Mode, Search
from fetcher.search.hits import PRIVATE_MARKS, Hit

__all__ = ["PRIVATE_MARKS", "Hit", "Mode", "Search", "search"]


def search(
    db: str | Place,
    words: str,
    limit: int = 20,
    *,
    mode: Mode | None = None,
    embedder: Embedder | Callable[..., Any] | str | None = None,
    marks: tuple[str, str] = ("[", "]"),
) -> list[Hit]:
    """What `words` find in the database `db`, best first, at most `limit`: see `Search.find`, which this is once.

    To search more often keep a `Search`: it loads the vectors once.
    """
    return Search(db, embedder).find(words, limit, mode=mode, marks=marks)
