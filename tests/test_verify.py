"""`fetcher verify` says complete only of what is, and names what is not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fetcher import Interrupted, Stop, StoreError, verify
from fetcher.simulator import Answer, Simulator, World
from fetcher.simulator.world import NSFP
from tests.fakes import FakeStop
from tests.helpers import mirror, query, run_fetcher

Simulate = Callable[..., Simulator]

LOGIN = {"pp": "p", "me": "m"}


def change(db: Path, sql: str, *parameters: Any) -> None:
    with closing(sqlite3.connect(db)) as conn, conn:
        conn.execute(sql, parameters)


@pytest.fixture
def complete(db: Path, shared_simulator: Simulator) -> Path:
    """A complete mirror of the shared simulator."""
    mirror(db, shared_simulator)
    return db


def test_a_complete_mirror_is_complete_as_of_when_it_was_listed(complete: Path) -> None:
    verdict = verify(complete)
    assert verdict.complete, verdict
    assert verdict.items == 300
    ((walked_at,),) = query(complete, "SELECT min(walked_at) FROM coverage")
    assert verdict.as_of == walked_at
    done = run_fetcher("verify", str(complete))
    assert (done.returncode, done.stderr) == (0, "")
    assert "300 items; complete as of 20" in done.stdout


def test_a_tombstone_is_as_good_as_details(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    gone = world.ids()[7]
    mirror(db, simulate(world, faults=lambda kind, key, _: Answer(404) if (kind, key) == ("info", gone) else None))
    verdict = verify(db)
    assert verdict.complete
    assert verdict.gone == 1


def test_what_an_interrupt_left_is_named(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=400)
    stop = Stop()
    with pytest.raises(Interrupted):
        mirror(
            db,
            simulate(world, latency=0.01),
            db_batch_size=5,
            stop=stop,
            on_batch=lambda done: stop.set() if done.stored else None,
        )
    verdict = verify(db)
    assert not verdict.complete
    done = run_fetcher("verify", str(db))
    assert done.returncode == 3
    assert "Work left:" in done.stdout
    assert "Without details:" in done.stdout
    told = json.loads(run_fetcher("verify", str(db), "--json").stdout)
    assert told["complete"] is False
    without = [id for (id,) in query(db, "SELECT id FROM items WHERE fetched_at IS NULL ORDER BY id")]
    assert told["without_details"] == without
    assert [each["key"] for each in told["unfinished"]] == without


def test_a_hole_is_named_with_its_scope(complete: Path) -> None:
    change(complete, "UPDATE coverage SET hi = 100")
    verdict = verify(complete)
    assert not verdict.complete
    ((highest,),) = query(complete, "SELECT max(id) FROM items")
    assert [(each.scope, each.lo, each.hi) for each in verdict.uncovered] == [(1, 101, highest)]
    assert f"Not listed: scope 1: 101 to {highest:,}" in run_fetcher("verify", str(complete)).stdout


def test_what_lies_below_the_lowest_item_is_missing_until_it_was_listed(complete: Path) -> None:
    ((lowest, highest),) = query(complete, "SELECT min(id), max(id) FROM items")
    change(complete, "UPDATE coverage SET lo = ?", lowest)
    if lowest > 1:
        assert [(each.lo, each.hi) for each in verify(complete).uncovered] == [(1, lowest - 1)]
    # All that is stored is whole, and covered: that the listing never came to its end is all that is wrong.
    for table in ("tags", "comments"):
        change(complete, f"DELETE FROM {table} WHERE item_id < ?", highest)
    change(complete, "DELETE FROM items WHERE id < ?", highest)
    change(complete, "UPDATE coverage SET lo = ?, items = 1", highest)
    change(complete, "UPDATE sources SET items = 1, fetched = 1")
    verdict = verify(complete)
    assert not verdict.complete
    assert [(each.lo, each.hi) for each in verdict.uncovered] == [(1, highest - 1)]


def test_flags_that_were_asked_for_and_never_listed_are_missing(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=300, login=True)
    simulator = simulate(world)
    mirror(db, simulator)
    assert verify(db).complete
    stop = Stop()
    with pytest.raises(Interrupted):
        mirror(db, simulator, content_flags=9, stop=stop, on_start=lambda _: stop.set(), **LOGIN)
    verdict = verify(db)
    assert {each.scope for each in verdict.uncovered} == {8}
    mirror(db, simulator, content_flags=9, **LOGIN)
    assert verify(db).complete


def test_flags_whose_newest_items_differ_are_complete_in_both_directions(db: Path, simulate: Simulate) -> None:
    for number, order in enumerate(("newest", "oldest")):
        world = World(seed=1, items=300, login=True)
        simulator = simulate(world)
        path = db.with_name(f"{number}.db")
        mirror(path, simulator, order=order)
        mirror(path, simulator, content_flags=9, order=order, **LOGIN)
        assert verify(path).complete, order
        pages = simulator.requests["list"]
        mirror(path, simulator, content_flags=9, order=order, **LOGIN)
        assert simulator.requests["list"] == pages + 1, "nothing but the newest id was asked for"


def test_an_item_that_changes_its_flag_is_counted_where_it_is_now(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=200, login=True)
    simulator = simulate(world)
    mirror(db, simulator)
    world.reflag(world.ids()[50], NSFP)
    mirror(db, simulator, content_flags=8, **LOGIN)
    verdict = verify(db)
    assert verdict.complete, verdict.wrong


def test_what_failed_for_good_is_named_until_it_is_had(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    bad = world.ids()[3]
    spoilt = simulate(world, faults=lambda kind, key, _: Answer(200, {}, b"{}") if key == bad else None)
    mirror(db, spoilt, max_retries=0)
    verdict = verify(db)
    assert [(each.stage, each.key, each.outcome, each.parked) for each in verdict.unfinished] == [
        ("detail", bad, "malformed", True)
    ]
    done = run_fetcher("verify", str(db))
    assert f"detail {bad} (malformed for good)" in done.stdout
    assert done.returncode == 3


def test_a_lost_page_is_missing(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=400)
    simulator = simulate(world, faults=lambda kind, key, _: Answer(200, {}, b"{}") if kind == "list" and key else None)
    with pytest.raises(Exception, match="list page"):
        mirror(db, simulator, max_retries=0, stop=FakeStop())
    verdict = verify(db)
    # Below the lowest item that was ever listed nobody can say what there is.
    assert not verdict.complete
    assert any(each.stage == "list" for each in verdict.unfinished)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            "DELETE FROM items WHERE id = (SELECT id FROM items LIMIT 1 OFFSET 9)",
            "299 items are there, 300 were listed",
        ),
        ("UPDATE coverage SET items = items + 1", "300 items are there, 301 were listed"),
        ("INSERT INTO tags (item_id, id, tag) VALUES (123456, 1, 'x')", "tags: rows of 123456, which has no details"),
        ("UPDATE sources SET fetched = fetched - 1", "items with details: 300 are there, 299 were counted"),
        ("DELETE FROM search_docsize WHERE id < 20", "items are there, 300 have details"),
        ("UPDATE sources SET work = 4", "work left: 0 are there, 4 were counted"),
    ],
)
def test_what_contradicts_itself_is_said(damage: str, words: str, complete: Path) -> None:
    change(complete, damage)
    verdict = verify(complete)
    assert not verdict.complete
    assert any(words in each for each in verdict.wrong), verdict.wrong
    done = run_fetcher("verify", str(complete))
    assert done.returncode == 3
    assert "Does not agree: " in done.stdout


def test_rows_of_an_item_without_details_are_said(complete: Path) -> None:
    change(complete, "UPDATE items SET fetched_at = NULL WHERE id = (SELECT item_id FROM tags LIMIT 1)")
    assert any("tags: rows of" in each for each in verify(complete).wrong)


def test_a_damaged_file_is_said(complete: Path) -> None:
    ((root,),) = query(complete, "SELECT rootpage FROM sqlite_master WHERE name = 'items_gone_at'")
    with complete.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\x00" * 512)
    done = run_fetcher("verify", str(complete))
    assert done.returncode in (3, 6)
    assert "Traceback" not in done.stderr
    assert "SQLite" in done.stdout or "damaged" in done.stderr


def test_a_mirror_of_nothing_is_not_complete(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=30))
    stop = Stop()
    with pytest.raises(Interrupted):
        mirror(db, simulator, stop=stop, on_start=lambda _: stop.set())
    assert not verify(db).complete
    assert "Nothing was listed yet" in run_fetcher("verify", str(db)).stdout


def test_what_is_no_database_of_ours_is_one_line_and_exit_6(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        verify(tmp_path / "none.db")
    for command in ("verify", "failures", "retry"):
        done = run_fetcher(command, str(tmp_path / "none.db"))
        assert done.returncode == 6
        assert done.stderr.count("\n") == 1


def test_verify_writes_nothing_and_asks_nothing(complete: Path, shared_simulator: Simulator) -> None:
    before, requests = complete.read_bytes(), shared_simulator.requests.total()
    complete.chmod(0o444)
    assert verify(complete).complete
    assert (complete.read_bytes(), shared_simulator.requests.total()) == (before, requests)
