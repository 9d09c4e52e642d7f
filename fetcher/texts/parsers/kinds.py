"""What kind of text a file is: by what it begins with, then by its name."""

from __future__ import annotations

import os
import re
from typing import Literal

from fetcher.sources.files.kinds import PACKED, Unreadable, bare, is_json, json_kind
from fetcher.texts.parsers.encoding import marked_encoding

Kind = Literal["text", "markdown", "html", "epub", "json", "ndjson"]

SUFFIXES: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".epub": "epub",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".jsonlines": "ndjson",
}
"""What is looked for in a folder, by the end of its name; all but EPUB also packed, as in `book.txt.gz`."""

_HTML = re.compile(r"\ufeff?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S)
_JSON = re.compile(rb"\{\s*\"|\[\s*\{\s*\"")
_FOREIGN = {b"%PDF": "a PDF", b"{\\rtf": "RTF", b"\xd0\xcf\x11\xe0": "an Office document"}


def kind_by_name(name: str) -> Kind | None:
    """What the name of a file says that it holds; None when it says nothing known."""
    stem = name.lower()
    for each in PACKED:
        stem = stem.removesuffix(each)
    return SUFFIXES.get(os.path.splitext(stem)[1])  # noqa: PTH122 - asked of every file


def kind_of(start: bytes, name: str, *, whole: bool) -> Kind:
    """What a file is that begins so; `whole` says that this is all of it. Raises Unreadable where it is no text."""
    said = kind_by_name(name)
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise Unreadable(f"it is {what}, which is not read here: make it text, Markdown, HTML or EPUB")
    encoding = marked_encoding(start)
    if encoding in (None, "utf-8-sig"):
        if b"\0" in start:
            raise Unreadable("it is no text")
        if start and (said in ("json", "ndjson") or _is_json(start)):
            return "ndjson" if json_kind(start, whole=whole, name=name) == "ndjson" else "json"
    if _HTML.match(start[:4096].decode(encoding or "utf-8", errors="replace")):
        return "html"
    return "text" if said in (None, "epub", "json", "ndjson") else said


def _is_json(start: bytes) -> bool:
    text = bare(start)
    return _JSON.match(text) is not None or (text[:1] == b"{" and is_json(text.partition(b"\n")[0]))
