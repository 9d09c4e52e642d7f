"""The parts of the benchmark: each fills one table of the report. Every figure's database is verified first."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from measure import HERE, MB, ROOT, Run, Spread, Table, Wrong, calibrate, run, simulated, usual_body

SEED = 0

LATENCY, LATENCY_WORKERS, SHARE = 0.05, 50, 0.95
CPU_WORKERS, CPU_SECONDS, RATIO = 20, 0.45, 0.25
BATCHES = (200, 1000)
MEMORY_MB, FLAT_MB = 120, 5
BYTES_AN_ITEM = 2600
RESUME_SECONDS = 2.0
CEILING, CEILING_ITEMS = 50, 300
JSON_MICROSECONDS = 47
"""What one `json.loads` of 3.4 kB took on the machine that the targets were set on."""


@dataclass(slots=True)
class Options:
    """How much is measured; `folder` is for temporary files."""

    folder: Path
    quick: bool
    repeat: int
    items: int
    memory_items: tuple[int, int]
    resume_items: int
    timeout: float
    say: Callable[[str], None]
    held: dict[int, dict[str, Any]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def verdict(self, table: Table, what: str, target: str, measured: str, met: bool) -> str:
        """Note whether a target is met; a quick run is too small to say."""
        table.verdicts.append(
            {"what": what, "target": target, "measured": measured, "met": None if self.quick else met}
        )
        return "not judged (quick)" if self.quick else "met" if met else "**missed**"

    @contextmanager
    def empty(self) -> Iterator[Path]:
        """An empty folder, gone afterwards."""
        around = self.folder / str(next(self.numbers))
        folder = around / "client"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(around)


# --- clients ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Client:
    """Something that mirrors: its name, and its command for an address and a database."""

    name: str
    command: Callable[[str, str], list[str]]


def fetcher(name: str, *options: object) -> Client:
    """Our own client with these options, without its delays, telling its end as JSON."""
    words = [*map(str, options), "--delay", "0", "--max-rate", "0", "--log-format", "json"]
    return Client(
        name, lambda url, db: [sys.executable, "-m", "fetcher", "fetch", "pr0gramm", db, "--base-url", url, *words]
    )


def peer(name: str, kind: str, workers: int) -> Client:
    """One of the scripts in peers.py."""
    script = str(HERE / "peers.py")
    return Client(name, lambda url, db: [sys.executable, script, kind, url, db, "--workers", str(workers)])


@dataclass(frozen=True, slots=True)
class Trial:
    """One client's one mirror: what it cost, and by its own account what it stored, asked and took (seconds)."""

    run: Run
    stored: int
    requests: int
    seconds: float
    seen: Any = None


def trial(
    options: Options, client: Client, *, items: int, latency: float = 0.0, look: Callable[[Path], Any] | None = None
) -> Trial:
    """Mirror a simulated API of `items` items by a fresh process, and verify what it holds; `look` sees the file."""
    expected = _expected(options, items)
    options.say(f"{client.name}: {items:,} items")
    with options.empty() as folder:
        db = folder / "mirror.db"
        with simulated(folder, items=items, latency=latency, seed=SEED) as url:
            cost = run(client.command(url, db.name), folder, timeout=options.timeout)
        end = cost.event("end")
        if not cost.peak_rss:
            raise Wrong(f"{client.name}: its peak of memory cannot be told, this program is the larger one")
        if end["stored"] != items:
            raise Wrong(f"{client.name} says it stored {end['stored']:,} of {items:,} items")
        held = _verified(options, folder, "database", str(db))
        if held != expected:
            raise Wrong(f"{client.name}: the database holds {_told(held)}, the API has {_told(expected)}")
        seen = look(db) if look else None
    options.say(f"  {cost.wall:.1f} s, {cost.cpu:.1f} s of CPU, {cost.peak_rss / MB:.0f} MB")
    return Trial(cost, end["stored"], end["requests"], end["seconds"], seen)


def _expected(options: Options, items: int) -> dict[str, Any]:
    """What the simulated API has, worked out once."""
    if items not in options.held:
        with options.empty() as folder:
            options.held[items] = _verified(options, folder, "world", str(items), str(SEED))
    return options.held[items]


