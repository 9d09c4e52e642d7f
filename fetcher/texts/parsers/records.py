"""JSON and NDJSON: every object with a text is a record, and so is every text alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fetcher.rows import decode
from fetcher.sources.files.documents import split_lines, values
from fetcher.sources.files.kinds import Reader, bare
from fetcher.texts.parsers.blocks import Block, Flaw, Section
from fetcher.texts.parsers.text import paragraphs

TEXT = ("text", "content", "body")
"""Where the text of a record is: in the first of these that it has."""


class _Record(msgspec.Struct, gc=False):
    """What of a record is looked at; msgspec passes over the rest."""

    text: Any = None
    content: Any = None
    body: Any = None
    domain: Any = None
    category: Any = None
    source_book: Any = None
    title: Any = None
    source_chapter: Any = None
    chapter: Any = None


_quick = msgspec.json.Decoder(_Record | str).decode
_FIELDS = _Record.__struct_fields__


def blocks(reader: Reader, start: bytes, *, by_line: bool) -> Iterator[Block]:
    """The sections and paragraphs of every record; one that cannot be used is a flaw. Raises Unreadable."""
    found = _lines(reader, start) if by_line else values(reader, start)
    where = "line" if by_line else "record"
    for number, value in enumerate(found, 1):
        if isinstance(value, Flaw):
            yield Flaw(f"{where} {number:,}: {value.message}")
        elif value is not None or not by_line:
            yield from _blocks(value, f"{where} {number:,}")


def _lines(reader: Reader, start: bytes) -> Iterator[Any]:
    """What each line holds; None for an empty one."""
    first = True
    for line in split_lines(reader, start):
        text = bare(line) if first else line.strip(b" \t\r\n\x1e")
        first = False
        if not text:
            yield None
            continue
        try:
            yield _quick(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            # What strict readers refuse may be JSON all the same.
            try:
                value = decode(text)
            except ValueError as error:
                yield Flaw(f"no JSON: {error}")
            else:
                yield False if value is None else value


def _blocks(value: Any, where: str) -> Iterator[Block]:
    if isinstance(value, dict):
        value = _Record(**{name: value.get(name) for name in _FIELDS})
    if isinstance(value, str):
        value = _Record(text=value)
    if not isinstance(value, _Record):
        yield Flaw(f"{where}: neither an object nor a text")
        return
    text = next((each for name in TEXT if (each := getattr(value, name)) is not None), None)
    if not isinstance(text, str):
        yield Flaw(f"{where}: it has no text, neither as {' nor as '.join(TEXT)}")
        return
    yield Section(
        chapter=_name(value.source_chapter) or _name(value.chapter),
        book=_name(value.source_book) or _name(value.title),
        domain=_name(value.domain),
        category=_name(value.category),
    )
    yield from paragraphs([text.replace("\r\n", "\n")])


def _name(value: Any) -> str | None:
    """A name as text, numbers too; None where there is none."""
    if isinstance(value, str):
        return value.strip() or None
    return str(value) if type(value) in (int, float) else None
