"""The command line: what it takes, what it says, and the code it leaves with."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

import fetcher.sources
from fetcher import __version__, engine
from fetcher.cli import COMMANDS, EXIT_CODES, main, report
from fetcher.cli.report import duration, size, state_words
from fetcher.errors import ConfigurationError, FetcherError, Interrupted, LoginError, RemoteError, StoreError
from fetcher.model import Counts, Progress, Summary
from fetcher.simulator import Answer, Simulator, World
from fetcher.sources.pr0gramm import Pr0gramm
from tests.helpers import dump_all, mirror, one

fetch_command = importlib.import_module("fetcher.cli.fetch")
FAST = ("--delay", "0", "--max-rate", "0")


class Left(NamedTuple):
    code: Any
    out: str
    err: str


@pytest.fixture
def fetcher_(capsys: pytest.CaptureFixture[str]) -> Callable[..., Left]:
    """Runs the command line in this process."""

    def run(*args: str) -> Left:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(args))
        return Left(left.value.code, *capsys.readouterr())

    return run


Run = Callable[..., Left]


def assert_one_line(left: Left, code: int, *words: str) -> None:
    assert left.code == code, left
    assert left.err.count("\n") == 1, left.err
    assert left.err.startswith("fetcher: ")
    assert "Traceback" not in left.err
    for word in words:
        assert word in left.err


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, dict[str, Any]]]:
    """What the library was asked for, instead of doing it."""
    calls: list[tuple[Any, Any, dict[str, Any]]] = []

    def fetch(source: str, db: Path | None, **options: Any) -> Summary:
        calls.append((source, db, options))
        return Summary(Counts(), 1.0, "complete", 0, 0)

    monkeypatch.setattr(fetch_command, "run", fetch)
    return calls


# Arguments


@pytest.mark.parametrize(
    ("args", "source", "db"),
    [
        ((), "pr0gramm", None),
        (("pr0gramm",), "pr0gramm", None),
        (("my.db",), "pr0gramm", Path("my.db")),
        (("pr0gram",), "pr0gramm", Path("pr0gram")),
        (("./pr0gramm",), "pr0gramm", Path("pr0gramm")),
        (("pr0gramm", "my.db"), "pr0gramm", Path("my.db")),
        (("pr0gramm", "pr0gramm"), "pr0gramm", Path("pr0gramm")),
        (("a folder/m.db",), "pr0gramm", Path("a folder/m.db")),
    ],
)
def test_one_argument_is_the_source_if_there_is_one_of_that_name_else_the_database(
    fetcher_: Run, asked: list[Any], args: tuple[str, ...], source: str, db: Path | None
) -> None:
    assert fetcher_("fetch", *args).code == 0
    assert [call[:2] for call in asked] == [(source, db)]


def test_options_reach_the_library_under_their_settings_names(fetcher_: Run, asked: list[Any]) -> None:
    given = ["--base-url", "http://x.test", "--workers", "3", "--delay", "0.5", "--max-rate", "0", "--batch-size", "7"]
    given += ["--flags", "9", "--start-from", "5", "--full", "--limit", "4", "--order", "oldest"]
    assert fetcher_("fetch", *given).code == 0
    options = {name: value for name, value in asked[0][2].items() if not name.startswith("on_") and name != "stop"}
    assert options == {
        "api_base_url": "http://x.test",
        "max_parallel_requests": "3",
        "request_delay": "0.5",
        "max_requests_per_second": "0",
        "db_batch_size": "7",
        "content_flags": "9",
        "start_from": "5",
        "full_update": True,
        "limit": 4,
        "order": "oldest",
    }


def test_what_is_not_given_is_left_to_the_environment(fetcher_: Run, asked: list[Any]) -> None:
    fetcher_("fetch")
    assert {name for name in asked[0][2] if not name.startswith("on_")} == {"limit", "order", "stop"}


def test_three_arguments_are_too_many(fetcher_: Run, asked: list[Any]) -> None:
    left = fetcher_("fetch", "pr0gramm", "a.db", "b.db")
    assert (left.code, asked) == (2, [])
    assert "at most a SOURCE and a DB" in left.err


def test_a_source_that_is_not_there_is_told_with_those_that_are(fetcher_: Run) -> None:
    left = fetcher_("fetch", "nowhere", "m.db")
    assert_one_line(left, 2, "no source is called 'nowhere'", "pr0gramm")
    assert not Path("m.db").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--workers", "0", "MAX_PARALLEL_REQUESTS (--workers)"),
        ("--delay", "soon", "REQUEST_DELAY (--delay)"),
        ("--max-rate", "-1", "MAX_REQUESTS_PER_SECOND (--max-rate)"),
        ("--batch-size", "1.5", "DB_BATCH_SIZE (--batch-size)"),
        ("--start-from", "newest", "START_FROM (--start-from)"),
        ("--flags", "32", "CONTENT_FLAGS (--flags)"),
        ("--base-url", "pr0gramm.com", "API_BASE_URL"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting_and_the_option(
    fetcher_: Run, option: str, value: str, words: str
) -> None:
    assert_one_line(fetcher_("fetch", "m.db", option, value), 2, words, value)
    assert not Path("m.db").exists()


@pytest.mark.parametrize("args", [("--limit", "0"), ("--order", "up"), ("--nonsense",), ("--log-format", "xml")])
def test_a_bad_option_is_exit_2(fetcher_: Run, args: tuple[str, ...]) -> None:
    left = fetcher_("fetch", *args)
    assert left.code == 2
    assert "Traceback" not in left.err
    assert args[0] in left.err


def test_a_bad_value_in_the_environment_is_one_line(fetcher_: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "many")
    assert_one_line(fetcher_("fetch"), 2, "MAX_RETRIES", "many")


def test_a_name_in_env_that_no_setting_has_is_a_warning(fetcher_: Run, asked: list[Any]) -> None:
    Path(".env").write_text("MAX_RETRYS=1\nPP=secret\n")
    left = fetcher_("fetch")
    assert left.code == 0
    assert re.fullmatch(r"\d\d:\d\d:\d\d \.env: MAX_RETRYS is no setting; it is ignored\n", left.err)


def test_without_a_command_or_with_a_wrong_one_it_says_so(fetcher_: Run) -> None:
    assert fetcher_("nonsense").code == 2
    assert fetcher_("--version") == Left(0, f"fetcher, version {__version__}\n", "")


# Help


@pytest.mark.parametrize("command", [(), ("fetch",)])
def test_help_names_the_exit_codes(fetcher_: Run, command: tuple[str, ...]) -> None:
    left = fetcher_(*command, "--help")
    assert left.code == 0
    lines = [" ".join(line.split()) for line in left.out.splitlines()]
    for line in EXIT_CODES.splitlines()[1:]:
        assert " ".join(line.split()) in lines


def test_help_names_every_command_option_and_setting(fetcher_: Run) -> None:
    assert all(command in fetcher_("--help").out for command in COMMANDS)
    text = " ".join(fetcher_("fetch", "--help").out.split())
    for option in [
        "--base-url",
        "--workers",
        "--delay",
        "--max-rate",
        "--batch-size",
        "--flags",
        "--start-from",
        "--full",
        "--limit",
        "--order",
        "--dry-run",
        "--log-format",
        "--verbose",
    ]:
        assert option in text
    for default in (
        "[MAX_PARALLEL_REQUESTS, default 10]",
        "[REQUEST_DELAY, default 1.0]",
        "[CONTENT_FLAGS, default 1]",
    ):
        assert default in text


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (FetcherError, 1),
        (ConfigurationError, 2),
        (LoginError, 4),
        (RemoteError, 5),
        (StoreError, 6),
        (Interrupted, 130),
    ],
)
def test_each_error_has_the_code_that_help_names(kind: type[FetcherError], code: int) -> None:
    assert kind.exit_code == code
    assert re.search(rf"^  {code} +\S", EXIT_CODES, re.MULTILINE)


def test_an_error_of_ours_is_one_line_that_says_how_to_see_more(fetcher_: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Summary:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(fetch_command, "run", broken)
    assert_one_line(fetcher_("fetch"), 1, "ZeroDivisionError: by zero", "LOG_LEVEL=DEBUG")
    assert "Traceback" in fetcher_("fetch", "-vv").err


# Fetching


def start_lines(left: Left) -> list[str]:
    return left.out.splitlines()[:5]


def test_a_run_begins_with_the_lines_of_the_contract(fetcher_: Run, shared_simulator: Simulator) -> None:
    newest = World(seed=1, items=300).ids()[-1]
    left = fetcher_("fetch", "m.db", "--base-url", shared_simulator.url, *FAST, "--limit", "10")
    assert start_lines(left)[:4] == [
        f"Fetching items from ID {newest} down to 1",
        f"Estimated items: ~{newest:,}",
        "Parallel workers: 10",
        "DB batch size: 200 items",
    ]
    assert left.code == 0
    assert "Stored 10 items" in left.out
    assert "run again" in left.out
    assert int(re.sub(r"\D", "", left.out.split("limit is reached, ~")[1].split()[0])) > 200, (
        "of 300 items that there are"
    )


def test_a_resume_says_what_is_still_missing_then_that_nothing_is(fetcher_: Run, shared_simulator: Simulator) -> None:
    base = ("fetch", "m.db", "--base-url", shared_simulator.url, *FAST, "--workers", "3", "--batch-size", "20")
    fetcher_(*base, "--limit", "10")
    lowest = one(Path("m.db"), "SELECT min(lo) FROM coverage")
    queued = one(Path("m.db"), "SELECT work FROM sources")
    left = fetcher_(*base)
    lines = start_lines(left)
    expected = f"Fetching items from ID {lowest - 1} down to 1" if lowest > 1 else "Nothing new to list"
    assert lines[0] == expected
    assert int(re.sub(r"\D", "", lines[1])) <= queued + lowest - 1
    assert lines[2:] == [f"Queued from before: {queued:,}", "Parallel workers: 3", "DB batch size: 20 items"]
    assert "m.db is complete" in left.out
    left = fetcher_(*base)
    assert start_lines(left)[:2] == ["Nothing new to list", "Estimated items: ~0"]
    assert left.code == 0


def test_a_run_upwards_says_so(fetcher_: Run, shared_simulator: Simulator) -> None:
    left = fetcher_("fetch", "m.db", "--base-url", shared_simulator.url, *FAST, "--order", "oldest", "--limit", "1")
    newest = World(seed=1, items=300).ids()[-1]
    assert start_lines(left)[0] == f"Fetching items from ID 1 up to {newest}"


def test_json_lines_are_all_json(fetcher_: Run, shared_simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "LINE_SECONDS", 0.0)
    Path(".env").write_text("NONSENSE=1\n")
    left = fetcher_("fetch", "m.db", "--base-url", shared_simulator.url, *FAST, "--log-format", "json", "--limit", "20")
    events = [json.loads(line) for line in left.out.splitlines()]
    assert [each["event"] for each in events][:2] == ["log", "start"]
    assert events[-1]["event"] == "end"
    assert (events[-1]["stored"], events[-1]["ended"]) == (20, "limit reached")
    progress = [each for each in events if each["event"] == "progress"]
    assert progress
    assert {"stored", "failed", "rate", "eta", "paused", "left"} <= progress[0].keys()
    assert all(isinstance(each["at"], float) for each in events)
    assert (left.code, left.err) == (0, "")


def test_elsewhere_than_on_a_terminal_progress_is_lines(
    fetcher_: Run, shared_simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LINE_SECONDS", 0.0)
    left = fetcher_("fetch", "m.db", "--base-url", shared_simulator.url, *FAST, "--limit", "50")
    assert left.err
    for line in left.err.splitlines():
        assert re.match(r"[\d,]+ of ~[\d,]+ items, (–|[\d.,]+)/s", line), line
    assert "\r" not in left.err


def test_a_minute_passes_between_two_lines(fetcher_: Run, shared_simulator: Simulator) -> None:
    assert report.LINE_SECONDS == 60
    assert fetcher_("fetch", "m.db", "--base-url", shared_simulator.url, *FAST, "--limit", "50").err == ""


def test_on_a_terminal_progress_is_a_bar_that_leaves_no_trace(shared_simulator: Simulator) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "fetcher", "fetch", "m.db", "--base-url", shared_simulator.url, *FAST]
    with io.FileIO(ours) as screen:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment()) as process:
            os.close(theirs)
            shown = b""
            try:
                while chunk := screen.read(65536):
                    shown += chunk
            except OSError:
                pass  # The other end is closed.
            out = process.communicate(timeout=20)[0]
    assert process.returncode == 0
    assert b"%" in shown
    assert b"Traceback" not in shown
    assert b"is complete" in out


def test_v_shows_one_line_for_each_retry_and_failure(fetcher_: Run, simulate: Callable[..., Simulator]) -> None:
    world = World(seed=1, items=20)
    flaky, broken, *_ = world.ids()

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if kind == "info" and (key == broken or (key == flaky and attempt == 1)):
            return Answer(500, {"Content-Type": "text/html"}, b"<html>")
        return None

    url = simulate(world, faults=faults).url
    Path(".env").write_text("MAX_RETRIES=1\nMAX_BACKOFF_SECONDS=0.1\n")
    left = fetcher_("fetch", "m.db", "--base-url", url, *FAST, "-v")
    lines = [line.split(" ", 1)[1] for line in left.err.splitlines()]
    assert len([line for line in lines if line.startswith(f"detail {flaky}: answered 500; again in ")]) == 1
    assert len([line for line in lines if line.startswith(f"detail {broken}: answered 500")]) == 2
    assert f"detail {broken}: answered 500; set aside as failed" in lines
    assert left.code == 3
    assert "1 failed for good: `fetcher failures` says why" in left.out


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(fetcher_: Run, shared_simulator: Simulator) -> None:
    newest = World(seed=1, items=300).ids()[-1]
    left = fetcher_("fetch", "m.db", "--base-url", shared_simulator.url, "--dry-run")
    assert left.code == 0
    for words in (f"from ID {newest} down to 1", "Requests: ~", "Time: at least", "Disk: ~", "Nothing was written."):
        assert words in left.out
    assert list(Path().iterdir()) == []


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, and nobody can begin to."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/api"


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_api_that_does_not_answer_is_one_line_and_exit_5(
    fetcher_: Run, nobody: str, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr(engine, "FIRST_ANSWER_SECONDS", 0.0)
    assert_one_line(fetcher_("fetch", "m.db", "--base-url", nobody, *FAST, *more), 5, nobody.split("/")[2])


def test_an_address_without_the_api_is_one_line_and_exit_5(fetcher_: Run, shared_simulator: Simulator) -> None:
    url = shared_simulator.url.removesuffix("/api")
    assert_one_line(fetcher_("fetch", "m.db", "--base-url", url, *FAST), 5, "API_BASE_URL")


def test_flags_that_need_a_login_are_one_line_and_exit_4(fetcher_: Run, shared_simulator: Simulator) -> None:
    left = fetcher_("fetch", "m.db", "--base-url", shared_simulator.url, *FAST, "--flags", "31")
    assert_one_line(left, 4, "PP and ME", "CONTENT_FLAGS")


# Databases


def not_ours(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("a diary\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        import sqlite3

        with closing(sqlite3.connect(path)) as conn:
            conn.execute("CREATE TABLE mine (a)")


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "folder", "foreign"])
def test_status_of_what_is_no_mirror_is_one_line_and_exit_6(fetcher_: Run, kind: str) -> None:
    not_ours(Path("m.db"), kind)
    before = sorted(Path().iterdir())
    assert_one_line(fetcher_("status", "m.db"), 6, "m.db")
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("kind", ["text", "folder", "foreign"])
def test_fetching_into_what_is_no_mirror_is_one_line_and_exit_6(fetcher_: Run, nobody: str, kind: str) -> None:
    not_ours(Path("m.db"), kind)
    assert_one_line(fetcher_("fetch", "m.db", "--base-url", nobody), 6, "m.db")


class Toy(Pr0gramm):
    """Another source, of the same kind."""

    name = "toy"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = MappingProxyType({"pr0gramm": Pr0gramm, "toy": Toy})
    monkeypatch.setattr(fetcher.sources, "registry", lambda: sources)


def test_a_registered_source_can_be_named(toy: None, fetcher_: Run, shared_simulator: Simulator) -> None:
    Path(".env").write_text("DB_PATH=theirs.db\n")
    assert fetcher_("fetch", "toy", "--base-url", shared_simulator.url, *FAST, "--limit", "1").code == 0
    assert one(Path("theirs.db"), "SELECT name FROM sources") == "toy"
    assert "mirror of toy" in fetcher_("status").out


def test_one_database_mirrors_one_source(toy: None, fetcher_: Run, shared_simulator: Simulator) -> None:
    url = ("--base-url", shared_simulator.url, *FAST, "--limit", "1")
    assert fetcher_("fetch", "toy", "m.db", *url).code == 0
    before = dump_all(Path("m.db"))
    for more in ((), ("--dry-run",)):
        assert_one_line(fetcher_("fetch", "pr0gramm", "m.db", *url, *more), 2, "m.db mirrors toy, not pr0gramm")
    assert dump_all(Path("m.db")) == before


def test_the_database_of_a_source_that_is_not_installed_is_told(
    fetcher_: Run, shared_simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fetcher.sources, "registry", lambda: {"toy": Toy})
        assert fetcher_("fetch", "toy", "m.db", "--base-url", shared_simulator.url, *FAST, "--limit", "1").code == 0
    assert_one_line(fetcher_("status", "m.db"), 2, "no source is called 'toy'")


def test_status_tells_what_there_is(fetcher_: Run, shared_simulator: Simulator) -> None:
    mirror(Path("m.db"), shared_simulator)
    left = fetcher_("status", "m.db")
    assert left.code == 0
    for words in ("mirror of pr0gramm", "300 listed, 300 with their details", "0 left", "scope 1: 1 to", "complete"):
        assert words in left.out
    found = json.loads(fetcher_("status", "m.db", "--json").out)
    assert (found["items"], found["fetched"], found["work"], found["runs"][0]["ended"]) == (300, 300, 0, "complete")


def test_status_needs_no_argument_for_the_usual_database(
    fetcher_: Run, shared_simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(Path("my mirror.db"), shared_simulator, limit=1)
    monkeypatch.setenv("DB_PATH", "my mirror.db")
    assert fetcher_("status").out.startswith("my mirror.db: mirror of pr0gramm")


# Pipes


def environment() -> dict[str, str]:
    root = str(Path(fetcher.__file__).parent.parent)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": root, "LC_ALL": "C.UTF-8", "TERM": "xterm"}


@pytest.mark.parametrize("command", ["status", "fetch"])
def test_a_reader_that_has_gone_is_no_reason_for_a_traceback(shared_simulator: Simulator, command: str) -> None:
    mirror(Path("m.db"), shared_simulator, limit=1)
    args = ["status", "m.db", "--json"]
    if command == "fetch":
        args = ["fetch", "m.db", "--base-url", shared_simulator.url, *FAST]
    read, write = os.pipe()
    os.close(read)
    try:
        left = subprocess.run(
            [sys.executable, "-m", "fetcher", *args],
            stdout=write,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=30,
            check=False,
        )
    finally:
        os.close(write)
    assert (left.returncode, left.stderr) == (1, b"")


# Words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599.9, "1 h"),
        (3660, "1 h 1 min"),
        (86_400, "1 d"),
        (14 * 86_400 + 7_300, "14 d 2 h"),
    ],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (2_600, "2.6 kB"), (15.6e9, "15.6 GB"), (2e15, "2000.0 TB")],
)
def test_a_size_in_words(count: float, words: str) -> None:
    assert size(count) == words


def test_progress_in_words() -> None:
    busy = Progress(Counts(gone=1, failed=2000), 9.0, 1, 5, 12.34, 90.0, 30.2, "answered 429", True)
    assert state_words(busy) == "12.3/s, 1 min 30 s left, listing, 1 gone, 2,000 failed, paused 30 s (answered 429)"
    assert state_words(Progress(Counts(), 0.0, 0, 0, 0.0, None, listing=False)) == "–/s"
