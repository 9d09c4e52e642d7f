#!/usr/bin/env python3
"""Measure whether reading files in processes of their own pays: pieces of rows come back pickled and go into SQLite.

Contestants take turns: a thread beside the one that writes (as `fetcher fetch files` does it), one process, and two.
Prints seconds for each kind of file, medians of rounds. What follows: docs/decisions/0008-read-files-in-one-thread.md.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark_sources import item

from fetcher.model import Detail
from fetcher.sources.files.reading import read_file

FILES, ITEMS = 4, 2500
_rest: dict[str, Any] = {}


def piece(path: str) -> tuple[list[Any], bool]:
    """The next rows of a file, and whether there are more; the state stays in the thread or process that reads it."""
    detail = _rest.pop(path)() if path in _rest else read_file(path, None)
    assert isinstance(detail, Detail)
    if detail.rest is not None:
        _rest[path] = detail.rest
    return list(detail.rows["items"]), detail.rest is not None


def whole(path: str) -> list[list[Any]]:
    """All rows of a file."""
    found = []
    more = True
    while more:
        rows, more = piece(path)
        found.append(rows)
    return found


def store(pools: list[Executor], paths: list[str], db: Path) -> None:
    """Read all files, at most one ahead in each pool, and write them."""
    conn = sqlite3.connect(db)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute(
        "CREATE TABLE items (file TEXT, number INTEGER, id TEXT, json TEXT, PRIMARY KEY (file, number)) STRICT"
    )
    waiting = [pools[number % len(pools)].submit(whole, path) for number, path in enumerate(paths)]
    for each in waiting:
        for rows in each.result():
            with conn:
                conn.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", [row[:4] for row in rows])
    conn.close()


def written(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The files of each kind."""
    import stac_geoparquet.arrow as sg

    paths: dict[str, list[str]] = {"ndjson": [], "json": [], "parquet": []}
    for number in range(FILES):
        found = [item(each) for each in range(number * ITEMS, (number + 1) * ITEMS)]
        for kind in paths:
            paths[kind].append(str(folder / f"{number}.{kind}"))
        Path(paths["ndjson"][-1]).write_text("".join(json.dumps(each) + "\n" for each in found))
        Path(paths["json"][-1]).write_text(json.dumps(found))
        sg.parse_stac_ndjson_to_parquet(paths["ndjson"][-1], paths["parquet"][-1])
    yield from paths.items()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spawn = get_context("spawn")
        pools: dict[str, list[Executor]] = {
            "a thread": [ThreadPoolExecutor(1)],
            "a process": [ProcessPoolExecutor(1, spawn)],
            "two processes": [ProcessPoolExecutor(1, spawn), ProcessPoolExecutor(1, spawn)],
        }
        for kind, paths in written(folder):
            seconds: dict[str, list[float]] = {each: [] for each in pools}
            for number in range(rounds + 1):
                for each, executors in pools.items():
                    db = folder / "items.db"
                    began = time.perf_counter()
                    store(executors, paths, db)
                    if number:  # The first round starts processes and imports.
                        seconds[each].append(time.perf_counter() - began)
                    for made in folder.glob("items.db*"):
                        made.unlink()
            base = statistics.median(seconds["a thread"])
            for each, values in seconds.items():
                median = statistics.median(values)
                shown = ", ".join(f"{value:.2f}" for value in values)
                print(f"{kind:8} {each:14} {median:6.2f} s  {base / median:.2f} times  ({shown})", flush=True)
        for executors in pools.values():
            for pool in executors:
                pool.shutdown()


if __name__ == "__main__":
    main()
