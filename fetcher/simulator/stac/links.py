"""How a page names the next one: tokens that say where it begins, and links around them in several styles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from fetcher.simulator.stac import times
from fetcher.simulator.stac.search import Cursor
from fetcher.simulator.stac.world import StacWorld

GEOJSON = "application/geo+json"
TOKEN_HEADER = "X-Page-Token"
"""The header that the style `get-headers` wants to have back."""

_MEMBERS = {"post-body": "next", "offset": "offset", "skip": "skip"}
_HOLLOW = "~"
_PAGE = {"page": "next"}


class Links:
    """The next links of one style, and the tokens in them; a token that was not given out is refused."""

    def __init__(self, world: StacWorld, style: str) -> None:
        self._world = world
        self._style = style
        self._member = _MEMBERS.get(style, "token")
        self.counts = style in ("offset", "skip")
        """Whether a token is no more than the number of items before."""

    def token_in(self, members: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
        """The token that a request brings, None for one of a first page. Raises ValueError."""
        if self._style == "get-headers":
            token = headers.get(TOKEN_HEADER.lower())
            if token is None and members.get("page") is not None:
                raise ValueError(f"the header {TOKEN_HEADER} is missing")
            return token
        token = members.get(self._member)
        if token is None:
            return None
        if self.counts and isinstance(token, int) and not isinstance(token, bool):
            return str(token)
        if not isinstance(token, str):
            raise ValueError(f"{self._member} is not a text")
        return token

    def cursor(self, token: str) -> Cursor:
        """Where the page of a token begins; of a style that `counts` only `seen` is known. Raises ValueError."""
        hollow = token.endswith(_HOLLOW)
        text = token.removesuffix(_HOLLOW)
        try:
            if self.counts:
                if not (text.isascii() and text.isdigit() and len(text) < 16):
                    raise ValueError
                return Cursor(None, int(text), hollow)
            return Cursor(self._mark(text), 0, hollow)
        except ValueError:
            raise ValueError(f"{self._member} is not one that was given: {token[:60]!r}") from None

    def token(self, cursor: Cursor) -> str:
        """The token of the page that begins there."""
        return self._text(cursor) + (_HOLLOW if cursor.hollow else "")

    def next(self, token: str, method: str, url: str, members: Mapping[str, Any]) -> dict[str, Any]:
        """The link to the page of a token, for a request that was sent there with these members."""
        rest = {name: value for name, value in members.items() if name not in (self._member, "page")}
        link: dict[str, Any] = {"rel": "next", "type": GEOJSON, "method": method}
        if self._style == "get-headers":
            link["headers"] = {TOKEN_HEADER: token}
            if method == "POST":
                return {**link, "href": url, "body": {**rest, **_PAGE}}
            return {**link, "href": f"{url}?{urlencode({**rest, **_PAGE})}"}
        value: str | int = int(token) if self.counts and token.isdigit() else token
        if method == "GET" or self._style == "get-token":
            return {**link, "method": "GET", "href": f"{url}?{urlencode({**_as_text(rest), self._member: value})}"}
        if self._style == "post-merge":
            return {**link, "href": url, "merge": True, "body": {self._member: value}}
        link |= {"href": url, "body": {**rest, self._member: value}}
        return {**link, "merge": False} if self._style == "post-body" else link

    def _text(self, cursor: Cursor) -> str:
        if self.counts:
            return str(cursor.seen)
        after = cursor.after
        if after is None or isinstance(after, int):
            return self._signed(f"p{after or 0}")
        moment, at, rank = after
        collection, id = self._world.collections[at], self._world.id(at, rank)
        if self._style == "post-body":
            return f"{times.write(moment)},{id},{collection}"
        if self._style in ("post-token", "get-token"):
            return f"next:{collection}:{id}"
        return self._signed(f"next:{collection.encode().hex()}:{id.encode().hex()}")

    def _mark(self, text: str) -> Any:
        body, _, _ = text.rpartition(".")
        if body[:1] == "p" and text == self._signed(body):
            return int(body[1:]) or None
        if self._style == "post-body":
            when, id, collection = text.split(",")
        elif self._style in ("post-token", "get-token"):
            begin, collection, id = text.split(":")
            if begin != "next":
                raise ValueError
        else:
            begin, collection, id = body.split(":")
            if text != self._signed(body) or begin != "next":
                raise ValueError
            collection, id = bytes.fromhex(collection).decode(), bytes.fromhex(id).decode()
        at = self._world.index(collection)
        rank = None if at is None else self._world.rank(at, id)
        if at is None or rank is None:
            raise ValueError
        moment = self._world.moment(at, rank)
        if self._style == "post-body" and when != times.write(moment):
            raise ValueError
        return moment, at, rank

    def _signed(self, text: str) -> str:
        return f"{text}.{blake2b(f'{self._world.seed} {text}'.encode(), digest_size=4).hexdigest()}"


def _as_text(members: Mapping[str, Any]) -> dict[str, str]:
    """The members of a body as parameters of an address."""
    found = {}
    for name, value in members.items():
        if isinstance(value, list):
            found[name] = ",".join(map(str, value))
        elif isinstance(value, dict):
            found[name] = json.dumps(value, separators=(",", ":"))
            if name == "filter":
                found["filter-lang"] = "cql2-json"
        elif value is not None:
            found[name] = str(value)
    return found
