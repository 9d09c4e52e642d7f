"""Mirrors of a simulated STAC API, over sockets: every way to page, every quirk, updates, faults and the commands."""

from __future__ import annotations

import json
import logging
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fetcher import ConfigurationError, Interrupted, RemoteError, Stop, Summary
from fetcher.mirror import preview, verify
from fetcher.simulator import PROFILES, Dialect, Simulator, StacWorld
from fetcher.simulator.stac import MATCHED, NEXT_STYLES, QUIRKS
from tests.helpers import answer, column, dump, eventually, mirror, one, query, run_fetcher, running

pytestmark = [pytest.mark.usefixtures("no_threads_left"), pytest.mark.timeout(120)]

Simulate = Callable[..., Simulator]
QUICK = {"max_backoff_seconds": 0.2, "stac_page_size": 20}


def stac(db: Path, simulator: Simulator, **settings: Any) -> Summary:
    """Mirror a simulated STAC API."""
    return mirror(db, simulator, source="stac", **{**QUICK, **settings})


def keys(db: Path, where: str = "unlisted_at IS NULL") -> list[tuple[str, str]]:
    return query(db, f"SELECT collection, id FROM items WHERE {where} ORDER BY 1, 2")


def assert_whole(db: Path, world: StacWorld, simulator: Simulator) -> None:
    """The mirror has exactly the world's items, each as the API gives it, and says that it is complete."""
    assert keys(db) == sorted(world.all_keys())
    verdict = verify(db)
    assert verdict.complete, verdict
    sql = (
        "SELECT collection, id, item FROM stac_items WHERE key IN"
        " (SELECT key FROM items WHERE unlisted_at IS NULL ORDER BY random() LIMIT 20)"
    )
    for collection, id, text in query(db, sql):
        assert json.loads(text) == world.item(collection, id, simulator.url)


# --- paging -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("matched", MATCHED)
@pytest.mark.parametrize("style", NEXT_STYLES)
def test_every_way_to_page_ends_with_every_item(style: str, matched: str, db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=3, items=130)
    simulator = simulate(world, dialect=Dialect(next=style, matched=matched))
    assert stac(db, simulator).exit_code == 0
    assert_whole(db, world, simulator)


HOPELESS = {
    # Nothing that is said shows that a page was left out.
    ("short-count", "none"),
}


@pytest.mark.parametrize("matched", ["none", "number", "estimated"])
@pytest.mark.parametrize("quirk", QUIRKS)
def test_what_real_servers_do_wrong_makes_no_hole_that_nobody_is_told_of(
    quirk: str, matched: str, db: Path, simulate: Simulate
) -> None:
    world = StacWorld(seed=3, items=130)
    for number, style in enumerate(("post-body", "get-token", "offset")):
        dialect = Dialect(next=style, matched=matched, quirks=frozenset({quirk}), retry_after=0, big_page=10)
        simulator = simulate(world, dialect=dialect)
        path = db.with_name(f"{number}.db")
        summary = stac(path, simulator)
        if (quirk, matched) in HOPELESS:
            continue
        if summary.exit_code == 3:
            # Every next link leads to an address that fails: nothing can be done, and it is said.
            assert (quirk, style, matched) == ("get-search-500", "get-token", "none")
            assert not verify(path).complete
        elif quirk == "signed":
            assert keys(path) == sorted(world.all_keys())
        else:
            assert_whole(path, world, simulator)
        assert simulator.requests.total() < 150


@pytest.mark.parametrize(
    "quirks",
    [
        {"empty-page", "trailing-next", "signed", "unordered"},
        {"repeated-record", "detail-400", "forbidden-throttle", "rate-429"},
        {"missing-next", "unordered"},
        {"repeated-page", "detail-400"},
        {"big-page-500", "empty-page", "unordered"},
        {"no-search", "empty-page", "rate-429"},
        {"no-search", "trailing-next", "big-page-500"},
    ],
    ids=lambda quirks: "+".join(sorted(quirks)),
)
def test_quirks_come_together(quirks: set[str], db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=4, items=130, collections=3)
    simulator = simulate(world, dialect=Dialect(quirks=frozenset(quirks), retry_after=0, big_page=10))
    assert stac(db, simulator).exit_code == 0
    assert keys(db) == sorted(world.all_keys())
    assert verify(db).complete


