"""An SQLite file open for writing: its lock, its transactions, and the room that it has."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

from fetcher.errors import Stopped, StoreError
from fetcher.stores import file
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.file import connect, connect_readonly, explained, lock
from fetcher.stores.filesystem import refuse_network

T = TypeVar("T")


class Database:
    """One SQLite connection that writes, used by one thread; those beside it take turns with it.

    The process holds an exclusive `flock` on `FILE.lock` while any of them is open; it dies with the process.
    """

    refused = file.REFUSED

    def __init__(
        self,
        path: Path,
        *,
        stopped: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = lambda _: None,
        allow_network: bool = False,
        copying: bool = False,
    ) -> None:
        """Raises StoreError when another run has the file, it is no database of ours, or it cannot be written.

        A copy that is not complete is open to `copying` alone.
        """
        refuse_network(path, allowed=allow_network, warn=warn)
        self.path = path
        self.stopped = stopped
        self.warn = warn
        self._wal_told = 0
        self._turn: threading.Lock | None = None
        self._others: list[Database] = []
        self._lock: int | None = lock(path)
        try:
            with explained(path):
                self.conn = connect(path, copying=copying)
        except BaseException:
            self.close()
            raise

    @classmethod
    def readonly(cls, path: Path, *, copying: bool = False) -> Self:
        """A connection that only reads, and holds no lock. Raises StoreError."""
        return cls._of(path, connect_readonly(path, copying=copying))

    def beside(self) -> Self:
        """Another connection to the same file, for another thread; closed with this one. Raises StoreError."""
        self._turn = self._turn or threading.Lock()
        with explained(self.path):
            other = self._of(self.path, connect(self.path, any_thread=True))
        other.stopped, other.warn, other._turn = self.stopped, self.warn, self._turn
        other.wait_briefly()
        self._others.append(other)
        return other

    @classmethod
    def _of(cls, path: Path, conn: sqlite3.Connection) -> Self:
        made = object.__new__(cls)
        made.path, made.conn = path, conn
        made.stopped, made.warn = lambda: False, lambda _: None
        made._wal_told, made._turn, made._lock, made._others = 0, None, None, []
        return made

    @cached_property
    def sql(self) -> SqliteSql:
        """The connection, as those see it that care for no database in particular."""
        return SqliteSql(self.conn)

    def persist(self, do: Callable[[], T]) -> T:
        """What `do` gives: a file is not lost on the way."""
        return do()

    def explained(self) -> AbstractContextManager[None]:
        """Turn SQLite's errors into StoreErrors."""
        return explained(self.path)

    def interruptible(self) -> AbstractContextManager[None]:
        """End a long statement when the run is to stop. Raises Stopped."""
        return file.interruptible(self.conn, self.stopped)

    def wait_briefly(self) -> None:
        """From here on a transaction that has to wait does so in steps short enough for Ctrl-C."""
        self.conn.execute("PRAGMA busy_timeout = 250")

    def close(self) -> None:
        """Close the connection and those beside it, and let go of the lock."""
        for other in self._others:
            other.close()
        if hasattr(self, "conn"):
            self.conn.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within it stands or falls together. Raises StoreError, and Stopped while it waits."""
        # Among our own threads a lock hands over at once; SQLite would sleep and look again.
        if self._turn is not None:
            with self._turn, self._written():
                yield
        else:
            with self._written():
                yield

    @contextmanager
    def _written(self) -> Iterator[None]:
        with explained(self.path):
            self._begin()
            try:
                yield
                self.conn.execute("COMMIT")
            except BaseException:
                if self.conn.in_transaction:
                    self.conn.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        """Begin to write; while another program does, wait for it, but not when the run is to stop. Raises Stopped."""
        deadline = time.monotonic() + file.BUSY_SECONDS
        while True:
            try:
                self.conn.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= deadline:
                    raise
                if self.stopped():
                    raise Stopped(
                        f"another program keeps {self.path} locked: the last batch is fetched again"
                    ) from None

    def room(self) -> int:
        """How many bytes are free where the file lies. Raises StoreError."""
        try:
            return shutil.disk_usage(self.path.absolute().parent).free
        except OSError as error:
            raise StoreError(f"{self.path} cannot be looked at: {os.strerror(error.errno or 0)}") from None

    def tend(self) -> None:
        """Empty a write-ahead log that a reader kept from being emptied, or say that one still does."""
        try:
            size = self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except OSError:
            return
        if size <= file.WAL_BYTES:
            self._wal_told = 0
            return
        with explained(self.path):
            (busy, *_) = self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy and size >= 2 * max(self._wal_told, file.WAL_BYTES):
            self._wal_told = size
            self.warn(
                f"a reader keeps the log of {self.path} from being emptied: it has grown to {size / 1e6:,.0f} MB;"
                " end long queries and open transactions on it"
            )
