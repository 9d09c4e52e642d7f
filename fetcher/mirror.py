"""A mirror from its parts: source, store, client and engine put together for one run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import getattr_static
from typing import Any, ClassVar
from urllib.parse import urlsplit

import requests

from fetcher.client import Client
from fetcher.engine import Engine
from fetcher.errors import (
    ConfigurationError,
    FetcherError,
    Interrupted,
    LoginError,
    RemoteError,
    RequestFailed,
    SourceError,
    Stopped,
    StoreError,
    no_first_answer,
)
from fetcher.governor import Governor, backoff
from fetcher.line import Unlisted
from fetcher.metrics import MetricsFile
from fetcher.model import (
    Committed,
    Covered,
    Detail,
    Gone,
    Interval,
    Key,
    Order,
    Outcome,
    Page,
    Plan,
    Progress,
    Scope,
    Stage,
    Start,
    Summary,
    Table,
    Walk,
)
from fetcher.place import Place, PostgresUrl, place_of
from fetcher.planning import survey
from fetcher.settings import Settings, SourceOptions, load, login_of, secrets_of
from fetcher.sources import Defaults, Source, find, is_source, of
from fetcher.sources.rest import from_stored
from fetcher.stop import Stop
from fetcher.stores.jobs import totals
from fetcher.stores.mirror import MirrorStore
from fetcher.stores.opening import open_store, peek_store, reading
from fetcher.stores.origin import description_of, options_of_last_run, origin_of, scopes_of, source_of
from fetcher.stores.sqlite import SqliteStore
from fetcher.stores.texts import SOURCE as TEXTS
from fetcher.stores.verify import Verdict
from fetcher.stores.verify import verify as check
from fetcher.stores.worklist import ITEM
from fetcher.transform import Transform
from fetcher.words import said

log = logging.getLogger("fetcher")

SMALL_PART = 0.02
"""Of a small disk so much is left free, whatever the setting says."""

BYTES_AN_ITEM = 3_200
"""What an item with its tags and comments takes in the database, about (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: what it would find to do, requests, seconds at best, bytes of disk.

    All are estimates, None where nobody can tell.
    """

    start: Start
    requests: int | None
    seconds: float | None
    bytes: int | None


def fetch(
    source: str = "pr0gramm",
    db: str | Place | None = None,
    *,
    limit: int | None = None,
    order: Order = "newest",
    stop: Stop | None = None,
    session: requests.Session | None = None,
    on_start: Callable[[Start], None] = lambda _: None,
    on_batch: Callable[[Committed], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> Summary:
    """Mirror `source` into the database `db`, or go on with it; returns when nothing is left to do.

    `settings` are those of `.env` in lower case (`max_parallel_requests=5`, `content_flags=9`); what is not given comes
    from the environment, `./.env` and the defaults, as on the command line. `limit` ends the run once so many items'
    details are committed. `stop.set()` from another thread, or Ctrl-C, ends it early; a Stop serves one run. `on_batch`
    sees every committed batch. `session` brings adapters, proxies and TLS settings of your own.

    Raises Interrupted when stopped early, and the other errors of `fetcher.errors`; it never ends the process.
    """
    run = _Run(limit, order, stop or Stop(), session, on_start, on_batch, on_progress)
    summary = _run(source, db, settings, run)
    assert summary is not None
    return summary


def retry(
    db: str | Place | None = None,
    *,
    outcomes: Collection[Outcome | str] = (),
    keys: Collection[Key] = (),
    limit: int | None = None,
    order: Order = "newest",
    stop: Stop | None = None,
    session: requests.Session | None = None,
    on_start: Callable[[Start], None] = lambda _: None,
    on_batch: Callable[[Committed], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> Summary | None:
    """Make due again what failed for good in the database `db`, then go on with the mirror as `fetch` does.

    `outcomes` and `keys` choose some of it. Returns None, and asks the API nothing, where there is nothing to retry.
    Raises what `fetch` raises.
    """
    chosen = [Outcome(each) for each in outcomes]
    path = place_of(db) if db is not None else load(Settings, {}).db_path
    run = _Run(limit, order, stop or Stop(), session, on_start, on_batch, on_progress)
    source = source_of(path)
    kind = kind_of(path)
    if not scopes_of(path) and _was_submitted_to(path):
        raise ConfigurationError(
            f"{path} mirrors nothing, it holds what was submitted: POST /ingest/ID/retry of `fetcher serve` has it"
            " fetched again"
        )
    known = kind.Options.model_fields
    asked = {name: value for name, value in options_of_last_run(path).items() if name in known}
    asked |= of(kind, "options_for")(scopes_of(path))
    return _run(source, path, {**asked, **settings}, run, lambda store: store.unpark(chosen, keys) > 0)


def verify(db: str | Place) -> Verdict:
    """Whether the database `db` is complete: all that was ever listed is there, and whole; asks the network nothing.

    Its texts, if there are any, are to be read and embedded too. Raises StoreError.
    """
    path = place_of(db)
    return check(path, tables_of(path))


def tables_of(db: Place) -> Sequence[Table]:
    """The tables of what the database `db` mirrors; none where it holds texts alone.

    Raises StoreError, ConfigurationError when it mirrors a source that is not installed.
    """
    return () if mirrors_nothing(db) else kind_of(db).tables


def mirrors_nothing(db: Place) -> bool:
    """Whether the database `db` holds texts alone. Raises StoreError."""
    return source_of(db) == TEXTS


def kind_of(db: str | Place) -> type[Source]:
    """The source that the database `db` mirrors; a described one as it was when the database was last written.

    Raises StoreError, ConfigurationError when it is one that is not installed.
    """
    name, stored = source_of(place_of(db)), description_of(place_of(db))
    return find(name) if stored is None else from_stored(stored)


def source_for(name: str, db: Place) -> type[Source]:
    """The source of that name, which may be one that the database alone knows. Raises ConfigurationError."""
    if not is_source(name):
        try:
            if source_of(db) == name and description_of(db) is not None:
                return kind_of(db)
        except StoreError:
            pass
    return find(name)


@dataclass(frozen=True, slots=True)
class _Run:
    """How a run is to go, besides the settings."""

    limit: int | None
    order: Order
    stop: Stop
    session: requests.Session | None
    on_start: Callable[[Start], None]
    on_batch: Callable[[Committed], None]
    on_progress: Callable[[Progress], None]


def _run(
    source: str,
    db: str | Place | None,
    settings: Mapping[str, Any],
    run: _Run,
    prepare: Callable[[MirrorStore], bool] = lambda _: True,
) -> Summary | None:
    """One run; None when `prepare` finds that there is nothing to do."""
    parts = Parts.make(source, db, settings, run.stop, run.session, limit=run.limit, order=run.order)
    store = parts.open_store()
    try:
        if not prepare(store):
            return None
        store.begin_sweep(full=parts.plan.full)
        store.remember(parts.options)
        parts.learn_by(store)
        _ask_for_submitted(parts, store)
        metrics = MetricsFile(parts.settings.metrics_file, parts.source.name) if parts.settings.metrics_file else None

        def on_progress(progress: Progress) -> None:
            if metrics is not None:
                metrics.write(progress, now=progress.ended)
            run.on_progress(progress)

        engine = Engine(
            parts.listing,
            parts.stage,
            store,
            parts.governor,
            parts.stop,
            parts.plan,
            on_start=lambda start: run.on_start(_told(parts.source, start)),
            on_batch=run.on_batch,
            on_progress=on_progress,
        )
        return engine.run()
    finally:
        store.close()
        parts.close()


def _was_submitted_to(path: Place) -> bool:
    with reading(path) as sql:
        return totals(sql) is not None


def _ask_for_submitted(parts: Parts, store: MirrorStore) -> None:
    """Ask for what was submitted to a service that has ended, and no listing may ever show: then it is due as any."""
    stage = parts.item_stage
    if stage is None or not isinstance(store, SqliteStore) or not store.is_due(stage.name):
        return
    log.warning("ids that were submitted to `fetcher serve` and have not ended are asked for first")
    listing = parts.unlisted(parts.listing.universe)
    plan = replace(parts.plan, order="oldest", start_from=None)
    beside = store.beside(stage.name)
    Engine(listing, stage, beside, parts.governor, parts.stop, plan).run()


def preview(
    source: str = "pr0gramm",
    db: str | Place | None = None,
    *,
    limit: int | None = None,
    order: Order = "newest",
    session: requests.Session | None = None,
    **settings: Any,
) -> Preview:
    """What `fetch` with these arguments would do; asks the API once and writes nothing."""
    parts = Parts.make(source, db, settings, Stop(), session, limit=limit, order=order)
    store = peek_store(parts.path, parts.source.name, parts.source.tables)
    try:
        universe = parts.listing.universe()
        anew = parts.plan.full and store is not None and not store.sweep().open
        start = survey(parts.listing, None if anew else store, parts.plan, universe)[1]
    except RequestFailed as error:
        kind = LoginError if error.outcome is Outcome.DENIED else RemoteError
        raise kind(f"no usable first answer: {error}") from None
    finally:
        if store is not None:
            store.close()
        parts.close()
    return _estimate(_told(parts.source, start), parts, limit)


def _told(source: Source, start: Start) -> Start:
    """What a run begins with, in the words of its source if it has any."""
    return replace(start, text=of(source, "start_text")(start))


def remaining(source: Source, client: Client, path: Place, universe: Interval | Mapping[Scope, Interval]) -> Start:
    """What a mirror of all of `universe` at `path` has still to list and to fetch; asks the API nothing.

    Raises StoreError.
    """
    store = peek_store(path, source.name, source.tables)
    try:
        return survey(_Listing(source, client), store, Plan(), universe)[1]
    finally:
        if store is not None:
            store.close()


def _estimate(start: Start, parts: Parts, limit: int | None) -> Preview:
    settings = parts.settings
    if start.estimate is None:
        return Preview(start, None, None, None)
    items = start.estimate if limit is None else min(limit, start.estimate)
    listed = max(0, items - start.queued)
    pages = -(-listed // of(parts.source, "page_size")) + start.holes
    total = pages + 1 + (items if parts.listing.has_details else 0)
    ceiling = settings.max_requests_per_second
    seconds = max(total / ceiling if ceiling else 0.0, pages * settings.request_delay)
    return Preview(start, total, seconds, items * BYTES_AN_ITEM)


@dataclass(frozen=True, slots=True)
class _Listing:
    """A source bound to its client, as the engine wants it."""

    source: Source
    client: Client | None
    transform: Transform | None = None
    head: ClassVar[str] = "the listing"
    address: ClassVar[str] = "API_BASE_URL"

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return self.source.scopes

    @property
    def login_scopes(self) -> tuple[Scope, ...]:
        shown = of(self.source, "open_scopes")
        if shown is None or not of(self.source, "cookies"):
            return ()
        return tuple(scope for scope in self.scopes if scope not in shown)

    @property
    def login(self) -> str:
        return login_of(self.source.Options)

    @property
    def login_hint(self) -> str:
        return str(of(self.source, "login_hint")) or f"set {self.login}, or ask for what everybody sees"

    @property
    def walks(self) -> int:
        return int(of(self.source, "walks"))

    @property
    def numbered(self) -> bool:
        return self.source.tables[0].is_numbered

    def resumed(self, walk: Walk, token: str) -> Walk:
        found: Walk = of(self.source, "resumed")(walk, token)
        return found

    @property
    def lists_anew(self) -> bool:
        return bool(of(self.source, "lists_anew"))

    @property
    def has_details(self) -> bool:
        return any(of(self.source, each) is not None for each in ("detail", "details"))

    def universe(self) -> Interval | Mapping[Scope, Interval]:
        found = _ask(self.source, "universe", self.client)
        if not isinstance(found, Interval | Mapping):
            raise _strange(self.source, "universe", found, "an Interval")
        return found

    def changes(self, covered: Mapping[Scope, Covered]) -> Sequence[Walk]:
        if not covered or of(self.source, "changes") is Defaults.changes:
            return ()
        return tuple(_ask(self.source, "changes", self.client, covered))

    def page(self, walk: Walk) -> Page:
        page = _ask(self.source, "page", self.client, walk)
        if not isinstance(page, Page):
            raise _strange(self.source, "page", page, "a Page")
        if page.next == walk:
            raise SourceError(f"the source {self.source.name} would list the same page again and again: {walk.where}")
        if not self.has_details and len(page.details) < len(page.rows):
            # There is nothing else to be had of its items: with their rows they are complete.
            page = replace(page, details={row[0]: page.details.get(row[0], _NOTHING_MORE) for row in page.rows})
        return page if self.transform is None else self.transform.page(page)

    def skip(self, walk: Walk) -> tuple[Interval, Walk | None] | None:
        found: tuple[Interval, Walk | None] | None = of(self.source, "skip")(walk)
        return found

    def probe(self, key: Key | None) -> None:
        client = self.client and self.client.going_first()
        if key is None or of(self.source, "detail") is None:
            _ask(self.source, "universe", client)
        else:
            _ask(self.source, "detail", client, key)


_NOTHING_MORE = Detail({})
_MISSING: Any = None

_Results = Mapping[Key, Detail | Gone | Exception]
_Calls = Callable[[Sequence[Key]], _Results]


def _ask(source: Source, what: str, *args: Any) -> Any:
    """What a method of a source gives; any error that it does not raise on purpose is one of the source."""
    try:
        return getattr(source, what)(*args)
    except FetcherError:
        raise
    except Exception as error:
        log.debug("where it happened", exc_info=True)
        raise SourceError(
            f"the source {source.name} failed in {what}: {type(error).__name__}: {said(error)}"
            " (LOG_LEVEL=DEBUG shows where)"
        ) from error


def made(kind: type[Source], options: Any) -> Source:
    """A source with these options. Raises SourceError."""
    try:
        source = kind(options)
    except FetcherError:
        raise
    except Exception as error:
        log.debug("where it happened", exc_info=True)
        raise SourceError(
            f"the source {kind.name} failed to begin: {type(error).__name__}: {said(error)}"
            " (LOG_LEVEL=DEBUG shows where)"
        ) from error
    # Not asked for: not all sources know them by now.
    if getattr_static(source, "scopes", None) is None:
        raise SourceError(f"the source {kind.name} has no scopes: a tuple that names what a run covers")
    return source


SETTLING_TRIES = 3


def _settled(source: Source, client: Client, path: Place) -> Source:
    """The source with its tables known. Raises ConfigurationError, RemoteError, LoginError."""
    if of(source, "settled") is None:
        return source
    try:
        stored = description_of(path)
    except StoreError:
        stored = None  # The store is about to say what is wrong.
    for attempt in range(1, SETTLING_TRIES + 1):
        try:
            found: Source = _ask(source, "settled", client, stored)
            return found
        except RequestFailed as error:
            if error.outcome is Outcome.DENIED:
                raise LoginError(f"the API refuses the listing ({error})") from None
            if attempt == SETTLING_TRIES or error.outcome is Outcome.GONE:
                raise no_first_answer(error, "API_BASE_URL") from None
            log.warning("no first answer yet (%s); asking again", error)
            if client.stop.wait(backoff(attempt, 5.0)):
                break
        except Stopped:
            break
    raise Interrupted("interrupted before the first answer; nothing was written")


def _strange(source: Source, what: str, found: object, wanted: str) -> SourceError:
    return SourceError(f"the source {source.name} gave {said(repr(found)):.60} for {what}, not {wanted}")


def _details(source: Source, client: Client | None, keys: Sequence[Key]) -> _Results:
    """The stage `detail`: one request a key, a failure being that key's alone, unless the source has a way for many."""
    if of(source, "details") is None:
        return _one_by_one(source, "detail", client, keys)
    try:
        found = _ask(source, "details", client, keys)
        if not isinstance(found, Mapping):
            raise _strange(source, "details", found, "a dict")
    except FetcherError as error:
        return dict.fromkeys(keys, _alone(error))
    return _checked(source, "details", {key: found.get(key, _MISSING) for key in keys})


def _one_by_one(source: Source, what: str, client: Client | None, keys: Sequence[Key]) -> _Results:
    """What the source's method `what` gives for each key, a failure being that key's alone."""
    results: dict[Key, Detail | Gone | Exception] = {}
    for key in keys:
        try:
            results[key] = _ask(source, what, client, key)
        except FetcherError as error:
            results[key] = _alone(error)
    return _checked(source, what, results)


def _checked(source: Source, what: str, results: dict[Key, Detail | Gone | Exception]) -> _Results:
    """The results, and an error instead of what is none."""
    for key, result in results.items():
        if not isinstance(result, Detail | Gone | FetcherError):
            results[key] = _alone(_strange(source, what, result, "a Detail or GONE"))
    return results


def _alone(error: FetcherError) -> FetcherError:
    """An error of the source in an item's details is that item's alone, and asking again does not help."""
    if not isinstance(error, SourceError):
        return error
    return RequestFailed(Outcome.MALFORMED, str(error), lasting=True)


def _transformed(transform: Transform, run: _Calls, keys: Sequence[Key]) -> _Results:
    """What a stage gives, its rows gone through the user's function."""
    return transform.details(run(keys))


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is put together from; `close` lets go of its connections."""

    settings: Settings
    path: Place
    source: Source
    stop: Stop
    governor: Governor
    client: Client | None
    base_url: str
    options: Mapping[str, Any]
    plan: Plan
    listing: _Listing
    stage: Stage
    item_stage: Stage | None

    def open_store(self) -> MirrorStore:
        """The database, open for writing; made where there is none. Raises StoreError, ConfigurationError."""
        return open_store(
            self.path,
            self.source.name,
            self.source.tables,
            self.base_url,
            views=of(self.source, "views"),
            description=of(self.source, "description"),
            clock=self.stop.time,
            warn=log.warning,
            stopped=self.stop.is_set,
            allow_network=self.settings.allow_network_file_system,
        )

    def unlisted(self, first: Callable[[], object]) -> Unlisted:
        """What an engine has for a source that lists nothing; `first` is called first, and where an item is denied."""
        bound = self.listing
        return Unlisted(
            head=bound.head,
            address=bound.address,
            login_hint=bound.login_hint,
            first=first,
            life=lambda: bound.probe(None),
            login=bound.login,
            login_scopes=bound.login_scopes,
        )

    def learn_by(self, store: MirrorStore) -> None:
        """Go on with what `store` knows of the host, and have it written down what is learned."""
        if self.client is not None:
            host = urlsplit(self.base_url).netloc
            self.governor.recall(store.learned(host))
            store.learn(host, self.governor.learned)

    def close(self) -> None:
        """Close the connections."""
        if self.client is not None:
            self.client.close()

    @classmethod
    def make(
        cls,
        name: str,
        db: str | Place | None,
        given: Mapping[str, Any],
        stop: Stop,
        session: requests.Session | None,
        *,
        limit: int | None,
        order: Order,
    ) -> Parts:
        """Put them together. Raises ConfigurationError, and what a source raises that has to ask the API first."""
        settings = load(Settings, {key: value for key, value in given.items() if key in Settings.model_fields})
        path = place_of(db) if db is not None else settings.db_path
        kind = source_for(name, path)
        unknown = set(given) - set(Settings.model_fields) - set(kind.Options.model_fields)
        if unknown:
            raise ConfigurationError(f"no setting of {name} is called {', '.join(sorted(unknown))}")
        if limit is not None and limit < 1:
            raise ConfigurationError(f"limit: must be at least 1, not {limit}")
        if order not in ("newest", "oldest"):
            raise ConfigurationError(f"order: must be newest or oldest, not {order!r}")
        settings = hinted(settings, kind)
        options = load(kind.Options, {key: value for key, value in given.items() if key in kind.Options.model_fields})
        options = remembered(kind, options, path)
        asked = options.model_dump(mode="json", exclude=set(secrets_of(kind.Options)))
        source = made(kind, options)
        listing = _Listing(source, None)
        walks = listing.walks
        workers = settings.max_parallel_requests if listing.has_details else walks
        workers = min(workers, of(kind, "most_workers") or workers)
        # Listing has a slot of its own, except for who wants never two requests open.
        parallel = workers if workers == 1 or not listing.has_details else workers + walks
        governor = Governor(
            stop,
            parallel=parallel,
            ceiling=settings.max_requests_per_second,
            max_pause=settings.max_backoff_seconds,
            least=parallel if settings.min_parallel_requests >= workers else settings.min_parallel_requests,
            lower=settings.latency_lower_threshold,
            upper=settings.latency_upper_threshold,
            refusals=settings.rate_limit_adjustment_threshold,
        )
        base_url = base_url_for(settings, path, kind)
        client = None
        if kind.base_url is not None:
            client = Client(
                base_url,
                governor,
                stop,
                user_agent=settings.user_agent,
                timeout=settings.request_timeout,
                cookies=of(source, "cookies"),
                headers=of(source, "headers"),
                judge=of(source, "judge"),
                judge_answer=of(source, "judge_answer"),
                session=session,
            )
            base_url = client.base_url
            try:
                source = _settled(source, client, path)
            except BaseException:
                client.close()
                raise
        if settings.start_from is not None and not source.tables[0].is_numbered:
            raise ConfigurationError(f"START_FROM (--start-from): the items of {name} have no numbers to begin at")
        transform = Transform.of(settings.transform, source.tables) if settings.transform else None
        plan = Plan(
            workers=workers,
            batch_size=(None if "db_batch_size" in settings.model_fields_set else of(kind, "transaction"))
            or settings.db_batch_size,
            batch_seconds=settings.db_batch_seconds,
            delay=settings.request_delay if client is not None else 0.0,
            # What is wrong with a file is not cured by looking again.
            max_retries=settings.max_retries if client is not None else 0,
            max_backoff=settings.max_backoff_seconds,
            max_outage=settings.max_outage_seconds,
            order=order,
            start_from=settings.start_from,
            full=settings.full_update,
            min_free=kept_free(path, settings.min_free_disk_mb * 1_000_000),
            limit=limit,
            transform=transform.name if transform is not None else None,
        )

        run: _Calls = partial(_details, source, client)
        ask: _Calls = partial(_one_by_one, source, "item", client)
        if transform is not None:
            run, ask = partial(_transformed, transform, run), partial(_transformed, transform, ask)
        return cls(
            settings,
            path,
            source,
            stop,
            governor,
            client,
            base_url,
            asked,
            plan,
            _Listing(source, client, transform),
            Stage("detail", run, of(source, "batch")),
            Stage(ITEM, ask) if of(source, "item") is not None and listing.has_details else None,
        )


def kept_free(path: Place, most: int) -> int:
    """How many bytes of the disk are left free: of a small disk not more than a small part; of a server's, nothing."""
    if isinstance(path, PostgresUrl):
        return 0
    try:
        return min(most, int(shutil.disk_usage(path.absolute().parent).total * SMALL_PART))
    except OSError:
        return most  # The store is about to say what is wrong with the folder.


def hinted(settings: Settings, kind: type[Source]) -> Settings:
    """The settings, and in place of what nobody has set what the source asks for."""
    hints = {name: each for name, each in of(kind, "settings").items() if name not in settings.model_fields_set}
    return settings.model_copy(update=hints)


def base_url_for(settings: Settings, path: Place, kind: type[Source]) -> str:
    """The address that a mirror at `path` is to be made from. Raises ConfigurationError when nobody has named one."""
    if kind.base_url is None:
        return ""
    found = settings.api_base_url or _mirrored_from(path, kind.name) or kind.base_url
    if not found:
        raise ConfigurationError(f"API_BASE_URL (--base-url) is needed: the address of the {kind.name} API to mirror")
    return found


def remembered(kind: type[Source], options: SourceOptions, path: Place) -> SourceOptions:
    """The options, and in place of what nobody has named what the mirror at `path` was made with."""
    try:
        scopes = scopes_of(path)
    except StoreError:
        return options  # The store is about to say what is wrong.
    known = of(kind, "options_for")(scopes) if scopes else {}
    unset = {name for name in known if name not in options.model_fields_set or not getattr(options, name)}
    if of(kind, "description") is not None:
        for name, value in known.items():
            if name not in unset and getattr(options, name) != value:
                raise ConfigurationError(
                    f"{path} mirrors {kind.name} with {name.upper()} {value!r}, not {getattr(options, name)!r}:"
                    " name another database"
                )
    return options.model_copy(update={name: value for name, value in known.items() if name in unset})


def _mirrored_from(path: Place, source: str) -> str | None:
    """The address that a database was mirrored from so far, so that nobody goes on with another host by forgetting."""
    try:
        name, base_url = origin_of(path)
    except StoreError:
        return None
    return base_url if name == source else None