@pytest.mark.parametrize("method", ["post", "get", "items"])
def test_each_method_can_be_chosen(method: str, db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=3, items=90)
    simulator = simulate(world)
    assert stac(db, simulator, stac_method=method).exit_code == 0
    assert_whole(db, world, simulator)
    assert set(simulator.requests) == {"landing", "collections", "items" if method == "items" else "search"}


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_windows_are_divided_by_counts_and_without_them(order: str, db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=5, items=600, collections=1)
    for matched in ("number", "none"):
        simulator = simulate(world, dialect=Dialect(matched=matched))
        path = db.with_name(f"{matched}.db")
        assert stac(path, simulator, stac_page_size=10, order=order).exit_code == 0
        assert_whole(path, world, simulator)
        assert one(path, "SELECT count(*) FROM coverage") == 1


def test_a_window_of_one_second_with_many_pages_is_walked_by_its_links(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=5, items=0, collections=1)
    world.add(400, datetime="2021-04-22T00:00:00Z")
    for matched in ("number", "none"):
        simulator = simulate(world, dialect=Dialect(matched=matched))
        path = db.with_name(f"{matched}.db")
        assert stac(path, simulator, stac_page_size=10).exit_code == 0
        assert_whole(path, world, simulator)
        assert simulator.requests["search"] < 120


def test_a_full_page_of_one_second_is_asked_for_otherwise_before_it_is_in_doubt(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=5, items=0, collections=1)
    world.add(20, datetime="2021-04-22T00:00:00Z")
    simulator = simulate(world, dialect=Dialect(matched="none"))
    assert stac(db, simulator).exit_code == 0
    assert_whole(db, world, simulator)


def test_a_full_page_of_one_second_without_next_links_is_a_hole_that_is_said(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=5, items=0, collections=1)
    world.add(30, datetime="2021-04-22T00:00:00Z")
    simulator = simulate(world, dialect=Dialect(quirks=frozenset({"missing-next"})))
    assert stac(db, simulator).exit_code == 3
    assert len(keys(db)) == 20
    told = run_fetcher("verify", str(db))
    assert told.returncode == 3
    assert "2021-04-22T00:00:00Z" in told.stdout
    assert "Traceback" not in told.stderr
    told = run_fetcher("failures", str(db))
    assert "30 are there" in told.stdout


def test_a_catalogue_may_be_empty(db: Path, simulate: Simulate) -> None:
    simulator = simulate(StacWorld(items=0, collections=1))
    assert stac(db, simulator).exit_code == 0
    assert verify(db).complete
    assert one(db, "SELECT count(*) FROM collections") == 1


@pytest.mark.parametrize("collections_page", [None, 7])
def test_a_hundred_collections_are_all_mirrored(collections_page: int | None, db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=6, items=300, collections=100)
    simulator = simulate(world, dialect=Dialect(collections_page=collections_page))
    assert stac(db, simulator).exit_code == 0
    assert_whole(db, world, simulator)
    assert column(db, "SELECT id FROM collections ORDER BY 1") == sorted(world.collections)


def test_a_next_link_to_another_host_is_refused(db: Path, simulate: Simulate) -> None:
    hits: list[int] = []

    def elsewhere(kind: str, key: int, attempt: int) -> Any:
        if kind != "search":
            return None
        hits.append(key)
        link = {"rel": "next", "href": "http://127.0.0.2:9/stac/search?token=a"}
        item = world.item(*world.all_keys()[0])
        return answer({"type": "FeatureCollection", "features": [item], "links": [link]})

    world = StacWorld(items=50, collections=1)
    simulator = simulate(world, faults=elsewhere)
    summary = stac(db, simulator, max_retries=0)
    assert summary.exit_code == 3
    assert "another host" in one(db, "SELECT message FROM failures LIMIT 1")


# --- what is asked for ------------------------------------------------------------------------------


