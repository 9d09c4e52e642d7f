"""A host that is down costs no item an attempt, and an item that is at fault itself is not taken for such a host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher import RemoteError
from fetcher.errors import RequestFailed
from fetcher.model import Outcome
from fetcher.outage import MANY, Outage
from fetcher.simulator import Answer, Simulator, World
from tests.fakes import FakeStop
from tests.helpers import assert_complete, column, mirror, one, query

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]

BAD_GATEWAY = Answer(502, {"Content-Type": "text/html"}, b"<html>502 Bad Gateway</html>")


def unanswered() -> RequestFailed:
    return RequestFailed(Outcome.UNAVAILABLE, "connection refused")


# --- the arithmetic -----------------------------------------------------------------------------------


def test_few_unanswered_requests_among_others_are_no_reason_for_doubt() -> None:
    outage: Outage[int] = Outage(300)
    for key in range(MANY - 1):
        outage.add(key, unanswered(), key + 1)
        assert not outage.doubt(0, alone=False)
    assert outage.doubt(0, alone=True)


def test_many_unanswered_requests_in_a_row_are_a_doubt_that_a_probe_decides() -> None:
    outage: Outage[int] = Outage(300)
    for key in range(MANY):
        outage.add(key, unanswered(), key + 1)
    assert outage.doubt(5, alone=False)
    assert (outage.in_doubt, outage.is_certain, outage.due) == (True, False, 5)
    assert not outage.doubt(5, alone=False), "it is in doubt already"
    outage.probed_in_vain(unanswered(), 6)
    assert outage.is_certain
    assert 6 <= outage.due <= 8
    assert outage.answered(began=MANY) == [], "it was asked before the last one had failed"
    assert [(key, at_fault) for key, _, at_fault in outage.answered(began=MANY + 1)] == [
        (key, False) for key in range(MANY)
    ]
    assert (outage.in_doubt, outage.is_certain, outage.answered(began=99)) == (False, False, [])


def test_what_many_requests_met_together_is_excused_once_when_the_host_answers_at_once() -> None:
    outage: Outage[int] = Outage(300)
    for at_fault in (False, True, False):
        for key in range(MANY):
            outage.add(key, unanswered(), 1)
        assert outage.doubt(0, alone=False)
        assert [each.at_fault for each in outage.answered(began=2)] == [at_fault] * MANY


def test_what_few_requests_met_is_their_own_fault_when_the_host_answers_at_once() -> None:
    outage: Outage[int] = Outage(300)
    outage.add(1, unanswered(), 1)
    assert outage.doubt(0, alone=True)
    assert [each.at_fault for each in outage.answered(began=2)] == [True]


def test_nothing_is_at_fault_once_a_probe_went_unanswered_too() -> None:
    outage: Outage[int] = Outage(300)
    for _ in range(3):
        outage.add(1, unanswered(), 1)
        assert outage.doubt(0, alone=True)
        outage.probed_in_vain(unanswered(), 1)
        assert [each.at_fault for each in outage.answered(began=2)] == [False]


def test_a_probe_is_due_at_once_and_no_second_one_before_it_has_failed() -> None:
    outage: Outage[int] = Outage(300)
    outage.add(1, unanswered(), 1)
    assert outage.next_probe == float("inf")
    assert outage.doubt(5, alone=True)
    assert outage.next_probe == 5
    outage.probed()
    assert outage.next_probe == float("inf")
    outage.probed_in_vain(unanswered(), 6)
    assert outage.next_probe == outage.due


def test_an_answer_says_nothing_of_what_failed_after_it_was_asked_for() -> None:
    outage: Outage[int] = Outage(300)
    for moment in (10, 20, 30):
        outage.add(moment, unanswered(), moment)
    assert outage.answered(began=5) == []
    assert [key for key, _, _ in outage.answered(began=21)] == [10, 20]
    assert [key for key, _, _ in outage.answered(began=31)] == [30]


def test_pauses_between_probes_grow_up_to_the_longest() -> None:
    outage: Outage[int] = Outage(40)
    outage.add(1, unanswered(), 1)
    outage.doubt(0, alone=True)
    longest = 0.0
    for number in range(200):
        outage.probed_in_vain(unanswered(), 0)
        assert 0 <= outage.due <= min(40, 2 ** (number + 1))
        longest = max(longest, outage.due)
    assert longest > 30


# --- a host that is down --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3, 10])
def test_an_outage_costs_no_attempt(workers: int, db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=250)
    stop = FakeStop()
    infos, failed, since = 0, 0, -1.0

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        nonlocal infos, failed, since
        infos += kind == "info"
        if infos == 100:
            since = stop.now()
        # The clock of the test may jump far on a busy machine: the first probes fail in any case.
        if since < 0 or (stop.now() >= since + 45 and failed >= MANY + workers + 3):
            return None
        failed += 1
        return BAD_GATEWAY

    simulator = simulate(world, faults=faults)
    summary = mirror(
        db,
        simulator,
        stop=stop,
        max_retries=1,
        max_parallel_requests=workers,
    )
    assert summary.exit_code == 0
    assert summary.counts.failed == 0
    # Only what failed while an answer from before was still on its way can have been taken for at fault.
    assert summary.counts.retries < workers
    assert_complete(db, world)
    assert stop.now() - since >= 45
    # What was in flight, then one probe after the other.
    assert simulator.requests["info"] < 2 * len(world.ids())


def test_an_outage_while_everything_is_listed_anew_costs_nothing(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=500)
    stop = FakeStop()

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return BAD_GATEWAY if simulator.requests["list"] > 2 and stop.now() < 40 else None

    simulator = simulate(world, faults=faults)
    assert mirror(db, simulator, stop=stop, max_retries=0).exit_code == 0
    assert_complete(db, world)


def test_a_host_that_stays_down_is_given_up_and_nothing_is_held_against_its_items(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=60)
    down = True

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return BAD_GATEWAY if down and simulator.requests["info"] > 20 else None

    simulator = simulate(world, faults=faults)
    stop = FakeStop()
    with pytest.raises(RemoteError, match=r"no good answer for 60 s \(no answer: answered 502\)") as raised:
        mirror(db, simulator, stop=stop, max_retries=0, max_outage_seconds=60, db_batch_size=5)
    assert raised.value.exit_code == 5
    assert 60 <= stop.now() < 1000
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == 20
    assert query(db, "SELECT DISTINCT attempts, due_at IS NULL FROM work") == [(0, 0)]
    down = False
    assert mirror(db, simulator).exit_code == 0
    assert_complete(db, world)


def test_a_host_that_only_refuses_is_given_up_too(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=60)

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(429) if simulator.requests["info"] > 20 else None

    simulator = simulate(world, faults=faults)
    stop = FakeStop()
    with pytest.raises(RemoteError, match=r"no good answer for 60 s \(answered 429\)"):
        mirror(db, simulator, stop=stop, max_outage_seconds=60, max_backoff_seconds=60)
    assert stop.now() < 1000
    assert column(db, "SELECT DISTINCT attempts FROM work") == [0]


def test_a_host_that_refuses_from_the_start_is_given_up_too(db: Path, simulate: Simulate) -> None:
    stop = FakeStop()
    simulator = simulate(World(seed=1, items=6), faults=lambda *_: Answer(429))
    with pytest.raises(RemoteError, match="no good answer for 60 s"):
        mirror(db, simulator, stop=stop, max_outage_seconds=60, max_backoff_seconds=60)
    assert stop.now() < 1000


# --- items that are at fault themselves -------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("broken", [1, 2, MANY + 5])
def test_items_that_never_answer_are_set_aside_while_the_host_is_well(
    broken: int, workers: int, db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=60)
    bad = set(world.ids()[10 : 10 + broken])
    simulator = simulate(world, faults=lambda kind, key, _: BAD_GATEWAY if kind == "info" and key in bad else None)
    stop = FakeStop()
    summary = mirror(db, simulator, stop=stop, max_retries=2, max_parallel_requests=workers)
    assert summary.exit_code == 3
    assert summary.counts.failed == broken
    assert query(db, "SELECT key, outcome, attempts FROM work ORDER BY key") == [
        (key, "unavailable", 3) for key in sorted(bad)
    ]
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == 60 - broken
    assert stop.now() < 60


def test_the_only_item_there_is_can_be_at_fault(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=1)
    simulator = simulate(world, faults=lambda kind, key, _: BAD_GATEWAY if kind == "info" else None)
    assert mirror(db, simulator, stop=FakeStop(), max_retries=2).exit_code == 3
    assert query(db, "SELECT outcome, attempts FROM work") == [("unavailable", 3)]


# --- list pages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_list_page_that_fails_for_good_leaves_a_hole_that_is_said_and_filled_later(
    order: str, db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=600)
    cursors: list[int] = []

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind != "list" or not key:
            return None
        cursors.append(key)
        return Answer(200, {}, b'{"items":null}') if key == cursors[1] else None

    summary = mirror(db, simulate(world, faults=faults), stop=FakeStop(), max_retries=2, order=order)
    assert summary.exit_code == 3
    assert cursors.count(cursors[1]) == 3
    ((key, outcome, due_at),) = query(db, "SELECT key, outcome, due_at FROM work WHERE stage = 'list'")
    assert (outcome, due_at) == ("malformed", None)
    assert one(db, "SELECT body FROM failures WHERE stage = 'list'") == b'{"items":null}'
    lost = set(world.ids()) - set(column(db, "SELECT id FROM items"))
    assert lost
    assert key <= min(lost) <= max(lost) < key + 120
    covered = query(db, "SELECT lo, hi FROM coverage ORDER BY lo")
    assert len(covered) == 2
    assert not any(lo <= id <= hi for id in lost for lo, hi in covered)
    assert one(db, "SELECT sweep_ended_at FROM sources") is None

    assert mirror(db, simulate(world), order=order).exit_code == 0
    assert_complete(db, world)
    assert one(db, "SELECT count(*) FROM failures") == 0
    assert one(db, "SELECT parked FROM sources") == 0


def test_a_listing_that_fails_again_and_again_ends_the_run_once_its_details_are_done(
    db: Path, simulate: Simulate
) -> None:
    world = World(seed=1, items=900)

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(200, {}, b"{}") if kind == "list" and simulator.requests["list"] > 3 else None

    simulator = simulate(world, faults=faults)
    with pytest.raises(RemoteError, match=r"list page at \d+ failed 2 times: a page without a list") as raised:
        mirror(db, simulator, stop=FakeStop(), max_retries=1)
    assert raised.value.exit_code == 5
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NULL") == 0
    assert one(db, "SELECT count(*) FROM items") == 240
    assert mirror(db, simulate(world)).exit_code == 0
    assert_complete(db, world)
