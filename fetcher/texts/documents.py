"""The documents that there are: files in folders, or named one by one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Outcome
from fetcher.sources.files.names import path_of, shown, text_of
from fetcher.texts.parsers.kinds import kind_by_name


@dataclass(frozen=True, slots=True)
class Document:
    """A file to be read: its name in the database, where it is, and what tells whether it has changed since.

    A folder that cannot be looked into, or a file that cannot be looked at, is listed as one too, with a size of -1:
    reading it says why.
    """

    name: str
    path: str
    size: int
    mtime_ns: int


def scan(paths: Iterable[str | os.PathLike[str]], on_folder: Callable[[], object] = lambda: None) -> Iterator[Document]:
    """Every document at or below the paths, each once; within a folder in the order of names.

    A file that is named is one whatever it is called. In folders those count whose names end as texts do (`SUFFIXES`),
    and what is hidden does not. Linked folders come last; one that was listed already, or holds the link, is left out.
    `on_folder` is called at each folder: where there are many and few texts in them, it may end the scan by raising.
    Raises ConfigurationError when a path is not there, before the first document.
    """
    named = [os.fspath(path) for path in paths]
    if "" in named:
        # It would be the working folder: what a shell makes of a variable that is not set.
        raise ConfigurationError("a path is empty: name a file or a folder, . for this one")
    roots = list(dict.fromkeys(os.path.abspath(path) for path in named))  # noqa: PTH100
    return _scan([(root, _looked_at(root)) for root in roots], on_folder)


def _looked_at(root: str) -> os.stat_result:
    try:
        found = os.stat(root)  # noqa: PTH116
        if stat.S_ISDIR(found.st_mode):
            os.scandir(root).close()
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{shown(root)}: {why}") from None
    if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise ConfigurationError(f"{shown(root)}: no regular file and no folder")
    return found


def _scan(roots: list[tuple[str, os.stat_result]], on_folder: Callable[[], object]) -> Iterator[Document]:
    # Files that are named and stand in a folder that is named as well are listed once.
    named = {root for root, found in roots if not stat.S_ISDIR(found.st_mode)}
    folders: set[tuple[int, int]] = set()
    for root, found in roots:
        if root in named:
            yield _document(root, found)
        else:
            for each in _below(root, folders, on_folder):
                if each.path not in named:
                    yield each


def _below(root: str, seen: set[tuple[int, int]], on_folder: Callable[[], object]) -> Iterator[Document]:
    """The documents of a folder, and of those in it that were not `seen`."""
    folders, links = [root], list[str]()
    while folders or links:
        if not folders:
            # Last, so that what a folder's files are called does not depend on who links to it.
            links.sort(reverse=True)
            folders.append(links.pop())
        folder = folders.pop()
        on_folder()
        try:
            about = os.stat(folder)  # noqa: PTH116
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError:
            yield _unknown(folder)
            continue
        inside: list[str] = []
        for entry in found:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    (links if entry.is_symlink() else inside).append(entry.path)
                elif kind_by_name(entry.name) is not None:
                    about = entry.stat()
                    if stat.S_ISREG(about.st_mode):
                        yield _document(entry.path, about)
            except FileNotFoundError:
                continue
            except OSError:
                if kind_by_name(entry.name) is not None:
                    yield _unknown(entry.path)
        folders += reversed(inside)


def _document(path: str, about: os.stat_result) -> Document:
    return Document(text_of(path), path, about.st_size, about.st_mtime_ns)


def _unknown(path: str) -> Document:
    return Document(text_of(path), path, -1, 0)


def document_at(name: str) -> Document:
    """The document of that name as it is now; one that cannot be looked at has a size of -1.

    Raises RequestFailed (gone) where there is none any more, or it was a folder that can be looked into by now.
    """
    path = path_of(name)
    try:
        about = os.stat(path)  # noqa: PTH116
        if not stat.S_ISDIR(about.st_mode):
            return _document(path, about)
        os.scandir(path).close()
    except (FileNotFoundError, NotADirectoryError):
        raise RequestFailed(Outcome.GONE, f"{shown(path)}: there is no such file any more", lasting=True) from None
    except OSError:
        return _unknown(path)
    raise RequestFailed(Outcome.GONE, f"{shown(path)}: it is a folder", lasting=True)
