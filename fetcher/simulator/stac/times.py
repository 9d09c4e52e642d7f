"""Moments as whole microseconds since 1970 (UTC): read from RFC 3339 and written as STAC items have them."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND

_EPOCH = date(1970, 1, 1).toordinal()
_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)

Interval = tuple[int | None, int | None]
"""The first and the last moment, both included; None = open."""


def read(text: str, *, up: bool = False) -> int:
    """The moment that a text names, rounded down to a microsecond, or `up`. Raises ValueError."""
    found = _MOMENT.fullmatch(text)
    if not found:
        raise ValueError(f"not an RFC 3339 date and time: {text!r}")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, sign, away_hours, away_minutes = found.groups()[6:]
    # A leap second is a true one; that is as much as is known of it here.
    if hour > 23 or minute > 59 or second > 60 or int(away_hours or 0) > 23 or int(away_minutes or 0) > 59:
        raise ValueError(f"no such time: {text!r}")
    moment = (date(year, month, day).toordinal() - _EPOCH) * DAY + hour * HOUR + minute * MINUTE + second * SECOND
    if sign:
        away = int(away_hours) * HOUR + int(away_minutes) * MINUTE
        moment += away if sign == "-" else -away
    fraction = fraction or ""
    moment += int(fraction[:6].ljust(6, "0"))
    return moment + (1 if up and fraction[6:].strip("0") else 0)


def read_interval(text: str) -> Interval:
    """A moment or an interval as the parameter `datetime` has it. Raises ValueError."""
    parts = text.split("/")
    if len(parts) == 1:
        # Rounded towards each other: a moment between two microseconds is no item's.
        return read(text, up=True), read(text)
    if len(parts) != 2:
        raise ValueError(f"not an interval: {text!r}")
    low, high = (None if part in ("", "..") else part for part in parts)
    if low is None and high is None:
        raise ValueError("an interval is open at one end at most")
    first, last = read(low, up=True) if low else None, read(high) if high else None
    if low and high and read(low) > read(high):
        raise ValueError("an interval must not end before it begins")
    return first, last


def write(moment: int) -> str:
    """A moment in UTC, with as many digits of a second as it needs: none, three or six."""
    days, rest = divmod(moment, DAY)
    seconds, micros = divmod(rest, SECOND)
    if not micros:
        return f"{_day(days)}T{_clock(seconds)}Z"
    return (
        f"{_day(days)}T{_clock(seconds)}.{micros // 1000:03}Z"
        if not micros % 1000
        else (f"{_day(days)}T{_clock(seconds)}.{micros:06}Z")
    )


@lru_cache(maxsize=8192)
def _day(day: int) -> str:
    return date.fromordinal(_EPOCH + day).isoformat()


def _clock(seconds: int) -> str:
    return _MINUTES[seconds // 60] + _SECONDS[seconds % 60]


# Looked up, since an item has three moments and a page hundreds.
_MINUTES = tuple(f"{minute // 60:02}:{minute % 60:02}:" for minute in range(1440))
_SECONDS = tuple(f"{second:02}" for second in range(60))
