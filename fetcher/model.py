"""Plain facts that the parts of fetcher hand to each other; imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

Key = int | str
"""What names an item within its source."""

Scope = int | str
"""What a listing covers: one content-flag bit of pr0gramm, one collection of a STAC catalogue with its filter."""

Order = Literal["newest", "oldest"]
"""The direction of listing and of claims."""

Row = tuple[Any, ...]


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    GONE = "gone"
    DENIED = "denied"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"
    MALFORMED = "malformed"


# --- what a source declares ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One declared field of an answer; `json` keeps its JSON text, `required` makes its absence an error."""

    name: str
    type: Literal["integer", "real", "text", "boolean", "json"]
    required: bool = False


@dataclass(frozen=True, slots=True)
class Generated:
    """A column that the database reads out of a JSON column at `path` (`$."eo:cloud_cover"`) whenever it is asked."""

    name: str
    type: Literal["integer", "real", "text"]
    column: str
    path: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a source fills: the API's fields under the API's names, then `extra` for all the others.

    The first table holds the items, keyed by its first column. A table with `parent` holds what belongs to an item:
    `parent` is its first column, which names the item, and the first declared column tells its rows apart. Any other
    table without `parent` stands alone, keyed by its first column.

    Of the items' table `in_scope` is an SQL condition, true for a row that belongs to the coverage scope `:scope`.
    Coverage counts keys; where these are no whole numbers, it counts what the last column of `position` holds, and an
    index over `position` finds it. With `unordered` keys say nothing about where in a listing an item is, even if they
    are numbers: coverage counts whole listings. `version` names columns that tell whether an item has changed: it is
    fetched again when they have. `detailed` columns, and `extra` beside them, come with an item's own request, as a row
    of this table in its Detail: being listed again leaves them alone.

    `generated` columns come on top. `search` names the columns of texts that full-text search looks into (where items
    have whole numbers for keys, in tables with `parent`), and `index` those by which rows are looked up.
    """

    name: str
    columns: tuple[Column, ...]
    parent: str | None = None
    in_scope: str = "true"
    position: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    generated: tuple[Generated, ...] = ()
    search: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    unordered: bool = False
    detailed: tuple[str, ...] = ()

    @property
    def is_numbered(self) -> bool:
        """Whether items have whole numbers for keys, by which they are listed."""
        return self.columns[0].type == "integer" and not self.unordered


@dataclass(frozen=True, slots=True)
class View:
    """A question that many will ask, ready in the database under `name`: `sql` is its SELECT.

    Where that is in words which SQLite alone knows, `postgres` says the same in PostgreSQL's.
    """

    name: str
    sql: str
    postgres: str | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """The whole numbers from `lo` to `hi`, both included; empty when `hi` is below `lo`."""

    lo: int
    hi: int

    @property
    def size(self) -> int:
        """How many numbers there are in it."""
        return max(0, self.hi - self.lo + 1)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.lo <= number <= self.hi


@dataclass(frozen=True, slots=True)
class Walk:
    """A listing in progress over one hole of the coverage.

    `hole` is what is left to prove. With `head` the hole reaches up to the newest item there is, whatever that is by
    now: `hole.hi` is then only the newest key known when the walk was planned. `started` is false until its first page;
    `proves` is false once it has come to where items may still appear: from there on it lists and proves nothing.

    `at` is where it goes on, in its source's own terms; `items` is about how many it has still to list, where the
    source can tell; `label` names it to people. `then` are walks that wait for its end.
    """

    hole: Interval
    scopes: tuple[Scope, ...]
    order: Order = "newest"
    head: bool = False
    started: bool = False
    proves: bool = True
    at: Any = None
    items: int | None = None
    label: str = ""
    then: tuple[Walk, ...] = ()

    @property
    def where(self) -> str:
        """Where it is, as a person is told."""
        return self.label or f"{self.hole.hi if self.order == 'newest' else self.hole.lo}"

    def after(self, **changes: Any) -> Walk:
        """The walk that goes on from here."""
        return replace(self, started=True, **changes)


@dataclass(frozen=True, slots=True)
class Page:
    """One listing response.

    `rows` are item rows (declared columns, then `extra`); `proven` is the interval that they prove for `scopes`, or
    None; `next` is the walk that continues it, or None, and `more` are walks that list the rest beside it; `notes` say
    what was unusual in the answer; `failures` are listed items that could not be used, and `left_out` are the keys of
    those that are not to be stored.

    `details` are those of listed items that need no request of their own, by key; `others` are rows of the tables that
    stand alone. Where many pages prove an interval only together, the last of them does, and `began` is when their walk
    began (Unix seconds): what was stored there and is not listed since is listed no more, unless `whole` is false.

    `token` is what its source can go on from behind this page, in a later run too: it is kept until the walk ends.
    """

    rows: tuple[Row, ...]
    scopes: tuple[Scope, ...]
    proven: Interval | None
    next: Walk | None
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    more: tuple[Walk, ...] = ()
    details: Mapping[Key, Detail] = field(default_factory=dict)
    others: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    began: float | None = None
    whole: bool = True
    left_out: tuple[Key, ...] = ()
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """What one item's own request gave: the rows of each child table, replacing those stored.

    Where that is too much for one piece, `rest` gives the next one, whose `part` is greater by one; its rows are added.
    `flaw` says what was wrong with some of it: the rows are kept, and the item counts as failed too. `size` is about
    how many bytes its rows are, where that may be much.
    """

    rows: Mapping[str, Sequence[Row]]
    notes: tuple[str, ...] = ()
    part: int = 0
    rest: Callable[[], Detail] | None = None
    flaw: str | None = None
    size: int = 0


class Gone:
    """The answer that an item is no more."""


GONE = Gone()


# --- work -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """One thing still to do. `attempts` counts those already spent."""

    stage: str
    key: Key
    priority: int = 0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """The last evidence of a key that failed; `due_at` is when it is tried again (Unix seconds), None = parked."""

    stage: str
    key: Key
    outcome: Outcome
    message: str
    status: int | None = None
    body: bytes | None = None
    attempts: int = 0
    due_at: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A step that turns due work into rows: up to `batch` keys a call; every key gets its result.

    With `holds` a key whose rows come in pieces holds something of which there is one for each worker, from its first
    piece to its last: no more keys than workers are under way at once.
    """

    name: str
    run: Callable[[Sequence[Key]], Mapping[Key, Detail | Gone | Exception]]
    batch: int = 1
    holds: bool = False


