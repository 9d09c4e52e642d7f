"""Reads documents in processes of their own, and hands their rows over as fast as they are taken."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator

from fetcher.errors import RequestFailed, Stopped
from fetcher.model import Outcome
from fetcher.sources.files.names import shown
from fetcher.texts.reading import ChunkRow, Parser, ReadingOptions, pieces
from fetcher.texts.worker import Worker, WorkerDied, WorkerStuck


class Reader:
    """Reads up to `processes` documents at once, each in a process of its own; called from several threads.

    What a process has read waits until it is taken, and so does the process. Where one dies, or gives nothing for
    `patience` seconds and is ended, its document alone has failed. A parser that cannot be sent to another process (a
    lambda, a function of the main script) is run in the thread that asks, however long it takes. Raises
    ConfigurationError when there is no such parser. To be closed.
    """

    def __init__(self, processes: int, how: ReadingOptions, patience: float = 3600) -> None:
        self._how = how
        self._patience = patience
        self._function = how.function()
        self._here = not _sendable(how.parser)
        self._sent = b"" if self._here else pickle.dumps(how)
        self._changed = threading.Condition()
        self._free = processes
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._closed = False

    def pieces(self, path: str, document_name: str) -> Iterator[list[ChunkRow]]:
        """The rows of a document, some at a time; it waits while all processes are busy. Close it if it is not read on.

        Raises RequestFailed as `reading.pieces` does, and when the process died or is stuck; Stopped once the reader is
        closed.
        """
        if self._here:
            yield from self._pieces_here(path, document_name)
            return
        while True:
            worker = self._claimed()
            again = worker.used
            good = False
            try:
                for piece in worker.pieces(self._sent, path, document_name, self._patience):
                    again = False
                    yield piece
                good = True
                return
            except RequestFailed:
                good = True
                raise
            except WorkerStuck as error:
                raise RequestFailed(Outcome.MALFORMED, f"{shown(path)}: {error}", lasting=True) from None
            except WorkerDied as error:
                if self._ended():
                    raise Stopped("the reader is closed") from None
                # A process may have died while it had nothing to do: a new one tells.
                if not again:
                    raise RequestFailed(Outcome.MALFORMED, f"{shown(path)}: {error}", lasting=True) from None
            finally:
                self._give_back(worker, good=good)

    def close(self) -> None:
        """End all processes, in the middle of a document too."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            # Their threads wait for what comes from them, and see that nothing does any more.
            for each in self._busy:
                each.kill()
            self._changed.notify_all()
        for each in idle:
            each.end()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pieces_here(self, path: str, document_name: str) -> Iterator[list[ChunkRow]]:
        for piece in pieces(path, document_name, self._how, self._function):
            if self._closed:
                raise Stopped("the reader is closed")
            yield piece

    def _claimed(self) -> Worker:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free)
            if self._closed:
                raise Stopped("the reader is closed")
            self._free -= 1
            worker = self._idle.pop() if self._idle else None
        try:
            worker = worker or Worker()
        except BaseException:
            with self._changed:
                self._free += 1
                self._changed.notify()
            raise
        with self._changed:
            self._busy.add(worker)
        if self._ended():
            worker.kill()
        return worker

    def _ended(self) -> bool:
        with self._changed:
            return self._closed

    def _give_back(self, worker: Worker, *, good: bool) -> None:
        with self._changed:
            self._busy.discard(worker)
            kept = good and not self._closed
            if kept:
                self._idle.append(worker)
        if not kept:
            worker.end()
        with self._changed:
            self._free += 1
            self._changed.notify()


def _sendable(parser: str | Parser | None) -> bool:
    """Whether another process, which knows nothing of the main script, can have the same parser."""
    if parser is None or isinstance(parser, str):
        return not (parser or "").startswith("__main__:")
    try:
        return b"__main__" not in pickle.dumps(parser)
    except Exception:  # noqa: BLE001 - whatever an object of somebody else's raises when it is asked
        return False
