#!/usr/bin/env python3
"""Measure a mirror of a STAC API: 8 windows beside one, and one beside pystac-client, against the simulator.

10,000 items, 100 a page, 50 ms a page; the simulator is a process of its own, each run a fresh process in an empty
folder, and the contestants take turns in each round. Takes about three minutes. The exit code is 0 even if a target is
missed, 1 if something is wrong. pystac-client is in the extra `profile`, and left out where it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import HERE, Run, Wrong, environment, leave, load, machine, run, shown

PLAIN = """
import json, sqlite3, sys, time
from pystac_client import Client

began = time.perf_counter()
conn = sqlite3.connect("plain.db")
conn.execute("CREATE TABLE items (id TEXT PRIMARY KEY, item TEXT)")
for page in Client.open(sys.argv[1]).search(collections=[sys.argv[2]], limit=100).pages_as_dicts():
    with conn:
        rows = [(each["id"], json.dumps(each)) for each in page["features"]]
        conn.executemany("INSERT INTO items VALUES (?, ?)", rows)
print(json.dumps({"event": "end", "seconds": time.perf_counter() - began}))
"""
"""What a script with pystac-client does: each page into a table of JSON."""


@contextlib.contextmanager
def simulated(folder: Path, items: int, latency: float) -> Iterator[str]:
    """The address of a simulated STAC API of one collection."""
    command = [sys.executable, "-m", "fetcher", "simulate", "stac", "--port", "0", "--collections", "1"]
    process = subprocess.Popen(
        [*command, "--items", str(items), "--latency", str(latency)],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().split(" at ")[1].split()[0]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def contestants(url: str) -> dict[str, list[str]]:
    """The command of each, and the database that it leaves is called after it."""
    fetch = [sys.executable, "-m", "fetcher", "fetch", "stac", "fetcher.db", "--base-url", url, "--log-format", "json"]
    found = {
        f"{windows} windows": [*fetch, "--delay", "0", "--max-rate", "0", "--windows", str(windows)]
        for windows in (1, 2, 4, 8)
    }
    if importlib.util.find_spec("pystac_client"):
        found["pystac-client"] = [sys.executable, "-c", PLAIN, url, "sentinel-1"]
    return found


def measured(folder: Path, name: str, command: Sequence[str], items: int) -> tuple[Run, float]:
    """One run in a folder of its own, and its seconds by its own account: without the start of Python. Raises Wrong."""
    place = Path(tempfile.mkdtemp(dir=folder))
    done = run(command, place, timeout=300)
    db = place / ("plain.db" if name == "pystac-client" else "fetcher.db")
    with contextlib.closing(sqlite3.connect(db)) as conn:
        (there,) = conn.execute("SELECT count(*) FROM items").fetchone()
    if there != items:
        raise Wrong(f"{name} has {there} of {items} items")
    return done, float(done.event("end")["seconds"])


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how many (5)")
    parser.add_argument("--items", type=int, default=10_000, metavar="N", help="how many (10000)")
    parser.add_argument("--latency", type=float, default=0.05, metavar="S", help="seconds a page takes (0.05)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "benchmark_stac.json", metavar="FILE")
    args = parser.parse_args(words)
    rounds: list[dict[str, dict[str, float]]] = []
    before = load()
    with tempfile.TemporaryDirectory(prefix="fetcher-stac-") as name:
        folder = Path(name)
        facts: dict[str, Any] = {"machine": machine(folder), "command": shown(["benchmark_stac.py", *words])}
        with simulated(folder, args.items, args.latency) as url:
            for _ in range(args.rounds):
                figures = {}
                for who, command in contestants(url).items():
                    done, seconds = measured(folder, who, command, args.items)
                    figures[who] = {"seconds": seconds, "process": done.wall, "cpu": done.cpu}
                rounds.append(figures)
    print(f"# Benchmark of STAC\n\n- load average {before} before, {load()} after; {args.rounds} rounds\n")
    print("| contestant | seconds | … of the whole process | its CPU seconds |\n|---|---|---|---|")
    for who in rounds[0]:
        cells = [statistics.median(each[who][what] for each in rounds) for what in rounds[0][who]]
        print(f"| {who} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    print()
    ratios = {"1 windows / 8 windows (target: at least 6)": ("1 windows", "8 windows")}
    if "pystac-client" in rounds[0]:
        ratios["pystac-client / 1 windows (target: at least 1)"] = ("pystac-client", "1 windows")
    for what, (one, other) in ratios.items():
        found = [each[one]["seconds"] / each[other]["seconds"] for each in rounds]
        print(f"- {what}: {statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})")
    facts |= {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "load": before, "rounds": rounds}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
