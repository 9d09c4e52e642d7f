"""More connections of one run: for its threads that write, one at a time, and for those that only read."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import psycopg

from fetcher.errors import StoreError
from fetcher.place import PostgresUrl
from fetcher.stores.postgres.connection import is_lost
from fetcher.stores.postgres.database import CONNECT_SECONDS, LOOK_AGAIN, LOST_SECONDS, Database
from fetcher.stores.sql import Sql

T = TypeVar("T")

MOST_READERS = 8
"""So many connections of a run read at once."""


class Owner:
    """What connections of one run share: whose turn it is to write, and who has the lock."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._holding = threading.Lock()
        self.turn = threading.RLock()

    def hold(self) -> None:
        """See that the run still has the lock, or takes it again. Raises StoreError when another has it."""
        with self._holding:
            try:
                self._db.sql.execute("SELECT 1")
            except psycopg.Error as error:
                if not is_lost(self._db.sql.conn, error):
                    raise
                self._db.find_again(error)


class Beside(Database):
    """Another connection that writes, for another thread of the same run.

    They take turns: what one of them sees in a transaction, no other changes meanwhile.
    """

    def __init__(self, first: Database, owner: Owner) -> None:
        self._owner = owner
        super().__init__(first.path, stopped=first.stopped, warn=first.warn)
        try:
            self.register()
        except BaseException:
            self.close()
            raise

    def _lock(self, seconds: float, take: str = "") -> None:  # noqa: ARG002 - the lock is the first one's
        self._owner.hold()

    def register(self) -> None:
        """From here on every transaction counts itself."""
        with self.explained():
            self._conn.execute(
                "INSERT INTO engines (id, host, pid, begun_at, seen_at) VALUES (%s, %s, %s, %s, %s)",
                [self._name, socket.gethostname(), os.getpid(), int(time.time()), int(time.time())],
            )
        self._counts = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within it stands or falls together. Raises StoreError; Lost, when nothing was written."""
        with self._owner.turn, super().transaction():
            yield


class _Reading(Database):
    """A connection that only reads, and is found again when it is lost."""

    def _connected(self, *, readonly: bool = True, seconds: int = CONNECT_SECONDS) -> psycopg.Connection[Any]:
        return super()._connected(readonly=readonly or True, seconds=seconds)

    def _lock(self, seconds: float, take: str = "") -> None:
        """Whoever reads needs none."""


class ServerConnections:
    """Read-only connections, lent to whoever reads: as many as read at once, however many threads come and go."""

    def __init__(self, url: PostgresUrl, *, stopped: Callable[[], bool], warn: Callable[[str], None]) -> None:
        self._url = url
        self._stopped = stopped
        self._warn = warn
        self._free: deque[_Reading] = deque()
        # A server has few connections to give, and what is read is read in a moment.
        self._some = threading.BoundedSemaphore(MOST_READERS)

    def read(self, do: Callable[[Sql], T]) -> T:
        """What `do` gives of the database as of one moment, done again when the connection is lost.

        Raises StoreError.
        """
        with self._some:
            return self._read(do)

    def _read(self, do: Callable[[Sql], T]) -> T:
        try:
            db = self._free.pop()
        except IndexError:
            db = self._another()
        try:
            found = db.persist(partial(self._once, db, do))
        except BaseException:
            # It may be the connection that is broken.
            db.close()
            raise
        self._free.append(db)
        return found

    def _another(self) -> _Reading:
        """One more connection; a server that is just being started again is waited for. Raises StoreError."""
        deadline = time.monotonic() + LOST_SECONDS
        while True:
            try:
                return _Reading(self._url, stopped=self._stopped, warn=self._warn)
            except StoreError:
                # The run reached it before.
                if self._stopped() or time.monotonic() >= deadline:
                    raise
            time.sleep(LOOK_AGAIN)

    @staticmethod
    def _once(db: _Reading, do: Callable[[Sql], T]) -> T:
        with db.explained():
            db.sql.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            try:
                return do(db.sql)
            finally:
                with suppress(psycopg.Error):
                    db.sql.execute("ROLLBACK")

    def close(self) -> None:
        """Close all of them."""
        with suppress(IndexError):
            while True:
                self._free.pop().close()
