"""Vectors: all of a database's in memory, and which of them are nearest to another, exactly."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_ROWS = 65_536
"""Vectors in a block. What grows takes another block: nothing is copied, and no page is in memory before it is used."""

_READ = 1024
"""Rows read at once."""

_FIRST = 128
"""So many of the nearest are sorted out at first; four times as many each time that those were not enough."""


class Vectors:
    """The vectors of one database, `dimension` numbers each, kept as unit vectors: 4 × dimension bytes a vector.

    A vector that is none (of another length, of zeros, not finite) is passed over; `skipped` counts them. Used by one
    thread at a time.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.skipped = 0
        self.size = 0
        self._clear()

    def _clear(self) -> None:
        self._blocks: list[Floats] = []
        self._rowids: list[NDArray[np.int64]] = []
        self._last = 0
        self._last_hash: str | None = None
        self.size = self.skipped = 0

    def refresh(self, conn: sqlite3.Connection) -> None:
        """Load what the table has got since; all of it anew where its last row is not the one that was last loaded.

        A row that has gone from before the last stays, and nothing is found by it.
        """
        if self._hash_of_last(conn) != self._last_hash:
            self._clear()
        rows = conn.execute("SELECT rowid, vector FROM vectors WHERE rowid > ? ORDER BY rowid", [self._last])
        before = self._last
        while batch := rows.fetchmany(_READ):
            self._add(batch)
        if self._last != before:
            self._last_hash = self._hash_of_last(conn)

    def _hash_of_last(self, conn: sqlite3.Connection) -> str | None:
        row = conn.execute("SELECT hash FROM vectors WHERE rowid = ?", [self._last]).fetchone()
        return row[0] if row else None

    def _add(self, batch: Sequence[tuple[int, bytes]]) -> None:
        fitting = [(rowid, vector) for rowid, vector in batch if len(vector) == 4 * self.dimension]
        vectors = np.frombuffer(b"".join([vector for _, vector in fitting]), "<f4").reshape(-1, self.dimension)
        units, whole = _units(vectors)
        rowids = np.array([rowid for rowid, _ in fitting], np.int64)[whole]
        self.skipped += len(batch) - len(rowids)
        done = 0
        while done < len(rowids):
            block, at = divmod(self.size, _ROWS)
            if block == len(self._blocks):
                self._blocks.append(np.empty((_ROWS, self.dimension), np.float32))
                self._rowids.append(np.empty(_ROWS, np.int64))
            some = min(len(rowids) - done, _ROWS - at)
            self._blocks[block][at : at + some] = units[done : done + some]
            self._rowids[block][at : at + some] = rowids[done : done + some]
            self.size += some
            done += some
        self._last = batch[-1][0]

    def nearest(self, vector: bytes) -> Iterator[tuple[int, float]]:
        """Rows of the table `vectors` and their cosine distance from `vector` (0 the same, 2 opposite), nearest first.

        Distances are computed at once, with all vectors there are by then; to a vector that is none nothing is near.
        """
        units, _ = _units(np.frombuffer(vector, "<f4").reshape(1, self.dimension))
        if not len(units) or not self.size:
            return iter(())
        likeness = np.empty(self.size, np.float32)
        for at, block in enumerate(self._blocks):
            part = likeness[at * _ROWS : (at + 1) * _ROWS]
            np.dot(block[: len(part)], units[0], out=part)
        return self._ordered(likeness, list(self._rowids))

    @staticmethod
    def _ordered(likeness: Floats, rowids: Sequence[NDArray[np.int64]]) -> Iterator[tuple[int, float]]:
        some, left = _FIRST, likeness.size
        while left:
            some = min(some, left)
            # Those that had their turn are at minus infinity, below all others.
            top = np.argpartition(likeness, likeness.size - some)[likeness.size - some :]
            top = top[np.lexsort((top, -likeness[top]))]
            for at, like in zip(top.tolist(), likeness[top].tolist(), strict=True):
                block, row = divmod(at, _ROWS)
                yield int(rowids[block][row]), 1.0 - like
            likeness[top] = -np.inf
            left -= some
            some *= 4


def _units(vectors: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The vectors at length 1, without those that have no direction; and for each vector whether it has one."""
    # By the largest number first, for the squares of large or small ones are no numbers any more.
    largest = np.abs(vectors).max(axis=1, initial=0)
    whole = np.isfinite(largest) & (largest > 0)
    scaled: Any = vectors[whole] / largest[whole, None]
    scaled /= np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    return scaled, whole
