"""The source `files`: what it reads, what it makes of wrong files, and what it does when they change."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner
from helpers import ROOT, column, eventually, query, run_fetcher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher import ConfigurationError, Interrupted, Stop, Summary, fetch, retry, verify
from fetcher.cli import cli
from fetcher.sources.files import reading
from fetcher.sources.files.documents import DEEPEST
from fetcher.sources.files.names import path_of, shown, text_of

DB = Path("items.db")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*paths: Path | str, db: Path = DB, **options: Any) -> Summary:
    return fetch("files", db, file_paths=tuple(map(str, paths)), **options)


def stored(db: Path = DB) -> list[Any]:
    return [json.loads(text) for text in column(db, "SELECT json FROM items ORDER BY file, number")]


def failures(db: Path = DB) -> list[str]:
    return column(db, "SELECT message FROM failures ORDER BY key")


def feature(number: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"item-{number}",
        "collection": "things",
        "geometry": {"type": "Point", "coordinates": [number / 4, 2.5]},
        "bbox": [number / 4, 2.5, number / 4, 2.5],
        "properties": {"datetime": "2024-01-01T00:00:00Z", "eo:cloud_cover": number / 8, **more},
        "links": [{"rel": "self", "href": f"https://stac.example/{number}"}],
        "assets": {"data": {"href": f"https://stac.example/{number}.tif", "roles": ["data"]}},
    }


ITEMS = [feature(number) for number in range(5)]


# --- what is read -----------------------------------------------------------------------------------


def lines(items: Iterable[Any]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in items).encode()


def collection(items: Iterable[Any]) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": [*items], "numberMatched": 5}).encode()


def parquet(items: list[Any], path: Path) -> None:
    import pyarrow.parquet as pq
    import stac_geoparquet.arrow as stac

    pq.write_table(stac.parse_stac_items_to_arrow(items).read_all(), path)


CONTAINERS: dict[str, Callable[[list[Any]], bytes]] = {
    "list.json": lambda items: json.dumps(items, indent=2).encode(),
    "features.json": collection,
    "late.json": lambda items: json.dumps({"features": items, "type": "FeatureCollection"}).encode(),
    "items.ndjson": lines,
    "lines.json": lines,
    "items.geojsons": lambda items: b"".join(b"\x1e" + json.dumps(each).encode() + b"\n" for each in items),
    "crlf.ndjson": lambda items: lines(items).replace(b"\n", b"\r\n"),
    "blank.ndjson": lambda items: b"\n" + lines(items).replace(b"\n", b"\n\n"),
    "bom.json": lambda items: b"\xef\xbb\xbf" + json.dumps(items).encode(),
    "bom.ndjson": lambda items: b"\xef\xbb\xbf" + lines(items),
    "list.json.gz": lambda items: gzip.compress(json.dumps(items).encode()),
    "two-members.ndjson.gz": lambda items: gzip.compress(lines(items[:2])) + gzip.compress(lines(items[2:])),
    "items.ndjson.zst": lambda items: zstandard.compress(lines(items)),
    "two-frames.ndjson.zst": lambda items: zstandard.compress(lines(items[:2])) + zstandard.compress(lines(items[2:])),
    "list.ndjson": lambda items: json.dumps(items, indent=1).encode(),
    "no name": lines,
}


@pytest.mark.parametrize("small", [True, False], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_its_items(name: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        for constant, value in (("SMALL_BYTES", 10), ("PIECE_ROWS", 2)):
            monkeypatch.setattr(reading, constant, value)
    Path(name).write_bytes(CONTAINERS[name](ITEMS))
    assert read(name).exit_code == 0
    assert stored() == ITEMS
    assert column(DB, "SELECT id FROM items ORDER BY number") == [each["id"] for each in ITEMS]
    assert verify(DB).complete


def test_one_object_is_one_item_and_its_text_stays_as_it_is() -> None:
    text = '{ "id": "one",\n  "big": 123456789012345678901234567890, "e": 1E400, "id2": 1.0, "twice": 1, "twice": 2 }'
    Path("one.json").write_text(text)
    read("one.json")
    assert query(DB, "SELECT number, id, json FROM items") == [(1, "one", text)]


def test_a_folder_is_read_however_deep_and_columns_are_read_out_of_its_items(folder: Path) -> None:
    for number, each in enumerate(ITEMS):
        path = folder / "data" / "/".join("abc"[:number]) / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(each))
    (folder / "data/README.md").write_text("no item")
    assert read("data").counts.listed == 5
    rows = query(DB, 'SELECT id, collection, datetime, "eo:cloud_cover", geometry FROM items ORDER BY id LIMIT 1')
    assert rows == [("item-0", "things", "2024-01-01T00:00:00Z", 0.0, '{"type":"Point","coordinates":[0.0,2.5]}')]
    assert query(DB, "SELECT item, asset, href FROM assets ORDER BY 1 LIMIT 1") == [
        ("item-0", "data", "https://stac.example/0.tif")
    ]


def test_what_stands_in_two_files_is_there_twice_and_can_be_found() -> None:
    Path("a.ndjson").write_bytes(lines(ITEMS))
    Path("b.ndjson").write_bytes(lines(ITEMS[:1]))
    read("a.ndjson", "b.ndjson")
    assert query(DB, "SELECT id, copies FROM duplicates") == [("item-0", 2)]
    assert len(stored()) == 6


def test_the_items_of_other_programs_come_out_as_they_are(stac_items: Path) -> None:
    read(stac_items)
    wanted = [each for path in sorted(stac_items.glob("*.json")) for each in json.loads(path.read_text())]
    assert stored() == wanted


@pytest.fixture
def stac_items() -> Path:
    return Path(__file__).parent / "data" / "stac-items"


# --- STAC catalogues --------------------------------------------------------------------------------


def catalogue(folder: Path) -> None:
    """A collection with items below it, one beside it, and a child elsewhere that leads back."""
    (folder / "col/items/a").mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    (folder / "col/items/a/0.json").write_text(json.dumps(ITEMS[0]))
    (folder / "beside.json").write_text(json.dumps(ITEMS[1]))
    (folder / "elsewhere/2 ä.json").write_text(json.dumps(ITEMS[2]))
    links = [
        {"rel": "item", "href": "./items/a/0.json"},
        {"rel": "item", "href": "../beside.json"},
        {"rel": "child", "href": "../elsewhere/child.json"},
        {"rel": "item", "href": "https://stac.example/far.json"},
        {"rel": "parent", "href": "../parent.json"},
    ]
    (folder / "col/collection.json").write_text(json.dumps({"type": "Collection", "id": "col", "links": links}))
    back = [{"rel": "item", "href": "2 ä.json"}, {"rel": "child", "href": "../col/collection.json"}]
    (folder / "elsewhere/child.json").write_text(json.dumps({"type": "Catalog", "id": "child", "links": back}))


@pytest.mark.parametrize("given", ["col", "col/collection.json"])
def test_the_links_of_a_catalogue_are_followed_on_this_machine(given: str, folder: Path) -> None:
    catalogue(folder)
    assert read(given).exit_code == 0
    assert sorted(each["id"] for each in stored()) == ["child", "col", "item-0", "item-1", "item-2"]
    assert column(DB, "SELECT id FROM collections") == ["col"]
    assert verify(DB).complete


# --- Parquet ----------------------------------------------------------------------------------------


def test_stac_geoparquet_gives_the_items_it_was_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_ROWS", 2)
    items = [feature(number, **({"gsd": 10} if number % 2 else {})) for number in range(5)]
    parquet(items, Path("items.parquet"))
    assert read("items.parquet").exit_code == 0
    assert stored() == items


def test_a_moment_is_kept_and_not_how_it_was_written() -> None:
    items = [feature(0, datetime=text) for text in ("2024-01-01T00:00:00.000000Z", "2024-01-01T01:00:00.250+01:00")]
    parquet(items, Path("items.parquet"))
    read("items.parquet")
    moments = [each["properties"]["datetime"] for each in stored()]
    assert moments == ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.250Z"]


@pytest.mark.parametrize("name", ["3dep-lidar-copc-pc", "cop-dem-glo-30-pc", "naip-pc", "sentinel-2-l2a-pc"])
def test_items_of_other_programs_come_through_parquet(name: str, stac_items: Path) -> None:
    items = json.loads((stac_items / f"{name}.json").read_text())
    parquet(items, Path("items.parquet"))
    read("items.parquet")
    assert [_without_nulls(each) for each in stored()] == [_without_nulls(each) for each in items]


def _without_nulls(value: Any, name: str = "") -> Any:
    """What Parquet can keep: no field that is null, and moments, not texts of them."""
    if isinstance(value, dict):
        return {key: _without_nulls(each, key) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each, name) for each in value]
    if isinstance(value, str) and name in ("datetime", "start_datetime", "end_datetime", "created", "updated"):
        from datetime import datetime

        return datetime.fromisoformat(value).timestamp()
    return value


def test_any_other_table_gives_an_object_a_row() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [1, None], "bytes": [b"\xff", None], "list": [[1], []]}), "t.parquet")
    read("t.parquet")
    assert stored() == [{"id": 1, "bytes": "/w==", "list": [1]}, {"id": None, "bytes": None, "list": []}]


def test_geometries_of_every_kind_come_back() -> None:
    import shapely
    import shapely.geometry

    from fetcher.sources.files.parquet import geometry

    ring = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    shapes: list[dict[str, Any]] = [
        {"type": "Point", "coordinates": [1.0, 2.0, 3.0]},
        {"type": "LineString", "coordinates": ring},
        {"type": "Polygon", "coordinates": [ring, ring]},
        {"type": "MultiPoint", "coordinates": ring},
        {"type": "MultiLineString", "coordinates": [ring, ring]},
        {"type": "MultiPolygon", "coordinates": [[ring], [ring]]},
    ]
    shapes.append({"type": "GeometryCollection", "geometries": shapes[1:3]})
    for each in shapes:
        for flavor in ("iso", "extended"):
            for order in (0, 1):
                shape = shapely.set_srid(shapely.geometry.shape(each), 4326)
                srid = flavor == "extended"
                wkb = shapely.to_wkb(shape, flavor=flavor, byte_order=order, include_srid=srid)
                assert geometry(wkb) == each
    assert geometry(shapely.to_wkb(shapely.Point())) == {"type": "Point", "coordinates": []}


# --- what is wrong with a file ----------------------------------------------------------------------

DEEP = "[" * (DEEPEST + 50) + "]" * (DEEPEST + 50)
GOOD = b'{"id": "good"}\n'

UNUSABLE: dict[str, tuple[bytes, str]] = {
    "empty.json": (b"", ": it is empty"),
    "blank.json": (b" \n\n", ": it is empty"),
    "empty.json.gz": (gzip.compress(b""), ": it is empty"),
    "cut.json": (b'{"id":\n "x"', ":2: no JSON: it ends too early"),
    "number.json": (b"17", ":1: no JSON object or list"),
    "nan.json": (b'{"id": 1,\n"x": NaN}', ":2: no JSON: NaN is no JSON"),
    "deep.json": (f'{{"id": {DEEP}}}'.encode(), "nested more deeply"),
    "very-deep.json": (b'{"id": ' + b"[" * 200_000, "nested more deeply"),
    "bytes.json": (b'{"id":\n"\xff"}', ":2: no UTF-8"),
    "utf-16.json": ('{"id": 1}'.encode("utf-16"), ": it is UTF-16"),
    "zip.json": (b"PK\x03\x04...", ": it is a zip archive"),
    "no.parquet": (b"PAR1 is not enough", ": no usable Parquet"),
    "cut.json.gz": (gzip.compress(random.Random(1).randbytes(5000))[:-100], ": what is packed is damaged or cut off"),
    "cut.json.zst": (zstandard.compress(GOOD)[:-3], ": what is packed is damaged or cut off"),
    "text.ndjson": (b"a\nb\n", ":1: no JSON"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_is_one_line_and_stops_nothing_else(name: str) -> None:
    Path("data").mkdir()
    (Path("data") / name).write_bytes(UNUSABLE[name][0])
    (Path("data") / "good.json").write_bytes(GOOD)
    assert read("data").exit_code == 3
    assert column(DB, "SELECT id FROM items") == ["good"]
    (message,) = failures()
    assert message.startswith(str(Path("data", name).absolute()))
    assert UNUSABLE[name][1] in message
    assert "\n" not in message


FLAWED: dict[str, tuple[bytes, str, int]] = {
    "twice.json": (b'{"id": 1} {"id": 2}', ":1: something follows", 1),
    "bytes.json": (b'[{"id": 1},\n{"id": "\xff"}]', ":2: no UTF-8 (byte 21)", 1),
    "lines.ndjson": (GOOD * 2 + b'{"id": NaN}\n[1]\n' + b'"\xff"\n' + GOOD, ":3: ", 3),
    "list.json": (b'[{"id": 1},\n2,\n{"id": 3}]', ":2: no JSON object", 2),
    "cut-list.json": (b'[{"id": 1},\n{"id": 2},\n{"id"', ":3: no JSON: it ends too early", 2),
    "cut.ndjson.gz": (gzip.compress(b"".join(b'{"id": %d}\n' % n for n in range(99_999)))[:-50_000], "cut off", 1000),
    "later.json": (b'{"features": [{"id": 1}], "type": "Other"' + b" " * 2_000_000 + b"}", "no FeatureCollection", 1),
}


@pytest.mark.parametrize("name", FLAWED)
def test_of_a_file_with_flaws_the_good_part_is_kept_and_the_rest_is_named(name: str) -> None:
    data, said, kept = FLAWED[name]
    Path(name).write_bytes(data)
    assert read(name).exit_code == 3
    (message,) = failures()
    assert said in message
    count = len(stored())
    assert count == kept or count > kept >= 1000
    done = run_fetcher("failures", str(DB))
    assert (done.returncode, done.stderr, name in done.stdout) == (0, "", True)


def test_twenty_wrong_lines_are_named_and_all_are_counted() -> None:
    Path("x.ndjson").write_bytes(GOOD + b"wrong\n" * 30)
    read("x.ndjson")
    (message,) = failures()
    assert ":21: no JSON" in message
    assert ":22: " not in message
    assert message.endswith("; and 10 more (30 wrong in all)")


def test_a_lone_surrogate_is_kept_as_it_stands() -> None:
    Path("x.ndjson").write_bytes(b'{"id": "\\ud800", "x": "\\udfff"}\n')
    assert read("x.ndjson").exit_code == 0
    assert query(DB, "SELECT id, json FROM items") == [(None, '{"id": "\\ud800", "x": "\\udfff"}')]


def test_names_that_are_no_text_or_have_two_lines_are_read_and_shown_on_one(folder: Path) -> None:
    names = [b"data/a\nb.json", b"data/\xff\x1b[31m.json"]
    Path("data").mkdir()
    for name in names:
        Path(os.fsdecode(name)).write_bytes(b"wrong")
    done = run_fetcher("fetch", "files", str(DB), "data", "-v")
    assert done.returncode == 3
    assert len([line for line in done.stderr.splitlines() if "set aside as failed" in line]) == 2
    assert "\x1b" not in done.stderr
    for key in column(DB, "SELECT path FROM files"):
        Path(path_of(key)).write_bytes(GOOD)
    assert retry(DB).exit_code == 0  # type: ignore[union-attr]
    assert column(DB, "SELECT id FROM items") == ["good", "good"]


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_a_path_comes_back_from_its_text(name: bytes) -> None:
    path = "/" + os.fsdecode(name)
    assert path_of(text_of(path)) == path
    text_of(path).encode()
    assert shown(path).isprintable()


def test_links_in_a_circle_have_an_end_and_each_file_is_read_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "data/a").mkdir(parents=True)
    (folder / "data/a/x.json").write_bytes(GOOD)
    (folder / "data/a/up").symlink_to(folder / "data")
    (folder / "data/around").symlink_to(folder)
    (folder / "data/none.json").symlink_to(folder / "nothing")
    (folder / "outside").mkdir()
    (folder / "outside/y.json").write_bytes(GOOD)
    (folder / "data/to outside").symlink_to(folder / "outside")
    os.mkfifo(folder / "data/pipe.json")
    assert read("data").exit_code == 0
    assert len(stored()) == 2
    for said in ("up: a link to a folder", "none.json: a link to nothing", "pipe.json: no regular file"):
        assert said in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(folder: Path) -> None:
    (folder / "data/hidden").mkdir(parents=True)
    (folder / "data/x.json").write_bytes(GOOD)
    (folder / "data/x.json").chmod(0)
    (folder / "data/hidden").chmod(0)
    assert read("data").exit_code == 3
    assert len([each for each in failures() if "Permission denied" in each]) == 2


def test_a_folder_that_cannot_be_looked_into_takes_nothing_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data/sub").mkdir(parents=True)
    (folder / "data/sub/x.json").write_bytes(GOOD)
    read("data")
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        assert read("data").exit_code == 3
        assert column(DB, "SELECT count(*) FROM files WHERE unlisted_at IS NOT NULL") == [0]
        (message,) = failures()
        assert message.endswith("data/sub: Permission denied")
    assert read("data").exit_code == 0
    assert failures() == []


def test_a_file_that_changes_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_ROWS", 2)
    monkeypatch.setattr(reading, "SMALL_BYTES", 10)
    path = Path("x.ndjson")
    path.write_bytes(GOOD * 9)
    real = reading._Large.piece

    def piece(self: Any) -> Any:
        found = real(self)
        if found.part == 1:
            path.write_bytes(GOOD * 11)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reading._Large, "piece", piece)
        assert read(path).exit_code == 3
    assert "changed while it was read" in failures()[0]
    assert read(path).exit_code == 0
    assert len(stored()) == 11


def test_a_file_that_vanishes_before_it_is_read_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.json").write_bytes(GOOD)
    real = reading.read_file
    monkeypatch.setattr(reading, "read_file", lambda key, said: [Path("x.json").unlink(), real(key, said)][1])
    summary = read("x.json")
    assert (summary.exit_code, summary.counts.gone) == (0, 1)


# --- again ------------------------------------------------------------------------------------------


def test_what_is_unchanged_is_not_read_again_what_changed_is_and_what_vanished_is_told(folder: Path) -> None:
    for name in "abcd":
        (folder / "data").mkdir(exist_ok=True)
        (folder / f"data/{name}.json").write_text(f'{{"id": "{name}"}}')
    assert read("data").counts.stored == 4
    assert read("data").counts.stored == 0
    (folder / "data/a.json").write_text('{"id": "a", "new": true}')
    os.utime(folder / "data/b.json", ns=(1, 1))
    (folder / "data/c.json").unlink()
    assert read("data").counts.stored == 2
    assert {"id": "a", "new": True} in stored()
    assert len(stored()) == 4, "the items of a file that is no more stay"
    (gone,) = column(DB, "SELECT path FROM files WHERE unlisted_at IS NOT NULL")
    assert gone.endswith("c.json")
    assert "1 no longer listed" in run_fetcher("status", str(DB)).stdout
    assert verify(DB).complete
    (folder / "data/c.json").write_text('{"id": "c"}')
    read("data")
    assert column(DB, "SELECT count(*) FROM files WHERE unlisted_at IS NOT NULL") == [0]


def test_many_pages_of_files_tell_what_vanished_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.sources.files.PAGE_SIZE", 3)
    (folder / "data").mkdir()
    for number in range(10):
        (folder / f"data/{number}.json").write_bytes(GOOD)
    assert read("data").counts.pages == 4
    (folder / "data/5.json").unlink()
    # A listing tells to the second when it began.
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2)
    read("data")
    assert len(column(DB, "SELECT path FROM files WHERE unlisted_at IS NOT NULL")) == 1


def test_what_failed_is_read_again_when_it_changes_and_not_before(folder: Path) -> None:
    Path("x.json").write_bytes(b"wrong")
    Path("y.ndjson").write_bytes(GOOD + b"wrong\n")
    assert read("x.json", "y.ndjson").exit_code == 3
    again = read("x.json", "y.ndjson")
    assert (again.exit_code, again.counts.failed) == (3, 0)
    Path("x.json").write_bytes(GOOD)
    Path("y.ndjson").write_bytes(GOOD * 3)
    assert read("x.json", "y.ndjson").exit_code == 0
    assert failures() == []
    assert len(stored()) == 4
    assert verify(DB).complete


def test_what_failed_and_vanished_is_held_against_nobody(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/x.json").write_bytes(b"wrong")
    (folder / "data/y.json").write_bytes(GOOD)
    assert read("data").exit_code == 3
    (folder / "data/x.json").unlink()
    assert read("data").exit_code == 0
    assert verify(DB).complete


def test_retry_and_a_run_without_paths_know_them(folder: Path) -> None:
    Path("x.json").write_bytes(b"wrong")
    read("x.json")
    Path("x.json").write_bytes(b"brong")
    summary = retry(DB)
    assert summary is not None
    assert summary.exit_code == 3
    Path("x.json").write_bytes(GOOD)
    assert fetch("files", DB).exit_code == 0
    assert len(stored()) == 1


def test_roots_within_others_are_read_once() -> None:
    Path("a/b").mkdir(parents=True)
    Path("a/b/x.json").write_bytes(GOOD)
    assert read("a", "a/b", "a/b/x.json").counts.listed == 1
    assert len(stored()) == 1


def test_a_root_that_is_not_there_and_no_root_are_errors_of_the_caller() -> None:
    with pytest.raises(ConfigurationError, match="nothing: No such file or directory"):
        read("nothing")
    with pytest.raises(ConfigurationError, match="FILE_PATHS"):
        fetch("files", DB)


def test_the_command_takes_paths_and_says_what_it_reads() -> None:
    Path("x.json").write_bytes(GOOD)
    done = run_fetcher("fetch", "files", str(DB), "x.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Reading files: {Path('x.json').absolute()}\n")
    assert " ID " not in done.stdout
    assert run_fetcher("doctor", str(DB), "--offline").returncode == 0
    assert "asked in SQL" not in run_fetcher("search", str(DB), "word").stdout
    assert run_fetcher("fetch", str(DB), "x.json", "y.json").returncode == 2


def test_paths_come_from_a_setting_too() -> None:
    Path("x.json").write_bytes(GOOD)
    Path("y.json").write_bytes(GOOD)
    result = CliRunner().invoke(cli, ["fetch", "files", str(DB)], env={"FILE_PATHS": "x.json:y.json"})
    assert result.exit_code == 0, result.output
    assert len(stored()) == 2


def test_a_kind_can_be_said(caplog: pytest.LogCaptureFixture) -> None:
    Path("x.json").write_bytes(b"wrong\n" + GOOD)
    read("x.json")
    assert stored() == []
    read("x.json", db=Path("other.db"), source_type="ndjson")
    assert len(stored(Path("other.db"))) == 1


# --- stops, kills and memory -------------------------------------------------------------------------------


def test_a_stop_in_the_middle_of_a_file_asks_for_no_more_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SMALL_BYTES", 10)
    monkeypatch.setattr(reading, "PIECE_ROWS", 2)
    Path("x.ndjson").write_bytes(GOOD * 1000)
    stop = Stop()
    parts: list[int] = []
    real = reading._Large.piece

    def piece(self: Any) -> Any:
        found = real(self)
        parts.append(found.part)
        if found.part == 3:
            stop.set()
        return found

    monkeypatch.setattr(reading._Large, "piece", piece)
    with pytest.raises(Interrupted):
        read("x.ndjson", stop=stop)
    assert parts[-1] <= 4
    assert not verify(DB).complete
    assert read("x.ndjson").exit_code == 0
    assert len(stored()) == 1000


_SLOW = """
import time
from fetcher.sources.files import reading
reading.PIECE_ROWS = 50
real = reading._Large.piece
def piece(self):
    time.sleep(0.01)
    return real(self)
