"""What is covered, what is missing and what is to be walked, against sets of plain numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.coverage import clip, missing, plan_walks
from fetcher.model import Interval, Order, Walk

MOST = 20
interval = st.builds(lambda a, b: Interval(min(a, b), max(a, b)), st.integers(-2, MOST + 3), st.integers(-2, MOST + 3))
stretches = st.lists(interval, max_size=5)
universes = st.builds(Interval, st.integers(-1, 3), st.integers(-2, MOST))
orders = st.sampled_from(["newest", "oldest"])


def numbers(*intervals: Interval) -> set[int]:
    return {number for each in intervals for number in range(each.lo, each.hi + 1)}


@settings(max_examples=150, deadline=None)
@given(universes, stretches)
def test_missing_is_the_universe_without_what_is_covered(universe: Interval, covered: list[Interval]) -> None:
    holes = missing(universe, covered)
    assert numbers(*holes) == numbers(universe) - numbers(*covered)
    assert all(hole.size > 0 for hole in holes)
    # Ascending, and no two of them could be one.
    assert all(below.hi + 1 < above.lo for below, above in pairwise(holes))


def test_an_empty_interval_covers_nothing() -> None:
    assert missing(Interval(1, 9), [Interval(5, 3)]) == [Interval(1, 9)]


def test_nothing_is_missing_of_nothing() -> None:
    assert missing(Interval(1, 0), []) == []


def test_the_whole_universe_is_missing_at_first() -> None:
    assert missing(Interval(1, 6_154_365), []) == [Interval(1, 6_154_365)]


@settings(max_examples=150, deadline=None)
@given(universes, st.dictionaries(st.sampled_from([1, 2, 8]), stretches, min_size=1), orders, st.booleans())
def test_each_scope_is_walked_just_where_it_is_missing(
    universe: Interval, covered: dict[int, list[Interval]], order: Order, head: bool
) -> None:
    walks = plan_walks(universe, covered, order, head=head)
    for scope, intervals in covered.items():
        holes = [walk.hole for walk in walks if scope in walk.scopes]
        assert numbers(*holes) == numbers(universe) - numbers(*intervals)
    walked = [number for walk in walks for number in numbers(walk.hole)]
    assert len(walked) == len(set(walked)), "a number is walked twice"
    assert all(walk.scopes and walk.hole.size and walk.order == order and not walk.started for walk in walks)
    tops = [walk.hole.hi for walk in walks]
    assert tops == sorted(tops, reverse=order == "newest")
    assert [walk for walk in walks if walk.head] == [walk for walk in walks if head and walk.hole.hi == universe.hi]


def test_wider_flags_list_only_what_the_narrower_ones_have_not_proven() -> None:
    walks = plan_walks(Interval(1, 100), {1: [Interval(40, 100)], 8: []}, "newest", head=True)
    assert walks == [
        Walk(Interval(40, 100), (8,), "newest", head=True),
        Walk(Interval(1, 39), (1, 8), "newest"),
    ]


def test_scopes_that_miss_the_same_are_walked_together() -> None:
    assert plan_walks(Interval(1, 9), {1: [], 2: [], 4: []}, "oldest", head=False) == [
        Walk(Interval(1, 9), (1, 2, 4), "oldest")
    ]


def test_the_walk_with_the_newest_item_goes_first_or_last() -> None:
    covered = {1: [Interval(3, 5)]}
    newest = plan_walks(Interval(1, 9), covered, "newest", head=True)
    oldest = plan_walks(Interval(1, 9), covered, "oldest", head=True)
    assert [(walk.hole, walk.head) for walk in newest] == [(Interval(6, 9), True), (Interval(1, 2), False)]
    assert [(walk.hole, walk.head) for walk in oldest] == [(Interval(1, 2), False), (Interval(6, 9), True)]


def test_nothing_is_walked_where_all_is_covered() -> None:
    assert plan_walks(Interval(1, 9), {1: [Interval(1, 9)]}, "newest", head=True) == []
    assert plan_walks(Interval(1, 0), {1: []}, "newest", head=True) == []


@settings(max_examples=50, deadline=None)
@given(interval, interval)
def test_clip_is_what_two_intervals_share(one: Interval, other: Interval) -> None:
    shared = clip(one, other)
    assert numbers(shared) == numbers(one) & numbers(other)
    assert shared.size == len(numbers(one) & numbers(other))
