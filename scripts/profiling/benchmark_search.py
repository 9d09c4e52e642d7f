"""What a search costs once its vectors are loaded, and what loading them costs.

    python benchmark_search.py --vectors 100000 --dimension 256 --queries 200

Makes a database of so many chunks (130 words each, as unevenly spread as in a language) with random vectors, unless
--keep names one that was made before; then searches it in a process of its own. Words to search for are two of one
chunk: `common` are among the 100 most frequent, `usual` are not. The embedder costs nothing here: it is a table.
CPU is the mean of a query, of all threads.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from fetcher.search import Search
from fetcher.stores.file import connect
from fetcher.stores.texts import SCHEMA
from fetcher.texts.chunk import chunk_id, text_hash

VOCABULARY = [f"word{at}" for at in range(20_000)]
FREQUENCY = list(itertools.accumulate(1 / (at + 1) for at in range(len(VOCABULARY))))
COMMON = frozenset(VOCABULARY[:100])
WORDS = 130
IN_DOCUMENT = 200


class Table:
    """An embedder that has a vector ready for any text."""

    name = "random"

    def __init__(self, dimension: int) -> None:
        self._vectors = [each.tobytes() for each in random_vectors(64, dimension, seed=2)]
        self._next = itertools.cycle(self._vectors)

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        return [next(self._next) for _ in texts]


def random_vectors(count: int, dimension: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)


def texts(count: int) -> Iterator[str]:
    chance = random.Random(1)
    for _ in range(count):
        yield " ".join(chance.choices(VOCABULARY, cum_weights=FREQUENCY, k=WORDS))


def make(path: Path, count: int, dimension: int) -> None:
    with closing(connect(path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("BEGIN")
        for statement in SCHEMA:
            conn.execute(statement)
        conn.execute("INSERT INTO models VALUES (?, ?, 0)", [Table.name, dimension])
        numbered = enumerate(texts(count))
        while some := list(itertools.islice(numbered, IN_DOCUMENT)):
            document = some[0][0] // IN_DOCUMENT + 1
            name = f"book{document}.txt"
            conn.execute(
                "INSERT INTO documents (number, name, first_seen_at, listed_at) VALUES (?, ?, 0, 0)", [document, name]
            )
            rows = [
                (at + 1, chunk_id(name, place), document, place, text, text_hash(text))
                for place, (at, text) in enumerate(some)
            ]
            conn.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, 'd', 'c', 'A book', 'A chapter')", rows)
            vectors = random_vectors(len(some), dimension, seed=document + 10)
            pairs = ((row[5], vector.tobytes()) for row, vector in zip(rows, vectors, strict=True))
            conn.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", pairs)
        conn.execute("INSERT INTO chunks_search (chunks_search) VALUES ('rebuild')")
        conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def queries(count: int, *, common: bool) -> list[str]:
    """Two words that some chunk has, both frequent or neither."""
    chance = random.Random(3)
    found = []
    for text in texts(10 * count):
        fitting = sorted({word for word in text.split() if (word in COMMON) is common})
        found.append(" ".join(chance.sample(fitting, 2)))
    return found[:count]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(path: Path, dimension: int, count: int) -> None:
    """Print the figures of one process that searches."""
    before = peak()
    search = Search(path, Table(dimension))
    began = time.perf_counter()
    search.find("word1", 1, mode="vector")
    print(f"loaded in {time.perf_counter() - began:.2f} s, first query and imports included")
    print(f"peak memory {peak():,.0f} MB, {before:,.0f} MB before")
    print("mode     words   median ms   p99 ms   worst ms   CPU ms   hits a query")
    for mode, kind in itertools.product(("vector", "text", "hybrid"), ("usual", "common")):
        if (mode, kind) == ("vector", "common"):
            continue
        took, hits, cpu = [], 0, time.process_time()
        for words in queries(count if kind == "usual" else max(1, count // 10), common=kind == "common"):
            began = time.perf_counter()
            hits += len(search.find(words, 20, mode=mode))  # type: ignore[arg-type]
            took.append((time.perf_counter() - began) * 1000)
        cpu = (time.process_time() - cpu) / len(took) * 1000
        took.sort()
        print(
            f"{mode:8} {kind:7} {statistics.median(took):9.1f} {took[int(len(took) * 0.99)]:8.1f} {took[-1]:10.1f}"
            f" {cpu:8.1f} {hits / len(took):14.1f}"
        )
    print(f"peak memory {peak():,.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="the database: made where it is not there, and kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.keep or Path(folder) / "search.db"
        if not path.exists():
            began = time.perf_counter()
            make(path, args.vectors, args.dimension)
            print(f"made in {time.perf_counter() - began:.0f} s: {path.stat().st_size / 1e6:,.0f} MB")
        print(f"{args.vectors:,} vectors of {args.dimension}")
        # Spawned, so that its peak of memory is its own.
        process = multiprocessing.get_context("spawn").Process(target=run, args=(path, args.dimension, args.queries))
        process.start()
        process.join()
        sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