reading._Large.piece = piece
from fetcher.cli import main
main(["fetch", "files", "items.db", "data", "--batch-size", "10"])
"""


def test_a_kill_in_the_middle_of_a_file_leaves_no_half_one(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/large.ndjson").write_bytes(lines(feature(number) for number in range(20_000)))
    (folder / "data/small.json").write_bytes(GOOD)
    read("data", db=Path("undisturbed.db"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for least in (500, 2000):
        process = subprocess.Popen([sys.executable, "-c", _SLOW], env=environment, stdout=subprocess.DEVNULL)
        with process:
            eventually(lambda least=least: DB.exists() and _rows() >= least)
            process.send_signal(signal.SIGKILL)
        assert 0 < _rows() < 20_001
        assert not verify(DB).complete
        assert not verify(DB).wrong
    read("data")
    rows = "SELECT file, number, id, json FROM items ORDER BY 1, 2"
    assert query(DB, rows) == query(Path("undisturbed.db"), rows)
    assert verify(DB).complete


def _rows() -> int:
    try:
        return int(column(DB, "SELECT count(*) FROM items")[0])
    except Exception:  # noqa: BLE001 - its tables may not be made yet
        return 0


_PEAK = """
import re, fetcher
summary = fetcher.fetch("files", "items.db", file_paths=("data",))
assert summary.exit_code == 0
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def _peak(name: str, write: Callable[[Path, int], None], items: int) -> int:
    """Megabytes that a run on one file of so many items takes at most."""
    Path("data").mkdir(exist_ok=True)
    path = Path("data", name)
    write(path, items)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _PEAK], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert column(DB, "SELECT count(*) FROM items") == [items]
    for each in Path().glob("items.db*"):
        each.unlink()
    return int(done.stdout) // 1024


