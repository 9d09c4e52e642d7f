"""A mirror in one SQLite file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fetcher.model import Table, View
from fetcher.stores import migrations
from fetcher.stores.database import Database
from fetcher.stores.file import explained, is_made, is_new
from fetcher.stores.indexes import Indexes
from fetcher.stores.mirror import MirrorStore
from fetcher.stores.mirror import Sweep as Sweep
from fetcher.stores.schema import make_table, make_views
from fetcher.stores.search import Search


class SqliteStore(MirrorStore):
    """The one writer of a mirror's database file; used by one thread.

    Opened for writing it holds an exclusive `flock` on `FILE.lock`, which dies with the process.
    """

    _another = "file"

    def __init__(
        self, db: Database, source: str, tables: Sequence[Table], clock: Callable[[], float], stage: str = "detail"
    ) -> None:
        super().__init__(db, source, tables, clock, stage)
        self._file = db
        self._search: Search | None = Search.of(self._item, self._children)
        self._indexes = Indexes(tables, db)

    # --- opening --------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: Path,
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
    ) -> SqliteStore:
        """Open the mirror of `source` for writing; make it, and what newer releases need, where that is missing.

        Raises StoreError when another run has it, or it is no database of ours, cannot be written, …; when it is on a
        network file system, unless `allow_network`; ConfigurationError when it mirrors another source; and Interrupted
        when it was stopped by then.
        """
        db = Database(path, stopped=stopped, warn=warn, allow_network=allow_network, copying=copying)
        try:
            store = cls(db, source, tables, clock)
            with explained(path):
                store._prepare(base_url, tables, views, description)
                db.wait_briefly()
                if store._search is not None:
                    store._search.fill(db.conn, source, db.transaction, stopped, warn)
        except BaseException:
            db.close()
            raise
        return store

    @classmethod
    def peek(cls, path: Path, source: str, tables: Sequence[Table]) -> SqliteStore | None:
        """The mirror of `source`, open read-only and without its lock; None where there is no such file yet."""
        if is_new(path):
            return None
        with explained(path):
            db = Database.readonly(path)
        try:
            with explained(path):
                if is_made(db.conn):
                    store = cls(db, source, tables, time.time)
                    store._refuse_other_source()
                    return store
        except BaseException:
            db.close()
            raise
        db.close()
        return None

    def beside(self, stage: str = "detail") -> SqliteStore:
        """Another store of the same file, for another thread, whose runs are of `stage`; closed with this one."""
        return SqliteStore(self._file.beside(), self.source, self._tables, self._clock, stage)

    @property
    def db(self) -> Database:
        """The open file."""
        return self._file

    def _prepare(self, base_url: str, tables: Sequence[Table], views: Sequence[View], description: str | None) -> None:
        conn = self._file.conn
        migrations.apply(conn)
        with self._file.transaction():
            # First: tables of another source may have the names of ours and other columns.
            self._refuse_other_source()
            for table in tables:
                make_table(conn, table, self._item)
            self._adopt(base_url, description)
            make_views(conn, views, self._file.warn)
            if self._search is not None:
                self._search.make(conn, self.source)