def test_searches_find_what_looking_at_every_item_finds(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=7, items=300)
    simulator = simulate(world)
    whole = [world.item(*key) for key in world.all_keys()]

    def found(name: str, **settings: Any) -> list[tuple[str, str]]:
        path = db.with_name(f"{name}.db")
        assert stac(path, simulator, **settings).exit_code == 0
        assert verify(path).complete
        return keys(path)

    def expected(wanted: Callable[[dict[str, Any]], bool]) -> list[tuple[str, str]]:
        return sorted((item["collection"], item["id"]) for item in whole if wanted(item))

    def cloudy(item: dict[str, Any]) -> bool:
        cover = item["properties"].get("eo:cloud_cover")
        return cover is not None and cover < 10

    def touches(item: dict[str, Any]) -> bool:
        west, south, east, north = item.get("bbox", (999, 999, -999, -999))
        return west <= 60 and east >= -60 and south <= 60 and north >= -60

    as_json = '{"op":"<","args":[{"property":"eo:cloud_cover"},10]}'
    assert found("json", stac_filter=as_json) == expected(cloudy)
    assert found("text", stac_filter='"eo:cloud_cover" < 10') == expected(cloudy)
    assert found("get", stac_filter="eo:cloud_cover < 10", stac_method="get") == expected(cloudy)
    assert found("box", stac_bbox="-60,-60,60,60") == expected(touches)
    some = sorted(item["id"] for item in whole)[:7]
    assert found("ids", stac_ids=some) == expected(lambda item: item["id"] in some)
    one_of = world.collections[1]
    assert found("one", stac_collections=one_of) == expected(lambda item: item["collection"] == one_of)
    both = found("both", stac_collections=one_of, stac_filter=as_json)
    assert both == expected(lambda item: item["collection"] == one_of and cloudy(item))

    def in_2020(item: dict[str, Any]) -> bool:
        about = item["properties"]
        begin, end = (about["datetime"] or about[name] for name in ("start_datetime", "end_datetime"))
        return str(begin)[:4] <= "2020" <= str(end)[:4]

    assert found("year", stac_datetime="2020") == expected(in_2020)


def test_two_searches_may_share_a_database(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=7, items=300)
    simulator = simulate(world)
    stac(db, simulator, stac_filter="eo:cloud_cover < 10")
    some = len(keys(db))
    assert 0 < some < 300
    assert verify(db).complete
    stac(db, simulator, stac_collections=world.collections[0], stac_datetime="2020")
    assert verify(db).complete
    stac(db, simulator)
    assert_whole(db, world, simulator)
    # The same search again lists the last day alone.
    before = simulator.requests.total()
    stac(db, simulator, stac_filter="eo:cloud_cover < 10")
    assert simulator.requests.total() - before < 12
    assert_whole(db, world, simulator)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--collection", "nothing"), "'nothing'"),
        (("--filter", "eo:cloud_cover <"), "does not take the search"),
        (("--filter", '{"op":'), "--filter"),
        (("--datetime", "soon"), "--datetime"),
        (("--bbox", "1,2,3"), "bbox"),
        (("--start-from", "7"), "START_FROM"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    options: tuple[str, ...], said: str, db: Path, simulate: Simulate
) -> None:
    simulator = simulate(StacWorld(items=10))
    told = run_fetcher("fetch", "stac", str(db), "--base-url", simulator.url, "--delay", "0", *options)
    assert told.returncode == 2, told
    assert said in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1, told.stderr


def test_a_base_url_is_needed_once(db: Path, simulate: Simulate) -> None:
    told = run_fetcher("fetch", "stac", str(db))
    assert told.returncode == 2
    assert "--base-url" in told.stderr
    simulator = simulate(StacWorld(items=10))
    stac(db, simulator)
    assert run_fetcher("fetch", "stac", str(db), "--delay", "0").returncode == 0


# --- again ------------------------------------------------------------------------------------------


def age(db: Path, seconds: int) -> None:
    """As if the mirror had been made so long before."""
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("UPDATE coverage SET walked_at = walked_at - ?, hi = hi - ?", [seconds, seconds])
        conn.execute("UPDATE sources SET sweep_ended_at = sweep_ended_at - ?", [seconds])
        conn.execute("UPDATE items SET listed_at = listed_at - ?, fetched_at = fetched_at - ?", [seconds, seconds])
        conn.commit()


