"""Times of STAC: RFC 3339 texts, whole Unix seconds, and intervals of both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fetcher.errors import ConfigurationError
from fetcher.model import Interval

FIRST = -62_135_596_800
"""The first second of the year 1, before which no text reaches."""

LAST = 253_402_300_799
"""The last second of the year 9999."""

_PART = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?\Z", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})\Z", re.ASCII)


def seconds(text: object) -> int | None:
    """The whole Unix seconds of an RFC 3339 text, rounded down; None when it is none."""
    if type(text) is not str:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        # A leap second is the second after, for whoever counts none.
        if ":60" not in text:
            return None
        earlier = seconds(text.replace(":60", ":59", 1))
        return None if earlier is None else earlier + 1
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _SECOND


def text_of(second: int) -> str:
    """The RFC 3339 text of a Unix second."""
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


@dataclass(frozen=True, slots=True)
class Asked:
    """What `--datetime` asks for: the seconds, and the texts of the ends, None where there is no end."""

    seconds: Interval
    begin: str | None
    end: str | None

    def window(self, lo: int, hi: int, *, head: bool, sharp: bool = False) -> str | None:
        """The `datetime` of a search for the seconds from `lo` to `hi`, with `head` up to the end of what is asked for.

        None when that is all times. Intervals include both their ends, so the end is the beginning of the next second:
        nothing lies between neighbours. With `sharp` it ends just below that.
        """
        begin = (self.begin or "..") if lo <= self.seconds.lo else text_of(lo)
        if head or hi >= self.seconds.hi:
            end = self.end or ".."
        else:
            # No API that we know of is more exact than that; one that is less so lists some items twice.
            end = f"{text_of(hi)[:-1]}.999999999Z" if sharp else text_of(hi + 1)
        return None if begin == end == ".." else f"{begin}/{end}"


def asked(text: str | None) -> Asked:
    """What `--datetime` asks for: an instant, or an interval whose ends may be `..` or empty.

    A date, a month or a year stands for all of it. Raises ConfigurationError.
    """
    begin, slash, end = (text or "..").partition("/")
    if not slash:
        end = begin
    lo, first = (FIRST, None) if begin in ("", "..") else _bound(begin, text, last=False)
    hi, last = (LAST, None) if end in ("", "..") else _bound(end, text, last=True)
    if hi < lo:
        raise ConfigurationError(f"--datetime: {text!r:.80} ends before it begins")
    return Asked(Interval(lo, hi), first, last)


def _bound(part: str, whole: str | None, *, last: bool) -> tuple[int, str]:
    """The second and the text of one end of an interval."""
    match = _PART.match(part)
    try:
        if match:
            year, month, day = (int(each) if each else None for each in match.groups())
            begin = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
            if not last:
                return (begin - _EPOCH) // _SECOND, begin.strftime("%Y-%m-%dT%H:%M:%SZ")
            if day:
                end = begin + timedelta(days=1)
            elif month:
                end = (begin + timedelta(days=31)).replace(day=1)
            else:
                end = begin.replace(year=begin.year + 1)
            second = (end - _EPOCH) // _SECOND - 1
            return second, f"{text_of(second)[:-1]}.999999Z"
    except (ValueError, OverflowError):
        pass
    found = seconds(part) if _MOMENT.match(part) else None
    if found is None:
        raise ConfigurationError(
            f"--datetime: {whole!r:.80} is no RFC 3339 time or interval, such as 2020-01-01/2020-12"
        )
    return found, part


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
