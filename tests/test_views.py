"""Views: questions that many will ask, ready in the database."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fetcher.model import View
from fetcher.simulator import Simulator, World
from fetcher.sources import of, registry
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores.sqlite import SqliteStore
from tests.helpers import column, mirror, one, query

DB = Path("m.db")


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=4, items=150)


@pytest.fixture(scope="module")
def mirrored(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    db = tmp_path_factory.mktemp("views") / "m.db"
    with Simulator(world) as simulator:
        mirror(db, simulator)
    return db


def tags_of(world: World, id: int) -> list[str]:
    """The tags of an item, the most certain first."""
    return [each["tag"] for each in sorted(world.info(id)["tags"], key=lambda each: (-each["confidence"], each["id"]))]


def test_top_tags_are_what_counting_gives(world: World, mirrored: Path) -> None:
    counts = Counter(tag for id in world.ids() for tag in tags_of(world, id))
    expected = sorted(counts.items(), key=lambda each: (-each[1], each[0].encode()))
    assert query(mirrored, "SELECT tag, items FROM top_tags") == expected


def test_items_with_tags_are_the_items_with_their_tags(world: World, mirrored: Path) -> None:
    rows = query(mirrored, "SELECT id, tags, comments FROM items_with_tags ORDER BY id")
    assert [(id, json.loads(tags), comments) for id, tags, comments in rows] == [
        (id, tags_of(world, id), len(world.info(id)["comments"])) for id in world.ids()
    ]
    names = column(mirrored, "SELECT name FROM pragma_table_info('items_with_tags')")
    assert names == [*column(mirrored, "SELECT name FROM pragma_table_info('items')"), "tags", "comments"]


def test_recent_are_the_100_newest_items(world: World, mirrored: Path) -> None:
    expected = []
    for id in sorted(world.ids(), reverse=True)[:100]:
        item, comments = world.item(id), world.info(id)["comments"]
        created = datetime.fromtimestamp(item["created"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        score = item["up"] - item["down"]
        expected.append((id, created, item["user"], score, tags_of(world, id), len(comments), item["image"]))
    rows = query(mirrored, "SELECT id, created, user, score, tags, comments, image FROM recent")
    assert [(*row[:4], json.loads(row[4]), *row[5:]) for row in rows] == expected


# --- made and made anew -----------------------------------------------------------------------------


def open_with(*views: View) -> list[str]:
    """Open a mirror with these views; returns the warnings."""
    said: list[str] = []
    with closing(
        SqliteStore.open(DB, "pr0gramm", Pr0gramm.tables, "http://x.test", views=views, warn=said.append)
    ) as store:
        store.counts()
    return said


def views() -> dict[str, Any]:
    return dict(query(DB, "SELECT name, sql FROM sqlite_master WHERE type = 'view' AND name != 'search_text'"))


def test_a_database_of_before_gets_them_and_changed_ones_are_made_anew() -> None:
    assert (open_with(), views()) == ([], {})
    first, second = View("few", "SELECT 1 AS a"), View("many", "SELECT * FROM few")
    assert open_with(first, second) == []
    assert (one(DB, "SELECT a FROM few"), one(DB, "SELECT a FROM many")) == (1, 1)
    before = one(DB, "PRAGMA schema_version")
    assert open_with(first, second) == []
    assert one(DB, "PRAGMA schema_version") == before
    assert open_with(View("few", "SELECT 2 AS a"), second) == []
    assert one(DB, "SELECT a FROM many") == 2
    assert open_with(second) == []
    assert set(views()) == {"many"}


def test_what_somebody_else_has_made_under_a_name_stays() -> None:
    with closing(SqliteStore.open(DB, "pr0gramm", Pr0gramm.tables, "http://x.test")) as store:
        store._conn.execute("CREATE VIEW top_tags AS SELECT 'mine' AS tag")
        store._conn.execute("CREATE TABLE recent (mine)")
        store._conn.execute("CREATE VIEW their AS SELECT 1")
    said = open_with(*Pr0gramm.views)
    assert [line.split(" is ")[0] for line in said] == ["the view top_tags", "the view recent"]
    assert one(DB, "SELECT tag FROM top_tags") == "mine"
    assert set(views()) == {"top_tags", "their", "items_with_tags"}


def test_a_source_may_have_no_views() -> None:
    class Plain:
        name = "plain"

    assert of(Plain, "views") == ()  # type: ignore[arg-type]
    assert of(registry()["pr0gramm"], "views") == Pr0gramm.views
