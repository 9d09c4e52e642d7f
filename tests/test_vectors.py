"""The nearest vectors are those that comparing with each gives, and what is no vector is passed over."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.search import vectors as module
from fetcher.search.vectors import Vectors
from fetcher.stores.texts import SCHEMA

Floats = list[float]


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    conn = table()
    yield conn
    conn.close()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, reads and steps so small that a few vectors fill several."""
    monkeypatch.setattr(module, "_ROWS", 5)
    monkeypatch.setattr(module, "_READ", 3)
    monkeypatch.setattr(module, "_FIRST", 2)


def table() -> sqlite3.Connection:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.execute(next(each for each in SCHEMA if "TABLE vectors" in each))
    return conn


def blob(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def store(conn: sqlite3.Connection, *vectors: bytes) -> None:
    (had,) = conn.execute("SELECT coalesce(max(rowid), 0) FROM vectors").fetchone()
    conn.executemany("INSERT INTO vectors VALUES (?, ?)", [(f"h{had + at}", each) for at, each in enumerate(vectors)])


def loaded(conn: sqlite3.Connection, dimension: int = 2) -> Vectors:
    vectors = Vectors(dimension)
    vectors.refresh(conn)
    return vectors


def nearest(vectors: Vectors, *query: float) -> list[int]:
    return [row for row, _ in vectors.nearest(blob(*query))]


numbers = st.floats(-100, 100, width=32)
rows = st.lists(st.lists(numbers, min_size=3, max_size=3), max_size=40)


@settings(max_examples=200, deadline=None)
@given(rows, st.lists(numbers, min_size=3, max_size=3), st.integers(0, 40))
def test_the_nearest_are_those_that_comparing_with_each_gives(all: list[Floats], query: Floats, first: int) -> None:
    conn = table()
    store(conn, *(blob(*each) for each in all[:first]))
    vectors = loaded(conn, 3)
    store(conn, *(blob(*each) for each in all[first:]))
    vectors.refresh(conn)
    conn.close()
    found = list(vectors.nearest(blob(*query)))

    def distance(each: Floats) -> float:
        one, other = np.array(each), np.array(query)
        one, other = one / np.abs(one).max(), other / np.abs(other).max()
        return 1 - float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    expected = {at: distance(each) for at, each in enumerate(all, 1) if any(each) and any(query)}
    assert sorted(row for row, _ in found) == sorted(expected)
    assert vectors.skipped == sum(not any(each) for each in all)
    for row, told in found:
        assert told == pytest.approx(expected[row], abs=1e-5)
    assert [told for _, told in found] == sorted(told for _, told in found)


def test_length_makes_no_difference(conn: sqlite3.Connection) -> None:
    store(conn, blob(1e-30, 1e-30), blob(1e30, 0), blob(0, 1e-44))
    vectors = loaded(conn)
    assert (nearest(vectors, 5e30, 1e25), nearest(vectors, 0, 1e-40)) == ([2, 1, 3], [3, 1, 2])


ODD = [b"", blob(1), blob(1, 2, 3), b"abc", blob(0, 0), blob(float("nan"), 1), blob(float("inf"), 1)]


@pytest.mark.parametrize("odd", ODD, ids=[each.hex() or "empty" for each in ODD])
def test_what_is_no_vector_is_passed_over_wherever_it_stands(conn: sqlite3.Connection, odd: bytes) -> None:
    store(conn, odd, blob(1, 0), odd, odd, odd, blob(0, 1), odd)
    vectors = loaded(conn)
    assert (nearest(vectors, 1, 0.1), vectors.skipped, vectors.size) == ([2, 6], 5, 2)
    vectors.refresh(conn)
    assert (nearest(vectors, 1, 0.1), vectors.skipped) == ([2, 6], 5)


@pytest.mark.parametrize("query", [(0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_nothing_is_near_to_what_is_no_vector(conn: sqlite3.Connection, query: Floats) -> None:
    store(conn, blob(1, 0))
    assert nearest(loaded(conn), *query) == []


def test_nothing_is_near_where_there_is_nothing(conn: sqlite3.Connection) -> None:
    assert nearest(loaded(conn), 1, 0) == []


def read_rows(conn: sqlite3.Connection, vectors: Vectors) -> int:
    """How many vectors a refresh reads."""
    read = 0
    add = vectors._add

    def counted(batch: list[tuple[int, bytes]]) -> None:
        nonlocal read
        read += len(batch)
        add(batch)

    vectors._add = counted  # type: ignore[method-assign, assignment]
    vectors.refresh(conn)
    del vectors._add  # type: ignore[attr-defined]
    return read


def test_only_what_was_added_is_read_again(conn: sqlite3.Connection) -> None:
    store(conn, *[blob(1, 0)] * 12)
    vectors = loaded(conn)
    assert read_rows(conn, vectors) == 0
    store(conn, blob(0, 1), blob(0, 1))
    assert read_rows(conn, vectors) == 2
    assert (vectors.size, set(nearest(vectors, 0, 1)[:2])) == (14, {13, 14})


def test_all_are_read_anew_when_the_last_is_another(conn: sqlite3.Connection) -> None:
    store(conn, *[blob(1, 0)] * 7)
    vectors = loaded(conn)
    conn.execute("DELETE FROM vectors WHERE rowid > 5")
    assert (read_rows(conn, vectors), vectors.size) == (5, 5)
    conn.execute("DELETE FROM vectors WHERE rowid = 5")
    conn.execute("INSERT INTO vectors VALUES ('other', ?)", [blob(0, 1)])
    assert (read_rows(conn, vectors), nearest(vectors, 0, 1)[0]) == (5, 5)
    conn.execute("DELETE FROM vectors")
    assert (read_rows(conn, vectors), vectors.size) == (0, 0)


def test_a_load_that_broke_off_is_begun_anew(conn: sqlite3.Connection) -> None:
    store(conn, *[blob(1, 0)] * 8)
    vectors = Vectors(2)
    add = vectors._add

    def breaking(batch: list[tuple[int, bytes]]) -> None:
        add(batch)
        raise KeyboardInterrupt

    vectors._add = breaking  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        vectors.refresh(conn)
    del vectors._add  # type: ignore[attr-defined]
    vectors.refresh(conn)
    assert sorted(nearest(vectors, 1, 0)) == list(range(1, 9))
