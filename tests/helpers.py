"""Words that the tests share: mirror, look into the database, run the command, wait for something."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from fetcher import Summary, fetch
from fetcher.place import Place, PostgresUrl, is_url, place_of
from fetcher.simulator import Answer, Simulator, World
from fetcher.stores.postgres.connection import PostgresSql, adapted

ROOT = Path(__file__).parent.parent

FAST = {"request_delay": 0, "max_requests_per_second": 0}
"""No politeness towards a simulator."""

Rows = list[tuple[Any, ...]]


# --- mirroring --------------------------------------------------------------------------------------


def mirror(db: Place | str, simulator: Simulator, **settings: Any) -> Summary:
    """Mirror a simulator as fast as it answers; `settings` and arguments are those of `fetch`."""
    return fetch(db=db, **{"api_base_url": simulator.url, **FAST, **settings})


@contextmanager
def running(simulator: Simulator, db: Path, *options: str, code: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """`fetcher fetch` in a process of its own, killed at the end if it still lives; `code` runs in it beforehand."""
    process = subprocess.Popen(
        _command(simulator, db, options, code),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(simulator: Simulator, db: Path, *options: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """`fetcher fetch` in a process of its own, to its end."""
    return _run(_command(simulator, db, options, code))


def run_fetcher(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Any command of `fetcher` in a process of its own, to its end."""
    return _run([sys.executable, "-m", "fetcher", *arguments])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False
    )


def _command(simulator: Simulator, db: Path, options: tuple[str, ...], code: str | None) -> list[str]:
    program = ["-m", "fetcher"] if code is None else ["-c", f"{code}\nfrom fetcher.cli import main\nmain()"]
    fast = ["--base-url", simulator.url, "--delay", "0", "--max-rate", "0"]
    return [sys.executable, *program, "fetch", str(db), *fast, *options]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT)}


# --- looking ----------------------------------------------------------------------------------------


