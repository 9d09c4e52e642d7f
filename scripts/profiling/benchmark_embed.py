#!/usr/bin/env python3
"""Measure `fetcher embed` and `fetcher ingest` against the simulated embeddings API: what of its speed comes through.

50,000 chunks of about 1,000 characters, 64 a request. Each run is a fresh process in an empty folder with a clean
environment, the simulator a process of its own that notes each request; contestants take turns in each round. No
figure counts unless the database holds a vector for each text. Takes about five minutes a round (--quick: one in all,
and judges nothing). The exit code is 0 even if a target is missed, 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate, count, islice
from pathlib import Path
from typing import Any

from benchmark_limits import Host, simulated
from ingest_cases import cpu_of
from measure import HERE, MB, Run, Spread, Table, Wrong, leave, load, machine, run, shown

from fetcher.model import Batch, Detail
from fetcher.stores import texts as stored
from fetcher.stores.stages import DocumentWriter
from fetcher.texts.chunk import chunk_id, text_hash

BATCH = 64
IN_FLIGHT = 20
LATENCY = 0.2
LIMIT = 20.0
TARGET = 0.9
MOST_REFUSED = 0.02
MOST_MB = 200
BESIDE_LOOP = 10
PEAK_NOTE = (
    "MB are 10⁶ bytes. The peak is the kernel's (`VmHWM`), that of all the processes that read files theirs added up."
)

PLAIN = """
import json, sqlite3, sys, time
from array import array
import requests

url, few = sys.argv[1], int(sys.argv[2])
conn = sqlite3.connect("plain.db")
conn.execute("CREATE TABLE vectors (hash TEXT PRIMARY KEY, vector BLOB)")
texts = sqlite3.connect("file:texts.db?mode=ro", uri=True).execute("SELECT hash, text FROM chunks LIMIT ?", [few])
session = requests.Session()
began = time.perf_counter()
for key, text in texts:
    answer = session.post(url + "/embeddings", json={"model": "text-embedding-3-small", "input": [text]}, timeout=30)
    answer.raise_for_status()
    with conn:
        vector = array("f", answer.json()["data"][0]["embedding"]).tobytes()
        conn.execute("INSERT INTO vectors VALUES (?, ?)", [key, vector])
print(json.dumps({"event": "end", "seconds": time.perf_counter() - began}))
"""
"""What a script does that sends one text after the other."""


# --- texts ------------------------------------------------------------------------------------------


def paragraphs(seed: int) -> Iterator[str]:
    """Texts of 900 to 1,000 characters, no two the same: sentences of 5,000 words, of which a few are frequent."""
    draw = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 11))) for _ in range(5000)]
    weights = list(accumulate(1 / (rank + 10) for rank in range(5000)))
    sentences = [" ".join(draw.choices(words, cum_weights=weights, k=12))[:90] for _ in range(5000)]
    for number in count():
        text = ". ".join(draw.choices(sentences, k=20))
        yield f"{number}: {text[: draw.randint(900, 980)]}."


def read_already(path: Path, chunks: int) -> None:
    """A database as a run leaves it that has read all and embedded nothing."""
    db, source = stored.open_texts(path, clock=time.time)
    found = paragraphs(1)
    writer = DocumentWriter("read")
    try:
        for number in range(0, chunks, 1000):
            name = f"/books/{number // 1000:03}.md"
            texts = list(islice(found, min(1000, chunks - number)))
            rows = tuple(
                (chunk_id(name, place), place, text, text_hash(text), "texts", "books", name, None)
                for place, text in enumerate(texts)
            )
            stored.enlist(db, source, "read", [(name, "1", None)], 1)
            part = Detail({"chunks": rows, "documents": [("1", len(rows), len(rows) - 1)]})
            with db.transaction():
                written = writer.write(db, source, Batch(details={name: part}, stage="read"), 1)
                db.conn.execute("DELETE FROM work WHERE stage = 'read'")
                stored.count(db.sql, source, "read", work=-1, done=1)
                stored.count(db.sql, source, "embed", work=written.queued["embed"])
    finally:
        db.close()


def write_books(folder: Path, chunks: int) -> None:
    """Markdown files of 1,000 paragraphs, 50 a chapter; each is a chunk, for no two fit into one."""
    found = paragraphs(2)
    folder.mkdir()
    for number in range(0, chunks, 1000):
        with (folder / f"book-{number // 1000:03}.md").open("w", encoding="utf-8") as file:
            file.write(f"# Book {number // 1000}\n")
            for place, text in enumerate(islice(found, min(1000, chunks - number))):
                if place % 50 == 0:
                    file.write(f"\n## Chapter {place // 50 + 1}\n")
                file.write(f"\n{text}\n")


# --- one run ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Options:
    """What the parts are told."""

    folder: Path
    chunks: int
    few: int
    seconds: float
    rounds: int
    quick: bool

    def empty(self) -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: its cost, the figures it gives of its stages, and what the API saw of it."""

    run: Run
    report: Mapping[str, Any]
    calls: int
    refused: int
    server_cpu: float
    size: int

    @property
    def seconds(self) -> float:
        """Of the stage `embed`: from just before the first request until after the last commit."""
        return float(self.report["stages"]["embed"]["seconds"])

    @property
    def rate(self) -> float:
        """Chunks a second of the stage `embed`."""
        return float(self.report["vectors"]) / self.seconds

    @property
    def whole(self) -> float:
        """Chunks a second of the whole process, from its start to its end."""
        return float(self.report["vectors"]) / self.run.wall

    @property
    def cpu(self) -> float:
        """CPU seconds for 1,000 chunks, of the process and those that read for it."""
        return self.run.cpu / self.report["vectors"] * 1000

    def data(self) -> dict[str, Any]:
        """The figures."""
        return {
            "wall": self.run.wall,
            "user": self.run.user,
            "system": self.run.system,
            "peak_rss": self.run.peak_rss,
            "children_peak": self.run.children_peak,
            "report": self.report,
            "calls": self.calls,
            "refused": self.refused,
            "server_cpu": self.server_cpu,
            "size": self.size,
        }