NOTE = "x" * 4500


def _write_lines(path: Path, items: int) -> None:
    with path.open("wb") as file:
        for number in range(items):
            file.write(json.dumps(feature(number, note=NOTE)).encode() + b"\n")


def _write_packed(path: Path, items: int) -> None:
    with gzip.open(path, "wb", 1) as file:
        for number in range(items):
            file.write(json.dumps(feature(number, note=NOTE)).encode() + b"\n")


def _write_collection(path: Path, items: int) -> None:
    with path.open("wb") as file:
        file.write(b'{"type": "FeatureCollection", "features": [')
        for number in range(items):
            file.write((b",\n" if number else b"") + json.dumps(feature(number, note=NOTE)).encode())
        file.write(b"]}")


def _write_parquet(path: Path, items: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": str(number), "note": NOTE + str(number)} for number in range(1000)]
    table = pa.Table.from_pylist(rows)
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(items // 1000):
            writer.write_table(table)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("large.ndjson", _write_lines),
        ("large.ndjson.gz", _write_packed),
        ("large.json", _write_collection),
        ("large.parquet", _write_parquet),
    ],
)
def test_memory_stays_flat_on_a_file_of_100_megabytes(name: str, write: Callable[[Path, int], None]) -> None:
    small, large = _peak(name, write, 5_000), _peak(name, write, 20_000)
    assert large < small + 40, (small, large)


# --- any item ---------------------------------------------------------------------------------------

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5).filter(lambda each: "features" not in each)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(OBJECTS, min_size=1, max_size=6), ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_any_items_come_through_every_container(
    items: list[Any], ascii_only: bool, indent: int | None, folder: Path
) -> None:
    for each in Path().glob("*"):
        each.unlink()
    texts = [json.dumps(each, ensure_ascii=ascii_only) for each in items]
    document = json.dumps(items, ensure_ascii=ascii_only, indent=indent)
    files = {
        "a.json": document,
        "b.json": f'{{"type": "FeatureCollection", "features": {document}}}',
        "c.ndjson": "\n".join(texts),
        "d.json": "\n".join(texts),
    }
    for name, text in files.items():
        data = text.encode("utf-8", "surrogatepass")
        Path(name).write_bytes(data)
        Path(f"{name}.gz").write_bytes(gzip.compress(data))
    paths = [str(each) for each in Path().iterdir()]
    assert read(*paths).exit_code == 0
    wanted = [json.loads(text) for text in texts]
    for path in paths:
        found = column(DB, "SELECT json FROM items WHERE file = ? ORDER BY number", str(Path(path).absolute()))
        assert [json.loads(text) for text in found] == wanted, path
