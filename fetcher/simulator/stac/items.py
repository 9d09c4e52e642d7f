"""One item of a simulated STAC API: its facts, drawn from (seed, collection, rank), and its JSON."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fetcher.simulator.stac import times
from fetcher.simulator.world import mix

BASE = "\x01"
"""Stands in an item's JSON for the address of the API, which depends on who asks."""

ASSET_ENDS = ('.tif"', '.jpg"', '.xml"')
"""How the addresses of assets end in an item's JSON, and nothing else in it."""

PLATFORMS = ("sim-1a", "sim-1b", "sim-2a", "sim-2b")
_EPSG = (32601, 32613, 32633, 32647, 32733, 3857, 4326)
_GSD = ("0.6", "10", "15", "30")

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


class Facts(NamedTuple):
    """What an item is, as far as a search may ask for it; moments in microseconds."""

    collection: str
    id: str
    rank: int
    draw: int
    start: int
    end: int | None
    """The last moment of an item whose datetime is null."""
    spot: int
    created: int
    updated: int
    version: int
    cloud: float | None

    def value(self, name: str) -> Any:
        """A property by name, None where there is none; moments are ints."""
        reader = _VALUES.get(name.removeprefix("properties."))
        return reader(self) if reader else None


_VALUES: dict[str, Any] = {
    "id": lambda facts: facts.id,
    "collection": lambda facts: facts.collection,
    "datetime": lambda facts: None if facts.end is not None else facts.start,
    "start_datetime": lambda facts: None if facts.end is None else facts.start,
    "end_datetime": lambda facts: facts.end,
    "created": lambda facts: facts.created,
    "updated": lambda facts: facts.updated,
    "platform": lambda facts: PLATFORMS[facts.draw >> 20 & 3],
    "constellation": lambda _: "sim",
    "gsd": lambda facts: float(_GSD[facts.draw >> 22 & 3]),
    "eo:cloud_cover": lambda facts: facts.cloud,
    "proj:epsg": lambda facts: _epsg(facts.draw),
    "sim:version": lambda facts: facts.version,
}
"""Every property that a search may compare."""

MOMENTS = frozenset({"datetime", "start_datetime", "end_datetime", "created", "updated"})
"""Those of them that are moments."""

QUERYABLES = {
    name: {"type": "string", **({"format": "date-time"} if name in MOMENTS else {})}
    if name in MOMENTS or name in ("id", "collection", "platform", "constellation")
    else {"type": "number"}
    for name in _VALUES
}
"""Every property that a search may compare, as JSON Schema."""


def draw_facts(collection: str, id: str, rank: int, draw: int, start: int, version: int, updated: int | None) -> Facts:
    """The facts of an item from its 64 random bits; `version` counts its changes, the last at `updated`."""
    end = start + (draw >> 6 & 0xFFFF) % LONGEST_SECONDS * times.SECOND + times.HOUR if not draw & 63 else None
    # Three days at most between the picture and its item.
    created = start + times.HOUR + (draw >> 24) % (3 * times.DAY)
    # Other bits of the same draw, spread anew: cheaper than another draw.
    place = draw * 0x9E3779B97F4A7C15 >> 40 & 0xFFFFFFFF
    cloud = (place >> 4) % 10_001 if place & 15 else None
    if cloud is not None and version:
        cloud = (cloud + version * 37) % 10_001
    return Facts(
        collection,
        id,
        rank,
        draw,
        start,
        end,
        spot_of(draw),
        created,
        created if updated is None else updated,
        version,
        None if cloud is None else cloud / 100,
    )


def draw_of(salt: int, rank: int) -> int:
    """The 64 random bits of an item."""
    return mix(salt ^ rank << 1)


def spot_of(draw: int) -> int:
    """Where on earth an item is: the number of one of SPOTS."""
    return draw >> 52


