"""What each answer of pr0gramm says and proves, on recorded bodies and composed ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.client import MOST_EVIDENCE, Answer
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import Detail, Interval, Order, Outcome, Page, Walk
from fetcher.rows import decode
from fetcher.settings import load
from fetcher.sources import find, registry
from fetcher.sources.pr0gramm import COMMENTS, ITEMS, TAGS, YOUNG_SECONDS, Pr0gramm

DATA = Path(__file__).parent / "data" / "pr0gramm"
NOW = 1_500_000_000
OLD = NOW - 10 * YOUNG_SECONDS


class StubClient:
    """Answers with bodies, without any network; remembers what it was asked."""

    def __init__(self, answer: Callable[[str, Mapping[str, Any]], bytes]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.stop = self

    def time(self) -> float:
        return float(NOW)

    def get(self, path: str, params: Mapping[str, object], parse: object = None) -> Answer:
        self.asked.append((path, dict(params)))
        body = self._answer(path, params)
        return Answer(decode(body), 200, body)


def always(answer: Any) -> Any:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return StubClient(lambda path, params: body)


def recorded(name: str, **changes: Any) -> Any:
    return {**json.loads((DATA / name).read_bytes()), **changes}


def item(id: Any, created: Any = OLD, **fields: Any) -> dict[str, Any]:
    return {"id": id, "created": created, "flags": 1, "user": "user0001", **fields}


def listing(*items: Any, at_end: bool = False, at_start: bool = False, ts: Any = NOW) -> dict[str, Any]:
    listed = [item(each) if isinstance(each, int) else each for each in items]
    envelope = {"atEnd": at_end, "atStart": at_start, "error": None, "items": listed}
    return envelope if ts is None else {**envelope, "ts": ts, "cache": None, "rt": 1, "qc": 1}


SOURCE = Pr0gramm(Pr0gramm.Options())


def down(lo: int, hi: int, **more: Any) -> Walk:
    return Walk(Interval(lo, hi), (1,), "newest", **more)


def up(lo: int, hi: int, **more: Any) -> Walk:
    return Walk(Interval(lo, hi), (1,), "oldest", **more)


def page(walk: Walk, answer: Any) -> Page:
    return SOURCE.page(always(answer), walk)


def ids(page: Page) -> list[int]:
    return [row[0] for row in page.rows]


def field(page: Page, name: str) -> list[Any]:
    at = [column.name for column in ITEMS.columns].index(name)
    return [row[at] for row in page.rows]


# What a page proves


def test_the_first_page_of_the_head_is_asked_for_without_a_bound_and_proves_up_to_what_was_known() -> None:
    client = always(listing(105, 103, 90, at_start=True))
    found = SOURCE.page(client, down(1, 100, head=True))
    assert client.asked == [("/items/get", {"flags": 1})]
    assert (found.proven, ids(found)) == (Interval(90, 100), [105, 103, 90])
    assert found.next == down(1, 89, head=True, started=True)


def test_the_pages_below_are_asked_for_from_there_and_prove_the_gap_above_them_empty() -> None:
    client = always(listing(80, 70))
    found = SOURCE.page(client, down(1, 89, head=True, started=True))
    assert client.asked == [("/items/get", {"flags": 1, "older": 90})]
    assert found.proven == Interval(70, 89)
    assert found.next == down(1, 69, head=True, started=True)


def test_a_hole_below_the_head_is_asked_for_with_its_bound_from_the_first_page_on() -> None:
    client = always(listing(45, 44))
    SOURCE.page(client, down(40, 50))
    assert client.asked == [("/items/get", {"flags": 1, "older": 51})]


def test_upwards_a_page_is_asked_for_by_newer_and_proves_from_there() -> None:
    client = always(listing(12, 15))
    found = SOURCE.page(client, up(10, 100, head=True))
    assert client.asked == [("/items/get", {"flags": 1, "newer": 9})]
    assert found.proven == Interval(10, 15)
    assert found.next == up(16, 100, head=True, started=True)


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_order_within_a_page_is_not_trusted(order: Order) -> None:
    walk = Walk(Interval(1, 100), (1,), order)
    found = page(walk, listing(50, 70, 30, 60))
    assert found.proven == (Interval(30, 100) if order == "newest" else Interval(1, 70))
    assert sorted(ids(found)) == [30, 50, 60, 70]


def test_a_recorded_page_out_of_order_proves_between_its_lowest_and_highest() -> None:
    found = page(down(1, 10**6, head=True), recorded("items_get_promoted_2015.json"))
    # One of its items was 859 s old then, all the others older.
    assert found.proven == Interval(790068, 791266)
    assert len(found.rows) == 120
    assert (found.notes, found.failures) == ((), ())


def test_the_end_of_the_list_proves_down_to_the_lowest_there_can_be() -> None:
    found = page(down(1, 50), listing(40, 30, at_end=True))
    assert (found.proven, found.next) == (Interval(1, 50), None)


def test_the_start_of_the_list_ends_a_walk_upwards() -> None:
    found = page(up(30, 50, head=True), listing(40, 60, at_start=True))
    assert (found.proven, ids(found), found.next) == (Interval(30, 50), [40, 60], None)
    found = page(up(30, 50), listing(40, at_start=True))
    assert (found.proven, found.next) == (Interval(30, 50), None)


def test_the_other_end_ends_nothing() -> None:
    assert page(down(1, 50), listing(40, at_start=True)).next is not None
    assert page(up(1, 50), listing(40, at_end=True)).next is not None


def test_the_top_of_the_head_is_not_proven_where_nothing_was_listed() -> None:
    # The newest items known when the walk was planned are no more.
    assert page(down(1, 100, head=True), listing(90, 80)).proven == Interval(80, 90)
    assert page(up(1, 100, head=True), listing(80, 90, at_start=True)).proven == Interval(1, 90)


def test_rows_outside_the_hole_are_dropped() -> None:
    found = page(down(40, 50), listing(60, 51, 50, 45, 39, 30))
    assert (ids(found), found.proven, found.next) == ([50, 45], Interval(40, 50), None)
    found = page(up(40, 50), listing(30, 39, 40, 45, 51, 60))
    assert (ids(found), found.proven, found.next) == ([40, 45], Interval(40, 50), None)


def test_a_page_wholly_beyond_the_hole_proves_it_empty() -> None:
    found = page(down(40, 50), listing(39, 30))
    assert (found.rows, found.proven, found.next) == ((), Interval(40, 50), None)
    found = page(up(40, 50), listing(51, 60))
    assert (found.rows, found.proven, found.next) == ((), Interval(40, 50), None)


@pytest.mark.parametrize("walk", [down(40, 50), up(40, 50), down(1, 50, head=True), up(1, 50, head=True)])
def test_an_empty_page_that_is_not_the_last_is_malformed(walk: Walk) -> None:
    with pytest.raises(RequestFailed, match="without items") as failed:
        page(walk, listing())
    assert failed.value.outcome is Outcome.MALFORMED


def test_an_empty_page_keeps_its_evidence() -> None:
    with pytest.raises(RequestFailed) as failed:
        page(down(40, 50), listing())
    assert failed.value.status == 200
    assert failed.value.body


def test_a_page_that_does_not_go_on_is_malformed() -> None:
    with pytest.raises(RequestFailed):
        page(down(40, 50), listing(60, 55, 51))
    with pytest.raises(RequestFailed):
        page(up(40, 50), listing(30, 39))


def test_an_empty_page_at_the_end_proves_all_that_is_left() -> None:
    found = page(down(1, 50), recorded("error_items_get_nothingFound.constructed.json"))
    assert (found.rows, found.proven, found.next) == ((), Interval(1, 50), None)
    assert page(up(40, 50), listing(at_start=True)).proven == Interval(40, 50)


def test_only_true_is_the_end() -> None:
    for value in (None, 0, "false", [], 1):
        assert page(down(1, 50), {**listing(40), "atEnd": value}).next is not None


# Young items


@pytest.mark.parametrize("ts", [NOW, None, "soon", float(NOW)])
def test_coverage_stops_below_items_that_are_young(ts: Any) -> None:
    young, old = NOW - YOUNG_SECONDS + 1, NOW - YOUNG_SECONDS
    found = page(
        down(1, 100, head=True), listing(item(99, NOW), item(95, young), item(90, old), item(80), ts=ts, at_start=True)
    )
    assert ids(found) == [99, 95, 90, 80]
    assert found.proven == Interval(80, 94)
    assert found.next == down(1, 79, head=True, started=True)


def test_a_page_of_young_items_proves_nothing_and_the_walk_goes_on() -> None:
    found = page(down(1, 100, head=True), listing(item(99, NOW), item(95, NOW)))
    assert (ids(found), found.proven) == ([99, 95], None)
    assert found.next == down(1, 94, head=True, started=True)


def test_upwards_too() -> None:
    found = page(up(1, 100, head=True), listing(item(50), item(60, NOW), at_start=True))
    assert (ids(found), found.proven, found.next) == ([50, 60], Interval(1, 59), None)


def test_youth_is_told_by_the_apis_clock() -> None:
    assert page(down(1, 100, head=True), listing(item(99, 50), ts=100)).proven is None
    assert page(down(1, 100, head=True), listing(item(99, NOW), ts=NOW + 601)).proven == Interval(99, 99)


# Items


def test_a_recorded_item_has_all_its_fields_in_their_columns() -> None:
    found = page(down(1, 10**7, head=True), recorded("items_get_2026_shape.constructed.json", ts=1_780_000_000))
    assert found.notes == ()
    assert field(found, "id") == [6500123, 6500121]
    assert field(found, "userId") == [4711, 4712]
    assert field(found, "source") == [None, "https://example.org/x"]
    assert field(found, "audio") == [1, 0]
    assert field(found, "repost") == [0, 1]
    assert field(found, "promoted") == [1_000_000_001, 0]
    assert json.loads(field(found, "variants")[0])[0]["bitRate"] == 1200.5
    assert [row[-1] for row in found.rows] == [None, None]


@pytest.mark.parametrize("name", ["items_get_user_2018.json", "items_get_id_2018.json"])
def test_older_shapes_are_understood_as_well(name: str) -> None:
    found = page(down(1, 10**7), recorded(name))
    assert (found.notes, found.failures) == ((), ())
    assert 2525097 in ids(found)
    assert field(found, "deleted")[-1] == 0


def test_a_new_field_is_kept_and_noted() -> None:
    found = page(down(1, 50), listing(item(40, karma=[1]), item(30)))
    assert [row[-1] for row in found.rows] == ['{"karma":[1]}', None]
    assert found.notes == ("items.karma: a field not known yet; kept in extra",)


def test_an_id_listed_twice_is_one_row() -> None:
    assert ids(page(down(1, 50), listing(40, 30, 40))) == [40, 30]


@pytest.mark.parametrize("broken", [{"created": None}, {"flags": "all"}, {"created": []}])
def test_one_unusable_item_is_a_failure_and_the_others_are_rows(broken: dict[str, Any]) -> None:
    answer = listing(45, {**item(40), **broken}, 35)
    found = page(down(1, 50), answer)
    assert ids(found) == [45, 35]
    (failure,) = found.failures
    assert (failure.key, failure.outcome, failure.status, failure.due_at) == (40, Outcome.MALFORMED, 200, None)
    assert failure.body == json.dumps(answer).encode()
    assert found.proven == Interval(35, 50)


def test_an_unusable_item_at_the_edge_is_proven_listed_too() -> None:
    found = page(down(1, 50), listing(45, {"id": 30}))
    assert (found.proven, [each.key for each in found.failures]) == (Interval(30, 50), [30])


def test_an_unusable_item_outside_the_hole_is_dropped() -> None:
    assert page(down(40, 50), listing(45, {"id": 30}, {"id": 60})).failures == ()


@pytest.mark.parametrize("nameless", [{}, None, 5, [], {"id": "x"}, {"id": None}, {"id": 0}, {"id": -1}, {"id": 2**63}])
def test_an_unusable_item_that_has_no_name_spoils_its_page(nameless: Any) -> None:
    answer = listing(45, 40)
    answer["items"].append(nameless)
    with pytest.raises(RequestFailed) as failed:
        page(down(1, 50), answer)
    assert failed.value.outcome is Outcome.MALFORMED
    assert failed.value.status == 200
    assert failed.value.body == json.dumps(answer).encode()[:MOST_EVIDENCE]


@pytest.mark.parametrize("id", [0, -1, "-5"])
def test_an_id_that_cannot_be_proves_nothing(id: Any) -> None:
    try:
        found = page(down(1, 50), listing(45, 40, item(id)))
    except RequestFailed:
        return
    assert found.proven == Interval(40, 50)


def test_an_id_as_text_is_a_number() -> None:
    assert page(down(1, 50), listing(item("40"))).proven == Interval(40, 50)


@pytest.mark.parametrize("answer", [{}, [], None, {"items": None}, {"items": {}}, b"[1]", b'"items"'])
def test_a_page_without_a_list_of_items_is_malformed(answer: Any) -> None:
    for ask in (lambda: page(down(1, 50), answer), lambda: SOURCE.universe(always(answer))):
        with pytest.raises(RequestFailed, match="without a list") as failed:
            ask()
        assert failed.value.outcome is Outcome.MALFORMED
        assert failed.value.body is not None


# The universe


def test_the_universe_reaches_up_to_the_newest_item() -> None:
    client = always(listing(99, 105, {"id": 103}, at_start=True))
    assert SOURCE.universe(client) == Interval(1, 105)
    assert client.asked == [("/items/get", {"flags": 1})]


def test_an_unusable_newest_item_counts() -> None:
    assert SOURCE.universe(always(listing(99, {"id": 110}))) == Interval(1, 110)


def test_an_empty_list_is_an_empty_universe() -> None:
    assert SOURCE.universe(always(listing(at_end=True, at_start=True))).size == 0


# Flags


@pytest.mark.parametrize(
    ("flags", "scopes"), [(1, (1,)), (9, (1, 8)), (15, (1, 2, 4, 8)), (16, (16,)), (31, (1, 2, 4, 8, 16))]
)
def test_each_flag_is_a_scope_and_they_are_asked_for_together(flags: int, scopes: tuple[int, ...]) -> None:
    source = Pr0gramm(Pr0gramm.Options(content_flags=flags))
    assert source.scopes == scopes
    client = always(listing(40))
    source.universe(client)
    found = source.page(client, Walk(Interval(1, 50), scopes))
    assert [params["flags"] for _, params in client.asked] == [flags, flags]
    assert found.scopes == scopes


def test_a_walk_asks_for_its_own_scopes_only() -> None:
    source, client = Pr0gramm(Pr0gramm.Options(content_flags=9)), always(listing(40))
    source.page(client, Walk(Interval(1, 50), (8,)))
    assert client.asked[0][1]["flags"] == 8


@pytest.mark.parametrize("flags", [0, 32, -1, "sfw"])
def test_other_flags_are_refused(flags: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"CONTENT_FLAGS \(--flags\)"):
        load(Pr0gramm.Options, {"content_flags": flags})


def test_only_the_cookies_that_were_given_are_sent() -> None:
    assert SOURCE.cookies == {}
    given = Pr0gramm(load(Pr0gramm.Options, {"me": "secret"}))
    assert {name: each.get_secret_value() for name, each in given.cookies.items()} == {"me": "secret"}
    assert "secret" not in repr(given.cookies)


# Details


def test_a_recorded_detail_is_its_tags_and_comments() -> None:
    client = always(recorded("items_info_2016.json"))
    found = SOURCE.detail(client, 1135594)
    assert client.asked == [("/items/info", {"itemId": 1135594})]
    assert isinstance(found, Detail)
    assert {name: len(rows) for name, rows in found.rows.items()} == {"tags": 14, "comments": 22}
    assert found.notes == ()
    tags, comments = found.rows["tags"], found.rows["comments"]
    assert tags[0] == (1135594, 8576639, "9.800円", 0.609657, None)
    assert {len(row) for row in tags} == {len(TAGS.columns) + 2}
    assert {len(row) for row in comments} == {len(COMMENTS.columns) + 2}
    assert {row[0] for row in comments} == {1135594}
    assert all(row[-1] is None for row in (*tags, *comments))


def test_an_item_without_tags_and_comments_is_a_good_answer() -> None:
    assert SOURCE.detail(always({"tags": [], "comments": [], "ts": NOW}), 5) == Detail({"tags": [], "comments": []})


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"tags": []},
        {"comments": []},
        {"tags": None, "comments": []},
        {"tags": [], "comments": {}},
        {"tags": [{"id": 1}], "comments": []},
        {"tags": [{"tag": "x"}], "comments": []},
        {"tags": [], "comments": [{"id": 1}]},
        {"tags": [], "comments": [{"content": "x"}]},
        {"tags": [], "comments": [None]},
        {"tags": ["x"], "comments": []},
        recorded("inbox_unread_empty_2015.json"),
        recorded("comments_vote_429_2017.json"),
        recorded("items_get_id_2018.json"),
    ],
)
def test_what_is_no_detail_is_malformed_with_its_body(answer: Any) -> None:
    with pytest.raises(RequestFailed) as failed:
        SOURCE.detail(always(answer), 5)
    assert (failed.value.outcome, failed.value.status) == (Outcome.MALFORMED, 200)
    assert failed.value.body == json.dumps(answer).encode()


def test_a_lone_surrogate_and_a_huge_integer_in_a_detail_do_no_harm() -> None:
    body = rb"""{"tags": [{"id": 1, "tag": "ok", "confidence": 0.5}],
        "comments": [{"id": 2, "content": "x", "name": "\ud800", "up": 9223372036854775808}]}"""
    found = SOURCE.detail(always(body), 5)
    assert isinstance(found, Detail)
    assert json.loads(found.rows["comments"][0][-1]) == {"name": "\ud800", "up": 2**63}
    assert len(found.notes) == 2


# The API's own errors (those in recorded bodies: test_client)


@pytest.mark.parametrize(
    ("status", "data", "outcome"),
    [
        (200, {"error": None}, None),
        (200, {"error": "nothingFound"}, None),
        (200, {"error": "limitReached"}, Outcome.LIMITED),
        (400, {"error": "limitReached"}, Outcome.LIMITED),
        (503, {"error": "limitReached"}, Outcome.LIMITED),
        (200, {"error": "rateLimited"}, Outcome.LIMITED),
        (403, {"code": 429}, Outcome.LIMITED),
        (200, {"error": "notFound"}, Outcome.GONE),
        (404, {"error": "notFound"}, None),
        (200, {"error": "nsfwRequired"}, Outcome.DENIED),
        (200, {"error": "polRequired"}, Outcome.DENIED),
        (403, {"error": "forbidden", "code": 403}, None),
        (200, {"error": "internalError"}, Outcome.MALFORMED),
        (206, {"error": "internalError"}, Outcome.MALFORMED),
        (500, {"error": "internalError"}, None),
        (200, {"error": ["limitReached"]}, Outcome.MALFORMED),
        (200, {"error": ""}, None),
        (200, {"error": {}, "code": []}, None),
        (200, [], None),
        (200, None, None),
        (200, "limitReached", None),
    ],
)
def test_what_the_api_means(status: int, data: Any, outcome: Outcome | None) -> None:
    assert SOURCE.judge(status, data) is outcome


# Whole walks


class World:
    """The API over a set of ids, each page shuffled; `change` happens between two answers."""

    def __init__(self, ids: set[int], size: int, chance: random.Random, change: Callable[[World], None]) -> None:
        self.ids = set(ids)
        self.young: set[int] = set()
        self._size = size
        self._chance = chance
        self._change = change

    def answer(self, path: str, params: Mapping[str, Any]) -> bytes:
        if "newer" in params:
            found = sorted(each for each in self.ids if each > params["newer"])
        else:
            found = sorted((each for each in self.ids if each < params.get("older", 2**62)), reverse=True)
        shown = found[: self._size]
        at_end = not self.ids or (min(self.ids) in shown) or (not shown and "newer" not in params)
        at_start = not self.ids or (max(self.ids) in shown) or (not shown and "newer" in params)
        self._chance.shuffle(shown)
        items = [item(each, NOW if each in self.young else OLD) for each in shown]
        body = json.dumps(listing(*items, at_end=at_end, at_start=at_start)).encode()
        self._change(self)
        return body


def walked(world: World, walk: Walk | None) -> list[Page]:
    client: Any = StubClient(world.answer)
    pages: list[Page] = []
    while walk is not None:
        pages.append(SOURCE.page(client, walk))
        walk = pages[-1].next
        assert len(pages) < 200, "the walk does not end"
    return pages


def proven(pages: list[Page]) -> list[int]:
    return [n for page in pages if page.proven for n in range(page.proven.lo, page.proven.hi + 1)]


orders = st.sampled_from(["newest", "oldest"])
some_ids = st.sets(st.integers(1, 60), max_size=40)


@settings(max_examples=200, deadline=None)
@given(some_ids, st.integers(1, 9), orders, st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_a_walk_proves_the_universe_once_and_lists_every_item_once(
    present: set[int], size: int, order: Order, chance: random.Random, arrive: bool, vanish: bool
) -> None:
    ever = set(present)

    def change(world: World) -> None:
        if arrive and len(ever) < 80 and chance.random() < 0.5:
            new = max(ever, default=0) + chance.randint(1, 5)
            world.ids.add(new)
            ever.add(new)
        if vanish and world.ids and chance.random() < 0.5:
            world.ids.remove(chance.choice(sorted(world.ids)))

    world = World(present, size, chance, change)
    client: Any = StubClient(world.answer)
    universe = SOURCE.universe(client)
    before = set(world.ids)
    pages = walked(world, Walk(universe, (1,), order, head=True) if universe.size else None)
    covered = proven(pages)
    listed = [id for page in pages for id in ids(page)]
    assert sorted(covered) == list(range(1, max(covered, default=0) + 1)), "proven twice, or not at all"
    assert len(listed) == len(set(listed))
    assert set(listed) <= ever
    # What came after the newest id was asked for is listed, and left to be proven by the next walk.
    assert max(covered, default=0) <= universe.hi
    assert {id for id in listed if id <= universe.hi} <= set(covered)
    # What was there all the time was seen, and all there was, where nothing changed.
    assert {id for id in before & world.ids if id <= universe.hi} <= set(listed)
    if not (arrive or vanish):
        assert max(covered, default=0) == universe.hi
        assert set(listed) == present


@settings(max_examples=150, deadline=None)
@given(some_ids, st.integers(1, 9), orders, st.randoms(use_true_random=False), st.integers(1, 60), st.integers(0, 40))
def test_a_hole_is_proven_exactly_and_lists_what_is_in_it(
    present: set[int], size: int, order: Order, chance: random.Random, lo: int, width: int
) -> None:
    pages = walked(World(present, size, chance, lambda _: None), Walk(Interval(lo, lo + width), (1,), order))
    assert sorted(proven(pages)) == list(range(lo, lo + width + 1))
    assert sorted(id for page in pages for id in ids(page)) == sorted(id for id in present if lo <= id <= lo + width)


def proven_beside_the_young(present: set[int], young: set[int], size: int, order: Order) -> list[int]:
    world = World(present, size, random.Random(0), lambda _: None)
    world.young = young
    pages = walked(world, Walk(Interval(1, max(present)), (1,), order, head=True))
    assert sorted(id for page in pages for id in ids(page)) == sorted(present)
    return sorted(proven(pages))


@settings(max_examples=100, deadline=None)
@given(some_ids.filter(bool), st.integers(1, 9), st.integers(1, 61))
def test_all_is_listed_and_proven_below_the_young(present: set[int], size: int, young_from: int) -> None:
    young = {id for id in present if id >= young_from}
    expected = list(range(1, min(young, default=max(present) + 1)))
    assert proven_beside_the_young(present, young, size, "newest") == expected
    assert proven_beside_the_young(present, young, size, "oldest") == expected


def test_upwards_nothing_is_proven_between_young_items() -> None:
    assert proven_beside_the_young({5, 10, 15, 20}, {10, 15, 20}, 2, "oldest") == list(range(1, 10))
    assert proven_beside_the_young({1, 5, 10, 15, 20}, {10, 15, 20}, 1, "oldest") == list(range(1, 10))


# What it declares


def test_it_is_a_source_and_is_found() -> None:
    assert find("pr0gramm") is registry()["pr0gramm"] is Pr0gramm
    assert [table.name for table in SOURCE.tables] == ["items", "tags", "comments"]


def test_a_source_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no source is called 'x'; there are: .*pr0gramm"):
        find("x")
