"""How rows are written: JSON, lines of JSON, CSV, Parquet."""

from __future__ import annotations

import base64
import csv
import io
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from fetcher.errors import ConfigurationError, StoreError
from fetcher.export.names import Value
from fetcher.export.tables import Field, Relation
from fetcher.model import Row

ROW_GROUP_BYTES = 16_000_000
"""A row group of Parquet is written once it takes so much, or has so many rows as below."""

ROW_GROUP_ROWS = 100_000

_COPYING = 1_000
"""Rows that are turned into columns at once."""


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> Any:
        """Take more of them."""
        ...


class Writer(Protocol):
    """Writes rows to a sink."""

    def write(self, rows: Sequence[Row]) -> None:
        """Take more rows."""
        ...

    def end(self) -> None:
        """Write what comes after the last of them."""
        ...


class Ndjson:
    """One JSON object a line."""

    def __init__(self, sink: Sink, relation: Relation, head: Mapping[str, Value]) -> None:  # noqa: ARG002
        self._sink = sink
        self._lines = _lines((*relation.fields, *relation.lists))

    def write(self, rows: Sequence[Row]) -> None:
        """A line for each."""
        self._sink.write(self._lines(rows))

    def end(self) -> None:
        """Nothing comes after the last line."""


class Json:
    """One JSON list; with a head an object of it, which has the list under the name of what is exported."""

    def __init__(self, sink: Sink, relation: Relation, head: Mapping[str, Value]) -> None:
        self._sink = sink
        self._lines = _lines((*relation.fields, *relation.lists))
        self._between = b"\n"
        self._ending = b"\n]}\n" if head else b"\n]\n"
        before = f"{msgspec.json.encode(head).decode()[:-1]},{msgspec.json.encode(relation.name).decode()}:["
        sink.write(before.encode() if head else b"[")

    def write(self, rows: Sequence[Row]) -> None:
        """More elements, one a line."""
        # No newline stands within a line: JSON has \n for it.
        self._sink.write(self._between + self._lines(rows)[:-1].replace(b"\n", b",\n"))
        self._between = b",\n"

    def end(self) -> None:
        """Close the list."""
        self._sink.write(self._ending)