def test_a_second_run_asks_little_and_stores_what_was_updated(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=8, items=400)
    simulator = simulate(world)
    stac(db, simulator)
    age(db, 5000)
    as_of = one(db, "SELECT min(walked_at) FROM coverage")
    before = simulator.requests.total()
    stac(db, simulator)
    # Landing page, collections; of each collection one item, what was updated, the last day.
    assert simulator.requests.total() - before <= 2 + 3 * 2
    assert one(db, "SELECT min(walked_at) FROM coverage") >= as_of + 4000
    age(db, 5000)
    changed = world.update(30)
    new = world.add(2)
    before = simulator.requests.total()
    stac(db, simulator)
    assert simulator.requests.total() - before <= 2 + 3 * 2 + 4
    for collection, id in (*changed, *new):
        (text,) = column(db, "SELECT item FROM stac_items WHERE collection = ? AND id = ?", collection, id)
        assert json.loads(text) == world.item(collection, id, simulator.url)
    assert_whole(db, world, simulator)


def test_full_marks_what_was_removed_as_listed_no_more(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=8, items=300)
    simulator = simulate(world)
    stac(db, simulator)
    age(db, 5000)
    removed = world.remove(20)
    stac(db, simulator)
    assert len(keys(db)) == 300
    stac(db, simulator, full_update=True)
    assert_whole(db, world, simulator)
    assert keys(db, "unlisted_at IS NOT NULL") == sorted(removed)
    world.restore(removed[:5])
    age(db, 5000)
    stac(db, simulator, full_update=True)
    assert_whole(db, world, simulator)


def test_a_search_says_nothing_of_what_it_does_not_list(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=8, items=200)
    simulator = simulate(world)
    stac(db, simulator)
    age(db, 5000)
    stac(db, simulator, stac_filter="eo:cloud_cover < 10", full_update=True)
    assert len(keys(db)) == 200


def test_items_of_the_last_day_are_listed_again(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=8, items=50, collections=1)
    world.add(5)
    simulator = simulate(world)
    stac(db, simulator)
    assert_whole(db, world, simulator)
    age(db, 5000)
    late = world.add(1, datetime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 7200)))
    stac(db, simulator)
    assert set(late) <= set(keys(db))
    assert one(db, "SELECT max(hi) FROM coverage") < time.time() - 80_000


def test_an_item_that_moves_in_time_keeps_the_counts_right(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=8, items=60, collections=1)
    simulator = simulate(world)
    stac(db, simulator, stac_datetime="2018")
    with closing(sqlite3.connect(db)) as conn:
        # As if it had been at another time when it was listed: within what is covered, and outside.
        conn.execute("UPDATE items SET time = time + 3600 WHERE rowid = 1")
        conn.commit()
    age(db, 5000)
    world.update(world.all_keys())
    stac(db, simulator, stac_datetime="2018")
    assert verify(db).complete, verify(db)
    stac(db, simulator)
    assert_whole(db, world, simulator)


# --- ending early -----------------------------------------------------------------------------------


def test_a_limit_ends_a_run_and_the_next_one_goes_on(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=9, items=400)
    simulator = simulate(world)
    summary = stac(db, simulator, limit=50)
    assert summary.ended == "limit reached"
    assert 50 <= summary.counts.stored <= 50 + 8 * 20
    assert not verify(db).complete
    stac(db, simulator)
    assert_whole(db, world, simulator)


def test_a_dry_run_writes_nothing(db: Path, simulate: Simulate) -> None:
    simulator = simulate(StacWorld(items=50))
    found = preview("stac", db, api_base_url=simulator.url)
    assert found.start.holes == 2
    assert not db.exists()
    told = run_fetcher("fetch", "stac", str(db), "--base-url", simulator.url, "--dry-run")
    assert told.returncode == 0, told
    assert "Nothing was written" in told.stdout


