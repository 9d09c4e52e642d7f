"""Whether the API still knows us: what it means that items are denied, or that what only a login shows vanishes."""

from __future__ import annotations

import logging

from fetcher.calls import Asked, Calls
from fetcher.canary import ITEMS, Canary
from fetcher.contracts import Source, Store
from fetcher.errors import LoginError, RequestFailed
from fetcher.model import Detail, Key, Outcome, Stage
from fetcher.outage import Verdict
from fetcher.stop import Stop

log = logging.getLogger("fetcher")


class Login:
    """The items that were denied and wait for a word from the list head, and when a login was last seen to count."""

    def __init__(self, source: Source, stage: Stage, store: Store, stop: Stop, calls: Calls) -> None:
        self._source = source
        self._stage = stage
        self._store = store
        self._stop = stop
        self._calls = calls
        self._denied: list[tuple[tuple[Key, ...], RequestFailed]] = []
        self._canary = Canary(stop.now()) if source.login_scopes else None
        self._seen_at = stop.time()

    def look(self) -> None:
        """Now and then ask for something that only a login shows: without it such items may look deleted."""
        canary = self._canary
        now = self._stop.now()
        if canary is None or now < canary.due:
            return
        self._ask_for(canary.choose(self._store.fetched(self._source.login_scopes, ITEMS), now))

    def answered(self, key: Key, result: object) -> bool:
        """What was looked for has come, or not. Returns whether the login has expired."""
        canary = self._canary
        assert canary is not None
        self._ask_for(canary.answered(key, result, self._stop.now()))
        if isinstance(result, Detail):
            self._seen_at = self._stop.time()
        return bool(canary.expired)

    def expired(self) -> LoginError:
        """Make due again what looked deleted without a login; returns the error to end with."""
        restored = self._store.restore(self._source.login_scopes, self._seen_at)
        if restored:
            log.warning("%d items looked deleted since the login was last seen: they are due again", restored)
        return LoginError(
            f"items that only a login shows have vanished, {ITEMS} of {ITEMS}: "
            f"the login has expired, renew {self._source.login}"
        )

    def needed(self, error: RequestFailed) -> LoginError:
        """The error to end with where even the list head is denied."""
        return LoginError(f"the API refuses {self._source.head} ({error}): {self._source.login_hint}")

    def denied(self, keys: tuple[Key, ...], error: RequestFailed) -> None:
        """These were denied. Is it they alone, or is the login gone? The list head tells."""
        self._denied.append((keys, error))
        if len(self._denied) == 1:
            self.ask_head()

    def ask_head(self) -> None:
        """Ask for the list head."""
        self._calls.question(Asked.HEAD, self._source.universe)

    def head_answered(self, result: object) -> list[Verdict[tuple[Key, ...]]]:
        """What the list head means for what was denied; raises LoginError where it is denied too."""
        denied, self._denied = self._denied, []
        if not isinstance(result, BaseException):
            return [Verdict(keys, error, True) for keys, error in denied]
        if not isinstance(result, RequestFailed):
            raise result
        if result.outcome is Outcome.DENIED:
            raise self.needed(result)
        if result.outcome in (Outcome.LIMITED, Outcome.UNAVAILABLE):
            # No word from the head: the items are asked for again, and if they are denied, so is it.
            return [Verdict(keys, result, False) for keys, _ in denied]
        return [Verdict(keys, _unexplained(error, result), True) for keys, error in denied]

    def _ask_for(self, key: Key | None) -> None:
        if key is not None:
            self._calls.question(Asked.LOGIN, self._hidden, key)

    def _hidden(self, key: Key) -> tuple[Key, object]:
        return key, self._stage.run((key,))[key]


def _unexplained(error: RequestFailed, head: RequestFailed) -> RequestFailed:
    words = f"{error}, and the list head does not say why: {head}"
    return RequestFailed(Outcome.UNAVAILABLE, words, status=error.status, body=error.body)
