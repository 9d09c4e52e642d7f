"""From an API's JSON objects to rows of declared tables, proven storable; nothing of an answer is thrown away."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec.structs import astuple

from fetcher.errors import RequestFailed
from fetcher.model import Outcome, Row, Table

MOST = 2**63 - 1
_INTEGER = re.compile(r"-?[0-9]{1,19}\Z")
_REAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_MISSING = object()


class Unusable(Exception):
    """A value that is not of its column's type."""


def storable_text(text: str) -> bool:
    """Whether a text can be stored as UTF-8; a lone surrogate, half of an escaped pair, cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def integer(value: Any) -> int:
    """A whole number of 64 bits, given as one or as its text; raises Unusable for anything else."""
    if type(value) is str and _INTEGER.match(value):
        value = int(value)
    if type(value) is int and -MOST - 1 <= value <= MOST:
        return value
    raise Unusable


def _real(value: Any) -> float:
    if type(value) in (float, int) or (type(value) is str and _REAL.match(value)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise Unusable from None
        if math.isfinite(number):
            return number
    raise Unusable


def _text(value: Any) -> str:
    if type(value) is str and storable_text(value):
        return value
    raise Unusable


def _boolean(value: Any) -> int:
    if value is True or value is False or (type(value) is int and value in (0, 1)):
        return int(value)
    if value in ("0", "1"):
        return int(value)
    raise Unusable


def as_json(value: Any) -> str:
    """JSON text of any decoded JSON value, always storable: what is not plain text is escaped.

    Raises RequestFailed (malformed) when it is nested more deeply than Python can follow.
    """
    try:
        return _encode(value).decode()
    except RecursionError:
        raise malformed("a value nested too deeply to be written again") from None
    except (msgspec.EncodeError, TypeError, ValueError, OverflowError):
        pass
    try:
        return json.dumps(value, separators=(",", ":"))
    except RecursionError:
        raise malformed("a value nested too deeply to be written again") from None


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "integer": integer,
    "real": _real,
    "text": _text,
    "boolean": _boolean,
    "json": as_json,
}


class RowBuilder:
    """Turns objects of one declared table into rows: the parent's key if it has one, the columns, then `extra`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._columns = [(column, _CONVERT[column.type]) for column in table.columns]
        self._names = {column.name for column in table.columns}

    def rows(self, objects: Iterable[Any], notes: list[str], parent: tuple[Any, ...] = ()) -> list[Row]:
        """A row for each object; see `row`."""
        return [self.row(each, notes, parent) for each in objects]

    def row(self, each: Any, notes: list[str], parent: tuple[Any, ...] = ()) -> Row:
        """The row of one object. Raises RequestFailed (malformed) when a required field is missing or unusable.

        What is unusual but no reason to fail is appended to `notes`.
        """
        name = self.table.name
        if type(each) is not dict:
            raise malformed(f"{name}: expected an object, got {_kind(each)}")
        values: list[Any] = []
        extra: dict[str, Any] = {}
        for column, convert in self._columns:
            value = each.get(column.name, _MISSING)
            if value is None or value is _MISSING:
                if column.required:
                    raise malformed(f"{name}: {column.name} is missing")
                values.append(None)
                continue
            try:
                values.append(convert(value))
            except Unusable:
                if column.required:
                    raise malformed(f"{name}: {column.name} is no usable {column.type}: {_shown(value)}") from None
                values.append(None)
                extra[column.name] = value
                notes.append(f"{name}.{column.name}: expected {column.type}, got {_kind(value)}; kept in extra")
        if not self._names.issuperset(each):
            for field, value in each.items():
                if field not in self._names:
                    extra[field] = value
                    notes.append(f"{name}.{ascii(field)[1:-1][:60]}: a field not known yet; kept in extra")
        return (*parent, *values, as_json(extra) if extra else None)


def decode(body: bytes) -> Any:
    """The JSON value of a body; raises ValueError when it is not JSON.

    Takes what strict readers refuse though it is valid: lone surrogates, and numbers that are too large for Python.
    Those become their text, of a type of its own, so that no column takes it for a text that the API gave.
    """
    try:
        return _strict(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        return json.loads(body, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


_strict = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


class _Beyond(str):
    """A number that no double holds, or of more digits than Python reads, as it was written."""

    __slots__ = ()


def _finite(text: str) -> float | _Beyond:
    number = float(text)
    return number if math.isfinite(number) else _Beyond(text)


def _whole(text: str) -> int | _Beyond:
    try:
        return int(text)
    except ValueError:
        return _Beyond(text)


class Parser:
    """Reads bodies of the usual shape straight into rows: an object that holds a list for each of `tables`.

    Usual is: every declared field there and of its type, no other field in the rows, and none of `absent` around the
    lists. msgspec checks that while it decodes, for a third of what decoding and looking cost apart. All else is left
    to `decode` and RowBuilder, which make the same rows.
    """

    def __init__(self, tables: Sequence[Table], absent: Sequence[str] = ()) -> None:
        self._names = [table.name for table in tables]
        lists = [(table.name, list[_struct(table)]) for table in tables]  # type: ignore[misc]
        nothing = [(name, None, None) for name in absent]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Usual", [*lists, *nothing], gc=False)).decode

    def parse(self, body: bytes) -> Any:
        """What `rows` takes, or None when the body is not of the usual shape."""
        try:
            if not body.isascii():
                # Within fields that it skips the decoder does not look whether this is UTF-8.
                body.decode()
            return self._decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None

    def rows(self, parsed: Any, parent: Any) -> dict[str, list[Row]]:
        """The rows of each table, as RowBuilder makes them."""
        return {name: [(parent, *astuple(each), None) for each in getattr(parsed, name)] for name in self._names}


def _struct(table: Table) -> type[msgspec.Struct]:
    integer_ = Annotated[int, msgspec.Meta(ge=-MOST - 1, le=MOST)]
    types: Mapping[str, Any] = {"integer": integer_, "real": float, "text": str}
    fields = [(each.name, types[each.type] if each.required else types[each.type] | None) for each in table.columns]
    return msgspec.defstruct(table.name, fields, forbid_unknown_fields=True, gc=False)


def malformed(message: str) -> RequestFailed:
    """The error for an answer that is not what the API promises."""
    return RequestFailed(Outcome.MALFORMED, message)


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
