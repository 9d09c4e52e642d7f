"""An engine that sends keys in batches: full ones, smaller ones for what failed, and one request's failure is one."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fetcher import Interrupted
from fetcher.engine import Engine
from fetcher.errors import RequestFailed
from fetcher.governor import Governor
from fetcher.line import Line, Unlisted
from fetcher.model import GONE, Detail, Key, Outcome, Plan, Stage, Summary
from fetcher.stop import Stop
from fetcher.stores.database import Database
from fetcher.stores.stages import StageStore, VectorWriter
from fetcher.stores.texts import count, open_texts, texts_of
from fetcher.texts.backlog import Backlog
from tests.fakes import FakeStop
from tests.helpers import column, eventually, query
from tests.texts import assert_totals

pytestmark = pytest.mark.usefixtures("no_threads_left")

DB = Path("t.db")
PLAN = Plan(workers=1, batch_size=10, batch_seconds=1.0, delay=0.0, max_retries=3, max_backoff=1.0)
Run = Callable[[Sequence[Key]], Mapping[Key, Any]]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.chdir(tmp_path)
    db, _ = open_texts(DB, clock=lambda: 1000.0)
    yield db
    db.close()


def keys(number: int) -> list[str]:
    return [f"{each:03}" for each in range(number)]


def queue(db: Database, names: Sequence[str]) -> None:
    with db.transaction():
        db.conn.executemany(
            "INSERT INTO work (source, stage, key, due_at) VALUES ('texts', 'embed', ?, 0)", [(name,) for name in names]
        )
        count(db.sql, "texts", "embed", work=len(names))


def good(some: Sequence[Key]) -> dict[Key, Any]:
    return {key: Detail({"vectors": [(key, b"1234")]}) for key in some}


def engine(db: Database, run: Run, stop: Stop, *, batch: int = 4, holds: bool = False, **options: Any) -> Engine:
    plan = replace(PLAN, **{name: options.pop(name) for name in list(options) if name in PLAN.__slots__})
    return Engine(
        Unlisted(),
        Stage("embed", run, batch, holds),
        StageStore(db.beside(), "texts", VectorWriter(lambda: ("m", 1)), stop.time),
        Governor(stop, parallel=plan.workers),
        stop,
        plan,
        **options,
    )


class Asked:
    """What a stage was asked for; `answer` makes the results."""

    def __init__(self, answer: Run = good) -> None:
        self.batches: list[list[Key]] = []
        self._answer = answer

    def __call__(self, some: Sequence[Key]) -> Mapping[Key, Any]:
        self.batches.append(list(some))
        return self._answer(some)


def test_keys_go_out_in_full_batches_and_what_is_left_goes_last(texts: Database) -> None:
    queue(texts, keys(11))
    asked = Asked()
    summary = engine(texts, asked, FakeStop()).run()
    assert [len(each) for each in asked.batches] == [4, 4, 3]
    assert sorted(key for batch in asked.batches for key in batch) == keys(11)
    assert (summary.counts.stored, column(DB, "SELECT count(*) FROM vectors"), query(DB, "SELECT * FROM work")) == (
        11,
        [11],
        [],
    )


def test_what_failed_comes_back_in_smaller_company_so_that_one_bad_key_is_found(texts: Database) -> None:
    queue(texts, keys(16))

    def one_is_bad(some: Sequence[Key]) -> Mapping[Key, Any]:
        if "007" not in some:
            return good(some)
        error = RequestFailed(Outcome.MALFORMED, "something in it is bad", status=400)
        return dict.fromkeys(some, error)

    asked = Asked(one_is_bad)
    summary = engine(texts, asked, FakeStop(), batch=16).run()
    assert max(len(each) for each in asked.batches[1:]) == 4
    assert column(DB, "SELECT key FROM work WHERE due_at IS NULL") == ["007"]
    assert (summary.counts.stored, summary.parked, summary.exit_code) == (15, 1, 3)
    assert_totals(DB)


def test_a_refused_batch_is_asked_for_again_as_a_batch_and_spends_no_attempt(texts: Database) -> None:
    queue(texts, keys(8))
    refusals = iter([True, True, False, False])

    def refuse(some: Sequence[Key]) -> Mapping[Key, Any]:
        error = RequestFailed(Outcome.LIMITED, "too many", status=429)
        return dict.fromkeys(some, error) if next(refusals) else good(some)

    asked = Asked(refuse)
    summary = engine(texts, asked, FakeStop(), max_retries=0).run()
    assert [len(each) for each in asked.batches] == [4, 4, 4, 4]
    assert (summary.counts.stored, summary.counts.retries, summary.parked) == (8, 0, 0)


def test_a_request_without_an_answer_is_one_however_many_keys_it_was_for(texts: Database) -> None:
    queue(texts, keys(64))
    probes: list[float] = []
    failed = iter([True, *[False] * 20])

    def fail_once(some: Sequence[Key]) -> Mapping[Key, Any]:
        error = RequestFailed(Outcome.UNAVAILABLE, "answered 502", status=502)
        return dict.fromkeys(some, error) if next(failed) else good(some)

    stop = FakeStop()
    made = engine(texts, Asked(fail_once), stop, batch=16)
    made._source = replace(Unlisted(), life=lambda: probes.append(stop.now()))
    summary = made.run()
    assert probes == [], "one request of many that fails is no reason to doubt the host"
    assert (summary.counts.stored, summary.parked) == (64, 0)


def test_keys_that_are_gone_are_forgotten(texts: Database) -> None:
    queue(texts, keys(5))
    summary = engine(texts, lambda some: dict.fromkeys(some, GONE), FakeStop()).run()
    assert (summary.counts.gone, query(DB, "SELECT * FROM work")) == (5, [])
    assert_totals(DB)


def test_no_more_keys_are_under_way_than_there_are_workers_where_each_holds_something(texts: Database) -> None:
    queue(texts, keys(20))
    held: set[Key] = set()
    most: list[int] = []
    lock = threading.Lock()

    def piece(key: Key, part: int) -> Detail:
        with lock:
            held.add(key)
            most.append(len(held))
            if part == 3:
                held.discard(key)
        return Detail(
            {"vectors": [(key, b"1234")]} if part == 3 else {},
            part=part,
            rest=None if part == 3 else partial(piece, key, part + 1),
        )

    def begin(some: Sequence[Key]) -> Mapping[Key, Any]:
        return {key: piece(key, 0) for key in some}

    summary = engine(texts, begin, Stop(), batch=1, holds=True, workers=3).run()
    assert summary.counts.stored == 20
    assert max(most) <= 3


def test_it_waits_for_work_that_others_add_and_misses_nothing_of_the_last(texts: Database) -> None:
    adding, added = True, texts.beside()
    asked = Asked()
    made = engine(texts, asked, Stop(), more=lambda: adding)
    result: list[Summary] = []
    thread = threading.Thread(target=lambda: result.append(made.run()))
    thread.start()
    for number in range(5):
        queue(added, [f"{number}-{each}" for each in range(4)])
        made.wake()
        eventually(lambda number=number: column(DB, "SELECT count(*) FROM vectors") == [4 * number + 4])
    queue(added, ["the last"])
    adding = False
    made.wake()
    thread.join(20)
    assert column(DB, "SELECT count(*) FROM vectors") == [21]
    assert result[0].counts.stored == 21


def test_a_lone_key_is_not_kept_waiting_for_company_when_nothing_else_is_under_way(texts: Database) -> None:
    added = texts.beside()
    adding = True
    made = engine(texts, good, Stop(), more=lambda: adding, batch_seconds=0.05)
    thread = threading.Thread(target=made.run)
    thread.start()
    queue(added, ["alone"])
    made.wake()
    eventually(lambda: column(DB, "SELECT hash FROM vectors") == ["alone"])
    adding = False
    made.wake()
    thread.join(20)


def test_a_stage_that_fails_ends_the_line_with_its_error(texts: Database) -> None:
    queue(texts, keys(8))
    stop = Stop()

    def broken(_: Sequence[Key]) -> Mapping[Key, Any]:
        raise ValueError("a mistake of ours")

    line = Line(stop)
    line.add("embed", engine(texts, broken, stop))
    line.add("other", engine(texts, good, stop, more=lambda: line.goes_on("embed")))
    with pytest.raises(ValueError, match="a mistake of ours"):
        line.run()


def test_a_line_that_is_stopped_is_interrupted(texts: Database) -> None:
    queue(texts, keys(8))
    stop = Stop()
    line = Line(stop)

    def stopping(some: Sequence[Key]) -> Mapping[Key, Any]:
        stop.set()
        return good(some)

    line.add("embed", engine(texts, stopping, stop))
    with pytest.raises(Interrupted) as raised:
        line.run()
    assert raised.value.summary["embed"].ended == "interrupted"


def test_whoever_fills_a_backlog_waits_until_there_is_room_or_nobody_takes_from_it() -> None:
    for release in (
        lambda backlog, _: backlog.look(lambda: 9),
        lambda backlog, _: backlog.close(),
        lambda _, stop: stop.set(),
    ):
        stop = Stop()
        backlog = Backlog(10, stop)
        backlog.look(lambda: 10)
        passed = threading.Event()
        thread = threading.Thread(target=lambda backlog=backlog, passed=passed: (backlog.wait(), passed.set()))
        thread.start()
        assert not passed.wait(0.05)
        assert backlog.fill == 1.0
        release(backlog, stop)
        assert passed.wait(20)
        thread.join()


def test_what_waits_is_looked_at_one_after_the_other_so_that_what_was_seen_last_is_the_latest() -> None:
    backlog = Backlog(10, Stop())
    looking, go_on = threading.Event(), threading.Event()

    def old() -> int:
        looking.set()
        go_on.wait(0.05)
        return 10

    first = threading.Thread(target=backlog.look, args=[old])
    first.start()
    assert looking.wait(20)
    backlog.look(lambda: 0)
    first.join()
    assert backlog.fill == 0.0


def test_a_text_that_comes_back_while_it_is_found_gone_stays_due(texts: Database) -> None:
    queue(texts, ["gone", "back"])
    writer, other = texts.beside(), texts.beside()

    def gone(some: Sequence[Key]) -> Mapping[Key, Any]:
        found = texts_of(other.sql, [str(key) for key in some])
        if not found:
            # Another stage stores a chunk, and finds that its text is due already.
            with writer.transaction():
                writer.conn.execute(
                    "INSERT INTO documents (number, name, first_seen_at, listed_at) VALUES (1, 'a', 0, 0)"
                )
                writer.conn.execute(
                    "INSERT INTO chunks (id, document, position, text, hash, domain, category)"
                    " VALUES ('i', 1, 0, 'text', 'back', 'd', 'c')"
                )
            other.conn.execute("SELECT 1")
        return {key: good([key])[key] if key in found else GONE for key in some}

    engine(texts, gone, Stop(), more=iter([True, False]).__next__).run()
    assert (column(DB, "SELECT hash FROM vectors"), query(DB, "SELECT * FROM work")) == (["back"], [])
    assert_totals(DB)


def test_a_text_of_very_many_places_is_read_once(texts: Database) -> None:
    with texts.transaction():
        texts.conn.execute("INSERT INTO documents (number, name, first_seen_at, listed_at) VALUES (1, 'a', 0, 0)")
        texts.conn.executemany(
            "INSERT INTO chunks (id, document, position, text, hash, domain, category)"
            " VALUES (?, 1, ?, ?, 'hash', 'd', 'c')",
            [(str(number), number, "x" * 1000) for number in range(2000)],
        )
    tracemalloc.start()
    try:
        assert texts_of(texts.sql, ["hash", "none"]) == {"hash": "x" * 1000}
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
