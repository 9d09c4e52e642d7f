"""The items a simulated STAC API has, each a pure function of (seed, collection, rank), and what changed since.

Nothing is stored per item but its changes. The items of a collection are numbered by their time, which is found by
arithmetic: the items of a window of time are found by halving, however many there are.
"""

from __future__ import annotations

import json
import re
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from fetcher.simulator.stac import times
from fetcher.simulator.stac.changed import Changes
from fetcher.simulator.stac.items import BASE, Facts, draw_facts, draw_of, item_json, spot_of
from fetcher.simulator.world import mix

FIRST = times.read("2015-01-01T00:00:00Z")
"""No item of a new world is older."""
END = times.read("2026-01-01T00:00:00Z")
"""All items of a new world are older."""

Key = tuple[str, str]
"""The collection and the id of an item."""
Place = tuple[int, int, int]
"""Where an item stands in the order by time: its moment, the index of its collection, its rank."""

_BLOCK = 4  # ranks that may share one moment
_NAMES = ("sentinel", "landsat", "aerial", "terrain", "radar")
_ID = re.compile(r"SIM_(\d{7,12})_([0-9A-F]{4})", re.ASCII)


class StacWorld:
    """`items` STAC items in some collections, the same for the same seed, from 2015 to 2025.

    Some have fractions of a second, some share their second with others, some lie on the boundary of a day, an hour or
    a minute, some have start and end in place of a datetime, some no geometry; an id may be in several collections.
    Every method may be called from any thread.
    """

    def __init__(self, seed: int = 0, items: int = 3000, collections: int = 2) -> None:
        if items < 0 or collections < 1:
            raise ValueError(f"items must not be negative and collections not fewer than one: {items}, {collections}")
        self.seed = seed
        self.items = items
        self.collections = tuple(f"{_NAMES[at % len(_NAMES)]}-{at // len(_NAMES) + 1}" for at in range(collections))
        self.changes = Changes()
        self._index = {name: at for at, name in enumerate(self.collections)}
        self._sizes = [items // collections + (at < items % collections) for at in range(collections)]
        self._next = list(self._sizes)
        self._salt = mix(seed & (1 << 64) - 1)
        self._salts = [mix(self._salt ^ at << 48) for at in range(collections)]
        self._lock = threading.Lock()
        # The pages of a walk ask for the same ends again and again.
        self._bisected = lru_cache(maxsize=1024)(self._bisect)
        self._drawn = 0

    # What there is

    def index(self, collection: str) -> int | None:
        """Which collection has that name."""
        return self._index.get(collection)

    def size(self, at: int) -> int:
        """How many items a collection had when the world was made."""
        return self._sizes[at]

    def moment(self, at: int, rank: int) -> int:
        """The datetime of an item, or its start when that is null; grows with the rank of those not added later."""
        size = self._sizes[at]
        if rank >= size:
            return self.changes.moments[at, rank]
        salt = self._salts[at]
        block = rank - rank % _BLOCK
        # Cheaper than `mix`, for this is asked more often than anything else.
        if rank != block and not (block * 0x9E3779B1 + salt) >> 13 & 15:
            rank = block
        low, high = FIRST + rank * _SPAN // size, FIRST + (rank + 1) * _SPAN // size
        draw = mix(salt ^ rank << 1 | 1)
        kind = draw & 15
        if kind < 3:
            for unit in (times.DAY, times.HOUR, times.MINUTE, times.SECOND):
                boundary = -(-low // unit) * unit
                if boundary < high:
                    return boundary
        moment = low + (draw >> 8) % (high - low)
        rounded = moment - moment % (times.SECOND if kind < 12 else 1000 if kind < 14 else 1)
        return rounded if rounded >= low else moment

    def id(self, at: int, rank: int) -> str:
        """The id of an item: every sixteenth has the same in all collections."""
        return _id(rank, draw_of(self._salts[at] if rank % 16 else self._salt, rank))

    def rank(self, at: int, id: str) -> int | None:
        """The rank of an item that is or was there, None when there never was one."""
        found = _ID.fullmatch(id)
        if not found:
            return None
        rank = int(found[1])
        known = rank < self._sizes[at] or (at, rank) in self.changes.moments
        return rank if known and self.id(at, rank) == id else None

    def spot(self, at: int, rank: int) -> int:
        """Where on earth an item is."""
        return spot_of(draw_of(self._salts[at], rank))

    def facts(self, at: int, rank: int, moment: int | None = None) -> Facts | None:
        """What an item is, None when it was removed; `moment` is its own, where it is known."""
        changes = self.changes
        if (at, rank) in changes.removed:
            return None
        draw = draw_of(self._salts[at], rank)
        version, updated = changes.updated.get((at, rank), (0, None))
        return draw_facts(
            self.collections[at],
            _id(rank, draw) if rank % 16 else self.id(at, rank),
            rank,
            draw,
            self.moment(at, rank) if moment is None else moment,
            version,
            updated,
        )

    def find(self, collection: str, id: str) -> Facts | None:
        """An item by its collection and id; None when there is none."""
        at = self._index.get(collection)
        rank = None if at is None else self.rank(at, id)
        return None if at is None or rank is None else self.facts(at, rank)

    def places(self, at: int) -> Iterable[Place]:
        """Every item of a collection, the oldest first of those it was made with, then what was added."""
        removed = self.changes.removed
        for rank in range(self._sizes[at]):
            if (at, rank) not in removed:
                yield self.moment(at, rank), at, rank
        for moment, rank in self.changes.added.get(at, ()):
            if (at, rank) not in removed:
                yield moment, at, rank

    def all_keys(self) -> list[Key]:
        """Collection and id of every item there is."""
        return [(name, self.id(at, rank)) for at, name in enumerate(self.collections) for _, _, rank in self.places(at)]

    def item(self, collection: str, id: str, base: str = "http://localhost/stac") -> dict[str, Any]:
        """An item as the API gives it at that address. Raises KeyError when there is none."""
        facts = self.find(collection, id)
        if facts is None:
            raise KeyError((collection, id))
        item: dict[str, Any] = json.loads(item_json(facts).replace(BASE, base))
        return item

    def before(self, at: int, moment: int) -> int:
        """How many items a collection was made with that are older."""
        return self._bisected(at, moment, False)

    def until(self, at: int, moment: int) -> int:
        """How many items a collection was made with that are not newer."""
        return self._bisected(at, moment, True)

    def _bisect(self, at: int, moment: int, with_equals: bool) -> int:
        find = bisect_right if with_equals else bisect_left
        return find(range(self._sizes[at]), moment, key=partial(self.moment, at))

    # What happens to it

    def add(self, count: int = 1, *, datetime: str | None = None, collection: str | None = None) -> list[Key]:
        """New items, of now or of that RFC 3339 moment, in one collection or in all by turns."""
        moment = times.read(datetime) if datetime else time.time_ns() // 1_000_000 * 1000
        only = None if collection is None else self._index[collection]
        new = []
        with self._lock:
            changes = self.changes
            added = {at: list(ranks) for at, ranks in changes.added.items()}
            moments = dict(changes.moments)
            for number in range(count):
                at = only if only is not None else (len(changes.moments) + number) % len(self.collections)
                rank, self._next[at] = self._next[at], self._next[at] + 1
                insort(added.setdefault(at, []), (moment, rank))
                moments[at, rank] = moment
                new.append((self.collections[at], self.id(at, rank)))
            self.changes = replace(changes, number=changes.number + 1, added=added, moments=moments)
        return new

    def update(self, what: int | Iterable[Key] = 1) -> list[Key]:
        """Change these items, or so many of those there are: `updated`, the cloud cover and the addresses of assets."""
        now = time.time_ns() // 1_000_000 * 1000
        with self._lock:
            places = self._chosen(what)
            changes = self.changes
            updated = dict(changes.updated)
            for place in places:
                updated[place] = updated.get(place, (0, 0))[0] + 1, now
            self.changes = replace(changes, number=changes.number + 1, updated=updated)
        return [(self.collections[at], self.id(at, rank)) for at, rank in places]

    def remove(self, what: int | Iterable[Key] = 1) -> list[Key]:
        """Take away these items, or so many of those there are."""
        with self._lock:
            places = self._chosen(what)
            changes = self.changes
            self.changes = replace(changes, number=changes.number + 1, removed=changes.removed | set(places))
        return [(self.collections[at], self.id(at, rank)) for at, rank in places]

    def restore(self, keys: Iterable[Key]) -> None:
        """Bring back what was removed."""
        with self._lock:
            places = {self._place(key) for key in keys}
            changes = self.changes
            self.changes = replace(changes, number=changes.number + 1, removed=changes.removed - places)

    def _chosen(self, what: int | Iterable[Key]) -> list[tuple[int, int]]:
        """Different items that are there. Raises KeyError for one that is not, ValueError for more than there are."""
        removed = self.changes.removed
        if not isinstance(what, int):
            places = [self._place(key) for key in what]
            for place in places:
                if place in removed:
                    raise KeyError((self.collections[place[0]], self.id(*place)))
            return places
        if what > sum(self._next) - len(removed):
            raise ValueError(f"there are not so many items: {what}")
        found: dict[tuple[int, int], None] = {}
        while len(found) < what:
            self._drawn += 1
            draw = mix(self._salt ^ self._drawn << 16)
            number = draw % sum(self._next)
            at = 0
            while number >= self._next[at]:
                number -= self._next[at]
                at += 1
            if (at, number) not in removed:
                found[at, number] = None
        return list(found)

    def _place(self, key: Key) -> tuple[int, int]:
        at = self._index.get(key[0])
        rank = None if at is None else self.rank(at, key[1])
        if at is None or rank is None:
            raise KeyError(key)
        return at, rank


def _id(rank: int, draw: int) -> str:
    return f"SIM_{rank:07}_{draw >> 32 & 0xFFFF:04X}"


_SPAN = END - FIRST
