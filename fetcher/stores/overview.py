"""What a mirror holds and how its runs went, read without disturbing one that is being written."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fetcher.model import Covered, Scope, Table
from fetcher.place import Place
from fetcher.stores.jobs import JobTotals, totals
from fetcher.stores.opening import reading
from fetcher.stores.schema import marks, quoted
from fetcher.stores.sql import Sql
from fetcher.stores.worklist import MIRROR_STAGES


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as its row tells it; `ended` is None while it goes on, times are Unix seconds.

    `stage` is `detail` for a run of a mirror, and `item` beside it where ids were submitted; of the stages of texts
    that go on together each has a row. `elsewhere` says that its process is another machine's.
    """

    id: int
    stage: str
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
    elsewhere: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether it does: it has not ended, its process lives and has told of itself within the last minute."""
        return self.ended is None and _alive(self)


@dataclass(frozen=True, slots=True)
class Overview:
    """Totals of a mirror, its coverage in the current sweep, and its last runs, newest first.

    `work` counts what is due or waits for its time, `parked` what failed for good; `waiting` and `failed` split them by
    the outcome of their last try. `walks` are scopes whose listing was begun and not ended, each with the time of its
    last page (Unix seconds). `jobs` is None where nothing was ever submitted over HTTP.
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
    jobs: JobTotals | None = None

    @property
    def running(self) -> RunRow | None:
        """The run that goes on now, if there is one."""
        newest = self.runs[0] if self.runs else None
        return newest if newest is not None and newest.goes_on else None


_RUN = 'pid, started_at, updated_at, ended_at, ended, message, pages, listed, stored, gone, failed, retries, requests, limited, "left", rate, paused_until, reason'  # noqa: E501


def overview(path: Place, tables: Sequence[Table], *, runs: int = 5) -> Overview:
    """Read it; never scans the items. Raises StoreError."""
    with reading(path, moment=True) as sql:
        source, base_url, sweep, ended, items, fetched, work, parked = sql.execute(
            "SELECT name, base_url, sweep, sweep_ended_at, items, fetched, work, parked FROM sources"
        ).fetchone()
        item = quoted(tables[0].name)
        (gone,) = sql.execute(f"SELECT count(*) FROM {item} WHERE gone_at IS NOT NULL").fetchone()
        (unlisted,) = sql.execute(f"SELECT count(*) FROM {item} WHERE unlisted_at IS NOT NULL").fetchone()
        by_outcome = sql.execute(
            "SELECT outcome, due_at IS NULL, count(*) FROM work WHERE outcome IS NOT NULL"
            f" AND stage IN {MIRROR_STAGES} GROUP BY 1, 2 ORDER BY 1"
        ).fetchall()
        coverage = sql.execute(
            "SELECT scope, lo, hi, items, walked_at FROM coverage WHERE sweep = ? ORDER BY scope, lo DESC", [sweep]
        ).fetchall()
        walks = sql.execute("SELECT scope, kept_at FROM walks ORDER BY 1").fetchall() if sql.has("walks") else []
        submitted = totals(sql)
        last, size = last_runs(sql, MIRROR_STAGES, runs), sql.bytes()
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
        runs=last,
        bytes=size,
        walks=tuple(walks),
        jobs=submitted,
    )


def last_runs(sql: Sql, stages: Sequence[str], most: int) -> tuple[RunRow, ...]:
    """The last runs of these stages, newest first."""
    # An older release knew of mirrors alone.
    stage = "stage" if sql.has("runs", "stage") else "'detail'"
    rows = sql.execute(
        f"SELECT id, {stage}, {_RUN} FROM runs WHERE {stage} IN ({marks(len(stages))}) ORDER BY id DESC LIMIT ?",
        [*stages, most],
    ).fetchall()
    hosts = sql.array(f"{sql.select('host')} FROM engines") if sql.has("engines") else []
    elsewhere = any(host != socket.gethostname() for host in hosts)
    return tuple(replace(RunRow(*row), elsewhere=elsewhere) for row in rows)


def _alive(run: RunRow) -> bool:
    if time.time() - run.updated_at > 60:
        return False
    if run.elsewhere:
        return True
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
