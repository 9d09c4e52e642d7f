"""How a simulated STAC API speaks: the ways in which real ones differ, within the rules and against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fetcher.simulator.profile import Share

NEXT_STYLES: Mapping[str, str] = {
    "post-body": "the whole body again with `next`, merge false, as Earth Search",
    "post-token": "the whole body again with `token`, as pgstac",
    "post-merge": "only `token`, to be merged with the body",
    "get-token": "an address alone, after a POST too",
    "offset": "the whole body or address again with `offset`",
    "skip": "the same with `skip`, as rustac",
    "get-headers": "headers that are to be sent with it",
}
"""How a page names the next one."""

MATCHED = ("none", "number", "context", "both", "estimated")
"""How a search says how many items it finds: not, by numberMatched, by context.matched, by both, or wrongly."""

QUIRKS: Mapping[str, str] = {
    "empty-page": "an empty page after the first, with a next link",
    "trailing-next": "a next link on the last page, to an empty one, as Earth Search",
    "repeated-page": "page 1 for ever, as cmr-stac once",
    "repeated-record": "each page begins with the last item of the one before, as VEDA once",
    "missing-next": "no next link from a search though there is more, as rustac on DuckDB",
    "big-page-500": "500 for a page of more than so many items, as Earth Search",
    "forbidden-throttle": "403 in JSON now and then for throttling, as Earth Search",
    "rate-429": "429 now and then that says in its text how long to wait, as Planetary Computer",
    "get-search-500": "500 in plain text for a GET search that has a next page, as rustac",
    "detail-400": 'errors as {"detail": …}, as eoAPI',
    "signed": "addresses of assets carry a signature that differs at each answer",
    "unordered": "items come in no order of time",
    "no-search": "no item search: the items of a collection alone",
    "short-count": "a page is left out the first time, so that more is counted than comes",
}
"""What real servers did that a client should survive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a simulated STAC API speaks.

    - `next`: one of NEXT_STYLES; `matched`: one of MATCHED; `quirks`: any of QUIRKS.
    - `page_default`, `page_max`: items on a page that nobody, or somebody too greedy, says a limit for.
    - `collections_page`: collections on a page of them, None = all on one.
    - `big_page`: items beyond which `big-page-500` strikes.
    - `throttled`: share of first tries that `forbidden-throttle` and `rate-429` befall, each; `retry_after`: the
      seconds that the latter names.
    """

    next: str = "post-body"
    matched: str = "number"
    quirks: frozenset[str] = field(default_factory=frozenset)
    page_default: int = 10
    page_max: int = 10_000
    collections_page: int | None = None
    big_page: int = 100
    throttled: float = 0.05
    retry_after: int = 23

    def __post_init__(self) -> None:
        object.__setattr__(self, "quirks", frozenset(self.quirks))
        if self.next not in NEXT_STYLES:
            raise ValueError(f"there is no such style of next links: {self.next!r} ({', '.join(NEXT_STYLES)})")
        if self.matched not in MATCHED:
            raise ValueError(f"there is no such way to count: {self.matched!r} ({', '.join(MATCHED)})")
        if unknown := self.quirks - QUIRKS.keys():
            raise ValueError(f"there is no such quirk: {', '.join(sorted(unknown))} ({', '.join(QUIRKS)})")
        if self.page_default == 10 > self.page_max:
            # Nobody chose the ten.
            object.__setattr__(self, "page_default", self.page_max)
        if not 1 <= self.page_default <= self.page_max:
            raise ValueError(f"a page has between 1 and {self.page_max} items: {self.page_default}")

    @property
    def mishaps(self) -> tuple[Share, ...]:
        """What befalls single requests in this dialect."""
        return tuple(
            Share(mishap, self.throttled, seconds=self.retry_after)
            for quirk, mishap in (("forbidden-throttle", "forbidden"), ("rate-429", "429-text"))
            if quirk in self.quirks
        )
