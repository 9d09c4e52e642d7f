"""The items that a simulated REST API has, each a pure function of (seed, id), and what changed since."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fetcher.simulator.world import mix

FIRST = 1_577_836_800
"""When the first item was made: the beginning of 2020."""

_STEP = 3600
_WORDS = ("ocean", "lantern", "harbour", "meadow", "copper", "violet", "winter", "station", "paper", "window")


class RestWorld:
    """`items` items with whole numbers for ids, some numbers being left out; the same for the same seed.

    With `token` nobody is answered who does not send it as `Authorization: Bearer`. With `allowance`, which is requests
    and seconds, what is like GitHub answers so many in so many. Every method may be called from any thread.
    """

    def __init__(
        self, seed: int = 0, items: int = 300, token: str | None = None, allowance: tuple[int, float] | None = None
    ) -> None:
        if items < 0:
            raise ValueError(f"items must not be negative: {items}")
        self.seed = seed
        self.token = token
        self.allowance = allowance
        self._salt = mix(seed & (1 << 64) - 1)
        self._lock = threading.Lock()
        self._ids: list[int] = []
        self._newest = 0
        self._changed: dict[int, tuple[int, int]] = {}
        self._era = 0
        while len(self._ids) < items:
            self._newest += 1
            if self._draw(self._newest) % 8:
                self._ids.append(self._newest)

    @property
    def newest(self) -> int:
        """The highest id that there is or was."""
        return self._newest

    @property
    def era(self) -> int:
        """Tokens of another era are known no more."""
        return self._era

    def ids(self) -> Sequence[int]:
        """Of all items that are there, ascending."""
        with self._lock:
            return tuple(self._ids)

    def has(self, id: int) -> bool:
        """Whether there is such an item."""
        with self._lock:
            at = bisect_left(self._ids, id)
            return at < len(self._ids) and self._ids[at] == id

    def item(self, id: int) -> dict[str, Any]:
        """An item as its own request and as lists tell it."""
        draw = self._draw(id)
        version, updated = self._changed.get(id, (0, self.created(id)))
        return {
            "id": id,
            "title": f"{_WORDS[draw % 10]} {_WORDS[draw // 10 % 10]}" + (f" {version}" if version else ""),
            "score": draw // 100 % 50 if draw % 3 else None,
            "rating": draw % 500 / 100,
            "open": bool(draw & 1),
            "author": {"name": f"user{draw // 1000 % 30}", "id": draw // 1000 % 30},
            "tags": [_WORDS[draw // 7 % 10], _WORDS[draw // 11 % 10]][: draw % 3],
            "lines": [{"id": id * 10 + number, "text": _WORDS[(draw + number) % 10]} for number in range(draw % 4)],
            "created_at": text_of(self.created(id)),
            "updated_at": text_of(updated),
        }

    def created(self, id: int) -> int:
        """When an item was made (Unix seconds): neighbours share a second."""
        return FIRST + (id - id % 3) * _STEP

    def updated(self, id: int) -> int:
        """When an item was last changed (Unix seconds)."""
        return self._changed.get(id, (0, self.created(id)))[1]

    def arrive(self, n: int = 1) -> list[int]:
        """Add new items on top; returns their ids."""
        with self._lock:
            ids = list(range(self._newest + 1, self._newest + n + 1))
            self._ids += ids
            self._newest += n
            self._changed |= {id: (0, int(time.time())) for id in ids}
        return ids

    def remove(self, *ids: int) -> None:
        """Take items away."""
        with self._lock:
            self._ids = [id for id in self._ids if id not in ids]

    def restore(self, *ids: int) -> None:
        """Bring items back."""
        with self._lock:
            for id in set(ids).difference(self._ids):
                insort(self._ids, id)

    def update(self, *ids: int) -> None:
        """Change items now."""
        with self._lock:
            for id in ids:
                self._changed[id] = (self._changed.get(id, (0, 0))[0] + 1, int(time.time()))

    def forget_tokens(self) -> None:
        """From now on know no token that was given before."""
        self._era += 1

    def _draw(self, id: int) -> int:
        return mix(self._salt ^ id)


def text_of(seconds: int) -> str:
    """A moment as ISO 8601 has it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> int:
    """A moment from ISO 8601 or from Unix seconds. Raises ValueError."""
    return int(text) if text.isdigit() else int(datetime.fromisoformat(text).timestamp())
