"""A PostgreSQL database open for writing: its lock, its transactions, and how it is found again after a loss."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Self, TypeVar

import psycopg
from psycopg import conninfo, errors, pq

from fetcher.errors import Stopped, StoreError
from fetcher.place import PostgresUrl
from fetcher.stores.marker import COPYING, unfinished
from fetcher.stores.postgres.connection import REFUSED, PostgresSql, adapted, is_lost, one_line

T = TypeVar("T")

CONNECT_SECONDS = 10
"""How long a server may take to let us in."""

LOCK_SECONDS = 3.0
"""How long a run waits for another to end: what one that was killed did last, the server ends before it lets go."""

LOST_SECONDS = 60.0
"""How long a run waits for a server that is gone, as for one that is started again."""

LOSSES = 5
"""So often in a row a connection may be lost over the same."""

LOCKED_SECONDS = 30
"""How long a table may be locked by somebody else's transaction."""

STOP_SECONDS = 1.2
"""How long a run that is to stop waits for a server that does not answer."""

LOOK_AGAIN = 0.2
_ROOM = 2**62

_SETTINGS = {
    # The server is to notice a machine that is gone, or else its lock would stay for hours.
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": f"{LOCKED_SECONDS}s",
    "client_min_messages": "warning",
    "jit": "off",
}

_WRITING = {
    # All that a run asks for it asks for by keys. While a load goes on nobody has statistics yet, and what was planned
    # for an empty table is no plan for a full one.
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}

_SAYING: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.DiskFull, "the server's disk is full: make room and run again, what was stored is safe"),
    (errors.InsufficientPrivilege, "its user may not do that: grant it what is needed, or name another"),
    (errors.ReadOnlySqlTransaction, "it is read-only: name the primary server"),
    (errors.InvalidPassword, "the server refuses the password"),
    (errors.InvalidCatalogName, "the server has no such database: make it with createdb"),
    (
        errors.LockNotAvailable,
        f"another program has kept a table locked for {LOCKED_SECONDS} s: end its transaction, run again",
    ),
    (errors.TooManyConnections, "the server has no connection left: raise its max_connections"),
)


_AGAIN = (errors.DeadlockDetected, errors.SerializationFailure)
"""Somebody else was in the way of a transaction, of which nothing was written."""


class Lost(StoreError):
    """Nothing of the transaction that was under way has been written: commonly since the connection was lost."""


