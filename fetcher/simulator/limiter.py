"""How a simulated host limits its clients: pure arithmetic over the seconds since the server's start."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_ROUNDING = 1e-6  # of a token: a client that keeps exactly to the rate is not refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A token bucket: `rate` requests a second, `burst` (default: a second's worth) saved up at most.

    A request that finds it empty is refused with 429 and locks everyone out for `lockout` seconds, in which every
    request is refused too. `later` are (seconds after the start, rate from then on), in order. `retry_after` is sent
    with each refusal as it is.
    """

    rate: float
    burst: float | None = None
    lockout: float = 0.0
    later: tuple[tuple[float, float], ...] = ()
    retry_after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """`requests` in any `seconds` are answered; one more, and everyone is refused with 429 for `block` seconds.

    After the block the count begins anew. `retry_after` is sent with each refusal as it is.
    """

    requests: int
    seconds: float
    block: float
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much may be asked: `left` of `most` requests now, all of them after `reset` seconds, one after `wait`."""

    most: int
    left: int
    reset: float
    wait: float


class TokenBucket:
    """A Limit at work."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._rates = deque(sorted(limit.later))
        self._rate = limit.rate
        self._most = max(1.0, limit.rate if limit.burst is None else limit.burst)
        self._tokens = self._most
        self._filled_at = 0.0
        self._locked_until = 0.0

    def admits(self, now: float) -> bool:
        """Whether a request at `now` is answered; `now` never runs backwards."""
        while self._rates and self._rates[0][0] <= now:
            when, rate = self._rates.popleft()
            self._fill(when)
            self._rate = rate
        self._fill(now)
        if now < self._locked_until:
            return False
        if self._tokens < 1.0 - _ROUNDING:
            self._locked_until = now + self._limit.lockout
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def allowance(self, now: float) -> Allowance:
        """What is left at `now`, right after `admits` was asked."""
        missing = 1.0 - _ROUNDING - self._tokens
        wait = max(0.0, self._locked_until - now, missing / self._rate)
        left = 0 if now < self._locked_until else int(self._tokens + _ROUNDING)
        return Allowance(int(self._most), left, max(wait, (self._most - self._tokens) / self._rate), wait)

    def _fill(self, now: float) -> None:
        if now > self._filled_at:
            self._tokens = min(self._most, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now


class CountingWindow:
    """A Window at work."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._recent: deque[float] = deque(maxlen=window.requests)
        self._blocked_until = 0.0

    def admits(self, now: float) -> bool:
        """Whether a request at `now` is answered; `now` never runs backwards."""
        if now < self._blocked_until:
            return False
        window, recent = self._window, self._recent
        if len(recent) == window.requests and (not recent or now - recent[0] < window.seconds):
            self._blocked_until = now + window.block
            recent.clear()
            return False
        recent.append(now)
        return True

    def allowance(self, now: float) -> Allowance:
        """What is left at `now`, right after `admits` was asked."""
        most, seconds = self._window.requests, self._window.seconds
        counted = [each for each in self._recent if now - each < seconds]
        wait = max(0.0, self._blocked_until - now)
        reset = max(wait, counted[-1] + seconds - now if counted else 0.0)
        if len(counted) == most:
            wait = max(wait, counted[0] + seconds - now if counted else seconds)
        return Allowance(most, 0 if now < self._blocked_until else most - len(counted), reset, wait)
