"""Where items come from: the contract of a source with all that is needed to write one, and those installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import SecretStr

from fetcher.client import Answer, Client
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import (
    GONE,
    Column,
    Covered,
    Detail,
    Failure,
    Generated,
    Gone,
    Interval,
    Outcome,
    Page,
    Scope,
    Start,
    Table,
    View,
    Walk,
)
from fetcher.rows import RowBuilder, malformed
from fetcher.settings import SourceOptions, option
from fetcher.sources import rest
from fetcher.sources.flaws import flaw_of
from fetcher.sources.listing import newest_first
from fetcher.words import said

__all__ = [
    "GONE",
    "Answer",
    "Client",
    "Column",
    "Covered",
    "Defaults",
    "Detail",
    "Failure",
    "Generated",
    "Gone",
    "Interval",
    "Outcome",
    "Page",
    "RequestFailed",
    "RowBuilder",
    "Source",
    "SourceOptions",
    "Table",
    "View",
    "Walk",
    "malformed",
    "newest_first",
    "option",
]

GROUP = "fetcher.sources"
_OURS = {
    "files": "fetcher.sources.files:Files",
    "pr0gramm": "fetcher.sources.pr0gramm:Pr0gramm",
    "stac": "fetcher.sources.stac:Stac",
}


class Source(Protocol):
    """What every source has. All of its methods may be called from several threads at once.

    `base_url` is where its API is unless the user says otherwise, `""` where the user has to say, None where it is no
    API: its `client` is None then. `tables` are filled from its answers, the items' first. What else a source may have
    is in `Defaults`.
    """

    name: ClassVar[str]
    base_url: ClassVar[str | None]
    tables: ClassVar[tuple[Table, ...]]
    Options: ClassVar[type[SourceOptions]]

    def __init__(self, options: Any) -> None: ...

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What a run with these options covers; all of it is known once `universe` was asked."""
        ...

    def universe(self, client: Any) -> Interval | Mapping[Scope, Interval]:
        """The lowest and the highest position there can be: of all scopes, where they share their pages, or of each."""
        ...

    def page(self, client: Any, walk: Walk) -> Page:
        """The next page of a walk. Raises RequestFailed."""
        ...


class Defaults:
    """What a source may have besides what it has to have, and what holds where it does not.

    A source whose items need a request of their own has `detail` or `details`; without either an item is complete with
    its row, and with what `Page.details` brings along.
    """

    views: tuple[View, ...] = ()
    """Questions ready in its databases."""

    walks: int = 1
    """How many listings are walked at once."""

    walks_setting: str | None = None
    """The name of the option that says so, where there is one: what `fetcher tune` finds out of a source that lists."""

    most_workers: int | None = None
    """More threads than this make it no faster; None where only the user's settings say how many there are."""

    transaction: int | None = None
    """So many items a transaction, unless the user says how many; None where the setting's default holds."""

    page_size: int = 100
    """How many items a page holds at most; estimates alone depend on it."""

    lists_anew: bool = False
    """Whether every run lists all there is, since that costs little."""

    cookies: Mapping[str, SecretStr] = MappingProxyType({})
    """The login, as the API wants it; empty where none is given."""

    headers: Mapping[str, SecretStr | str] = MappingProxyType({})
    """Headers of every request: the login, where the API wants it so, and what is no secret as plain text."""

    open_scopes: tuple[Scope, ...] | None = None
    """What anybody sees without a login; None where there is no login."""

    settings: Mapping[str, Any] = MappingProxyType({})
    """Settings of fetcher's own that hold where the user has named no others."""

    caveat: str = ""
    """What a complete mirror does not prove, as a person is told."""

    description: str | None = None
    """What its class was made from, kept in its databases so that they can be read without it."""

    settled: Callable[[Any, str | None], Source] | None = None
    """`settled(client, stored)`: the source with its tables known, where these depend on what the API answers.

    `stored` is the description that the database holds, None before there is one. Raises RequestFailed.
    """

    judge_answer: Callable[[int, Mapping[str, str], Any], Outcome | tuple[Outcome, float] | None] | None = None
    """`judge_answer(status, headers, data)`: as `judge`, where headers matter; it is asked first."""

    login_hint: str = ""
    """What a person is to do where a login is needed."""

    detail: Callable[[Any, Any], Detail | Gone] | None = None
    """`detail(client, key)`: the rows that one item's own request gives. Raises RequestFailed."""

    details: Callable[[Any, Sequence[Any]], Mapping[Any, Detail | Gone | Exception]] | None = None
    """`details(client, keys)`: those of up to `batch` items at once, where that costs less; each gets its result."""

    item: Callable[[Any, Any], Detail | Gone] | None = None
    """`item(client, key)`: an item that was asked for by its key alone, its row being that of the items' table in the
    Detail; `detail` is asked next. A source whose items have numbers can be served then. Raises RequestFailed."""

    batch: int = 1
    """How many items `details` is asked for at once, at most."""

    @staticmethod
    def judge(status: int, data: Any) -> Outcome | tuple[Outcome, float] | None:  # noqa: ARG004 - for a source to use
        """What a JSON answer means where the API has ways of its own; None leaves it to HTTP's rules."""
        return None

    @staticmethod
    def skip(walk: Walk) -> tuple[Interval, Walk | None] | None:  # noqa: ARG004
        """What is left out when `walk` goes on without its next page, and the walk behind it, None at its end.

        None where keys are no numbers, so that nobody can say what comes after a page that was not seen.
        """
        return None

    @staticmethod
    def resumed(walk: Walk, token: str) -> Walk:  # noqa: ARG004
        """A walk as it goes on from the `token` of the last page that an earlier run has stored of it."""
        return walk

    @staticmethod
    def changes(client: Any, covered: Mapping[Scope, Covered]) -> Sequence[Walk]:  # noqa: ARG004
        """Walks that list what has changed of scopes since they were walked. Raises RequestFailed."""
        return ()

    @staticmethod
    def options_for(scopes: Sequence[Scope]) -> Mapping[str, Any]:  # noqa: ARG004
        """The options that a mirror of these scopes needs, where a run does not name them."""
        return {}

    @staticmethod
    def start_text(start: Start) -> str | None:  # noqa: ARG004
        """What a run begins with, as a person is told; None where that is a stretch of positions."""
        return None

    @staticmethod
    def position_text(position: int) -> str:
        """A position, as a person is told."""
        return f"{position:,}"


