"""The pages of a search: where they begin and end, and what quirks do to that."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from fetcher.simulator.stac.dialect import Dialect
from fetcher.simulator.stac.items import Facts
from fetcher.simulator.stac.links import Links
from fetcher.simulator.stac.query import Query
from fetcher.simulator.stac.search import Cursor, Finder, Mark
from fetcher.simulator.stac.world import StacWorld

_KEPT = 4096


class Pages:
    """Cuts what a search finds into pages; `key` stands for the search wherever something is kept."""

    def __init__(self, world: StacWorld, dialect: Dialect, links: Links) -> None:
        self._world = world
        self._links = links
        self._quirks = dialect.quirks
        self.finder = Finder(world, ordered="unordered" not in dialect.quirks)
        self._bookmarks: OrderedDict[tuple[int, int, int], Mark | None] = OrderedDict()
        self._shortened: set[int] = set()

    def page(self, query: Query, key: int, cursor: Cursor, limit: int) -> tuple[list[Facts], Cursor | None]:
        """The items of a page, and where the next one begins, None where there is none."""
        quirks = self._quirks
        walk = self.finder.walk(query, cursor.after)
        found = list(islice(walk, limit))
        if not found:
            return [], None
        last: Mark | None = found[-1][0]
        seen = cursor.seen + len(found)
        more = next(walk, None) is not None
        if more and "short-count" in quirks and cursor == Cursor() and key not in self._shortened:
            self._shortened.add(key)
            left_out = list(islice(self.finder.walk(query, last), limit))
            last, seen = left_out[-1][0], seen + len(left_out)
            more = next(self.finder.walk(query, last), None) is not None
        elif more and "repeated-record" in quirks:
            last, seen = (found[-2][0], seen - 1) if len(found) > 1 else (cursor.after, cursor.seen)
        if not more and "trailing-next" not in quirks and "repeated-page" not in quirks:
            return [facts for _, facts in found], None
        return [facts for _, facts in found], Cursor(last, seen)

    def cursor(self, query: Query, key: int, token: str | None) -> Cursor:
        """Where the page of a token begins. Raises ValueError."""
        if token is None:
            return Cursor()
        cursor = self._links.cursor(token)
        if not self._links.counts or not cursor.seen:
            return cursor
        place = (key, self._world.changes.number, cursor.seen)
        if place not in self._bookmarks:
            self._bookmarks[place] = self.finder.skip(query, cursor.seen)
        return Cursor(self._bookmarks[place], cursor.seen, cursor.hollow)

    def remember(self, key: int, cursor: Cursor) -> None:
        """So that who goes on by number need not be counted for again."""
        if self._links.counts:
            self._bookmarks[key, self._world.changes.number, cursor.seen] = cursor.after
            if len(self._bookmarks) > _KEPT:
                self._bookmarks.popitem(last=False)
