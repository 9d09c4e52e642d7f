"""Where items come from: the contract of a source, and those that are installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import SecretStr

from fetcher.client import Answer, Client
from fetcher.errors import ConfigurationError
from fetcher.model import Detail, Gone, Interval, Outcome, Page, Scope, Table, View, Walk
from fetcher.settings import SourceOptions

log = logging.getLogger("fetcher")

GROUP = "fetcher.sources"
_OURS = {"pr0gramm": "fetcher.sources.pr0gramm:Pr0gramm"}


@runtime_checkable
class Source(Protocol):
    """What the engine asks of a source. `walks` is how many listings may be walked at once, `page_size`
    how many items a page holds at most.

    `base_url` is where its API is unless the user says otherwise; `tables` are filled from its answers, the items'
    first. All of its methods may be called from several threads at once. A source may also have
    `views: ClassVar[tuple[View, ...]]`, which its databases get.
    """

    name: ClassVar[str]
    base_url: ClassVar[str]
    tables: ClassVar[tuple[Table, ...]]
    walks: ClassVar[int]
    page_size: ClassVar[int]
    Options: ClassVar[type[SourceOptions]]

    def __init__(self, options: Any) -> None: ...

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What a run with these options covers."""
        ...

    @property
    def cookies(self) -> Mapping[str, SecretStr]:
        """The login to send with each request."""
        ...

    @property
    def open_scopes(self) -> tuple[Scope, ...]:
        """What anybody sees without a login."""
        ...

    def judge(self, status: int, data: Any) -> Outcome | None:
        """What a JSON answer means where the API has ways of its own; None leaves it to HTTP's rules."""
        ...

    def universe(self, client: Client) -> Interval:
        """The lowest and the highest key there can be."""
        ...

    def page(self, client: Client, walk: Walk) -> Page:
        """The next page of a walk. Raises RequestFailed."""
        ...

    def skip(self, walk: Walk) -> tuple[Interval, Walk | None] | None:
        """What is left out when `walk` goes on without its next page, and the walk behind it, None at its end.

        None where keys are no numbers, so that nobody can say what comes after a page that was not seen.
        """
        ...

    def detail(self, client: Client, key: Any) -> Detail | Gone:
        """The rows that one item's own request gives. Raises RequestFailed."""
        ...


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


def views_of(source: type[Source] | Source) -> tuple[View, ...]:
    """The views that a source declares, if any."""
    return tuple(getattr(source, "views", ()))


def _entry(name: str, value: str) -> Any:
    from importlib.metadata import EntryPoint

    return EntryPoint(name, value, GROUP)
