"""Reads one file into rows, a piece at a time."""

from __future__ import annotations

import io
import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO

from fetcher.errors import RequestFailed
from fetcher.model import GONE, Detail, Gone, Outcome, Row
from fetcher.sources.files.documents import Found, Wrong, document, lines, small_document
from fetcher.sources.files.kinds import (
    GZIP,
    PARQUET,
    ZSTD,
    Reader,
    Unreadable,
    bare,
    json_kind,
    packing_errors,
    unpacked,
)
from fetcher.sources.files.names import path_of, shown

SMALL_BYTES = 1 << 20
"""A file up to this size is read at once, a larger one in pieces."""

START_BYTES = 1 << 20
"""So much of a file is looked at to tell what it is."""

PIECE_BYTES = 4 << 20
PIECE_ROWS = 2000
"""A piece is full with so much JSON text or so many items, whichever comes first."""

MOST_NAMED = 20
"""So many wrong lines of a file are named; all are counted."""

_PACKING_ERRORS = packing_errors()


def read_file(key: str, said: str | None) -> Detail | Gone:
    """The items of a file, as much as is one piece. Raises RequestFailed.

    `said` is the kind of file that the user says it is, None where it is to be found out.
    """
    path = path_of(key)
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if os.fstat(number).st_size > SMALL_BYTES:
                return _Large(key, path, open(os.dup(number), "rb"), said).piece()  # noqa: PTH123
            if stat.S_ISDIR(os.fstat(number).st_mode):
                # It was listed because nobody could look into it.
                os.scandir(path).close()
                return GONE
            data = os.read(number, SMALL_BYTES + 1)
            after = os.fstat(number)
        finally:
            os.close(number)
    except FileNotFoundError:
        return GONE
    except OSError as error:
        raise RequestFailed(Outcome.MALFORMED, f"{shown(path)}: {os.strerror(error.errno or 0)}") from None
    if after.st_size != len(data):
        raise RequestFailed(Outcome.MALFORMED, f"{shown(path)}: it changed while it was read")
    if said in (None, "json") and bare(data[:8])[:1] in (b"{", b"["):
        found = small_document(data)
        if found is not None:
            rows: list[Row] = [(key, *item, None) for item in found if not isinstance(item, Wrong)]
            return Detail({"items": rows}, size=len(data))
    return _Large(key, path, io.BytesIO(data), said).piece()


class _Large:
    """A file that is being read, a piece after the other."""

    def __init__(self, key: str, path: str, file: BinaryIO, said: str | None) -> None:
        self._key = key
        self._path = path
        self._file = file
        # A run that ends early leaves it where it is.
        weakref.finalize(self, file.close)
        self._before = self._version()
        self._found = self._items(said)
        self._part = 0
        self._rows = 0
        self._wrong: list[str] = []
        self._wrong_count = 0
        self._broken = ""

    def piece(self) -> Detail:
        """The next piece. Raises RequestFailed where the file has nothing that can be used."""
        rows: list[Row] = []
        size = 0
        for each in self._gathered():
            rows.append((self._key, *each, None))
            size += len(each[2])
            if size >= PIECE_BYTES or len(rows) >= PIECE_ROWS:
                break
        else:
            return self._last(rows, size)
        part, self._part = self._part, self._part + 1
        self._rows += len(rows)
        return Detail({"items": rows}, part=part, rest=self.piece, size=size)

    def _last(self, rows: list[Row], size: int) -> Detail:
        if not self._broken and self._version() != self._before:
            self._broken = f"{shown(self._path)}: it changed while it was read"
        self._file.close()
        flaw = self._flaw()
        if flaw is not None and not (self._rows or rows):
            raise RequestFailed(Outcome.MALFORMED, flaw)
        return Detail({"items": rows}, part=self._part, flaw=flaw, size=size)

    def _gathered(self) -> Iterator[tuple[int, str | None, str]]:
        """The items, without what is wrong; ends where the file cannot be read any further."""
        where = shown(self._path)
        try:
            for each in self._found:
                if isinstance(each, Wrong):
                    self._wrong_count += 1
                    if len(self._wrong) < MOST_NAMED:
                        self._wrong.append(f"{each.line}: {each.message}")
                else:
                    yield each
        except Unreadable as error:
            self._broken = f"{where}{error}" if str(error).startswith(":") else f"{where}: {error}"
        except _PACKING_ERRORS as error:
            self._broken = f"{where}: what is packed is damaged or cut off: {error}"
        except OSError as error:
            self._broken = f"{where}: {os.strerror(error.errno) if error.errno else error}"
        except MemoryError:
            self._broken = f"{where}: too large a value for the memory there is"

    def _flaw(self) -> str | None:
        """What was wrong, in one line; None when nothing was."""
        parts = []
        if self._wrong:
            parts.append(f"{shown(self._path)}:{'; :'.join(self._wrong)}")
            if self._wrong_count > len(self._wrong):
                parts[0] += f"; and {self._wrong_count - len(self._wrong):,} more"
            if self._wrong_count > 1:
                parts[0] += f" ({self._wrong_count:,} wrong in all)"
        if self._broken:
            parts.append(self._broken)
        return "; ".join(parts) or None

    def _items(self, said: str | None) -> Iterator[Found]:
        """What the file holds, once it is known what it is. Raises Unreadable and what reading raises."""
        file = self._file
        first = file.read(4)
        file.seek(0)
        if first.startswith(PARQUET) if said in (None, "stac") else said == "parquet":
            from fetcher.sources.files import parquet

            yield from parquet.items(file)
            return
        reader = unpacked(file, first)
        start = _start(reader)
        if not bare(start):
            raise Unreadable("it is empty")
        if start.startswith(PARQUET) and first.startswith((GZIP, ZSTD)):
            raise Unreadable("it is a packed Parquet file: unpack it first")
        kind = said if said in ("json", "ndjson") else json_kind(start, whole=len(start) < START_BYTES, name=self._path)
        yield from lines(reader, start) if kind == "ndjson" else document(reader, start)

    def _version(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self._file.fileno())
        except (OSError, ValueError):
            return None
        return found.st_size, found.st_mtime_ns


def _start(reader: Reader) -> bytes:
    """About the first megabyte."""
    parts: list[bytes] = []
    size = 0
    while size < START_BYTES and (part := reader.read(START_BYTES - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def read_files(keys: Sequence[str], said: str | None) -> dict[str, Detail | Gone | Exception]:
    """Several files; those that come after some megabytes are left for later pieces."""
    found: dict[str, Detail | Gone | Exception] = {}
    size = 0
    for key in keys:
        if size > PIECE_BYTES:
            found[key] = Detail({}, rest=partial(read_later, key, said))
            continue
        try:
            found[key] = detail = read_file(key, said)
        except RequestFailed as error:
            found[key] = error
        else:
            size += detail.size if isinstance(detail, Detail) else 0
    return found


def read_later(key: str, said: str | None) -> Detail:
    """A file whose first piece was empty."""
    detail = read_file(key, said)
    if isinstance(detail, Gone):
        raise RequestFailed(Outcome.GONE, f"{shown(path_of(key))}: there is no such file any more")
    return detail
