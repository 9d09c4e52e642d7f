"""Ten thousand spoilt answers: none ends a run, none puts a false row into the database, none costs an item."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import random
import re
import secrets
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from fetcher import limits as pacing
from fetcher.client import MOST_EVIDENCE, Client
from fetcher.errors import RequestFailed
from fetcher.governor import Governor, Ticket
from fetcher.model import Detail, Gone, Interval, Outcome, Page, Row, Walk
from fetcher.simulator import Answer, Simulator, World
from fetcher.simulator import world as simulated
from fetcher.sources.pr0gramm import COMMENTS, ITEMS, TAGS, YOUNG_SECONDS, Pr0gramm
from fetcher.stop import Stop
from fetcher.transport import http1
from tests.helpers import column, details_of, list_page, mirror, query

MORE = int(os.environ.get("FETCHER_EXAMPLES", "0"))
"""Set it to explore at least so many bodies, chosen anew, instead of those that are always the same."""

SEED = secrets.randbits(32) if MORE else 0
BODIES = max(8_800, MORE)
"""Bodies that are read without a socket; the mirrors below read the others."""

PARTS = 10

JSON, HTML = "application/json", "text/html; charset=UTF-8"


# --- what an answer is worth: told from its bytes alone, by nothing that is tested here ------------------

FIELDS: Mapping[str, Mapping[str, str]] = {
    "items": {
        **dict.fromkeys(("id", "created", "flags"), "integer, required"),
        **dict.fromkeys(("promoted", "userId", "up", "down", "width", "height", "mark", "gift"), "integer"),
        **dict.fromkeys(("image", "thumb", "fullsize", "preview", "source", "user"), "text"),
        **dict.fromkeys(("audio", "deleted", "repost"), "boolean"),
        **dict.fromkeys(("variants", "subtitles"), "json"),
    },
    "tags": {"id": "integer, required", "tag": "text, required", "confidence": "real"},
    "comments": {
        "id": "integer, required",
        "content": "text, required",
        **dict.fromkeys(("parent", "created", "up", "down", "mark"), "integer"),
        "confidence": "real",
        "name": "text",
    },
}

LIMITS = ("limitReached", "rateLimited")


class Unusable(Exception):
    """Nothing may be stored of this."""


@dataclass(frozen=True)
class Huge:
    """A number that no double holds, or too long for Python to read, as it was written."""

    text: str


@dataclass(frozen=True)
class Reply:
    """An answer as it goes over the wire."""

    status: int
    kind: str
    body: bytes
    encoding: str = ""

    def content(self) -> bytes | None:
        """The body as it was meant, None when its encoding is damaged."""
        if not self.encoding:
            return self.body
        try:
            return gzip.decompress(self.body)
        except (OSError, EOFError, ValueError, zlib.error):
            return None

    @property
    def extreme(self) -> bool:
        """Whether it is nested so deeply that it is luck who can read it."""
        content = self.content() or b""
        return b"[" * 300 in content or b'{"a":' * 300 in content

    @property
    def evidence(self) -> bytes | None:
        """What is kept of it where it makes a failure."""
        content = self.content()
        return None if content is None else content[:MOST_EVIDENCE]


def read(content: bytes) -> Any:
    """The JSON value; raises ValueError where there is none."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    def real(text: str) -> Any:
        return float(text) if math.isfinite(float(text)) else Huge(text)

    def number(text: str) -> Any:
        return int(text) if len(text) <= 4300 else Huge(text)

    try:
        return json.loads(content, parse_constant=refuse, parse_float=real, parse_int=number)
    except RecursionError:
        raise ValueError("too deep") from None


def canonical(value: Any) -> str:
    """A JSON value as text, the same for the same; a huge number is its text."""
    return json.dumps(value, sort_keys=True, default=lambda huge: huge.text)


def due(reply: Reply) -> tuple[Outcome, Any]:
    """The outcome that a reply deserves, and its value where that is good."""
    content = reply.content()
    if content is None:
        return Outcome.MALFORMED, None
    said_json = reply.kind.split(";")[0].strip().lower().endswith(("/json", "+json"))
    data, is_json = None, said_json
    try:
        data = read(content) if said_json else None
    except ValueError:
        is_json = False
    status = reply.status
    if isinstance(data, dict):
        error, code = data.get("error"), data.get("code")
        if (isinstance(error, str) and error in LIMITS) or (code == 429 and type(code) in (int, float)):
            return Outcome.LIMITED, None
        if status == 200 and isinstance(error, str):
            if error == "notFound":
                return Outcome.GONE, None
            if error.endswith("Required"):
                return Outcome.DENIED, None
        if 200 <= status < 300 and error and error != "nothingFound":
            return Outcome.MALFORMED, None
    if 200 <= status < 300:
        return (Outcome.OK, data) if is_json else (Outcome.MALFORMED, None)
    table = {404: "gone", 410: "gone", 429: "limited", 401: "denied", 408: "unavailable"}
    if status in table:
        return Outcome(table[status]), None
    if status == 403:
        return (Outcome.DENIED if is_json else Outcome.UNAVAILABLE), None
    return (Outcome.MALFORMED if 400 <= status < 500 else Outcome.UNAVAILABLE), None


