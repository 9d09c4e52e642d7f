"""Whether a login still counts: known items that only a login shows are asked for, one each hour."""

from __future__ import annotations

from collections.abc import Sequence

from fetcher.model import Detail, Gone, Key, Outcome

EVERY_SECONDS = 3600.0
"""Between two looks."""

AGAIN_SECONDS = 60.0
"""Until the next look when nobody can say what came of one."""

ITEMS = 3
"""So many items have to vanish, all of them, before a login counts as expired: any one may really be gone."""


class Canary:
    """When which known item is asked for, and what its answer means. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.due = now + EVERY_SECONDS
        self._turn = 0
        self._left: list[Key] = []
        self._vanished: list[Key] = []

    def choose(self, known: Sequence[Key], now: float) -> Key | None:
        """The item to ask for now, out of those that are known to need a login; None where there is none."""
        self.due = now + EVERY_SECONDS
        if not known:
            return None
        self._turn += 1
        first = self._turn % len(known)
        self._left = [*known[first:], *known[:first]]
        self._vanished = []
        return self._left.pop(0)

    def answered(self, key: Key, result: object, now: float) -> Key | None:
        """What to ask for next, None when all is said: see `expired`."""
        outcome = getattr(result, "outcome", None)
        if isinstance(result, Detail):
            self._vanished = []
        elif isinstance(result, Gone) or outcome in (Outcome.GONE, Outcome.DENIED):
            self._vanished.append(key)
            if self._left:
                return self._left.pop(0)
        else:
            self._vanished = []
            self.due = now + AGAIN_SECONDS
        return None

    @property
    def expired(self) -> tuple[Key, ...]:
        """The items that vanished, when all of them did and nothing is left to ask for; empty otherwise."""
        return tuple(self._vanished) if len(self._vanished) >= ITEMS and not self._left else ()
