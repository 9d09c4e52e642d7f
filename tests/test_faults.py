"""The simulated API goes wrong in every way it is told to, the same way each time, and in no other."""

from __future__ import annotations

import gzip
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fetcher.cli import cli
from fetcher.simulator import (
    MISHAPS,
    PROFILES,
    Answer,
    Ending,
    Knee,
    Limit,
    Login,
    Outage,
    Profile,
    Share,
    Simulator,
    Window,
    World,
)
from fetcher.simulator.bodies import BOMB_BYTES, DEPTH, HUGE_TEXT, gzip_bomb
from fetcher.simulator.changes import Changes
from fetcher.simulator.conditions import Conditions
from fetcher.simulator.limiter import CountingWindow, TokenBucket
from fetcher.simulator.mishaps import STAC
from fetcher.simulator.profile import HEAD_ATTEMPTS
from fetcher.simulator.world import PAGE
from tests.helpers import ROOT, column, dump, eventually, mirror

DATA = ROOT / "tests" / "data" / "pr0gramm"
SILENCE = 0.3  # seconds without a byte after which an answer is taken to hang

Simulate = Callable[..., Simulator]


@pytest.fixture(scope="module")
def world() -> World:
    """600 items to read; not to be changed."""
    return World(seed=1, items=600)


# --- asking -----------------------------------------------------------------------------------------


@dataclass
class Got:
    """What came over the wire for one request, and how it ended: "closed", "reset" or "silent"."""

    received: bytes
    end: str
    seconds: float

    @property
    def status(self) -> int:
        return int(self.received[9:12])

    @property
    def head(self) -> str:
        return self.received.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        found = re.search(rf"(?im)^{name}: ?([^\r\n]*)\r?$", self.head)
        return found[1] if found else None


def address(api: Simulator) -> tuple[str, int]:
    host, port = api.url.removeprefix("http://").removesuffix("/api").split(":")
    return host, int(port)


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET /api{path} HTTP/1.1", "Host: x", "User-Agent: tests", *headers, "", ""]).encode()


def ask(api: Simulator, path: str, *headers: str, silence: float = 10) -> Got:
    """One request on a connection of its own, and all that comes back until the end or a silence."""
    began = time.monotonic()
    received, end = b"", "closed"
    with socket.create_connection(address(api), timeout=10) as connection:
        connection.sendall(request(path, "Connection: close", *headers))
        connection.settimeout(silence)
        try:
            while chunk := connection.recv(1 << 20):
                received += chunk
        except TimeoutError:
            end = "silent"
        except ConnectionResetError:
            end = "reset"
    return Got(received, end, time.monotonic() - began)


def info(api: Simulator, id: int, *headers: str) -> Got:
    return ask(api, f"/items/info?itemId={id}", *headers)


def pipelined(api: Simulator, paths: list[str], *headers: str) -> list[int]:
    """The statuses of requests sent in one write on one connection."""
    with socket.create_connection(address(api), timeout=10) as connection:
        connection.sendall(b"".join(request(path, *headers) for path in paths))
        received = b""
        while received.count(b"HTTP/1.1 ") < len(paths):
            chunk = connection.recv(1 << 20)
            assert chunk
            received += chunk
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