def _verified(options: Options, folder: Path, *what: str) -> dict[str, Any]:
    return run([sys.executable, str(HERE / "verify.py"), *what], folder, timeout=options.timeout).event("verified")


def _told(held: dict[str, Any]) -> str:
    return ", ".join(f"{held[name]:,} {name}" for name in ("items", "tags", "comments")) + f" ({held['digest'][:12]})"


def rounds(
    options: Options,
    table: Table,
    clients: Sequence[Client],
    *,
    items: int,
    latency: float = 0.0,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[Trial]]:
    """Every client in turn, as often as asked, so that what else the machine does falls on all of them alike.

    `before` is called before each run.
    """
    found: dict[str, list[Trial]] = {client.name: [] for client in clients}
    for _ in range(options.repeat):
        for client in clients:
            before()
            found[client.name].append(trial(options, client, items=items, latency=latency))
    expected = _expected(options, items)
    table.data |= {
        "items": items,
        "tags": expected["tags"],
        "comments": expected["comments"],
        "runs": {name: [_facts(each) for each in trials] for name, trials in found.items()},
    }
    table.notes.append(
        f"All databases hold {_told(expected)}: the same as the API, by counts and by a digest of their rows."
    )
    return found


def _facts(each: Trial) -> dict[str, Any]:
    cost = each.run
    return {
        "wall": round(cost.wall, 3),
        "seconds": round(each.seconds, 3),
        "user": round(cost.user, 3),
        "system": round(cost.system, 3),
        "peak_rss": cost.peak_rss,
        "items_per_second": round(each.stored / cost.wall, 1),
        "requests": each.requests,
    }


def spread(trials: Iterable[Trial], figure: Callable[[Trial], float]) -> Spread:
    return Spread(tuple(map(figure, trials)))


def _walls(trials: Sequence[Trial]) -> tuple[str, str, str, str]:
    """The cells that every table of clients ends with."""
    return (
        spread(trials, lambda each: each.run.wall).text(1),
        spread(trials, lambda each: each.run.cpu).text(1),
        spread(trials, lambda each: each.run.peak_rss / MB).text(0),
        spread(trials, lambda each: each.requests).text(0),
    )


_WALLS = ("wall s", "CPU s", "peak MB", "requests")


def warm_up(options: Options) -> None:
    """Run each client once unmeasured, so that none pays for compiling what it imports."""
    kinds = ["barrier", "gather"] if importlib.util.find_spec("aiohttp") else ["barrier"]
    for client in (fetcher("fetcher"), *(peer(kind, kind, 10) for kind in kinds)):
        trial(options, client, items=120)


# --- the parts --------------------------------------------------------------------------------------


def latency(options: Options, table: Table) -> None:
    """How near the mirror comes to what the workers and the latency allow."""
    limit = LATENCY_WORKERS / LATENCY
    items = options.items
    table.title = f"latency: {items:,} items, {LATENCY * 1000:.0f} ms latency, {LATENCY_WORKERS} workers"
    table.columns = ("client", "items/s", "share of workers/latency", "share, whole process", *_WALLS)
    ours = [
        fetcher(f"fetcher, batch {batch:,}", "--workers", LATENCY_WORKERS, "--batch-size", batch) for batch in BATCHES
    ]
    theirs = [peer("page barrier (requests)", "barrier", LATENCY_WORKERS)]
    found = rounds(options, table, [*ours, *theirs], items=items, latency=LATENCY)
    for client in (*ours, *theirs):
        trials = found[client.name]
        share = spread(trials, lambda each: each.stored / each.seconds / limit)
        row = [
            client.name,
            spread(trials, lambda each: each.stored / each.seconds).text(0),
            share.text(3),
            spread(trials, lambda each: each.stored / each.run.wall / limit).text(3),
            *_walls(trials),
        ]
        if client in ours:
            target = f"≥ {SHARE}"
            verdict = options.verdict(
                table, f"{client.name}: share of workers/latency", target, share.text(3), share.median >= SHARE
            )
            table.add(*row, target=target, verdict=verdict)
        else:
            table.add(*row, target="(0.35–0.38 expected)")
    table.notes += [
        f"workers/latency = {limit:,.0f} items/s. The share is that of the mirroring by the client's own clock"
        " (fetcher: `seconds` of its end line): from just before its first request until after its last commit, so the"
        " request for the newest id, the first page, and the last answers are in it; the start of the interpreter,"
        " imports and opening the database are not. All is in the share of the whole process, which is not judged.",
        f"`fetcher fetch DB --base-url URL --workers {LATENCY_WORKERS} --delay 0 --max-rate 0 --batch-size N`",
    ]