def whole(value: Any) -> int:
    """A whole number of 64 bits, or the text of one."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise Unusable
    return value


def stored_value(kind: str, value: Any) -> Any:
    """What the column holds when a field says this."""
    if kind == "integer":
        return whole(value)
    if kind == "text":
        if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
            raise Unusable
        return value
    if kind == "boolean":
        known = {"true": 1, "false": 0, "1": 1, "0": 0, '"1"': 1, '"0"': 0}
        if canonical(value) not in known or isinstance(value, Huge):
            raise Unusable
        return known[canonical(value)]
    if kind == "real":
        if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", value):
            raise Unusable
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Unusable
        try:
            number = float(value)
        except OverflowError:
            raise Unusable from None
        if not math.isfinite(number):
            raise Unusable
        return number + 0.0  # SQLite knows no -0.0
    return canonical(value)


def stored_row(table: str, each: Any) -> dict[str, Any]:
    """The row that an object must become; raises Unusable when it must become none."""
    if not isinstance(each, dict):
        raise Unusable
    row: dict[str, Any] = {}
    extra = {name: value for name, value in each.items() if name not in FIELDS[table]}
    for name, kind in FIELDS[table].items():
        value = each.get(name)
        row[name] = None
        try:
            if value is None:
                raise Unusable
            row[name] = stored_value(kind.split(",")[0], value)
        except Unusable:
            if "required" in kind:
                raise
            if value is not None:
                extra[name] = value
    return {**row, "extra": canonical(extra) if extra else None}


def stored_detail(data: Any) -> dict[str, list[dict[str, Any]]]:
    """The rows that the details of an item must become; raises Unusable when they must become none."""
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in ("tags", "comments")):
        raise Unusable
    return {name: [stored_row(name, each) for each in data[name]] for name in ("tags", "comments")}


def stored_page(data: Any) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """The rows by id that a page must become and the ids of items without one; raises Unusable for a page of no use."""
    if not isinstance(data, dict) or not isinstance(data.get("items"), list):
        raise Unusable
    rows: dict[int, dict[str, Any]] = {}
    broken: list[int] = []
    for each in data["items"]:
        try:
            row = stored_row("items", each)
            rows[row["id"]] = row
        except Unusable:
            if not isinstance(each, dict) or each.get("id") is None:
                raise
            broken.append(whole(each["id"]))
    if min((*rows, *broken), default=1) < 1:
        raise Unusable
    return rows, broken


def comparable(table: str, row: Mapping[str, Any]) -> str:
    """A stored row as text, the same for the same: JSON however it is spaced and ordered, 1 and 1.0 different."""
    kinds = {**FIELDS[table], "extra": "json"}
    return repr(
        {
            name: canonical(json.loads(row[name])) if kind == "json" and row[name] is not None else row[name]
            for name, kind in sorted(kinds.items())
        }
    )


# --- spoiling ---------------------------------------------------------------------------------------------

_NUMBERS = [
    b"0", b"1", b"-1", b"2", b"-0", b"429", b"2147483647", b"2147483648", b"-2147483649", b"9007199254740993",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809",
    b"18446744073709551615", b"18446744073709551616", b"1" + b"0" * 30, b"1" * 400, b"1" * 5000, b"1.0", b"1.5", b"0.1",
    b"-0.0", b"1e2", b"1E-400", b"4.9e-324", b"1.7976931348623157e308", b"1e999", b"-1e999", b"01", b"1.", b".5", b"+1",
    b"NaN", b"Infinity", b"-Infinity", b"nan",
]  # fmt: skip
_TEXTS = [
    b'""', b'" "', b'"12"', b'"-12"', b'"007"', b'"0"', b'"1"', b'"1.5"', b'"1e3"', b'"nan"', b'"1e999"', b'"true"',
    b'"9223372036854775808"', b'"\\uff11\\uff12"', b'"12\\n"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\ud83d\\ude00"',
    b'"a\\u0000b"', b'"\\u0000"', b'"\xed\xa0\x80"', b'"\xff"', b'"\xc3\xa4\xe2\x80\xa8"', b'"\xf0\x9f\x8d\x8e"',
    b'"\x00"', b'"\\q"', b'"\n"', b"'a'", b'"' + b"x" * 70_000 + b'"', b'"limitReached"', b'"notFound"',
    b'"nsfwRequired"', b'"internalError"',
]  # fmt: skip
_OTHERS = [
    b"null", b"true", b"false", b"[]", b"{}", b"[[]]", b"[{}]", b"[null]", b'{"id":1}', b'[1e999,"\\ud800"]', b"",
    b"undefined", *(b"[" * n + b"]" * n for n in (5, 100, 985, 991, 995, 20_000)), b'{"a":' * 980 + b"1" + b"}" * 980,
    b"[" * 985 + b'"\\ud800"' + b"]" * 985, b"[" * 100_000,
]  # fmt: skip
_NAMES = [
    "karma", "extra", "item_id", "itemId", "first_seen_at", "fetched_at", "ID", " id", "", 'a"b', "a\0b", "\ud800", "ü",
    "x" * 300, "error", "code", "msg", "tags", "comments", "items", "atEnd", "id", "tag", "content", "confidence",
    "parent", "hasOwnProperty", "__class__",
]  # fmt: skip


class Draft:
    """A JSON value under the knife, with pieces in it that no JSON writer would write."""

    def __init__(self, tree: Any, chance: random.Random) -> None:
        self.tree = tree
        self.chance = chance
        self._pieces: list[bytes] = []

    def piece(self, written: bytes) -> str:
        """A stand-in for these bytes, to be used as a value or as a member's name."""
        self._pieces.append(written)
        return f"@{len(self._pieces) - 1}@"

    def value(self) -> str:
        """Some value of any type, or something that is none."""
        return self.piece(self.chance.choice(self.chance.choice((_NUMBERS, _TEXTS, _OTHERS))))

    def written(self) -> bytes:
        """The bytes."""
        text = json.dumps(
            self.tree,
            ensure_ascii=self.chance.random() < 0.8,
            separators=self.chance.choice(((",", ":"), (", ", ": "))),
        )
        body = text.encode("utf-8", "surrogatepass")
        for number, written in enumerate(self._pieces):
            body = body.replace(b'"@%d@"' % number, written)
        return body

    def some_list(self) -> list[Any] | None:
        """One of the lists of the envelope, if there is one with anything in it."""
        lists = [each for each in self.tree.values() if isinstance(each, list) and each] if self.is_object else []
        return self.chance.choice(lists) if lists else None

    def some_object(self) -> dict[str, Any] | None:
        """The envelope, or one of the objects in its lists, if there is any."""
        if not self.is_object:
            return None
        found = self.some_list()
        objects = [each for each in found or () if isinstance(each, dict)]
        return self.chance.choice(objects) if objects and self.chance.random() < 0.75 else self.tree

    @property
    def is_object(self) -> bool:
        return isinstance(self.tree, dict)