def is_refused(api: Simulator) -> bool:
    try:
        socket.create_connection(address(api), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def statuses(api: Simulator, ids: list[int]) -> list[int]:
    return pipelined(api, [f"/items/info?itemId={id}" for id in ids])


# --- what each mishap does --------------------------------------------------------------------------


def healthy(world: World, got: Got) -> bool:
    """Whether the answer is the true one to the request that the mishaps are tried with."""
    data = got.json
    return {"tags": data["tags"], "comments": data["comments"]} == world.info(world.ids()[300])


def hostile_id(got: Got) -> bytes:
    found = re.match(rb'{"tags":\[{"id":(.+?),"promoted"', got.body, re.DOTALL)
    assert found is not None
    assert got.header("Content-Length") == str(len(got.body))
    return found[1]


def unreadable(got: Got, error: type[Exception]) -> bool:
    try:
        json.loads(got.body)
    except error:
        return True
    return False


def is_date(text: str | None) -> bool:
    return text is not None and 0 < parsedate_to_datetime(text).timestamp() - time.time() <= 3


def breaks_gzip(got: Got) -> bool:
    try:
        gzip.decompress(got.body)
    except (OSError, EOFError, zlib.error):
        return got.header("Content-Encoding") == "gzip"
    return False


CHECKS: dict[str, Callable[[Got, World], bool]] = {
    "429": lambda got, _: got.status == 429 and got.header("Retry-After") is None,
    "429-seconds": lambda got, _: (got.status, got.header("Retry-After")) == (429, "2"),
    "429-date": lambda got, _: got.status == 429 and is_date(got.header("Retry-After")),
    "429-nonsense": lambda got, _: got.status == 429 and not re.fullmatch(r"\d{1,99}", str(got.header("Retry-After"))),
    "429-hours": lambda got, _: (got.status, got.header("Retry-After")) == (429, "21600"),
    "limit-200": lambda got, _: got.status == 200 and got.json["error"] == "limitReached",
    "limit-4xx": lambda got, _: got.status in (400, 403, 420) and got.json["error"] == "limitReached",
    "503": lambda got, _: got.status == 503 and got.header("Retry-After") is None,
    "503-after": lambda got, _: (got.status, got.header("Retry-After")) == (503, "2"),
    "500": lambda got, _: got.status == 500 and got.json["code"] == 500,
    "502": lambda got, _: got.status == 502 and got.header("Content-Type") == "text/html; charset=UTF-8",
    "403": lambda got, _: got.status == 403 and b"<html>" in got.body and b"cloudflare" in got.body,
    "522": lambda got, _: got.status == 522 and b"<html>" in got.body,
    "reset": lambda got, _: (got.received, got.end) == (b"", "reset"),
    "reset-midway": lambda got, _: got.status == 200 and got.end == "reset",
    "truncated": lambda got, _: got.end == "closed" and 0 < len(got.body) < int(got.header("Content-Length") or 0),
    "stalled": lambda got, _: got.end == "silent" and 0 < len(got.body) < int(got.header("Content-Length") or 0),
    "overlong": lambda got, _: len(got.body) > int(got.header("Content-Length") or 0) > 0,
    "hang": lambda got, _: (got.received, got.end) == (b"", "silent"),
    "drip": lambda got, world: got.seconds > 0.35 and healthy(world, got),
    "slow": lambda got, world: got.seconds >= 0.4 and healthy(world, got),
    "chunks": lambda got, _: got.header("Transfer-Encoding") == "chunked" and got.end == "closed",
    "header": lambda got, _: got.end == "silent" and len(got.head) > 1_000_000 and not got.body,
    "noise": lambda got, _: not got.received.startswith(b"HTTP") and bool(got.received),
    "gzip": lambda got, _: breaks_gzip(got),
    "bomb": lambda got, _: got.body == gzip_bomb() and got.header("Content-Encoding") == "gzip",
    "empty": lambda got, _: (got.status, got.body, got.header("Content-Length")) == (200, b"", "0"),
    "html": lambda got, _: got.status == 200 and b"<html>" in got.body,
    "strings": lambda got, _: type(got.json["tags"][0]["id"]) is str is type(got.json["comments"][0]["confidence"]),
    "types": lambda got, world: got.status == 200 and not is_usable(got.json),
    "duplicates": lambda got, world: got.body.count(b'"tags":') == 2 and healthy(world, got),
    "bom": lambda got, world: got.body[:3] == b"\xef\xbb\xbf" and healthy(world, got),
    "surrogate": lambda got, _: json.loads(hostile_id(got)) == "\ud800",
    "huge-integer": lambda got, _: json.loads(hostile_id(got)) == 2**63,
    "nan": lambda got, _: hostile_id(got) == b"NaN",
    "infinity": lambda got, _: hostile_id(got) == b"-Infinity",
    "exponent": lambda got, _: json.loads(hostile_id(got)) == float("inf"),
    "nesting": lambda got, _: hostile_id(got).count(b"[") == DEPTH and unreadable(got, RecursionError),
    "nul": lambda got, _: json.loads(hostile_id(got)) == "7\x00",
    "raw-nul": lambda got, _: hostile_id(got) == b'"7\x00"',
    "huge-text": lambda got, _: len(json.loads(hostile_id(got))) == HUGE_TEXT,
    "utf8": lambda got, _: hostile_id(got) == b'"\xff\xfe"' and unreadable(got, UnicodeDecodeError),
    "null-items": lambda got, _: got.status == 200 and got.json["items"] is None and got.json["error"] is None,
    "repeat": lambda got, world: listed(got) == list(world.ids())[300 : 300 + PAGE][::-1],
    "skip": lambda got, world: is_in(listed(got), list(world.ids())[290:299]),
}


def is_usable(data: Any) -> bool:
    """Whether a mirror could make rows of it."""
    return isinstance(data, dict) and all(
        isinstance(data[name], list) and all(isinstance(row, dict) and type(row["id"]) is int for row in data[name])
        for name in ("tags", "comments")
    )


def listed(got: Got) -> list[int]:
    return [item["id"] for item in got.json["items"]]


def is_in(page: list[int], firsts: list[int]) -> bool:
    """Whether a page of full length begins with one of `firsts`."""
    return page[0] in firsts and len(page) == PAGE


def test_every_mishap_has_its_check_and_says_what_it_is() -> None:
    # Those of a STAC API alone are in tests/test_stac_simulator.py.
    assert CHECKS.keys() == {name for name, each in MISHAPS.items() if each.kinds != STAC}
    assert all(each.about for each in MISHAPS.values())


@pytest.mark.parametrize("name", CHECKS)
def test_a_mishap_does_what_it_says_and_the_next_try_is_true(name: str, world: World, simulate: Simulate) -> None:
    seconds = {"429-seconds": 2, "429-date": 2, "503-after": 2, "drip": 0.4, "slow": 0.4}.get(name, 0.0)
    id = world.ids()[300]
    path = f"/items/get?older={id}" if "info" not in MISHAPS[name].kinds else f"/items/info?itemId={id}"
    api = simulate(world, profile=Profile(mishaps=(Share(name, 1.0, seconds=seconds),)))
    got = ask(api, path, silence=SILENCE if name in ("hang", "stalled", "header") else 10)
    assert CHECKS[name](got, world), got
    assert api.wrong == {name: 1}
    again = ask(api, path)
    assert (again.status, again.end) == (200, "closed")
    assert listed(again)[0] == world.ids()[299] if "older" in path else healthy(world, again)
    assert api.wrong == {name: 1}


@pytest.mark.parametrize("name", ["429-nonsense", "limit-4xx", "types", "chunks", "skip"])
def test_a_mishap_of_many_forms_is_of_its_kind_in_all_of_them(name: str, world: World, simulate: Simulate) -> None:
    api = simulate(world, profile=Profile(mishaps=(Share(name, 1.0, None),)))
    id = world.ids()[300]
    path = f"/items/get?older={id}" if name == "skip" else f"/items/info?itemId={id}"
    found = [ask(api, path) for _ in range(60)]
    assert all(CHECKS[name](got, world) for got in found)
    assert len({got.received for got in found}) >= 3


def test_a_bomb_unpacks_to_what_it_says() -> None:
    assert len(gzip_bomb()) < BOMB_BYTES / 900
    unpacker, size, crc = zlib.decompressobj(16 + zlib.MAX_WBITS), 0, 0
    packed = gzip_bomb()
    while packed:
        piece = unpacker.decompress(packed, 1 << 20)
        packed, size, crc = unpacker.unconsumed_tail, size + len(piece), zlib.crc32(piece, crc)
    assert (size, unpacker.eof) == (BOMB_BYTES, True)


def test_strings_are_the_same_values(world: World, simulate: Simulate) -> None:
    api = simulate(world, profile=Profile(mishaps=(Share("strings", 1.0, None),)))
    rows = ask(api, "/items/get").json["items"]
    assert len(rows) == PAGE
    for row in rows:
        for name, value in world.item(int(row["id"])).items():
            loose = {bool: int, int: str, float: str}.get(type(value), lambda kept: kept)(value)
            assert (row[name], type(row[name])) == (loose, type(loose))


def test_what_is_said_of_a_listing_holds_upwards_too(world: World, simulate: Simulate) -> None:
    ids = list(world.ids())
    for name, firsts in (("repeat", [ids[301 - PAGE]]), ("skip", ids[302:311])):
        api = simulate(world, profile=Profile(mishaps=(Share(name, 1.0),)))
        assert is_in(listed(ask(api, f"/items/get?newer={ids[300]}")), firsts)


def test_a_page_at_an_end_is_repeated_or_skipped_within_the_list(world: World, simulate: Simulate) -> None:
    ids = list(world.ids())
    api = simulate(world, profile=Profile(mishaps=(Share("repeat", 1.0, None),)))
    assert listed(ask(api, "/items/get"))[0] == ids[-1]
    assert listed(ask(api, f"/items/get?older={ids[-5]}"))[0] == ids[-1]
    assert listed(ask(api, f"/items/get?newer={ids[3]}"))[0] == ids[0]
    api = simulate(world, profile=Profile(mishaps=(Share("skip", 1.0, None),)))
    assert is_in(listed(ask(api, "/items/get")), ids[-10:-1])
    assert listed(ask(api, f"/items/get?older={ids[0]}")) == []
    assert listed(ask(api, f"/items/get?newer={ids[-1]}")) == []


def test_a_dripping_answer_begins_early_and_ends_late(world: World, simulate: Simulate) -> None:
    api = simulate(world, faults=lambda *_: Answer(drip=0.4))
    with socket.create_connection(address(api), timeout=10) as connection:
        began = time.monotonic()
        connection.sendall(request("/items/get", "Connection: close"))
        pieces = []
        while chunk := connection.recv(1 << 20):
            pieces.append((time.monotonic() - began, chunk))
    assert pieces[0][0] < 0.3
    assert pieces[-1][0] > 0.35
    assert len(pieces) >= 5
    assert b"".join(chunk for _, chunk in pieces).endswith(b"}")


def test_requests_behind_a_dripping_answer_are_answered_in_turn(world: World, simulate: Simulate) -> None:
    api = simulate(world, faults=lambda kind, *_: Answer(drip=0.1) if kind == "list" else None)
    assert pipelined(api, ["/items/get", "/user/loggedin", "/items/get"]) == [200] * 3
    eventually(lambda: api._service.in_flight == 0)


def test_a_client_that_leaves_a_hanging_or_dripping_answer_leaves_nothing_behind(
    world: World, simulate: Simulate
) -> None:
    api = simulate(world, faults=lambda kind, *_: Answer(drip=9) if kind == "list" else Answer(ending=Ending.HANG))
    with socket.create_connection(address(api), timeout=10) as connection:
        connection.sendall(request("/items/get"))
        assert connection.recv(1)
    eventually(lambda: api._service.in_flight == 0)
    got = ask(api, f"/items/info?itemId={world.ids()[0]}", silence=SILENCE)
    assert (got.status, got.end) == (200, "silent")
    eventually(lambda: api._service.in_flight == 0)


# --- who is met by what -----------------------------------------------------------------------------


def decisions(profile: Profile) -> list[str | None]:
    return [
        profile.mishap(kind, key, attempt)
        for kind in ("list", "info", "tags", "loggedin")
        for key in range(0, 900, 3)
        for attempt in (1, 2, 3, 4)
    ]


def test_the_same_seed_decides_the_same_and_another_one_otherwise() -> None:
    profile = PROFILES["hostile"]
    assert decisions(profile) == decisions(replace(profile))
    assert decisions(profile) != decisions(replace(profile, seed=1))


def test_decisions_are_the_same_in_another_process() -> None:
    code = "from tests.test_faults import *; print(decisions(PROFILES['hostile']))"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": "7"}, stdout=subprocess.PIPE, check=True
    ).stdout
    assert printed.decode().strip() == str(decisions(PROFILES["hostile"]))


