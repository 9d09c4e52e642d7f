"""Whether a database is ours, whole and up to date, and how its runs went."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fetcher.doctor.finding import Finding, bad, note, ok
from fetcher.errors import StoreError
from fetcher.place import Place, PostgresUrl
from fetcher.stores.health import CHECK_SECONDS, Health
from fetcher.stores.overview import Overview, RunRow
from fetcher.stores.texts import STAGES
from fetcher.stores.texts_overview import TextsOverview
from fetcher.words import counted, duration, shown, size, stretch, when

WHAT = "database"

MOST_WAL = 256_000_000
"""Bytes of a write-ahead log that say something keeps it from being taken over: commonly it has 16 MB."""

MOST_RANGES = 3


def missing(path: Place) -> Finding:
    """There is none yet."""
    return note(WHAT, f"there is no {shown(path)} yet", "`fetcher fetch` makes it; or name the one that you mean")


def unmade(path: Place) -> Finding:
    """A run was killed before it made the tables."""
    return note(WHAT, f"{shown(path)} is still empty", "run `fetcher fetch`")


def unusable(path: Place, error: StoreError) -> Finding:
    """It is not ours, or cannot be read; such an error commonly ends in what to do."""
    if isinstance(path, PostgresUrl):
        return bad(WHAT, str(error), "see whether the server runs and lets you in, or name another database")
    message, _, remedy = str(error).rpartition(": ")
    if not message or message == str(path):
        message, remedy = str(error), "name another file with DB or DB_PATH"
    return bad(WHAT, message, remedy)


def examine_database(path: Place, health: Health, position: Callable[[int], str]) -> Iterator[Finding]:
    """What is to be said of a database of ours; `position` says where something is in its source's own terms."""
    yield from _schema(path, health)
    yield from _file(path, health)
    if health.overview is not None:
        yield from _runs(health.overview.runs, "item", "`fetcher fetch`")
        yield from _left(health, health.overview, position)
    if health.texts is not None:
        for stage in sorted({run.stage for run in health.texts.runs}, key=STAGES.index):
            runs = [run for run in health.texts.runs if run.stage == stage]
            yield from _runs(runs, "thing", f"`fetcher {_COMMANDS[stage]}`", f" of the stage {stage}")
        yield from _left_of_texts(health.texts)


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


def _schema(path: Place, health: Health) -> Iterator[Finding]:
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


def _file(path: Place, health: Health) -> Iterator[Finding]:
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
    elif isinstance(path, PostgresUrl):
        if (found := health.overview or health.texts) is not None:
            yield ok(WHAT, f"{shown(path)} is ours and answers ({size(found.bytes)})")
    elif (found := health.overview or health.texts) is not None:
        yield ok(WHAT, f"{shown(path)} is ours, opens, and is whole ({size(found.bytes)})")
    if health.wal_bytes > MOST_WAL:
        yield note(
            WHAT,
            f"its write-ahead log has {size(health.wal_bytes)}: something keeps it from being taken over",
            "end programs that keep a transaction open; the next run takes it over",
        )


def _runs(runs: Sequence[RunRow], thing: str, command: str, what: str = "") -> Iterator[Finding]:
    """What is to be said of the runs, newest first, that `command` begins."""
    running = runs[0] if runs and runs[0].goes_on else None
    if running is not None:
        yield ok(WHAT, f"a run{what} goes on (pid {running.pid}), {counted(running.stored, thing)} stored")
    last = next((run for run in runs if run != running), None)
    if last is None:
        if running is None:
            yield note(WHAT, "no run has begun yet", f"run {command}")
    elif last.ended is None and _lives(last):
        yield note(
            WHAT,
            f"the run{what} of {when(last.started_at)} has said nothing for"
            f" {duration(time.time() - last.updated_at)}, and a process with its number lives (pid {last.pid})",
            "see whether it is that run (ps); if so, the disk may be slow, or another program keeps the file locked",
        )
    elif last.ended is None or last.ended == "died":
        yield note(
            WHAT,
            f"the last run{what}, of {when(last.started_at)}, died (pid {last.pid}); what it had stored is stored",
            f"{command} goes on; if it happens again, look into the system's log (memory, power)",
        )
    elif last.ended == "failed":
        why = f": {last.message}" if last.message else ""
        yield note(WHAT, f"the last run{what}, of {when(last.started_at)}, failed{why}", f"mend that, then {command}")
    else:
        yield ok(WHAT, f"the last run{what}, of {when(last.started_at)}, ended: {last.ended}")


def _left_of_texts(found: TextsOverview) -> Iterator[Finding]:
    """What is still to do with texts; a run that goes on is about it."""
    for each in found.stages:
        if each.parked:
            named = ", ".join(f"{count:,} {outcome}" for outcome, count in each.failed.items())
            yield note(
                WHAT,
                f"stage {each.name}: {each.parked:,} failed for good ({named})",
                "`fetcher failures` says why, `fetcher retry` tries again",
            )
        if each.work:
            message = f"stage {each.name}: {each.work:,} left"
            remedy = f"`fetcher {_COMMANDS[each.name]}` goes on"
            yield ok(WHAT, message) if found.running else note(WHAT, message, remedy)
    if not found.documents and not found.chunks:
        yield note(WHAT, "no document was listed yet", "run `fetcher ingest`, or `fetcher embed --from items`")
    elif not any(each.work for each in found.stages):
        model = f" of {found.model}" if found.model else ""
        yield ok(
            WHAT,
            f"{counted(found.documents, 'document')}, {counted(found.chunks, 'chunk')},"
            f" {counted(found.vectors, 'vector')}{model}, nothing left to do",
        )


_COMMANDS = {
    "read": "ingest",
    "read-items": "embed --from items",
    "embed": "embed",
    "aggregate": "embed --aggregate",
}


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
    if run.elsewhere:
        return False  # Nobody here can tell.
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
