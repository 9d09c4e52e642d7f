"""What goes through a store in a second, PostgreSQL beside SQLite: chunks, their vectors, and a mirror's items.

    python benchmark_postgres.py --chunks 20000 --items 4000 --rounds 3

Each round writes the same batches to a new SQLite file and to a new database of a PostgreSQL server that is started
here (the tests' own: binaries of a wheel, on loopback, with fsync), one after the other, so that whatever else the
machine does hits both alike. A batch is what one transaction writes, rows and the end of their work; rates are those of
the best and of the median round. The engine, its threads and the network have no part in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from benchmark_embed import paragraphs

from fetcher import fetch
from fetcher.model import Batch, Counts, Detail, Interval, Page, Plan, Progress, RunState
from fetcher.place import Place, place_of
from fetcher.simulator import Simulator, World
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores import texts as stored
from fetcher.stores.opening import open_store, reading
from fetcher.stores.stages import DocumentWriter, StageStore, VectorWriter
from fetcher.stores.texts_index import index_of
from fetcher.texts.chunk import chunk_id, text_hash
from tests.postgres import PostgresServer

IDLE = RunState(Progress(Counts(), 0.0, 0, 0, 0.0, None))
RESULTS = Path(__file__).parent / "results" / "postgres.json"


def chunk_rows(count: int, length: int) -> Iterator[tuple[Any, ...]]:
    """Chunks of about so many characters, no two the same."""
    for place, text in enumerate(islice(paragraphs(1), count)):
        short = text[:length]
        yield (chunk_id("book", place), place, short, text_hash(short), "texts", "books", "book", None)


def parts(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The rows in batches."""
    return (rows[at : at + size] for at in range(0, len(rows), size))


def texts(place: Place, rows: Sequence[Any], vectors: Sequence[bytes], size: int) -> dict[str, float]:
    """Rows a second of chunks, of their vectors, of both; and the seconds that the indexes took in the end."""
    db, source = stored.open_texts(place, clock=time.time)
    try:
        stored.enlist(db, source, "read", [("book", "1", None)], 1)
        reader = StageStore(db, source, DocumentWriter("read"), time.time)
        reader.begin_run(Plan())
        began, last = time.perf_counter(), -1
        for some in parts(rows, size):
            reader.commit(Batch(parts=(("book", Detail({"chunks": some, "after": [(last,)]})),), stage="read"), IDLE)
            last = some[-1][1]
        done = Detail({"documents": [("1", len(rows), last)]})
        reader.commit(Batch(details={"book": done}, stage="read"), IDLE)
        chunks = time.perf_counter() - began
        dimension = len(vectors[0]) // 4
        embedder = StageStore(db, source, VectorWriter(lambda: ("random", dimension)), time.time)
        embedder.begin_run(Plan())
        pairs = [(row[3], vector) for row, vector in zip(rows, vectors, strict=True)]
        began = time.perf_counter()
        for some in parts(pairs, size):
            details = {key: Detail({"vectors": [(key, vector)]}) for key, vector in some}
            embedder.commit(Batch(details=details, stage="embed"), IDLE)
        written = time.perf_counter() - began
        began = time.perf_counter()
        index_of(db).finish_load()
        finish = time.perf_counter() - began
    finally:
        db.close()
    count = len(rows)
    return {
        "chunks": count / chunks,
        "vectors": count / written,
        "both": count / (chunks + written),
        "both_with_indexes": count / (chunks + written + finish),
        "finish_seconds": finish,
    }


def batches(file: Path, size: int) -> list[tuple[Batch, Batch]]:
    """What a mirror was written in: for so many items a listed page, and their details."""
    tables = Pr0gramm.tables
    found = []
    with reading(file) as sql:
        rows: dict[str, list[Any]] = {}
        for table in tables:
            names = [*([table.parent] if table.parent else []), *(each.name for each in table.columns), "extra"]
            columns = ", ".join(f'"{name}"' for name in names)
            rows[table.name] = sql.execute(f'SELECT {columns} FROM "{table.name}" ORDER BY 1, 2').fetchall()
    items, children = tables[0].name, [table.name for table in tables[1:]]
    of: dict[int, dict[str, list[Any]]] = {row[0]: {name: [] for name in children} for row in rows[items]}
    for name in children:
        for row in rows[name]:
            of[row[0]][name].append(row)
    for some in parts(rows[items], size):
        keys = [row[0] for row in some]
        page = Page(tuple(some), (1,), Interval(keys[0], keys[-1]), None)
        found.append((Batch(pages=(page,)), Batch(details={key: Detail(of[key]) for key in keys})))
    return found


