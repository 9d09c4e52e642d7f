"""The library of what can go wrong with one answer, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial

from fetcher.simulator import bodies
from fetcher.simulator.faults import Answer, Ending
from fetcher.simulator.world import PAGE

Make = Callable[[int, float], Answer]
"""(64 random bits, seconds for what takes any) → an answer."""

STAC_LISTS = frozenset({"search", "items"})
STAC = STAC_LISTS | {"landing", "conformance", "collections", "collection", "queryables", "item", "api"}
LIST, INFO = frozenset({"list"}), frozenset({"info"})
EMBEDDINGS = frozenset({"embeddings", "models"})
ALL_KINDS = LIST | INFO | {"tags", "loggedin"} | STAC | EMBEDDINGS

SIX_HOURS = 6 * 3600


@dataclass(frozen=True, slots=True)
class Mishap:
    """A thing that can go wrong: what it is, and with which kinds of requests."""

    make: Make
    about: str
    kinds: frozenset[str] = ALL_KINDS


def _status(status: int, body: bytes = b"{}", **headers: str) -> Make:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _draw, _seconds: Answer(status, named, body)


def _retry_after_seconds(status: int, _draw: int, seconds: float) -> Answer:
    return Answer(status, {"Retry-After": str(max(1, round(seconds)))}, b"{}")


def _retry_after_date(_draw: int, seconds: float) -> Answer:
    # A second more: a date has no fractions, and would have passed on arrival.
    return Answer(429, {"Retry-After": formatdate(time.time() + seconds + 1, usegmt=True)}, b"{}")


def _retry_after_nonsense(draw: int, _seconds: float) -> Answer:
    words = ("soon", "-5", "", "1e9999", "Thu, 99 Foo 2026 25:61:61 GMT", "\xb2", "9" * 400)
    return Answer(429, {"Retry-After": words[draw % len(words)]}, b"{}")


def _limit_in_4xx(draw: int, _seconds: float) -> Answer:
    return Answer((400, 403, 420)[draw % 3], body=bodies.LIMIT_REACHED)


def _limit_in_text(_draw: int, seconds: float) -> Answer:
    text = f"Rate limit is exceeded. Try again in {max(1, round(seconds))} seconds."
    return Answer(429, body=b'{"statusCode":429,"message":"%b"}' % text.encode())


def _changed(edit: Callable[[bytes], bytes], **headers: str) -> Make:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _draw, _seconds: Answer(headers=named, edit=edit)


def _hostile(value: bytes) -> Make:
    return _changed(lambda body: bodies.with_hostile_row(body, value))


def _broken_chunks(draw: int, _seconds: float) -> Answer:
    framing = (b"zz\r\n{}\r\n0\r\n\r\n", b"-5\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"f" * 20 + b"\r\n{}")[
        draw % 4
    ]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Answer(raw=head + framing, ending=Ending.CLOSE)


def _endless_header(_draw: int, _seconds: float) -> Answer:
    return Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 100_000, ending=Ending.HANG)


def _wire(**how: object) -> Make:
    return lambda _draw, _seconds: Answer(**how)  # type: ignore[arg-type]


def _types(draw: int, _seconds: float) -> Answer:
    return Answer(edit=partial(bodies.with_wrong_types, draw=draw))


MISHAPS: Mapping[str, Mishap] = {
    # Refusals
    "429": Mishap(_status(429), "429 alone"),
    "429-seconds": Mishap(partial(_retry_after_seconds, 429), "429 with Retry-After in seconds"),
    "429-date": Mishap(_retry_after_date, "429 with Retry-After as a date"),
    "429-nonsense": Mishap(_retry_after_nonsense, "429 with a Retry-After that is neither"),
    "429-hours": Mishap(_status(429, Retry_After=str(SIX_HOURS)), "429 with Retry-After of six hours"),
    "limit-200": Mishap(_status(200, bodies.LIMIT_REACHED), "limitReached in a body with status 200"),
    "limit-4xx": Mishap(_limit_in_4xx, "limitReached in a body with status 400, 403 or 420"),
    "503": Mishap(_status(503), "503 alone"),
    "503-after": Mishap(partial(_retry_after_seconds, 503), "503 with Retry-After in seconds"),
    # Breakdowns
    "500": Mishap(_status(500, b'{"error":"internal","code":500,"msg":"Internal error"}'), "500 in JSON"),
    "502": Mishap(_status(502, bodies.html("502 Bad Gateway")), "502 in HTML"),
    "403": Mishap(_status(403, bodies.html("Attention Required!")), "403 in HTML, as Cloudflare blocks"),
    "522": Mishap(_status(522, bodies.html("522: Connection timed out")), "522 in HTML, as Cloudflare times out"),
    "forbidden": Mishap(_status(403, b'{"message":"Forbidden"}'), "403 in JSON for throttling, as Earth Search", STAC),
    "429-text": Mishap(_limit_in_text, "429 that says in its text how long to wait, as Planetary Computer", STAC),
    # On the wire
    "reset": Mishap(_wire(part=0.0, ending=Ending.RESET), "connection reset before the answer"),
    "reset-midway": Mishap(_wire(part=0.5, ending=Ending.RESET), "connection reset in the middle of the answer"),
    "truncated": Mishap(_wire(part=0.9, ending=Ending.CLOSE), "body shorter than Content-Length, then closed"),
    "stalled": Mishap(_wire(part=0.9, ending=Ending.HANG), "body shorter than Content-Length, then silence"),
    "overlong": Mishap(
        _status(200, b'{"tags":[],"comments":[],"items":[]}' * 2, Content_Length="30"),
        "body longer than Content-Length",
    ),
    "hang": Mishap(_wire(part=0.0, ending=Ending.HANG), "no answer ever"),
    "drip": Mishap(lambda _, seconds: Answer(drip=seconds), "true answer in small pieces over some seconds"),
    "slow": Mishap(lambda _, seconds: Answer(delay=seconds), "true answer after some seconds"),
    "chunks": Mishap(_broken_chunks, "broken chunked framing"),
    "header": Mishap(_endless_header, "header without an end"),
    "noise": Mishap(_wire(raw=b"\x16\x03\x01\x00{}\r\n\r\n", ending=Ending.CLOSE), "bytes that are no HTTP"),
    "gzip": Mishap(_changed(bodies.broken_gzip, Content_Encoding="gzip"), "broken gzip"),
    "bomb": Mishap(
        lambda _draw, _seconds: Answer(200, {"Content-Encoding": "gzip"}, bodies.gzip_bomb()),
        "gzip that unpacks to 128 MiB",
    ),
    # Bodies
    "empty": Mishap(_status(200, b""), "empty body with status 200"),
    "html": Mishap(_status(200, bodies.html("One moment, please")), "HTML with status 200"),
    "strings": Mishap(_changed(bodies.as_strings), "numbers as strings, true otherwise"),
    "types": Mishap(_types, "wrong types, nulls, lists for objects"),
    "duplicates": Mishap(_changed(bodies.with_duplicate_keys), "duplicate keys, the last true"),
    "bom": Mishap(_changed(bodies.with_bom), "byte order mark before a true body"),
    "surrogate": Mishap(_hostile(bodies.HOSTILE_VALUES["surrogate"]), "half a surrogate pair for an id"),
    "huge-integer": Mishap(_hostile(bodies.HOSTILE_VALUES["huge-integer"]), "integer of 2^63 for an id"),
    "nan": Mishap(_hostile(bodies.HOSTILE_VALUES["nan"]), "NaN for an id"),
    "infinity": Mishap(_hostile(bodies.HOSTILE_VALUES["infinity"]), "-Infinity for an id"),
    "exponent": Mishap(_hostile(bodies.HOSTILE_VALUES["exponent"]), "number beyond a double for an id"),
    "nesting": Mishap(_hostile(bodies.HOSTILE_VALUES["nesting"]), "100,000 lists in each other for an id"),
    "nul": Mishap(_hostile(bodies.HOSTILE_VALUES["nul"]), "escaped NUL in an id"),
    "raw-nul": Mishap(_hostile(bodies.HOSTILE_VALUES["raw-nul"]), "NUL byte in an id"),
    "huge-text": Mishap(_hostile(bodies.HOSTILE_VALUES["huge-text"]), "string of 1 MiB for an id"),
    "utf8": Mishap(_hostile(bodies.HOSTILE_VALUES["utf8"]), "invalid UTF-8"),
    # Listings
    "null-items": Mishap(_changed(bodies.without_items), "listing with null for its items", LIST | STAC_LISTS),
    "repeat": Mishap(lambda _draw, _seconds: Answer(shift=PAGE), "listing that repeats the page before", LIST),
    "skip": Mishap(lambda draw, _: Answer(shift=-1 - draw % 9), "listing that skips some items", LIST),
}
"""What can go wrong with one answer, by name."""


def make(name: str, draw: int, seconds: float) -> Answer:
    """The answer that goes wrong as `name` says. Raises KeyError when there is no such mishap."""
    return replace(MISHAPS[name].make(draw, seconds), name=name)
