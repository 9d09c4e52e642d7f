"""What fetcher promises, each promise with a test that fails when the code is broken."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests

from fetcher import Committed, Interrupted, LoginError, RemoteError, Stop, StoreError
from fetcher.engine import Engine
from fetcher.simulator import Answer, Simulator, World
from fetcher.simulator.world import LAST_CREATED
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores import database as store
from fetcher.stores.sqlite import SqliteStore
from fetcher.transport import LeanAdapter
from tests.fakes import FakeStop
from tests.helpers import (
    answer,
    assert_complete,
    column,
    details_of,
    dump,
    eventually,
    list_page,
    mirror,
    one,
    query,
    quiet,
    run,
    run_fetcher,
    running,
)

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]

LOGIN = {"pp": "0123456789abcdef-secret", "me": "%7B%22n%22%3A%22secret-name%22%7D"}


def seconds_to_end(process: subprocess.Popen[str]) -> tuple[float, str, str]:
    """How long a process took to end from now, and what it said on stdout and stderr."""
    asked = time.monotonic()
    out, err = process.communicate(timeout=40)
    return time.monotonic() - asked, out, err


SOON = 3.0
"""Two seconds are promised; the rest is slack for a machine that is busy."""


# --- no silent hole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_items_that_arrive_between_interrupted_runs_leave_no_hole(order: str, db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=200)
    simulator = simulate(world)
    for pages in (1, 2, 1):
        stop = Stop()
        left = [pages]

        def after_some_pages(done: Committed, left: list[int] = left, stop: Stop = stop) -> None:
            left[0] -= done.pages
            if left[0] <= 0:
                stop.set()

        with pytest.raises(Interrupted):
            mirror(db, simulator, order=order, db_batch_size=4, stop=stop, on_batch=after_some_pages)
        # More than a page, so that the next walk from the head does not meet the last one's end by chance.
        world.arrive(150, created=LAST_CREATED)
    mirror(db, simulator, order=order)
    assert_complete(db, world)
    assert query(db, "SELECT lo, hi FROM coverage") == [(1, world.ids()[-1])]


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_the_newest_item_is_stored(order: str, db: Path, shared_simulator: Simulator) -> None:
    mirror(db, shared_simulator, order=order)
    assert one(db, "SELECT max(id) FROM items WHERE fetched_at IS NOT NULL") == shared_simulator.world.ids()[-1]


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_an_item_that_arrives_after_the_first_answer_is_stored_by_the_walk(
    order: str, db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=50)

    def arrive(kind: str, key: int, attempt: int) -> None:
        if kind == "list" and simulator.requests["list"] == 2:
            world.arrive(1, created=LAST_CREATED)

    simulator = simulate(world, faults=arrive)
    mirror(db, simulator, order=order)
    assert len(world.ids()) == 51
    assert_complete(db, world)


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_an_item_that_appears_late_among_young_ones_is_found_by_the_next_run(
    order: str, db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=50)
    young = world.arrive(9)
    late = young[4]
    world.delete(late)
    simulator = simulate(world)
    mirror(db, simulator, order=order)
    assert one(db, "SELECT max(hi) FROM coverage") < young[0]
    assert set(column(db, "SELECT id FROM items")) == set(world.ids())
    world.undelete(late)
    before = simulator.requests["info"]
    mirror(db, simulator, order=order)
    assert_complete(db, world)
    assert simulator.requests["info"] == before + 1, "what was young has its details already"


def test_walking_up_nothing_above_a_young_item_is_proven(db: Path, simulate: Simulate) -> None:
    world = World(seed=3, items=250)
    young = world.arrive(60)
    ids = list(world.ids())
    # A page that ends right below a hole among the young ones, and starts below them all.
    last = next(at for at, id in enumerate(ids) if id > young[0] and ids[at + 1] > id + 1)
    simulator = simulate(world)
    mirror(db, simulator, start_from=ids[last - 119] - 1)
    mirror(db, simulator, order="oldest")
    assert one(db, "SELECT max(hi) FROM coverage") < young[0]


# --- the database is one run's, and may fill up -----------------------------------------------------


def test_a_second_run_on_one_database_ends_with_6_while_the_first_goes_on(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=60), latency=0.1)
    with running(simulator, db, "--workers", "2") as first:
        eventually(lambda: simulator.requests["info"] > 2)
        second = run(simulator, db)
        assert first.poll() is None
        assert second.returncode == 6
        assert second.stdout == ""
        assert second.stderr == f"fetcher: {db} is in use by another run: wait for it, or stop it\n"
        seconds_to_end(first)
        assert first.returncode == 0
    assert_complete(db, simulator.world)


def mirror_until_full(db: Path, simulator: Simulator) -> set[int]:
    """Mirror until the disk is full; returns what was reported as stored by then."""
    reported: set[int] = set()
    with pytest.raises(StoreError, match="the disk is full: make room and run again") as caught:
        mirror(db, simulator, db_batch_size=10, min_free_disk_mb=0, on_batch=lambda done: reported.update(done.stored))
    assert "\n" not in str(caught.value)
    return reported


def assert_stored_though_full(db: Path, world: World, reported: set[int]) -> None:
    assert reported
    stored = set(column(db, "SELECT id FROM items WHERE fetched_at IS NOT NULL"))
    assert reported <= stored < set(world.ids())
    assert set(query(db, "SELECT item_id, id FROM comments")) == {
        (id, each["id"]) for id in stored for each in world.info(id)["comments"]
    }


MOST_PAGES = 120
LIMITED_SPACE = f"""
import fetcher.stores.database as store
connect = store.connect
def limited(path, **more):
    conn = connect(path, **more)
    conn.execute("PRAGMA max_page_count = {MOST_PAGES}")
    return conn
