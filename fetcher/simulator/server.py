"""An HTTP/1.1 server on a bare asyncio protocol that answers like pr0gramm from a `World`.

Hand-written because it must never be the bottleneck of what is measured against it: a client's headers are
parsed once and remembered, one answer is one write, and a delayed answer costs a timer, not a thread.
"""

from __future__ import annotations

import asyncio
import gzip as gziplib
import json
import logging
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import unquote_plus
from zlib import crc32

from fetcher.simulator.faults import Answer, Faults
from fetcher.simulator.world import ALL_FLAGS, SFW, World, mix

logger = logging.getLogger(__name__)

PREFIX = "/api"
MAX_HEAD = 16 * 1024
"""Bytes of a request line with its headers; a longer one is refused with 431."""
MAX_WAITING = 64 * 1024
"""Bytes of pipelined requests read ahead of the answer being given."""
TAGS_PER_PAGE = 1000
"""Tags in one answer of /tags/latest; the real number is not known."""

_BLOCKED = (
    b"<html><head><title>Attention Required! | Cloudflare</title></head>"
    b"<body>Sorry, you have been blocked (cloudflare)</body></html>"
)
_NO_PAGE = b"<html><head><title>404 Not Found</title></head><body>404 Not Found</body></html>"
_BACKLOG = 1024
# Parameters of the real listing that change what it lists: to ignore them would be a wrong answer.
_NOT_SIMULATED = frozenset({"tags", "user", "collection", "self", "following", "show_junk"})
# "nsfpRequired" is our choice after the pattern of the others; no client names it.
_REQUIRED = {1: "sfwRequired", 2: "nsfwRequired", 4: "nsflRequired", 8: "nsfpRequired", 16: "polRequired"}


class _Refused(Exception):
    """A request that gets an error in JSON with the shape of the API: error, code, msg."""

    def __init__(self, status: int, error: str, msg: str) -> None:
        super().__init__(msg)
        self.status = status
        self.body = json.dumps({"error": error, "code": status, "msg": msg}).encode()


@dataclass(frozen=True, slots=True)
class _Headers:
    """What the server wants to know from a request's headers."""

    named: bool
    logged_in: bool
    closing: bool
    keeping: bool
    gzip: bool
    has_body: bool


@dataclass(frozen=True, slots=True)
class _Reply:
    """The bytes of an answer, seconds to wait before they are sent, whether the connection ends with them."""

    payload: bytes
    delay: float = 0.0
    close: bool = False