def other_value(draft: Draft) -> None:
    target = draft.some_object()
    if target:
        target[draft.chance.choice(list(target))] = draft.value()


def other_value_of_what_matters(draft: Draft) -> None:
    names = ("id", "created", "flags", "tag", "content", "items", "tags", "comments", "atEnd", "atStart", "ts", "error")
    target = draft.some_object()
    found = [name for name in names if name in (target or ())]
    if target and found:
        target[draft.chance.choice(found)] = draft.value()


def dropped_member(draft: Draft) -> None:
    target = draft.some_object()
    if target:
        del target[draft.chance.choice(list(target))]


def member_twice(draft: Draft) -> None:
    target = draft.some_object()
    if not target:
        return
    name = draft.chance.choice(list(target))
    again = draft.piece(json.dumps(name).encode())
    if draft.chance.random() < 0.5:
        target[again] = draft.value()
    else:
        before = dict(target)
        target.clear()
        target.update({again: draft.value(), **before})


def new_member(draft: Draft) -> None:
    target = draft.some_object()
    if target is not None:
        target[draft.chance.choice(_NAMES)] = draft.value()


def renamed_member(draft: Draft) -> None:
    target = draft.some_object()
    if target:
        name = draft.chance.choice(list(target))
        target[draft.chance.choice([name.upper(), f"{name} ", name[:-1], draft.chance.choice(_NAMES)])] = target.pop(
            name
        )


def shuffled(draft: Draft) -> None:
    draft.chance.shuffle(draft.some_list() or [])


def repeated(draft: Draft) -> None:
    target = draft.some_list()
    if target:
        target.insert(draft.chance.randrange(len(target)), draft.chance.choice(target))


def no_object(draft: Draft) -> None:
    target = draft.some_list()
    if target:
        target[draft.chance.randrange(len(target))] = draft.value()


def dropped_element(draft: Draft) -> None:
    target = draft.some_list()
    if target:
        del target[draft.chance.randrange(len(target))]


def swapped_ids(draft: Draft) -> None:
    objects = [each for each in draft.some_list() or () if isinstance(each, dict) and "id" in each]
    if len(objects) > 1:
        one, other = draft.chance.sample(objects, 2)
        one["id"], other["id"] = other["id"], one["id"]


