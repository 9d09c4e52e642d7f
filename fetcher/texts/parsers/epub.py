"""EPUB: the pages of a book in the order they are read, under the chapters that its table of contents names."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from os import SEEK_END
from typing import IO, BinaryIO
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from fetcher.sources.files.kinds import Unreadable
from fetcher.texts.parsers import html
from fetcher.texts.parsers.blocks import Block, Flaw, Heading, Section, Title
from fetcher.texts.parsers.encoding import PIECE_BYTES, declared_encoding, decoded
from fetcher.texts.parsers.xml import tree

MOST_XML = 16 << 20
"""Bytes of a file that says what the book consists of."""

_FREE, _MOST_TIMES = 10 << 20, 100
"""So many bytes, and beyond them so many times its packed size, a page may unpack to, and all that is read of a book.

Markup packs 3 to 20 times.
"""

_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


def blocks(file: BinaryIO) -> Iterator[Block]:
    """The title, chapters and paragraphs of a book; a page that is missing is a flaw. Raises Unreadable."""
    try:
        bound = _Bound(file.seek(0, SEEK_END))
        with zipfile.ZipFile(file) as book:
            yield from _book(book, bound)
    # zipfile says NotImplementedError for a way of packing that it does not know, RuntimeError for a password.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise Unreadable(f"the archive cannot be read: {error}") from None


def _book(book: zipfile.ZipFile, bound: _Bound) -> Iterator[Block]:
    names = set(book.namelist())
    if "META-INF/container.xml" not in names:
        raise Unreadable("it is a zip archive, and no EPUB")
    package = next((each.get("full-path") for each in _xml(book, "META-INF/container.xml").iter("rootfile")), None)
    if package is None or package not in names:
        raise Unreadable("it is an EPUB without a package document")
    found = _xml(book, package)
    items = {each.get("id", ""): each for each in found.iter("item")}
    places = {key: _place(package, each.get("href", "")) for key, each in items.items()}
    title = " ".join("".join(next(found.iter("title"), Element("title")).itertext()).split())
    if title:
        yield Title(title)
    locked = _locked(book, names)
    chapters = _chapters(book, found, items, places)
    contents = {key for key, each in items.items() if "nav" in each.get("properties", "").split()}
    for each in found.iter("itemref"):
        key = each.get("idref", "")
        item = items.get(key)
        if item is None or places[key] not in names:
            yield Flaw(f"a page is missing: {places.get(key) or key}")
        elif places[key] in locked:
            raise Unreadable("it is locked (DRM)")
        elif key not in contents and item.get("media-type", _PAGES[0]) in _PAGES:
            yield from _page(book, bound, places[key], chapters.get(places[key]))


def _page(book: zipfile.ZipFile, bound: _Bound, place: str, chapter: str | None) -> Iterator[Block]:
    """A page; what the table of contents calls it is its first chapter, and the headings above it are its text."""
    if chapter is not None:
        yield Section(chapter=chapter)
    begun = chapter is None
    with book.open(place) as packed:
        reader = _Bounded(packed, _Bound(book.getinfo(place).compress_size), bound)
        start = reader.read(PIECE_BYTES)
        try:
            for each in html.blocks(decoded(reader, start, declared_encoding(start))):
                if isinstance(each, Title):
                    continue
                if isinstance(each, Heading) and not begun:
                    yield each.text
                    continue
                begun = True
                yield each
        except Unreadable as error:
            raise Unreadable(f"{place}: {error}") from None


def _chapters(
    book: zipfile.ZipFile, package: Element, items: dict[str, Element], places: dict[str, str]
) -> dict[str, str]:
    """What the table of contents calls each page, by the first of its entries that leads there; none if it has none."""
    found: dict[str, str] = {}
    spine = next(package.iter("spine"), None)
    ways = [key for key, each in items.items() if "nav" in each.get("properties", "").split()]
    ncx = None if spine is None else spine.get("toc")
    if ncx in items:
        ways.append(str(ncx))
    for key in ways:
        try:
            contents = _xml(book, places[key])
        except (Unreadable, KeyError):
            continue  # The headings of its pages name the chapters too.
        for way, text in _entries(contents):
            if text and way:
                found.setdefault(_place(places[key], way), text)
        if found:
            break
    return found


def _entries(contents: Element) -> Iterator[tuple[str, str]]:
    for each in contents.iter("navPoint"):
        label, way = each.find("navLabel"), each.find("content")
        if label is not None and way is not None:
            yield way.get("src", ""), " ".join("".join(label.itertext()).split())
    for nav in contents.iter("nav"):
        if nav.get("type", "toc") == "toc":
            for each in nav.iter("a"):
                yield each.get("href", ""), " ".join("".join(each.itertext()).split())


def _locked(book: zipfile.ZipFile, names: set[str]) -> set[str]:
    """The files that only a reader with the key can read."""
    if "META-INF/encryption.xml" not in names:
        return set()
    return {unquote(each.get("URI", "")) for each in _xml(book, "META-INF/encryption.xml").iter("CipherReference")}


def _place(base: str, way: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(way.partition("#")[0])))


def _xml(book: zipfile.ZipFile, name: str) -> Element:
    with book.open(name) as packed:
        data = packed.read(MOST_XML + 1)
    if len(data) > MOST_XML:
        raise Unreadable(f"{name}: more than {MOST_XML >> 20} MB")
    try:
        return tree(data)
    except Unreadable as error:
        raise Unreadable(f"{name}: {error}") from None


class _Bound:
    """How much may still be unpacked of what is packed in so many bytes."""

    def __init__(self, packed: int) -> None:
        self._left = _FREE + _MOST_TIMES * packed

    def took(self, count: int) -> None:
        """So many bytes more were unpacked. Raises Unreadable when they are too many."""
        self._left -= count
        if self._left < 0:
            raise Unreadable(f"it unpacks to more than {_MOST_TIMES} times its size")


class _Bounded:
    """Reads a packed page, until it is more than any page packs to, or any book: one may name a page many times."""

    def __init__(self, packed: IO[bytes], page: _Bound, book: _Bound) -> None:
        self._packed = packed
        self._bounds = (page, book)

    def read(self, most: int, /) -> bytes:
        """Up to so many bytes."""
        data = self._packed.read(most)
        for each in self._bounds:
            each.took(len(data))
        return data
