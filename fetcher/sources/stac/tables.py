"""The tables and views of a mirrored STAC catalogue."""

from __future__ import annotations

from fetcher.model import Column, Generated, Table, View

ITEMS = Table(
    "items",
    (
        Column("key", "text", required=True),
        Column("collection", "text", required=True),
        Column("id", "text", required=True),
        Column("time", "integer"),
        Column("west", "real"),
        Column("south", "real"),
        Column("east", "real"),
        Column("north", "real"),
        Column("bbox", "json"),
        Column("geometry", "json"),
        Column("properties", "json", required=True),
        Column("links", "json"),
        Column("stac_version", "text"),
        Column("stac_extensions", "json"),
    ),
    # A scope is a collection, and the filter behind it where there is one.
    in_scope="\"collection\" = CASE instr(:scope, ' {') WHEN 0 THEN :scope"
    " ELSE substr(:scope, 1, instr(:scope, ' {') - 1) END",
    position=("collection", "time"),
    generated=(
        Generated("datetime", "text", "properties", "$.datetime"),
        Generated("start_datetime", "text", "properties", "$.start_datetime"),
        Generated("end_datetime", "text", "properties", "$.end_datetime"),
        Generated("created", "text", "properties", "$.created"),
        Generated("updated", "text", "properties", "$.updated"),
        Generated("platform", "text", "properties", "$.platform"),
        Generated("constellation", "text", "properties", "$.constellation"),
        Generated("instruments", "text", "properties", "$.instruments"),
        Generated("gsd", "real", "properties", "$.gsd"),
        Generated("cloud_cover", "real", "properties", '$."eo:cloud_cover"'),
        Generated("epsg", "integer", "properties", '$."proj:epsg"'),
    ),
    index=("id", "datetime", "start_datetime", "end_datetime"),
)
ASSETS = Table(
    "assets",
    (Column("key", "text", required=True), Column("asset", "json", required=True)),
    parent="item",
    generated=(
        Generated("href", "text", "asset", "$.href"),
        Generated("type", "text", "asset", "$.type"),
        Generated("title", "text", "asset", "$.title"),
        Generated("roles", "text", "asset", "$.roles"),
    ),
)
COLLECTIONS = Table(
    "collections",
    (
        Column("id", "text", required=True),
        Column("title", "text"),
        Column("description", "text"),
        Column("license", "text"),
        Column("keywords", "json"),
        Column("providers", "json"),
        Column("extent", "json"),
        Column("summaries", "json"),
        Column("assets", "json"),
        Column("item_assets", "json"),
        Column("links", "json"),
        Column("stac_version", "text"),
        Column("stac_extensions", "json"),
    ),
)
TABLES = (ITEMS, ASSETS, COLLECTIONS)

VIEWS = (
    View(
        "stac_items",
        # Put together as text, which keeps every number as it was written.
        'SELECT key, collection, id, time, \'{"type":"Feature"\''
        " || iif(stac_version IS NULL, '', ',\"stac_version\":' || json_quote(stac_version))"
        " || ifnull(',\"stac_extensions\":' || stac_extensions, '')"
        " || ',\"id\":' || json_quote(id) || ',\"collection\":' || json_quote(collection)"
        " || ',\"geometry\":' || ifnull(geometry, 'null') || ifnull(',\"bbox\":' || bbox, '')"
        " || ',\"properties\":' || properties || ifnull(',\"links\":' || links, '')"
        " || ',\"assets\":{' || ifnull((SELECT group_concat(json_quote(assets.key) || ':' || asset) FROM assets"
        " WHERE item = items.key), '') || '}' || ifnull(',' || substr(extra, 2, length(extra) - 2), '') || '}' AS item"
        " FROM items",
        postgres='SELECT key, collection, id, time, (\'{"type":"Feature"\''
        " || coalesce(',\"stac_version\":' || to_json(stac_version)::text, '')"
        " || coalesce(',\"stac_extensions\":' || stac_extensions::text, '')"
        " || ',\"id\":' || to_json(id)::text || ',\"collection\":' || to_json(collection)::text"
        " || ',\"geometry\":' || coalesce(geometry::text, 'null') || coalesce(',\"bbox\":' || bbox::text, '')"
        " || ',\"properties\":' || properties::text || coalesce(',\"links\":' || links::text, '')"
        " || ',\"assets\":{' || coalesce((SELECT string_agg(to_json(assets.key)::text || ':' || asset::text, ','"
        " ORDER BY assets.key) FROM assets WHERE item = items.key), '') || '}'"
        " || coalesce(',' || substr(extra::text, 2, length(extra::text) - 2), '') || '}')::json AS item FROM items",
    ),
    View(
        "per_collection",
        "SELECT collection, count(*) AS items, min(datetime) AS first, max(datetime) AS last FROM items"
        " WHERE unlisted_at IS NULL GROUP BY collection ORDER BY collection",
    ),
)
