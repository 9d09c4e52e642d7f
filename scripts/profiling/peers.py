"""Mirrors written in the obvious ways, to measure fetcher beside: each is what a good afternoon's script looks like.

    python peers.py barrier URL DB --workers 50

`barrier` lists a page, fetches its details in a ThreadPoolExecutor through one requests.Session, waits for all of them,
commits, and goes on; `barrier-sessions` does so with a Session for each thread; `gather` does so with asyncio, aiohttp
and a semaphore; `sequential` fetches one thing after the other. None resumes, retries or keeps to a pace. The last line
on stdout is JSON: items stored, requests, seconds from the first request to the last commit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from verify import COMMENT, ITEM, TAG

AGENT = {"User-Agent": "benchmark-peer/1.0"}
TIMEOUT = 30

Answer = dict[str, Any]


class Mirror:
    """The database of a peer: plain executemany, one commit a page."""

    def __init__(self, path: Path) -> None:
        self.stored = 0
        self._conn = sqlite3.connect(path)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute(f"CREATE TABLE items ({_columns(ITEM)}, PRIMARY KEY (id))")
        for name, columns in (("tags", TAG), ("comments", COMMENT)):
            self._conn.execute(f"CREATE TABLE {name} (item_id INTEGER, {_columns(columns)}, PRIMARY KEY (item_id, id))")

    def store(self, items: list[Answer], infos: list[Answer]) -> None:
        """Write a page and its details, and commit."""
        self._insert("items", [tuple(map(item.get, ITEM)) for item in items])
        for name, columns in (("tags", TAG), ("comments", COMMENT)):
            rows = [
                (item["id"], *map(each.get, columns))
                for item, info in zip(items, infos, strict=True)
                for each in info[name]
            ]
            self._insert(name, rows)
        self._conn.commit()
        self.stored += len(items)

    def _insert(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self._conn.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

    def close(self) -> None:
        self._conn.close()


def _columns(names: tuple[str, ...]) -> str:
    texts = {"image", "thumb", "fullsize", "preview", "source", "user", "tag", "content", "name"}
    kinds = {name: "TEXT" if name in texts else "REAL" if name == "confidence" else "INTEGER" for name in names}
    return ", ".join(f'"{name}" {kind}' for name, kind in kinds.items())


def barrier(url: str, mirror: Mirror, workers: int, *, session_each: bool = False) -> int:
    """One page at a time: list it, fetch its details in parallel, store it."""
    import requests
    from requests.adapters import HTTPAdapter

    def make() -> requests.Session:
        session = requests.Session()
        session.headers.update(AGENT)
        # Without it the pool keeps 10 connections and closes those of all other threads after each request.
        session.mount("http://", HTTPAdapter(pool_maxsize=workers))
        return session

    shared = make()
    own = threading.local()

    def session() -> requests.Session:
        if not session_each:
            return shared
        if not hasattr(own, "session"):
            own.session = make()
        found: requests.Session = own.session
        return found

    def info(key: int) -> Answer:
        return _got(session().get(f"{url}/items/info", params={"itemId": key}, timeout=TIMEOUT))

    with ThreadPoolExecutor(workers) as pool:
        return _walk(
            lambda params: _got(shared.get(f"{url}/items/get", params=params, timeout=TIMEOUT)),
            lambda keys: list(pool.map(info, keys)),
            mirror,
        )


def sequential(url: str, mirror: Mirror, _workers: int) -> int:
    """One request after the other."""
    import requests

    with requests.Session() as session:
        session.headers.update(AGENT)
        return _walk(
            lambda params: _got(session.get(f"{url}/items/get", params=params, timeout=TIMEOUT)),
            lambda keys: [
                _got(session.get(f"{url}/items/info", params={"itemId": key}, timeout=TIMEOUT)) for key in keys
            ],
            mirror,
        )


def _walk(page: Callable[[Answer], Answer], infos: Callable[[list[int]], list[Answer]], mirror: Mirror) -> int:
    """List from the newest item down; returns how many requests there were."""
    params: Answer = {"flags": 1}
    requests = 0
    while True:
        listed = page(params)
        items = listed["items"]
        mirror.store(items, infos([item["id"] for item in items]))
        requests += 1 + len(items)
        if listed["atEnd"] or not items:
            return requests
        params["older"] = min(item["id"] for item in items)


def _got(response: Any) -> Answer:
    response.raise_for_status()
    answer: Answer = response.json()
    return answer


def gather(url: str, mirror: Mirror, workers: int) -> int:
    """One page at a time, its details gathered under a semaphore."""
    import asyncio

    import aiohttp

    async def mirrored() -> int:
        enough = asyncio.Semaphore(workers)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        connector = aiohttp.TCPConnector(limit=workers)
        async with aiohttp.ClientSession(headers=AGENT, timeout=timeout, connector=connector) as session:

            async def get(path: str, params: Answer) -> Answer:
                async with session.get(f"{url}/{path}", params=params) as response:
                    response.raise_for_status()
                    answer: Answer = await response.json()
                    return answer

            async def info(key: int) -> Answer:
                async with enough:
                    return await get("items/info", {"itemId": key})

            params: Answer = {"flags": 1}
            requests = 0
            while True:
                listed = await get("items/get", params)
                items = listed["items"]
                mirror.store(items, list(await asyncio.gather(*(info(item["id"]) for item in items))))
                requests += 1 + len(items)
                if listed["atEnd"] or not items:
                    return requests
                params["older"] = min(item["id"] for item in items)

    return asyncio.run(mirrored())


KINDS: dict[str, tuple[str, Callable[[str, Mirror, int], int]]] = {
    "barrier": ("requests", barrier),
    "barrier-sessions": ("requests", partial(barrier, session_each=True)),
    "gather": ("aiohttp", gather),
    "sequential": ("requests", sequential),
}
"""Each with the library it needs, which is imported before the clock starts, as fetcher's are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("url")
    parser.add_argument("db", type=Path)
    parser.add_argument("--workers", type=int, default=10)
    args = parser.parse_args()
    library, mirrored = KINDS[args.kind]
    importlib.import_module(library)
    mirror = Mirror(args.db)
    began = time.perf_counter()
    requests = mirrored(args.url, mirror, args.workers)
    seconds = time.perf_counter() - began
    mirror.close()
    print(json.dumps({"event": "end", "stored": mirror.stored, "requests": requests, "seconds": seconds}))


if __name__ == "__main__":
    main()