def test_who_asks_first_changes_nothing_even_behind_a_limit(world: World, simulate: Simulate) -> None:
    limit = Limit(rate=2000, burst=20)
    profile = Profile(
        seed=3,
        mishaps=(Share("503", 0.2), Share("500", 0.2, 2), Share("502", 0.1, None)),
        gone_404=0.1,
        gone_200=0.1,
        limits=(limit,),
    )
    ids = list(world.ids())[:150]
    orders = [ids, ids[::-1], random.Random(1).sample(ids, len(ids))]
    found = []
    for order in orders:
        api = simulate(world, profile=profile)
        seen: dict[int, list[int]] = {id: [] for id in ids}
        waiting = [id for id in order for _ in range(3)]
        while waiting:
            answers = list(zip(waiting, statuses(api, waiting), strict=True))
            for id, status in answers:
                if status != 429:
                    seen[id].append(status)
            waiting = [id for id, status in answers if status == 429]
        assert api.wrong["limit"] > 0
        found.append(seen)
    assert found[0] == found[1] == found[2]
    assert {status for each in found[0].values() for status in each} == {200, 404, 500, 502, 503}


def test_shares_are_kept_and_end_with_their_attempts() -> None:
    profile = Profile(mishaps=(Share("503", 0.2), Share("500", 0.1, 2), Share("reset", 0.05, None), Share("repeat", 1)))
    found = {
        attempt: Counter(profile.mishap("info", key, attempt) for key in range(1, 8001)) for attempt in (1, 2, 3, 9)
    }
    for attempt, shares in {
        1: {"503": 0.2, "500": 0.1, "reset": 0.05},
        2: {"500": 0.1, "reset": 0.05},
        3: {"reset": 0.05},
        9: {"reset": 0.05},
    }.items():
        assert found[attempt].keys() == {None, *shares}
        for name, share in shares.items():
            assert abs(found[attempt][name] / 8000 - share) < 0.015
    assert profile.mishap("list", 5, 1) in {"503", "500", "reset", "repeat"}
    assert all(profile.mishap("list", key, 1) for key in range(1, 100))


