"""Whether the place of a database is one to write to: its file system, its permissions, its room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fetcher.doctor.finding import Finding, bad, note, ok
from fetcher.stores.filesystem import file_system_of
from fetcher.words import shown, size

LEAST_FREE = 100_000_000
"""Bytes that are to be free, whatever the mirror takes: for the write-ahead log, and for other programs."""


def examine_file_system(path: Path, *, allowed: bool) -> Iterator[Finding]:
    """Whether SQLite's locks work there."""
    found = file_system_of(path)
    if found is None:
        yield ok("file system", "nobody can tell its type here: the database has to be on a disk of this machine")
    elif found.is_network:
        message = (
            f"{shown(path)} is on a network file system ({found.kind} at {found.mount}), where SQLite's locks and"
            " write-ahead log do not work"
        )
        if allowed:
            yield note("file system", f"{message}; it is allowed", "let no other machine open it, and keep backups")
        else:
            yield bad(
                "file system",
                message,
                "name a path on a disk of this machine, or allow it with ALLOW_NETWORK_FILE_SYSTEM=true",
            )
    elif found.is_in_memory:
        yield note(
            "file system",
            f"{shown(path)} is in memory ({found.kind} at {found.mount}): a reboot empties it",
            "name a path on a disk",
        )
    else:
        yield ok("file system", f"{found.kind} at {found.mount}, local")


def examine_permissions(path: Path) -> Iterator[Finding]:
    """Whether the database's folder, its file and those beside it can be written; writes nothing."""
    folder = path.resolve().parent
    if not folder.is_dir():
        yield bad("disk", f"there is no folder {shown(folder)}", "make it (mkdir -p), or name another with DB_PATH")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield bad("disk", f"the folder {shown(folder)} is read-only", "change its permissions, or name another path")
    file = path.resolve()
    for each in (file, *(file.with_name(f"{file.name}{ending}") for ending in (".lock", "-wal", "-shm"))):
        if each.is_file() and not os.access(each, os.R_OK | os.W_OK):
            yield bad(
                "disk",
                f"{shown(each)} cannot be written",
                "give it to the user who runs fetcher (chown, chmod u+rw): was it made by another one?",
            )


def examine_room(path: Path, needed: int | None, *, of_all: bool) -> Iterator[Finding]:
    """Whether there is room for what is to be fetched: `needed` bytes, None when nobody knows.

    It is what all takes that there is, or else (`of_all` False) what was listed up to now.
    """
    folder = path.resolve().parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed is None:
        needs = "how much is to be fetched is not known yet"
    elif needed:
        needs = f"what is to be fetched{'' if of_all else ' of what was listed'} takes about {size(needed)}"
    else:
        needs = "nothing is left to fetch" + ("" if of_all else " of what was listed")
    message = f"{size(free)} free at {shown(folder)}; {needs}"
    if free < LEAST_FREE + (needed or 0):
        yield bad("disk", message, "make room, or put the database elsewhere (DB_PATH)")
    else:
        yield ok("disk", message)


def examine_temporary() -> Iterator[Finding]:
    """Whether SQLite has a folder for what it sorts on disk; it looks in the same order."""
    named = [os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR")]
    for each in (*named, "/var/tmp", "/usr/tmp", "/tmp", "."):  # noqa: S108 - SQLite's own list
        if each and Path(each).is_dir() and os.access(each, os.W_OK | os.X_OK):
            free = shutil.disk_usage(each).free
            if free < LEAST_FREE:
                yield note(
                    "disk",
                    f"only {size(free)} free in the folder for temporary files, {shown(Path(each))}",
                    "make room there, or name another with SQLITE_TMPDIR: large queries and `vacuum` need it",
                )
            return
    yield note(
        "disk",
        "there is no folder for temporary files that can be written",
        "name one with SQLITE_TMPDIR: large queries and `vacuum` need it",
    )