def items(place: Place, written: Sequence[tuple[Batch, Batch]], count: int) -> dict[str, float]:
    """Items a second, each listed and then given its details."""
    store = open_store(place, "pr0gramm", Pr0gramm.tables, "http://here.test")
    try:
        store.begin_run(Plan())
        store.want({1: Interval(1, 2**40)})
        store.prepare_load(count)
        began = time.perf_counter()
        for listed, detailed in written:
            store.commit(listed, IDLE)
            store.commit(detailed, IDLE)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        store.finish_load()
        finish = time.perf_counter() - began
    finally:
        store.close()
    return {"items": count / seconds, "with_indexes": count / (seconds + finish), "finish_seconds": finish}


def summed(rounds: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The best and the median of each figure; of seconds the fewest."""
    return {
        name: {
            "best": round((min if name.endswith("seconds") else max)(each[name] for each in rounds), 2),
            "median": round(statistics.median(each[name] for each in rounds), 2),
        }
        for name in rounds[0]
    }


def main() -> None:
    """Run what was asked for, print it and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=4_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--length", type=int, nargs="*", default=[100, 950], help="characters of a chunk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    results: dict[str, Any] = {
        "chunks": options.chunks,
        "items": options.items,
        "dimension": options.dimension,
        "batch": options.batch,
        "rounds": options.rounds,
        "processors": os.cpu_count(),
        "load_before": [round(each, 1) for each in os.getloadavg()],
    }
    random = np.random.default_rng(1).standard_normal((options.chunks, options.dimension), dtype=np.float32)
    vectors = [each.tobytes() for each in random]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "postgres"
        made.mkdir()
        Path(folder).chmod(0o755)
        server = PostgresServer(made, durable=True)
        server._settings |= {"shared_buffers": "256MB", "max_wal_size": "2GB", "autovacuum": "on"}
        server.start()
        try:
            for length in options.length:
                rows = list(chunk_rows(options.chunks, length))
                ours, theirs = [], []
                for number in range(options.rounds):
                    theirs.append(texts(Path(folder) / f"t{length}-{number}.db", rows, vectors, options.batch))
                    ours.append(texts(place_of(server.url()), rows, vectors, options.batch))
                results[f"texts_of_{length}"] = _beside(ours, theirs)
            mirrored = Path(folder) / "mirror.db"
            with Simulator(World(seed=1, items=options.items)) as simulator:
                fetch(db=mirrored, api_base_url=simulator.url, request_delay=0, max_requests_per_second=0)
            written = batches(mirrored, options.batch)
            ours, theirs = [], []
            for number in range(options.rounds):
                theirs.append(items(Path(folder) / f"m{number}.db", written, options.items))
                ours.append(items(place_of(server.url()), written, options.items))
            results["mirror"] = _beside(ours, theirs)
        finally:
            server.kill()
    results["load_after"] = [round(each, 1) for each in os.getloadavg()]
    print(json.dumps(results, indent=2))
    options.results.write_text(json.dumps(results, indent=2) + "\n")


def _beside(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> dict[str, Any]:
    first = next(iter(ours[0]))
    ratios = [one[first] / other[first] for one, other in zip(ours, theirs, strict=True)]
    return {
        "postgres": summed(ours),
        "sqlite": summed(theirs),
        "ratios": {
            name: round(statistics.median(a[name] / b[name] for a, b in zip(ours, theirs, strict=True)), 2)
            for name in ours[0]
            if not name.endswith("seconds")
        },
        "ratios_of_rounds": [round(each, 2) for each in ratios],
    }


if __name__ == "__main__":
    main()
