"""Submitted ids, taken by many threads, worked off by engines of their own; all that counts is in the database."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError
from fetcher.mirror import Parts
from fetcher.model import Committed, Table
from fetcher.place import PostgresUrl
from fetcher.service.dispatcher import Dispatcher
from fetcher.service.engines import Engines, EngineState, Sample
from fetcher.service.settings import ServiceSettings
from fetcher.settings import load
from fetcher.stop import Stop
from fetcher.stores import jobs as stored
from fetcher.stores.connections import Connections
from fetcher.stores.database import Database
from fetcher.stores.jobs import Backlog, Job, JobBatch, JobFailure, Retrying, Status, Triggered
from fetcher.stores.schema import quoted
from fetcher.stores.sqlite import SqliteStore

log = logging.getLogger("fetcher")

MOST_IDS = 100_000
"""So many ids may be submitted at once."""

HIGHEST_ID = 10**9 + 7
"""No id is above this."""


class Service:
    """A database whose ids can be asked for; `open` begins, `drain` and `close` end it.

    Its methods may be called from any thread. What it is asked for is written before it is answered.
    """

    def __init__(self, source: str, db: str | Path | None = None, **settings: Any) -> None:
        """`settings` are those of `.env` in lower case, the service's own among them. Raises ConfigurationError."""
        own = ServiceSettings.model_fields
        self.settings = load(ServiceSettings, {name: each for name, each in settings.items() if name in own})
        self._given = {name: each for name, each in settings.items() if name not in own}
        self._name = source
        self._db = db
        self._stop = Stop()
        self._closing = ExitStack()
        self._threads: list[threading.Thread] = []
        self._write = threading.Lock()
        self._draining = False
        self._error: Exception | None = None
        self.started_at = 0.0

    def open(self) -> Service:
        """Open the database, and begin to work off what is due. Raises ConfigurationError, StoreError.

        It is for the thread that closes it, too.
        """
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> None:
        parts = self._make(self._stop)
        parts.close()
        if parts.item_stage is None or not parts.source.tables[0].is_numbered:
            raise ConfigurationError(f"--source: {self._name} cannot be asked for single items by their numbers")
        self._tables = parts.source.tables
        if isinstance(parts.path, PostgresUrl):
            raise ConfigurationError(f"{parts.path}: the service keeps its jobs in a file, and not on a server")
        store = parts.open_store()
        assert isinstance(store, SqliteStore)
        self._closing.callback(store.close)
        store.remember(parts.options)
        self.path, self.base_url, self.source = parts.path, parts.base_url, parts.source.name
        self._connections = Connections(self.path)
        self._closing.callback(self._connections.close)
        self._writer: Database = store.db.beside()
        self._engines = Engines(self._make, store, self._stop, self._on_batch)
        self._dispatcher = Dispatcher(
            store.db.beside(),
            self.source,
            self._tables[0],
            self._stop,
            interval=self.settings.ingest_batch_interval,
            most=max(parts.plan.window, self.settings.ingest_batch_size),
            on_triggered=self._on_triggered,
        )
        self.started_at = self._stop.time()
        for name, work in (("dispatcher", self._dispatcher.run), ("engines", self._engines.run)):
            thread = threading.Thread(target=self._run, args=(work,), name=f"fetcher-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    # --- jobs -----------------------------------------------------------------------------------

    def submit(self, ids: Sequence[int], priority: str = "MEDIUM", *, idempotency_key: str | None = None) -> Job:
        """Store ids that are to be fetched, once each, in their order; what is returned is on the disk.

        With an `idempotency_key` used before it is the job of then. Raises IdempotencyConflict where that was another
        request, StoreError.
        """
        unique = list(dict.fromkeys(ids))
        digest = None
        if idempotency_key is not None:
            digest = hashlib.sha256(json.dumps([unique, priority]).encode()).hexdigest()
        with self._write:
            job, new = stored.submit(
                self._writer,
                self.source,
                unique,
                priority,
                batch_size=self.settings.ingest_batch_size,
                now=self._stop.time(),
                idempotency_key=idempotency_key,
                digest=digest,
            )
        if new:
            self._dispatcher.wake()
        return job

    def job(self, name: str) -> Job | None:
        """The job of that id, None where there is none. Raises StoreError."""
        with self._connections.reading() as conn:
            return stored.job(conn, name)

    def jobs(
        self,
        *,
        status: Status | None = None,
        priority: str | None = None,
        before: int | None = None,
        most: int = 100,
    ) -> list[Job]:
        """Jobs, the newest first, those with a number below `before`. Raises StoreError."""
        with self._connections.reading() as conn:
            return stored.jobs(conn, status=status, priority=priority, before=before, most=most)

    def batches(self, name: str, *, after: int = -1, most: int = 100) -> tuple[Job, list[JobBatch]] | None:
        """A job, and its batches whose number is above `after`, in their order; both as of one moment.

        None where there is no such job. Raises StoreError.
        """
        with self._connections.reading() as conn:
            found = stored.job(conn, name)
            return None if found is None else (found, stored.batches(conn, found, after=after, most=most))

    def in_turn(self, most: int) -> list[Job]:
        """Jobs that have not ended: those under way, then those that wait, in the order of their turn.

        Raises StoreError.
        """
        with self._connections.reading() as conn:
            return stored.in_turn(conn, most)

    def ended_jobs(self, *, failed: bool, most: int) -> list[Job]:
        """Jobs that have ended, the last one first: those with ids that failed for good, or the others.

        Raises StoreError.
        """
        with self._connections.reading() as conn:
            return stored.ended(conn, failed=failed, most=most)

    def backlog(self) -> Backlog:
        """What is left to do of all jobs. Raises StoreError."""
        with self._connections.reading() as conn:
            return stored.backlog(conn)

    def failures(
        self, of: Job, *, gone: bool = False, after: tuple[int, int] = (-1, 0), most: int = 100
    ) -> list[tuple[int, JobFailure]]:
        """The ids of a job that failed for good, or else those that are gone, each with its batch.

        Those behind the batch and id `after`. Raises StoreError.
        """
        with self._connections.reading() as conn:
            return stored.failures(conn, of, gone=gone, after=after, most=most)

    def retrying(self, of: Job, most: int) -> list[Retrying]:
        """The ids of a job that have failed and are tried again. Raises StoreError."""
        with self._connections.reading() as conn:
            return stored.retrying(conn, of, most)

    def cancel(self, name: str) -> Job | None:
        """End the batches of a job that wait; None where there is no such job. Raises StoreError."""
        with self._write:
            return stored.cancel(self._writer, name, self._stop.time())

    def retry(self, name: str) -> Job | None:
        """Have the failed ids of a job asked for again; None where there is no such job. Raises StoreError."""
        with self._write:
            found = stored.retry(self._writer, name)
        self._dispatcher.wake()
        return found

    # --- what there is --------------------------------------------------------------------------

    def item(self, key: int) -> Mapping[str, Any] | None:
        """An item with what belongs to it, by the names of tables and columns; None where it is not stored.

        Raises StoreError.
        """
        item, *others = self._tables
        with self._connections.reading() as conn:
            found = _rows(conn, item, item.columns[0].name, key)
            if not found:
                return None
            children = {
                table.name: _rows(conn, table, table.parent, key, order=table.columns[0].name)
                for table in others
                if table.parent is not None
            }
        return {**found[0], **children}

    def totals(self) -> Mapping[str, int]:
        """Items stored, those with details, work that is due, and what failed for good. Raises StoreError."""
        with self._connections.reading() as conn:
            row = conn.execute("SELECT items, fetched, work, parked FROM sources").fetchone()
            (waiting,) = conn.execute("SELECT ifnull(sum(waiting), 0) FROM jobs WHERE waiting > 0").fetchone()
        return dict(zip(("items", "fetched", "work", "parked", "waiting_batches"), (*row, waiting), strict=True))

    def state(self) -> EngineState:
        """Whether ids are worked off, and how."""
        return self._engines.state()

    def samples(self) -> Sequence[Sample]:
        """How things stood in the last minutes, the oldest first."""
        return self._engines.samples()

    @property
    def draining(self) -> bool:
        """Whether the end has begun."""
        return self._draining or self._stop.is_set()

    # --- the end --------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether nothing is worked off any more."""
        return self._stop.is_set()

    @property
    def error(self) -> Exception | None:
        """What ended it, None while nothing has, and where it was asked to."""
        return self._error or self._engines.error

    def drain(self) -> None:
        """Trigger nothing more; wait till what was triggered has ended, at most `drain_seconds`.

        Where nothing is worked off, as without a login, nothing is waited for.
        """
        self._draining = True
        deadline = self._stop.now() + self.settings.drain_seconds
        self._dispatcher.drain(self.settings.drain_seconds)
        while not (self._stop.is_set() or self._engines.state().trouble) and self._stop.now() < deadline:
            with self._connections.reading() as conn:
                if not stored.is_busy(conn, self.source, self._stop.time()):
                    break
            self._stop.wait(0.05)

    def end(self) -> None:
        """Begin to end, and do not wait for it: what was asked is still answered until `close`."""
        self._draining = True
        self._stop.set()

    def close(self) -> None:
        """End: what is finished is committed, the rest stays due."""
        self.end()
        for thread in self._threads:
            thread.join()
        self._closing.close()

    # --- within ---------------------------------------------------------------------------------

    def _make(self, stop: Stop) -> Parts:
        return Parts.make(self._name, self._db, self._given, stop, None, limit=None, order="oldest")

    def _run(self, work: Any) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told by whoever waits for the end
            if not self._stop.is_set():
                self._error = error
            self._stop.set()

    def _on_triggered(self, triggered: Sequence[Triggered]) -> None:
        for each in triggered:
            log.info("job %s: batch %d is triggered: %s", each.job, each.batch, ", ".join(map(str, each.ids)))
        self._engines.wake()

    def _on_batch(self, _: Committed) -> None:
        self._dispatcher.wake()


def _rows(
    conn: sqlite3.Connection, table: Table, by: str | None, key: int, *, order: str | None = None
) -> list[dict[str, Any]]:
    """The rows of a table that belong to an item, what is JSON in them read."""
    ordered = f" ORDER BY {quoted(order)}" if order else ""
    found = conn.execute(f"SELECT * FROM {quoted(table.name)} WHERE {quoted(by or '')} = ?{ordered}", [key])
    names = [each[0] for each in found.description]
    texts = {column.name for column in table.columns if column.type == "json"} | {"extra"}
    flags = {column.name for column in table.columns if column.type == "boolean"}
    return [{name: _value(name, each, texts, flags) for name, each in zip(names, row, strict=True)} for row in found]


def _value(name: str, value: Any, texts: Collection[str], flags: Collection[str]) -> Any:
    if value is None:
        return None
    return json.loads(value) if name in texts else bool(value) if name in flags else value
