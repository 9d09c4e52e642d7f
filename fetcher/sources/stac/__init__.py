"""STAC APIs: the items of each collection by windows of time, all of an item on its page.

After stac-api-spec v1.0.0, and what real servers were seen to do. A window is proven only when its walk has come to the
end, since the order within it is not promised; windows are walked side by side, and divided while they are too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from fetcher.client import Answer, Client
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Covered, Interval, Outcome, Page, Scope, Walk
from fetcher.settings import SourceOptions, option
from fetcher.sources.stac import items
from fetcher.sources.stac.api import Api, Method, explore
from fetcher.sources.stac.paging import Request, next_of, send
from fetcher.sources.stac.search import Search
from fetcher.sources.stac.tables import TABLES, VIEWS
from fetcher.sources.stac.times import FIRST, asked, text_of
from fetcher.sources.stac.windows import ROUND, SETTLED_SECONDS, At, Windows

OVERLAP_SECONDS = 600
"""So long before a walk began, what was changed since is asked for: clocks differ, and what is changed shows late."""

FLAWED_TRIES = 3
"""So often a page with items that cannot be used is asked for again, before that is taken for the truth."""

_NO_SUCH_WAY = {404, 405, 501}
_NOT_TAKEN = {400, 422}
_TOO_LARGE = {500, 413}


class Stac:
    """A STAC API: all of its collections, or some, or what a search finds in them."""

    name = "stac"
    base_url = ""
    walks_setting = "stac_windows"
    tables = TABLES
    views = VIEWS
    # While one is written no page is sent for: small ones hold the windows up less.
    transaction = 100

    class Options(SourceOptions):
        """What can be asked of a STAC API."""

        stac_collections: Annotated[tuple[str, ...], NoDecode] = option(
            (), "--collection", "collections to mirror, by id; all when none is named"
        )
        stac_datetime: str | None = option(
            None, "--datetime", "only items of this time or interval: 2020-01-01/2020-12-31, 2024/.."
        )
        stac_bbox: Annotated[tuple[float, ...], NoDecode] = option(
            (), "--bbox", "only items that touch this box: west,south,east,north"
        )
        stac_filter: str | None = option(None, "--filter", "only items for which this holds: CQL2, as text or as JSON")
        stac_ids: Annotated[tuple[str, ...], NoDecode] = option((), "--ids", "only the items with these ids")
        stac_windows: int = option(4, "--windows", "windows of time that are walked at once", ge=1, le=100)
        stac_page_size: int = option(100, "--page-size", "items to ask for on a page", ge=1, le=10_000)
        stac_method: Literal["post", "get", "items"] | None = option(
            None, "--method", "how to ask: search by post or get, or items of each collection; default: what works"
        )
        stac_token: SecretStr | None = Field(None, description="sent as `Authorization: Bearer`, secret")

        @field_validator("stac_collections", "stac_ids", "stac_bbox", mode="before")
        @classmethod
        def _divided(cls, value: object) -> object:
            """One text with commas, or several."""
            texts = [value] if isinstance(value, str) else value
            if not isinstance(texts, list | tuple):
                return value
            parts = [part.strip() for each in texts for part in (each.split(",") if isinstance(each, str) else [each])]
            return tuple(part for part in parts if part != "")

        @field_validator("stac_collections", "stac_ids", mode="after")
        @classmethod
        def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(value))

        @field_validator("stac_bbox", mode="after")
        @classmethod
        def _box(cls, value: tuple[float, ...]) -> tuple[float, ...]:
            if len(value) not in (0, 4, 6):
                raise ValueError("must be west,south,east,north")
            return value

    def __init__(self, options: Options) -> None:
        self._options = options
        self._asked = asked(options.stac_datetime)
        self._search = Search.of(options.stac_bbox, options.stac_ids, options.stac_filter)
        self._api: Api | None = None
        self._method: Method | None = options.stac_method
        self._failed: set[int] = set()
        self._limit = options.stac_page_size
        self._windows = Windows(self._asked, self._search, options.stac_windows)

    @property
    def walks(self) -> int:
        """How many windows are walked at once."""
        return self._options.stac_windows

    @property
    def page_size(self) -> int:
        """How many items a page holds at most, if the server allows."""
        return self._options.stac_page_size

    @property
    def headers(self) -> Mapping[str, SecretStr]:
        """The token, as the API wants it."""
        token = self._options.stac_token
        return {} if token is None else {"Authorization": SecretStr(f"Bearer {token.get_secret_value()}")}

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """One for each collection, with what is asked for in it."""
        names = self._api.collections if self._api is not None else self._options.stac_collections
        return tuple(self._search.scope(name) for name in names)

    @staticmethod
    def position_text(position: int) -> str:
        """Positions are Unix seconds."""
        return "the beginning" if position <= FIRST else text_of(position)

    @staticmethod
    def judge(status: int, data: Any) -> Outcome | tuple[Outcome, float] | None:
        """Throttling as servers tell it in the body: how long to wait, or a bare "Forbidden"."""
        message = data.get("message") if isinstance(data, dict) else None
        if status == 429 and isinstance(message, str):
            seconds = next((int(word) for word in message.split() if word.isdigit() and len(word) < 6), None)
            return Outcome.LIMITED if seconds is None else (Outcome.LIMITED, float(seconds))
        if status == 403 and message == "Forbidden":
            return Outcome.UNAVAILABLE
        return None

    def universe(self, client: Client) -> Mapping[Scope, Interval]:
        """All seconds that are asked for, of each collection, but the last ones before now."""
        self._api = explore(client, self._options.stac_collections, self._options.stac_method)
        self._windows.extents = {name: each.extent for name, each in self._api.collections.items()}
        if self._search.ids and self._api.methods == ("items",):
            raise ConfigurationError(f"--ids: {client.base_url} has no item search")
        if self._search or self._options.stac_datetime:
            self._try_search(client, self._api)
        whole = self._asked.seconds
        settled = max(whole.lo, int(client.stop.time()) - SETTLED_SECONDS)
        return {scope: Interval(whole.lo, min(whole.hi, settled)) for scope in self.scopes}

    def changes(self, client: Client, covered: Mapping[Scope, Covered]) -> Sequence[Walk]:  # noqa: ARG002
        """One walk for each collection over what was updated since, where the API can filter by that."""
        assert self._api is not None
        if not (self._api.filters or self._api.queries):
            return ()
        return [
            Walk(
                Interval(each.lo, each.hi),
                (scope,),
                at=At(since=each.walked_at - OVERLAP_SECONDS),
                items=0,
                label=f"{scope}, updated since {text_of(each.walked_at)}",
            )
            for scope, each in covered.items()
        ]

    def skip(self, walk: Walk) -> tuple[Interval, Walk | None]:
        """What comes behind a page is known to the page alone: all of the window is left out."""
        return walk.hole, None

    def page(self, client: Client, walk: Walk) -> Page:
        """One page of a window; the last one proves it."""
        if self._api is None:
            self.universe(client)
        api = self._api
        assert api is not None
        at: At = walk.at or At()
        if at.began is None:
            at = replace(at, began=client.stop.time(), limit=at.limit or self._limit)
        collection = self._search.collection(walk.scopes[0])
        is_refresh = at.since is not None and not at.asked
        if is_refresh and not self._tells_updates(client, api, collection):
            return Page((), walk.scopes, None, None)
        try:
            request, answer, limit = self._ask(client, api, walk, at, collection)
        except RequestFailed as error:
            if is_refresh and error.status in _NOT_TAKEN:
                # It says that it can filter, and cannot by this: only `--full` finds what was changed.
                note = f"{collection}: the API does not tell what was updated ({error})"
                return Page((), walk.scopes, None, None, (note,))
            raise
        if answer.parsed is not None:
            page = items.listed_usual(answer.parsed, collection, answer.body)
        else:
            page = items.listed(answer.data, collection, answer.body)
        if page.failures and at.flawed < FLAWED_TRIES:
            # It may be the answer that is flawed, and not the item.
            again = replace(walk.at or At(), flawed=at.flawed + 1)
            return Page((), walk.scopes, None, walk.after(at=again))
        following = next_of(page.links, request)
        at = replace(at, limit=limit)
        others = self._others(api, at, collection)
        return self._windows.judged(walk, at, page, request, following, others)

    def _try_search(self, client: Client, api: Api) -> None:
        """Ask for one item: a search that the API does not take is no part of what a mirror is to cover."""
        for name in list(api.collections)[:1]:
            walk = Walk(self._asked.seconds, (self._search.scope(name),), head=True)
            self._ask(client, api, walk, At(limit=1), name)

    # --- asking -----------------------------------------------------------------------------------

    def _ask(self, client: Client, api: Api, walk: Walk, at: At, collection: str) -> tuple[Request, Answer, int]:
        """The answer to the next request of a walk, the request, and the size of the pages that it asks for."""
        if at.request is not None:
            return self._send(client, at.request, at.limit)
        window = self._windows.window(walk)
        first: RequestFailed | None = None
        for method in sorted(api.methods, key=lambda method: method != self._method):
            request = self._search.request(client.base_url, api, method, collection, window, at.limit, at.since)
            again = request.identity in self._failed
            try:
                found = self._send(client, request, at.limit)
            except RequestFailed as error:
                if error.status in _NOT_TAKEN and at.since is None and (self._search or self._options.stac_datetime):
                    raise ConfigurationError(f"the API does not take the search: {error}") from None
                first = first or error
                # An error of the server may pass: only when it comes again another way is tried.
                if error.status not in _NO_SUCH_WAY and not (error.status == 500 and again):
                    break
            else:
                if first is None or first.status in _NO_SUCH_WAY:
                    self._method = method
                return found
        assert first is not None
        raise first

    def _send(self, client: Client, request: Request, limit: int) -> tuple[Request, Answer, int]:
        """Ask; where that fails a second time, as if the page were too large, ask for a smaller one."""
        try:
            return request, send(client, request, items.parse), limit
        except RequestFailed as error:
            identity = request.identity
            if error.status not in _TOO_LARGE or limit < 2 * ROUND or identity not in self._failed:
                self._failed.add(identity)
                raise
        limit = max(1, limit // 4)
        smaller = request.limited(limit)
        answer = send(client, smaller, items.parse)
        self._limit = min(self._limit, limit)
        return smaller, answer, limit

    def _tells_updates(self, client: Client, api: Api, collection: str) -> bool:
        """Whether the items of a collection say when they were updated: one is looked at."""
        method = self._method or api.methods[0]
        request = self._search.request(client.base_url, api, method, collection, None, 1, None)
        page = send(client, request, None).data
        features = page.get("features") if isinstance(page, dict) else None
        try:
            return features is not None and isinstance(features[0]["properties"]["updated"], str)
        except (KeyError, TypeError, IndexError):
            return False

    def _others(self, api: Api, at: At, collection: str) -> dict[str, list[tuple[Any, ...]]]:
        if at.depth or at.asked or at.since is not None:
            return {}
        return {"collections": [items.collection_row(api.collections[collection].json)]}
