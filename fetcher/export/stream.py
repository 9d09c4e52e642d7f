"""A stream that takes what is exported, such as standard output."""

from __future__ import annotations

import os
from typing import BinaryIO

from fetcher.errors import StoreError


class Stream:
    """Passes on what is written, and counts it. Raises StoreError when it is not taken, and BrokenPipeError."""

    def __init__(self, to: BinaryIO) -> None:
        self._to = to
        self.size = 0

    def write(self, data: bytes) -> int:
        """Take more."""
        try:
            self._to.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _told(error) from None
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Let all that was written be gone."""
        try:
            self._to.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _told(error) from None


def _told(error: OSError) -> StoreError:
    return StoreError(f"the output cannot be written: {os.strerror(error.errno or 0)}: make room and run again")
