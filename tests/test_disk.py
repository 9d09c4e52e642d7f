"""A disk that fills up makes a run wait, and a log that a reader keeps from being emptied is told."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fetcher.simulator import Simulator, World
from fetcher.stores import file
from fetcher.stores.sqlite import SqliteStore
from tests.helpers import assert_complete, mirror

Simulate = Callable[..., Simulator]


def test_a_disk_that_is_nearly_full_makes_the_run_wait_until_there_is_room(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(seed=1, items=300)
    simulator = simulate(world, latency=0.005)
    waits: list[int] = []
    told: list[Any] = []

    def room(_: SqliteStore) -> int:
        if simulator.requests["info"] < 50 or len(waits) > 3:
            return 10**9
        waits.append(simulator.requests.total())
        return 10**8

    monkeypatch.setattr(SqliteStore, "room", room)
    monkeypatch.setattr("fetcher.engine.TICK_SECONDS", 0.1)
    logging.getLogger("fetcher").propagate = True
    summary = mirror(db, simulator, max_parallel_requests=4, min_free_disk_mb=200, on_progress=told.append)
    assert summary.exit_code == 0
    assert len(waits) == 4
    assert waits[-1] - waits[1] == 0, "requests began while the disk was nearly full"
    assert any("disk nearly full: 100 MB left" in each.reason for each in told)
    assert [each.getMessage() for each in caplog.records] == [
        "disk nearly full: 100 MB left, 200 are kept free; going on when there is room",
        "there is room on the disk again",
    ]
    assert_complete(db, world)


def test_the_log_is_emptied_once_its_reader_lets_go_and_said_while_it_does_not(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "WAL_BYTES", 200_000)
    told: list[str] = []
    simulator = simulate(World(seed=1, items=600))
    mirror(db, simulator)
    log = db.with_name(f"{db.name}-wal")
    source = "pr0gramm"
    from fetcher.sources.pr0gramm import Pr0gramm

    store = SqliteStore.open(db, source, Pr0gramm.tables, simulator.url, warn=told.append)
    try:
        with closing(sqlite3.connect(db, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM items").fetchone()
            with closing(sqlite3.connect(db, timeout=10)) as writer, writer:
                writer.execute("UPDATE comments SET content = content || ' '")
            assert log.stat().st_size > 400_000
            store.tend()
            store.tend()
            assert log.stat().st_size > 400_000
            assert len(told) == 1
            assert told[0].startswith(f"a reader keeps the log of {db} from being emptied: it has grown to ")
            reader.execute("COMMIT")
        store.tend()
        assert log.stat().st_size == 0
        assert len(told) == 1
    finally:
        store.close()
