"""Splits what a parser gives into chunks: within chapters, at the ends of sentences, with some overlap."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fetcher.texts.parsers.blocks import Block, Flaw, Heading, Section, Title

_JOINT = "\n\n"
_BLANK = re.compile(r"\s*")
_SENTENCE = re.compile(r"""((?<=[.!?…])["'”’»)\]]{0,3}(?=\s)|[。！？]["'”’」』）]{0,3}|(?=\n))\s*""")
_WORD = re.compile(r"((?=\s))\s+")
"""Where texts may be cut: what comes before ends with the group, what follows begins behind the match."""

_LONG_HEADING = 300


@dataclass(frozen=True, slots=True)
class Piece:
    """A text of the right size and where it stands; its first `repeated` characters end the piece before it too."""

    text: str
    section: Section
    repeated: int = 0


def chunked(blocks: Iterable[Block], size: int, overlap: int) -> Iterator[Piece | Title | Flaw]:
    """The pieces of a document, of up to `size` characters each; what is no text is handed through in its place.

    A piece never reaches from one chapter into the next; only headings that no text stands under are put before the
    text of the next one. A piece repeats up to `overlap` characters of the one before it in the chapter: from the
    beginning of a sentence, or else of a word.
    """
    packer = _Packer(size, overlap)
    headings: list[str] = []
    for block in blocks:
        if isinstance(block, str):
            for heading in headings:
                yield from packer.add(heading)
            headings.clear()
            yield from packer.add(block)
        elif isinstance(block, Heading):
            yield from packer.end()
            headings.append(block.text)
            packer.section = _under(packer.section, block.text)
        elif isinstance(block, Section):
            for heading in headings:
                yield from packer.add(heading)
            headings.clear()
            yield from packer.end()
            packer.section = block
        else:
            yield block
    for heading in headings:
        yield from packer.add(heading)
    yield from packer.end()


def _under(section: Section, heading: str) -> Section:
    name = heading if len(heading) <= _LONG_HEADING else f"{heading[: _LONG_HEADING - 1]}…"
    return Section(name, section.book, section.domain, section.category)


class _Packer:
    """Fills pieces with the paragraphs of a chapter."""

    def __init__(self, size: int, overlap: int) -> None:
        self.section = Section()
        self._size = size
        self._overlap = overlap
        self._text = ""
        self._repeated = 0
        self._before = ""

    def add(self, paragraph: str) -> Iterator[Piece]:
        """One more paragraph; gives the pieces that are full."""
        paragraph = paragraph.strip()
        at, joint = 0, _JOINT
        while at < len(paragraph):
            left = len(paragraph) - at
            if self._text:
                start = self._text + joint
            else:
                # A paragraph that fits is rather whole than behind a long overlap.
                most = self._size - left - len(joint) if left <= self._size else self._overlap
                tail = _tail(self._before, min(self._overlap, most))
                self._repeated = len(tail)
                start = tail + joint if tail else ""
            room = self._size - len(start)
            if left <= room:
                self._text = start + paragraph[at:]
                return
            if len(self._text) * 3 >= self._size:
                yield self._taken()
                continue
            end, after = _cut(paragraph, at, room)
            self._text = start + paragraph[at:end]
            gap = paragraph[end:after]
            joint = "\n" if "\n" in gap else " " if gap else ""
            at = after
            yield self._taken()

    def end(self) -> Iterator[Piece]:
        """The chapter ends here: gives what is left of it."""
        if self._text:
            yield self._taken()
        self._before = ""

    def _taken(self) -> Piece:
        piece = Piece(self._text, self.section, self._repeated)
        self._before, self._text = self._text, ""
        return piece


def _cut(text: str, at: int, room: int) -> tuple[int, int]:
    """Where up to `room` characters from `at` on end, and where the text goes on behind them.

    After a sentence if one ends in the second half of them, else after a word, else anywhere.
    """
    for pattern, start in ((_SENTENCE, at + room // 2), (_WORD, at + room // 2), (_WORD, at)):
        end = 0
        # One character more is looked at: the blank behind a sentence needs no room.
        for match in pattern.finditer(text, start, at + room + 1):
            if at < match.end(1) <= at + room:
                end = match.end(1)
        if end:
            break
    else:
        end = at + room
    blank = _BLANK.match(text, end)
    assert blank is not None
    return end, blank.end()


def _tail(text: str, most: int) -> str:
    """The end of a text, from the beginning of a sentence or else of a word; up to half of it."""
    start = len(text) - min(most, len(text) // 2)
    if start >= len(text):
        return ""
    for pattern in (_SENTENCE, _WORD):
        for match in pattern.finditer(text, max(0, start - 1)):
            if start <= match.end() < len(text):
                return text[match.end() :]
    return ""
