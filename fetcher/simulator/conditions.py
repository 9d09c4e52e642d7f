"""What holds at a moment for all who ask a simulated API: its limits, outages, load and logins, counted as they ask."""

from __future__ import annotations

from dataclasses import replace

from fetcher.simulator.faults import Answer
from fetcher.simulator.limiter import Allowance, CountingWindow, TokenBucket
from fetcher.simulator.mishaps import make
from fetcher.simulator.profile import Outage, Profile

_OVERLOADED = Answer(503, body=b"{}", name="overload")


class Conditions:
    """A Profile at work from a moment on; every `now` is in seconds since then and never runs backwards.

    Used by the server's thread alone.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._limits: list[tuple[TokenBucket | CountingWindow, Answer]] = [
            *((TokenBucket(each), _refusal("limit", each.retry_after)) for each in profile.limits),
            *((CountingWindow(each), _refusal("window", each.retry_after)) for each in profile.windows),
        ]
        # Refused connections are the listener's affair.
        self._outages = [each for each in profile.outages if each.how != "refuse"]
        self._logins: dict[tuple[str, str], list[float]] = {}

    def begin_outage(self, now: float, seconds: float, how: str) -> None:
        """Befall all requests of the next `seconds` with a mishap."""
        self._outages = [each for each in self._outages if each.every or each.left(now)]
        self._outages.append(Outage(now, seconds, how))

    def turned_away(self, now: float, in_flight: int) -> Answer | None:
        """The answer to a request that is not even looked at, None to go on; `in_flight` counts it too."""
        for outage in self._outages:
            left = outage.left(now)
            if left:
                return replace(make(outage.how, 0, left), name=f"outage-{outage.how}")
        knee = self.profile.knee
        if knee and knee.refuse_above is not None and in_flight > knee.capacity * knee.refuse_above:
            return _OVERLOADED
        for limit, refusal in self._limits:
            if not limit.admits(now):
                return refusal
        return None

    def allowance(self, now: float) -> Allowance | None:
        """What the limit that leaves least still allows, None where there is no limit."""
        found = [limit.allowance(now) for limit, _ in self._limits]
        return min(found, key=lambda each: (each.left, -each.wait), default=None)

    def slowdown(self, in_flight: int) -> float:
        """How many times as long an answer takes with so many requests in flight."""
        knee = self.profile.knee
        return max(1.0, in_flight / knee.capacity) if knee else 1.0

    def logged_in(self, now: float, me: str, pp: str) -> bool:
        """Whether a request with these cookies is one of somebody logged in; each call is one request."""
        login = self.profile.login
        if login is None:
            return True
        if login.cookies and any({"me": me, "pp": pp}.get(name) != value for name, value in login.cookies.items()):
            return False
        life = self._logins.setdefault((me, pp), [now, 0])
        life[1] += 1
        return (login.seconds is None or now - life[0] < login.seconds) and (
            login.requests is None or life[1] <= login.requests
        )


def _refusal(name: str, retry_after: str | None) -> Answer:
    return Answer(429, {} if retry_after is None else {"Retry-After": retry_after}, b"{}", name=name)
