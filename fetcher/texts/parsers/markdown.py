"""Markdown: its headings of the first three levels begin chapters, and a title in its front matter names it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from fetcher.texts.parsers.blocks import Block, Heading, Paragraph, Title, lines

_LEVELS = 3
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TITLE = re.compile(r"title:[ \t]*(.+)")
_MOST_FRONT = 500


def blocks(pieces: Iterable[str]) -> Iterator[Block]:
    """The paragraphs and headings of Markdown, its marks for emphasis and links left as they are."""
    gathered = Paragraph()
    fence = ""
    found = lines(pieces)
    front, rest = _front(found)
    if front is not None:
        title = next((match[1] for each in front if (match := _TITLE.fullmatch(each.rstrip()))), "")
        if title := title.strip("\"' "):
            yield Title(title)
    for line in rest:
        mark = _FENCE.match(line)
        if fence:
            # Blank lines and hashes are code here.
            yield from gathered.add(line.rstrip())
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
                yield from gathered.take()
        elif mark:
            yield from gathered.take()
            fence = mark[1]
            yield from gathered.add(line.rstrip())
        elif not line or line.isspace():
            yield from gathered.take()
        elif line.lstrip(" ").startswith("#") and (heading := _HEADING.fullmatch(line)):
            yield from gathered.take()
            text = (heading[2] or "").strip()
            if text:
                yield Heading(text) if len(heading[1]) <= _LEVELS else text
        elif gathered.last and _UNDERLINE.fullmatch(line) and "|" not in gathered.last:
            above = gathered.last.strip()
            yield from gathered.without_last()
            yield Heading(above)
        else:
            yield from gathered.add(line.rstrip())
    yield from gathered.take()


def _front(found: Iterator[str]) -> tuple[list[str] | None, Iterator[str]]:
    """The lines of the front matter, None where there is none, and the lines after it."""
    first = next(found, None)
    if first is None:
        return None, iter(())
    if first.rstrip() != "---":
        return None, chain([first], found)
    front: list[str] = []
    for line in found:
        if line.rstrip() in ("---", "..."):
            return front, found
        front.append(line)
        if len(front) == _MOST_FRONT:
            break
    return None, chain([first], front, found)