class _Service:
    """Turns the head of a request into a reply; knows nothing of sockets."""

    def __init__(
        self,
        world: World,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        faults: Faults | None = None,
        gzip: bool = False,
        record: bool = False,
    ) -> None:
        self.world = world
        self.requests: Counter[str] = Counter()
        self.log: list[tuple[float, str, int]] | None = [] if record else None
        self.in_flight = 0
        self.max_in_flight = 0
        self._latency = latency
        self._jitter = jitter
        self._faults = faults
        self._gzip = gzip
        self._attempts: dict[str, dict[int, int]] = {}
        self._routes: dict[str, tuple[str, str, Callable[[dict[str, str], int, bool], str]]] = {
            f"{PREFIX}/items/info": ("info", "itemId", self._info),
            f"{PREFIX}/items/get": ("list", "", self._list),
            f"{PREFIX}/tags/latest": ("tags", "id", self._tags),
            f"{PREFIX}/user/loggedin": ("loggedin", "", self._logged_in),
        }

    def reply(self, head: bytes) -> _Reply:
        """The reply to one request, given its head without the empty line."""
        line, _, block = head.partition(b"\r\n")
        try:
            method, target, version = line.decode("ascii").split(" ")
            headers = _headers(block)
        except ValueError:
            return _final(400, _Refused(400, "badRequest", "Malformed request").body)
        if not version.startswith("HTTP/1."):
            return _final(505)
        old = version == "HTTP/1.0"
        close = headers.closing or (old and not headers.keeping)
        if method != "GET":
            # The body, if there is one, is not read: what follows could not be told from a request.
            return _final(405, extra={"Allow": "GET"})
        if headers.has_body:
            return _final(400, _Refused(400, "badRequest", "A GET has no body").body)

        path, _, query = target.partition("?")
        route = self._routes.get(path)
        self.requests[route[0] if route else "other"] += 1
        if not headers.named:
            return _Reply(_render(403, _BLOCKED, close=close), close=close)
        if route is None:
            return _Reply(_render(404, _NO_PAGE, close=close), close=close)

        kind, key_name, answer = route
        delay = self._latency
        status = 200
        key = 0
        try:
            parameters = _parameters(query)
            key = _key(parameters, key_name)
            if self.log is not None:
                self.log.append((time.monotonic(), kind, key))
            if self._faults is not None or self._jitter:
                fault, delay = self._fault(kind, key)
                if fault is not None and fault.status is not None:
                    return _instead(fault.status, fault, delay, close)
            text = answer(parameters, key, headers.logged_in and self.world.login)
            body = f'{text},"rt":{1 + key % 9},"qc":2}}'.encode("ascii")
        except _Refused as refused:
            status, body = refused.status, refused.body
        extra = None
        if self._gzip and headers.gzip:
            body = gziplib.compress(body, 1)
            extra = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return _Reply(_render(status, body, extra, close=close, keep=old), delay, close)

    def _fault(self, kind: str, key: int) -> tuple[Answer | None, float]:
        """The one place where things go wrong: what to answer instead, if anything, and after how long."""
        attempts = self._attempts.setdefault(kind, {})
        attempt = attempts[key] = attempts.get(key, 0) + 1
        fault = self._faults(kind, key, attempt) if self._faults is not None else None
        delay = self._latency
        if self._jitter:
            share = mix(mix(self.world.seed ^ crc32(kind.encode())) ^ mix(key) ^ attempt) / 2**64
            delay = max(0.0, delay + self._jitter * (2 * share - 1))
        return fault, delay + (fault.delay if fault is not None else 0.0)

    def _info(self, parameters: dict[str, str], item: int, logged_in: bool) -> str:
        if "itemId" not in parameters:
            raise _Refused(400, "badRequest", "itemId is missing")
        if "flags" in parameters:
            self._flags(parameters, logged_in)
        flag = self.world.flag(item)
        if not flag:
            raise _Refused(404, "notFound", "Not found")
        if flag != SFW and not logged_in:
            raise _Refused(403, "forbidden", "Not logged in")
        return f'{{{self.world.info_json(item)},"ts":{int(time.time())},"cache":"item:{item}"'

    def _list(self, parameters: dict[str, str], key: int, logged_in: bool) -> str:
        if not _NOT_SIMULATED.isdisjoint(parameters):
            raise _Refused(400, "notSimulated", "The simulator has no search, users, collections or junk")
        if len({"older", "newer", "id"} & parameters.keys()) > 1:
            raise _Refused(400, "badRequest", "One of older, newer and id")
        flags = self._flags(parameters, logged_in)
        promoted = _number(parameters, "promoted", 0)
        if promoted not in (0, 1):
            raise _Refused(400, "badRequest", "promoted is 0 or 1")
        world = self.world
        cache = f"stream:{'top' if promoted else 'new'}:{flags}"
        if "older" in parameters:
            listing = world.page(flags, promoted=bool(promoted), older=key)
            cache += f":o{key}"
        elif "newer" in parameters:
            listing = world.page(flags, promoted=bool(promoted), newer=key)
            cache += f":n{key}"
        elif "id" in parameters:
            listing = world.page(flags, promoted=bool(promoted), around=key)
            cache += f":id{key}"
        else:
            listing = world.page(flags, promoted=bool(promoted))
        now = int(time.time())
        if listing is None:
            flag = world.flag(key)
            error = _REQUIRED[flag] if flag and not flag & flags else "notFound"
            return f'{{"atEnd":false,"atStart":false,"error":"{error}","items":null,"ts":{now},"cache":null'
        start, end = ("true" if touched else "false" for touched in (listing.at_start, listing.at_end))
        items = ",".join(map(world.item_json, listing.ids))
        return f'{{"atEnd":{end},"atStart":{start},"error":null,"items":[{items}],"ts":{now},"cache":"{cache}"'

    def _tags(self, _: dict[str, str], above: int, logged_in: bool) -> str:
        tags = self.world.latest_tags_json(above, TAGS_PER_PAGE, ALL_FLAGS if logged_in else SFW)
        return f'{{"tags":[{tags}],"ts":{int(time.time())},"cache":null'

    def _logged_in(self, _: dict[str, str], __: int, logged_in: bool) -> str:
        return f'{{"loggedIn":{"true" if logged_in else "false"},"ts":{int(time.time())},"cache":null'

    @staticmethod
    def _flags(parameters: dict[str, str], logged_in: bool) -> int:
        """The flags asked for, 1 if none are: refused when there is no such flag or a login is missing."""
        flags = _number(parameters, "flags", SFW)
        if not 0 < flags <= ALL_FLAGS:
            raise _Refused(400, "badRequest", "No such flags")
        if flags != SFW and not logged_in:
            raise _Refused(403, "forbidden", "Not logged in")
        return flags


