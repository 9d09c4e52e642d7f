"""Names of files for values of any kind: safe everywhere, and never the same for two of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

Value = str | int | float | bytes | None
"""What SQLite holds."""

NULL, EMPTY = "_null", "_empty"
"""The names of what has none."""

LONGEST = 120
"""Bytes of a name; with its ending it fits into the 255 that file systems allow."""

_FORBIDDEN = frozenset('/\\:*?"<>|')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
_MARKED = re.compile(r"-[0-9a-f]{8,32}$")


class Names:
    """Gives each combination of values a path of its own, without the file's ending.

    A value that is safe as it is keeps its name; any other is cleaned and marked with a part of its hash. Of values
    whose names differ only in case, or in how Unicode composes them, the one asked for first keeps it, the others are
    marked: ask in the order of the values, and the same values have the same names.
    """

    def __init__(self) -> None:
        self._taken: dict[tuple[str, ...], dict[str, tuple[str, Value]]] = {}

    def of(self, values: Sequence[Value]) -> tuple[str, ...]:
        """The parts of the path: a folder for each value but the last, which names the file."""
        parts: tuple[str, ...] = ()
        for value in values:
            taken = self._taken.setdefault(parts, {})
            whose = (type(value).__name__, value)
            name = next(each for each in _candidates(value) if taken.setdefault(_folded(each), whose) == whose)
            parts = (*parts, name)
        return parts


def _candidates(value: Value) -> Iterator[str]:
    """The name that a value would like to have, and those that it takes where another has it."""
    text = _text(value)
    if _is_safe(text) and not (isinstance(value, str) and value in (NULL, EMPTY)):
        yield text
    cleaned = _cleaned(text)
    named = f"{type(value).__name__}:{text}".encode(errors="surrogatepass")
    for size in (4, 8, 16):
        yield f"{cleaned}-{hashlib.blake2b(named, digest_size=size).hexdigest()}"


def _text(value: Value) -> str:
    if value is None:
        return NULL
    if isinstance(value, bytes):
        return value.hex() or EMPTY
    return str(value) or EMPTY


def _is_safe(text: str) -> bool:
    """Whether a text can be a file's name on any system, looks like no marked one, and is not changed by copying."""
    return text == _cleaned(text) and unicodedata.is_normalized("NFC", text) and not _MARKED.search(text)


def _cleaned(text: str) -> str:
    """A text without what file systems, shells or people stumble over."""
    text = unicodedata.normalize("NFC", text)
    text = "".join("_" if each in _FORBIDDEN or not each.isprintable() else each for each in text)
    text = text.encode()[:LONGEST].decode(errors="ignore").rstrip(". ")
    if _RESERVED.match(text):
        return f"_{text}"
    return f"_{text[1:]}" if not text or text[0] in ".- ~" else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
