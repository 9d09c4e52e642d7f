"""HTML: what a reader of the page sees, with its headings of the first three levels as chapters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from fetcher.sources.files.kinds import Unreadable
from fetcher.texts.parsers.blocks import MOST, Block, Heading, Title, parted

_LEVELS = {"h1", "h2", "h3"}
_UNSEEN = {"script", "style", "template", "noscript", "iframe", "object", "svg", "math", "datalist"}
_WITHIN_NAMES = """
    a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark meter nobr output picture
    q rb rp rt ruby s samp small source span strike strong sub sup time tt u var wbr
"""
_WITHIN = frozenset(_WITHIN_NAMES.split())
"""Elements within a line; all others end a paragraph."""
_CELLS = {"td", "th"}
_SPACES = re.compile(r"[^\S ]\s*| \s+")
"""Blanks that are not a single space already."""
_EDGES = re.compile(r" *\n *")
_DOUBLED = re.compile(r"  +")
_MOST_HEADING = 1000
_MOST_TAG = 16 << 20


def blocks(pieces: Iterable[str]) -> Iterator[Block]:
    """The paragraphs, headings and the title of a page. Raises Unreadable where it has a tag that never ends."""
    page = _Page()
    gathered: list[str] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        # What the parser keeps, of a tag that is not complete, it looks at again from its beginning each time.
        if size >= len(page.rawdata):
            _feed(page, "".join(gathered))
            gathered.clear()
            size = 0
            if len(page.rawdata) > _MOST_TAG:
                raise Unreadable(f"a tag or script of more than {_MOST_TAG >> 20} MB")
            yield from page.taken()
    _feed(page, "".join(gathered), last=True)
    page.end()
    yield from page.taken()


def _feed(page: _Page, text: str, *, last: bool = False) -> None:
    try:
        page.feed(text)
        if last:
            page.close()
    except AssertionError as error:  # That is how the parser says what it cannot go on from.
        raise Unreadable(f"its markup cannot be read: {error}") from None


class _Page(HTMLParser):
    """Gathers the blocks of what it is fed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._blocks: list[Block] = []
        self._text: list[str] = []
        self._size = 0
        self._heading = ""
        self._in_title = False
        self._title: list[str] = []
        self._titled = False
        self._kept_as_is = 0
        self._unseen = ""
        self._depth = 0

    def taken(self) -> list[Block]:
        """The blocks since the last time."""
        found, self._blocks = self._blocks, []
        return found

    def end(self) -> None:
        """The paragraph ends here."""
        if not self._text:
            return
        text = "".join(self._text)
        self._text.clear()
        self._size = 0
        text = text.replace("\xad", "")  # soft hyphens
        text = text.strip("\n") if self._kept_as_is else _EDGES.sub("\n", _DOUBLED.sub(" ", text)).strip()
        if not text or text.isspace():
            return
        if self._heading and len(text) <= _MOST_HEADING:
            self._blocks.append(Heading(" ".join(text.split())))
        else:
            self._blocks.append(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if self._unseen:
            self._depth += tag == self._unseen
        elif tag in _UNSEEN:
            self._unseen, self._depth = tag, 1
        elif tag == "br":
            self._add("\n")
        elif tag in _CELLS:
            self._add(" ")
        elif tag == "title":
            self._in_title = not self._titled
        elif tag not in _WITHIN:
            self.end()
            self._heading = tag if tag in _LEVELS else ""
            if tag == "pre":
                self._kept_as_is += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # In XHTML these are empty elements: <script/> hides nothing.
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag == self._unseen:
                self._depth -= 1
                if not self._depth:
                    self._unseen = ""
        elif tag == "title":
            self._in_title = False
            title = " ".join("".join(self._title).split())
            if title and not self._titled:
                self._titled = True
                self._blocks.append(Title(title))
        elif tag == "pre":
            self.end()
            self._kept_as_is = max(0, self._kept_as_is - 1)
        elif tag not in _WITHIN and tag not in _CELLS and tag != "br":
            self.end()
            self._heading = ""

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._in_title:
            if len(self._title) < 100:
                self._title.append(data[:_MOST_HEADING])
            return
        self._add(data if self._kept_as_is else _SPACES.sub(" ", data))

    def _add(self, text: str) -> None:
        self._text.append(text)
        self._size += len(text)
        if self._size > MOST:
            whole, rest = parted("".join(self._text))
            self._text = [whole]
            self.end()
            self._text = [rest]
            self._size = len(rest)
