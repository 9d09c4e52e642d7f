"""What keeps a mirror from working, and what to do about it: settings, API, login, clock, disk and database.

`diagnose` looks at all of it and writes nothing; a run may be going on. Each part is a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from fetcher.all_settings import all_settings
from fetcher.doctor import database, place
from fetcher.doctor.finding import Finding, Level, bad, exit_code, note, ok
from fetcher.doctor.remote import Remote, Witness, examine_login
from fetcher.doctor.settings import (
    examine_embedder,
    examine_file,
    examine_transform,
    examine_user_agent,
    examine_values,
)
from fetcher.errors import ConfigurationError, Stopped, StoreError
from fetcher.governor import Governor
from fetcher.mirror import BYTES_AN_ITEM, base_url_for, kind_of, remaining, remembered
from fetcher.place import Place, place_of
from fetcher.settings import ENV_FILE, Settings, SourceOptions
from fetcher.sources import Defaults, Source, find, of
from fetcher.stop import Stop
from fetcher.stores.health import Health, examine, is_begun
from fetcher.stores.opening import is_new
from fetcher.stores.origin import description_of, source_of
from fetcher.stores.texts import SOURCE as TEXTS
from fetcher.texts.settings import TextSettings

__all__ = ["Finding", "Level", "diagnose", "exit_code"]

_LEAST_SECRET = 6
"""A shorter text than this is no secret, and stands in too many words to be taken out of them."""


def diagnose(
    db: str | Place | None = None,
    *,
    source: str = "pr0gramm",
    offline: bool = False,
    session: requests.Session | None = None,
    stop: Stop | None = None,
    on_finding: Callable[[Finding], None] = lambda _: None,
    **settings: Any,
) -> list[Finding]:
    """Look at all that a mirror at `db` needs, as `fetch` with these arguments would find it; writes nothing.

    `source` is where a database that does not exist yet is to be mirrored from. The API is asked twice at most, with
    `offline` never. `on_finding` hears of each finding as it is made. Raises nothing but Stopped.
    """
    visit = _Visit(place_of(db) if db is not None else None, source, settings, session, stop or Stop())
    found = []
    for each in visit.findings(offline=offline):
        clean = Finding(each.what, each.level, visit.without_secrets(each.message), visit.without_secrets(each.remedy))
        on_finding(clean)
        found.append(clean)
    return found


class _Visit:
    """One examination, as far as it has come."""

    def __init__(
        self, db: Place | None, source: str, given: dict[str, Any], session: requests.Session | None, stop: Stop
    ) -> None:
        self._db = db
        self._source_name = source
        self._given = given
        self._session = session
        self._stop = stop
        self._path: Place = db or Path()
        self._settings = Settings.model_construct()
        self._options: BaseSettings | None = None
        self._texts: BaseSettings | None = None
        self._kind: type[Source] | None = None
        self._remote: Remote | None = None
        self._source: Source | None = None
        self._health: Health | None = None
        self._misset = False
        self._texts_alone = False

    def findings(self, *, offline: bool) -> Iterator[Finding]:
        for each in self._safely("settings", self._examine_settings):
            self._misset = self._misset or each.level == "bad"
            yield each
        if self._texts_alone:
            offline = True  # There is nothing to be asked.
        elif not self._misset:
            yield from self._safely("network", lambda: self._examine_remote(offline=offline))
        if self._misset and not offline:
            yield note("network", "the API was not asked, for the settings are wrong", "correct them first")
        if isinstance(self._path, Path):
            yield from self._safely("file system", self._examine_file_system)
        yield from self._safely("database", self._examine_database)
        yield from self._safely("settings", self._examine_embedder)
        if isinstance(self._path, Path):
            yield from self._safely("disk", self._examine_disk)

    def without_secrets(self, text: Any) -> Any:
        """A text without any of our secrets, which an answer may have repeated."""
        values = [value for each in (self._options, self._texts) if each is not None for value in dict(each).values()]
        for value in values:
            secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
            if text and len(secret) >= _LEAST_SECRET:
                text = text.replace(secret, "…")
        return text

    def _safely(self, what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        """The findings of one check, whatever becomes of it."""
        try:
            yield from check()
        except Stopped:
            raise
        except ConfigurationError as error:
            yield bad("settings", str(error), "correct it")
        except StoreError as error:
            yield database.unusable(self._path, error)
        except Exception as error:  # noqa: BLE001 - what is examined may be broken in any way, and so may a source
            yield bad(
                what,
                f"this could not be examined: {type(error).__name__}: {' '.join(str(error).split())}",
                "see what else is said here; if that does not explain it, it is an error of ours",
            )

    def _examine_settings(self) -> Iterator[Finding]:
        models = all_settings()
        if self._db is not None and self._is_described(self._db):
            models.append(kind_of(self._db).Options)
        yield from examine_file(ENV_FILE, models)
        (loaded,), wrong = examine_values([Settings], self._given, ENV_FILE)
        assert isinstance(loaded, Settings)
        self._settings = loaded
        self._path = self._db or loaded.db_path
        yield from wrong
        if self._mirrored() == TEXTS:
            self._texts_alone = True
            yield from self._examine_text_settings()
            return
        described = self._is_described(self._path)
        kind = self._kind = kind_of(self._path) if described else find(self._mirrored() or self._source_name)
        (self._options,), wrong_options = examine_values([kind.Options], self._given, ENV_FILE)
        yield from wrong_options
        unknown = set(self._given) - set(Settings.model_fields) - set(kind.Options.model_fields)
        if unknown:
            yield bad("settings", f"no setting of {kind.name} is called {', '.join(sorted(unknown))}", "leave it out")
        yield from examine_user_agent(loaded)
        if loaded.transform:
            yield from examine_transform(loaded.transform, kind)
        assert isinstance(self._options, SourceOptions)
        source = kind(remembered(kind, self._options, self._path))
        if kind.base_url is None:
            self._source = source
            if not self._misset:
                yield ok("settings", f"all are valid; {kind.name} are read on this machine")
            return
        base_url = base_url_for(loaded, self._path, kind)
        governor = Governor(
            self._stop, parallel=1, ceiling=loaded.max_requests_per_second, max_pause=loaded.max_backoff_seconds
        )
        client = Witness(
            base_url,
            governor,
            self._stop,
            user_agent=loaded.user_agent,
            timeout=loaded.request_timeout,
            cookies=of(source, "cookies"),
            headers=of(source, "headers"),
            judge=of(source, "judge"),
            judge_answer=of(source, "judge_answer"),
            session=self._session,
        )
        self._remote = Remote(source, client, loaded.request_timeout)
        if not self._misset:  # Which has taken in all that was yielded up to here.
            yield ok("settings", f"all are valid; {kind.name} is asked at {base_url}")

    def _examine_text_settings(self) -> Iterator[Finding]:
        """The settings of a database of texts alone: nothing is mirrored, and the network is not asked."""
        yield from self._load_texts()
        unknown = set(self._given) - set(Settings.model_fields) - set(TextSettings.model_fields)
        if unknown:
            yield bad("settings", f"no setting of texts is called {', '.join(sorted(unknown))}", "leave it out")
        if not self._misset:
            yield ok("settings", "all are valid; there are texts alone here, nothing is mirrored")

    def _load_texts(self) -> Iterator[Finding]:
        (self._texts,), wrong = examine_values([TextSettings], self._given, ENV_FILE)
        yield from wrong

    def _examine_embedder(self) -> Iterator[Finding]:
        """Whether texts could be embedded on: asks the network nothing."""
        found = self._health.texts if self._health is not None else None
        if found is None:
            return
        if self._texts is None:
            for each in self._load_texts():
                self._misset = True
                yield each
        assert isinstance(self._texts, TextSettings)
        if not self._misset:
            yield from examine_embedder(self._texts, self._settings, found.model, self._stop)

    def _mirrored(self) -> str | None:
        """The source that the database mirrors, None when it does not tell."""
        try:
            return source_of(self._path)
        except StoreError:
            return None

    @staticmethod
    def _is_described(path: Place) -> bool:
        """Whether a database mirrors an API that it knows the description of."""
        try:
            return description_of(path) is not None
        except StoreError:
            return False

    def _examine_remote(self, *, offline: bool) -> Iterator[Finding]:
        if self._source is not None:
            # Reading what is here asks no network: what is wrong with it is a setting.
            self._source.universe(None)
            yield ok("settings", f"all {len(self._source.scopes):,} paths are there to be read")
            return
        assert self._remote is not None
        if offline:
            yield from examine_login(self._remote.source, tried=False)
            return
        try:
            yield from self._remote.examine()
        finally:
            self._remote.client.close()

    def _examine_database(self) -> Iterator[Finding]:
        path = self._path
        if is_new(path):
            yield database.missing(path)
            return
        if not is_begun(path):
            yield database.unmade(path)
            return
        if self._kind is None and not self._texts_alone:
            return  # Its source is not installed, which has been said.
        self._health = examine(path, self._kind.tables if self._kind is not None else ())
        position = of(self._kind, "position_text") if self._kind is not None else Defaults.position_text
        yield from database.examine_database(path, self._health, position)
        if self._health.overview is not None:
            yield database.examine_learned(self._health.learned)

    def _examine_file_system(self) -> Iterator[Finding]:
        assert isinstance(self._path, Path)
        yield from place.examine_file_system(self._path, allowed=self._settings.allow_network_file_system)

    def _examine_disk(self) -> Iterator[Finding]:
        assert isinstance(self._path, Path)
        yield from place.examine_permissions(self._path)
        needed = self._needed()
        universe = self._remote.universe if self._remote is not None else None
        yield from place.examine_room(self._path, needed, of_all=universe is not None)
        yield from place.examine_temporary()

    def _needed(self) -> int | None:
        """Bytes that what is to be fetched will take, None when nobody knows."""
        overview = self._health.overview if self._health is not None else None
        if self._remote is not None and self._remote.universe is not None:
            try:
                start = remaining(self._remote.source, self._remote.client, self._path, self._remote.universe)
                return start.estimate * BYTES_AN_ITEM if start.estimate is not None else None
            except (StoreError, ConfigurationError):
                return None
        if overview is None:
            return 0 if self._texts_alone else None
        return overview.work * BYTES_AN_ITEM
