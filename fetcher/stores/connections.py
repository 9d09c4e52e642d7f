"""Connections for threads that only read."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from fetcher.stores.bulk import SqliteSql
from fetcher.stores.file import connect_readonly, explained
from fetcher.stores.sql import Sql

T = TypeVar("T")


class Readers(Protocol):
    """Lends connections to threads that only read."""

    def read(self, do: Callable[[Sql], T]) -> T:
        """What `do` gives of the database as of one moment. Raises StoreError."""
        ...

    def close(self) -> None:
        """Close them."""
        ...


class Connections:
    """Read-only connections, lent to whoever reads: as many as read at once, however many threads come and go.

    To be closed: the last to close a file empties its log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._free: deque[sqlite3.Connection] = deque()
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection within a transaction: all that is read by it is of one moment. Raises StoreError."""
        try:
            conn = self._free.pop()
        except IndexError:
            conn = connect_readonly(self._path, any_thread=True)
        try:
            with explained(self._path):
                conn.execute("BEGIN")
                yield conn
                conn.execute("COMMIT")
        except BaseException:
            # It may be the connection that is broken.
            conn.close()
            raise
        self._free.append(conn)
        if self._closed:
            self.close()

    def read(self, do: Callable[[Sql], T]) -> T:
        """What `do` gives of the database as of one moment. Raises StoreError."""
        with self.reading() as conn:
            return do(SqliteSql(conn))

    def close(self) -> None:
        """Close all of them; one that is lent just now is closed once it comes back."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._free.pop().close()
