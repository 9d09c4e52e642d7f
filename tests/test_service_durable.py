"""The service as a process: it ends when it is told to, is killed anywhere, and loses no id and counts none twice."""

from __future__ import annotations

import gc
import itertools
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from fetcher.engine import Engine
from fetcher.errors import RequestFailed, StoreError
from fetcher.governor import Governor
from fetcher.line import Unlisted
from fetcher.mirror import Parts
from fetcher.model import Detail, Outcome, Plan, Stage
from fetcher.service import Service
from fetcher.service import engines as engines_module
from fetcher.service.dispatcher import Dispatcher
from fetcher.service.server import _listening, serve
from fetcher.simulator import Answer, Ending, Simulator, World
from fetcher.simulator.profile import Login, Profile
from fetcher.sources.pr0gramm import ITEMS
from fetcher.stop import Stop
from fetcher.stores.connections import Connections
from fetcher.stores.jobs import Job, submit
from tests.fakes import FakeStop
from tests.helpers import (
    _environment,
    column,
    dump,
    eventually,
    mirror,
    one,
    query,
    run,
    run_fetcher,
    running,
)
from tests.test_jobs import Mirror, assert_sound, counts

pytest.importorskip("fastapi")

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]
KILLS = int(os.environ.get("FETCHER_KILLS", "4"))

SOON = 4.0
"""What is promised within two seconds, on a machine that does other things too."""


# --- a service in a process of its own ----------------------------------------------------------------


@dataclass
class Served:
    """A service that listens."""

    process: subprocess.Popen[str]
    url: str

    def submit(self, *ids: int, priority: str = "MEDIUM", key: str | None = None) -> str:
        headers = {"Idempotency-Key": key} if key else {}
        answer = requests.post(
            f"{self.url}/ingest", json={"ids": ids, "priority": priority}, headers=headers, timeout=20
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["ingestion_id"])

    def get(self, path: str) -> Any:
        return requests.get(f"{self.url}{path}", timeout=20).json()

    def status(self, job: str) -> Any:
        return self.get(f"/status/{job}?limit=1000")

    def completed(self, *jobs: str, seconds: float = 30) -> None:
        for job in jobs:
            eventually(lambda job=job: self.get(f"/status/{job}?limit=1")["status"] == "completed", seconds)

    def end(self, number: signal.Signals, seconds: float = 30) -> tuple[int, float, str]:
        """Send a signal; the exit code, after how many seconds it ended, and what it said on stderr."""
        began = time.monotonic()
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, time.monotonic() - began, err


@contextmanager
def serving(
    simulator: Simulator,
    db: Path,
    *,
    interval: float = 0,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    limit_file: int | None = None,
) -> Iterator[Served]:
    """`fetcher serve` in a process of its own, killed at the end if it still lives."""
    command = [sys.executable, "-m", "fetcher", "serve", str(db), "--base-url", simulator.url, "--port", "0"]
    command += ["--max-rate", "0", "--ingest-batch-interval", str(interval), *options]
    process = subprocess.Popen(
        command,
        env={**_environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_file, limit_file)))
        if limit_file
        else None,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Serving "), (line, process.communicate())
            yield Served(process, line.partition(" at ")[2].partition(",")[0])
        finally:
            process.kill()


def hanging(*keys: int, kind: str = "info") -> Callable[[str, int, int], Answer | None]:
    """The answers about these keys never come."""
    return lambda what, key, _: Answer(part=0, ending=Ending.HANG) if what == kind and key in keys else None


# --- the end ------------------------------------------------------------------------------------------


