#!/usr/bin/env python3
"""Write the files that the profiling of ingestion reads: the same for the same numbers, byte for byte.

    python test_data_generator.py json FOLDER --count 10000
    python test_data_generator.py collection FOLDER --count 1000 --broken 20
    python test_data_generator.py parquet FOLDER --count 5 --bytes 100000000

Prints one line of JSON: files, bytes, items, and how many of the files are broken. Not a test: it makes data for tests.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark_sources import item

NOTE_BYTES = 8192
"""Of the text in each row of a Parquet file, which compresses badly."""

GROUP_ROWS = 1000
BREAKS = ("cut off", "no UTF-8", "empty", "no JSON")
"""The ways in which a file is broken, by turns."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was written: `items` are those in whole files."""

    files: int
    bytes: int
    items: int
    broken: int = 0


def json_files(folder: Path, count: int) -> Made:
    """Files of about 5 KB with one STAC item each."""
    return _written(folder, ((f"{n:06d}.json", json.dumps(item(n)).encode()) for n in range(count)), items=count)


def collection(folder: Path, count: int, broken: int) -> Made:
    """The items of one collection, a file each, of which some are broken, evenly spread."""
    if not 0 <= broken <= count:
        raise ValueError(f"of {count} files {broken} cannot be broken")
    bad = {number * count // broken: number for number in range(broken)}

    def files() -> Iterator[tuple[str, bytes]]:
        for number in range(count):
            data = json.dumps(item(number)).encode()
            yield f"item-{number:06d}.json", spoiled(data, BREAKS[bad[number] % 4]) if number in bad else data

    return _written(folder, files(), items=count - broken, broken=broken)


def spoiled(data: bytes, how: str) -> bytes:
    """A document that is broken in one of the ways of BREAKS."""
    match how:
        case "cut off":
            return data[: len(data) // 2]
        case "no UTF-8":
            return data.replace(b"Feature", b"Feat\xffre", 1)
        case "empty":
            return b""
        case "no JSON":
            return b"<html>" + data
    raise ValueError(f"no such way to break a file: {how!r}")


def parquet_files(folder: Path, count: int, size: int, seed: int = 0) -> Made:
    """Parquet files of about `size` bytes each: an id, a time, numbers, and a text that compresses badly."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    written = rows = 0
    for number in range(count):
        path = folder / f"{number:03d}.parquet"
        rng = random.Random(f"{seed}-{number}")
        own = 0
        with path.open("wb") as file:
            writer = None
            while file.tell() < size:
                ids = range(own, own + GROUP_ROWS)
                columns = {
                    "id": [f"row-{number:03d}-{each:08d}" for each in ids],
                    "datetime": [f"2024-01-01T{each // 60 % 24:02d}:{each % 60:02d}:00Z" for each in ids],
                    **{f"value_{name}": [rng.random() for _ in ids] for name in "abcdefgh"},
                    "note": [rng.randbytes(NOTE_BYTES // 2).hex() for _ in ids],
                }
                table = pa.table(columns)
                if writer is None:
                    writer = pq.ParquetWriter(file, table.schema, compression="snappy", use_dictionary=False)
                writer.write_table(table)
                own += GROUP_ROWS
            if writer is not None:
                writer.close()
        rows += own
        written += path.stat().st_size
    return Made(count, written, rows)


def _written(folder: Path, files: Iterator[tuple[str, bytes]], *, items: int, broken: int = 0) -> Made:
    folder.mkdir(parents=True, exist_ok=True)
    count = size = 0
    for name, data in files:
        (folder / name).write_bytes(data)
        count += 1
        size += len(data)
    return Made(count, size, items, broken)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("json", "collection", "parquet"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, required=True, metavar="N", help="how many files")
    parser.add_argument("--broken", type=int, default=0, metavar="N", help="how many of a collection's are broken")
    parser.add_argument("--bytes", type=int, default=100_000_000, metavar="N", help="of each Parquet file")
    args = parser.parse_args(words)
    make: dict[str, Callable[[], Made]] = {
        "json": lambda: json_files(args.folder, args.count),
        "collection": lambda: collection(args.folder, args.count, args.broken),
        "parquet": lambda: parquet_files(args.folder, args.count, args.bytes),
    }
    print(json.dumps({"event": "made", **asdict(make[args.kind]())}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
