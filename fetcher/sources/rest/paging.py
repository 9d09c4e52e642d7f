"""How a list is walked: where a page is asked for, and what leads from one to the next."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit

from fetcher.client import Answer
from fetcher.rows import Unusable, integer
from fetcher.sources.rest.description import Constant, Description, Listing, at, filled, has

_LINK = re.compile(r"<([^>]*)>((?:\s*;\s*[\w*!#$&+.^`|~-]+\s*(?:=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s;,\"]+))?)*)\s*(?:,|$)")
_REL = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]+))", re.IGNORECASE)

_KEPT = ("began", "by", "pages", "since", "flaw")
"""What a later run needs to know of a walk."""

By = int | str
"""What the next page is asked with: a number, a token, a cursor, or an address."""


@dataclass(frozen=True, slots=True)
class At:
    """Where a walk is: what its next page is asked with (None: nothing, it is the first), how many pages there were.

    `began` is when it began (Unix seconds), `since` when what it lists has changed at the earliest, None for all.
    `flaw` is why it will prove nothing at its end. A run's own are `last`, the digest of the page before, `mark`, what
    an earlier page was asked with, `empty`, how many pages without items came last, and `resumed`: an earlier run began
    it, and it has not gone on yet.
    """

    began: float
    by: By | None = None
    pages: int = 0
    since: int | None = None
    flaw: str = ""
    last: int = 0
    mark: By | None = None
    empty: int = 0
    resumed: bool = False

    @property
    def token(self) -> str:
        """All that a later run needs to go on from here."""
        return json.dumps({name: getattr(self, name) for name in _KEPT})

    def after(self, by: By, *, last: int, empty: int, flaw: str) -> At:
        """Where it is behind a page that leads to `by`.

        What a page is asked with is marked at every power of two: pages that lead in a circle come to the mark.
        """
        pages = self.pages + 1
        mark = self.by if pages & (pages - 1) == 0 else self.mark
        return replace(self, by=by, pages=pages, flaw=flaw, last=last, mark=mark, empty=empty, resumed=False)

    @classmethod
    def of(cls, token: str) -> At | None:
        """Where a token of an earlier run goes on, None when it makes no sense."""
        try:
            data = json.loads(token)
            began, by, pages, since, flaw = (data[name] for name in _KEPT)
        except (ValueError, TypeError, KeyError):
            return None
        usable = isinstance(began, int | float) and isinstance(by, int | str) and isinstance(pages, int)
        usable = usable and isinstance(since, int | None) and isinstance(flaw, str)
        return cls(began, by, pages, since, flaw, resumed=True) if usable else None


def address(base_url: str, url: str, params: Mapping[str, object], values: Mapping[str, str]) -> str:
    """The address of a request; values of variables are quoted where they stand in `url`."""
    path, _, own = filled(url, {name: quote(value, safe="") for name, value in values.items()}).partition("?")
    pairs = [*parse_qsl(own, keep_blank_values=True), *((name, _text(each, values)) for name, each in params.items())]
    return f"{base_url}{path}" + (f"?{urlencode(pairs)}" if pairs else "")


def asked(base_url: str, description: Description, where: At, values: Mapping[str, str]) -> str:
    """Where the page of a walk is asked for."""
    listing = description.list
    if listing.pages in ("next", "link") and where.by is not None:
        # A page names the next one relative to itself; all of them lie below the same host.
        return str(where.by)
    params: dict[str, Constant] = dict(listing.params)
    if listing.size_parameter is not None and listing.size is not None:
        params[listing.size_parameter] = listing.size
    if where.since is not None and listing.since is not None:
        params[listing.since.parameter] = moment(where.since, listing.since.format)
    by = where.by
    if by is None and listing.pages == "page":
        by = listing.first
    if by is None and listing.pages == "offset":
        by = 0
    if by is not None and listing.parameter is not None:
        params[listing.parameter] = by
    return address(base_url, listing.url or "", params, values)


def following(listing: Listing, where: At, url: str, answer: Answer, objects: Sequence[Any]) -> By | None:
    """What the page after this one is asked with, None at the end. Raises RequestFailed (malformed)."""
    match listing.pages:
        case "one":
            return None
        case "link":
            found = next_link(answer.headers.get("link"))
            return None if found is None else _below(url, found, answer)
        case "next" | "token":
            value = at(answer.data, listing.next or "")
            if listing.pages == "next" and not has(answer.data, listing.next or ""):
                # A body that does not speak of it leaves it to the header.
                value = next_link(answer.headers.get("link"))
            if value is None or value == "" or value is False:
                return None
            if isinstance(value, str):
                return _below(url, value, answer) if listing.pages == "next" else value
            if listing.pages == "token" and isinstance(value, int) and value is not True:
                return value
            raise answer.malformed(f"list.next: {value!r:.60} leads nowhere")
    if at_end(listing, answer, objects):
        return None
    match listing.pages:
        case "page":
            number = int(where.by if where.by is not None else listing.first)
            return None if listing.last is not None and number >= _last(listing.last, answer) else number + 1
        case "offset":
            return int(where.by or 0) + len(objects)
    field = listing.cursor or listing.key
    cursor = objects[-1].get(field) if type(objects[-1]) is dict else None
    if type(cursor) not in (str, int):
        raise answer.malformed(f"list.cursor: the last item has no usable {field}: {cursor!r:.60}")
    return cursor


def at_end(listing: Listing, answer: Answer, objects: Sequence[Any]) -> bool:
    """Whether there is nothing behind a page: the body says so, or it has no items.

    A page that has fewer than were asked for says nothing: many APIs give fewer than they are asked for. Nor does one
    without `more`: else a slip in its path would end every list with its first page.
    """
    more = at(answer.data, listing.more) if listing.more is not None else None
    if more is None:
        return not objects
    if more not in (True, False, 0, 1):
        raise answer.malformed(f"list.more: neither true nor false: {more!r:.60}")
    if more and not objects:
        raise answer.malformed("a page without items, though more are said to follow")
    return not more


def is_doubtful(listing: Listing, answer: Answer, objects: Sequence[Any]) -> bool:
    """Whether the first page may not be the whole list though it names no next one: it may do so elsewhere."""
    if not objects or listing.pages not in ("token", "next", "link"):
        return False
    if listing.size is not None:
        return len(objects) >= listing.size
    return listing.next is not None and not has(answer.data, listing.next)


def again(listing: Listing, where: At) -> At:
    """Where a walk by number goes on in another run: a page earlier, for what came before it may have moved up."""
    if listing.pages == "page" and type(where.by) is int:
        return replace(where, by=max(listing.first, where.by - 1))
    if listing.pages == "offset" and type(where.by) is int:
        return replace(where, by=max(0, where.by - (listing.size or 1)))
    return where


def next_link(header: str | None) -> str | None:
    """The target of the link to the next page in a `Link` header (RFC 8288), None where there is none."""
    for target, parameters in _LINK.findall(header or ""):
        found = _REL.search(parameters)
        if found and "next" in (found[1] or found[2]).lower().split():
            return str(target)
    return None


def moment(at: int, form: Literal["iso", "unix"]) -> By:
    """A time (Unix seconds) as an API wants it."""
    return at if form == "unix" else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(value: object) -> int | None:
    """The whole Unix seconds of a time as an API has it, None when it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value // 1) if abs(value) < 2**53 else None
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if found is None:
        return None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() // 1)


def _below(url: str, target: str, answer: Answer) -> str:
    """The address that a page names as the next one, without the host where that is the page's own.

    So a walk that is gone on with another day asks where the API is by then. Raises RequestFailed (malformed).
    """
    try:
        parts = urlsplit(urljoin(url, target))
    except ValueError:
        raise answer.malformed(f"list.next: {target!r:.60} is no address") from None
    return parts._replace(scheme="", netloc="").geturl() if parts.netloc == urlsplit(url).netloc else parts.geturl()


def _last(path: str, answer: Answer) -> int:
    try:
        return integer(at(answer.data, path))
    except Unusable:
        raise answer.malformed(f"list.last: no number at {path!r}") from None


def _text(value: object, values: Mapping[str, str]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return filled(value, values) if isinstance(value, str) else str(value)
