"""The words of texts, as PostgreSQL's full-text search has them: folded here, so that every server finds the same.

What a word is does not depend on a server's locale or its extensions: letters and digits, without case and accents, as
in SQLite's search (`unicode61 remove_diacritics 2`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

WEIGHTS = "ABCD"
"""What tells the columns of a text apart: a word has the weight of its column; from the fourth on they share one."""

_MOST_BYTES = 400_000
"""Of a text so much can be found: no `tsvector` holds much more."""

WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f])+")
"""A word where it stands in a text."""

_ACCENTS = frozenset(
    "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u0309\u030a\u030b\u030c\u030f"
    "\u0311\u031b\u0323\u0324\u0325\u0326\u0327\u0328\u032d\u032e\u0330\u0331"
)
"""The signs that SQLite takes for parts of the letter before them; other marks end a word."""


class _Folding(dict[int, str]):
    """What becomes of a character; whoever commits competes for the interpreter, and this is one call of C's."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _folded(chr(code))
        return found


def _folded(sign: str) -> str:
    if sign in _ACCENTS:
        return ""
    if not sign.isalnum():
        return " "
    apart = unicodedata.normalize("NFD", sign)
    if apart[0].isascii():
        return apart[0].lower()
    return next((each for each in (sign.casefold(), sign.lower()) if len(each) == 1), sign)


_FOLDING = _Folding()


def words_of(text: str) -> list[str]:
    """The words of a text in their order, folded."""
    return text.translate(_FOLDING).split()


def folded(texts: Sequence[str | None]) -> list[str]:
    """The words of a text's columns, for the server to make a `tsvector` of; the columns share what can be found."""
    found, left = [], _MOST_BYTES
    for text in texts:
        words = (text or "")[:left].translate(_FOLDING).encode()[:left]
        left -= len(words)
        found.append(words.decode(errors="ignore"))
    last = len(WEIGHTS) - 1
    return [*found[:last], " ".join(found[last:])] if len(found) > len(WEIGHTS) else found


def tsvector(column: str) -> str:
    """The SQL of the `tsvector` of a column that holds what `folded` gives."""
    return " || ".join(
        f"setweight(to_tsvector('simple', coalesce({column}[{number}], '')), '{weight}')"
        for number, weight in enumerate(WEIGHTS, 1)
    )
