"""Whatever an API does wrong, the mirror ends true and complete: real sockets, every fault that the simulator knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fetcher import Interrupted, LoginError, Stop, verify
from fetcher.simulator import Simulator, World
from fetcher.simulator.profile import Login, Outage, Profile
from fetcher.simulator.profiles import PROFILES
from tests.helpers import assert_complete, column, mirror, one, query

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]

IMPATIENT = {"request_timeout": 1, "max_backoff_seconds": 0.3, "max_outage_seconds": 60}
"""So that hanging answers and refusals that ask for hours cost a test little."""


def assert_true(db: Path, world: World, profile: Profile) -> None:
    """Every item is stored with exactly the tags and comments that it has in the end, or is a tombstone."""
    verdict = verify(db)
    assert verdict.complete, verdict
    assert column(db, "SELECT id FROM items ORDER BY id") == list(world.ids())
    wanted: dict[int, dict[str, Any] | None] = {id: profile.details(world, id) for id in world.ids()}
    assert set(column(db, "SELECT id FROM items WHERE gone_at IS NOT NULL")) == {
        id for id, details in wanted.items() if details is None
    }
    for table, fields in (
        ("tags", ("id", "tag", "confidence")),
        ("comments", ("id", "parent", "content", "up", "name")),
    ):
        expected = sorted(
            (id, *(each[field] for field in fields))
            for id, details in wanted.items()
            if details is not None
            for each in details[table]
        )
        assert query(db, f"SELECT item_id, {', '.join(fields)} FROM {table} ORDER BY 1, 2") == expected
    items = {row[0]: row[1:] for row in query(db, "SELECT id, created, up, user, source, variants FROM items")}
    for id in world.ids():
        item = world.item(id)
        variants = items[id][4]
        assert items[id][:4] == (item["created"], item["up"], item["user"], item["source"])
        assert (json.loads(variants) if variants else None) == item.get("variants")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("seed", "order"), [(0, "newest"), (1, "oldest")])
def test_a_hostile_api_costs_no_row(seed: int, order: str, db: Path, simulate: Simulate) -> None:
    profile = replace(PROFILES["hostile"], seed=seed)
    world = World(seed=seed, items=140)
    summary = mirror(db, simulate(world, profile=profile), order=order, **IMPATIENT)
    assert summary.exit_code == 0
    assert_true(db, world, profile)


@pytest.mark.timeout(180)
def test_a_hostile_api_and_a_restless_user_cost_no_row(db: Path, simulate: Simulate) -> None:
    profile = replace(PROFILES["hostile"], seed=7)
    world = World(seed=7, items=200)
    simulator = simulate(world, profile=profile)
    for number in range(4):
        stop = Stop()
        seen: list[int] = []

        def on_batch(done: Any, seen: list[int] = seen, stop: Stop = stop) -> None:
            seen.append(1)
            if len(seen) == 3:
                stop.set()

        order = ("newest", "oldest")[number % 2]
        with pytest.raises(Interrupted):
            mirror(db, simulator, order=order, stop=stop, on_batch=on_batch, db_batch_size=10, **IMPATIENT)
    assert mirror(db, simulator, **IMPATIENT).exit_code == 0
    assert_true(db, world, profile)


@pytest.mark.parametrize("how", ["refuse", "502", "hang"])
def test_a_host_that_goes_away_for_a_while_costs_no_attempt(how: str, db: Path, simulate: Simulate) -> None:
    world = World(seed=3, items=400)
    profile = Profile(outages=(Outage(0.6, 3, how),), latency=0.02)
    told: list[Any] = []
    summary = mirror(db, simulate(world, profile=profile), max_retries=1, on_progress=told.append, **IMPATIENT)
    assert (summary.exit_code, summary.counts.failed) == (0, 0)
    assert any("no answer" in each.reason for each in told)
    assert summary.seconds > 3
    assert_complete(db, world)


def test_a_login_that_expires_ends_with_4_and_another_goes_on(db: Path, simulate: Simulate) -> None:
    world = World(seed=4, items=400, login=True)
    simulator = simulate(world, profile=Profile(login=Login(requests=150)))
    with pytest.raises(LoginError) as raised:
        mirror(db, simulator, content_flags=9, pp="old", me="old", db_batch_size=20, **IMPATIENT)
    assert raised.value.exit_code == 4
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") > 0
    assert one(db, "SELECT count(*) FROM items WHERE gone_at IS NOT NULL") == 0
    while not verify(db).complete:
        # Each login counts for so many requests: as many new ones as it takes.
        stored = one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL")
        try:
            mirror(db, simulator, content_flags=9, pp="new", me=str(stored), db_batch_size=20, **IMPATIENT)
        except LoginError:
            assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") > stored
    assert_complete(db, world, 9)


def test_items_that_come_and_go_are_as_they_are_listed_last(db: Path, simulate: Simulate) -> None:
    world = World(seed=5, items=300)
    simulator = simulate(world)
    mirror(db, simulator)
    deleted, hidden = world.ids()[20], world.ids()[30]
    world.delete(deleted)
    world.reflag(hidden, 2)
    world.arrive(5, created=world.created(world.ids()[-1]))
    mirror(db, simulator, full_update=True)
    assert set(column(db, "SELECT id FROM items WHERE unlisted_at IS NOT NULL")) == {deleted, hidden}
    assert verify(db).complete
    world.undelete(deleted)
    world.reflag(hidden, 1)
    mirror(db, simulator, full_update=True)
    assert one(db, "SELECT count(*) FROM items WHERE unlisted_at IS NOT NULL OR gone_at IS NOT NULL") == 0
    assert verify(db).complete
    assert_complete(db, world)