def embedded(folder: Path, host: Host, words: Sequence[str], *, expected: int, settings: Mapping[str, Any]) -> Trial:
    """`fetcher WORDS texts.db` to its end. Raises Wrong unless every text has a vector."""
    config = {"EMBEDDER": "openai", "EMBED_BASE_URL": host.url, **settings}
    (folder / "settings.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "fetcher", *words, "texts.db", "--config", "settings.json"]
    entries, cpu = len(host.entries()), cpu_of(host.pid)
    done = run([*command, "--report", "report.json"], folder, timeout=600)
    seen = host.entries()[entries:]
    with closing(sqlite3.connect(folder / "texts.db")) as conn:
        (bare,) = conn.execute(
            "SELECT count(*) FROM chunks WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.hash = chunks.hash)"
        ).fetchone()
        chunks, vectors = (conn.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in ("chunks", "vectors"))
    # With its overlap a paragraph may be too long for one chunk now and then.
    if bare or vectors != chunks or not expected <= chunks <= expected * 1.001:
        raise Wrong(f"{vectors:,} vectors and {chunks:,} chunks instead of {expected:,}; {bare:,} without a vector")
    return Trial(
        done,
        json.loads((folder / "report.json").read_text()),
        len(seen),
        sum(refused for _, refused in seen),
        cpu_of(host.pid) - cpu,
        (folder / "texts.db").stat().st_size,
    )


def plain_loop(folder: Path, host: Host, few: int) -> float:
    """Texts a second of a loop that sends one after the other."""
    done = run([sys.executable, "-c", PLAIN, host.url, str(few)], folder, timeout=600)
    with closing(sqlite3.connect(folder / "plain.db")) as conn:
        (there,) = conn.execute("SELECT count(*) FROM vectors").fetchone()
    if there != few:
        raise Wrong(f"the loop has {there} vectors instead of {few}")
    return few / float(done.event("end")["seconds"])


def spread(values: Sequence[float]) -> Spread:
    return Spread(tuple(values))


def judged(options: Options, table: Table, figure: str, values: Spread, target: str, *, good: bool) -> tuple[str, str]:
    """The last two cells of a row; a run that is quick judges nothing."""
    if options.quick:
        return target, "(not judged)"
    table.verdicts.append(
        {"part": table.name, "figure": figure, "target": target, "good": good, "values": values.values}
    )
    return target, "met" if good else "**missed**"


# --- the parts --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """What all rounds came to, by contestant."""

    latency: list[Trial] = field(default_factory=list)
    core: list[Trial] = field(default_factory=list)
    books: list[Trial] = field(default_factory=list)
    limit: list[Trial] = field(default_factory=list)
    again: list[Trial] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)


FIXED = {"MAX_EMBED_CONCURRENCY": IN_FLIGHT, "MAX_EMBED_CONCURRENCY_MAX": IN_FLIGHT, "EMBED_BATCH_SIZE": BATCH}
SLOW = ("embeddings", "--latency", str(LATENCY))


