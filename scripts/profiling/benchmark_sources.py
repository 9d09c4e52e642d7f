#!/usr/bin/env python3
"""Measure how fast sources bring items into a database, beside what a person would write by hand; medians of rounds.

Each contestant is a fresh process with a database of its own, and they take turns, so that noise falls on all alike.
Time runs from the first item to the last commit, without the start of Python. No figure counts unless the database has
every item. The exit code is 0 even if a target is missed, 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import HERE, Wrong, environment, leave, load, machine, shown

ITEM_BYTES = 5_000


@dataclass(frozen=True, slots=True)
class Options:
    """Where to work, and how much."""

    folder: Path
    rounds: int
    quick: bool


@dataclass(slots=True)
class Part:
    """What was measured about one thing, row by row."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tell(self, what: str, values: Sequence[float], unit: str) -> None:
        """A row that is only told."""
        self.rows.append({"what": what, "values": list(values), "median": statistics.median(values), "unit": unit})

    def judge(self, what: str, target: str, values: Sequence[float], holds: Callable[[float], bool]) -> None:
        """A row with a target."""
        self.tell(what, values, "times")
        self.rows[-1] |= {"target": target, "met": holds(self.rows[-1]["median"])}


# --- contestants ------------------------------------------------------------------------------------

_BEGIN = """
import json, os, sqlite3, sys, time
folder, db = sys.argv[1:3]
"""
_PLAIN = """
began, cpu = time.perf_counter(), time.process_time()
conn = sqlite3.connect(db)
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("CREATE TABLE items (file TEXT PRIMARY KEY, id TEXT, json TEXT)")
def rows():
    for each in os.scandir(folder):
        with open(each.path) as file:
            item = json.load(file)
        yield each.path, item["id"], json.dumps(item)
with conn:
    conn.executemany("INSERT INTO items VALUES (?, ?, ?)", rows())
print(time.perf_counter() - began, time.process_time() - cpu)
"""
_PLAIN_LINES = """
began, cpu = time.perf_counter(), time.process_time()
conn = sqlite3.connect(db)
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("CREATE TABLE items (number INTEGER PRIMARY KEY, id TEXT, json TEXT)")
with conn, open(folder) as file:
    conn.executemany(
        "INSERT INTO items VALUES (?, ?, ?)", ((n, json.loads(line)["id"], line) for n, line in enumerate(file))
    )
print(time.perf_counter() - began, time.process_time() - cpu)
"""
_PLAIN_DOCUMENT = """
began, cpu = time.perf_counter(), time.process_time()
conn = sqlite3.connect(db)
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("CREATE TABLE items (number INTEGER PRIMARY KEY, id TEXT, json TEXT)")
with conn, open(folder) as file:
    found = json.load(file)["features"]
    conn.executemany("INSERT INTO items VALUES (?, ?, ?)", ((n, x["id"], json.dumps(x)) for n, x in enumerate(found)))
print(time.perf_counter() - began, time.process_time() - cpu)
"""
_PLAIN_PARQUET = """
import pyarrow.parquet as pq
import stac_geoparquet.arrow as sg
began, cpu = time.perf_counter(), time.process_time()
conn = sqlite3.connect(db)
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("CREATE TABLE items (number INTEGER PRIMARY KEY, id TEXT, json TEXT)")
with conn:
    found = sg.stac_table_to_items(pq.ParquetFile(folder).read())
    conn.executemany("INSERT INTO items VALUES (?, ?, ?)", ((n, x["id"], json.dumps(x)) for n, x in enumerate(found)))
print(time.perf_counter() - began, time.process_time() - cpu)
"""
_FETCHER = """
import gc
import fetcher.mirror, fetcher.sources.files
gc.set_threshold(100_000, 20, 50)
# As many threads as are asked for, to see what they would do.
fetcher.sources.files.Files.most_workers = int(sys.argv[3])
began, cpu = time.perf_counter(), time.process_time()
fetcher.fetch("files", db, file_paths=(folder,), max_parallel_requests=int(sys.argv[3]))
print(time.perf_counter() - began, time.process_time() - cpu)
"""


