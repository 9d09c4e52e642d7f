"""A login that expires without a word is noticed, and nothing that it hid is called deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher import LoginError, canary, verify
from fetcher.canary import AGAIN_SECONDS, EVERY_SECONDS, Canary
from fetcher.errors import RequestFailed
from fetcher.model import GONE, Detail, Outcome
from fetcher.simulator import Answer, Simulator, World
from tests.fakes import FakeStop
from tests.helpers import assert_complete, column, mirror, one

Simulate = Callable[..., Simulator]

LOGIN = {"pp": "p", "me": "m", "content_flags": 3}


def failed(outcome: Outcome) -> RequestFailed:
    return RequestFailed(outcome, "no")


def test_one_item_is_asked_for_each_hour_in_turn() -> None:
    watch = Canary(0)
    asked = []
    for _ in range(4):
        key = watch.choose([1, 2, 3], watch.due)
        assert key is not None
        asked.append(key)
        assert watch.answered(key, Detail({}), watch.due) is None
        assert not watch.expired
    assert sorted(asked[:3]) == [1, 2, 3]
    assert asked[3] == asked[0]
    assert watch.due == 5 * EVERY_SECONDS


@pytest.mark.parametrize("end", [GONE, failed(Outcome.GONE), failed(Outcome.DENIED)])
def test_only_when_all_vanish_has_the_login_expired(end: object) -> None:
    watch = Canary(0)
    key = watch.choose([1, 2, 3], 10)
    seen = []
    while key is not None:
        assert not watch.expired
        seen.append(key)
        key = watch.answered(key, end, 11)
    assert sorted(watch.expired) == sorted(seen) == [1, 2, 3]


def test_one_that_is_still_there_is_enough() -> None:
    watch = Canary(0)
    first = watch.choose([1, 2, 3], 10)
    assert first is not None
    second = watch.answered(first, GONE, 10)
    assert second is not None
    assert watch.answered(second, Detail({}), 10) is None
    assert not watch.expired


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.LIMITED, Outcome.MALFORMED])
def test_where_nobody_can_say_it_is_looked_again_soon(outcome: Outcome) -> None:
    watch = Canary(0)
    first = watch.choose([1, 2, 3], 10)
    assert first is not None
    assert watch.answered(first, failed(outcome), 10) is None
    assert not watch.expired
    assert watch.due == 10 + AGAIN_SECONDS


def test_with_fewer_than_three_items_nothing_is_concluded() -> None:
    watch = Canary(0)
    key = watch.choose([1, 2], 10)
    while key is not None:
        key = watch.answered(key, GONE, 10)
    assert not watch.expired
    assert watch.choose([], 20) is None


def test_a_login_that_expires_without_a_word_costs_no_item(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "EVERY_SECONDS", 3.0)
    world = World(seed=1, items=200, login=True)
    expired = False

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        nonlocal expired
        expired = expired or simulator.requests["info"] > 100
        return Answer(404) if expired and kind == "info" and world.flag(key) != 1 else None

    simulator = simulate(world, faults=faults)
    options = {**LOGIN, "max_requests_per_second": 20, "max_parallel_requests": 3, "db_batch_size": 5}
    with pytest.raises(LoginError, match="items that only a login shows have vanished"):
        mirror(db, simulator, stop=FakeStop(), **options)
    assert one(db, "SELECT count(*) FROM items WHERE gone_at IS NOT NULL") == 0
    assert not verify(db).wrong
    # Nobody goes on blindly: what was left is still to be had.
    assert simulator.requests["info"] < 190
    assert mirror(db, simulate(world), **LOGIN).exit_code == 0
    assert_complete(db, world, 3)


def test_three_known_items_that_are_really_there_are_no_trouble(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "EVERY_SECONDS", 1.0)
    world = World(seed=1, items=100, login=True)
    simulator = simulate(world)
    options = {**LOGIN, "max_requests_per_second": 20, "db_batch_size": 5}
    assert mirror(db, simulator, stop=FakeStop(), **options).exit_code == 0
    asked_again = simulator.requests["info"] - len(world.ids(3))
    assert asked_again >= 1
    assert_complete(db, world, 3)


def test_without_a_login_nothing_is_asked(db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "EVERY_SECONDS", 0.5)
    simulator = simulate(World(seed=1, items=60))
    mirror(db, simulator, stop=FakeStop(), max_requests_per_second=20)
    assert simulator.requests["info"] == 60
    assert column(db, "SELECT DISTINCT scope FROM coverage") == [1]
