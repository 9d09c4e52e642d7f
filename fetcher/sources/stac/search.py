"""What is searched for in each collection, as a scope of coverage and as requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from fetcher.errors import ConfigurationError
from fetcher.sources.stac.api import Api, Method
from fetcher.sources.stac.paging import Request
from fetcher.sources.stac.times import text_of


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for besides collection and time; true when there is anything."""

    bbox: tuple[float, ...] = ()
    ids: tuple[str, ...] = ()
    filter: Any = None

    @classmethod
    def of(cls, bbox: Sequence[float], ids: Sequence[str], filter: str | None) -> Search:
        """From settings; a filter that begins with `{` is CQL2 JSON. Raises ConfigurationError."""
        condition: Any = filter
        if filter is not None and filter.lstrip().startswith("{"):
            try:
                condition = json.loads(filter)
            except ValueError as error:
                raise ConfigurationError(f"--filter: no valid JSON ({error})") from None
        return cls(tuple(map(float, bbox)), tuple(sorted(ids)), condition)

    def __bool__(self) -> bool:
        return bool(self.bbox or self.ids or self.filter)

    def scope(self, collection: str) -> str:
        """The scope of a collection: the same for the same search, however it is written."""
        if not self:
            return collection
        facts = {"bbox": list(self.bbox), "filter": self.filter, "ids": list(self.ids)}
        given = {name: value for name, value in facts.items() if value}
        return f"{collection} {json.dumps(given, sort_keys=True, separators=(',', ':'))}"

    def collection(self, scope: object) -> str:
        """The collection of a scope."""
        return str(scope).partition(" {")[0]

    def request(
        self,
        base_url: str,
        api: Api,
        method: Method,
        collection: str,
        window: str | None,
        limit: int,
        since: float | None,
    ) -> Request:
        """The request for the first page; `since` asks for what was updated at that time (Unix seconds) or later."""
        asked: dict[str, Any] = {"limit": limit}
        if method != "items":
            asked["collections"] = [collection]
        if window is not None:
            asked["datetime"] = window
        if self.bbox:
            asked["bbox"] = list(self.bbox)
        if self.ids:
            asked["ids"] = list(self.ids)
        condition = self.filter
        if since is not None and api.filters:
            condition = _updated(condition, text_of(int(since)))
        elif since is not None:
            asked["query"] = {"updated": {"gte": text_of(int(since))}}
        if condition is not None:
            asked["filter"] = condition
            asked["filter-lang"] = "cql2-text" if isinstance(condition, str) else "cql2-json"
        if method == "post":
            return Request(api.search, asked)
        url = api.search if method == "get" else f"{base_url}/collections/{quote(collection, safe='')}/items"
        return Request(f"{url}{'&' if '?' in url else '?'}{urlencode({k: _text(v) for k, v in asked.items()})}")


def _updated(condition: Any, since: str) -> Any:
    """A condition, if there is one, and that an item was updated since."""
    if isinstance(condition, str):
        return f"({condition}) AND updated >= TIMESTAMP('{since}')"
    updated = {"op": ">=", "args": [{"property": "updated"}, {"timestamp": since}]}
    return updated if condition is None else {"op": "and", "args": [condition, updated]}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(f"{each:.17g}" if isinstance(each, float) else str(each) for each in value)
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else str(value)
