"""Bodies that no client should trip over: true ones changed, and some that were never true."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from functools import cache
from importlib.resources import files
from typing import Any

HTML = "<html><head><title>{0}</title></head><body>{0} (cloudflare)</body></html>"
LIMIT_REACHED = b'{"error":"limitReached","code":429,"msg":"Limit reached"}'
NOT_FOUND = b'{"error":"notFound","code":404,"msg":"Not found"}'

BOMB_BYTES = 128 * 1024 * 1024
"""What the gzip bomb unpacks to; it is a thousandth of that on the wire."""
DEPTH = 100_000
"""How deep the nested body goes."""
HUGE_TEXT = 1 << 20
"""Characters in the huge string."""

_LISTS = ("items", "tags", "comments", "features")
_LIST = re.compile(rb'"(?:items|tags|features)":\[(\]?)')
_DEEP = b"[" * DEPTH + b"]" * DEPTH

HOSTILE_VALUES = {
    "surrogate": b'"\\ud800"',
    "huge-integer": b"9223372036854775808",
    "nan": b"NaN",
    "infinity": b"-Infinity",
    "exponent": b"1e999999",
    "nesting": _DEEP,
    "nul": b'"7\\u0000"',
    "raw-nul": b'"7\x00"',
    "huge-text": b'"' + b"x" * HUGE_TEXT + b'"',
    "utf8": b'"\xff\xfe"',
}
"""JSON, or nearly, in place of an id: each makes the whole body unusable for a mirror that looks."""


def with_hostile_row(body: bytes, value: bytes) -> bytes:
    """A true body whose list of items, tags or features begins with one more row, its id being `value`."""

    def widened(found: re.Match[bytes]) -> bytes:
        row = b'{"id":%b,"promoted":0,"created":1,"flags":1,"confidence":0.5,"tag":"x"}' % value
        return found[0].removesuffix(b"]") + row + (b"]" if found[1] else b",")

    return _LIST.sub(widened, body, count=1)


def as_strings(body: bytes) -> bytes:
    """A true body with the numbers of its rows as strings and booleans as 0 or 1: the same to who coerces."""
    data = json.loads(body)
    for name in _LISTS:
        if isinstance(data.get(name), list):
            data[name] = [{field: _loose(value) for field, value in row.items()} for row in data[name]]
    return _json(data)


def with_wrong_types(body: bytes, draw: int) -> bytes:
    """A true body in which one thing that no client can do without is of another type, or null."""
    data = json.loads(body)
    names = [name for name in _LISTS if isinstance(data.get(name), list)]
    if not names:
        return body
    name = names[draw % len(names)]
    rows = data[name]
    if rows and draw >> 8 & 1:
        rows[(draw >> 16) % len(rows)]["id"] = (None, [], {}, True, "x", 1.5)[(draw >> 32) % 6]
        return _json(data)
    data[name] = (None, {}, "none", 7, [None], [[]], {"0": rows})[(draw >> 32) % 7]
    return (_json(data), b"null", b"7", b"[]", b'"' + name.encode() + b'"')[max(0, (draw >> 40) % 16 - 11)]


def with_duplicate_keys(body: bytes) -> bytes:
    """A true body whose lists are named twice, empty the first time: the last counts, as in PHP and Python."""
    names = [name for name in map(str.encode, _LISTS) if b'"%b":[' % name in body]
    return b"{" + b"".join(b'"%b":[],' % name for name in names) + body[1:]


def without_items(body: bytes) -> bytes:
    """A true listing with null for its items."""
    data = json.loads(body)
    return _json({**data, "features" if "features" in data else "items": None})


def with_bom(body: bytes) -> bytes:
    """A true body behind a byte order mark."""
    return b"\xef\xbb\xbf" + body


def broken_gzip(body: bytes) -> bytes:
    """A true body compressed, with some bytes in the middle that were not sent like that."""
    packed = gzip.compress(body, 1, mtime=0)
    middle = len(packed) // 2
    return packed[:middle] + bytes(255 - byte for byte in packed[middle : middle + 8]) + packed[middle + 8 :]


@cache
def gzip_bomb() -> bytes:
    """A gzip of BOMB_BYTES spaces."""
    piece = b" " * (1 << 20)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # A piece after a full flush refers to nothing before it: the same bytes serve for all of them.
    packed = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    pieces = BOMB_BYTES // len(piece)
    check = 0
    for _ in range(pieces):
        check = zlib.crc32(piece, check)
    tail = packer.flush() + check.to_bytes(4, "little") + BOMB_BYTES.to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + packed * pieces + tail


@cache
def recorded_details() -> bytes:
    """The body of an items/info that was recorded in 2016, its texts replaced: 14 tags, 22 comments.

    From the mock API of github.com/mopsalarm/Pr0 (MIT).
    """
    return files("fetcher.simulator").joinpath("recorded", "items_info_2016.json").read_bytes()


def html(title: str) -> bytes:
    """A page as a proxy in front of the API shows it."""
    return HTML.format(title).encode()


def _loose(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return repr(value) if isinstance(value, int | float) else value


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