def of(source: Source | type[Source], name: str) -> Any:
    """What `source` has under a name of `Defaults`, or else what holds instead."""
    return getattr(source, name, getattr(Defaults, name))


@runtime_checkable
class Examinable(Protocol):
    """What `fetcher doctor` asks of a source besides; a source may do without it."""

    @property
    def needs_login(self) -> bool:
        """Whether what the options ask for is shown to a login only."""
        ...

    def logged_in(self, client: Client) -> bool:
        """Whether the API takes the login that is sent with each request; asks once. Raises RequestFailed."""
        ...

    def time_of(self, answer: Answer) -> float | None:
        """The API's own time when it gave this answer (Unix seconds), None where it tells none."""
        ...


def registry() -> Mapping[str, type[Source]]:
    """The sources by name: ours, and those that other packages offer as entry points of the group `fetcher.sources`."""
    return _installed()[0]


def unusable() -> Mapping[str, str]:
    """Those that are offered and cannot be used, by name, and why."""
    return _installed()[1]


@cache
def _installed() -> tuple[Mapping[str, type[Source]], Mapping[str, str]]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name, value in _OURS.items():
        found.setdefault(name, _entry(name, value))
    kinds: dict[str, type[Source]] = {}
    flaws: dict[str, str] = {}
    for name, entry in sorted(found.items()):
        try:
            kind = entry.load()
            flaw = flaw_of(kind, name)
        except Exception as error:  # noqa: BLE001 - it is another package's code
            flaw = f"{type(error).__name__}: {said(error)}"
        # Who asks for another source has no use for a word about this one.
        if flaw is None:
            kinds[name] = kind
        else:
            flaws[name] = flaw
    return kinds, flaws


def is_source(name: str) -> bool:
    """Whether that is the name of a source, or the path of a description of one."""
    return name.endswith(rest.ENDING) or name in registry() or name in unusable() or name in rest.shipped()


def find(name: str) -> type[Source]:
    """The source of that name, or the one that a file describes; ConfigurationError where none can be used."""
    if name.endswith(rest.ENDING):
        return rest.from_file(Path(name))
    if name not in registry() and name in rest.shipped():
        return rest.from_shipped(name)
    if name in unusable():
        raise ConfigurationError(f"the source {name} cannot be used: {unusable()[name]}")
    try:
        return registry()[name]
    except KeyError:
        raise ConfigurationError(
            f"no source is called {name!r}; there are: {', '.join([*registry(), *rest.shipped()])},"
            " and files that end in .toml"
        ) from None


def _entry(name: str, value: str) -> Any:
    from importlib.metadata import EntryPoint

    return EntryPoint(name, value, GROUP)
