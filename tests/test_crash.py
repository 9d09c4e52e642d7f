"""However often a run dies, resuming ends in the database that an undisturbed run makes."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from fetcher import Committed, Interrupted, Stop, StoreError
from fetcher.model import (
    Batch,
    Counts,
    Detail,
    Failure,
    Interval,
    Outcome,
    Page,
    Plan,
    Progress,
    RunState,
)
from fetcher.simulator import Simulator, World
from fetcher.simulator.world import LAST_CREATED
from fetcher.sources.pr0gramm import COMMENTS, ITEMS, TAGS, VIEWS
from fetcher.stores.sqlite import SqliteStore
from tests.fakes import Died, death
from tests.helpers import (
    assert_complete,
    assert_search_is_exact,
    column,
    dump,
    dump_all,
    eventually,
    mirror,
    one,
    query,
    running,
)

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]


# --- killed from outside ----------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_mirror_killed_20_times_equals_the_undisturbed_one(tmp_path: Path, simulate: Simulate) -> None:
    kills, batch, workers = 20, 10, 6
    window = workers + 2 * batch
    chance = random.Random(20)
    world = World(seed=20, items=1500)
    simulator = simulate(world, latency=0.003, jitter=0.002)
    killed, undisturbed = tmp_path / "killed.db", tmp_path / "undisturbed.db"
    options = ("--batch-size", str(batch), "--workers", str(workers))

    for number in range(kills):
        with running(simulator, killed, *options) as process:
            # A moment counted in answers is random in time, and never so late that nothing is left to kill.
            moment = simulator.requests.total() + chance.randint(0, 100)
            eventually(lambda moment=moment: simulator.requests.total() >= moment or process.poll() is not None, 60)
            assert process.poll() is None, f"run {number} ended by itself: {process.communicate()}"
            process.kill()
        assert one(killed, "PRAGMA integrity_check") == "ok" if killed.exists() else True
    with running(simulator, killed, *options) as process:
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0, told
    details = simulator.requests["info"]

    mirror(undisturbed, simulator, max_parallel_requests=20)
    assert dump(killed) == dump(undisturbed)
    assert_complete(killed, world)
    assert details <= len(world.ids()) + kills * window


# --- the property of the whole product --------------------------------------------------------------

SEED, ITEMS_AT_FIRST = 3, 250
NOW = int(time.time())
MORE = int(os.environ.get("FETCHER_EXAMPLES", "0"))
"""Set it to explore so many examples, chosen anew, instead of a few that are always the same."""


@dataclass(frozen=True)
class Life:
    """One run: how it is asked for, how many items arrive before it, and what ends it, if anything does."""

    order: str
    batch: int
    workers: int
    limit: int | None = None
    start_from: int | None = None
    full: bool = False
    arrive: int = 0
    dies_at: int | None = None
    dies_after: bool = False
    stops_at_batch: int | None = None

    @property
    def window(self) -> int:
        return self.workers + 2 * self.batch


def lives(**fixed: Any) -> st.SearchStrategy[Life]:
    maybe = lambda low, high: st.none() | st.integers(low, high)  # noqa: E731
    return st.builds(
        Life,
        order=st.sampled_from(["newest", "oldest"]),
        batch=st.integers(1, 50),
        workers=st.integers(1, 8),
        **{
            "limit": maybe(1, 80),
            "start_from": maybe(1, 360),
            "arrive": st.sampled_from([0, 0, 0, 130]),
            "dies_at": maybe(1, 400),
            "dies_after": st.booleans(),
            "stops_at_batch": maybe(1, 20),
            **fixed,
        },
    )


@settings(
    max_examples=MORE or 12,
    derandomize=not MORE,
    database=None,
    deadline=None,
    # To shrink a failure would take many minutes; the lives it names can be shortened by hand.
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(
    before=st.lists(lives(), min_size=1, max_size=4),
    last=lives(limit=st.none(), start_from=st.none(), arrive=st.just(0), dies_at=st.none(), stops_at_batch=st.none()),
    young=st.booleans(),
)
@example(
    # The head is walked, new items arrive, the next run dies between the head and the old hole.
    before=[
        Life("newest", 5, 4, stops_at_batch=1),
        Life("newest", 5, 4, arrive=130, stops_at_batch=1),
        Life("oldest", 5, 4, dies_at=60),
    ],
    last=Life("newest", 50, 8),
    young=False,
)
@pytest.mark.timeout(300 + MORE * 10)
def test_however_often_a_run_dies_resuming_ends_where_an_undisturbed_run_does(
    before: list[Life], last: Life, young: bool
) -> None:
    created = NOW if young else LAST_CREATED
    world = World(seed=SEED, items=ITEMS_AT_FIRST)
    arrived = 0
    reported: set[int] = set()
    with tempfile.TemporaryDirectory() as folder, Simulator(world) as simulator:
        db = Path(folder) / "mirror.db"
        for life in before:
            arrived += life.arrive
            world.arrive(life.arrive, created=created)
            reported |= live(life, db, simulator)
            assert_consistent(db, world, reported)
        live(last, db, simulator)
        assert dump(db) == undisturbed(arrived, created)
        details = simulator.requests["info"]
        # Items read again at the head because they are young have their details already.
        assert details <= len(world.ids()) + sum(life.window for life in before)


def live(life: Life, db: Path, simulator: Simulator) -> set[int]:
    """One run to its end, whatever that is; returns the keys that it reported as stored."""
    stop = Stop()
    reported: set[int] = set()
    batches = 0

    def on_batch(done: Committed) -> None:
        nonlocal batches
        batches += 1
        reported.update(done.stored)
        if batches == life.stops_at_batch:
            stop.set()

    with death(life.dies_at, after=life.dies_after):
        try:
            mirror(
                db,
                simulator,
                order=life.order,
                db_batch_size=life.batch,
                max_parallel_requests=life.workers,
                limit=life.limit,
                start_from=life.start_from,
                stop=stop,
                on_batch=on_batch,
            )
        except Died:
            assert life.dies_at is not None
        except Interrupted:
            assert life.stops_at_batch is not None
    return reported


@cache
def statements_of_opening() -> int:
    """How many statements it takes to make a new database."""
    with tempfile.TemporaryDirectory() as folder, death() as counted:
        open_store(Path(folder) / "mirror.db").close()
        return counted.statements


def open_store(path: Path) -> SqliteStore:
    """The store of a mirror of pr0gramm."""
    return SqliteStore.open(path, "pr0gramm", (ITEMS, TAGS, COMMENTS), "http://localhost", views=VIEWS)


@cache
def undisturbed(arrived: int, created: int) -> dict[str, Any]:
    """What one run makes of the world after so many items have arrived."""
    world = World(seed=SEED, items=ITEMS_AT_FIRST)
    world.arrive(arrived, created=created)
    with tempfile.TemporaryDirectory() as folder, Simulator(world) as simulator:
        db = Path(folder) / "mirror.db"
        mirror(db, simulator)
        assert_complete(db, world)
        return dump(db)


def assert_consistent(db: Path, world: World, reported: set[int]) -> None:
    """Between any two runs: nothing reported is missing, nothing covered was skipped, nothing is half there."""
    if not db.exists() or not query(db, "SELECT 1 FROM sqlite_master WHERE name = 'comments'"):
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
    if query(db, "SELECT 1 FROM sqlite_master WHERE name = 'search'"):
        assert_search_is_exact(db)
    counted = query(db, "SELECT items, fetched, work, parked FROM sources")
    assert counted in ([], [(len(listed), len(fetched), len(work), 0)])


# --- half a batch -----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Opens the store of one database, one after the other."""
    opened: list[SqliteStore] = []

    def open_() -> SqliteStore:
        for each in opened:
            each.close()
        opened.append(open_store(tmp_path / "mirror.db"))
        opened[-1].begin_run(Plan())
        opened[-1].want({1: Interval(1, 1)})
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


