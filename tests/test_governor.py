"""Nobody asks a host faster than it allows: pace, gate, and one pause for all."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import Stopped
from fetcher.governor import Governor, Ticket, backoff
from fetcher.learned import Learned
from fetcher.limits import FIRST_COOL_DOWN
from fetcher.model import Outcome
from fetcher.stop import Stop

SOON = 10.0
"""Seconds that no thread may take; only a broken test waits so long."""


class Clock(Stop):
    """A Stop whose time passes by waiting; `meanwhile` happens, once each, while somebody waits.

    A wait lasts longer than asked by the next of `late`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        self.meanwhile: list[Callable[[], object]] = []
        self.late: list[float] = []

    def now(self) -> float:
        return self.at

    def wait(self, seconds: float, condition: threading.Condition | None = None) -> bool:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        else:
            assert seconds < 3600, "nothing will end this wait"
            self.at += seconds + (self.late.pop() if self.late else 0.0)
        return self.is_set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governor(clock: Clock) -> Governor:
    return Governor(clock, parallel=100, max_pause=300)


def refuse(governor: Governor, ticket: Ticket, retry_after: float | None = None, status: int = 429) -> Outcome:
    return governor.leave(ticket, Outcome.LIMITED, status=status, retry_after=retry_after)


def answer(governor: Governor, ticket: Ticket, outcome: Outcome = Outcome.OK, status: int = 200) -> Outcome:
    return governor.leave(ticket, outcome, status=status)


# Pace


def test_without_a_ceiling_nobody_waits(clock: Clock) -> None:
    governor = Governor(clock, parallel=100)
    assert {governor.enter().started for _ in range(100)} == {0.0}


def assert_even(starts: list[float], ceiling: float) -> None:
    """No second, nor any longer time, holds more than the ceiling allows; no two are closer than half the pace."""
    least = math.ceil(ceiling)
    for number in range(least, least + 3):
        for first, last in zip(starts, starts[number:], strict=False):
            assert last - first >= number / ceiling * 0.999999
    assert all(after - before >= 0.5 / ceiling for before, after in pairwise(starts))


@pytest.mark.parametrize("ceiling", [0.1, 4, 10, 1000])
def test_starts_are_evenly_spaced_close_to_the_ceiling(clock: Clock, ceiling: float) -> None:
    governor = Governor(clock, parallel=10_000, ceiling=ceiling)
    starts = [governor.enter().started for _ in range(50)]
    gaps = [after - before for before, after in pairwise(starts)]
    assert starts[0] == 0
    assert gaps == pytest.approx([gaps[0]] * len(gaps))
    assert 1 / ceiling <= gaps[0] <= 1.02 / ceiling


def test_time_spent_idle_is_not_saved_up_for_a_burst(clock: Clock) -> None:
    governor = Governor(clock, parallel=100, ceiling=4)
    governor.enter()
    clock.at = 100.0
    starts = [governor.enter().started for _ in range(9)]
    assert starts[0] == 100
    assert_even(starts, 4)


def test_threads_that_wake_late_do_not_slow_the_pace_nor_break_the_ceiling(clock: Clock) -> None:
    governor = Governor(clock, parallel=10_000, ceiling=50)
    clock.late = [0.004] * 1000
    starts = [governor.enter().started for _ in range(500)]
    assert_even(starts, 50)
    assert 499 / 50 <= starts[-1] <= 499 / 50 * 1.02


outcomes = st.sampled_from([Outcome.OK, Outcome.GONE, Outcome.LIMITED, Outcome.UNAVAILABLE, Outcome.MALFORMED])
steps = st.tuples(st.floats(0, 0.2), st.just(Outcome.OK), st.none()) | st.tuples(
    st.floats(0, 3), outcomes, st.none() | st.floats(0, 5)
)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([0.3, 1, 2.5, 10]),
    st.lists(steps, min_size=1, max_size=25),
    st.lists(st.floats(0, 0.03), max_size=25),
)
def test_the_ceiling_is_never_exceeded_whatever_is_answered(
    ceiling: float, steps: list[tuple[float, Outcome, float | None]], late: list[float]
) -> None:
    clock = Clock()
    clock.late = late
    governor = Governor(clock, parallel=2, ceiling=ceiling)
    starts = []
    for seconds, outcome, retry_after in steps:
        ticket = governor.enter()
        starts.append(ticket.started)
        clock.at += seconds
        governor.leave(ticket, outcome, status=503, retry_after=retry_after)
    assert_even(starts, ceiling)
    assert governor.traffic().requests == len(steps)


