"""STAC APIs: the items of each collection by windows of time, all of an item on its page.

After stac-api-spec v1.0.0, and what real servers were seen to do. A window is proven only when its walk has come to the
end, since the order within it is not promised; windows are walked side by side, and divided while they are too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from fetcher.client import Answer, Client
from fetcher.coverage import list_key
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Covered, Failure, Interval, Outcome, Page, Scope, Walk
from fetcher.settings import SourceOptions, option
from fetcher.sources.stac import items
from fetcher.sources.stac.api import Api, Method, explore
from fetcher.sources.stac.items import Listed
from fetcher.sources.stac.paging import Request, next_of, send
from fetcher.sources.stac.search import Search
from fetcher.sources.stac.tables import ITEMS, TABLES, VIEWS
from fetcher.sources.stac.times import FIRST, LAST, asked, text_of

SETTLED_SECONDS = 86_400
"""Items younger than this may still be joined by others of their time: it is listed again by the next run."""

MOST_PAGES = 10
"""A window of more pages is divided."""

MOST_WINDOWS = 1000
"""So many windows are made at once."""

OVERLAP_SECONDS = 600
"""So long before a walk began, what was changed since is asked for: clocks differ, and what is changed shows late."""

ROUND = 10
"""A page of so many items, or some times as many, may be a full one."""

MOST_IDLE = 50
"""So many pages, one after the other, that bring nothing new, and the walk is going in circles."""

MOST_DOUBTS = 3
"""So many windows that came out the same twice against the API's count, and its counts are only estimates."""

FLAWED_TRIES = 3
"""So often a page with items that cannot be used is asked for again, before that is taken for the truth."""

_REMEMBERED = 64
_NO_SUCH_WAY = {404, 405, 501}
_NOT_TAKEN = {400, 422}
_TOO_LARGE = {500, 413}


@dataclass(frozen=True, slots=True)
class _At:
    """Where a walk over a window is.

    `request` asks for its next page, None for the first; `limit` is the size of the pages that it asks for, `size` that
    of the largest that came. `count` is how many items came, `keys` are the last of them, `pages` the digests of the
    last pages and `asked` the last requests, `idle` how many pages have brought nothing new. `span` is from the lowest
    to the highest second of what came. `began` is when it began (Unix seconds).

    `depth` counts how often the window was divided, `tries` how often it was walked before; `cap` is how many items
    came where more may have been left out, 0 = never. With `sharp` what comes with the next second is not
    repeated, since that is much. `since` is when what it lists was changed at the earliest. `flawed` counts how often
    the page was asked for again because of items that could not be used.
    """

    began: float | None = None
    request: Request | None = None
    limit: int = 0
    size: int = 0
    count: int = 0
    keys: frozenset[str] = frozenset()
    pages: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    idle: int = 0
    span: Interval | None = None
    depth: int = 0
    tries: int = 0
    cap: int = 0
    sharp: bool = False
    since: float | None = None
    flawed: int = 0