def measured(options: Options, only: Sequence[str]) -> Found:
    """All rounds."""
    found = Found()
    made = options.folder / "made.db"
    books = options.folder / "books"
    read_already(made, options.chunks)
    write_books(books, options.chunks)
    calls = int(options.seconds * LIMIT)
    few = options.folder / "few.db"
    read_already(few, calls * BATCH)

    def copied(path: Path) -> Path:
        folder = options.empty()
        shutil.copyfile(path, folder / "texts.db")
        return folder

    def embed(path: Path, host: Host, expected: int, settings: Mapping[str, Any]) -> Trial:
        return embedded(copied(path), host, ["embed"], expected=expected, settings=settings)

    for number in range(options.rounds):
        if "latency" in only:
            with simulated(options.folder, *SLOW, seed=number, items=None) as host:
                found.loop.append(plain_loop(copied(few), host, options.few))
                found.latency.append(embed(made, host, options.chunks, FIXED))
            with simulated(options.folder, "embeddings", seed=number, items=None) as host:
                found.core.append(embed(made, host, options.chunks, FIXED))
        if "files" in only:
            with simulated(options.folder, *SLOW, seed=number, items=None) as host:
                words = ["ingest", str(books)]
                found.books.append(embedded(options.empty(), host, words, expected=options.chunks, settings=FIXED))
        if "limit" in only:
            with simulated(options.folder, *SLOW, "--rate", str(LIMIT), seed=number, items=None) as host:
                folder = copied(few)
                expected = calls * BATCH
                found.limit.append(embedded(folder, host, ["embed"], expected=expected, settings={}))
                next_ = copied(few)
                learned_too(folder / "texts.db", next_ / "texts.db")
                found.again.append(embedded(next_, host, ["embed"], expected=expected, settings={}))
    return found


def learned_too(known: Path, new: Path) -> None:
    """Have one database know of hosts what another has learned."""
    with closing(sqlite3.connect(known)) as conn:
        (learned,) = conn.execute("SELECT learned FROM sources").fetchone()
    if not learned:
        raise Wrong("the first run wrote down nothing that it learned")
    with closing(sqlite3.connect(new)) as conn, conn:
        conn.execute("UPDATE sources SET learned = ?", [learned])


def fast(options: Options, found: Found) -> Table:
    """What comes through of a fast API, and of one core."""
    table = Table(
        "fast",
        f"embed: {options.chunks:,} chunks, {LATENCY:g} s a call, {IN_FLIGHT} in flight, no limit",
        ("run", "chunks/s", "… of the whole process", "CPU s per 1,000", "API's CPU s per 1,000", "wall s"),
    )
    for name, trials in ((f"{LATENCY:g} s a call", found.latency), ("no latency", found.core)):
        table.add(
            name,
            spread([each.rate for each in trials]).text(0),
            spread([each.whole for each in trials]).text(0),
            spread([each.cpu for each in trials]).text(3),
            spread([each.server_cpu / options.chunks * 1000 for each in trials]).text(3),
            spread([each.run.wall for each in trials]).text(1),
        )
    table.add("plain loop, one text a call", spread(found.loop).text(2))
    bound = BATCH * IN_FLIGHT / LATENCY
    pairs = list(zip(found.latency, found.core, strict=True))
    of_api = spread([one.rate / bound for one, _ in pairs])
    of_core = spread([one.rate / other.rate for one, other in pairs])
    lower = spread([one.rate / min(bound, other.rate) for one, other in pairs])
    binding = "64 × 20 / 0.2 s" if spread([other.rate for _, other in pairs]).median > bound else "one core"
    target = judged(options, table, f"share of {binding}", lower, f"≥ {TARGET}", good=lower.median >= TARGET)
    table.add(f"share of {bound:,.0f}/s", of_api.text(3))
    table.add("share of what one core can do (no latency)", of_core.text(3))
    table.add(f"share of the lower of both: {binding}", lower.text(3), *[""] * 4, target=target[0], verdict=target[1])
    times = spread([one.rate / other for one, other in zip(found.latency, found.loop, strict=True)])
    target = judged(options, table, "beside the loop", times, f"≥ {BESIDE_LOOP}", good=min(times.values) >= BESIDE_LOOP)
    table.add("times the plain loop", times.text(0), *[""] * 4, target=target[0], verdict=target[1])
    table.notes += [
        "chunks/s: of the stage `embed`, from just before its first request (a probe of one text) until after its last"
        " commit; the start of Python and opening the database are in that of the whole process.",
        f"The plain loop sends one text after the other by one `requests.Session`: {options.few} texts, its rate is"
        " extrapolated.",
        "A ratio is taken within each round, then its median.",
    ]
    return table


