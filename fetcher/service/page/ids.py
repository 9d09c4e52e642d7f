"""Ids as people type or paste them: with commas, spaces or newlines between, and ranges such as 10-20."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fetcher.service.service import HIGHEST_ID, MOST_IDS

SHOWN = 5
"""So many mistakes are named."""

_BETWEEN = r"\s,;\[\]\"'"
"""What may stand between ids: JSON's list and a spreadsheet's column included."""

_TOKEN = re.compile(
    rf"(?P<low>[0-9]++)(?:[ \t]*(?:-|\u2013|\u2014|\u2026|\.{{2,3}})[ \t]*(?P<high>[0-9]++))?(?=[{_BETWEEN}]|\Z)"
    rf"|[^{_BETWEEN}]+"
)


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with what was typed; `line` and `column` count from 1, and are 0 where it is no single place."""

    reason: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """The whole sentence."""
        return f"Line {self.line}, character {self.column}: {self.reason}" if self.line else self.reason


@dataclass(frozen=True, slots=True)
class Typed:
    """The ids of a text in their order, once each; or, where `mistakes` has any, none. `further` ones are not named."""

    ids: tuple[int, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    further: int = 0


def read_ids(text: str) -> Typed:
    """Read what somebody has typed."""
    mistakes: list[Mistake] = []
    further = count = 0
    ranges: list[range] = []
    places = _Places(text)
    for found in _TOKEN.finditer(text):
        read = _range(found)
        if isinstance(read, range):
            count += len(read)
            ranges.append(read)
        elif len(mistakes) < SHOWN:
            mistakes.append(Mistake(read, *places.of(found.start())))
        else:
            further += 1
    if not ranges and not mistakes:
        mistakes.append(Mistake("Ids are missing: type at least one."))
    elif count > MOST_IDS:
        mistakes.append(
            Mistake(f"These are {count:,} ids; a job may have {MOST_IDS:,}. Submit them in several, please.")
        )
    if mistakes:
        return Typed(mistakes=tuple(mistakes), further=further)
    return Typed(tuple(dict.fromkeys(each for one in ranges for each in one)))


def shortened(ids: tuple[int, ...], most: int = 12) -> str:
    """Ids as a person would write them: stretches as ranges, and no more than `most` of them."""
    parts: list[str] = []
    for first, last in _stretches(ids):
        if len(parts) == most:
            return f"{', '.join(parts)} …"
        parts.append(f"{first}" if first == last else f"{first}, {last}" if last == first + 1 else f"{first}-{last}")
    return ", ".join(parts)


def _stretches(ids: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    first = last = ids[0]
    for each in ids[1:]:
        if each != last + 1:
            yield first, last
            first = each
        last = each
    yield first, last


def _range(found: re.Match[str]) -> range | str:
    """The ids that a token stands for, or what is wrong with it."""
    token = found[0] if len(found[0]) <= 40 else f"{found[0][:40]}…"
    if found["low"] is None:
        return f"“{token}” is not an id. Ids are whole numbers, ranges are written 10-20."
    low = _number(found["low"])
    high = low if found["high"] is None else _number(found["high"])
    if not (1 <= low <= HIGHEST_ID and 1 <= high <= HIGHEST_ID):
        return f"“{token}” is outside of what ids can be, 1 to {HIGHEST_ID:,}."
    if low > high:
        return f"“{token}” runs backwards: write {high}-{low}."
    return range(low, high + 1)


def _number(digits: str) -> int:
    """Python refuses to read thousands of digits."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) < 12 else HIGHEST_ID + 1


class _Places:
    """Lines and columns of positions that are asked for in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line, self._begin = 1, 0

    def of(self, position: int) -> tuple[int, int]:
        lines = self._text.count("\n", self._begin, position)
        if lines:
            self._line += lines
            self._begin = self._text.rindex("\n", 0, position) + 1
        return self._line, position - self._begin + 1