store.connect = limited
"""


def test_a_full_disk_ends_the_run_with_6_and_costs_nothing_that_was_reported(
    db: Path, shared_simulator: Simulator
) -> None:
    connect = store.connect

    def limited(path: Path, **more: Any) -> sqlite3.Connection:
        conn = connect(path, **more)
        conn.execute(f"PRAGMA max_page_count = {MOST_PAGES}")
        return conn

    with mock.patch.object(store, "connect", limited):
        reported = mirror_until_full(db, shared_simulator)
    assert_stored_though_full(db, shared_simulator.world, reported)
    again = run(shared_simulator, db, code=LIMITED_SPACE)
    assert again.returncode == 6
    assert again.stderr == f"fetcher: {db}: the disk is full: make room and run again, what was stored is safe\n"
    mirror(db, shared_simulator)
    assert_complete(db, shared_simulator.world)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root on Linux may mount a file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_file_system_without_room_costs_nothing_that_was_reported(
    tiny_disk: Path, shared_simulator: Simulator
) -> None:
    db = tiny_disk / "mirror.db"
    reported = mirror_until_full(db, shared_simulator)
    assert_stored_though_full(db, shared_simulator.world, reported)
    subprocess.run(["mount", "-o", "remount,size=50m", tiny_disk], check=True)
    mirror(db, shared_simulator)
    assert_complete(db, shared_simulator.world)


# --- Ctrl-C answers ---------------------------------------------------------------------------------


def limited_after(answers: int, seconds: int) -> Callable[[str, int, int], Answer | None]:
    """After so many details the API refuses every request, for so long."""
    seen = [0]

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind == "info":
            seen[0] += 1
        return answer({}, 429, Retry_After=str(seconds)) if seen[0] > answers else None

    return faults


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_long_pause_ends_the_run_at_once(
    number: signal.Signals, db: Path, simulate: Simulate
) -> None:
    simulator = simulate(World(seed=1, items=60), latency=0.002, faults=limited_after(20, 60))
    with running(simulator, db, "--workers", "3") as process:
        eventually(lambda: simulator.requests["info"] > 20)
        quiet(simulator)
        process.send_signal(number)
        seconds, out, err = seconds_to_end(process)
    assert seconds < SOON
    assert process.returncode == 130
    stored = one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL")
    assert stored == 20
    assert err.startswith("fetcher: interrupted; the 20 items fetched in this run are stored. Go on with: ")
    assert f"Stored {stored} items" in out
    assert query(db, "SELECT ended, stored FROM runs") == [("interrupted", stored)]


def hanging(key_number: int) -> Callable[[str, int, int], Answer | None]:
    """The details of so many items are answered; later ones a minute late."""
    seen = [0]

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind != "info":
            return None
        seen[0] += 1
        return Answer(delay=60.0) if seen[0] > key_number else None

    return faults


def test_a_signal_while_an_answer_hangs_ends_the_run_at_once(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=60), faults=hanging(20))
    with running(simulator, db, "--workers", "3") as process:
        eventually(lambda: simulator.requests["info"] == 23)
        process.send_signal(signal.SIGINT)
        seconds, _, err = seconds_to_end(process)
    assert seconds < SOON
    assert process.returncode == 130
    assert "-m fetcher fetch " in err.partition("Go on with: ")[2]
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == 20


STUCK = """
import threading
import fetcher.sources.pr0gramm as source
source.Pr0gramm.detail = lambda *_: threading.Event().wait(60)
"""


def test_a_thread_that_nothing_can_wake_is_left_behind(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=10))
    with running(simulator, db, code=STUCK) as process:
        eventually(lambda: db.exists() and bool(query(db, "SELECT 1 FROM sqlite_master WHERE name = 'items'")))
        eventually(lambda: one(db, "SELECT count(*) FROM items") == 10)
        process.send_signal(signal.SIGINT)
        seconds, _, _ = seconds_to_end(process)
    assert seconds < SOON
    assert process.returncode == 130


SLOW_COMMIT = """
import threading
import fetcher.stores.sqlite as store
write = store.SqliteStore._write
def slow(self, batch):
    done = write(self, batch)
    if batch.details:
        print("in the middle", flush=True)
        threading.Event().wait(60)
    return done
