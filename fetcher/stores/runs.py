"""The rows of the runs, and what they have learned of the hosts they asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from fetcher.learned import Learned
from fetcher.metrics import QUANTILES, quantile
from fetcher.model import Committed, Plan, Progress, RunState
from fetcher.stores.bulk import decode
from fetcher.stores.schema import quoted
from fetcher.stores.sql import Session

MOST_HOSTS = 10
"""What was learned of so many hosts is kept."""


class Runs:
    """The row of the run that goes on, one for each stage; all but `begin` is called within a transaction."""

    def __init__(self, db: Session, source: str, clock: Callable[[], float], stage: str = "detail") -> None:
        self._db = db
        self._conn = db.sql
        self._source = source
        self._clock = clock
        self._stage = stage
        self._run: int | None = None
        self._learning: tuple[str, Callable[[], Learned]] | None = None
        self._learned: Learned | None = None

    def begin(self, plan: Plan) -> None:
        """Write down that a run begins; runs that died without a word are marked so."""
        now = int(self._clock())
        with self._db.transaction():
            self._tell_of_transform(plan)
            # Whoever holds the lock is alone; only its own other stages may go on beside this one.
            self._conn.execute(
                "UPDATE runs SET ended = 'died', ended_at = updated_at, paused_until = NULL"
                " WHERE ended IS NULL AND (pid != ? OR stage = ?)",
                [os.getpid(), self._stage],
            )
            ((self._run,),) = self._conn.execute(
                "INSERT INTO runs (source, stage, pid, plan, started_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)"
                " RETURNING id",
                [self._source, self._stage, os.getpid(), json.dumps(asdict(plan)), now, now],
            ).fetchall()

    def _tell_of_transform(self, plan: Plan) -> None:
        """Say so when the rows stored so far went through another function than those of this run will."""
        row = self._conn.execute(
            "SELECT plan FROM runs WHERE stage = ? ORDER BY id DESC LIMIT 1", [self._stage]
        ).fetchone()
        last = _transform_of(row[0]) if row is not None else plan.transform
        if last != plan.transform:
            before, now = (f"through {each}" if each else "as they came" for each in (last, plan.transform))
            self._db.warn(
                f"the last run stored rows {before}, this one stores them {now}; what is stored stays as it is"
                " (--full has all of it anew)"
            )

    def write(self, state: RunState, done: Committed | None = None) -> None:
        """Write down where the run stands, once `done` is committed."""
        state = after(state, done) if done else state
        progress = state.progress
        values = {
            **asdict(progress.counts),
            "totals": _totals(progress),
            "queued": progress.queued,
            "left": progress.left,
            "rate": progress.rate,
            "paused_until": int(self._clock() + progress.paused) if progress.paused else None,
            "reason": progress.reason or None,
            "updated_at": int(self._clock()),
        }
        if state.ended:
            values |= {"ended": state.ended, "message": state.message, "ended_at": int(self._clock())}
        self._conn.execute(
            f"UPDATE runs SET {', '.join(f'{quoted(name)} = ?' for name in values)} WHERE id = ?",
            [*values.values(), self._run],
        )
        self._write_learned(ended=state.ended is not None)

    def learned(self, host: str) -> Learned | None:
        """What was written down about a host, None when there is nothing, or nothing that makes sense."""
        try:
            found = self._all_learned().get(host)
            return None if found is None else Learned.from_json(found)
        except ValueError as error:
            self._db.warn(f"{self._db.path}: what was learned about {host} is damaged ({error}); learning it anew")
            return None

    def learn(self, host: str, ask: Callable[[], Learned]) -> None:
        """From now on, write down with the run's row what `ask` says is known of a host, when that has changed."""
        self._learning = host, ask

    def _all_learned(self) -> dict[str, Any]:
        """By host. Raises ValueError when it is no JSON object."""
        with self._db.explained():
            row = self._conn.execute("SELECT learned FROM sources WHERE name = ?", [self._source]).fetchone()
        found = decode(row[0]) if row and row[0] else {}
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found

    def _write_learned(self, *, ended: bool) -> None:
        if self._learning is None:
            return
        host, ask = self._learning
        known = ask()
        if not ended and not known.differs(self._learned):
            return
        try:
            hosts = self._all_learned()
        except ValueError:
            hosts = {}
        hosts.pop(host, None)
        # The last ones asked stay: an address with another port is another host.
        kept = dict(list(hosts.items())[1 - MOST_HOSTS :])
        self._conn.execute(
            "UPDATE sources SET learned = ? WHERE name = ?",
            [json.dumps({**kept, host: known.to_json()}), self._source],
        )
        self._learned = known


def _transform_of(plan: str) -> str | None:
    """What rows went through in a run of that plan."""
    try:
        return str(decode(plan.encode()).get("transform") or "") or None
    except (ValueError, AttributeError):
        return None


def after(state: RunState, done: Committed) -> RunState:
    """The state of the run once `done` is committed."""
    progress = state.progress
    return replace(
        state,
        progress=replace(
            progress,
            counts=progress.counts.plus_committed(done),
            queued=progress.queued + done.queued - done.ended,
            left=max(0, progress.left + done.queued - done.ended),
        ),
    )


def _totals(progress: Progress) -> str:
    """What the network did in a run, as the JSON text of its row."""
    traffic = progress.traffic
    latency = {f"p{share * 100:g}": quantile(traffic.latencies, share) for share in QUANTILES}
    return json.dumps(
        {
            "outcomes": traffic.outcomes,
            "latency": {name: round(value, 4) for name, value in latency.items() if value is not None},
            "pauses": traffic.pauses,
            "paused_seconds": round(traffic.paused_seconds, 1),
            "pace": round(traffic.pace, 2),
            "gate": traffic.gate,
        }
    )