# --- runs -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is asked to do; times are in seconds.

    `full` asks for a new sweep, or for the one still open; `limit` ends it once that many details are committed;
    `min_free` bytes of the disk are left free; `transform` names the function that rows go through.
    """

    workers: int = 10
    batch_size: int = 200
    batch_seconds: float = 10.0
    delay: float = 1.0
    max_retries: int = 8
    max_backoff: float = 300.0
    max_outage: float = 86_400.0
    order: Order = "newest"
    start_from: int | None = None
    full: bool = False
    limit: int | None = None
    min_free: int = 0
    transform: str | None = None

    @property
    def bounds(self) -> Interval | None:
        """The keys that `start_from` limits the run to, in the direction it goes; None = all."""
        if self.start_from is None:
            return None
        return Interval(1, self.start_from) if self.order == "newest" else Interval(self.start_from, 2**63 - 1)

    @property
    def window(self) -> int:
        """The most work that is submitted and not yet committed."""
        return self.workers + 2 * self.batch_size


@dataclass(frozen=True, slots=True)
class Start:
    """What a run found as it began: the newest and oldest key still to list, and how much is to be fetched.

    `newest` and `oldest` are None when nothing is left to list; `estimate` counts items, queued ones included, and is
    None where nobody can tell yet; `workers` is how many requests may be open at once. `text` says what is begun, where
    the source has words of its own for it.
    """

    newest: int | None
    oldest: int | None
    estimate: int | None
    queued: int
    holes: int
    workers: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run has done; every figure but those of the network counts committed rows only."""

    pages: int = 0
    listed: int = 0
    new: int = 0
    stored: int = 0
    gone: int = 0
    failed: int = 0
    retries: int = 0
    requests: int = 0
    limited: int = 0
    rows: int = 0

    def plus(self, **more: int) -> Counts:
        """These counts with `more` added."""
        return replace(self, **{name: getattr(self, name) + n for name, n in more.items()})

    def plus_committed(self, done: Committed) -> Counts:
        """These counts with what a transaction did."""
        return self.plus(
            pages=done.pages,
            listed=done.listed,
            new=done.new,
            stored=len(done.stored),
            gone=len(done.gone),
            failed=len(done.failed),
            retries=len(done.retried),
            rows=done.rows,
        )


LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The buckets in which latencies are counted end here (seconds); what is above them all has a bucket of its own."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """How many requests took up to each of LATENCY_BOUNDS and no less, how many more, and the sum of their seconds."""

    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS) + 1)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through a governor, and what holds now.

    Requests begun, those refused, the pause (seconds left, and why), the pace (requests a second, 0 = any number), the
    gate (requests in flight at most); requests in flight, those that have ended by outcome, how long they took, and
    how many pauses there were of how many seconds.
    """

    requests: int = 0
    limited: int = 0
    paused: float = 0.0
    reason: str = ""
    pace: float = 0.0
    gate: int = 0
    in_flight: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    latencies: Latencies = Latencies()
    pauses: int = 0
    paused_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `left` items are still to fetch (an estimate while listing goes on), `rate` a second.

    `eta` is in seconds, None when unknown. `paused` is how many seconds requests still wait, with the reason. `window`
    items are asked for and not yet committed, `batch_seconds` is what the last commit took.
    """

    counts: Counts
    seconds: float
    queued: int
    left: int
    rate: float
    eta: float | None
    paused: float = 0.0
    reason: str = ""
    listing: bool = True
    window: int = 0
    batch_seconds: float = 0.0
    traffic: Traffic = Traffic()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: `ended` says so in a word, `parked` counts the work of the database that failed for good.

    `texts` says how texts fared that were retried along with the mirror, None where there were none.
    """

    counts: Counts
    seconds: float
    ended: str
    parked: int
    left: int
    texts: Any = None

    @property
    def exit_code(self) -> int:
        """0 complete or limit reached, 3 finished but something failed for good."""
        if self.parked and self.ended == "complete":
            return 3
        return 0 if self.texts is None else int(self.texts.exit_code)


@dataclass(frozen=True, slots=True)
class RunState:
    """What the `runs` row of a run holds while it goes on and once it has ended."""

    progress: Progress
    ended: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes; `parts` are pieces of details of which more is to come, in their order."""

    pages: tuple[Page, ...] = ()
    parts: tuple[tuple[Key, Detail], ...] = ()
    details: Mapping[Key, Detail] = field(default_factory=dict)
    gone: tuple[Key, ...] = ()
    failures: tuple[Failure, ...] = ()
    stage: str = "detail"

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.pages or self.parts or self.details or self.gone or self.failures)


@dataclass(frozen=True, slots=True)
class Committed:
    """What a transaction did, as handed to `on_batch`; `queued` work was added and `ended` work taken out."""

    pages: int = 0
    listed: int = 0
    new: int = 0
    queued: int = 0
    ended: int = 0
    rows: int = 0
    stored: tuple[Key, ...] = ()
    gone: tuple[Key, ...] = ()
    failed: tuple[Failure, ...] = ()
    retried: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """Totals that a store keeps ready, without counting rows."""

    items: int = 0
    fetched: int = 0
    work: int = 0
    parked: int = 0


@dataclass(frozen=True, slots=True)
class Covered:
    """A stretch proven listed: how many items it held, and when the oldest part of it was walked (Unix seconds)."""

    scope: Scope
    lo: int
    hi: int
    items: int
    walked_at: int