class Stac:
    """A STAC API: all of its collections, or some, or what a search finds in them."""

    name = "stac"
    base_url = ""
    walks_setting = "stac_windows"
    tables = TABLES
    views = VIEWS
    transaction = 1000

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
        self._doubts = 0

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
                at=_At(since=each.walked_at - OVERLAP_SECONDS),
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
        at = walk.at or _At()
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
            again = replace(walk.at or _At(), flawed=at.flawed + 1)
            return Page((), walk.scopes, None, walk.after(at=again))
        following = next_of(page.links, request)
        at = replace(at, limit=limit)
        return self._judged(walk, at, page, request, following, self._others(api, at, collection))

    def _try_search(self, client: Client, api: Api) -> None:
        """Ask for one item: a search that the API does not take is no part of what a mirror is to cover."""
        for name in list(api.collections)[:1]:
            walk = Walk(self._asked.seconds, (self._search.scope(name),), head=True)
            self._ask(client, api, walk, _At(limit=1), name)

    # --- asking -----------------------------------------------------------------------------------

    def _ask(self, client: Client, api: Api, walk: Walk, at: _At, collection: str) -> tuple[Request, Answer, int]:
        """The answer to the next request of a walk, the request, and the size of the pages that it asks for."""
        if at.request is not None:
            return self._send(client, at.request, at.limit)
        window = self._window(walk)
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

    def _others(self, api: Api, at: _At, collection: str) -> dict[str, list[tuple[Any, ...]]]:
        if at.depth or at.asked or at.since is not None:
            return {}
        return {"collections": [items.collection_row(api.collections[collection].json)]}

    # --- what a page means --------------------------------------------------------------------------

    def _judged(
        self, walk: Walk, at: _At, page: Listed, request: Request, following: Request | None, others: Any
    ) -> Page:
        """The page, and how its walk goes on: to the next one, in parts, from the start, or not at all."""
        new = set(page.keys) - at.keys
        came = len(page.keys)
        asked_before = (*at.asked, request.identity)
        digest = hash(tuple(page.keys))
        is_first = not at.asked
        trouble = None
        if following is not None:
            idle = 0 if new else at.idle + 1
            if page.keys and digest in at.pages:
                trouble = "the same page came twice"
            elif following.identity in asked_before:
                trouble = "a next link leads back"
            elif idle > MOST_IDLE:
                trouble = f"{MOST_IDLE} pages brought nothing new"
            at = replace(at, idle=idle)
        at = replace(
            at,
            count=at.count + len(new),
            span=_span(at.span, page.rows),
            pages=(*at.pages, digest)[-_REMEMBERED:],
            asked=asked_before[-_REMEMBERED:],
        )
        made = _Made(walk, at, page, others)
        if following is None or trouble is not None:
            return self._at_end(made, trouble, is_first)
        size = max(at.size, came, 1)
        if at.since is None:
            parts = self._parts(page.matched, size, at.depth) if is_first else 0
            pages = -(-at.count // size)
            late = pages >= MOST_PAGES and (page.matched is None or at.count >= page.matched)
            if parts < 2 and (late or pages >= 2 * MOST_PAGES):
                parts = 2
            divided = self._divided(walk, at, parts, page.matched) if parts > 1 else ()
            if divided:
                return made.page(divided)
        left = None if page.matched is None else max(0, page.matched - at.count)
        keys = at.keys | new if len(at.keys) < 2 * MOST_PAGES * size else frozenset(page.keys)
        further = replace(at, request=following, size=size, keys=keys, flawed=0)
        return made.page((walk.after(at=further, items=left, label=self._label(walk)),))

    def _at_end(self, made: _Made, trouble: str | None, is_first: bool) -> Page:
        """The end of a walk, or what seems to be: it is proven when nothing speaks against it.

        Where the last page may be a full one, and nothing says that this was all, more may have been left out: the
        window is divided, till its parts hold fewer items than came here.
        """
        walk, at, matched = made.walk, made.at, made.listed.matched
        came = len(made.listed.keys)
        if matched is not None and at.count > matched:
            matched = None  # More came than it counts: it does not count, it guesses.
        is_short = matched is not None and at.count < matched
        if matched == at.count or not self._may_be_full(came, at, is_first, is_short, trouble):
            if not is_short or at.since is not None or self._doubts >= MOST_DOUBTS:
                return made.page((), proven=walk.hole)
            if at.tries == 0:
                again = _At(depth=at.depth, tries=1, cap=at.cap, sharp=at.sharp)
                return made.page((walk.after(at=again, items=matched, label=self._label(walk)),))
            self._doubts += 1
            note = f"{self._label(walk)}: {at.count:,} items came, twice; the API says there are {matched:,}"
            return made.page((), proven=walk.hole, note=note)
        said = trouble or "a full page without a next link"
        divided = self._divided(walk, at, 2, matched, cap=max(came, at.size)) if at.since is None else ()
        if divided:
            return made.page(divided, note=f"{self._label(walk)}: {said}; divided")
        probe = _probe(at.count, at.limit) if at.tries == 0 and trouble is None else None
        if probe is not None:
            # If next links work, pages of this size end with one that is not full.
            again = _At(limit=probe, depth=at.depth, tries=1, cap=at.cap, sharp=at.sharp, since=at.since)
            return made.page((walk.after(at=again, items=matched, label=self._label(walk)),))
        there = f", {matched:,} are there" if is_short else ", and nothing says whether there are more"
        message = f"{self._label(walk)}: {said} after {at.count:,} items{there}"
        key = list_key(walk.scopes, walk.hole.lo)
        return made.page((), failure=Failure("list", key, Outcome.MALFORMED, message))

    def _may_be_full(self, came: int, at: _At, is_first: bool, is_short: bool, trouble: str | None) -> bool:
        """Whether the last page of a walk may hold as many items as the server gives at most."""
        if trouble is not None:
            came = max(came, at.size)
        if came >= at.limit:
            return True
        if not is_first and trouble is None:
            # Next links have led here: only a page as large as those before looks cut off.
            return came >= at.size
        if at.cap:
            return came >= at.cap
        return came > 0 and (is_short or came % ROUND == 0)

    def _parts(self, matched: int | None, size: int, depth: int) -> int:
        """Into how many parts a window of so many items is divided; 0 and 1: it is not."""
        if matched is None or self._search.ids:
            return 0
        windows = self.walks
        pages = -(-matched // size)
        parts = -(-pages // MOST_PAGES)
        if not depth:
            parts = max(parts, min(windows, pages))
        if parts > windows:
            parts = -(-parts // windows) * windows
        return min(parts, MOST_WINDOWS)

    def _divided(self, walk: Walk, at: _At, parts: int, matched: int | None, *, cap: int = 0) -> tuple[Walk, ...]:
        """The parts of a window, in the order in which they are to be walked; none when it cannot be divided."""
        assert self._api is not None
        hole = walk.hole
        extent = self._api.collections[self._search.collection(walk.scopes[0])].extent
        lo, hi = max(hole.lo, extent.lo), min(hole.hi, extent.hi)
        if hi - lo < 1:
            lo, hi = hole.lo, hole.hi
        # The last second of the hole may be joined by all that is to come.
        size = hi - lo + 1
        parts = min(parts, size)
        if parts < 2:
            return ()
        places = {lo + size * number // parts for number in range(1, parts)}
        sharp = {hole.hi} if at.sharp else set()
        if at.span is not None and at.span.size == 1 and at.count >= ROUND:
            sharp.add(at.span.lo - 1)
            # What comes in plenty at one second gets a window of its own, instead of being halved for to no end.
            places |= {at.span.lo, at.span.lo + 1}
        cuts = sorted(cut for cut in places if hole.lo < cut <= hole.hi)
        begins, ends = [hole.lo, *cuts], [*(cut - 1 for cut in cuts), hole.hi]
        made = []
        for begin, end in zip(begins, ends, strict=True):
            part = replace(
                walk,
                hole=Interval(begin, end),
                head=walk.head and end == hole.hi,
                at=_At(depth=at.depth + 1, cap=cap, sharp=end in sharp),
                items=None if matched is None else matched // parts,
                started=True,
            )
            made.append(replace(part, label=self._label(part)))
        return tuple(made if walk.order == "oldest" else reversed(made)) if len(made) > 1 else ()

    def _window(self, walk: Walk) -> str | None:
        sharp = walk.at is not None and walk.at.sharp
        return self._asked.window(walk.hole.lo, walk.hole.hi, head=walk.head, sharp=sharp)

    def _label(self, walk: Walk) -> str:
        if walk.at is not None and walk.at.since is not None:
            return walk.label
        window = self._window(walk)
        return f"{self._search.collection(walk.scopes[0])} {window or 'of all times'}"


@dataclass(frozen=True, slots=True)
class _Made:
    """What is known of a page before it is known how its walk goes on."""

    walk: Walk
    at: _At
    listed: Listed
    others: Mapping[str, Any]

    def page(
        self,
        walks: Sequence[Walk],
        *,
        proven: Interval | None = None,
        note: str | None = None,
        failure: Failure | None = None,
    ) -> Page:
        began = self.at.began
        if proven is not None and began is not None:
            settled = Interval(proven.lo, min(proven.hi, max(proven.lo - 1, int(began) - SETTLED_SECONDS)))
            proven = settled if settled.size and self.walk.hole.lo <= LAST else None
        return Page(
            rows=tuple(self.listed.rows),
            scopes=self.walk.scopes,
            proven=proven,
            next=walks[0] if walks else None,
            more=tuple(walks[1:]),
            notes=() if note is None else (note,),
            failures=(*self.listed.failures, *(() if failure is None else (failure,))),
            details=self.listed.details,
            others=self.others,
            began=began,
            # A filter, or what was changed alone, says nothing of what it does not list.
            whole=self.at.since is None and " {" not in str(self.walk.scopes[0]),
        )


def _span(before: Interval | None, rows: Sequence[Any]) -> Interval | None:
    """From the lowest to the highest second of what came before and of these rows."""
    times = [row[TIME] for row in rows if row[TIME] is not None]
    if before is not None:
        times += [before.lo, before.hi]
    return Interval(min(times), max(times)) if times else None


def _probe(count: int, limit: int) -> int | None:
    """The size of pages of which so many items do not fill the last; None when there is none."""
    return next((size for size in range(min(count, limit) - 1, 1, -1) if count % size), None)


TIME = [column.name for column in ITEMS.columns].index("time")
