"""The store of one stage that texts go through: its work, its failures, and what it writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Protocol, TypeVar

from fetcher.errors import StoreError
from fetcher.learned import Learned
from fetcher.model import (
    Batch,
    Committed,
    Covered,
    Failure,
    Interval,
    Key,
    Order,
    Outcome,
    Plan,
    Row,
    RunState,
    Scope,
    StoreCounts,
    Work,
)
from fetcher.stores.runs import Runs, after
from fetcher.stores.sql import Refused, Session, Sql, Upsert
from fetcher.stores.texts import category_key, count, mark_unlisted, record_model, texts_of, touch
from fetcher.stores.texts_index import TextsIndex, index_of
from fetcher.stores.worklist import Worklist

T = TypeVar("T")

_VECTORS = Upsert("vectors", ("hash", "vector"), ("hash",))


@dataclass(frozen=True, slots=True)
class Written:
    """What a stage wrote: how many rows, how much work it made for each stage, which of its own keys stay due."""

    rows: int = 0
    queued: Mapping[str, int] = field(default_factory=dict)
    kept: frozenset[Key] = frozenset()


class Writer(Protocol):
    """Writes what a stage gave, within the transaction of its store."""

    stage: str

    def write(self, db: Session, source: str, batch: Batch, now: int) -> Written:
        """Write a batch, but for its failures and the end of its work."""
        ...


class StageStore:
    """What the engine asks of a store, for one stage; used by one thread, beside those of the other stages."""

    def __init__(
        self,
        db: Session,
        source: str,
        writer: Writer,
        clock: Callable[[], float],
        on_commit: Callable[[int, float], None] = lambda _rows, _seconds: None,
        *,
        among: str = "true",
    ) -> None:
        """`on_commit` is told after each transaction how many rows it wrote, in how many seconds.

        `among` is a condition (SQL) on the keys that are claimed.
        """
        self._db = db
        self._conn = db.sql
        self._refused: tuple[type[Exception], ...] = (Refused, *db.refused)
        self._index = index_of(db)
        self._source = source
        self._writer = writer
        self._clock = clock
        self._on_commit = on_commit
        self._work = Worklist(db.sql, source, among)
        self._runs = Runs(db, source, clock, writer.stage)

    def counts(self) -> StoreCounts:
        """Totals of the stage, kept with each batch."""
        return self._persist(self._counts)

    def _counts(self) -> StoreCounts:
        with self._db.explained():
            row = self._conn.execute(
                "SELECT done, done, work, parked FROM stages WHERE source = ? AND stage = ?",
                [self._source, self._writer.stage],
            ).fetchone()
        return StoreCounts(*row) if row else StoreCounts()

    def claim(
        self, stage: str, most: int, order: Order, bounds: Interval | None, skip: Collection[Key]
    ) -> tuple[list[Work], float | None]:
        """Due work that is not in `skip`, as the store of a mirror gives it."""

        def claim() -> tuple[list[Work], float | None]:
            with self._db.explained():
                return self._work.claim(stage, most, order, bounds, skip, self._clock())

        return self._persist(claim)

    def commit(self, batch: Batch, state: RunState) -> Committed:
        """Write a batch in one transaction. What the database refuses makes its key a failure, alone.

        Raises StoreError.
        """
        return self._persist(partial(self._commit, batch, state))

    def _commit(self, batch: Batch, state: RunState) -> Committed:
        try:
            began = time.perf_counter()
            with self._db.transaction():
                done = self._write(batch)
                self._runs.write(state, done)
            self._on_commit(done.rows, time.perf_counter() - began)
            return done
        except self._refused as error:
            return self._apart(batch, state, error)

    def _persist(self, do: Callable[[], T]) -> T:
        """Done again when the database was lost on the way, before anything of it was written."""
        return self._db.persist(do)

    def _write(self, batch: Batch) -> Committed:
        now = int(self._clock())
        written = self._writer.write(self._db, self._source, batch, now)
        failed = {each.key for each in batch.failures}
        keys = [key for key in (*batch.details, *batch.gone) if key not in failed and key not in written.kept]
        ended = self._work.forget(batch.stage, keys)
        parked = 0
        for failure in map(self._index.told, batch.failures):
            unparked = self._work.put_off(failure, now)
            if failure.due_at is None:
                parked += unparked
                ended += unparked
        count(self._conn, self._source, batch.stage, work=-ended, parked=parked, done=len(batch.details))
        for stage, queued in written.queued.items():
            count(self._conn, self._source, stage, work=queued)
        return Committed(
            rows=written.rows,
            ended=ended,
            stored=tuple(batch.details),
            gone=batch.gone,
            failed=tuple(each for each in batch.failures if each.due_at is None),
            retried=tuple(each for each in batch.failures if each.due_at is not None),
        )

    def _apart(self, batch: Batch, state: RunState, error: Exception) -> Committed:
        """Write what a batch holds key by key, so that one that is refused fails alone."""
        keys = list(dict.fromkeys([*(key for key, _ in batch.parts), *batch.details]))
        if len(keys) > 1:
            some = [
                replace(
                    batch,
                    parts=tuple(each for each in batch.parts if each[0] == key),
                    details={key: batch.details[key]} if key in batch.details else {},
                    gone=(),
                    failures=tuple(each for each in batch.failures if each.key == key),
                )
                for key in keys
            ]
            rest = tuple(each for each in batch.failures if each.key not in keys)
            some.append(Batch(gone=batch.gone, failures=rest, stage=batch.stage))
        elif keys:
            failure = Failure(batch.stage, keys[0], Outcome.MALFORMED, f"the database refuses its rows: {error}")
            some = [replace(batch, parts=(), details={}, failures=(*batch.failures, failure))]
        else:
            raise StoreError(f"{self._db.path} refuses a row: {error}") from error
        done = Committed()
        for each in some:
            more = self.commit(each, after(state, done))
            done = replace(
                done,
                rows=done.rows + more.rows,
                ended=done.ended + more.ended,
                stored=done.stored + more.stored,
                gone=done.gone + more.gone,
                failed=done.failed + more.failed,
                retried=done.retried + more.retried,
            )
        return done

    def begin_run(self, plan: Plan) -> None:
        """Write down that a run of the stage begins."""
        self._persist(partial(self._runs.begin, plan))

    def update_run(self, state: RunState) -> None:
        """Write down where the run stands."""

        def update() -> None:
            with self._db.transaction():
                self._runs.write(state)

        self._persist(update)

    def learned(self, host: str) -> Learned | None:
        """What was written down about a host."""
        return self._persist(partial(self._runs.learned, host))

    def learn(self, host: str, ask: Callable[[], Learned]) -> None:
        """From now on, write down what `ask` says is known of a host."""
        self._runs.learn(host, ask)

    def room(self) -> int:
        """How many bytes are free where it is written."""
        return self._db.room()

    def tend(self) -> None:
        """Do now and then what keeps the database fit."""
        self._db.tend()

    # Nothing is listed here.

    def coverage(self, scopes: Sequence[Scope]) -> Mapping[Scope, Sequence[Covered]]:
        """Nothing: a stage covers no scopes."""
        return {scope: [] for scope in scopes}

    def tokens(self) -> Mapping[Scope, str]:
        """Nothing: no walk is under way."""
        return {}

    def known(self) -> Key | None:
        """Nothing: what is asked for to see whether a host is there is no key of ours."""
        return None

    def fetched(self, scopes: Sequence[Scope], most: int) -> list[Key]:  # noqa: ARG002 - the engine's contract
        """Nothing."""
        return []

    def restore(self, scopes: Sequence[Scope], since: float) -> int:  # noqa: ARG002
        """Nothing: no text looks gone for want of a login."""
        return 0

    def want(self, universe: Mapping[Scope, Interval]) -> None:
        """Nothing is to be covered."""

    def prepare_load(self, estimate: int) -> None:
        """Nothing slows a load down here."""

    def finish_load(self) -> None:
        """Nothing was dropped."""

    def end_sweep(self, scopes: Sequence[Scope]) -> None:
        """No sweep was begun."""


class DocumentWriter:
    """The stages `read` and `read-items`: chunks of documents, in pieces, and the embedding that they need.

    A piece has rows of `chunks`, and in `after` the position that the piece before it ended at; the last one has in
    `documents` the version, how many chunks there are, and the last position.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def write(self, db: Session, source: str, batch: Batch, now: int) -> Written:
        """Put the chunks of each document in place of those stored; those that did not change stay as they are."""
        sql, index = db.sql, index_of(db)
        rows = queued = 0
        for name, detail in (*batch.parts, *batch.details.items()):
            chunks = detail.rows.get("chunks", ())
            number = _document(sql, name)
            after = -1
            if chunks:
                ((after,),) = detail.rows.get("after", ((after,),))
                if after < 0 and "documents" not in detail.rows:
                    # From its first piece to its last it is neither what it was nor what it will be.
                    sql.execute(
                        "UPDATE documents SET version = NULL WHERE number = ? AND version IS NOT NULL", [number]
                    )
                rows, queued = rows + len(chunks), queued + self._put(sql, index, source, number, after, chunks)
                after = chunks[-1][1]
            if "documents" in detail.rows:
                ((version, length, last),) = detail.rows["documents"]
                _drop(sql, index, _STALE, [number, max(after, last)])
                sql.execute(
                    "UPDATE documents SET version = ?, chunks = ?, read_at = ? WHERE number = ?",
                    [version, length, now, number],
                )
        if batch.gone:
            mark_unlisted(sql, [_document(sql, name) for name in batch.gone], now)
        return Written(rows, {"embed": queued})

    def _put(self, sql: Sql, index: TextsIndex, source: str, document: int, after: int, chunks: Sequence[Row]) -> int:
        """Write the chunks that are new or have changed; how many texts are to be embedded for it.

        A chunk is (id, position, text, hash, domain, category, source_book, source_chapter).
        """
        lo, hi = after + 1, chunks[-1][1]
        columns = ("number", "id", "position", "hash", "domain", "category", "source_book", "source_chapter")
        stored = {
            each[2]: tuple(each)
            for each in sql.array(
                f"{sql.select(*columns)} FROM chunks WHERE document = ? AND position BETWEEN ? AND ?",
                [document, lo, hi],
            )
        }
        wanted = [each for each in chunks if stored.get(each[1], ())[1:] != (*each[:2], *each[3:])]
        stale = stored.keys() - {each[1] for each in chunks} | stored.keys() & {each[1] for each in wanted}
        if stale:
            gone = [stored[position] for position in sorted(stale)]
            _remove(sql, index, [each[0] for each in gone], {(each[4], each[5]) for each in gone})
        if not wanted:
            return 0
        rows = [(document, *each) for each in wanted]
        written = index.insert(rows)
        if written < len(rows):
            self._free(sql, index, document, hi, [each[0] for each in wanted])
            if written + index.insert(rows) < len(rows):
                raise Refused("the id of a chunk is taken by another one: each has to have its own")
        index.add(document, lo, hi, [each[1] for each in wanted] if len(wanted) < len(chunks) else None)
        touch(sql, {(each[4], each[5]) for each in wanted})
        return sql.execute(
            "INSERT INTO work (source, stage, key, due_at)"
            f" SELECT DISTINCT CAST(? AS text), 'embed', {sql.any_sql('hash')}, 0 FROM chunks"
            " WHERE document = ? AND position BETWEEN ? AND ?"
            " AND NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.hash = chunks.hash) ON CONFLICT DO NOTHING",
            [source, document, lo, hi],
        ).rowcount

    def _free(self, sql: Sql, index: TextsIndex, document: int, hi: int, ids: Sequence[str]) -> None:
        """Take out chunks of these ids that only stood there before: behind `hi`, or in documents that are no more."""
        listed, names = sql.listed(ids)
        held = f"id IN (SELECT value FROM {listed})"
        # Should one come back, it is read anew.
        sql.execute(
            "UPDATE documents SET version = NULL WHERE unlisted_at IS NOT NULL AND number != ? AND number IN"
            f" (SELECT document FROM chunks WHERE {held})",
            [document, names],
        )
        theirs = "document IN (SELECT number FROM documents WHERE unlisted_at IS NOT NULL)"
        _drop(sql, index, f"document != ? AND {theirs} AND {held}", [document, names])
        _drop(sql, index, f"document = ? AND position > ? AND {held}", [document, hi, names])