def cpu(options: Options, table: Table) -> None:
    """What an item costs in CPU."""
    items = options.items
    table.title = f"cpu: {items:,} items, no latency, {CPU_WORKERS} workers"
    table.columns = ("client", "CPU s per 1,000 items", "of it system", "items/s, whole process", *_WALLS)
    ours = [fetcher(f"fetcher, batch {batch:,}", "--workers", CPU_WORKERS, "--batch-size", batch) for batch in BATCHES]
    barrier = peer("page barrier (requests, one Session)", "barrier", CPU_WORKERS)
    theirs = [barrier, peer("page barrier (requests, a Session a thread)", "barrier-sessions", CPU_WORKERS)]
    if importlib.util.find_spec("aiohttp"):
        theirs.append(peer("asyncio, semaphore and gather (aiohttp)", "gather", CPU_WORKERS))
    else:
        table.notes.append("aiohttp is not installed: the asyncio client is left out.")
    with options.empty() as folder, simulated(folder, items=1000, seed=SEED) as url:
        body = usual_body(url)
    calibrations: list[float] = []
    clients = [*ours, *theirs]
    found = rounds(options, table, clients, items=items, before=lambda: calibrations.append(calibrate(body)))
    per_thousand = {name: spread(trials, _cpu_per_thousand) for name, trials in found.items()}
    for client in clients:
        trials, figure = found[client.name], per_thousand[client.name]
        row = [
            client.name,
            figure.text(3),
            spread(trials, lambda each: each.run.system / each.stored * 1000).text(3),
            spread(trials, lambda each: each.stored / each.run.wall).text(0),
            *_walls(trials),
        ]
        if client in ours:
            target = f"≤ {CPU_SECONDS}"
            verdict = options.verdict(
                table, f"{client.name}: CPU s per 1,000 items", target, figure.text(3), figure.median <= CPU_SECONDS
            )
            table.add(*row, target=target, verdict=verdict)
        else:
            table.add(*row)
    for client in ours:
        mine, others = per_thousand[client.name].values, per_thousand[barrier.name].values
        ratio = Spread(tuple(a / b for a, b in zip(mine, others, strict=True)))
        table.add(f"{client.name} / {barrier.name}", ratio.text(3), target=f"({RATIO} on the reference machine)")
        table.data.setdefault("ratio", {})[client.name] = ratio.values
    now = Spread(tuple(calibrations))
    table.data["json_loads_microseconds"] = calibrations
    table.notes += [
        f"CPU is user + system of the whole client process, its start included, on {_cores()} with the simulator"
        " beside it in a process of its own.",
        f"Calibration: `json.loads` of a details body of {len(body):,} bytes takes {now.text(1)} µs of CPU here, taken"
        f" before each run; {JSON_MICROSECONDS} µs on the reference machine. Figures are as measured, not scaled.",
        "A ratio is taken within each round, then its median.",
        f"`fetcher fetch DB --base-url URL --workers {CPU_WORKERS} --delay 0 --max-rate 0 --batch-size N`",
    ]


def _cpu_per_thousand(each: Trial) -> float:
    return each.run.cpu / each.stored * 1000


def _cores() -> str:
    return f"{len(os.sched_getaffinity(0))} cores"