@lru_cache(maxsize=256)
def _headers(block: bytes) -> _Headers:
    """Read a block of header lines; cached because a client sends the same ones again and again."""
    fields: dict[str, str] = {}
    for line in block.decode("latin-1").split("\r\n") if block else ():
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError(f"not a header: {line!r}")
        name = name.lower()
        separator = "; " if name == "cookie" else ", "
        fields[name] = f"{fields[name]}{separator}{value.strip()}" if name in fields else value.strip()
    cookies = {
        name.strip(): value.strip()
        for name, _, value in (part.partition("=") for part in fields.get("cookie", "").split(";"))
    }
    connection = {option.strip() for option in fields.get("connection", "").lower().split(",")}
    return _Headers(
        named=bool(fields.get("user-agent")),
        logged_in=bool(cookies.get("me") and cookies.get("pp")),
        closing="close" in connection,
        keeping="keep-alive" in connection,
        gzip="gzip" in fields.get("accept-encoding", ""),
        has_body=fields.get("content-length", "0") != "0" or "transfer-encoding" in fields,
    )


def _parameters(query: str) -> dict[str, str]:
    """The parameters of a query string; of two with one name the last counts, as in PHP."""
    parameters: dict[str, str] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if "%" in part or "+" in part:
            name, value = unquote_plus(name), unquote_plus(value)
        parameters[name] = value
    return parameters


def _key(parameters: dict[str, str], name: str) -> int:
    """What a request is about: its item, its place in the listing, or 0."""
    if name:
        return _number(parameters, name, 0)
    for name in ("older", "newer", "id"):
        if name in parameters:
            return _number(parameters, name, 0)
    return 0


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise _Refused(400, "badRequest", f"{name} is not a number")
    return int(text)


def _instead(status: int, fault: Answer, delay: float, close: bool) -> _Reply:
    """The reply a fault asks for."""
    options = [value.lower() for name, value in fault.headers.items() if name.lower() == "connection"]
    close = close or "close" in options
    return _Reply(_render(status, fault.body, fault.headers, close=close), delay, close)


def _final(status: int, body: bytes = b"", extra: Mapping[str, str] | None = None) -> _Reply:
    """A reply after which the connection is of no more use."""
    return _Reply(_render(status, body, extra, close=True), close=True)