def test_a_mirror_killed_again_and_again_equals_the_undisturbed_one(db: Path, simulate: Simulate) -> None:
    chance = random.Random(5)
    world = StacWorld(seed=10, items=1500)
    simulator = simulate(world, latency=0.01)
    options = ("--page-size", "20", "--batch-size", "10")
    for _ in range(8):
        with running_stac(simulator, db, *options) as process:
            moment = simulator.requests.total() + chance.randint(0, 60)
            eventually(lambda moment=moment: simulator.requests.total() >= moment or process.poll() is not None, 60)
            process.kill()
        if db.exists():
            assert one(db, "PRAGMA integrity_check") == "ok"
    stac(db, simulator)
    undisturbed = db.with_name("undisturbed.db")
    stac(undisturbed, simulator)
    mirrored, expected = dump(db), dump(undisturbed)
    # The last day before now is another for each.
    for each in (mirrored, expected):
        each["coverage"] = query(db, "SELECT scope, lo, items FROM coverage ORDER BY 1")
    assert mirrored == expected
    assert_whole(db, world, simulator)


def running_stac(simulator: Simulator, db: Path, *options: str) -> Any:
    return running(simulator, db, *options, code="import sys; sys.argv.insert(2, 'stac')")


def test_ctrl_c_ends_a_run_within_two_seconds(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=10, items=3000)
    simulator = simulate(world, latency=0.2)
    with running_stac(simulator, db, "--page-size", "20") as process:
        eventually(lambda: simulator.requests["search"] > 10, 30)
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - asked < 3
        assert process.returncode == 130
        assert "Traceback" not in out + err
    told = run_fetcher("verify", str(db))
    assert told.returncode == 3
    assert "not complete" in told.stdout
    assert "Z" in told.stdout.split("Not listed: ")[1]


def test_interrupted_runs_lose_nothing(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=11, items=500)
    there = set(world.all_keys())
    simulator = simulate(world)
    for batches in (1, 2, 3):
        stop = Stop()
        left = [batches]

        def on_batch(_: Any, left: list[int] = left, stop: Stop = stop) -> None:
            left[0] -= 1
            if not left[0]:
                stop.set()

        with pytest.raises(Interrupted):
            stac(db, simulator, db_batch_size=8, stop=stop, on_batch=on_batch)
        world.add(3, datetime=f"201{batches + 5}-06-06T06:06:06Z")
    stac(db, simulator)
    assert set(keys(db)) >= there
    # What came late into a window that was proven before, and tells of no update, is found by a new sweep.
    stac(db, simulator, full_update=True)
    assert_whole(db, world, simulator)


# --- faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flaky", "hostile", "limited"])
def test_profiles_that_go_wrong_end_complete(name: str, db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=12, items=400)
    simulator = simulate(world, profile=PROFILES[name])
    summary = stac(db, simulator, request_timeout=2.0)
    assert summary.exit_code == 0, query(db, "SELECT key, message FROM failures")
    assert set(keys(db)) >= set(world.all_keys())
    assert verify(db).complete, verify(db)


def test_windows_that_fail_for_good_leave_holes_and_the_rest_is_stored(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=13, items=400, collections=1)
    broken: dict[int, bool] = {}

    def faults(kind: str, key: int, attempt: int) -> Any:
        if kind == "search" and simulator.requests["search"] > 3 and not healed:
            broken.setdefault(key, len(broken) % 3 == 1)
            if broken[key]:
                return answer({"detail": "broken"}, 418)
        return None

    healed: list[int] = []
    simulator = simulate(world, faults=faults)
    summary = stac(db, simulator, max_retries=1, stac_page_size=10)
    assert summary.exit_code == 3
    assert 0 < len(keys(db)) < 400
    verdict = verify(db)
    assert not verdict.complete
    assert not verdict.wrong
    told = run_fetcher("failures", str(db))
    assert "broken" in told.stdout
    assert "Traceback" not in told.stderr
    told = run_fetcher("status", str(db))
    assert told.returncode == 0, told
    healed.append(1)
    summary = stac(db, simulator)
    assert summary.exit_code == 0
    assert_whole(db, world, simulator)