def test_sigterm_lets_the_batch_under_way_end_and_keeps_the_rest(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    simulator = simulate(world, latency=0.15)
    ids = list(world.ids())[:6]
    with serving(simulator, db, interval=60) as served:
        job = served.submit(*ids)
        eventually(lambda: simulator.requests["list"] > 0)
        code, _, err = served.end(signal.SIGTERM)
        assert (code, err) == (0, "")
    batches = query(db, "SELECT number, status, stored FROM job_batches ORDER BY number")
    assert batches == [(0, "completed", 3), (1, "yet_to_start", 0)]
    assert one(db, "SELECT id FROM jobs") == job
    assert column(db, "SELECT id FROM items WHERE fetched_at IS NOT NULL ORDER BY id") == sorted(ids[:3])
    assert one(db, "SELECT count(*) FROM work") == 0
    assert_sound(db)


def test_an_api_that_hangs_keeps_the_end_no_longer_than_drain_seconds(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    simulator = simulate(world, faults=hanging(*world.ids()))
    with serving(simulator, db, env={"DRAIN_SECONDS": "1"}) as served:
        served.submit(*list(world.ids())[:3])
        eventually(lambda: simulator.requests["info"] == 3)
        # What is submitted meanwhile is taken, and waits.
        code, seconds, err = served.end(signal.SIGTERM)
    assert (code, err) == (0, "")
    assert 1 <= seconds < 1 + SOON
    assert len(column(db, "SELECT key FROM work WHERE attempts = 0")) == 3
    assert_sound(db)


def test_jobs_are_taken_while_the_batch_under_way_ends(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    simulator = simulate(world, faults=hanging(*world.ids()))
    with serving(simulator, db, env={"DRAIN_SECONDS": "20"}) as served:
        served.submit(*list(world.ids())[:3])
        eventually(lambda: simulator.requests["info"] == 3)
        served.process.send_signal(signal.SIGTERM)
        eventually(lambda: served.get("/readyz")["status"] == "draining")
        late = served.submit(7)
        # A second signal kills at once, which is safe.
        code, seconds, _ = served.end(signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert seconds < SOON
    assert query(db, "SELECT id, waiting FROM jobs ORDER BY number DESC LIMIT 1") == [(late, 1)]
    assert_sound(db)


def test_sigint_ends_at_once_also_while_a_job_is_followed_and_nothing_answers(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=30)
    simulator = simulate(world, faults=hanging(*world.ids()))
    with serving(simulator, db) as served:
        job = served.submit(*list(world.ids())[:3])
        with requests.get(f"{served.url}/status/{job}/events", stream=True, timeout=20) as events:
            assert next(events.iter_lines())
            eventually(lambda: simulator.requests["info"] == 3)
            code, seconds, err = served.end(signal.SIGINT)
    assert code == 130
    assert seconds < 2.0
    assert err == (
        "fetcher: interrupted; all that was submitted is stored, and goes on when the service is started again\n"
    )
    assert_sound(db)


# --- killed ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(120 + 10 * KILLS)
def test_a_service_killed_at_random_moments_loses_no_id_and_counts_none_twice(
    tmp_path: Path, simulate: Simulate
) -> None:
    chance = random.Random(KILLS)
    world = World(seed=4, items=400)
    ids = list(world.ids())
    unknown = [id for id in range(1, max(ids)) if id not in set(ids)][:20]
    known = ids[:40]
    never = set(chance.sample(ids[100:], 5))

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(500, body=b"{}") if key in never or (key % 7 == 0 and attempt == 1) else None

    simulator = simulate(world, latency=0.01, jitter=0.005, faults=faults)
    submissions = [
        (sorted(chance.sample([*ids[:300], *unknown, *never], 25)), priority)
        for priority in ("LOW", "MEDIUM", "HIGH", "MEDIUM", "LOW", "HIGH")
    ]
    options = ("--workers", "6")
    env = {"MAX_RETRIES": "2", "MAX_BACKOFF_SECONDS": "0.05"}

    def begin(db: Path) -> None:
        made = Mirror(db)
        made.list_(*known, lo=min(known), hi=max(known))
        made.close()

    killed, undisturbed = tmp_path / "killed.db", tmp_path / "undisturbed.db"
    begin(killed)
    for number in range(KILLS):
        with serving(simulator, killed, options=options, env=env) as served:
            # Whoever is not answered asks again: the key makes that one job.
            for key, (some, priority) in enumerate(submissions[: number + 1]):
                served.submit(*some, priority=priority, key=str(key))
            moment = simulator.requests.total() + chance.randint(0, 60)
            eventually(lambda moment=moment: simulator.requests.total() >= moment or everything(killed), 30)
            served.process.kill()
            served.process.wait()
        assert_sound(killed)
    with serving(simulator, killed, options=options, env=env) as served:
        jobs = [served.submit(*some, priority=how, key=str(key)) for key, (some, how) in enumerate(submissions)]
        served.completed(*jobs, seconds=60)
        assert served.end(signal.SIGTERM)[0] == 0
    assert_sound(killed)

    begin(undisturbed)
    with serving(simulator, undisturbed, options=options, env=env) as served:
        jobs = [served.submit(*some, priority=how, key=str(key)) for key, (some, how) in enumerate(submissions)]
        served.completed(*jobs, seconds=60)
        assert served.end(signal.SIGTERM)[0] == 0
    names = "number, priority, ids, batches, waiting, triggered, stored, gone, failed, cancelled"
    same = (
        f"SELECT {names} FROM jobs ORDER BY 1",
        "SELECT job, batch, key, outcome FROM job_failures ORDER BY 1, 2, 3",
    )
    for sql in same:
        assert query(killed, sql) == query(undisturbed, sql)
    tables = ("items", "tags", "comments", "coverage", "work", "job_batches", "job_work")
    left, right = dump(killed), dump(undisturbed)
    assert {table: left[table] for table in tables} == {table: right[table] for table in tables}


def test_never_are_two_batches_triggered_within_an_interval_also_across_restarts(db: Path, simulate: Simulate) -> None:
    interval = 0.7
    world = World(seed=1, items=30)
    simulator = simulate(world)
    with serving(simulator, db, interval=interval, options=("--ingest-batch-size", "1")) as served:
        served.submit(*list(world.ids())[:6])
        eventually(lambda: triggered(db, 0))
    for number in (1, 2, 3):
        # Killed right after a batch, and started anew at once.
        with serving(simulator, db, interval=interval, options=("--ingest-batch-size", "1")):
            eventually(lambda number=number: triggered(db, number))
    moments = column(db, "SELECT triggered_at FROM job_batches WHERE triggered_at IS NOT NULL ORDER BY number")
    assert len(moments) >= 4
    assert min(later - sooner for sooner, later in itertools.pairwise(moments)) >= interval


def everything(db: Path) -> bool:
    """Whether all that was submitted has ended."""
    return bool(one(db, "SELECT count(*) FROM jobs WHERE finished_at IS NULL") == 0)


def triggered(db: Path, number: int) -> bool:
    """Whether a batch of the only job was triggered."""
    return one(db, "SELECT triggered_at FROM job_batches WHERE number = ?", number) is not None


# --- when the next batch is triggered -------------------------------------------------------------------


class Dispatched:
    """A dispatcher on a clock that jumps, and what it has triggered when."""

    def __init__(self, made: Mirror, stop: Stop, interval: float, most: int = 10) -> None:
        self.moments: list[tuple[float, tuple[int, ...]]] = []
        self.stop = stop
        self._mirror = made
        self._enough = threading.Event()
        self._wanted = 0
        self.dispatcher = Dispatcher(
            made.store.db.beside(),
            "pr0gramm",
            ITEMS,
            stop,
            interval=interval,
            most=most,
            on_triggered=self._note,
        )
        self._thread = threading.Thread(target=self.dispatcher.run)

    def _note(self, triggered: Sequence[Any]) -> None:
        self.moments += [(self.stop.now(), each.ids) for each in triggered]
        if len(self.moments) >= self._wanted:
            self._enough.set()

    def until(self, wanted: int) -> Sequence[tuple[float, tuple[int, ...]]]:
        self._wanted = wanted
        self._thread.start()
        assert self._enough.wait(20), self.moments
        self.end()
        return self.moments

    def end(self) -> None:
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def made(db: Path) -> Iterator[Mirror]:
    found = Mirror(db, size=1)
    yield found
    found.close()


def test_one_batch_is_triggered_an_interval(made: Mirror) -> None:
    made.submit(1, 2, 3)
    moments = Dispatched(made, FakeStop(), 5.0).until(3)
    assert [ids for _, ids in moments] == [(1,), (2,), (3,)]
    assert [later[0] - sooner[0] for sooner, later in itertools.pairwise(moments)] == [5.0, 5.0]


@pytest.mark.parametrize(
    ("since", "waits"),
    [(0.0, 5.0), (3.0, 2.0), (5.0, 0.0), (100.0, 0.0), (-100.0, 5.0)],
    ids=["just now", "a while ago", "an interval ago", "long ago", "clock put back"],
)
def test_a_new_start_waits_for_what_is_left_of_the_interval(made: Mirror, since: float, waits: float) -> None:
    stop = FakeStop()
    made.now = stop.time() - since
    made.submit(1, 2)
    made.trigger()
    ((moment, ids),) = Dispatched(made, stop, 5.0).until(1)
    assert ids == (2,)
    assert moment == pytest.approx(waits, abs=0.01)


def test_a_clock_that_is_put_back_while_it_runs_changes_nothing(made: Mirror) -> None:
    stop = FakeStop()
    made.submit(1, 2, 3)
    dispatched = Dispatched(made, stop, 5.0)
    dispatched.dispatcher._on_triggered = lambda triggered: (  # type: ignore[method-assign]
        setattr(stop, "_began", stop._began - 3600),
        dispatched._note(triggered),
    )
    moments = dispatched.until(3)
    assert [later[0] - sooner[0] for sooner, later in itertools.pairwise(moments)] == [5.0, 5.0]


def test_without_an_interval_only_so_much_is_triggered_as_is_worked_off(made: Mirror) -> None:
    made.submit(*range(1, 201))
    dispatched = Dispatched(made, FakeStop(), 0.0, most=10)
    assert len(dispatched.until(1)) == 50
    # Failing ids that wait for their next attempt make room for others.
    made.failed(*range(1, 51), stage="item", again_at=time.time() + 10_000)
    other = Dispatched(made, FakeStop(), 0.0, most=10)
    assert other.until(1)[0][1] == (51,)


def test_a_drain_before_the_start_or_with_a_stuck_database_ends(made: Mirror) -> None:
    dispatched = Dispatched(made, FakeStop(), 0.0)
    began = time.monotonic()
    dispatched.dispatcher.drain(0.05)
    assert time.monotonic() - began < SOON
    made.submit(1)
    dispatched.dispatcher.run()
    assert dispatched.moments == []


def test_news_that_come_while_it_looks_are_not_lost(made: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.service.dispatcher.LOOK_SECONDS", 30.0)
    stop = Stop()
    dispatched = Dispatched(made, stop, 0.0)
    look = dispatched.dispatcher._trigger
    looked = threading.Event()
    beside = made.store.db.beside()

    def trigger() -> Any:
        found = look()
        if not looked.is_set():
            # Submitted after it has looked, told before it rests.
            submit(beside, "pr0gramm", [1], "LOW", batch_size=1, now=1.0)
            dispatched.dispatcher.wake()
            looked.set()
        return found

    dispatched.dispatcher._trigger = trigger  # type: ignore[method-assign]
    assert [ids for _, ids in dispatched.until(1)] == [(1,)]


# --- beside other commands ------------------------------------------------------------------------------


def test_a_service_beside_a_run_on_one_database_is_refused_and_the_other_way_round(
    db: Path, simulate: Simulate
) -> None:
    simulator = simulate(World(seed=1, items=60), faults=hanging(*range(1, 10_000)))
    words = f"fetcher: {db} is in use by another run: wait for it, or stop it\n"
    with running(simulator, db):
        eventually(lambda: simulator.requests["info"] > 0)
        refused = run_fetcher("serve", str(db), "--base-url", simulator.url, "--port", "0")
        assert (refused.returncode, refused.stdout, refused.stderr) == (6, "", words)
    with serving(simulator, db):
        refused = run(simulator, db)
        assert (refused.returncode, refused.stderr) == (6, words)


def test_what_a_killed_service_left_is_settled_by_a_fetch(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=60)
    simulator = simulate(world)
    ids = list(world.ids())
    beyond = max(ids) + 50
    made = Mirror(db)
    # Some are known, some are not, one is nowhere: all as a killed service leaves them.
    made.list_(*ids[:3], lo=min(ids[:3]), hi=max(ids[:3]))
    job = made.submit(*ids[:2], *ids[10:12], beyond, size=5)
    waiting = made.submit(ids[20])
    made.trigger()
    made.close()
    summary = mirror(db, simulator)
    assert summary.exit_code == 0
    made.open()
    assert counts(made.job(job)) == {"stored": 4, "gone": 1}
    assert made.job(job).status == "completed"
    # What was not triggered is the service's to trigger.
    assert made.job(waiting).status == "yet_to_start"
    made.close()
    assert one(db, "SELECT count(*) FROM work") == 0
    assert_sound(db)
    told = run_fetcher("verify", str(db))
    assert (told.returncode, "Submitted: 1 id not fetched yet" in told.stdout) == (3, True), told
    made.open()
    made.cancel(waiting)
    made.close()
    assert run_fetcher("verify", str(db)).returncode == 0


def test_a_retry_settles_what_failed_for_good_in_a_job_that_was_asked_for_again(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=60)
    simulator = simulate(world)
    mirror(db, simulator)
    made = Mirror(db)
    id = list(world.ids())[5]
    job = made.submit(id)
    made.trigger()
    made.failed(id)
    assert counts(made.job(job)) == {"failed": 1}
    made.retry(job)
    made.trigger()
    made.close()
    # An id of a job that was triggered is due as any other.
    assert mirror(db, simulator).exit_code == 0
    made.open()
    assert counts(made.job(job)) == {"stored": 1}
    made.close()
    assert_sound(db)


# --- hosts that fail ------------------------------------------------------------------------------------


@contextmanager
def service(simulator: Simulator, db: Path, **settings: Any) -> Iterator[Service]:
    """A service in this process, without HTTP."""
    usual = {"api_base_url": simulator.url, "max_requests_per_second": 0, "ingest_batch_interval": 0}
    opened = Service("pr0gramm", db, **{**usual, **settings}).open()
    try:
        yield opened
    finally:
        opened.close()


def files() -> list[Path]:
    """What this process has open."""
    return list(Path("/proc/self/fd").iterdir())


def ended(service: Service, *jobs: Job) -> Callable[[], bool]:
    """Whether all of these jobs are completed."""
    return lambda: all(_job(service, job).status == "completed" for job in jobs)


def _job(service: Service, job: Job) -> Job:
    found = service.job(job.id)
    assert found is not None
    return found


def test_an_outage_fails_nothing_and_jobs_are_taken_meanwhile(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=80)
    simulator = simulate(world)
    ids = list(world.ids())
    with service(simulator, db, max_backoff_seconds=0.3, max_retries=1) as opened:
        first = opened.submit(ids[:3])
        eventually(ended(opened, first))
        simulator.outage(2.0, "500")
        during = [opened.submit(ids[at : at + 10]) for at in (10, 30, 50)]
        eventually(lambda: bool(opened.state().reason))
        assert "no answer" in opened.state().reason
        assert not opened.ended
        assert not opened.state().trouble
        eventually(ended(opened, *during))
        assert [counts(_job(opened, job)) for job in during] == [{"stored": 10}] * 3
        assert query(db, "SELECT * FROM job_failures") == []
    assert opened.error is None
    assert_sound(db)


def test_an_engine_that_was_idle_for_long_bears_an_outage(made: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.engine.TICK_SECONDS", 20.0)
    monkeypatch.setattr("fetcher.window.LOOK_SECONDS", 20.0)
    stop = FakeStop()
    made.now = stop.time()
    made.list_(1, 2, lo=1, hi=5)
    made.fetched(1, 2)
    began: list[float] = []

    def down() -> bool:
        return not began or stop.now() - began[0] < 500

    def ask(keys: Sequence[Any]) -> Mapping[Any, Any]:
        began[:] = began or [stop.now()]
        if down():
            return {key: RequestFailed(Outcome.UNAVAILABLE, "answered 500") for key in keys}
        return {key: Detail({"tags": [], "comments": []}) for key in keys}

    def life() -> None:
        if down():
            raise RequestFailed(Outcome.UNAVAILABLE, "answered 500")

    plan = Plan(workers=1, max_outage=600, max_backoff=20, min_free=0)
    more = [True]
    store = made.store.beside()
    engine = Engine(
        Unlisted(life=life), Stage("detail", ask), store, Governor(stop, parallel=1), stop, plan, more=lambda: more[0]
    )
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        eventually(lambda: stop.now() > 2000)
        assert thread.is_alive()
        job = made.submit(1)
        made.trigger()
        eventually(lambda: made.job(job).status == "completed")
        assert counts(made.job(job)) == {"stored": 1}
    finally:
        more[0] = False
        thread.join(20)
    assert not thread.is_alive()


def test_a_failing_item_is_tried_again_by_the_rules_and_then_failed_with_why(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fetcher.window.backoff", lambda *_: 0.4)
    world = World(seed=1, items=80)
    ids = list(world.ids())[:3]
    simulator = simulate(world, faults=lambda _, key, __: Answer(500, body=b"oops") if key == ids[1] else None)
    with service(simulator, db, max_retries=2) as opened:
        job = opened.submit(ids)
        retrying: list[Any] = []

        def tried() -> bool:
            found = opened.batches(job.id)
            assert found is not None
            retrying.extend(found[1][0].retrying)
            return found[0].status == "completed"

        eventually(tried)
        assert {(each.key, each.outcome) for each in retrying} == {(ids[1], "unavailable")}
        assert {each.attempts for each in retrying} == {1, 2}
        found = opened.batches(job.id)
        assert found is not None
        (failure,) = found[1][0].failures
        assert (failure.key, failure.attempts) == (ids[1], 3)
        assert "500" in failure.message
        assert counts(found[0]) == {"stored": 2, "failed": 1}
    assert_sound(db)


def test_an_expired_login_is_said_and_a_renewed_one_is_taken_up_without_a_restart(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines_module, "LEAST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(engines_module, "backoff", lambda *_: 0.0)
    world = World(seed=1, items=200, login=True)
    right = Profile(login=Login(cookies={"pp": "new", "me": "new"}))
    simulator = simulate(world, profile=right)
    Path(".env").write_text("PP=old\nME=old\nCONTENT_FLAGS=3\n")
    ids = [id for id in world.ids(3) if id not in set(world.ids(1))][:3]
    with service(simulator, db) as opened:
        first = opened.submit(ids)
        eventually(lambda: opened.state().lasting)
        assert "API refuses" in opened.state().trouble
        second = opened.submit(list(world.ids(1))[:3])
        assert not opened.ended
        Path(".env").write_text("PP=new\nME=new\nCONTENT_FLAGS=3\n")
        eventually(ended(opened, first, second))
        assert not opened.state().trouble
        assert [counts(_job(opened, job)) for job in (first, second)] == [{"stored": 3}] * 2
    assert opened.error is None
    assert_sound(db)


def test_engines_that_begin_again_and_again_leave_nothing_behind(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines_module, "LEAST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(engines_module, "backoff", lambda *_: 0.0)
    world = World(seed=1, items=200, login=True)
    simulator = simulate(world, profile=Profile(login=Login(cookies={"pp": "new", "me": "new"})))
    runs = [0]
    make = Service._make

    def counted(self: Service, stop: Any) -> Any:
        runs[0] += 1
        return make(self, stop)

    monkeypatch.setattr(Service, "_make", counted)
    with service(simulator, db, pp="old", me="old", content_flags="3") as opened:
        opened.submit([id for id in world.ids(3) if id not in set(world.ids(1))][:3])

        def held() -> tuple[int, int, int, int]:
            gc.collect()
            stop = opened._stop
            return len(stop._callbacks), len(stop._conditions), len(files()), threading.active_count()

        eventually(lambda: runs[0] > 3)
        few = held()
        eventually(lambda: runs[0] > 15, 40)
        many = held()
        # Threads and files of a run that is about to end, or has just begun, come and go.
        assert many[:2] == few[:2]
        assert many[2] - few[2] < 10
        assert many[3] - few[3] < 30
        assert opened.state().lasting
        # Nothing is worked off: nothing is waited for at the end.
        began = time.monotonic()
        opened.drain()
        assert time.monotonic() - began < SOON


def test_each_engine_begins_without_a_question_and_then_asks_the_list_head() -> None:
    asked: list[str] = []
    bound = SimpleNamespace(
        head="the listing",
        address="",
        login_hint="",
        login="",
        login_scopes=(),
        universe=lambda: asked.append("head"),
        probe=lambda _: asked.append("life"),
    )
    parts: Any = SimpleNamespace(listing=bound)
    parts.unlisted = partial(Parts.unlisted, parts)
    one_, other = engines_module._listing(parts), engines_module._listing(parts)
    # Something is denied to the first before the other has begun.
    one_.universe()
    one_.universe()
    assert asked == ["head"]
    other.universe()
    assert asked == ["head"]
    other.probe(None)
    assert asked == ["head", "life"]


def test_threads_that_read_and_go_leave_no_file_open(db: Path) -> None:
    made = Mirror(db)
    made.close()
    connections = Connections(db)
    inside = threading.Barrier(5)

    def read() -> None:
        with connections.reading() as conn:
            conn.execute("SELECT 1 FROM jobs").fetchall()
            inside.wait(10)

    def round_() -> int:
        threads = [threading.Thread(target=read) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        return len(files())

    first = round_()
    assert [round_() for _ in range(5)] == [first] * 5
    connections.close()
    assert len(files()) < first


def test_an_error_of_what_answers_is_an_error_of_the_service(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(World(seed=1, items=5))

    def broken(*_: Any) -> None:
        raise RuntimeError("no event loop")

    monkeypatch.setattr("uvicorn.Server.run", broken)
    with pytest.raises(RuntimeError, match="no event loop"):
        serve("pr0gramm", db, api_base_url=simulator.url, service_port=0)


# --- the database ---------------------------------------------------------------------------------------


def test_a_disk_that_is_full_is_said_and_loses_nothing(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=600)
    ids = list(world.ids())
    simulator = simulate(world)
    made = Mirror(db, url=simulator.url)
    job = made.submit(*ids[:300], size=30)
    made.close()
    with serving(simulator, db, limit_file=800_000) as served:
        code = served.process.wait(30)
        assert served.process.stderr is not None
        err = served.process.stderr.read()
    assert code == 6
    assert err.startswith(f"fetcher: {db}: the disk ")
    assert err.count("\n") == 1
    assert_sound(db)
    with serving(simulator, db) as served:
        served.completed(job.id)
    assert counts_of(db) == [(300, 300)]
    assert_sound(db)


def counts_of(db: Path) -> list[tuple[Any, ...]]:
    return query(db, "SELECT ids, stored FROM jobs")


def test_a_job_does_not_wait_for_what_is_left_of_a_mirror(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=600)
    ids = list(world.ids())
    simulator = simulate(world, latency=0.02, record=True)
    made = Mirror(db)
    made.list_(*ids[1:], lo=min(ids), hi=max(ids))
    made.close()
    wanted = max(ids[1:])
    with service(simulator, db, max_parallel_requests=4) as opened:
        eventually(lambda: simulator.requests["info"] > 30)
        began = simulator.requests["info"]
        job = opened.submit([wanted], "LOW")
        eventually(ended(opened, job))
    assert simulator.log is not None
    infos = [key for _, kind, key in simulator.log if kind == "info"]
    # What had been claimed before goes first, and what went on while it was submitted.
    assert infos.index(wanted) - began < 60
    assert len(infos) < 500


def test_a_database_that_cannot_be_opened_leaves_no_lock_behind(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=5))
    broken = Service("pr0gramm", db, api_base_url=simulator.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fetcher.service.service.Connections", _refuses)
        with pytest.raises(StoreError):
            broken.open()
    with service(simulator, db):
        pass


def _refuses(_: Path) -> Any:
    raise StoreError("no more files")


# --- the address ----------------------------------------------------------------------------------------


def test_no_answer_waits_for_its_first_part_to_be_confirmed() -> None:
    with _listening("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_and_a_host_that_is_none_are_one_line(db: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = run_fetcher("serve", str(db), "--port", port)
    assert refused.returncode == 2
    assert refused.stderr == (
        "fetcher: SERVICE_HOST, SERVICE_PORT (--host, --port): cannot listen at"
        f" 127.0.0.1:{port}: Address already in use\n"
    )
    Path(".env").write_text("API_KEYS=0123456789abcdef0123456789abcdef\n")
    refused = run_fetcher("serve", str(db), "--host", "no.such.host.invalid", "--port", "0")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "cannot listen at no.such.host.invalid:0" in refused.stderr
    assert not db.exists()
