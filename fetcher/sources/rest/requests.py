"""What is asked of a described API: pages of its list, its highest id, and single items."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.client import Answer, Client
from fetcher.model import Key
from fetcher.rows import Unusable, integer
from fetcher.sources.rest import paging
from fetcher.sources.rest.description import Description, at
from fetcher.sources.rest.paging import At

FIRST = At(0.0)
"""The first page of a list."""


class Requests:
    """The requests of one API, with values for its variables; safe to share between threads."""

    def __init__(self, description: Description, values: Mapping[str, str]) -> None:
        self._description = description
        self._values = values

    def address(self, client: Client, where: At) -> str:
        """Where the page of a walk is."""
        return paging.asked(client.base_url, self._description, where, self._values)

    def page(self, client: Client, where: At = FIRST) -> Answer:
        """A page of the list. Raises RequestFailed."""
        return client.ask(self.address(client, where))

    def newest(self, client: Client) -> int:
        """The highest id there is. Raises RequestFailed."""
        listing = self._description.list
        answer = client.ask(paging.address(client.base_url, listing.newest or "", {}, self._values))
        try:
            return integer(at(answer.data, listing.newest_at))
        except Unusable:
            raise answer.malformed(f"list.newest: no number at {listing.newest_at!r}") from None

    def item(self, client: Client, key: Key) -> Answer:
        """An item's own request. Raises RequestFailed."""
        detail = self._description.detail
        assert detail is not None
        return client.ask(paging.address(client.base_url, detail.url, detail.params, {**self._values, "key": str(key)}))
