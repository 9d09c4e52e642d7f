"""Makes the finished rows of a document: its chunks with their names, in pieces that are soon stored."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Outcome
from fetcher.sources.files.kinds import Unreadable, packing_errors
from fetcher.sources.files.names import shown
from fetcher.texts.chunk import Chunk, chunk_id, text_hash
from fetcher.texts.chunking import Piece, chunked
from fetcher.texts.documents import Document
from fetcher.texts.parsers import Changed, Title, parse
from fetcher.transform import load
from fetcher.words import said

if TYPE_CHECKING:
    from fetcher.texts.settings import TextSettings

log = logging.getLogger("fetcher")

READER_VERSION = 1
"""Changed when documents are read into other chunks than before: all of them are read again."""

PIECE_ROWS, PIECE_BYTES = 200, 1 << 20
"""A piece is full with so many chunks or so many bytes of text, whichever comes first."""

PIECE_SECONDS = 5.0
"""After so long a piece is given as it is: what is read slowly is stored soon, too."""

DOMAIN, CATEGORY = "texts", "general"
_SETTING = "PARSER (--parser)"
_MOST_NAMED = 20
_PACKING_ERRORS = packing_errors()

Parser = Callable[..., Any]
"""The path of a file (a `pathlib.Path`) → an iterable of Chunks."""

ChunkRow = tuple[str, int, str, str, str, str, str | None, str | None]
"""A chunk as it is stored: id, position, text, hash, domain, category, source_book, source_chapter."""


@dataclass(frozen=True)
class ReadingOptions:
    """How documents are read; the words are those of the settings. Raises ConfigurationError."""

    parser: str | Parser | None = None
    domain: str | None = None
    category: str | None = None
    chunk_size: int = 1000
    chunk_overlap: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.chunk_overlap * 2 <= self.chunk_size:
            raise ConfigurationError(
                f"CHUNK_OVERLAP ({self.chunk_overlap}) is more than half of CHUNK_SIZE ({self.chunk_size})"
            )

    @classmethod
    def of(cls, settings: TextSettings) -> ReadingOptions:
        """Those of the settings."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @property
    def parser_name(self) -> str | None:
        """`module:function` of the user's parser."""
        if self.parser is None or isinstance(self.parser, str):
            return self.parser
        name = getattr(self.parser, "__qualname__", type(self.parser).__qualname__)
        return f"{getattr(self.parser, '__module__', None) or type(self.parser).__module__}:{name}"

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits of all that shapes chunks."""
        shape = (READER_VERSION, self.parser_name, self.domain, self.category, self.chunk_size, self.chunk_overlap)
        return hashlib.blake2b(repr(shape).encode(errors="backslashreplace"), digest_size=4).hexdigest()

    def version(self, document: Document) -> str:
        """What changes when a document has to be read again."""
        return f"{document.size}:{document.mtime_ns}:{self.digest}"

    def function(self) -> Parser | None:
        """The user's parser, loaded. Raises ConfigurationError."""
        found = load(self.parser, _SETTING) if isinstance(self.parser, str) else self.parser
        if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
            raise ConfigurationError(f"{_SETTING}: {self.parser_name} is async: a plain function is needed")
        return found


def pieces(path: str, document: str, options: ReadingOptions, function: Parser | None) -> Iterator[list[ChunkRow]]:
    """The rows of a document, some at a time; `function` is the user's parser.

    Raises RequestFailed where the document cannot be read, or not to its end: `gone` when there is no such file, else
    `malformed`. What was given before is good; records that cannot be used are named once the others have been given.
    """
    flaws: list[str] = []
    rows: list[ChunkRow] = []
    size = count = 0
    begun = time.monotonic()
    try:
        if function is None:
            found = _rows(path, document, options, flaws)
        else:
            found = _users_rows(path, document, options, function)
        for row in found:
            rows.append(row)
            count += 1
            size += len(row[2].encode())
            if len(rows) >= PIECE_ROWS or size >= PIECE_BYTES or time.monotonic() - begun >= PIECE_SECONDS:
                yield rows
                rows, size, begun = [], 0, time.monotonic()
    except RequestFailed:
        if rows:
            yield rows
        raise
    if rows:
        yield rows
    if flaws:
        more = len(flaws) - _MOST_NAMED
        named = "; ".join(flaws[:_MOST_NAMED]) + (f"; and {more:,} more" if more > 0 else "")
        raise _failed(path, f"{named}; {count:,} chunks of the rest are kept")


