#!/usr/bin/env python3
"""Profile the whole way of an item: from a STAC API through a function into SQLite, and out as NDJSON.

    python profile_mixed.py fetcher URL --workers 10

Run so it is one contestant, as `profile_api_requests.py`; the digest is that of every line it wrote, sorted, so that
all contestants wrote the same, whatever their order.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from ingest_cases import DB, FETCHER, PLAIN, Account, Case, Strategy, contestant
from profile_api_requests import Mirror, fetched, needs, pages

LINES = Path("items.ndjson")
CLOUDY = 90
"""Items with more clouds, in percent, are left out."""


def tidy(row: dict[str, Any]) -> dict[str, Any] | None:
    """An item without its links and with a word for its clouds; None where there are too many."""
    properties = row.get("properties")
    if properties is None:
        return row  # A row of another table.
    cover = properties.get("eo:cloud_cover")
    if cover is not None and cover > CLOUDY:
        return None
    properties["sky"] = "unknown" if cover is None else "clear" if cover < 20 else "cloudy"
    row["links"] = None
    return row


def plain(url: str, account: Account, workers: int) -> None:  # noqa: ARG001
    """One thing after the other, by hand."""
    with closing(Mirror(account)) as mirror:
        for page in pages(url, account):
            began = time.perf_counter()
            kept = [item for item in map(tidy, page) if item is not None]
            for item in kept:
                del item["links"]
            account.add("transform", began)
            mirror.store(kept)
    export("SELECT json FROM items", account)


def fetcher_itself(url: str, account: Account, workers: int) -> None:
    """`fetcher fetch stac --transform`, as a library, and the view that gives items back."""
    began = time.perf_counter()
    fetched(url, account, workers, transform=tidy)
    account.add("fetch", began)
    export("SELECT item FROM stac_items", account)


def export(query: str, account: Account) -> None:
    """Write every item as a line."""
    began = time.perf_counter()
    with closing(sqlite3.connect(DB)) as conn, LINES.open("w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for (text,) in conn.execute(query))
    account.add("export", began)


STRATEGIES: dict[str, Strategy] = {PLAIN: plain, FETCHER: fetcher_itself}


def canonical() -> Iterator[str]:
    """Every line as JSON of one form."""
    with LINES.open(encoding="utf-8") as file:
        for line in file:
            yield json.dumps(json.loads(line), sort_keys=True)


def checked(url: str, account: Account) -> None:  # noqa: ARG001
    """Count the lines, and take a digest of them, sorted."""
    found = sorted(canonical())
    account.items = len(found)
    account.bytes = LINES.stat().st_size
    account.digest = sha256("\n".join(found).encode()).hexdigest()


def cases(name: str, workers: Sequence[int]) -> list[Case]:
    """The plain loop, and fetcher with these numbers of windows and with one."""
    script = "profile_mixed.py"
    return [
        Case("mixed", name, PLAIN, 1, script, (PLAIN,)),
        *(
            Case("mixed", name, FETCHER, count, script, (FETCHER, "--workers", str(count)))
            for count in sorted({1, *workers})
        ),
    ]


def main(words: Sequence[str]) -> int:
    return contestant(words, __doc__, STRATEGIES, needs, checked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
