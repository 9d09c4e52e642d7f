"""What is proven listed and what is missing: arithmetic of whole-number intervals, without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from fetcher.model import Interval, Key, Order, Scope, Walk


def missing(universe: Interval, covered: Iterable[Interval]) -> list[Interval]:
    """The parts of `universe` that no interval of `covered` holds, ascending."""
    holes = []
    lo = universe.lo
    for interval in sorted((each for each in covered if each.size), key=lambda each: each.lo):
        if interval.lo > lo:
            hole = Interval(lo, min(interval.lo - 1, universe.hi))
            if hole.size:
                holes.append(hole)
        lo = max(lo, interval.hi + 1)
    if lo <= universe.hi:
        holes.append(Interval(lo, universe.hi))
    return holes


def plan_walks(
    universe: Interval, covered: Mapping[Scope, Sequence[Interval]], order: Order, *, head: bool
) -> list[Walk]:
    """The walks that make `universe` covered in every scope of `covered`, in the order they are to be walked.

    A stretch is walked for just the scopes that miss it: what flags 1 have proven is not listed again when flags 9 are
    asked for. With `head` the universe reaches to the newest item there is, and so does the walk that touches its end.
    """
    edges = {universe.lo, universe.hi + 1}
    holes = {scope: missing(universe, intervals) for scope, intervals in covered.items()}
    for each in holes.values():
        for hole in each:
            edges |= {hole.lo, hole.hi + 1}
    walks: list[Walk] = []
    marks = sorted(edges)
    for lo, after in pairwise(marks):
        scopes = tuple(scope for scope, each in holes.items() if any(lo in hole for hole in each))
        if not scopes:
            continue
        touches_end = head and after - 1 == universe.hi
        walks.append(Walk(Interval(lo, after - 1), scopes, order, head=touches_end))
    return walks if order == "oldest" else walks[::-1]


def clip(interval: Interval, bounds: Interval) -> Interval:
    """The part of `interval` that lies within `bounds`; empty when there is none."""
    return Interval(max(interval.lo, bounds.lo), min(interval.hi, bounds.hi))


def list_key(walk_scopes: Sequence[Scope], lo: int) -> Key:
    """The key of a list page that failed: where it begins, and in which scope where each is listed by itself."""
    return lo if all(isinstance(scope, int) for scope in walk_scopes) else f"{walk_scopes[0]} @{lo}"


def is_listed(key: Key, scopes: Sequence[Scope], proven: Interval) -> bool:
    """Whether a list page of that key lies in what is proven for `scopes`."""
    if isinstance(key, int):
        return key in proven
    scope, _, lo = key.rpartition(" @")
    return scope in scopes and lo.lstrip("-").isdigit() and int(lo) in proven