def query(db: Place | str, sql: str, *parameters: Any) -> Rows:
    """The rows of a query."""
    place = place_of(db)
    if isinstance(place, PostgresUrl):
        with psycopg.connect(place.secret) as conn:
            adapted(conn)
            return PostgresSql(conn).execute(sql, parameters).fetchall()
    with closing(sqlite3.connect(f"{place.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as conn:
        return conn.execute(sql, parameters).fetchall()


def change(db: Place | str, sql: str, *parameters: Any) -> None:
    """Change what is stored, as somebody with another program would."""
    place = place_of(db)
    if isinstance(place, PostgresUrl):
        with psycopg.connect(place.secret) as conn:
            PostgresSql(conn).execute(sql, parameters)
        return
    with closing(sqlite3.connect(place)) as conn, conn:
        conn.execute(sql, parameters)


def column(db: Place | str, sql: str, *parameters: Any) -> list[Any]:
    """The first column of a query."""
    return [row[0] for row in query(db, sql, *parameters)]


def one(db: Place | str, sql: str, *parameters: Any) -> Any:
    """The one value of a query."""
    ((value,),) = query(db, sql, *parameters)
    return value


def dump(db: Place | str) -> dict[str, Rows]:
    """What two mirrors of one world agree on: all but `runs`, `sources`, `failures` and the `*_at` columns."""
    return {
        table: rows
        for table, rows in dump_all(db, without_times=True).items()
        if table not in ("runs", "sources", "failures")
    }


def dump_all(db: Place | str, *, without_times: bool = False) -> dict[str, Rows]:
    """Every row of every table but SQLite's and sqlite-utils' own, in one order; of the search, where each word is.

    How the search stores that depends on the batches it came in.
    """
    if is_url(db) or isinstance(db, PostgresUrl):
        return _dump_of_postgres(db, without_times=without_times)
    found = {}
    tables = column(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    for table in tables:
        if table.startswith(("sqlite_", "_sqlite", "search_")):
            continue
        if table == "search":
            found[table] = search_index(db)
            continue
        columns = column(db, f"SELECT name FROM pragma_table_info('{table}') ORDER BY name")
        names = ", ".join(f'"{name}"' for name in columns if not (without_times and name.endswith("_at")))
        order = ", ".join(str(number + 1) for number in range(names.count(",") + 1))
        found[table] = query(db, f'SELECT {names} FROM "{table}" ORDER BY {order}')
    return found


def _dump_of_postgres(db: Place | str, *, without_times: bool) -> dict[str, Rows]:
    found = {}
    names: dict[str, list[str]] = {}
    for table, name in query(
        db,
        "SELECT table_name::text, column_name::text FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
        " ORDER BY 1, 2",
    ):
        if table not in ("engines", "fetcher_migrations") and not (without_times and name.endswith("_at")):
            names.setdefault(table, []).append(name)
    for table, columns in names.items():
        selected = ", ".join(f'"{name}"' for name in columns)
        ordered = ", ".join(f'"{name}"::text COLLATE "C"' for name in columns)
        found[table] = query(db, f'SELECT {selected} FROM "{table}" ORDER BY {ordered}')
    return found


def search_index(db: Path) -> Rows:
    """Where each word is, as the full-text index has it: word, item, column, place."""
    with closing(sqlite3.connect(f"{db.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as conn:
        conn.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'search', 'instance')")
        return conn.execute("SELECT term, doc, col, offset FROM words ORDER BY 1, 2, 3, 4").fetchall()


def assert_search_is_exact(db: Path) -> None:
    """The full-text index is what the stored texts make, no word more and no word less."""
    indexed = search_index(db)
    with closing(sqlite3.connect(":memory:")) as conn:
        names = column(db, "SELECT name FROM pragma_table_info('search')")
        conn.execute(f"CREATE VIRTUAL TABLE search USING fts5({', '.join(names)}, tokenize='{TOKENIZER}')")
        texts = query(db, f"SELECT id, {', '.join(names)} FROM search_text")
        conn.executemany(f"INSERT INTO search (rowid, {', '.join(names)}) VALUES (?{', ?' * len(names)})", texts)
        conn.execute("CREATE VIRTUAL TABLE words USING fts5vocab('search', 'instance')")
        assert indexed == conn.execute("SELECT term, doc, col, offset FROM words ORDER BY 1, 2, 3, 4").fetchall()
    assert column(db, "SELECT id FROM search_docsize") == [row[0] for row in texts]


TOKENIZER = "unicode61 remove_diacritics 2"


def assert_complete(db: Path, world: World, flags: int = 1) -> None:
    """Every item of `world` is stored with exactly its tags and comments, and nothing is left to do."""
    ids = list(world.ids(flags))
    assert column(db, "SELECT id FROM items ORDER BY id") == ids
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NULL") == 0
    assert one(db, "SELECT count(*) FROM work") == 0
    details = {id: world.info(id) for id in ids}
    for table in ("tags", "comments"):
        expected = sorted((id, each["id"]) for id in ids for each in details[id][table])
        assert query(db, f"SELECT item_id, id FROM {table} ORDER BY 1, 2") == expected


# --- answering --------------------------------------------------------------------------------------


def answer(data: Any, status: int = 200, **headers: str) -> Answer:
    """An answer of the API with this JSON; `Retry_After="1"` is the header Retry-After."""
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(data).encode())


def details_of(world: World, id: int) -> dict[str, Any]:
    """The whole JSON of an item's details, to be changed."""
    return {**world.info(id), "ts": int(time.time()), "cache": f"item:{id}", "rt": 1, "qc": 2}


def list_page(world: World, older: int = 0, newer: int | None = None) -> dict[str, Any]:
    """The whole JSON of a list page below `older` (0: the head) or above `newer`, to be changed."""
    listing = world.page(1, older=older or None, newer=newer)
    assert listing is not None
    return {
        "atEnd": listing.at_end,
        "atStart": listing.at_start,
        "error": None,
        "items": [world.item(id) for id in listing.ids],
        "ts": int(time.time()),
        "cache": None,
        "rt": 1,
        "qc": 2,
    }


# --- waiting ----------------------------------------------------------------------------------------


def eventually(condition: Callable[[], bool], seconds: float = 20, what: Callable[[], str] | str = "") -> None:
    """Wait until `condition` holds; fails after so many seconds, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what or condition}")
        time.sleep(0.002)


def quiet(simulator: Simulator, seconds: float = 0.3) -> None:
    """Wait until no request has come for that long."""
    seen, since = -1, time.monotonic()

    def unchanged() -> bool:
        nonlocal seen, since
        now = simulator.requests.total()
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    eventually(unchanged)
