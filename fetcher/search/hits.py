"""What a search gives: hits, and the snippets in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fetcher.model import Key
from fetcher.texts.chunk import Chunk

WORDS = 64
"""Words in a snippet; FTS5 makes none longer."""

PRIVATE_MARKS = ("\ue000", "\ue001")
"""Marks that no text has: Unicode leaves them to private use."""

Marks = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Hit:
    """What was found: an item, or a chunk of a document.

    `key` is the item's key, or the id of a chunk that is of no item. `rank` is the lower the better, and means nothing
    beside the rank of another search. `snippets` has, for each table with a hit, the lines around it: of short texts
    such as tags one line is one text. For a chunk they are of its `text` and its `source_chapter`.

    `chunk` is the chunk that was found, whole, and `document` what it was read from: a path, or `TABLE/KEY` of an item.
    An item that was found by its own rows alone has neither.
    """

    key: Key
    rank: float
    snippets: Mapping[str, tuple[str, ...]]
    chunk: Chunk | None = None
    document: str | None = None


def lines_of(snippet: str | None, marks: Marks) -> tuple[str, ...]:
    """The lines of a snippet that have a hit, between marks of the caller's instead of the private ones."""
    return tuple(marked(line, marks) for line in (snippet or "").splitlines() if PRIVATE_MARKS[0] in line)


def marked(snippet: str, marks: Marks) -> str:
    """A snippet with the caller's marks instead of the private ones."""
    return snippet.replace(PRIVATE_MARKS[0], marks[0]).replace(PRIVATE_MARKS[1], marks[1])


def sentence(text: str, words: str, marks: Marks) -> str:
    """The sentence of a text that has the most of the words, or its beginning where none has any; on one line."""
    wanted = set(_WORD.findall(words.casefold()))
    best, most = "", 0
    # Most that is near in meaning has none of the words: that is seen at a glance.
    folded = text.casefold()
    some = any(word in folded for word in wanted)
    for each in _SENTENCE_END.split(text) if some else ():
        has = len(wanted.intersection(_WORD.findall(each.casefold())))
        if has > most:
            best, most = each, has
    if not most:
        return _begun(text.split())
    return _WORD.sub(
        lambda word: f"{marks[0]}{word[0]}{marks[1]}" if word[0].casefold() in wanted else word[0],
        _begun(_from_first(best.split(), wanted)),
    )


_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"\s(?:(?<=[.!?…]\s)\s*|(?<=\n)\s*\n)")


def _from_first(words: list[str], wanted: set[str]) -> list[str]:
    """The words; of a sentence longer than a snippet those from a little before the first that is wanted."""
    if len(words) <= WORDS:
        return words
    first = next(at for at, word in enumerate(words) if not wanted.isdisjoint(_WORD.findall(word.casefold())))
    start = max(0, min(first - WORDS // 4, len(words) - WORDS))
    return ["…", *words[start:]] if start else words


def _begun(words: list[str]) -> str:
    return " ".join(words[:WORDS]) + ("…" if len(words) > WORDS else "")
