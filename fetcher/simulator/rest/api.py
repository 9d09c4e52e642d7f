"""What a simulated REST API answers: the same items by every way of paging, each at a path of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from fetcher.simulator.profile import Share
from fetcher.simulator.rest import shapes
from fetcher.simulator.rest.allowance import Allowance
from fetcher.simulator.rest.world import RestWorld, seconds_of
from fetcher.simulator.service import Asked
from fetcher.simulator.wire import JSON, Body, Refused, Request, parameters_of
from fetcher.simulator.world import mix

PREFIX = "/rest"

STYLES: Mapping[str, str] = {
    "/cursor": "`before` takes the last id of a page; `has_more` ends it",
    "/older": "`older` takes the time of the last item of a page",
    "/page": "`page` takes a number from 1; the body is the list",
    "/numbered": "likewise; the list is at `data`, `meta.last` has the last page's number, and 404 is behind it",
    "/offset": "`offset` takes how many are skipped; the list is at `data.items`",
    "/token": "`page_token` takes the `next_token` of the page before",
    "/next": "`next` is the address of the next page",
    "/link": "the header `Link` has the address of the next page",
    "/newest, /items/ID": "the highest id, and each item by its own request",
    "/hacker-news": "like Hacker News: /maxitem.json, /item/ID.json",
    "/github": "like GitHub: /repos/OWNER/REPO/issues",
    "/datasette": "like Datasette 1.0: /DATABASE/TABLE.json",
}
"""Where each way of paging is found, below the address; `limit` and `order=oldest` hold for the first eight."""

_HOST = re.compile(r"[\w.:\[\]-]{1,200}", re.ASCII)
_MOST = 1000
_MOST_ROWS = 100
"""Rows on a page of the Datasette, so that small tables have several."""

_ITEM = re.compile(r"/items/(\d{1,15})")
_STORY = re.compile(r"/hacker-news/item/(\d{1,15})\.json")
_ISSUES = re.compile(r"/github/repos/[\w.-]+/[\w.-]+/issues")
_ROWS = re.compile(r"/datasette/[\w.-]+/[\w.-]+\.json")


@dataclass(frozen=True, slots=True)
class _Cut:
    """A page: its ids, where the next one begins, how many there are at all."""

    ids: Sequence[int]
    end: int | None
    total: int


class RestApi:
    """Answers from a RestWorld."""

    prefix = PREFIX
    takes_bodies = False
    mishaps: tuple[Share, ...] = ()

    def __init__(self, world: RestWorld) -> None:
        self.world = world
        self.seed = world.seed
        self._allowance = Allowance(*world.allowance) if world.allowance is not None else None

    def read(self, request: Request) -> Asked:
        """What a request is about. Raises Refused when it is about nothing."""
        if request.method != "GET":
            raise Refused(405, b"", headers={"Allow": "GET"}, final=True)
        if request.headers.has_body:
            raise Refused(400, _error("a GET has no body"), final=True)
        path = request.path.removeprefix(PREFIX)
        asked = dict(parameters_of(request.query)) if request.query else {}
        found = self._route(path, asked, request) if request.path.startswith(PREFIX) else None
        if found is None:
            raise Refused(404, _error("there is no such page"), kind="other")
        kind, key, answer = found
        if self.world.token is not None and request.headers.fields.get("authorization") != f"Bearer {self.world.token}":
            raise Refused(401, b'{"message":"Bad credentials"}', kind=kind)
        return Asked(kind, key, lambda _logged_in, shift: answer(shift))

    @staticmethod
    def malformed() -> bytes:
        """The body of the answer to what is no request."""
        return _error("malformed request")

    def _route(
        self, path: str, asked: dict[str, str], request: Request
    ) -> tuple[str, int, Callable[[int], Body]] | None:
        host = request.headers.fields.get("host", "")
        base = f"http://{host if _HOST.fullmatch(host) else 'localhost'}{PREFIX}"
        if path == "/newest":
            return "max", 0, lambda _: _json({"newest": self.world.newest})
        if path == "/hacker-news/maxitem.json":
            return "max", 0, lambda _: _json(self.world.newest)
        if found := _ITEM.fullmatch(path):
            return "info", int(found[1]), lambda _: self._item(int(found[1]))
        if found := _STORY.fullmatch(path):
            return "info", int(found[1]), lambda _: _json(shapes.story(self.world, int(found[1])))
        if path in ("/cursor", "/older", "/page", "/numbered", "/offset", "/token", "/next", "/link"):
            return self._listed(path, base + path, asked)
        if _ISSUES.fullmatch(path):
            return self._issues(base + path, asked)
        if _ROWS.fullmatch(path):
            return self._rows(base + path, asked)
        return None

    def _item(self, id: int) -> Body:
        if not self.world.has(id):
            raise Refused(404, _error("there is no such item"))
        return _json(self.world.item(id))

    # --- the eight ways -------------------------------------------------------------------------------

    def _listed(self, path: str, url: str, asked: dict[str, str]) -> tuple[str, int, Callable[[int], Body]]:
        world = self.world
        limit = min(_MOST, _number(asked, "limit", 20))
        newest = asked.get("order") != "oldest"
        ids = self._ids(asked, newest=newest)
        begin = 0
        if path == "/cursor":
            before = _number(asked, "before", _MOST**4)
            begin = sum(1 for id in ids if (id >= before if newest else id <= before)) if "before" in asked else 0
        elif path == "/older":
            older = _seconds(asked["older"]) if "older" in asked else _MOST**4
            begin = sum(1 for id in ids if world.created(id) >= older)
        elif path in ("/page", "/numbered"):
            begin = (max(1, _number(asked, "page", 1)) - 1) * limit
            if path == "/numbered" and begin >= max(1, len(ids)):
                raise Refused(404, _error("there is no such page"), kind="list")
        elif path == "/offset":
            begin = _number(asked, "offset", 0)
        else:
            begin = self._place(asked.get("page_token"), ids, newest=newest)

        def answer(shift: int) -> Body:
            cut = _cut(ids, max(0, begin - shift), limit)
            items = [world.item(id) for id in cut.ids]
            more = {"limit": str(limit)} | {name: asked[name] for name in ("order", "since") if name in asked}
            token = None if cut.end is None else self._token(cut.ids[-1])
            match path:
                case "/cursor" | "/older":
                    return _json({"items": items, "has_more": cut.end is not None})
                case "/page":
                    return _json(items)
                case "/numbered":
                    return _json({"data": items, "meta": {"last": max(1, -(-cut.total // limit))}})
                case "/offset":
                    return _json({"data": {"items": items}, "total": cut.total})
                case "/token":
                    return _json({"results": items, "next_token": token})
            following = None if token is None else f"{url}?{urlencode({**more, 'page_token': token})}"
            if path == "/next":
                return _json({"items": items, "next": following})
            links = f'<{url}?{urlencode(more)}>; rel="first"'
            return _json(items, links if following is None else f'<{following}>; rel="next", {links}')

        return "list", begin, answer

    def _ids(self, asked: Mapping[str, str], *, newest: bool) -> Sequence[int]:
        ids = self.world.ids()
        if "since" in asked:
            since = _seconds(asked["since"])
            ids = [id for id in ids if self.world.updated(id) >= since]
        return ids[::-1] if newest else ids

    def _token(self, id: int) -> str:
        return f"{mix(self.world.era ^ 0x70CE) % 0xFFFF:04x}{id:x}"

    def _place(self, token: str | None, ids: Sequence[int], *, newest: bool) -> int:
        """Where the page of a token begins: behind the item that it names, be it there or not."""
        if token is None:
            return 0
        try:
            last = int(token[4:], 16)
        except ValueError:
            last = -1
        if last < 0 or token != self._token(last):
            raise Refused(400, _error("page_token is not one that was given"), kind="list")
        return sum(1 for id in ids if (id >= last if newest else id <= last))

    # --- like real ones -----------------------------------------------------------------------------

    def _issues(self, url: str, asked: dict[str, str]) -> tuple[str, int, Callable[[int], Body]]:
        size, page = min(100, _number(asked, "per_page", 30)), max(1, _number(asked, "page", 1))
        ids = self._ids(asked, newest=asked.get("direction") != "asc")
        limits = self._allowance.spend() if self._allowance is not None else {}

        def answer(shift: int) -> Body:
            cut = _cut(ids, max(0, (page - 1) * size - shift), size)

            def link(number: int, rel: str) -> str:
                return f'<{url}?{urlencode({**asked, "page": str(number)})}>; rel="{rel}"'

            last = max(1, -(-len(ids) // size))
            links = [link(page - 1, "prev")] if page > 1 else []
            links += [link(page + 1, "next"), link(last, "last")] if page < last else []
            return _json([shapes.issue(self.world, id) for id in cut.ids], ", ".join(links) or None, limits)

        return "list", (page - 1) * size, answer

    def _rows(self, url: str, asked: dict[str, str]) -> tuple[str, int, Callable[[int], Body]]:
        if asked.get("_shape") != "objects":
            raise Refused(400, _error("the simulator has _shape=objects only"), kind="list")
        if asked.get("_extra"):
            raise Refused(400, _error("the simulator has no _extra"), kind="list")
        after = _number(asked, "_next", 0)
        size = _MOST_ROWS if asked.get("_size") == "max" else _number(asked, "_size", 50)
        if size > _MOST_ROWS:
            raise Refused(400, _error(f"_size must be at most {_MOST_ROWS}"), kind="list")
        ids = self.world.ids()
        begin = sum(1 for id in ids if id <= after)

        def answer(shift: int) -> Body:
            cut = _cut(ids, max(0, begin - shift), size)
            following = None if cut.end is None else f"{url}?{urlencode({**asked, '_next': str(cut.ids[-1])})}"
            return _json(
                shapes.rows(self.world, cut.ids, following),
                None if following is None else f'<{following}>; rel="next"',
            )

        return "list", begin, answer


def _cut(ids: Sequence[int], begin: int, size: int) -> _Cut:
    end = begin + size
    return _Cut(ids[begin:end], end if end < len(ids) else None, len(ids))


def _number(asked: Mapping[str, str], name: str, default: int) -> int:
    text = asked.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Refused(400, _error(f"{name} is not a number"), kind="list")
    return int(text)


def _seconds(text: str) -> int:
    try:
        return seconds_of(text)
    except ValueError:
        raise Refused(400, _error(f"{text[:40]} is no time"), kind="list") from None


def _json(value: Any, link: str | None = None, headers: Mapping[str, str] = MappingProxyType({})) -> Body:
    named = {**headers, **({"Link": link} if link else {})}
    return Body(json.dumps(value, separators=(",", ":")).encode(), JSON, headers=named)


def _error(message: str) -> bytes:
    return json.dumps({"message": message}).encode()
