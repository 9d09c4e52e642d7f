"""A file that is replaced as a whole, and only when what it is to hold differs from what it holds."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from fetcher.errors import ConfigurationError, FetcherError, StoreError

ENDING = ".fetcher-part"
"""What files that are still being written end in."""

_PIECE = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Replacement:
    """The new content of a file; a context manager, which leaves the old one alone unless `commit` was called.

    What comes is compared with what the file holds, and nothing is written up to the first byte that differs. Then a
    file beside it takes all, locked while it is written, so that `clear` knows those which a killed process has left.

    Raises ConfigurationError when the file cannot be written, StoreError when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.closed = False
        self._old: BinaryIO | None = None
        self._new: BinaryIO | None = None
        self._part: Path | None = None

    def __enter__(self) -> Replacement:
        try:
            if stat.S_ISREG(self.path.stat().st_mode):
                self._old = self.path.open("rb", buffering=_PIECE)
            else:
                raise ConfigurationError(f"{self.path} is there and is no file: move it, or name another folder")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise told(self.path, error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True
        if self._part is not None:
            with suppress(OSError):
                self._part.unlink()
        for each in (self._old, self._new):
            if each is not None:
                # What is still buffered is not wanted, wherever it does not fit.
                with suppress(OSError):
                    each.close()

    def write(self, data: bytes) -> int:
        """Take more of the content."""
        if self.closed:
            return len(data)  # A library's last words on a file that was given up.
        view = memoryview(data)
        try:
            if self._new is None:
                if self._old is not None and self._old.read(view.nbytes) == view:
                    self.size += view.nbytes
                    return view.nbytes
                self._new = self._begun()
            self._new.write(view)
        except OSError as error:
            raise told(self.path, error) from None
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Nothing to do: `commit` does it."""

    def tell(self) -> int:
        """How many bytes came so far."""
        return self.size

    def commit(self) -> bool:
        """Put the content in the file's place, safe from a crash; whether it differs from what was there."""
        try:
            if self._new is None:
                if self._old is not None and not self._old.read(1):
                    return False
                self._new = self._begun()
            self._new.flush()
            os.fsync(self._new.fileno())
            assert self._part is not None
            self._part.replace(self.path)
            self._part = None
            _sync(self.path.parent)
        except OSError as error:
            raise told(self.path, error) from None
        return True

    def _begun(self) -> BinaryIO:
        """The new file, with what the old one has in common with it."""
        make_folder(self.path.parent)
        new = self._locked()
        if self._old is not None:
            self._old.seek(0)
            left = self.size
            while left:
                piece = self._old.read(min(left, _PIECE))
                if not piece:
                    raise StoreError(f"{self.path} was changed by somebody else meanwhile: run again")
                left -= len(piece)
                new.write(piece)
        return new

    def _locked(self) -> BinaryIO:
        while True:
            self._part = self.path.with_name(f".{secrets.token_hex(8)}{ENDING}")
            new = self._part.open("xb", buffering=_PIECE)
            self._new = new
            fcntl.flock(new, fcntl.LOCK_EX)
            if self._part.exists():
                return new
            # Somebody cleared the folder between the two.
            new.close()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, safe from a crash. Raises ConfigurationError."""
    try:
        if path.is_dir():
            return
        if path.exists():
            raise ConfigurationError(f"{path} is a file: name a folder")
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise told(path, error) from None


def clear(folder: Path) -> None:
    """Remove what processes that were killed have left half-written in a folder."""
    for part in folder.glob(f".*{ENDING}"):
        with suppress(OSError), part.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def told(path: Path, error: OSError) -> FetcherError:
    """What an error of the system means to a person."""
    reason = os.strerror(error.errno or 0)
    if error.errno in _FULL:
        return StoreError(f"{path}: the disk is full ({reason}): make room and run again, no file is half-written")
    if isinstance(error, NotADirectoryError):
        return ConfigurationError(f"{path} cannot be made, a part of its path is a file: name another folder")
    return ConfigurationError(f"{path} cannot be written: {reason}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
