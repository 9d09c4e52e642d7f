"""What full-text search and a live index cost a batch, and what they are worth afterwards.

    python search_cost.py --items 100000 --batch 200

Every variant commits the same batch before the next batch comes, so that all of them see the same moods of the machine.
CPU is that of the commits alone, in microseconds an item; `made after` is the index made at the end of the load.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fetcher.model import Batch, Counts, Detail, Interval, Page, Plan, Progress, RunState, Table
from fetcher.simulator import World
from fetcher.sources.pr0gramm import COMMENTS, ITEMS, TAGS
from fetcher.stores import search as store_search
from fetcher.stores.sqlite import SqliteStore

IDLE = RunState(Progress(Counts(), 0.0, 0, 0, 0.0, None))
TAG_COLUMNS = [column.name for column in TAGS.columns]
COMMENT_COLUMNS = [column.name for column in COMMENTS.columns]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to store: with search or without, FTS5's options for it, and whether the index is live all along."""

    search: bool = True
    options: str = ""
    automerge: int = 8
    tags_first: bool = False
    live: bool = False

    @property
    def tables(self) -> tuple[Table, ...]:
        return (ITEMS, *(replace(each, search=each.search if self.search else ()) for each in (TAGS, COMMENTS)))


VARIANTS = {
    "no search": Variant(search=False),
    "search": Variant(),
    "automerge=4": Variant(automerge=4),
    "automerge=16": Variant(automerge=16),
    "tags first": Variant(tags_first=True),
    "columnsize=0": Variant(options=", columnsize=0"),
    "detail=column": Variant(options=", detail='column'"),
    "index live": Variant(search=False, live=True),
}


class Tuned(SqliteStore):
    """A store whose search is made with other options."""

    variant = Variant()

    def _prepare(self, *args: Any) -> None:
        if self._search is not None:
            options = self.variant.options
            self._search._table = f"{self._search._table[:-1]}{options})"
            if self.variant.tags_first:
                self._search._table = self._search._table.replace('"comments", "tags"', '"tags", "comments"')
        store_search._AUTOMERGE = self.variant.automerge
        super()._prepare(*args)


def details_of(world: World, key: int) -> Detail:
    """The rows that the API's answer would become."""
    info = world.info(key)
    return Detail(
        {
            "tags": [(key, *(each.get(name) for name in TAG_COLUMNS), None) for each in info["tags"]],
            "comments": [(key, *(each.get(name) for name in COMMENT_COLUMNS), None) for each in info["comments"]],
        }
    )


def item_of(key: int) -> tuple[Any, ...]:
    values = {"id": key, "created": 1_300_000_000 + key, "flags": 1, "user": "somebody", "image": f"2020/{key:016x}"}
    return (*(values.get(column.name) for column in ITEMS.columns), None)


def opened(variant: Variant, path: Path, keys: Sequence[int]) -> SqliteStore:
    """A store in which all items are listed."""
    kind = type("Store", (Tuned,), {"variant": variant})
    store: SqliteStore = kind.open(path, "pr0gramm", variant.tables, "http://localhost")
    store._conn.execute("PRAGMA synchronous = OFF")
    store.begin_run(Plan())
    store.want({1: Interval(1, 1)})
    for start in range(0, len(keys), 5000):
        rows = tuple(item_of(key) for key in keys[start : start + 5000])
        store.commit(Batch(pages=(Page(rows, (1,), None, None),)), IDLE)
    if variant.live:
        store.finish_load()
    return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    args = parser.parse_args()
    world = World(0, args.items)
    keys = list(world.ids())
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: opened(VARIANTS[name], Path(folder) / f"{name}.db", keys) for name in args.only}
        spent = dict.fromkeys(stores, 0.0)
        worst = dict.fromkeys(stores, 0.0)
        last_tenth = dict.fromkeys(stores, 0.0)
        order = list(stores)
        keys.reverse()
        for start in range(0, len(keys), args.batch):
            batch = Batch(details={key: details_of(world, key) for key in keys[start : start + args.batch]})
            order.append(order.pop(0))
            for name in order:
                began = time.process_time()
                stores[name].commit(batch, IDLE)
                took = time.process_time() - began
                spent[name] += took
                worst[name] = max(worst[name], took)
                last_tenth[name] += took if start >= len(keys) * 0.9 else 0
        print(f"{args.items:,} items, batch {args.batch}, newest first; SQLite {sqlite3.sqlite_version}")
        print("variant         µs an item  (last tenth)  bytes an item  worst batch ms  index made after: µs an item")
        for name, store in stores.items():
            with closing(store):
                store._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                size = (Path(folder) / f"{name}.db").stat().st_size
                began = time.process_time()
                store.finish_load()
                made = (time.process_time() - began) / args.items * 1e6
            print(
                f"{name:15} {spent[name] / args.items * 1e6:10.1f} {last_tenth[name] / args.items * 1e7:13.1f}"
                f" {size / args.items:14,.0f} {worst[name] * 1000:15.0f} {made:15.1f}"
            )


if __name__ == "__main__":
    main()
