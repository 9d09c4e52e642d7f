#!/usr/bin/env python3
"""Profile how files come into a database: a plain loop, threads, processes, and `fetcher fetch files` itself.

    python profile_file_io.py threads FOLDER --workers 10

Run so it is one contestant: it reads and parses every file of FOLDER, stores the items in `items.db` here, and prints
what that cost as JSON. Threads and processes read and parse, and one thread writes. `benchmark_ingest.py` runs all.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

from ingest_cases import DB, FETCHER, OURS, PLAIN, Account, Case, Strategy, checked, contestant, peak_of

TRANSACTION = 1000
"""Files a transaction, as the source `files` has it."""

CHUNK = 50
"""Small files that go to a process at once: one at a time, the handing over would be most of the work."""

Row = tuple[str, int, str | None, str]
"""The file, the number of the item in it, its id, its JSON text."""
Read = tuple[list[Row], int]
"""The items of a file, and how many bytes it has; no items where it is broken."""


# --- the work ---------------------------------------------------------------------------------------


def paths_of(folder: str) -> list[str]:
    """The files of a folder; listing them is a part of the work."""
    return sorted(map(str, Path(folder).iterdir()))


def parsed_json(path: str, data: bytes) -> list[Row]:
    """The item of a file; none where it is broken."""
    try:
        found = json.loads(data)
    except ValueError:
        return []
    return [(path, 1, found["id"], json.dumps(found))]


def read_json(path: str) -> Read:
    """Read and parse a file."""
    data = Path(path).read_bytes()
    return parsed_json(path, data), len(data)


def read_parquet(path: str) -> Read:
    """Read a Parquet file and turn its rows into JSON text."""
    import pyarrow.parquet as pq

    rows: list[Row] = []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(500, use_threads=False):
            rows += [(path, len(rows) + n, row["id"], json.dumps(row)) for n, row in enumerate(batch.to_pylist(), 1)]
    return rows, Path(path).stat().st_size


READERS: dict[str, Callable[[str], Read]] = {".json": read_json, ".parquet": read_parquet}


def opened() -> sqlite3.Connection:
    """A new database of the plain kind."""
    conn = sqlite3.connect(DB)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("CREATE TABLE items (file TEXT, number INTEGER, id TEXT, json TEXT, PRIMARY KEY (file, number))")
    return conn


def store(found: Iterable[Read], account: Account) -> None:
    """Write what was read, so many files a transaction."""
    with closing(opened()) as conn:
        for number, (rows, size) in enumerate(found, 1):
            began = time.perf_counter()
            conn.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
            account.items += len(rows)
            account.bytes += size
            account.wrong += not rows
            if number % TRANSACTION == 0 or size > 1_000_000:
                conn.commit()
            account.add("store", began)
        began = time.perf_counter()
        conn.commit()
        account.add("store", began)


def plain(folder: str, account: Account, workers: int) -> None:  # noqa: ARG001
    """One file after the other; where the time goes is noted."""

    def found() -> Iterator[Read]:
        for path in paths_of(folder):
            began = time.perf_counter()
            if path.endswith(".json"):
                data = Path(path).read_bytes()
                began = account.add("read", began)
                rows, size = parsed_json(path, data), len(data)
            else:
                rows, size = read_parquet(path)
            account.add("parse", began)
            yield rows, size

    store(found(), account)


def divided(folder: str, account: Account) -> None:
    """Say how much of what a Parquet file took was its bytes: a library that does both in one does not tell."""
    if "parse" in account.parts and "read" not in account.parts:
        began = time.perf_counter()
        for path in paths_of(folder):
            with Path(path).open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
        account.parts["read"] = min(account.parts["parse"], time.perf_counter() - began)
        account.parts["parse"] -= account.parts["read"]


def threads(folder: str, account: Account, workers: int) -> None:
    """A ThreadPoolExecutor reads and parses."""
    paths = paths_of(folder)
    with ThreadPoolExecutor(workers) as pool:
        store(pool.map(READERS[Path(paths[0]).suffix], paths), account)


def processes(folder: str, account: Account, workers: int) -> None:
    """A ProcessPoolExecutor reads and parses; the items come back pickled."""
    paths = paths_of(folder)
    size = CHUNK if paths[0].endswith(".json") else 1
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        store(pool.map(READERS[Path(paths[0]).suffix], paths, chunksize=size), account)
        # Nothing public tells the processes of a pool.
        account.helpers = sum(map(peak_of, pool._processes))


def fetcher_itself(folder: str, account: Account, workers: int) -> None:
    """`fetcher fetch files`, as a library."""
    import fetcher

    summary = fetcher.fetch("files", DB, file_paths=(folder,), max_parallel_requests=workers, log_level="ERROR")
    account.wrong = summary.parked
    account.bytes = sum(Path(path).stat().st_size for path in paths_of(folder))


STRATEGIES: dict[str, Strategy] = {
    PLAIN: plain,
    "threads": threads,
    "processes": processes,
    FETCHER: fetcher_itself,
}


def needs(strategy: str, folder: str) -> Sequence[str]:
    """What a strategy imports for the files of a folder."""
    own = {FETCHER: OURS, "processes": ("multiprocessing.popen_fork", "multiprocessing.synchronize")}
    parquet = paths_of(folder)[0].endswith(".parquet")
    return *own.get(strategy, ()), *(("pyarrow.parquet",) if parquet else ())


# --- the cases --------------------------------------------------------------------------------------


def cases(name: str, folder: Path, workers: Sequence[int], *, only: Sequence[str] = ()) -> list[Case]:
    """Every strategy over one folder; fetcher reads files in one thread, so that two numbers of workers show it."""
    counts = {PLAIN: [1], FETCHER: sorted({1, 10 if 10 in workers else workers[-1]})}
    return [
        Case("file", name, strategy, count, "profile_file_io.py", (strategy, str(folder), "--workers", str(count)))
        for strategy in STRATEGIES
        if not only or strategy in only
        for count in counts.get(strategy, workers)
    ]


def check(folder: str, account: Account) -> None:
    """Look at what is in the database, and divide the time of what did two things in one."""
    checked(folder, account)
    divided(folder, account)


def main(words: Sequence[str]) -> int:
    return contestant(words, __doc__, STRATEGIES, needs, check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
