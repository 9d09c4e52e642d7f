"""One SQLite file of ours: opening it, its lock, and what SQLite's errors mean to a person."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fetcher.errors import Stopped, StoreError
from fetcher.stores.marker import COPYING, COPYING_ID, unfinished
from fetcher.stores.migrations import APPLICATION_ID

BUSY_SECONDS = 30

_MAGIC = b"SQLite format 3\0"
_NO_DATABASE = "it is no SQLite database: name another file"

WAL_BYTES = 64_000_000
"""The write-ahead log is cut back to this; it is larger only while a reader needs what is in it."""

# What SQLite says of a row that it cannot take, as against a disk or a file that it cannot write.
REFUSED = (
    OverflowError,
    UnicodeEncodeError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


def connect_readonly(path: Path, *, any_thread: bool = False, copying: bool = False) -> sqlite3.Connection:
    """A read-only connection to a database of ours; a run may be writing it. Raises StoreError.

    Even who reads shares memory with a run by a file beside the database. Where none can be made and none is there, as
    on a disk that is mounted read-only, nobody writes. A copy that is not complete is open to `copying` alone.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it")
    if is_new(path):
        raise StoreError(f"there is no database {path}: `fetcher fetch` or `fetcher ingest` makes one")
    with explained(path):
        conn = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if _at_rest(path) else ''}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=not any_thread,
        )
        try:
            (application,) = conn.execute("PRAGMA application_id").fetchone()
            if application == COPYING_ID and not copying:
                raise unfinished(path, _origin(conn))
            if application not in (APPLICATION_ID, COPYING_ID):
                raise StoreError(f"{path} is no database of fetcher's")
            conn.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            conn.close()
            if path.with_name(f"{path.name}-journal").exists():
                # A run was killed in its first moments: whoever writes next undoes what it had begun.
                raise StoreError(f"{path} is still empty: run `fetcher fetch`") from error
            raise
        except BaseException:
            conn.close()
            raise
        return conn


def _at_rest(path: Path) -> bool:
    """Whether nobody has a database open, in a folder in which we may not write."""
    beside = (path.with_name(f"{path.name}{end}") for end in ("-shm", "-wal", "-journal"))
    return not os.access(path.absolute().parent, os.W_OK) and not any(each.exists() for each in beside)


def is_made(conn: sqlite3.Connection) -> bool:
    """Whether its tables are there: a run that was killed at its very start may have left none."""
    return conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'sources'").fetchone() is not None


def is_new(path: Path) -> bool:
    """Whether a database is still to be made there. Raises StoreError when nobody can tell."""
    try:
        return not path.exists() or not path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None


def connect(path: Path, *, any_thread: bool = False, copying: bool = False) -> sqlite3.Connection:
    """A connection that writes, to a database of ours or a new one; for the thread that makes it. Raises StoreError.

    A copy that is not complete is open to `copying` alone, which makes one of a new file.
    """
    # Absolute, for SQLite has names of its own that are no files, such as ":memory:".
    conn = sqlite3.connect(
        path.absolute(),
        timeout=BUSY_SECONDS,
        isolation_level=None,
        cached_statements=256,
        check_same_thread=not any_thread,
    )
    try:
        # Refuse first, change later: a file that is not ours stays as it is. One that is new is marked before all
        # else, so that whatever is made of it before a kill is known as ours.
        if _refuse_foreign(conn, path, copying=copying) not in (APPLICATION_ID, COPYING_ID):
            conn.execute(f"PRAGMA application_id = {COPYING_ID if copying else APPLICATION_ID}")
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = 0",
            "cache_size = -16000",
            "wal_autocheckpoint = 4000",
            f"journal_size_limit = {WAL_BYTES}",
            "temp_store = MEMORY",
        ):
            conn.execute(f"PRAGMA {pragma}")
    except BaseException:
        conn.close()
        raise
    return conn


def _origin(conn: sqlite3.Connection) -> str | None:
    """Of what a file is a copy, None where it has not been written down yet."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [COPYING]).fetchone():
        return None
    row = conn.execute(f"SELECT origin FROM {COPYING}").fetchone()
    return None if row is None else str(row[0])


def _refuse_foreign(conn: sqlite3.Connection, path: Path, *, copying: bool) -> int:
    """The file's application id, unless it is a database of something else."""
    (application,) = conn.execute("PRAGMA application_id").fetchone()
    (tables,) = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == COPYING_ID and not copying:
        raise unfinished(path, _origin(conn))
    if application not in (APPLICATION_ID, COPYING_ID) and tables:
        raise StoreError(f"{path} is a database of something else: name another file")
    return int(application)


def _refuse_other_files(path: Path) -> None:
    """Nothing is to be left beside a file that is no database."""
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError:
        return  # What is wrong is said when it is opened.
    # One that a crash left begins with zeros, and is mended by SQLite.
    if head.strip(b"\0") and head != _MAGIC:
        raise StoreError(f"{path}: {_NO_DATABASE}")


def lock(path: Path) -> int:
    """An exclusive lock on `path` until the descriptor that it returns is closed. Raises StoreError."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it")
    _refuse_other_files(path)
    try:
        held = os.open(f"{path.resolve()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise StoreError(f"{path} is in use by another run: wait for it, or stop it") from None
        raise StoreError(f"{path} cannot be locked: {os.strerror(error.errno or 0)}") from None
    return held


@contextmanager
def kept_from_runs(path: Path) -> Iterator[None]:
    """No run uses `path` meanwhile; nothing is written, so it may be read-only. Raises StoreError.

    A run that was ever there has left its lock file behind.
    """
    try:
        held = os.open(f"{path.resolve()}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreError(f"{path} is in use by another run: wait for it, or stop it") from None
        yield
    finally:
        os.close(held)


@contextmanager
def interruptible(conn: sqlite3.Connection, stopped: Callable[[], bool]) -> Iterator[None]:
    """End a long statement when the run is to stop. Raises Stopped.

    It is SQLite that asks, every few milliseconds, and so lets Python see to signals, too.
    """
    conn.set_progress_handler(stopped, 10_000)
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
            raise
        raise Stopped("stopped in the middle of a long statement") from None
    finally:
        conn.set_progress_handler(None, 0)


_SAYING = (
    ("database or disk is full", "the disk is full: make room and run again, what was stored is safe"),
    ("disk I/O error", "the disk failed to read or write: check it and run again, what was stored is safe"),
    ("database is locked", f"another program has kept it locked for {BUSY_SECONDS} s: end its transaction, run again"),
    ("readonly database", "it is read-only: change its permissions or name another file"),
    ("file is not a database", _NO_DATABASE),
    ("malformed", "the file is damaged: see what the `.recover` command of sqlite3 can save"),
    ("unable to open database file", "it cannot be opened: check the folder and the permissions"),
)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's words into ours: which file, what happened, what to do."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, REFUSED):
            raise
        for words, saying in _SAYING:
            if words in str(error):
                raise StoreError(f"{path}: {saying}") from error
        raise StoreError(f"{path}: {error}") from error
