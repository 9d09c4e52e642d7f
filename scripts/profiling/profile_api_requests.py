#!/usr/bin/env python3
"""Profile how a paginated API comes into a database: page after page, windows side by side, and what others do.

    python profile_api_requests.py fetcher URL --workers 10

Run so it is one contestant: it asks the STAC API at URL for all items of its one collection, stores them in `items.db`
here, and prints what that cost as JSON. `benchmark_ingest.py` runs them all, each beside a simulated API of its own.
The peers need `pystac-client` and `aiohttp` (the extra `profile`).
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmark_limits import Host, simulated
from ingest_cases import DB, FETCHER, OURS, PLAIN, Account, Beside, Case, Strategy, checked, contestant, cpu_of
from measure import get

PAGE = 100
PARTS = 50
"""Into so many windows the gathering client divides the time, whatever its workers."""

SINCE, UNTIL = datetime(2015, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
"""The time that the simulated items are of: a plain client has to be told."""

TRIES = 50
AGENT = {"User-Agent": "benchmark-peer/1.0"}

Item = dict[str, Any]


# --- what the contestants do ------------------------------------------------------------------------


class Mirror:
    """The database of a peer: plain executemany, one commit a page."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._conn = sqlite3.connect(DB)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute("CREATE TABLE items (key TEXT PRIMARY KEY, id TEXT, json TEXT)")

    def store(self, items: Iterable[Item]) -> None:
        """Write a page."""
        began = time.perf_counter()
        rows = [(f"{each['collection']}/{each['id']}", each["id"], json.dumps(each)) for each in items]
        self._conn.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)
        self._conn.commit()
        self._account.bytes += sum(len(row[2]) for row in rows)
        self._account.add("store", began)

    def close(self) -> None:
        self._conn.close()


def pages(url: str, account: Account) -> Iterator[list[Item]]:
    """The pages of a search, one after the other, as `next` leads."""
    import requests

    asked: dict[str, Any] | None = {"limit": PAGE}
    with requests.Session() as session:
        session.headers.update(AGENT)
        while asked is not None:
            began = time.perf_counter()
            response = session.post(f"{url}/search", json=asked, timeout=30)
            account.latencies.append(time.perf_counter() - began)
            began = account.add("wait", began)
            if response.status_code == 429:
                time.sleep(float(response.headers.get("Retry-After", 1)))
                continue
            response.raise_for_status()
            page = response.json()
            account.add("parse", began)
            yield page["features"]
            asked = next((link["body"] for link in page["links"] if link["rel"] == "next"), None)


def plain(url: str, account: Account, workers: int) -> None:  # noqa: ARG001
    """requests, one page after the other."""
    with closing(Mirror(account)) as mirror:
        for page in pages(url, account):
            mirror.store(page)


