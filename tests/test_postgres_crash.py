"""A mirror in PostgreSQL loses nothing, whoever dies: the client, the server, or the connection between them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fetcher import Committed, StoreError
from fetcher.simulator import Simulator, World
from fetcher.stores.postgres import database
from tests.helpers import assert_complete, change, column, dump, eventually, mirror, one, query, running
from tests.postgres import PostgresServer, Way, postgres_server

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    with postgres_server(durable=True) as server:
        yield server


def assert_consistent(db: str, world: World, reported: set[int]) -> None:
    """Between any two runs: nothing reported is missing, nothing covered was skipped, nothing is half there."""
    if not query(
        db, "SELECT 1 FROM information_schema.tables WHERE table_name = 'comments' AND table_schema = current_schema()"
    ):
        assert not reported
        return
    fetched = set(column(db, "SELECT id FROM items WHERE fetched_at IS NOT NULL"))
    listed = set(column(db, "SELECT id FROM items"))
    work = set(column(db, "SELECT key FROM work"))
    assert reported <= fetched, "what was reported as stored is stored"
    assert listed - fetched == work, "an item has its details or is queued, never both or neither"
    for lo, hi, items in query(db, "SELECT lo, hi, items FROM coverage"):
        inside = {id for id in world.ids() if lo <= id <= hi}
        assert inside <= listed, "what is covered was listed"
        assert items == len(inside)
    for table in ("tags", "comments"):
        expected = {(id, each["id"]) for id in fetched for each in world.info(id)[table]}
        assert set(query(db, f"SELECT item_id, id FROM {table}")) == expected
    assert query(db, "SELECT items, fetched, work, parked FROM sources") == [(len(listed), len(fetched), len(work), 0)]


# --- the client ----------------------------------------------------------------------------------------


@pytest.mark.timeout(200)
def test_a_mirror_killed_5_times_equals_the_undisturbed_one(
    postgres: PostgresServer, simulate: Simulate, tmp_path: Path
) -> None:
    kills, batch, workers = 5, 10, 6
    chance = random.Random(20)
    world = World(seed=20, items=700)
    simulator = simulate(world, latency=0.003, jitter=0.002)
    killed, undisturbed = postgres.url(), postgres.url()
    options = ("--batch-size", str(batch), "--workers", str(workers))
    for number in range(kills):
        with running(simulator, killed, *options) as process:
            moment = simulator.requests.total() + chance.randint(0, 90)
            eventually(lambda moment=moment: simulator.requests.total() >= moment or process.poll() is not None, 60)
            assert process.poll() is None, f"run {number} ended by itself: {process.communicate()}"
            process.kill()
        if number % 3 == 2:
            eventually(lambda: one(killed, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0)
            assert_consistent(killed, world, set())
    with running(simulator, killed, *options) as process:
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0, told
    details = simulator.requests["info"]
    mirror(undisturbed, simulator, max_parallel_requests=20)
    assert dump(killed) == dump(undisturbed)
    assert_complete(killed, world)
    assert details <= len(world.ids()) + kills * (workers + 2 * batch)


# --- the connection --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["before", "after", "at once"])
@pytest.mark.timeout(120)
def test_the_outcome_of_a_commit_that_nobody_answered_is_found_out(
    how: str, postgres: PostgresServer, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """Every third COMMIT is cut; the run goes on as if nothing had been, and writes nothing twice."""
    world = World(seed=5, items=60)
    simulator = simulate(world)
    url = postgres.url()
    commits = 0

    def cut(data: bytes, _: int) -> str | None:
        nonlocal commits
        is_commit = b"COMMIT\0" in data
        commits += is_commit
        return how if is_commit and commits > 3 and commits % 3 == 0 else None

    done: list[Committed] = []
    with Way(postgres.port, cut) as way:
        summary = mirror(way.through(url), simulator, db_batch_size=7, max_parallel_requests=3, on_batch=done.append)
        assert way.cuts >= 3
    assert summary.exit_code == 0
    assert (summary.counts.stored, summary.counts.new) == (60, 60)
    assert sorted(key for each in done for key in each.stored) == list(world.ids())
    assert_complete(url, world)
    assert_consistent(url, world, set(world.ids()))
    assert query(url, "SELECT stored, pages, new, ended FROM runs") == [(60, summary.counts.pages, 60, "complete")]
    assert "a-secret" not in caplog.text


def test_a_connection_that_is_lost_within_a_transaction_takes_all_of_it(
    postgres: PostgresServer, simulate: Simulate
) -> None:
    """What is asked in the middle of one is not asked again by a connection that knows nothing of it."""
    world = World(seed=5, items=20)
    url = postgres.url()
    last = b""

    def cut(data: bytes, _: int) -> str | None:
        nonlocal last
        begun, last = b"BEGIN\0" in last, data
        return "before" if begun and b"sweep_started_at" in data and not way.cuts else None

    with Way(postgres.port, cut) as way:
        assert mirror(way.through(url), simulate(world)).exit_code == 0
        assert way.cuts == 1
    assert_complete(url, world)
    assert_consistent(url, world, set(world.ids()))


@pytest.mark.timeout(300)
def test_a_connection_that_is_cut_at_any_message_costs_nothing(postgres: PostgresServer, simulate: Simulate) -> None:
    simulator = simulate(World(seed=5, items=10))
    world = simulator.world
    settings = {"db_batch_size": 4, "max_parallel_requests": 2}
    undisturbed = postgres.schema()
    with Way(postgres.port) as counting:
        mirror(counting.through(undisturbed), simulator, **settings)
        total = counting.sent
    expected = dump(undisturbed)
    chance = random.Random(4)
    for number in range(1, total, 16):
        how = chance.choice(["before", "after", "at once"])
        at = number + chance.randrange(16)
        url = postgres.schema()
        reported: set[int] = set()
        with Way(postgres.port, lambda _, sent, at=at, how=how: how if sent == at else None) as way:
            try:
                mirror(
                    way.through(url), simulator, **settings, on_batch=lambda done, to=reported: to.update(done.stored)
                )
            except StoreError:
                assert way.cuts
        assert_consistent(url, world, reported)
        mirror(url, simulator, **settings)
        assert dump(url) == expected, f"cut {how} message {at} of {total}"


def test_a_run_whose_mirror_another_one_has_had_meanwhile_ends(postgres: PostgresServer, simulate: Simulate) -> None:
    world = World(seed=5, items=60)
    simulator = simulate(world)
    url = postgres.url()

    def on_batch(done: Committed) -> None:
        if len(done.stored) > 3:
            change(url, "DELETE FROM engines")

    reported: set[int] = set()
    with pytest.raises(StoreError, match="another run has had it meanwhile: run again"):
        mirror(
            url,
            simulator,
            db_batch_size=7,
            on_batch=lambda done: (reported.update(done.stored), on_batch(done)),
        )
    assert_consistent(url, world, reported)
    assert mirror(url, simulator).exit_code == 0
    assert_complete(url, world)


def test_who_keeps_a_table_locked_is_told_and_costs_nothing(
    postgres: PostgresServer, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database._SETTINGS, "lock_timeout", "200ms")
    simulator = simulate(World(seed=5, items=60))
    url = postgres.url()
    mirror(url, simulator, limit=5)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE tags")
        with pytest.raises(StoreError, match="another program has kept a table locked"):
            mirror(url, simulator)
    assert mirror(url, simulator).exit_code == 0
    assert_complete(url, simulator.world)


# --- the server ------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_a_server_that_is_killed_and_started_again_costs_nothing(
    own_server: PostgresServer, simulate: Simulate
) -> None:
    world = World(seed=7, items=400)
    simulator = simulate(world, latency=0.005)
    url = own_server.url()
    chance = random.Random(3)
    reported: set[int] = set()
    done: list[Any] = []

    def run() -> None:
        done.append(
            mirror(
                url,
                simulator,
                db_batch_size=5,
                max_parallel_requests=4,
                on_batch=lambda each: reported.update(each.stored),
            )
        )

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(4):
        moment = simulator.requests.total() + chance.randint(20, 60)
        eventually(lambda moment=moment: simulator.requests.total() >= moment or not thread.is_alive(), 20)
        own_server.kill()
        time.sleep(0.05)
        own_server.start()
        assert set(reported) <= set(column(url, "SELECT id FROM items WHERE fetched_at IS NOT NULL"))
    thread.join(60)
    assert [(each.exit_code, each.counts.stored) for each in done] == [(0, 400)]
    assert_complete(url, world)
    assert_consistent(url, world, reported)


@pytest.mark.timeout(120)
def test_a_server_that_stays_away_ends_the_run_and_the_next_goes_on(
    own_server: PostgresServer, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOST_SECONDS", 0.5)
    world = World(seed=7, items=200)
    simulator = simulate(world, latency=0.005)
    url = own_server.url()
    reported: set[int] = set()

    def on_batch(done: Committed) -> None:
        reported.update(done.stored)
        if len(reported) > 40:
            own_server.kill()

    with pytest.raises(StoreError) as told:
        mirror(url, simulator, db_batch_size=5, max_parallel_requests=4, on_batch=on_batch)
    assert "\n" not in str(told.value)
    assert "a-secret" not in str(told.value)
    own_server.start()
    assert reported <= set(column(url, "SELECT id FROM items WHERE fetched_at IS NOT NULL"))
    assert_consistent(url, world, reported)
    assert mirror(url, simulator).exit_code == 0
    assert_complete(url, world)


@pytest.mark.timeout(60)
def test_ctrl_c_is_answered_while_the_server_says_nothing(postgres: PostgresServer, simulate: Simulate) -> None:
    world = World(seed=7, items=400)
    simulator = simulate(world, latency=0.01)
    url = postgres.url()
    silent = threading.Event()
    with Way(postgres.port, lambda _, __: "hold" if silent.is_set() else None) as way:
        with running(simulator, way.through(url), "--batch-size", "5") as process:
            eventually(lambda: simulator.requests["info"] > 60)
            silent.set()
            eventually(lambda: way.cuts > 0)
            began = time.monotonic()
            process.terminate()
            _, err = process.communicate(timeout=20)
            assert process.returncode == 130, err
            assert time.monotonic() - began < 3.5
            assert "the last batch is fetched again" in err
    eventually(lambda: one(url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0)
    assert mirror(url, simulator).exit_code == 0
    assert_complete(url, world)


@pytest.mark.timeout(60)
def test_ctrl_c_is_answered_while_the_server_is_away(own_server: PostgresServer, simulate: Simulate) -> None:
    simulator = simulate(World(seed=7, items=400), latency=0.01)
    url = own_server.url()
    with running(simulator, url, "--batch-size", "5") as process:
        eventually(lambda: simulator.requests["info"] > 60)
        own_server.kill()
        time.sleep(0.3)
        began = time.monotonic()
        process.terminate()
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert time.monotonic() - began < 2.5
        assert "a-secret" not in out + err
