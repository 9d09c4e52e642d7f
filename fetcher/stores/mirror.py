"""What a mirror's database means, whichever it is: rows, work and coverage of a batch stand or fall together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from itertools import chain
from operator import itemgetter
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from fetcher.coverage import is_listed
from fetcher.errors import ConfigurationError, StoreError
from fetcher.learned import Learned
from fetcher.model import (
    Batch,
    Committed,
    Covered,
    Detail,
    Failure,
    Interval,
    Key,
    Order,
    Outcome,
    Page,
    Plan,
    Row,
    RunState,
    Scope,
    StoreCounts,
    Table,
    Work,
)
from fetcher.stores.bulk import decode
from fetcher.stores.jobs import settle
from fetcher.stores.proofs import Proofs
from fetcher.stores.runs import Runs, after
from fetcher.stores.schema import Statements, quoted
from fetcher.stores.sql import Session, Sql, Upsert
from fetcher.stores.worklist import ITEM, Worklist

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 10
"""A load is large when it fetches more than one part in so many of what is stored."""

_MIRROR, _REFRESH = 0, -1
_MANY = 200_000  # items whose index is not made in a moment
_TOKENS = Upsert("walks", ("source", "scope", "token", "kept_at"), ("source", "scope"))


@dataclass(frozen=True, slots=True)
class Sweep:
    """One listing of everything there is: its number, when it began (Unix seconds), whether it is still open."""

    number: int
    started_at: int
    open: bool


def _persistent(
    method: Callable[Concatenate[MirrorStore, P], T],
) -> Callable[Concatenate[MirrorStore, P], T]:
    """Done again when its database was lost on the way, before anything of it was written."""

    @wraps(method)
    def persisting(self: MirrorStore, /, *args: P.args, **more: P.kwargs) -> T:
        return self._db.persist(partial(method, self, *args, **more))

    return persisting


class FullText(Protocol):
    """A full-text index of items, kept in step with their rows within each transaction."""

    def forget(self, conn: Any, keys: Sequence[Key], /) -> None:
        """Take out fetched items, whose rows are about to be replaced."""
        ...

    def add(self, conn: Any, keys: Sequence[Key], written: Mapping[str, Sequence[Sequence[Row]]], /) -> None:
        """Put in items that are not in it, once their rows (for each table those of each key, sorted) are written."""
        ...


class Lookups(Protocol):
    """Indexes for lookups by value: dropped for a large load, made when all is fetched, kept live in between."""

    def missing(self) -> list[str]:
        """Those to be made."""
        ...

    def drop(self) -> None:
        """Drop ours."""
        ...

    def make(self) -> None:
        """Make those that are missing; where there is no room for one, say so and do without. Raises Stopped."""
        ...


class MirrorStore:
    """The one writer of a mirror's database; used by one thread. Its kinds know how it is opened."""

    def __init__(
        self, db: Session, source: str, tables: Sequence[Table], clock: Callable[[], float], stage: str = "detail"
    ) -> None:
        self.source = source
        self._clock = clock
        self._tables = tables
        self._stage = stage
        self._item = tables[0]
        self._children = {table.name: table for table in tables if table.parent is not None}
        self._db = db
        self._conn: Sql = db.sql
        others = [table for table in tables[1:] if table.parent is None]
        self._sql = Statements(db.sql, self._item, self._children, others)
        self._proofs = Proofs(db.sql, self._sql, source)
        self._work = Worklist(db.sql, source)
        self._runs = Runs(db, source, clock, stage)
        self._search: FullText | None = None
        self._has_jobs: bool | None = None
        self._indexes: Lookups

    @property
    def path(self) -> Any:
        """Where it is, as a person is told."""
        return self._db.path

    def close(self) -> None:
        """Close the database and let go of its lock."""
        self._db.close()

    def _adopt(self, base_url: str, description: str | None) -> None:
        """Write down what is mirrored from where, within a transaction. Raises ConfigurationError."""
        self._refuse_other_source()
        row = self._conn.execute("SELECT base_url FROM sources WHERE name = ?", [self.source]).fetchone()
        if row is None:
            self._conn.execute(
                "INSERT INTO sources (name, base_url, created_at) VALUES (?, ?, ?)",
                [self.source, base_url, int(self._clock())],
            )
        elif row[0] != base_url:
            self._db.warn(f"{self._db.path} was mirrored from {row[0]} so far; now from {base_url}")
            self._conn.execute("UPDATE sources SET base_url = ? WHERE name = ?", [base_url, self.source])
        if description is not None:
            self._conn.execute("UPDATE sources SET description = ? WHERE name = ?", [description, self.source])

    def _refuse_other_source(self) -> None:
        row = self._conn.execute("SELECT name FROM sources WHERE name != ? LIMIT 1", [self.source]).fetchone()
        if row is not None:
            raise ConfigurationError(
                f"{self._db.path} mirrors {row[0]}, not {self.source}: one database mirrors one source, name another"
                f" {self._another}"
            )

    _another = "database"

    # --- reading --------------------------------------------------------------------------------

    @_persistent
    def counts(self) -> StoreCounts:
        """Totals kept with each batch, so that nothing has to be counted."""
        with self._db.explained():
            row = self._conn.execute(
                "SELECT items, fetched, work, parked FROM sources WHERE name = ?", [self.source]
            ).fetchone()
        return StoreCounts(*row) if row else StoreCounts()

    @_persistent
    def sweep(self) -> Sweep:
        """The sweep that coverage is proven for."""
        with self._db.explained():
            row = self._conn.execute(
                "SELECT sweep, sweep_started_at, sweep_ended_at FROM sources WHERE name = ?", [self.source]
            ).fetchone()
        return Sweep(row[0], row[1], row[2] is None) if row else Sweep(1, 0, True)

    @_persistent
    def coverage(self, scopes: Sequence[Scope]) -> dict[Scope, list[Covered]]:
        """What the sweep has proven listed, ascending, for each of `scopes`."""
        found: dict[Scope, list[Covered]] = {scope: [] for scope in scopes}
        with self._db.explained():
            covered = self._proofs.covered(self.sweep().number)
        for each in covered:
            if each.scope in found:
                found[each.scope].append(each)
        return found

    @_persistent
    def tokens(self) -> dict[Scope, str]:
        """What walks can go on from that an earlier run has begun and not ended."""
        with self._db.explained():
            if not self._conn.has("walks"):
                return {}  # An older database that is only looked at.
            return dict(self._conn.execute("SELECT scope, token FROM walks WHERE source = ?", [self.source]).fetchall())

    @_persistent
    def claim(
        self, stage: str, most: int, order: Order, bounds: Interval | None, skip: Collection[Key]
    ) -> tuple[list[Work], float | None]:
        """Up to `most` due pieces of work that are not in `skip`, highest priority first, then in the run's order.

        When there are fewer, also when the next one is due (Unix seconds), None when nothing waits. Claims are not
        written down: a run that dies has claimed nothing.
        """
        with self._db.explained():
            return self._work.claim(stage, most, order, bounds, skip, self._clock())

    def is_due(self, stage: str) -> bool:
        """Whether any work of a stage is due, now or later."""
        with self._db.explained():
            return self._work.is_due(stage)

    @_persistent
    def learned(self, host: str) -> Learned | None:
        """What was written down about a host, None when there is nothing, or nothing that makes sense."""
        return self._runs.learned(host)

    # --- writing --------------------------------------------------------------------------------

    def _scopes(self) -> list[Scope]:
        """What the mirror is to cover: all that any run was asked for."""
        row = self._conn.execute("SELECT scopes FROM sources WHERE name = ?", [self.source]).fetchone()
        return list(decode(row[0])) if row and row[0] else []

    @_persistent
    def begin_sweep(self, *, full: bool) -> Sweep:
        """The sweep to go on with: with `full` a new one, unless one is still open."""
        sweep = self.sweep()
        if full and not sweep.open:
            # What was fetched up to this very second counts as fetched before it.
            with self._db.transaction():
                self._conn.execute("DELETE FROM walks WHERE source = ?", [self.source])
                self._conn.execute(
                    "UPDATE sources SET sweep = sweep + 1, sweep_started_at = ?, sweep_ended_at = NULL WHERE name = ?",
                    [int(self._clock()) + 1, self.source],
                )
        return self.sweep()

    @_persistent
    def end_sweep(self, scopes: Sequence[Scope]) -> None:
        """Close the sweep: all of `scopes` was listed and fetched in it, so what earlier ones proved is not needed.

        What they proved of other scopes goes on to hold.
        """
        with self._db.transaction():
            sweep = self.sweep().number
            self._proofs.carry(scopes, sweep)
            self._conn.execute(
                "UPDATE sources SET sweep_ended_at = ? WHERE name = ? AND sweep_ended_at IS NULL",
                [int(self._clock()), self.source],
            )

    @_persistent
    def known(self) -> Key | None:
        """An item whose details are stored, None when there is none yet."""
        with self._db.explained():
            for name, child in self._children.items():
                row = self._conn.execute(f"SELECT {quoted(child.parent or '')} FROM {quoted(name)} LIMIT 1").fetchone()
                if row is not None:
                    return cast("Key", row[0])
        return None

    @_persistent
    def unpark(self, outcomes: Collection[Outcome] = (), keys: Collection[Key] = ()) -> int:
        """Make what failed for good due again: all of it, or that of these outcomes and keys; returns how much it was.

        A listed item that could not be used is listed again: its coverage is taken back. Lost pages need nothing, they
        are uncovered.
        """
        with self._db.transaction():
            chosen, due = self._work.unpark(outcomes, keys)
            self._conn.execute(
                "UPDATE sources SET work = work + ?, parked = parked - ? WHERE name = ?", [due, due, self.source]
            )
            for stage, key in chosen:
                if stage == "item" and isinstance(key, int) and self._sql.numbered:
                    self._proofs.uncover(key)
                elif stage == "item":
                    # Nobody knows where among all others it is listed.
                    self._proofs.uncover_all()
        return len(chosen)

    @_persistent
    def fetched(self, scopes: Sequence[Scope], most: int) -> list[Key]:
        """Some items of `scopes` whose details are stored and that are still there, the newest."""
        key, table = quoted(self._item.columns[0].name), quoted(self._item.name)
        where, parameters = self._in_any(scopes)
        with self._db.explained():
            rows = self._conn.execute(
                f"SELECT {key} FROM {table} WHERE fetched_at IS NOT NULL AND gone_at IS NULL AND unlisted_at IS NULL"
                f" AND {where} ORDER BY {key} DESC LIMIT :most",
                {**parameters, "most": most},
            ).fetchall()
        return [row[0] for row in rows]

    @_persistent
    def restore(self, scopes: Sequence[Scope], since: float) -> int:
        """Make items of `scopes` due again that were taken for gone at `since` (Unix time) or later; how many."""
        key, table = quoted(self._item.columns[0].name), quoted(self._item.name)
        where, parameters = self._in_any(scopes)
        where, parameters = f"gone_at >= :since AND {where}", {**parameters, "since": int(since)}
        with self._db.transaction():
            keys = self._conn.array(f"{self._conn.select(key)} FROM {table} WHERE {where}", parameters)
            self._conn.execute(f"UPDATE {table} SET gone_at = NULL WHERE {where}", parameters)
            due = self._conn.insert(
                self._sql.work, [(self.source, "detail", each, _MIRROR, 0) for each in sorted(keys)]
            )
            self._conn.execute("UPDATE sources SET work = work + ? WHERE name = ?", [due, self.source])
        return len(keys)

    def _in_any(self, scopes: Sequence[Scope]) -> tuple[str, dict[str, Scope]]:
        """The condition that an item belongs to any of these scopes, and its parameters."""
        condition = self._conn.condition(self._item.in_scope)
        each = [f"({condition.replace(':scope', f':scope{number}')})" for number in range(len(scopes))]
        parameters = {f"scope{number}": scope for number, scope in enumerate(scopes)}
        return f"({' OR '.join(['false', *each])})", parameters

    def room(self) -> int:
        """How many bytes are free where it is written. Raises StoreError."""
        return self._db.room()

    def tend(self) -> None:
        """Do now and then what keeps the database fit."""
        self._db.tend()

    @_persistent
    def prepare_load(self, estimate: int) -> None:
        """Make ready for about `estimate` items: before a large load what would slow it down is dropped."""
        if estimate * LARGE > self.counts().fetched:
            self._indexes.drop()

    @_persistent
    def finish_load(self) -> None:
        """Make what `prepare_load` may have dropped, now that all is fetched. Raises Stopped."""
        if self._stage == ITEM:
            return  # What has been asked for is fetched yet.
        with self._db.explained():
            missing = self._indexes.missing()
        if missing and self.counts().fetched >= _MANY:
            self._db.warn(
                f"all is stored; making {', '.join(missing)}, for lookups: some seconds for each 100,000 items"
            )
        self._indexes.make()

    @_persistent
    def want(self, universe: Mapping[Scope, Interval]) -> None:
        """Write down what the run is to cover: which positions in each scope, besides what earlier runs were to."""
        with self._db.transaction():
            scopes = sorted({*self._scopes(), *universe}, key=str)
            (text,) = self._conn.execute("SELECT wanted FROM sources WHERE name = ?", [self.source]).fetchone()
            wanted = {scope: (lo, hi) for scope, lo, hi in (decode(text) if text else ())}
            for scope, each in universe.items():
                if each.size:
                    lo, hi = wanted.get(scope, (each.lo, each.hi))
                    wanted[scope] = min(lo, each.lo), max(hi, each.hi)
            self._conn.execute(
                "UPDATE sources SET scopes = ?, wanted = ? WHERE name = ?",
                [json.dumps(scopes), json.dumps([(scope, *ends) for scope, ends in wanted.items()]), self.source],
            )

    @_persistent
    def remember(self, options: Mapping[str, Any]) -> None:
        """Write down what was asked of the source, to be asked again by what goes on with the mirror."""
        with self._db.transaction():
            self._conn.execute("UPDATE sources SET options = ? WHERE name = ?", [json.dumps(options), self.source])

    @_persistent
    def begin_run(self, plan: Plan) -> None:
        """Write down that a run begins; runs that died without a word are marked so."""
        self._runs.begin(plan)

    def learn(self, host: str, ask: Callable[[], Learned]) -> None:
        """From now on, write down with the run's row what `ask` says is known of a host, when that has changed."""
        self._runs.learn(host, ask)

    @_persistent
    def update_run(self, state: RunState) -> None:
        """Write down where the run stands."""
        with self._db.transaction():
            self._runs.write(state)

    @_persistent
    def commit(self, batch: Batch, state: RunState) -> Committed:
        """Write a batch in one transaction. Rows that the database refuses make their key a failure, alone.

        Raises StoreError when it cannot be written; then nothing of the batch is.
        """
        try:
            with self._db.transaction():
                done = self._write(batch)
                self._settle_jobs(batch, done)
                self._runs.write(state, done)
            return done
        except self._db.refused as error:
            return self._halve(batch, state, error)

    def _halve(self, batch: Batch, state: RunState, error: Exception) -> Committed:
        if (batch.pages or batch.parts) and (batch.details or batch.gone or batch.failures):
            parts = [Batch(batch.pages, batch.parts, stage=batch.stage), replace(batch, pages=(), parts=())]
        elif len(batch.details) > 1:
            keys = list(batch.details)
            half = len(keys) // 2
            parts = [
                replace(batch, details={key: batch.details[key] for key in keys[:half]}),
                replace(batch, details={key: batch.details[key] for key in keys[half:]}, gone=(), failures=()),
            ]
        elif len(batch.details) == 1:
            (key,) = batch.details
            failure = Failure(batch.stage, key, Outcome.MALFORMED, f"the database refuses its rows: {error}")
            parts = [replace(batch, details={}, failures=(*batch.failures, failure))]
        elif len(batch.pages) > 1:
            half = len(batch.pages) // 2
            parts = [replace(batch, pages=batch.pages[:half]), replace(batch, pages=batch.pages[half:])]
        else:
            raise StoreError(f"{self._db.path} refuses a listed row: {error}") from error
        done = Committed()
        for part in parts:
            more = self.commit(part, after(state, done))
            done = _sum(done, more)
        return done

    def _write(self, batch: Batch) -> Committed:
        now = int(self._clock())
        done = Committed(
            stored=(*batch.details, *chain.from_iterable(page.details for page in batch.pages)),
            gone=batch.gone,
            failed=tuple(each for each in batch.failures if each.due_at is None),
            retried=tuple(each for each in batch.failures if each.due_at is not None),
        )
        sweep = self.sweep() if batch.pages else None
        new = queued = parked = 0
        stored: set[Key] = set()
        fetched_before: set[Key] = set()
        brought_now: set[Key] = set()
        for page in batch.pages:
            assert sweep is not None
            known = self._known(page)
            # On a second page of this batch what was new on the first one is known.
            stored |= known.keys()
            fetched_before |= {key for key, (at, *_) in known.items() if at is not None} - brought_now
            brought_now |= page.details.keys() - fetched_before
            seen, added, refused = self._write_page(page, known, sweep, batch.stage, now)
            new, queued, parked = new + seen, queued + added, parked + refused
        brought = {key: detail for page in batch.pages for key, detail in page.details.items()}
        if brought:
            self._replace(brought, stored, fetched_before)
        fetched = len(brought.keys() - fetched_before)
        if batch.stage == ITEM:
            seen, added, again = self._write_asked(batch.details, now)
            new, queued, parked = new + seen, queued + added + again, parked - again
        else:
            fetched += self._write_details(batch.details, now, batch.parts)
        ended = 0
        if batch.gone:
            self._conn.for_keys(self._sql.gone, batch.gone, now)
        if batch.details or batch.gone or (brought and self._work.any(batch.stage)):
            flawed = {each.key for each in batch.failures if each.stage == batch.stage}
            ended = self._work.forget(
                batch.stage, [key for key in (*brought, *batch.details, *batch.gone) if key not in flawed]
            )
        for failure in batch.failures:
            if failure.stage != batch.stage:
                parked += self._work.park(failure, now)
                continue
            unparked = self._work.put_off(failure, now)
            if failure.due_at is None:
                parked += unparked
                ended += unparked
        self._conn.execute(
            "UPDATE sources SET items = items + ?, fetched = fetched + ?, work = work + ?, parked = parked + ?"
            " WHERE name = ?",
            [new, fetched, queued - ended, parked, self.source],
        )
        listed = sum(len(page.rows) for page in batch.pages)
        pieces = [*brought.values(), *batch.details.values(), *(part for _, part in batch.parts)]
        children = sum(len(rows) for each in pieces for rows in each.rows.values())
        return replace(
            done,
            pages=len(batch.pages),
            listed=listed,
            new=new,
            queued=queued,
            ended=ended,
            rows=listed + children,
        )

    def _write_page(
        self, page: Page, known: Mapping[Key, list[Any]], sweep: Sweep, stage: str, now: int
    ) -> tuple[int, int, int]:
        """Items, work and coverage of a page; how many items were new, were queued, and could not be used."""
        versions = self._versions(page)
        keys = set(versions)
        numbered = self._sql.numbered
        # Where keys are numbers what a page is about lies together, else it may be scattered over everything.
        overlapped = self._proofs.overlapped(_span(page, keys), sweep.number) if numbered else []
        counts = not numbered and self._proofs.any(sweep.number)
        counted = self._proofs.count_keys(sorted(known), sweep.number) if known and counts else Counter()
        if keys:
            rows = sorted(page.rows, key=itemgetter(0))
            self._conn.insert(
                self._sql.items, [(*row, now, now, now if row[0] in page.details else None) for row in rows]
            )
        for name, others in page.others.items():
            self._conn.insert(self._sql.others[name], others)
        if page.left_out:
            # They are listed, and what an earlier run may have stored of them stays.
            self._conn.for_keys(self._sql.listed, sorted(page.left_out), now)
        queued, parked = self._queue(page, versions, known, sweep, stage)
        parked += sum(self._work.park(failure, now) for failure in page.failures)
        parked -= self._unpark_listed(page, keys.union(page.left_out))
        if keys and counts:
            more = self._proofs.count_keys(sorted(keys), sweep.number)
            more.subtract(counted)
            self._proofs.add_counts(more, sweep.number)
        if page.proven is not None:
            if not numbered:
                overlapped = self._proofs.overlapped(page.proven, sweep.number)
            listed = keys.union((failure.key for failure in page.failures), page.left_out)
            for scope in page.scopes if page.whole else ():
                if page.began is None:
                    missed = self._proofs.unlist(scope, page.proven, listed, now)
                else:
                    missed = self._proofs.unlist_since(scope, page.proven, int(page.began), now)
                if missed and not numbered:
                    # What failed for good and is listed no more may be gone: it is asked for once more.
                    again = self._work.make_due(stage, missed)
                    queued, parked = queued + again, parked - again
        if page.token is not None or page.proven is not None:
            self._keep_token(page, now)
        self._proofs.recount(overlapped, sweep.number)
        if page.proven is not None:
            for scope in page.scopes:
                self._proofs.cover(scope, page.proven, sweep.number, now if page.began is None else int(page.began))
            lost = [key for key in self._work.parked("list") if is_listed(key, page.scopes, page.proven)]
            parked -= self._work.forget("list", lost)
        return len(keys.difference(known)), queued, parked

    def _keep_token(self, page: Page, now: int) -> None:
        """Keep what a walk can go on from, as long as there is any of it left."""
        for scope in page.scopes:
            if page.token and page.proven is None:
                self._conn.insert(_TOKENS, [(self.source, scope, page.token, now)])
            else:
                self._conn.execute(
                    "DELETE FROM walks WHERE source = ? AND scope = ?", [self.source, self._conn.any(scope)]
                )

    def _versions(self, page: Page) -> dict[Key, list[Any]]:
        """What tells whether an item has changed, of each item of a page."""
        names = [column.name for column in self._item.columns]
        places = [names.index(name) for name in self._item.version]
        return {row[0]: [row[place] for place in places] for row in page.rows}

    def _known(self, page: Page) -> dict[Key, list[Any]]:
        """When those of a page's items that are stored were fetched, and their versions then."""
        keys = {row[0] for row in page.rows}
        if not keys:
            return {}
        if self._sql.numbered:
            found = self._conn.array(f"{self._sql.known}BETWEEN ? AND ?", [min(keys), max(keys)])
        else:
            found = self._conn.array_for_keys(f"{self._sql.known}IN ", sorted(keys))
        return {key: about for key, *about in found}

    def _queue(
        self, page: Page, versions: Mapping[Key, list[Any]], known: Mapping[Key, list[Any]], sweep: Sweep, stage: str
    ) -> tuple[int, int]:
        """Make due what is to be fetched of a page's items; how much was added, and how much more is parked."""
        wanted = []
        changed = []
        for key, version in sorted(versions.items()):
            if key in page.details:
                continue
            at, *before = known.get(key, (None,))
            is_changed = at is not None and version != before
            if at is None or at < sweep.started_at or is_changed:
                wanted.append((self.source, stage, key, _REFRESH if at is not None else _MIRROR, 0))
            if version and version != before:
                changed.append(key)
        queued = self._conn.insert(self._sql.work, wanted)
        again = self._work.unpark_older(stage, versions.keys() - page.details.keys(), sweep.started_at)
        again += self._work.make_due(stage, changed) if changed else 0
        return queued + again, -again

    def _unpark_listed(self, page: Page, keys: set[Key]) -> int:
        """Forget that items could not be used which now were listed well, or are listed no more; returns how many."""
        span = _span(page, keys) if self._sql.numbered else None
        parked = self._work.parked("item", span)
        if not parked:
            return 0
        usable = keys.intersection(parked)
        if self._sql.numbered and page.proven is not None and set(page.scopes).issuperset(self._scopes()):
            usable |= {key for key in parked if key in page.proven} - {failure.key for failure in page.failures}
        return self._work.forget("item", sorted(usable)) if usable else 0

    def _write_asked(self, details: Mapping[Key, Detail], now: int) -> tuple[int, int, int]:
        """Items that were asked for by their keys, and are to be fetched like listed ones; they prove nothing.

        How many were new, how much work was added for them, and how much that had failed for good is due again.
        """
        rows = [row for key in sorted(details) for row in details[key].rows.get(self._item.name, ())]
        keys = [row[0] for row in rows]
        if not keys:
            return 0, 0, 0
        sweep = self.sweep().number
        known = self._conn.array_for_keys(f"{self._sql.known}IN ", keys)
        counted = self._proofs.count_keys(keys, sweep)
        self._conn.insert(self._sql.items, [(*row, now, now, None) for row in rows])
        more = self._proofs.count_keys(keys, sweep)
        more.subtract(counted)
        self._proofs.add_counts(more, sweep)
        return len(keys) - len(known), *self._work.pass_on(ITEM, keys, "detail")

    def _settle_jobs(self, batch: Batch, done: Committed) -> None:
        """Tell the jobs that wait for them how keys have ended; an item that was only asked for is fetched yet."""
        if self._has_jobs is None:
            self._has_jobs = self._conn.has("job_work")
        if not self._has_jobs:
            return
        stored = [key for key in done.stored if batch.stage != ITEM or not batch.details[key].rows.get(self._item.name)]
        failed = [each for each in done.failed if each.stage == batch.stage]
        settle(self._conn, stored, batch.gone, failed, self._clock())

    def _write_details(self, details: Mapping[Key, Detail], now: int, parts: Sequence[tuple[Key, Detail]] = ()) -> int:
        """The rows of fetched items, replacing those stored; returns how many had none before."""
        if parts:
            self._write_parts(parts)
        keys = sorted(details)
        if not keys:
            return 0
        again = self._conn.array_for_keys(self._sql.fetched_among, keys)
        # Of what was fetched in pieces some may be stored that never counted as fetched.
        self._replace(details, again if self._sql.numbered else keys, again)
        self._conn.for_keys(self._sql.fetched, keys, now)
        return len(keys) - len(again)

    def _replace(self, details: Mapping[Key, Detail], stored: Collection[Key], again: Collection[Key]) -> None:
        """The rows of details instead of those stored, which only items among `stored` have; `again` was fetched."""
        if again and self._search is not None:
            self._search.forget(self._conn, sorted(again))
        # Ascending keys fill the pages of a clustered table; descending ones double the file.
        keys = sorted(details)
        replaced = [key for key in sorted(stored) if key in details and not details[key].part]
        written: dict[str, list[list[Row]]] = {}
        for name in self._children:
            if replaced:
                self._conn.for_keys(self._sql.clear[name], replaced)
            written[name] = [sorted(details[key].rows.get(name, ()), key=itemgetter(1)) for key in keys]
            self._conn.insert(self._sql.children[name], list(chain.from_iterable(written[name])))
        own = [row for key in keys for row in details[key].rows.get(self._item.name, ())]
        if own:
            self._conn.insert(self._sql.own, own)
        if self._search is not None:
            self._search.add(self._conn, keys, written)

    def _write_parts(self, parts: Sequence[tuple[Key, Detail]]) -> None:
        """Pieces of details of which more is to come: the first one takes the place of what is stored."""
        begun = [key for key, part in parts if not part.part]
        for name in self._children:
            self._conn.for_keys(self._sql.clear[name], begun)
            rows = [row for _, part in parts for row in part.rows.get(name, ())]
            self._conn.insert(self._sql.children[name], sorted(rows, key=itemgetter(0, 1)))


def _span(page: Page, keys: Collection[Key]) -> Interval:
    """From the lowest to the highest key that a page has to do with."""
    ends = [*keys, *((page.proven.lo, page.proven.hi) if page.proven is not None else ())]
    return Interval(min(ends), max(ends)) if ends else Interval(1, 0)


def _sum(a: Committed, b: Committed) -> Committed:
    return Committed(
        a.pages + b.pages,
        a.listed + b.listed,
        a.new + b.new,
        a.queued + b.queued,
        a.ended + b.ended,
        a.rows + b.rows,
        a.stored + b.stored,
        a.gone + b.gone,
        a.failed + b.failed,
        a.retried + b.retried,
    )
