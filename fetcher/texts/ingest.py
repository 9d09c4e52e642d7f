"""From files, or a mirror's items, to chunks and vectors in a database: the parts put together for one run."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fetcher import embedders
from fetcher.engine import Engine
from fetcher.errors import ConfigurationError, FetcherError, Interrupted, Stopped
from fetcher.export.replacement import make_folder
from fetcher.governor import Governor
from fetcher.line import Line, Unlisted
from fetcher.metrics import Latency
from fetcher.mirror import kept_free, kind_of
from fetcher.model import Key, Latencies, Outcome, Plan, Progress, Stage, Summary
from fetcher.place import Place, PostgresUrl, place_of
from fetcher.settings import Settings, load
from fetcher.sources.files.names import text_of
from fetcher.stop import Stop
from fetcher.stores.opening import connections
from fetcher.stores.origin import source_of
from fetcher.stores.sql import Session
from fetcher.stores.stages import CategoryWriter, DocumentWriter, StageStore, VectorWriter, Writer
from fetcher.stores.texts import (
    READS,
    SOURCE,
    STAGES,
    enlist,
    enlist_categories,
    forget_lost,
    keep_listed,
    listed_since,
    listing_time,
    open_texts,
    other_model,
    recorded_model,
    unlist,
    unpark,
)
from fetcher.stores.texts_index import index_of
from fetcher.texts.backlog import Backlog
from fetcher.texts.documents import Document, scan
from fetcher.texts.items import Items
from fetcher.texts.parsers.kinds import SUFFIXES
from fetcher.texts.reader import Reader
from fetcher.texts.reading import ReadingOptions
from fetcher.texts.settings import LATENCY_LOWER_THRESHOLD, LATENCY_UPPER_THRESHOLD, TextSettings
from fetcher.texts.stages import Aggregating, Embedding, Reading, ReadingItems

log = logging.getLogger("fetcher")

_SCANNED = 500
"""So many documents are enlisted in one transaction."""

_AHEAD = 4
"""So many times what embedding can have in flight is read ahead of it."""

_LOOK_SECONDS = 1.0
"""How often it is looked for categories to write while documents are read."""


@dataclass(frozen=True, slots=True)
class Writes:
    """What was written in a run: how many transactions, of how many rows, and how long they took."""

    transactions: int = 0
    rows: int = 0
    latencies: Latencies = field(default_factory=Latencies)


@dataclass(frozen=True, slots=True)
class TextProgress:
    """Where each stage of a run stands, by its name.

    `backlog` is how full the window between reading and embedding is, from 0 to 1; `busy` is how much of what it may
    have under way a stage had, on the average: 1 where it is the others that wait for it.
    """

    stages: Mapping[str, Progress]
    backlog: float = 0.0
    busy: Mapping[str, float] = field(default_factory=dict)
    writes: Writes = field(default_factory=Writes)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TextSummary:
    """How a run ended, by stage; `parked` counts what failed for good, `files` those written anew.

    `unread` are documents that are still to be read: a run that only embeds reads none, and one that ingests reads
    those that it was asked for. `unembedded` are texts that are still to be embedded, where the run ended before its
    time.
    """

    stages: Mapping[str, Summary]
    seconds: float
    documents: int
    chunks: int
    vectors: int
    parked: int
    listed: int = 0
    vanished: int = 0
    files: int = 0
    unchanged: int = 0
    unread: int = 0
    unembedded: int = 0
    progress: TextProgress = field(default_factory=lambda: TextProgress({}))

    @property
    def exit_code(self) -> int:
        """0 when all is done, 3 when something failed for good, or is still to be read."""
        return 3 if self.parked or self.unread else 0


def ingest(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    db: str | Place | None = None,
    *,
    parser: str | Callable[..., Any] | None = None,
    embedder: str | Callable[..., Any] | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    aggregate: str | Path | None = None,
    stop: Stop | None = None,
    on_progress: Callable[[TextProgress], None] = lambda _: None,
    **settings: Any,
) -> TextSummary:
    """Read the files at and below `paths` into chunks, and embed these, in the database `db`; or go on with it.

    What has not changed is not read again, and no text is embedded twice. `parser` reads a file (path → Chunks), or
    is `module:function`; `embedder` is a name, a function (texts → vectors) or `module:function`. `aggregate` is a
    folder in which a JSON file for each domain and category is kept up to date. `config` has settings by their names,
    as a mapping or a JSON file; `settings` are the same in lower case, and win.

    Raises Interrupted when stopped early, and the other errors of `fetcher.errors`.
    """
    roots = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not roots:
        raise ConfigurationError("there is nothing to ingest: name files or folders")
    given = {**_configured(config), **settings}
    given |= {name: each for name, each in (("parser", parser), ("embedder", embedder)) if each is not None}
    return _Run(db, given, aggregate, stop, on_progress).ingest(roots)


def embed(
    db: str | Place | None = None,
    *,
    items: bool = False,
    embedder: str | Callable[..., Any] | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    aggregate: str | Path | None = None,
    stop: Stop | None = None,
    on_progress: Callable[[TextProgress], None] = lambda _: None,
    **settings: Any,
) -> TextSummary:
    """Embed what an earlier run has read and not embedded; with `items` read those of the mirror `db` first.

    See `ingest` for the rest.
    """
    given = {**_configured(config), **settings}
    given |= {"embedder": embedder} if embedder is not None else {}
    return _Run(db, given, aggregate, stop, on_progress).embed(items=items)


def retry(
    db: str | Place,
    *,
    outcomes: Collection[Outcome | str] = (),
    keys: Collection[Key] = (),
    embedder: str | Callable[..., Any] | None = None,
    stop: Stop | None = None,
    on_progress: Callable[[TextProgress], None] = lambda _: None,
    **settings: Any,
) -> TextSummary | None:
    """Make due again what failed for good of the texts in `db`, and embed what is due.

    `outcomes` and `keys` choose some of it. Documents are read by the next `ingest`, which knows how, and counted as
    `unread`. Returns None where there is nothing to retry. Raises what `ingest` raises.
    """
    given = {**settings, **({"embedder": embedder} if embedder is not None else {})}
    return _Run(db, given, None, stop, on_progress).retry([Outcome(each) for each in outcomes], keys)


def _configured(config: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """Settings by their names in lower case. Raises ConfigurationError."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        try:
            found = json.loads(Path(config).read_text("utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{config} (--config) cannot be read: {os.strerror(error.errno or 0)}") from None
        except ValueError as error:
            raise ConfigurationError(f"{config} (--config) cannot be read as JSON: {error}") from None
        if not isinstance(found, dict):
            raise ConfigurationError(f"{config} has to be a JSON object of settings and their values")
        config = found
    return {str(name).lower(): value for name, value in config.items()}


class _Run:
    """One run and its parts."""

    def __init__(
        self,
        db: str | Place | None,
        given: Mapping[str, Any],
        aggregate: str | Path | None,
        stop: Stop | None,
        on_progress: Callable[[TextProgress], None],
    ) -> None:
        unknown = set(given) - set(Settings.model_fields) - set(TextSettings.model_fields)
        if unknown:
            raise ConfigurationError(f"no setting is called {', '.join(sorted(unknown))}")
        self._settings = load(Settings, {key: each for key, each in given.items() if key in Settings.model_fields})
        self._texts = load(TextSettings, {key: each for key, each in given.items() if key in TextSettings.model_fields})
        self._path = place_of(self._settings.db_path if db is None else db)
        self._out = Path(aggregate) if aggregate is not None else None
        self._stop = stop or Stop()
        self._on_progress = on_progress
        self._options = ReadingOptions.of(self._texts)
        self._line = Line(self._stop)
        self._progress: dict[str, Progress] = {}
        self._listed = self._vanished = 0
        self._lock = threading.Lock()
        self._transactions = self._rows = self._ticks = 0
        self._commits = Latency()
        self._busy: dict[str, float] = defaultdict(float)
        self._began = self._stop.now()
        self._aggregating: Aggregating | None = None
        self._loads = False
        self._connections = connections(self._path, stopped=self._stop.is_set, warn=log.warning)
        self._closing: list[Callable[[], None]] = [self._connections.close]

    def ingest(self, roots: list[str | os.PathLike[str]]) -> TextSummary:
        # All that can be wrong with what was asked for is said before there is a database.
        documents = scan(roots, self._refuse_to_go_on)
        self._check_places(roots)
        with Reader(self._texts.reader_processes, self._options, self._texts.reader_timeout) as reader:
            self._stop.on_set(reader.close)
            with self._opened():
                # What another ingest has left is not read as this one reads.
                among = listed_since(self._db.sql, self._enlist_documents(roots, documents))
                if not self._listed:
                    log.warning(
                        "there is no document in %s: in folders those files count whose names end in %s",
                        ", ".join(os.fspath(root) for root in roots),
                        ", ".join(SUFFIXES),
                    )
                backlog, governor = self._backlog(), self._local_governor(self._texts.reader_processes)
                run = Reading(reader, self._options, governor, backlog).run
                self._add_read(Stage("read", run, holds=True), governor, backlog, self._settings.db_batch_size, among)
                return self._go(backlog)

    def embed(self, *, items: bool) -> TextSummary:
        found = self._items() if items else None
        self._check_places([])
        with self._opened():
            backlog = self._backlog()
            if found is not None:
                self._enlist_items(found)
                governor = self._local_governor(1)
                run = ReadingItems(found, self._connections, governor, backlog).run
                self._add_read(Stage("read-items", run, 100), governor, backlog, self._settings.db_batch_size)
            return self._go(backlog)

    def retry(self, outcomes: Collection[Outcome], keys: Collection[Key]) -> TextSummary | None:
        with self._opened():
            if not unpark(self._db, self._source, outcomes, keys):
                return None
            return self._go(self._backlog())

    def _check_places(self, roots: Iterable[str | os.PathLike[str]]) -> None:
        """See that what is written is apart from what is read, and can be written. Raises ConfigurationError."""
        db = None if isinstance(self._path, PostgresUrl) else self._path.resolve()
        out = self._out.resolve() if self._out is not None else None
        for root in map(Path, roots):
            where = root.resolve()
            if db == where:
                raise ConfigurationError(f"{root} is to be read and the database too: name the database last")
            if out is not None and out.is_relative_to(where):
                raise ConfigurationError(
                    f"{self._out} (--aggregate) is in {root}, and would be read the next time: name another folder"
                )
        if out is not None:
            make_folder(out)
            if not os.access(out, os.W_OK | os.X_OK):
                raise ConfigurationError(f"{self._out} (--aggregate) cannot be written: {os.strerror(errno.EACCES)}")

    # --- what there is to do ------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """The database, and no other model than that of its vectors. Raises StoreError, ConfigurationError."""
        self._db, self._source = open_texts(
            self._path,
            clock=self._stop.time,
            stopped=self._stop.is_set,
            warn=log.warning,
            allow_network=self._settings.allow_network_file_system,
        )
        try:
            with self._db.explained():
                recorded, name = recorded_model(self._db.sql), embedders.name_of(self._texts)
                if recorded is not None and recorded[0] != name:
                    raise other_model(self._path, recorded, name)
                yield
        finally:
            self._db.close()

    def _items(self) -> Items:
        """The items of the mirror. Raises StoreError, ConfigurationError."""
        if source_of(self._path) == SOURCE:
            raise ConfigurationError(f"{self._path} holds texts alone: it mirrors nothing whose items could be read")
        kind = kind_of(self._path)
        found = Items(kind.name, kind.tables, self._options)
        if not found.have_texts:
            raise ConfigurationError(f"the items of {kind.name} have no texts that are searched: nothing to embed")
        return found

    def _enlist_documents(self, roots: list[str | os.PathLike[str]], documents: Iterable[Document]) -> int:
        """Make due what is to be read; returns when it is said to be listed (Unix seconds)."""
        now = listing_time(self._db.sql, int(self._stop.time()))
        found = iter(documents)
        while some := list(islice(found, _SCANNED)):
            self._refuse_to_go_on()
            some = self._kept(some)
            self._listed += len(some)
            version = self._options.version
            enlist(self._db, self._source, "read", [(each.name, version(each), None) for each in some], now)
            for each in some:
                if each.size < 0:
                    keep_listed(self._db, each.name, now)
        for root in roots:
            folder = os.path.abspath(os.fspath(root))  # noqa: PTH100 - links are followed by nobody here
            self._vanished += unlist(self._db, text_of(folder).rstrip("/"), now)
        return now

    def _kept(self, documents: list[Document]) -> list[Document]:
        """Those of the documents whose names the database can hold."""
        takes = index_of(self._db).takes
        for each in documents:
            if not takes(each.name):
                log.warning("%s… is left out: its path is longer than %s can hold", each.name[:200], self._path)
        return [each for each in documents if takes(each.name)]

    def _enlist_items(self, items: Items) -> None:
        now = listing_time(self._db.sql, int(self._stop.time()))
        for some in items.listed(self._db.sql):
            self._refuse_to_go_on()
            self._listed += len(some)
            enlist(self._db, self._source, "read-items", some, now)
        self._vanished = unlist(self._db, items.folder, now)

    def _refuse_to_go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("interrupted while documents were listed; what was listed is kept")

    # --- the stages ---------------------------------------------------------------------------------

    def _backlog(self) -> Backlog:
        texts = self._texts
        backlog = Backlog(_AHEAD * texts.max_embed_concurrency_max * texts.embed_batch_size, self._stop)
        backlog.look(lambda: self._work("embed"))
        return backlog

    def _work(self, stage: str, db: Session | None = None) -> int:
        asked = db or self._db

        def ask() -> int:
            with asked.explained():
                row = asked.sql.execute(
                    "SELECT work FROM stages WHERE source = ? AND stage = ?", [self._source, stage]
                ).fetchone()
            return row[0] if row else 0

        return asked.persist(ask)

    def _local_governor(self, parallel: int) -> Governor:
        return Governor(self._stop, parallel=parallel)

    def _plan(self, workers: int, batch_size: int) -> Plan:
        settings = self._settings
        return Plan(
            workers=workers,
            batch_size=batch_size,
            batch_seconds=settings.db_batch_seconds,
            delay=0.0,
            max_retries=settings.max_retries,
            max_backoff=settings.max_backoff_seconds,
            max_outage=settings.max_outage_seconds,
            order="oldest",
            min_free=kept_free(self._path, settings.min_free_disk_mb * 1_000_000),
        )

    def _add_read(
        self, stage: Stage, governor: Governor, backlog: Backlog, batch_size: int, among: str = "true"
    ) -> None:
        if not self._work(stage.name):
            return
        db = self._db.beside()
        looked = 0.0

        def on_batch(_: object) -> None:
            nonlocal looked
            backlog.look(lambda: self._work("embed", db))
            self._line.wake("embed")
            if self._out is not None and time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                enlist_categories(db, self._source)
                self._line.wake("aggregate")

        def at_end() -> None:
            if self._out is not None:
                enlist_categories(db, self._source)

        engine = Engine(
            Unlisted(),
            stage,
            self._store(db, DocumentWriter(stage.name), among),
            governor,
            self._stop,
            self._plan(self._texts.reader_processes if stage.name == "read" else 1, batch_size),
            on_batch=on_batch,
            on_progress=self._note(stage.name),
        )
        self._line.add(stage.name, engine, at_end)

    def _add_embed(self, backlog: Backlog) -> None:
        texts, settings = self._texts, self._settings
        most = texts.max_embed_concurrency_max
        if texts.embedder == "wordllama":
            # More threads than there are processors only take memory, and the processors from the other stages.
            most = min(most, os.cpu_count() or 1)
        governor = Governor(
            self._stop,
            parallel=most,
            ceiling=texts.max_embed_requests_per_second,
            max_pause=settings.max_backoff_seconds,
            least=min(texts.max_embed_concurrency_min, most),
            lower=settings.latency_lower_threshold or LATENCY_LOWER_THRESHOLD,
            upper=settings.latency_upper_threshold or LATENCY_UPPER_THRESHOLD,
            refusals=settings.rate_limit_adjustment_threshold,
            first=min(texts.max_embed_concurrency, most),
        )
        embedder = embedders.make(texts, settings, governor, self._stop)
        self._closing.append(embedder.close)
        embedding = Embedding(
            embedder,
            self._path,
            self._connections,
            recorded_model(self._db.sql),
            most=texts.embed_batch_size,
            most_bytes=texts.embed_batch_bytes,
        )
        db = self._db.beside()
        store = self._store(db, VectorWriter(embedding.model))
        if texts.embedder == "openai":
            host = urlsplit(texts.embed_base_url).netloc
            governor.recall(store.learned(host))
            store.learn(host, governor.learned)
        engine = Engine(
            Unlisted(
                head="to embed",
                address="EMBED_BASE_URL (--embed-url)" if texts.embedder == "openai" else "EMBEDDER (--embedder)",
                login_hint="once that is mended, run again",
                first=embedding.first,
                life=embedding.life,
            ),
            Stage("embed", embedding.run, texts.embed_batch_size),
            store,
            governor,
            self._stop,
            self._plan(most, settings.db_batch_size),
            on_batch=lambda _: backlog.look(lambda: self._work("embed", db)),
            on_progress=self._note("embed"),
            more=lambda: self._line.goes_on(*READS),
        )
        self._line.add("embed", engine, backlog.close)

    def _add_aggregate(self, out: Path) -> None:
        governor = self._local_governor(1)
        self._aggregating = Aggregating(
            self._connections,
            out,
            governor,
            self._stop,
            batch=self._texts.aggregate_batch_size,
            more=lambda: self._line.goes_on(*READS),
        )
        engine = Engine(
            Unlisted(),
            Stage("aggregate", self._aggregating.run),
            self._store(self._db.beside(), CategoryWriter()),
            governor,
            self._stop,
            self._plan(1, 1),
            on_progress=self._note("aggregate"),
            more=lambda: self._line.goes_on(*READS),
        )
        self._line.add("aggregate", engine)

    def _go(self, backlog: Backlog) -> TextSummary:
        """Run the stages that have anything to do."""
        reads = self._line.goes_on(*READS)
        try:
            if reads or self._work("embed"):
                self._loads = True
                index_of(self._db).prepare_load(self._work("embed"))
                self._add_embed(backlog)
            if self._out is not None:
                enlist_categories(self._db, self._source, everything=True)
                if reads or self._work("aggregate"):
                    self._add_aggregate(self._out)
            try:
                stages = self._line.run(lambda: self._tell(backlog))
                forget_lost(self._db, self._source)
                self._finish_load()
                return self._summary(stages, backlog)
            except FetcherError as error:
                if isinstance(error.summary, Mapping):
                    error.summary = self._summary(error.summary, backlog)
                raise
        finally:
            for close in self._closing:
                close()

    def _finish_load(self) -> None:
        """Make what is made when all is written."""
        if self._loads:
            try:
                index_of(self._db).finish_load()
            except Stopped:
                raise Interrupted("interrupted while an index was made; all texts are stored") from None

    def _tell(self, backlog: Backlog) -> TextProgress:
        stages = {stage: self._progress[stage] for stage in STAGES if stage in self._progress}
        self._ticks += 1
        for name, each in stages.items():
            self._busy[name] += min(1.0, each.traffic.in_flight / max(1, each.traffic.gate))
        progress = TextProgress(
            stages,
            min(1.0, backlog.fill),
            {name: self._busy[name] / self._ticks for name in stages},
            self._writes(),
            self._stop.now() - self._began,
        )
        self._on_progress(progress)
        return progress

    def _summary(self, stages: Mapping[str, Summary], backlog: Backlog) -> TextSummary:
        read = [stages[name].counts for name in READS if name in stages]
        embedded = stages["embed"].counts.stored if "embed" in stages else 0
        (parked,) = self._db.sql.execute(
            "SELECT coalesce(sum(parked), 0) FROM stages WHERE source = ?", [self._source]
        ).fetchone()
        return TextSummary(
            stages={name: stages[name] for name in STAGES if name in stages},
            seconds=self._stop.now() - self._began,
            documents=sum(each.stored for each in read),
            chunks=sum(each.rows for each in read),
            vectors=embedded,
            parked=parked,
            listed=self._listed,
            vanished=self._vanished,
            files=len(self._aggregating.changed) if self._aggregating is not None else 0,
            unchanged=len(self._aggregating.unchanged) if self._aggregating is not None else 0,
            unread=sum(map(self._work, READS)),
            unembedded=self._work("embed"),
            progress=self._tell(backlog),
        )

    def _store(self, db: Session, writer: Writer, among: str = "true") -> StageStore:
        return StageStore(db, self._source, writer, self._stop.time, self._committed, among=among)

    def _committed(self, rows: int, seconds: float) -> None:
        with self._lock:
            self._transactions += 1
            self._rows += rows
            self._commits.add(seconds)

    def _writes(self) -> Writes:
        with self._lock:
            return Writes(self._transactions, self._rows, self._commits.so_far())

    def _note(self, stage: str) -> Callable[[Progress], None]:
        def note(progress: Progress) -> None:
            self._progress[stage] = progress

        return note
