"""A parser for the tests of reading, in a module that the processes of a reader import quickly."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from fetcher.texts.chunk import Chunk


def parse(path: Path) -> Iterator[Chunk]:
    """Does what the name of the file says."""
    if path.name == "endless":
        for number in itertools.count():
            if number % 100 == 0:
                Path(path.parent, "count").write_text(str(number))
            yield Chunk("word " * 2000)
    elif path.name == "dies":
        yield from (Chunk("x") for _ in range(300))
        os.kill(os.getpid(), signal.SIGKILL)
    elif path.name == "pid":
        yield Chunk(str(os.getpid()))
    elif path.name == "stuck":
        Path(path.parent, "pid").write_text(str(os.getpid()))
        yield Chunk("x")
        threading.Event().wait()
    elif path.name == "cancelled":
        raise asyncio.CancelledError
    else:
        raise ValueError("no")
