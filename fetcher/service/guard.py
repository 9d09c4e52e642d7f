"""What is refused before anything is read of it: requests without a key, from elsewhere, or too large."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fetcher.service.keys import Keys

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 2_000_000
"""A request's body is no larger: a hundred thousand ids of ten digits take 1.2 MB."""

BODY_SECONDS = 30.0
"""A request's body has come whole within this."""

OPEN = frozenset({"/healthz", "/readyz"})
"""What whoever supervises the service may ask without a key."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    # Not "no-referrer": with that the Origin of our own forms would be null.
    (b"referrer-policy", b"same-origin"),
)


class Guard:
    """An ASGI application in front of another."""

    def __init__(self, app: App, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return  # Nothing else is served.
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        admitted = not self._keys or self._keys.admit(headers)
        refusal = self._refusal(scope, headers, admitted)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        scope.setdefault("state", {})["admitted"] = admitted
        asked = _as_get(scope)
        # What only looks has no body: whoever follows a job's events is not to be taken for somebody slow.
        body = _Body(receive, whole=scope["method"] in _SAFE)
        began = False

        async def sent(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                if body.refusal is not None:
                    raise _Refused
                began = True
                scope["route"] = asked.get("route")  # For who counts.
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            await self._app(asked, body, sent if scope["method"] != "HEAD" else _headers_alone(sent))
        except _Refused:
            if body.refusal is not None and not began:
                await _answer(send, *body.refusal)

    def _refusal(self, scope: Scope, headers: dict[str, str], admitted: bool) -> tuple[int, str] | None:
        if not admitted and scope["path"] not in OPEN:
            return 401, "a key is needed: Authorization: Bearer KEY"
        if not self._keys and not is_loopback(_host(headers.get("host", ""))):
            # A page elsewhere could have its own name point to this machine.
            return 403, "without API_KEYS only this machine may ask, by the name localhost or a loopback address"
        if scope["method"] not in _SAFE:
            if _is_elsewhere(headers):
                return 403, "pages of other sites may not ask for this"
            length = headers.get("content-length", "0")
            if length.isdecimal() and int(length) > MOST_BYTES:
                return 413, _TOO_LARGE
        return None


def _as_get(scope: Scope) -> Scope:
    """What HEAD asks for is what GET would answer."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def _headers_alone(send: Send) -> Send:
    """Ends an answer after its headers: a stream, too, whose end would be far."""
    ended = False

    async def sent(message: Message) -> None:
        nonlocal ended
        if not ended:
            await send(message)
            if message["type"] == "http.response.start":
                ended = True
                await send({"type": "http.response.body", "body": b""})

    return sent


def _is_elsewhere(headers: dict[str, str]) -> bool:
    """Whether a page of another site asks; a browser says so, if not by one header then by the other."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("none", "same-origin")
    # Left out over plain HTTP, except to this machine.
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")


_TOO_LARGE = f"a request may have {MOST_BYTES:,} bytes at most"


class _Refused(Exception):
    """The body is not waited for any more."""


class _Body:
    """A request's body as it comes: no more of it than is allowed, and no longer."""

    def __init__(self, receive: Receive, *, whole: bool) -> None:
        self._receive = receive
        self._bytes = 0
        self._whole = whole
        self._until = time.monotonic() + BODY_SECONDS
        self.refusal: tuple[int, str] | None = None

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            self.refusal = 408, f"the body has to come within {BODY_SECONDS:g} s"
            raise _Refused from None
        self._whole = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > MOST_BYTES:
            self.refusal = 413, _TOO_LARGE
            raise _Refused
        return message


async def _answer(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    if status in (408, 413):
        # What still comes of the body is not read.
        headers.append((b"connection", b"close"))
    if status == 401:
        headers += [(b"www-authenticate", b'Bearer realm="fetcher"'), (b"www-authenticate", b'Basic realm="fetcher"')]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
