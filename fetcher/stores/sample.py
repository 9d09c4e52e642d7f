"""Some of the items that a database knows, to ask for again."""

from __future__ import annotations

import random

from fetcher.model import Key, Table
from fetcher.place import Place
from fetcher.stores.opening import is_new, reading
from fetcher.stores.schema import quoted


def sample(path: Place, items: Table, most: int) -> list[Key]:
    """Up to `most` keys of items that are listed and not gone, spread by chance; none where there is no mirror yet.

    However many items there are, few rows are read: each key is the next one after a number drawn by chance. Raises
    StoreError.
    """
    if is_new(path):
        return []
    with reading(path) as sql:
        if not sql.has("sources"):
            return []
        table, key = quoted(items.name), quoted(items.columns[0].name)
        there = "gone_at IS NULL AND unlisted_at IS NULL"
        if not items.is_numbered:
            rows = sql.execute(f"SELECT {key} FROM {table} WHERE {there} LIMIT ?", [most]).fetchall()
            return [row[0] for row in rows]
        lo, hi = sql.execute(f"SELECT min({key}), max({key}) FROM {table}").fetchone()
        found: dict[Key, None] = {}
        for _ in range(2 * most if lo is not None else 0):
            if len(found) == most:
                break
            select = f"SELECT {key} FROM {table} WHERE {key} >= ? AND {there} ORDER BY {key} LIMIT 1"
            found.update(dict.fromkeys(row[0] for row in sql.execute(select, [random.randint(lo, hi)])))
        return list(found)