class VectorWriter:
    """The stage `embed`: a vector for each text, by the one model that `model` names with its dimension."""

    stage = "embed"

    def __init__(self, model: Callable[[], tuple[str, int]]) -> None:
        self._model = model

    def write(self, db: Session, source: str, batch: Batch, now: int) -> Written:  # noqa: ARG002 - the contract
        """Put in the vectors; a text that was gone and stands somewhere again by now stays due."""
        if batch.details:
            record_model(db, *self._model(), now)
        vectors = sorted(chain.from_iterable(each.rows["vectors"] for each in batch.details.values()))
        db.sql.insert(_VECTORS, vectors)
        back = texts_of(db.sql, [str(key) for key in batch.gone]) if batch.gone else ()
        return Written(len(vectors), kept=frozenset(back))


class CategoryWriter:
    """The stage `aggregate`: which state of a category its file holds."""

    stage = "aggregate"

    def write(self, db: Session, source: str, batch: Batch, now: int) -> Written:  # noqa: ARG002
        """Write down what was written out; what has changed meanwhile stays due."""
        kept: set[Key] = set()
        for detail in batch.details.values():
            ((domain, category, state),) = detail.rows["categories"]
            (now_at,) = db.sql.execute(
                "UPDATE categories SET written = ? WHERE domain = ? AND category = ? RETURNING changes",
                [state, domain, category],
            ).fetchone()
            if now_at > state:
                kept.add(category_key(domain, category))
        return Written(len(batch.details), kept=frozenset(kept))


_STALE = "document = ? AND position > ?"


def _drop(sql: Sql, index: TextsIndex, where: str, parameters: Sequence[object]) -> None:
    """Take out the chunks of which a condition is true."""
    found = sql.execute(f"SELECT number, domain, category FROM chunks WHERE {where}", parameters).fetchall()
    if found:
        _remove(sql, index, [row[0] for row in found], {(row[1], row[2]) for row in found})


def _remove(sql: Sql, index: TextsIndex, numbers: Sequence[int], touched: Collection[tuple[str, str]]) -> None:
    """Take out chunks by their numbers: from the full-text search, and from their table."""
    index.forget(numbers)
    sql.for_keys("DELETE FROM chunks WHERE number IN ", numbers)
    touch(sql, touched)


def _document(sql: Sql, name: Key) -> int:
    """The number of a document that was enlisted."""
    return int(sql.execute("SELECT number FROM documents WHERE name = ?", [name]).fetchone()[0])
