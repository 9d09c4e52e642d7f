"""Make a mirror as it is after days of work, without the days: everything listed, some details still queued.

    python grown_mirror.py DB --items 1000000 --queued 100000 --tagged 100000 --base-url URL

The store itself makes the schema; the rows are written past it. The ids are those that the simulator shows for as many
items. Prints one line of JSON: the newest id, and the bytes of the file.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fetcher.simulator import World
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores.sqlite import SqliteStore

TAGS = 3
"""Tags of each item that has any."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=100_000, help="details still to fetch: those of the oldest items")
    parser.add_argument("--tagged", type=int, default=100_000, help="items with tags: the newest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-url", required=True)
    args = parser.parse_args()
    ids = World(args.seed, args.items).ids()
    SqliteStore.open(args.db, Pr0gramm.name, Pr0gramm.tables, args.base_url).close()
    conn = sqlite3.connect(args.db)
    conn.execute("PRAGMA synchronous = OFF")
    now = int(time.time())
    queued, tagged = ids[: args.queued], ids[len(ids) - min(args.tagged, len(ids)) :]
    conn.executemany(
        "INSERT INTO items (id, promoted, userId, up, down, created, image, thumb, fullsize, source, flags, user, mark,"
        " first_seen_at, listed_at, fetched_at) VALUES (?, 0, 7, 12, 3, ?, ?, ?, '', '', 1, 'somebody', 0, ?, ?, ?)",
        _items(ids, len(queued), now),
    )
    conn.executemany("INSERT INTO tags (item_id, id, tag, confidence) VALUES (?, ?, ?, 0.25)", _tags(tagged))
    conn.executemany(
        "INSERT INTO work (source, stage, key, due_at) VALUES (?, 'detail', ?, 0)",
        ((Pr0gramm.name, key) for key in queued),
    )
    conn.execute(
        "INSERT INTO coverage (source, scope, sweep, lo, hi, items, walked_at) VALUES (?, 1, 1, 1, ?, ?, ?)",
        [Pr0gramm.name, ids[-1], len(ids), now],
    )
    conn.execute("UPDATE sources SET items = ?, fetched = ?, work = ?", [len(ids), len(ids) - len(queued), len(queued)])
    conn.execute("INSERT INTO search (search) VALUES ('rebuild')")
    conn.commit()
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    print(json.dumps({"event": "grown", "newest": ids[-1], "bytes": args.db.stat().st_size}))


def _items(ids: Sequence[int], queued: int, now: int) -> Iterator[tuple[Any, ...]]:
    for at, key in enumerate(ids):
        path = f"2020/01/02/{key:016x}.jpg"
        yield key, 1_300_000_000 + key, path, path, now, now, None if at < queued else now


def _tags(ids: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    for key in ids:
        for at in range(TAGS):
            yield key, key * 64 + at, f"tag {(key + at) % 5000}"


if __name__ == "__main__":
    main()