def numbers_as_texts(draft: Draft) -> None:
    for each in draft.some_list() or ():
        if isinstance(each, dict):
            each.update({name: str(value) for name, value in each.items() if type(value) in (int, float)})


def ends_swapped(draft: Draft) -> None:
    if draft.is_object:
        draft.tree["atEnd"] = not draft.tree.get("atEnd")
        draft.tree["atStart"] = draft.chance.choice([True, False])


def other_time(draft: Draft) -> None:
    if draft.is_object:
        draft.tree["ts"] = draft.chance.choice([0, 1_431_273_600, 2**31, 10**30, -5])


def something_else_at_the_root(draft: Draft) -> None:
    draft.tree = draft.chance.choice([[draft.tree], None, draft.value(), {"data": draft.tree}])


TREE = [
    other_value, other_value, other_value, other_value_of_what_matters, other_value_of_what_matters, dropped_member,
    member_twice, member_twice, new_member, new_member, renamed_member, shuffled, repeated, no_object, dropped_element,
    swapped_ids, numbers_as_texts, ends_swapped, other_time, something_else_at_the_root,
]  # fmt: skip


def _at(body: bytes, chance: random.Random) -> int:
    return chance.randrange(len(body) + 1)


def _range(body: bytes, chance: random.Random) -> tuple[int, int]:
    start = _at(body, chance)
    return start, min(len(body), start + chance.choice([1, 1, 2, 8, 50, 400]))


def flipped_bit(body: bytes, chance: random.Random) -> bytes:
    at = _at(body, chance)
    return body[:at] + bytes(each ^ 1 << chance.randrange(8) for each in body[at : at + 1]) + body[at + 1 :]


def other_byte(body: bytes, chance: random.Random) -> bytes:
    at = _at(body, chance)
    return (
        body[:at]
        + chance.choice([b"\xff", b"\0", b'"', b"\\", b",", b"{", b"]", b"9", b"-", b" ", b"e"])
        + body[at + 1 :]
    )


def cut_out(body: bytes, chance: random.Random) -> bytes:
    start, end = _range(body, chance)
    return body[:start] + body[end:]


def put_in(body: bytes, chance: random.Random) -> bytes:
    at = _at(body, chance)
    more = chance.choice([chance.randbytes(3), b"\xed\xa0\x80", b"\xc3", b"\n", b"/**/", b"1", b'"', b"\\u", b"<br />"])
    return body[:at] + more + body[at:]


def truncated(body: bytes, chance: random.Random) -> bytes:
    return body[: _at(body, chance)]


def stuttered(body: bytes, chance: random.Random) -> bytes:
    start, end = _range(body, chance)
    return body[:end] + body[start:]


def trailing(body: bytes, chance: random.Random) -> bytes:
    return body + chance.choice([b" \n", b"\0", b"{}", b"<!-- 0.1 s -->", body])


def leading(body: bytes, chance: random.Random) -> bytes:
    return chance.choice([b"\xef\xbb\xbf", b" \r\n", b")]}',\n", b"\0", b"<b>Warning</b>"]) + body


def recoded(body: bytes, chance: random.Random) -> bytes:
    text = body.decode("utf-8", "replace")
    return text.encode(chance.choice(["utf-16", "utf-16-le", "utf-32", "latin-1"]), "replace")


BYTES = [
    flipped_bit, flipped_bit, flipped_bit, other_byte, other_byte, cut_out, put_in, put_in, truncated, truncated,
    stuttered, trailing, leading, recoded,
]  # fmt: skip

STATUSES = [
    200, 200, 201, 203, 206, 204, 300, 302, 304, 400, 401, 402, 403, 404, 405, 408, 410, 418, 425, 429, 451, 500, 501,
    502, 503, 504, 520, 522, 524, 599,
]  # fmt: skip
KINDS = [
    HTML, "", "text/plain", "application/jsonp", "application/json; charset=latin-1", "APPLICATION/JSON", "text/json",
    "application/problem+json", "application/octet-stream", "json",
]  # fmt: skip


def packed(reply: Reply, chance: random.Random) -> Reply:
    """Compressed: well, or badly, or said to be though it is not, or the other way about."""
    body = gzip.compress(reply.body, 1, mtime=0)
    # The header of the format is left alone: who is strict about it differs.
    at = chance.randrange(10, len(body))
    damaged = body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1 :]
    body, encoding = chance.choice(
        [
            (body, "gzip"),
            (body, "gzip"),
            (body, ""),
            (reply.body or b"{", "gzip"),
            (body[:at], "gzip"),
            (damaged, "gzip"),
        ]
    )
    return Reply(reply.status, reply.kind, body, encoding)


