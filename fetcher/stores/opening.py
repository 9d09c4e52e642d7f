"""The one place that decides by where a database is which store is opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from fetcher.errors import ConfigurationError, StoreError
from fetcher.model import Table, View
from fetcher.place import Place, PostgresUrl
from fetcher.stores import file
from fetcher.stores.connections import Connections, Readers
from fetcher.stores.database import Database
from fetcher.stores.mirror import MirrorStore
from fetcher.stores.rows import Reader, SqliteRows, SqliteWriter, Writer
from fetcher.stores.sql import Session, Sql
from fetcher.stores.sqlite import SqliteStore


def open_store(
    place: Place,
    source: str,
    tables: Sequence[Table],
    base_url: str,
    *,
    views: Sequence[View] = (),
    description: str | None = None,
    clock: Callable[[], float] = time.time,
    warn: Callable[[str], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    allow_network: bool = False,
    copying: bool = False,
) -> MirrorStore:
    """Open the mirror of `source` for writing; make it, and what newer releases need, where that is missing.

    Raises StoreError when another run has it, or it is no database of ours, cannot be written, …; when a file is on a
    network file system, unless `allow_network`; ConfigurationError when it mirrors another source, or what it takes to
    open it is not installed; and Interrupted when it was stopped by then. A copy that is not complete is open to
    `copying` alone.
    """
    if isinstance(place, PostgresUrl):
        opened: MirrorStore = _postgres(place).PostgresStore.open(
            place,
            source,
            tables,
            base_url,
            views=views,
            description=description,
            clock=clock,
            warn=warn,
            stopped=stopped,
            copying=copying,
        )
        return opened
    return SqliteStore.open(
        place,
        source,
        tables,
        base_url,
        views=views,
        description=description,
        clock=clock,
        warn=warn,
        stopped=stopped,
        allow_network=allow_network,
        copying=copying,
    )


def peek_store(place: Place, source: str, tables: Sequence[Table]) -> MirrorStore | None:
    """The mirror of `source`, open read-only and without its lock; None where there is none yet. Raises StoreError."""
    if isinstance(place, PostgresUrl):
        peeked: MirrorStore | None = _postgres(place).PostgresStore.peek(place, source, tables)
        return peeked
    return SqliteStore.peek(place, source, tables)


@contextmanager
def reading(place: Place, *, moment: bool = False, stopped: Callable[[], bool] | None = None) -> Iterator[Sql]:
    """A database of ours to be read, also while a run writes it; with `moment` all of it as of one moment.

    A long statement ends once `stopped` says so. Raises StoreError, and Stopped then.
    """
    db: Session
    if isinstance(place, PostgresUrl):
        db = _postgres(place).Database.readonly(place)
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ"
    else:
        db = Database.readonly(place)
        begin = "BEGIN"
    db.stopped = stopped or db.stopped
    try:
        with db.explained():
            if isinstance(place, PostgresUrl) and not db.sql.has("sources"):
                raise StoreError(f"there is no mirror in {place}: `fetcher fetch` makes it")
            if moment:
                db.sql.execute(begin)
            with db.interruptible() if stopped is not None else nullcontext():
                yield db.sql
    finally:
        db.close()


@contextmanager
def rows_of(place: Place, *, stopped: Callable[[], bool] = lambda: False, copying: bool = False) -> Iterator[Reader]:
    """All rows of a database of ours as of one moment; a copy that is not complete is open to `copying` alone.

    Raises StoreError, and Stopped in the middle of a long statement.
    """
    if isinstance(place, PostgresUrl):
        server = _postgres(place).Database.readonly(place, copying=copying)
        server.stopped = stopped
        try:
            with server.explained(), server.interruptible():
                if not server.sql.has("sources"):
                    raise StoreError(f"there is no mirror in {place}: `fetcher fetch` makes it")
                server.sql.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                yield _postgres_rows().PostgresRows(server.sql)
        finally:
            server.close()
        return
    db = Database.readonly(place, copying=copying)
    try:
        with db.explained(), file.interruptible(db.conn, stopped):
            db.conn.execute("BEGIN")
            yield SqliteRows(db.sql)
    finally:
        db.close()


@contextmanager
def rows_into(
    place: Place,
    *,
    warn: Callable[[str], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    allow_network: bool = False,
) -> Iterator[Writer]:
    """A database that is being made as a copy, or to be made, with its lock. Raises StoreError."""
    if isinstance(place, PostgresUrl):
        server = _postgres(place).Database(place, stopped=stopped, warn=warn, copying=True)
        try:
            if server.sql.has("engines"):
                server.register()
            yield _postgres_rows().PostgresWriter(server)
        finally:
            server.close()
        return
    db = Database(place, stopped=stopped, warn=warn, allow_network=allow_network, copying=True)
    try:
        db.wait_briefly()
        yield SqliteWriter(db)
    finally:
        db.close()


def holds(place: Place, part: str) -> bool:
    """Whether what else there is beside a mirror, texts or jobs, can be there."""
    return not isinstance(place, PostgresUrl) or part in _postgres_rows().HOLDS


def _postgres_rows() -> Any:
    from fetcher.stores.postgres import rows

    return rows


def open_on_server(
    place: PostgresUrl, *, clock: Callable[[], float], stopped: Callable[[], bool], warn: Callable[[str], None]
) -> tuple[Session, str]:
    """A database of a server with the tables of texts, made where there is none, and the name of its source.

    Raises StoreError, ConfigurationError.
    """
    _postgres(place)
    from fetcher.stores.postgres.texts import open_texts

    return open_texts(place, clock=clock, stopped=stopped, warn=warn)


def connections(place: Place, *, stopped: Callable[[], bool], warn: Callable[[str], None]) -> Readers:
    """Connections for threads that only read. Raises ConfigurationError."""
    if isinstance(place, PostgresUrl):
        _postgres(place)
        from fetcher.stores.postgres.beside import ServerConnections

        return ServerConnections(place, stopped=stopped, warn=warn)
    return Connections(place)


def kept_from_runs(place: Place) -> AbstractContextManager[None]:
    """No run uses the database meanwhile; nothing is written. Raises StoreError when one does."""
    if isinstance(place, PostgresUrl):
        kept: AbstractContextManager[None] = _postgres(place).kept_from_runs(place)
        return kept
    return file.kept_from_runs(place)


def is_new(place: Place) -> bool:
    """Whether a database is still to be made there. Raises StoreError when nobody can tell."""
    if not isinstance(place, PostgresUrl):
        return file.is_new(place)
    db = _postgres(place).Database.readonly(place)
    try:
        with db.explained():
            return not bool(db.sql.has("sources"))
    finally:
        db.close()


def _postgres(place: PostgresUrl) -> Any:
    """What opens a database of a PostgreSQL server. Raises ConfigurationError where its client is not installed."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"{place} is reached with psycopg, which cannot be loaded ({error}): pip install 'fetcher[postgres]'"
        ) from None
    from fetcher.stores.postgres import store

    return store
