"""The failures that a database keeps, with their evidence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from fetcher.model import Key
from fetcher.place import Place, place_of
from fetcher.stores.opening import reading
from fetcher.stores.schema import marks
from fetcher.stores.texts import place_of as where_of


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One key that failed: what it was asked for, how that ended, and when it is tried again.

    `stage` is detail (an item's own request), item (a listed item that cannot be used) or list (a list page, named by
    its lowest key); of texts read (a file), read-items (an item), embed (a text, named by its hash) or aggregate (a
    category). `due_at` is None when it failed for good; times are Unix seconds. `body` is what came instead of a good
    answer, at most 64 KiB of it. `where` is a place of a text that its key does not tell: a document, and a position.
    """

    stage: str
    key: Key
    outcome: str
    status: int | None
    message: str
    attempts: int
    failed_at: int
    due_at: float | None
    body: bytes | None
    where: str | None = None


def failures(
    db: str | Place,
    *,
    outcomes: Collection[str] = (),
    keys: Collection[Key] = (),
    parked: bool = False,
    limit: int | None = None,
) -> list[FailureRow]:
    """What failed, the latest first; all of it, or that of these outcomes and keys, or what failed for good.

    Raises StoreError.
    """
    where = ["source = (SELECT name FROM sources)"]
    if outcomes:
        where.append(f"failures.outcome IN ({marks(len(outcomes))})")
    if keys:
        where.append(f"failures.key IN ({marks(len(keys))})")
    if parked:
        where.append("due_at IS NULL")
    with reading(place_of(db)) as sql:
        rows = sql.execute(
            "SELECT stage, key, failures.outcome, status, message, failures.attempts, failed_at, due_at, body"
            f" FROM failures LEFT JOIN work USING (source, stage, key) WHERE {' AND '.join(where)}"
            " ORDER BY failed_at DESC, stage, key LIMIT ?",
            [*outcomes, *map(sql.any, keys), 2**62 if limit is None else limit],
        ).fetchall()
        return [replace(FailureRow(*row), where=where_of(sql, row[0], row[1])) for row in rows]
