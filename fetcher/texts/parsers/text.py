"""Plain text: paragraphs with blank lines between them, and the lines alone that name a chapter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fetcher.texts.parsers.blocks import Block, Heading, Paragraph, lines

_NUMBER = r"(?:\d+|[ivxlcdm]+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|the \w+)"
_CHAPTER = re.compile(
    r"(?:chapter|part|book|volume|section|act|kapitel|teil|buch|chapitre|livre|capítulo|capitolo)"
    rf" {_NUMBER}\b[^\n]{{0,80}}"
    r"|(?:prologue|epilogue|preface|foreword|introduction|afterword|appendix|prolog|epilog|vorwort|nachwort)"
    r"(?: \w{1,3})?[.:]?",
    re.I,
)


def blocks(pieces: Iterable[str]) -> Iterator[Block]:
    """The paragraphs of a text; `Chapter 1`, alone on its line and between blank ones, begins a chapter."""
    for each in paragraphs(pieces):
        found = each.strip()
        yield Heading(found) if len(found) < 120 and _CHAPTER.fullmatch(found) else each


def paragraphs(pieces: Iterable[str]) -> Iterator[str]:
    """What blank lines part, with its own lines as they are."""
    gathered = Paragraph()
    for line in lines(pieces):
        if line and not line.isspace():
            yield from gathered.add(line.rstrip())
        else:
            yield from gathered.take()
    yield from gathered.take()
