"""What a database holds and how its runs went, read without disturbing one that is being written."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fetcher.model import Covered, Scope, Table
from fetcher.stores.file import connect_readonly, explained


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as its row tells it; `ended` is None while it goes on, times are Unix seconds."""

    id: int
    pid: int
    started_at: int
    updated_at: int
    ended_at: int | None
    ended: str | None
    message: str | None
    pages: int
    listed: int
    stored: int
    gone: int
    failed: int
    retries: int
    requests: int
    limited: int
    left: int
    rate: float
    paused_until: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Totals of a mirror, its coverage in the current sweep, and its last runs, newest first.

    `work` counts what is due or waits for its time, `parked` what failed for good; `waiting` and `failed` split them by
    the outcome of their last try. `walks` are scopes whose listing was begun and not ended, each with the time of its
    last page (Unix seconds).
    """

    source: str
    base_url: str
    items: int
    fetched: int
    gone: int
    unlisted: int
    work: int
    parked: int
    waiting: dict[str, int]
    failed: dict[str, int]
    sweep: int
    sweep_open: bool
    coverage: tuple[Covered, ...]
    runs: tuple[RunRow, ...]
    bytes: int
    walks: tuple[tuple[Scope, int], ...] = ()

    @property
    def running(self) -> RunRow | None:
        """The run that goes on now, if there is one."""
        newest = self.runs[0] if self.runs else None
        return newest if newest is not None and newest.ended is None and _alive(newest) else None


_RUN = 'id, pid, started_at, updated_at, ended_at, ended, message, pages, listed, stored, gone, failed, retries, requests, limited, "left", rate, paused_until, reason'  # noqa: E501


def overview(path: Path, tables: Sequence[Table], *, runs: int = 5) -> Overview:
    """Read it; never scans the items. Raises StoreError."""
    conn = connect_readonly(path)
    try:
        with explained(path):
            conn.execute("BEGIN")
            source, base_url, sweep, ended, items, fetched, work, parked = conn.execute(
                "SELECT name, base_url, sweep, sweep_ended_at, items, fetched, work, parked FROM sources"
            ).fetchone()
            item = tables[0].name
            (gone,) = conn.execute(f'SELECT count(*) FROM "{item}" WHERE gone_at IS NOT NULL').fetchone()
            (unlisted,) = conn.execute(f'SELECT count(*) FROM "{item}" WHERE unlisted_at IS NOT NULL').fetchone()
            by_outcome = conn.execute(
                "SELECT outcome, due_at IS NULL, count(*) FROM work WHERE outcome IS NOT NULL GROUP BY 1, 2 ORDER BY 1"
            ).fetchall()
            coverage = conn.execute(
                "SELECT scope, lo, hi, items, walked_at FROM coverage WHERE sweep = ? ORDER BY scope, lo DESC", [sweep]
            ).fetchall()
            (pages,), (page_size,) = (conn.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
            has_walks = conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'walks'").fetchone()
            walks = conn.execute("SELECT scope, kept_at FROM walks ORDER BY 1").fetchall() if has_walks else []
            rows = conn.execute(f"SELECT {_RUN} FROM runs ORDER BY id DESC LIMIT ?", [runs]).fetchall()
    finally:
        conn.close()
    return Overview(
        source=source,
        base_url=base_url,
        items=items,
        fetched=fetched,
        gone=gone,
        unlisted=unlisted,
        work=work,
        parked=parked,
        waiting={outcome: n for outcome, is_parked, n in by_outcome if not is_parked},
        failed={outcome: n for outcome, is_parked, n in by_outcome if is_parked},
        sweep=sweep,
        sweep_open=ended is None,
        coverage=tuple(Covered(*row) for row in coverage),
        runs=tuple(RunRow(*row) for row in rows),
        bytes=pages * page_size,
        walks=tuple(walks),
    )


def _alive(run: RunRow) -> bool:
    if time.time() - run.updated_at > 60:
        return False
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
