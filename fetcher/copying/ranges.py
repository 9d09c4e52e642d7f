"""Ranges of keys: what tells that the rows in them are the same, whichever database they are in."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from fetcher.model import Key, Row

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Range:
    """The rows of a table up to the key `last`, from behind that of the range before it."""

    number: int
    last: tuple[Key, ...]
    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A range of keys in which two databases differ: how many rows there should be, and how many there are.

    `first` is the key behind which it begins, None at the beginning of the table; `last` the key it ends with, None
    where there are rows behind the last one that was copied.
    """

    table: str
    number: int
    first: tuple[Key, ...] | None
    last: tuple[Key, ...] | None
    expected: int
    found: int

    def __str__(self) -> str:
        behind = "from the first" if self.first is None else f"behind {named(self.first)}"
        to = "" if self.last is None else f" up to {named(self.last)}"
        count = f"{self.found:,} rows instead of {self.expected:,}"
        what = count if self.found != self.expected else f"{self.found:,} rows, and not the same"
        return f"{self.table} {behind}{to}: {what}"


class Checksum:
    """Of rows, in their order: it depends on nothing but their values, and not on how many are added at a time."""

    def __init__(self) -> None:
        self.rows = 0
        self.bytes = 0
        self._hash = blake2b(digest_size=16)

    def add(self, rows: Sequence[Row]) -> None:
        """Add further rows."""
        data = packed(rows)
        self.rows += len(rows)
        self.bytes += len(data)
        self._hash.update(data)

    def text(self) -> str:
        """The checksum so far."""
        return self._hash.hexdigest()


def packed(rows: Iterable[Row]) -> bytes:
    """Rows as bytes: of equal rows the same ones."""
    return b"".join(map(_packed, rows))


def _packed(row: Row) -> bytes:
    try:
        return _encode(row)
    except UnicodeEncodeError:
        return _encode([_encodable(value) for value in row])


def _encodable(value: Any) -> Any:
    # No text is a list.
    return ["text", value.encode(errors="surrogateescape")] if isinstance(value, str) else value


def named(key: tuple[Key, ...]) -> str:
    """A key, as a person is told."""
    return "/".join(map(str, key))


def key_text(key: Sequence[Any]) -> str:
    """A key as JSON, which holds in ASCII whatever is in it."""
    return json.dumps(list(key))


def differences(
    table: str, width: int, rows: Iterator[Sequence[Row]], ranges: Sequence[Range], on_rows: Any = lambda _: None
) -> Iterator[Difference]:
    """Where the rows of a table, which begin with its key of so many columns, are not those of the ranges."""
    at, checksum = 0, Checksum()
    extra = 0

    def ended() -> Iterator[Difference]:
        nonlocal at, checksum
        expected = ranges[at]
        if (checksum.rows, checksum.text()) != (expected.rows, expected.checksum):
            first = ranges[at - 1].last if at else None
            yield Difference(table, expected.number, first, expected.last, expected.rows, checksum.rows)
        at, checksum = at + 1, Checksum()

    for some in rows:
        on_rows(len(some))
        start = 0
        while start < len(some) and at < len(ranges):
            end = bisect_right(some, _sorted_as(ranges[at].last), lo=start, key=lambda row: _sorted_as(row[:width]))
            checksum.add(some[start:end])
            if end < len(some):
                yield from ended()
            start = end
        extra += len(some) - start
    while at < len(ranges):
        yield from ended()
    if extra:
        number, last = (ranges[-1].number + 1, ranges[-1].last) if ranges else (0, None)
        yield Difference(table, number, last, None, 0, extra)


def _sorted_as(key: Sequence[Key]) -> list[tuple[bool, Any]]:
    """The order of SQLite: numbers first, texts by their bytes."""
    return [(True, each.encode(errors="surrogateescape")) if isinstance(each, str) else (False, each) for each in key]