def sequential(options: Options, table: Table) -> None:
    """Whether one worker is as good as no threads at all."""
    items = min(options.items, 1000)
    table.title = f"sequential: {items:,} items, no latency, one request at a time"
    table.columns = ("client", "mirroring s", *_WALLS)
    ours, loop = fetcher("fetcher --workers 1", "--workers", 1), peer("plain loop (requests)", "sequential", 1)
    found = rounds(options, table, [ours, loop], items=items)
    for client in (ours, loop):
        trials = found[client.name]
        table.add(client.name, spread(trials, lambda each: each.seconds).text(2), *_walls(trials))
    pairs = list(zip(found[ours.name], found[loop.name], strict=True))
    for what, ratio in (
        ("mirroring", Spread(tuple(a.seconds / b.seconds for a, b in pairs))),
        ("whole process", Spread(tuple(a.run.wall / b.run.wall for a, b in pairs))),
    ):
        name = f"fetcher / plain loop, time of the {what}"
        verdict = options.verdict(table, name, "≤ 1", ratio.text(2), ratio.median <= 1)
        table.add(name, ratio.text(2), target="≤ 1", verdict=verdict)


def memory(options: Options, table: Table) -> None:
    """Whether memory grows with the job."""
    small, large = options.memory_items
    table.title = f"memory: {small:,} and {large:,} items, no latency, {CPU_WORKERS} workers"
    table.columns = ("what", "MB", "items/s", "bytes a database item")
    client = fetcher("fetcher", "--workers", CPU_WORKERS)
    trials = [trial(options, client, items=items, look=file_size) for items in (small, large)]
    for each in trials:
        peak = each.run.peak_rss / MB
        target = f"≤ {MEMORY_MB}"
        name = f"peak of a run of {each.stored:,} items"
        verdict = options.verdict(table, name, target, f"{peak:.1f}", peak <= MEMORY_MB)
        table.add(
            name,
            f"{peak:.1f}",
            f"{each.stored / each.run.wall:,.0f}",
            f"{each.seen / each.stored:,.0f}",
            target=target,
            verdict=verdict,
        )
    growth = (trials[1].run.peak_rss - trials[0].run.peak_rss) / MB
    target = f"flat (≤ {FLAT_MB})"
    verdict = options.verdict(table, "growth of the peak", target, f"{growth:+.1f}", growth <= FLAT_MB)
    table.add("growth from the one peak to the other", f"{growth:+.1f}", target=target, verdict=verdict)
    long = trials[1].run
    for lo, hi, what in ((0.2, 0.3, "a quarter"), (0.7, 0.8, "three quarters"), (0.9, 1.0, "the end")):
        some = [size / MB for at, size in long.samples if lo <= at / long.wall <= hi]
        if some:
            table.add(f"resident in the long run, around {what} of its time", f"{statistics.median(some):.1f}")
    table.data |= {
        "runs": [_facts(each) | {"database_bytes": each.seen} for each in trials],
        "samples": [[round(at, 1), size] for at, size in long.samples],
    }
    table.notes += [
        "MB are 10⁶ bytes. The peak is the kernel's (`ru_maxrss`); the resident size is read once a second.",
        "Both databases hold what the API has, by counts and by a digest of their rows.",
        f"`fetcher fetch DB --base-url URL --workers {CPU_WORKERS} --delay 0 --max-rate 0`",
    ]


def file_size(db: Path) -> int:
    """The bytes of a database with nothing left in its write-ahead log."""
    conn = sqlite3.connect(db)
    try:
        if conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise Wrong("somebody still holds the database")
    finally:
        conn.close()
    return db.stat().st_size


def _sizes(db: Path) -> tuple[int, int]:
    """The bytes of a database as it is, and as it would be if it was packed."""
    whole = file_size(db)
    packed = db.with_name("packed.db")
    conn = sqlite3.connect(db)
    try:
        conn.execute("VACUUM INTO ?", [str(packed)])
    finally:
        conn.close()
    return whole, packed.stat().st_size


