"""What reads documents: text, Markdown, HTML, EPUB, JSON and NDJSON, a piece at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from fetcher.sources.files.kinds import GZIP, ZSTD, Reader, Unreadable, unpacked
from fetcher.texts.parsers import epub, html, markdown, records, text
from fetcher.texts.parsers.blocks import Block, Flaw, Heading, Section, Title
from fetcher.texts.parsers.encoding import declared_encoding, decoded, marked_encoding
from fetcher.texts.parsers.kinds import SUFFIXES, kind_by_name, kind_of

__all__ = ["SUFFIXES", "Block", "Changed", "Flaw", "Heading", "Section", "Title", "Unreadable", "kind_by_name", "parse"]

_START_BYTES = 1 << 18
"""So much of a file is looked at to tell what it is."""

_ZIP, _PACKED = b"PK\x03\x04", (GZIP, ZSTD, b"BZh", b"\xfd7zXZ")


class Changed(Unreadable):
    """A file that somebody writes while it is read: another time it may be whole."""


def parse(path: str) -> Iterator[Block]:
    """The blocks of a file. Raises Unreadable, OSError, and what unpacking raises."""
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):  # noqa: PTH112, PTH116
        raise Unreadable("no regular file")
    with open(path, "rb") as file:  # noqa: PTH123
        before = os.fstat(file.fileno())
        yield from _blocks(file, path)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Changed("it changed while it was read")


def _blocks(file: BinaryIO, path: str) -> Iterator[Block]:
    first = file.read(5)
    file.seek(0)
    if first.startswith(_ZIP):
        yield from epub.blocks(file)
        return
    reader = unpacked(file, first) if first.startswith(_PACKED) else file
    start = _start(reader)
    kind = kind_of(start, path, whole=len(start) < _START_BYTES)
    if kind in ("json", "ndjson"):
        yield from records.blocks(reader, start, by_line=kind == "ndjson")
    elif kind == "html":
        yield from html.blocks(decoded(reader, start, declared_encoding(start)))
    else:
        blocks = markdown.blocks if kind == "markdown" else text.blocks
        yield from blocks(decoded(reader, start, marked_encoding(start) or "utf-8"))


def _start(reader: Reader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < _START_BYTES and (part := reader.read(_START_BYTES - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
