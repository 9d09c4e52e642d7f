"""A function of the user's that every row goes through before it is stored."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import is_
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Detail, Failure, Gone, Key, Outcome, Page, Row, Table
from fetcher.rows import RowBuilder, as_json, decode
from fetcher.words import said

log = logging.getLogger("fetcher")

MOST_EVIDENCE = 64 * 1024
"""Bytes of a row that the function failed on that are kept."""

_SETTING = "TRANSFORM (--transform)"
_MISSING = object()

Function = Callable[..., Any]
"""A row as a dict, and the name of its table if it takes that too → the row, or None to leave it out."""


class Transform:
    """A function bound to the tables of a source; called from several threads at once.

    What it fails on is a RequestFailed that trying again does not cure.
    """

    def __init__(self, function: Function, name: str, tables: Sequence[Table]) -> None:
        self.name = name
        named = _takes_the_table(function, name)
        self._tables = {
            table.name: _Rows(partial(_with_table, function, table.name) if named else function, table)
            for table in tables
        }
        self._items = self._tables[tables[0].name]
        self._told = threading.Lock()

    @classmethod
    def of(cls, given: str | Function, tables: Sequence[Table]) -> Transform:
        """That of a function, or of what `module:function` names. Raises ConfigurationError."""
        if isinstance(given, str):
            return cls(load(given), given, tables)
        module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", type(given).__qualname__)
        return cls(given, f"{module}:{name}" if module else name, tables)

    def page(self, page: Page) -> Page:
        """A page as it is to be stored; an item that the function fails on is a failure of its own."""
        notes, failures, left_out = list(page.notes), list(page.failures), list(page.left_out)
        rows: list[Row] = []
        details: dict[Key, Detail] = {}
        for row in page.rows:
            key = row[0]
            try:
                stored = self._row(self._items, row, notes)
                if stored is None:
                    left_out.append(key)
                    continue
                if key in page.details:
                    details[key] = self._detail(page.details[key])
            except RequestFailed as error:
                failures.append(Failure("item", key, error.outcome, str(error), body=error.body))
            else:
                rows.append(stored)
        others = {name: self._others(name, each, notes) for name, each in page.others.items()}
        return replace(
            page,
            rows=tuple(rows),
            notes=tuple(notes),
            failures=tuple(failures),
            left_out=tuple(left_out),
            details=details,
            others=others,
        )

    def details(self, found: Mapping[Key, Detail | Gone | Exception]) -> Mapping[Key, Detail | Gone | Exception]:
        """What came for items, as it is to be stored."""
        results = dict(found)
        for key, each in found.items():
            if isinstance(each, Detail):
                try:
                    results[key] = self._detail(each)
                except RequestFailed as error:
                    results[key] = error
        return results

    def _detail(self, detail: Detail) -> Detail:
        notes = list(detail.notes)
        rows = {name: self._kept(self._tables[name], rows, notes) for name, rows in detail.rows.items()}
        rest = None if detail.rest is None else partial(self._rest, detail.rest)
        return replace(detail, rows=rows, notes=tuple(notes), rest=rest)

    def _rest(self, rest: Callable[[], Detail]) -> Detail:
        return self._detail(rest())

    def _kept(self, table: _Rows, rows: Sequence[Row], notes: list[str]) -> list[Row]:
        kept = []
        for row in rows:
            stored = self._row(table, row, notes)
            if stored is not None:
                kept.append(stored)
        return kept

    def _others(self, name: str, rows: Sequence[Row], notes: list[str]) -> list[Row]:
        """Rows that belong to no item, without those that the function fails on: as they came they are not wanted."""
        kept = []
        for row in rows:
            try:
                kept += self._kept(self._tables[name], [row], notes)
            except RequestFailed as error:
                notes.append(f"{error}; left out")
        return kept

    def _row(self, table: _Rows, row: Row, notes: list[str]) -> Row | None:
        own: list[str] = []
        try:
            stored = table.through(row, own)
        except (Exception, SystemExit) as error:
            what = (
                said(error) if isinstance(error, _Refused | RequestFailed) else f"{type(error).__name__}: {said(error)}"
            )
            message = f"{self.name} failed on {table.of(row)}: {what.removesuffix(': ')}"
            if self._told.acquire(blocking=False):
                log.warning("%s; of such failures only this first one is shown here", message)
            log.debug("where it happened", exc_info=True)
            raise RequestFailed(
                Outcome.MALFORMED, message, body=as_json(table.plain(row)).encode()[:MOST_EVIDENCE], lasting=True
            ) from None
        if own:
            notes += [f"{self.name}: {note}" for note in own]
        return stored


class _Refused(Exception):
    """A result that cannot be stored."""


class _Rows:
    """The rows of one table, as the function gets and gives them."""

    def __init__(self, call: Function, table: Table) -> None:
        self._call = call
        self._table = table
        self._builder = RowBuilder(table)
        parent = [table.parent] if table.parent is not None else []
        self._declared = [column.name for column in table.columns]
        self._names = [*parent, *self._declared, "extra"]
        self._parents = len(parent)
        self._all = {*self._names}
        self._json = [
            (place, column.name, column.required)
            for place, column in enumerate(table.columns, self._parents)
            if column.type == "json"
        ]
        self._booleans = [column.name for column in table.columns if column.type == "boolean"]
        self._scalars = [*parent, *(column.name for column in table.columns if column.type != "json")]
        # What names the row, and what the coverage counts, is not the function's to change.
        fixed = {*parent, table.columns[0].name, *table.position}
        self._fixed = [(place, name) for place, name in enumerate(self._names) if name in fixed]

    def of(self, row: Row) -> str:
        """A row, as a person is told of it."""
        return f"{self._table.name} {said(row[self._parents])}"

    def plain(self, row: Row) -> dict[str, Any]:
        """A row as it is to be stored, by the names of its columns."""
        return dict(zip(self._names, row, strict=False))

    def given(self, row: Row) -> dict[str, Any]:
        """A row as the function gets it."""
        values = self.plain(row)
        for place, name, _ in self._json:
            if row[place] is not None:
                values[name] = decode(row[place].encode())
        for name in self._booleans:
            if values[name] is not None:
                values[name] = bool(values[name])
        values["extra"] = {} if values["extra"] is None else decode(values["extra"].encode())
        return values

    def through(self, row: Row, notes: list[str]) -> Row | None:
        """The row that the function makes of a row, None where it leaves it out; raises whatever it likes."""
        given = self.given(row)
        before = list(map(given.get, self._scalars))
        made = self._call(given)
        if made is None:
            return None
        if not isinstance(made, dict):
            raise _Refused(f"it gave {_kind(made)}, and neither a dict nor None")
        extra = made.get("extra")
        if extra is not None and not isinstance(extra, dict):
            raise _Refused(f"extra must be a dict, not {_kind(extra)}")
        if type(made) is dict and made.keys() == self._all and all(map(is_, before, map(made.get, self._scalars))):
            values = self._with_json(row, made)
            if values is not None:
                return (*values, as_json(extra) if extra else None)
        return self._built(row, made, extra or {}, notes)

    def _with_json(self, row: Row, made: dict[str, Any]) -> list[Any] | None:
        """The columns of a row of which none but JSON can have changed, None where one that is required is missing.

        Most rows of most functions: what is known to be storable need not be looked at again.
        """
        values = list(row[:-1])
        for place, name, required in self._json:
            value = made[name]
            if value is None and required:
                return None
            values[place] = None if value is None else as_json(value)
        return values

    def _built(self, row: Row, made: dict[str, Any], extra: dict[str, Any], notes: list[str]) -> Row:
        """A row of whatever the function gave, as if the API had sent it."""
        for place, name in self._fixed:
            value = made.get(name, _MISSING)
            if type(value) is not type(row[place]) or value != row[place]:
                how = "is missing" if value is _MISSING else f"was {row[place]!r:.40} and is {value!r:.40}"
                raise _Refused(f"{name} must stay as it is: it {how}")
        declared = {name: made[name] for name in self._declared if name in made}
        *values, unusable = self._builder.row(declared, notes)
        extra = {**extra, **{name: value for name, value in made.items() if name not in self._all}}
        if unusable is not None:
            extra |= decode(unusable.encode())
        return (*row[: self._parents], *values, as_json(extra) if extra else None)


def load(spec: str, setting: str = _SETTING) -> Function:
    """The function that `module:function` names; modules of the current directory are found too.

    Raises ConfigurationError that names the `setting`.
    """
    name, _, path = spec.partition(":")
    if not (name and path):
        raise ConfigurationError(f"{setting}: expected module:function, such as mine:clean, not {spec!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        log.debug("where it happened", exc_info=True)
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            hint = f"; name it without .py: {name[:-3]}:{path}" if name.endswith(".py") else ""
            raise ConfigurationError(
                f"{setting}: there is no module {name}, neither installed nor in {here}{hint}"
            ) from None
        raise ConfigurationError(
            f"{setting}: the module {name} cannot be imported: {type(error).__name__}: {said(error)}"
        ) from None
    try:
        found = reduce(getattr, path.split("."), module)
    except AttributeError:
        raise ConfigurationError(f"{setting}: the module {name} has no {path} ({module.__file__})") from None
    if not callable(found):
        raise ConfigurationError(f"{setting}: {spec} is no function but {_kind(found)}")
    function: Function = found
    return function


def _takes_the_table(function: Function, name: str) -> bool:
    """Whether a function takes the table's name as a second argument. Raises ConfigurationError if it takes no row."""
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{_SETTING}: {name} is async: a plain function is needed")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False  # Some functions written in C do not tell.
    for count in (2, 1):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count == 2
    raise ConfigurationError(f"{_SETTING}: {name}{signature} cannot be called with a row, nor with a row and its table")


def _with_table(function: Function, table: str, row: dict[str, Any]) -> Any:
    return function(row, table)


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
