"""What files there are: in folders, and where the links of a STAC catalogue lead."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from fetcher.sources.files.kinds import kind_by_name
from fetcher.sources.files.names import shown, text_of

CATALOGUES = ("collection.json", "catalog.json")
_MOST_CATALOGUE = 64 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was listed; its `kind` is what its name says."""

    path: str
    size: int
    mtime_ns: int
    kind: str | None

    def row(self, root: str) -> tuple[Any, ...]:
        """Its row."""
        return (text_of(self.path), root, self.size, self.mtime_ns, self.kind, None)


@dataclass(frozen=True, slots=True)
class Blind:
    """A folder or file that cannot be looked at: what there is now is not known."""

    path: str
    error: str
    kind: str | None = "folder"


@dataclass(frozen=True, slots=True)
class Odd:
    """Something that is left out, in a sentence."""

    message: str


Listed = File | Blind | Odd


def files(root: str, *, linked: bool) -> Iterator[Listed]:
    """Every file below a folder, or the one; with `linked` where any STAC catalogue links to as well.

    Without it, that of a file which was named, and of those with the usual names. Raises OSError.
    """
    found = os.stat(root)  # noqa: PTH116
    return _files(root, found, linked)


def _files(root: str, found: os.stat_result, linked: bool) -> Iterator[Listed]:
    links: list[str] = []
    if stat.S_ISDIR(found.st_mode):
        yield from _below(root, links, linked)
        seen = set()
    else:
        yield File(root, found.st_size, found.st_mtime_ns, kind_by_name(root))
        seen = {root}
        links += _links(root)
    yield from _linked(links, seen)


def _below(root: str, links: list[str], linked: bool) -> Iterator[Listed]:
    folders, ways = [root], list[str]()
    inside, real = os.path.join(root, ""), os.path.realpath(root)  # noqa: PTH118
    followed: set[str] = set()
    left_out = 0
    while folders or ways:
        if not folders:
            # Linked folders come last, and in order: whatever order the disk has, each is found under the same name.
            ways.sort(reverse=True)
            way = ways.pop()
            there = os.path.realpath(way)
            if there in followed or _within(there, real) or _within(real, there):
                yield Odd(f"{shown(way)}: a link to a folder that is read already, or around it; left out")
                continue
            followed.add(there)
            folders.append(way)
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir():
                            (ways if entry.is_symlink() else folders).append(entry.path)
                            continue
                        kind = kind_by_name(entry.name)
                        if kind is None:
                            left_out += 1
                            continue
                        found = entry.stat()
                    except FileNotFoundError:
                        if entry.is_symlink():
                            yield Odd(f"{shown(entry.path)}: a link to nothing; left out")
                        continue
                    except OSError as error:
                        yield Blind(entry.path, os.strerror(error.errno or 0), kind_by_name(entry.name))
                        continue
                    if not stat.S_ISREG(found.st_mode):
                        yield Odd(f"{shown(entry.path)}: no regular file; left out")
                        continue
                    yield File(entry.path, found.st_size, found.st_mtime_ns, kind)
                    if linked or entry.name in CATALOGUES:
                        links += [each for each in _links(entry.path) if not each.startswith(inside)]
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Blind(folder, os.strerror(error.errno or 0))
    if left_out:
        yield Odd(f"{shown(root)}: {left_out:,} files with other names than those of JSON or Parquet are left out")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))  # noqa: PTH118


def _linked(links: list[str], seen: set[str]) -> Iterator[Listed]:
    """The files that links lead to, and those that these link to."""
    while links:
        path = links.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError as error:
            yield Odd(f"{shown(path)}: a link leads there; {os.strerror(error.errno or 0)}")
            continue
        if not stat.S_ISREG(found.st_mode):
            yield Odd(f"{shown(path)}: a link leads there, and it is no regular file")
            continue
        yield File(path, found.st_size, found.st_mtime_ns, kind_by_name(path))
        if found.st_size <= _MOST_CATALOGUE:
            links += _links(path)


class _Link(msgspec.Struct, gc=False):
    href: str
    rel: str = ""


class _Catalogue(msgspec.Struct, gc=False):
    type: str
    links: list[_Link] = []


_catalogue = msgspec.json.Decoder(_Catalogue).decode


def _links(path: str) -> list[str]:
    """Where the `item` and `child` links of a catalogue lead on this machine; none where it is no catalogue."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            found = _catalogue(file.read(_MOST_CATALOGUE).removeprefix(b"\xef\xbb\xbf"))
    except (OSError, msgspec.DecodeError, ValueError, RecursionError):
        return []  # Reading its items says what is wrong with it.
    if found.type not in ("Collection", "Catalog"):
        return []
    paths = []
    for link in found.links:
        if link.rel not in ("item", "child", "items") or "\0" in link.href:
            continue
        href = link.href.partition("#")[0].partition("?")[0]
        if href.startswith("file://"):
            href = unquote(href[len("file://") :])
        elif "://" in href:
            continue
        try:
            os.fsencode(href)
        except UnicodeEncodeError:
            continue
        paths.append(os.path.normpath(os.path.join(os.path.dirname(path), href)))  # noqa: PTH118, PTH120
    return paths
