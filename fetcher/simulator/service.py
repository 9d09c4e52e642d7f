"""What the simulated API answers: from the head of a request to the bytes of a reply, true or wrong on purpose."""

from __future__ import annotations

import gzip as gziplib
import json
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote_plus
from zlib import crc32

from fetcher.simulator.conditions import Conditions
from fetcher.simulator.faults import Answer, Ending, Faults
from fetcher.simulator.profile import Profile
from fetcher.simulator.world import ALL_FLAGS, SFW, World, mix

PREFIX = "/api"
TAGS_PER_PAGE = 1000
"""Tags in one answer of /tags/latest; the real number is not known."""

_BLOCKED = (
    b"<html><head><title>Attention Required! | Cloudflare</title></head>"
    b"<body>Sorry, you have been blocked (cloudflare)</body></html>"
)
_NO_PAGE = b"<html><head><title>404 Not Found</title></head><body>404 Not Found</body></html>"
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
    login: tuple[str, str] | None
    closing: bool
    keeping: bool
    gzip: bool
    has_body: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes of an answer, seconds to wait before they are sent and to spread them over, and what follows."""

    payload: bytes
    delay: float = 0.0
    ending: Ending = Ending.KEEP
    drip: float = 0.0


class Service:
    """Turns the head of a request into a reply; knows nothing of sockets."""

    def __init__(
        self,
        world: World,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        faults: Faults | None = None,
        conditions: Conditions | None = None,
        gzip: bool = False,
        record: bool = False,
    ) -> None:
        self.world = world
        self.requests: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.log: list[tuple[float, str, int]] | None = [] if record else None
        self.in_flight = 0
        self.max_in_flight = 0
        self._latency = latency
        self._jitter = jitter
        self._faults = faults
        self._conditions = conditions
        self._began = time.monotonic()
        self._asked = faults is not None or conditions is not None or jitter != 0
        self._gzip = gzip
        self._attempts: dict[str, dict[int, int]] = {}
        self._routes: dict[str, tuple[str, str, Callable[[dict[str, str], int, bool, int], str]]] = {
            f"{PREFIX}/items/info": ("info", "itemId", self._info),
            f"{PREFIX}/items/get": ("list", "", self._list),
            f"{PREFIX}/tags/latest": ("tags", "id", self._tags),
            f"{PREFIX}/user/loggedin": ("loggedin", "", self._logged_in),
        }

    def reply(self, head: bytes) -> Reply:
        """The reply to one request, given its head without the empty line."""
        line, _, block = head.partition(b"\r\n")
        try:
            method, target, version = line.decode("ascii").split(" ")
            headers = _headers(block)
        except ValueError:
            return final(400, _Refused(400, "badRequest", "Malformed request").body)
        if not version.startswith("HTTP/1."):
            return final(505)
        old = version == "HTTP/1.0"
        close = headers.closing or (old and not headers.keeping)
        if method != "GET":
            # The body, if there is one, is not read: what follows could not be told from a request.
            return final(405, extra={"Allow": "GET"})
        if headers.has_body:
            return final(400, _Refused(400, "badRequest", "A GET has no body").body)

        path, _, query = target.partition("?")
        route = self._routes.get(path)
        self.requests[route[0] if route else "other"] += 1
        if not headers.named:
            return Reply(_render(403, _BLOCKED, close=close), ending=_ending(close))
        if route is None:
            return Reply(_render(404, _NO_PAGE, close=close), ending=_ending(close))

        kind, key_name, answer = route
        delay = self._latency
        status = 200
        key = 0
        fault = None
        try:
            parameters = _parameters(query)
            key = _key(parameters, key_name)
            if self.log is not None:
                self.log.append((time.monotonic(), kind, key))
            logged_in = headers.login is not None and self.world.login
            if self._asked:
                fault, delay, logged_in = self._ask(kind, key, headers.login if logged_in else None)
                if fault is not None and (fault.status is not None or fault.raw is not None):
                    return _instead(fault, delay, close)
            text = answer(parameters, key, logged_in, fault.shift if fault is not None else 0)
            body = f'{text},"rt":{1 + key % 9},"qc":2}}'.encode("ascii")
        except _Refused as refused:
            status, body = refused.status, refused.body
        if fault is not None and fault.is_wrong:
            return _instead(replace(fault, status=status, body=fault.edit(body) if fault.edit else body), delay, close)
        extra = None
        if self._gzip and headers.gzip:
            body = gziplib.compress(body, 1)
            extra = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Reply(_render(status, body, extra, close=close, keep=old), delay, _ending(close))

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def begin_outage(self, seconds: float, how: str) -> None:
        """Befall all requests of the next `seconds` with a mishap."""
        if self._conditions is None:
            self._conditions = Conditions(Profile())
            self._asked = True
        self._conditions.begin_outage(self.now(), seconds, how)

    def _ask(self, kind: str, key: int, login: tuple[str, str] | None) -> tuple[Answer | None, float, bool]:
        """The one place where things go wrong: what to answer instead, after how long, and whether the login counts."""
        conditions = self._conditions
        delay = self._latency
        fault = None
        if conditions is not None:
            now = self.now()
            logged_in = login is not None and conditions.logged_in(now, *login)
            delay *= conditions.slowdown(self.in_flight)
            fault = conditions.turned_away(now, self.in_flight)
            if fault is not None:
                self.wrong[fault.name] += 1
                return fault, delay + fault.delay, logged_in
        else:
            logged_in = login is not None
        # What was turned away is no attempt: else the faults of an item would depend on who came first.
        attempts = self._attempts.setdefault(kind, {})
        attempt = attempts[key] = attempts.get(key, 0) + 1
        if self._faults is not None:
            fault = self._faults(kind, key, attempt)
        if fault is None and conditions is not None:
            fault = conditions.profile.fault(kind, key, attempt)
        if self._jitter:
            share = mix(mix(self.world.seed ^ crc32(kind.encode())) ^ mix(key) ^ attempt) / 2**64
            delay = max(0.0, delay + self._jitter * (2 * share - 1))
        if fault is not None:
            self.wrong[fault.name or str(fault.status or "other")] += 1
            delay += fault.delay
        return fault, delay, logged_in

    def _info(self, parameters: dict[str, str], item: int, logged_in: bool, _: int) -> str:
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

    def _list(self, parameters: dict[str, str], key: int, logged_in: bool, shift: int) -> str:
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
        if shift and "id" not in parameters:
            parameters, key = self._shifted(parameters, key, shift, world.ids(flags, promoted=bool(promoted)))
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

    @staticmethod
    def _shifted(parameters: dict[str, str], key: int, shift: int, keys: Sequence[int]) -> tuple[dict[str, str], int]:
        """The parameters and key of the same listing, begun `shift` items nearer to where its walk began."""
        if "newer" in parameters:
            at = min(len(keys), bisect_right(keys, key) - shift)
            return parameters, keys[at - 1] if at > 0 else 0
        at = (bisect_left(keys, key) if "older" in parameters else len(keys)) + shift
        if at >= len(keys):
            return {name: value for name, value in parameters.items() if name != "older"}, 0
        return {**parameters, "older": ""}, keys[max(0, at)]

    def _tags(self, _: dict[str, str], above: int, logged_in: bool, __: int) -> str:
        tags = self.world.latest_tags_json(above, TAGS_PER_PAGE, ALL_FLAGS if logged_in else SFW)
        return f'{{"tags":[{tags}],"ts":{int(time.time())},"cache":null'

    def _logged_in(self, _: dict[str, str], __: int, logged_in: bool, ___: int) -> str:
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
        login=(cookies["me"], cookies["pp"]) if cookies.get("me") and cookies.get("pp") else None,
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


def _instead(fault: Answer, delay: float, close: bool) -> Reply:
    """The reply a fault asks for."""
    options = [value.lower() for name, value in fault.headers.items() if name.lower() == "connection"]
    close = close or "close" in options
    payload = fault.raw
    if payload is None:
        payload = _render(fault.status or 200, fault.body, fault.headers, close=close)
    if fault.part < 1:
        payload = payload[: int(len(payload) * fault.part)]
    ending = _ending(close) if fault.ending is Ending.KEEP else fault.ending
    return Reply(payload, delay, ending, fault.drip)


def _ending(close: bool) -> Ending:
    return Ending.CLOSE if close else Ending.KEEP


def final(status: int, body: bytes = b"", extra: Mapping[str, str] | None = None) -> Reply:
    """A reply after which the connection is of no more use."""
    return Reply(_render(status, body, extra, close=True), ending=Ending.CLOSE)


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