store.SqliteStore._write = slow
"""


def test_a_second_signal_kills_at_once_and_safely(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=20))
    with running(simulator, db, code=SLOW_COMMIT) as process:
        assert process.stdout is not None
        while "in the middle" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        # The first one waits for the commit: nothing of it is seen from outside, but its handler is gone.
        eventually(lambda: not caught(process.pid, signal.SIGINT))
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        seconds, _, _ = seconds_to_end(process)
    assert seconds < SOON
    assert process.returncode == -signal.SIGINT
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == 0
    mirror(db, simulator)
    assert_complete(db, simulator.world)


def caught(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs /proc to see a process's signal handlers")
    (line,) = [each for each in status.read_text().splitlines() if each.startswith("SigCgt:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


# --- the library never ends the process, and cleans up ----------------------------------------------


def test_the_library_raises_interrupted_when_another_thread_asks_and_the_process_goes_on(
    db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=60)
    simulator = simulate(world, faults=hanging(30))
    stop, enough = Stop(), threading.Event()
    stored: set[int] = set()

    def on_batch(done: Committed) -> None:
        stored.update(done.stored)
        if len(stored) >= 10:
            enough.set()

    def ask() -> None:
        assert enough.wait(20)
        stop.set()

    asker = threading.Thread(target=ask)
    asker.start()
    with pytest.raises(Interrupted) as caught:
        mirror(db, simulator, db_batch_size=5, max_parallel_requests=3, stop=stop, on_batch=on_batch)
    asker.join(5)
    assert caught.value.summary.counts.stored == len(stored) >= 10
    assert set(column(db, "SELECT id FROM items WHERE fetched_at IS NOT NULL")) == stored
    assert mirror(db, simulate(world)).ended == "complete"
    assert_complete(db, world)


def test_ctrl_c_in_a_program_without_handlers_of_its_own_is_interrupted_too(
    db: Path, shared_simulator: Simulator
) -> None:
    pressed = []

    def on_batch(done: Committed) -> None:
        if done.stored and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        mirror(db, shared_simulator, db_batch_size=20, on_batch=on_batch)
    mirror(db, shared_simulator)
    assert_complete(db, shared_simulator.world)


class Oops(Exception):
    """An error in a caller's own code."""


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(None, id="healthy"),
        pytest.param(hanging(20), id="an answer hangs"),
        pytest.param(limited_after(20, 60), id="a pause goes on"),
    ],
)
def test_no_thread_is_left_behind_when_an_error_ends_the_run(faults: Any, db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=60), faults=faults)

    def on_batch(done: Committed) -> None:
        if done.stored:
            raise Oops

    before = set(threading.enumerate())
    with pytest.raises(Oops):
        mirror(db, simulator, db_batch_size=10, max_parallel_requests=3, on_batch=on_batch)
    assert_gone(before)


def assert_gone(before: set[threading.Thread]) -> None:
    eventually(lambda: set(threading.enumerate()) <= before, 3, lambda: f"threads left: {threading.enumerate()}")


def test_no_answer_at_all_is_an_error_of_the_api(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(items=1))
    simulator.close()
    with pytest.raises(RemoteError, match="is API_BASE_URL right, is the host up"):
        mirror(db, simulator, stop=FakeStop())


# --- an error is never data, and one bad item never stops the rest -----------------------------------


def spoil_tag(data: dict[str, Any]) -> None:
    data["tags"].append({"id": 1, "tag": "\ud800", "confidence": 0.5})


def spoil_comment(data: dict[str, Any]) -> None:
    data["comments"].append({"id": 2**63, "content": "too big"})


def spoil_shape(data: dict[str, Any]) -> None:
    data["comments"].append({"id": 5, "parent": 0})


def spoil_lists(data: dict[str, Any]) -> None:
    del data["tags"]


def spoiled(world: World, id: int, change: Callable[[dict[str, Any]], None]) -> tuple[Any, bytes]:
    """Faults that change the details of one item, and its body then."""
    data = details_of(world, id)
    change(data)
    told = answer(data)
    return (lambda kind, key, attempt: told if (kind, key) == ("info", id) else None), told.body


