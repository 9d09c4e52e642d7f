"""Connections for threads that only read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fetcher.stores.file import connect_readonly, explained


class Connections:
    """A read-only connection for each thread that asks. To be closed: the last to close a file empties its log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The thread's connection. Raises StoreError."""
        conn: sqlite3.Connection | None = getattr(self._local, "conn", None)
        if conn is None:
            conn = self._local.conn = connect_readonly(self._path, any_thread=True)
            self._open.append(conn)
        with explained(self._path):
            yield conn

    def close(self) -> None:
        """Close all of them."""
        for conn in self._open:
            conn.close()
