"""How files are named: in the database, where every text is UTF-8, and to a person."""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes

_BYTES = "file://"


def text_of(path: str) -> str:
    """An absolute path as text: itself, or its `file://` address where it holds bytes that are no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + quote(os.fsencode(path))
    return path


def path_of(text: str) -> str:
    """The path that `text_of` has made a text of."""
    return os.fsdecode(unquote_to_bytes(text[len(_BYTES) :])) if text.startswith(_BYTES) else text


def shown(path: str) -> str:
    """A path on one line, without anything that a terminal would obey."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text_of(path)
    )