@pytest.mark.parametrize("spoil", [spoil_tag, spoil_comment, spoil_shape, spoil_lists])
@pytest.mark.parametrize("retries", [0, 1])
def test_one_item_that_cannot_be_used_is_a_failure_alone(
    spoil: Callable[[dict[str, Any]], None], retries: int, db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=40)
    id = world.ids()[20]
    faults, body = spoiled(world, id, spoil)
    simulator = simulate(world, faults=faults)
    summary = mirror(db, simulator, max_retries=retries, stop=FakeStop())
    assert summary.exit_code == 3
    assert (summary.counts.stored, summary.counts.failed, summary.counts.retries) == (39, 1, retries)
    assert simulator.requests["info"] == 40 + retries
    assert column(db, "SELECT id FROM items WHERE fetched_at IS NULL") == [id]
    assert query(db, "SELECT key, outcome, attempts, due_at FROM work") == [(id, "malformed", retries + 1, None)]
    assert query(db, "SELECT key, outcome, status, body FROM failures") == [(id, "malformed", 200, body)]
    assert one(db, "SELECT parked FROM sources") == 1


def test_the_command_ends_with_3_when_an_item_failed_for_good(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(seed=1, items=10)
    faults, _ = spoiled(world, world.ids()[5], spoil_tag)
    Path(".env").write_text("MAX_RETRIES=0\n")
    done = run(simulate(world, faults=faults), db)
    assert done.returncode == 3, done.stderr
    assert "1 failed" in done.stdout
    assert "`fetcher failures` says why" in done.stdout


def test_a_listed_item_that_cannot_be_used_is_a_failure_alone_and_used_once_it_can(
    db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=40)
    id = world.ids()[20]
    data = list_page(world, 0)
    (spoilt,) = [each for each in data["items"] if each["id"] == id]
    del spoilt["flags"]
    told = answer(data)
    bad = simulate(world, faults=lambda kind, key, attempt: told if kind == "list" else None)
    assert mirror(db, bad).exit_code == 3
    assert set(column(db, "SELECT id FROM items")) == set(world.ids()) - {id}
    assert query(db, "SELECT stage, key, outcome, due_at FROM work") == [("item", id, "malformed", None)]
    assert one(db, "SELECT body FROM failures") == told.body
    assert mirror(db, simulate(world), full_update=True).exit_code == 0
    assert_complete(db, world)
    assert one(db, "SELECT count(*) FROM failures") == 0


def test_an_unusable_value_of_an_optional_field_is_kept_in_extra(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=5)
    id = world.ids()[2]

    def change(data: dict[str, Any]) -> None:
        data["comments"] = [{"id": 7, "content": "good", "name": "\ud800", "up": 2**63, "mark": "3"}]

    faults, _ = spoiled(world, id, change)
    assert mirror(db, simulate(world, faults=faults)).exit_code == 0
    ((content, name, up, mark, extra),) = query(
        db, "SELECT content, name, up, mark, extra FROM comments WHERE item_id = ?", id
    )
    assert (content, name, up, mark) == ("good", None, None, 3)
    assert json.loads(extra) == {"name": "\ud800", "up": 2**63}


def test_fields_that_are_not_known_yet_are_kept_in_extra(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=3)
    id = world.ids()[1]
    page, info = list_page(world, 0), details_of(world, id)
    new = {"deep": [1, {"x": None}], "text": "\ud800"}
    (listed,) = [each for each in page["items"] if each["id"] == id]
    listed["news"] = new
    info["tags"] = [{"id": 1, "tag": "a", "confidence": 0.1, "votes": 3}]
    info["comments"] = [{"id": 2, "content": "b", "news": new}]

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return answer(page) if kind == "list" else answer(info) if key == id else None

    assert mirror(db, simulate(world, faults=faults)).exit_code == 0
    assert json.loads(one(db, "SELECT extra FROM items WHERE id = ?", id)) == {"news": new}
    assert json.loads(one(db, "SELECT extra FROM tags WHERE item_id = ?", id)) == {"votes": 3}
    assert json.loads(one(db, "SELECT extra FROM comments WHERE item_id = ?", id)) == {"news": new}


def test_an_item_without_tags_and_comments_is_a_good_answer(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=5)
    id = world.ids()[2]
    faults, _ = spoiled(world, id, lambda data: data.update(tags=[], comments=[]))
    summary = mirror(db, simulate(world, faults=faults))
    assert (summary.exit_code, summary.counts.stored) == (0, 5)
    assert one(db, "SELECT fetched_at FROM items WHERE id = ?", id) is not None
    assert one(db, "SELECT count(*) FROM tags WHERE item_id = ?", id) == 0


@pytest.mark.parametrize("status", [404, 200])
def test_an_item_that_is_gone_becomes_a_tombstone(status: int, db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=5)
    id = world.ids()[2]
    told = answer({"error": "notFound", "code": 404, "msg": "Not found"}, status)
    simulator = simulate(world, faults=lambda kind, key, attempt: told if (kind, key) == ("info", id) else None)
    summary = mirror(db, simulator)
    assert (summary.exit_code, summary.counts.stored, summary.counts.gone) == (0, 4, 1)
    assert column(db, "SELECT id FROM items WHERE gone_at IS NOT NULL") == [id]
    assert one(db, "SELECT count(*) FROM work") == 0
    assert simulator.requests["info"] == 5, "gone ends at once"


# --- polite by construction -------------------------------------------------------------------------


def test_one_refusal_pauses_all_threads_and_a_single_probe_goes_first(db: Path, simulate: Simulate) -> None:
    refused: list[float] = []
    latency = 0.15

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if not refused and kind == "info" and simulator.requests["info"] > 40:
            refused.append(time.monotonic())
            return answer({}, 429, Retry_After="2")
        return None

    simulator = simulate(World(seed=1, items=60), latency=latency, faults=faults, record=True)
    summary = mirror(db, simulator, max_parallel_requests=6)
    assert_complete(db, simulator.world)
    assert summary.counts.limited == 1
    assert simulator.log is not None
    # The refusal itself took its time to arrive, and others were on their way.
    heard = refused[0] + latency
    starts = [at for at, _, _ in simulator.log]
    paused = [at - heard for at in starts if heard + 0.1 < at < heard + 1.9]
    assert paused == []
    after = [at for at in starts if at >= heard + 1.9]
    assert len(after) > 5
    assert after[1] - after[0] > latency * 0.9, "the second request waits for the probe's answer"
    # Then they go on together, at the pace that the refusal has taught.
    assert after[2] - after[1] < 1


@pytest.mark.parametrize("status", [200, 429])
def test_the_api_may_refuse_in_a_body_without_naming_a_time(status: int, db: Path, simulate: Simulate) -> None:
    told = answer({"error": "limitReached", "msg": "slow down"}, status)
    world = World(seed=1, items=20)
    id = world.ids()[10]
    simulator = simulate(world, faults=lambda kind, key, n: told if (kind, key) == ("info", id) and n <= 3 else None)
    summary = mirror(db, simulator, stop=FakeStop(), max_retries=0)
    assert_complete(db, world)
    assert summary.counts.limited >= 1
    assert summary.counts.failed == 0, "a refusal spends no attempt"


def test_requests_begin_evenly_and_never_faster_than_allowed(db: Path, simulate: Simulate) -> None:
    rate = 25
    world = World(seed=1, items=45)
    flaky = world.ids()[5]

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return answer({}, 500) if key == flaky and attempt == 1 else None

    simulator = simulate(world, record=True, faults=faults)
    mirror(db, simulator, max_requests_per_second=rate, max_parallel_requests=10)
    assert simulator.log is not None
    starts = [at for at, _, _ in simulator.log]
    assert len(starts) >= 48, "details, lists and a retry"
    # Seen from the server, a start may come a little late, and the next one on time.
    most = max(sum(first <= at < first + 1 for at in starts) for first in starts)
    assert most <= rate + 2
    gaps = sorted(after - before for before, after in pairwise(starts))
    assert gaps[len(gaps) // 10] > 0.5 / rate, "no bursts"


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (4, 5)])
def test_no_more_requests_are_open_than_allowed(workers: int, most: int, db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=260), latency=0.003, jitter=0.002)
    mirror(db, simulator, max_parallel_requests=workers, min_parallel_requests=workers, limit=150)
    assert workers <= simulator.max_in_flight <= most


