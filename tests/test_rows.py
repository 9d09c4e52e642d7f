"""Objects of an API become rows that SQLite takes, by a fast path and a careful one that agree."""

from __future__ import annotations

import json
import sqlite3
import string
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fetcher.errors import RequestFailed
from fetcher.model import Column, Outcome, Table
from fetcher.rows import Parser, RowBuilder, as_json, decode, storable_text

PLAIN = Table(
    "things",
    (
        Column("id", "integer", required=True),
        Column("name", "text", required=True),
        Column("score", "real"),
        Column("up", "integer"),
    ),
    parent="item_id",
)
"""Its columns are of types that the Parser knows."""

FULL = Table("items", (*PLAIN.columns, Column("on", "boolean"), Column("list", "json")))
"""Its columns are of every type."""

plain, full = RowBuilder(PLAIN), RowBuilder(FULL)
parser = Parser((PLAIN,), absent=("error",))
GOOD: dict[str, Any] = {"id": 7, "name": "n", "score": 0.5, "up": -1}


def built(builder: RowBuilder, *objects: Any) -> tuple[list[Any], list[str]]:
    notes: list[str] = []
    return builder.rows(objects, notes), notes


def row_of(builder: RowBuilder = full, /, **changes: Any) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The row by column, its extra and the notes, for the good object with these changes."""
    rows, notes = built(builder, GOOD | changes)
    names = [column.name for column in builder.table.columns]
    extra = rows[0][-1]
    return dict(zip(names, rows[0], strict=False)), json.loads(extra) if extra else {}, notes


# What becomes of one value


def test_a_good_object_is_a_row_of_its_columns_and_nothing_else() -> None:
    assert built(plain, GOOD) == ([(7, "n", 0.5, -1, None)], [])
    assert built(full, GOOD | {"on": True, "list": [1]}) == ([(7, "n", 0.5, -1, 1, "[1]", None)], [])


def test_the_parents_key_comes_first() -> None:
    assert plain.rows([GOOD, GOOD | {"new": 1}], [], (3,))[0][0] == 3
    assert plain.rows([GOOD, GOOD | {"new": 1}], [], (3,))[1][0] == 3


@pytest.mark.parametrize(
    ("field", "given", "stored"),
    [
        ("up", "12", 12),
        ("up", "-12", -12),
        ("up", "007", 7),
        ("up", str(2**63 - 1), 2**63 - 1),
        ("up", -(2**63), -(2**63)),
        ("score", "0.25", 0.25),
        ("score", 1, 1.0),
        ("score", "1e3", 1000.0),
        ("on", True, 1),
        ("on", False, 0),
        ("on", 0, 0),
        ("on", "1", 1),
        ("list", {"a": [None, 1.5, "ü"]}, '{"a":[null,1.5,"ü"]}'),
        ("list", "", '""'),
        ("name", "a\0b", "a\0b"),
    ],
)
def test_what_can_be_read_as_its_columns_type_is(field: str, given: Any, stored: Any) -> None:
    row, extra, notes = row_of(**{field: given})
    assert (row[field], type(row[field])) == (stored, type(stored))
    assert (extra, notes) == ({}, [])


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("up", "twelve"),
        ("up", ""),
        ("up", "1.0"),
        ("up", "１２"),
        ("up", "12\n"),
        ("up", 1.0),
        ("up", True),
        ("up", []),
        ("up", 2**63),
        ("up", -(2**63) - 1),
        ("up", str(2**63)),
        ("up", 10**400),
        ("score", "nan"),
        ("score", "Infinity"),
        ("score", "1e400"),
        ("score", 10**400),
        ("score", True),
        ("score", {}),
        ("on", 2),
        ("on", "true"),
        ("on", 1.0),
    ],
)
def test_a_wrong_type_is_null_its_original_kept_and_a_note_made(field: str, given: Any) -> None:
    row, extra, notes = row_of(**{field: given})
    assert row[field] is None
    assert extra == {field: given}
    assert type(extra[field]) is type(given)
    assert len(notes) == 1
    assert field in notes[0]


def test_a_number_where_text_belongs_is_kept_in_extra() -> None:
    optional = RowBuilder(Table("t", (Column("id", "integer", required=True), Column("text", "text"))))
    assert built(optional, {"id": 1, "text": 5})[0] == [(1, None, '{"text":5}')]


def test_a_field_not_declared_is_kept_and_noted() -> None:
    row, extra, notes = row_of(plain, new={"deep": [1]}, extra="theirs", item_id=9)
    assert extra == {"new": {"deep": [1]}, "extra": "theirs", "item_id": 9}
    assert len(notes) == 3
    assert row["id"] == 7


@pytest.mark.parametrize("given", [None, ...])
def test_an_absent_or_null_optional_field_is_null_without_a_note(given: Any) -> None:
    thing = {key: value for key, value in (GOOD | {"up": given}).items() if value is not ...}
    assert built(plain, thing) == ([(7, "n", 0.5, None, None)], [])


@pytest.mark.parametrize("field", ["id", "name"])
@pytest.mark.parametrize("given", [..., None, [], 2**63, True, "\ud800"])
def test_a_required_field_missing_or_unusable_is_malformed(field: str, given: Any) -> None:
    thing = {key: value for key, value in (GOOD | {field: given}).items() if value is not ...}
    with pytest.raises(RequestFailed, match=rf"things: {field}") as failed:
        built(plain, thing)
    assert failed.value.outcome is Outcome.MALFORMED
    assert "\n" not in str(failed.value)
    assert str(failed.value).isascii()
    assert len(str(failed.value)) < 200


@pytest.mark.parametrize("given", [None, 1, "text", [], [1, 2, 3, 4], True])
def test_what_is_no_object_is_malformed(given: Any) -> None:
    for builder in (plain, full):
        with pytest.raises(RequestFailed, match="expected an object"):
            built(builder, given)


def test_a_lone_surrogate_is_null_and_its_escape_kept() -> None:
    optional = RowBuilder(Table("t", (Column("id", "integer", required=True), Column("text", "text"))))
    data = decode(rb'[{"id": 1, "text": "\ud800"}]')
    (row,) = optional.rows(data, [])
    assert row == (1, None, r'{"text":"\ud800"}')


def test_a_surrogate_pair_is_a_character() -> None:
    data = decode(rb'"\ud83d\ude00"')
    assert data == "😀"


def test_a_number_beyond_a_double_is_no_text() -> None:
    optional = RowBuilder(Table("t", (Column("id", "integer", required=True), Column("text", "text"))))
    for number in ("1e999", "-1e999", "1" * 5000):
        data = decode(f'[{{"id": 1, "text": {number}}}]'.encode())
        notes: list[str] = []
        assert optional.rows(data, notes) == [(1, None, f'{{"text":"{number}"}}')]
        assert notes == ["t.text: expected text, got a number; kept in extra"]
        with pytest.raises(RequestFailed, match="things: name is no usable text"):
            built(plain, GOOD | {"name": data[0]["text"]})


def test_the_last_of_duplicated_keys_counts_in_strict_and_odd_bodies() -> None:
    assert decode(b'{"a": 1, "a": 2}') == {"a": 2}
    assert decode(b'{"a": 1, "a": 1e999}') == {"a": "1e999"}


def test_integers_beyond_sqlite_are_noticed() -> None:
    for number in (2**63, 2**64, -(2**63) - 1, -(2**64), 10**30):
        data = decode(json.dumps([GOOD | {"up": number}]).encode())
        rows = plain.rows(data, [])
        assert rows[0][3] is None
        assert json.loads(rows[0][4]) == {"up": number}


def test_whatever_decode_takes_can_be_written_however_deep() -> None:
    for depth in range(900, 1010):
        body = b'[{"id": 1, "name": "", "deep": ' + b"[" * depth + b"]" * depth + b"}]"
        try:
            data = decode(body)
        except ValueError:
            continue
        try:
            plain.rows(data, [])
        except RequestFailed:
            continue


def test_what_is_too_deep_to_be_written_is_malformed_whatever_is_in_it() -> None:
    for innermost in ("text", "\ud800", 2**70):
        value: Any = innermost
        for _ in range(2000):
            value = [innermost, value]
        with pytest.raises(RequestFailed, match="nested too deeply") as failed:
            as_json(value)
        assert failed.value.outcome is Outcome.MALFORMED


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"NaN",
        b"[Infinity]",
        b'{"a": -Infinity}',
        b"\xff",
        b'"\xed\xa0\x80',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"{} trailing",
        b"<html>",
        b"\0",
    ],
)
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode(body)


def test_a_number_beyond_a_double_is_kept_as_it_was_written() -> None:
    assert decode(b"[1e400, -1e400, 0.5]") == ["1e400", "-1e400", 0.5]
    assert decode(b"1" * 5000) == "1" * 5000


text = st.text(st.characters(codec=None) | st.sampled_from('\0\ud800\udfff"\\ü😀'), max_size=6)
numbers = (
    st.integers()
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
)
scalars = st.none() | st.booleans() | numbers | text | numbers.map(str)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
fields = st.sampled_from([*(column.name for column in FULL.columns), "extra", "item_id", "new"]) | text
nearly_good = st.builds(
    lambda good, changes: good | changes,
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**63), 2**64),
            "name": st.text(max_size=3),
            "score": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**64), 2**64),
            "up": st.none() | st.integers(-(2**63) - 1, 2**63),
        }
    ),
    st.just({}) | st.dictionaries(fields, values, max_size=2),
)
objects = nearly_good | st.dictionaries(fields, values, max_size=6) | values


def as_stored(builder: RowBuilder, row: Sequence[Any]) -> tuple[Any, ...]:
    """The row as a STRICT table holds it, where an integer in a REAL column is a float."""
    *parent, values, extra = [
        *row[: -len(builder.table.columns) - 1],
        row[-len(builder.table.columns) - 1 : -1],
        row[-1],
    ]
    reals = [
        column.type == "real" and value is not None for column, value in zip(builder.table.columns, values, strict=True)
    ]
    return (*parent, *(float(value) if real else value for value, real in zip(values, reals, strict=True)), extra)


def outcome(build: Any) -> Any:
    """The rows and notes, or how it failed."""
    notes: list[str] = []
    try:
        # By its repr, for 1 == 1.0 == True.
        return repr(([as_stored(plain, row) for row in build(notes)], notes))
    except RequestFailed as error:
        return error.outcome, str(error)


@settings(max_examples=120, deadline=None)
@given(st.lists(objects, max_size=3))
@example([{"id": 2**63 - 1, "name": "", "score": -0.0, "up": -(2**63)}])
@example([{"id": 1, "name": "", "score": 0.0, "up": True}])
@example([{"id": 1, "name": "", "score": 2**63 - 1, "up": -(2**63) - 1}])
@example([{"id": 1, "name": "", "score": 10**400, "up": None}, {"id": None, "name": "", "score": 1, "up": 1}])
def test_the_parser_takes_nothing_that_the_builder_would_make_otherwise(things: list[Any]) -> None:
    body = json.dumps({"things": things, "ts": 1}).encode()
    parsed = parser.parse(body)
    if parsed is not None:
        rows = parser.rows(parsed, 1)["things"]
        careful = outcome(lambda notes: plain.rows(decode(body)["things"], notes, (1,)))
        assert careful == repr(([as_stored(plain, row) for row in rows], []))


def test_the_parser_takes_the_usual_body() -> None:
    body = {"things": [GOOD, GOOD | {"up": None, "score": 1}], "ts": 1, "error": None}
    parsed = parser.parse(json.dumps(body).encode())
    assert parser.rows(parsed, 5) == {"things": [(5, 7, "n", 0.5, -1, None), (5, 7, "n", 1.0, None, None)]}


@pytest.mark.parametrize(
    "unusual",
    [
        {"things": [GOOD | {"new": 1}]},
        {"things": [{key: GOOD[key] for key in ("id", "name", "score")}]},
        {"things": [GOOD | {"id": "7"}]},
        {"things": [GOOD | {"id": None}]},
        {"things": [GOOD | {"id": 2**63}]},
        {"things": [GOOD | {"up": True}]},
        {"things": [GOOD | {"name": "\ud800"}]},
        {"things": None},
        {"things": [GOOD], "error": "limitReached"},
        {},
        [],
    ],
)
def test_the_parser_leaves_what_is_unusual(unusual: Any) -> None:
    assert parser.parse(json.dumps(unusual).encode()) is None


@pytest.mark.parametrize(
    "body", [b'{"things": [], "cache": "\xff"}', b'{"things": [], "\xff": 1}', b'{"things": [], "a": ["\xed\xa0\x80"]}']
)
def test_the_parser_leaves_what_is_not_utf_8_wherever_that_is(body: bytes) -> None:
    assert parser.parse(body) is None


def test_the_parser_takes_utf_8_that_is_not_escaped() -> None:
    body = json.dumps({"things": [GOOD | {"name": "ü🍎"}], "cache": "ä"}, ensure_ascii=False).encode()
    assert parser.rows(parser.parse(body), 5) == {"things": [(5, 7, "ü🍎", 0.5, -1, None)]}


@pytest.fixture(scope="module")
def strict_tables() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        columns = '"id" INTEGER NOT NULL, "name" TEXT NOT NULL, "score" REAL, "up" INTEGER'
        conn.execute(f'CREATE TABLE "things" ("item_id" INTEGER NOT NULL, {columns}, "extra" TEXT) STRICT')
        conn.execute(f'CREATE TABLE "items" ({columns}, "on" INTEGER, "list" TEXT, "extra" TEXT) STRICT')
        yield conn


@settings(max_examples=120, deadline=None)
@given(objects)
def test_every_row_can_be_stored_and_loses_nothing(strict_tables: sqlite3.Connection, thing: Any) -> None:
    data = decode(json.dumps([thing]).encode())
    for builder, parent in ((plain, (1,)), (full, ())):
        try:
            (row,) = builder.rows(data, notes := [], parent)
        except RequestFailed:
            continue
        name = builder.table.name
        strict_tables.execute("BEGIN")
        try:
            strict_tables.execute(f'INSERT INTO "{name}" VALUES ({",".join("?" * len(row))})', row)
            stored = strict_tables.execute(f'SELECT * FROM "{name}"').fetchone()
        finally:
            strict_tables.execute("ROLLBACK")
        assert stored == as_stored(builder, row)
        extra = json.loads(row[-1]) if row[-1] else {}
        by_name = dict(zip([column.name for column in builder.table.columns], row[len(parent) :], strict=False))
        for field, value in data[0].items():
            assert field in extra or value is None or by_name[field] is not None
        assert len(notes) == len(extra)


@settings(max_examples=120, deadline=None)
@given(
    st.binary(max_size=40)
    | st.text(string.printable, max_size=30).map(str.encode)
    | values.map(lambda value: json.dumps(value).encode())
    | st.lists(
        st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\u", b"d800", b":", b",", b"1e400", b"-", b"null", b"\xff"])
    ).map(b"".join)
)
def test_decode_raises_nothing_but_a_value_error(body: bytes) -> None:
    try:
        data = decode(body)
    except ValueError:
        return
    assert storable_text(as_json(data))


@settings(max_examples=100, deadline=None)
@given(values)
def test_json_text_is_storable_and_says_the_same(value: Any) -> None:
    written = as_json(value)
    assert storable_text(written)
    assert json.loads(written) == value