def size(options: Options, table: Table) -> None:
    """What an item takes on disk."""
    items = options.items
    held = _expected(options, items)
    table.title = f"size: {items:,} items"
    table.columns = ("run", "bytes a database item", "packed by VACUUM", "tags an item", "comments an item")
    kinds = [(f"newest first, batch {batch:,}", ("--batch-size", batch)) for batch in BATCHES]
    kinds.append(("oldest first, batch 200", ("--batch-size", 200, "--order", "oldest")))
    for name, words in kinds:
        client = fetcher(f"fetcher, {name}", "--workers", CPU_WORKERS, *words)
        whole, packed = trial(options, client, items=items, look=_sizes).seen
        figure = whole / items
        target = f"≤ {BYTES_AN_ITEM:,}"
        verdict = options.verdict(
            table, f"{name}: bytes a database item", target, f"{figure:,.0f}", figure <= BYTES_AN_ITEM
        )
        table.add(
            name,
            f"{figure:,.0f}",
            f"{packed / items:,.0f}",
            f"{held['tags'] / items:.2f}",
            f"{held['comments'] / items:.2f}",
            target=target,
            verdict=verdict,
        )
        table.data[name] = {"bytes": whole, "packed": packed}
    table.data |= {name: held[name] for name in ("items", "tags", "comments")}
    table.notes += [
        "The bytes of the whole file, every table and index in it, after a checkpoint, divided by the items.",
        f"`fetcher fetch DB --base-url URL --workers {CPU_WORKERS} --delay 0 --max-rate 0 --batch-size N --order O`",
    ]


def resume(options: Options, table: Table) -> None:
    """How soon a large mirror goes on."""
    items, queued = options.resume_items, options.resume_items // 10
    table.title = f"resume: a mirror of {items:,} items, {queued:,} details still queued"
    table.columns = ("what", "seconds")
    runs: list[Run] = []
    with options.empty() as folder, simulated(folder, items=items, seed=SEED) as url:
        options.say(f"making a mirror of {items:,} items")
        db = folder / "mirror.db"
        words = ["--items", str(items), "--queued", str(queued), "--tagged", str(queued), "--seed", str(SEED)]
        grow = [sys.executable, str(HERE / "grown_mirror.py"), db.name, *words, "--base-url", url]
        grown = run(grow, folder, timeout=options.timeout).event("grown")
        command = [sys.executable, "-m", "fetcher", "fetch", "pr0gramm", db.name, "--base-url", url, "--limit", "1"]
        before = _totals(db)
        for at in range(1, 2 + options.repeat):
            options.say("resuming it")
            runs.append(run(command, folder, timeout=options.timeout))
            after = _totals(db)
            if after != {"items": items, "fetched": before["fetched"] + at, "work": before["work"] - at}:
                raise Wrong(f"after {at} resumes with --limit 1 the mirror says {after}, before them {before}")
    target = f"< {RESUME_SECONDS:g}"
    judged = (
        ("from the start of the process until its start lines are printed", "DB batch size:"),
        ("… until the first detail is committed and the summary printed", "Stored 1 item"),
    )
    for what, line in judged:
        figure = Spread(tuple(each.line_at(line) for each in runs))
        worst = max(figure.values)
        verdict = options.verdict(table, what, target, figure.text(2), worst < RESUME_SECONDS)
        table.add(what, figure.text(2), target=target, verdict=verdict)
    table.add("… until the process has ended", Spread(tuple(each.wall for each in runs)).text(2))
    table.add("CPU", Spread(tuple(each.cpu for each in runs)).text(2))
    table.data |= {
        "database_bytes": grown["bytes"],
        "newest": grown["newest"],
        "runs": [
            {
                "started": round(each.line_at("DB batch size:"), 3),
                "committed": round(each.line_at("Stored 1 item"), 3),
                "wall": round(each.wall, 3),
                "cpu": round(each.cpu, 3),
                "peak_rss": each.peak_rss,
            }
            for each in runs
        ],
    }
    table.notes += [
        f"Judged by the slowest of {len(runs)} resumes of one file of {grown['bytes'] / MB:,.0f} MB, whose ids"
        f" 1–{grown['newest']:,} are all covered; the file was just written, so the system has it in memory.",
        f"Peak resident size: {max(each.peak_rss for each in runs) / MB:.0f} MB.",
        "`fetcher fetch DB --base-url URL --limit 1`, all else by default (a ceiling of 10 requests/s included)",
    ]


