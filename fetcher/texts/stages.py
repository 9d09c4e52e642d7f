"""What the stages do: documents are read into chunks, texts are embedded, categories are written out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fetcher.embedders import Embedder
from fetcher.embedders.calls import through
from fetcher.errors import ConfigurationError, FetcherError, RequestFailed
from fetcher.export import Written, write_category
from fetcher.governor import Governor
from fetcher.model import GONE, Detail, Gone, Key, Outcome, Row
from fetcher.place import Place
from fetcher.stop import Stop
from fetcher.stores.connections import Readers
from fetcher.stores.sql import Sql
from fetcher.stores.texts import other_model, texts_of
from fetcher.texts.backlog import Backlog
from fetcher.texts.documents import document_at
from fetcher.texts.embedding import Accepted, embed_batch
from fetcher.texts.items import Items
from fetcher.texts.reader import Reader
from fetcher.texts.reading import PIECE_BYTES, PIECE_ROWS, PIECE_SECONDS, ChunkRow, ReadingOptions

Results = Mapping[Key, Detail | Gone | Exception]

PROBE = "fetcher"
"""The text that is embedded to see whether an embedder works."""


class Reading:
    """The stage `read`: one file a call, then its further pieces."""

    def __init__(self, reader: Reader, options: ReadingOptions, governor: Governor, backlog: Backlog) -> None:
        self._reader = reader
        self._options = options
        self._governor = governor
        self._backlog = backlog

    def run(self, names: Sequence[Key]) -> Results:
        """The first piece of each document."""
        return {name: _or_error(self._begin, str(name)) for name in names}

    def _begin(self, name: str) -> Detail | Gone:
        document = document_at(name)
        version = self._options.version(document)
        return self._piece(self._reader.pieces(document.path, name), version, 0, 0, -1)

    def _piece(self, pieces: Iterator[list[ChunkRow]], version: str, part: int, count: int, last: int) -> Detail:
        """The next piece, behind `count` chunks up to the position `last`."""
        self._backlog.wait()
        rows, ended, flaw = through(self._governor, lambda: _taken(pieces, kept=count > 0))
        found: dict[str, Sequence[Row]] = {}
        if rows:
            found = {"chunks": rows, "after": [(last,)]}
            count, last = count + len(rows), rows[-1][1]
        size = sum(len(row[2]) for row in rows)
        if ended:
            return Detail({**found, "documents": [(version, count, last)]}, part=part, flaw=flaw, size=size)
        return Detail(found, part=part, rest=partial(self._piece, pieces, version, part + 1, count, last), size=size)


def _taken(pieces: Iterator[list[ChunkRow]], *, kept: bool) -> tuple[list[ChunkRow], bool, str | None]:
    """The next rows of a document, whether they are the last, and what was wrong with those behind them.

    The end is looked for at once where it is near: a call of its own to find it would double those of small files. What
    is wrong is an error as long as nothing of the document is `kept`.
    """
    rows: list[ChunkRow] = []
    size = 0
    begun = time.monotonic()
    try:
        while (piece := next(pieces, None)) is not None:
            rows += piece
            size += sum(len(row[2]) for row in piece)
            slow = time.monotonic() - begun >= PIECE_SECONDS
            if len(rows) >= PIECE_ROWS or size >= PIECE_BYTES // 4 or slow:
                return rows, False, None
    except RequestFailed as error:
        if not (rows or kept) or not error.lasting or error.outcome is Outcome.GONE:
            raise
        # What came is kept, and is not read again until the document changes.
        return rows, True, str(error)
    return rows, True, None


class ReadingItems:
    """The stage `read-items`: many items of a mirror a call."""

    def __init__(self, items: Items, connections: Readers, governor: Governor, backlog: Backlog) -> None:
        self._items = items
        self._connections = connections
        self._governor = governor
        self._backlog = backlog

    def run(self, names: Sequence[Key]) -> Results:
        """The chunks of each item."""
        try:
            self._backlog.wait()
            return through(self._governor, lambda: self._read(names))
        except FetcherError as error:
            return dict.fromkeys(names, error)

    def _read(self, names: Sequence[Key]) -> Results:
        return self._connections.read(partial(self._read_from, names))

    def _read_from(self, names: Sequence[Key], sql: Sql) -> Results:
        found: dict[Key, Key] = dict(
            sql.array_for_keys(f"{sql.select('name', 'item')} FROM documents WHERE name IN ", list(names))
        )
        read = self._items.read(sql, list(found.values()))
        return {name: self._detail(*read[found[name]]) if found.get(name) in read else GONE for name in names}

    def _detail(self, version: str, rows: list[ChunkRow]) -> Detail:
        last = rows[-1][1] if rows else -1
        return Detail(
            {"chunks": rows, "documents": [(version, len(rows), last)]}, size=sum(len(row[2]) for row in rows)
        )


class Embedding:
    """The stage `embed`: a batch of texts a call."""

    def __init__(
        self,
        embedder: Embedder,
        path: Place,
        connections: Readers,
        recorded: tuple[str, int] | None,
        *,
        most: int,
        most_bytes: int,
    ) -> None:
        self._embedder = embedder
        self._connections = connections
        self._path = path
        self._recorded = recorded
        self._most, self._most_bytes = most, most_bytes
        self._accepted = Accepted()
        self._dimension = 0

    def model(self) -> tuple[str, int]:
        """The model's name and dimension, once `first` was called."""
        return self._embedder.name, self._dimension

    def first(self) -> None:
        """See that the embedder works, and gives vectors as those that are stored.

        Raises RequestFailed, ConfigurationError.
        """
        try:
            (vector,) = self._embedder.embed([PROBE])
        except RequestFailed as error:
            if error.outcome is Outcome.DENIED and error.status == 404:
                raise ConfigurationError(str(error)) from None
            raise
        # So what is refused later is at fault itself, be it all that there is.
        self._accepted.took(1)
        self._dimension = len(vector) // 4
        if self._recorded not in (None, self.model()):
            assert self._recorded is not None
            raise other_model(self._path, self._recorded, *self.model())

    def life(self) -> None:
        """See whether it answers again, past all that wait."""
        going_first: Callable[[], Embedder] = getattr(self._embedder, "going_first", lambda: self._embedder)
        going_first().embed([PROBE])

    def run(self, hashes: Sequence[Key]) -> Results:
        """The vectors of texts, by their hashes."""
        try:
            texts = self._connections.read(lambda sql: texts_of(sql, [str(each) for each in hashes]))
            found = embed_batch(
                self._embedder, texts, most=self._most, most_bytes=self._most_bytes, accepted=self._accepted
            )
        except FetcherError as error:
            return dict.fromkeys(hashes, error)
        return {key: self._result(str(key), found) for key in hashes}

    def _result(self, key: str, found: Mapping[str, bytes | RequestFailed]) -> Detail | Gone | Exception:
        vector = found.get(key)
        if vector is None:
            return GONE  # No chunk has this text any more.
        if isinstance(vector, RequestFailed):
            return vector
        if len(vector) != 4 * self._dimension:
            return RequestFailed(
                Outcome.MALFORMED, f"a vector of {len(vector) // 4} dimensions, not {self._dimension}", lasting=True
            )
        return Detail({"vectors": [(key, vector)]}, size=len(vector))