def test_the_list_head_is_well_after_two_tries() -> None:
    profile = Profile(mishaps=(Share("html", 1.0, 3),))
    assert [profile.mishap("list", 0, attempt) for attempt in (1, 2, 3)] == ["html"] * HEAD_ATTEMPTS + [None]
    assert [profile.mishap("list", 7, attempt) for attempt in (1, 2, 3, 4)] == ["html"] * 3 + [None]
    assert [profile.mishap("info", 7, attempt) for attempt in (3, 4)] == ["html", None]


def test_what_does_not_exist_is_refused(world: World, simulate: Simulate) -> None:
    with pytest.raises(ValueError, match="no mishap 'nonsense'"):
        Share("nonsense", 0.1)
    with pytest.raises(ValueError, match="no such outage: 'nonsense'"):
        Outage(1, 1, "nonsense")
    with pytest.raises(ValueError, match="no such outage: 'nonsense'"):
        simulate(world).outage(1, "nonsense")


def test_gone_items_are_gone_in_both_ways_at_every_attempt(world: World, simulate: Simulate) -> None:
    profile = Profile(seed=2, gone_404=0.1, gone_200=0.2)
    api = simulate(world, profile=profile)
    ids = list(world.ids())[:200]
    ways = Counter()
    for id in ids:
        got = info(api, id)
        way = (got.status, got.json.get("error"))
        ways[way] += 1
        assert profile.gone(id) == (way != (200, None)) == (profile.details(world, id) is None)
    assert ways.keys() == {(200, None), (404, "notFound"), (200, "notFound")}
    assert 5 < ways[404, "notFound"] < 40 < ways[200, "notFound"] + 20 < 85
    assert statuses(api, ids) == statuses(api, ids)


def test_recorded_details_are_those_of_2016(world: World, simulate: Simulate) -> None:
    profile = Profile(recorded=0.2, gone_404=0.2)
    api = simulate(world, profile=profile)
    recorded = json.loads((DATA / "items_info_2016.json").read_text(encoding="utf-8"))
    ids = list(world.ids())[:60]
    served = [id for id in ids if not profile.gone(id) and info(api, id).json == recorded]
    assert 2 < len(served) < 30
    expected = {"tags": recorded["tags"], "comments": recorded["comments"]}
    for id in ids:
        details = profile.details(world, id)
        assert (details == expected) == (id in served)
        assert details in (None, expected, world.info(id))


def test_a_gone_item_stays_gone_under_what_changes_the_true_answer(world: World, simulate: Simulate) -> None:
    for name in ("strings", "duplicates", "slow"):
        api = simulate(world, profile=Profile(gone_200=1.0, mishaps=(Share(name, 1.0, seconds=0.01),)))
        assert info(api, world.ids()[9]).json["error"] == "notFound"
    api = simulate(world, profile=Profile(gone_404=1.0, mishaps=(Share("truncated", 1.0),)))
    got = info(api, world.ids()[9])
    assert got.status == 404
    assert len(got.body) < int(got.header("Content-Length") or 0)
    assert info(api, world.ids()[9]).json["error"] == "notFound"


def test_a_function_of_ones_own_goes_before_the_profile(world: World, simulate: Simulate) -> None:
    profile = Profile(mishaps=(Share("500", 1.0, None),))
    api = simulate(world, profile=profile, faults=lambda *_: Answer(418, name="teapot") if _[1] == 9 else None)
    assert (info(api, 9).status, info(api, world.ids()[9]).status) == (418, 500)
    assert api.wrong == {"teapot": 1, "500": 1}


