"""What the profiling of ingestion concludes follows from its figures by plain rules; its data is always the same."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fetcher.simulator import Simulator
from fetcher.simulator.stac import StacWorld
from tests.helpers import ROOT

# Behind everything else, for its modules have common names.
sys.path.append(str(ROOT / "scripts" / "profiling"))

import benchmark_ingest
import ingest_findings
import profile_api_requests
import profile_file_io
import profile_mixed
import test_data_generator as generator
from ingest_cases import FETCHER, PLAIN, Case, Result, same
from ingest_report import report
from measure import Wrong

CASE = "1,000 items"


def result(strategy: str, workers: int, *seconds: float, mode: str = "api", **facts: Any) -> Result:
    """Rounds of 1,000 items that took so many seconds each."""
    usual = {"cpu": 0.1, "peak": 50e6, "grown": 5e6, "items": 1000, "bytes": 5e6, "requests": 10, "limited": 0}
    usual |= {"latency": {"median": 0.05, "p95": 0.06}, "parts": {}, **facts}
    return Result(mode, CASE, strategy, workers, tuple({"seconds": each, **usual} for each in seconds))


def said(results: list[Result], what: str) -> list[Any]:
    return [each.value for each in ingest_findings.findings(results) if each.what == what]


# --- findings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "bottleneck"),
    [
        ({"wait": 0.7, "parse": 0.1, "store": 0.2}, "network"),
        ({"read": 0.5, "parse": 0.2, "store": 0.1}, "disk"),
        ({"read": 0.1, "parse": 0.6, "store": 0.3}, "parsing"),
        ({"read": 0.1, "parse": 0.3, "store": 0.6}, "writing to SQLite"),
        ({"read": 0.1, "parse": 0.3, "store": 0.1}, "what is not clocked"),
    ],
)
def test_the_bottleneck_is_what_takes_most_of_the_plain_loops_time(parts: dict[str, float], bottleneck: str) -> None:
    assert said([result(PLAIN, 1, 1.0, parts=parts)], "bottleneck") == [bottleneck]


def test_a_loop_that_computes_all_the_time_is_bound_by_the_processor() -> None:
    busy, waits = (result(PLAIN, 1, 1.0, cpu=cpu, parts={"parse": 0.9}) for cpu in (0.95, 0.3))
    (one,), (other,) = ([each.text for each in ingest_findings.findings([case])] for case in (busy, waits))
    assert "bound by the processor" in one
    assert "waits" in other


def test_a_server_that_computes_all_the_time_is_told() -> None:
    results = [result(FETCHER, count, 1.0, server_cpu=cpu) for count, cpu in ((5, 0.3), (50, 0.9))]
    assert said(results, "server") == [0.9]


def line(*points: tuple[int, float]) -> list[Result]:
    """One strategy at (workers, items a second)."""
    return [result(FETCHER, workers, 1000 / throughput) for workers, throughput in points]


def test_the_fewest_workers_that_are_nearly_as_fast_as_the_best_are_recommended() -> None:
    assert ingest_findings.recommended(line((1, 100), (5, 460), (10, 500), (20, 480))) == 5
    assert ingest_findings.recommended(line((1, 100), (5, 440), (10, 500), (20, 480))) == 10
    assert ingest_findings.recommended(line((1, 100), (5, 90))) == 1


def test_returns_diminish_behind_the_last_step_that_gained_a_tenth_a_doubling() -> None:
    assert ingest_findings.last_gain(line((1, 100), (5, 400), (10, 450), (20, 460))) == 10
    assert ingest_findings.last_gain(line((1, 100), (5, 400), (10, 430), (20, 460))) == 5
    assert ingest_findings.last_gain(line((1, 100), (2, 105), (4, 100))) is None


def test_a_step_that_only_makes_good_an_earlier_loss_is_no_gain() -> None:
    assert ingest_findings.last_gain(line((1, 100), (5, 60), (10, 99))) is None


def test_a_step_of_more_than_a_doubling_has_to_gain_more() -> None:
    # 15 % more for five times the workers is less than a tenth a doubling.
    assert ingest_findings.last_gain(line((1, 100), (5, 115))) is None
    assert ingest_findings.last_gain(line((1, 100), (2, 115))) == 2


def test_rounds_that_overlap_are_not_told_apart() -> None:
    noisy = [result(FETCHER, 1, 5.0, 7.0), result(FETCHER, 10, 3.0, 5.5)]
    clear = [result(FETCHER, 1, 5.0, 7.0), result(FETCHER, 10, 3.0, 4.0)]
    assert (ingest_findings.recommended(noisy), ingest_findings.last_gain(noisy)) == (1, None)
    assert (ingest_findings.recommended(clear), ingest_findings.last_gain(clear)) == (10, 10)


def test_what_strategies_gain_is_taken_round_by_round() -> None:
    # The machine was three times as slow in the second round, for both.
    plain, ours = result(PLAIN, 1, 2.0, 6.0, 2.0), [result(FETCHER, n, 1.0, 3.0, 1.0) for n in (1, 5)]
    assert said([plain, *ours], "beside") == [2.0]


def test_a_conclusion_is_drawn_from_the_largest_case() -> None:
    few = Result("api", "few", PLAIN, 1, ({"seconds": 1.0, "items": 10, "cpu": 0.1, "parts": {"store": 1.0}},))
    many = [result(PLAIN, 1, 4.0, parts={"wait": 3.0}), result(FETCHER, 1, 4.0), result(FETCHER, 10, 1.0)]
    (found,) = ingest_findings.conclusions([few, *many])
    assert (found.case, found.value) == (CASE, 10)
    assert "bottleneck network; fastest fetcher with 10" in found.text


def test_the_time_of_an_answer_is_of_all_rounds() -> None:
    answers = [{"seconds": 1.0, "latency": {"median": each, "p95": 2 * each}} for each in (9.0, 0.1, 0.2)]
    found = Result("api", CASE, FETCHER, 1, tuple(answers))
    assert (found.latency("median"), found.latency("p95")) == (0.2, 0.4)


def test_refusals_are_told() -> None:
    assert said([result(PLAIN, 1, 1.0), result(FETCHER, 10, 1.0, limited=7)], "refusals") == [7]


# --- the check --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "holds"), [((1.0, 1.0, 1.0), True), ((1.0, 1.09, 9.0), True), ((1.2, 1.2, 0.5), False)]
)
def test_one_worker_is_slower_only_by_the_median_of_the_rounds(ours: tuple[float, ...], holds: bool) -> None:
    results = [result(PLAIN, 1, 1.0, 1.0, 1.0), result(FETCHER, 1, *ours), result(FETCHER, 10, 9.0, 9.0, 9.0)]
    (verdict,) = ingest_findings.verdicts(results, [CASE, "another case"])
    assert verdict.ratios == ours
    assert verdict.holds is holds


@pytest.mark.parametrize(("seconds", "code"), [(1.0, 0), (2.0, 1)])
def test_the_check_ends_with_one_when_one_worker_is_slower(
    seconds: float, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(work: benchmark_ingest.Work) -> list[Result]:
        rounds = tuple({"seconds": each} for each in (seconds, seconds))
        name = benchmark_ingest.small_files(work)
        plain = Result("file", name, PLAIN, 1, tuple({"seconds": 1.0} for _ in rounds))
        return [plain, Result("file", name, FETCHER, 1, rounds)]

    monkeypatch.setattr(benchmark_ingest, "missing", list)
    monkeypatch.setattr(benchmark_ingest, "PARTS", {"file": measured})
    assert benchmark_ingest.main(["--check"]) == code


def test_a_part_that_was_not_compared_has_not_passed_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_ingest, "missing", list)
    monkeypatch.setattr(benchmark_ingest, "PARTS", {"file": lambda _: [result(PLAIN, 1, 1.0)]})
    assert benchmark_ingest.main(["--check"]) == 1


def test_what_is_not_installed_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark_ingest, "NEEDED", ("json", "no_such_library"))
    assert benchmark_ingest.main([]) == 2
    assert capsys.readouterr().err == "benchmark_ingest.py needs no_such_library: pip install -e '.[profile]'\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--windows 0", "--windows: 0 is no number from 1 on"),
        ("--files -3", "--files: -3 is no number from 1 on"),
        ("--latency inf", "--latency: inf is no number from 0 on"),
        ("--items many", "--items: many is no number from 1 on"),
    ],
)
def test_a_size_that_is_none_is_said_before_anything_is_measured(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark_ingest.main(words.split())
    assert ended.value.code == 2
    assert f"error: argument {said}\n" in capsys.readouterr().err


def test_results_that_are_not_there_are_not_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_ingest, "missing", list)
    with pytest.raises(benchmark_ingest.Wrong, match=r"--merge .*: no benchmark_results\.json of ours"):
        benchmark_ingest.main(["--merge", str(tmp_path), "--results", str(tmp_path / "to")])


def test_contestants_that_bring_other_items_make_the_figures_worthless() -> None:
    one, other = (Case("api", CASE, strategy, 1, "none.py", ()) for strategy in (PLAIN, FETCHER))
    same({one: [{"items": 3, "digest": "a"}], other: [{"items": 3, "digest": "a"}]})
    with pytest.raises(Wrong, match="fetcher has 3 items, not the same 3 as plain loop"):
        same({one: [{"items": 3, "digest": "a"}], other: [{"items": 3, "digest": "b"}]})


# --- the report -------------------------------------------------------------------------------------


def test_the_report_has_tables_findings_rules_and_verdicts() -> None:
    results = [
        result(PLAIN, 1, 2.0, 2.2, parts={"wait": 1.5}, server_cpu=0.1),
        result(FETCHER, 1, 2.0, 2.0, server_cpu=0.1),
        result(FETCHER, 10, 0.5, 0.4, server_cpu=0.1, limited=3),
    ]
    run = {"date": "today", "seconds": 1, "load_before": "1.5", "load_after": "2.5", "command": "x"}
    facts = {"quick": False, "machine": {"cores": "2"}, "runs": {"api": run}}
    found, judged = ingest_findings.findings(results), ingest_findings.verdicts(results, [CASE])
    text = report(facts, results, found, judged, {"api": "picture.png"})
    assert "| plain loop | 1 | 2.10 (2.00–2.20) | 476 |" in text
    assert "](picture.png)" in text
    assert "- API: `x`, today, 1 s; load average 1.5 before, 2.5 after" in text
    assert "fetcher: recommended **10** (2,222 items/s)" in text
    assert "| 1,000 items | 0.95 (1.00, 0.91) | holds |" in text
    assert all(rule in text for rule in ingest_findings.RULES)
    assert "## Files" not in text, "nothing was measured of them"


def test_results_are_json_and_come_back_from_it() -> None:
    plain = result(FETCHER, 10, 2.0, 1.0, 4.0).plain()
    assert Result.of(json.loads(json.dumps(plain))).plain() == plain
    assert json.loads(json.dumps(plain))["median"] == {"seconds": 2.0, "throughput": 500.0, "cpu_share": 0.05}


# --- the data ---------------------------------------------------------------------------------------


def digest_of(folder: Path) -> str:
    digest = sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: generator.json_files(folder, 20),
        lambda folder: generator.collection(folder, 30, 5),
        lambda folder: generator.parquet_files(folder, 1, 1000),
    ],
    ids=["json", "collection", "parquet"],
)
def test_the_same_numbers_make_the_same_files(make: Callable[[Path], generator.Made], tmp_path: Path) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    assert one == other
    assert one.bytes == sum(path.stat().st_size for path in (tmp_path / "one").iterdir())
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "other")


def test_files_have_the_sizes_that_are_asked_for(tmp_path: Path) -> None:
    made = generator.json_files(tmp_path / "json", 50)
    assert made.bytes / made.files == pytest.approx(5000, rel=0.05)
    large = generator.parquet_files(tmp_path / "parquet", 1, 20_000_000)
    assert 20_000_000 <= large.bytes < 30_000_000, "a last group of rows may go beyond"


def test_as_many_files_are_broken_as_are_asked_for_and_in_every_way(tmp_path: Path) -> None:
    made = generator.collection(tmp_path, 100, 8)
    wrong = []
    for path in sorted(tmp_path.iterdir()):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            wrong.append(path.read_bytes()[:6])
    assert (made.items, made.broken, len(wrong)) == (92, 8, 8)
    assert wrong[:4] == [b'{"type', b'{"type', b"", b"<html>"]
    with pytest.raises(ValueError, match="cannot be broken"):
        generator.collection(tmp_path, 1, 2)


FEW = 10
"""Modules that may be imported while the clock runs: what a library imports when it is first used."""


@pytest.mark.parametrize("strategy", profile_file_io.STRATEGIES)
def test_every_strategy_brings_the_same_items_and_finds_the_broken_ones(strategy: str, tmp_path: Path) -> None:
    made = generator.collection(tmp_path / "files", 30, 4)
    here = tmp_path / "here"
    told = contestant(here, "profile_file_io.py", strategy, str(tmp_path / "files"), "--workers", "2")
    ids = sorted(json.loads(each.read_bytes())["id"] for each in (tmp_path / "files").iterdir() if whole(each))
    assert told["digest"] == sha256("".join(f"{each}\n" for each in ids).encode()).hexdigest()
    assert (told["items"], told["wrong"], told["bytes"]) == (made.items, made.broken, made.bytes)
    assert told["seconds"] > 0
    assert told["peak"] > 0
    assert told["imported"] < FEW, "imports are not in the figures"
    with closing(sqlite3.connect(here / "items.db")) as conn:
        assert conn.execute("SELECT count(*) FROM items").fetchone() == (made.items,)


def test_the_whole_way_makes_the_same_lines_sequential_and_concurrent(tmp_path: Path) -> None:
    told = []
    with Simulator(StacWorld(items=400, collections=1)) as simulator:
        for number, (strategy, workers) in enumerate([(PLAIN, 1), (FETCHER, 1), (FETCHER, 5)]):
            words = (strategy, simulator.url, "--workers", str(workers))
            told.append(contestant(tmp_path / str(number), "profile_mixed.py", *words))
    assert 300 < told[0]["items"] < 400, "what is too cloudy is left out"
    assert len({(each["items"], each["digest"]) for each in told}) == 1
    assert told[0]["requests"] == 4
    assert told[0]["parts"].keys() == {"wait", "parse", "transform", "store", "export"}


@pytest.mark.parametrize("strategy", profile_api_requests.STRATEGIES)
def test_every_client_brings_all_items_of_an_api(strategy: str, tmp_path: Path) -> None:
    pytest.importorskip(profile_api_requests.NEEDS[strategy][0])
    with Simulator(StacWorld(items=250, collections=1)) as simulator:
        told = contestant(
            tmp_path / "here", "profile_api_requests.py", strategy, simulator.url, "--workers", "5", "--traced"
        )
    assert told["items"] == 250
    assert told["traced"] > 0
    assert told["imported"] < FEW, "imports are not in the figures"
    assert told["latency"]["median"] <= told["latency"]["p95"]


def contestant(folder: Path, script: str, *words: str) -> dict[str, Any]:
    """What one contestant tells, run in a folder of its own."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "profiling" / script), *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def whole(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def test_the_function_that_items_go_through_is_one_for_items_and_for_rows() -> None:
    item = {"properties": {"eo:cloud_cover": 10}, "links": [1], "id": "a"}
    assert profile_mixed.tidy(item) == {
        "properties": {"eo:cloud_cover": 10, "sky": "clear"},
        "links": None,
        "id": "a",
    }
    assert profile_mixed.tidy({"properties": {"eo:cloud_cover": 95}}) is None
    assert profile_mixed.tidy({"key": "an asset"}) == {"key": "an asset"}
