"""The pages of a described list, one way of walking it after the other, and what each of them proves."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from typing import Any, Literal

from fetcher.client import Answer, Client
from fetcher.coverage import list_key
from fetcher.errors import RequestFailed
from fetcher.model import Failure, Interval, Key, Outcome, Page, Scope, Walk
from fetcher.sources.rest import paging
from fetcher.sources.rest.answers import Listed, Reader
from fetcher.sources.rest.description import Description
from fetcher.sources.rest.paging import At
from fetcher.sources.rest.requests import Requests

IDS_A_PAGE = 1000
"""So many ids of a range are named at once: that costs no request."""

MOST_EMPTY = 1000
"""So many pages without items one after the other may come before a page that has some: there would be no end."""

_NO_WAY_ON = {400, 404, 410, 422}
"""What an API answers to a token that it knows no more."""


class Walks:
    """Walks one API's list; safe to share between threads."""

    def __init__(
        self,
        description: Description,
        requests: Requests,
        reader: Reader,
        said: Callable[[int], str],
        *,
        numbered: bool,
    ) -> None:
        self._list = description.list
        self._requests = requests
        self._reader = reader
        self._said = said
        self._numbered = numbered

    def page(self, client: Client, walk: Walk) -> Page:
        """The next page of a walk. Raises RequestFailed."""
        if self._list.pages == "ids":
            return self._ids(walk)
        if self._list.time is not None:
            return self._older(client, walk, self._list.time)
        return self._below(client, walk) if self._numbered else self._onwards(client, walk)

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
        hole = walk.hole
        answer = self._requests.page(client, At(0.0, by=hole.hi + 1))
        page = self._reader.listed(answer)
        end = paging.at_end(self._list, answer, page.objects)
        below = [key for key in page.keys if type(key) is int and key <= hole.hi]
        if not below and not end:
            raise answer.malformed(f"no item up to {hole.hi}, though more are said to follow")
        lowest = hole.lo if end else max(hole.lo, min(below))
        rest = Interval(hole.lo, lowest - 1)
        return _made(
            page,
            walk,
            answer,
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
        answer = self._requests.page(client, At(0.0, by=None if from_top else paging.moment(hole.hi + 1, form)))
        page = self._reader.listed(answer)
        end = paging.at_end(self._list, answer, page.objects)
        times = {key: self._reader.time(row) for key, row in page.rows.items()}
        top = max([hole.hi, *times.values()]) if from_top else hole.hi
        below = [time for time in times.values() if time <= top]
        # The last second of all comes again and again: a page that is not full holds all of it.
        fits = len(page.objects) < max(walk.at or 0, self._list.size or 0)
        if not below and not end and not fits:
            raise answer.malformed(f"no item up to {self._said(top)}, though more are said to follow")
        oldest = min(below) if below and not end else hole.lo - 1
        if oldest >= top:
            if not fits:
                raise answer.malformed(f"list.size: a page is too small for {self._said(top)} alone")
            oldest = top - 1
        proven = Interval(max(hole.lo, oldest + 1), hole.hi)
        rest = Interval(hole.lo, min(hole.hi, oldest))
        # Nobody knows how old the unusable ones are: they are failures of the page that has them, whatever it proves.
        within = {key for key, time in times.items() if hole.lo <= time <= top} | page.failures.keys()
        return _made(
            page,
            walk,
            answer,
            within=within,
            proven=proven if proven.size else None,
            next=walk.after(hole=rest, at=max(walk.at or 0, len(page.objects))) if rest.size else None,
        )

    def _onwards(self, client: Client, walk: Walk) -> Page:
        """The next page of a list that goes from page to page: the last one proves that all was listed."""
        where: At = walk.at or At(client.stop.time())
        try:
            answer = self._requests.page(client, where)
        except RequestFailed as error:
            if where.resumed and error.status in _NO_WAY_ON:
                # The API knows the token of the earlier run no more.
                afresh = replace(At(client.stop.time()), since=where.since)
                return Page((), walk.scopes, None, walk.after(at=afresh, label=""), token="")
            if error.outcome is Outcome.GONE and self._list.pages == "page" and where.pages:
                error.args = (
                    f"{error}: where that means that the page before was the last one, list.last has to tell",
                )
            raise
        page = self._reader.listed(answer)
        by = paging.following(self._list, where, self._requests.address(client, where), answer, page.objects)
        empty = 0 if page.objects else where.empty + 1
        if by is not None and empty == MOST_EMPTY:
            raise answer.malformed(f"{empty:,} pages without items one after the other, and more are said to follow")
        digest = hash(tuple(page.keys))
        if page.keys and digest == where.last:
            raise answer.malformed("the same page came twice: does the API take what the next page is asked with?")
        if by is not None and by in (where.by, where.mark):
            raise answer.malformed(f"list.{self._list.pages}: the pages lead back to one that was there before")
        flaw = where.flaw or page.flaw
        if by is None:
            if where.pages == 0 and where.since is None and paging.is_doubtful(self._list, answer, page.objects):
                page.notes.append(
                    f"list.{'next' if self._list.next else 'pages'}: the first page names no next one: its"
                    f" {len(page.objects):,} items are taken for the whole list"
                )
            page.flaw = flaw
            return _made(page, walk, answer, proven=walk.hole, began=where.began, whole=where.since is None)
        on = where.after(by, last=digest, empty=empty, flaw=flaw)
        return _made(page, walk, answer, next=walk.after(at=on, label=label(on)), token=on.token)


def label(where: At) -> str:
    """A page of a list that goes from page to page, as a person is told."""
    what = "changes, page" if where.since is not None else "page"
    return f"{what} {where.pages + 1:,}"


def _made(
    page: Listed,
    walk: Walk,
    answer: Answer,
    *,
    proven: Interval | None = None,
    within: Container[Key] | None = None,
    **more: Any,
) -> Page:
    """A page as it is stored. One with items that have no key proves nothing: what these are is missing."""

    def kept(key: Key) -> bool:
        return within is None or key in within

    failures = [each for key, each in page.failures.items() if kept(key)]
    if page.flaw and proven is not None:
        failures.append(_unproven(page.flaw, walk.scopes, proven, answer))
        more["token"], proven = "", None
    return Page(
        rows=tuple(row for key, row in page.rows.items() if kept(key)),
        scopes=walk.scopes,
        proven=proven,
        next=more.pop("next", None),
        notes=tuple(page.notes),
        failures=tuple(failures),
        details={key: each for key, each in page.details.items() if key in page.rows and kept(key)},
        **more,
    )


def _unproven(flaw: str, scopes: tuple[Scope, ...], proven: Interval, answer: Answer) -> Failure:
    error = answer.malformed(flaw)
    return Failure("list", list_key(scopes, proven.lo), Outcome.MALFORMED, flaw, error.status, error.body)