def test_a_profile_in_which_nothing_goes_wrong_changes_no_answer(world: World, simulate: Simulate) -> None:
    id = world.ids()[7]
    paths = ["/items/get", f"/items/get?older={id}", f"/items/info?itemId={id}", "/items/info?itemId=1", "/nothing"]
    plain, profiled = simulate(world), simulate(world, profile=Profile())
    for path in paths:
        answers = [re.sub(rb'"ts":\d+', b"", ask(api, path).received) for api in (plain, profiled)]
        assert answers[0] == answers[1]
    assert plain.wrong == profiled.wrong == {}


# --- limits -----------------------------------------------------------------------------------------


def admitted(limiter: TokenBucket | CountingWindow, moments: list[float]) -> list[bool]:
    return [limiter.admits(now) for now in moments]


def every(seconds: float, until: float, start: float = 0.0) -> list[float]:
    return [start + seconds * number for number in range(round((until - start) / seconds))]


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(Limit(rate=10, burst=5))
    assert admitted(bucket, [0.0] * 7) == [True] * 5 + [False] * 2
    assert sum(admitted(bucket, every(0.01, 10))) == 99
    assert admitted(bucket, [20.0] * 7) == [True] * 5 + [False] * 2
    assert sum(admitted(TokenBucket(Limit(rate=30)), [0.0] * 50)) == 30


def test_who_keeps_to_the_rate_is_never_refused() -> None:
    for rate in (3, 7, 40, 0.3):
        assert all(admitted(TokenBucket(Limit(rate=rate, burst=1)), every(1 / rate, 200 / rate)))


def test_a_refused_request_locks_everyone_out_for_so_long() -> None:
    bucket = TokenBucket(Limit(rate=10, burst=1, lockout=5))
    assert admitted(bucket, [0.0, 0.01, 0.5, 3.0, 5.0, 5.02, 5.1]) == [True, False, False, False, False, True, False]
    assert admitted(bucket, [10.0, 10.11]) == [False, True]


def test_a_rate_changes_when_it_is_told_to() -> None:
    bucket = TokenBucket(Limit(rate=40, burst=1, later=((10, 10), (20, 80))))
    found = admitted(bucket, every(0.0005, 30))
    assert [round(sum(found[start : start + 20_000]), -1) for start in (0, 20_000, 40_000)] == [400, 100, 800]
    quiet = TokenBucket(Limit(rate=40, burst=100, later=((1, 10),)))
    assert sum(admitted(quiet, [0.0] * 100)) == 100
    # A second at 40 and another at 10, though nobody asked in between.
    assert sum(admitted(quiet, [2.0] * 100)) == 50


def test_a_window_counts_and_then_blocks() -> None:
    window = CountingWindow(Window(requests=70, seconds=10, block=9))
    assert admitted(window, [0.1 * number for number in range(70)]) == [True] * 70
    assert admitted(window, [7.5, 8.0, 16.0, 16.4]) == [False] * 4
    assert admitted(window, [16.6] * 71) == [True] * 70 + [False]
    slower = CountingWindow(Window(requests=70, seconds=10, block=9))
    assert all(admitted(slower, every(10 / 70 + 0.001, 100)))
    assert admitted(CountingWindow(Window(requests=0, seconds=1, block=1)), [0.0, 5.0]) == [False, False]


def test_the_limit_of_a_server_counts_all_requests_together(world: World, simulate: Simulate) -> None:
    api = simulate(world, profile=Profile(limits=(Limit(rate=0.001, burst=10, lockout=0.3, retry_after="7"),)))
    ids = list(world.ids())
    assert pipelined(api, ["/items/get", "/user/loggedin", "/tags/latest?id=0"]) == [200] * 3
    assert statuses(api, ids[:7]) == [200] * 7
    assert statuses(api, ids[:5]) == [429] * 5
    got = ask(api, "/items/get")
    assert (got.status, got.body, got.header("Retry-After")) == (429, b"{}", "7")
    assert api.wrong == {"limit": 6}


def test_a_lockout_ends(world: World, simulate: Simulate) -> None:
    api = simulate(world, profile=Profile(limits=(Limit(rate=30, burst=3, lockout=0.25),)))
    ids = list(world.ids())
    assert statuses(api, ids[:5])[:4] == [200, 200, 200, 429]
    began = time.monotonic()
    assert info(api, ids[0]).status == 429
    assert ask(api, "/items/get").header("Retry-After") is None
    eventually(lambda: info(api, ids[0]).status == 200)
    # By now the bucket has been full for long: only the lockout refused.
    assert time.monotonic() - began > 0.15


def test_the_window_of_a_server_blocks_everyone_and_ends(world: World, simulate: Simulate) -> None:
    api = simulate(world, profile=Profile(windows=(Window(requests=20, seconds=60, block=0.2, retry_after="1"),)))
    ids = list(world.ids())
    assert statuses(api, ids[:25]) == [200] * 20 + [429] * 5
    assert ask(api, "/items/get").header("Retry-After") == "1"
    eventually(lambda: info(api, ids[0]).status == 200)
    assert statuses(api, ids[:25]) == [200] * 19 + [429] * 6
    assert api.wrong.keys() == {"window"}


# --- outages ----------------------------------------------------------------------------------------


