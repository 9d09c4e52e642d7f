"""`LeanAdapter`, the one that decides which way a request goes and what its failure is called."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ConnectTimeout,
    ContentDecodingError,
    InvalidHeader,
    InvalidURL,
    ReadTimeout,
    RequestException,
    SSLError,
)
from requests.structures import CaseInsensitiveDict
from requests.utils import select_proxy
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import ReadTimeoutError
from urllib3.util import Timeout

from fetcher.transport import http1
from fetcher.transport.connection import Connection, tls_context
from fetcher.transport.response import LeanResponse
from fetcher.transport.stock import Watch, make_watchable

MAX_IDLE_SECONDS = 60.0
"""Connections idle for longer are not used again: routers on the way forget them without telling anybody."""

_SLACK_SECONDS = 0.05  # By how much a transfer may outlast its deadline, which spares a system call a read.
_CACHE_SIZE = 256
_DECODABLE = frozenset({"gzip", "x-gzip", "deflate", "identity", ""})
_STOCK_HEADERS = ("Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "TE")

_stock_send: Any = HTTPAdapter.send
if _stock_send.__module__ != "requests.adapters":
    _stock_send = None  # Imported under somebody's patch; what the original is cannot be known, so always ask it.


class StaleConnection(ConnectionError):
    """A kept connection broke before the first byte of the answer, most likely closed for having been idle.

    Nothing was sent a second time: whoever counts requests decides that.
    """


class Aborted(ConnectionError):
    """`LeanAdapter.abort` ended the transfer, or was called before it."""


class BodyTooLarge(RequestException):
    """The body is larger than `max_body`, as it was sent or decompressed."""


class _Route:
    """What all requests to one origin share: whom to connect to, idle connections, header lines already written."""

    __slots__ = ("heads", "host", "idle", "name", "port", "verify")

    def __init__(self, host: str, port: int, name: str, verify: bool | str | None, idle: list[Connection]) -> None:
        self.host = host
        self.port = port
        self.name = name
        self.verify = verify  # None: without TLS.
        self.idle = idle
        self.heads: dict[object, bytes | None] = {}


class LeanAdapter(HTTPAdapter):
    """An adapter for `requests` that answers plain GETs and POSTs over lean keep-alive connections of its own.

    Safe to share between threads; keeps as many connections as there ever were requests at a time. Requests
    with a proxy, a body that is no bytes, a client certificate, another method or `stream=True` go to requests' own
    adapter, as everything does while that one's `send` is patched (the `responses` library). Other than there:

    - `timeout` in seconds bounds the whole request, connecting to last byte, only resolving the name excluded;
      of a pair the first bounds connecting (TLS included), and the sum the whole;
    - a body larger than `max_body` bytes, sent or decompressed, raises `BodyTooLarge`;
    - `abort` ends all transfers from any thread, a signal handler included;
    - a connection that broke while idle raises `StaleConnection` instead of being replaced silently.

    All errors are `requests.exceptions`, with one line that names the host.
    """

    def __init__(self, *args: Any, max_body: int = 64 * 1024 * 1024, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_body = max_body
        self._set_up()

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, "_max_body": self._max_body}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._set_up()

    def _set_up(self) -> None:
        # Reentrant, for `abort` may come from a signal handler that interrupts the holder.
        self._lock = threading.RLock()
        self._aborted = False
        self._generation = 0
        self._active: set[Connection | Watch] = set()
        self._idle: dict[tuple[str, int, bool | str | None], list[Connection]] = {}
        self._routes: dict[tuple[str, bool | str], _Route] = {}
        self._context_lock = threading.Lock()
        self._contexts: dict[bool | str, ssl.SSLContext] = {}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As in requests, and the connections can be watched."""
        super().init_poolmanager(*args, **kwargs)
        make_watchable(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """As in requests, and the connections can be watched."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        make_watchable(manager)
        return manager

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send the request and return its answer, whatever the status; redirects are the session's business.

        Raises StaleConnection, Aborted, BodyTooLarge, ConnectTimeout, ReadTimeout, SSLError, ContentDecodingError,
        ChunkedEncodingError, InvalidURL, InvalidHeader, and ConnectionError for all else that goes wrong on the way.
        """
        if HTTPAdapter.send is not _stock_send:
            return HTTPAdapter.send(
                self, request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
        url = request.url
        if not stream and not cert and url and _is_plain(request):
            if not (url.isprintable() and url.isascii()) and any(c < " " or c == "\x7f" for c in url):
                raise InvalidURL("a URL with a line break or another control character", request=request)
            slash = url.find("/", 8)
            if slash < 0 or "#" in url or url[-1] == "?":
                origin, target = _split(request)
            else:  # The same, without splitting the whole URL.
                origin, target = url[:slash], url[slash:]
            route = self._routes.get((origin, verify)) or self._new_route(origin, verify)
            direct = route is not None and not (proxies and select_proxy(url, proxies))
            if route is not None and direct and target.isascii() and " " not in target:
                lines = self._lines(request, route)
                if lines is not None:
                    head = f"{request.method} {target} HTTP/1.1\r\n".encode() + lines
                    if request.body is not None:
                        head += request.body  # type: ignore[operator]
                    return self._send_lean(request, route, head, timeout)
        return self._send_stock(request, stream, timeout, verify, cert, proxies)

    def abort(self) -> None:
        """End all transfers in progress at once, and refuse all later ones: they raise `Aborted`."""
        with self._lock:
            self._aborted = True
            active = list(self._active)
        for transfer in active:
            transfer.stop()
        # Not `close`: urllib3's locks are not reentrant, and a signal handler must not wait for its own thread.
        self._close_idle()

    def close(self) -> None:
        """Close all idle connections, and those in use when they are done; sending opens new ones."""
        self._close_idle()
        super().close()

    def _close_idle(self) -> None:
        with self._lock:
            self._generation += 1
            idle = [connection for kept in self._idle.values() for connection in kept]
            for kept in self._idle.values():
                kept.clear()
        for connection in idle:
            connection.close()

    # -- the lean way -------------------------------------------------------------------------------------------

    def _new_route(self, origin: str, verify: Any) -> _Route | None:
        """The route to `scheme://host:port`, or None if there is anything unusual about it."""
        try:
            parts = urlsplit(origin)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        secure = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or parts.path or "?" in origin or not host or port == 0:
            return None
        if not host.isascii() or "%" in host or not (isinstance(verify, bool) or (isinstance(verify, str) and verify)):
            return None
        name = f"[{host}]" if ":" in host else host
        if port not in (None, 443 if secure else 80):
            name = f"{name}:{port}"
        port = port or (443 if secure else 80)
        with self._lock:
            idle = self._idle.setdefault((host, port, verify if secure else None), [])
            if len(self._routes) >= _CACHE_SIZE:
                self._routes.clear()
            route = self._routes[origin, verify] = _Route(host, port, name, verify if secure else None, idle)
        return route

    def _lines(self, request: requests.PreparedRequest, route: _Route) -> bytes | None:
        """The header lines of the request, or None if they ask for what only requests' own adapter can do."""
        headers: Any = request.headers
        # Found by content, never by identity: a changed object must not get its old lines. And the values of
        # the inner dict, for these are what `items()` makes in five times as long.
        inner: Any = headers._store if isinstance(headers, CaseInsensitiveDict) else None  # type: ignore[attr-defined]
        key = tuple(headers.items() if inner is None else inner.values())
        posts = request.body is not None
        if posts:
            key = (("POST", ""), *key)
        try:
            return route.heads[key]
        except (KeyError, TypeError):
            pass
        try:
            lines: bytes | None = http1.request_lines(key[1:] if posts else key, route.name.encode())
        except http1.IllegalHeader as error:
            raise InvalidHeader(f"{route.name}: {error}", request=request) from None
        codings = str(headers.get("Accept-Encoding", "")).lower().split(",")
        unusual = _STOCK_HEADERS[1:] if posts else _STOCK_HEADERS
        if any(name in headers for name in unusual) or not _DECODABLE.issuperset(
            coding.partition(";")[0].strip() for coding in codings
        ):
            lines = None
        if len(route.heads) >= _CACHE_SIZE:
            route.heads.clear()
        route.heads[key] = lines
        return lines

    def _send_lean(
        self, request: requests.PreparedRequest, route: _Route, head: bytes, timeout: Any
    ) -> requests.Response:
        connect, whole = _limits(timeout)
        began = time.monotonic()
        connection = self._take(request, route, began)
        connected = kept = not connection.is_new
        reader = http1.ResponseReader(self._max_body)
        reusable = False
        try:
            if kept:
                connection.arm(whole)  # Most often the same as last time, which costs nothing.
            else:
                addresses = socket.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM)
                began = time.monotonic()  # Resolving cannot be bounded, so it does not count.
                context = None if route.verify is None else self._context(route.verify)
                connection.open(addresses, None if connect is None else began + connect, context, route.host)
                connected = True
                if connect is None:
                    began = time.monotonic()
                connection.arm(None if whole is None else began + whole - time.monotonic())
            connection.write(head)
            data = connection.read()
            while not (data and reader.feed(data)):
                if not data:
                    reader.end()
                    if self._aborted:  # Which looks like the end of a body that lasts until the connection is closed.
                        raise ConnectionAbortedError
                    break
                if whole is not None:
                    spent = time.monotonic() - began
                    if spent >= whole:
                        raise TimeoutError
                    if spent > _SLACK_SECONDS:
                        connection.arm(whole - spent)
                data = connection.read()
            ended = time.monotonic()
            reusable = reader.reusable and not connection.has_more()
            content = reader.body
            if reader.encodings:
                content = http1.decode(content, reader.encodings, self._max_body)
        except (OSError, UnicodeError, http1.Http1Error) as error:
            raise self._named(error, request, route, timeout, connected, kept and not reader.started) from error
        finally:
            self._give_back(route, connection, reusable)
        return LeanResponse(request, reader, content, ended - began, self)

    def _take(self, request: requests.PreparedRequest, route: _Route, now: float) -> Connection:
        """An idle connection that can be used, or one still to be opened; `abort` knows it from here on."""
        idle = route.idle
        while True:
            with self._lock:
                connection = idle.pop() if idle else Connection(self._generation)
                self._active.add(connection)  # First this, then the look: an abort between the two finds it.
                if self._aborted:
                    self._active.discard(connection)
                    connection.close()
                    raise Aborted(f"{route.name}: all transfers were aborted", request=request)
            if connection.is_new or (connection.is_quiet() and now - connection.idle_since < MAX_IDLE_SECONDS):
                return connection
            self._give_back(route, connection, False)

    def _give_back(self, route: _Route, connection: Connection, reusable: bool) -> None:
        forgotten = None
        with self._lock:
            self._active.discard(connection)
            if reusable and not self._aborted and connection.generation == self._generation:
                connection.idle_since = now = time.monotonic()
                route.idle.append(connection)
                # The last used is used first, so those that fewer threads leave over are at the other end.
                if now - route.idle[0].idle_since > MAX_IDLE_SECONDS:
                    forgotten = route.idle.pop(0)
            else:
                forgotten = connection
        if forgotten is not None:
            forgotten.close()

    def _context(self, verify: bool | str) -> ssl.SSLContext:
        with self._context_lock:  # Reading the certificates takes long; 50 threads need not all do it.
            context = self._contexts.get(verify)
            if context is None:
                context = self._contexts[verify] = tls_context(verify)
            return context

    def _named(
        self,
        error: Exception,
        request: requests.PreparedRequest,
        route: _Route,
        timeout: Any,
        connected: bool,
        stale: bool,
    ) -> RequestException:
        """The error of `requests` that says what happened."""
        kind: type[RequestException] = ConnectionError
        if self._aborted:
            kind, what = Aborted, "the transfer was aborted"
        elif isinstance(error, http1.TooLarge):
            kind, what = BodyTooLarge, f"the body is larger than {self._max_body} bytes: {error}"
        elif isinstance(error, http1.Undecodable):
            kind, what = ContentDecodingError, str(error)
        elif isinstance(error, UnicodeError):
            kind, what = InvalidURL, "this is no host name"
        elif isinstance(error, TimeoutError):
            kind = ReadTimeout if connected else ConnectTimeout
            what = f"{'no complete answer' if connected else 'no connection'} in time (timeout {timeout} s)"
        elif stale:
            kind, what = StaleConnection, "a kept connection broke before the answer began"
        elif isinstance(error, http1.MalformedChunks) or (isinstance(error, http1.Truncated) and error.chunked):
            kind, what = ChunkedEncodingError, str(error)
        elif isinstance(error, http1.Http1Error):
            what = str(error)
        elif isinstance(error, socket.gaierror):
            what = f"the host name cannot be resolved ({error.strerror})"
        elif isinstance(error, ssl.SSLError):
            # An error of OpenSSL has a reason like UNEXPECTED_EOF_WHILE_READING; one of ours has only its text.
            reason = getattr(error, "reason", None)
            text = reason.replace("_", " ").lower() if reason else str(error.args[-1])
            kind, what = SSLError, f"TLS failed: {getattr(error, 'verify_message', '') or text}"
        else:
            doing = "the transfer" if connected else "connecting"
            what = f"{doing} failed: {getattr(error, 'strerror', None) or type(error).__name__}"
        return kind(f"{route.name}: {what}", request=request)

    # -- requests' own way --------------------------------------------------------------------------------------

    def _send_stock(
        self, request: requests.PreparedRequest, stream: bool, timeout: Any, verify: Any, cert: Any, proxies: Any
    ) -> requests.Response:
        connect, whole = _limits(timeout)
        began = time.monotonic()
        watch = Watch(None if stream else whole)
        with self._lock:
            self._active.add(watch)
            if self._aborted:
                watch.stop()
        try:
            with watch:
                bounds: Any = timeout if stream else (connect, whole)
                response = super().send(request, True, bounds, verify, cert, proxies)
                if not stream:
                    try:
                        self._read_stock(request, response)
                    except BaseException:
                        response.close()
                        raise
                    response.elapsed = datetime.timedelta(seconds=time.monotonic() - began)
                    if watch.expired or self._aborted:  # Its end may pass for the end of the body.
                        raise ReadTimeout(request=request)
                return response
        except (OSError, ValueError, Urllib3Error) as error:
            named = self._named_stock(error, request, watch, timeout)
            if named is error:
                raise
            raise named from error
        finally:
            with self._lock:
                self._active.discard(watch)

    def _named_stock(
        self, error: Exception, request: requests.PreparedRequest, watch: Watch, timeout: Any
    ) -> RequestException:
        """The error with a message of one line, for urllib3's are reprs of reprs; and the deadline's own error."""
        name = (request.url or "").partition("://")[2].partition("/")[0].rpartition("@")[2]
        if self._aborted:
            return Aborted(f"{name}: the transfer was aborted", request=request)
        timed_out = isinstance(error, ReadTimeout) or isinstance(_innermost(error), ReadTimeoutError)
        if (watch.expired or timed_out) and not isinstance(error, ConnectTimeout):
            return ReadTimeout(f"{name}: no complete answer in time (timeout {timeout} s)", request=request)
        inner = _innermost(error)
        text = getattr(inner, "verify_message", None) or getattr(inner, "strerror", None) or str(inner)
        line = f"{name}: {' '.join(str(text).split()) or type(inner).__name__}"
        if isinstance(error, RequestException):
            error.args = (line,)
            return error
        return (InvalidURL if isinstance(error, ValueError) else ConnectionError)(line, request=request)

    def _read_stock(self, request: requests.PreparedRequest, response: requests.Response) -> None:
        body = bytearray()
        for chunk in response.iter_content(64 * 1024):
            body += chunk
            if len(body) > self._max_body:
                raise BodyTooLarge(f"the body is larger than {self._max_body} bytes", request=request)
        response._content = bytes(body)


def _is_plain(request: requests.PreparedRequest) -> bool:
    """Whether it is a GET, or a POST of bytes whose length its headers tell."""
    body = request.body
    if request.method == "GET":
        return body is None
    return (
        request.method == "POST"
        and isinstance(body, bytes)
        and request.headers is not None
        and request.headers.get("Content-Length") == str(len(body))
    )


def _split(request: requests.PreparedRequest) -> tuple[str, str]:
    """Scheme with authority, and what goes into the request line."""
    try:
        parts = urlsplit(request.url or "")
    except ValueError:
        return "", ""
    return f"{parts.scheme}://{parts.netloc}", request.path_url


def _limits(timeout: Any) -> tuple[float | None, float | None]:
    """Seconds for connecting, and for the whole request, from what `requests` takes as a timeout."""
    if timeout is None:
        return None, None
    connect: Any
    read: Any
    if isinstance(timeout, Timeout):
        connect, read = timeout.connect_timeout, timeout.read_timeout
    elif isinstance(timeout, tuple):
        connect, read = timeout
    else:
        if timeout <= 0:
            raise ValueError(f"a timeout must be more than 0 seconds, not {timeout}")
        return timeout, timeout
    if (connect is not None and connect <= 0) or (read is not None and read <= 0):
        raise ValueError(f"a timeout must be more than 0 seconds, not {timeout}")
    return connect, read if connect is None or read is None else connect + read


def _innermost(error: BaseException) -> BaseException:
    """The error at the core of one of urllib3's, which wrap each other."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), None)
        if inner is None:
            return error
        error = inner
