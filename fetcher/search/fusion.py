"""Rankings of what was found, and one made of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fetcher.model import Key

K = 60
"""What is added to each place, so that the first few do not decide alone: the 60 of Cormack, Clarke and Büttcher,
"Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place in a ranking: an item, a chunk (by its number), or an item by one of its chunks.

    `rank` is the lower the better, and means nothing beside that of another ranking.
    """

    rank: float
    item: Key | None
    chunk: int | None

    @property
    def what(self) -> tuple[str, Key | None]:
        """What was found, whichever ranking found it; all chunks of an item are one."""
        return ("chunk", self.chunk) if self.item is None else ("item", self.item)


def distinct(ranking: Iterable[Found]) -> Iterator[Found]:
    """The ranking with each thing once, at its best place."""
    seen = set()
    for found in ranking:
        if found.what not in seen:
            seen.add(found.what)
            yield found


def fused(rankings: Sequence[Sequence[Found]], limit: int | None = None) -> list[Found]:
    """The first `limit` of one ranking made of several: each thing scores the sum of 1 / (K + place), and ranks by
    minus that.

    What scores the same keeps the order in which it was found. An item that any ranking found by a chunk names it.
    """
    scores: dict[tuple[str, Key | None], float] = {}
    first: dict[tuple[str, Key | None], Found] = {}
    for ranking in rankings:
        for place, found in enumerate(ranking, 1):
            scores[found.what] = scores.get(found.what, 0.0) + 1 / (K + place)
            known = first.setdefault(found.what, found)
            if known.chunk is None:
                first[found.what] = found
    ranked = sorted(scores, key=lambda what: -scores[what])[:limit]
    return [replace(first[what], rank=-scores[what]) for what in ranked]