def test_threads_share_the_ceiling() -> None:
    governor = Governor(Stop(), parallel=8, ceiling=30)

    def ask(_: int) -> float:
        ticket = governor.enter()
        answer(governor, ticket)
        return ticket.started

    with ThreadPoolExecutor(8) as pool:
        assert_even(sorted(pool.map(ask, range(40), timeout=SOON)), 30)


# Gate


def test_no_more_than_allowed_are_open_at_once(clock: Clock) -> None:
    governor = Governor(clock, parallel=2)
    first, _ = governor.enter(), governor.enter()
    left = []
    clock.meanwhile.append(lambda: left.append(answer(governor, first)))
    governor.enter()
    assert left, "the third began before one of the two had ended"


def test_many_threads_keep_within_the_gate() -> None:
    governor, lock, open_now, most = Governor(Stop(), parallel=3), threading.Lock(), 0, 0
    start = threading.Barrier(12)

    def ask() -> None:
        nonlocal open_now, most
        start.wait(SOON)
        for _ in range(20):
            ticket = governor.enter()
            with lock:
                open_now += 1
                most = max(most, open_now)
            with lock:
                open_now -= 1
            answer(governor, ticket)

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(ask) for _ in range(12)]:
            future.result(SOON)
    assert 1 <= most <= 3


def test_an_abandoned_request_makes_room(clock: Clock) -> None:
    governor = Governor(clock, parallel=1)
    for _ in range(3):
        governor.abandon(governor.enter())
    assert governor.enter().started == 0


# Pause


def test_a_refusal_pauses_everybody_for_as_long_as_the_host_says(clock: Clock, governor: Governor) -> None:
    governor.enter()
    refuse(governor, governor.enter(), 20.0)
    assert governor.traffic().paused == 20
    assert governor.traffic().reason == "answered 429"
    assert governor.enter().started == 20


def test_a_host_is_not_obeyed_beyond_the_longest_pause(clock: Clock, governor: Governor) -> None:
    refuse(governor, governor.enter(), 6 * 3600.0)
    assert governor.enter().started == 300


def test_a_refusal_that_names_no_time_is_followed_by_a_cool_down(clock: Clock, governor: Governor) -> None:
    refuse(governor, governor.enter())
    assert governor.enter().started == FIRST_COOL_DOWN


def test_the_cool_down_doubles_up_to_the_longest_pause_while_probes_are_refused(
    clock: Clock, governor: Governor
) -> None:
    pauses = []
    for _ in range(12):
        ticket = governor.enter()
        refuse(governor, ticket)
        pauses.append(governor.traffic().paused)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_after_a_good_probe_the_cool_down_is_short_again(clock: Clock, governor: Governor) -> None:
    for _ in range(4):
        refuse(governor, governor.enter())
    answer(governor, governor.enter())
    assert governor.traffic().paused == 0
    assert governor.traffic().reason == ""
    refuse(governor, governor.enter())
    assert governor.traffic().paused == FIRST_COOL_DOWN


def test_one_probe_goes_first_and_the_others_follow_its_good_answer(clock: Clock, governor: Governor) -> None:
    refuse(governor, governor.enter(), 5.0)
    probe = governor.enter()
    assert probe.probe
    waited: list[object] = []
    clock.meanwhile += [lambda: waited.append(clock.at), lambda: answer(governor, probe)]
    after = governor.enter()
    assert waited == [5.0], "another request began beside the probe"
    assert not after.probe
    assert after.started == 5.0


@pytest.mark.parametrize("outcome", [Outcome.GONE, Outcome.MALFORMED, Outcome.DENIED])
def test_a_probe_that_was_answered_at_all_opens_the_gate(clock: Clock, governor: Governor, outcome: Outcome) -> None:
    refuse(governor, governor.enter(), 5.0)
    answer(governor, governor.enter(), outcome, 404)
    assert not governor.enter().probe


def test_an_unavailable_probe_keeps_it_shut(clock: Clock, governor: Governor) -> None:
    refuse(governor, governor.enter(), 5.0)
    answer(governor, governor.enter(), Outcome.UNAVAILABLE, 500)
    assert governor.traffic().paused == 0, "a lone error concerns its item only: another goes first, at once"
    answer(governor, governor.enter(), Outcome.UNAVAILABLE, 500)
    assert governor.traffic().paused == 2 * FIRST_COOL_DOWN
    assert governor.enter().probe