def from_files(options: Options, found: Found) -> Table:
    """The whole way, from Markdown to vectors."""
    table = Table(
        "files",
        f"ingest: {options.chunks:,} chunks of Markdown files, 2 readers, {LATENCY:g} s a call, {IN_FLIGHT} in flight",
        ("figure", "value"),
    )
    rate = spread([each.report["vectors"] / each.report["seconds"] for each in found.books])
    table.add("chunks/s of the run", rate.text(0))
    table.add("chunks/s of the whole process", spread([each.whole for each in found.books]).text(0))
    table.add("CPU s per 1,000 chunks, readers included", spread([each.cpu for each in found.books]).text(3))
    for stage in ("read", "embed"):
        seconds = spread([each.report["stages"][stage]["seconds"] for each in found.books])
        table.add(f"seconds of the stage {stage}", seconds.text(1))
    if found.latency:
        pairs = zip(found.books, found.latency, strict=True)
        shares = spread([one.rate / other.rate for one, other in pairs])
        table.add("chunks/s of its stage embed beside embed alone", shares.text(3))
    table.add("bytes of the database for a chunk", spread([each.size / options.chunks for each in found.books]).text(0))
    return table


def limited(options: Options, found: Found) -> Table:
    """An API with a limit."""
    table = Table(
        "limit",
        f"embed: {int(options.seconds * LIMIT) * BATCH:,} chunks, a limit of {LIMIT:g} calls/s, {LATENCY:g} s a call,"
        " all else by default",
        ("run", "good calls/s", "share of the limit", "calls", "refused", "share refused", "seconds"),
    )
    for name, trials in (("first", found.limit), ("second, of what the first has learned", found.again)):
        good = spread([(each.calls - each.refused) / each.seconds for each in trials])
        shares = spread([(each.calls - each.refused) / each.seconds / LIMIT for each in trials])
        refused = spread([each.refused / each.calls for each in trials])
        is_good = shares.median >= TARGET and refused.median < MOST_REFUSED
        target = judged(options, table, name, shares, f"≥ {TARGET}, < {MOST_REFUSED:.0%} refused", good=is_good)
        table.add(
            name,
            good.text(2),
            shares.text(3),
            spread([each.calls for each in trials]).text(0),
            spread([each.refused for each in trials]).text(0),
            refused.text(4),
            spread([each.seconds for each in trials]).text(1),
            target=target[0],
            verdict=target[1],
        )
    table.notes.append(
        f"A token bucket of {LIMIT:g} calls a second, {LIMIT:g} saved up at most; calls and refusals are counted at the"
        " API. What it lets through at the very first is its burst: a share may be above 1."
    )
    return table


def memory(options: Options, found: Found) -> Table:
    """How much all of these took."""
    table = Table("memory", "Memory: the peak of the process", ("run", "peak MB", "processes that read, MB"))
    runs = {"embed, a latency": found.latency, "embed, none": found.core, "embed, a limit": found.limit}
    for name, trials in {**runs, "ingest": found.books}.items():
        if not trials:
            continue
        peaks = spread([each.run.peak_rss / MB for each in trials])
        target = judged(options, table, name, peaks, f"≤ {MOST_MB}", good=max(peaks.values) <= MOST_MB)
        children = spread([each.run.children_peak / MB for each in trials])
        table.add(name, peaks.text(0), children.text(0) if children.median else "", target=target[0], verdict=target[1])
    table.notes.append(PEAK_NOTE)
    return table


TABLES: Mapping[str, Callable[[Options, Found], Table]] = {"latency": fast, "files": from_files, "limit": limited}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="does all work? small sizes, judges nothing")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="these parts (all)")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many (3; quick: 1)")
    parser.add_argument("--chunks", type=int, metavar="N", help="how many (50000; quick: 5000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="(results/embed.json; quick or partial: none)")
    args = parser.parse_args(words)
    quick = bool(args.quick)
    before = load()
    with tempfile.TemporaryDirectory(prefix="fetcher-embed-") as name:
        options = Options(
            Path(name),
            chunks=args.chunks or (5_000 if quick else 50_000),
            few=20 if quick else 200,
            seconds=5 if quick else 40,
            rounds=args.rounds or (1 if quick else 3),
            quick=quick,
        )
        facts: dict[str, Any] = {"machine": machine(options.folder), "command": shown(["benchmark_embed.py", *words])}
        found = measured(options, args.only)
    tables = [make(options, found) for part, make in TABLES.items() if part in args.only]
    tables.append(memory(options, found))
    after = load()
    print(f"# Benchmark of embedding\n\n- load average {before} before, {after} after; {options.rounds} rounds\n")
    print("\n".join(table.markdown() for table in tables))
    target = args.json or (None if quick or len(args.only) < len(TABLES) else HERE / "results" / "embed.json")
    if target is not None:
        facts |= {
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "load": {"before": before, "after": after},
            "options": {"chunks": options.chunks, "rounds": options.rounds, "limit": LIMIT, "latency": LATENCY},
            "verdicts": [verdict for table in tables for verdict in table.verdicts],
            "loop": found.loop,
            "trials": {
                name: [each.data() for each in getattr(found, name)]
                for name in ("latency", "core", "books", "limit", "again")
            },
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