def _render(
    status: int,
    body: bytes,
    extra: Mapping[str, str] | None = None,
    *,
    close: bool = False,
    keep: bool = False,
) -> bytes:
    """A whole response in one piece: its head (`extra` replaces headers of the same names) and its body."""
    if status == 200 and extra is None and not close and not keep:
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )
    headers = {
        "content-type": "text/html; charset=UTF-8" if body[:1] == b"<" else "application/json",
        "content-length": str(len(body)),
    }
    if close or keep:
        headers["connection"] = "close" if close else "keep-alive"
    for name, value in (extra or {}).items():
        headers[name.lower()] = value
    lines = "".join(f"{name.title()}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {_reason(status)}\r\n{lines}\r\n".encode("latin-1") + body


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        # Cloudflare answers with numbers of its own, such as 522.
        return "Unknown"


class _Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other, in order, pipelined or not."""

    def __init__(self, service: _Service, others: set[_Connection]) -> None:
        self._service = service
        self._others = others
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._answering = False
        self._choked = False
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._others.add(self)
        # asyncio does so only where the listening socket was made with the protocol number of TCP.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._others.discard(self)
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        if self._answering:
            self._service.in_flight -= 1

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._serve()

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._serve()

    def abort(self) -> None:
        """Drop the connection, whatever is under way."""
        self._transport.abort()

    def _serve(self) -> None:
        """Answer what is in the buffer until an answer has to wait or the rest is no whole request."""
        while self._buffer and not (self._answering or self._choked or self._ending):
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD:
                self._answer(_final(431))
            elif not end:
                break
            else:
                self._buffer = rest
                self._begin(head.lstrip(b"\r\n"))
        if len(self._buffer) > MAX_WAITING and not self._ending:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _begin(self, head: bytes) -> None:
        service = self._service
        # The latency counts from here: to make the answer is part of it.
        began = self._loop.time()
        self._answering = True
        service.in_flight += 1
        if service.in_flight > service.max_in_flight:
            service.max_in_flight = service.in_flight
        try:
            reply = service.reply(head)
        except Exception:
            logger.exception("The simulator could not answer %r", head[:200])
            reply = _final(500)
        if reply.delay > 0:
            self._timer = self._loop.call_at(began + reply.delay, self._finish, reply)
        else:
            self._answer(reply)

    def _finish(self, reply: _Reply) -> None:
        """Send an answer that had to wait, and go on."""
        self._timer = None
        self._answer(reply)
        self._serve()

    def _answer(self, reply: _Reply) -> None:
        self._transport.write(reply.payload)
        if self._answering:
            self._answering = False
            self._service.in_flight -= 1
        if reply.close:
            # To close at once, with a body of the client still on its way, would reset the connection and
            # could take the answer with it: say that nothing more comes, and wait for the client to see it.
            self._ending = True
            self._buffer = b""
            self._transport.write_eof()
            self._timer = self._loop.call_later(1.0, self._transport.abort)


class Simulator:
    """A simulated API on a loopback port, served by a daemon thread from construction until `close()`.

    `latency` and `jitter` are seconds: an answer waits `latency` ± `jitter`, evenly spread, the same for the
    same (seed, request, attempt). `faults` is asked before each answer. `port` 0 takes any free one. With
    `gzip` answers are compressed for clients that accept it; with `record` each request is noted in `log`.
    A context manager.
    """

    def __init__(
        self,
        world: World,
        port: int = 0,
        latency: float = 0.0,
        jitter: float = 0.0,
        faults: Faults | None = None,
        gzip: bool = False,
        record: bool = False,
    ) -> None:
        self.world = world
        self._service = _Service(world, latency=latency, jitter=jitter, faults=faults, gzip=gzip, record=record)
        listener = _listen("127.0.0.1", port)
        self.url = _url(listener)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(listener,), name="simulator", daemon=True)
        self._thread.start()

    @property
    def requests(self) -> Counter[str]:
        """Requests so far by kind: "list", "info", "tags", "loggedin" or "other"."""
        return self._service.requests

    @property
    def log(self) -> list[tuple[float, str, int]] | None:
        """(monotonic seconds, kind, key) of each request so far, in order; None without `record`."""
        return self._service.log

    @property
    def max_in_flight(self) -> int:
        """The most requests that were being answered at once, from head read to answer written."""
        return self._service.max_in_flight

    def close(self) -> None:
        """Stop at once: delayed answers are never sent, open connections are dropped."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, listener: socket.socket) -> None:
        try:
            self._loop.run_until_complete(_serve_until(self._stop, listener, self._service))
        finally:
            self._loop.close()


def serve(
    world: World,
    host: str = "127.0.0.1",
    port: int = 8120,
    *,
    latency: float = 0.0,
    jitter: float = 0.0,
    faults: Faults | None = None,
    gzip: bool = False,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a world in this thread, the main one, until SIGINT or SIGTERM; a port in use raises OSError.

    `on_ready` is called with the URL once requests are answered and signals obeyed. See `Simulator` for the
    rest.
    """
    service = _Service(world, latency=latency, jitter=jitter, faults=faults, gzip=gzip)

    async def run() -> None:
        stop = asyncio.Event()
        listener = _listen(host, port)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if on_ready is not None:
            on_ready(_url(listener))
        await _serve_until(stop, listener, service)

    asyncio.run(run())


async def _serve_until(stop: asyncio.Event, listener: socket.socket, service: _Service) -> None:
    """Answer on a listening socket until `stop` is set; leaves no socket open."""
    connections: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(service, connections), sock=listener, backlog=_BACKLOG)
    await stop.wait()
    server.close()
    for connection in list(connections):
        connection.abort()
    while connections:
        await asyncio.sleep(0)


def _listen(host: str, port: int) -> socket.socket:
    # Listening before the loop runs: a client may connect from now on, and an error is the caller's own.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}{PREFIX}" if ":" in host else f"http://{host}:{port}{PREFIX}"