def test_connections_are_refused_for_a_while_and_open_ones_reset(world: World, simulate: Simulate) -> None:
    api = simulate(world)
    with socket.create_connection(address(api), timeout=10) as connection:
        connection.sendall(request("/user/loggedin"))
        assert connection.recv(1 << 16)
        began = time.monotonic()
        api.outage(0.3)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert is_refused(api)
    eventually(lambda: not is_refused(api))
    assert time.monotonic() - began >= 0.3
    assert info(api, world.ids()[0]).status == 200


def test_a_longer_refusal_holds_over_a_shorter_one_and_closing_needs_no_patience(
    world: World, simulate: Simulate
) -> None:
    api = simulate(world)
    began = time.monotonic()
    for seconds in (0.05, 0.3, 0.1):
        api.outage(seconds)
    eventually(lambda: not is_refused(api))
    assert time.monotonic() - began >= 0.3
    api.outage(60)
    began = time.monotonic()
    api.close()
    assert time.monotonic() - began < 5
    assert is_refused(api)


def test_an_outage_befalls_all_requests_until_it_is_over(world: World, simulate: Simulate) -> None:
    api = simulate(world)
    api.outage(0.3, "502")
    began = time.monotonic()
    assert pipelined(api, ["/items/get", "/user/loggedin", "/items/info?itemId=9"]) == [502] * 3
    assert b"<html>" in ask(api, "/items/get").body
    eventually(lambda: ask(api, "/items/get").status == 200)
    assert time.monotonic() - began >= 0.25
    assert api.wrong.keys() == {"outage-502"}
    api.outage(60, "hang")
    assert ask(api, "/items/get", silence=SILENCE).end == "silent"
    assert ask(api, "/user/loggedin", silence=SILENCE).received == b""


def test_an_outage_says_when_it_will_be_over(world: World, simulate: Simulate) -> None:
    api = simulate(world)
    api.outage(40, "503-after")
    assert ask(api, "/items/get").header("Retry-After") == "40"


@pytest.mark.parametrize("how", ["refuse", "503"])
def test_outages_come_when_they_are_due_again_and_again(how: str, world: World, simulate: Simulate) -> None:
    api = simulate(world, profile=Profile(outages=(Outage(0.3, 0.15, how, every=0.4),)))

    def is_down() -> bool:
        try:
            return ask(api, "/user/loggedin").received[9:12] != b"200"
        except OSError:
            return True

    began = time.monotonic()
    assert not is_down()
    for number in range(2):
        eventually(is_down, 5)
        assert time.monotonic() - began > 0.25 + 0.4 * number
        eventually(lambda: not is_down(), 5)
        assert time.monotonic() - began > 0.4 + 0.4 * number


def test_when_an_outage_is() -> None:
    once, often = Outage(10, 5), Outage(10, 5, every=20)
    assert [once.left(now) for now in (0, 9.9, 10, 12, 15, 31)] == [0, 0, 5, 3, 0, 0]
    assert [often.left(now) for now in (0, 10, 12, 15, 29, 31, 36)] == [0, 5, 3, 0, 0, 4, 0]


# --- load -------------------------------------------------------------------------------------------


def at_once(api: Simulator, n: int) -> list[Got]:
    """That many requests, all under way before the first answer is read."""
    connections = [socket.create_connection(address(api), timeout=10) for _ in range(n)]
    began = time.monotonic()
    for connection in connections:
        connection.sendall(request("/user/loggedin"))
    found = []
    for connection in connections:
        received = connection.recv(1 << 16)
        found.append(Got(received, "closed", time.monotonic() - began))
        connection.close()
    return found


def test_answers_take_longer_beyond_the_knee_in_proportion() -> None:
    conditions = Conditions(Profile(knee=Knee(8)))
    assert [conditions.slowdown(n) for n in (1, 8, 12, 80)] == [1, 1, 1.5, 10]
    assert Conditions(Profile()).slowdown(1000) == 1


def test_load_slows_a_server_down(world: World, simulate: Simulate) -> None:
    api = simulate(world, latency=0.05, profile=Profile(knee=Knee(4)))
    assert max(got.seconds for got in at_once(api, 4)) < 0.2
    # Sixteen on four: each beyond the fourth waits a twelfth of a second more than the one four before it.
    assert 0.2 <= max(got.seconds for got in at_once(api, 16)) < 1
    assert api.wrong == {}


def test_an_overloaded_server_refuses_with_503(world: World, simulate: Simulate) -> None:
    api = simulate(world, latency=0.1, profile=Profile(knee=Knee(2, refuse_above=3)))
    assert Counter(got.status for got in at_once(api, 10)) == {200: 6, 503: 4}
    assert api.wrong == {"overload": 4}


def test_a_profile_may_be_slow_by_itself(world: World, simulate: Simulate) -> None:
    api = simulate(world, latency=0.1, profile=Profile(latency=0.1))
    assert ask(api, "/user/loggedin").seconds >= 0.2


# --- logins -----------------------------------------------------------------------------------------


def cookies(me: str, pp: str = "x") -> str:
    return f"Cookie: me={me}; pp={pp}"


