"""What answers hold: the rows of a page and of an item's own request, and what an answer means besides."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fetcher.client import MOST_EVIDENCE, Answer
from fetcher.errors import RequestFailed
from fetcher.model import Detail, Failure, Key, Outcome, Row, Table
from fetcher.rows import RowBuilder, Unusable, integer, storable_text
from fetcher.sources.rest.description import Constant, Description, Limit, Signs, at
from fetcher.sources.rest.paging import seconds
from fetcher.sources.rest.tables import TIME, elements

_SINCE_1970 = 1_000_000_000
"""A number of seconds above this is a moment, not a wait."""


@dataclass(slots=True)
class Listed:
    """The items of a page: their objects, their rows, what could not be used, and their children by key.

    `flaw` says what is wrong where some have no key, so that nobody can say what they are; `shared` is a key that
    several items have.
    """

    objects: list[Any]
    rows: dict[Key, Row] = field(default_factory=dict)
    failures: dict[Key, Failure] = field(default_factory=dict)
    details: dict[Key, Detail] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    flaw: str = ""
    shared: Key | None = None

    @property
    def keys(self) -> list[Key]:
        """Of all items listed, usable or not."""
        return [*self.rows, *self.failures]


class Reader:
    """Reads the answers of one API; safe to share between threads."""

    def __init__(self, description: Description, tables: Sequence[Table]) -> None:
        self._description = description
        self._items = RowBuilder(tables[0])
        self._key = tables[0].columns[0]
        self._children = {table.name: RowBuilder(table) for table in tables[1:]}
        self._timed = description.list.cursor if description.list.time is not None else None
        self._time = [column.name for column in tables[0].columns].index(TIME) if self._timed is not None else 0
        self._taken = {each.from_ for each in description.tables.values()}

    def objects(self, answer: Answer) -> list[Any]:
        """The items of a page as they came. Raises RequestFailed (malformed)."""
        path = self._description.list.items
        found = at(answer.data, path)
        if type(found) is not list:
            raise answer.malformed(
                f"list.items: no list at {path!r}" if path != "." else "list.items: the body is no list"
            )
        inner = self._description.list.item
        return found if inner == "." else [at(each, inner) for each in found]

    def listed(self, answer: Answer) -> Listed:
        """The items of a page. Raises RequestFailed (malformed) where there is no list."""
        page = Listed(self.objects(answer))
        brings = self._description.detail is None and self._children
        for each in page.objects:
            try:
                row = self._row(each, page.notes)
                if brings:
                    page.details[row[0]] = Detail(self._rows(each, row[0], page.notes))
            except RequestFailed as error:
                key = self._key_of(each)
                if key is None:
                    page.flaw = f"list.key: an item cannot be told from others: {error}"
                    continue
                body = answer.body[:MOST_EVIDENCE]
                page.failures[key] = Failure("item", key, Outcome.MALFORMED, str(error), answer.status, body)
                page.rows.pop(key, None)
            else:
                if page.rows.setdefault(row[0], row) != row:
                    page.shared = row[0]
                    page.notes.append(f"list.key: items of one page have the same {self._key.name}: the last is kept")
                page.rows[row[0]] = row
                page.failures.pop(row[0], None)
        return page

    def first(self, answer: Answer) -> Listed:
        """The items of the first page. Raises RequestFailed (malformed) where these show that `key` names no item."""
        page = self.listed(answer)
        if page.objects and not page.keys:
            raise answer.malformed(page.flaw)
        if page.shared is not None:
            raise answer.malformed(
                f"list.key: {self._key.name} names no item: several of a page have {page.shared!r:.60}"
            )
        return page

    def time(self, row: Row) -> int:
        """The time by which an item is listed (Unix seconds)."""
        return int(row[self._time])

    def named(self, keys: Sequence[int]) -> tuple[Row, ...]:
        """Rows of items of which the key alone is known."""
        empty = (None,) * len(self._items.table.columns)
        return tuple((key, *empty) for key in keys)

    def detail(self, answer: Answer, key: Key) -> Detail:
        """The rows that an item's own request gives. Raises RequestFailed (malformed)."""
        detail = self._description.detail
        assert detail is not None
        notes: list[str] = []
        try:
            rows: dict[str, Sequence[Row]] = {}
            if detail.item is not None:
                row = self._row(at(answer.data, detail.item), notes)
                if row[0] != key:
                    raise RequestFailed(Outcome.MALFORMED, f"asked for {key}, the answer is about {row[0]}")
                rows[self._items.table.name] = [row]
            rows |= self._rows(answer.data, key, notes)
        except RequestFailed as error:
            raise answer.malformed(str(error)) from None
        return Detail(rows, tuple(notes))

    def _row(self, each: Any, notes: list[str]) -> Row:
        if type(each) is dict and self._taken:
            each = {name: value for name, value in each.items() if name not in self._taken}
        if type(each) is dict and self._timed is not None:
            each = {**each, TIME: seconds(each.get(self._timed))}
        return self._items.row(each, notes)

    def _rows(self, body: Any, key: Key, notes: list[str]) -> dict[str, list[Row]]:
        found = {}
        for name, child in self._description.tables.items():
            value = at(body, child.from_)
            if value is not None and type(value) is not list:
                raise RequestFailed(Outcome.MALFORMED, f"tables.{name}.from: no list at {child.from_!r}")
            rows: dict[Key, Row] = {}
            for row in self._children[name].rows(elements(body, child), notes, (key,)):
                if rows.setdefault(row[1], row) != row:
                    raise RequestFailed(
                        Outcome.MALFORMED,
                        f"tables.{name}.key: {child.key} tells no rows apart: several have {row[1]!r:.60}",
                    )
            found[name] = [*rows.values()]
        return found

    def _key_of(self, each: Any) -> Key | None:
        value = each.get(self._key.name) if type(each) is dict else None
        if self._key.type == "integer":
            try:
                return integer(value)
            except Unusable:
                return None
        return value if type(value) is str and storable_text(value) else None


def meaning(
    description: Description, status: int, headers: Mapping[str, str], data: Any
) -> Outcome | tuple[Outcome, float] | None:
    """What the description makes of an answer; None leaves it to HTTP's rules."""
    for limit in description.limited:
        if _hold(limit, status, headers, data):
            seconds = _seconds(limit, headers)
            return Outcome.LIMITED if seconds is None else (Outcome.LIMITED, seconds)
    if any(_hold(signs, status, headers, data) for signs in description.gone):
        return Outcome.GONE
    return None


def _hold(signs: Signs, status: int, headers: Mapping[str, str], data: Any) -> bool:
    if signs.status and status not in signs.status:
        return False
    if signs.null and data is not None:
        return False
    for name, value in signs.header.items():
        found = headers.get(name)
        if found is None or not _like(found.strip(), value):
            return False
    return all(_like(at(data, path), value) for path, value in signs.body.items())


def _like(found: Any, value: Constant) -> bool:
    if isinstance(value, str) and "*" in value:
        pattern = ".*".join(map(re.escape, value.split("*")))
        return isinstance(found, str) and re.fullmatch(pattern, found, re.DOTALL) is not None
    # True is 1 to Python, and to no API.
    return bool(found == value) and isinstance(found, bool) is isinstance(value, bool)


def _seconds(limit: Limit, headers: Mapping[str, str]) -> float | None:
    """For how long to wait, None where the answer does not say."""
    text = headers.get(limit.reset, "").strip() if limit.reset else ""
    if not (text.isascii() and text.isdigit() and len(text) < 13):
        return None
    seconds = float(text)
    return max(1.0, seconds - time.time()) if seconds > _SINCE_1970 else seconds