def spoilt(tree: Any, chance: random.Random) -> Reply:
    """A reply with this value, spoilt once, twice or three times; `tree` is changed."""
    draft = Draft(tree, chance)
    body = None
    reply = Reply(200, JSON, b"")
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3])):
        way = chance.random()
        if way < 0.6 and body is None:
            chance.choice(TREE)(draft)
        elif way < 0.85:
            body = chance.choice(BYTES)(draft.written() if body is None else body, chance)
        elif way < 0.90:
            reply = Reply(reply.status, chance.choice(KINDS), b"")
        elif way < 0.95:
            reply = Reply(chance.choice(STATUSES), reply.kind, b"")
        else:
            return packed(Reply(reply.status, reply.kind, draft.written() if body is None else body), chance)
    return Reply(reply.status, reply.kind, draft.written() if body is None else body)


# --- without sockets --------------------------------------------------------------------------------------

DATA = Path(__file__).parent / "data" / "pr0gramm"
SOURCE = Pr0gramm(Pr0gramm.Options())


@cache
def good_answers() -> list[tuple[str, dict[str, Any]]]:
    """("page" or "detail", its value) of recorded answers and simulated ones; errors too, for they are answers."""
    paths = sorted(DATA.glob("*.json"))
    found = [("detail" if "info" in path.name else "page", json.loads(path.read_bytes())) for path in paths]
    found += [
        each for path, each in zip(paths, found, strict=True) if path.name.startswith(("items_get", "items_info"))
    ] * 6
    world = World(seed=7, items=700, login=True)
    ids = world.ids(31)
    found += [("page", list_page(world, older)) for older in (ids[150], ids[len(ids) // 2], 0)] * 4
    found += [("detail", details_of(world, id)) for id in ids[:: len(ids) // 25]]
    return found


def a_good_answer(chance: random.Random) -> tuple[str, Any]:
    """A copy of one of the good answers, most often with only a few things in its lists."""
    what, tree = chance.choice(good_answers())
    most = 200 if chance.random() < 0.02 else chance.choice([1, 2, 4, 8])
    few = {}
    for name, value in tree.items():
        few[name] = value
        if isinstance(value, list) and len(value) > most:
            start = chance.randrange(len(value) - most + 1)
            few[name] = value[start : start + most]
    return what, json.loads(json.dumps(few))


class Free(Governor):
    """Lets everybody pass: what is tried here is what one answer means."""

    def enter(self, *, first: bool = False) -> Ticket:
        return Ticket(0.0, False)

    def leave(self, ticket: Ticket, outcome: Outcome, **_: Any) -> Outcome:
        return outcome


class Replies(BaseAdapter):
    """Gives the reply that it holds, decoded as the transport does."""

    def __init__(self) -> None:
        super().__init__()
        self.reply = Reply(200, JSON, b"{}")

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        reply = self.reply
        response = requests.Response()
        response.status_code = reply.status
        response.headers["Content-Type"] = reply.kind
        try:
            response._content = http1.decode(reply.body, (reply.encoding,) if reply.encoding else (), 1 << 26)
        except http1.Undecodable as error:
            raise requests.exceptions.ContentDecodingError(str(error)) from error
        return response

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def replies() -> Replies:
    return Replies()


@pytest.fixture(scope="module")
def client(replies: Replies) -> Iterator[Client]:
    session = requests.Session()
    session.mount("http://api.test", replies)
    stop = Stop()
    made = Client(
        "http://api.test", Free(stop, parallel=1), stop, user_agent="tests", judge=SOURCE.judge, session=session
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def tables() -> Iterator[sqlite3.Connection]:
    """Tables as strict as the store's, but without its keys, so that nothing replaces anything."""
    types = {"integer": "INTEGER", "boolean": "INTEGER", "real": "REAL", "text": "TEXT", "json": "TEXT"}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        conn.row_factory = sqlite3.Row
        for table in (ITEMS, TAGS, COMMENTS):
            columns = ["item_id INTEGER NOT NULL"] if table.parent else []
            columns += [f'"{each.name}" {types[each.type]}{" NOT NULL" * each.required}' for each in table.columns]
            conn.execute(f"CREATE TABLE {table.name} ({', '.join(columns)}, extra TEXT) STRICT")
        yield conn


def as_stored(tables: sqlite3.Connection, table: str, rows: list[Row] | tuple[Row, ...]) -> list[str]:
    """Store rows, and say what is found then."""
    tables.execute("BEGIN")
    try:
        for row in rows:
            tables.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
        return [comparable(table, dict(row)) for row in tables.execute(f"SELECT * FROM {table} ORDER BY rowid")]
    finally:
        tables.execute("ROLLBACK")


def a_walk(chance: random.Random, tree: Any) -> Walk:
    """A walk that may well have led to this page, or to quite another."""
    listed = tree.get("items") if isinstance(tree, dict) else None
    ids = [each["id"] for each in listed or () if isinstance(each, dict) and type(each.get("id")) is int]
    near = chance.choice([*ids, 1, 500]) + chance.choice([-50, -1, 0, 1, 50])
    lo = max(1, chance.choice([1, near, near - 30]))
    order = chance.choice(["newest", "oldest"])
    head, started = chance.random() < 0.5, chance.random() < 0.5
    proves = order == "newest" or chance.random() < 0.8
    return Walk(Interval(lo, lo + chance.choice([0, 10, 200, 10**7])), (1,), order, head, started, proves)


def assert_detail_is_true(found: Detail, data: Any, key: int, tables: sqlite3.Connection) -> None:
    expected = stored_detail(data)
    assert set(found.rows) == set(expected)
    for name, rows in found.rows.items():
        assert [row[0] for row in rows] == [key] * len(rows)
        assert as_stored(tables, name, list(rows)) == [comparable(name, row) for row in expected[name]]


def assert_page_is_true(found: Page, data: Any, walk: Walk, reply: Reply, tables: sqlite3.Connection) -> None:
    """Its rows, its failures, what it claims to prove, and where it says to go on."""
    rows, broken = stored_page(data)
    lo, hi = walk.hole.lo, walk.hole.hi
    keys = sorted({*rows, *broken})
    if walk.order == "newest":
        at_end = data.get("atEnd") is True
        if walk.head and not walk.started:
            hi = max(keys, default=hi)
        reached = [key for key in keys if key <= hi]
        assert reached or at_end, "a page of nothing that is not the last proves nothing"
        lo = lo if at_end else max(lo, min(reached))
        rest = Interval(walk.hole.lo, min(walk.hole.hi, lo - 1))
    else:
        at_end = data.get("atStart") is True
        reached = [key for key in keys if key >= lo]
        assert reached or at_end, "a page of nothing that is not the last proves nothing"
        if walk.head:
            hi = max(reached, default=lo - 1)
        elif not at_end:
            hi = min(hi, max(reached))
        rest = Interval(hi + 1, walk.hole.hi)
    inside = {key: row for key, row in rows.items() if lo <= key <= hi}
    assert [comparable("items", inside[row[0]]) for row in found.rows] == as_stored(tables, "items", found.rows)
    assert sorted(row[0] for row in found.rows) == sorted(inside)
    assert sorted(each.key for each in found.failures) == sorted(key for key in broken if lo <= key <= hi)
    assert {each.body for each in found.failures} <= {reply.evidence}
    if found.proven is not None:
        assert walk.proves
        assert lo <= found.proven.lo <= found.proven.hi <= min(hi, walk.hole.hi)
        ts = data.get("ts")
        if type(ts) is int:
            assert not [key for key in inside if key in found.proven and inside[key]["created"] > ts - YOUNG_SECONDS]
    if found.next is None:
        assert at_end or (not rest.size and not (walk.head and walk.order == "oldest"))
    else:
        assert found.next.hole == rest


def judge_one(client: Client, replies: Replies, tables: sqlite3.Connection, chance: random.Random) -> str:
    """Spoil an answer and see what becomes of it; returns a word for it."""
    what, tree = a_good_answer(chance)
    walk, key = a_walk(chance, tree), 4711
    reply = replies.reply = spoilt(tree, chance)
    found: Page | Detail | Gone
    try:
        found = SOURCE.page(client, walk) if what == "page" else SOURCE.detail(client, key)
    except RequestFailed as error:
        assert_failure_is_deserved(error, what, walk, reply)
        return error.outcome
    if reply.extreme:
        return "extreme"
    outcome, data = due(reply)
    assert outcome is Outcome.OK
    if isinstance(found, Page):
        assert_page_is_true(found, data, walk, reply, tables)
    else:
        assert isinstance(found, Detail)
        assert_detail_is_true(found, data, key, tables)
    assert all(note.isascii() and "\n" not in note for note in found.notes)
    return f"good {what}"


def assert_failure_is_deserved(error: RequestFailed, what: str, walk: Walk, reply: Reply) -> None:
    message = str(error)
    assert 0 < len(message.encode()) <= 400
    assert "\n" not in message
    assert error.body == reply.evidence
    assert error.status == (None if reply.content() is None else reply.status)
    if reply.extreme:
        return
    outcome, data = due(reply)
    if outcome is not Outcome.OK:
        assert error.outcome is outcome
        return
    assert error.outcome is Outcome.MALFORMED, "the answer is good, then what it says must not be"
    assert not is_usable(data, what, walk)


def is_usable(data: Any, what: str, walk: Walk) -> bool:
    """Whether a good answer says something that can be stored or proven."""
    try:
        if what == "detail":
            return bool(stored_detail(data))
        rows, broken = stored_page(data)
    except Unusable:
        return False
    down = walk.order == "newest"
    top = walk.hole.hi if not walk.head or walk.started else 2**63
    at_end = data.get("atEnd" if down else "atStart") is True
    return at_end or any(key <= top if down else key >= walk.hole.lo for key in (*rows, *broken))


@contextlib.contextmanager
def told(what: Callable[[], str]) -> Iterator[None]:
    """A failure in here says what it was about."""
    try:
        yield
    except BaseException as error:
        error.add_note(what())
        raise


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.timeout(60 + MORE / 20)
def test_a_spoilt_answer_is_a_true_one_or_a_failure(
    part: int, client: Client, replies: Replies, tables: sqlite3.Connection
) -> None:
    seen: defaultdict[str, int] = defaultdict(int)
    for number in range(part, BODIES, PARTS):
        with told(lambda number=number: f"body {number} of seed {SEED}: {replies.reply!r:.600}"):
            seen[judge_one(client, replies, tables, random.Random(f"{SEED} {number}"))] += 1
    # It is no fuzz where all is refused, or nothing.
    assert seen["good page"] > 10
    assert seen["good detail"] > 10
    assert seen["malformed"] > 100
    assert {*Outcome} - {Outcome.OK} <= set(seen)


# --- whole mirrors over sockets ---------------------------------------------------------------------------

MIRRORS = 12 + MORE // 1000
ITEMS_OF_A_MIRROR = 110


class Spoiler:
    """What a simulator answers: spoilt at first, for some items always, until `healed`; remembers every answer.

    Without `lies` a spoilt page that can be taken for a good one names the items that are there, and no others.
    """

    def __init__(self, world: World, seed: str, *, upwards: bool, lies: bool) -> None:
        self.healed = False
        self.spoilt = 0
        self.answers: defaultdict[tuple[str, int], list[Reply]] = defaultdict(list)
        self._world = world
        self._seed = seed
        self._upwards = upwards
        self._lies = lies

    def __call__(self, kind: str, key: int, attempt: int) -> Answer | None:
        if self.healed:
            return None
        chance = random.Random(f"{self._seed} {kind} {key} {attempt}")
        exists = kind == "list" or self._world.flag(key)
        if not (exists and self._is_to_be_spoilt(kind, key, attempt, chance)):
            true = Reply(200, JSON, json.dumps(self._true(kind, key)).encode()) if exists else Reply(404, JSON, b"{}")
            self.answers[kind, key].append(true)
            return None
        reply = self._spoilt(kind, key, chance)
        self.spoilt += 1
        self.answers[kind, key].append(reply)
        encoding = {"Content-Encoding": reply.encoding} if reply.encoding else {}
        return Answer(reply.status, {"Content-Type": reply.kind, **encoding}, reply.body)

    def _true(self, kind: str, key: int) -> Any:
        if kind == "info":
            return details_of(self._world, key)
        if not self._upwards:
            return list_page(self._world, key)
        # The first answer gives the universe, and is at the head; the walk then begins above 0.
        return list_page(self._world, newer=key if self.answers else None)

    def _is_to_be_spoilt(self, kind: str, key: int, attempt: int, chance: random.Random) -> bool:
        if kind == "list" and key == 0:
            # Later the head is asked whether the login is gone: what is said then is about another item.
            return attempt == 2
        return (attempt == 1 and chance.random() < 0.8) or self._is_hopeless(kind, key)

    def _is_hopeless(self, kind: str, key: int) -> bool:
        return kind == "info" and random.Random(f"{self._seed} {key}").random() < 0.1

    def _spoilt(self, kind: str, key: int, chance: random.Random) -> Reply:
        while True:
            reply = spoilt(self._true(kind, key), chance)
            outcome, data = due(reply)
            if reply.status in (204, 304) or reply.extreme:
                continue
            if outcome in (Outcome.MALFORMED, Outcome.UNAVAILABLE):
                return reply
            if outcome is Outcome.LIMITED and not self._is_hopeless(kind, key):
                return reply
            if kind == "info" and outcome is not Outcome.LIMITED:
                return reply
            if outcome is Outcome.OK and (self._lies or self._names_what_is_there(key, data)):
                return reply

    def _names_what_is_there(self, key: int, data: Any) -> bool:
        try:
            rows, broken = stored_page(data)
        except Unusable:
            return True
        true = self._true("list", key)
        same_ends = all((data.get(end) is True) == true[end] for end in ("atEnd", "atStart"))
        return same_ends and {*rows, *broken} == {each["id"] for each in true["items"]}

    def listed(self) -> dict[int, set[str]]:
        """What the listing said of each item, ever."""
        said: defaultdict[int, set[str]] = defaultdict(set)
        for reply in [each for (kind, _), replies in self.answers.items() if kind == "list" for each in replies]:
            outcome, data = due(reply)
            with contextlib.suppress(Unusable):
                for id, row in stored_page(data)[0].items() if outcome is Outcome.OK else ():
                    said[id].add(comparable("items", row))
        return said

    def last(self, id: int) -> tuple[Outcome, bytes | None, dict[str, list[str]]]:
        """What the last answer about an item's details deserves, its evidence and its rows, if it is good.

        Once it was good nothing more is asked but whether the host is there: with an item that is known, and of which
        nothing is stored again.
        """
        for reply in self.answers["info", id]:
            outcome, data = due(reply)
            if outcome is Outcome.OK:
                try:
                    return outcome, reply.evidence, details_in(data)
                except Unusable:
                    outcome = Outcome.MALFORMED
            if outcome is Outcome.GONE:
                break
        return outcome, reply.evidence, {"tags": [], "comments": []}


def details_in(data: Any) -> dict[str, list[str]]:
    """The tags and comments that details say; of two with one id the last counts."""
    by_id = {name: {row["id"]: row for row in rows} for name, rows in stored_detail(data).items()}
    return {name: [comparable(name, rows[id]) for id in sorted(rows)] for name, rows in by_id.items()}


def stored_items(db: Path) -> dict[int, tuple[str, dict[str, list[str]]]]:
    """Each item's row, and its tags and comments."""
    found: dict[int, tuple[str, dict[str, list[str]]]] = {}
    for table, key in (("items", "id"), ("tags", "item_id"), ("comments", "item_id")):
        names = [*FIELDS[table], "extra"]
        columns = ", ".join(f'"{name}"' for name in names)
        for id, *values in query(db, f"SELECT {key}, {columns} FROM {table} ORDER BY {key}, id"):
            row = comparable(table, dict(zip(names, values, strict=True)))
            if table == "items":
                found[id] = row, {"tags": [], "comments": []}
            else:
                found[id][1][table].append(row)
    return found


def assert_true_or_failed(db: Path, world: World, spoiler: Spoiler, *, lies: bool) -> None:
    """Each item is stored as its answers said it, or is a failure that keeps the last of them; none is missing."""
    said = spoiler.listed()
    failed = {(row[0], row[1]): row[2:] for row in query(db, "SELECT stage, key, outcome, body FROM failures")}
    times = {row[0]: row[1:] for row in query(db, "SELECT id, fetched_at, gone_at FROM items")}
    for id, (row, details) in stored_items(db).items():
        outcome, evidence, expected = spoiler.last(id)
        fetched_at, gone_at = times[id]
        with told(lambda id=id: f"item {id}, last answer {spoiler.answers['info', id][-1]!r:.1000}"):
            assert row in said[id]
            assert details == expected
            assert (fetched_at is not None) == (outcome is Outcome.OK)
            assert (gone_at is not None) == (outcome is Outcome.GONE)
            kept = None if outcome in (Outcome.OK, Outcome.GONE) else (outcome, evidence)
            assert failed.get(("detail", id)) == kept
    if not lies:
        assert set(world.ids()) == times.keys() | {key for stage, key in failed if stage == "item"}
    assert column(db, "SELECT count(*) FROM work WHERE due_at IS NOT NULL") == [0]


def assert_all_is_true(db: Path, world: World) -> None:
    """Every item of the world is stored truly; what never was one is marked so."""
    stored = stored_items(db)
    for id in world.ids():
        assert stored[id] == (comparable("items", stored_row("items", world.item(id))), details_in(world.info(id)))
    there = "SELECT id FROM items WHERE fetched_at NOTNULL AND gone_at IS NULL AND unlisted_at IS NULL ORDER BY id"
    assert column(db, there) == list(world.ids())
    assert not set(column(db, "SELECT key FROM work UNION SELECT key FROM failures")) & set(world.ids())


@pytest.mark.parametrize("number", range(MIRRORS))
def test_a_mirror_of_spoilt_answers_holds_no_false_row_and_lacks_no_item(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulate: Callable[..., Simulator]
) -> None:
    monkeypatch.setattr(simulated, "PAGE", 15)
    monkeypatch.setattr(pacing, "FIRST_COOL_DOWN", 0.01)
    upwards, lies = number % 4 >= 2, number % 2 == 1
    world = World(seed=number, items=ITEMS_OF_A_MIRROR)
    spoiler = Spoiler(world, f"{SEED} {number}", upwards=upwards, lies=lies)
    simulator, db = simulate(world, faults=spoiler), tmp_path / "mirror.db"
    settings: dict[str, Any] = {"order": "oldest" if upwards else "newest", "max_retries": 3, "db_batch_size": 20}
    settings["max_backoff_seconds"] = 0.02
    with told(lambda: f"mirror {number} of seed {SEED}"):
        mirror(db, simulator, **settings)
        assert lies or spoiler.spoilt > ITEMS_OF_A_MIRROR * 0.8
        assert_true_or_failed(db, world, spoiler, lies=lies)
        spoiler.healed = True
        mirror(db, simulator, full_update=True, **settings)
        assert_all_is_true(db, world)
