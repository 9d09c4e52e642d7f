"""Reads Parquet: plain tables, GeoParquet, and STAC items as stac-geoparquet lays them out."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO

from fetcher.rows import as_json
from fetcher.sources.files.documents import Found, Wrong, id_text
from fetcher.sources.files.kinds import Unreadable

ROWS = 500
"""So many rows are taken out of the file at once."""

_TOP = (
    "type",
    "stac_version",
    "stac_extensions",
    "id",
    "geometry",
    "bbox",
    "links",
    "assets",
    "collection",
)
"""What of a STAC item is not among its properties."""

_BOX = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")


def items(file: BinaryIO) -> Iterator[Found]:
    """The rows as JSON objects: STAC items where they are such. Raises Unreadable."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise Unreadable("it is a Parquet file: pip install 'fetcher[parquet]' to read it") from None
    number = 0
    try:
        # The columns of a row group are read as its rows are asked for: a buffer keeps no group as a whole.
        table = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False, memory_map=False)
        shape = _Shape.of(table.schema_arrow)
        for batch in table.iter_batches(ROWS, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                try:
                    item = shape.item(row)
                    yield number, id_text(item.get("id")), as_json(item)
                except (ValueError, TypeError, OverflowError, struct.error) as error:
                    yield Wrong(number, str(error) or type(error).__name__)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f":{number + 1}: no usable Parquet: {' '.join(str(error).split())}") from None


class _Shape:
    """How the rows of one file become objects."""

    def __init__(self, *, is_stac: bool, geometries: frozenset[str]) -> None:
        self._is_stac = is_stac
        self._geometries = geometries

    @classmethod
    def of(cls, schema: Any) -> _Shape:
        """What the names of the columns and the file's own words say."""
        names = set(schema.names)
        is_stac = {"id", "geometry", "assets"} <= names and "properties" not in names
        geometries = {"geometry", "proj:geometry"} if is_stac else set()
        try:
            told = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
            geometries |= set(told.get("columns", {}))
        except (ValueError, AttributeError, TypeError):
            pass  # It says nothing then.
        return cls(is_stac=is_stac, geometries=frozenset(geometries))

    def item(self, row: dict[str, Any]) -> dict[str, Any]:
        """The object of one row. Raises ValueError and struct.error."""
        if not self._is_stac:
            return {name: self._value(name, value) for name, value in row.items()}
        item: dict[str, Any] = {"type": "Feature"}
        properties: dict[str, Any] = {}
        for name in _TOP:
            value = row.get(name)
            if value is not None:
                item[name] = _box(value) if name == "bbox" and isinstance(value, dict) else self._present(name, value)
            elif name == "geometry":
                item[name] = None
            if name == "bbox":
                item["properties"] = properties
        for name, value in row.items():
            if name not in _TOP and value is not None:
                properties[name] = self._present(name, value)
        # A STAC item always has it; without a moment of its own it is null.
        properties.setdefault("datetime", None)
        return item

    def _present(self, name: str, value: Any) -> Any:
        """A value without the fields that it has not: a row has a place for every field of any row."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is dict:
            return {
                key: each if type(each) in _PLAIN else self._present(key, each)
                for key, each in value.items()
                if each is not None
            }
        if kind is list:
            # All elements of a list are of one type.
            if not value or type(value[0]) in _PLAIN:
                return value
            if type(value[0]) is tuple:
                return {str(key): self._present(str(key), each) for key, each in value}
            return [self._present(name, each) for each in value]
        return self._value(name, value)

    def _value(self, name: str, value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            return {key: self._value(key, each) for key, each in value.items()}
        if kind is list:
            if value and type(value[0]) is tuple:
                return {str(key): self._value(str(key), each) for key, each in value}
            return [self._value(name, each) for each in value]
        if kind is bytes:
            return geometry(value) if name in self._geometries else base64.b64encode(value).decode()
        if isinstance(value, datetime):
            return _moment(value)
        if isinstance(value, date | time):
            return value.isoformat()
        if kind is timedelta:
            return value.total_seconds()
        if kind is Decimal:
            return str(value)
        return value


def _moment(value: datetime) -> str:
    """RFC 3339, with as few digits of a second as tell it: Parquet keeps the moment, not how it was written."""
    if value.tzinfo is not None:
        value = value.astimezone(UTC)
    whole = (
        f"{value:%Y-%m-%dT%H:%M:%S}" if value.year >= 1000 else value.replace(microsecond=0, tzinfo=None).isoformat()
    )
    micros = value.microsecond
    part = "" if not micros else f".{micros // 1000:03}" if not micros % 1000 else f".{micros:06}"
    return f"{whole}{part}{'Z' if value.tzinfo is not None else ''}"


def _box(value: Mapping[str, Any]) -> list[Any]:
    return [value[name] for name in _BOX if value.get(name) is not None]


_PLAIN = frozenset({str, int, float, bool})

_KINDS = {
    1: "Point",
    2: "LineString",
    3: "Polygon",
    4: "MultiPoint",
    5: "MultiLineString",
    6: "MultiPolygon",
    7: "GeometryCollection",
}


def geometry(wkb: bytes) -> dict[str, Any]:
    """GeoJSON of a geometry in well-known binary. Raises ValueError and struct.error."""
    return _geometry(wkb, 0)[0]


def _geometry(wkb: bytes, at: int) -> tuple[dict[str, Any], int]:
    order = "<" if wkb[at] else ">"
    (code,) = struct.unpack_from(f"{order}I", wkb, at + 1)
    at += 5
    wide = 2
    if code & 0xE0000000:  # the extended form of PostGIS
        wide += bool(code & 0x80000000) + bool(code & 0x40000000)
        at += 4 if code & 0x20000000 else 0
        code &= 0xFF
    else:
        wide += (0, 1, 1, 2)[code // 1000 % 4]
        code %= 1000
    kind = _KINDS.get(code)
    if kind is None:
        raise ValueError(f"a geometry of an unknown kind, {code}")
    if code == 1:
        (point,), at = _points(wkb, at, order, wide, 1)
        return {"type": kind, "coordinates": [] if all(map(math.isnan, point)) else point}, at
    (count,) = struct.unpack_from(f"{order}I", wkb, at)
    at += 4
    if code == 2:
        line, at = _points(wkb, at, order, wide, count)
        return {"type": kind, "coordinates": line}, at
    parts = []
    for _ in range(count):
        part: Any
        if code == 3:
            (points,) = struct.unpack_from(f"{order}I", wkb, at)
            part, at = _points(wkb, at + 4, order, wide, points)
        else:
            part, at = _geometry(wkb, at)
        parts.append(part)
    if code == 7:
        return {"type": kind, "geometries": parts}, at
    return {"type": kind, "coordinates": parts if code == 3 else [each["coordinates"] for each in parts]}, at


def _points(wkb: bytes, at: int, order: str, wide: int, count: int) -> tuple[list[list[float]], int]:
    end = at + 8 * wide * count
    if end > len(wkb):
        raise ValueError("a geometry that ends too early")
    numbers = struct.unpack_from(f"{order}{wide * count}d", wkb, at)
    return [list(numbers[first : first + wide]) for first in range(0, len(numbers), wide)], end
