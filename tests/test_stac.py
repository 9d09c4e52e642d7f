"""The STAC source by itself: recorded answers, next links, items to rows and back, times and windows."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Interval, Outcome, Walk
from fetcher.sources.stac import Stac, items
from fetcher.sources.stac.api import Api, Collection
from fetcher.sources.stac.paging import Request, next_of
from fetcher.sources.stac.search import Search
from fetcher.sources.stac.tables import TABLES, VIEWS
from fetcher.sources.stac.times import FIRST, LAST, asked, seconds, text_of
from fetcher.sources.stac.windows import At
from fetcher.stores.schema import make_table, make_views

DATA = Path(__file__).parent / "data" / "stac"


def recorded(name: str) -> dict[str, Any]:
    """A recorded exchange."""
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return found


def real_items() -> list[dict[str, Any]]:
    """All the real items there are."""
    lists = [json.loads(path.read_text()) for path in sorted(DATA.glob("*.json")) if not path.stem[-2:].startswith("_")]
    pages = [recorded(path.stem)["response"].get("features", []) for path in sorted(DATA.glob("*_[0-9].json"))]
    return [item for each in (*lists, *pages) for item in each]


# --- next links -------------------------------------------------------------------------------------


def follow(name: str, body: Any = None) -> Request | None:
    """What continues a recorded page, asked for as it was."""
    exchange = recorded(name)
    sent = exchange["_request"]["body"]
    request = Request(exchange["_request"]["uri"], json.loads(sent) if sent else None)
    return next_of(exchange["response"].get("links", []), request)


def test_earth_search_repeats_the_whole_body() -> None:
    found = follow("earthsearch_post_1")
    assert found is not None
    assert found.body == {
        "fields": {"include": [], "exclude": ["geometry", "assets"]},
        "collections": ["cop-dem-glo-30"],
        "next": "2021-04-22T00:00:00Z,Copernicus_DSM_COG_10_S90_00_W171_00_DEM,cop-dem-glo-30",
    }


def test_an_empty_page_without_a_next_link_is_the_end() -> None:
    assert follow("earthsearch_multi_2") is None


def test_pgstac_names_a_token_in_the_body() -> None:
    found = follow("pc_post_1")
    assert found is not None
    assert found.body == {"collections": ["naip"], "token": "next:naip:me_m_4406937_ne_19_030_20231113_20240103"}
    found = follow("eoapi_post_1")
    assert found is not None
    assert found.body == {"token": "next:WildFires-LosAngeles-Jan-2025:11_031311102221_103001010C12B000"}


def test_the_next_link_of_a_get_is_an_address_that_is_left_alone() -> None:
    found = follow("pc_get_items_1")
    assert found is not None
    assert found.body is None
    assert found.url.endswith(
        "items?collections=landsat-c2-l2&token=next:landsat-c2-l2:LC09_L2SR_084056_20250722_02_T1"
    )


SENT = Request("https://example.com/search", {"limit": 5, "collections": ["a"]}, {"X-Old": "1"})


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ({"href": "/search?token=2"}, Request("https://example.com/search?token=2")),
        ({"href": "?token=2", "method": "get"}, Request("https://example.com/search?token=2")),
        (
            {"href": "https://example.com/search", "method": "POST", "body": {"token": 2}, "merge": True},
            Request("https://example.com/search", {"limit": 5, "collections": ["a"], "token": 2}, {"X-Old": "1"}),
        ),
        (
            {"href": "https://example.com/search", "method": "POST", "body": {"token": 2}},
            Request("https://example.com/search", {"token": 2}),
        ),
        (
            {"href": "https://example.com/search", "body": {"token": 2}, "merge": False},
            Request("https://example.com/search", {"token": 2}),
        ),
        (
            {"href": "https://example.com/search", "method": "POST"},
            Request("https://example.com/search", {"limit": 5, "collections": ["a"]}),
        ),
        (
            {"href": "https://example.com/search", "method": "GET", "headers": {"X-Page": "2", "X-More": ["a", "b"]}},
            Request("https://example.com/search", None, {"X-Page": "2", "X-More": "a, b"}),
        ),
    ],
)
def test_a_next_link_is_followed_as_the_specification_has_it(link: dict[str, Any], expected: Request) -> None:
    assert next_of([{"rel": "self"}, "no link", {"rel": "next", **link}], SENT) == expected


@pytest.mark.parametrize(
    "link", [{}, {"href": 7}, {"href": ""}, {"href": "/a", "method": "PUT"}, {"href": "/a", "body": [1]}]
)
def test_a_next_link_that_is_none_is_malformed(link: dict[str, Any]) -> None:
    with pytest.raises(RequestFailed) as error:
        next_of([{"rel": "next", **link}], SENT)
    assert error.value.outcome is Outcome.MALFORMED


def test_headers_of_a_link_cannot_replace_those_of_the_connection_or_the_login() -> None:
    headers = {"Host": "other", "Content-Length": "7", "Cookie": "a=b", "Authorization": "Bearer other", "X-Page": "2"}
    found = next_of([{"rel": "next", "href": "/a", "headers": headers}], SENT)
    assert found is not None
    assert found.headers == {"X-Page": "2"}


def test_a_signature_makes_no_other_request() -> None:
    one = Request("https://example.com/items?token=2&sig=abc&se=1&X-Amz-Signature=q")
    assert one.identity == Request("https://example.com/items?token=2&sig=xyz&se=2").identity
    assert one.identity != Request("https://example.com/items?token=3&sig=abc").identity


# --- what answers mean ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            429,
            {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 23 seconds."},
            (Outcome.LIMITED, 23.0),
        ),
        (429, {"message": "slow down"}, Outcome.LIMITED),
        (429, {"detail": "slow down"}, None),
        (403, {"message": "Forbidden"}, Outcome.UNAVAILABLE),
        (403, {"code": "Forbidden", "description": "not yours"}, None),
        (400, {"detail": "bad"}, None),
        (200, [1], None),
    ],
)
def test_throttling_is_read_from_the_body(status: int, body: Any, expected: Any) -> None:
    assert Stac.judge(status, body) == expected


def test_a_token_is_a_header_and_never_shown() -> None:
    options = Stac.Options(stac_token=SecretStr("hush"))
    assert Stac(options).headers["Authorization"].get_secret_value() == "Bearer hush"
    assert "hush" not in repr(options)


# --- items ------------------------------------------------------------------------------------------


def body_of(*features: Any, **members: Any) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features, "links": [], **members}).encode()


def listed(body: bytes, collection: str) -> tuple[items.Listed | None, items.Listed]:
    """What the quick way makes of a page, None where it makes nothing of it, and the thorough way."""
    usual = items.parse(body)
    quick = None if usual is None else items.listed_usual(usual, collection, body)
    return quick, items.listed(items.decode(body), collection, body)


def plain(rows: Any) -> Any:
    """Rows with their JSON read, so that only what it says counts."""

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value[:1] not in ("{", "["):
            return value
        try:
            return ("json", json.loads(value))
        except ValueError:
            return value  # A text that only begins so.

    return [tuple(read(value) for value in row) for row in rows]


def assert_same(quick: items.Listed, slow: items.Listed) -> None:
    assert plain(quick.rows) == plain(slow.rows)
    assert quick.keys == slow.keys
    assert [plain(each.rows["assets"]) for each in quick.details.values()] == [
        plain(each.rows["assets"]) for each in slow.details.values()
    ]
    assert quick.failures == slow.failures
    assert quick.matched == slow.matched


def given_back(page: items.Listed) -> list[Any]:
    """What the view `stac_items` says of the rows of a page."""
    with closing(sqlite3.connect(":memory:")) as conn:
        for table in TABLES:
            make_table(conn, table, TABLES[0])
        make_views(conn, VIEWS, lambda _: None)
        for row in page.rows:
            conn.execute(f"INSERT INTO items VALUES ({', '.join('?' * (len(row) + 5))})", [*row, 1, 1, 1, None, None])
        for detail in page.details.values():
            for row in detail.rows["assets"]:
                conn.execute("INSERT INTO assets VALUES (?, ?, ?, ?)", row)
        return [json.loads(text) for (text,) in conn.execute("SELECT item FROM stac_items ORDER BY rowid")]


@pytest.mark.parametrize("item", real_items(), ids=lambda item: str(item.get("id"))[:30])
def test_a_real_item_is_given_back_whole(item: dict[str, Any]) -> None:
    body = body_of(item)
    quick, slow = listed(body, item["collection"])
    # Where a search left these out, they are given back as what every item has.
    expected = {"geometry": None, "assets": {}, "type": "Feature", **item}
    assert given_back(slow) == [expected]
    if quick is not None:
        assert_same(quick, slow)
        assert given_back(quick) == [expected]


def test_real_items_of_the_usual_shape_go_the_quick_way() -> None:
    ways = [items.parse(body_of(item)) is not None for item in real_items()]
    assert sum(ways) >= len(ways) // 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MOMENT = st.sampled_from(
    ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.5+02:00", "1969-12-31T23:59:59Z", "2016-12-31T23:59:60Z", "soon"]
)
ITEM = st.fixed_dictionaries(
    {
        "type": st.just("Feature"),
        "id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        "collection": st.just("c"),
        "geometry": st.none() | st.just({"type": "Point", "coordinates": [1.5, 2.5]}),
        "properties": st.fixed_dictionaries(
            {"datetime": MOMENT | JSON},
            optional={"start_datetime": MOMENT, "updated": MOMENT | JSON, "eo:cloud_cover": JSON, "é ✓": JSON},
        ),
    },
    optional={
        "bbox": st.lists(st.floats(-180, 180), min_size=4, max_size=4)
        | st.lists(st.floats(-180, 180), min_size=6, max_size=6)
        | st.lists(st.integers(-9, 9), max_size=7).filter(bool),
        "links": st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2),
        "assets": st.dictionaries(TEXT, st.dictionaries(TEXT, JSON, max_size=2), max_size=3),
        "stac_version": st.sampled_from(["1.0.0", "1.1.0"]) | st.integers(1, 2),
        "stac_extensions": st.lists(TEXT, max_size=2),
        "conformsTo": JSON.filter(lambda value: value is not None),
        "a member.of\"its own'": JSON,
        "time": JSON,
        "extra": JSON,
    },
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ITEM, max_size=3, unique_by=lambda item: item["id"]))
def test_the_quick_way_and_the_thorough_one_agree_and_lose_nothing(features: list[dict[str, Any]]) -> None:
    body = body_of(*features, numberMatched=len(features))
    quick, slow = listed(body, "c")
    expected = [{**item, "assets": item.get("assets") or {}} for item in features]
    assert given_back(slow) == expected
    if quick is not None:
        assert_same(quick, slow)
        assert given_back(quick) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"id": 7},
        {"id": None},
        {"properties": None},
        {"properties": []},
        {"assets": []},
        {"type": "Collection"},
        {"id": "\ud800"},
    ],
)
def test_one_item_that_cannot_be_used_is_evidence_and_the_others_are_listed(change: dict[str, Any]) -> None:
    good = {"type": "Feature", "id": "good", "collection": "c", "geometry": None, "properties": {"datetime": None}}
    body = body_of(good, {**good, "id": "bad", **change})
    quick, slow = listed(body, "c")
    for page in [slow] if quick is None else [slow, quick]:
        assert [row[0] for row in page.rows] == ["c/good"]
        assert [failure.outcome for failure in page.failures] == [Outcome.MALFORMED]


def test_an_item_of_another_collection_is_no_answer_to_what_was_asked() -> None:
    item = {"type": "Feature", "id": "a", "collection": "d", "geometry": None, "properties": {}}
    with pytest.raises(RequestFailed, match="collection 'd'"):
        listed(body_of(item), "c")


def test_a_page_that_names_an_item_twice_keeps_the_last() -> None:
    item = {"type": "Feature", "id": "a", "collection": "c", "geometry": None, "properties": {"n": 1}}
    quick, _ = listed(body_of(item, {**item, "properties": {"n": 2}}), "c")
    assert quick is not None
    assert [json.loads(row[10]) for row in quick.rows] == [{"n": 2}]


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"features":{}}', b'"text"'])
def test_what_is_no_page_is_malformed(body: bytes) -> None:
    assert items.parse(body) is None
    with pytest.raises(RequestFailed) as error:
        items.listed(items.decode(body), "c", body)
    assert error.value.outcome is Outcome.MALFORMED


def test_a_slash_in_a_collection_makes_no_other_key() -> None:
    assert items.key_of("a/b", "c") != items.key_of("a", "b/c")
    assert items.key_of("a%2Fb", "c") != items.key_of("a/b", "c")


# --- times ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "window", "first", "last"),
    [
        (None, None, FIRST, LAST),
        ("../..", None, FIRST, LAST),
        ("2020", "2020-01-01T00:00:00Z/2020-12-31T23:59:59.999999Z", "2020-01-01T00:00:00Z", "2020-12-31T23:59:59Z"),
        (
            "2020-02",
            "2020-02-01T00:00:00Z/2020-02-29T23:59:59.999999Z",
            "2020-02-01T00:00:00Z",
            "2020-02-29T23:59:59Z",
        ),
        (
            "2020-02-03/2020-02-04",
            "2020-02-03T00:00:00Z/2020-02-04T23:59:59.999999Z",
            "2020-02-03T00:00:00Z",
            "2020-02-04T23:59:59Z",
        ),
        ("2024/..", "2024-01-01T00:00:00Z/..", "2024-01-01T00:00:00Z", LAST),
        ("/2024-01-01T00:00:00Z", "../2024-01-01T00:00:00Z", FIRST, "2024-01-01T00:00:00Z"),
        (
            "2024-01-01T12:00:00.25Z",
            "2024-01-01T12:00:00.25Z/2024-01-01T12:00:00.25Z",
            "2024-01-01T12:00:00Z",
            "2024-01-01T12:00:00Z",
        ),
    ],
)
def test_what_is_asked_for_is_one_window(text: str | None, window: str | None, first: Any, last: Any) -> None:
    found = asked(text)
    whole = found.seconds
    lo, hi = (seconds(each) if isinstance(each, str) else each for each in (first, last))
    assert whole == Interval(lo, hi)
    assert found.window(whole.lo, whole.hi, head=False) == window


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2020-13", "2021/2020", "2020/2021/2022", "0000", "20200101", "2020-1-1", "2020-01-01T00:00:00"],
)
def test_what_is_no_time_is_said_in_one_line(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--datetime"):
        asked(text)


@given(st.integers(FIRST, LAST))
def test_a_second_is_read_as_it_is_written(second: int) -> None:
    assert seconds(text_of(second)) == second


# --- windows ----------------------------------------------------------------------------------------


def source(extent: Interval, **options: Any) -> Stac:
    made = Stac(Stac.Options(**options))
    made._api = Api({"c": Collection("c", {}, extent)}, "/search", ("post",), filters=False, queries=False)
    made._windows.extents = {"c": extent}
    return made


@given(
    lo=st.integers(-1000, 1000),
    size=st.integers(1, 500),
    first=st.integers(-1200, 1700),
    length=st.integers(-3, 3000),
    parts=st.integers(2, 60),
    order=st.sampled_from(["newest", "oldest"]),
    head=st.booleans(),
    at=st.none() | st.integers(-1000, 1500),
)
@example(lo=0, size=2, first=0, length=0, parts=2, order="newest", head=True, at=None)
@example(lo=0, size=9, first=5, length=0, parts=2, order="oldest", head=False, at=5)
def test_the_parts_of_a_window_are_all_of_it_in_order(
    lo: int, size: int, first: int, length: int, parts: int, order: Any, head: bool, at: int | None
) -> None:
    stac = source(Interval(first, first + length))
    hole = Interval(lo, lo + size - 1)
    where = At(count=10, span=None if at is None else Interval(at, at), depth=3)
    found = stac._windows.divided(Walk(hole, ("c",), order, head=head, at=where), where, parts, 1000)
    if size == 1:
        assert not found
        return
    ascending = found if order == "oldest" else found[::-1]
    assert len(ascending) >= 2
    assert ascending[0].hole.lo == hole.lo
    assert ascending[-1].hole.hi == hole.hi
    assert all(one.hole.hi + 1 == other.hole.lo for one, other in pairwise(ascending))
    assert all(each.hole.size for each in ascending)
    assert [each.head for each in ascending] == [False] * (len(ascending) - 1) + [head]
    assert all(each.at.depth == 4 and each.at.request is None for each in ascending)
    windows = [stac._windows.window(each) or "../.." for each in ascending]
    ends = [window.split("/") for window in windows]
    assert all(one[1] in (other[0], just_below(other[0])) for one, other in pairwise(ends)), "nothing lies between"


def just_below(moment: str) -> str:
    return f"{text_of((seconds(moment) or 0) - 1)[:-1]}.999999999Z"


def test_many_items_of_one_second_get_a_window_of_their_own() -> None:
    stac = source(Interval(FIRST, LAST))
    at = At(count=100, span=Interval(1000, 1000))
    found = stac._windows.divided(Walk(Interval(0, 100_000), ("c",), at=at), at, 2, None)
    assert Interval(1000, 1000) in [each.hole for each in found]
    assert not stac._windows.divided(replace(found[0], hole=Interval(1000, 1000)), at, 2, None)


# --- searches ---------------------------------------------------------------------------------------


def test_one_search_has_one_scope_however_it_is_written() -> None:
    one = Search.of((1, 2, 3, 4), ("b", "a"), '{"op": "=", "args": [1, 1]}')
    other = Search.of((1.0, 2.0, 3.0, 4.0), ("a", "b"), '{"args":[1,1],"op":"="}')
    assert one.collection(one.scope("c")) == "c"
    assert Search.of((), (), None).scope("c") == "c"
    assert one.scope("c") == other.scope("c")


def test_a_filter_that_is_no_json_is_said() -> None:
    with pytest.raises(ConfigurationError, match="--filter"):
        Search.of((), (), '{"op": ')


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "a,b,c,d"])
def test_a_box_that_is_none_is_refused(box: str) -> None:
    with pytest.raises(ValueError, match="bbox"):
        Stac.Options(stac_bbox=box)