class Csv:
    """Comma-separated values with a line of names, as RFC 4180 has it; null is empty, bytes are base64."""

    def __init__(self, sink: Sink, relation: Relation, head: Mapping[str, Value]) -> None:  # noqa: ARG002
        self._sink = sink
        bytes_at = [at for at, each in enumerate(relation.fields) if each.kind in ("blob", "any")]
        self._changes = [(at, _text_of_bytes) for at in bytes_at]
        self._put([tuple(each.name for each in relation.fields)])

    def write(self, rows: Sequence[Row]) -> None:
        """A record for each."""
        self._put([_changed(row, self._changes) for row in rows] if self._changes else rows)

    def end(self) -> None:
        """Nothing comes after the last record."""

    def _put(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._sink.write(text.getvalue().encode())


class Parquet:
    """Parquet, packed with zstandard, in row groups; JSON columns are its text. Raises ConfigurationError."""

    def __init__(self, sink: Sink, relation: Relation, head: Mapping[str, Value]) -> None:  # noqa: ARG002
        self._arrow, parquet = _pyarrow()
        self._name = relation.name
        self._fields = relation.fields
        types = [self._type(each) for each in relation.fields]
        self._schema = self._arrow.schema(
            [(each.name, type_) for each, type_ in zip(relation.fields, types, strict=True)]
        )
        self._writer = parquet.ParquetWriter(sink, self._schema, compression="zstd")
        self._rows: list[Row] = []
        self._batches: list[Any] = []
        self._count = self._bytes = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Take more rows, and write a row group once it is full."""
        self._rows.extend(rows)
        if len(self._rows) >= _COPYING:
            self._copy()
            if self._bytes >= ROW_GROUP_BYTES or self._count >= ROW_GROUP_ROWS:
                self._flush()

    def end(self) -> None:
        """Write the last row group and what Parquet has at the end."""
        self._copy()
        self._flush()
        self._writer.close()

    def _copy(self) -> None:
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        arrays = [self._array(each, values) for each, values in zip(self._fields, columns, strict=True)]
        batch = self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._batches.append(batch)
        self._bytes += batch.nbytes
        self._count += len(self._rows)
        self._rows = []

    def _flush(self) -> None:
        if self._batches:
            self._writer.write_table(self._arrow.Table.from_batches(self._batches), row_group_size=self._count)
            self._batches, self._count, self._bytes = [], 0, 0

    def _type(self, field: Field) -> Any:
        arrow = self._arrow
        if field.kind == "vector":
            return arrow.list_(arrow.float32(), field.dimension)
        types = {"integer": arrow.int64, "real": arrow.float64, "blob": arrow.binary}
        return types.get(field.kind, arrow.string)()

    def _array(self, field: Field, values: Sequence[Any]) -> Any:
        arrow = self._arrow
        if field.kind == "vector":
            return self._vectors(field, values)
        type_ = self._type(field)
        try:
            return arrow.array(values, type_)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, OverflowError) as error:
            if type_ != arrow.string():
                raise StoreError(
                    f"{self._name}.{field.name} has come to hold something else while it was exported: run again"
                ) from error
            # Where any value may stand, its text does.
            return arrow.array([each if each is None else _plain(each) for each in values], type_)

    def _vectors(self, field: Field, values: Sequence[bytes | None]) -> Any:
        arrow = self._arrow
        none = bytes(4 * field.dimension)
        there = arrow.array([each is not None for each in values])
        flat = arrow.py_buffer(b"".join(each if each is not None else none for each in values))
        numbers = arrow.Array.from_buffers(arrow.float32(), len(values) * field.dimension, [None, flat])
        return arrow.Array.from_buffers(self._type(field), len(values), [there.buffers()[1]], children=[numbers])


FORMATS: Mapping[str, Callable[[Sink, Relation, Mapping[str, Value]], Writer]] = {
    "json": Json,
    "ndjson": Ndjson,
    "csv": Csv,
    "parquet": Parquet,
}
"""Every format under its name, which is the ending of its files too."""

NESTING = ("json", "ndjson")
"""The formats in which a row can hold others."""


def _lines(fields: Sequence[Field]) -> Callable[[Sequence[Row]], bytes]:
    """What makes lines of JSON of rows."""
    made = _objects(fields)
    encode = msgspec.json.Encoder().encode_lines
    return lambda rows: encode(made(rows))


def _objects(fields: Sequence[Field]) -> Callable[[Sequence[Row]], list[Any]]:
    """What makes objects of rows: structs, which msgspec encodes faster than dicts."""
    names = [each.name for each in fields]
    changes = [(at, _changing(each)) for at, each in enumerate(fields) if each.kind in ("json", "vector", "rows")]
    try:
        slots = [f"c{at}" for at in range(len(names))]
        struct: Any = msgspec.defstruct("Row", slots, rename=dict(zip(slots, names, strict=True)), gc=False)
    except ValueError:  # A name with a quote, a backslash or a control character.

        def struct(*row: Any) -> Any:
            return dict(zip(names, row, strict=True))

    if not changes:
        return lambda rows: [struct(*row) for row in rows]
    return lambda rows: [struct(*_changed(row, changes)) for row in rows]


def _changed(row: Sequence[Any], changes: Sequence[tuple[int, Callable[[Any], Any]]]) -> Sequence[Any]:
    """A row with some of its values changed; null stays null."""
    changed = None
    for at, change in changes:
        value = row[at]
        if value is not None:
            if changed is None:
                changed = list(row)
            changed[at] = change(value)
    return row if changed is None else changed


def _changing(field: Field) -> Callable[[Any], Any]:
    if field.kind == "rows":
        return _objects(field.fields)
    return _raw if field.kind == "json" else _floats


def _raw(value: Any) -> Any:
    """JSON as it is, in one line; whatever is none is a value like any other."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.Raw(msgspec.json.format(value.encode(), indent=-1))
    except (msgspec.MsgspecError, RecursionError):
        return value


def _floats(vector: bytes) -> list[float]:
    return _native(vector).tolist()


def _native(vector: bytes) -> array[float]:
    numbers = array("f", vector)
    if _BIG_ENDIAN:
        numbers.byteswap()
    return numbers


_BIG_ENDIAN = array("H", b"\0\1")[0] == 1


def _text_of_bytes(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _plain(value: Any) -> str:
    return str(_text_of_bytes(value))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: pip install 'fetcher[parquet]'") from None
    return pyarrow, pyarrow.parquet
