"""The curve through what was measured, and the advice that it gives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.simulator.limiter import Limit, TokenBucket
from fetcher.tune.scaling import BELOW_REFUSAL, Curve, Point, advise, fit, rate_at_refusal

LEVELS = (1, 2, 4, 8, 16, 32)

curves = st.builds(
    Curve,
    st.floats(0.1, 1000),
    st.one_of(st.just(0.0), st.floats(1e-3, 0.9)),
    st.one_of(st.just(0.0), st.floats(1e-4, 0.1)),
)
points = st.lists(
    st.builds(
        lambda level, share, latency, error: Point(
            level, max(1.0, share * level), latency, error, max(1.0, share * level) / latency
        ),
        st.integers(1, 1000),
        st.floats(0.1, 1),
        st.floats(1e-4, 100),
        st.floats(0, 3),
    ),
    min_size=1,
    max_size=10,
)


def seen(curve: Curve, levels: Sequence[int] = LEVELS, *, times: float = 1.0) -> list[Point]:
    """What would be measured of a host that follows `curve`, `times` as slow."""
    return [Point(n, n, times * curve.latency(n), 0.02, curve.throughput(n) / times) for n in levels]


@given(curves)
def test_the_parameters_of_a_curve_are_found_again(curve: Curve) -> None:
    found = fit(seen(curve))
    assert found.single == pytest.approx(curve.single, rel=1e-4)
    assert found.waiting == pytest.approx(curve.waiting, rel=1e-3, abs=1e-5)
    assert found.crosstalk == pytest.approx(curve.crosstalk, rel=1e-3, abs=1e-6)


@given(points)
def test_any_measurements_give_a_curve_that_is_possible(found: list[Point]) -> None:
    curve = fit(found)
    assert curve.single > 0
    assert curve.waiting >= 0
    assert curve.crosstalk >= 0
    latencies = [curve.latency(n) for n in range(1, 100)]
    assert latencies == sorted(latencies)


@given(points, st.one_of(st.just(0.0), st.floats(0.1, 1000)), st.one_of(st.none(), st.floats(0.1, 1000)))
def test_advice_keeps_to_what_went_well(found: list[Point], ceiling: float, refused_at: float | None) -> None:
    advice = advise(found, fit(found), ceiling=ceiling, refused_at=refused_at)
    assert 1 <= advice.parallel <= max(each.level for each in found)
    assert advice.rate > 0
    assert not ceiling or advice.rate <= ceiling
    if refused_at is not None:
        assert advice.rate <= BELOW_REFUSAL * refused_at
    elif not ceiling:
        assert advice.rate <= max(each.rate for each in found)


@given(curves, st.floats(0.1, 10))
def test_a_slower_host_is_asked_as_many_at_once_and_less_often(curve: Curve, times: float) -> None:
    quick, slow = (
        advise(seen(each), fit(seen(each)))
        for each in (Curve(10 * curve.single, curve.waiting, curve.crosstalk), curve)
    )
    assert slow.rate <= quick.rate


@given(curves)
def test_less_may_be_asked_for_the_lower_the_ceiling(curve: Curve) -> None:
    measured = seen(curve)
    advised = [advise(measured, fit(measured), ceiling=share * curve.peak(32)) for share in (0.1, 0.3, 0.6, 1.0)]
    assert [each.rate for each in advised] == sorted(each.rate for each in advised)
    assert [each.parallel for each in advised] == sorted(each.parallel for each in advised)


@given(st.floats(1, 200), st.floats(0.005, 1), st.integers(1, 5))
def test_the_rate_of_a_token_bucket_is_found_and_not_exceeded(rate: float, latency: float, doublings: int) -> None:
    bucket, now, begun = TokenBucket(Limit(rate=rate)), 0.0, []
    for level in (2**each for each in range(12)):
        for _ in range(max(10, 3 * level)):
            begun.append(now)
            if not bucket.admits(now):
                assert rate_at_refusal(begun, now) <= 1.2 * max(1.0, rate) + 1
                assert rate_at_refusal(begun, now) >= 0.3 * rate
                return
            now += latency / level


def test_a_refusal_of_the_first_request_has_a_rate_too() -> None:
    assert rate_at_refusal([5.0], 5.0) == 1.0
    assert rate_at_refusal([], 5.0) == 0.0


def test_a_long_pause_tells_how_long_the_host_counts() -> None:
    begun = [each / 100 for each in range(71)]
    assert rate_at_refusal(begun, begun[-1], 9.3) == pytest.approx(7)
    assert rate_at_refusal(begun, begun[-1], 1.0) > 40, "a bucket's pause"


def test_where_the_rate_is_the_bound_slower_answers_hold_nothing_up() -> None:
    measured = seen(Curve(5, 0, 0))
    advice = advise(measured, fit(measured), refused_at=40)
    assert advice.rate == 32
    assert advice.parallel == 14, "7 would do where no answer is slower than measured"


def test_one_level_is_enough_for_a_curve_and_for_little_confidence() -> None:
    (only,) = measured = seen(Curve(10, 0, 0), [1])
    advice = advise(measured, fit(measured))
    assert (advice.parallel, advice.rate, advice.confidence) == (1, 9, "fair")
    assert fit([only]).single == pytest.approx(10)


def test_what_scatters_is_not_trusted() -> None:
    measured = [Point(n, n, 0.1, 0.6, n / 0.1) for n in LEVELS]
    assert advise(measured, fit(measured)).confidence == "poor"


def test_an_answer_that_hung_does_not_bend_the_curve() -> None:
    measured = [
        Point(1, 1, 0.1, 0.02, 10),
        Point(2, 2, 3.0, 0.9, 1),
        Point(4, 4, 0.1, 0.02, 40),
        Point(8, 8, 0.1, 0.02, 80),
    ]
    assert fit(measured).throughput(8) == pytest.approx(80, rel=0.05)


def test_a_ceiling_that_went_well_is_left_as_it_is() -> None:
    measured = seen(Curve(10, 0, 0), [1, 2])
    assert advise(measured, fit(measured), ceiling=12.5).rate == 12.5
