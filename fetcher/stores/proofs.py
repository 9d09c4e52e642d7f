"""The table `coverage`: what has been proven listed, kept merged, and how many items there are in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fetcher.coverage import clip
from fetcher.model import Covered, Interval, Key, Scope
from fetcher.stores.schema import Statements
from fetcher.stores.sql import Sql


class Counted(NamedTuple):
    """How many items a part of a stretch of coverage held, the stretch being named by its scope and lower end."""

    scope: Scope
    lo: int
    part: Interval
    items: int


class Proofs:
    """Coverage of one source; all of it within the transaction of whoever calls."""

    def __init__(self, conn: Sql, sql: Statements, source: str) -> None:
        self._conn = conn
        self._sql = sql
        self._source = source

    def covered(self, sweep: int) -> list[Covered]:
        """All coverage of a sweep, ascending."""
        rows = self._conn.execute(
            "SELECT scope, lo, hi, items, walked_at FROM coverage WHERE source = ? AND sweep = ? ORDER BY lo",
            [self._source, sweep],
        ).fetchall()
        return [Covered(*row) for row in rows]

    def any(self, sweep: int) -> bool:
        """Whether a sweep has proven anything yet."""
        found = self._conn.execute(
            "SELECT 1 FROM coverage WHERE source = ? AND sweep = ? LIMIT 1", [self._source, sweep]
        )
        return found.fetchone() is not None

    def overlapped(self, span: Interval, sweep: int) -> list[Counted]:
        """The coverage that shares keys with `span`, and how many items there are in the part they share."""
        rows = self._conn.execute(
            "SELECT scope, lo, hi FROM coverage WHERE source = ? AND sweep = ? AND lo <= ? AND hi >= ?",
            [self._source, sweep, span.hi, span.lo],
        ).fetchall()
        shared = [(scope, lo, clip(Interval(lo, hi), span)) for scope, lo, hi in rows]
        return [Counted(scope, lo, part, self._count(scope, part)) for scope, lo, part in shared]

    def count_keys(self, keys: Sequence[Key], sweep: int) -> Counter[tuple[Scope, int]]:
        """How many of these items each stretch of coverage holds, by its scope and lower end."""
        found: Counter[tuple[Scope, int]] = Counter()
        statement = self._sql.count_by_stretch(self._conn.join_coverage())
        for scope, lo, items in self._conn.rows_for_keys(statement, keys, self._source, sweep, then="GROUP BY 1, 2"):
            found[scope, lo] += items
        return found

    def add_counts(self, more: Counter[tuple[Scope, int]], sweep: int) -> None:
        """Add to the numbers of items that stretches of coverage hold."""
        for (scope, lo), items in more.items():
            if items:
                self._conn.execute(
                    "UPDATE coverage SET items = items + ? WHERE source = ? AND scope = ? AND sweep = ? AND lo = ?",
                    [items, self._source, self._conn.any(scope), sweep, lo],
                )

    def recount(self, counted: Sequence[Counted], sweep: int) -> None:
        """Bring the counts of coverage up to date with what has been written since they were taken."""
        for each in counted:
            self._conn.execute(
                "UPDATE coverage SET items = items + ? WHERE source = ? AND scope = ? AND sweep = ? AND lo = ?",
                [
                    self._count(each.scope, each.part) - each.items,
                    self._source,
                    self._conn.any(each.scope),
                    sweep,
                    each.lo,
                ],
            )

    def unlist(self, scope: Scope, proven: Interval, listed: set[Key], now: int) -> list[Key]:
        """Mark what is stored there and was not listed again; returns what that is."""
        stored = self._conn.array(self._sql.in_scope, {"lo": proven.lo, "hi": proven.hi, "scope": scope})
        missed = sorted(set(stored) - listed)
        self._conn.for_keys(self._sql.unlist, missed, now)
        return missed

    def unlist_since(self, scope: Scope, proven: Interval, began: int, now: int) -> list[Key]:
        """Mark what is stored there and was not listed since `began`, when the walk that proves it did; returns it."""
        where = {"lo": proven.lo, "hi": proven.hi, "scope": scope, "began": began, "source": self._source}
        missed = self._conn.array(self._sql.not_listed_since, where)
        self._conn.for_keys(self._sql.unlist, missed, now)
        return missed

    def cover(self, scope: Scope, proven: Interval, sweep: int, walked_at: int) -> None:
        """Write coverage, merged with what it touches; what lies within it was walked anew."""
        lo, hi, items = proven.lo, proven.hi, self._count(scope, proven)
        touched = self._conn.execute(
            "SELECT lo, hi, items, walked_at FROM coverage"
            " WHERE source = ? AND scope = ? AND sweep = ? AND lo - 1 <= ? AND hi + 1 >= ?",
            [self._source, self._conn.any(scope), sweep, hi, lo],
        ).fetchall()
        for each in touched:
            shared = clip(Interval(each[0], each[1]), proven)
            items += each[2] - (self._count(scope, shared) if shared.size else 0)
            lo, hi = min(lo, each[0]), max(hi, each[1])
            if each[0] < proven.lo or each[1] > proven.hi:
                walked_at = min(walked_at, each[3])
            self._remove(scope, each[0], sweep)
        self._write(Covered(scope, lo, hi, items, walked_at), sweep)

    def uncover(self, key: int) -> None:
        """Take back the proof that one key was listed."""
        rows = self._conn.execute(
            "SELECT scope, lo, hi, items, walked_at, sweep FROM coverage WHERE source = ? AND lo <= ? AND hi >= ?",
            [self._source, key, key],
        ).fetchall()
        for *covered, sweep in rows:
            whole = Covered(*covered)
            below, above = Interval(whole.lo, key - 1), Interval(key + 1, whole.hi)
            above_items = self._count(whole.scope, above)
            below_items = whole.items - above_items - self._count(whole.scope, Interval(key, key))
            self._remove(whole.scope, whole.lo, sweep)
            for part, items in ((below, below_items), (above, above_items)):
                if part.size:
                    self._write(Covered(whole.scope, part.lo, part.hi, items, whole.walked_at), sweep)

    def uncover_all(self) -> None:
        """Take back all that was proven."""
        self._conn.execute("DELETE FROM coverage WHERE source = ?", [self._source])

    def carry(self, scopes: Sequence[Scope], sweep: int) -> None:
        """End a sweep for `scopes`: what earlier ones proved of them is not needed, of others it holds on."""
        self._conn.executemany(
            "DELETE FROM coverage WHERE source = ? AND scope = ? AND sweep < ?",
            [(self._source, self._conn.any(scope), sweep) for scope in scopes],
        )
        # Of a scope that was begun in this sweep and not finished, the older proof is the greater one.
        self._conn.execute(
            "DELETE FROM coverage AS newer WHERE EXISTS (SELECT 1 FROM coverage AS older WHERE"
            " older.source = newer.source AND older.scope = newer.scope AND older.sweep < newer.sweep)"
        )
        self._conn.execute("UPDATE coverage SET sweep = ? WHERE source = ?", [sweep, self._source])

    def _count(self, scope: Scope, part: Interval) -> int:
        parameters = {"lo": part.lo, "hi": part.hi, "scope": scope}
        return int(self._conn.execute(self._sql.count_in_scope, parameters).fetchone()[0])

    def _remove(self, scope: Scope, lo: int, sweep: int) -> None:
        self._conn.execute(
            "DELETE FROM coverage WHERE source = ? AND scope = ? AND sweep = ? AND lo = ?",
            [self._source, self._conn.any(scope), sweep, lo],
        )

    def _write(self, covered: Covered, sweep: int) -> None:
        self._conn.execute(
            "INSERT INTO coverage (source, scope, sweep, lo, hi, items, walked_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                self._source,
                self._conn.any(covered.scope),
                sweep,
                covered.lo,
                covered.hi,
                covered.items,
                covered.walked_at,
            ],
        )
