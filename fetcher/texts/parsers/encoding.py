"""How the bytes of a text become characters: by the mark they begin with, by what they say, or as UTF-8."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

from fetcher.sources.files.kinds import Reader, Unreadable

PIECE_BYTES = 1 << 16

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # Before UTF-16, whose mark it begins with.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)|^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)""", re.I
)
_PLAIN = re.compile(r"ascii|iso8859|cp125\d|koi8|shift_jis|euc_|gb|big5|mac_|windows")
"""Encodings in which ASCII is itself: others cannot say of themselves which they are."""


def marked_encoding(start: bytes) -> str | None:
    """What the mark at the beginning says."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


def declared_encoding(start: bytes) -> str:
    """What the mark at the beginning of HTML or XML says, or its own declaration; UTF-8 where there is neither."""
    found = marked_encoding(start)
    if found is not None:
        return found
    declared = _DECLARED.search(start[:4096])
    if declared is None:
        return "utf-8"
    said = (declared[1] or declared[2]).decode()
    try:
        name = codecs.lookup(said).name
    except LookupError:
        raise Unreadable(f"it says that its encoding is {said}, which is not known here") from None
    # Browsers take the two for each other, and what calls itself by the first is the second.
    name = "cp1252" if name in ("iso8859-1", "ascii") else name
    return name if _PLAIN.match(name) else "utf-8"


def decoded(reader: Reader, start: bytes, encoding: str) -> Iterator[str]:
    """The characters, in pieces, with plain line ends. Raises Unreadable."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    passed = 0
    piece = start or reader.read(PIECE_BYTES)
    while True:
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            at = passed + len(piece) - len(error.object) + error.start + 1
            name = encoding.removesuffix("-sig").upper()
            raise Unreadable(f"byte {at:,} is no {name}: save it as UTF-8") from None
        if text:
            yield text
        if not piece:
            return
        passed += len(piece)
        piece = reader.read(PIECE_BYTES)
