"""What a source is asked while it is measured: what a mirror would ask, nothing twice where there is enough."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fetcher.client import Client
from fetcher.coverage import plan_walks
from fetcher.errors import FetcherError, SourceError
from fetcher.model import Interval, Key, Page, Scope, Walk
from fetcher.sources import Source, of
from fetcher.words import said

MOST_PAGES = 5
"""So many list pages are asked for at most to learn of items."""


def call(source: Source, what: str, *args: Any) -> Any:
    """What a method of a source gives. Raises SourceError for an error that it does not raise on purpose."""
    try:
        return getattr(source, what)(*args)
    except FetcherError:
        raise
    except Exception as error:
        raise SourceError(
            f"the source {source.name} failed in {what}: {type(error).__name__}: {said(error)}"
        ) from error


def has_details(source: Source | type[Source]) -> bool:
    """Whether an item needs a request of its own."""
    return any(of(source, each) is not None for each in ("detail", "details"))


def first_walks(source: Source, universe: Interval | Mapping[Scope, Interval]) -> list[Walk]:
    """The listings that a mirror would begin with."""
    if isinstance(universe, Interval):
        return plan_walks(universe, dict.fromkeys(source.scopes, ()), "newest", head=True) if universe.size else []
    return [
        walk
        for scope, whole in universe.items()
        if whole.size
        for walk in plan_walks(whole, {scope: ()}, "newest", head=True)
    ]


class Questions:
    """The questions for one source, asked by several threads at once: details of known items, else list pages.

    Where there are fewer than are asked, they are asked again from the first; `repeated` counts those.
    """

    def __init__(self, source: Source, client: Client, walks: Sequence[Walk], keys: Sequence[Key] = ()) -> None:
        self._source = source
        self._client = client
        self._walks = list(walks)
        self._keys = list(keys)
        self._batch = of(source, "batch") if of(source, "details") is not None else 1
        self._asked = 0
        self._lock = threading.Lock()
        self.repeated = 0

    @property
    def known(self) -> int:
        """How many different questions there are."""
        if not has_details(self._source):
            return len(self._walks)
        return -(-len(self._keys) // self._batch)

    def learn(self, wanted: int, pause: Callable[[], bool]) -> None:
        """List until so many items are known, as a mirror lists: one page after the other, a `pause` between two.

        It ends early when `pause` says so. Raises RequestFailed.
        """
        walks, known = self._walks[:1], set(self._keys)
        for page in range(MOST_PAGES):
            if not walks or len(known) >= wanted or (page and pause()):
                break
            found = self._page(walks.pop())
            known.update(row[0] for row in found.rows)
            self._keys += [row[0] for row in found.rows if row[0] not in self._keys]
            walks = [found.next] if found.next is not None else list(found.more[:1])

    def ask(self) -> None:
        """Ask the next one. Raises RequestFailed."""
        with self._lock:
            number, known = self._asked, self.known
            self._asked += 1
            self.repeated += number >= known
            at = number % known
        if not has_details(self._source):
            page = self._page(self._walks[at])
            following = [page.next] if page.next is not None else []
            with self._lock:
                if number < known:
                    self._walks += [*following, *page.more]
        elif of(self._source, "details") is not None:
            keys = self._keys[at * self._batch : (at + 1) * self._batch]
            self._raise_failed(call(self._source, "details", self._client, keys))
        else:
            call(self._source, "detail", self._client, self._keys[at])

    def _page(self, walk: Walk) -> Page:
        page = call(self._source, "page", self._client, walk)
        if not isinstance(page, Page):
            raise SourceError(f"the source {self._source.name} gave {said(repr(page)):.60} for page, not a Page")
        return page

    @staticmethod
    def _raise_failed(found: Any) -> None:
        """Where all of a batch failed, so did its request."""
        failed = [each for each in found.values() if isinstance(each, FetcherError)] if found else []
        if failed and len(failed) == len(found):
            raise failed[0]