STATE = RunState(Progress(Counts(), 1.0, 0, 0, 0.0, None))


def item(id: int) -> tuple[Any, ...]:
    """An item's row as a source gives it."""
    values = {"id": id, "created": LAST_CREATED, "flags": 1}
    return (*(values.get(each.name) for each in ITEMS.columns), '{"new":1}')


def test_half_a_batch_leaves_nothing(tmp_path: Path, store: Callable[[], SqliteStore]) -> None:
    """A batch with everything in it: pages, rows replaced and new, work ended, put off and parked, evidence dropped."""
    db = tmp_path / "mirror.db"
    tag, comment = (1, 1, "tag", 0.5, None), (1, 1, 0, "text", 1, 2, 0, 0.5, "name", 0, None)
    opened = store()
    first = Page(tuple(item(id) for id in range(100, 106)), (1,), Interval(100, 106), None)
    failed = Failure("detail", 101, Outcome.UNAVAILABLE, "answered 500", 500, b"body", 1, 1.0)
    opened.commit(Batch(pages=(first,)), STATE)
    rows = {"tags": [(100, *tag[1:])], "comments": [(100, *comment[1:])]}
    opened.commit(Batch(details={100: Detail(rows)}, failures=(failed,)), STATE)
    batch = Batch(
        # 106 is gone from its page, 103 is listed anew, 95 can not be used.
        pages=(
            Page(
                tuple(item(id) for id in (90, 91, 103, 104, 105)),
                (1,),
                Interval(90, 105),
                None,
                failures=(Failure("item", 95, Outcome.MALFORMED, "created is missing", 200, b"{}"),),
            ),
        ),
        details={
            100: Detail({"tags": [(100, 2, "other", 0.1, None)], "comments": []}),
            101: Detail({"tags": [(101, *tag[1:])], "comments": [(101, *comment[1:])]}),
        },
        gone=(102,),
        failures=(
            Failure("detail", 103, Outcome.UNAVAILABLE, "answered 500", 500, b"body", 1, 1.0),
            Failure("detail", 104, Outcome.MALFORMED, "no list of tags", 200, b"{}", 9, None),
        ),
    )
    opened.close()
    before = dump_all(db)

    struck = 0
    for number in range(1, 1000):
        with death() as fate:
            opened = store()
            # Opening begins a run: that is no part of the batch.
            runs = dump_all(db)["runs"]
            fate.at, fate.error = fate.statements + number, lambda: sqlite3.OperationalError("disk I/O error")
            try:
                opened.commit(batch, STATE)
            except StoreError:
                assert fate.struck
            else:
                assert not fate.struck, f"statement {number} failed and nobody was told"
                break
        struck += 1
        assert dump_all(db) == {**before, "runs": runs}, f"statement {number} failed and left something"
    assert struck > 20, "every statement of the transaction was made to fail"
    assert column(db, "SELECT tag FROM tags ORDER BY item_id") == ["other", "tag"]
    assert query(db, "SELECT key, outcome FROM work ORDER BY key") == [
        (90, None),
        (91, None),
        (95, "malformed"),
        (103, "unavailable"),
        (104, "malformed"),
        (105, None),
    ]