def test_an_item_that_cannot_be_used_is_evidence_and_a_retry_lists_it_again(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=13, items=5, collections=1)
    features = [world.item(*key) for key in world.all_keys()]
    bad = {**features[0], "properties": None}
    healed: list[int] = []

    def faults(kind: str, key: int, attempt: int) -> Any:
        if kind == "search" and not healed:
            return answer({"type": "FeatureCollection", "features": [bad, *features[1:]], "links": []})
        return None

    simulator = simulate(world, faults=faults)
    assert stac(db, simulator).exit_code == 3
    assert len(keys(db)) == 4
    healed.append(1)
    told = run_fetcher("retry", str(db), "--delay", "0")
    assert told.returncode == 0, told
    assert keys(db) == sorted(world.all_keys())
    assert verify(db).complete
    assert run_fetcher("retry", str(db)).returncode == 0


def test_a_transient_error_of_a_search_by_post_does_not_change_the_way(db: Path, simulate: Simulate) -> None:
    world = StacWorld(seed=13, items=90, collections=1)

    def faults(kind: str, key: int, attempt: int) -> Any:
        return answer({"message": "oops"}, 500) if kind == "search" and attempt == 0 else None

    dialect = Dialect(quirks=frozenset({"get-search-500"}))
    simulator = simulate(world, faults=faults, dialect=dialect)
    assert stac(db, simulator).exit_code == 0
    assert_whole(db, world, simulator)


def test_an_api_that_cannot_tell_updates_is_mirrored_all_the_same(
    db: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    world = StacWorld(seed=13, items=90, collections=1)
    refusing: list[int] = []

    def faults(kind: str, key: int, attempt: int) -> Any:
        if kind == "search" and refusing:
            refusing.append(key)
            # The second search is that for what was updated.
            return answer({"detail": "updated is no queryable"}, 400) if len(refusing) == 3 else None
        return None

    simulator = simulate(world, faults=faults)
    stac(db, simulator, stac_windows=1)
    refusing.append(0)
    with caplog.at_level(logging.WARNING, "fetcher"):
        assert stac(db, simulator, stac_windows=1).exit_code == 0
    assert_whole(db, world, simulator)


def test_a_host_that_is_no_stac_api_is_said(db: Path, simulate: Simulate) -> None:
    simulator = simulate(StacWorld(items=1), faults=lambda kind, key, attempt: answer([1, 2]))
    with pytest.raises(RemoteError):
        stac(db, simulator)


def test_the_token_goes_to_the_host_alone_and_is_written_nowhere(db: Path, simulate: Simulate) -> None:
    simulator = simulate(StacWorld(items=30))
    stac(db, simulator, stac_token="hush-hush-1234")
    assert b"hush-hush" not in db.read_bytes()


def test_no_collection_of_that_name_is_a_mistake_of_the_caller(db: Path, simulate: Simulate) -> None:
    with pytest.raises(ConfigurationError, match="nothing"):
        stac(db, simulate(StacWorld(items=1)), stac_collections="nothing")


# --- the other commands -----------------------------------------------------------------------------


def test_the_other_commands_make_sense_of_a_stac_mirror(db: Path, simulate: Simulate) -> None:
    simulator = simulate(StacWorld(items=60))
    stac(db, simulator)
    shown = str(db)
    for arguments, code in (
        (("status", shown), 0),
        (("status", shown, "--json"), 0),
        (("verify", shown), 0),
        (("verify", shown, "--json"), 0),
        (("failures", shown), 0),
        (("retry", shown), 0),
        (("doctor", shown), 0),
        (("doctor", shown, "--offline"), 0),
        (("search", shown, "cloud"), 2),
    ):
        told = run_fetcher(*arguments)
        assert told.returncode == code, (arguments, told)
        assert "Traceback" not in told.stdout + told.stderr
        assert "browser" not in told.stdout
    assert "Z" in run_fetcher("status", shown).stdout
    assert "clock  " in run_fetcher("doctor", shown).stdout
    told = run_fetcher("doctor", str(db.with_name("new.db")), "--source", "stac")
    assert told.returncode == 2
    assert "--base-url" in told.stdout
    assert "Traceback" not in told.stdout + told.stderr