def test_a_probe_that_meets_no_host_or_a_503_in_a_burst_of_them_pauses_longer(clock: Clock, governor: Governor) -> None:
    refuse(governor, governor.enter(), 5.0)
    governor.leave(governor.enter(), Outcome.UNAVAILABLE)
    assert governor.traffic().paused == 2 * FIRST_COOL_DOWN
    answer(governor, governor.enter())
    for _ in range(3):
        unavailable(governor, governor.enter())
    unavailable(governor, governor.enter())
    assert governor.traffic().paused == 2 * FIRST_COOL_DOWN


def test_an_abandoned_probe_leaves_its_place_to_another(clock: Clock, governor: Governor) -> None:
    refuse(governor, governor.enter(), 5.0)
    governor.abandon(governor.enter())
    assert governor.enter().probe


def test_what_was_under_way_when_the_pause_began_is_no_news(clock: Clock, governor: Governor) -> None:
    late = [governor.enter() for _ in range(10)]
    clock.at = 1.0
    refuse(governor, late.pop(), None)
    clock.at = 1.5
    for ticket in late:
        assert refuse(governor, ticket) is Outcome.LIMITED
    assert governor.traffic().paused == FIRST_COOL_DOWN - 0.5
    assert governor.traffic().limited == 10


def test_what_was_under_way_may_name_a_longer_time_but_no_shorter_one(clock: Clock, governor: Governor) -> None:
    first, second, third = (governor.enter() for _ in range(3))
    clock.at = 1.0
    refuse(governor, first, 10.0)
    refuse(governor, second, 3.0)
    assert governor.traffic().paused == 10
    refuse(governor, third, 60.0)
    assert governor.traffic().paused == 60


def test_a_good_answer_that_was_under_way_does_not_end_the_pause(clock: Clock, governor: Governor) -> None:
    good, bad = governor.enter(), governor.enter()
    refuse(governor, bad, 10.0)
    answer(governor, good)
    assert governor.traffic().paused == 10


def test_a_host_that_keeps_refusing_is_asked_less_and_less_whatever_time_it_names(
    clock: Clock, governor: Governor
) -> None:
    for _ in range(10):
        refuse(governor, governor.enter(), 0.0)
    assert clock.at > 10 * FIRST_COOL_DOWN


# 503


def unavailable(governor: Governor, ticket: Ticket, retry_after: float | None = None) -> Outcome:
    return governor.leave(ticket, Outcome.UNAVAILABLE, status=503, retry_after=retry_after)


def test_a_lone_503_concerns_its_item_only(clock: Clock, governor: Governor) -> None:
    assert unavailable(governor, governor.enter()) is Outcome.UNAVAILABLE
    assert governor.enter().started == 0


def test_three_503_within_two_seconds_are_a_refusal(clock: Clock, governor: Governor) -> None:
    tickets = [governor.enter() for _ in range(3)]
    seen = []
    for ticket in tickets:
        seen.append(unavailable(governor, ticket))
        clock.at += 1.0
    assert seen == [Outcome.UNAVAILABLE, Outcome.UNAVAILABLE, Outcome.LIMITED]
    assert governor.enter().probe


def test_three_503_further_apart_are_not(clock: Clock, governor: Governor) -> None:
    for _ in range(6):
        assert unavailable(governor, governor.enter()) is Outcome.UNAVAILABLE
        clock.at += 1.01


def test_a_503_that_names_a_time_is_a_refusal(clock: Clock, governor: Governor) -> None:
    assert unavailable(governor, governor.enter(), 7.0) is Outcome.LIMITED
    assert governor.enter().started == 7


def test_other_errors_of_the_server_are_no_refusal(clock: Clock, governor: Governor) -> None:
    for _ in range(5):
        assert answer(governor, governor.enter(), Outcome.UNAVAILABLE, 500) is Outcome.UNAVAILABLE
    assert governor.traffic().limited == 0


def test_three_503_among_many_good_answers_are_not(clock: Clock, governor: Governor) -> None:
    for _ in range(9):
        assert unavailable(governor, governor.enter()) is Outcome.UNAVAILABLE
        for _ in range(10):
            answer(governor, governor.enter())
    assert governor.traffic().limited == 0


# What is learned


def test_a_refusal_tells_the_pace(clock: Clock) -> None:
    governor = Governor(clock, parallel=10, least=1)
    assert governor.traffic().pace == 0
    for _ in range(40):
        answer(governor, governor.enter())
    refuse(governor, governor.enter())
    answer(governor, governor.enter())
    assert governor.traffic().pace == pytest.approx(0.95 * 40)
    starts = []
    for _ in range(20):
        ticket = governor.enter()
        starts.append(ticket.started)
        answer(governor, ticket)
    assert all(after - before == pytest.approx(1 / 39, rel=0.05) for before, after in pairwise(starts))


