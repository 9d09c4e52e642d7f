"""`fetcher tune` finds how much a host is best asked for, within what it said, and stops at the first refusal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fetcher import ConfigurationError, Interrupted, LoginError, RemoteError, SourceError, Stop, StoreError, fetch
from fetcher.cli import cli
from fetcher.simulator import Answer, Knee, Limit, Login, Profile, RestWorld, Share, Simulator, StacWorld, Window, World
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores.file import kept_from_runs, lock
from fetcher.stores.sample import sample
from fetcher.tune import Tuning, levels, questions, tune
from tests.helpers import _environment as environment
from tests.helpers import answer, eventually, mirror, query, run_fetcher

Simulate = Callable[..., Simulator]

WORLD = World(seed=1, items=400)


def measured(simulator: Simulator, source: str = "pr0gramm", db: Path | None = None, **settings: Any) -> Tuning:
    """What is found of a simulator that may be asked at any rate."""
    return tune(
        source,
        db or Path("none.db"),
        **{"api_base_url": simulator.url, "max_requests_per_second": 0, "request_delay": 0, **settings},
    )


def _levels(found: Tuning) -> list[int]:
    return [each.at_once for each in found.levels if not each.held]


# --- hosts ------------------------------------------------------------------------------------------


def test_the_knee_of_a_host_is_found(no_threads_left: None, simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.1, profile=Profile(knee=Knee(8)))
    found = measured(simulator)
    assert found.ended == "more at once bring no more"
    assert _levels(found) == [1, 2, 4, 8, 16]
    assert found.advice is not None
    assert 8 <= found.advice.parallel <= 16
    assert 45 <= found.advice.rate <= 80
    assert found.settings == {
        "MAX_PARALLEL_REQUESTS": str(found.advice.parallel),
        "MAX_REQUESTS_PER_SECOND": f"{found.advice.rate:g}",
    }
    assert simulator.requests.total() == found.requests <= 300
    assert simulator.max_in_flight <= 16


def test_a_host_with_a_limit_is_left_alone_at_its_first_refusal(no_threads_left: None, simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.05, profile=Profile(limits=(Limit(rate=40, lockout=5),)))
    found = measured(simulator)
    assert (found.ended, found.exit_code) == ("the API refused", 0)
    assert found.refused is not None
    assert found.refused.status == 429
    # What was on its way when the refusal came was refused too, and nothing was sent after it.
    assert 1 <= simulator.wrong["limit"] <= found.levels[-1].at_once
    assert found.advice is not None
    assert found.advice.parallel < found.levels[-1].at_once
    assert 10 <= found.advice.rate <= 40


def test_a_limit_is_known_by_the_body_too(simulate: Simulate) -> None:
    simulator = simulate(
        WORLD, faults=lambda kind, key, attempt: answer({"error": "limitReached"}) if kind == "info" else None
    )
    found = measured(simulator)
    assert (found.ended, found.exit_code, found.advice) == ("the API refused", 3, None)
    assert simulator.requests["info"] == 1


@pytest.mark.parametrize(("headers", "most"), [({"retry_after": "7"}, 1), ({}, 3)])
def test_503_is_a_refusal_with_a_time_or_as_a_burst(simulate: Simulate, headers: dict[str, str], most: int) -> None:
    given = {"Retry-After": "7"} if headers else {}
    simulator = simulate(WORLD, faults=lambda kind, key, attempt: Answer(503, given, b"{}") if kind == "info" else None)
    found = measured(simulator)
    assert (found.ended, found.exit_code) == ("the API refused", 3)
    assert simulator.requests["info"] == most


def test_a_healthy_host_is_asked_up_to_the_most(no_threads_left: None, simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.05)
    found = measured(simulator, most=12)
    assert _levels(found) == [1, 2, 4, 8, 12]
    assert found.ended == "as many at once as may be"
    assert found.advice is not None
    assert 10 <= found.advice.parallel <= 12
    assert simulator.max_in_flight <= 12
    assert found.repeated == 0
    assert (found.levels[-1].held, found.levels[-1].at_once, found.requests) == (True, found.advice.parallel, 300)


def test_the_number_of_requests_is_bounded(simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.05)
    found = measured(simulator, requests=47)
    assert simulator.requests.total() == found.requests == 47
    assert found.ended == "all requests that may be made were made"


def test_the_ceiling_holds_and_ends_it(simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.02, record=True)
    found = measured(simulator, max_requests_per_second=30, requests=60)
    assert found.ended == "the ceiling was reached"
    assert found.advice is not None
    assert (found.advice.parallel, found.advice.rate) == (2, 30)
    assert simulator.log is not None
    times = [at for at, _, _ in simulator.log]
    assert all(sum(at <= each < at + 1 for each in times) <= 31 for at in times)


def test_a_slow_host_is_asked_for_some_seconds_only(simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "MOST_SECONDS", 0.5)
    simulator = simulate(WORLD, latency=0.2)
    found = measured(simulator, most=4)
    assert _levels(found) == [1, 2, 4]
    assert found.levels[0].requests < 5
    assert found.levels[0].median == pytest.approx(0.2, rel=0.3)


def test_a_host_that_goes_down_meanwhile_is_left_alone(no_threads_left: None, simulate: Simulate) -> None:
    simulator = simulate(
        WORLD,
        latency=0.05,
        faults=lambda kind, key, attempt: Answer(500, {}, b"{}") if simulator.requests["info"] > 30 else None,
    )
    found = measured(simulator)
    assert found.ended == "errors became more"
    assert found.levels[-1].errors >= 3
    assert simulator.requests["info"] <= 60
    assert found.advice is not None
    assert found.advice.parallel < found.levels[-1].at_once


def test_single_errors_are_counted_and_stop_nothing(simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.05, profile=Profile(mishaps=(Share("500", 0.05),), gone_404=0.05))
    found = measured(simulator, most=8, requests=100)
    assert _levels(found) == [1, 2, 4, 8]
    assert sum(each.errors for each in found.levels) == simulator.wrong["500"]


def test_an_api_that_is_not_there_is_one_line_and_exit_code_5() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    done = run_fetcher("tune", "--base-url", f"http://127.0.0.1:{port}/api")
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "nobody takes the connection" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_api_that_refuses_from_the_start_is_not_measured(simulate: Simulate) -> None:
    simulator = simulate(WORLD, faults=lambda *_: Answer(429, {}, b"{}"))
    with pytest.raises(RemoteError, match="the API refuses, for it was asked too much"):
        measured(simulator)
    assert simulator.requests.total() == 1


def test_a_login_that_is_needed_is_said(simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=60, login=True), profile=Profile(login=Login(requests=0)))
    with pytest.raises(LoginError, match="PP and ME"):
        measured(simulator, content_flags=9)
    assert simulator.requests["info"] == 0
    done = run_fetcher("tune", "--base-url", simulator.url, "--flags", "9")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)


def test_an_api_that_lists_nothing_gives_no_advice(simulate: Simulate) -> None:
    found = measured(simulate(World(seed=1, items=0)))
    assert (found.exit_code, found.settings, found.levels) == (3, {}, ())


def test_a_source_that_fails_is_named(simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    def detail(*_: Any) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(Pr0gramm, "detail", detail)
    with pytest.raises(SourceError, match="pr0gramm failed in detail: ValueError: two lines"):
        measured(simulate(WORLD))


def test_a_limit_on_a_number_is_met_while_holding_and_its_pause_tells_the_rate(simulate: Simulate) -> None:
    window = Window(requests=70, seconds=10, block=9, retry_after="9")
    simulator = simulate(WORLD, latency=0.02, profile=Profile(windows=(window,)))
    found = measured(simulator, most=2)
    assert found.refused is not None
    assert (found.levels[-1].held, found.levels[-1].refused) == (True, True)
    assert found.refused.retry_after == 9
    assert found.advice is not None
    assert 4 <= found.advice.rate <= 7, "70 in 10 s, not the 90 a second that went well for a moment"


def test_a_pause_of_six_hours_does_not_come_to_a_request_an_hour(simulate: Simulate) -> None:
    simulator = simulate(
        WORLD,
        latency=0.01,
        faults=lambda *_: Answer(429, {"Retry-After": "21600"}, b"{}") if simulator.requests["info"] > 40 else None,
    )
    found = measured(simulator, max_backoff_seconds=60)
    assert found.advice is not None
    assert found.advice.rate >= 0.4


def test_the_rate_of_a_description_is_a_ceiling_and_its_columns_are_found_out(simulate: Simulate) -> None:
    simulator = simulate(RestWorld(seed=1, items=400))
    Path("list.toml").write_text(
        f'base_url = "{simulator.url}"\nrate = 25\n[list]\nurl = "/token"\nitems = "results"\n'
        'key = "id"\npages = "token"\nnext = "next_token"\nparameter = "page_token"\n'
    )
    found = tune("list.toml", "none.db", request_delay=0, requests=25)
    assert found.outlook.ceiling == 25
    assert [each.errors for each in found.levels if each.errors] == []
    assert found.advice is not None
    done = run_fetcher("tune", "list.toml", "--requests", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert "But REQUEST_DELAY=1 holds a mirror to 1/s" in done.stdout


# --- what is asked ----------------------------------------------------------------------------------


def test_items_of_the_database_are_asked_for_and_it_is_not_changed(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD, record=True)
    mirror(db, simulator)
    before, listed, seen = db.read_bytes(), simulator.requests["list"], len(simulator.log or [])
    found = measured(simulator, db=db, most=4, requests=60)
    assert simulator.requests["list"] == listed + 1
    asked = [key for _, kind, key in (simulator.log or [])[seen:] if kind == "info"]
    assert len(asked) == len(set(asked)) == found.requests - 1
    assert set(asked) <= {id for (id,) in query(db, "SELECT id FROM items")}
    assert max(asked) - min(asked) > WORLD.ids()[-1] / 2, "from all over the mirror"
    assert db.read_bytes() == before


def test_a_database_that_knows_few_items_is_not_asked_for_them_again(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    fetch(db=db, api_base_url=simulator.url, limit=20, request_delay=0, max_requests_per_second=0)
    assert measured(simulator, db=db, requests=250).repeated == 0


def test_items_that_are_gone_are_not_asked_for_again(db: Path, simulate: Simulate) -> None:
    mirror(db, simulate(WORLD, profile=Profile(gone_404=0.3)))
    gone = {id for (id,) in query(db, "SELECT id FROM items WHERE gone_at IS NOT NULL")}
    assert gone
    keys = sample(db, Pr0gramm.tables[0], 1000)
    assert gone.isdisjoint(keys)
    assert len(keys) == len(set(keys)) > 100


def test_few_items_are_asked_for_again_and_that_is_said(simulate: Simulate) -> None:
    found = measured(simulate(World(seed=1, items=12)), most=4)
    assert found.repeated > 0


def test_stac_is_asked_for_pages_and_its_own_setting_is_advised(simulate: Simulate) -> None:
    simulator = simulate(StacWorld(seed=1, items=3000), latency=0.05)
    found = measured(simulator, "stac", most=4)
    assert list(found.settings) == ["STAC_WINDOWS", "MAX_REQUESTS_PER_SECOND"]
    assert simulator.requests["search"] > 20
    assert simulator.requests.total() == found.requests


def test_a_source_that_lists_one_page_at_a_time_is_asked_so(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pr0gramm, "detail", None)
    simulator = simulate(WORLD)
    found = measured(simulator, requests=30)
    assert (_levels(found), list(found.settings)) == ([1], ["MAX_REQUESTS_PER_SECOND"])
    assert simulator.requests["info"] == 0
    assert simulator.max_in_flight == 1


@pytest.mark.parametrize("name", ["pr0gram", "rest", "none.db"])
def test_a_misspelt_source_has_no_other_host_asked(simulate: Simulate, name: str) -> None:
    simulator = simulate(WORLD)
    done = run_fetcher("tune", name, "--base-url", simulator.url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"no source '{name}'" in done.stderr
    assert simulator.requests.total() == 0


def test_a_database_in_use_by_a_run_is_not_measured_beside_it(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=30))
    mirror(db, simulator)
    before = simulator.requests.total()
    held = lock(db)
    try:
        with pytest.raises(StoreError, match="in use by another run"):
            measured(simulator, db=db)
    finally:
        os.close(held)
    assert simulator.requests.total() == before
    with kept_from_runs(db), pytest.raises(StoreError, match="in use by another run"):
        lock(db)


def test_options_without_effect_are_not_taken() -> None:
    for option in ("--workers", "--windows", "--batch-size"):
        done = CliRunner().invoke(cli, ["tune", option, "3"])
        assert (done.exit_code, "No such option" in done.output) == (2, True)


def test_no_more_is_recommended_than_a_setting_takes(simulate: Simulate) -> None:
    simulator = simulate(StacWorld(seed=1, items=50))
    assert measured(simulator, "stac", most=1000, requests=15).outlook.most == 100


def test_files_have_no_api() -> None:
    with pytest.raises(ConfigurationError, match="no API to measure"):
        tune("files", "none.db")


@pytest.mark.parametrize(
    ("given", "words"), [({"most": 0}, "most"), ({"requests": 0}, "requests"), ({"colour": 1}, "colour")]
)
def test_wrong_arguments_are_said(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        tune(**given)


def test_a_least_number_in_flight_above_what_is_advised_is_lowered(simulate: Simulate) -> None:
    found = measured(simulate(WORLD, latency=0.02), most=2, requests=40, min_parallel_requests=5)
    assert found.settings["MIN_PARALLEL_REQUESTS"] == found.settings["MAX_PARALLEL_REQUESTS"]


# --- interrupted ------------------------------------------------------------------------------------


def test_whoever_stops_it_gets_what_is_known(no_threads_left: None, simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.05)
    stop = Stop()
    with pytest.raises(Interrupted) as caught:
        measured(simulator, stop=stop, on_level=lambda each: stop.set() if each.at_once == 4 else None)
    found = caught.value.summary
    assert _levels(found)[:3] == [1, 2, 4]
    assert found.advice is not None
    assert found.advice.parallel <= 4


def test_ctrl_c_shows_the_table_so_far_and_leaves_with_130(simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.2)
    command = [sys.executable, "-m", "fetcher", "tune", "--base-url", simulator.url, "--max-rate", "0", "--delay", "0"]
    with subprocess.Popen(
        [*command, "--write"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: simulator.requests["info"] > 15)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "MAX_PARALLEL_REQUESTS=" in out
    assert errors == "fetcher: interrupted; nothing was written\n"
    assert not Path(".env").exists()


# --- the command ------------------------------------------------------------------------------------


def test_the_command_fits_a_terminal_and_writes(simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.05)
    Path(".env").write_bytes(b"# mine\r\nMAX_PARALLEL_REQUESTS=3 # few\r\n#MAX_REQUESTS_PER_SECOND=10\r\nPP=x\r\n")
    asked = ["tune", "--base-url", simulator.url, "--most", "4", "--max-rate", "0", "--delay", "0", "--requests", "60"]
    done = run_fetcher(*asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "At most 60 requests, 1 to 4 at once" in done.stdout
    assert b"few" in Path(".env").read_bytes()
    assert b"=3 #" in Path(".env").read_bytes()
    done = run_fetcher(*asked, "--write")
    assert ".env: MAX_PARALLEL_REQUESTS=4 (was 3)" in done.stdout
    lines = Path(".env").read_bytes().split(b"\r\n")
    assert lines[:3] == [b"# mine", b"MAX_PARALLEL_REQUESTS=4 # few", b"#MAX_REQUESTS_PER_SECOND=10"]
    assert lines[3].startswith(b"MAX_REQUESTS_PER_SECOND=")
    assert lines[4:] == [b"PP=x", b""]


def test_the_command_gives_json(simulate: Simulate) -> None:
    simulator = simulate(WORLD, latency=0.02)
    done = run_fetcher(
        "tune", "--base-url", simulator.url, "--most", "2", "--json", "--write", "--delay", "0", "--requests", "30"
    )
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["exit_code"]) == (0, "", 0)
    assert {"levels", "ended", "advice", "curve", "settings", "changes"} <= set(told)
    assert told["levels"][0]["at_once"] == 1
    assert [each["before"] for each in told["changes"]] == [None, None]
    assert Path(".env").read_text() == "".join(f"{name}={value}\n" for name, value in told["settings"].items())


def test_json_of_a_level_without_answers_is_json(simulate: Simulate) -> None:
    simulator = simulate(WORLD, faults=lambda kind, *_: Answer(429, {}, b"{}") if kind == "info" else None)
    done = CliRunner().invoke(cli, ["tune", "--base-url", simulator.url, "--json", "--write", "--delay", "0"])
    told = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))
    assert (told["exit_code"], told["settings"], told["changes"], told["advice"]) == (3, {}, [], None)
    assert not Path(".env").exists()


def test_a_database_tells_its_source(db: Path, simulate: Simulate) -> None:
    simulator = simulate(StacWorld(seed=1, items=50))
    fetch("stac", db, api_base_url=simulator.url, request_delay=0, max_requests_per_second=0)
    done = CliRunner().invoke(cli, ["tune", str(db), "--most", "2", "--requests", "40"])
    assert f"Asking {simulator.url} for list pages" in done.stdout


def test_an_env_that_cannot_be_written_is_said_before_anything_is_asked(simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    Path(".env").mkdir()
    done = run_fetcher("tune", "--base-url", simulator.url, "--write")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert simulator.requests.total() == 0


def test_the_environment_that_comes_before_the_file_is_said(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_PARALLEL_REQUESTS", "7")
    done = CliRunner().invoke(
        cli, ["tune", "--base-url", simulate(WORLD).url, "--most", "2", "--write", "--delay", "0", "--requests", "30"]
    )
    assert "But MAX_PARALLEL_REQUESTS=7 in the environment comes before .env" in done.stdout


def test_questions_are_asked_by_many_threads_and_each_once() -> None:
    class Lists:
        name = "lists"

        def __init__(self) -> None:
            self.asked: list[int] = []

        def detail(self, client: Any, key: int) -> None:
            self.asked.append(key)

    source: Any = Lists()
    each_once = questions.Questions(source, None, [], list(range(200)))  # type: ignore[arg-type]
    threads = [threading.Thread(target=lambda: [each_once.ask() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(source.asked) == list(range(200))
    assert each_once.repeated == 0
