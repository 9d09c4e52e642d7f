#!/usr/bin/env python3
"""Kill `fetcher fetch` a thousand times, at random moments, and see that not a row is lost, half there or false.

A simulated API grows meanwhile; each run has other options. After each kill all that the run had reported is looked for
in the database; now and then everything in it is compared with what the API has. At the end one run is left alone, and
must come to the same as a mirror that nobody disturbed. 1,000 kills take about 20 minutes, 50 a good minute.

The exit code is 0 when every check held, 1 when one did not. Needs Linux: it waits on process descriptors.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import multiprocessing
import os
import random
import select
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from measure import HERE, MB, ROOT, Wrong, environment, leave, load, machine, shown

sys.path.insert(0, str(ROOT))

import fetcher.cli.fetch as command
from fetcher.cli import main as fetcher_main
from fetcher.model import Committed
from fetcher.simulator import Simulator, World
from fetcher.simulator.world import LAST_CREATED
from fetcher.stores.sqlite import SqliteStore

LATENCY, JITTER = 0.006, 0.004
"""Seconds that an answer takes."""

GROWTH = 40
"""Items that arrive between two runs, at most."""

NEWBORN, OWN_INTERPRETER = 0.07, 0.08
"""Shares of the kills: of a run that makes its database, and of `python -m fetcher` from its very start."""

PATIENCE = 300.0
"""Seconds for a run that is left alone."""


# --- the simulated API, in a process of its own -----------------------------------------------------


class Api:
    """A simulated API that grows on demand, and a copy of its world to compare with."""

    def __init__(self, seed: int, items: int) -> None:
        self.world = World(seed, items)
        context = multiprocessing.get_context("fork")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._line, seed, items), daemon=True)
        self._process.start()
        theirs.close()
        self.url = str(self._answer())

    def arrive(self, count: int) -> None:
        """Let so many items arrive, old enough to be proven at once."""
        self.world.arrive(count, created=LAST_CREATED)
        self._line.send(count)
        self._answer()

    def details(self) -> int:
        """Requests for details so far."""
        self._line.send(0)
        return int(self._answer())

    def let_go(self) -> None:
        """In a forked child: leave the line to the parent."""
        self._line.close()

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        if not self._line.poll(60):
            raise Wrong("the simulator does not answer")
        return self._line.recv()


def _serve(line: Connection, theirs: Connection, seed: int, items: int) -> None:
    theirs.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    world = World(seed, items)
    with Simulator(world, latency=LATENCY, jitter=JITTER) as simulator, contextlib.suppress(EOFError):
        line.send(simulator.url)
        while True:
            if count := line.recv():
                world.arrive(count, created=LAST_CREATED)
            line.send(simulator.requests["info"])


# --- one run ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Life:
    """How one run is asked for; it is killed after `seconds`, or left alone."""

    db: Path
    batch: int = 200
    workers: int = 10
    order: str = "newest"
    limit: int | None = None
    start_from: int | None = None
    full: bool = False
    own_interpreter: bool = False
    seconds: float | None = None

    @property
    def window(self) -> int:
        """Details that a kill may cost."""
        return self.workers + 2 * self.batch

    def words(self, url: str) -> list[str]:
        """The command line."""
        words = ["fetch", str(self.db), "--base-url", url, "--delay", "0", "--max-rate", "0", "--log-format", "json"]
        words += ["--batch-size", str(self.batch), "--workers", str(self.workers), "--order", self.order]
        words += ["--limit", str(self.limit)] if self.limit else []
        words += ["--start-from", str(self.start_from)] if self.start_from else []
        return [*words, "--full"] if self.full else words


@dataclass(slots=True)
class Death:
    """How a run ended: by itself with an exit code, or killed (None), where it was then, and what it had reported."""

    code: int | None
    phase: str
    stored: list[int]
    errors: str


def live(life: Life, api: Api, folder: Path) -> Death:
    """One run in a child process, to its end or until it is killed."""
    out, errors = folder / "child.out", folder / "child.err"
    for path in (out, errors):
        # Here, for the child may be dead before it does anything.
        path.write_bytes(b"")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_the_child(life, api, folder, out, errors)
    pidfd = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([pidfd], [], [], PATIENCE if life.seconds is None else life.seconds)
    finally:
        # A child that has ended by itself is not reaped yet: its number is nobody else's.
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
    if not ended and life.seconds is None:
        raise Wrong(f"a run that was left alone did not end within {PATIENCE:.0f} s")
    events = list(_events(out))
    stored = [key for each in events if each["event"] == "stored" for key in each["keys"]]
    code = os.waitstatus_to_exitcode(status) if ended else None
    return Death(code, _phase(life, events), stored, errors.read_text(errors="replace").strip()[-2000:])


def _be_the_child(life: Life, api: Api, folder: Path, out: Path, errors: Path) -> NoReturn:
    """In the forked child: be `fetcher` with all its modules loaded, or start it from nothing."""
    code = 70
    try:
        api.let_go()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, path in ((1, out), (2, errors)):
            opened = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.dup2(opened, number)
            os.close(opened)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment(folder))
        words = life.words(api.url)
        if life.own_interpreter:
            os.execv(sys.executable, [sys.executable, "-m", "fetcher", *words])
        random.seed()
        _tell_of_commits()
        fetcher_main(words)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    finally:
        if code == 70:
            traceback.print_exc()
        os._exit(code)


def _tell_of_commits() -> None:
    """Let the run say when it opens the database, when a commit begins, and what it reports as stored."""

    def say(event: str, **facts: Any) -> None:
        os.write(1, (json.dumps({"event": event, **facts}) + "\n").encode())

    opened, commit = SqliteStore.open.__func__, SqliteStore.commit  # type: ignore[attr-defined]

    def open_aloud(cls: type[SqliteStore], *args: Any, **options: Any) -> SqliteStore:
        say("opening")
        store: SqliteStore = opened(cls, *args, **options)
        say("opened")
        return store

    def commit_aloud(store: SqliteStore, *args: Any) -> Committed:
        say("commit")
        return commit(store, *args)

    def reported(done: Committed) -> None:
        say("stored", keys=done.stored)

    SqliteStore.open = classmethod(open_aloud)  # type: ignore[assignment,method-assign]
    SqliteStore.commit = commit_aloud  # type: ignore[method-assign]
    command.run = partial(command.run, on_batch=reported)


def _events(out: Path) -> Iterator[dict[str, Any]]:
    """What a child said; its last line may be cut."""
    for line in out.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


PHASES = {
    "none": "starting",
    "opening": "opening the database",
    "opened": "waiting for the first answer",
    "start": "before its first commit",
    "commit": "within a commit",
    "stored": "between commits",
    "end": "ending",
}


def _phase(life: Life, events: Sequence[dict[str, Any]]) -> str:
    if life.own_interpreter:
        return "with an interpreter of its own"
    known = [each["event"] for each in events if each["event"] in PHASES]
    return PHASES[known[-1] if known else "none"]


# --- what must hold ---------------------------------------------------------------------------------


class Lost(Exception):
    """A promise that was broken."""


def must(holds: object, what: str) -> None:
    """Raise Lost unless it holds."""
    if not holds:
        raise Lost(what)


@contextlib.contextmanager
def reading(db: Path) -> Iterator[sqlite3.Connection]:
    """A database as a reader finds it, which must not be open when a child is forked."""
    conn = sqlite3.connect(f"{db.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        yield conn
    finally:
        conn.close()


def is_made(conn: sqlite3.Connection) -> bool:
    """Whether a killed run had come so far as to make all tables."""
    try:
        return conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'comments'").fetchone() is not None
    except sqlite3.OperationalError as error:
        # Killed while the file became a write-ahead one: what it had begun then is undone by the next who may write.
        must("readonly" in str(error), str(error))
        return False


def check_reported(conn: sqlite3.Connection, keys: Sequence[int], world: World) -> None:
    """What a run had reported as stored is stored, with all its tags and comments."""
    for key in keys:
        row = conn.execute("SELECT fetched_at FROM items WHERE id = ?", [key]).fetchone()
        must(row and row[0] is not None, f"item {key} was reported as stored and is not")
        check_children(conn, key, world)


def check_children(conn: sqlite3.Connection, key: int, world: World) -> None:
    """An item that counts as fetched has exactly the tags and comments that the API shows."""
    details = world.info(key)
    for table in ("tags", "comments"):
        found = [row[0] for row in conn.execute(f"SELECT id FROM {table} WHERE item_id = ? ORDER BY id", [key])]
        must(
            found == sorted(each["id"] for each in details[table]), f"{table} of item {key} are not what the API shows"
        )


def check_all(conn: sqlite3.Connection, world: World, chance: random.Random) -> None:
    """The file is sound; nothing is half there: what is covered was listed, what was listed is fetched or queued."""
    (sound,) = conn.execute("PRAGMA quick_check").fetchone()
    must(sound == "ok", f"quick_check: {sound}")
    listed = {row[0] for row in conn.execute("SELECT id FROM items")}
    fetched = {row[0] for row in conn.execute("SELECT id FROM items WHERE fetched_at IS NOT NULL")}
    queued = {row[0] for row in conn.execute("SELECT key FROM work")}
    ids = set(world.ids())
    must(listed <= ids, "items that the API never had")
    must(queued <= listed, "work for items that are not there")
    must(listed - fetched <= queued, "items without details for which nothing is queued")
    for lo, hi, items in conn.execute(
        "SELECT lo, hi, coverage.items FROM coverage JOIN sources ON source = name AND coverage.sweep = sources.sweep"
    ).fetchall():
        inside = {key for key in ids if lo <= key <= hi}
        must(inside <= listed, f"{lo} to {hi} is covered, {len(inside - listed)} items in it were never listed")
        must(items == len(inside), f"{lo} to {hi} is said to hold {items} items, not {len(inside)}")
    counted = conn.execute("SELECT items, fetched, work, parked FROM sources").fetchall()
    must(counted in ([], [(len(listed), len(fetched), len(queued), 0)]), f"wrong totals {counted}")
    unfetched = listed - fetched
    for table in ("tags", "comments"):
        orphans = unfetched & {row[0] for row in conn.execute(f"SELECT DISTINCT item_id FROM {table}")}
        must(not orphans, f"{len(orphans)} items have {table} and do not count as fetched")
    for key in chance.sample(sorted(fetched), min(100, len(fetched))):
        check_children(conn, key, world)


def check_same(killed: Path, undisturbed: Path) -> int:
    """Two mirrors hold the same, but for times and the tale of their runs; returns how many rows that is."""
    rows = 0
    with reading(killed) as one, reading(undisturbed) as other:
        for conn in (one, other):
            (sound,) = conn.execute("PRAGMA integrity_check").fetchone()
            must(sound == "ok", f"integrity_check: {sound}")
        tables = _tables(one)
        must(tables == _tables(other), "not the same tables")
        for table in [*tables, "search"]:
            rows_of = _words if table == "search" else _rows
            for mine, theirs in zip_longest(rows_of(one, table), rows_of(other, table)):
                must(mine == theirs, f"{table}: {mine!r:.300} is {theirs!r:.300} in the undisturbed mirror")
                rows += 1
        marked = one.execute("SELECT count(*) FROM items WHERE unlisted_at NOTNULL OR gone_at NOTNULL").fetchone()[0]
        must(not marked, f"{marked} items are marked as gone that are there")
    return rows


def _tables(conn: sqlite3.Connection) -> list[str]:
    names = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return [
        name
        for name in names
        # How the search lies in its tables depends on the batches; what is in it is compared besides.
        if not name.startswith(("sqlite_", "_", "search")) and name not in ("runs", "sources", "failures")
    ]


def _rows(conn: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    columns = [row[0] for row in conn.execute(f"SELECT name FROM pragma_table_info('{table}') ORDER BY cid")]
    names = ", ".join(f'"{name}"' for name in columns if not name.endswith("_at") and name != "sweep")
    order = ", ".join(str(number + 1) for number in range(names.count(",") + 1))
    return conn.execute(f'SELECT {names} FROM "{table}" ORDER BY {order}')


def _words(conn: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    """Each word that a full-text index holds, with its places."""
    conn.execute(f"CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, '{table}', 'instance')")
    return conn.execute("SELECT term, doc, col, offset FROM temp.words ORDER BY 1, 2, 3, 4")


# --- the soak ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What happened."""

    kills: int = 0
    ended: int = 0
    newborn: int = 0
    checks: int = 0
    windows: int = 0
    reported: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)