def timed(options: Options, code: str, path: Path, items: int, *words: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a contestant, in a process of its own. Raises Wrong when it has not stored all."""
    with tempfile.TemporaryDirectory(dir=options.folder) as empty:
        db = Path(empty) / "items.db"
        done = subprocess.run(
            [sys.executable, "-c", _BEGIN + code, str(path), str(db), *words],
            cwd=empty,
            env={**environment(Path(empty)), "PYTHONPATH": str(HERE.parent.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Wrong(f"a contestant failed: {done.stderr[-2000:]}")
        with closing(sqlite3.connect(db)) as conn:
            (stored,) = conn.execute("SELECT count(*) FROM items").fetchone()
        if stored != items:
            raise Wrong(f"{stored} items are stored, not {items}")
        wall, cpu = map(float, done.stdout.split())
        return wall, cpu


def race(
    options: Options, contestants: Mapping[str, tuple[str, Sequence[str]]], path: Path, items: int
) -> dict[str, list[float]]:
    """The seconds of each contestant in each round, and its CPU seconds; they take turns, and who begins changes."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    seconds |= {f"{name} (CPU)": [] for name in contestants}
    names = list(contestants)
    for number in range(options.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            code, words = contestants[name]
            wall, cpu = timed(options, code, path, items, *words)
            seconds[name].append(wall)
            seconds[f"{name} (CPU)"].append(cpu)
    return seconds


# --- files ------------------------------------------------------------------------------------------


def item(number: int) -> dict[str, Any]:
    """A STAC item of about ITEM_BYTES."""
    assets = {
        f"band_{name}": {
            "href": f"https://tiles.example/{number:07d}/B{name:02d}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": f"Band {name}",
            "roles": ["data"],
            "raster:bands": [{"data_type": "uint16", "spatial_resolution": 10, "scale": 0.0001, "offset": -0.1}],
            "proj:shape": [10980, 10980],
            "proj:transform": [10, 0, 399960 + number, 0, -10, 4200000.5],
        }
        for name in range(1, 12)
    }
    found = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"S2A_{number:08d}",
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [[[number % 360 - 180 + x / 7, x / 3] for x in range(9)]]},
        "bbox": [1.5, 2.5, 3.5, 4.5],
        "properties": {
            "datetime": f"2024-01-01T{number % 24:02d}:00:00Z",
            "eo:cloud_cover": number % 1000 / 10,
            "platform": "sentinel-2a",
            "proj:epsg": 32633,
        },
        "links": [{"rel": rel, "href": f"https://stac.example/{rel}/{number}"} for rel in ("self", "parent", "root")],
        "assets": assets,
        "stac_extensions": [],
    }
    found["properties"]["note"] = "x" * max(0, ITEM_BYTES - len(json.dumps(found)) - 12)
    return found


def files(options: Options, part: Part) -> None:
    """Small files, each with one item, at 1 worker and more."""
    count = 500 if options.quick else 10_000
    folder = options.folder / "small"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.json").write_text(json.dumps(item(number)))
    contestants: dict[str, tuple[str, Sequence[str]]] = {"plain loop": (_PLAIN, ())}
    contestants |= {f"fetcher, threads: {workers}": (_FETCHER, [str(workers)]) for workers in (1, 2, 10)}
    seconds = race(options, contestants, folder, count)
    _tell(part, seconds, count)
    ratios = {
        name: [plain / ours for plain, ours in zip(seconds["plain loop"], values, strict=True)]
        for name, values in seconds.items()
        if not name.startswith("plain loop") and not name.endswith("(CPU)")
    }
    alone = zip(seconds["plain loop (CPU)"], seconds["fetcher, threads: 1 (CPU)"], strict=True)
    part.tell("CPU: plain loop / fetcher, threads: 1", [plain / ours for plain, ours in alone], "times")
    part.judge("plain loop / fetcher, threads: 1", "≥ 1", ratios["fetcher, threads: 1"], lambda n: n >= 1)
    best = max(ratios, key=lambda name: statistics.median(ratios[name]))
    part.judge(f"plain loop / {best}", "≥ 1.5", ratios[best], lambda n: n >= 1.5)


