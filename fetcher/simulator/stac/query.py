"""What a search asks for, read from the parameters of a GET or the body of a POST."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fetcher.simulator.stac import cql2, cql2_text, times
from fetcher.simulator.stac.items import Box, Facts, spots

_LISTS = ("collections", "ids")


@dataclass(frozen=True, slots=True)
class Query:
    """A search without its page; None = not asked for.

    `spots` are the places on earth where an item may be, `judges` those that must all say yes.
    """

    collections: tuple[str, ...] | None = None
    ids: frozenset[str] | None = None
    interval: times.Interval = (None, None)
    spots: frozenset[int] | None = None
    judges: tuple[cql2.Judge, ...] = ()

    @property
    def by_time_alone(self) -> bool:
        """Whether nothing but the time of an item has to be looked at."""
        return self.ids is None and self.spots is None and not self.judges

    def wants(self, facts: Facts) -> bool:
        """Whether an item of these collections is asked for."""
        first, last = self.interval
        if last is not None and facts.start > last:
            return False
        if first is not None and (facts.start if facts.end is None else facts.end) < first:
            return False
        if self.ids is not None and facts.id not in self.ids:
            return False
        if self.spots is not None and facts.spot not in self.spots:
            return False
        return all(judge(facts) is True for judge in self.judges)


def read_query(members: Mapping[str, Any], *, as_text: bool) -> Query:
    """The search that these members ask for; `as_text` for the parameters of a GET. Raises ValueError."""
    given = {name: value for name, value in members.items() if value is not None}
    if as_text:
        given |= {name: given[name].split(",") for name in _LISTS if name in given}
        given |= {name: _parsed(name, given[name]) for name in ("intersects", "query") if name in given}
        if "bbox" in given:
            given["bbox"] = [_float(each) for each in given["bbox"].split(",")]
    if "bbox" in given and "intersects" in given:
        raise ValueError("one of bbox and intersects, not both")
    interval: times.Interval = (None, None)
    if "datetime" in given:
        if not isinstance(given["datetime"], str):
            raise ValueError("datetime is not a text")
        interval = times.read_interval(given["datetime"])
    boxes = None
    if "bbox" in given:
        boxes = _boxes(given["bbox"])
    elif "intersects" in given:
        boxes = (_box_of(given["intersects"]),)
    ids = _texts("ids", given)
    return Query(
        collections=_texts("collections", given),
        ids=None if ids is None else frozenset(ids),
        interval=interval,
        spots=None if boxes is None else _touched(boxes),
        judges=tuple(_judges(given, as_text)),
    )


def read_limit(members: Mapping[str, Any], default: int, most: int) -> int:
    """How many items a page is to have, `most` at most. Raises ValueError."""
    limit = members.get("limit")
    if limit is None:
        return default
    if isinstance(limit, str) and limit.isascii() and limit.isdigit() and len(limit) < 18:
        limit = int(limit)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError("limit is not a number above zero")
    return min(limit, most)


def _judges(given: Mapping[str, Any], as_text: bool) -> list[cql2.Judge]:
    found = []
    if "filter" in given:
        crs = given.get("filter-crs", _CRS84)
        if crs != _CRS84:
            raise ValueError(f"filter-crs is not {_CRS84}")
        language = given.get("filter-lang", "cql2-text" if as_text else "cql2-json")
        expression = given["filter"]
        if language == "cql2-text":
            if not isinstance(expression, str):
                raise ValueError("filter is not a text")
            expression = cql2_text.read(expression)
        elif language != "cql2-json":
            raise ValueError("filter-lang is cql2-text or cql2-json")
        elif as_text:
            expression = _parsed("filter", expression)
        found.append(cql2.judge_of(expression))
    if "query" in given:
        found.append(cql2.query_judge_of(given["query"]))
    return found


_CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} is not JSON") from None


def _texts(name: str, given: Mapping[str, Any]) -> tuple[str, ...] | None:
    values = given.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is not a list of texts")
    # An empty list asks for nothing in particular.
    return tuple(dict.fromkeys(values)) or None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"not a number: {text[:40]!r}") from None


def _boxes(numbers: Any) -> tuple[Box, ...]:
    """A box, or the two that it is made of when it crosses the antimeridian."""
    if not isinstance(numbers, list) or len(numbers) not in (4, 6):
        raise ValueError("bbox has 4 or 6 numbers")
    if not all(_is_number(number) for number in numbers):
        raise ValueError("bbox has something else than numbers")
    half = len(numbers) // 2
    west, south, east, north = numbers[0], numbers[1], numbers[half], numbers[half + 1]
    if south > north or (half == 3 and numbers[2] > numbers[5]):
        raise ValueError("bbox has its lower corner above the upper one")
    if not (-180 <= west <= 180 and -180 <= east <= 180 and south >= -90 and north <= 90):
        raise ValueError("bbox leaves the earth")
    if west > east:
        return (west, south, 180.0, north), (-180.0, south, east, north)
    return ((west, south, east, north),)


def _box_of(geometry: Any) -> Box:
    """The box around a GeoJSON geometry: what it intersects is judged by that alone."""
    points: list[tuple[float, float]] = []
    _collect(geometry, points)
    if not points:
        raise ValueError("intersects is no GeoJSON geometry")
    longitudes, latitudes = [point[0] for point in points], [point[1] for point in points]
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


_DEPTHS = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}


def _collect(geometry: Any, points: list[tuple[float, float]], nested: int = 0) -> None:
    if not isinstance(geometry, dict) or nested > 10:
        raise ValueError("intersects is no GeoJSON geometry")
    kind = geometry.get("type")
    if kind == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
        for each in geometry["geometries"]:
            _collect(each, points, nested + 1)
        return
    if kind not in _DEPTHS:
        raise ValueError("intersects is no GeoJSON geometry")
    level = [geometry.get("coordinates")]
    for _ in range(_DEPTHS[kind]):
        if not all(isinstance(each, list) for each in level):
            raise ValueError("intersects has wrong coordinates")
        level = [inner for each in level if isinstance(each, list) for inner in each]
    for point in level:
        if not isinstance(point, list) or len(point) not in (2, 3) or not all(map(_is_number, point)):
            raise ValueError("intersects has wrong coordinates")
        points.append((point[0], point[1]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@lru_cache(maxsize=1024)
def _touched(boxes: tuple[Box, ...]) -> frozenset[int]:
    """The spots that touch one of the boxes."""
    return frozenset(number for number, (spot, _) in enumerate(spots()) if any(_touch(spot, box) for box in boxes))


def _touch(box: Box | None, other: Box) -> bool:
    return box is not None and box[0] <= other[2] and other[0] <= box[2] and box[1] <= other[3] and other[1] <= box[3]