def _rows(path: str, document: str, options: ReadingOptions, flaws: list[str]) -> Iterator[ChunkRow]:
    filled = _Filled(path, document, options)
    try:
        for each in chunked(parse(path), options.chunk_size, options.chunk_overlap):
            if isinstance(each, Piece):
                section = each.section
                chunk = Chunk(each.text, section.chapter, section.book, section.domain, section.category)
                if (row := filled.row(chunk)) is not None:
                    yield row
            elif isinstance(each, Title):
                filled.title = clean(each.text).strip() or filled.title
            else:
                # All are counted, and no more kept than are named.
                flaws.append(each.message if len(flaws) < _MOST_NAMED else "")
    except Unreadable as error:
        where = f"{error}" if str(error).startswith(":") else f": {error}"
        raise RequestFailed(
            Outcome.MALFORMED, f"{shown(path)}{said(where)}", lasting=not isinstance(error, Changed)
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise RequestFailed(Outcome.GONE, f"{shown(path)}: there is no such file any more", lasting=True) from None
    except _PACKING_ERRORS as error:
        raise _failed(path, f"what is packed is damaged or cut off: {said(error)}") from None
    except OSError as error:
        raise _failed(path, os.strerror(error.errno) if error.errno else said(error)) from None
    except MemoryError:
        raise _failed(path, "too large a value for the memory there is") from None


def _users_rows(path: str, document: str, options: ReadingOptions, function: Parser) -> Iterator[ChunkRow]:
    """What the user's parser gives: its chunks as they are, its errors in one line."""
    rows = _given(path, document, options, function)
    while True:
        try:
            row = next(rows, None)
        except BaseException as error:  # A parser's sys.exit() or cancelled task ends no run.
            what = said(error) if isinstance(error, _Refused) else f"{type(error).__name__}: {said(error)}"
            log.debug("where it happened", exc_info=True)
            raise RequestFailed(
                Outcome.MALFORMED,
                f"{options.parser_name} failed on {shown(path)}: {what.removesuffix(': ')}",
                lasting=True,
            ) from None
        if row is None:
            return
        yield row


def _given(path: str, document: str, options: ReadingOptions, function: Parser) -> Iterator[ChunkRow]:
    """The rows of what the user's parser gives. Raises _Refused, and whatever the parser does."""
    filled = _Filled(path, document, options)
    given = function(Path(path))
    if not isinstance(given, Iterable):
        raise _Refused(f"it gave {_kind(given)}, and nothing that holds Chunks")
    for number, chunk in enumerate(given, 1):
        if not isinstance(chunk, Chunk):
            raise _Refused(f"it gave {_kind(chunk)}, and no Chunk, as number {number:,}")
        try:
            row = filled.row(chunk, checked=True)
        except _Refused as error:
            raise _Refused(f"chunk {number:,}: {error}") from None
        if row is not None:
            yield row


class _Refused(Exception):
    """A chunk that cannot be stored."""


class _Filled:
    """Fills in what chunks leave open, and counts them."""

    def __init__(self, path: str, document: str, options: ReadingOptions) -> None:
        where = Path(path)
        self._document = document
        self._domain = options.domain or DOMAIN
        self._category = options.category or clean(shown(where.parent.name)).strip() or CATEGORY
        self.title = shown(where.stem)
        self._position = -1

    def row(self, chunk: Chunk, *, checked: bool = False) -> ChunkRow | None:
        """The row of a chunk, None of one without a text. Raises _Refused, where it is the user's and `checked`."""
        if checked:
            _check(chunk)
        text = clean(chunk.text)
        if not text or text.isspace():
            return None
        position = self._position + 1 if chunk.position is None else chunk.position
        if position <= self._position:
            raise _Refused(f"position {position} comes after {self._position}: each has to be greater than the last")
        self._position = position
        return (
            clean(chunk.id or "") or chunk_id(self._document, position),
            position,
            text,
            text_hash(text),
            clean(chunk.domain or "").strip() or self._domain,
            clean(chunk.category or "").strip() or self._category,
            clean(chunk.source_book or "").strip() or self.title,
            clean(chunk.source_chapter or "").strip() or None,
        )


def _check(chunk: Chunk) -> None:
    if type(chunk.position) not in (int, type(None)) or not 0 <= (chunk.position or 0) < 2**63:
        raise _Refused(f"position is {chunk.position!r:.40}, and no whole number from 0 on")
    if not isinstance(chunk.text, str):
        raise _Refused(f"text is {_kind(chunk.text)}, and no str")
    for name in ("id", "domain", "category", "source_book", "source_chapter"):
        if not isinstance(value := getattr(chunk, name), str | None):
            raise _Refused(f"{name} is {_kind(value)}, and neither a str nor None")


def clean(text: str) -> str:
    """A text that every database takes: without NUL, and with a � for each half of a character."""
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("�" if "\ud800" <= each <= "\udfff" else each for each in text)
    return text


def _failed(path: str, message: str) -> RequestFailed:
    return RequestFailed(Outcome.MALFORMED, f"{shown(path)}: {message}", lasting=True)


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
