"""Pace and gate find what a host allows, in virtual time: never below the floor, never above the ceiling."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.gate import Gate
from fetcher.learned import Learned
from fetcher.limits import Limits
from fetcher.model import Outcome
from fetcher.pace import LEAST, PATIENCE, Pace
from fetcher.simulator.limiter import Limit, Window
from fetcher.simulator.profile import Knee, Outage, Profile, Share
from fetcher.simulator.profiles import PROFILES
from fetcher.simulator.rehearsal import Rehearsal, rehearse

WORKERS = 10


def limits(
    *, workers: int = WORKERS, ceiling: float = 0.0, learned: Learned | None = None, age: float = 0.0, **gate: Any
) -> Limits:
    least = gate.pop("least", 1)
    return Limits(
        Pace(ceiling, learned, age),
        Gate(least, workers, learned=learned, **gate),
        most=workers,
        ceiling=ceiling,
    )


def learned_by(used: Limits) -> Learned:
    pace = used.pace
    return Learned(pace.limit, pace.patience, pace.cumulative, used.gate.size, 1.0)


@pytest.fixture(autouse=True)
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Retry-After that is a date has no parts of a second: with one time for all a rehearsal is always the same."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.5)


def events(run: Rehearsal) -> list[float]:
    """When refusals came that had good answers before them: those close together are one."""
    return [now for before, now in pairwise([-math.inf, *run.refusals]) if now - before > 0.5]


def bucket(rate: float, burst: float | None = None, lockout: float = 1.0, **more: Any) -> Profile:
    return Profile(limits=(Limit(rate=rate, burst=burst, lockout=lockout, **more),))


# A limit on requests a second

JOB = Profile(
    limits=(Limit(rate=40, burst=40, lockout=1),),
    mishaps=(Share("503", 0.01),),
    gone_404=0.01,
    gone_200=0.01,
)


@pytest.mark.parametrize("seed", range(5))
def test_a_limited_host_is_asked_almost_as_fast_as_it_allows_after_few_refusals(seed: int) -> None:
    first = limits()
    run = rehearse(first, JOB, workers=WORKERS, items=816, seed=seed)
    assert run.seconds < 21.5
    assert len(run.refusals) <= 4
    again = rehearse(limits(learned=learned_by(first)), JOB, workers=WORKERS, items=816, seed=seed)
    assert again.seconds < 21.5
    assert len(again.refusals) <= 1


@pytest.mark.parametrize("latency", [0.001, 0.02, 0.05])
def test_a_limit_that_falls_is_found_within_seconds(latency: float) -> None:
    used = limits()
    run = rehearse(used, bucket(40, later=((15, 10),)), workers=WORKERS, seconds=40, latency=latency)
    fallen = [at for at in events(run) if at > 15]
    assert fallen[1] < 18.5
    assert all(after - before >= 1 for before, after in pairwise(fallen))
    assert run.rate(19, 39) == pytest.approx(10, rel=0.1)


def test_a_limit_that_rises_is_followed() -> None:
    used = limits()
    run = rehearse(used, bucket(10, later=((20, 80),)), workers=WORKERS, seconds=150)
    assert run.rate(120, 150) > 55


@settings(max_examples=15, deadline=None)
@given(
    rate=st.floats(2, 40),
    seconds_saved=st.floats(0.6, 3),
    lockout=st.floats(0, 1),
    latency=st.floats(0.001, 0.1),
    sigma=st.floats(0, 0.6),
    seed=st.integers(0, 1000),
)
def test_any_token_bucket_is_used_well_and_rarely_overdrawn(
    rate: float, seconds_saved: float, lockout: float, latency: float, sigma: float, seed: int
) -> None:
    used = limits(workers=50)
    profile = bucket(rate, max(2.0, rate * seconds_saved), lockout)
    run = rehearse(used, profile, workers=50, seconds=120, latency=latency, sigma=sigma, seed=seed)
    assert 0.7 * rate < run.rate(80, 120) < 1.2 * rate
    # What a host of two a second has saved hides for longer how few these are.
    assert len([at for at in events(run) if at > 80]) <= (4 if rate >= 3 else 5)


def pace_at(rate: float) -> Learned:
    return Learned(rate, 6.0, False, 10.0, 1.0)


@pytest.mark.parametrize("learned", [4.0, 20.0, 39.0, 60.0, 400.0])
def test_the_pace_converges_from_both_sides(learned: float) -> None:
    used = limits(learned=pace_at(learned))
    run = rehearse(used, bucket(40), workers=WORKERS, seconds=100)
    assert run.rate(70, 100) == pytest.approx(40, rel=0.2)


def test_after_each_refusal_met_by_trying_more_the_next_comes_later() -> None:
    run = rehearse(limits(), bucket(40), workers=WORKERS, seconds=600)
    gaps = [after - before for before, after in pairwise(events(run)[1:])]
    assert len(gaps) >= 3
    assert all(later > 1.3 * earlier for earlier, later in pairwise(gaps))


def test_what_was_learned_days_ago_is_tried_sooner() -> None:
    known = Learned(40.0, 96.0, False, 10.0, 1.0)
    fresh, old = (Pace(0.0, known, age) for age in (60.0, 5 * 86_400.0))
    assert fresh.patience > 100
    assert old.patience == PATIENCE
    assert fresh.rate == old.rate == pytest.approx(38)


# A count over a time

WINDOWS = [(seconds, after) for seconds in (7, 8, 9, 10) for after in (None, "9")]


def window(seconds: float, retry_after: str | None) -> Profile:
    return Profile(windows=(Window(requests=70, seconds=seconds, block=9, retry_after=retry_after),))


@pytest.mark.parametrize(("seconds", "retry_after"), WINDOWS)
def test_a_cumulative_limit_blocks_once_and_not_again_in_the_next_run(seconds: float, retry_after: str | None) -> None:
    first = limits()
    run = rehearse(first, window(seconds, retry_after), workers=WORKERS, items=200)
    assert max(run.refusals) < 10
    assert first.pace.cumulative
    again = rehearse(limits(learned=learned_by(first)), window(seconds, retry_after), workers=WORKERS, items=200)
    assert again.refusals == []
    assert again.seconds < 65


@pytest.mark.parametrize(("seconds", "retry_after"), WINDOWS)
def test_a_cumulative_limit_is_tried_more_and_more_rarely(seconds: float, retry_after: str | None) -> None:
    used = limits()
    run = rehearse(used, window(seconds, retry_after), workers=WORKERS, seconds=900)
    blocks = [at for before, at in pairwise([-math.inf, *run.refusals]) if at - before > 20]
    gaps = [after - before for before, after in pairwise(blocks)]
    assert len(blocks) <= 5
    assert all(later > 1.5 * earlier for earlier, later in pairwise(gaps))
    assert used.pace.cumulative
    assert run.rate(300, 900) > 3


def test_seven_hundred_requests_and_a_block_of_ninety_seconds_are_one() -> None:
    profile = Profile(windows=(Window(requests=700, seconds=90, block=90, retry_after="90"),))
    used = limits()
    run = rehearse(used, profile, workers=WORKERS, items=2000)
    assert len(events(run)) == 1
    assert used.pace.rate == pytest.approx(0.8 * 700 / 90, rel=0.1)


def test_what_looked_like_a_count_and_is_none_is_found_out() -> None:
    used = limits()
    run = rehearse(used, bucket(40, lockout=5), workers=WORKERS, seconds=200)
    assert not used.pace.cumulative
    assert run.rate(60, 200) > 20


# Refusals that no pace avoids

SEEDS = range(6)
NO_LIMIT = ["429", "429-seconds", "429-nonsense", "limit-200", "limit-4xx", "503-after"]


def used_by(refusing: Profile, seed: int, items: int = 3000, **settings: Any) -> tuple[Limits, float]:
    """(limits, answers a second while no pause was on) after so many items of a host that refuses whatever the pace."""
    used = Limits(Pace(), Gate(1, WORKERS), most=WORKERS, max_pause=5.0)
    run = rehearse(used, refusing, workers=WORKERS, items=items, latency=0.01, sigma=0.3, seed=seed, **settings)
    return used, run.answered / (run.seconds - used.paused_seconds)


@pytest.mark.parametrize("what", NO_LIMIT)
def test_refusals_at_random_do_not_take_the_pace_away(what: str) -> None:
    """Of one percent of the requests, beside a limit of 60 a second."""
    paces = [
        used_by(Profile(seed=seed, mishaps=(Share(what, 0.01, None),), limits=(Limit(rate=60, burst=120),)), seed)[1]
        for seed in SEEDS
    ]
    assert sorted(paces)[len(paces) // 2] > 30
    assert min(paces) > 10


def test_the_hostile_profile_is_asked_at_a_decent_pace() -> None:
    seconds = []
    for seed in SEEDS:
        used = Limits(Pace(), Gate(1, WORKERS), most=WORKERS, max_pause=5.0)
        profile = replace(PROFILES["hostile"], seed=seed)
        run = rehearse(used, profile, workers=WORKERS, items=3000, latency=0.015, sigma=0.5, seed=seed)
        seconds.append(run.seconds)
    assert sorted(seconds)[len(seconds) // 2] < 240
    assert max(seconds) < 480


def refused_once(pace: Pace, now: float, *, pause: float = 1.0, answers: int = 100, rate: float = 100.0) -> float:
    """So many requests at that rate, a refusal and its pause; returns when it was over."""
    for _ in range(answers):
        pace.began(now, used=True)
        pace.answered()
        now += 1.0 / min(rate, pace.rate)
    pace.refused(now)
    pace.reopened(now + pause, now + pause)
    return now + pause


def keep_asking(pace: Pace, now: float, seconds: float) -> float:
    until = now + seconds
    while now < until:
        pace.began(now, used=True)
        pace.answered()
        now += 1.0 / min(100.0, pace.rate)
    return now


def test_one_long_retry_after_costs_seconds() -> None:
    pace = Pace()
    now = refused_once(pace, 0.0, pause=1.0)
    now = keep_asking(pace, now, 20.0)
    before = pace.rate
    refused_once(pace, now, pause=23.0)
    assert not pace.cumulative
    assert pace.rate > 0.7 * before


def test_a_long_retry_after_at_the_very_first_is_doubted_within_three_times_as_long() -> None:
    pace = Pace()
    now = refused_once(pace, 0.0, pause=10.0)
    assert pace.cumulative
    now = keep_asking(pace, now, 29.0)
    assert pace.rate < 10
    keep_asking(pace, now, 8.0)
    assert not pace.cumulative
    assert pace.rate > 80


def test_an_outage_is_no_count() -> None:
    for after in (None, "2"):
        headers = "503" if after is None else "503-after"
        used = limits()
        rehearse(used, Profile(outages=(Outage(5, 6, headers),)), workers=WORKERS, seconds=30, latency=0.02)
        assert used.pauses == 1
        assert used.paused_seconds > 5
        assert not used.pace.cumulative
        assert used.pace.rate > 200


# Latency

KNEES = [(8, 32, 0.05), (8, 32, 0.2), (20, 50, 0.05), (20, 50, 0.2)]


@pytest.mark.parametrize(("capacity", "workers", "latency"), KNEES)
def test_a_host_that_slows_down_is_held_near_its_knee(capacity: int, workers: int, latency: float) -> None:
    profile = Profile(knee=Knee(capacity))
    used = limits(workers=workers)
    run = rehearse(used, profile, workers=workers, seconds=60, latency=latency, sigma=0.1)
    gates = [gate for at, _, gate in run.trace if at > 10]
    assert run.rate(10, 60) > 0.9 * capacity / latency
    assert sum(gates) / len(gates) < 1.6 * capacity


def test_a_slowing_host_is_relieved_before_it_refuses() -> None:
    profile = Profile(knee=Knee(8, refuse_above=2.5))
    used = limits(workers=50)
    run = rehearse(used, profile, workers=50, seconds=60, latency=0.1)
    assert [at for at in run.refusals if at > 5] == []


HEALTHY = [(workers, latency, sigma) for workers in (10, 50) for latency in (0.05, 0.2) for sigma in (0, 0.6)]


@pytest.mark.parametrize(("workers", "latency", "sigma"), HEALTHY)
def test_learning_costs_a_healthy_host_nothing(workers: int, latency: float, sigma: float) -> None:
    used = limits(workers=workers)
    run = rehearse(used, Profile(), workers=workers, seconds=20, latency=latency, sigma=sigma)
    fixed = rehearse(
        limits(workers=workers, least=workers), Profile(), workers=workers, seconds=20, latency=latency, sigma=sigma
    )
    assert run.answered > 0.94 * fixed.answered
    assert run.rate(10, 20) > 0.96 * fixed.rate(10, 20)


def test_a_host_that_is_slower_by_itself_is_not_asked_less_for_long() -> None:
    gate = Gate(1, 50)
    now = feed(gate, 0.0, 5.0, 0.05)
    now = feed(gate, now, 20.0, 0.08)
    assert gate.limit > 40


def feed(gate: Gate, now: float, seconds: float, latency: float) -> float:
    """Answers that all take so long, with the gate always full; returns when it was over."""
    until = now + seconds
    while now < until:
        gate.used = True
        now += latency
        for _ in range(gate.limit):
            gate.answered(now, latency)
    return now


def test_below_the_lower_threshold_the_gate_grows_and_above_the_upper_it_is_cut() -> None:
    gate = Gate(1, 50, lower=0.1, upper=0.3)
    now = feed(gate, 0.0, 2.0, 0.05)
    assert gate.limit == 50
    now = feed(gate, now, 3.0, 0.25)
    assert gate.limit == 50, "between the two it stays"
    now = feed(gate, now, 20.0, 0.35)
    assert gate.limit == 1
    now = feed(gate, now, 20.0, 0.2)
    assert gate.limit == 1
    feed(gate, now, 20.0, 0.05)
    assert gate.limit == 50


def test_a_gate_that_is_not_used_does_not_grow() -> None:
    gate = Gate(1, 50)
    for number in range(1000):
        gate.answered(0.1 * number, 0.05)
    assert gate.limit == 3


def test_so_many_refusals_within_a_minute_lower_the_gate() -> None:
    gate = Gate(1, 50, refusals=3)
    feed(gate, 0.0, 2.0, 0.05)
    for at in (10.0, 50.0, 75.0):
        gate.refused(at)
    assert gate.limit == 50
    gate.refused(80.0)
    assert gate.limit == 35


def test_errors_are_neither_fast_nor_slow() -> None:
    used = limits()
    for number in range(1000):
        now = 0.01 * number
        ticket = used.begin(now, waited=False)
        used.end(ticket, now + 0.001, Outcome.MALFORMED, status=500, retry_after=None)
    assert used.gate.limit == 3


# Whatever happens

answers = st.sampled_from([(Outcome.OK, 200), (Outcome.LIMITED, 429), (Outcome.UNAVAILABLE, 503), (Outcome.GONE, 404)])
steps = st.tuples(st.floats(0, 3), st.floats(0, 2), answers, st.none() | st.floats(0, 100))
known = st.none() | st.builds(
    Learned, st.none() | st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.booleans(), st.floats(0.1, 1e6), st.just(1.0)
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(steps, max_size=60),
    st.sampled_from([0.0, 0.05, 1.0, 30.0]),
    st.integers(1, 4),
    st.integers(4, 40),
    known,
)
def test_pace_and_gate_keep_within_their_bounds(
    steps: list[tuple[float, float, tuple[Outcome, int], float | None]],
    ceiling: float,
    least: int,
    most: int,
    learned: Learned | None,
) -> None:
    used = limits(workers=most, ceiling=ceiling, learned=learned, least=least)
    now = 0.0
    for pause, takes, (outcome, status), retry_after in steps:
        now += pause
        while (wait := used.wait(now)) is not None and wait > 0:
            now += wait + 1e-9
        ticket = used.begin(now, waited=True)
        now += takes
        used.end(ticket, now, outcome, status=status, retry_after=retry_after)
        assert min(LEAST, ceiling or LEAST) <= used.pace.rate <= (ceiling or math.inf)
        assert least <= used.gate.limit <= most
        assert used.in_flight == 0


# What is kept


@given(known.filter(lambda each: each is not None))
@settings(max_examples=50, deadline=None)
def test_what_was_learned_comes_back_as_it_was(learned: Learned) -> None:
    assert Learned.from_json(learned.to_json()) == learned


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        {"rate": 40.0},
        {"rate": "40", "patience": 6.0, "cumulative": False, "gate": 8.0, "at": 1.0},
        {"rate": -1.0, "patience": 6.0, "cumulative": False, "gate": 8.0, "at": 1.0},
        {"rate": True, "patience": 6.0, "cumulative": False, "gate": 8.0, "at": 1.0},
        {"rate": 40.0, "patience": math.inf, "cumulative": False, "gate": 8.0, "at": 1.0},
        {"rate": 40.0, "patience": 6.0, "cumulative": 0, "gate": 8.0, "at": 1.0},
    ],
)
def test_what_makes_no_sense_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Learned.from_json(found)


def test_only_what_has_changed_notably_is_written_again() -> None:
    one = Learned(40.0, 6.0, False, 10.0, 1.0)
    assert one.differs(None)
    assert not Learned(41.0, 6.0, False, 10.5, 99.0).differs(one)
    assert Learned(46.0, 6.0, False, 10.0, 1.0).differs(one)
    assert Learned(None, 6.0, False, 10.0, 1.0).differs(one)
    assert Learned(40.0, 6.0, True, 10.0, 1.0).differs(one)


# What the host says of its allowance


def asked_as_told(rate: float, burst: int, latency: float, workers: int, seconds: float) -> tuple[int, int]:
    """(answered, refused) of a token bucket that says with each answer what is left of it."""
    used = limits(workers=workers, least=workers, first=workers)
    tokens, filled_at, now = float(burst), 0.0, 0.0
    flying: list[tuple[float, Any, bool, int, float]] = []
    answered = refused = 0
    while now < seconds:
        wait = used.wait(now)
        if wait is not None and wait <= 0:
            tokens, filled_at = min(burst, tokens + (now - filled_at) * rate), now
            allowed = tokens >= 1
            tokens -= allowed
            flying.append((now + latency, used.begin(now, waited=True), allowed, int(tokens), (burst - tokens) / rate))
            continue
        ends = flying[0][0] if flying else math.inf
        now = min(ends, math.inf if wait is None else now + wait)
        if flying and now >= ends:
            _, ticket, allowed, left, reset = flying.pop(0)
            outcome = Outcome.OK if allowed else Outcome.LIMITED
            used.end(ticket, now, outcome, status=200 if allowed else 429, retry_after=None if allowed else 1.0)
            used.told(now, burst, left, reset)
            answered, refused = answered + allowed, refused + (not allowed)
    return answered, refused


@pytest.mark.parametrize(
    ("rate", "burst", "latency", "workers"),
    [(20, 20, 0.2, 20), (20, 20, 0.05, 10), (5, 60, 0.3, 20), (200, 200, 0.1, 50)],
)
def test_a_host_that_says_what_is_left_is_used_well_and_hardly_ever_refuses(
    rate: float, burst: int, latency: float, workers: int
) -> None:
    answered, refused = asked_as_told(rate, burst, latency, workers, 20.0)
    assert answered >= 0.95 * rate * 20
    assert refused <= 0.005 * answered


def test_what_a_host_said_holds_until_its_allowance_is_whole_again() -> None:
    used = limits()
    used.begin(0.0, waited=True)
    used.told(0.1, 100, 0, 10.0)
    assert used.wait(0.1) == pytest.approx(0.1), "half of what fills up in the meantime: 5 a second"
    used.begin(0.2, waited=True)
    assert used.next_start == pytest.approx(0.4)
    used.begin(20.0, waited=True)
    assert used.next_start < 20.1, "that was long ago"
    used.told(20.0, 100, 100, 0.0)
    assert used.next_start < 20.1


@given(
    allowance=st.integers(0, 10**6),
    left=st.integers(0, 10**6),
    reset=st.floats(0, 1e6),
    in_flight=st.integers(1, 5),
)
def test_whatever_a_host_says_requests_go_on(allowance: int, left: int, reset: float, in_flight: int) -> None:
    used = limits(least=WORKERS)
    for _ in range(in_flight):
        used.begin(0.0, waited=True)
    used.told(1.0, allowance, min(left, allowance), reset)
    assert used.wait(1.0 + min(2 * reset, 300.0) + 1.0) <= 0
