"""What a simulated STAC API answers, in the dialect that it is to speak."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

from fetcher.simulator.service import Asked
from fetcher.simulator.stac import documents
from fetcher.simulator.stac.dialect import Dialect
from fetcher.simulator.stac.items import ASSET_ENDS, BASE, Facts, item_json
from fetcher.simulator.stac.links import GEOJSON, Links
from fetcher.simulator.stac.pages import Pages
from fetcher.simulator.stac.query import Query, read_limit, read_query
from fetcher.simulator.stac.search import Cursor
from fetcher.simulator.stac.world import StacWorld
from fetcher.simulator.wire import Body, Refused, Request, parameters_of
from fetcher.simulator.world import mix

PREFIX = "/stac"

_HOST = re.compile(r"[\w.:\[\]-]{1,200}", re.ASCII)
_PAGE_MEMBERS = frozenset({"limit", "token", "next", "offset", "skip", "page"})


class StacApi:
    """Answers from a StacWorld as a STAC API does."""

    prefix = PREFIX
    takes_bodies = True

    def __init__(self, world: StacWorld, dialect: Dialect) -> None:
        self.world = world
        self.seed = world.seed
        self.mishaps = dialect.mishaps
        self._dialect = dialect
        self._links = Links(world, dialect.next)
        self._pages = Pages(world, dialect, self._links)
        self._searched = "no-search" not in dialect.quirks
        self._answers = 0

    def read(self, request: Request) -> Asked:
        """What a request is about. Raises Refused when it is about nothing."""
        parts = [unquote(part) for part in request.path.removeprefix(PREFIX).strip("/").split("/")]
        kind, allowed = self._kind(parts)
        if not request.path.startswith(PREFIX) or kind is None:
            raise self._refused(404, "NotFound", "There is no such page", kind="other", final=_unread(request))
        if request.method not in allowed:
            raise self._refused(
                405, "MethodNotAllowed", "Not by that method", headers={"Allow": ", ".join(allowed)}, final=True
            )
        if request.method == "GET" and request.headers.has_body:
            raise self._refused(400, "BadRequest", "A GET has no body", final=True)
        host = request.headers.fields.get("host", "")
        base = f"http://{host if _HOST.fullmatch(host) else 'localhost'}{PREFIX}"
        members: dict[str, Any]
        if request.method == "POST":
            members = self._members(request.body, kind)
        else:
            members = dict(parameters_of(request.query)) if request.query else {}
        key = request_key(kind, parts, members, request.headers.fields.get("x-page-token"))

        def answer(_logged_in: bool, _shift: int) -> Body:
            try:
                return self._answer(kind, parts, members, request, base)
            except ValueError as error:
                raise self._refused(400, "BadRequest", str(error)) from None

        return Asked(kind, key, answer)

    def malformed(self) -> bytes:
        """The body of the answer to what is no request."""
        return self._error("BadRequest", "Malformed request")

    # What there is

    def _kind(self, parts: list[str]) -> tuple[str | None, tuple[str, ...]]:
        get = ("GET",)
        match parts:
            case [""]:
                return "landing", get
            case ["conformance" | "collections" | "queryables" as kind]:
                return kind, get
            case ["api" | "api.html"]:
                return "api", get
            case ["search"] if self._searched:
                return "search", ("GET", "POST")
            case ["collections", _]:
                return "collection", get
            case ["collections", _, "items" | "queryables" as kind]:
                return kind, get
            case ["collections", _, "items", _]:
                return "item", get
        return None, ()

    def _answer(self, kind: str, parts: list[str], members: dict[str, Any], request: Request, base: str) -> Body:
        world = self.world
        if len(parts) > 1 and world.index(parts[1]) is None:
            raise self._refused(404, "NotFound", f"There is no collection {parts[1][:80]}")
        match kind:
            case "search":
                return self._search(members, request, f"{base}/search", base)
            case "items":
                within = {**members, "collections": parts[1]}
                return self._search(within, request, f"{base}/collections/{parts[1]}/items", base)
            case "item":
                facts = world.find(parts[1], parts[3])
                if facts is None:
                    raise self._refused(404, "NotFound", f"There is no item {parts[3][:80]} in {parts[1]}")
                return Body(self._text(item_json(facts), base), GEOJSON)
            case "collections":
                return self._collections(members, base)
            case "collection":
                return _json(documents.collection(world, parts[1], base))
            case "conformance":
                return _json({"conformsTo": documents.conformance(self._searched)})
            case "queryables":
                return _json(documents.queryables("/".join([base, *parts])), documents.SCHEMA)
            case "api" if parts == ["api.html"]:
                return Body(
                    b"<html><head><title>API</title></head><body>A simulated STAC API</body></html>", "text/html"
                )
            case "api":
                return _json(documents.service(self._searched), documents.OPENAPI)
        return _json(documents.landing(world, base, self._searched))

    def _collections(self, members: Mapping[str, Any], base: str) -> Body:
        names, most = self.world.collections, self._dialect.collections_page
        url = f"{base}/collections"
        links = [documents.link("self", url), documents.link("root", base)]
        begin, size = 0, len(names)
        if most is not None:
            size = read_limit(members, most, most)
            token = members.get("token", "0")
            if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) <= len(names)):
                raise ValueError("token is not one that was given")
            begin = int(token)
            if begin + size < len(names):
                links.append(documents.link("next", f"{url}?limit={size}&token={begin + size}"))
        found = [documents.collection(self.world, name, base) for name in names[begin : begin + size]]
        return _json({"collections": found, "links": links, "numberMatched": len(names), "numberReturned": len(found)})

    # Searching

    def _search(self, members: dict[str, Any], request: Request, url: str, base: str) -> Body:
        dialect, quirks = self._dialect, self._dialect.quirks
        as_text = request.method == "GET"
        query = read_query(members, as_text=as_text)
        limit = read_limit(members, dialect.page_default, dialect.page_max)
        token = self._links.token_in(members, request.headers.fields)
        key = _hash({name: value for name, value in members.items() if name not in _PAGE_MEMBERS})
        cursor = self._pages.cursor(query, key, token)
        if "repeated-page" in quirks:
            cursor = Cursor()
        found, following = (
            ([], Cursor(cursor.after, cursor.seen)) if cursor.hollow else self._pages.page(query, key, cursor, limit)
        )
        is_search = url.endswith("/search")
        if following is not None and is_search and "missing-next" in quirks:
            following = None
        if following is not None and is_search and as_text and "get-search-500" in quirks:
            raise Refused(500, b"unsupported value", "text/plain; charset=utf-8")
        if "big-page-500" in quirks and len(found) > dialect.big_page:
            raise Refused(500, b'{"message":"Internal server error"}')
        links: list[dict[str, Any]] = [documents.link("root", base), documents.link("self", url, GEOJSON)]
        if not is_search:
            links.append(documents.link("collection", url.removesuffix("/items")))
        if following is not None:
            if "empty-page" in quirks and cursor == Cursor():
                following = Cursor(following.after, following.seen, hollow=True)
            self._pages.remember(key, following)
            asked = members if is_search else {name: each for name, each in members.items() if name != "collections"}
            links.append(self._links.next(self._links.token(following), request.method, url, asked))
        return self._feature_collection(found, links, query, key, limit, base)

    def _feature_collection(
        self, found: list[Facts], links: list[dict[str, Any]], query: Query, key: int, limit: int, base: str
    ) -> Body:
        matched = self._dialect.matched
        head: dict[str, Any] = {"numberReturned": len(found)}
        if matched != "none":
            count = self._pages.finder.count(query, key)
            if matched == "estimated":
                count = int(round(count * 1.07, -1)) + 10
            if matched != "context":
                head["numberMatched"] = count
            if matched in ("context", "both"):
                head["context"] = {"limit": limit, "matched": count, "returned": len(found)}
        rest = json.dumps({**head, "links": links}, separators=(",", ":"))
        features = ",".join(map(item_json, found))
        return Body(self._text(f'{{"type":"FeatureCollection","features":[{features}],{rest[1:]}', base), GEOJSON)

    def _text(self, text: str, base: str) -> bytes:
        if "signed" in self._dialect.quirks:
            self._answers += 1
            signature = f"?sig={mix(self._answers):016x}&se={int(time.time()) + 2700}"
            for end in ASSET_ENDS:
                text = text.replace(end, f'{end[:-1]}{signature}"')
        return text.replace(BASE, base).encode("ascii")

    # Errors

    def _members(self, body: bytes, kind: str) -> dict[str, Any]:
        try:
            members = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            members = None
        if not isinstance(members, dict):
            raise self._refused(400, "BadRequest", "The body is not a JSON object", kind=kind)
        return members

    def _error(self, code: str, description: str) -> bytes:
        if "detail-400" in self._dialect.quirks:
            return json.dumps({"detail": description}).encode()
        return json.dumps({"code": code, "description": description}).encode()

    def _refused(self, status: int, code: str, description: str, **more: Any) -> Refused:
        return Refused(status, self._error(code, description), **more)


def request_key(kind: str, parts: list[str], members: Mapping[str, Any], header: str | None = None) -> int:
    """A number that stands for what a request asks, the same however its parameters are ordered."""
    return _hash([kind, parts, members, header])


def _hash(value: Any) -> int:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _json(value: Any, type: str = "application/json") -> Body:
    return Body(json.dumps(value, separators=(",", ":")).encode(), type)


def _unread(request: Request) -> bool:
    """Whether a body follows that nobody reads."""
    return request.headers.has_body and request.method != "POST"
