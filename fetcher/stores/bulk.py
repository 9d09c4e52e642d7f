"""Many rows and keys by few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import msgspec

from fetcher.model import Key, Row
from fetcher.stores.schema import Statements, marks

PARAMETERS = 500
"""About as many values go into one INSERT: more are no faster (docs/benchmarks.md)."""

T = TypeVar("T")

decode = msgspec.json.Decoder().decode


def insert(conn: sqlite3.Connection, sql: Statements, table: str, rows: Sequence[Row]) -> int:
    """Write many rows; returns how many were written."""
    written = 0
    for some in parts(rows, PARAMETERS // len(rows[0]) if rows else 1):
        statement = sql.insert(table, len(some))
        written += conn.execute(statement, list(chain.from_iterable(some))).rowcount
    return written


def for_keys(conn: sqlite3.Connection, statement: str, keys: Sequence[Key], *values: Any) -> int:
    """Execute a statement that ends in IN for many keys; returns how many rows it changed."""
    changed = 0
    for some in parts(keys, PARAMETERS):
        changed += conn.execute(f"{statement}({marks(len(some))})", [*values, *some]).rowcount
    return changed


def array_for_keys(conn: sqlite3.Connection, statement: str, keys: Sequence[Key], *values: Any) -> list[Any]:
    """What a SELECT of a JSON array that ends in IN gives for many keys."""
    found: list[Any] = []
    for some in parts(keys, PARAMETERS):
        found += array(conn, f"{statement}({marks(len(some))})", [*values, *some])
    return found


def array(conn: sqlite3.Connection, statement: str, parameters: Any) -> Any:
    """The JSON array that a SELECT makes."""
    return decode(conn.execute(statement, parameters).fetchone()[0])


def parts(things: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Cut into parts of `most`, and what is left into powers of two.

    A statement is kept prepared for each number of things: for every number there can be, that would be megabytes.
    """
    start, size = 0, max(1, most)
    while start < len(things):
        left = len(things) - start
        if left < size:
            size = 1 << (left.bit_length() - 1)
        yield things[start : start + size]
        start += size