def soak(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill, check, and so on; returns the facts. Raises Lost when something is."""
    chance = random.Random(args.seed)
    deadline = time.monotonic() + args.timeout
    began = time.monotonic()
    tally, db = Tally(), folder / "killed.db"
    gc.freeze()
    api = Api(args.seed, args.items)
    try:
        idle = False
        while tally.kills < args.kills:
            if time.monotonic() > deadline:
                raise Wrong(f"only {tally.kills} kills within {args.timeout:.0f} s")
            if chance.random() < NEWBORN:
                kill_newborn(chance, api, folder, tally)
                continue
            if db.exists():
                api.arrive(chance.randint(0, 10 * GROWTH if idle else GROWTH))
            life = some_life(chance, db, api.world, idle=idle)
            with told(life):
                death = live(life, api, folder)
                idle = account(life, death, tally)
                if db.exists():
                    check_after(db, death, api.world, chance, tally, args.check_every)
            if tally.kills % 50 == 0 and death.code is None:
                say(f"{tally.kills} kills, {time.monotonic() - began:.0f} s, {len(api.world.ids()):,} items")
        return {**finish(db, api, folder, tally), "seconds": round(time.monotonic() - began, 1)}
    finally:
        api.close()


def some_life(chance: random.Random, db: Path, world: World, *, idle: bool) -> Life:
    """A run with options and an end drawn by chance; with `idle` the last one left nothing to do."""
    own = chance.random() < OWN_INTERPRETER
    # An interpreter of its own needs most of a second before it does anything.
    early, late = (0.8, 1.8) if own else (0.1, 1.2)
    return Life(
        db,
        batch=scattered(chance, 200),
        workers=scattered(chance, 50),
        order=chance.choice(["newest", "oldest"]),
        limit=chance.randint(1, 2000) if chance.random() < 0.1 else None,
        start_from=chance.choice(world.ids()) if chance.random() < 0.1 else None,
        full=chance.random() < (0.5 if idle else 0.1),
        own_interpreter=own,
        seconds=chance.uniform(0, early) if chance.random() < 0.2 else chance.uniform(early / 2, late),
    )


def scattered(chance: random.Random, most: int) -> int:
    """From 1 to `most`, small numbers as often as large ones."""
    return round(math.exp(chance.uniform(0, math.log(most))))


def account(life: Life, death: Death, tally: Tally) -> bool:
    """Count how a run ended; returns whether it left nothing to do. Raises Lost when it ended in an error."""
    tally.reported += len(death.stored)
    if death.code is not None:
        must(death.code == 0, f"a run ended by itself with {death.code}: {death.errors}")
        tally.ended += 1
        return not life.limit
    tally.kills += 1
    tally.windows += life.window
    tally.phases[death.phase] += 1
    assert life.seconds is not None
    tally.moments[f"{math.floor(life.seconds * 5) / 5:.1f} s"] += 1
    return False


def check_after(db: Path, death: Death, world: World, chance: random.Random, tally: Tally, every: int) -> None:
    """What must hold after any run."""
    with reading(db) as conn:
        must(is_made(conn) or not death.stored, "what was reported is not even in a table")
        if not is_made(conn):
            return
        check_reported(conn, death.stored, world)
        if (tally.kills + tally.ended) % every == 0:
            check_all(conn, world, chance)
            tally.checks += 1


def kill_newborn(chance: random.Random, api: Api, folder: Path, tally: Tally) -> None:
    """Kill a run that makes its database; the next one must go on all the same."""
    with tempfile.TemporaryDirectory(dir=folder) as nursery:
        db = Path(nursery) / "newborn.db"
        for seconds in (chance.uniform(0, 0.15), None):
            life = Life(db, batch=5, workers=2, limit=chance.randint(1, 20), seconds=seconds)
            with told(life):
                before = api.details()
                death = live(life, api, folder)
                must(death.code in (None, 0), f"a run ended by itself with {death.code}: {death.errors}")
                if db.exists():
                    with reading(db) as conn:
                        if is_made(conn):
                            check_reported(conn, death.stored, api.world)
                            check_all(conn, api.world, chance)
            if seconds is not None and death.code is None:
                tally.kills += 1
                tally.newborn += 1
                tally.phases[f"newborn, {death.phase}"] += 1
            # These details belong to another database: they are no repetition.
            tally.windows += api.details() - before


def finish(db: Path, api: Api, folder: Path, tally: Tally) -> dict[str, Any]:
    """Leave a run alone, mirror the same undisturbed, and compare."""
    say("one run undisturbed to its end, and an undisturbed mirror to compare with")
    last = Life(db)
    with told(last):
        must(live(last, api, folder).code == 0, "the last run does not complete the mirror")
        with reading(db) as conn:
            check_all(conn, api.world, random.Random(0))
            (stored, runs) = conn.execute("SELECT sum(stored), count(*) FROM runs").fetchone()
            (items, fetched) = conn.execute("SELECT count(*), count(fetched_at) FROM items").fetchone()
            must(items == fetched == len(api.world.ids()), f"{fetched} of {len(api.world.ids())} items are there")
    requests = api.details()
    repeated = requests - stored
    must(repeated <= tally.windows, f"{repeated} details were fetched in vain, {tally.windows} are allowed")
    undisturbed = folder / "undisturbed.db"
    must(live(Life(undisturbed), api, folder).code == 0, "the undisturbed mirror does not complete")
    rows = check_same(db, undisturbed)
    return {
        "kills": tally.kills,
        "kills_of_a_new_database": tally.newborn,
        "killed": dict(tally.phases.most_common()),
        "killed_after": dict(sorted(tally.moments.items())),
        "ended_by_themselves": tally.ended,
        "runs_in_the_database": runs,
        "items": items,
        "details_reported_and_found": tally.reported,
        "details_stored": stored,
        "details_in_vain": repeated,
        "details_in_vain_allowed": tally.windows,
        "whole_checks": tally.checks,
        "rows_compared": rows,
        "megabytes": round(db.stat().st_size / MB, 1),
    }


@contextlib.contextmanager
def told(life: Life) -> Iterator[None]:
    """A broken promise in here says what the run was."""
    try:
        yield
    except Lost as error:
        words = " ".join(life.words("URL")).replace(str(life.db), life.db.name)
        raise Lost(f"{error}; the run was `{words}`, killed after {life.seconds} s") from error


# --- telling ----------------------------------------------------------------------------------------


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def report(facts: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = ["# Crash soak", "", f"**{facts['verdict']}**", ""]
    lines += [f"- {name}: {value}" for name, value in facts["machine"].items() if name != "peers"]
    lines += [f"- {name.replace('_', ' ')}: {facts[name]}" for name in ("date", "command", "load_before", "load_after")]
    figures = {name: value for name, value in facts["result"].items() if not isinstance(value, dict)}
    lines += ["", "| figure | value |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {value:,} |" for name, value in figures.items()]
    for name, title in (("killed", "where the run was when it was killed"), ("killed_after", "killed after, from")):
        shares = facts["result"].get(name, {})
        lines += ["", f"| {title} | kills |", "|---|---|", *(f"| {what} | {count} |" for what, count in shares.items())]
    return "\n".join(lines) + "\n"


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, metavar="N")
    parser.add_argument("--items", type=int, default=2000, metavar="N", help="items of the API at first (2000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other items, options and moments")
    parser.add_argument("--check-every", type=int, default=10, metavar="N", help="compare everything each N runs (10)")
    parser.add_argument("--timeout", type=float, default=7200, metavar="S", help="seconds for all of it (7200)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "crash_soak.json", metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the report; it is printed in any case")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    args = arguments(words)
    if not sys.platform.startswith("linux"):
        print("The soak waits on process descriptors: it needs Linux.", file=sys.stderr)
        return 2
    facts: dict[str, Any] = {
        "command": shown(["scripts/profiling/crash_soak.py", *words]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "seed": args.seed,
        "load_before": load(),
        "result": {},
    }
    with tempfile.TemporaryDirectory(prefix="fetcher-soak-") as folder:
        facts["machine"] = machine(Path(folder))
        try:
            facts["result"] = soak(args, Path(folder))
            facts["verdict"] = "Nothing was lost."
        except Lost as error:
            facts["verdict"] = f"Lost: {error}"
    facts["load_after"] = load()
    text = report(facts)
    print(text)
    written = {args.json: json.dumps(facts, indent=1, ensure_ascii=False) + "\n"}
    if args.markdown:
        written[args.markdown] = text
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return 0 if facts["result"] else 1


if __name__ == "__main__":
    leave(main)
