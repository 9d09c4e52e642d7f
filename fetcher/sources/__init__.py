"""Where items come from: the contract of a source, and those that are installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import SecretStr

from fetcher.client import Answer, Client
from fetcher.errors import ConfigurationError
from fetcher.model import Covered, Detail, Gone, Interval, Outcome, Page, Scope, Start, Table, View, Walk
from fetcher.settings import SourceOptions

log = logging.getLogger("fetcher")

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
    """What a source may have besides, and what holds where it does not.

    `views` are questions ready in its databases. `walks` is how many listings are walked at once, `page_size` how many
    items a page holds at most. `lists_anew` says that every run lists all there is, since that costs little. A source
    whose items need a request of their own has `detail`; one that can tell what has changed has `changes`.
    """

    views: tuple[View, ...] = ()
    walks: int = 1
    page_size: int = 100
    lists_anew: bool = False
    cookies: Mapping[str, SecretStr] = MappingProxyType({})
    headers: Mapping[str, SecretStr] = MappingProxyType({})
    open_scopes: tuple[Scope, ...] | None = None
    """What anybody sees without a login; None where there is no login."""

    login_hint: str = ""
    """What a person is to do where a login is needed."""

    detail: Callable[[Any, Any], Detail | Gone] | None = None
    """`detail(client, key)`: the rows that one item's own request gives. Raises RequestFailed."""

    details: Callable[[Any, Sequence[Any]], Mapping[Any, Detail | Gone | Exception]] | None = None
    """`details(client, keys)`: those of up to `batch` items at once, where that costs less; each gets its result."""

    batch: int = 1

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


@cache
def registry() -> Mapping[str, type[Source]]:
    """The sources by name: ours, and those that other packages offer as entry points of the group `fetcher.sources`."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name, value in _OURS.items():
        found.setdefault(name, _entry(name, value))
    kinds = {}
    for name, entry in sorted(found.items()):
        try:
            kinds[name] = entry.load()
        except Exception as error:  # noqa: BLE001 - it is another package's code
            log.warning("the source %s cannot be used: %s: %s", name, type(error).__name__, error)
    return kinds


def find(name: str) -> type[Source]:
    """The source of that name. Raises ConfigurationError when there is none."""
    try:
        return registry()[name]
    except KeyError:
        raise ConfigurationError(f"no source is called {name!r}; there are: {', '.join(registry())}") from None


def _entry(name: str, value: str) -> Any:
    from importlib.metadata import EntryPoint

    return EntryPoint(name, value, GROUP)
