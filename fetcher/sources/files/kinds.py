"""What a file is, by its first bytes; its name decides only where these leave a doubt."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, Protocol, cast

import msgspec

Kind = Literal["json", "ndjson", "parquet"]

SUFFIXES: dict[str, Kind] = {
    ".json": "json",
    ".geojson": "json",
    ".topojson": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".jsonlines": "ndjson",
    ".ndgeojson": "ndjson",
    ".geojsonl": "ndjson",
    ".geojsons": "ndjson",
    ".geojsonseq": "ndjson",
    ".parquet": "parquet",
    ".geoparquet": "parquet",
    ".pq": "parquet",
}
"""What is looked for in a folder, by the end of its name."""

PACKED = (".gz", ".zst")

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_BOM, _RECORD = b"\xef\xbb\xbf", b"\x1e"
_FOREIGN = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
}
_PIECE = 4096
"""Packed bytes that are unpacked at once: what becomes of them is not known, and may be much."""


class Unreadable(Exception):
    """A file that cannot be read; says why."""


class Reader(Protocol):
    """What is read from."""

    def read(self, most: int, /) -> bytes:
        """Up to so many bytes; none at the end."""
        ...


def kind_by_name(name: str) -> str | None:
    """What the name of a file says that it holds, `ndjson.gz` for one; None when it says nothing known."""
    stem = name.lower()
    packed = ""
    for each in PACKED:
        if stem.endswith(each):
            stem, packed = stem[: -len(each)], each
    kind = SUFFIXES.get(os.path.splitext(stem)[1])  # noqa: PTH122 - asked of every file
    return None if kind is None else kind + packed


def unpacked(file: BinaryIO, first: bytes) -> Reader:
    """What reads a file of which `first` are the first bytes, unpacked where it is packed. Raises Unreadable."""
    if first.startswith(GZIP):
        return cast("Reader", gzip.GzipFile(fileobj=file, mode="rb"))
    if first.startswith(ZSTD):
        return _Zstd(file)
    for magic, what in _FOREIGN.items():
        if first.startswith(magic):
            raise Unreadable(f"it is {what}, which is not read here")
    return file


class _Zstd:
    """Unpacks zstandard frames, one after the other, and says when the last one has no end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._make = _zstd_decompressor()
        self._frame = self._make()
        self._begun = False
        self._input = b""

    def read(self, _most: int, /) -> bytes:
        """Some more; a frame tells how much becomes of a piece of it."""
        while True:
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame, self._begun = self._make(), False
            if not self._input:
                self._input = self._file.read(_PIECE)
                if not self._input:
                    if self._begun:
                        raise EOFError("it ends in the middle of a zstandard frame")
                    return b""
            piece, self._input = self._input, b""
            self._begun = True
            found: bytes = self._frame.decompress(piece)
            if found:
                return found


def _zstd_decompressor() -> Callable[[], Any]:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14 and newer

        return cast("Callable[[], Any]", zstd.ZstdDecompressor)
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise Unreadable("it is packed with zstandard: pip install 'fetcher[zstd]' to read it") from None
    decompressor = zstandard.ZstdDecompressor()
    return decompressor.decompressobj


def packing_errors() -> tuple[type[Exception], ...]:
    """What unpacking raises when a file is damaged or cut off."""
    found: list[type[Exception]] = [EOFError, gzip.BadGzipFile, zlib.error]
    try:
        import zstandard

        found.append(zstandard.ZstdError)
    except ImportError:
        pass
    try:
        from compression import zstd

        found.append(zstd.ZstdError)
    except ImportError:
        pass
    return tuple(found)


def bare(first: bytes) -> bytes:
    """The first bytes of a text without the mark that some programs put before it."""
    return first.removeprefix(_BOM).lstrip(b" \t\r\n" + _RECORD)


def json_kind(first: bytes, *, whole: bool, name: str) -> Kind:
    """Whether a text is one JSON value or one a line, by what it begins with; `whole` says that this is all of it.

    It is one a line when its first line is a whole value, and more follows.
    """
    if b"\x1e" in first[:4]:
        return "ndjson"
    text = bare(first)
    line, newline, rest = text.partition(b"\n")
    named = (kind_by_name(name) or "").partition(".")[0] == "ndjson"
    if not newline:
        # A line without an end in sight; the only one of a file may be either.
        return "ndjson" if named and not (whole and line.startswith(b"[")) else "json"
    if is_json(line):
        return "ndjson" if rest.strip() or named else "json"
    # The first line is wrong, or the value goes on below: a broken line is longer than an opening bracket.
    return "ndjson" if named and line.strip() not in (b"{", b"[", b"") and not _opens_list(line) else "json"


def _opens_list(line: bytes) -> bool:
    return line.rstrip().endswith((b"[", b",", b"{"))


def is_json(text: bytes) -> bool:
    """Whether a text is one JSON value."""
    try:
        _skip(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


_skip = msgspec.json.Decoder(msgspec.Raw).decode
