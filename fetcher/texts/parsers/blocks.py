"""What a parser gives of a document, one after the other: paragraphs, and where chapters and records begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MOST = 1 << 20
"""Characters in a paragraph or a line; a longer one is handed on in parts, so that no document has to fit in memory."""


@dataclass(frozen=True, slots=True)
class Title:
    """What the whole document is called."""

    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """A chapter begins, and this stands above it: it is text of the document too."""

    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part begins whose names do not stand in its text: a record, or a chapter that a table of contents names."""

    chapter: str | None = None
    book: str | None = None
    domain: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that cannot be used, in a sentence; what comes after it can be."""

    message: str


Block = str | Title | Heading | Section | Flaw
"""A text alone is a paragraph."""


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces; one longer than MOST comes in parts."""
    kept = ""
    for piece in pieces:
        *whole, rest = piece.split("\n")
        if whole:
            yield kept + whole[0]
            yield from whole[1:]
            kept = rest
        else:
            kept += rest
        while len(kept) > MOST:
            part, kept = parted(kept)
            yield part
    if kept:
        yield kept


def parted(text: str) -> tuple[str, str]:
    """A text that is longer than MOST, cut after a word where it has any."""
    cut = text.rfind(" ", MOST // 2, MOST)
    cut = MOST if cut < 0 else cut + 1
    return text[:cut], text[cut:]


class Paragraph:
    """Lines gathered until the paragraph ends, or has become too long to be kept."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0

    def add(self, line: str) -> Iterator[str]:
        """One more line; gives what was gathered once that is too long."""
        self._lines.append(line)
        self._size += len(line)
        if self._size > MOST:
            yield from self.take()

    def take(self) -> Iterator[str]:
        """What was gathered, if anything was; and begin anew."""
        if self._lines:
            text = "\n".join(self._lines)
            self._lines.clear()
            self._size = 0
            yield text

    @property
    def last(self) -> str | None:
        """The last line."""
        return self._lines[-1] if self._lines else None

    def without_last(self) -> Iterator[str]:
        """What was gathered before the last line, which is left out; and begin anew."""
        del self._lines[-1:]
        yield from self.take()
