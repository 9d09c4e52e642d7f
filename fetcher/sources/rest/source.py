"""A described REST API as a source: what it lists, what a page of it proves, and how it asks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from pydantic import SecretStr

from fetcher.client import Client
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Covered, Detail, Gone, Interval, Key, Outcome, Page, Scope, Start, Table, Walk
from fetcher.settings import SourceOptions
from fetcher.sources.rest import paging
from fetcher.sources.rest.answers import Reader, meaning
from fetcher.sources.rest.changes import agreed
from fetcher.sources.rest.description import Description, filled
from fetcher.sources.rest.paging import At
from fetcher.sources.rest.requests import Requests
from fetcher.sources.rest.tables import is_numbered, is_open, settled
from fetcher.sources.rest.walks import IDS_A_PAGE, Walks, label

SAMPLES = 5
"""So many items are asked for where their columns are to be learned from them."""

OVERLAP_SECONDS = 600
"""So long before the last walk began, what was changed since is asked for: clocks differ, and changes show late."""

SETTLED_SECONDS = 600
"""Items that are younger may still be joined by others of their time: their time is listed again by the next run."""

_SENDABLE = re.compile(r"[!-~\xa0-\xff]([ -~\xa0-\xff\t]*[!-~\xa0-\xff])?")
"""What a header may hold: ISO 8859-1 that can be printed, and no space around it."""

_WHOLE = Interval(0, 0)
"""A list that is walked to its end is listed as a whole, or not at all."""


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
        self._requests = Requests(description, self._values)
        self._walks = Walks(description, self._requests, self._reader, self.position_text, numbered=self._numbered)

    def _headers(self) -> dict[str, SecretStr | str]:
        """What is sent with every request. Raises ConfigurationError naming what is missing, or cannot be sent."""
        found: dict[str, SecretStr | str] = {}
        for name, value in self.described.headers.items():
            if isinstance(value, str):
                found[name] = text = filled(value, self._values)
                if text and not _SENDABLE.fullmatch(text):
                    raise ConfigurationError(f"{self.name}: headers.{name}: holds characters that no header can have")
        for name, secret in self.described.secrets.items():
            given = getattr(self._options, secret.env.lower())
            if given is not None and not _SENDABLE.fullmatch(given.get_secret_value()):
                raise ConfigurationError(f"{secret.env} holds characters that no header can have, such as a line's end")
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
            newest = self._requests.newest(client)
            keys = list(range(newest, max(self.described.list.first - 1, newest - SAMPLES), -1))
        else:
            objects = self._reader.objects(self._requests.page(client))
            keys = [each.get(self.described.list.key) for each in objects[:SAMPLES] if type(each) is dict]
        if not keys:
            raise ConfigurationError(
                f"{self.name}: the list has no items to learn columns from: name them in [columns]"
            )
        bodies = []
        for key in keys if self.described.detail is not None else ():
            try:
                bodies.append(self._requests.item(client, key).data)
            except RequestFailed as error:
                if error.outcome is not Outcome.GONE:
                    raise
        return objects, bodies

    # --- listing --------------------------------------------------------------------------------

    def universe(self, client: Client) -> Interval | Mapping[Scope, Interval]:
        """From the lowest key to the highest, where the list goes by keys; else the list as a whole. Asks once."""
        if self.described.list.pages == "ids":
            return Interval(self.described.list.first, self._requests.newest(client) - self.described.list.margin)
        page = self._reader.first(self._requests.page(client))
        if self._timed is not None:
            times = [self._reader.time(row) for row in page.rows.values()]
            _refuse_ascending(self.name, times)
            settled = int(client.stop.time()) - SETTLED_SECONDS
            # The newest second may be joined by others at any time: what it has is listed, and proven by a later run.
            newest = min(settled, max(times, default=0) - 1)
            return {scope: Interval(min([0, *times]), newest) for scope in self.scopes}
        if not self._numbered:
            return dict.fromkeys(self.scopes, _WHOLE)
        keys = [key for key in page.keys if type(key) is int]
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
        return replace(walk, at=where, label=label(where))

    def page(self, client: Client, walk: Walk) -> Page:
        """The next page of a walk."""
        return self._walks.page(client, walk)

    def skip(self, walk: Walk) -> tuple[Interval, Walk | None] | None:
        """What a page that does not come would have listed: as many keys as it holds items, where they are numbers."""
        if not self._numbered:
            return None
        hole = walk.hole
        unlisted = Interval(max(hole.lo, hole.hi - self.page_size + 1), hole.hi)
        rest = Interval(hole.lo, unlisted.lo - 1)
        return unlisted, walk.after(hole=rest) if rest.size else None

    def item(self, client: Client, key: Key) -> Detail | Gone:
        """What an item's own request gives."""
        return self._reader.detail(self._requests.item(client, key), key)


def _refuse_ascending(name: str, positions: Sequence[int]) -> None:
    """Raises ConfigurationError where a list begins with the oldest though it is said not to."""
    if len(positions) > 1 and positions[0] < positions[-1] and list(positions) == sorted(positions):
        raise ConfigurationError(f'{name}: list.order: the list begins with the oldest: order = "oldest"')
