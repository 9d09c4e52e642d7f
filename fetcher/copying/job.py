"""One copy: what was made earlier is gone on with, and all of it compared."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fetcher.copying.ranges import Checksum, Difference, differences
from fetcher.copying.relations import PARTS, relations
from fetcher.copying.target import Changed, State, Target
from fetcher.errors import Stopped, StoreError
from fetcher.mirror import kind_of, mirrors_nothing
from fetcher.model import Row, Table
from fetcher.place import Place
from fetcher.sources import of
from fetcher.stop import Stop
from fetcher.stores.marker import unfinished
from fetcher.stores.opening import open_store, rows_into, rows_of
from fetcher.stores.origin import description_of, origin_of
from fetcher.stores.rows import Reader, Relation
from fetcher.stores.schema import quoted
from fetcher.stores.texts import open_texts

log = logging.getLogger("fetcher")

ROWS = 5_000
"""So many rows are a range at most: they are written in one transaction."""

BYTES = 8_000_000
"""Or rows of so many bytes."""

MOST_NAMED = 1_000
"""So many values that were changed are named; all are counted, and kept in the copy."""

_VOLATILE = "search_filled_to"
"""The column of `sources` that is about the database, not about what it holds."""


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """Where a copy stands: `step` is copying, comparing or completing; `rows` of `total` are done, `rate` a second.

    `eta` is in seconds, None when unknown.
    """

    step: str
    table: str
    rows: int
    total: int
    seconds: float
    rate: float
    eta: float | None


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds: its rows by table, and where it differs from the original.

    `copied` rows were written this time. `differences` are ranges of keys whose rows are not those of the original:
    while there are any, the copy is not complete. `changed` values were written in another way and `left_out` rows not
    at all, since the database cannot hold them; `changes` names the first of them. `strangers` are tables, and columns
    as TABLE.COLUMN, of the original that are no part of a mirror.
    """

    rows: dict[str, int]
    copied: int
    seconds: float
    differences: tuple[Difference, ...] = ()
    changed: int = 0
    left_out: int = 0
    changes: tuple[Changed, ...] = ()
    strangers: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all of it is there as it was, 3 something differs, was changed or left out."""
        return 3 if self.differences or self.changed or self.left_out else 0


@dataclass(slots=True)
class _Meter:
    """How far a step is; tells of it a few times a second."""

    step: str
    total: int
    tell: Callable[[CopyProgress], None]
    done: int = 0
    table: str = ""
    _before: int = 0
    _began: float = field(default_factory=time.monotonic)
    _told: float = 0.0

    def skip(self, rows: int) -> None:
        """So many rows were done earlier."""
        self.done += rows
        self._before += rows

    def add(self, rows: int, *, now: bool = False) -> None:
        """So many more rows are done."""
        self.done += rows
        at = time.monotonic()
        if at - self._told < 0.2 and not now:
            return
        self._told = at
        seconds = at - self._began
        rate = (self.done - self._before) / seconds if seconds else 0.0
        eta = max(0, self.total - self.done) / rate if rate else None
        self.tell(CopyProgress(self.step, self.table, self.done, self.total, seconds, rate, eta))


class Copy:
    """One copy, of which all but a part may have been made earlier."""

    def __init__(
        self,
        origin: Place,
        goal: Place,
        rows: Reader,
        without: frozenset[str],
        stop: Stop,
        on_progress: Callable[[CopyProgress], None],
        *,
        allow_network: bool,
    ) -> None:
        self._origin, self._goal, self._rows = origin, goal, rows
        self._stop, self._on_progress, self._allow_network = stop, on_progress, allow_network
        self._began = time.monotonic()
        self._source, self._base_url = origin_of(origin)
        self._kind = None if mirrors_nothing(origin) else kind_of(origin)
        tables: Sequence[Table] = () if self._kind is None else self._kind.tables
        self._relations, self._strangers = relations(origin, rows, tables, goal, without)
        # A place is told by its name alone, which of a file depends on the folder that one is in.
        self._name = str(origin.absolute() if isinstance(origin, Path) else origin)
        self._mark = f"{_mark(rows)} {','.join(sorted(without))}"
        self._columns: dict[str, list[str]] = {}
        self._copied = 0

    def run(self) -> Copied:
        """Make it, or compare one that is complete. Raises Stopped and StoreError."""
        with self._target() as target:
            state = target.state()
            if state is None:
                names = [*(each.table for each in self._relations), "sources", "fetcher_migrations"]
                target.begin(self._name, self._mark, names)
            elif state.finished_at is not None:
                self._refuse_another(state)
            elif state.mark != self._mark:
                if state.origin != self._name:
                    raise unfinished(self._goal, state.origin)
                log.warning("%s has changed since its copy was begun: it is copied anew", self._origin)
                target.begin_anew(self._mark)
        if state is None or state.finished_at is None:
            self._make()
        with self._target() as target:
            self._match_columns()
            if state is None or state.finished_at is None:
                self._copy_all(target)
            found = self._compare(target)
            if state is not None and state.finished_at is not None:
                return self._said(target, found)
            if found:
                for each in reversed(found):
                    target.forget_from(each.table, each.number)
                return self._said(target, found)
            self._copy_sources(target)
        self._meter("completing", 0).add(0, now=True)
        # What makes the search, views and indexes of any mirror makes them here.
        self._make(last=True)
        with self._target() as target:
            self._writer.fill_text_search()
            self._writer.finish([each.table for each in self._relations])
            with self._there() as there:
                made = _mark(there)
            target.complete(made)
            return self._said(target, ())

    @contextmanager
    def _target(self) -> Iterator[Target]:
        with rows_into(
            self._goal, warn=log.warning, stopped=self._stop.is_set, allow_network=self._allow_network
        ) as writer:
            self._writer = writer
            yield Target(writer)

    def _there(self) -> Any:
        return rows_of(self._goal, stopped=self._stop.is_set, copying=True)

    def _refuse_another(self, state: State) -> None:
        """Raise StoreError when a complete copy is of something else, or has become a mirror of its own."""
        with self._there() as there:
            same = _mark(there) == state.made
        if state.mark == self._mark and same:
            return
        changed = f"{self._origin} has changed" if same else "a run has changed it"
        since = f"; since then {changed}" if state.origin == self._name else ""
        raise StoreError(
            f"{self._goal} holds a mirror already, which was copied from {state.origin}{since}: name a new database"
            " to copy to"
        )

    def _make(self, *, last: bool = False) -> None:
        """Make the tables; with `last` also what is made of their rows."""
        if self._kind is not None:
            store = open_store(
                self._goal,
                self._source,
                self._kind.tables,
                self._base_url,
                views=of(self._kind, "views"),
                description=description_of(self._origin),
                warn=log.warning,
                stopped=self._stop.is_set,
                allow_network=self._allow_network,
                copying=True,
            )
            try:
                if last:
                    store.finish_load()
            finally:
                store.close()
        texts = {each.table for each in PARTS["texts"]}
        if isinstance(self._goal, Path) and any(each.table in texts for each in self._relations):
            open_texts(self._goal, clock=time.time, allow_network=self._allow_network, copying=True)[0].close()

    def _match_columns(self) -> None:
        """Which columns of each table both have, its key first; what else the original has is no part of a mirror."""
        for each in (*self._relations, Relation("sources", ("name",))):
            there = set(self._writer.columns(each.table))
            ours = self._rows.columns(each.table)
            shared = [name for name in ours if name in there and name not in each.key]
            self._columns[each.table] = [*each.key, *shared]
            for name in ours:
                if (
                    name not in there
                    and self._rows.sql.execute(
                        f"SELECT 1 FROM {quoted(each.table)} WHERE {quoted(name)} IS NOT NULL LIMIT 1"
                    ).fetchone()
                ):
                    self._strangers.append(f"{each.table}.{name}")

    def _copy_all(self, target: Target) -> None:
        counts = {each.table: self._count(each) for each in self._relations}
        meter = self._meter("copying", sum(counts.values()))
        for each in self._relations:
            meter.table = each.table
            self._copy(each, target, meter)

    def _copy(self, relation: Relation, target: Target, meter: _Meter) -> None:
        columns = self._columns[relation.table]
        ranges = target.ranges(relation.table)
        last = ranges[-1].last if ranges else None
        meter.skip(sum(each.rows for each in ranges))
        # What is behind it is of a range that was found to differ.
        target.clean(relation, last)
        number = len(ranges)
        rows: list[Row] = []
        checksum = Checksum()
        for some in self._rows.rows(relation, columns, last):
            self._refuse_to_go_on()
            rows += some
            checksum.add(some)
            if checksum.rows >= ROWS or checksum.bytes >= BYTES:
                target.put(relation, columns, number, rows, checksum)
                self._copied += len(rows)
                meter.add(len(rows))
                number, rows, checksum = number + 1, [], Checksum()
                self._writer.db.tend()
        if rows:
            target.put(relation, columns, number, rows, checksum)
            self._copied += len(rows)
            meter.add(len(rows))

    def _compare(self, target: Target) -> tuple[Difference, ...]:
        """Read all of the copy, and find the first range of each table that is not what was read of the original."""
        found: list[Difference] = []
        ranges = {each.table: target.ranges(each.table) for each in self._relations}
        meter = self._meter("comparing", sum(each.rows for of_one in ranges.values() for each in of_one))
        with self._there() as there:
            for each in self._relations:
                meter.table = each.table

                def on_rows(rows: int) -> None:
                    self._refuse_to_go_on()
                    meter.add(rows)

                rows = there.rows(each, self._columns[each.table])
                found += differences(each.table, len(each.key), rows, ranges[each.table], on_rows)
        return tuple(found)

    def _copy_sources(self, target: Target) -> None:
        columns = [name for name in self._columns["sources"] if name != _VOLATILE]
        rows = [row for some in self._rows.rows(Relation("sources", ("name",)), columns) for row in some]
        target.replace_sources(columns, rows)

    def _count(self, relation: Relation) -> int:
        statement = f"SELECT count(*) FROM {quoted(relation.table)} WHERE {relation.where}"
        return int(self._rows.sql.execute(statement).fetchone()[0])

    def _meter(self, step: str, total: int) -> _Meter:
        return _Meter(step, total, self._on_progress)

    def _refuse_to_go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped")

    def _said(self, target: Target, found: Sequence[Difference]) -> Copied:
        changed, left_out, changes = target.changes(MOST_NAMED)
        return Copied(
            {each.table: sum(one.rows for one in target.ranges(each.table)) for each in self._relations},
            self._copied,
            time.monotonic() - self._began,
            tuple(found),
            changed,
            left_out,
            tuple(changes),
            tuple(self._strangers),
        )


def _mark(rows: Reader) -> str:
    """What changes with every run: which source is mirrored, its totals, and all runs."""
    checksum = Checksum()
    for relation in (Relation("sources", ("name",)), Relation("runs", ("id",))):
        columns = sorted(name for name in rows.columns(relation.table) if name != _VOLATILE)
        for some in rows.rows(relation, columns):
            checksum.add(some)
    return checksum.text()
