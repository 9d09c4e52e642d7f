"""How a walk over a window of time goes on: to its next page, in parts, from the start, or to a proof.

A window is proven when its walk has come to its end and nothing speaks against that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fetcher.coverage import list_key
from fetcher.model import Failure, Interval, Outcome, Page, Walk
from fetcher.sources.stac.items import Listed
from fetcher.sources.stac.paging import Request
from fetcher.sources.stac.search import Search
from fetcher.sources.stac.tables import ITEMS
from fetcher.sources.stac.times import LAST, Asked

SETTLED_SECONDS = 86_400
"""Items younger than this may still be joined by others of their time: it is listed again by the next run."""

MOST_PAGES = 10
"""A window of more pages is divided."""

MOST_WINDOWS = 1000
"""So many windows are made at once."""

ROUND = 10
"""A page of so many items, or some times as many, may be a full one."""

MOST_IDLE = 50
"""So many pages, one after the other, that bring nothing new, and the walk is going in circles."""

MOST_DOUBTS = 3
"""So many windows that came out the same twice against the API's count, and its counts are only estimates."""

_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class At:
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


class Windows:
    """The windows of a run: at most `most` are walked at once.

    `extents` are the seconds that the items of each collection are said to lie in.
    """

    def __init__(self, asked: Asked, search: Search, most: int) -> None:
        self.extents: Mapping[str, Interval] = {}
        self._asked = asked
        self._search = search
        self._most = most
        self._doubts = 0

    def judged(
        self, walk: Walk, at: At, page: Listed, request: Request, following: Request | None, others: Any
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
            divided = self.divided(walk, at, parts, page.matched) if parts > 1 else ()
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
                again = At(depth=at.depth, tries=1, cap=at.cap, sharp=at.sharp)
                return made.page((walk.after(at=again, items=matched, label=self._label(walk)),))
            self._doubts += 1
            note = f"{self._label(walk)}: {at.count:,} items came, twice; the API says there are {matched:,}"
            return made.page((), proven=walk.hole, note=note)
        said = trouble or "a full page without a next link"
        divided = self.divided(walk, at, 2, matched, cap=max(came, at.size)) if at.since is None else ()
        if divided:
            return made.page(divided, note=f"{self._label(walk)}: {said}; divided")
        probe = _probe(at.count, at.limit) if at.tries == 0 and trouble is None else None
        if probe is not None:
            # If next links work, pages of this size end with one that is not full.
            again = At(limit=probe, depth=at.depth, tries=1, cap=at.cap, sharp=at.sharp, since=at.since)
            return made.page((walk.after(at=again, items=matched, label=self._label(walk)),))
        there = f", {matched:,} are there" if is_short else ", and nothing says whether there are more"
        message = f"{self._label(walk)}: {said} after {at.count:,} items{there}"
        key = list_key(walk.scopes, walk.hole.lo)
        return made.page((), failure=Failure("list", key, Outcome.MALFORMED, message))

    def _may_be_full(self, came: int, at: At, is_first: bool, is_short: bool, trouble: str | None) -> bool:
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
        windows = self._most
        pages = -(-matched // size)
        parts = -(-pages // MOST_PAGES)
        if not depth:
            parts = max(parts, min(windows, pages))
        if parts > windows:
            parts = -(-parts // windows) * windows
        return min(parts, MOST_WINDOWS)

    def divided(self, walk: Walk, at: At, parts: int, matched: int | None, *, cap: int = 0) -> tuple[Walk, ...]:
        """The parts of a window, in the order in which they are to be walked; none when it cannot be divided."""
        hole = walk.hole
        extent = self.extents[self._search.collection(walk.scopes[0])]
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
                at=At(depth=at.depth + 1, cap=cap, sharp=end in sharp),
                items=None if matched is None else matched // parts,
                started=True,
            )
            made.append(replace(part, label=self._label(part)))
        return tuple(made if walk.order == "oldest" else reversed(made)) if len(made) > 1 else ()

    def window(self, walk: Walk) -> str | None:
        """The `datetime` that asks for a window; None when it is all times."""
        sharp = walk.at is not None and walk.at.sharp
        return self._asked.window(walk.hole.lo, walk.hole.hi, head=walk.head, sharp=sharp)

    def _label(self, walk: Walk) -> str:
        if walk.at is not None and walk.at.since is not None:
            return walk.label
        window = self.window(walk)
        return f"{self._search.collection(walk.scopes[0])} {window or 'of all times'}"


@dataclass(frozen=True, slots=True)
class _Made:
    """What is known of a page before it is known how its walk goes on."""

    walk: Walk
    at: At
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
    times = [row[_TIME] for row in rows if row[_TIME] is not None]
    if before is not None:
        times += [before.lo, before.hi]
    return Interval(min(times), max(times)) if times else None


def _probe(count: int, limit: int) -> int | None:
    """The size of pages of which so many items do not fill the last; None when there is none."""
    return next((size for size in range(min(count, limit) - 1, 1, -1) if count % size), None)


_TIME = [column.name for column in ITEMS.columns].index("time")
