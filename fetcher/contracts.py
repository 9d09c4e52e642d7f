"""What the engine asks of the source that it lists and of the store that it writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from fetcher.model import (
    Batch,
    Committed,
    Covered,
    Interval,
    Key,
    Order,
    Page,
    Plan,
    RunState,
    Scope,
    StoreCounts,
    Walk,
    Work,
)


class Store(Protocol):
    """What the engine asks of a store; used by one thread. All of it may raise StoreError."""

    def counts(self) -> StoreCounts:
        """Totals, without counting rows."""
        ...

    def coverage(self, scopes: Sequence[Scope]) -> Mapping[Scope, Sequence[Covered]]:
        """What is proven listed in each of `scopes`."""
        ...

    def tokens(self) -> Mapping[Scope, str]:
        """What walks can go on from that an earlier run has begun and not ended."""
        ...

    def claim(
        self, stage: str, most: int, order: Order, bounds: Interval | None, skip: Collection[Key]
    ) -> tuple[list[Work], float | None]:
        """Due work that is not in `skip`; when there are fewer than `most`, also when the next is due (Unix time)."""
        ...

    def known(self) -> Key | None:
        """An item whose details are stored, None when there is none yet."""
        ...

    def fetched(self, scopes: Sequence[Scope], most: int) -> list[Key]:
        """Some items of `scopes` whose details are stored and that are still there, the newest."""
        ...

    def restore(self, scopes: Sequence[Scope], since: float) -> int:
        """Make items of `scopes` due again that were taken for gone at `since` (Unix time) or later; how many."""
        ...

    def room(self) -> int:
        """How many bytes are free where the store writes."""
        ...

    def tend(self) -> None:
        """Do now and then what keeps the store fit."""
        ...

    def begin_run(self, plan: Plan) -> None:
        """Write down that a run begins."""
        ...

    def want(self, universe: Mapping[Scope, Interval]) -> None:
        """Write down what the run is to cover: which positions in each scope."""
        ...

    def update_run(self, state: RunState) -> None:
        """Write down where the run stands, or how it ended."""
        ...

    def commit(self, batch: Batch, state: RunState) -> Committed:
        """Write a batch and the run's state in one transaction."""
        ...

    def prepare_load(self, estimate: int) -> None:
        """About so many items are to be fetched."""
        ...

    def finish_load(self) -> None:
        """All that was to be fetched is. Raises Stopped."""
        ...

    def end_sweep(self, scopes: Sequence[Scope]) -> None:
        """All of `scopes` was listed and fetched."""
        ...


class Source(Protocol):
    """What the engine asks of a source, bound to its client; called from several threads at once."""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What the run is to cover; all of it is known once `universe` was asked."""
        ...

    @property
    def login_scopes(self) -> tuple[Scope, ...]:
        """Those of them that only a login shows; none where there is no login."""
        ...

    @property
    def login(self) -> str:
        """The names of the settings that make a login, for people."""
        ...

    @property
    def login_hint(self) -> str:
        """What a person is to do where a login is needed."""
        ...

    @property
    def head(self) -> str:
        """What is asked for first, in words."""
        ...

    @property
    def address(self) -> str:
        """The name of the setting that says where it is asked for."""
        ...

    @property
    def walks(self) -> int:
        """How many listings may be walked at once."""
        ...

    @property
    def numbered(self) -> bool:
        """Whether coverage counts the keys of items, so that a stretch can hold no more of them than its size."""
        ...

    @property
    def lists_anew(self) -> bool:
        """Whether every run lists all there is, whatever was proven before."""
        ...

    @property
    def has_details(self) -> bool:
        """Whether items may need a request of their own."""
        ...

    def universe(self) -> Interval | Mapping[Scope, Interval]:
        """The lowest and the highest position there can be: of all scopes, where they share their pages, or of each."""
        ...

    def changes(self, covered: Mapping[Scope, Covered]) -> Sequence[Walk]:
        """Walks that list what has changed of the scopes that are covered up to their heads, since they were walked."""
        ...

    def resumed(self, walk: Walk, token: str) -> Walk:
        """The walk as it goes on from what an earlier run has kept of it."""
        ...

    def page(self, walk: Walk) -> Page:
        """The next page of a walk. Raises RequestFailed."""
        ...

    def skip(self, walk: Walk) -> tuple[Interval, Walk | None] | None:
        """What is left out when `walk` goes on without its next page, and the walk behind it, None at its end.

        None where keys are no numbers, so that nobody can say what comes after a page that was not seen.
        """
        ...

    def probe(self, key: Key | None) -> None:
        """Ask for an item that is known, or for the list head, while other requests are held back.

        Raises RequestFailed.
        """
        ...
