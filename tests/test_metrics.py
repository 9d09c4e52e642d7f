"""The figures of a run: in a file for Prometheus, in JSON lines, and as totals in its row."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.metrics import Latency, MetricsFile, quantile
from fetcher.model import LATENCY_BOUNDS, Counts, Progress, Traffic
from fetcher.simulator import Answer, Simulator, World
from tests.helpers import mirror, one, run

Simulate = Callable[..., Simulator]

LINE = re.compile(r'fetcher_([a-z_]+)\{source="pr0gramm"(?:,([a-z]+)="([^"]*)")?\} (\S+)\Z')


def read(path: Path) -> dict[tuple[str, str | None], float]:
    """(name, label) → value of each line; fails where one is not as Prometheus reads it."""
    found: dict[tuple[str, str | None], float] = {}
    announced = set()
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            announced.add(line.split()[2])
            continue
        match = LINE.match(line)
        assert match is not None, line
        name, _, value, number = match.groups()
        assert re.sub(r"_(bucket|sum|count)\Z", "", f"fetcher_{name}") in announced | {f"fetcher_{name}"}
        assert (name, value) not in found
        found[name, value] = float(number)
    return found


def test_the_file_says_what_the_run_did(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=150)
    gone, flaky = world.ids()[3], world.ids()[4]

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind != "info":
            return None
        if key == gone:
            return Answer(404)
        return Answer(500) if key == flaky and attempt == 1 else None

    path = db.with_name("fetcher.prom")
    summary = mirror(db, simulate(world, faults=faults), metrics_file=path, max_backoff_seconds=0.1)
    found = read(path)
    assert found["items_total", "stored"] == summary.counts.stored == 149
    assert found["items_total", "gone"] == 1
    assert (found["work_left", None], found["work_queued", None], found["window", None]) == (0, 0, 0)
    assert found["requests_total", "gone"] == 1
    assert found["requests_total", "unavailable"] == 1
    assert sum(value for (name, _), value in found.items() if name == "requests_total") == summary.counts.requests
    assert found["request_seconds_count", None] == found["request_seconds_bucket", "+Inf"] == summary.counts.requests
    assert 0 < found["request_quantile_seconds", "0.5"] <= found["request_quantile_seconds", "0.99"]
    rows = sum(one(db, f"SELECT count(*) FROM {table}") for table in ("items", "tags", "comments"))
    assert found["rows_total", None] == summary.counts.rows == rows
    assert found["pages_total", None] == 2
    assert [each.name for each in db.parent.iterdir() if "prom" in each.name] == ["fetcher.prom"]

    totals = json.loads(one(db, "SELECT totals FROM runs"))
    assert totals["outcomes"] == {"ok": summary.counts.requests - 2, "gone": 1, "unavailable": 1}
    assert set(totals["latency"]) == {"p50", "p90", "p99"}
    assert one(db, "SELECT rows FROM runs") == rows


def test_pauses_are_counted(db: Path, simulate: Simulate) -> None:
    refused: list[int] = []

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind == "info" and not refused:
            refused.append(key)
            return Answer(429, {"Retry-After": "1"})
        return None

    path = db.with_name("fetcher.prom")
    mirror(db, simulate(World(seed=1, items=20), faults=faults), metrics_file=path)
    found = read(path)
    assert found["pauses_total", None] == 1
    assert found["requests_total", "limited"] == 1
    assert 0.9 < found["paused_seconds_total", None] < 5


def test_the_command_has_an_option_and_its_json_lines_have_the_figures(db: Path, simulate: Simulate) -> None:
    path = db.with_name("fetcher.prom")
    done = run(simulate(World(seed=1, items=30)), db, "--metrics-file", str(path), "--log-format", "json")
    assert done.returncode == 0, done.stderr
    assert read(path)["items_total", "stored"] == 30


def test_a_file_that_cannot_be_written_stops_nothing_and_is_told_once(
    db: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("fetcher").propagate = True
    path = db.parent / "none" / "fetcher.prom"
    assert mirror(db, simulate(World(seed=1, items=30)), metrics_file=path).exit_code == 0
    assert [each.getMessage() for each in caplog.records] == [
        f"{path} cannot be written: No such file or directory; going on without metrics"
    ]


def test_the_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fetcher.prom"
    file = MetricsFile(path, "pr0gramm")
    progress: Any = Progress(Counts(stored=1), 1, 0, 0, 0, None)
    file.write(progress, now=True)
    before = path.read_text()

    def broken(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", broken)
    file.write(Progress(Counts(stored=2), 1, 0, 0, 0, None, traffic=Traffic()), now=True)
    assert path.read_text() == before


def test_it_is_not_written_all_the_time(tmp_path: Path) -> None:
    path = tmp_path / "fetcher.prom"
    file = MetricsFile(path, "pr0gramm")
    file.write(Progress(Counts(stored=1), 1, 0, 0, 0, None))
    file.write(Progress(Counts(stored=2), 1, 0, 0, 0, None))
    assert read(path)["items_total", "stored"] == 1
    file.write(Progress(Counts(stored=3), 1, 0, 0, 0, None), now=True)
    assert read(path)["items_total", "stored"] == 3


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(seconds: list[float], share: float) -> None:
    latency = Latency()
    for each in seconds:
        latency.add(each)
    found = quantile(latency.so_far(), share)
    true = sorted(seconds)[max(0, -(-int(share * 1000) * len(seconds) // 1000) - 1)]
    assert found is not None
    lower = max((bound for bound in (0.0, *LATENCY_BOUNDS) if bound < true), default=0.0)
    upper = min((bound for bound in LATENCY_BOUNDS if bound >= true), default=LATENCY_BOUNDS[-1])
    assert lower <= found <= upper


def test_without_requests_there_is_no_quantile() -> None:
    assert quantile(Latency().so_far(), 0.5) is None