def large(options: Options, part: Part) -> None:
    """One large file of each kind."""
    count = 500 if options.quick else 10_000
    found = [item(number) for number in range(count)]
    kinds: dict[str, tuple[Path, str]] = {
        "NDJSON": (options.folder / "large.ndjson", _PLAIN_LINES),
        "FeatureCollection": (options.folder / "large.json", _PLAIN_DOCUMENT),
        "Parquet": (options.folder / "large.parquet", _PLAIN_PARQUET),
    }
    lines = "".join(json.dumps(each) + "\n" for each in found)
    kinds["NDJSON"][0].write_text(lines)
    kinds["FeatureCollection"][0].write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    import stac_geoparquet.arrow as sg

    sg.parse_stac_ndjson_to_parquet(str(kinds["NDJSON"][0]), str(kinds["Parquet"][0]))
    for kind, (path, plain) in kinds.items():
        seconds = race(options, {f"{kind}: plain": (plain, ()), f"{kind}: fetcher": (_FETCHER, ["1"])}, path, count)
        _tell(part, seconds, count)
        ours, plain_ = seconds[f"{kind}: fetcher"], seconds[f"{kind}: plain"]
        part.tell(f"{kind}: plain / fetcher", [a / b for a, b in zip(plain_, ours, strict=True)], "times")


def _tell(part: Part, seconds: Mapping[str, Sequence[float]], count: int) -> None:
    for name, values in seconds.items():
        part.tell(name, values, "s")
        if name.endswith("(CPU)"):
            continue
        part.notes.append(f"{name}: {count / statistics.median(values):,.0f} items/s")


PARTS: Mapping[str, Callable[[Options, Part], None]] = {"files": files, "large": large}


# --- the report -------------------------------------------------------------------------------------


def report(facts: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """The whole report as Markdown."""
    lines = ["# Benchmark of sources", ""]
    lines += [f"- {name}: {value}" for name, value in facts["machine"].items() if name != "peers"]
    lines += [f"- date: {facts['date']}; load average {facts['load_before']} before, {facts['load_after']} after"]
    lines += [f"- command: `{facts['command']}`", ""]
    lines += ["| part | what | target | median (all rounds) | verdict |", "|---|---|---|---|---|"]
    for part in parts:
        for row in part.rows:
            values = ", ".join(f"{value:.3g}" for value in row["values"])
            verdict = "" if "target" not in row or facts["quick"] else "met" if row["met"] else "**missed**"
            lines.append(
                f"| {part.name} | {row['what']} | {row.get('target', '')} |"
                f" {row['median']:.3g} {row['unit']} ({values}) | {verdict} |"
            )
    lines.append("")
    lines += [f"- {part.name}: {note}" for part in parts for note in part.notes]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, small sizes: shows that all works")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="how many (7)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "benchmark_sources.json", metavar="FILE")
    args = parser.parse_args(words)
    facts: dict[str, Any] = {
        "command": shown(["scripts/profiling/benchmark_sources.py", *words]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "quick": args.quick,
        "load_before": load(),
    }
    parts = []
    with tempfile.TemporaryDirectory(prefix="fetcher-sources-") as folder:
        facts["machine"] = machine(Path(folder))
        options = Options(Path(folder), 1 if args.quick else args.rounds, args.quick)
        for name, measure in PARTS.items():
            if not args.only or name in args.only:
                print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
                part = Part(name)
                measure(options, part)
                parts.append(part)
    facts["load_after"] = load()
    print(report(facts, parts))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"name": part.name, "rows": part.rows, "notes": part.notes} for part in parts]
    args.json.write_text(json.dumps({**facts, "parts": rows}, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
