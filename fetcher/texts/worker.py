"""A process that reads documents, one at a time, and writes their rows into a pipe."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Outcome
from fetcher.sources.files.names import shown
from fetcher.texts.reading import ChunkRow, Parser, ReadingOptions, pieces
from fetcher.words import said

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_LEAKS = "ignore::UserWarning:multiprocessing.resource_tracker"
_starting = threading.Lock()


class WorkerDied(Exception):
    """The process is there no more; says so in words that follow the name of the document."""


class WorkerStuck(Exception):
    """Nothing comes from the process any more; says so like WorkerDied."""


class Worker:
    """A pool of one process, with a pipe from it: a pool of several breaks as a whole when one of them dies.

    Used by one thread at a time, but for `kill`. Raises WorkerDied when it cannot be started.
    """

    def __init__(self) -> None:
        _start_tracker()
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _begin, (theirs,))
        self._lock = threading.Lock()
        self._pid: int | None = None
        self.used = False
        """Whether it has read a document before."""
        try:
            # Once this end is closed here, the pipe ends when the process does.
            with theirs, _alone():
                self._pool.submit(_nothing)
            self._pid = self._pipe.recv()
        except (EOFError, OSError, BrokenExecutor):
            self.end()
            raise WorkerDied("the process that was to read it could not be started") from None

    def pieces(self, how: bytes, path: str, document: str, patience: float) -> Iterator[list[ChunkRow]]:
        """The rows of a document, read as pickled options say; the next of them have to come within `patience` seconds.

        Raises RequestFailed, WorkerDied and WorkerStuck.
        """
        self.used = True
        try:
            self._pool.submit(_read, how, path, document)
            while (found := self._received(patience)) is not None:
                if isinstance(found, tuple):
                    outcome, message, lasting = found
                    raise RequestFailed(outcome, message, lasting=lasting)
                yield found
        except (EOFError, OSError, BrokenExecutor):
            raise WorkerDied("the process that read it died; it was killed, or had too little memory") from None

    def _received(self, patience: float) -> Any:
        if not self._pipe.poll(patience):
            raise WorkerStuck(f"nothing came of it for {patience:,g} s, and reading it was given up")
        return self._pipe.recv()

    def kill(self) -> None:
        """End the process at once, whatever it does; from any thread."""
        with self._lock:
            if self._pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
                self._pid = None

    def end(self) -> None:
        """End the process, and wait until it has."""
        self.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pipe.close()


def _start_tracker() -> None:
    """What frees the locks of processes that a killed program leaves behind is to do so without a word.

    Started later, it would also change which signals are blocked.
    """
    with _starting:
        sys.warnoptions.append(_LEAKS)
        try:
            resource_tracker.ensure_running()
        finally:
            sys.warnoptions.remove(_LEAKS)


@contextmanager
def _alone() -> Iterator[None]:
    """While a process is started: it gets no signal before it knows what to do with it, and no main script.

    Otherwise it would import the script that the user runs, which begins to read documents itself if it was written
    without `if __name__ == "__main__"`.
    """
    with _starting:
        main = sys.modules["__main__"]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the process ----------------------------------------------------------------------------------

_out: Connection


def _begin(out: Connection) -> None:
    """It ends with its parent, and not with a signal that a terminal or a service manager sends to all of them."""
    global _out
    _out = out
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        out.send(os.getpid())
    except BrokenPipeError:
        os._exit(1)  # The parent has ended meanwhile; whatever is raised here the pool would print.


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _nothing() -> None:
    pass


def _read(how: bytes, path: str, document: str) -> None:
    """Sends the pieces of a document, then None; or how it failed."""
    try:
        try:
            options, function = _options(how)
            for piece in pieces(path, document, options, function):
                _out.send(piece)
            _out.send(None)
        except BrokenPipeError:
            raise
        except RequestFailed as error:
            _out.send((error.outcome, str(error), error.lasting))
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits to hear of this document
            what = said(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {said(error)}"
            _out.send((Outcome.MALFORMED, f"{shown(path)}: {what}", True))
    except BrokenPipeError:
        pass  # Nobody wants to know any more.


@lru_cache(maxsize=1)
def _options(how: bytes) -> tuple[ReadingOptions, Parser | None]:
    options: ReadingOptions = pickle.loads(how)  # noqa: S301 - our parent made it
    return options, options.function()
