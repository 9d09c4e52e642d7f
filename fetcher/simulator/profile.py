"""All that can be set to go wrong with a simulated API, as one value; what it decides can be asked beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from zlib import crc32

from fetcher.simulator import bodies
from fetcher.simulator.faults import Answer
from fetcher.simulator.limiter import Limit, Window
from fetcher.simulator.mishaps import MISHAPS, make
from fetcher.simulator.world import World, mix

HEAD_ATTEMPTS = 2
"""At most so many attempts at the list head go wrong: nothing but nonsense at first means a wrong address."""

_ALL = 2.0**64


@dataclass(frozen=True, slots=True)
class Share:
    """The mishap `what` befalls this share of requests (0 to 1), on the first `attempts` of each key, None = on all.

    `seconds` is for mishaps that take some: how slow, how long to wait.
    """

    what: str
    share: float
    attempts: int | None = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.what not in MISHAPS:
            raise ValueError(f"there is no mishap {self.what!r}: {', '.join(MISHAPS)}")


@dataclass(frozen=True, slots=True)
class Outage:
    """From `start` (seconds after the server's own) for `seconds` nobody is answered, again `every` so many seconds.

    `how` is "refuse" (nothing listens, open connections are reset) or the mishap that befalls all requests.
    """

    start: float
    seconds: float
    how: str = "refuse"
    every: float | None = None

    def __post_init__(self) -> None:
        if self.how != "refuse" and self.how not in MISHAPS:
            raise ValueError(f"there is no such outage: {self.how!r} (refuse, or one of {', '.join(MISHAPS)})")

    def left(self, now: float) -> float:
        """Seconds until it is over, 0 when there is none at `now`."""
        since = now - self.start
        if since < 0:
            return 0.0
        return max(0.0, self.seconds - (since % self.every if self.every else since))


@dataclass(frozen=True, slots=True)
class Knee:
    """A host that answers `capacity` requests at once in its latency; more of them take as many times as long.

    With more than `refuse_above` times `capacity` in flight it answers 503 (None: never).
    """

    capacity: int
    refuse_above: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How long a login counts: `requests` and `seconds` from its first use, None = for ever.

    A login is the values of the cookies `me` and `pp`; other values are another login, with a life of its own. With
    `cookies` only those values count.
    """

    requests: int | None = None
    seconds: float | None = None
    cookies: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What goes wrong with a simulated API, and what changes while it is watched.

    What befalls a request depends on (`seed`, kind, key, attempt) alone, the rest on the seconds since the start.

    - `mishaps`: what befalls single requests.
    - `gone_404`, `gone_200`: shares of the items whose details are gone, said by HTTP's 404 or by `notFound` with 200.
    - `recorded`: share of the items whose details are the ones recorded in 2016.
    - `limits`, `windows`, `outages`, `knee`, `login`: what holds for all requests.
    - `latency`, `jitter`: seconds on top of the server's own.
    - `arrive`, `delete`, `undelete`, `reflag`: items a second to which that happens.
    """

    about: str = ""
    seed: int = 0
    mishaps: tuple[Share, ...] = ()
    gone_404: float = 0.0
    gone_200: float = 0.0
    recorded: float = 0.0
    limits: tuple[Limit, ...] = ()
    windows: tuple[Window, ...] = ()
    outages: tuple[Outage, ...] = ()
    knee: Knee | None = None
    login: Login | None = None
    latency: float = 0.0
    jitter: float = 0.0
    arrive: float = 0.0
    delete: float = 0.0
    undelete: float = 0.0
    reflag: float = 0.0

    def gone(self, key: int) -> bool:
        """Whether the details of this item are gone for good."""
        return self._lot(key) < self.gone_404 + self.gone_200

    def details(self, world: World, key: int) -> dict[str, Any] | None:
        """The `tags` and `comments` that a mirror should have of an item in the end; None when it is gone."""
        if self.gone(key) or not world.flag(key):
            return None
        if self._is_recorded(key):
            whole = json.loads(bodies.recorded_details())
            return {name: whole[name] for name in ("tags", "comments")}
        return world.info(key)

    def mishap(self, kind: str, key: int, attempt: int) -> str | None:
        """The name of what befalls this request."""
        found = self._drawn(kind, key, attempt)
        return found[0].what if found else None

    def fault(self, kind: str, key: int, attempt: int) -> Answer | None:
        """The answer to give instead of the true one, None when there is nothing wrong."""
        found = self._drawn(kind, key, attempt) if self.mishaps else None
        wrong = make(found[0].what, found[1], found[0].seconds) if found else None
        lasting = self._lasting(key) if kind == "info" else None
        if lasting is None or wrong is None:
            return wrong or lasting
        if wrong.status is not None or wrong.raw is not None:
            return wrong
        # What is only done to the true answer is done to what takes its place.
        body = wrong.edit(lasting.body) if wrong.edit else lasting.body
        return replace(wrong, status=lasting.status, body=body, edit=None)

    def _drawn(self, kind: str, key: int, attempt: int) -> tuple[Share, int] | None:
        draw = mix(mix(mix(self.seed) ^ _number_of(kind)) ^ mix(key) ^ attempt)
        place = draw / _ALL
        at_head = (kind == "list" and key == 0) or kind == "landing"
        for each in self.mishaps:
            most = each.attempts
            if most is not None and attempt > (min(most, HEAD_ATTEMPTS) if at_head else most):
                continue
            if kind in MISHAPS[each.what].kinds:
                if place < each.share:
                    return each, mix(draw)
                place -= each.share
        return None

    def _lasting(self, key: int) -> Answer | None:
        """What takes the place of an item's details at every attempt."""
        if not (self.gone_404 or self.gone_200 or self.recorded):
            return None
        if self.gone(key):
            if self._lot(key) < self.gone_404:
                return Answer(404, body=bodies.NOT_FOUND, name="gone-404")
            return Answer(200, body=bodies.NOT_FOUND, name="gone-200")
        if self._is_recorded(key):
            return Answer(200, body=bodies.recorded_details(), name="recorded")
        return None

    def _is_recorded(self, key: int) -> bool:
        return not self.gone(key) and mix(self._salt(key)) / _ALL < self.recorded

    def _lot(self, key: int) -> float:
        return mix(mix(self._salt(key))) / _ALL

    def _salt(self, key: int) -> int:
        # Apart from what befalls single requests: a share of one is no share of the other.
        return mix(self.seed) ^ mix(key) ^ 0x60E


@cache
def _number_of(kind: str) -> int:
    return crc32(kind.encode())