def pystac(url: str, account: Account, workers: int) -> None:  # noqa: ARG001
    """pystac-client, as its documentation has it: it pages one after the other."""
    import pystac_client
    import requests
    from urllib3 import Retry

    send = requests.Session.send

    def timed(self: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        began = time.perf_counter()
        response = send(self, *args, **kwargs)
        account.latencies.append(time.perf_counter() - began)
        return response

    requests.Session.send = timed  # type: ignore[method-assign]
    patient = Retry(total=TRIES, status_forcelist=[429], backoff_factor=0.5, allowed_methods=None)
    io = pystac_client.stac_api_io.StacApiIO(max_retries=patient)
    client = pystac_client.Client.open(url, stac_io=io)
    with closing(Mirror(account)) as mirror:
        for page in client.search(limit=PAGE).pages_as_dicts():
            mirror.store(page["features"])


def gather(url: str, account: Account, workers: int) -> None:
    """aiohttp: windows of time gathered under a semaphore, each paged one after the other."""
    import asyncio

    import aiohttp

    async def mirrored(mirror: Mirror) -> None:
        enough = asyncio.Semaphore(workers)
        timeout = aiohttp.ClientTimeout(total=60)
        connector = aiohttp.TCPConnector(limit=workers)
        async with aiohttp.ClientSession(headers=AGENT, timeout=timeout, connector=connector) as session:

            async def window(begin: str, end: str) -> None:
                asked: dict[str, Any] | None = {"limit": PAGE, "datetime": f"{begin}/{end}"}
                async with enough:
                    while asked is not None:
                        page = await got(asked)
                        mirror.store(page["features"])
                        asked = next((link["body"] for link in page["links"] if link["rel"] == "next"), None)

            async def got(asked: dict[str, Any]) -> dict[str, Any]:
                for _ in range(TRIES):
                    began = time.perf_counter()
                    async with session.post(f"{url}/search", json=asked) as response:
                        data = await response.read()
                    account.latencies.append(time.perf_counter() - began)
                    if response.status != 429:
                        response.raise_for_status()
                        found: dict[str, Any] = json.loads(data)
                        return found
                    await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
                raise RuntimeError("refused again and again")

            await asyncio.gather(*(window(*each) for each in windows()))

    with closing(Mirror(account)) as mirror:
        asyncio.run(mirrored(mirror))


def windows() -> list[tuple[str, str]]:
    """The time in parts of one length; what lies on a boundary comes twice and is stored once."""
    step = (UNTIL - SINCE) / PARTS
    ends = [(SINCE + step * n).strftime("%Y-%m-%dT%H:%M:%SZ") for n in range(PARTS + 1)]
    return list(pairwise(ends))


def fetcher_itself(url: str, account: Account, workers: int) -> None:
    """`fetcher fetch stac`, as a library: so many windows walked at once."""
    fetched(url, account, workers)


def fetched(url: str, account: Account, workers: int, **settings: Any) -> None:
    """Mirror with so many windows, and note how long each answer takes."""
    import fetcher
    from fetcher.transport.adapter import LeanAdapter

    send = LeanAdapter.send

    def timed(self: LeanAdapter, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        response = send(self, *args, **kwargs)
        account.latencies.append(time.perf_counter() - began)
        return response

    LeanAdapter.send = timed  # type: ignore[method-assign]
    fetcher.fetch(
        "stac",
        DB,
        api_base_url=url,
        stac_windows=workers,
        stac_page_size=PAGE,
        max_parallel_requests=workers,
        request_delay=0,
        max_requests_per_second=0,
        log_level="ERROR",
        **settings,
    )


STRATEGIES: dict[str, Strategy] = {
    PLAIN: plain,
    "pystac-client": pystac,
    "aiohttp gather": gather,
    FETCHER: fetcher_itself,
}
SEQUENTIAL = (PLAIN, "pystac-client")
"""They ask for one page after the other: there is nothing to choose."""

NEEDS = {
    PLAIN: ("requests", "netrc"),
    "pystac-client": ("pystac_client", "pystac.extensions.ext", "netrc"),
    "aiohttp gather": ("aiohttp",),
    FETCHER: (*OURS, "netrc"),
}
"""What is imported before the clock starts, as for everybody."""


# --- the cases --------------------------------------------------------------------------------------


Around = Iterator[tuple[tuple[str, ...], dict[str, Any]]]


@contextmanager
def one_api(folder: Path, items: int, options: Sequence[str]) -> Iterator[Beside]:
    """A simulated STAC API in a process of its own, one for all runs: nothing that was asked changes it."""
    with _served(folder, items, options) as host:

        @contextmanager
        def beside(case: Case) -> Around:  # noqa: ARG001
            with _counted(host) as found:
                yield found

        yield beside


@contextmanager
def own_api(case: Case, *, folder: Path, items: int, options: Sequence[str]) -> Around:  # noqa: ARG001
    """The same, new for each run: a limit remembers who has asked."""
    with _served(folder, items, options) as host, _counted(host) as found:
        yield found


@contextmanager
def _served(folder: Path, items: int, options: Sequence[str]) -> Iterator[Host]:
    with simulated(folder, "stac", "--collections", "1", *options, seed=0, items=items) as host:
        # Its first answer takes longer than all others.
        get(f"{host.url}/search?limit=1")
        yield host


@contextmanager
def _counted(host: Host) -> Around:
    """The words that name an API, and after the run what it refused, and its CPU seconds."""
    further: dict[str, Any] = {}
    before, cpu = len(host.entries()), cpu_of(host.pid)
    yield (host.url,), further
    further |= {
        "server_cpu": cpu_of(host.pid) - cpu,
        "limited": sum(refused for _, refused in host.entries()[before:]),
    }


def cases(name: str, workers: Sequence[int], *, only: Sequence[str] = ()) -> list[Case]:
    """Every strategy at one API, with these numbers of workers and with one."""
    return [
        Case("api", name, strategy, count, "profile_api_requests.py", (strategy, "--workers", str(count)))
        for strategy in STRATEGIES
        if not only or strategy in only
        for count in ((1,) if strategy in SEQUENTIAL else sorted({1, *workers}))
    ]


def needs(strategy: str, url: str) -> Sequence[str]:  # noqa: ARG001
    """What a strategy imports."""
    return NEEDS[strategy]


def main(words: Sequence[str]) -> int:
    return contestant(words, __doc__, STRATEGIES, needs, checked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
