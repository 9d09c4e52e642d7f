"""Whether two mirrors hold the same: counts and a digest of what a database, or the simulated world itself, holds.

    python verify.py database FILE
    python verify.py world ITEMS SEED

Prints one line of JSON: items, tags, comments, digest. Run as a process of its own, so that the benchmark stays small.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ITEM = (
    "id", "promoted", "userId", "up", "down", "created", "image", "thumb", "fullsize", "preview", "width", "height",
    "source", "flags", "user", "mark", "gift",
)  # fmt: skip
TAG = ("id", "tag", "confidence")
COMMENT = ("id", "parent", "content", "created", "up", "down", "confidence", "name", "mark")

Row = tuple[Any, ...]


def of_database(path: Path) -> dict[str, Any]:
    """What a mirror holds."""
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    def rows(table: str, columns: tuple[str, ...], order: str) -> Iterator[Row]:
        names = ", ".join(f'"{name}"' for name in columns)
        yield from conn.execute(f"SELECT {names} FROM {table} ORDER BY {order}")

    try:
        return _digest(
            lambda: rows("items", ITEM, "id"),
            lambda: rows("tags", ("item_id", *TAG), "item_id, id"),
            lambda: rows("comments", ("item_id", *COMMENT), "item_id, id"),
        )
    finally:
        conn.close()


def of_world(items: int, seed: int) -> dict[str, Any]:
    """What a mirror of the simulated API should hold."""
    from fetcher.simulator import World

    world = World(seed, items)

    def details(name: str, columns: tuple[str, ...]) -> Iterator[Row]:
        for key in world.ids():
            each = sorted(world.info(key)[name], key=lambda fields: fields["id"])
            for fields in each:
                # SQLite gives whole numbers of a REAL column back as floats.
                yield (key, *(float(fields[c]) if c == "confidence" else fields[c] for c in columns))

    return _digest(
        lambda: (tuple(map(world.item(key).get, ITEM)) for key in world.ids()),
        lambda: details("tags", TAG),
        lambda: details("comments", COMMENT),
    )


def _digest(*tables: Callable[[], Iterable[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    digest = hashlib.sha256()
    for name, rows in zip(("items", "tags", "comments"), tables, strict=True):
        left = iter(rows())
        count = 0
        while some := list(islice(left, 1000)):
            count += len(some)
            digest.update(repr(some).encode("utf-8", "surrogatepass"))
        found[name] = count
    return {**found, "digest": digest.hexdigest()}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    result = of_database(Path(rest[0])) if what == "database" else of_world(int(rest[0]), int(rest[1]))
    print(json.dumps({"event": "verified", **result}))
