"""The tables `work` and `failures`: what is still to do, and the last evidence of what failed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fetcher.model import Failure, Interval, Key, Order, Outcome, Work
from fetcher.stores.schema import WORK, marks
from fetcher.stores.sql import Sql, Upsert

ITEM = "item"
"""The stage in which an item is asked for by its key alone; listed items that cannot be used are parked there."""

MIRROR_STAGES = ("detail", "item", "list")
"""The stages of a mirror; what is of another in `work`, `failures` and `runs` is none of its business."""

_EVIDENCE = Upsert(
    "failures",
    ("source", "stage", "key", "outcome", "message", "status", "body", "attempts", "failed_at"),
    ("source", "stage", "key"),
)
_DUE_AGAIN = "UPDATE work SET due_at = 0, attempts = 0, outcome = NULL, error = NULL"


class Worklist:
    """Work of one source; what writes does so within the transaction of whoever calls.

    `among` is a condition (SQL) on the keys that are claimed: what does not meet it stays due.
    """

    def __init__(self, conn: Sql, source: str, among: str = "true") -> None:
        self._conn = conn
        self._source = source
        self._among = among

    def claim(
        self, stage: str, most: int, order: Order, bounds: Interval | None, skip: Collection[Key], now: float
    ) -> tuple[list[Work], float | None]:
        """Up to `most` due pieces of work that are not in `skip`, highest priority first, then in the run's order.

        When there are fewer, also when the next one is due (Unix seconds), None when nothing waits.
        """
        between = " AND key BETWEEN ? AND ?" if bounds else ""
        within = f"source = ? AND stage = ?{between} AND due_at IS NOT NULL AND {self._among}"
        where = [self._source, stage, *(map(self._conn.any, (bounds.lo, bounds.hi)) if bounds else ())]
        found: list[Work] = []
        below = 2**31
        while len(found) < most:
            (priority,) = self._conn.execute(
                "SELECT max(priority) FROM work WHERE source = ? AND stage = ? AND due_at IS NOT NULL AND priority < ?",
                [self._source, stage, below],
            ).fetchone()
            if priority is None:
                break
            below = priority
            rows = self._conn.array(
                # Else the few of a high priority are looked for among all that is due, and all that failed for good.
                f"{self._conn.select('key', 'attempts')} FROM (SELECT key, attempts FROM work"
                f" {self._conn.by_index('work_due')}"
                f" WHERE {within} AND due_at <= ? AND priority = ?"
                f" ORDER BY key {'DESC' if order == 'newest' else 'ASC'} LIMIT ?) AS due",
                [*where, now, priority, most - len(found) + len(skip)],
            )
            found += [Work(stage, key, priority, attempts) for key, attempts in rows if key not in skip]
        if len(found) >= most:
            return found[:most], None
        (due,) = self._conn.execute(
            f"SELECT min(due_at) FROM work WHERE {within} AND due_at > ?", [*where, now]
        ).fetchone()
        return found, due

    def any(self, stage: str) -> bool:
        """Whether there is any work of a stage, or evidence of what failed."""
        found = self._conn.execute(
            "SELECT 1 FROM work WHERE source = :source AND stage = :stage"
            " UNION ALL SELECT 1 FROM failures WHERE source = :source AND stage = :stage LIMIT 1",
            {"source": self._source, "stage": stage},
        )
        return found.fetchone() is not None

    def is_due(self, stage: str) -> bool:
        """Whether any work of a stage is due, now or later."""
        found = self._conn.execute(
            "SELECT 1 FROM work WHERE source = ? AND stage = ? AND due_at IS NOT NULL LIMIT 1", [self._source, stage]
        )
        return found.fetchone() is not None

    def parked(self, stage: str, within: Interval | None = None) -> list[Key]:
        """What of a stage failed for good, and lies within these keys if there are any."""
        return self._conn.array(
            f"{self._conn.select('key')} FROM work WHERE source = ? AND stage = ?"
            f"{' AND key BETWEEN ? AND ?' if within is not None else ''} AND due_at IS NULL",
            [self._source, stage, *(map(self._conn.any, (within.lo, within.hi)) if within is not None else ())],
        )

    def unpark(
        self, outcomes: Collection[Outcome], keys: Collection[Key], stages: Sequence[str] = MIRROR_STAGES
    ) -> tuple[list[tuple[str, Key]], int]:
        """Make due again what failed for good, all or of these outcomes and keys; what it was, and how much is due.

        Of what was no work by itself, a list page or a listed item, nothing can be made due.
        """
        parked = self._conn.execute(
            f"SELECT stage, key FROM work WHERE source = ? AND stage IN ({marks(len(stages))}) AND due_at IS NULL"
            f"{f' AND outcome IN ({marks(len(outcomes))})' if outcomes else ''}",
            [self._source, *stages, *outcomes],
        ).fetchall()
        chosen = [(stage, key) for stage, key in parked if not keys or key in keys]
        due = [(self._source, stage, self._conn.any(key)) for stage, key in chosen if stage not in ("item", "list")]
        self._conn.executemany(f"{_DUE_AGAIN} WHERE source = ? AND stage = ? AND key = ?", due)
        return chosen, len(due)

    def unpark_older(self, stage: str, keys: set[Key], before: int) -> int:
        """Make due again what of these failed for good before some time; returns how much."""
        if not (keys and before):
            return 0
        span = map(self._conn.any, (min(keys), max(keys)))
        failed = self._conn.array(
            f"{self._conn.select('work.key')} FROM work JOIN failures USING (source, stage, key)"
            " WHERE source = ? AND stage = ? AND work.key BETWEEN ? AND ? AND due_at IS NULL AND failed_at < ?",
            [self._source, stage, *span, before],
        )
        statement = f"{_DUE_AGAIN} WHERE source = ? AND stage = ? AND key IN "
        return self._for_keys(statement, sorted(keys.intersection(failed)), stage)

    def make_due(self, stage: str, keys: Sequence[Key]) -> int:
        """Make due again what of these failed for good; returns how much."""
        statement = f"{_DUE_AGAIN} WHERE source = ? AND stage = ? AND due_at IS NULL AND key IN "
        return self._for_keys(statement, keys, stage)

    def ask(self, stage: str, keys: Sequence[Key], priority: int) -> tuple[int, int]:
        """Make these due, whatever became of them before; what is due already keeps the higher priority.

        Returns how much work was added, and how much that had failed for good is due again.
        """
        again = self.make_due(stage, keys)
        added = self._conn.insert(WORK, [(self._source, stage, key, priority, 0) for key in keys])
        raised = "UPDATE work SET priority = ? WHERE source = ? AND stage = ? AND priority < ? AND key IN "
        self._conn.for_keys(raised, self._any(keys), priority, self._source, stage, priority)
        return added, again

    def pass_on(self, stage: str, keys: Sequence[Key], after: str) -> tuple[int, int]:
        """Make these keys due in stage `after`, with the priorities they have in `stage`; returns what `ask` does."""
        added = again = 0
        prioritised: dict[int, list[Key]] = {}
        statement = "SELECT key, priority FROM work WHERE source = ? AND stage = ? AND key IN "
        for key, priority in self._conn.rows_for_keys(statement, self._any(keys), self._source, stage):
            prioritised.setdefault(priority, []).append(key)
        for priority, some in sorted(prioritised.items()):
            more = self.ask(after, some, priority)
            added, again = added + more[0], again + more[1]
        return added, again

    def forget(self, stage: str, keys: Sequence[Key]) -> int:
        """Take finished work out, and its failures; returns how much work there was."""
        where = "WHERE source = ? AND stage = ? AND key IN "
        removed = self._for_keys(f"DELETE FROM work {where}", keys, stage)
        if self._conn.execute("SELECT 1 FROM failures LIMIT 1").fetchone():
            self._for_keys(f"DELETE FROM failures {where}", keys, stage)
        return removed

    def _for_keys(self, statement: str, keys: Sequence[Key], stage: str) -> int:
        return self._conn.for_keys(statement, self._any(keys), self._source, stage)

    def _any(self, keys: Sequence[Key]) -> list[Any]:
        return [self._conn.any(key) for key in keys]

    def put_off(self, failure: Failure, now: int) -> int:
        """Keep the evidence and put off or park the work; returns 1 when there was such work, not parked."""
        self._keep_evidence(failure, now)
        return self._conn.execute(
            "UPDATE work SET attempts = ?, due_at = ?, outcome = ?, error = ?"
            " WHERE source = ? AND stage = ? AND key = ? AND due_at IS NOT NULL",
            [
                failure.attempts,
                failure.due_at,
                failure.outcome,
                failure.message,
                self._source,
                failure.stage,
                self._conn.any(failure.key),
            ],
        ).rowcount

    def park(self, failure: Failure, now: int) -> int:
        """Park what failed for good without having been work: a list page, a listed item; returns 1 when it is new."""
        self._keep_evidence(failure, now)
        return self._conn.execute(
            "INSERT INTO work (source, stage, key, attempts, outcome, error) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            [
                self._source,
                failure.stage,
                self._conn.any(failure.key),
                failure.attempts,
                failure.outcome,
                failure.message,
            ],
        ).rowcount

    def _keep_evidence(self, failure: Failure, now: int) -> None:
        self._conn.insert(
            _EVIDENCE,
            [
                (
                    self._source,
                    failure.stage,
                    failure.key,
                    failure.outcome,
                    failure.message,
                    failure.status,
                    failure.body,
                    failure.attempts,
                    now,
                )
            ],
        )
