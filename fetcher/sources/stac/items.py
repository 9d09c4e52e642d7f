"""From the features of a page to rows: quickly where they are of the usual shape, with the same result where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from fetcher.client import MOST_EVIDENCE
from fetcher.errors import RequestFailed
from fetcher.model import Detail, Failure, Key, Outcome, Row
from fetcher.rows import RowBuilder, Unusable, as_json, decode, malformed, storable_text
from fetcher.sources.stac.tables import COLLECTIONS, ITEMS
from fetcher.sources.stac.times import seconds

_MEMBERS = {"type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "properties", "links"}

_OURS = ("key", "time", "west", "south", "east", "north", "extra")


class Times(msgspec.Struct, gc=False):
    """What of an item's properties says when it is, and when it was changed."""

    datetime: Any = None
    start_datetime: Any = None
    updated: Any = None


_NULL = msgspec.Raw(b"null")


class _Feature(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    properties: msgspec.Raw
    type: str = "Feature"
    collection: str | None = None
    geometry: msgspec.Raw = _NULL
    bbox: msgspec.Raw = _NULL
    links: msgspec.Raw = _NULL
    assets: dict[str, msgspec.Raw] | None = None
    stac_version: str | None = None
    stac_extensions: msgspec.Raw = _NULL


class _Usual(msgspec.Struct, gc=False):
    """A page of which every feature is of the usual shape; what else is around them is looked at later."""

    features: list[_Feature]
    links: list[Any] = []
    numberMatched: Any = None
    context: Any = None


@dataclass(frozen=True, slots=True)
class Listed:
    """What a page lists: rows of items, their details, those that cannot be used; and the keys of all, in order.

    `links` and `matched` are what the page says of the next one, and of how many items there are.
    """

    rows: list[Row]
    details: dict[Key, Detail]
    failures: list[Failure]
    keys: list[str]
    links: list[Any]
    matched: int | None


def key_of(collection: str, id: str) -> str:
    """What names an item within a catalogue: its collection, in which `/` and `%` are escaped, and its id."""
    if "/" in collection or "%" in collection:
        collection = quote(collection, safe=" :.,;+@!")
    return f"{collection}/{id}"


def parse(body: bytes) -> _Usual | None:
    """The page that a body is, when it is of the usual shape; else None."""
    try:
        if not body.isascii():
            # Within fields that it skips the decoder does not look whether this is UTF-8.
            body.decode()
        return _page(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def listed_usual(page: _Usual, collection: str, body: bytes) -> Listed:
    """What a page of the usual shape lists. Raises RequestFailed (malformed) where it turns out not to be."""
    rows: list[Row] = []
    details: dict[Key, Detail] = {}
    failures: list[Failure] = []
    keys: list[str] = []
    for each in page.features:
        if each.type != "Feature" or (each.collection or collection) != collection:
            return listed(decode(body), collection, body)
        key = key_of(collection, each.id)
        if key in details:
            return listed(decode(body), collection, body)
        keys.append(key)
        try:
            times = _times(each.properties)
            west, south, east, north = _corners(each.bbox)
        except (msgspec.DecodeError, Unusable):
            return listed(decode(body), collection, body)
        rows.append(
            (
                key,
                collection,
                each.id,
                position(times.datetime, times.start_datetime),
                west,
                south,
                east,
                north,
                _text(each.bbox),
                _text(each.geometry),
                _text(each.properties),
                _text(each.links),
                each.stac_version,
                _text(each.stac_extensions),
                None,
            )
        )
        details[key] = Detail(
            {"assets": [(key, name, bytes(asset).decode(), None) for name, asset in (each.assets or {}).items()]}
        )
    return Listed(rows, details, failures, keys, page.links, matched(page.numberMatched, page.context))


def listed(data: Any, collection: str, body: bytes) -> Listed:
    """What a page lists. Raises RequestFailed (malformed) when it is no page of features."""
    if not isinstance(data, dict) or type(data.get("features")) is not list:
        raise malformed("a page without a list of features")
    rows: dict[str, Row] = {}
    details: dict[Key, Detail] = {}
    failures: dict[str, Failure] = {}
    keys: list[str] = []
    for number, each in enumerate(data["features"]):
        if type(each) is not dict or type(each.get("id")) is not str or not storable_text(each["id"]):
            name = f"{collection}/? feature {number} of a page"
            failures[name] = _unusable(name, "items: id is missing, or no usable text", body)
            continue
        if each.get("collection") not in (None, collection):
            raise malformed(f"an item of the collection {each['collection']!r:.60} where {collection} was asked for")
        key = key_of(collection, each["id"])
        keys.append(key)
        try:
            rows[key] = _row(each, key, collection)
            details[key] = Detail({"assets": _assets(each, key)})
        except RequestFailed as error:
            failures[key] = _unusable(key, str(error), body)
            rows.pop(key, None)
    links = data.get("links")
    return Listed(
        list(rows.values()),
        details,
        [failure for key, failure in failures.items() if key not in rows],
        keys,
        links if type(links) is list else [],
        matched(data.get("numberMatched"), data.get("context")),
    )


def collection_row(collection: Mapping[str, Any]) -> Row:
    """The row of a collection. Raises RequestFailed (malformed)."""
    return _collections.row(dict(collection), [])


def position(datetime: Any, start: Any) -> int | None:
    """Where an item is among all of its collection: the second of its datetime, or of its start."""
    found = seconds(datetime)
    return seconds(start) if found is None else found


def matched(number: Any, context: Any) -> int | None:
    """How many items a page says there are; the older way of saying it counts too."""
    if number is None and isinstance(context, dict):
        number = context.get("matched")
    return number if type(number) is int and number >= 0 else None


def _unusable(key: str, why: str, body: bytes) -> Failure:
    return Failure("item", key, Outcome.MALFORMED, why, 200, body[:MOST_EVIDENCE])


def _row(item: dict[str, Any], key: str, collection: str) -> Row:
    properties = item.get("properties")
    if type(properties) is not dict:
        raise malformed("items: properties is missing, or no object")
    if item.get("type", "Feature") != "Feature":
        raise malformed(f"items: a {item['type']!r:.40} instead of a Feature")
    bbox = item.get("bbox")
    try:
        west, south, east, north = _corners(msgspec.Raw(msgspec.json.encode(bbox)))
    except (Unusable, msgspec.MsgspecError, TypeError, ValueError, OverflowError):
        west = south = east = north = None
    known = {name: item[name] for name in _MEMBERS - {"type"} if name in item}
    others = {name: value for name, value in item.items() if name not in _MEMBERS and name != "assets"}
    # Columns of ours, of which the item may have a member of the same name.
    namesakes = {name: others.pop(name) for name in _OURS if name in others}
    row = _items.row(
        {
            **others,
            **known,
            "key": key,
            "collection": collection,
            "time": position(properties.get("datetime"), properties.get("start_datetime")),
            "west": west,
            "south": south,
            "east": east,
            "north": north,
        },
        [],
    )
    if not namesakes:
        return row
    return (*row[:-1], as_json({**(decode(row[-1].encode()) if row[-1] else {}), **namesakes}))


def _assets(item: dict[str, Any], key: str) -> list[Row]:
    assets = item.get("assets")
    if assets is None:
        return []
    if type(assets) is not dict:
        raise malformed("items: assets is no object")
    rows: list[Row] = []
    for name, asset in assets.items():
        if not storable_text(name):
            raise malformed("assets: a name that is no text")
        rows.append((key, name, as_json(asset), None))
    return rows


def _corners(bbox: msgspec.Raw) -> tuple[float | None, ...]:
    """West, south, east and north of a bounding box in two or three dimensions."""
    numbers = _numbers(bbox)
    if numbers is None:
        return None, None, None, None
    if len(numbers) == 4:
        return tuple(numbers)
    if len(numbers) == 6:
        return numbers[0], numbers[1], numbers[3], numbers[4]
    raise Unusable


def _text(raw: msgspec.Raw) -> str | None:
    text = bytes(raw).decode()
    return None if text == "null" else text


_page = msgspec.json.Decoder(_Usual).decode
_times = msgspec.json.Decoder(Times).decode
_numbers = msgspec.json.Decoder(list[float] | None).decode
_items = RowBuilder(ITEMS)
_collections = RowBuilder(COLLECTIONS)