def _totals(db: Path) -> dict[str, int]:
    """What a mirror says it holds; its fetched items and queued work are counted, too."""
    conn = sqlite3.connect(f"{db.as_uri()}?mode=ro", uri=True)
    try:
        items, fetched, work = conn.execute("SELECT items, fetched, work FROM sources").fetchone()
        counted = conn.execute(
            "SELECT (SELECT count(*) FROM items WHERE fetched_at IS NOT NULL), (SELECT count(*) FROM work)"
        ).fetchone()
    finally:
        conn.close()
    if counted != (fetched, work):
        raise Wrong(f"the mirror says {fetched:,} fetched and {work:,} queued, but holds {counted}")
    return {"items": items, "fetched": fetched, "work": work}


def ceiling(options: Options, table: Table) -> None:
    """Whether a ceiling is kept, and how evenly: by fetcher's own account, and as the API sees it."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from fetcher.simulator import Simulator, World

    items = 100 if options.quick else CEILING_ITEMS
    table.title = f"ceiling: {items:,} items, --max-rate {CEILING}"
    table.columns = (
        "starts",
        "most within any one second",
        "a second over the whole run",
        "mean spacing ms",
        "its standard deviation",
        "least",
        "greatest",
    )
    words = ["--delay", "0", "--max-rate", str(CEILING), "--log-format", "json"]
    options.say(f"fetcher: {items:,} items at {CEILING} requests/s")
    with options.empty() as folder, Simulator(World(SEED, items), record=True) as api:
        script = str(HERE / "paced.py")
        command = [sys.executable, script, "fetch", "pr0gramm", "mirror.db", "--base-url", api.url, *words]
        cost = run(command, folder, timeout=options.timeout)
        held = _verified(options, folder, "database", str(folder / "mirror.db"))
        seen = [at for at, _, _ in api.log or []]
    end, begun = cost.event("end"), cost.event("starts")["times"]
    if end["stored"] != items or held != _expected(options, items):
        raise Wrong(f"the database holds {_told(held)}, the API has {_told(_expected(options, items))}")
    if not len(seen) == len(begun) == end["requests"]:
        raise Wrong(f"the API saw {len(seen)} requests, fetcher began {len(begun)} and says {end['requests']}")
    target = f"≤ {CEILING}"
    for who, times in (("as fetcher lets them begin", begun), ("as the API sees them come", seen)):
        busiest, rate = most_within(times, 1.0), (len(times) - 1) / (times[-1] - times[0])
        gaps = [(later - earlier) * 1000 for earlier, later in pairwise(times)]
        what = f"most starts within any one second, {who}"
        verdict = options.verdict(table, what, target, str(busiest), busiest <= CEILING)
        shape = (statistics.fmean(gaps), statistics.pstdev(gaps), min(gaps), max(gaps))
        cells = (str(busiest), f"{rate:.2f}", *(f"{each:.2f}" for each in shape))
        table.add(who, *cells, target=target, verdict=verdict)
        table.data[who] = {
            "requests": len(times),
            "busiest": busiest,
            "rate": rate,
            "spacings_ms": [round(gap, 3) for gap in gaps],
        }
    table.notes += [
        "The contract counts the starts of the process: that is the first line. The second shows what the API gets:"
        " where threads have to wait for a core between the start and the sending, or the simulator between the coming"
        " and the reading, requests bunch together.",
        f"`fetcher fetch DB --base-url URL --delay 0 --max-rate {CEILING}`",
    ]


def most_within(times: Sequence[float], seconds: float) -> int:
    """The most of some ascending times that lie within any stretch so long, its end not included."""
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


PARTS: dict[str, Callable[[Options, Table], None]] = {
    "latency": latency,
    "cpu": cpu,
    "sequential": sequential,
    "memory": memory,
    "size": size,
    "resume": resume,
    # Last: it loads the simulator into this process, which should stay small while others are measured.
    "ceiling": ceiling,
}
