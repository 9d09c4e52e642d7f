"""Export from PostgreSQL: the files that SQLite gives, and as flat in memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pyarrow.parquet
import pytest

from fetcher import ConfigurationError
from fetcher.export import export
from fetcher.simulator import Simulator
from tests.helpers import ROOT, change, mirror, query, run_fetcher
from tests.postgres import PostgresServer


@pytest.fixture(scope="module")
def mirrors(
    postgres: PostgresServer, shared_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """One world in both databases."""
    url, file = postgres.url(), tmp_path_factory.mktemp("mirrors") / "m.db"
    for place in (url, file):
        assert mirror(place, shared_simulator).exit_code == 0
    return url, file


def without_times(text: bytes) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in text.splitlines()]
    return [{name: each for name, each in row.items() if not name.endswith("_at")} for row in rows]


def exported(db: str | Path, **options: object) -> bytes:
    stream = io.BytesIO()
    export(db, to=stream, **options)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("table", [None, "tags", "comments", "top_tags"])
def test_lines_are_those_of_sqlite(table: str | None, mirrors: tuple[str, Path]) -> None:
    ours, theirs = (without_times(exported(each, table=table)) for each in mirrors)
    assert ours == theirs
    assert len(ours) > 20


def test_other_formats_hold_the_same(mirrors: tuple[str, Path], tmp_path: Path) -> None:
    names = [(tmp_path / "ours", mirrors[0]), (tmp_path / "theirs", mirrors[1])]
    for out, db in names:
        done = export(db, out, format="parquet")
        assert done.table == "items, comments, tags"
        export(db, out, format="csv", table="tags")
        export(db, out, format="ndjson", table="tags", by=["tag"])
    ours, theirs = (out for out, _ in names)
    assert (ours / "tags.csv").read_bytes() == (theirs / "tags.csv").read_bytes()
    for name in ("items", "comments", "tags"):
        one_, other = (pyarrow.parquet.read_table(out / f"{name}.parquet") for out in (ours, theirs))
        kept = [each for each in one_.column_names if not each.endswith("_at")]
        assert one_.select(kept).to_pylist() == other.select(kept).to_pylist()
        assert {each.name: each.type for each in one_.schema} == {each.name: each.type for each in other.schema}
    files = sorted(path.name for path in ours.glob("*.ndjson"))
    assert files == sorted(path.name for path in theirs.glob("*.ndjson"))
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in files)


def test_tables_of_ones_own_and_of_the_engine_are_written_too(mirrors: tuple[str, Path]) -> None:
    url = mirrors[0]
    change(
        url,
        "CREATE TABLE mine (at timestamptz, size numeric, fine boolean, data jsonb, many text[], blob bytea)",
    )
    change(url, "INSERT INTO mine VALUES ('2020-02-02 12:00+00', 1.50, true, '{\"a\": 1}', '{x,y}', '\\x00ff')")
    (row,) = [json.loads(line) for line in exported(url, table="mine").splitlines()]
    assert (row["size"], row["fine"], row["data"], row["many"], row["blob"]) == (1.5, 1, {"a": 1}, "{x,y}", "AP8=")
    for table in ("coverage", "sources", "runs", "work"):
        assert len(exported(url, table=table).splitlines()) == query(url, f"SELECT count(*) FROM {table}")[0][0]
    with pytest.raises(ConfigurationError, match=r"has no table or view nothing: it has .*items"):
        export(url, table="nothing", to=io.BytesIO())
    with pytest.raises(ConfigurationError, match=r"has no vectors yet|only chunks have vectors"):
        export(url, vectors=True, to=io.BytesIO())


def test_the_command_streams(mirrors: tuple[str, Path]) -> None:
    done = run_fetcher("export", mirrors[0], "--table", "tags", "--format", "csv")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == query(mirrors[0], "SELECT count(*) FROM tags")[0][0] + 1
    assert "secret" not in done.stderr


def test_memory_is_flat(postgres: PostgresServer) -> None:
    """A view of 200 MB goes through a process that may not have as much."""
    url = postgres.url()
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE sources (name text, base_url text, description text)")
        conn.execute("INSERT INTO sources VALUES ('pr0gramm', '', NULL)")
        conn.execute("CREATE VIEW long AS SELECT n, repeat('x', 2000) AS text FROM generate_series(1, 100000) AS n")
    code = (
        "import re, sys; from pathlib import Path; from fetcher.export import export\n"
        "with open('/dev/null', 'wb') as to: done = export(sys.argv[1], table='long', to=to)\n"
        "print(done.rows, re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    rows, peak = map(int, done.stdout.split())
    assert rows == 100_000
    assert peak < 150_000
