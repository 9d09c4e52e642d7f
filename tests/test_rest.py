"""A described REST API: every way of paging to its end, killed and gone on with, bad descriptions, those we ship."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fetcher import ConfigurationError, Interrupted, LoginError, RemoteError, Stop, Summary, fetch, verify
from fetcher.service import Service
from fetcher.simulator import Answer, Profile, RestWorld, Share, Simulator
from fetcher.sources import find
from fetcher.sources.rest import shipped
from fetcher.sources.rest.paging import next_link, seconds
from fetcher.sources.rest.parsing import parse
from fetcher.sources.rest.tables import columns_of
from tests.helpers import FAST, ROOT, column, dump, eventually, one, query, run_fetcher

WAYS = {
    "cursor": 'url = "/cursor"\nitems = "items"\nparameter = "before"\nmore = "has_more"',
    "older": 'url = "/older"\nitems = "items"\nparameter = "older"\ncursor = "created_at"\ntime = "iso"',
    "page": 'url = "/page"\nparameter = "page"',
    "numbered": 'url = "/numbered"\nparameter = "page"\nitems = "data"\nlast = "meta.last"',
    "offset": 'url = "/offset"\nparameter = "offset"\nitems = "data.items"',
    "token": 'url = "/token"\nparameter = "page_token"\nitems = "results"\nnext = "next_token"',
    "next": 'url = "/next"\nitems = "items"\nnext = "next"',
    "link": 'url = "/link"',
    "ids": 'newest = "/newest"\nnewest_at = "newest"',
}
"""The part of [list] that says how to page, by the way of paging."""

Simulate = Callable[..., Simulator]


def described(tmp_path: Path, way: str, more: str = "", *, name: str = "shop", head: str = "") -> str:
    """The path of a description of the simulated API; `more` comes behind [list]."""
    size = "" if way == "ids" else 'size = 20\nsize_parameter = "limit"\n'
    detail = '[detail]\nurl = "/items/{key}"\nitem = "."\n' if way == "ids" else ""
    pages = {"older": "cursor", "numbered": "page"}.get(way, way)
    text = f'name = "{name}"\n{head}\n[list]\npages = "{pages}"\n{WAYS[way]}\n{size}{more}\n{detail}'
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def mirror(source: str, db: Path, simulator: Simulator, path: str = "", **settings: Any) -> Summary:
    return fetch(source, db, **{"api_base_url": simulator.url + path, **FAST, **settings})


def assert_mirrored(db: Path, world: RestWorld) -> None:
    """Exactly the items of the world, nothing left to do, and verified."""
    there = "SELECT id FROM items WHERE gone_at IS NULL AND unlisted_at IS NULL ORDER BY id"
    assert column(db, there) == list(world.ids())
    rows = query(db, "SELECT id, title, score, rating, open, created_at, extra FROM items WHERE gone_at IS NULL")
    for id, *row in rows:
        item = world.item(id)
        expected = [item["title"], item["score"], item["rating"], int(item["open"]), item["created_at"], None]
        assert row == expected or not world.has(id)
    verdict = verify(db)
    assert verdict.complete, verdict
    assert one(db, "SELECT count(*) FROM work") == one(db, "SELECT count(*) FROM walks") == 0


# --- every way of paging ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_paging_gives_all_items(way: str, tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=3, items=130)
    simulator = simulate(world)
    summary = mirror(described(tmp_path, way), db, simulator)
    assert summary.ended == "complete"
    assert_mirrored(db, world)
    # A time is listed once more with the next page: it may have more items.
    assert summary.counts.stored == 130 or way == "older"
    assert summary.counts.gone == (world.newest - 130 if way == "ids" else 0)


@pytest.mark.parametrize("way", WAYS)
def test_what_arrives_between_two_runs_is_there_after_the_second(
    way: str, tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=4, items=60)
    simulator, source = simulate(world), described(tmp_path, way)
    mirror(source, db, simulator)
    world.arrive(25)
    assert mirror(source, db, simulator).counts.new == 25
    assert_mirrored(db, world)


@pytest.mark.parametrize("way", ["cursor", "page", "offset", "token", "next", "link"])
def test_a_list_with_the_oldest_first_is_walked_to_its_end(
    way: str, tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=5, items=90)
    more = 'params = {order = "oldest"}\n' + ('order = "oldest"\n' if way == "cursor" else "")
    mirror(described(tmp_path, way, more), db, simulate(world))
    assert_mirrored(db, world)


def test_a_cursor_from_the_oldest_is_not_taken_for_one_from_the_newest(
    tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    source = described(tmp_path, "cursor", 'params = {order = "oldest"}')
    with pytest.raises(
        ConfigurationError, match=r'shop: list\.order: the list begins with the oldest: order = "oldest"'
    ):
        mirror(source, db, simulate(RestWorld(items=90)))


@pytest.mark.parametrize("way", ["page", "offset", "token", "next", "link"])
def test_what_is_removed_is_listed_no_more(way: str, tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=6, items=70)
    simulator, source = simulate(world), described(tmp_path, way)
    mirror(source, db, simulator)
    gone = world.ids()[10:13]
    world.remove(*gone)
    with closing(sqlite3.connect(db)) as conn, conn:
        conn.execute("UPDATE items SET listed_at = listed_at - 60")
    mirror(source, db, simulator)
    assert column(db, "SELECT id FROM items WHERE unlisted_at IS NOT NULL ORDER BY id") == list(gone)
    assert_mirrored(db, world)


# --- killed, stopped, gone on with ------------------------------------------------------------------


def stopped_after(pages: int) -> tuple[Stop, Callable[..., Answer | None]]:
    """A Stop that is set by the request for that page, counted from 0."""
    stop, asked = Stop(), [0]

    def fault(kind: str, key: int, attempt: int) -> Answer | None:
        if kind == "list":
            asked[0] += 1
            if asked[0] > pages:
                stop.set()
                return Answer(503, body=b"{}")
        return None

    return stop, fault


@pytest.mark.parametrize("way", ["page", "offset", "token", "next", "link"])
def test_a_walk_goes_on_from_the_token_that_an_interrupted_run_has_kept(
    way: str, tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=7, items=200)
    # The first of two further requests is for the columns, the second to see that there is a list.
    stop, fault = stopped_after(2 + 5)
    source = described(tmp_path, way)
    with pytest.raises(Interrupted):
        mirror(source, db, simulate(world, faults=fault), stop=stop, db_batch_size=1, db_batch_seconds=0.01)
    kept = json.loads(one(db, "SELECT token FROM walks"))
    assert kept["pages"] == 5
    assert not verify(db).complete
    summary = mirror(source, db, simulate(world))
    # 10 pages: of the rest at most one was listed before, and one comes to see that there is a list, one is empty.
    assert summary.counts.pages <= 7
    assert_mirrored(db, world)


def test_a_token_that_the_api_knows_no_more_has_the_walk_begin_anew(
    tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=8, items=200)
    stop, fault = stopped_after(2 + 5)
    source = described(tmp_path, "token")
    with pytest.raises(Interrupted):
        mirror(source, db, simulate(world, faults=fault), stop=stop, db_batch_size=1, db_batch_seconds=0.01)
    world.forget_tokens()
    assert mirror(source, db, simulate(world)).counts.pages == 11
    assert_mirrored(db, world)


@pytest.mark.parametrize("way", WAYS)
def test_killed_runs_end_in_what_one_run_makes(way: str, tmp_path: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=9, items=150 if way == "ids" else 400)
    simulator, source = simulate(world, latency=0.01), described(tmp_path, way)
    whole, killed = tmp_path / "whole.db", tmp_path / "killed.db"
    mirror(source, whole, simulator)
    command = [sys.executable, "-m", "fetcher", "fetch", source, str(killed), "--base-url", simulator.url]
    command += ["--delay", "0", "--max-rate", "0", "--batch-size", "10"]
    for requests in (7, 9):
        before = simulator.requests.total()
        with subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            eventually(lambda before=before, requests=requests: simulator.requests.total() >= before + requests)
            process.send_signal(signal.SIGKILL)
    mirror(source, killed, simulator)
    assert dump(killed) == dump(whole)
    assert_mirrored(killed, world)


# --- faults -----------------------------------------------------------------------------------------


def none_remaining(seconds: int) -> Answer:
    """The refusal of GitHub."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + seconds)}
    return Answer(403, headers, b'{"message":"API rate limit exceeded for 127.0.0.1."}')


