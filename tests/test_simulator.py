"""The simulated API keeps every rule of the real one that a client meets."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from fetcher.cli import cli
from fetcher.simulator import Answer, Simulator, World
from fetcher.simulator.world import FIRST_CREATED, LAST_CREATED, PAGE, PINNED, wilson

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data" / "pr0gramm"
COOKIES = {"me": "%7B%22n%22%3A%22user%22%7D", "pp": "0123"}
ITEMS = 1000


def recorded(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=1, items=ITEMS)


@pytest.fixture(scope="module")
def simulator(world: World) -> Iterator[Simulator]:
    with Simulator(world) as running:
        yield running


@pytest.fixture(scope="module")
def members() -> Iterator[Simulator]:
    """A simulator that accepts login cookies."""
    with Simulator(World(seed=1, items=ITEMS, login=True)) as running:
        yield running


Get = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def get() -> Iterator[Get]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["User-Agent"] = "fetcher-tests"

        def send(simulator: Simulator, path: str, **parameters: Any) -> requests.Response:
            options = {name: parameters.pop(name) for name in ("headers", "cookies") if name in parameters}
            return session.get(simulator.url + path, params=parameters, timeout=10, **options)

        yield send


def exchange(simulator: Simulator, *pieces: bytes, answers: int | None = None) -> bytes:
    """Send pieces in writes of their own; what came until the server closed, or until so many answers."""
    host, port = simulator.url.removeprefix("http://").removesuffix("/api").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while answers is None or complete(received) < answers:
            chunk = connection.recv(1 << 16)
            if not chunk:
                break
            received += chunk
        return received


def complete(received: bytes) -> int:
    """How many whole responses there are."""
    return len(bodies(received))


def bodies(received: bytes) -> list[bytes]:
    found = []
    while b"\r\n\r\n" in received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        size = int(length[1])
        if len(received) < size:
            break
        found.append(received[:size])
        received = received[size:]
    return found


def request(path: str, *headers: str, version: str = "HTTP/1.1") -> bytes:
    lines = [f"GET /api{path} {version}", "Host: localhost", "User-Agent: fetcher-tests", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


# The world


@pytest.mark.parametrize("items", [0, 1, 2, 119, 120, 121, 5000])
def test_exactly_the_items_asked_for_are_visible(items: int) -> None:
    assert len(World(items=items).ids()) == items
    assert len(World(items=items, login=True).ids(1)) == items


def test_a_negative_number_of_items_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        World(items=-1)


def test_ids_start_above_one_and_about_a_tenth_is_missing() -> None:
    ids = World(items=20_000, login=True).ids(31)
    assert ids[0] > 1
    assert 0.08 < 1 - len(ids) / (ids[-1] - ids[0] + 1) < 0.12


def test_hidden_content_is_about_a_third_and_political_items_came_late() -> None:
    world = World(items=20_000, login=True)
    shares = Counter(world.flag(id) for id in world.ids(31))
    assert shares.keys() == {1, 2, 4, 8, 16}
    assert 0.27 < 1 - shares[1] / shares.total() < 0.33
    assert min(world.ids(24)) > world.ids(31)[-1] // 2


def test_a_login_changes_nothing_about_what_anybody_sees() -> None:
    anybody, member = World(seed=3, items=500), World(seed=3, items=500, login=True)
    assert list(anybody.ids()) == list(member.ids(1))
    assert list(anybody.ids(31)) == list(anybody.ids(1))
    hidden = member.ids(30)[0]
    assert (anybody.flag(hidden), member.flag(hidden)) == (0, member.item(hidden)["flags"])


FINGERPRINT = """
import hashlib
from fetcher.simulator import World
world = World(5, 500, login=True)
world.arrive(5, created=1_800_000_000)
text = "".join(world.item_json(id) + world.info_json(id) for id in world.ids(31))
print(len(world.ids(31)), hashlib.sha256(text.encode()).hexdigest())
"""


def test_two_processes_agree_on_every_byte_and_two_seeds_do_not() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    one, other = World(5, 100), World(6, 100)
    assert list(one.ids()) != list(other.ids())
    assert one.info_json(100) != other.info_json(100)


@pytest.mark.parametrize("items", [1, 50, 3000])
def test_created_grows_with_the_id_over_the_same_years_whatever_the_size(items: int) -> None:
    world = World(items=items)
    created = [world.created(id) for id in world.ids()]
    assert created == sorted(created)
    assert created[-1] == LAST_CREATED
    assert created[0] >= FIRST_CREATED
    if items == 3000:
        assert created[0] < FIRST_CREATED + 86_400 * 90


def test_old_items_have_the_shape_of_2015(world: World) -> None:
    samples = recorded("items_get_promoted_2015.json")["items"]
    required = set.intersection(*(set(sample) for sample in samples))
    allowed = set.union(*(set(sample) for sample in samples))
    old = [world.item(id) for id in world.ids() if id <= world.ids()[-1] // 5]
    assert all(required <= item.keys() <= allowed for item in old)
    assert 0 < sum("audio" in item for item in old) < len(old) / 4


def test_new_items_have_the_shape_of_2026(world: World) -> None:
    samples = recorded("items_get_2026_shape.constructed.json")["items"]
    allowed = set(samples[0]) | {"deleted"}
    new = [world.item(id) for id in world.ids() if id > world.ids()[-1] // 5]
    assert all(set(samples[0]) - {"repost"} <= item.keys() <= allowed for item in new)
    kinds = {name: {type(sample[name]) for sample in samples} for name in samples[0]}
    kinds["source"].add(str)
    for item in new:
        assert all(type(value) in kinds.get(name, {int}) for name, value in item.items()), item
    videos = [item for item in new if item["variants"]]
    assert {frozenset(variant) for item in videos for variant in item["variants"]} == {
        frozenset(samples[0]["variants"][0])
    }
    assert any(item["subtitles"] for item in videos)
    assert 0 < sum("deleted" in item for item in new) < len(new) / 2
    assert 0 < sum("repost" not in item for item in new) < len(new) / 2
    assert {type(item["source"]) for item in new} == {str, type(None)}


def test_details_have_the_shape_and_the_order_of_the_recorded_ones(world: World) -> None:
    sample = recorded("items_info_2016.json")
    tag_ids: set[int] = set()
    comment_ids: set[int] = set()
    for id in world.ids():
        info = world.info(id)
        tags, comments = info["tags"], info["comments"]
        names = [tag["tag"] for tag in tags]
        assert all(tag.keys() == sample["tags"][0].keys() for tag in tags)
        assert names == sorted(names, key=str.lower)
        assert len({name.lower() for name in names}) == len(names)
        assert all(list(comment) == list(sample["comments"][0]) for comment in comments)
        own = [comment["id"] for comment in comments]
        assert own == sorted(own)
        assert len(own) <= 40
        assert all(comment["parent"] in {0, *own[:at]} for at, comment in enumerate(comments))
        assert not tag_ids & {tag["id"] for tag in tags}
        assert not comment_ids & set(own)
        tag_ids |= {tag["id"] for tag in tags}
        comment_ids |= set(own)


def test_details_are_as_large_as_the_real_ones(world: World) -> None:
    found = [world.info(id) for id in world.ids()]
    comments = [comment for info in found for comment in info["comments"]]
    assert 11 < sum(len(info["tags"]) for info in found) / len(found) < 13
    assert 8 < len(comments) / len(found) < 10
    assert 100 < sum(len(comment["content"]) for comment in comments) / len(comments) < 125
    assert 3000 < sum(len(world.info_json(id)) for id in world.ids()) / len(found) < 3700
    assert any(not info["tags"] and not info["comments"] for info in found)
    assert any(comment["parent"] for comment in comments)
    tag_ids = [[tag["id"] for tag in info["tags"]] for info in found]
    assert sum(ids != sorted(ids) for ids in tag_ids) > len(found) / 2
    assert any("\r\n" in comment["content"] for comment in comments)


def test_tags_are_of_every_kind_and_few_are_frequent() -> None:
    world = World(items=5000)
    counts = Counter(tag["tag"] for id in world.ids() for tag in world.info(id)["tags"])
    for pattern in ("[äöü]", '"', "&", "^[0-9]+$", "[\U0001f300-\U0001faff]"):
        assert any(re.search(pattern, tag) for tag in counts), pattern
    assert len(counts) > 2500
    assert counts.most_common(1)[0][1] > 20 * counts.total() / len(counts) / 2


def test_bodies_are_escaped_as_php_does_it(world: World) -> None:
    text = "".join(world.item_json(id) + world.info_json(id) for id in world.ids())
    assert text.isascii()
    assert "\\u00e4" in text
    assert re.search(r"\\ud83[cd]\\ud[c-f]", text)
    assert "\\/" in text
    assert not re.search(r"[^\\]/", text)


def test_confidence_is_that_of_the_recorded_comments() -> None:
    for comment in recorded("items_info_2016.json")["comments"]:
        assert wilson(comment["up"], comment["down"]) == comment["confidence"]
    assert wilson(0, 0) == wilson(0, 7) == 0


def test_confidence_follows_from_the_votes(world: World) -> None:
    for id in world.ids()[:100]:
        for comment in world.info(id)["comments"]:
            assert comment["confidence"] == wilson(comment["up"], comment["down"])


def test_arrivals_are_newer_than_everything_and_have_the_time_of_now() -> None:
    world = World(items=300, login=True)
    before = list(world.ids(31))
    new = world.arrive(50)
    assert len(new) == 50
    assert min(new) > before[-1]
    assert list(world.ids(31)) == before + new
    assert new[-1] - new[0] > 49
    assert abs(world.created(new[0]) - time.time()) < 10
    assert world.item(world.arrive(1, created=LAST_CREATED + 5)[0])["created"] == LAST_CREATED + 5
    assert world.item(new[0])["promoted"] == 0


def test_arrivals_with_other_flags_are_seen_with_those_only() -> None:
    world = World(items=10, login=True)
    (new,) = world.arrive(1, flag=8)
    assert new not in world.ids(1)
    assert world.ids(9)[-1] == new
    with pytest.raises(ValueError, match="flag"):
        world.arrive(1, flag=3)


def test_arrivals_may_come_from_many_threads_at_once() -> None:
    world = World(items=10)
    threads = [threading.Thread(target=lambda: [world.arrive(1) for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = list(world.ids())
    assert len(ids) == 810
    assert ids == sorted(set(ids))


def test_a_deleted_item_is_gone_and_comes_back_as_it_was() -> None:
    world = World(items=300)
    id = world.ids()[100]
    before = world.item(id), world.info(id)
    world.delete(id)
    assert world.flag(id) == 0
    assert id not in world.ids()
    with pytest.raises(KeyError):
        world.delete(id)
    world.undelete(id)
    assert id in world.ids()
    assert (world.item(id), world.info(id)) == before
    with pytest.raises(KeyError):
        world.undelete(id)


def test_a_reflagged_item_moves_to_other_listings() -> None:
    world = World(items=300, login=True)
    id = world.ids()[100]
    world.reflag(id, 2)
    assert id not in world.ids(1)
    assert id in world.ids(2)
    assert world.item(id)["flags"] == 2
    with pytest.raises(ValueError, match="flag"):
        world.reflag(id, 32)


# Listings


def test_the_first_page_is_the_newest_items_in_the_recorded_envelope(simulator: Simulator, get: Get) -> None:
    response = get(simulator, "/items/get", flags=1)
    page = response.json()
    assert response.headers["Content-Type"] == "application/json"
    assert page.keys() == recorded("items_get_promoted_2015.json").keys()
    assert [item["id"] for item in page["items"]] == list(simulator.world.ids())[: -PAGE - 1 : -1]
    assert page["items"][0] == simulator.world.item(simulator.world.ids()[-1])
    assert (page["atStart"], page["atEnd"], page["error"]) == (True, False, None)
    assert abs(page["ts"] - time.time()) < 10
    assert {type(page[name]) for name in ("ts", "rt", "qc")} == {int}


def test_flags_are_one_unless_given(simulator: Simulator, get: Get) -> None:
    pages = [get(simulator, "/items/get", **flags).json()["items"] for flags in ({}, {"flags": 1})]
    assert pages[0] == pages[1]


def test_walking_with_older_meets_every_item_once(simulator: Simulator, get: Get) -> None:
    page = get(simulator, "/items/get").json()
    seen = [item["id"] for item in page["items"]]
    while not page["atEnd"]:
        page = get(simulator, "/items/get", older=seen[-1]).json()
        assert not page["atStart"]
        seen += [item["id"] for item in page["items"]]
    assert seen == list(simulator.world.ids())[::-1]


def test_walking_with_newer_meets_every_item_once_in_ascending_order(simulator: Simulator, get: Get) -> None:
    page = get(simulator, "/items/get", newer=0).json()
    assert page["atEnd"]
    seen = [item["id"] for item in page["items"]]
    while not page["atStart"]:
        page = get(simulator, "/items/get", newer=seen[-1]).json()
        seen += [item["id"] for item in page["items"]]
    assert seen == list(simulator.world.ids())


def test_beyond_the_ends_a_page_is_empty(simulator: Simulator, get: Get) -> None:
    ids = simulator.world.ids()
    below = get(simulator, "/items/get", older=ids[0]).json()
    assert (below["items"], below["atEnd"], below["atStart"]) == ([], True, False)
    above = get(simulator, "/items/get", newer=ids[-1]).json()
    assert (above["items"], above["atEnd"], above["atStart"]) == ([], False, True)


def test_an_end_is_named_only_by_the_page_that_touches_it(simulator: Simulator, get: Get) -> None:
    ids = simulator.world.ids()
    for parameters, at_start, at_end in [
        ({"older": ids[-1] + 1}, True, False),
        ({"older": ids[-1]}, False, False),
        ({"older": ids[1]}, False, True),
        ({"newer": ids[0] - 1}, False, True),
        ({"newer": ids[0]}, False, False),
        ({"newer": ids[-2]}, True, False),
        ({"older": ids[PAGE + 1]}, False, False),
        ({"older": ids[PAGE]}, False, True),
    ]:
        page = get(simulator, "/items/get", **parameters).json()
        assert (page["atStart"], page["atEnd"]) == (at_start, at_end), parameters


def test_an_empty_world_is_both_ends(get: Get) -> None:
    with Simulator(World(items=0)) as empty:
        page = get(empty, "/items/get").json()
    assert (page["items"], page["atEnd"], page["atStart"]) == ([], True, True)


@pytest.mark.parametrize("place", [0, 3, 500, -3, -1])
def test_a_page_around_an_item_has_it_somewhere(simulator: Simulator, get: Get, place: int) -> None:
    ids = simulator.world.ids()
    page = get(simulator, "/items/get", id=ids[place]).json()
    found = [item["id"] for item in page["items"]]
    assert ids[place] in found
    assert found == sorted(found, reverse=True)
    assert page["atStart"] == (ids[-1] in found)
    assert page["atEnd"] == (ids[0] in found)
    if place == 500:
        assert len(found) == PAGE
        assert found[0] > ids[place] > found[-1]


@pytest.mark.parametrize("id", [10**9, 0])
def test_an_unknown_item_is_not_found_with_status_200(simulator: Simulator, get: Get, id: int) -> None:
    response = get(simulator, "/items/get", id=id)
    expected = recorded("error_items_get_notFound.constructed.json")
    assert response.status_code == 200
    assert {**response.json(), "ts": 0, "rt": 0, "qc": 0} == {**expected, "ts": 0, "rt": 0, "qc": 0}


def test_top_is_paged_by_promoted_number_with_pinned_items_first(simulator: Simulator, get: Get) -> None:
    page = get(simulator, "/items/get", promoted=1).json()
    items = list(page["items"])
    while not page["atEnd"]:
        page = get(simulator, "/items/get", promoted=1, older=items[-1]["promoted"]).json()
        items += page["items"]
    numbers = [item["promoted"] for item in items]
    ids = [item["id"] for item in items]
    assert numbers == sorted(set(numbers), reverse=True)
    assert sorted(ids) == [id for id in simulator.world.ids() if simulator.world.promoted(id)]
    assert [number > PINNED for number in numbers[:4]] == [True, True, True, False]
    assert ids[3:] != sorted(ids[3:], reverse=True)
    assert ids[3] > ids[-1]
    upwards = get(simulator, "/items/get", promoted=1, newer=0).json()["items"]
    assert [item["promoted"] for item in upwards] == numbers[::-1][:PAGE]


def test_an_item_that_is_not_on_top_is_not_found_there(simulator: Simulator, get: Get) -> None:
    world = simulator.world
    on_top = next(id for id in world.ids() if world.promoted(id))
    assert on_top in [item["id"] for item in get(simulator, "/items/get", promoted=1, id=on_top).json()["items"]]
    other = next(id for id in world.ids() if not world.promoted(id))
    assert get(simulator, "/items/get", promoted=1, id=other).json()["error"] == "notFound"


# Logins and flags


def test_more_than_the_first_flag_needs_a_login(simulator: Simulator, members: Simulator, get: Get) -> None:
    cases: list[tuple[Simulator, dict[str, str]]] = [
        (simulator, {}),
        (simulator, COOKIES),
        (members, {}),
        (members, {"me": "x"}),
        (members, {"me": "x", "pp": ""}),
    ]
    for api, cookies in cases:
        for path, flags in [(path, flags) for path in ("/items/get", "/items/info") for flags in (2, 3, 9, 31)]:
            response = get(api, path, cookies=cookies, flags=flags, itemId=100)
            assert response.status_code == 403
            assert response.json() == recorded("error_403_not_logged_in.constructed.json")


@pytest.mark.parametrize("flags", [1, 2, 9, 15, 16, 31])
def test_with_a_login_a_page_has_the_flags_asked_for(members: Simulator, get: Get, flags: int) -> None:
    page = get(members, "/items/get", cookies=COOKIES, flags=flags).json()
    found = {item["flags"] for item in page["items"]}
    assert found <= {flag for flag in (1, 2, 4, 8, 16) if flag & flags}
    assert [item["id"] for item in page["items"]] == list(members.world.ids(flags))[: -PAGE - 1 : -1]


@pytest.mark.parametrize(("flag", "error"), [(2, "nsfw"), (4, "nsfl"), (8, "nsfp"), (16, "pol")])
def test_an_item_outside_the_flags_names_the_one_it_needs(members: Simulator, get: Get, flag: int, error: str) -> None:
    id = members.world.ids(flag)[0]
    page = get(members, "/items/get", id=id).json()
    assert (page["error"], page["items"]) == (f"{error}Required", None)
    sfw = members.world.ids(1)[0]
    page = get(members, "/items/get", id=sfw, flags=flag, cookies=COOKIES).json()
    assert page["error"] == "sfwRequired"


def test_hidden_details_need_a_login(members: Simulator, get: Get) -> None:
    id = members.world.ids(2)[0]
    assert get(members, "/items/info", itemId=id).status_code == 403
    assert get(members, "/items/info", itemId=id, cookies=COOKIES).status_code == 200


def test_without_logins_hidden_items_do_not_exist(simulator: Simulator, members: Simulator, get: Get) -> None:
    hidden = members.world.ids(2)[0]
    assert get(simulator, "/items/get", id=hidden).json()["error"] == "notFound"
    assert get(simulator, "/items/info", itemId=hidden).status_code == 404


def test_loggedin_tells_whether_the_cookies_count(simulator: Simulator, members: Simulator, get: Get) -> None:
    assert get(members, "/user/loggedin", cookies=COOKIES).json()["loggedIn"] is True
    assert get(members, "/user/loggedin").json()["loggedIn"] is False
    assert get(simulator, "/user/loggedin", cookies=COOKIES).json()["loggedIn"] is False


# Details


def test_details_come_in_the_recorded_envelope(simulator: Simulator, get: Get) -> None:
    id = simulator.world.ids()[500]
    body = get(simulator, "/items/info", itemId=id).json()
    assert body.keys() == recorded("items_info_2016.json").keys()
    assert body["cache"] == f"item:{id}"
    assert {"tags": body["tags"], "comments": body["comments"]} == simulator.world.info(id)


def test_details_of_an_unknown_item_are_not_found(simulator: Simulator, get: Get) -> None:
    response = get(simulator, "/items/info", itemId=10**9)
    assert response.status_code == 404
    assert response.json() == {"error": "notFound", "code": 404, "msg": "Not found"}


def test_an_arrival_and_a_deletion_show_at_once(get: Get) -> None:
    world = World(items=200)
    with Simulator(world) as api:
        head = get(api, "/items/get").json()["items"][0]["id"]
        (new,) = world.arrive()
        world.delete(head)
        ids = [item["id"] for item in get(api, "/items/get").json()["items"]]
        assert ids[0] == new
        assert head not in ids
        assert get(api, "/items/info", itemId=new).status_code == 200
        assert get(api, "/items/info", itemId=head).status_code == 404


def test_latest_tags_are_all_tags_in_order_of_id(get: Get) -> None:
    world = World(items=300)
    with Simulator(world) as api:
        seen: list[dict[str, Any]] = []
        while found := get(api, "/tags/latest", id=seen[-1]["id"] if seen else 0).json()["tags"]:
            seen += found
    assert seen[0].keys() == recorded("tags_latest.constructed.json")["tags"][0].keys()
    assert [tag["id"] for tag in seen] == sorted({tag["id"] for tag in seen})
    assert {(tag["itemId"], tag["id"], tag["tag"], tag["confidence"]) for tag in seen} == {
        (id, tag["id"], tag["tag"], tag["confidence"]) for id in world.ids() for tag in world.info(id)["tags"]
    }
    assert all(tag["confidence"] == wilson(tag["up"], tag["down"]) for tag in seen)


# What a client gets wrong


def test_without_a_user_agent_cloudflare_answers(simulator: Simulator) -> None:
    # By hand: requests, told to send none, lets urllib3 send its own.
    for agent in (b"", b"User-Agent: \r\n"):
        received = exchange(simulator, b"GET /api/items/get HTTP/1.1\r\n" + agent + b"\r\n", answers=1)
        assert received.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"Content-Type: text/html" in received
        assert bodies(received) == [(DATA / "error_403_cloudflare.constructed.html").read_bytes().strip()]


@pytest.mark.parametrize("path", ["/items", "/items/get/", "/user/login", ""])
def test_an_unknown_path_is_a_page_in_html(simulator: Simulator, get: Get, path: str) -> None:
    response = get(simulator, path)
    assert response.status_code == 404
    assert "<html>" in response.text


@pytest.mark.parametrize(
    "path",
    [
        "/items/get?flags=0",
        "/items/get?flags=32",
        "/items/get?flags=-1",
        "/items/get?flags=x",
        "/items/get?flags=",
        "/items/get?older=1e3",
        "/items/get?older=99999999999999999999999",
        "/items/get?older=%C2%B2",
        "/items/get?newer=--1",
        "/items/get?id=1%002",
        "/items/get?older=5&newer=3",
        "/items/get?promoted=2",
        "/items/get?tags=katze",
        "/items/get?user=user0001",
        "/items/info",
        "/items/info?itemId=",
        "/items/info?itemId=abc",
        "/items/info?itemId=5&flags=64",
        "/tags/latest?id=x",
    ],
)
def test_a_bad_request_is_refused_in_json(simulator: Simulator, get: Get, path: str) -> None:
    response = get(simulator, path)
    assert response.status_code == 400
    assert response.json().keys() == {"error", "code", "msg"}


def test_the_query_is_decoded_and_unknown_parameters_are_ignored(simulator: Simulator, get: Get) -> None:
    id = simulator.world.ids()[9]
    assert get(simulator, f"/items/info?&%69temId={id}&bust=1&&x").json()["cache"] == f"item:{id}"


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_only_get_is_answered(simulator: Simulator, method: str) -> None:
    response = requests.request(
        method, simulator.url + "/items/get", data=None if method == "HEAD" else b"x" * 300_000, timeout=10
    )
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET /api/items/get\r\n\r\n",
        b"GET /api/items/g\xc3\xa4t HTTP/1.1\r\n\r\n",
        b"GET /api/items/get HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /api/items/get HTTP/1.1\r\nUser-Agent: x\r\n folded\r\n\r\n",
        b"GET /api/items/get HTTP/1.1\r\nUser-Agent: x\r\nContent-Length: 3\r\n\r\nabc",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(simulator: Simulator, head: bytes) -> None:
    received = exchange(simulator, head)
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in received


def test_another_version_of_http_is_refused(simulator: Simulator) -> None:
    assert exchange(simulator, b"GET / HTTP/2.0\r\n\r\n").startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_beyond_16_kb_is_refused(simulator: Simulator, end: bytes) -> None:
    head = b"GET /api/items/get HTTP/1.1\r\nX: " + b"x" * 16_400
    assert exchange(simulator, head + end).startswith(b"HTTP/1.1 431 ")


# Connections


def test_a_connection_serves_many_requests(simulator: Simulator) -> None:
    received = exchange(simulator, *[request("/user/loggedin")] * 3, answers=3)
    assert received.count(b"HTTP/1.1 200 OK") == 3


def test_pipelined_requests_are_answered_in_order(simulator: Simulator) -> None:
    ids = simulator.world.ids()[:300]
    received = exchange(simulator, b"".join(request(f"/items/info?itemId={id}") for id in ids), answers=len(ids))
    assert [json.loads(body)["cache"] for body in bodies(received)] == [f"item:{id}" for id in ids]


def count_answers(api: Simulator, flood: bytes, wanted: int) -> int:
    """Write and read at once, as a client must that pipelines without bound."""
    host, port = api.url.removeprefix("http://").removesuffix("/api").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        writer = threading.Thread(target=connection.sendall, args=(flood,))
        writer.start()
        answers, tail = 0, b""
        while answers < wanted:
            received = connection.recv(1 << 20)
            assert received
            answers += (tail + received).count(b"HTTP/1.1 200 OK")
            tail = (tail + received)[-14:]
        writer.join()
    return answers


def test_more_pipelined_requests_than_fit_any_buffer_are_answered() -> None:
    with Simulator(World(items=200)) as api:
        assert count_answers(api, request("/items/get") * 300, 300) == 300


def test_what_piles_up_behind_a_slow_answer_is_answered_after_it() -> None:
    def first_is_slow(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(delay=0.1) if attempt == 1 else None

    padded = request("/user/loggedin", f"X-Padding: {'x' * 5000}")
    with Simulator(World(items=1), faults=first_is_slow) as api:
        assert count_answers(api, padded * 1000, 1000) == 1000


def test_the_answer_arrives_though_the_body_sent_was_not_read(simulator: Simulator) -> None:
    post = b"POST /api/user/login HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n"
    assert exchange(simulator, post, b"x" * 3_000_000).startswith(b"HTTP/1.1 405 ")


def test_a_client_that_hangs_up_early_leaves_nothing_behind() -> None:
    arrived = threading.Event()

    def slow(kind: str, key: int, attempt: int) -> Answer:
        arrived.set()
        return Answer(delay=0.1 * attempt)

    with Simulator(World(items=20), faults=slow) as api:
        host, port = api.url.removeprefix("http://").removesuffix("/api").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(request("/items/get"))
            assert arrived.wait(10)
        exchange(api, request("/items/get"), answers=1)
    assert api._service.in_flight == 0
    assert api.requests["list"] == 2


def test_a_request_may_come_in_pieces(simulator: Simulator) -> None:
    whole = request("/user/loggedin")
    pieces = [whole[at : at + 1] for at in range(len(whole))]
    assert exchange(simulator, *pieces, answers=1).startswith(b"HTTP/1.1 200 OK")


def test_a_connection_is_closed_when_asked(simulator: Simulator) -> None:
    received = exchange(simulator, request("/user/loggedin", "Connection: close"))
    assert b"\r\nConnection: close\r\n" in received
    assert complete(received) == 1


def test_http_1_0_closes_unless_asked_to_keep_alive(simulator: Simulator) -> None:
    assert complete(exchange(simulator, request("/user/loggedin", version="HTTP/1.0"))) == 1
    keep = request("/user/loggedin", "Connection: keep-alive", version="HTTP/1.0")
    received = exchange(simulator, keep, keep, answers=2)
    assert received.count(b"Connection: keep-alive") == 2


def test_answers_are_compressed_only_where_both_sides_want_it(simulator: Simulator, get: Get) -> None:
    assert "Content-Encoding" not in get(simulator, "/items/get").headers
    with Simulator(simulator.world, gzip=True) as api:
        response = get(api, "/items/get")
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.json()["items"] == get(simulator, "/items/get").json()["items"]
        plain = get(api, "/items/get", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers


# Time


def test_latency_delays_answers_without_holding_up_others() -> None:
    with Simulator(World(items=200), latency=0.2) as api:
        began = time.monotonic()
        threads = [
            threading.Thread(target=exchange, args=(api, request("/items/get")), kwargs={"answers": 1})
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 0.2 <= time.monotonic() - began < 1.5
        assert api.max_in_flight > 1
    assert api.requests["list"] == 20


def test_pipelined_answers_stay_in_order_when_delays_differ() -> None:
    def first_is_slow(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(delay=0.1) if key == ids[0] else None

    world = World(items=20)
    ids = world.ids()
    with Simulator(world, faults=first_is_slow) as api:
        both = b"".join(request(f"/items/info?itemId={id}") for id in ids[:2])
        received = exchange(api, both, answers=2)
    assert [json.loads(body)["cache"] for body in bodies(received)] == [f"item:{id}" for id in ids[:2]]


def delays(seed: int) -> list[float]:
    with Simulator(World(seed, 20), latency=0.02, jitter=0.02) as api:
        found = []
        for id in (1, 2, 3, 1, 1):
            reply = api._service.reply(request(f"/items/info?itemId={id}").removesuffix(b"\r\n\r\n"))
            found.append(reply.delay)
        return found


def test_jitter_depends_on_seed_key_and_attempt_alone() -> None:
    first = delays(1)
    assert first == delays(1) != delays(2)
    assert len(set(first)) == 5
    assert all(0 <= delay <= 0.04 for delay in first)


def test_closing_takes_no_longer_for_answers_that_wait() -> None:
    began = time.monotonic()
    arrived = threading.Event()

    def slow(kind: str, key: int, attempt: int) -> Answer | None:
        arrived.set()
        return Answer(delay=60)

    with Simulator(World(items=20), faults=slow) as api:
        failures: list[Exception] = []

        def ask() -> None:
            try:
                assert exchange(api, request("/items/get")) == b""
            except ConnectionError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        assert arrived.wait(10)
    asking.join(10)
    api.close()
    assert time.monotonic() - began < 2
    with pytest.raises(requests.ConnectionError):
        requests.get(api.url, timeout=1)


# Faults and what was seen


def test_faults_are_asked_with_kind_key_and_attempt(get: Get) -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(kind: str, key: int, attempt: int) -> None:
        seen.append((kind, key, attempt))

    with Simulator(World(items=20), faults=watch, record=True) as api:
        get(api, "/items/get")
        get(api, "/items/get", older=9)
        get(api, "/items/get", newer=9)
        get(api, "/items/info", itemId=9)
        get(api, "/items/info", itemId=9)
        get(api, "/nothing")
        assert api.log is not None
        log = api.log
    assert seen == [("list", 0, 1), ("list", 9, 1), ("list", 9, 2), ("info", 9, 1), ("info", 9, 2)]
    assert [(kind, key) for _, kind, key in log] == [(kind, key) for kind, key, _ in seen]
    assert [moment for moment, _, _ in log] == sorted(moment for moment, _, _ in log)
    assert api.requests == {"list": 3, "info": 2, "other": 1}


def test_a_fault_replaces_the_answer(get: Get) -> None:
    def limited(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(429, {"Retry-After": "3"}, b"{}") if attempt == 1 else None

    with Simulator(World(items=20), faults=limited) as api:
        response = get(api, "/items/get")
        assert (response.status_code, response.headers["Retry-After"], response.text) == (429, "3", "{}")
        assert get(api, "/items/get").status_code == 200


def test_a_fault_may_lie_about_the_length_and_hang_up(get: Get) -> None:
    def truncated(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(200, {"content-length": "99", "Connection": "close"}, b'{"ta')

    with Simulator(World(items=20), faults=truncated) as api:
        received = exchange(api, request("/items/get"))
    assert received.endswith(b'\r\n\r\n{"ta')
    assert b"Content-Length: 99\r\n" in received
    assert received.lower().count(b"content-length") == received.lower().count(b"connection") == 1


def test_an_unknown_status_and_a_page_in_html_may_be_answered(get: Get) -> None:
    def down(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(522, body=b"<html>origin timed out</html>")

    with Simulator(World(items=20), faults=down) as api:
        response = get(api, "/items/get")
    assert (response.status_code, response.headers["Content-Type"]) == (522, "text/html; charset=UTF-8")


def test_a_broken_fault_function_is_answered_with_500(get: Get, caplog: pytest.LogCaptureFixture) -> None:
    def broken(kind: str, key: int, attempt: int) -> Answer | None:
        raise RuntimeError("a mistake in a test")

    with Simulator(World(items=20), faults=broken) as api:
        assert get(api, "/items/get").status_code == 500
    assert "a mistake in a test" in caplog.text


def test_requests_in_flight_are_counted_at_once() -> None:
    together = threading.Barrier(5)

    def ask(api: Simulator) -> None:
        together.wait(10)
        exchange(api, request("/items/get"), answers=1)

    with Simulator(World(items=20), latency=0.3) as api:
        threads = [threading.Thread(target=ask, args=(api,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert 2 <= api.max_in_flight <= 5
    assert api._service.in_flight == 0


def test_two_simulators_cannot_share_a_port() -> None:
    with Simulator(World(items=1)) as api:
        port = int(api.url.split(":")[2].removesuffix("/api"))
        with pytest.raises(OSError, match="in use"):
            Simulator(World(items=1), port=port)


# The command


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from fetcher.cli.simulate import simulate; simulate()", *arguments]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_listens_and_ends_cleanly(number: signal.Signals) -> None:
    with subprocess.Popen(
        command("--items", "1234", "--port", "0", "--latency", "30"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"Simulating 1,234 items at http://127\.0\.0\.1:(\d+)/api \(Ctrl-C ends it\)\n", line)
        assert match is not None, line
        with socket.create_connection(("127.0.0.1", int(match[1])), timeout=5) as connection:
            connection.sendall(request("/items/get"))
            process.send_signal(number)
            rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_a_port_in_use_is_one_clear_line() -> None:
    with Simulator(World(items=1)) as api:
        port = api.url.split(":")[2].removesuffix("/api")
        result = CliRunner().invoke(cli, ["simulate", "--items", "1", "--port", port])
    assert result.exit_code == 2
    assert result.output == f"Error: Cannot listen on 127.0.0.1:{port}: Address already in use\n"
