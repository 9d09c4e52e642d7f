"""A described REST API as a source: what it lists, what a page of it proves, and how it asks."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal
from urllib.parse import quote, unquote

from pydantic import SecretStr

from fetcher.client import Answer, Client
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Covered, Detail, Gone, Interval, Key, Outcome, Page, Row, Scope, Start, Table, Walk
from fetcher.rows import Unusable, integer
from fetcher.settings import SourceOptions
from fetcher.sources.rest import paging
from fetcher.sources.rest.answers import Listed, Reader, meaning
from fetcher.sources.rest.changes import agreed
from fetcher.sources.rest.description import Description, at, filled
from fetcher.sources.rest.paging import At
from fetcher.sources.rest.tables import TIME, is_numbered, is_open, settled

IDS_A_PAGE = 1000
"""So many ids of a range are named at once: that costs no request."""

SAMPLES = 5
"""So many items are asked for where their columns are to be learned from them."""

OVERLAP_SECONDS = 600
"""So long before the last walk began, what was changed since is asked for: clocks differ, and changes show late."""

SETTLED_SECONDS = 600
"""Items that are younger may still be joined by others of their time: their time is listed again by the next run."""

_WHOLE = Interval(0, 0)
"""A list that is walked to its end is listed as a whole, or not at all."""

_NO_WAY_ON = {400, 404, 410, 422}
"""What an API answers to a token that it knows no more."""


class Rest:
    """A described API; the classes that `kind_of` makes say of which."""

    name: ClassVar[str]
    base_url: ClassVar[str | None]
    tables: ClassVar[tuple[Table, ...]]
    Options: ClassVar[type[SourceOptions]]
    settings: ClassVar[Mapping[str, Any]]
    caveat: ClassVar[str]
    described: ClassVar[Description]
    walks = 1

    def __init__(self, options: Any) -> None:
        description = self.described
        self._options = options
        self._values = {name: str(getattr(options, name)) for name in description.variables}
        for name, value in self._values.items():
            if not value:
                raise ConfigurationError(f"{self.name} needs {name.upper()} ({name}=…)")
        self.headers = self._headers()
        self.page_size = description.list.size or (IDS_A_PAGE if description.list.pages == "ids" else 100)
        self._numbered = is_numbered(description)
        self._timed = description.list.time
        self.lists_anew = not (self._numbered or self._timed or description.list.since)
        self._reader = Reader(description, self.tables)

    def _headers(self) -> dict[str, SecretStr]:
        """What is sent with every request; what a header holds may be secret."""
        found = {}
        for name, value in self.described.headers.items():
            if isinstance(value, str):
                found[name] = SecretStr(filled(value, self._values))
        for name, secret in self.described.secrets.items():
            given = getattr(self._options, secret.env.lower())
            if given is not None:
                found[name] = SecretStr(secret.prefix + given.get_secret_value())
            elif secret.required:
                raise ConfigurationError(f"{secret.env} is needed: {self.name} sends it as the header {name}")
        return found

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """One, named by the variables where there are any."""
        return (" ".join(f"{name}={quote(value, safe='/')}" for name, value in self._values.items()) or "all",)

    @classmethod
    def options_for(cls, scopes: Sequence[Scope]) -> dict[str, str]:
        """The variables with which a mirror of these scopes was made."""
        pairs = [part.partition("=") for scope in scopes for part in str(scope).split(" ")]
        return {name: unquote(value) for name, _, value in pairs if name in cls.described.variables}

    @classmethod
    def position_text(cls, position: int) -> str:
        """A key, or all of the list."""
        if cls.described.list.time is not None:
            return str(paging.moment(position, "iso"))
        return f"{position:,}" if is_numbered(cls.described) else "all"

    def start_text(self, start: Start) -> str | None:
        """What is listed, as a person is told."""
        if start.newest is None or start.oldest is None:
            return None
        if not (self._numbered or self._timed):
            return f"Listing all of {self.name}" if self.lists_anew or start.holes else None
        newest, oldest = self.position_text(start.newest), self.position_text(start.oldest)
        return f"Listing {self.name} from {newest} down to {oldest}"

    def judge_answer(
        self, status: int, headers: Mapping[str, str], data: Any
    ) -> Outcome | tuple[Outcome, float] | None:
        """What the description says of such an answer."""
        return meaning(self.described, status, headers, data)

    def settled(self, client: Client, stored: str | None) -> Rest:
        """This source with all of its columns: those of the database, or else those of some items.

        Raises RequestFailed, and ConfigurationError where the database was made from a description that this one does
        not fit.
        """
        listing = self.described.list
        given = self.described.model_copy(
            update={"list": listing.model_copy(update={"key": filled(listing.key, self._values)})}
        )
        if stored is not None:
            found = agreed(given, Description.model_validate_json(stored))
        elif is_open(given):
            kind = type(self)
            found = given
            try:
                found = settled(given, *kind._with(given)(self._options)._samples(client))
            except ValueError as error:
                raise ConfigurationError(f"{self.name}: {error}") from None
        else:
            found = given
        return self._with(found)(self._options)

    @staticmethod
    def _with(description: Description) -> type[Rest]:
        from fetcher.sources.rest import kind_of

        return kind_of(description, description.name)

    def _samples(self, client: Client) -> tuple[list[Any], list[Any]]:
        """Some items as the list has them, and the bodies of some items' own requests."""
        objects: list[Any] = []
        keys: list[Any]
        if self.described.list.pages == "ids":
            newest = self._newest(client)
            keys = list(range(newest, max(self.described.list.first - 1, newest - SAMPLES), -1))
        else:
            objects = self._reader.objects(self._first(client))
            keys = [each.get(self.described.list.key) for each in objects[:SAMPLES] if type(each) is dict]
        if not keys:
            raise ConfigurationError(
                f"{self.name}: the list has no items to learn columns from: name them in [columns]"
            )
        bodies = []
        for key in keys if self.described.detail is not None else ():
            try:
                bodies.append(self._ask_for(client, key).data)
            except RequestFailed as error:
                if error.outcome is not Outcome.GONE:
                    raise
        return objects, bodies

    # --- listing --------------------------------------------------------------------------------

    def universe(self, client: Client) -> Interval | Mapping[Scope, Interval]:
        """From the lowest key to the highest, where the list goes by keys; else the list as a whole. Asks once."""
        if self.described.list.pages == "ids":
            return Interval(self.described.list.first, self._newest(client) - self.described.list.margin)
        answer = self._first(client)
        if self._timed is not None:
            times = [self._time(row) for row in self._reader.listed(answer).rows.values()]
            _refuse_ascending(self.name, times)
            settled = int(client.stop.time()) - SETTLED_SECONDS
            # The newest second may be joined by others at any time: what it has is listed, and proven by a later run.
            newest = min(settled, max(times, default=0) - 1)
            return {scope: Interval(min([0, *times]), newest) for scope in self.scopes}
        if not self._numbered:
            self._reader.objects(answer)
            return dict.fromkeys(self.scopes, _WHOLE)
        keys = [key for key in self._reader.listed(answer).keys if type(key) is int]
        _refuse_ascending(self.name, keys)
        return Interval(min(1, *keys) if keys else 1, max(keys, default=0))

    def changes(self, client: Client, covered: Mapping[Scope, Covered]) -> Sequence[Walk]:
        """A walk over what has changed since the list was walked, where the API can be asked for that."""
        if self.described.list.since is None:
            return ()
        return [
            Walk(
                _WHOLE,
                (scope,),
                at=At(client.stop.time(), since=each.walked_at - OVERLAP_SECONDS),
                items=0,
                label="changes",
            )
            for scope, each in covered.items()
        ]

    def resumed(self, walk: Walk, token: str) -> Walk:
        """The walk as an earlier run left it, where it is the same one."""
        where = At.of(token)
        planned = None if walk.at is None else walk.at.since
        if where is None or (where.since is None) is not (planned is None):
            return walk
        where = paging.again(self.described.list, where)
        return replace(walk, at=where, label=_label(where))

    def page(self, client: Client, walk: Walk) -> Page:
        """The next page of a walk."""
        if self.described.list.pages == "ids":
            return self._ids(walk)
        if self._timed is not None:
            return self._older(client, walk, self._timed)
        return self._below(client, walk) if self._numbered else self._onwards(client, walk)

    def skip(self, walk: Walk) -> tuple[Interval, Walk | None] | None:
        """What a page that does not come would have listed: as many keys as it holds items, where they are numbers."""
        if not self._numbered:
            return None
        hole = walk.hole
        unlisted = Interval(max(hole.lo, hole.hi - self.page_size + 1), hole.hi)
        rest = Interval(hole.lo, unlisted.lo - 1)
        return unlisted, walk.after(hole=rest) if rest.size else None

    def _ids(self, walk: Walk) -> Page:
        """Some ids of a range: that they are in it is all that there is to be listed."""
        hole = walk.hole
        if walk.order == "newest":
            named = Interval(max(hole.lo, hole.hi - IDS_A_PAGE + 1), hole.hi)
            rest = Interval(hole.lo, named.lo - 1)
        else:
            named = Interval(hole.lo, min(hole.hi, hole.lo + IDS_A_PAGE - 1))
            rest = Interval(named.hi + 1, hole.hi)
        rows = self._reader.named(range(named.lo, named.hi + 1))
        return Page(rows, walk.scopes, named, walk.after(hole=rest) if rest.size else None)

    def _below(self, client: Client, walk: Walk) -> Page:
        """The items from `walk.hole.hi` down: they prove from the lowest key up to there."""
        hole, listing = walk.hole, self.described.list
        where = At(0.0, by=hole.hi + 1)
        answer = client.ask(paging.asked(client.base_url, self.described, where, self._values))
        page = self._reader.listed(answer)
        end = paging.at_end(listing, answer, page.objects)
        below = [key for key in page.keys if type(key) is int and key <= hole.hi]
        if not below and not end:
            raise answer.malformed(f"no item up to {hole.hi}, though more are said to follow")
        lowest = hole.lo if end else max(hole.lo, min(below))
        rest = Interval(hole.lo, lowest - 1)
        return self._made(
            page,
            walk,
            within=hole,
            proven=Interval(lowest, hole.hi),
            next=walk.after(hole=rest) if rest.size else None,
        )

    def _older(self, client: Client, walk: Walk, form: Literal["iso", "unix"]) -> Page:
        """The items up to the second `walk.hole.hi`: they prove all seconds above that of the oldest one.

        That second itself may hold more of them: the next page is asked for from there.
        """
        hole = walk.hole
        from_top = walk.head and not walk.started
        where = At(0.0, by=None if from_top else paging.moment(hole.hi + 1, form))
        answer = client.ask(paging.asked(client.base_url, self.described, where, self._values))
        page = self._reader.listed(answer)
        if page.failures:
            # Nobody knows how old they are.
            raise answer.malformed(next(iter(page.failures.values())).message)
        end = paging.at_end(self.described.list, answer, page.objects)
        times = {key: self._time(row) for key, row in page.rows.items()}
        top = max([hole.hi, *times.values()]) if from_top else hole.hi
        below = [time for time in times.values() if time <= top]
        # The last second of all comes again and again: a page that is not full holds all of it.
        fits = len(page.objects) < max(walk.at or 0, self.described.list.size or 0)
        if not below and not end and not fits:
            raise answer.malformed(f"no item up to {self.position_text(top)}, though more are said to follow")
        oldest = min(below) if below and not end else hole.lo - 1
        if oldest >= top:
            if not fits:
                raise answer.malformed(f"list.size: a page is too small for {self.position_text(top)} alone")
            oldest = top - 1
        proven = Interval(max(hole.lo, oldest + 1), hole.hi)
        rest = Interval(hole.lo, min(hole.hi, oldest))
        return self._made(
            page,
            walk,
            within={key for key, time in times.items() if hole.lo <= time <= top},
            proven=proven if proven.size else None,
            next=walk.after(hole=rest, at=max(walk.at or 0, len(page.objects))) if rest.size else None,
        )

    def _time(self, row: Row) -> int:
        return int(row[[column.name for column in self.tables[0].columns].index(TIME)])

    def _onwards(self, client: Client, walk: Walk) -> Page:
        """The next page of a list that goes from page to page: the last one proves that all was listed."""
        where: At = walk.at or At(client.stop.time())
        url = paging.asked(client.base_url, self.described, where, self._values)
        try:
            answer = client.ask(url)
        except RequestFailed as error:
            if where.resumed and error.status in _NO_WAY_ON:
                # The API knows the token of the earlier run no more.
                afresh = replace(At(client.stop.time()), since=where.since)
                return Page((), walk.scopes, None, walk.after(at=afresh, label=""), token="")
            raise
        page = self._reader.listed(answer)
        by = paging.following(self.described.list, where, url, answer, page.objects)
        digest = hash(tuple(page.keys))
        if page.keys and digest == where.last:
            raise answer.malformed("the same page came twice: does the API take what the next page is asked with?")
        if by is not None and by == where.by:
            raise answer.malformed("a page leads to itself")
        if by is None:
            return self._made(page, walk, proven=walk.hole, began=where.began, whole=where.since is None)
        on = replace(where, by=by, pages=where.pages + 1, last=digest, resumed=False)
        return self._made(page, walk, next=walk.after(at=on, label=_label(on)), token=on.token)

    def _made(self, page: Listed, walk: Walk, *, within: Container[Key] | None = None, **more: Any) -> Page:
        def kept(key: Key) -> bool:
            return within is None or key in within

        return Page(
            rows=tuple(row for key, row in page.rows.items() if kept(key)),
            scopes=walk.scopes,
            proven=more.pop("proven", None),
            next=more.pop("next", None),
            notes=tuple(page.notes),
            failures=tuple(each for key, each in page.failures.items() if kept(key)),
            details={key: each for key, each in page.details.items() if key in page.rows and kept(key)},
            **more,
        )

    # --- asking -----------------------------------------------------------------------------------

    def _first(self, client: Client) -> Answer:
        return client.ask(paging.asked(client.base_url, self.described, At(0.0), self._values))

    def _newest(self, client: Client) -> int:
        listing = self.described.list
        answer = client.ask(paging.address(client.base_url, listing.newest or "", {}, self._values))
        try:
            return integer(at(answer.data, listing.newest_at))
        except Unusable:
            raise answer.malformed(f"list.newest: no number at {listing.newest_at!r}") from None

    def _ask_for(self, client: Client, key: Key) -> Answer:
        detail = self.described.detail
        assert detail is not None
        return client.ask(paging.address(client.base_url, detail.url, detail.params, {**self._values, "key": str(key)}))

    def item(self, client: Client, key: Key) -> Detail | Gone:
        """What an item's own request gives."""
        return self._reader.detail(self._ask_for(client, key), key)


def _refuse_ascending(name: str, positions: Sequence[int]) -> None:
    """Raises ConfigurationError where a list begins with the oldest though it is said not to."""
    if len(positions) > 1 and positions[0] < positions[-1] and list(positions) == sorted(positions):
        raise ConfigurationError(f'{name}: list.order: the list begins with the oldest: order = "oldest"')


def _label(where: At) -> str:
    what = "changes, page" if where.since is not None else "page"
    return f"{what} {where.pages + 1:,}"