def test_no_more_work_is_under_way_than_the_window_allows(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=120))
    workers, batch = 3, 5
    committed: set[int] = set()
    most = 0
    commit = SqliteStore.commit

    def slow_commit(*args: Any) -> Committed:
        # While the store is busy, the workers finish all that was handed to them.
        nonlocal most
        quiet(simulator, 0.05)
        most = max(most, simulator.requests["info"] - len(committed))
        done = commit(*args)
        committed.update(done.stored)
        return done

    with mock.patch.object(SqliteStore, "commit", slow_commit):
        mirror(db, simulator, max_parallel_requests=workers, db_batch_size=batch)
    assert_complete(db, simulator.world)
    assert workers + batch <= most <= workers + 2 * batch


# --- secrets ----------------------------------------------------------------------------------------


class Tapped(LeanAdapter):
    """Our own transport, overheard."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: set[str] = set()
        self.cookies: set[str] = set()

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self.urls.add(str(request.url))
        self.cookies.add(request.headers.get("Cookie", ""))
        return super().send(request, *args, **options)


def test_secrets_are_sent_as_cookies_and_found_nowhere_else(
    db: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(seed=1, items=30, login=True)
    id = world.ids(9)[5]
    faults, _ = spoiled(world, id, spoil_tag)
    tapped = Tapped()
    session = requests.Session()
    session.mount("http://", tapped)
    simulator = simulate(world, faults=faults)
    mirror(db, simulator, content_flags=9, max_retries=0, session=session, log_level="DEBUG", **LOGIN)
    assert set(column(db, "SELECT id FROM items")) == set(world.ids(9)), "logged in"
    assert len(tapped.urls) > 30
    (sent,) = tapped.cookies
    assert all(f"{name}={value}" in sent for name, value in LOGIN.items())
    stored = b"".join(each.read_bytes() for each in db.parent.iterdir())
    for secret in LOGIN.values():
        assert not any(secret in url for url in tapped.urls)
        assert secret not in caplog.text
        assert secret not in "".join(capfd.readouterr())
        assert secret.encode() not in stored
    assert "cannot" in caplog.text or str(id) in caplog.text, "the log was looked at"


def test_secrets_are_not_shown_by_the_command_at_debug(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=10, login=True))
    Path(".env").write_text(f"PP={LOGIN['pp']}\nME={LOGIN['me']}\nCONTENT_FLAGS=9\nLOG_LEVEL=DEBUG\n")
    done = run(simulator, db, "-vv")
    assert done.returncode == 0
    assert_complete(db, simulator.world, 9)
    assert not any(secret in done.stdout + done.stderr for secret in LOGIN.values())


# --- what a run covers ------------------------------------------------------------------------------


def test_wider_flags_fetch_exactly_what_is_missing(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=150, login=True)
    simulator = simulate(world)
    mirror(db, simulator)
    assert simulator.requests["info"] == len(world.ids(1))
    assert column(db, "SELECT DISTINCT scope FROM coverage") == [1]
    mirror(db, simulator, content_flags=9, **LOGIN)
    assert_complete(db, world, 9)
    assert simulator.requests["info"] == len(world.ids(9))
    # The head is asked for all flags, so that coverage of both ends at the newest item of all.
    assert query(db, "SELECT scope, lo, hi, items FROM coverage ORDER BY scope") == [
        (1, 1, world.ids(1)[-1], len(world.ids(1))),
        (8, 1, world.ids(1)[-1], len(world.ids(8))),
    ]


def test_full_fetches_everything_once_more_and_an_interrupted_one_goes_on(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=300)
    simulator = simulate(world)
    mirror(db, simulator)
    assert simulator.requests["info"] == 300
    mirror(db, simulator)
    assert simulator.requests["info"] == 300, "a plain fetch has nothing to do"
    mirror(db, simulator, full_update=True, limit=100)
    assert simulator.requests["info"] == 400
    mirror(db, simulator, full_update=True, limit=50)
    assert simulator.requests["info"] == 450
    assert one(db, "SELECT sweep FROM sources") == 2, "the sweep still open goes on, no new one begins"
    mirror(db, simulator)
    assert simulator.requests["info"] == 600, "a plain fetch goes on with the open sweep"
    mirror(db, simulator)
    assert simulator.requests["info"] == 600
    assert_complete(db, world)
    assert query(db, "SELECT scope, sweep, lo, hi, items FROM coverage") == [(1, 2, 1, world.ids()[-1], 300)]


def test_what_a_new_walk_does_not_list_is_unlisted_until_it_is_listed_again(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=300)
    simulator = simulate(world)
    hidden = [world.ids()[0], world.ids()[150], world.ids()[151], world.ids()[298]]
    mirror(db, simulator)
    for id in hidden:
        world.delete(id)
    mirror(db, simulator, full_update=True)
    assert column(db, "SELECT id FROM items WHERE unlisted_at IS NOT NULL ORDER BY id") == hidden
    assert one(db, "SELECT count(*) FROM items WHERE gone_at IS NOT NULL") == 0, "only a detail says gone"
    assert one(db, "SELECT count(*) FROM tags WHERE item_id = ?", hidden[1]) == len(world_tags(world, hidden[1]))
    for id in hidden:
        world.undelete(id)
    mirror(db, simulator, full_update=True)
    assert one(db, "SELECT count(*) FROM items WHERE unlisted_at IS NOT NULL") == 0
    assert_complete(db, world)


def world_tags(world: World, id: int) -> list[Any]:
    """The tags of an item, hidden or not."""
    return list(world.info(id)["tags"])


@pytest.mark.parametrize("limit", [1, 37, 130])
def test_a_limit_commits_exactly_so_many_details(limit: int, db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=300), latency=0.001)
    summary = mirror(db, simulator, limit=limit, db_batch_size=10)
    assert (summary.counts.stored, summary.ended, summary.exit_code) == (limit, "limit reached", 0)
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == limit
    assert simulator.requests["info"] == limit
    assert one(db, "SELECT count(*) FROM items") % 120 in (0, 60), "pages are stored whole"
    done = run(simulator, db, "--limit", "5")
    assert done.returncode == 0
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == limit + 5


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_start_from_bounds_a_run_and_includes_its_item(order: str, db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=300)
    simulator = simulate(world)
    id = world.ids()[100]
    mirror(db, simulator, start_from=id, order=order)
    wanted = [each for each in world.ids() if (each <= id if order == "newest" else each >= id)]
    assert column(db, "SELECT id FROM items ORDER BY id") == wanted
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NULL") == 0
    top = world.ids()[-1]
    assert query(db, "SELECT lo, hi FROM coverage") == [(1, id) if order == "newest" else (id, top)]
    mirror(db, simulator)
    assert_complete(db, world)
    assert simulator.requests["info"] == 300


def test_a_dry_run_writes_nothing(db: Path, shared_simulator: Simulator) -> None:
    done = run(shared_simulator, db, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Nothing was written." in done.stdout
    assert list(db.parent.iterdir()) == []
    mirror(db, shared_simulator, limit=50)
    before = db.read_bytes(), db.stat().st_mtime_ns
    assert run(shared_simulator, db, "--dry-run").returncode == 0
    assert (db.read_bytes(), db.stat().st_mtime_ns) == before
    # SQLite's own shared memory and an empty log, which any reader of a WAL database makes, may stay.
    wal = Path(f"{db}-wal")
    assert not wal.exists() or wal.stat().st_size == 0


def test_status_tells_of_a_run_that_goes_on(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=115), latency=0.3)
    with running(simulator, db, "--workers", "2", "--batch-size", "5") as process:
        eventually(lambda: simulator.requests["info"] > 12)
        done = run_fetcher("status", str(db))
        facts = json.loads(run_fetcher("status", str(db), "--json").stdout)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert done.returncode == 0, done.stderr
    assert f"(pid {process.pid})" in done.stdout
    assert "Items:    115 listed" in done.stdout
    assert 0 < facts["fetched"] < 115
    assert facts["fetched"] + facts["work"] == 115
    assert facts["runs"][0]["ended"] is None
    after = run_fetcher("status", str(db))
    assert "Running" not in after.stdout
    assert "interrupted" in after.stdout


def test_two_mirrors_of_one_world_are_equal_whatever_the_order_and_size(
    tmp_path: Path, shared_simulator: Simulator
) -> None:
    mirror(tmp_path / "a.db", shared_simulator, order="newest", db_batch_size=7, max_parallel_requests=1)
    mirror(tmp_path / "b.db", shared_simulator, order="oldest", db_batch_size=500, max_parallel_requests=20)
    assert dump(tmp_path / "a.db") == dump(tmp_path / "b.db")
    assert Pr0gramm.name == one(tmp_path / "a.db", "SELECT name FROM sources")


# --- login ------------------------------------------------------------------------------------------

DENIED = Answer(403, {"Content-Type": "application/json"}, b'{"error":"forbidden","code":403,"msg":"Not logged in"}')


def test_an_item_that_is_denied_alone_is_set_aside_and_tried_again_by_a_new_sweep(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    hidden = world.ids()[7]
    denies = True

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return DENIED if denies and kind == "info" and key == hidden else None

    simulator = simulate(world, faults=faults)
    summary = mirror(db, simulator)
    assert (summary.counts.stored, summary.counts.failed, summary.exit_code) == (29, 1, 3)
    assert query(db, "SELECT key, outcome, due_at FROM work") == [(hidden, "denied", None)]
    assert simulator.requests["list"] == 3, "the universe, one page, and the head once more"

    denies = False
    assert mirror(db, simulator).exit_code == 3, "a plain run leaves it aside"
    again = mirror(db, simulator, full_update=True)
    assert (again.counts.stored, again.parked, again.exit_code) == (30, 0, 0)
    assert_complete(db, world)


def test_a_login_that_expires_ends_the_run_and_costs_no_item(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=300)
    expired = False

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return DENIED if expired else None

    def expire(done: Committed) -> None:
        nonlocal expired
        expired = expired or len(done.stored) > 0

    simulator = simulate(world, faults=faults)
    with pytest.raises(LoginError, match="set PP and ME"):
        mirror(db, simulator, db_batch_size=20, max_parallel_requests=2, on_batch=expire)
    assert query(db, "SELECT count(*) FROM work WHERE due_at IS NULL OR attempts > 0") == [(0,)]
    expired = False
    assert mirror(db, simulator).exit_code == 0
    assert_complete(db, world)


def test_an_interrupt_while_the_head_is_asked_sets_no_item_aside(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    stop = Stop()

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind == "info":
            return DENIED
        if attempt > 2:
            stop.set()
            return Answer(delay=30)
        return None

    with pytest.raises(Interrupted):
        mirror(db, simulate(world, faults=faults), stop=stop)
    assert query(db, "SELECT count(*) FROM work WHERE due_at IS NULL OR attempts > 0") == [(0,)]


# --- idle engines -----------------------------------------------------------------------------------


def test_an_engine_that_waits_does_not_spin(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=600)
    broken = world.ids()[-1]

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        # The limit holds the listing back, a retry falls due, and the answers take their time.
        return Answer(500, {"Content-Type": "text/html"}, b"") if kind == "info" and key == broken else None

    looks = 0
    finished = Engine._finished

    def counted(engine: Engine) -> bool:
        nonlocal looks
        looks += 1
        return finished(engine)

    with mock.patch.object(Engine, "_finished", counted):
        mirror(db, simulate(world, latency=0.2, faults=faults), limit=100, max_parallel_requests=10, db_batch_size=400)
    assert looks < 1000, "a look for each result, and some for the clock"


def test_a_signal_is_answered_though_another_program_keeps_the_database_locked(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=400), latency=0.05)
    with running(simulator, db, "--batch-size", "20", "--workers", "2") as process:
        eventually(lambda: db.exists() and simulator.requests["info"] > 50)
        other = sqlite3.connect(db, isolation_level=None, timeout=20)
        other.execute("BEGIN IMMEDIATE")
        asked = simulator.requests["info"]
        eventually(lambda: simulator.requests["info"] > asked + 30)
        process.send_signal(signal.SIGINT)
        seconds, _, err = seconds_to_end(process)
        other.close()
    assert seconds < SOON
    assert process.returncode == 130
    assert "keeps" in err
    assert mirror(db, simulator).exit_code == 0
    assert_complete(db, simulator.world)


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_one_false_id_at_the_head_hides_nothing_that_comes_later(order: str, db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=100)
    newest = world.ids()[-1]
    lies: list[int] = []

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        last = key if order == "oldest" else 0
        if kind != "list" or key != last or simulator.requests["list"] != 2 or lies:
            return None
        lies.append(key)
        data = list_page(world, 0)
        data["items"].append({**data["items"][0], "id": 5_000_000})
        data["atEnd"] = data["atStart"] = True
        return answer(data)

    simulator = simulate(world, faults=faults)
    mirror(db, simulator, order=order)
    assert lies
    assert column(db, "SELECT hi FROM coverage") == [newest]
    world.arrive(20, created=world.created(newest))
    mirror(db, simulator, order=order)
    assert set(world.ids()) <= set(column(db, "SELECT id FROM items WHERE fetched_at IS NOT NULL"))


def test_an_item_that_could_not_be_used_and_is_listed_no_more_is_forgotten(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=40)
    data = list_page(world, 0)
    unused = next(id for id in range(world.ids()[0], world.ids()[-1]) if id not in world.ids())
    data["items"].insert(5, {"id": unused, "created": None})
    told = answer(data)
    assert mirror(db, simulate(world, faults=lambda kind, *_: told if kind == "list" else None)).exit_code == 3
    assert mirror(db, simulate(world)).exit_code == 3
    assert mirror(db, simulate(world), full_update=True).exit_code == 0
    assert one(db, "SELECT count(*) FROM failures") == 0


def test_an_item_that_is_denied_while_the_head_talks_nonsense_keeps_its_own_evidence(
    db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=30)
    # Asked for at once, so that one word of the head is for all of them.
    secret = world.ids()[4:7]

    def denied(key: int) -> Answer:
        return answer({"error": "forbidden", "code": 403, "msg": f"not {key}"}, 403)

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind == "info" and key in secret:
            return denied(key)
        return Answer(200, {}, b"{}", delay=0.3) if kind == "list" and attempt > 2 and not key else None

    assert mirror(db, simulate(world, faults=faults), max_retries=1, stop=FakeStop()).exit_code == 3
    assert query(db, "SELECT key, outcome, status, body, attempts FROM failures ORDER BY key") == [
        (key, "unavailable", 403, denied(key).body, 2) for key in sorted(secret)
    ]
