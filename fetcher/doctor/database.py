"""Whether a database is ours, whole and up to date, and how its runs went."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fetcher.doctor.finding import Finding, bad, note, ok
from fetcher.errors import StoreError
from fetcher.stores.health import CHECK_SECONDS, Health
from fetcher.stores.overview import Overview, RunRow
from fetcher.words import counted, duration, shown, size, stretch, when

WHAT = "database"

MOST_WAL = 256_000_000
"""Bytes of a write-ahead log that say something keeps it from being taken over: commonly it has 16 MB."""

MOST_RANGES = 3


def missing(path: Path) -> Finding:
    """There is none yet."""
    return note(WHAT, f"there is no {shown(path)} yet", "`fetcher fetch` makes it; or name the one that you mean")


def unmade(path: Path) -> Finding:
    """A run was killed before it made the tables."""
    return note(WHAT, f"{shown(path)} is still empty", "run `fetcher fetch`")


def unusable(path: Path, error: StoreError) -> Finding:
    """It is not ours, or cannot be read; such an error commonly ends in what to do."""
    message, _, remedy = str(error).rpartition(": ")
    if not message or message == str(path):
        message, remedy = str(error), "name another file with DB or DB_PATH"
    return bad(WHAT, message, remedy)


def examine_database(path: Path, health: Health, position: Callable[[int], str]) -> Iterator[Finding]:
    """What is to be said of a database of ours; `position` says where something is in its source's own terms."""
    yield from _schema(path, health)
    yield from _file(path, health)
    if health.overview is not None:
        yield from _runs(health.overview)
        yield from _left(health, health.overview, position)


def examine_learned(text: str | None) -> Finding:
    """How fast the host may be asked, as earlier runs found out."""
    try:
        known = json.loads(text) if text else {}
    except ValueError:
        known = {}
    words = []
    if isinstance(known, dict):
        rate, gate = _number(known.get("rate")), _number(known.get("gate"))
        at = next((found for name in ("when", "at", "learned_at") if (found := _number(known.get(name)))), None)
        words += [f"{rate:,.3g} requests a second"] if rate else []
        words += [f"{gate:,.0f} at once"] if gate else []
        words += [f"as of {when(at)}"] if words and at and 0 < at < 2**33 else []
    if not words:
        return ok("learned", "nothing was learned yet of how fast the host may be asked")
    return ok("learned", f"the host takes {', '.join(words)}")


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e15 else None


def _schema(path: Path, health: Health) -> Iterator[Finding]:
    if health.ahead:
        yield bad(
            WHAT,
            f"{shown(path)} was made by a newer fetcher (it knows {', '.join(health.ahead)})",
            "update fetcher, or name another file",
        )
    if health.behind or health.lacking:
        what = ", ".join(health.behind or health.lacking[:5])
        yield note(
            WHAT,
            f"{shown(path)} was made by an older fetcher and lacks {what}",
            "`fetcher fetch` brings it up to date; until then not all of it can be examined",
        )
    elif health.unindexed:
        statements = "; ".join(" ".join(each.split()) for each in health.unindexed)
        yield note(
            WHAT,
            f"{shown(path)} lacks {'an index' if len(health.unindexed) == 1 else 'indexes'}: runs are slow",
            f"make anew with sqlite3, while no run goes on: {statements}",
        )
    if health.search:
        yield ok(WHAT, f"has its search: {', '.join(health.search)}")


def _file(path: Path, health: Health) -> Iterator[Finding]:
    if health.wrong:
        yield bad(
            WHAT,
            f"{shown(path)} is damaged: {health.wrong[0]}"
            + (f" (and {counted(len(health.wrong) - 1, 'thing')} more)" if len(health.wrong) > 1 else ""),
            "restore it from a backup, save what can be with sqlite3's `.recover`, or mirror anew",
        )
    elif not health.checked:
        yield note(
            WHAT,
            f"SQLite's check of the file was broken off after {duration(CHECK_SECONDS)}; nothing was wrong so far",
            "`fetcher verify` reads all of it, however long it takes",
        )
    elif health.overview is not None:
        yield ok(WHAT, f"{shown(path)} is ours, opens, and is whole ({size(health.overview.bytes)})")
    if health.wal_bytes > MOST_WAL:
        yield note(
            WHAT,
            f"its write-ahead log has {size(health.wal_bytes)}: something keeps it from being taken over",
            "end programs that keep a transaction open; the next run takes it over",
        )


def _runs(found: Overview) -> Iterator[Finding]:
    running = found.running
    if running is not None:
        yield ok(WHAT, f"a run goes on (pid {running.pid}), {counted(running.stored, 'item')} stored")
    last = next((run for run in found.runs if run != running), None)
    if last is None:
        if running is None:
            yield note(WHAT, "no run has begun yet", "run `fetcher fetch`")
    elif last.ended is None and _lives(last):
        yield note(
            WHAT,
            f"the run of {when(last.started_at)} has said nothing for {duration(time.time() - last.updated_at)},"
            f" and a process with its number lives (pid {last.pid})",
            "see whether it is that run (ps); if so, the disk may be slow, or another program keeps the file locked",
        )
    elif last.ended is None or last.ended == "died":
        yield note(
            WHAT,
            f"the last run, of {when(last.started_at)}, died (pid {last.pid}); what it had stored is stored",
            "`fetcher fetch` goes on; if it happens again, look into the system's log (memory, power)",
        )
    elif last.ended == "failed":
        why = f": {last.message}" if last.message else ""
        yield note(WHAT, f"the last run, of {when(last.started_at)}, failed{why}", "mend that, then `fetcher fetch`")
    else:
        yield ok(WHAT, f"the last run, of {when(last.started_at)}, ended: {last.ended}")


def _left(health: Health, found: Overview, position: Callable[[int], str]) -> Iterator[Finding]:
    """What is still to do; a run that goes on is about it."""
    if found.parked:
        named = ", ".join(f"{count:,} {outcome}" for outcome, count in found.failed.items())
        yield note(
            WHAT,
            f"{found.parked:,} failed for good" + (f" ({named})" if named else ""),
            "`fetcher failures` says why, `fetcher retry` tries again",
        )
    holes = [f"scope {each.scope}: {stretch(position, each.lo, each.hi)}" for each in health.uncovered]
    if holes:
        named = "; ".join(holes[:MOST_RANGES]) + (" …" if len(holes) > MOST_RANGES else "")
        message = f"{counted(len(holes), 'range')} not listed: {named}"
        yield ok(WHAT, message) if found.running else note(WHAT, message, "`fetcher fetch` lists them")
    if found.work:
        message = f"{counted(found.items, 'item')} listed, {found.work:,} left to fetch"
        yield ok(WHAT, message) if found.running else note(WHAT, message, "`fetcher fetch` goes on")
    elif not found.coverage:
        yield note(WHAT, "nothing was listed yet", "run `fetcher fetch`")
    else:
        yield ok(WHAT, f"{counted(found.items, 'item')} listed, nothing left to fetch of them")


def _lives(run: RunRow) -> bool:
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
