"""Requests and replies of HTTP/1.1 as bytes and as plain values; knows nothing of sockets, nor of what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote_plus

from fetcher.simulator.faults import Answer, Ending

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers of a request: `fields` by lower-case name, and what the server itself wants to know of them."""

    fields: Mapping[str, str]
    login: tuple[str, str] | None
    closing: bool
    keeping: bool
    gzip: bool
    length: int
    chunked: bool

    @property
    def named(self) -> bool:
        """Whether the client says who it is."""
        return bool(self.fields.get("user-agent"))

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head."""
        return self.length > 0 or self.chunked


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it was understood; `path` is still percent-encoded, `query` not taken apart."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Body:
    """What an API answers."""

    data: bytes
    type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that gets an error, whatever else goes wrong.

    `kind` is what it is counted as (None: it is not), and after a `final` one the connection is of no more use.
    """

    def __init__(
        self,
        status: int,
        body: bytes,
        type: str | None = None,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        final: bool = False,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.type = type
        self.kind = kind
        self.headers = headers
        self.final = final


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes of an answer, seconds to wait before they are sent and to spread them over, and what follows."""

    payload: bytes
    delay: float = 0.0
    ending: Ending = Ending.KEEP
    drip: float = 0.0


@lru_cache(maxsize=256)
def headers_of(block: bytes) -> Headers:
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
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        raise ValueError(f"not a length: {length!r}")
    return Headers(
        fields=fields,
        login=(cookies["me"], cookies["pp"]) if cookies.get("me") and cookies.get("pp") else None,
        closing="close" in connection,
        keeping="keep-alive" in connection,
        gzip="gzip" in fields.get("accept-encoding", ""),
        length=int(length),
        chunked="transfer-encoding" in fields,
    )


def parameters_of(query: str) -> dict[str, str]:
    """The parameters of a query string; of two with one name the last counts, as in PHP."""
    parameters: dict[str, str] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if "%" in part or "+" in part:
            name, value = unquote_plus(name), unquote_plus(value)
        parameters[name] = value
    return parameters


def instead(fault: Answer, delay: float, close: bool) -> Reply:
    """The reply a fault asks for."""
    options = [value.lower() for name, value in fault.headers.items() if name.lower() == "connection"]
    close = close or "close" in options
    payload = fault.raw
    if payload is None:
        payload = render(fault.status or 200, fault.body, fault.headers, close=close)
    if fault.part < 1:
        payload = payload[: int(len(payload) * fault.part)]
    ending = ending_of(close) if fault.ending is Ending.KEEP else fault.ending
    return Reply(payload, delay, ending, fault.drip)


def ending_of(close: bool) -> Ending:
    """What becomes of the connection after an answer in which nothing is wrong."""
    return Ending.CLOSE if close else Ending.KEEP


def final(status: int, body: bytes = b"", extra: Mapping[str, str] | None = None) -> Reply:
    """A reply after which the connection is of no more use."""
    return Reply(render(status, body, extra, close=True), ending=Ending.CLOSE)


def render(
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
        "content-type": "text/html; charset=UTF-8" if body[:1] == b"<" else JSON,
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
