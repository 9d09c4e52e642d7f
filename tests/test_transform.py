"""Every row goes through the user's function before it is stored, and what that fails on is a failure of its own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher import ConfigurationError, Interrupted, Stop, failures, retry, verify
from fetcher.doctor import diagnose
from fetcher.errors import RequestFailed
from fetcher.model import (
    GONE,
    Batch,
    Column,
    Counts,
    Detail,
    Failure,
    Interval,
    Outcome,
    Page,
    Plan,
    Progress,
    Row,
    RunState,
    Table,
)
from fetcher.rows import RowBuilder
from fetcher.simulator import Simulator, World
from fetcher.sources.pr0gramm import ITEMS
from fetcher.stores.sqlite import SqliteStore
from fetcher.transform import Transform, load
from tests.helpers import FAST, ROOT, assert_search_is_exact, column, dump, mirror, one, query, run, run_fetcher

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]

THINGS = Table(
    "things",
    (
        Column("id", "integer", required=True),
        Column("name", "text"),
        Column("size", "real"),
        Column("good", "boolean"),
        Column("more", "json"),
    ),
    position=("id",),
)
PARTS = Table("parts", (Column("id", "text", required=True), Column("count", "integer")), parent="thing_id")
PLACES = Table("places", (Column("id", "text", required=True), Column("name", "text")))
TABLES = (THINGS, PARTS, PLACES)


def transform(function: Callable[..., Any]) -> Transform:
    return Transform(function, "mine:f", TABLES)


def page_of(*rows: Row, **about: Any) -> Page:
    return Page(rows, (1,), Interval(1, 9), None, **about)


def through(function: Callable[..., Any], **changes: Any) -> Page:
    """A page of one thing, gone through a function."""
    thing = {"id": 5, "name": "five", "size": 0.5, "good": True, "more": {"a": [1]}, "new": "field", **changes}
    return transform(function).page(page_of(RowBuilder(THINGS).row(thing, [])))


# --- what the function gets and gives ---------------------------------------------------------------


def test_a_row_comes_as_a_dict_of_its_columns_and_what_else_there_was() -> None:
    seen: list[Any] = []
    through(seen.append)
    assert seen == [{"id": 5, "name": "five", "size": 0.5, "good": True, "more": {"a": [1]}, "extra": {"new": "field"}}]
    assert seen[0]["good"] is True


def test_a_child_comes_with_its_item_and_the_function_may_ask_for_the_table() -> None:
    seen: list[Any] = []

    def see(row: dict[str, Any], table: str) -> dict[str, Any]:
        seen.append((table, row))
        return row

    detail = Detail({"parts": [(5, "a", 1, None)]})
    done = transform(see).page(page_of((5, None, None, None, None, None), details={5: detail}))
    assert [table for table, _ in seen] == ["things", "parts"]
    assert seen[1][1] == {"thing_id": 5, "id": "a", "count": 1, "extra": {}}
    assert done.details[5].rows == detail.rows


def test_the_same_dict_or_a_new_one_is_stored() -> None:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        row["name"] = row["name"].upper()
        return row

    expected = (5, "FIVE", 0.5, 1, '{"a":[1]}', '{"new":"field"}')
    assert through(change).rows == (expected,)
    assert through(lambda row: {**row, "name": "FIVE"}).rows == (expected,)


def test_what_is_no_column_goes_to_extra_and_what_is_left_out_is_null() -> None:
    done = through(lambda row: {"id": row["id"], "length": 4, "more": ["x"]})
    assert done.rows == ((5, None, None, None, '["x"]', '{"length":4}'),)
    assert done.notes == ()
    assert through(lambda row: {**row, "length": 4}).rows[0][-1] == '{"new":"field","length":4}'
    assert through(lambda row: {**row, "extra": None}).rows[0][-1] is None


def test_a_value_of_another_type_is_taken_as_one_of_the_api_would_be() -> None:
    done = through(lambda row: {**row, "size": "2.5", "name": 7})
    assert done.rows == ((5, None, 2.5, 1, '{"a":[1]}', '{"new":"field","name":7}'),)
    assert done.notes == ("mine:f: things.name: expected text, got a number; kept in extra",)


def test_what_is_changed_within_a_json_column_is_stored() -> None:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        row["more"]["a"].append(2)
        row["extra"]["new"] = "other"
        return row

    assert through(change).rows == ((5, "five", 0.5, 1, '{"a":[1,2]}', '{"new":"other"}'),)


def test_one_name_in_place_of_another_is_no_row_as_it_was() -> None:
    def rename(row: dict[str, Any]) -> dict[str, Any]:
        row["title"] = row.pop("name")
        return row

    assert through(rename).rows == ((5, None, 0.5, 1, '{"a":[1]}', '{"new":"field","title":"five"}'),)
    assert through(rename, name=None).rows[0][-1] == '{"new":"field","title":null}'


def test_none_leaves_an_item_out_and_what_came_with_it() -> None:
    done = transform(lambda row: None).page(
        page_of((5, None, None, None, None, None), details={5: Detail({"parts": [(5, "a", 1, None)]})})
    )
    assert (done.rows, done.details, done.left_out, done.failures) == ((), {}, (5,), ())
    assert done.proven == Interval(1, 9)


def test_none_leaves_a_child_out_alone() -> None:
    rows = [(5, "a", 1, None), (5, "b", 2, None)]
    found = transform(lambda row: row if row["id"] == "b" else None).details({5: Detail({"parts": rows})})
    assert found[5].rows == {"parts": rows[1:]}  # type: ignore[union-attr]


def test_rows_of_tables_that_stand_alone_go_through_it_too() -> None:
    def check(row: dict[str, Any], table: str) -> dict[str, Any] | None:
        assert table == "places"
        if row["id"] == "bad":
            raise ValueError("no")
        return None if row["id"] == "none" else {**row, "name": "x"}

    done = transform(check).page(page_of(others={"places": [("a", "y", None), ("none", "", None), ("bad", "", None)]}))
    assert done.others == {"places": [("a", "x", None)]}
    assert done.notes == ("mine:f failed on places bad: ValueError: no; left out",)


def test_pieces_that_are_still_to_come_go_through_it_when_they_do() -> None:
    pieces = Detail({"parts": [(5, "b", 2, None)]}, part=1)
    found = transform(lambda row: {**row, "count": 0}).details(
        {5: Detail({"parts": [(5, "a", 1, None)]}, rest=lambda: pieces), 6: GONE}
    )
    assert found[6] is GONE
    first = found[5]
    assert isinstance(first, Detail)
    assert first.rest is not None
    second = first.rest()
    assert (first.rows["parts"], second.rows["parts"]) == ([(5, "a", 0, None)], [(5, "b", 0, None)])
    assert (second.part, second.rest) == (1, None)


# --- what it fails on -------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


def raises(error: BaseException) -> Callable[[Any], Any]:
    def fail(_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raises(ValueError("two\nlines \x1b[31m \ud800")), "ValueError: two lines \\x1b[31m \\ud800"),
        (raises(KeyError()), "KeyError"),
        (raises(SystemExit(3)), "SystemExit: 3"),
        (raises(Unprintable()), "Unprintable: a text that cannot be made (ValueError)"),
        (lambda row: [row], "it gave a list, and neither a dict nor None"),
        (lambda row: {}, "id must stay as it is: it is missing"),
        (lambda row: {**row, "id": 6}, "id must stay as it is: it was 5 and is 6"),
        (lambda row: {**row, "id": 5.0}, "id must stay as it is: it was 5 and is 5.0"),
        (lambda row: {**row, "extra": "x"}, "extra must be a dict, not a str"),
        (lambda row: {**row, "new": object()}, "TypeError: Object of type object is not JSON serializable"),
        (lambda row: row.setdefault("x", row), "things: a value nested too deeply to be written again"),
    ],
)
def test_what_it_fails_on_is_a_failure_of_its_own(
    function: Callable[..., Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    def one_fails(row: dict[str, Any]) -> Any:
        return function(row) if row["id"] == 5 else row

    good = (6, "six", None, None, None, None)
    done = transform(one_fails).page(page_of((5, "five", None, None, None, None), good))
    assert done.rows == (good,)
    (failure,) = done.failures
    message = f"mine:f failed on things 5: {said.removeprefix('things: ')}"
    assert (failure.stage, failure.key, failure.outcome, failure.message) == ("item", 5, Outcome.MALFORMED, message)
    assert failure.body is not None
    assert json.loads(failure.body)["name"] == "five"
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [message]


def test_only_the_first_failure_is_shown_at_once(caplog: pytest.LogCaptureFixture) -> None:
    failing = transform(raises(ValueError("no")))
    done = failing.page(page_of(*[(id, None, None, None, None, None) for id in range(1, 6)]))
    assert len(done.failures) == 5
    assert len(caplog.records) == 1


def test_a_child_that_it_fails_on_fails_its_item() -> None:
    def pick(row: dict[str, Any], table: str) -> dict[str, Any]:
        return {**row, "id": "c"} if row["id"] == "b" else row

    detail = Detail({"parts": [(5, "a", 1, None), (5, "b", 2, None)]})
    found = transform(pick).details({5: detail, 6: Detail({"parts": [(6, "a", 1, None)]})})
    error = found[5]
    assert isinstance(error, RequestFailed)
    assert str(error) == "mine:f failed on parts b: id must stay as it is: it was 'b' and is 'c'"
    assert error.lasting
    assert isinstance(found[6], Detail)
    done = transform(pick).page(page_of((5, None, None, None, None, None), details={5: detail}))
    assert (done.rows, done.details, [each.key for each in done.failures]) == ((), {}, [5])


@pytest.mark.parametrize("changed", [{"thing_id": 6}, {"thing_id": None}])
def test_a_child_stays_with_its_item(changed: dict[str, Any]) -> None:
    found = transform(lambda row: {**row, **changed}).details({5: Detail({"parts": [(5, "a", 1, None)]})})
    assert "thing_id must stay as it is" in str(found[5])


def test_a_required_json_column_has_to_stay() -> None:
    parts = Table("parts", (Column("id", "text", required=True), Column("more", "json", required=True)), parent="on")
    found = Transform(lambda row: row | {"more": None}, "f", (ITEMS, parts)).details(
        {1: Detail({"parts": [(1, "a", "[]", None)]})}
    )
    assert str(found[1]) == "f failed on parts a: parts: more is missing"


def test_a_required_column_has_to_stay() -> None:
    tags = Table("tags", (Column("id", "integer", required=True), Column("tag", "text", required=True)), parent="on")
    found = Transform(lambda row: {**row, "tag": None}, "f", (ITEMS, tags)).details(
        {1: Detail({"tags": [(1, 2, "x", None)]})}
    )
    assert str(found[1]) == "f failed on tags 2: tags: tag is missing"


# --- any row, any result ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["name", "size", "good", "more", "new", "extra", "\ud800"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(FIELDS.filter(lambda name: name != "extra"), JSON))
def test_a_function_that_does_nothing_changes_nothing(fields: dict[str, Any]) -> None:
    row = RowBuilder(THINGS).row({"id": 1, **fields}, [])
    done = transform(lambda row: row).page(page_of(row))
    assert done.rows == (row,)
    assert done.notes == ()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(FIELDS, JSON))
def test_whatever_it_gives_is_stored_as_the_api_would_have_it_or_is_a_failure(fields: dict[str, Any]) -> None:
    done = through(lambda row: {**row, **fields})
    if isinstance(fields.get("extra", {}), dict | None):
        (row,) = done.rows
        assert [type(value) for value in row] == [
            wanted if value is not None else type(None)
            for wanted, value in zip([int, str, float, int, str, str], row, strict=True)
        ]
        assert all(value.encode() is not None for value in row if isinstance(value, str))
    else:
        assert [each.key for each in done.failures] == [5]


# --- which function ---------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Writes a module of a name of its own into the current folder; returns the name."""
    before, path, made = set(sys.modules), list(sys.path), []

    def write(code: str) -> str:
        made.append(f"mine_{tmp_path.name.replace('-', '_')}_{len(made)}")
        Path(f"{made[-1]}.py").write_text(code, encoding="utf-8")
        return made[-1]

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name in made:
            del sys.modules[name]