@pytest.mark.parametrize("way", WAYS)
def test_a_hostile_api_costs_no_item(way: str, tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=10, items=120)
    mishaps = tuple(Share(what, 0.05) for what in ("500", "429", "truncated", "html", "empty", "reset"))

    def fault(kind: str, key: int, attempt: int) -> Answer | None:
        return none_remaining(1) if kind != "max" and (key + attempt) % 40 == 3 else None

    head = '[limited]\nstatus = [403]\nheader = {X-RateLimit-Remaining = "0"}\nreset = "X-RateLimit-Reset"'
    simulator = simulate(world, profile=Profile(seed=1, mishaps=mishaps), faults=fault)
    mirror(described(tmp_path, way, head=head), db, simulator, max_backoff_seconds=0.05)
    assert_mirrored(db, world)


def test_a_page_that_comes_twice_is_no_next_page(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    source = described(tmp_path, "page")
    Path(source).write_text(Path(source).read_text().replace('parameter = "page"', 'parameter = "pageno"'))
    with pytest.raises(Exception, match="the same page came twice"):
        mirror(source, db, simulate(RestWorld(items=90)), max_retries=1, max_backoff_seconds=0.01)


def edited(edit: Callable[[Any], object], page: int = 1, way: str = "list") -> Callable[..., Answer | None]:
    """Changes the body of each list page from that one on, the items above being so many pages of 20."""

    def fault(kind: str, key: int, attempt: int) -> Answer | None:
        def changed(body: bytes) -> bytes:
            data = json.loads(body)
            edit(data)
            return json.dumps(data).encode()

        return Answer(edit=changed) if kind == way and key >= 20 * (page - 1) else None

    return fault


def test_pages_that_lead_in_a_circle_end_the_walk(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=30, items=200)
    tokens: list[str] = []

    def back(body: dict[str, Any]) -> None:
        # From the sixth page on it goes round three pages.
        if body["next_token"]:
            tokens.append(body["next_token"])
        body["next_token"] = tokens[-4] if len(tokens) > 6 else body["next_token"]

    source = described(tmp_path, "token")
    simulator = simulate(world, faults=edited(back))
    with pytest.raises(Exception, match=r"list\.token: the pages lead back to one that was there before"):
        mirror(source, db, simulator, max_retries=0)
    assert simulator.requests["list"] < 20
    assert not verify(db).complete


def test_a_slip_in_the_path_of_more_loses_no_item(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=31, items=90)
    source = described(tmp_path, "cursor")
    Path(source).write_text(Path(source).read_text().replace("has_more", "has_mor"))
    mirror(source, db, simulate(world))
    assert_mirrored(db, world)


@pytest.mark.parametrize(("size", "said"), [(20, True), (100, False)])
def test_a_full_page_that_names_no_next_one_is_said(
    size: int, said: bool, tmp_path: Path, db: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    source = described(tmp_path, "token")
    text = Path(source).read_text().replace('"next_token"', '"next_tokn"').replace("size = 20", f"size = {size}")
    Path(source).write_text(text)
    mirror(source, db, simulate(RestWorld(seed=32, items=60)))
    assert ("list.next: the first page names no next one" in caplog.text) is said


@pytest.mark.parametrize(("key", "words"), [("uid", "no such field"), ("rating", "it is real"), ("title", "several")])
def test_a_field_that_names_no_item_is_no_key(
    key: str, words: str, tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    source = described(tmp_path, "page", f'key = "{key}"')
    with pytest.raises(Exception, match=rf"list\.key: {key} names no item: .*{words}"):
        mirror(source, db, simulate(RestWorld(items=90)), max_outage_seconds=0.1)


@pytest.mark.parametrize("way", ["cursor", "older", "page", "token"])
def test_an_item_without_a_key_leaves_the_others_and_proves_nothing(
    way: str, tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=33, items=90)
    ids = [*reversed(world.ids())]
    hurt = ids[30]

    def unnamed(body: Any) -> None:
        for item in body if type(body) is list else body.get("items") or body.get("results") or ():
            if item["id"] == hurt:
                del item["id"]

    source = described(tmp_path, way)
    summary = mirror(source, db, simulate(world, faults=edited(unnamed)))
    assert summary.exit_code == 3
    assert column(db, "SELECT id FROM items ORDER BY id DESC") == [id for id in ids if id != hurt]
    stage, message = query(db, "SELECT stage, message FROM failures")[0]
    assert stage == "list"
    assert "list.key: an item cannot be told from others" in message
    assert not verify(db).complete
    mirror(source, db, simulate(world))
    assert_mirrored(db, world)
    assert query(db, "SELECT * FROM failures") == []


@pytest.mark.parametrize("way", ["older", "page", "token"])
def test_an_unusable_item_is_a_failure_and_the_others_of_its_page_are_kept(
    way: str, tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=34, items=90)
    ids = [*reversed(world.ids())]
    hurt = ids[30]

    def spoil(body: Any) -> None:
        for item in body if type(body) is list else body.get("items") or body.get("results") or ():
            if item["id"] == hurt:
                item["created_at"], item["lines"] = "soon", "none"

    source = described(tmp_path, way, '[tables.lines]\nfrom = "lines"\nkey = "id"')
    assert mirror(source, db, simulate(world, faults=edited(spoil))).exit_code == 3
    assert column(db, "SELECT id FROM items ORDER BY id DESC") == [id for id in ids if id != hurt]
    assert query(db, "SELECT stage, key, outcome FROM failures") == [("item", hurt, "malformed")]
    assert not verify(db).complete
    mirror(source, db, simulate(world), full_update=True)
    assert_mirrored(db, world)


def test_rows_of_an_item_that_share_their_key_are_not_lost_in_silence(
    tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=40, items=90)

    def shared(body: dict[str, Any]) -> None:
        for number, item in enumerate(body["results"]):
            text = "same" if number else "other"
            item["lines"] = [{"id": 1, "text": "same"}, {"id": 1, "text": text}, {"id": 2, "text": text}]

    lines = '[tables.lines]\nfrom = "lines"\nkey = "id"'
    summary = mirror(described(tmp_path, "token", lines), db, simulate(world, faults=edited(shared)))
    assert summary.exit_code == 3
    assert one(db, "SELECT count(*) FROM lines") == 2 * (90 - 5)
    assert (
        column(db, "SELECT message FROM failures") == ["tables.lines.key: id tells no rows apart: several have 1"] * 5
    )
    assert b'"other"' in column(db, "SELECT body FROM failures")[0]


def test_a_page_that_is_not_there_is_no_end_unless_the_page_before_says_so(
    tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    source = described(tmp_path, "numbered")
    Path(source).write_text(Path(source).read_text().replace('last = "meta.last"', ""))
    with pytest.raises(Exception, match=r"answered 404: .*: .* list\.last has to tell"):
        mirror(source, db, simulate(RestWorld(items=90)), max_retries=0)
    assert not verify(db).complete


def test_an_item_may_lie_within_what_is_listed(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=35, items=90)

    def wrap(body: dict[str, Any]) -> None:
        body["results"] = [{"cursor": "x", "node": item} for item in body["results"]]

    mirror(described(tmp_path, "token", 'item = "node"'), db, simulate(world, faults=edited(wrap)))
    assert_mirrored(db, world)


def test_a_next_page_on_another_host_is_not_asked_for(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    def away(body: dict[str, Any]) -> None:
        body["next"] = "https://elsewhere.example/next"

    with pytest.raises(Exception, match=r"a link leads to another host: elsewhere\.example"):
        mirror(described(tmp_path, "next"), db, simulate(RestWorld(items=90), faults=edited(away)), max_retries=0)


@pytest.mark.parametrize("target", ["http://[elsewhere", 5, True, {"href": "/next"}])
def test_a_next_page_that_is_no_address_is_a_failed_page_and_no_error_of_ours(
    target: object, tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    simulator = simulate(RestWorld(items=90), faults=edited(lambda body: body.update(next=target)))
    with pytest.raises(RemoteError, match=r"list\.next: .* (leads nowhere|is no address)"):
        mirror(described(tmp_path, "next"), db, simulator, max_retries=0)


def test_an_empty_page_before_the_end_is_walked_over(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=36, items=90)
    empty = [False]

    def hollow(body: dict[str, Any]) -> None:
        if body["next_token"] and not empty[0]:
            empty[0], body["results"] = True, []

    mirror(described(tmp_path, "token", '[columns]\nid = "integer"'), db, simulate(world, faults=edited(hollow, 2)))
    assert empty[0]
    assert one(db, "SELECT count(*) FROM items") == 70


def test_a_list_that_goes_on_without_items_comes_to_an_end(
    tmp_path: Path, db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fetcher.sources.rest.walks.MOST_EMPTY", 5)
    number = iter(range(10**6))

    def hollow(body: dict[str, Any]) -> None:
        body["items"], body["next"] = [], f"/rest/next?n={next(number)}"

    simulator = simulate(RestWorld(seed=36, items=90), faults=edited(hollow))
    with pytest.raises(RemoteError, match="5 pages without items one after the other"):
        mirror(described(tmp_path, "next", '[columns]\nid = "integer"'), db, simulator, max_retries=0)
    assert simulator.requests["list"] < 10
    assert not verify(db).complete


def test_what_comes_instead_of_an_item_is_a_failure_of_its_own(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=11, items=40)
    bad = world.ids()[7]

    def fault(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(200, body=b'{"id": 999999}') if (kind, key) == ("info", bad) else None

    summary = mirror(described(tmp_path, "ids"), db, simulate(world, faults=fault), max_retries=0)
    assert summary.exit_code == 3
    assert query(db, "SELECT key, outcome FROM failures") == [(bad, "malformed")]


def test_a_limit_does_not_say_that_nothing_is_left_where_nobody_knows(
    tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    simulator = simulate(RestWorld(seed=38, items=90))
    for way, words in (("token", "more may be left"), ("cursor", "items are left")):
        source, own = described(tmp_path, way, name=way), str(db.with_name(f"{way}.db"))
        done = run_fetcher("fetch", source, own, "--base-url", simulator.url, "--delay", "0", "--limit", "20")
        assert done.returncode == 0, done.stderr
        assert re.search(rf"The limit is reached, (~\d+ )?{words}: ", done.stderr + done.stdout)


# --- columns ----------------------------------------------------------------------------------------


def test_columns_are_those_of_the_first_page_and_stay_so(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=12, items=50)
    source = described(tmp_path, "page", '[tables.lines]\nfrom = "lines"\nkey = "id"\n[tables.tags]\nfrom = "tags"')
    mirror(source, db, simulate(world))
    types = dict(query(db, "SELECT name, type FROM pragma_table_info('items')"))
    assert types["id"] == types["score"] == types["open"] == "INTEGER"
    assert (types["rating"], types["title"], types["author"]) == ("REAL", "TEXT", "TEXT")
    assert "lines" not in types
    for id in world.ids():
        item = world.item(id)
        assert json.loads(one(db, "SELECT author FROM items WHERE id = ?", id)) == item["author"]
        lines = query(db, "SELECT id, text FROM lines WHERE item_key = ? ORDER BY id", id)
        assert lines == [(line["id"], line["text"]) for line in item["lines"]]
        tags = column(db, "SELECT value FROM tags WHERE item_key = ? ORDER BY row_number", id)
        assert tags == item["tags"]
    asked = simulate(world)
    mirror(source, db, asked)
    assert asked.requests["list"] == 5  # One to see that there is a list, four pages, none for columns.


def test_new_columns_are_added_and_a_changed_key_is_not_taken(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=13, items=30)
    simulator = simulate(world)
    mirror(described(tmp_path, "page", '[columns]\nid = "integer"\ntitle = "text"'), db, simulator)
    assert one(db, "SELECT count(*) FROM items WHERE extra IS NOT NULL") == 30
    mirror(described(tmp_path, "page", '[columns]\nid = "integer"\ntitle = "text"\nscore = "integer"'), db, simulator)
    assert one(db, "SELECT count(*) FROM items WHERE score IS NOT NULL") > 5
    for more, key in (
        ('key = "title"\n', "list.key"),
        ('params = {order = "oldest"}\n', "list.params"),
        ('[columns]\ntitle = "integer"\n', "columns.title"),
    ):
        with pytest.raises(ConfigurationError, match=rf"shop: {key} was .* name another database"):
            mirror(described(tmp_path, "page", more), db, simulator)
    with pytest.raises(ConfigurationError, match=r"list\.pages was 'page' .* and is 'link' now"):
        mirror(described(tmp_path, "link"), db, simulator)


def test_being_listed_again_leaves_what_the_details_gave(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=14, items=40)
    simulator, source = simulate(world), described(tmp_path, "ids")
    mirror(source, db, simulator)
    before = query(db, "SELECT id, title, score FROM items ORDER BY 1")

    def nothing(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(500, body=b"{}") if kind == "info" else None

    mirror(source, db, simulate(world, faults=nothing), full_update=True, max_retries=0, max_outage_seconds=1)
    assert query(db, "SELECT id, title, score FROM items ORDER BY 1") == before


# --- the database without its description -----------------------------------------------------------


def test_a_database_can_be_read_and_gone_on_with_without_the_file(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=15, items=30)
    simulator, source = simulate(world), described(tmp_path, "page")
    mirror(source, db, simulator)
    Path(source).unlink()
    for command in ("status", "verify", "failures", "retry"):
        done = run_fetcher(command, str(db))
        assert done.returncode == 0, done.stderr
    assert "Which means: pages by number" in run_fetcher("verify", str(db)).stdout
    assert "no texts that are searched" in run_fetcher("search", str(db), "ocean").stderr
    world.arrive(3)
    done = run_fetcher("fetch", "shop", str(db), "--delay", "0")
    assert done.returncode == 0, done.stderr
    assert_mirrored(db, world)


def test_a_database_of_another_source_is_refused_whatever_its_tables_are(
    tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    tags = '[tables.tags]\nfrom = "tags"\ncolumns = {tag = "text"}'
    mirror(described(tmp_path, "token", tags), db, simulate(RestWorld(seed=39, items=30)))
    before = dump(db)
    with pytest.raises(ConfigurationError, match="mirrors shop, not pr0gramm: one database mirrors one source"):
        fetch("pr0gramm", db, api_base_url="http://127.0.0.1:1/api")
    assert dump(db) == before


def test_doctor_says_where_a_hole_is_as_the_source_says_it(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    mirror(described(tmp_path, "page"), db, simulate(RestWorld(seed=15, items=30)))
    with closing(sqlite3.connect(db)) as conn, conn:
        conn.execute("DELETE FROM coverage")
    assert "1 range not listed: scope all: all\n" in run_fetcher("doctor", str(db), "--offline").stdout


# --- secrets, variables, hints ----------------------------------------------------------------------

AUTH = '[auth]\nenv = "SHOP_TOKEN"\nprefix = "Bearer "'


def test_a_secret_comes_from_the_environment_and_is_stored_nowhere(
    tmp_path: Path, db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = RestWorld(seed=16, items=30, token="f00-s3cret")
    simulator, source = simulate(world), described(tmp_path, "page", AUTH)
    with pytest.raises(ConfigurationError, match="SHOP_TOKEN is needed: shop sends it as the header Authorization"):
        mirror(source, db, simulator)
    monkeypatch.setenv("SHOP_TOKEN", "wrong")
    with pytest.raises(LoginError):
        mirror(source, db, simulator)
    monkeypatch.setenv("SHOP_TOKEN", "f00-s3cret")
    with caplog.at_level("DEBUG", "fetcher"):
        mirror(source, db, simulator)
    assert_mirrored(db, world)
    assert "s3cret" not in caplog.text
    with pytest.raises(ConfigurationError, match="shop_token: is not one of the variables: there are none"):
        mirror(source, db, simulator, rest_variables=("shop_token=f00-s3cret",))
    for path in db.parent.iterdir():
        assert b"s3cret" not in path.read_bytes()


@pytest.mark.parametrize("value", ["s3cret\n", "s3cret\r\nX-Other: 1", " s3cret", "s3cret€"])
def test_a_secret_that_no_header_can_have_is_named_before_anything_is_asked(
    value: str, tmp_path: Path, db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", value)
    simulator = simulate(RestWorld(items=30))
    with pytest.raises(ConfigurationError, match="SHOP_TOKEN holds characters that no header can have") as caught:
        mirror(described(tmp_path, "page", AUTH), db, simulator)
    assert "s3cret" not in str(caught.value)
    assert not simulator.requests


def test_a_secret_that_the_api_gives_back_is_not_told(
    tmp_path: Path, db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = b'{"message": "Bearer f00-s3cret may not", "sent": {"Authorization": "Bearer f00-s3cret"}}'
    source = described(tmp_path, "ids", f'{AUTH}\n[columns]\nid = "integer"')
    monkeypatch.setenv("SHOP_TOKEN", "f00-s3cret")
    refused = simulate(RestWorld(items=20), faults=lambda kind, *_: Answer(400, body=body) if kind == "info" else None)
    with caplog.at_level("DEBUG", "fetcher"):
        mirror(source, db, refused, max_retries=0)
    assert column(db, "SELECT DISTINCT message FROM failures") == ["answered 400: … may not"]
    assert "s3cret" not in caplog.text
    for path in db.parent.iterdir():
        assert b"s3cret" not in path.read_bytes()


def test_hints_hold_where_the_user_says_nothing(tmp_path: Path, db: Path) -> None:
    kind = find(described(tmp_path, "page", head="rate = 3\ndelay = 0.5"))
    assert kind.settings == {"max_requests_per_second": 3, "request_delay": 0.5}  # type: ignore[attr-defined]


# --- bad descriptions -------------------------------------------------------------------------------

GOOD = 'base_url = "https://shop.example"\n[list]\nurl = "/orders"\npages = "page"\nparameter = "page"\n'

BAD = [
    ("x = ", "no valid TOML"),
    (GOOD.replace('"page"\nparam', '"pagez"\nparam'), "list.pages: input should be"),
    (GOOD.replace('parameter = "page"', ""), 'list.parameter: is needed where pages = "page"'),
    (GOOD + 'next = "x"', 'list.next: means nothing where pages = "page"'),
    (GOOD.replace('url = "/orders"', ""), 'list.url: is needed where pages = "page"'),
    (GOOD.replace("/orders", "https://other"), "list.url: has to begin with /"),
    (GOOD.replace("/orders", "/{who}"), "list.url: {who} is not one of the variables"),
    (GOOD + "[list.since]\nformat = 'iso'", "list.since.parameter: is needed"),
    (GOOD + "size_parameter = 'n'", "list.size: is needed"),
    (GOOD + "[auth]\nenv = 'lower'", "auth.env: is the name of an environment variable"),
    (GOOD + "[auth]\n", "auth.env: is needed"),
    (GOOD + "[auth]\nenv = 'X'\nheader = 'a b'", "auth.header: is no name of a header"),
    (GOOD + "[headers]\n'a b' = 'x'", "headers.a b: is no name of a header"),
    (GOOD + "[headers]\nAuthorization = 'Bearer x'", "headers.Authorization: comes from the environment"),
    (GOOD + "params = {api_key = 'x'}", "list.params.api_key: no secret goes into an address"),
    (GOOD + "[gone]\nstatuss = [1]", "gone.statuss: there is no such key"),
    (GOOD + "[gone]", "gone.status: or header, body, null"),
    (GOOD + "[limited]\nstatus = ['x']", "limited.status.0: input should be a valid integer"),
    (GOOD + "[columns]\nid = 'real'", "columns.id: is the key, which is integer or text"),
    (GOOD + "[columns]\ntitle = 'string'", "columns.title: input should be"),
    (GOOD + "[columns]\nfetched_at = 'integer'", "column fetched_at, which fetcher adds itself"),
    (GOOD + "[tables.lines]\nkey = 'id'", "tables.lines.from: is needed"),
    (GOOD + "[tables.work]\nfrom = 'x'", "its table work has a name that fetcher itself uses"),
    (GOOD + "[tables.x]\nfrom = 'x'\nkey = 'id'\ncolumns = {n = 'text'}", "tables.x.key: is not one of its columns"),
    (GOOD + "[detail]\nurl = 'x'", "detail.url: has to begin with /"),
    (GOOD + "[variables]\nuser_agent = ''", "user_agent is a name of fetcher's own"),
    (GOOD + "[variables]\nuser = ''", "variables.user: the environment has USER already"),
    ("rate = 0\n" + GOOD, "rate: input should be greater than 0"),
    ("name = 'No Name'\n" + GOOD, "name: string should match"),
    ("[list]\npages = 'ids'\nnewest = '/n'", 'detail: is needed where list.pages = "ids"'),
    ("base_url = ''", "list: is needed"),
    ("url = '/x'\n" + GOOD, "url: there is no such key here: it stands in [list] or in [detail]"),
    (GOOD + "base_url = 'x'", "list.base_url: there is no such key here: it stands at the top"),
    (GOOD + '"a\\nb" = 1', "list.a b: there is no such key"),
    ("rate = inf\n" + GOOD, "rate: input should be a finite number"),
    ("delay = inf\n" + GOOD, "delay: input should be a finite number"),
    (GOOD + "[tables.Items]\nfrom = 'x'", "it has two tables Items"),
    (GOOD + "[tables.a]\nfrom = 'x'\n[tables.A]\nfrom = 'x'", "it has two tables A"),
    (GOOD + "[tables.Work]\nfrom = 'x'", "its table Work has a name that fetcher itself uses"),
    (GOOD + "[columns]\nid = 'integer'\nID = 'text'", "its table items has two columns ID"),
    (GOOD + "[columns]\nid = 'integer'\nExtra = 'text'", "its table items has a column extra, which fetcher adds"),
    (GOOD + "itms = 'x'", "list.itms: there is no such key, is it items?"),
    (GOOD.replace("https://", ""), "base_url: has to begin with http:// or https://"),
    (GOOD.replace("https://", "https://me:pw@"), "base_url: no login goes into an address"),
    (GOOD.replace("/orders", "/orders?api_key=x"), "list.url.api_key: no secret goes into an address"),
    (GOOD + "[variables]\nshop_token = ''", "variables.shop_token: the database remembers variables"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_what_is_wrong_with_a_description_is_a_line_that_names_the_key(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        find(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


def test_a_secret_in_place_of_its_variable_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(GOOD + "[auth]\nenv = 'ghp-s3cret'", "shop.toml", "shop")
    assert "s3cret" not in str(caught.value)


def test_a_bad_description_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(GOOD + "size = 0")
    done = run_fetcher("fetch", "bad.toml", "x.db")
    assert done.returncode == 2
    assert done.stderr == "fetcher: bad.toml: list.size: input should be greater than or equal to 1, not 0\n"
    assert not Path("x.db").exists()


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = run_fetcher("fetch", str(tmp_path / "no.toml"), str(tmp_path / "x.db"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "No such file" in done.stderr


# --- those that come with fetcher -------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_description_is_a_good_one(name: str) -> None:
    assert parse(shipped()[name], name, name).name == name
    assert find(name).name == name


def test_hacker_news(db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=17, items=100)
    simulator = simulate(world)
    mirror("hacker-news", db, simulator, "/hacker-news")
    ids = [id for id in world.ids() if id <= world.newest - 10]
    assert column(db, "SELECT id FROM items WHERE gone_at IS NULL ORDER BY id") == ids
    assert one(db, "SELECT count(*) FROM items WHERE extra IS NOT NULL") == 0
    assert set(query(db, "SELECT type, count(*) FROM items GROUP BY 1")) >= {(None, world.newest - 10 - len(ids))}
    comments = query(
        db, "SELECT parent, id FROM items WHERE parent IS NOT NULL AND id < ? ORDER BY 2", world.newest - 15
    )
    kids = query(db, "SELECT item_key, kid FROM kids WHERE kid < ? ORDER BY 2", world.newest - 15)
    assert comments == kids
    assert len(kids) > 30
    assert verify(db).complete
    world.arrive(20)
    summary = mirror("hacker-news", db, simulator, "/hacker-news")
    assert summary.counts.new == 20
    assert verify(db).complete


def test_items_with_numbers_and_requests_of_their_own_can_be_served(db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=17, items=100)
    simulator = simulate(world)
    served = Service("hacker-news", db, api_base_url=f"{simulator.url}/hacker-news", ingest_batch_interval=0, **FAST)
    with closing(served.open()) as service:
        job = service.submit([*world.ids()[:5], 10**8])
        eventually(lambda: (service.job(job.id) or job).status == "completed", 30)
        found = service.job(job.id)
    assert found is not None
    assert (found.stored, found.gone, found.failed) == (5, 1, 0)
    assert column(db, "SELECT id FROM items ORDER BY 1") == list(world.ids()[:5])


def test_items_that_are_only_listed_cannot_be_served(db: Path, simulate: Simulate) -> None:
    simulator = simulate(RestWorld(seed=17, items=10))
    variables = {"github_owner": "python", "github_repo": "cpython"}
    with pytest.raises(ConfigurationError, match="cannot be asked for single items"):
        Service("github-issues", db, api_base_url=f"{simulator.url}/github", **variables).open()


def test_github_issues(db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=18, items=250)
    simulator = simulate(world)
    repo = {"github_owner": "python", "github_repo": "cpython"}
    mirror("github-issues", db, simulator, "/github", **repo)
    assert column(db, "SELECT number FROM items ORDER BY 1") == list(world.ids())
    assert query(db, "SELECT count(*), count(DISTINCT name) FROM labels")[0][0] > 100
    before = simulator.requests["list"]
    world.arrive(3)
    world.update(*world.ids()[5:9])
    with closing(sqlite3.connect(db)) as conn, conn:
        # The next run comes an hour later.
        conn.execute("UPDATE coverage SET walked_at = walked_at - 3600")
    # The database knows which repository it mirrors.
    summary = mirror("github-issues", db, simulator, "/github")
    assert simulator.requests["list"] - before == 2  # One to see that there is a list, and the changes.
    assert (summary.counts.listed, summary.counts.new) == (7, 3)
    titles = dict(query(db, "SELECT number, title FROM items"))
    assert titles == {id: world.item(id)["title"] for id in world.ids()}
    assert verify(db).complete
    with pytest.raises(ConfigurationError, match="mirrors github-issues with GITHUB_REPO 'cpython', not 'other'"):
        mirror("github-issues", db, simulator, "/github", github_repo="other")


def test_github_says_that_nothing_remains_by_403(db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=19, items=150)
    simulator = simulate(
        world, faults=lambda kind, key, attempt: none_remaining(2) if (key, attempt) == (100, 1) else None
    )
    repo = {"github_owner": "python", "github_repo": "cpython"}
    summary = mirror("github-issues", db, simulator, "/github", **repo)
    assert summary.counts.limited == 1
    assert summary.seconds > 1
    assert column(db, "SELECT number FROM items ORDER BY 1") == list(world.ids())


def test_github_has_an_allowance_and_says_when_it_is_new(db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=19, items=950, allowance=(6, 1))
    repo = {"github_owner": "python", "github_repo": "cpython"}
    summary = mirror("github-issues", db, simulate(world), "/github", **repo, request_delay=0)
    assert summary.counts.limited >= 1
    assert column(db, "SELECT number FROM items ORDER BY 1") == list(world.ids())
    assert verify(db).complete


def test_a_secondary_limit_of_github_may_say_nothing_but_that_it_is_one(db: Path, simulate: Simulate) -> None:
    body = b'{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}'
    world = RestWorld(seed=19, items=150)
    simulator = simulate(
        world, faults=lambda kind, key, attempt: Answer(403, body=body) if (key, attempt) == (100, 1) else None
    )
    repo = {"github_owner": "python", "github_repo": "cpython"}
    assert mirror("github-issues", db, simulator, "/github", **repo, max_backoff_seconds=0.1).counts.limited == 1
    assert column(db, "SELECT number FROM items ORDER BY 1") == list(world.ids())


def test_github_needs_to_know_the_repository(tmp_path: Path) -> None:
    done = run_fetcher("fetch", "github-issues", str(tmp_path / "x.db"))
    assert (done.returncode, done.stderr) == (2, "fetcher: github-issues needs GITHUB_OWNER (github_owner=…)\n")
    done = run_fetcher("fetch", "github-issues", str(tmp_path / "x.db"), "owner=python")
    assert done.returncode == 2
    assert "owner: is not one of the variables: github_owner=…, github_repo=…" in done.stderr


def test_a_table_of_a_datasette(db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=20, items=250)
    table = {"datasette_database": "fixtures", "datasette_table": "facets"}
    mirror("datasette", db, simulate(world), "/datasette", **table)
    assert column(db, "SELECT id FROM items ORDER BY 1") == list(world.ids())
    types = dict(query(db, "SELECT name, type FROM pragma_table_info('items')"))
    assert {name: types[name] for name in ("id", "rating", "title")} == {
        "id": "INTEGER",
        "rating": "REAL",
        "title": "TEXT",
    }
    assert verify(db).complete


def test_a_datasette_that_names_the_next_page_in_its_header_alone(db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=20, items=250)
    simulator = simulate(world, faults=edited(lambda body: body.pop("next_url")))
    mirror("datasette", db, simulator, "/datasette", datasette_database="fixtures", datasette_table="facets")
    assert column(db, "SELECT id FROM items ORDER BY 1") == list(world.ids())
    assert simulator.requests["list"] > 3


# --- items that need a request of their own ---------------------------------------------------------

DETAILED = """name = "shop"
[list]
pages = "page"
url = "/page"
parameter = "page"
size = 20
size_parameter = "limit"
version = ["updated_at"]
[detail]
url = "/items/{key}"
item = "."
[columns]
id = "integer"
title = "text"
updated_at = "text"
[detail.columns]
rating = "real"
[tables.lines]
from = "lines"
key = "id"
"""


def test_an_item_is_fetched_again_when_its_version_has_changed(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    world = RestWorld(seed=21, items=50)
    simulator, source = simulate(world), tmp_path / "shop.toml"
    source.write_text(DETAILED)
    mirror(str(source), db, simulator)
    asked = simulator.requests["info"]
    changed = world.ids()[3:6]
    world.update(*changed)
    mirror(str(source), db, simulator)
    assert simulator.requests["info"] - asked == 3
    assert query(db, "SELECT id, title, rating FROM items ORDER BY 1") == [
        (id, world.item(id)["title"], world.item(id)["rating"]) for id in world.ids()
    ]
    assert one(db, "SELECT count(*) FROM lines") == sum(len(world.item(id)["lines"]) for id in world.ids())
    assert verify(db).complete


def test_an_item_that_the_api_calls_gone_in_its_own_way_has_a_tombstone(
    tmp_path: Path, db: Path, simulate: Simulate
) -> None:
    world = RestWorld(seed=22, items=50)
    gone = world.ids()[4]

    def fault(kind: str, key: int, attempt: int) -> Answer | None:
        return Answer(200, body=b'{"error": {"code": "deleted"}}') if (kind, key) == ("info", gone) else None

    source = tmp_path / "shop.toml"
    source.write_text(DETAILED + '[gone]\nstatus = [200]\nbody = {"error.code" = "deleted"}\n')
    mirror(str(source), db, simulate(world, faults=fault))
    assert column(db, "SELECT id FROM items WHERE gone_at IS NOT NULL") == [gone]
    assert verify(db).complete


# --- the guide --------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs/how-to/describe-an-api.md").read_text(encoding="utf-8")


def test_the_example_of_the_guide_mirrors_what_the_simulator_has(tmp_path: Path, db: Path, simulate: Simulate) -> None:
    example = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[0]
    assert 20 <= len(example.splitlines()) <= 25
    world = RestWorld(seed=23, items=120)
    (tmp_path / "shop.toml").write_text(example, encoding="utf-8")
    mirror("shop.toml", db, simulate(world))
    assert_mirrored(db, world)
    assert one(db, "SELECT count(*) FROM lines") > 50


@pytest.mark.parametrize("part", re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[1:])
def test_every_part_that_the_guide_shows_is_good(part: str) -> None:
    text = part if "[list]" in part else GOOD + part
    if "[list]" in part:
        text += 'pages = "link"\n'
    parse(text, "guide", "guide")


# --- arithmetic -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "target"),
    [
        (None, None),
        ("", None),
        ('<https://a/?page=2>; rel="next", <https://a/?page=9>; rel="last"', "https://a/?page=2"),
        ('<https://a/?page=1>; rel="prev"', None),
        ("<https://a/?x=1,2>; rel=next", "https://a/?x=1,2"),
        ('<https://a/>; title="a, b"; rel="start next"', "https://a/"),
        ('</b?c>; REL="Next"', "/b?c"),
        ("nonsense", None),
    ],
)
def test_the_next_page_is_the_one_that_a_link_header_names(header: str | None, target: str | None) -> None:
    assert next_link(header) == target


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2020-01-01T00:00:00Z", 1577836800),
        ("2020-01-01T00:00:00.9Z", 1577836800),
        ("2020-01-01", 1577836800),
        ("2020-01-01T01:00:00+01:00", 1577836800),
        (1577836800.7, 1577836800),
        (True, None),
        ("soon", None),
        (None, None),
    ],
)
def test_a_time_is_whole_seconds(value: object, expected: int | None) -> None:
    assert seconds(value) == expected


def test_columns_hold_all_that_was_seen() -> None:
    objects = [
        {"id": 1, "a": 1, "b": 1, "c": None, "d": True, "e": [1], "f": "x", "ID": 2, "extra": 1, "g": 2**70},
        {"id": 2, "a": 1.5, "b": "x", "c": None, "d": False, "e": None, "f": "y"},
    ]
    assert columns_of(objects, "id") == {
        "id": "integer",
        "a": "real",
        "b": "json",
        "c": "json",
        "d": "boolean",
        "e": "json",
        "f": "text",
        "g": "json",
    }
