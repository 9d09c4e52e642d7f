"""What a STAC API offers: its collections, its ways to search, and what it can filter by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from fetcher.client import Client
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Interval, Outcome
from fetcher.rows import malformed
from fetcher.sources.stac.paging import Request, next_of
from fetcher.sources.stac.times import FIRST, LAST, seconds

Method = Literal["post", "get", "items"]
"""How items are asked for: a search by POST or by GET, or the items of one collection."""

MOST_PAGES_OF_COLLECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection as the API describes it, and the seconds that its items are said to lie in."""

    id: str
    json: Mapping[str, Any]
    extent: Interval


@dataclass(frozen=True, slots=True)
class Api:
    """What was found out: the collections by id, where to search, the ways that work (best first), the filters."""

    collections: Mapping[str, Collection]
    search: str
    methods: tuple[Method, ...]
    filters: bool
    queries: bool


def explore(client: Client, wanted: Sequence[str], method: Method | None) -> Api:
    """Ask the landing page, and for the collections: those `wanted`, or all.

    Raises RequestFailed, and ConfigurationError when a wanted one is not there.
    """
    landing = client.ask(client.base_url).data
    if not isinstance(landing, dict):
        raise malformed("a landing page that is no object")
    links = [link for link in _list(landing.get("links")) if type(link) is dict and type(link.get("href")) is str]
    conforms = " ".join(each for each in _list(landing.get("conformsTo")) if type(each) is str)
    search = [link for link in links if link.get("rel") == "search"]
    methods: list[Method] = []
    if any(str(link.get("method", "")).upper() == "POST" for link in search):
        methods.append("post")
    if search or "item-search" in conforms:
        methods.append("get")
        if "post" not in methods and not any(link.get("method") for link in search):
            # Most that search at all take both, and do not say so.
            methods.insert(0, "post")
    methods.append("items")
    data = next((str(link["href"]) for link in links if link.get("rel") == "data"), f"{client.base_url}/collections")
    return Api(
        _named(client, wanted) if wanted else _all(client, data),
        str(search[0]["href"]) if search else f"{client.base_url}/search",
        tuple(methods) if method is None else (method,),
        filters="item-search#filter" in conforms or "features-filter" in conforms or "/conf/filter" in conforms,
        queries="item-search#query" in conforms,
    )


def _named(client: Client, wanted: Sequence[str]) -> dict[str, Collection]:
    found = {}
    for name in wanted:
        try:
            found[name] = _collection(client.ask(f"{client.base_url}/collections/{quote(name, safe='')}").data)
        except RequestFailed as error:
            if error.outcome is Outcome.GONE:
                raise ConfigurationError(f"--collection: {client.base_url} has none called {name!r}") from None
            raise
        if found[name].id != name:
            raise malformed(f"the collection {found[name].id!r:.60} where {name!r} was asked for")
    return found


def _all(client: Client, url: str) -> dict[str, Collection]:
    found: dict[str, Collection] = {}
    request: Request | None = Request(url)
    asked: set[int] = set()
    while request is not None and request.identity not in asked and len(asked) < MOST_PAGES_OF_COLLECTIONS:
        asked.add(request.identity)
        data = client.ask(request.url, headers=request.headers).data
        if not isinstance(data, dict) or type(data.get("collections")) is not list:
            raise malformed("no list of collections")
        for each in data["collections"]:
            collection = _collection(each)
            found.setdefault(collection.id, collection)
        request = next_of(_list(data.get("links")), request)
    return found


def _collection(data: Any) -> Collection:
    if type(data) is not dict or type(data.get("id")) is not str or not data["id"] or " {" in data["id"]:
        raise malformed("a collection without a usable id")
    return Collection(data["id"], data, _extent(data))


def _extent(data: Mapping[str, Any]) -> Interval:
    """From the lowest to the highest second that the temporal extent names; all times where it names none."""
    try:
        (first, last) = data["extent"]["temporal"]["interval"][0]
    except (KeyError, TypeError, ValueError, IndexError):
        first = last = None
    lo, hi = seconds(first), seconds(last)
    return Interval(FIRST if lo is None else lo, LAST if hi is None else hi)


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else []
