"""What a simulated STAC API says about itself: landing page, conformance, collections, queryables, service."""

from __future__ import annotations

from typing import Any

from fetcher.simulator.stac import times
from fetcher.simulator.stac.items import QUERYABLES
from fetcher.simulator.stac.world import END, FIRST, StacWorld

OPENAPI = "application/vnd.oai.openapi+json;version=3.0"
SCHEMA = "application/schema+json"
QUERYABLES_REL = "http://www.opengis.net/def/rel/ogc/1.0/queryables"

_STAC = "https://api.stacspec.org/v1.0.0"
_ALWAYS = (
    f"{_STAC}/core",
    f"{_STAC}/collections",
    f"{_STAC}/ogcapi-features",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text",
    "http://www.opengis.net/spec/cql2/1.0/conf/advanced-comparison-operators",
)
_SEARCH = (f"{_STAC}/item-search", f"{_STAC}/item-search#filter", f"{_STAC}/item-search#query")


def conformance(searched: bool) -> list[str]:
    """The classes that the API conforms to, with or without an item search."""
    return [*_ALWAYS, *(_SEARCH if searched else ())]


def link(rel: str, href: str, type: str = "application/json", **more: str) -> dict[str, str]:
    """A link."""
    return {"rel": rel, "type": type, "href": href, **more}


def landing(world: StacWorld, base: str, searched: bool) -> dict[str, Any]:
    """The landing page: a catalog."""
    links = [
        link("self", base),
        link("root", base),
        link("data", f"{base}/collections"),
        link("conformance", f"{base}/conformance"),
        link("service-desc", f"{base}/api", OPENAPI),
        link("service-doc", f"{base}/api.html", "text/html"),
        link(QUERYABLES_REL, f"{base}/queryables", SCHEMA),
    ]
    if searched:
        links += [link("search", f"{base}/search", "application/geo+json", method=way) for way in ("GET", "POST")]
    links += [link("child", f"{base}/collections/{name}") for name in world.collections]
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "simulator",
        "title": "A simulated STAC API",
        "description": "Made-up items, to rehearse with.",
        "conformsTo": conformance(searched),
        "links": links,
    }


def collection(world: StacWorld, name: str, base: str) -> dict[str, Any]:
    """One collection."""
    home = f"{base}/collections/{name}"
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": name,
        "title": f"Simulated {name}",
        "description": "Made-up items, to rehearse with.",
        "license": "CC0-1.0",
        "keywords": ["simulated"],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[times.write(FIRST), None if world.changes.added else times.write(END)]]},
        },
        "links": [
            link("self", home),
            link("root", base),
            link("parent", base),
            link("items", f"{home}/items", "application/geo+json"),
            link(QUERYABLES_REL, f"{home}/queryables", SCHEMA),
            link("license", "https://creativecommons.org/publicdomain/zero/1.0/", "text/html"),
        ],
    }


def queryables(url: str) -> dict[str, Any]:
    """What filters may name, as JSON Schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": url,
        "type": "object",
        "title": "Queryables",
        "properties": QUERYABLES,
        "additionalProperties": False,
    }


def service(searched: bool) -> dict[str, Any]:
    """The service as OpenAPI."""
    answers = {"200": {"description": "the answer"}, "400": {"description": "a wrong parameter"}}
    paths = [
        "/",
        "/conformance",
        "/collections",
        "/collections/{collectionId}",
        "/collections/{collectionId}/items",
        "/collections/{collectionId}/items/{itemId}",
        "/queryables",
    ]
    found: dict[str, Any] = {path: {"get": {"responses": answers, "parameters": _named(path)}} for path in paths}
    if searched:
        found["/search"] = {"get": {"responses": answers}, "post": {"responses": answers}}
    return {"openapi": "3.0.3", "info": {"title": "A simulated STAC API", "version": "1.0.0"}, "paths": found}


def _named(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in ("collectionId", "itemId")
        if f"{{{name}}}" in path
    ]