def test_a_run_that_dies_at_any_statement_leaves_whole_batches_and_is_completed(
    tmp_path: Path, tiny: Simulator
) -> None:
    world = tiny.world
    settings = {"db_batch_size": 4, "max_parallel_requests": 2}
    mirror(tmp_path / "undisturbed.db", tiny, **settings)
    expected = dump(tmp_path / "undisturbed.db")
    with death() as counted:
        mirror(tmp_path / "counted.db", tiny, **settings)
    assert counted.statements > statements_of_opening() + 40
    for number in range(statements_of_opening() + 1, counted.statements + 1):
        db = tmp_path / f"{number}.db"
        reported: set[int] = set()
        with death(number) as fate:
            try:
                mirror(db, tiny, **settings, on_batch=lambda done, to=reported: to.update(done.stored))
            except Died:
                assert fate.struck
        assert_consistent(db, world, reported)
        mirror(db, tiny, **settings)
        assert dump(db) == expected, f"died before statement {number}"


def test_a_run_that_dies_while_it_makes_the_database_is_completed(tmp_path: Path, tiny: Simulator) -> None:
    refused = []
    for number in range(1, statements_of_opening() + 1):
        db = tmp_path / f"{number}.db"
        with death(number), pytest.raises(Died):
            open_store(db)
        try:
            open_store(db).close()
        except StoreError as error:
            refused.append((number, str(error)))
    assert refused == []


@pytest.fixture
def tiny(simulate: Simulate) -> Simulator:
    """Ten items."""
    return simulate(World(seed=5, items=10))
