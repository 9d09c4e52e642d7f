"""Reads the small XML files of a book, without anything that they may refer to."""

from __future__ import annotations

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from fetcher.sources.files.kinds import Unreadable


def tree(data: bytes) -> Element:
    """The elements of a document, named without their namespaces. Raises Unreadable.

    A document that declares entities is refused: a few lines of them can stand for gigabytes, or for other files.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = _refuse
    parser.StartElementHandler = lambda name, given: builder.start(
        _local(name), {_local(key): value for key, value in given.items()}
    )
    parser.EndElementHandler = lambda name: builder.end(_local(name))
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise Unreadable(f"no XML: {error}") from None


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _refuse(*_: object) -> NoReturn:
    raise Unreadable("it declares entities, which are not read here")
