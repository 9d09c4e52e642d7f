"""Whether a database holds all that its source showed, and is sound; asks the network nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fetcher.coverage import missing
from fetcher.model import Interval, Key, Scope, Table
from fetcher.place import Place
from fetcher.stores.jobs import contradictions, totals
from fetcher.stores.opening import reading
from fetcher.stores.schema import Statements, quoted
from fetcher.stores.sql import Sql
from fetcher.stores.texts import has_texts
from fetcher.stores.texts_verify import TextsVerdict, check_texts
from fetcher.stores.worklist import MIRROR_STAGES

_OURS = f"stage IN {MIRROR_STAGES}"
"""What of `work` is a mirror's."""

MOST_NAMED = 1000
"""So many keys are named of each kind; all are counted."""


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A stretch that no listing has proven for a scope."""

    scope: Scope
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Work that is left; `parked` says that it failed for good, `outcome` how its last try ended."""

    stage: str
    key: Key
    outcome: str | None
    parked: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: complete when nothing is missing and nothing is wrong.

    `as_of` is when the oldest part of the listing was walked (Unix seconds). `without_details` are listed items that
    have neither details nor a tombstone; `wrong` says in sentences what does not agree with itself.
    """

    items: int
    gone: int
    as_of: int | None
    uncovered: tuple[Uncovered, ...]
    without_details: tuple[Key, ...]
    without_details_count: int
    unfinished: tuple[Unfinished, ...]
    unfinished_count: int
    wrong: tuple[str, ...]
    texts: TextsVerdict | None = None
    submitted: int = 0

    @property
    def complete(self) -> bool:
        """Whether all that was ever listed is here, and whole, and its texts are."""
        return self.as_of is not None and not (
            self.uncovered
            or self.without_details_count
            or self.unfinished_count
            or self.submitted
            or self.wrong
            or (self.texts is not None and not self.texts.complete)
        )


def verify(path: Place, tables: Sequence[Table], *, on_step: Callable[[str], None] = lambda _: None) -> Verdict:
    """Read the whole database and say whether it is complete; `on_step` hears what is being looked at.

    Where there are no `tables` nothing is mirrored. Raises StoreError.
    """
    with reading(path, moment=True) as sql:
        verdict = _Check(sql, tables).verdict(on_step) if tables else _NOTHING_MIRRORED
        texts = check_texts(sql, on_step) if has_texts(sql) else None
        on_step("the file")
        damage = sql.damage()
    as_of = verdict.as_of if tables or texts is None else texts.as_of
    return replace(verdict, as_of=as_of, wrong=(*verdict.wrong, *damage), texts=texts)


_NOTHING_MIRRORED = Verdict(0, 0, None, (), (), 0, (), 0, ())


def uncovered(sql: Sql, tables: Sequence[Table]) -> list[Uncovered]:
    """The stretches of an open database that no listing has proven; reads few of its rows."""
    return _Check(sql, tables).uncovered()


class _Check:
    """The questions asked of one database, within one read transaction."""

    def __init__(self, conn: Sql, tables: Sequence[Table]) -> None:
        self._conn = conn
        self._item = tables[0]
        self._children = [table for table in tables if table.parent is not None]
        self._sql = Statements(conn, self._item, {})
        self._table, self._key = quoted(self._item.name), quoted(self._item.columns[0].name)
        self._sweep, scopes = conn.execute("SELECT sweep, scopes FROM sources").fetchone()
        self._scopes: list[Scope] = json.loads(scopes) if scopes else []

    def verdict(self, on_step: Callable[[str], None]) -> Verdict:
        on_step("coverage")
        uncovered = self.uncovered()
        (as_of,) = self._conn.execute("SELECT min(walked_at) FROM coverage").fetchone()
        submitted = totals(self._conn)
        if as_of is None and submitted is not None:
            as_of = int(submitted.last_at)
        on_step("items")
        (items,) = self._conn.execute(f"SELECT count(*) FROM {self._table}").fetchone()
        (gone,) = self._conn.execute(f"SELECT count(*) FROM {self._table} WHERE gone_at IS NOT NULL").fetchone()
        open_ = f"FROM {self._table} WHERE fetched_at IS NULL AND gone_at IS NULL"
        (open_count,) = self._conn.execute(f"SELECT count(*) {open_}").fetchone()
        without = self._conn.execute(f"SELECT {self._key} {open_} ORDER BY 1 LIMIT ?", [MOST_NAMED]).fetchall()
        (work,) = self._conn.execute(f"SELECT count(*) FROM work WHERE {_OURS}").fetchone()
        unfinished = self._conn.execute(
            f"SELECT stage, key, outcome, due_at IS NULL FROM work WHERE {_OURS}"
            " ORDER BY due_at IS NULL, stage, key LIMIT ?",
            [MOST_NAMED],
        ).fetchall()
        wrong = [*self._counters(items), *self._counts()]
        for table in self._children:
            on_step(table.name)
            wrong += self._orphans(table)
        on_step("the search")
        wrong += self._search()
        on_step("jobs")
        wrong += contradictions(self._conn)
        return Verdict(
            items=items,
            gone=gone,
            as_of=as_of,
            uncovered=tuple(uncovered),
            without_details=tuple(key for (key,) in without),
            without_details_count=open_count,
            unfinished=tuple(
                Unfinished(stage, key, outcome, bool(parked)) for stage, key, outcome, parked in unfinished
            ),
            unfinished_count=work,
            wrong=tuple(wrong),
            submitted=submitted.open_ids if submitted is not None else 0,
        )

    def uncovered(self) -> list[Uncovered]:
        """What no sweep has proven up to the highest item ever listed, down to the lowest that there can be.

        Where a scope's coverage reaches the highest item of its own, nothing above that is missing: a listing of one
        scope alone shows nothing up there, and proves nothing.
        """
        lowest, highest = self._conn.execute(f"SELECT min({self._key}), max({self._key}) FROM {self._table}").fetchone()
        if not self._item.is_numbered:
            return self._not_walked()
        if not isinstance(lowest, int):
            return []
        found = []
        floors = {scope: lo for scope, lo, _ in self._wanted()}
        for scope in self._scopes:
            rows = self._conn.execute("SELECT lo, hi FROM coverage WHERE scope = ?", [self._conn.any(scope)]).fetchall()
            whole = Interval(min(lowest, floors.get(scope, lowest)), highest)
            holes = missing(whole, [Interval(*row) for row in rows])
            if rows and holes and holes[-1].hi == highest and not self._has_items(scope, holes[-1]):
                holes.pop()
            found += [Uncovered(scope, hole.lo, hole.hi) for hole in reversed(holes)]
        return found

    def _not_walked(self) -> list[Uncovered]:
        """What no sweep has proven of what runs were to cover, where positions are no keys of items."""
        found = []
        for scope, lo, hi in self._wanted():
            rows = self._conn.execute("SELECT lo, hi FROM coverage WHERE scope = ?", [self._conn.any(scope)]).fetchall()
            holes = missing(Interval(lo, hi), [Interval(*row) for row in rows])
            found += [Uncovered(scope, hole.lo, hole.hi) for hole in reversed(holes)]
        return found

    def _wanted(self) -> list[tuple[Scope, int, int]]:
        """From where to where runs were to cover each scope; nothing where an older release made the database."""
        known = self._conn.has("sources", "wanted")
        row = self._conn.execute("SELECT wanted FROM sources").fetchone() if known else None
        return [(scope, lo, hi) for scope, lo, hi in json.loads(row[0])] if row and row[0] else []

    def _has_items(self, scope: Scope, within: Interval) -> bool:
        in_scope = self._conn.condition(self._item.in_scope)
        row = self._conn.execute(
            f"SELECT 1 FROM {self._table} WHERE {self._key} BETWEEN :lo AND :hi AND ({in_scope}) LIMIT 1",
            {"lo": within.lo, "hi": within.hi, "scope": scope},
        ).fetchone()
        return row is not None

    def _counters(self, items: int) -> list[str]:
        """Where the totals that are kept with each batch differ from what there is."""
        kept = self._conn.execute("SELECT items, fetched, work, parked FROM sources").fetchone()
        (fetched,) = self._conn.execute(f"SELECT count(*) FROM {self._table} WHERE fetched_at IS NOT NULL").fetchone()
        work, parked = self._conn.execute(
            "SELECT count(*) FILTER (WHERE due_at IS NOT NULL), count(*) FILTER (WHERE due_at IS NULL) FROM work"
            f" WHERE {_OURS}"
        ).fetchone()
        names = ("items listed", "items with details", "work left", "failed for good")
        return [
            f"{name}: {there:,} are there, {count:,} were counted"
            for name, count, there in zip(names, kept, (items, fetched, work, parked), strict=True)
            if count != there
        ]

    def _counts(self) -> list[str]:
        """Where covered stretches hold another number of items than their listing had."""
        found = []
        rows = self._conn.execute("SELECT scope, lo, hi, items FROM coverage WHERE sweep = ?", [self._sweep]).fetchall()
        for scope, lo, hi, items in rows:
            where = {"lo": lo, "hi": hi, "scope": scope}
            (there,) = self._conn.execute(self._sql.count_in_scope, where).fetchone()
            if there != items:
                found.append(f"scope {scope}, {lo:,} to {hi:,}: {there:,} items are there, {items:,} were listed")
        return found

    def _search(self) -> list[str]:
        """Where full-text search has other items than have details; databases of older releases have none yet."""
        # One row for each item that is in it: SQLite keeps them beside the index.
        table = next(filter(self._conn.has, ("search_docsize", "search")), None)
        if table is None:
            return []
        (there,) = self._conn.execute(f"SELECT count(*) FROM {table}").fetchone()
        (fetched,) = self._conn.execute("SELECT fetched FROM sources").fetchone()
        return [] if there == fetched else [f"search: {there:,} items are there, {fetched:,} have details"]

    def _orphans(self, table: Table) -> list[str]:
        """Rows that belong to no item, or to one whose details were never stored."""
        parent = quoted(table.parent or "")
        key = self._conn.any_sql(f"child.{parent}")
        rows = self._conn.execute(
            f"SELECT DISTINCT child.{parent} FROM {quoted(table.name)} AS child LEFT JOIN {self._table} AS item"
            f" ON item.{self._key} = child.{parent} WHERE item.fetched_at IS NULL"
            # What comes in pieces has some rows before it has all.
            f" AND NOT EXISTS (SELECT 1 FROM work WHERE {_OURS} AND work.key = {key}) LIMIT 20"
        ).fetchall()
        return [f"{table.name}: rows of {key}, which has no details" for (key,) in rows]