@cache
def spots() -> tuple[tuple[Box | None, str], ...]:
    """Places on earth, as satellites have tiles: the box, and the members `geometry` and `bbox` in encoded JSON.

    Most are squares, some points, a few nowhere.
    """
    found: list[tuple[Box | None, str]] = []
    for number in range(SPOTS):
        draw = mix(number)
        west, south = ((draw >> 8 & 0xFFFF) % 35_600 - 17_900) / 100, ((draw >> 24 & 0xFFFF) % 16_000 - 8000) / 100
        if number % 64 == 0:
            found.append((None, '"geometry":null,'))
            continue
        point = number % 64 < 4
        # Only two decimals: what is compared must be what is written.
        east, north = (west, south) if point else (round(west + 1.1, 2), round(south + 0.9, 2))
        ring = f"[[[{west},{south}],[{east},{south}],[{east},{north}],[{west},{north}],[{west},{south}]]]"
        shape = f'"Point","coordinates":[{west},{south}]' if point else f'"Polygon","coordinates":{ring}'
        found.append(
            ((west, south, east, north), f'"geometry":{{"type":{shape}}},"bbox":[{west},{south},{east},{north}],')
        )
    return tuple(found)


SPOTS = 4096
LONGEST_SECONDS = 23 * 3600
"""No item whose datetime is null lasts longer than an hour and so many seconds."""
LONGEST = LONGEST_SECONDS * times.SECOND + times.HOUR


def _epsg(draw: int) -> int | None:
    return None if not draw >> 24 & 15 else _EPSG[(draw >> 28) % len(_EPSG)]


def item_json(facts: Facts) -> str:
    """An item as encoded JSON (ASCII), with BASE for the address of the API."""
    draw, id, collection = facts.draw, facts.id, facts.collection
    home = f"{BASE}/collections/{collection}"
    if facts.end is None:
        when = f'"datetime":"{times.write(facts.start)}"'
    else:
        when = (
            f'"datetime":null,"start_datetime":"{times.write(facts.start)}","end_datetime":"{times.write(facts.end)}"'
        )
    epsg = _epsg(draw)
    cloud = "" if facts.cloud is None else f'"eo:cloud_cover":{facts.cloud},'
    created = times.write(facts.created)
    updated = created if facts.updated == facts.created else times.write(facts.updated)
    files = f"https://data.example.com/{collection}/{id}/{facts.version}"
    return (
        f'{{"type":"Feature","stac_version":"1.1.0","stac_extensions":{_EXTENSIONS},"id":"{id}",'
        f'"collection":"{collection}",{spots()[facts.spot][1]}"properties":{{{when},'
        f'"created":"{created}","updated":"{updated}",'
        f'"platform":"{PLATFORMS[draw >> 20 & 3]}","constellation":"sim","instruments":["msi"],'
        f'"gsd":{_GSD[draw >> 22 & 3]},{cloud}"proj:epsg":{epsg or "null"},"sim:version":{facts.version},'
        f'"sim:orbit":{draw >> 32 & 255},"sim:tile":"T{draw >> 24 & 0xFFFF:04X}","sim:note":null}},'
        f'"assets":{{"data":{{"href":"{files}/data.tif","type":"image/tiff; application=geotiff;'
        f' profile=cloud-optimized","roles":["data"],"title":"Surface reflectance, all bands in one file"}},'
        f'"thumbnail":{{"href":"{files}/thumbnail.jpg","type":"image/jpeg","roles":["thumbnail"],"title":"Thumbnail"}},'
        f'"metadata":{{"href":"{files}/metadata.xml","type":"application/xml","roles":["metadata"],'
        f'"title":"Metadata as the agency gave them"}}}},"links":['
        f'{{"rel":"self","type":"application/geo+json","href":"{home}/items/{id}"}},'
        f'{{"rel":"parent","type":"application/json","href":"{home}"}},'
        f'{{"rel":"collection","type":"application/json","href":"{home}"}},'
        f'{{"rel":"root","type":"application/json","href":"{BASE}"}}]}}'
    )


_EXTENSIONS = (
    '["https://stac-extensions.github.io/eo/v1.1.0/schema.json",'
    '"https://stac-extensions.github.io/projection/v1.1.0/schema.json"]'
)
