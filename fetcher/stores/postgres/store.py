"""A mirror in a PostgreSQL database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fetcher.model import (
    Batch,
    Committed,
    Detail,
    Failure,
    Key,
    Outcome,
    Page,
    Row,
    RunState,
    Table,
    View,
)
from fetcher.place import PostgresUrl
from fetcher.stores.mirror import MirrorStore
from fetcher.stores.postgres import migrations
from fetcher.stores.postgres.connection import one_line
from fetcher.stores.postgres.database import Database
from fetcher.stores.postgres.indexes import Indexes
from fetcher.stores.postgres.schema import make_table, make_views, refuse_taken
from fetcher.stores.postgres.search import Search

LONGEST_KEY = 2_000
"""Bytes of a key: what is longer fits into no index."""

_UNUSABLE = "the database cannot hold it: {}"


class PostgresStore(MirrorStore):
    """The one writer of a mirror in a PostgreSQL database; used by one thread.

    Opened for writing it holds an advisory lock, which ends with its connection. A connection that is lost is found
    again, and what was under way is done again unless it turns out to have been written.
    """

    def __init__(self, db: Database, source: str, tables: Sequence[Table], clock: Callable[[], float]) -> None:
        super().__init__(db, source, tables, clock)
        self._server = db
        self._search: Search | None = Search.of(self._item, self._children)
        self._indexes = Indexes(tables, db, searched=self._search is not None)

    @classmethod
    def open(
        cls,
        url: PostgresUrl,
        source: str,
        tables: Sequence[Table],
        base_url: str,
        *,
        views: Sequence[View] = (),
        description: str | None = None,
        clock: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
        copying: bool = False,
    ) -> PostgresStore:
        """Open the mirror of `source` for writing; make it, and what newer releases need, where that is missing.

        Raises StoreError when another run has it, or the database cannot be reached or written; ConfigurationError when
        it mirrors another source.
        """
        db = Database(url, stopped=stopped, warn=warn, copying=copying)
        try:
            store = cls(db, source, tables, clock)
            with db.transaction():
                if not migrations.done(db.sql):
                    refuse_taken(db.sql, url, tables)
                migrations.apply(db.sql, url, int(clock()))
                for table in tables:
                    make_table(db.sql, table, tables[0])
                store._adopt(base_url, description)
                make_views(db.sql, views, warn)
                if store._search is not None:
                    store._search.make(db.sql, source)
            db.register()
            with db.explained():
                if store._search is not None:
                    store._search.fill(db, source, stopped, warn)
        except BaseException:
            db.close()
            raise
        return store

    @classmethod
    def peek(cls, url: PostgresUrl, source: str, tables: Sequence[Table]) -> PostgresStore | None:
        """The mirror of `source`, open read-only and without its lock; None where it is still to be made."""
        db = Database.readonly(url)
        try:
            with db.explained():
                if db.sql.has("sources"):
                    store = cls(db, source, tables, time.time)
                    store._refuse_other_source()
                    return store
        except BaseException:
            db.close()
            raise
        db.close()
        return None

    def _halve(self, batch: Batch, state: RunState, error: Exception) -> Committed:
        sifted = _sifted(batch)
        alone = len(batch.pages) == 1 and not (batch.parts or batch.details or batch.gone or batch.failures)
        if sifted is batch and alone:
            (page,) = batch.pages
            if guilty := self._guilty(page, page.rows):
                sifted = replace(batch, pages=(_without(page, guilty),))
        return self.commit(sifted, state) if sifted is not batch else super()._halve(batch, state, error)

    def _guilty(self, page: Page, rows: Sequence[Row]) -> dict[Key, str]:
        """Which of the rows of a page PostgreSQL refuses, and why, found out by halves."""
        details = {row[0]: page.details[row[0]] for row in rows if row[0] in page.details}
        some = replace(page, rows=tuple(rows), details=details, proven=None, token=None, failures=(), left_out=())
        try:
            with self._server.transaction():
                self._write(Batch(pages=(some,)))
                raise _Undone
        except _Undone:
            return {}
        except self._server.refused as error:
            if len(rows) == 1:
                return {rows[0][0]: one_line(error)}
        half = len(rows) // 2
        return self._guilty(page, rows[:half]) | self._guilty(page, rows[half:])


@contextmanager
def kept_from_runs(url: PostgresUrl) -> Iterator[None]:
    """No run uses the database meanwhile; nothing is written. Raises StoreError when one does."""
    db = Database.readonly(url)
    try:
        db.share_lock()
        yield
    finally:
        db.close()


class _Undone(Exception):
    """Ends a transaction that was only tried."""


def _sifted(batch: Batch) -> Batch:
    """The batch with failures in place of what no PostgreSQL can hold; the same one where there is none of that.

    These are NUL characters, lone surrogates, numbers beyond 64 bits and keys too long for an index.
    """
    pages = tuple(map(_sifted_page, batch.pages))
    flaws = {key: flaw for key, detail in batch.details.items() if (flaw := _flaw_of(detail))}
    failures = [Failure(batch.stage, key, Outcome.MALFORMED, _UNUSABLE.format(flaw)) for key, flaw in flaws.items()]
    told = tuple(map(tellable, batch.failures))
    if pages == batch.pages and not flaws and told == batch.failures:
        return batch
    return replace(
        batch,
        pages=pages,
        details={key: detail for key, detail in batch.details.items() if key not in flaws},
        failures=(*told, *failures),
    )


def _sifted_page(page: Page) -> Page:
    flaws: dict[Key, str] = {}
    for row in page.rows:
        flaw = _flaw(row) or (_flaw_of(page.details[row[0]]) if row[0] in page.details else "")
        if not flaw and isinstance(row[0], str) and len(row[0].encode()) > LONGEST_KEY:
            flaw = f"a key of {len(row[0]):,} characters"
        if flaw:
            flaws[row[0]] = flaw
    told = tuple(map(tellable, page.failures))
    if not flaws and told == page.failures:
        return page
    return _without(replace(page, failures=told), flaws)


def _without(page: Page, flaws: Mapping[Key, str]) -> Page:
    """The page with failures in place of the items that have flaws."""
    failures = (Failure("item", _shown(key), Outcome.MALFORMED, _UNUSABLE.format(flaw)) for key, flaw in flaws.items())
    return replace(
        page,
        rows=tuple(row for row in page.rows if row[0] not in flaws),
        details={key: detail for key, detail in page.details.items() if key not in flaws},
        failures=(*page.failures, *failures),
    )


def _flaw_of(detail: Detail) -> str:
    return next((flaw for rows in detail.rows.values() for row in rows if (flaw := _flaw(row))), "")


def _flaw(row: Sequence[Any]) -> str:
    """What of a row cannot be held; nothing where all can."""
    for value in row:
        if isinstance(value, str):
            if "\0" in value:
                return "a NUL character in a text"
            if not value.isascii() and _is_broken(value):
                return "half of a character in a text"
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            return "a number beyond 64 bits"
    return ""


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def tellable(failure: Failure) -> Failure:
    """The failure with a key and a message that can be held."""
    key, message = _shown(failure.key), _shown(failure.message)
    if key == failure.key and message == failure.message:
        return failure
    assert isinstance(message, str)
    return replace(failure, key=key, message=message)


def _shown(text: Key) -> Key:
    if not isinstance(text, str):
        return text
    if "\0" in text or _is_broken(text):
        text = text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    return text if len(text.encode()) <= LONGEST_KEY else text.encode()[:LONGEST_KEY].decode(errors="ignore")
