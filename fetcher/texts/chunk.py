"""What a document is read into: chunks, their names, and what tells two texts apart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID, uuid5

NAMESPACE = UUID("7d8e0c0a-64b5-5d0c-9e55-0f4b7d5a1f0e")
"""Chunks are named within it: the same document and position give the same id, in every database."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, as long as what is embedded at once.

    A parser has to give `text` alone. What it leaves None is filled in: `domain` and `category` from what was asked
    for, `source_book` from the document's title or file name, `position` by counting from 0, `id` from the document
    and the position.
    """

    text: str
    source_chapter: str | None = None
    source_book: str | None = None
    domain: str | None = None
    category: str | None = None
    position: int | None = None
    id: str | None = None


def chunk_id(document: str, position: int) -> str:
    """The UUIDv5 of a document's chunk at a position (RFC 9562, part 5.5)."""
    return str(uuid5(NAMESPACE, f"{document}#{position}"))


def text_hash(text: str) -> str:
    """32 hexadecimal digits that name a text, wherever it stands: what is embedded is known by them."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
