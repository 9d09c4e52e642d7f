"""The simulated STAC API keeps the rules of stac-api-spec 1.0.0, and breaks them only where it is told to."""

from __future__ import annotations

import json
import random
import re
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher.cli import cli
from fetcher.simulator import Answer, Dialect, Profile, Share, Simulator, StacWorld
from fetcher.simulator.profile import Limit
from fetcher.simulator.service import MAX_BODY
from fetcher.simulator.stac import NEXT_STYLES, cql2_text, times
from fetcher.simulator.stac.items import Facts, spots

ROOT = Path(__file__).parent.parent
ITEMS = 400
Key = tuple[str, str]
Start = Callable[..., Simulator]


@pytest.fixture(scope="module")
def world() -> StacWorld:
    return StacWorld(seed=1, items=ITEMS, collections=3)


@pytest.fixture(scope="module")
def api(world: StacWorld) -> Iterator[Simulator]:
    with Simulator(world) as running:
        yield running


@pytest.fixture
def start(simulate: Start) -> Start:
    """Starts a simulator of a world in a dialect: `start(world, next=…, quirks=…)`."""

    def begin(world: StacWorld, *quirks: str, **dialect: Any) -> Simulator:
        return simulate(world, dialect=Dialect(quirks=frozenset(quirks), **dialect))

    return begin


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        found.trust_env = False
        yield found


Ask = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def ask(session: requests.Session) -> Ask:
    def send(api: Simulator, path: str = "/search", body: Any = None, **parameters: Any) -> requests.Response:
        if body is not None:
            return session.post(api.url + path, json=body, timeout=10)
        return session.get(api.url + path, params=parameters, timeout=10)

    return send


def key_of(item: dict[str, Any]) -> Key:
    return item["collection"], item["id"]


def next_of(page: dict[str, Any]) -> dict[str, Any] | None:
    found = [link for link in page["links"] if link["rel"] == "next"]
    assert len(found) < 2
    return found[0] if found else None


def follow(session: requests.Session, link: dict[str, Any], body: Any) -> tuple[requests.Response, Any]:
    """The page a next link leads to, as the specification has it, and the body that was sent."""
    if link.get("method", "GET") == "GET":
        return session.get(link["href"], headers=link.get("headers"), timeout=10), None
    sent = {**body, **link["body"]} if link.get("merge") else link.get("body", body)
    return session.post(link["href"], json=sent, headers=link.get("headers"), timeout=10), sent


def pages(
    session: requests.Session,
    api: Simulator,
    path: str = "/search",
    body: Any = None,
    most: int = 200,
    **parameters: Any,
) -> list[dict[str, Any]]:
    """All pages by next links, `most` at most."""
    if body is not None:
        response = session.post(api.url + path, json=body, timeout=10)
    else:
        response = session.get(api.url + path, params=parameters, timeout=10)
    found = []
    while True:
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"] == "application/geo+json"
        found.append(response.json())
        assert found[-1]["numberReturned"] == len(found[-1]["features"])
        link = next_of(found[-1])
        if link is None or len(found) == most:
            return found
        response, body = follow(session, link, body)


def keys(found: list[dict[str, Any]]) -> list[Key]:
    return [key_of(item) for page in found for item in page["features"]]


def all_facts(world: StacWorld) -> list[Facts]:
    found = [world.find(*key) for key in world.all_keys()]
    return [facts for facts in found if facts is not None]


