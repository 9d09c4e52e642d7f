"""Requests of a search and what continues them: `next` links as the specification has them and as servers bend it.

The rules are those of stac-api-spec v1.0.0, item-search, "Pagination".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from fetcher.client import Answer, Client
from fetcher.rows import malformed

_SIGNATURE = re.compile(r"(?i)(sig|se|st|sp|sv|sr|ske|sks|skt|skv|skoid|sktid|signature|expires|x-(amz|goog)-.*)\Z")
"""Parameters that sign an address: another time they are others, and it is the same address."""

_NOT_TO_BE_SENT = {
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "cookie",
    "authorization",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a search: a GET where there is no body, else a POST of it as JSON."""

    url: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def limited(self, limit: int) -> Request:
        """The same, for pages of so many items."""
        if self.body is not None:
            return replace(self, body={**self.body, "limit": limit})
        parts = urlsplit(self.url)
        pairs = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "limit"]
        return replace(self, url=parts._replace(query=urlencode([*pairs, ("limit", limit)])).geturl())

    @property
    def identity(self) -> int:
        """What is the same for the same request, whatever signs its address."""
        parts = urlsplit(self.url)
        pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if not _SIGNATURE.match(pair[0])]
        return hash((parts.path, tuple(pairs), json.dumps(self.body, sort_keys=True)))


def send(client: Client, request: Request, parse: Any) -> Answer:
    """Ask. Raises RequestFailed."""
    body = None if request.body is None else json.dumps(request.body, separators=(",", ":")).encode()
    return client.ask(request.url, parse, body=body, headers=request.headers)


def next_of(links: list[Any], request: Request) -> Request | None:
    """What continues a page that was got by `request`, None when nothing does. Raises RequestFailed (malformed)."""
    for link in links:
        if type(link) is dict and link.get("rel") == "next":
            return _followed(link, request)
    return None


def _followed(link: Mapping[str, Any], request: Request) -> Request:
    href, body, headers = link.get("href"), link.get("body"), link.get("headers")
    if type(href) is not str or not href:
        raise malformed("a next link without an address")
    try:
        url = urljoin(request.url, href)
    except ValueError:
        raise malformed(f"a next link that is no address: {href!r:.100}") from None
    sent = {
        name: value if type(value) is str else ", ".join(map(str, value))
        for name, value in (headers if type(headers) is dict else {}).items()
        if type(value) in (str, list) and name.lower() not in _NOT_TO_BE_SENT
    }
    method = str(link.get("method") or ("POST" if body is not None else "GET")).upper()
    if method == "GET":
        return Request(url, None, sent)
    if method != "POST" or not (body is None or type(body) is dict):
        raise malformed(f"a next link of an unknown kind: {method} with {type(body).__name__}")
    if link.get("merge") is True:
        return Request(url, {**(request.body or {}), **(body or {})}, {**request.headers, **sent})
    return Request(url, body if body is not None else request.body or {}, sent)