def test_a_login_counts_for_so_many_requests_and_another_one_anew(simulate: Simulate) -> None:
    world = World(items=200, login=True)
    api = simulate(world, profile=Profile(login=Login(requests=5)))
    path = "/items/get?flags=31"
    assert pipelined(api, [path] * 7, cookies("one")) == [200] * 5 + [403] * 2
    refused = ask(api, path, cookies("one"))
    assert refused.json == {"error": "forbidden", "code": 403, "msg": "Not logged in"}
    assert ask(api, "/items/get?flags=1", cookies("one")).status == 200
    assert ask(api, "/user/loggedin", cookies("one")).json["loggedIn"] is False
    hidden = world.ids(2)[0]
    assert info(api, hidden, cookies("one")).status == 403
    assert info(api, hidden, cookies("two")).status == 200
    assert pipelined(api, [path] * 5, cookies("two")) == [200] * 4 + [403]
    assert pipelined(api, [path] * 6, cookies("one", "new")) == [200] * 5 + [403]


def test_a_login_counts_for_so_long() -> None:
    conditions = Conditions(Profile(login=Login(seconds=60)))
    assert [conditions.logged_in(now, "one", "x") for now in (5, 64, 65, 66)] == [True, True, False, False]
    assert conditions.logged_in(66, "two", "x")


def test_a_login_may_need_the_right_cookies(simulate: Simulate) -> None:
    profile = Profile(login=Login(cookies={"me": "right"}))
    api = simulate(World(items=10, login=True), profile=profile)
    found = [ask(api, "/items/get?flags=3", cookies(*pair)).status for pair in (("right", "x"), ("wrong", "x"))]
    assert found == [200, 403]
    assert ask(api, "/items/get?flags=3").status == 403


# --- changes ----------------------------------------------------------------------------------------


def test_items_change_at_their_rates_and_the_same_ones_each_time() -> None:
    profile = Profile(seed=4, arrive=10, delete=4, undelete=1, reflag=2)
    worlds = [World(items=1000, login=True) for _ in range(2)]
    before = {id: worlds[0].flag(id) for id in worlds[0].ids(31)}
    for world, steps in zip(worlds, (1, 50), strict=True):
        changes = Changes(world, profile)
        for step in range(1, steps + 1):
            changes.advance(10 * step / steps)
    one, other = worlds
    after = {id: one.flag(id) for id in one.ids(31)}
    assert len(after.keys() - before.keys()) == 100
    assert len(before.keys() - after.keys()) == pytest.approx(30, abs=2)
    assert sum(after[id] != flag for id, flag in before.items() if id in after) == pytest.approx(20, abs=2)
    # All that is due at once comes kind by kind, so some of it falls on other items.
    assert len(set(one.ids(31)) ^ set(other.ids(31))) < 15
    assert list(one.ids(31)) == list(_changed_alike(profile).ids(31))


def _changed_alike(profile: Profile) -> World:
    world = World(items=1000, login=True)
    Changes(world, profile).advance(10)
    return world


def test_a_deleted_item_comes_back_when_its_time_has_come() -> None:
    world = World(items=100)
    before = list(world.ids())
    changes = Changes(world, Profile(delete=1, undelete=0.1))
    changes.advance(9)
    assert len(world.ids()) < 100
    gone = [id for id in before if not world.flag(id)]
    changes.advance(11)
    assert sum(bool(world.flag(id)) for id in gone) == 1


def test_new_items_arrive_while_it_is_watched(simulate: Simulate) -> None:
    world = World(items=50)
    api = simulate(world, profile=Profile(arrive=200))
    eventually(lambda: len(world.ids()) > 60)
    newest = listed(ask(api, "/items/get"))[0]
    assert newest > list(World(items=50).ids())[-1]
    assert info(api, newest).status == 200


# --- profiles ---------------------------------------------------------------------------------------


def at_leisure(profile: Profile, scale: float = 1.0) -> Profile:
    """The profile without what only takes time, its mishaps that much more frequent."""
    mishaps = tuple(replace(each, share=each.share * scale, seconds=0.05) for each in profile.mishaps)
    return replace(profile, limits=(), windows=(), outages=(), mishaps=mishaps)


def test_a_mirror_survives_the_hostile_profile_and_ends_with_the_truth(tmp_path: Path, simulate: Simulate) -> None:
    world = World(seed=5, items=160)
    profile = replace(at_leisure(PROFILES["hostile"], 2), seed=5)
    api = simulate(world, profile=profile)
    summary = mirror(
        tmp_path / "hostile.db", api, max_backoff_seconds=0.02, request_timeout=0.4, max_parallel_requests=20
    )
    assert (summary.ended, summary.counts.failed, summary.left) == ("complete", 0, 0)
    assert len(api.wrong) > 20
    ids = list(world.ids())
    gone = [id for id in ids if profile.gone(id)]
    db = tmp_path / "hostile.db"
    assert gone
    assert column(db, "SELECT id FROM items WHERE gone_at IS NOT NULL ORDER BY id") == gone
    for id in ids:
        details = profile.details(world, id) or {"tags": [], "comments": []}
        for table in ("tags", "comments"):
            expected = sorted(row["id"] for row in details[table])
            assert column(db, f"SELECT id FROM {table} WHERE item_id = ? ORDER BY id", id) == expected


def test_what_is_cured_leaves_the_rows_of_an_undisturbed_run(tmp_path: Path, simulate: Simulate) -> None:
    world = World(seed=6, items=130)
    names = ("strings", "duplicates", "bom", "types", "huge-integer", "truncated", "null-items", "repeat", "overlong")
    profile = Profile(seed=6, mishaps=tuple(Share(name, 0.08, 2) for name in names))
    mirror(tmp_path / "ill.db", simulate(world, profile=profile), max_backoff_seconds=0.01)
    mirror(tmp_path / "well.db", simulate(world))
    assert dump(tmp_path / "ill.db") == dump(tmp_path / "well.db")