def test_a_module_of_the_current_folder_is_found(write: Callable[[str], str]) -> None:
    name = write("class A:\n    @staticmethod\n    def f(row): return row\ndef g(row): return None")
    assert load(f"{name}:g")({}) is None
    assert load(f"{name}:A.f")({}) == {}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mine", "expected module:function, such as mine:clean, not 'mine'"),
        (":f", "expected module:function"),
        ("NAME:", "expected module:function"),
        ("nowhere_at_all:f", "there is no module nowhere_at_all, neither installed nor in "),
        ("NAME.py:f", "name it without .py: NAME:f"),
        ("NAME.below:f", "there is no module NAME.below"),
        ("NAME:g", "the module NAME has no g"),
        ("NAME:five", "NAME:five is no function but an int"),
        ("NAME:later", "NAME:later is async"),
        ("NAME:none", "NAME:none() cannot be called with a row, nor with a row and its table"),
        ("NAME:three", "NAME:three(a, b, c) cannot be called"),
        ("NAME:named", "NAME:named(*, row) cannot be called"),
    ],
)
def test_a_function_that_is_none_is_said_in_one_line(spec: str, said: str, write: Callable[[str], str]) -> None:
    name = write(
        "five = 5\ndef f(row): return row\nasync def later(row): return row\ndef none(): pass\n"
        "def three(a, b, c): pass\ndef named(*, row): pass\n"
    )
    with pytest.raises(ConfigurationError) as error:
        Transform.of(spec.replace("NAME", name), TABLES)
    assert str(error.value).startswith("TRANSFORM (--transform): ")
    assert said.replace("NAME", name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", ["1 +", "1 / 0", "import nothing_of_that_name", "raise SystemExit"])
def test_a_module_that_cannot_be_imported_is_said_in_one_line(code: str, write: Callable[[str], str]) -> None:
    name = write(code)
    with pytest.raises(ConfigurationError, match=f"the module {name} cannot be imported: [A-Z]") as error:
        load(f"{name}:f")
    assert "\n" not in str(error.value)


def test_a_function_may_take_the_table_or_not() -> None:
    def second(row: Any, table: str = "") -> Any:
        return {**row, "name": table}

    class Called:
        def __call__(self, row: Any) -> Any:
            return {**row, "name": "called"}

    for function, name in [
        (lambda *given: {**given[0], "name": given[1]}, "things"),
        (second, "things"),
        (lambda row, *, table=1: {**row, "name": str(table)}, "1"),
        (Called(), "called"),
        (dict, "five"),
    ]:
        assert through(function).rows[0][1] == name, function


# --- a whole mirror ---------------------------------------------------------------------------------

WORLD = World(seed=1, items=150)
DROPPED = frozenset(id for id in WORLD.ids() if id % 3 == 0)
KEPT = [id for id in WORLD.ids() if id % 3]
CODE = """
def clean(row, table):
    if table == "items":
        if row["id"] % 3 == 0:
            return None
        row["user"] = (row["user"] or "").upper()
        row["score"] = row["up"] - row["down"]
        return row
    if table == "tags":
        return row if row["confidence"] > 0.3 else None
    return {**row, "name": None}
"""
exec(CODE)
clean: Callable[..., Any] = globals()["clean"]


def assert_clean(db: Path) -> None:
    assert column(db, "SELECT id FROM items ORDER BY id") == KEPT
    assert verify(db).complete
    assert query(db, "SELECT id, user, extra ->> '$.score' FROM items ORDER BY id") == [
        (id, WORLD.item(id)["user"].upper(), WORLD.item(id)["up"] - WORLD.item(id)["down"]) for id in KEPT
    ]
    tags = sorted((id, tag["id"]) for id in KEPT for tag in WORLD.info(id)["tags"] if tag["confidence"] > 0.3)
    assert query(db, "SELECT item_id, id FROM tags ORDER BY 1, 2") == tags
    comments = sum(len(WORLD.info(id)["comments"]) for id in KEPT)
    assert query(db, "SELECT count(*), count(name) FROM comments") == [(comments, 0)]
    assert one(db, "SELECT count(*) FROM work") == 0
    assert_search_is_exact(db)


def test_a_mirror_holds_what_the_function_makes_of_it(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    summary = mirror(db, simulator, transform=clean)
    assert (summary.exit_code, summary.counts.stored) == (0, len(KEPT))
    assert_clean(db)
    assert simulator.requests["info"] == len(KEPT)
    assert json.loads(one(db, "SELECT plan FROM runs"))["transform"] == f"{clean.__module__}:clean"


def test_what_was_left_out_is_not_fetched_by_another_run_nor_called_unlisted(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    mirror(db, simulator, transform=clean)
    assert mirror(db, simulator, transform=clean).counts.stored == 0
    assert simulator.requests["info"] == len(KEPT)
    assert mirror(db, simulator, transform=clean, full_update=True).exit_code == 0
    assert simulator.requests["info"] == 2 * len(KEPT)
    assert_clean(db)


def test_what_was_stored_before_there_was_a_function_stays_until_all_is_had_anew(
    db: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate(WORLD)
    mirror(db, simulator)
    mirror(db, simulator, transform=clean, full_update=True)
    assert "the last run stored rows as they came, this one stores them through " in caplog.text
    assert verify(db).complete
    assert column(db, "SELECT id FROM items ORDER BY id") == list(WORLD.ids())
    assert one(db, "SELECT count(*) FROM items WHERE unlisted_at IS NOT NULL") == 0
    kept = query(db, "SELECT user = upper(user) AND extra IS NOT NULL, count(*) FROM items GROUP BY 1 ORDER BY 1")
    assert kept == [(0, len(DROPPED)), (1, len(KEPT))]
    caplog.clear()
    mirror(db, simulator, transform=clean)
    assert "the last run" not in caplog.text


def test_an_interrupted_mirror_goes_on_to_the_same(db: Path, tmp_path: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    whole = tmp_path / "whole.db"
    mirror(whole, simulator, transform=clean)
    for _ in range(100):
        stop = Stop()
        try:
            mirror(db, simulator, transform=clean, stop=stop, db_batch_size=7, on_batch=lambda _, stop=stop: stop.set())
            break
        except Interrupted:
            pass
    else:
        raise AssertionError("it does not end")
    assert one(db, "SELECT count(*) FROM runs") > 3
    assert_clean(db)
    assert dump(db) == dump(whole)


def test_with_a_function_that_does_nothing_a_mirror_is_as_without(db: Path, tmp_path: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    plain = tmp_path / "plain.db"
    mirror(plain, simulator)
    mirror(db, simulator, transform=lambda row: row)
    assert dump(db) == dump(plain)


ITEM, TAGGED = KEPT[4], next(id for id in KEPT[10:] if WORLD.info(id)["tags"])


def fails_on_two(row: dict[str, Any], table: str) -> dict[str, Any]:
    if table == "items" and row["id"] == ITEM:
        raise ValueError("not this one")
    if table == "tags" and row["item_id"] == TAGGED:
        raise KeyError("nor this one")
    return row


def test_what_it_fails_on_is_set_aside_at_once_and_the_rest_goes_on(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    summary = mirror(db, simulator, transform=fails_on_two)
    assert (summary.exit_code, summary.counts.stored, summary.parked) == (3, 148, 2)
    assert summary.counts.retries == 0
    name = f"{fails_on_two.__module__}:fails_on_two"
    found = {each.key: each for each in failures(db)}
    assert {(each.stage, each.outcome) for each in found.values()} == {("item", "malformed"), ("detail", "malformed")}
    assert found[ITEM].message == f"{name} failed on items {ITEM}: ValueError: not this one"
    assert found[TAGGED].message.startswith(f"{name} failed on tags ")
    assert found[TAGGED].message.endswith(": KeyError: 'nor this one'")
    assert found[ITEM].body is not None
    assert json.loads(found[ITEM].body)["user"] == WORLD.item(ITEM)["user"]
    assert not verify(db).complete
    before = simulator.requests["info"]
    assert mirror(db, simulator, transform=fails_on_two).exit_code == 3
    assert simulator.requests["info"] == before

    again = retry(db, transform=lambda row: row, **FAST)
    assert again is not None
    assert (again.exit_code, again.counts.stored) == (0, 2)
    assert verify(db).complete
    assert failures(db) == []


def test_an_item_that_it_failed_on_may_be_left_out_later(db: Path, simulate: Simulate) -> None:
    mirror(db, simulate(WORLD), transform=fails_on_two)
    left_out = lambda row, table: None if table == "tags" or row["id"] == ITEM else row  # noqa: E731
    again = retry(db, transform=left_out, **FAST)
    assert again is not None
    assert again.exit_code == 0
    assert verify(db).complete
    assert column(db, "SELECT id FROM items ORDER BY id") == [id for id in WORLD.ids() if id != ITEM]


def test_all_may_be_left_out(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    assert mirror(db, simulator, transform=lambda row: None).exit_code == 0
    assert simulator.requests["info"] == 0
    assert one(db, "SELECT count(*) FROM items") == 0
    assert verify(db).complete


def test_a_limit_counts_what_is_stored(db: Path, simulate: Simulate) -> None:
    summary = mirror(db, simulate(WORLD), transform=clean, limit=20)
    assert (summary.ended, summary.counts.stored) == ("limit reached", 20)


# --- the command line -------------------------------------------------------------------------------


def test_the_command_takes_a_function_by_option_and_env(db: Path, simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(WORLD)
    (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")
    done = run(simulator, db, "--transform", "mine:clean")
    assert (done.returncode, done.stderr) == (0, "")
    assert_clean(db)
    (tmp_path / ".env").write_text("TRANSFORM=mine:clean\n", encoding="utf-8")
    assert run(simulator, db, "--full").stderr == ""
    assert run(simulator, db, "--transform", "").stderr.count("the last run stored rows through mine:clean") == 1


@pytest.mark.parametrize("command", ["fetch", "retry"])
def test_a_wrong_function_is_one_line_and_nothing_is_asked_or_made(command: str, db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    if command == "retry":
        mirror(db, simulator, limit=5)
    before = simulator.requests.total()
    done = run_fetcher(command, str(db), "--base-url", simulator.url, "--transform", "nowhere:f")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("fetcher: TRANSFORM (--transform): there is no module nowhere")
    assert "Traceback" not in done.stderr
    assert simulator.requests.total() == before
    assert db.exists() == (command == "retry")


def test_the_example_of_the_guide_does_what_it_says(db: Path, simulate: Simulate, tmp_path: Path) -> None:
    guide = (ROOT / "docs/how-to/transform.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    (command,) = re.findall(r"^fetcher fetch pr0gramm.db (.*)$", guide, re.MULTILINE)
    done = run(simulate(WORLD), db, *command.split())
    assert (done.returncode, done.stderr) == (0, "")
    kept = [id for id in WORLD.ids() if WORLD.item(id)["up"] + WORLD.item(id)["down"] >= 10]
    assert 0 < len(kept) < 150
    days = [datetime.fromtimestamp(WORLD.item(id)["created"], UTC).strftime("%Y-%m-%d") for id in kept]
    assert query(db, "SELECT id, user, extra ->> 'day' FROM items ORDER BY id") == [
        (id, None, day) for id, day in zip(kept, days, strict=True)
    ]
    assert one(db, "SELECT count(name) FROM comments") == 0
    boring = {tag["tag"] for id in kept for tag in WORLD.info(id)["tags"]} & {"dog", "lake"}
    assert boring
    assert not boring.intersection(column(db, "SELECT tag FROM tags"))
    assert verify(db).complete
    (sql,) = re.findall(r'^sqlite3 pr0gramm.db "(.*)"$', guide, re.MULTILINE)
    assert query(db, sql)[0] == (max(days), days.count(max(days)))


def test_the_doctor_looks_for_the_function() -> None:
    found = diagnose(offline=True, transform="nowhere:f")
    (finding,) = [each for each in found if "nowhere" in each.message]
    assert (finding.what, finding.level) == ("settings", "bad")
    assert "nowhere" not in str(diagnose(offline=True, transform=clean))


def test_a_failure_is_one_line_on_the_terminal(db: Path, simulate: Simulate, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(row):\n    return row if row['id'] % 2 else 1 / 0\n", encoding="utf-8")
    done = run(simulate(World(seed=1, items=20)), db, "--transform", "mine:f")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "mine:f failed on items " in done.stderr
    assert ": ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr


# --- in a store whose listings prove something only when all of it has come -------------------------

NAMED = Table("named", (Column("id", "text", required=True), Column("at", "integer")), position=("at",))


def test_what_is_left_out_counts_as_listed_where_a_whole_walk_proves(db: Path) -> None:
    now = [1000.0]
    state = RunState(Progress(Counts(), 0, 0, 0, 0, None))
    rows = (("a", 1, None), ("b", 2, None), ("c", 3, None))
    with closing(SqliteStore.open(db, "x", (NAMED,), "http://x.test", clock=lambda: now[0])) as store:
        store.begin_run(Plan())

        def list_(rows: tuple[Row, ...], **about: Any) -> None:
            details = {row[0]: Detail({}) for row in rows}
            page = Page(rows, ("s",), Interval(1, 9), None, details=details, began=now[0], **about)
            store.commit(Batch(pages=(page,)), state)

        list_(rows)
        now[0] = 2000.0
        list_(rows[:1], failures=(Failure("item", "b", Outcome.MALFORMED, "mine:f failed"),))
        assert store.counts().parked == 1
        now[0] = 3000.0
        list_(rows[:1], left_out=("b",))
        assert store.counts().parked == 0
    assert query(db, "SELECT id, unlisted_at FROM named ORDER BY id") == [("a", None), ("b", None), ("c", 2000)]