def test_a_probe_that_meets_another_error_does_not_make_the_host_slower(clock: Clock) -> None:
    governor = Governor(clock, parallel=10, least=1)
    for _ in range(40):
        answer(governor, governor.enter())
    refuse(governor, governor.enter())
    for _ in range(2):
        unavailable(governor, governor.enter())
    answer(governor, governor.enter())
    assert clock.at == pytest.approx(3)
    assert governor.traffic().pace == pytest.approx(0.95 * 40)


def test_a_burst_of_503_measures_no_limit(clock: Clock) -> None:
    governor = Governor(clock, parallel=10, least=1)
    for _ in range(100):
        answer(governor, governor.enter())
        clock.at += 0.01
    for _ in range(3):
        unavailable(governor, governor.enter())
    for _ in range(4):
        unavailable(governor, governor.enter())
    answer(governor, governor.enter())
    assert governor.traffic().pace == pytest.approx(0.95 * 0.75 * 100, rel=0.05)


def test_the_gate_begins_small_and_opens_while_it_is_used(clock: Clock) -> None:
    governor = Governor(clock, parallel=50, least=1)
    assert governor.traffic().gate == 3
    for _ in range(8):
        tickets = [governor.enter() for _ in range(governor.traffic().gate)]
        clock.at += 0.1
        for ticket in tickets:
            answer(governor, ticket)
    assert governor.traffic().gate == 50


def test_the_next_run_begins_with_what_was_learned(clock: Clock) -> None:
    governor = Governor(clock, parallel=50, least=1, ceiling=30)
    governor.recall(None)
    assert governor.traffic().pace == 30
    governor.recall(Learned(20.0, 6.0, False, 8.0, clock.time()))
    assert governor.traffic().pace == pytest.approx(19)
    governor.recall(Learned(100.0, 6.0, False, 8.0, clock.time()))
    assert governor.traffic().pace == 30
    assert governor.learned().rate == 100


class Counting(Stop):
    """A Stop that counts how often a thread woke."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = 0

    def wait(self, seconds: float, condition: threading.Condition | None = None) -> bool:
        stopped = super().wait(seconds, condition)
        self.woken += 1
        return stopped


def test_of_many_threads_that_wait_for_room_one_wakes() -> None:
    stop = Counting()
    governor = Governor(stop, parallel=2)
    calls = 400

    def ask(_: int) -> None:
        ticket = governor.enter()
        answer(governor, ticket)

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(ask, range(calls), timeout=SOON))
    assert stop.woken <= 2 * calls


# Stop


class Waiting(Stop):
    """A Stop that tells when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def wait(self, seconds: float, condition: threading.Condition | None = None) -> bool:
        self.begun.set()
        return super().wait(seconds, condition)


@pytest.mark.parametrize("why", ["pause", "gate", "pace"])
def test_stop_wakes_all_who_wait_at_once(why: str) -> None:
    stop = Waiting()
    governor = Governor(stop, parallel=1 if why == "gate" else 9, ceiling=0.01 if why == "pace" else 0)
    first = governor.enter()
    if why == "pause":
        refuse(governor, first, 60.0)
    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(governor.enter) for _ in range(5)]
        assert stop.begun.wait(SOON)
        stop.set()
        for each in asking:
            with pytest.raises(Stopped):
                each.result(SOON)


def test_nothing_begins_after_stop(clock: Clock, governor: Governor) -> None:
    clock.set()
    with pytest.raises(Stopped):
        governor.enter()
    assert governor.traffic().requests == 0


# Backoff


@given(st.integers(0, 10_000), st.floats(0.001, 10_000), st.floats(0, 1, exclude_max=True))
@settings(max_examples=150, deadline=None)
def test_backoff_is_anything_below_a_doubling_bound(attempts: int, most: float, chance: float) -> None:
    wait = backoff(attempts, most, lambda: chance)
    assert 0 <= wait <= most
    assert wait == pytest.approx(chance * min(most, 2.0 ** min(attempts, 1000)))


def test_backoff_is_drawn_anew_each_time() -> None:
    assert len({backoff(3, 300) for _ in range(20)}) > 1
    assert max(backoff(3, 300) for _ in range(200)) < 8
