"""Finds the items of a search page by page, the newest first, without looking at those of other times."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from fetcher.simulator.stac.items import LONGEST, Facts
from fetcher.simulator.stac.query import Query
from fetcher.simulator.stac.world import Place, StacWorld

_COUNTS_KEPT = 256

Mark = Place | int
"""Where a page ended: the place of its last item, or a position where the order is not that of time."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins: behind `after` (None: at the beginning), `seen` items having come before."""

    after: Mark | None = None
    seen: int = 0
    hollow: bool = False
    """Whether an empty page comes first."""


class Finder:
    """Searches a world; with `ordered` false in an order that has nothing to do with time."""

    def __init__(self, world: StacWorld, *, ordered: bool = True) -> None:
        self._world = world
        self._ordered = ordered
        self._counts: OrderedDict[tuple[int, int], int] = OrderedDict()

    def walk(self, query: Query, after: Mark | None = None) -> Iterator[tuple[Mark, Facts]]:
        """Every item that is asked for behind a mark, with its own mark."""
        world = self._world
        places: Iterator[tuple[Mark, Place]]
        if isinstance(after, int) or not self._ordered:
            places = self._scattered(query, after if isinstance(after, int) else 0)
        else:
            places = ((place, place) for place in self._by_time(query, after))
        for mark, (moment, at, rank) in places:
            facts = world.facts(at, rank, moment)
            if facts is not None and query.wants(facts):
                yield mark, facts

    def count(self, query: Query, key: int) -> int:
        """How many items are asked for; `key` stands for the query where counts are kept."""
        number = self._world.changes.number
        found = self._counts.get((key, number))
        if found is None:
            found = self._counted(query)
            self._counts[key, number] = found
            if len(self._counts) > _COUNTS_KEPT:
                self._counts.popitem(last=False)
        return found

    def skip(self, query: Query, count: int) -> Mark | None:
        """The mark of the item of that number, counted from 1; None for 0."""
        last = deque(islice(self.walk(query), count), maxlen=1)
        return last[0][0] if last else None

    def _counted(self, query: Query) -> int:
        world, changes = self._world, self._world.changes
        if query.ids is not None:
            return sum(1 for _ in self.walk(query))
        if not query.by_time_alone:
            return sum(1 for _ in self._unsorted(query))
        first, last = query.interval
        count = 0
        for at in self._chosen(query):
            top = world.until(at, last) if last is not None else world.size(at)
            bottom = world.before(at, first) if first is not None else 0
            count += max(0, top - bottom)
            # Those that began before, and end within; then what changed.
            early = range(world.before(at, first - LONGEST), min(bottom, top)) if first is not None else range(0)
            added = [rank for _, rank in changes.added.get(at, ())]
            for rank in [*early, *added]:
                facts = world.facts(at, rank)
                count += facts is not None and query.wants(facts)
            count -= sum(each == at and bottom <= rank < top for each, rank in changes.removed)
        return count

    def _unsorted(self, query: Query) -> Iterator[Facts]:
        """Every item that is asked for, collection by collection."""
        world, spots = self._world, query.spots
        for at in self._chosen(query):
            for rank in chain(range(*self._window(query, at)), (each for _, each in world.changes.added.get(at, ()))):
                if spots is None or world.spot(at, rank) in spots:
                    facts = world.facts(at, rank)
                    if facts is not None and query.wants(facts):
                        yield facts

    def _chosen(self, query: Query) -> list[int]:
        """The collections that are asked for."""
        if query.collections is None:
            return list(range(len(self._world.collections)))
        found = (self._world.index(name) for name in query.collections)
        return [at for at in found if at is not None]

    def _window(self, query: Query, at: int) -> tuple[int, int]:
        """The ranks of a collection among which those asked for are, as far as their time goes."""
        first, last = query.interval
        bottom = self._world.before(at, first - LONGEST) if first is not None else 0
        return bottom, self._world.until(at, last) if last is not None else self._world.size(at)

    def _by_time(self, query: Query, after: Place | None) -> Iterator[Place]:
        if query.ids is not None:
            yield from self._by_ids(query, after)
            return
        streams = [stream for at in self._chosen(query) for stream in self._streams(query, at, after)]
        yield from streams[0] if len(streams) == 1 else heapq.merge(*streams, reverse=True)

    def _by_ids(self, query: Query, after: Place | None) -> Iterator[Place]:
        world = self._world
        ranks = ((at, world.rank(at, id)) for at in self._chosen(query) for id in query.ids or ())
        places = [(world.moment(at, rank), at, rank) for at, rank in ranks if rank is not None]
        yield from sorted((place for place in places if after is None or place < after), reverse=True)

    def _streams(self, query: Query, at: int, after: Place | None) -> Iterator[Iterator[Place]]:
        """The places of a collection in the order by time: of those it was made with, and of those added."""
        world = self._world
        bottom, top = self._window(query, at)
        added = world.changes.added.get(at, ())
        late = len(added)
        if after is not None:
            moment, other, rank = after
            if at == other and rank < world.size(at):
                before = rank
            else:
                before = world.until(at, moment) if at <= other else world.before(at, moment)
            top = min(top, before)
            late = bisect_left(added, (moment, rank if at == other else math.inf if at < other else -1))
        moment_of, spot_of, spots = world.moment, world.spot, query.spots
        ranks: Iterable[int] = range(top - 1, bottom - 1, -1)
        if spots is not None:
            # Before anything else of an item is made: most are elsewhere.
            ranks = (rank for rank in ranks if spot_of(at, rank) in spots)
        yield ((moment_of(at, rank), at, rank) for rank in ranks)
        if late:
            yield ((moment, at, rank) for moment, rank in reversed(added[:late]))

    def _scattered(self, query: Query, begin: int) -> Iterator[tuple[int, Place]]:
        """The places of a window in an order that is the same each time, from a position on."""
        windows = [(at, *self._window(query, at)) for at in self._chosen(query)]
        added = [(at, rank) for at, _, _ in windows for _, rank in self._world.changes.added.get(at, ())]
        whole = sum(max(0, top - bottom) for _, bottom, top in windows)
        shuffled = _shuffle(whole)
        for position in range(begin, whole + len(added)):
            if position >= whole:
                at, rank = added[position - whole]
            else:
                left = shuffled(position)
                for at, bottom, top in windows:  # noqa: B007
                    if left < top - bottom:
                        break
                    left -= max(0, top - bottom)
                rank = bottom + left
            yield position + 1, (self._world.moment(at, rank), at, rank)


def _shuffle(whole: int) -> Callable[[int], int]:
    """A function that gives every number below `whole` once, in no order."""
    bits = max(2, whole.bit_length())
    mask, half = (1 << bits) - 1, bits // 2 + 1

    def shuffled(number: int) -> int:
        # Each step can be undone, so no two numbers meet; what falls outside goes on until it is inside.
        while True:
            number = (number * 0x9E3779B1 + 0x7F4A7C15) & mask
            number = (number ^ number >> half) * 0x85EBCA6B & mask
            number ^= number >> half
            if number < whole:
                return number

    return shuffled