class Database:
    """One connection that writes, used by one thread.

    It holds an advisory lock of the schema's, which ends with the connection, and has a row of its own in `engines`, in
    which each transaction counts itself: so the outcome of a COMMIT that was never answered can be found out.
    """

    refused = REFUSED
    _copying = False
    _within = False
    _owned: Any = None

    def __init__(
        self,
        url: PostgresUrl,
        *,
        stopped: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = lambda _: None,
        copying: bool = False,
    ) -> None:
        """Raises StoreError when another run has the database, or it cannot be reached.

        A copy that is not complete is open to `copying` alone.
        """
        self._copying = copying
        self.path = url
        self.stopped = stopped
        self.warn = warn
        self._name = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._commits = 0
        self._counts = False
        self._closed = threading.Event()
        self._others: list[Database] = []
        self._conn = self._connected()
        self.sql = PostgresSql(self._conn)
        self._watcher: threading.Thread | None = threading.Thread(
            target=self._watch, name="fetcher-postgres", daemon=True
        )
        try:
            self._lock(LOCK_SECONDS)
            assert self._watcher is not None
            self._watcher.start()
        except BaseException:
            self.close()
            raise

    @classmethod
    def readonly(cls, url: PostgresUrl, *, copying: bool = False) -> Self:
        """A connection that only reads, and holds no lock. Raises StoreError."""
        made = object.__new__(cls)
        made._copying = copying
        made.path = url
        made.stopped, made.warn = lambda: False, lambda _: None
        made._counts, made._closed, made._watcher = False, threading.Event(), None
        made._others = []
        made._conn = made._connected(readonly=True)
        made.sql = PostgresSql(made._conn)
        return made

    def beside(self) -> Database:
        """Another connection of the same run, for another thread; closed with this one. Raises StoreError."""
        from fetcher.stores.postgres.beside import Beside, Owner

        if self._owned is None:
            self._owned = Owner(self)
        other = Beside(self, self._owned)
        self._others.append(other)
        return other

    def share_lock(self) -> None:
        """Keep runs away while the connection lasts. Raises StoreError when one has the database."""
        self._lock(0.0, "pg_try_advisory_lock_shared")

    def _connected(self, *, readonly: bool = False, seconds: int = CONNECT_SECONDS) -> psycopg.Connection[Any]:
        with self.explained():
            conn = psycopg.connect(**{"connect_timeout": seconds, **_parameters(self.path)}, autocommit=True)
            try:
                adapted(conn)
                settings = {**_SETTINGS, **({"default_transaction_read_only": "on"} if readonly else _WRITING)}
                row = conn.execute("SELECT current_setting('synchronous_commit')").fetchone()
                if row is None or row[0] in ("off", "local"):
                    settings["synchronous_commit"] = "on"
                names = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
                conn.execute(f"SELECT {names}")
                with suppress(psycopg.DataError, psycopg.ProgrammingError):
                    # Servers before 14, and those of some systems, cannot look.
                    conn.execute("SET client_connection_check_interval = '5s'")
                if conn.execute("SELECT current_schema()").fetchone() == (None,):
                    raise StoreError(
                        f"{self.path}: there is no schema to write to: make the one that search_path names"
                    )
                if not self._copying and conn.execute(f"SELECT to_regclass('{COPYING}')").fetchone() != (None,):
                    row = conn.execute(f"SELECT origin FROM {COPYING}").fetchone()
                    raise unfinished(self.path, row[0] if row else None)
                self._backend = conn.execute(
                    "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
                ).fetchone()
            except BaseException:
                conn.close()
                raise
            return conn

    def close(self) -> None:
        """Close the connection and those beside it, and let go of the lock."""
        for other in self._others:
            other.close()
        with suppress(psycopg.Error):
            if self._counts:
                self._conn.execute("DELETE FROM engines WHERE id = %s", [self._name])
        self._closed.set()
        self._conn.close()
        if self._watcher is not None and self._watcher.is_alive():
            self._watcher.join()

    def _watch(self) -> None:
        """Cut the connection to a server that does not answer, once the run is to stop."""
        asked = None
        while not self._closed.wait(LOOK_AGAIN):
            if not self.stopped() or self._conn.pgconn.transaction_status != pq.TransactionStatus.ACTIVE:
                asked = None
            elif asked is None:
                asked = time.monotonic()
            elif time.monotonic() - asked > STOP_SECONDS:
                with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._conn.fileno())) as sock:
                    sock.shutdown(socket.SHUT_RDWR)
                asked = None

    def _lock(self, seconds: float, take: str = "pg_try_advisory_lock") -> None:
        """An exclusive lock on the mirror while the connection lasts. Raises StoreError."""
        deadline = time.monotonic() + seconds
        while True:
            with self.explained():
                row = self._conn.execute(f"SELECT {take}(hashtext('fetcher'), hashtext(current_schema()))").fetchone()
            if row == (True,):
                return
            if time.monotonic() >= deadline:
                raise StoreError(f"{self.path} is in use by another run: wait for it, or stop it")
            self._wait()

    def _wait(self) -> None:
        if self.stopped():
            raise Stopped(f"stopped while {self.path} was waited for: the last batch is fetched again")
        time.sleep(LOOK_AGAIN)

    def register(self) -> None:
        """From here on every transaction counts itself; the table `engines` is there."""
        with self.explained():
            # Whoever has the lock is alone: what others have left of theirs is of runs that died.
            self._conn.execute("DELETE FROM engines")
            self._conn.execute(
                "INSERT INTO engines (id, host, pid, begun_at, seen_at) VALUES (%s, %s, %s, %s, %s)",
                [self._name, socket.gethostname(), os.getpid(), int(time.time()), int(time.time())],
            )
        self._counts = True

    # --- transactions ---------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within it stands or falls together. Raises StoreError; Lost, when nothing was written."""
        with self.explained():
            self._conn.execute("BEGIN", prepare=False)
            self._within = True
            try:
                yield
                if self._counts:
                    counted = self._conn.execute(
                        "UPDATE engines SET commits = %s, seen_at = %s WHERE id = %s",
                        [self._commits + 1, int(time.time()), self._name],
                    )
                    if not counted.rowcount:
                        raise self._taken_over()
            except BaseException:
                with suppress(psycopg.Error):
                    self._conn.execute("ROLLBACK", prepare=False)
                self.sql.rolled_back()
                raise
            finally:
                self._within = False
            try:
                self._conn.execute("COMMIT", prepare=False)
            except psycopg.Error as error:
                if not is_lost(self._conn, error):
                    raise
                if not self._was_committed(error):
                    raise self._lost() from error
        self._commits += 1

    def _was_committed(self, error: psycopg.Error) -> bool:
        """Whether a transaction has come to its end whose COMMIT nobody answered. Raises StoreError."""
        self.find_again(error)
        if not self._counts:
            return False
        row = self._conn.execute("SELECT commits FROM engines WHERE id = %s", [self._name]).fetchone()
        if row is None:
            raise self._taken_over()
        return int(row[0]) > self._commits

    def persist(self, do: Callable[[], T]) -> T:
        """What `do` gives, done again when the connection is lost before anything of it was written. Raises StoreError.

        A server that ends whenever it is asked for the same is not asked for ever. Within a transaction it is only done
        once: what is lost then is all of the transaction, for whoever began it to do again.
        """
        if self._within:
            with self.explained():
                return do()
        for left in reversed(range(LOSSES)):
            try:
                with self.explained():
                    return do()
            except Lost as error:
                if not left:
                    raise
                if self._conn.closed:
                    self.find_again(error.__cause__ or error)
            except REFUSED as error:
                raise StoreError(f"{self.path}: {one_line(error, _password(self.path))}") from error
        raise AssertionError

    def find_again(self, error: BaseException) -> None:
        """Connect anew, once what the old connection did has come to its end. Raises StoreError and Stopped."""
        said = one_line(error, _password(self.path))
        self.warn(f"{self.path}: the connection is lost ({said}); trying to connect again")
        self._conn.close()
        if self.stopped():
            self._wait()
        before, deadline = self._backend, time.monotonic() + LOST_SECONDS
        while True:
            try:
                self._conn = self._connected(seconds=2)
                break
            except StoreError:
                if time.monotonic() >= deadline:
                    raise
            self._wait()
        self.sql.moved_to(self._conn)
        # The server may not know yet that the old connection is cut. Its lock is ours once it has ended, with whatever
        # it was about.
        with suppress(psycopg.Error):
            self._conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE (pid, backend_start) = (%s, %s)", before
            )
        self._lock(max(LOCK_SECONDS, deadline - time.monotonic()))

    def explained(self) -> AbstractContextManager[None]:
        """Turn PostgreSQL's words into ours: which database, what happened, what to do."""
        return self._explained()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if isinstance(error, REFUSED):
                raise
            raise self._told(error) from error

    def _told(self, error: psycopg.Error) -> StoreError:
        conn = getattr(self, "_conn", None)
        if conn is not None and is_lost(conn, error):
            conn.close()
            return self._lost()
        if isinstance(error, _AGAIN):
            return Lost(f"{self.path}: another program is in the way: {one_line(error, _password(self.path))}")
        for kind, saying in _SAYING:
            if isinstance(error, kind):
                return StoreError(f"{self.path}: {saying}")
        secret = _password(self.path)
        return StoreError(f"{self.path}: {one_line(error, secret)}")

    def _taken_over(self) -> StoreError:
        return StoreError(f"{self.path}: another run has had it meanwhile: run again, what was stored is safe")

    def _lost(self) -> Lost:
        return Lost(f"{self.path}: the connection is lost: run again, what was stored is safe")

    # --- what else a store has ----------------------------------------------------------------------------

    def room(self) -> int:
        """Nobody here can tell how much room the server has: it says so when there is none."""
        return _ROOM

    def tend(self) -> None:
        """Nothing: the server looks after its files."""

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """End a long statement when the run is to stop. Raises Stopped."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                if self.stopped():
                    with suppress(psycopg.Error):
                        self._conn.cancel_safe(timeout=2)

        watcher = threading.Thread(target=watch, name="fetcher-postgres", daemon=True)
        watcher.start()
        try:
            yield
        except errors.QueryCanceled:
            raise Stopped("stopped in the middle of a long statement") from None
        finally:
            done.set()
            watcher.join()


def _parameters(url: PostgresUrl) -> dict[str, Any]:
    """What libpq is to be told. Raises StoreError, without the URL's secrets."""
    try:
        given = conninfo.conninfo_to_dict(url.secret)
    except psycopg.Error:
        raise StoreError(
            f"{url} cannot be read: it is to be postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %-escapes in it"
        ) from None
    ours = {
        "application_name": "fetcher",
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    return {**ours, **given}


def _password(url: PostgresUrl) -> str:
    try:
        return str(conninfo.conninfo_to_dict(url.secret).get("password") or "")
    except psycopg.Error:
        return ""