def test_hostile_does_nothing_that_cannot_be_cured() -> None:
    profile = PROFILES["hostile"]
    assert all(each.attempts == 3 for each in profile.mishaps)
    assert {each.what for each in profile.mishaps} == MISHAPS.keys() - {"skip"}
    assert 0.1 < sum(each.share for each in profile.mishaps if "info" in MISHAPS[each.what].kinds) < 0.25
    assert set(decisions(profile)[3::4]) == {None}


@pytest.mark.parametrize("name", PROFILES)
def test_a_named_profile_answers_and_says_what_it_does(name: str, world: World, simulate: Simulate) -> None:
    api = simulate(world, profile=replace(PROFILES[name], mishaps=()))
    assert ask(api, "/user/loggedin").status == 200
    assert PROFILES[name].about


def test_the_named_limits_are_what_they_say(world: World, simulate: Simulate) -> None:
    assert statuses(simulate(world, profile=PROFILES["window"]), list(world.ids())[:72]) == [200] * 70 + [429] * 2
    assert 429 in statuses(simulate(world, profile=PROFILES["limited"]), list(world.ids())[:200])


# --- the command ------------------------------------------------------------------------------------


def run_simulate(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fetcher", "simulate", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_the_command_limits_and_loses_and_counts_what_it_did() -> None:
    options = "--items 300 --rate 0.001 --burst 100 --lockout 60 --rate-after 900 5 --retry-after 9 --gone 0.3"
    with run_simulate(*options.split(), "--fault", "503", "0.3") as process:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert url is not None
        with socket.create_connection(("127.0.0.1", int(url[1])), timeout=10) as connection:
            ids = list(World(items=300).ids())[:105]
            connection.sendall(b"".join(request(f"/items/info?itemId={id}") for id in ids))
            received = b""
            while received.count(b"HTTP/1.1 ") < 105:
                received += connection.recv(1 << 20)
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=10)
    profile = Profile(mishaps=(Share("503", 0.3),), gone_404=0.15, gone_200=0.15)
    lone = sum(profile.mishap("info", id, 1) is not None for id in ids[:100])
    missing = sum(profile.gone(id) and not profile.mishap("info", id, 1) for id in ids[:100])
    assert 15 < lone < 50
    assert 5 < missing < 40
    assert (received.count(b" 429 "), received.count(b" 503 ")) == (5, lone)
    assert received.count(b"notFound") == missing
    assert received.count(b"Retry-After: 9\r\n") == 5
    assert (process.returncode, errors) == (0, "")
    found = re.fullmatch(r"Answered 105 requests, (\d+) of them with a fault: (.*)\n", rest)
    assert found is not None, rest
    assert int(found[1]) == 5 + lone + missing
    assert {f"{lone} 503", "5 limit"} <= set(found[2].split(", "))


def given(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What the command would serve with these arguments."""
    seen: dict[str, Any] = {}

    def serve(world: World, host: str, port: int, **options: Any) -> tuple[Counter[str], Counter[str]]:
        seen.update(options, world=world)
        return Counter(), Counter()

    monkeypatch.setattr("fetcher.simulator.server.serve", serve)
    result = CliRunner().invoke(cli, ["simulate", *arguments])
    assert result.exit_code == 0, result.output
    return seen


def test_options_override_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    found = given(monkeypatch, "--profile", "slow", "--seed", "8", "--latency", "0.5", "--knee", "3", "--arrive", "2")
    slow = PROFILES["slow"]
    assert found["profile"] == replace(slow, seed=8, latency=0.0, knee=Knee(3), arrive=2)
    assert (found["latency"], found["world"].seed) == (0.5, 8)
    limited = given(monkeypatch, "--profile", "limited", "--rate", "20", "--window", "700", "60", "90")["profile"]
    assert limited.limits == (Limit(rate=20),)
    assert limited.windows == (Window(requests=700, seconds=60, block=90),)
    down = given(monkeypatch, "--outage", "5", "2", "hang", "--outage", "9", "1", "refuse")["profile"]
    assert down.outages == (Outage(5, 2, "hang"), Outage(9, 1))


def test_without_a_fault_there_is_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    found = given(monkeypatch, "--latency", "0.1", "--jitter", "0.05")
    assert (found["profile"], found["latency"], found["jitter"]) == (None, 0.1, 0.05)


def test_a_profile_with_a_login_accepts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, "--profile", "expiring")["world"].login
    assert not given(monkeypatch, "--profile", "flaky")["world"].login


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--burst 5", "need --rate"),
        ("--rate-after 5 1", "need --rate"),
        ("--retry-after 5", "needs --rate or --window"),
        ("--fault nonsense 0.1", "no mishap 'nonsense'"),
        ("--outage 1 1 nonsense", "no such outage: 'nonsense'"),
        ("--profile nonsense", "nonsense"),
        ("--gone 2", "0<=x<=1"),
    ],
)
def test_a_wrong_option_is_said_in_one_line(arguments: str, said: str) -> None:
    result = CliRunner().invoke(cli, ["simulate", *arguments.split()])
    assert result.exit_code == 2
    assert said in result.output


def test_the_help_names_every_profile_and_fault() -> None:
    text = CliRunner().invoke(cli, ["simulate", "--help"], terminal_width=2000).output
    for name, profile in PROFILES.items():
        assert re.search(rf"^ +{name} +{re.escape(profile.about)}$", text, re.MULTILINE)
    assert all(name in text for name in MISHAPS)
