"""A mirror's own items as documents: their texts, such as tags and comments, are read into chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from fetcher.model import Key, Table
from fetcher.stores.schema import quoted
from fetcher.stores.sql import Sql
from fetcher.texts.chunk import chunk_id, text_hash
from fetcher.texts.chunking import Piece, chunked
from fetcher.texts.parsers import Block, Section
from fetcher.texts.reading import ChunkRow, ReadingOptions

STEP = 1000
"""So many items are looked at, at once."""


class Items:
    """The items of a mirror whose source declares texts; `tables` are the source's."""

    def __init__(self, source: str, tables: Sequence[Table], options: ReadingOptions) -> None:
        self._item = tables[0]
        self._texts = [table for table in tables if table.search and (table.parent is not None or table is tables[0])]
        self._domain = options.domain or source
        self._category = options.category or self._item.name
        self._options = options

    @property
    def have_texts(self) -> bool:
        """Whether there is anything to be read of them."""
        return bool(self._texts)

    @property
    def folder(self) -> str:
        """What the names of their documents begin with, before the `/`."""
        return self._item.name

    def name(self, key: Key) -> str:
        """The name of an item's document."""
        return f"{self._item.name}/{key}"

    def listed(self, sql: Sql) -> Iterator[list[tuple[str, str, Key]]]:
        """All fetched items as documents (name, version, key), some at a time; an item that is gone has no text."""
        key, table = quoted(self._item.columns[0].name), quoted(self._item.name)
        above, last = "true", list[Key]()
        while True:
            found = sql.array(
                f"{sql.select(key, 'fetched_at')} FROM (SELECT {key}, fetched_at FROM {table}"
                f" WHERE {above} AND fetched_at IS NOT NULL AND gone_at IS NULL ORDER BY {key} LIMIT {STEP}) AS few",
                last,
            )
            if not found:
                return
            above, last = f"{key} > ?", [found[-1][0]]
            yield [(self.name(key), self._version(fetched_at), key) for key, fetched_at in found]

    def read(self, sql: Sql, keys: Sequence[Key]) -> Mapping[Key, tuple[str, list[ChunkRow]]]:
        """The version and the chunks of items; one that is gone is left out."""
        id_, items = quoted(self._item.columns[0].name), quoted(self._item.name)
        versions: dict[Key, int] = dict(
            sql.array_for_keys(
                f"{sql.select(id_, 'fetched_at')} FROM {items}"
                f" WHERE fetched_at IS NOT NULL AND gone_at IS NULL AND {id_} IN ",
                list(keys),
            )
        )
        blocks: dict[Key, list[Block]] = {key: [] for key in versions}
        for table in self._texts:
            owner = quoted(table.parent or table.columns[0].name)
            first = quoted(table.columns[0].name)
            found = sql.array_for_keys(
                f"{sql.select(owner, first, *map(quoted, table.search))} FROM {quoted(table.name)} WHERE {owner} IN ",
                list(versions),
            )
            named: set[Key] = set()
            # In the order of their keys, which is that of a clustered table.
            for key, _, *parts in sorted(found, key=itemgetter(0, 1)):
                if key not in named:
                    named.add(key)
                    blocks[key].append(Section(chapter=table.name))
                blocks[key] += [part for part in parts if isinstance(part, str) and part and not part.isspace()]
        return {key: (self._version(versions[key]), self._chunks(key, found)) for key, found in blocks.items()}

    def _version(self, fetched_at: int) -> str:
        return f"{fetched_at}:{self._options.digest}"

    def _chunks(self, key: Key, blocks: Sequence[Block]) -> list[ChunkRow]:
        options, name = self._options, self.name(key)
        pieces = chunked(blocks, options.chunk_size, options.chunk_overlap)
        return [
            (
                chunk_id(name, position),
                position,
                piece.text,
                text_hash(piece.text),
                self._domain,
                self._category,
                name,
                piece.section.chapter,
            )
            for position, piece in enumerate(each for each in pieces if isinstance(each, Piece))
        ]