class Aggregating:
    """The stage `aggregate`: a category's file a call, for at most a tenth of the time while texts still come."""

    def __init__(
        self,
        connections: Readers,
        out: Path,
        governor: Governor,
        stop: Stop,
        *,
        batch: int,
        more: Callable[[], bool],
    ) -> None:
        self._connections = connections
        self._out = out
        self._governor = governor
        self._stop = stop
        self._batch = batch
        self._more = more
        self._rest_until = 0.0
        self.changed: set[str] = set()
        self.unchanged: set[str] = set()

    def run(self, keys: Sequence[Key]) -> Results:
        """Write the file of each category."""
        return {key: _or_error(self._write, str(key)) for key in keys}

    def _write(self, key: str) -> Detail:
        while self._more() and (wait := self._rest_until - self._stop.now()) > 0:
            if self._stop.wait(min(wait, 0.5)):
                break
        domain, category = json.loads(key)
        began = self._stop.now()

        def write(sql: Sql) -> tuple[int, Written]:
            (state,) = sql.execute(
                "SELECT changes FROM categories WHERE domain = ? AND category = ?", [domain, category]
            ).fetchone()
            return state, write_category(sql, self._out, domain, category, batch=self._batch)

        state, done = through(self._governor, lambda: self._connections.read(write))
        if done.changed:
            self.changed.add(key)
            self.unchanged.discard(key)
        elif key not in self.changed:
            self.unchanged.add(key)
        self._rest_until = self._stop.now() + 9 * (self._stop.now() - began)
        return Detail({"categories": [(domain, category, state)]})


def _or_error(call: Callable[[str], Detail | Gone], key: str) -> Detail | Gone | Exception:
    try:
        return call(key)
    except RequestFailed as error:
        return GONE if error.outcome is Outcome.GONE else error
    except FetcherError as error:
        return error