def exchange(api: Simulator, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send pieces in writes of their own; what came until the server closed."""
    host, port = re.fullmatch(r"http://([\d.]+):(\d+)/stac", api.url).groups()  # type: ignore[union-attr]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        received = b""
        while chunk := connection.recv(1 << 16):
            received += chunk
        return received


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["POST /stac/search HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    lines += [] if length is not None and length < 0 else [f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


# --- the world --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "collections"), [(0, 1), (1, 1), (2, 5), (1000, 1), (1000, 7)])
def test_there_are_exactly_the_items_asked_for(items: int, collections: int) -> None:
    found = StacWorld(items=items, collections=collections).all_keys()
    assert len(found) == len(set(found)) == items


def test_the_same_seed_makes_the_same_items_and_another_others() -> None:
    one, same, other = StacWorld(1, 50), StacWorld(1, 50), StacWorld(2, 50)
    assert [one.item(*key) for key in one.all_keys()] == [same.item(*key) for key in same.all_keys()]
    assert one.all_keys() != other.all_keys()


def test_items_have_every_kind_of_time_and_place() -> None:
    world = StacWorld(items=4000)
    items = [world.item(*key) for key in world.all_keys()]
    moments = [item["properties"]["datetime"] for item in items]
    assert any(moment is None for moment in moments)
    assert any(moment and "." in moment for moment in moments)
    assert sum(bool(moment) and moment.endswith("T00:00:00Z") for moment in moments) > 100
    assert max(Counter(filter(None, moments)).values()) > 3
    assert {item["geometry"] and item["geometry"]["type"] for item in items} == {None, "Point", "Polygon"}
    assert all(("bbox" in item) == (item["geometry"] is not None) for item in items)
    assert any("eo:cloud_cover" not in item["properties"] for item in items)
    assert any(item["properties"]["proj:epsg"] is None for item in items)
    for item in items:
        properties = item["properties"]
        assert (properties["datetime"] is None) == ("start_datetime" in properties) == ("end_datetime" in properties)
        assert [link["rel"] for link in item["links"]] == ["self", "parent", "collection", "root"]
    assert any(count > 1 for count in Counter(id for _, id in world.all_keys()).values())
    sizes = [len(json.dumps(item, separators=(",", ":"))) for item in items]
    assert 1200 < sum(sizes) / len(sizes) < 2000


@pytest.mark.parametrize("items", [3, 100, 5000])
def test_times_grow_with_the_rank_so_that_they_can_be_found_by_halving(items: int) -> None:
    world = StacWorld(items=items, collections=1)
    moments = [world.moment(0, rank) for rank in range(items)]
    assert moments == sorted(moments)
    for moment in (moments[0], moments[-1], moments[items // 2]):
        assert world.before(0, moment) == sum(each < moment for each in moments)
        assert world.until(0, moment) == sum(each <= moment for each in moments)


def test_a_million_items_take_no_memory_and_any_page_of_them_little_time(session: requests.Session) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Simulator(StacWorld(items=1_000_000)) as api:
        began = time.monotonic()
        body = {"limit": 100, "datetime": "../2016-02-03T00:00:00Z"}
        found = pages(session, api, body=body, most=20)
        assert time.monotonic() - began < 5
    assert len(set(keys(found))) == 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


# --- times ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01.5z", 1_500_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1970-01-01T00:00:00.0000019Z", 1),
        ("1969-12-31T23:59:60Z", 0),
    ],
)
def test_moments_are_read_and_written(text: str, read: int) -> None:
    assert times.read(text) == read
    assert times.read(times.write(read)) == read
    assert times.read("1970-01-01T00:00:00.0000019Z", up=True) == 2


# --- what it says about itself ----------------------------------------------------------------------


def test_the_landing_page_links_to_all_there_is(api: Simulator, ask: Ask, session: requests.Session) -> None:
    for path in ("", "/"):
        response = ask(api, path)
        assert response.headers["Content-Type"] == "application/json"
        landing = response.json()
    assert landing["type"] == "Catalog"
    for link in landing["links"]:
        body = {} if link.get("method") == "POST" else None
        found = session.request(link.get("method", "GET"), link["href"], json=body, timeout=10)
        assert found.status_code == 200, link
        assert found.headers["Content-Type"] == link["type"]
    assert ask(api, "/conformance").json() == {"conformsTo": landing["conformsTo"]}
    assert ask(api, "/api").json()["openapi"].startswith("3.")


def test_collections_come_on_one_page_or_several(world: StacWorld, api: Simulator, start: Start, ask: Ask) -> None:
    whole = ask(api, "/collections").json()
    assert [each["id"] for each in whole["collections"]] == list(world.collections)
    assert next_of(whole) is None
    paged = start(world, collections_page=2)
    first = ask(paged, "/collections").json()
    link = next_of(first)
    assert link is not None
    second = requests.get(link["href"], timeout=10).json()
    assert [each["id"] for page in (first, second) for each in page["collections"]] == list(world.collections)
    assert next_of(second) is None
    assert ask(api, f"/collections/{world.collections[1]}").json()["id"] == world.collections[1]
    assert ask(paged, "/collections", token="-1").status_code == 400


def test_an_item_is_the_same_alone_and_in_a_search(world: StacWorld, api: Simulator, ask: Ask) -> None:
    collection, id = world.all_keys()[7]
    response = ask(api, f"/collections/{collection}/items/{id}")
    assert response.headers["Content-Type"] == "application/geo+json"
    (found,) = ask(api, ids=id, collections=collection).json()["features"]
    assert response.json() == found == world.item(collection, id, api.url)


# --- searching --------------------------------------------------------------------------------------


def test_items_come_newest_first_ten_on_a_page(api: Simulator, ask: Ask) -> None:
    page = ask(api).json()
    moments = [each["properties"].get("start_datetime", each["properties"]["datetime"]) for each in page["features"]]
    assert len(moments) == 10
    assert [times.read(each) for each in moments] == sorted(map(times.read, moments), reverse=True)
    assert (page["numberMatched"], page["numberReturned"]) == (ITEMS, 10)


def test_a_limit_is_clamped_to_the_most(world: StacWorld, start: Start, ask: Ask) -> None:
    api = start(world, page_default=7, page_max=20)
    assert len(ask(api).json()["features"]) == 7
    assert len(ask(api, limit=20).json()["features"]) == len(ask(api, limit=20_000).json()["features"]) == 20
    assert len(ask(api, body={"limit": 3}).json()["features"]) == 3


def test_the_items_of_a_collection_are_all_of_it(world: StacWorld, api: Simulator, session: requests.Session) -> None:
    for name in world.collections:
        found = keys(pages(session, api, f"/collections/{name}/items", limit=50))
        assert sorted(found) == sorted(key for key in world.all_keys() if key[0] == name)


def by_both(ask: Ask, api: Simulator, **wanted: Any) -> list[Key]:
    """What a GET and a POST find, which is the same."""
    posted = ask(api, body={**wanted, "limit": 1000}).json()["features"]
    texts = {
        name: ",".join(map(str, value))
        if isinstance(value, list)
        else json.dumps(value)
        if isinstance(value, dict)
        else value
        for name, value in wanted.items()
    }
    if isinstance(wanted.get("filter"), dict):
        texts["filter-lang"] = "cql2-json"
    got = ask(api, limit=1000, **texts).json()["features"]
    assert got == posted
    return [key_of(item) for item in got]


def test_ids_and_collections_choose(world: StacWorld, api: Simulator, ask: Ask) -> None:
    some = world.all_keys()[5:200:37]
    ids = [id for _, id in some]
    assert sorted(by_both(ask, api, ids=[*ids, "SIM_0000001_ZZZZ", "other"])) == sorted(
        key for key in world.all_keys() if key[1] in ids
    )
    one = world.collections[1]
    assert {key[0] for key in by_both(ask, api, collections=[one])} == {one}
    assert by_both(ask, api, collections=["nobody"]) == []
    assert all(key[0] == one for key in by_both(ask, api, ids=ids, collections=[one]))


def test_an_interval_includes_both_of_its_ends(world: StacWorld, api: Simulator, ask: Ask) -> None:
    facts = sorted((each for each in all_facts(world) if each.end is None), key=lambda each: each.start)
    low, high = facts[50], facts[90]
    interval = f"{times.write(low.start)}/{times.write(high.start)}"
    found = by_both(ask, api, datetime=interval)
    assert {(low.collection, low.id), (high.collection, high.id)} <= set(found)
    at = by_both(ask, api, datetime=times.write(low.start))
    assert (low.collection, low.id) in at
    for open_end in (f"../{times.write(low.start)}", f"/{times.write(low.start)}"):
        other = open_end.replace("../", "/")
        assert by_both(ask, api, datetime=open_end) == by_both(ask, api, datetime=other)
    older, newer = (
        by_both(ask, api, datetime=f"../{times.write(low.start)}"),
        by_both(ask, api, datetime=f"{times.write(low.start)}/.."),
    )
    assert set(older) | set(newer) == set(world.all_keys())
    assert (low.collection, low.id) in set(older) & set(newer)


def test_an_item_without_datetime_is_found_by_its_start_and_end(world: StacWorld, api: Simulator, ask: Ask) -> None:
    facts = next(each for each in all_facts(world) if each.end is not None)
    assert facts.end is not None
    key = facts.collection, facts.id
    middle = times.write((facts.start + facts.end) // 2)
    assert key in by_both(ask, api, datetime=middle)
    assert key in by_both(ask, api, datetime=f"{middle}/..")
    assert key in by_both(ask, api, datetime=times.write(facts.end))
    assert key not in by_both(ask, api, datetime=times.write(facts.end + 1))
    assert key not in by_both(ask, api, datetime=times.write(facts.start - 1))


def test_a_box_finds_what_it_touches(world: StacWorld, api: Simulator, ask: Ask) -> None:
    facts = next(each for each in all_facts(world) if spots()[each.spot][0] is not None)
    west, south, east, north = spots()[facts.spot][0]  # type: ignore[misc]
    key = facts.collection, facts.id
    assert key in by_both(ask, api, bbox=[west, south, east, north])
    assert key in by_both(ask, api, bbox=[east, north, min(180, east + 1), min(90, north + 1)])
    assert key in by_both(ask, api, bbox=[west, south, -5, east, north, 5])
    inside = {"type": "Point", "coordinates": [(west + east) / 2, (south + north) / 2]}
    ring = [[west, south], [east, south], [east, north], [west, south]]
    assert key in by_both(ask, api, intersects=inside)
    assert key in by_both(ask, api, intersects={"type": "Polygon", "coordinates": [ring]})
    whole = by_both(ask, api, bbox=[-180, -90, 180, 90])
    nowhere = [(each.collection, each.id) for each in all_facts(world) if spots()[each.spot][0] is None]
    assert set(whole) == set(world.all_keys()) - set(nowhere)
    across = by_both(ask, api, bbox=[170, -90, -170, 90])
    ends = [set(by_both(ask, api, bbox=box)) for box in ([170, -90, 180, 90], [-180, -90, -170, 90])]
    assert set(across) == ends[0] | ends[1] != set()


FILTERS = [
    ("eo:cloud_cover < 10", lambda facts: facts.cloud is not None and facts.cloud < 10),
    ("NOT eo:cloud_cover < 10", lambda facts: facts.cloud is not None and facts.cloud >= 10),
    ("eo:cloud_cover IS NULL", lambda facts: facts.cloud is None),
    ("eo:cloud_cover IS NOT NULL and eo:cloud_cover <> 50", lambda facts: facts.cloud not in (None, 50)),
    ("platform = 'sim-1a' OR platform = 'sim-2b'", lambda facts: facts.value("platform") in ("sim-1a", "sim-2b")),
    ("platform IN ('sim-1a','sim-2b')", lambda facts: facts.value("platform") in ("sim-1a", "sim-2b")),
    (
        "platform LIKE 'sim-1%' AND gsd >= 15",
        lambda facts: facts.value("platform") < "sim-2" and facts.value("gsd") >= 15,
    ),
    ("eo:cloud_cover BETWEEN 10 AND 2e1", lambda facts: facts.cloud is not None and 10 <= facts.cloud <= 20),
    ("20 > eo:cloud_cover", lambda facts: facts.cloud is not None and facts.cloud < 20),
    (
        "datetime >= TIMESTAMP('2020-01-01T00:00:00Z')",
        lambda facts: facts.end is None and facts.start >= times.read("2020-01-01T00:00:00Z"),
    ),
    ("updated < DATE('2018-05-05')", lambda facts: facts.updated < times.read("2018-05-05T00:00:00Z")),
    (
        "(gsd = 10 OR gsd = 30) AND NOT (platform = 'sim-1b')",
        lambda facts: facts.value("gsd") in (10, 30) and facts.value("platform") != "sim-1b",
    ),
    ("nothing = 5", lambda facts: False),
    ("platform > 5", lambda facts: False),
]


@pytest.mark.parametrize(("text", "judge"), FILTERS, ids=[text for text, _ in FILTERS])
def test_a_filter_finds_what_it_says(
    world: StacWorld, api: Simulator, ask: Ask, text: str, judge: Callable[[Facts], bool]
) -> None:
    expected = {(each.collection, each.id) for each in all_facts(world) if judge(each)}
    assert set(by_both(ask, api, filter=cql2_text.read(text))) == expected
    found = ask(api, filter=text, limit=1000).json()
    assert {key_of(item) for item in found["features"]} == expected
    assert found["numberMatched"] == len(expected)
    posted = ask(api, body={"filter": text, "filter-lang": "cql2-text", "limit": 1000}).json()
    assert posted["features"] == found["features"]


def test_the_query_extension_finds_what_it_says(world: StacWorld, api: Simulator, ask: Ask) -> None:
    query = {"eo:cloud_cover": {"lt": 10, "gte": 2}, "platform": {"startsWith": "sim-", "in": ["sim-1a", "sim-1b"]}}
    expected = {
        (each.collection, each.id)
        for each in all_facts(world)
        if each.cloud is not None and 2 <= each.cloud < 10 and each.value("platform") < "sim-2"
    }
    assert set(by_both(ask, api, query=query)) == expected


WRONG: list[dict[str, Any]] = [
    {"limit": 0},
    {"limit": -1},
    {"limit": "many"},
    {"limit": 1.5},
    {"datetime": "2020-01-01"},
    {"datetime": "../.."},
    {"datetime": "2020-01-01T00:00:00"},
    {"datetime": "2021-01-01T00:00:00Z/2020-01-01T00:00:00Z"},
    {"datetime": "2020-13-01T00:00:00Z"},
    {"datetime": "2020-01-01T25:00:00Z"},
    {"bbox": [1, 2, 3]},
    {"bbox": [0, 5, 1, 4]},
    {"bbox": [0, 0, 1, 95]},
    {"bbox": ["a", 0, 1, 1]},
    {"ids": 5},
    {"collections": "x"},
    {"bbox": [0, 0, 1, 1], "intersects": {"type": "Point", "coordinates": [0, 0]}},
    {"intersects": {"type": "Blob"}},
    {"intersects": {"type": "Polygon", "coordinates": [[5]]}},
    {"intersects": "[object Object]"},
    {"filter": {"op": "x", "args": []}},
    {"filter": {"op": "=", "args": [1]}},
    {"filter": "a ="},
    {"filter": 5},
    {"query": {"a": {"no": 1}}},
    {"query": []},
    {"next": "forged"},
    {"next": 5},
    {"filter": {"op": "=", "args": [{"property": "datetime"}, "soon"]}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_parameter_is_400_with_code_and_description(api: Simulator, ask: Ask, wrong: dict[str, Any]) -> None:
    response = ask(api, body=wrong)
    assert response.status_code == 400, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.json().keys() == {"code", "description"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "x"},
        {"bbox": "1,2,3"},
        {"bbox": "1,2,x,4"},
        {"intersects": "[object Object]"},
        {"filter": "a = "},
        {"filter": "a = 1", "filter-lang": "cql"},
        {"filter": "(a = 1"},
        {"filter": "a = 1 b"},
        {"datetime": "/"},
        {"filter": "[", "filter-lang": "cql2-json"},
        {"filter": "((" * 100},
        {"next": "x,y,z"},
        {"next": "p5.00000000"},
    ],
    ids=str,
)
def test_a_wrong_parameter_of_a_get_is_400_too(api: Simulator, ask: Ask, parameters: dict[str, str]) -> None:
    assert ask(api, **parameters).status_code == 400


@pytest.mark.parametrize(
    "path", ["/nothing", "/collections/nobody", "/collections/nobody/items", "/collections/sentinel-1/items/x"]
)
def test_what_there_is_not_is_404_with_a_code(api: Simulator, ask: Ask, path: str) -> None:
    response = ask(api, path)
    assert (response.status_code, response.json()["code"]) == (404, "NotFound")


def test_other_methods_are_405(api: Simulator) -> None:
    response = requests.post(f"{api.url}/collections", json={}, timeout=10)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET")
    assert requests.delete(f"{api.url}/search", timeout=10).status_code == 405


# --- bodies -----------------------------------------------------------------------------------------


def test_a_body_may_come_in_any_pieces_and_several_requests_at_once(api: Simulator) -> None:
    whole = post(b'{"limit": 2, "ids": ["' + b"x" * 100_000 + b'"]}')
    assert exchange(api, whole).startswith(b"HTTP/1.1 200 OK")
    small = post(b'{"limit":1}')
    pieces = [small[at : at + 1] for at in range(len(small))]
    assert b'"numberReturned":1' in exchange(api, *pieces)
    middle = whole.index(b"\r\n\r\n") + 4
    assert (
        exchange(api, whole[:middle], whole[middle : middle + 5], whole[middle + 5 :], pause=0.01).count(b"200 OK") == 1
    )
    both = post(b'{"limit":1}').replace(b"Connection: close\r\n", b"") + post(b"{}")
    received = exchange(api, both)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert re.findall(rb'"numberReturned":(\d+)', received) == [b"1", b"10"]


def test_a_body_too_large_or_of_unknown_length_is_refused(api: Simulator) -> None:
    assert exchange(api, post(b"", length=MAX_BODY + 1)).startswith(b"HTTP/1.1 413 ")
    assert exchange(api, post(b"0\r\n\r\n", "Transfer-Encoding: chunked", length=-1)).startswith(b"HTTP/1.1 411 ")
    assert exchange(api, post(b"{}", length=10**18).replace(b"1000000000000000000", b"x")).startswith(b"HTTP/1.1 400 ")
    largest = b'{"limit":1,"ids":["' + b"x" * (MAX_BODY - 22) + b'"]}'
    assert len(largest) == MAX_BODY
    assert exchange(api, post(largest)).startswith(b"HTTP/1.1 200 ")


def test_who_waits_to_be_told_to_go_on_is_told(api: Simulator) -> None:
    whole = post(b'{"limit":1}', "Expect: 100-continue")
    middle = whole.index(b"\r\n\r\n") + 4
    received = exchange(api, whole[:middle], whole[middle:], pause=0.05)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("body", [b"[]", b"{", b"5", b"\xff", b"[" * 5000])
def test_a_body_that_is_no_object_is_400(api: Simulator, body: bytes) -> None:
    assert exchange(api, post(body)).startswith(b"HTTP/1.1 400 ")


def test_a_get_with_a_body_is_refused(api: Simulator) -> None:
    request = b"GET /stac/search HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    assert exchange(api, request).startswith(b"HTTP/1.1 400 ")


# --- next links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", NEXT_STYLES)
@pytest.mark.parametrize("quirk", [None, "unordered"])
def test_every_style_leads_to_every_item_once(
    style: str, quirk: str | None, world: StacWorld, start: Start, session: requests.Session
) -> None:
    api = start(world, *filter(None, [quirk]), next=style)
    late = {"datetime": "2019-01-01T00:00:00Z/..", "filter": {"op": "<", "args": [{"property": "eo:cloud_cover"}, 60]}}
    first = times.read("2019-01-01T00:00:00Z")
    some = {
        (each.collection, each.id)
        for each in all_facts(world)
        if (each.end or each.start) >= first and each.cloud is not None and each.cloud < 60
    }
    own = [key for key in world.all_keys() if key[0] == world.collections[0]]
    for found, expected in (
        (pages(session, api, body={"limit": 37}), world.all_keys()),
        (pages(session, api, body={"limit": 11, **late}), some),
        (pages(session, api, limit=41), world.all_keys()),
        (pages(session, api, f"/collections/{world.collections[0]}/items", limit=13), own),
    ):
        assert len(keys(found)) == len(expected) > 20
        assert set(keys(found)) == set(expected)
        assert {page["numberMatched"] for page in found} == {len(expected)}


def shape(link: dict[str, Any] | None) -> dict[str, Any]:
    assert link is not None
    return link


def test_the_links_of_a_post_have_the_shapes_that_were_recorded(world: StacWorld, start: Start, ask: Ask) -> None:
    wanted = {"limit": 5, "collections": [world.collections[0]]}
    links = {style: shape(next_of(ask(start(world, next=style), body=wanted).json())) for style in NEXT_STYLES}
    last = ask(start(world), body=wanted).json()["features"][-1]
    body = links["post-body"]
    assert (body["method"], body["merge"], body["body"]) == (
        "POST",
        False,
        {**wanted, "next": f"{last['properties']['datetime']},{last['id']},{last['collection']}"},
    )
    assert links["post-token"]["body"] == {**wanted, "token": f"next:{last['collection']}:{last['id']}"}
    assert "merge" not in links["post-token"]
    assert (links["post-merge"]["merge"], links["post-merge"]["body"].keys()) == (True, {"token"})
    assert links["get-token"]["method"] == "GET"
    assert "body" not in links["get-token"]
    assert links["offset"]["body"] == {**wanted, "offset": 5}
    assert links["skip"]["body"] == {**wanted, "skip": 5}
    assert links["get-headers"]["headers"].keys() == {"X-Page-Token"}


@pytest.mark.parametrize("style", NEXT_STYLES)
def test_a_forged_token_is_400(style: str, world: StacWorld, start: Start, ask: Ask) -> None:
    api = start(world, next=style)
    name = {"post-body": "next", "offset": "offset", "skip": "skip"}.get(style, "token")
    for token in (
        "x",
        "next:sentinel-1:nobody",
        "next:a:b",
        "-5",
        "p7.12345678",
        "2020-01-01T00:00:00Z,a,sentinel-1",
        "~",
    ):
        if style == "get-headers":
            response = requests.get(f"{api.url}/search?page=next", headers={"X-Page-Token": token}, timeout=10)
        else:
            response = ask(api, **{name: token})
        assert response.status_code == 400, token
    if style == "get-headers":
        assert ask(api, page="next").status_code == 400


def test_offsets_begin_anywhere(world: StacWorld, start: Start, ask: Ask) -> None:
    api = start(world, next="offset")
    whole = keys([ask(api, limit=1000).json()])
    assert keys([ask(api, limit=10, offset=123).json()]) == whole[123:133]
    assert ask(api, limit=10, offset=5000).json()["features"] == []


@pytest.mark.parametrize("matched", ["none", "number", "context", "both", "estimated"])
def test_what_is_found_is_counted_as_told(matched: str, world: StacWorld, start: Start, ask: Ask) -> None:
    page = ask(start(world, matched=matched), limit=5).json()
    assert page.get("numberMatched") == {"number": ITEMS, "both": ITEMS, "estimated": 440}.get(matched)
    context = {"limit": 5, "matched": ITEMS, "returned": 5}
    assert page.get("context") == (context if matched in ("context", "both") else None)


# --- quirks -----------------------------------------------------------------------------------------


def test_an_unknown_word_of_a_dialect_is_refused() -> None:
    for wrong in ({"next": "x"}, {"matched": "x"}, {"quirks": {"x"}}, {"page_default": 50, "page_max": 20}):
        with pytest.raises(ValueError):  # noqa: PT011
            Dialect(**wrong)


@pytest.mark.parametrize("style", NEXT_STYLES)
def test_an_empty_page_comes_in_the_middle(
    style: str, world: StacWorld, start: Start, session: requests.Session
) -> None:
    api = start(world, "empty-page", next=style)
    for found in (pages(session, api, body={"limit": 100}), pages(session, api, limit=100)):
        assert [len(page["features"]) for page in found] == [100, 0, 100, 100, 100]
        assert set(keys(found)) == set(world.all_keys())


@pytest.mark.parametrize("style", NEXT_STYLES)
def test_a_last_page_may_have_a_next_link(
    style: str, world: StacWorld, start: Start, session: requests.Session
) -> None:
    found = pages(session, start(world, "trailing-next", next=style), body={"limit": 150})
    assert [len(page["features"]) for page in found] == [150, 150, 100, 0]


def test_page_one_may_come_for_ever(world: StacWorld, start: Start, session: requests.Session) -> None:
    found = pages(session, start(world, "repeated-page"), body={"limit": 100}, most=9)
    assert len(found) == 9
    assert len(set(keys(found))) == 100


def test_a_record_may_be_repeated(world: StacWorld, start: Start, session: requests.Session) -> None:
    api = start(world, "repeated-record")
    found = pages(session, api, body={"limit": 100})
    ids = [keys([page]) for page in found]
    assert all(one[-1] == other[0] for one, other in pairwise(ids))
    assert set(keys(found)) == set(world.all_keys())
    assert len(set(keys(pages(session, api, body={"limit": 1}, most=5)))) == 1


def test_a_search_may_hide_that_there_is_more(world: StacWorld, start: Start, session: requests.Session) -> None:
    api = start(world, "missing-next")
    assert len(pages(session, api, body={"limit": 100})) == len(pages(session, api, limit=100)) == 1
    name = world.collections[0]
    assert len(keys(pages(session, api, f"/collections/{name}/items", limit=50))) > 100


def test_a_big_page_may_be_too_much(world: StacWorld, start: Start, ask: Ask) -> None:
    api = start(world, "big-page-500", big_page=20)
    response = ask(api, body={"limit": 21})
    assert (response.status_code, response.json()) == (500, {"message": "Internal server error"})
    assert ask(api, body={"limit": 20}).status_code == 200


@pytest.mark.parametrize(
    ("quirk", "status", "body"),
    [
        ("forbidden-throttle", 403, {"message": "Forbidden"}),
        ("rate-429", 429, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 7 seconds."}),
    ],
)
def test_some_requests_are_throttled_and_the_next_try_is_not(
    quirk: str, status: int, body: Any, world: StacWorld, start: Start, ask: Ask
) -> None:
    found: Counter[int] = Counter()
    seen = []
    for _ in range(2):
        api = start(world, quirk, throttled=0.3, retry_after=7)
        for limit in range(1, 60):
            response = ask(api, limit=limit)
            found[response.status_code] += 1
            seen.append(response.status_code)
            if response.status_code != 200:
                assert (response.status_code, response.json()) == (status, body)
                assert ask(api, limit=limit).status_code == 200
    assert seen[:59] == seen[59:]
    assert 15 < found[status] < 60
    assert api.wrong.total() == found[status] / 2


def test_a_get_search_may_break_where_it_has_a_next_page(world: StacWorld, start: Start, ask: Ask) -> None:
    api = start(world, "get-search-500", next="skip")
    response = ask(api, limit=5)
    assert (response.status_code, response.text) == (500, "unsupported value")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert ask(api, body={"limit": 5}).status_code == ask(api, limit=1000).status_code == 200
    assert ask(api, f"/collections/{world.collections[0]}/items", limit=5).status_code == 200


def test_errors_may_have_a_detail_alone(world: StacWorld, start: Start, ask: Ask) -> None:
    api = start(world, "detail-400")
    for response in (ask(api, limit=0), ask(api, "/nothing")):
        assert response.json().keys() == {"detail"}


def test_addresses_of_assets_may_be_signed_anew_each_time(world: StacWorld, start: Start, ask: Ask) -> None:
    api = start(world, "signed")
    one, other = (ask(api, limit=3).json()["features"] for _ in range(2))
    assert one != other
    for item in (*one, *other):
        for asset in item["assets"].values():
            assert re.search(r"\.(tif|jpg|xml)\?sig=[0-9a-f]{16}&se=\d+$", asset["href"])
            asset["href"] = asset["href"].partition("?")[0]
    assert one == other == [world.item(*key_of(item), api.url) for item in one]


def test_items_may_come_in_no_order(world: StacWorld, start: Start, session: requests.Session) -> None:
    found = pages(session, start(world, "unordered"), body={"limit": 50})
    starts = [world.find(*key).start for key in keys(found)]  # type: ignore[union-attr]
    descents = sum(one > other for one, other in pairwise(starts))
    assert 0.3 < descents / len(starts) < 0.7


def test_there_may_be_no_search(world: StacWorld, start: Start, ask: Ask, session: requests.Session) -> None:
    api = start(world, "no-search")
    assert ask(api).status_code == ask(api, body={}).status_code == 404
    landing = ask(api, "").json()
    assert not any("item-search" in each for each in landing["conformsTo"])
    assert not any(link["rel"] == "search" for link in landing["links"])
    found = [key for name in world.collections for key in keys(pages(session, api, f"/collections/{name}/items"))]
    assert sorted(found) == sorted(world.all_keys())


def test_a_page_may_be_left_out_the_first_time(world: StacWorld, start: Start, session: requests.Session) -> None:
    api = start(world, "short-count")
    first, second = (pages(session, api, body={"limit": 50}) for _ in range(2))
    assert first[0]["numberMatched"] == second[0]["numberMatched"] == ITEMS
    assert len(set(keys(first))) == ITEMS - 50
    assert set(keys(second)) == set(world.all_keys())


def test_quirks_go_together(world: StacWorld, start: Start, session: requests.Session) -> None:
    api = start(
        world, "empty-page", "trailing-next", "repeated-record", "unordered", "signed", "detail-400", next="post-merge"
    )
    found = pages(session, api, body={"limit": 90})
    assert set(keys(found)) == set(world.all_keys())
    assert [len(page["features"]) for page in found if len(page["features"]) < 44] == [0, 0]


# --- faults and what was seen -----------------------------------------------------------------------


def test_faults_depend_on_what_is_asked_and_not_on_when(world: StacWorld, simulate: Start, ask: Ask) -> None:
    profile = Profile(seed=3, mishaps=(Share("503", 0.3, attempts=2),))
    asked: list[dict[str, Any]] = [{"limit": limit} for limit in range(1, 40)]

    def statuses(order: list[dict[str, Any]]) -> dict[str, list[int]]:
        api = simulate(world, profile=profile)
        found = {json.dumps(each): [ask(api, body=each).status_code for _ in range(3)] for each in order}
        assert api.wrong["503"] == sum(each.count(503) for each in found.values()) > 3
        return found

    shuffled = asked[:]
    random.Random(5).shuffle(shuffled)
    assert statuses(asked) == statuses(shuffled)


def test_a_function_of_ones_own_sees_kind_key_and_attempt(world: StacWorld, simulate: Start, ask: Ask) -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(kind: str, key: int, attempt: int) -> Answer | None:
        seen.append((kind, key, attempt))
        return Answer(503) if kind == "item" else None

    api = simulate(world, faults=watch, record=True)
    collection, id = world.all_keys()[0]
    ask(api, "")
    ask(api, limit=5, ids="a")
    ask(api, ids="a", limit=5)
    ask(api, limit=6)
    ask(api, body={"limit": 6})
    assert ask(api, f"/collections/{collection}/items/{id}").status_code == 503
    ask(api, f"/collections/{collection}/items")
    ask(api, "/nothing")
    assert [kind for kind, _, _ in seen] == ["landing", "search", "search", "search", "search", "item", "items"]
    assert [attempt for _, _, attempt in seen] == [1, 1, 2, 1, 1, 1, 1]
    assert len({key for _, key, _ in seen}) == 6
    assert [(kind, key) for _, kind, key in api.log] == [(kind, key) for kind, key, _ in seen]  # type: ignore[union-attr]
    assert api.requests == {"landing": 1, "search": 4, "item": 1, "items": 1, "other": 1}


@pytest.mark.parametrize("name", ["null-items", "surrogate", "types", "duplicates", "bom"])
def test_bodies_are_made_wrong_as_those_of_pr0gramm(name: str, world: StacWorld, simulate: Start, ask: Ask) -> None:
    api = simulate(world, profile=Profile(mishaps=(Share(name, 1.0),)))
    wrong, true = ask(api, limit=3), ask(api, limit=3)
    assert api.wrong == {name: 1}
    assert wrong.content != true.content
    assert wrong.headers["Content-Type"] == true.headers["Content-Type"] == "application/geo+json"
    if name == "null-items":
        assert wrong.json() == {**true.json(), "features": None}


def test_limits_outages_and_latency_hold_for_stac(world: StacWorld, simulate: Start, ask: Ask) -> None:
    api = simulate(world, profile=Profile(limits=(Limit(rate=0.01, burst=2, retry_after="9"),)), latency=0.05)
    began = time.monotonic()
    assert [ask(api, limit=each).status_code for each in (1, 2, 3)] == [200, 200, 429]
    assert time.monotonic() - began >= 0.15
    other = simulate(world)
    other.outage(60, "502")
    assert ask(other, body={}).status_code == 502


# --- changes ----------------------------------------------------------------------------------------


def test_what_is_added_updated_and_removed_is_seen(simulate: Start, ask: Ask, session: requests.Session) -> None:
    world = StacWorld(items=300, collections=2)
    api = simulate(world)
    before = set(world.all_keys())
    new = world.add(5)
    old = world.add(2, datetime="2017-03-04T05:06:07Z", collection="landsat-1")
    gone = world.remove(10)
    (changed,) = world.update([old[0]])
    other = world.update(3)
    found = pages(session, api, body={"limit": 20})
    assert len(keys(found)) == len(set(keys(found))) == found[0]["numberMatched"] == 297
    assert set(keys(found)) == set(world.all_keys()) == (before | set(new) | set(old)) - set(gone)
    assert set(keys(found)[:5]) == set(new) - set(gone) or len(set(new) & set(gone)) > 0
    items = {key_of(item): item for page in found for item in page["features"]}
    assert items[changed]["properties"]["sim:version"] == 1
    assert items[changed]["properties"]["updated"] > items[changed]["properties"]["created"]
    recent = ask(api, body={"query": {"updated": {"gte": "2026-02-01T00:00:00Z"}}, "limit": 100}).json()
    assert {key_of(item) for item in recent["features"]} >= {changed, *other} - set(gone)
    second = ask(api, body={"datetime": "2017-03-04T05:06:07Z"}).json()
    assert {key_of(item) for item in second["features"]} >= set(old) - set(gone)
    collection, id = gone[0]
    assert ask(api, f"/collections/{collection}/items/{id}").status_code == 404
    world.restore(gone)
    assert ask(api, body={}).json()["numberMatched"] == 307
    with pytest.raises(KeyError):
        world.remove([("landsat-1", "nobody")])


def test_a_walk_goes_on_where_its_token_was_removed(simulate: Start, ask: Ask, session: requests.Session) -> None:
    world = StacWorld(items=60, collections=2)
    api = simulate(world)
    page = ask(api, body={"limit": 20}).json()
    world.remove([key_of(page["features"][-1])])
    rest = []
    link = next_of(page)
    while link:
        response, _ = follow(session, link, {})
        rest.append(response.json())
        link = next_of(rest[-1])
    assert len(set(keys([page, *rest]))) == 60


@pytest.mark.parametrize("style", ["post-body", "offset"])
def test_items_arrive_at_the_rate_of_a_profile(style: str, simulate: Start, ask: Ask) -> None:
    api = simulate(StacWorld(items=20), profile=Profile(arrive=50, delete=5, reflag=5), dialect=Dialect(next=style))
    until = time.monotonic() + 10
    while ask(api, limit=1).json()["numberMatched"] < 30:
        assert time.monotonic() < until
        time.sleep(0.02)


# --- the promise ------------------------------------------------------------------------------------


def moments(world: StacWorld) -> st.SearchStrategy[str]:
    """Moments of items, and a microsecond beside them."""
    edges = sorted({edge for facts in all_facts(world) for edge in (facts.start, facts.end) if edge is not None})
    return st.builds(lambda edge, by: times.write(edge + by), st.sampled_from(edges), st.integers(-1, 1))


PROPERTY_WORLD = StacWorld(seed=9, items=150, collections=3)
PROPERTY_WORLD.add(6, datetime="2020-01-01T00:00:00Z")
PROPERTY_WORLD.remove(7)
PROPERTY_WORLD.update(9)


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"limit": draw(st.integers(3, 60))}
    world = PROPERTY_WORLD
    if draw(st.booleans()):
        ends = sorted([draw(moments(world)), draw(moments(world))], key=times.read)
        shape = draw(st.sampled_from(["{0}/{1}", "../{1}", "{0}/..", "/{1}", "{0}"]))
        found["datetime"] = shape.format(*ends)
    if draw(st.booleans()):
        longitudes = sorted(draw(st.tuples(st.integers(-180, 180), st.integers(-180, 180))))
        latitudes = sorted(draw(st.tuples(st.integers(-90, 90), st.integers(-90, 90))))
        found["bbox"] = [longitudes[0], latitudes[0], longitudes[1], latitudes[1]]
    if draw(st.integers(0, 3)) == 0:
        found["ids"] = [id for _, id in draw(st.lists(st.sampled_from(world.all_keys()), min_size=1, max_size=20))]
    if draw(st.booleans()):
        found["collections"] = draw(st.lists(st.sampled_from(world.collections), min_size=1, unique=True))
    return found


@pytest.fixture(scope="module")
def dialects() -> Iterator[dict[str, Simulator]]:
    running = {style: Simulator(PROPERTY_WORLD, dialect=Dialect(next=style)) for style in NEXT_STYLES}
    yield running
    for each in running.values():
        each.close()


def wanted(search: dict[str, Any], item: dict[str, Any]) -> bool:
    """The rules of the specification, told plainly."""
    properties = item["properties"]
    first = times.read(properties.get("start_datetime") or properties["datetime"])
    last = times.read(properties.get("end_datetime") or properties["datetime"])
    if "datetime" in search:
        low, _, high = search["datetime"].partition("/")
        high = high if "/" in search["datetime"] else low
        if low not in ("", "..") and last < times.read(low):
            return False
        if high not in ("", "..") and first > times.read(high):
            return False
    if "bbox" in search:
        west, south, east, north = search["bbox"]
        box = item.get("bbox")
        if box is None or box[0] > east or box[2] < west or box[1] > north or box[3] < south:
            return False
    return item["id"] in search.get("ids", [item["id"]]) and item["collection"] in search.get(
        "collections", [item["collection"]]
    )


@given(search=searches(), style=st.sampled_from(list(NEXT_STYLES)), get=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_search_paged_to_its_end_finds_what_looking_at_every_item_finds(
    search: dict[str, Any], style: str, get: bool, dialects: dict[str, Simulator], session: requests.Session
) -> None:
    expected = {key for key in PROPERTY_WORLD.all_keys() if wanted(search, PROPERTY_WORLD.item(*key))}
    if get:
        texts = {name: ",".join(map(str, each)) if isinstance(each, list) else each for name, each in search.items()}
        found = pages(session, dialects[style], **texts)
    else:
        found = pages(session, dialects[style], body=search)
    assert len(keys(found)) == len(set(keys(found))) == found[0]["numberMatched"] == len(expected)
    assert set(keys(found)) == expected


# --- the public validator ---------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("stac_api_validator") is None, reason="the extra stac-validator is not installed")
def test_the_public_validator_finds_no_error() -> None:
    script = ROOT / "scripts" / "validate_stac.py"
    command = [sys.executable, str(script), "--next", "post-body", "--next", "offset"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 0 errors") == 2


# --- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("simulate --quirk signed", "are for stac"),
        ("simulate pr0gramm --collections 3", "are for stac"),
        ("simulate stac --login", "are not for stac"),
        ("simulate stac --gone 0.5", "are not for stac"),
        ("simulate stac --page-default 50 --page-max 20", "between 1 and 20"),
        ("simulate stac --quirk nothing", "'nothing' is not one of"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: str, told: str) -> None:
    result = CliRunner().invoke(cli, arguments.split())
    assert result.exit_code == 2
    assert told in result.output


def test_the_command_serves_a_stac_api() -> None:
    command = [sys.executable, "-m", "fetcher", "simulate", "stac", "--items", "50", "--port", "0", "--next", "offset"]
    with subprocess.Popen(
        [*command, "--quirk", "rate-429"], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"Simulating 50 items at (http://127\.0\.0\.1:\d+/stac) \(Ctrl-C ends it\)\n", line)
        assert found is not None, line
        page = requests.post(f"{found[1]}/search", json={"limit": 7}, timeout=10)
        process.terminate()
        rest = process.communicate(timeout=10)[0]
    assert page.status_code in (200, 429)
    assert rest.startswith("Answered 1 requests")
    assert process.returncode == 0
