"""`fetcher doctor` finds each thing that is not in order, says what to do about it, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fetcher.doctor
from fetcher import StoreError
from fetcher.cli import cli, main
from fetcher.doctor import Finding, database, diagnose, exit_code, place
from fetcher.doctor.sayings import saying
from fetcher.errors import RequestFailed
from fetcher.mirror import BYTES_AN_ITEM
from fetcher.model import Outcome
from fetcher.simulator import Answer, Login, Profile, Share, Simulator, World
from fetcher.simulator.bodies import html
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stores import filesystem, health
from fetcher.words import size
from tests.helpers import answer, eventually, list_page, mirror, one, query, run_fetcher, running

Simulate = Callable[..., Simulator]

WORLD = World(seed=1, items=60)
LOGIN_WORLD = World(seed=1, items=60, login=True)
LOGIN = {"pp": "the-value-of-pp", "me": "the-value-of-me"}
NAMED = {"user_agent": "tests (me@mail.example)", "max_requests_per_second": 0}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete mirror, to be copied; who made it is gone."""
    path = tmp_path_factory.mktemp("template") / "mirror.db"
    with Simulator(WORLD) as simulator:
        mirror(path, simulator)
    return path


@pytest.fixture
def complete(db: Path, template: Path) -> Path:
    """A complete mirror of one's own."""
    shutil.copy(template, db)
    return db


@pytest.fixture(scope="module")
def healthy() -> Iterator[Simulator]:
    with Simulator(WORLD) as simulator:
        yield simulator


def look(db: Path, simulator: Simulator | None = None, **settings: Any) -> list[Finding]:
    """What the doctor finds, asking the simulator or nobody."""
    if simulator is None:
        return diagnose(db, offline=True, **{**NAMED, **settings})
    return diagnose(db, **{"api_base_url": simulator.url, **NAMED, **settings})


def said(findings: list[Finding], level: str, what: str, *words: str) -> Finding:
    """The one finding of that level that says so; what is not in order comes with a remedy."""
    assert all((each.remedy is None) == (each.level == "ok") for each in findings)
    assert all("\n" not in each.message + (each.remedy or "") for each in findings)
    fitting = [
        each
        for each in findings
        if (each.level, each.what) == (level, what) and all(word in f"{each.message} → {each.remedy}" for word in words)
    ]
    assert len(fitting) == 1, findings
    return fitting[0]


def change(db: Path, *statements: str) -> None:
    with closing(sqlite3.connect(db)) as conn, conn:
        for sql in statements:
            conn.execute(sql)


# --- in good order ----------------------------------------------------------------------------------


def test_where_all_is_well_there_is_nothing_to_do(complete: Path, healthy: Simulator) -> None:
    before = healthy.requests.copy()
    found = look(complete, healthy)
    assert [each for each in found if each.level != "ok"] == []
    assert exit_code(found) == 0
    assert healthy.requests - before == {"list": 1}
    assert list(dict.fromkeys(each.what for each in found)) == [
        *("settings", "network", "clock", "login", "file system", "database", "learned", "disk")
    ]
    said(found, "ok", "network", healthy.url, f"newest item is {WORLD.ids()[-1]:,}")


def test_nothing_is_written(complete: Path, healthy: Simulator) -> None:
    before = complete.read_bytes()
    look(complete, healthy, **LOGIN)
    assert complete.read_bytes() == before
    # SQLite itself leaves two files beside a database that was read.
    assert {each.name for each in complete.parent.iterdir()} <= {f"mirror.db{end}" for end in ("", "-wal", "-shm")}


def test_offline_nobody_is_asked(complete: Path, healthy: Simulator) -> None:
    before = healthy.requests.total()
    found = look(complete, None, api_base_url=healthy.url)
    assert healthy.requests.total() == before
    assert {"network", "clock"}.isdisjoint(each.what for each in found)
    assert exit_code(found) == 0


def test_it_works_while_a_run_goes_on(db: Path, simulate: Simulate) -> None:
    simulator = simulate(World(seed=1, items=150), latency=0.05)
    with running(simulator, db, "--batch-size", "5") as process:
        eventually(lambda: db.exists() and db.with_name("mirror.db-wal").exists())
        eventually(lambda: bool(_stored(db)))
        found = look(db, simulator)
        assert process.poll() is None
        said(found, "ok", "database", f"a run goes on (pid {process.pid})")
        said(found, "ok", "database", "left to fetch")
        assert exit_code(found) == 0
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors


def _stored(db: Path) -> Any:
    try:
        return query(db, "SELECT 1 FROM items WHERE fetched_at IS NOT NULL")
    except sqlite3.OperationalError:
        return None


# --- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("FOO=1\n", "note", ("FOO in .env is no setting",)),
        ("MAX_RETRIES=-1\n", "bad", ("MAX_RETRIES: ", "not '-1'")),
        ("REQUEST_TIMEOUT=soon\n", "bad", ("REQUEST_TIMEOUT: ",)),
        ("CONTENT_FLAGS=99\n", "bad", ("CONTENT_FLAGS (--flags): ",)),
        ("\n\nthe-value-of-a-cookie\n", "note", ("line 3 of .env is ignored",)),
        ("='the-value-of-a-cookie\n", "note", ("line 1 of .env is ignored",)),
        ("the-value-of-a-cookie=1\n", "note", ("line 1 of .env is ignored",)),
        (b"DB_PATH=\xff\n", "bad", (".env is not UTF-8 text",)),
        ("PP=the-value-of-a-cookie\n", "note", ("other users may read the login", "chmod 600 .env")),
        ("API_BASE_URL=ftp://x.test\n", "bad", ("API_BASE_URL is no http(s) address",)),
        ("PP='the-value-of-a-cookie;'\n", "bad", ("PP holds characters",)),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(
    text: str | bytes, level: str, words: tuple[str, ...], complete: Path
) -> None:
    Path(".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    found = look(complete)
    said(found, level, "settings", *words)
    assert exit_code(found) == (2 if level == "bad" else 0)
    assert "the-value-of-a-cookie" not in repr(found)
    assert any("all are valid" in each.message for each in found) is (level != "bad")
    assert any("is whole" in each.message for each in found), "the rest is looked at all the same"


def test_a_good_file_is_not_complained_of(complete: Path) -> None:
    Path(".env").write_text("# mine\n\nexport MAX_RETRIES=3\nDB_PATH=\nPP=\n", encoding="utf-8")
    assert [each for each in look(complete) if each.level != "ok"] == []


def test_each_wrong_setting_is_a_line_and_the_api_is_not_asked(complete: Path, healthy: Simulator) -> None:
    before = healthy.requests.total()
    found = look(complete, healthy, max_retries="-1", request_delay="soon", content_flags="0", colour="red")
    wrong = [each.message for each in found if (each.what, each.level) == ("settings", "bad")]
    assert [each.split()[0].strip(":") for each in wrong] == ["REQUEST_DELAY", "MAX_RETRIES", "CONTENT_FLAGS", "no"]
    assert "colour" in wrong[3]
    assert healthy.requests.total() == before
    said(found, "note", "network", "not asked")


def test_a_wrong_setting_elsewhere_leaves_the_database_that_was_set(complete: Path) -> None:
    Path(".env").write_text(f"DB_PATH='{complete}'\nSTART_FROM=nonsense\n", encoding="utf-8")
    found = diagnose(offline=True, **NAMED)
    said(found, "bad", "settings", "START_FROM")
    said(found, "ok", "database", str(complete))


def test_a_file_that_cannot_be_read_is_said(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").mkdir()
    said(look(complete), "note", "settings", ".env is no file")
    Path(".env").rmdir()
    Path(".env").write_text("", encoding="utf-8")

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    said(look(complete), "bad", "settings", ".env cannot be read: Permission denied")


def test_a_user_agent_that_reaches_nobody_is_noted(complete: Path) -> None:
    found = diagnose(complete, offline=True)
    said(found, "note", "settings", "USER_AGENT is still the placeholder", "mailto:")
    assert exit_code(found) == 0


def test_a_source_that_is_not_installed_is_said(db: Path, complete: Path) -> None:
    said(look(db.with_name("new.db"), source="nowhere"), "bad", "settings", "no source is called 'nowhere'")
    change(complete, "UPDATE sources SET name = 'elsewhere'")
    found = look(complete)
    said(found, "bad", "settings", "no source is called 'elsewhere'")
    assert exit_code(found) == 2


# --- reaching the API -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Answer(403, body=html("Attention")), ("blocks us", "another network")),
        (Answer(429, {"Retry-After": "90"}, b"{}"), ("asked too much", "wait 90 s", "MAX_REQUESTS_PER_SECOND")),
        (answer({"error": "limitReached", "code": 429}), ("asked too much", "wait some minutes")),
        (Answer(503, {"Retry-After": "7"}, b"{}"), ("asked too much", "wait 7 s")),
        (Answer(200, body=html("Log in here")), ("web page", "login of its own")),
        (Answer(200, body=b"{}"), ("not what this API gives", "newer fetcher")),
        (Answer(502, body=html("Bad Gateway")), ("in trouble", "try again later")),
        (Answer(404, body=html("Not Found")), ("no such API", "API_BASE_URL")),
        (Answer(302, {"Location": "https://elsewhere.test/"}), ("another host", "API_BASE_URL")),
    ],
)
def test_what_comes_instead_of_a_listing_is_explained(
    given: Answer, words: tuple[str, ...], db: Path, simulate: Simulate
) -> None:
    simulator = simulate(WORLD, faults=lambda kind, key, attempt: given)
    found = look(db, simulator, **LOGIN)
    said(found, "bad", "network", simulator.url, *words)
    assert exit_code(found) == 5
    assert simulator.requests.total() == 1
    assert "clock" not in {each.what for each in found}


@pytest.mark.parametrize(
    ("mishap", "words"),
    [
        ("hang", ("does not come in time", "raise REQUEST_TIMEOUT (0.3 s)")),
        ("reset", ("connection breaks", "check API_BASE_URL")),
        ("noise", ("connection breaks",)),
        ("html", ("web page",)),
        ("403", ("blocks us",)),
        ("null-items", ("not what this API gives",)),
    ],
)
def test_what_befalls_the_answer_is_explained(
    mishap: str, words: tuple[str, ...], db: Path, simulate: Simulate
) -> None:
    simulator = simulate(WORLD, profile=Profile(mishaps=(Share(mishap, 1.0),)))
    began = time.monotonic()
    said(look(db, simulator, request_timeout=0.3), "bad", "network", *words)
    assert time.monotonic() - began < 3


def test_nobody_there_is_explained(db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = simulate(WORLD)
    simulator.outage(30)
    found = diagnose(db, api_base_url=simulator.url, **NAMED)
    said(found, "bad", "network", "nobody takes the connection", "firewall")

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = diagnose(db, api_base_url="http://nowhere.test/api", **NAMED)
    said(found, "bad", "network", "name of the host is not known", "spelled")
    assert exit_code(found) == 5


def test_a_host_that_speaks_no_tls_is_explained(db: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def answer_plainly() -> None:
            with listening.accept()[0] as taken:
                taken.recv(10_000)
                taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer_plainly)
        thread.start()
        found = diagnose(db, api_base_url=f"https://127.0.0.1:{listening.getsockname()[1]}/api", **NAMED)
        thread.join(10)
    said(found, "bad", "network", "cannot be secured", "clock", "begins with http or https")


def test_a_connection_that_is_not_taken_in_time_is_explained() -> None:
    what, remedy = saying(RequestFailed(Outcome.UNAVAILABLE, "x.test: no connection in time (timeout 5 s)"), 5)
    assert "nobody takes the connection in time" in what
    assert "REQUEST_TIMEOUT (5 s)" in remedy


def test_a_proxy_of_the_environment_is_named(db: Path, monkeypatch: pytest.MonkeyPatch, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    simulator.outage(30)
    monkeypatch.setenv("HTTP_PROXY", simulator.url.removesuffix("/api"))
    found = diagnose(db, api_base_url="http://nowhere.test/api", **NAMED)
    said(found, "bad", "network", "a proxy is set in the environment")


def test_the_address_is_the_one_that_fetch_would_ask(complete: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD)
    change(complete, f"UPDATE sources SET base_url = '{simulator.url}'")
    said(diagnose(complete, **NAMED), "ok", "network", simulator.url)
    assert simulator.requests == {"list": 1}
    other = simulate(WORLD)
    said(look(complete, other), "ok", "network", other.url)
    assert simulator.requests == {"list": 1}


def test_the_ceiling_holds(db: Path, simulate: Simulate) -> None:
    simulator = simulate(LOGIN_WORLD, record=True)
    look(db, simulator, content_flags=9, max_requests_per_second=4, **LOGIN)
    assert simulator.log is not None
    (first, _, _), (second, _, _) = simulator.log
    assert second - first >= 0.24


# --- the login --------------------------------------------------------------------------------------

EXPIRED = Profile(login=Login(cookies={"pp": "another", "me": "another"}))


@pytest.mark.parametrize(
    ("profile", "settings", "level", "words", "requests"),
    [
        (None, {}, "ok", ("not given, and not needed",), {"list": 1}),
        (None, {"content_flags": 9}, "bad", ("none is given", "give PP and ME"), {"list": 1}),
        (None, {"content_flags": 9, "pp": "a"}, "bad", ("not enough", "renew PP and ME"), {"list": 1}),
        (None, {"content_flags": 9, **LOGIN}, "ok", ("is listed with it",), {"list": 1, "loggedin": 1}),
        (None, LOGIN, "note", ("nothing is asked for that needs it",), {"list": 1, "loggedin": 1}),
        (EXPIRED, {"content_flags": 9, **LOGIN}, "bad", ("it has expired", "renew PP and ME"), {"list": 1}),
        (EXPIRED, LOGIN, "note", ("it has expired", "renew PP and ME"), {"list": 1, "loggedin": 1}),
    ],
)
def test_the_login_is_tried_with_what_is_asked_for(
    profile: Profile | None,
    settings: dict[str, Any],
    level: str,
    words: tuple[str, ...],
    requests: dict[str, int],
    db: Path,
    simulate: Simulate,
) -> None:
    simulator = simulate(LOGIN_WORLD, profile=profile)
    found = look(db, simulator, **settings)
    said(found, level, "login", *words)
    assert simulator.requests == requests
    assert exit_code(found) == (4 if level == "bad" else 0)
    assert not any(each.level == "bad" for each in found if each.what == "network"), "a refusal is an answer"


def test_a_listing_that_is_given_though_the_login_has_expired_is_no_good_sign(db: Path, simulate: Simulate) -> None:
    page = answer(list_page(WORLD))
    simulator = simulate(WORLD, faults=lambda kind, key, attempt: page if kind == "list" else None)
    found = look(db, simulator, content_flags=9, **LOGIN)
    said(found, "bad", "login", "the API does not take it")


def test_a_login_that_nobody_can_tell_of_is_noted(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD, faults=lambda kind, *_: Answer(200, body=b"{}") if kind == "loggedin" else None)
    said(look(db, simulator, **LOGIN), "note", "login", "cannot be told")


def test_a_missing_login_is_known_without_asking(db: Path) -> None:
    said(look(db, content_flags=9), "bad", "login", "none is given")
    said(look(db, content_flags=9, **LOGIN), "ok", "login", "was not tried")


def test_no_line_holds_a_secret(db: Path, simulate: Simulate) -> None:
    words = f"no {LOGIN['pp']}, no {LOGIN['me']}"
    simulator = simulate(WORLD, faults=lambda *_: answer({"error": "forbidden", "msg": words, "code": 403}, 403))
    found = look(db, simulator, content_flags=9, **LOGIN)
    said(found, "bad", "login", "no …, no …")
    assert not any(value in repr(found) for value in LOGIN.values())


class Bare:
    """A source that has what the contract asks for, and nothing for the doctor."""

    def __init__(self, options: Any) -> None:
        self._source = Pr0gramm(options)

    name, base_url, tables, walks, page_size = "pr0gramm", "http://x.test", Pr0gramm.tables, 1, 120
    Options = Pr0gramm.Options
    scopes = property(lambda self: self._source.scopes)
    cookies = property(lambda self: self._source.cookies)

    def judge(self, *args: Any) -> Any:
        return self._source.judge(*args)

    def universe(self, *args: Any) -> Any:
        return self._source.universe(*args)


def test_a_source_need_not_tell_of_its_login_and_its_time(
    db: Path, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher.doctor, "find", lambda name: Bare)
    simulator = simulate(LOGIN_WORLD)
    found = look(db, simulator, content_flags=9, **LOGIN)
    said(found, "ok", "login", "is listed with it")
    said(found, "note", "clock", "tells no time")
    said(look(db, simulator), "ok", "login", "not given")
    assert simulator.requests == {"list": 2}


# --- the clock --------------------------------------------------------------------------------------


def told_time(ts: float | None, date: float | None = None, **headers: str) -> Answer:
    """A list head whose time is off by `ts` seconds, and its Date by `date`; None = it has none."""
    page = list_page(WORLD)
    if ts is None:
        del page["ts"]
    else:
        page["ts"] = int(time.time() + ts)
    if date is not None:
        headers["Date"] = formatdate(time.time() + date, usegmt=True)
    return answer(page, **headers)


@pytest.mark.parametrize(
    ("ts", "date", "headers", "level", "words"),
    [
        (0, 0, {}, "ok", ("agrees with the answer's Date and the API's own time",)),
        (50, None, {}, "ok", ("agrees with the API's own time",)),
        (-50, None, {}, "ok", ()),
        (90, None, {}, "bad", ("9", "s behind the API's own time", "NTP")),
        (-90, None, {}, "bad", ("s ahead of the API's own time", "be missed")),
        (None, 90, {}, "bad", ("s behind the answer's Date",)),
        (None, -90, {}, "bad", ("s ahead of the answer's Date",)),
        (None, -90, {"Age": "90"}, "ok", ("agrees with the answer's Date",)),
        (-400, 0, {}, "note", ("the API's own time is", "agrees with the answer's Date", "cache")),
        (None, None, {}, "note", ("tells no time",)),
        (None, None, {"Date": "yesterday"}, "note", ("tells no time",)),
    ],
)
def test_the_clocks_are_compared(
    ts: float | None,
    date: float | None,
    headers: dict[str, str],
    level: str,
    words: tuple[str, ...],
    db: Path,
    simulate: Simulate,
) -> None:
    simulator = simulate(WORLD, faults=lambda *_: told_time(ts, date, **headers))
    found = look(db, simulator)
    said(found, level, "clock", *words)
    assert exit_code(found) == (2 if level == "bad" else 0)


def test_an_answer_that_takes_long_is_no_wrong_clock(db: Path, simulate: Simulate) -> None:
    simulator = simulate(WORLD, faults=lambda *_: told_time(-55), latency=0.3)
    said(look(db, simulator), "ok", "clock")


# --- file system and disk ---------------------------------------------------------------------------


def mounted(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    table = Path("mountinfo").absolute()
    table.write_text(f"1 0 8:1 / / rw - {kind} x rw\n", encoding="utf-8")
    monkeypatch.setattr(filesystem, "MOUNTINFO", table)


def test_a_network_file_system_is_bad_unless_it_is_allowed(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch, "nfs4")
    found = look(complete)
    said(found, "bad", "file system", "nfs4", "locks", "ALLOW_NETWORK_FILE_SYSTEM")
    assert exit_code(found) == 6
    found = look(complete, allow_network_file_system=True)
    said(found, "note", "file system", "nfs4", "it is allowed")
    assert exit_code(found) == 0


def test_a_file_system_in_memory_is_noted_and_an_unknown_one_is_not(
    complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, "tmpfs")
    said(look(complete), "note", "file system", "tmpfs", "reboot")
    monkeypatch.setattr(filesystem, "MOUNTINFO", Path("none"))
    said(look(complete), "ok", "file system", "nobody can tell")


Usage = namedtuple("Usage", "total used free")


def test_room_is_held_against_what_is_still_to_be_fetched(
    db: Path, healthy: Simulator, complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = db.with_name("new.db")
    newest = WORLD.ids()[-1]
    said(look(new, healthy), "ok", "disk", f"what is to be fetched takes about {size(newest * BYTES_AN_ITEM)}")
    said(look(new), "ok", "disk", "not known yet")
    assert said(look(complete, healthy), "ok", "disk").message.endswith("nothing is left to fetch")
    said(look(complete), "ok", "disk", "nothing is left to fetch of what was listed")
    monkeypatch.setattr(place.shutil, "disk_usage", lambda _: Usage(0, 0, place.LEAST_FREE + 1000))
    found = look(new, healthy)
    said(found, "bad", "disk", "100.0 MB free", "make room")
    assert exit_code(found) == 6
    said(look(complete, healthy), "ok", "disk", "nothing is left")
    change(complete, "UPDATE sources SET work = 20")
    said(look(complete), "bad", "disk", f"of what was listed takes about {size(20 * BYTES_AN_ITEM)}")


def test_a_folder_that_is_not_there_is_said(db: Path) -> None:
    found = look(db.parent / "none" / "m.db")
    said(found, "bad", "disk", "there is no folder", "mkdir")
    assert exit_code(found) == 6


@pytest.mark.parametrize(
    ("name", "words"),
    [("", ("read-only",)), ("mirror.db", ("mirror.db cannot be written",)), ("mirror.db-wal", ("chown", "-wal"))],
)
def test_what_may_not_be_written_is_said(
    name: str, words: tuple[str, ...], complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete.with_name("mirror.db-wal").touch()
    forbidden, access = complete.parent / name, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != forbidden and access(path, mode))
    found = look(complete)
    said(found, "bad", "disk", *words)
    assert exit_code(found) == 6


def test_the_folder_for_temporary_files_is_looked_at(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path / "small"))
    usage = shutil.disk_usage
    monkeypatch.setattr(
        place.shutil, "disk_usage", lambda path: Usage(0, 0, 5) if "small" in str(path) else usage(path)
    )
    said(look(complete), "note", "disk", "only 5 bytes free", "SQLITE_TMPDIR")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == complete.parent and access(path, mode))
    assert any("no folder for temporary files" in each.message for each in look(complete))


# --- the database -----------------------------------------------------------------------------------


def test_a_database_that_is_not_there_yet_is_noted(db: Path) -> None:
    found = look(db)
    said(found, "note", "database", "there is no", "mirror.db", "`fetcher fetch` makes it")
    assert exit_code(found) == 0
    assert not db.exists()


def test_one_that_was_killed_at_its_start_is_noted(complete: Path) -> None:
    change(complete, "DELETE FROM sources")
    said(look(complete), "note", "database", "is still empty")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b"a diary\n" * 600), ("no SQLite database", "name another file")),
        (lambda path: change(path, "CREATE TABLE mine (a)"), ("no database of fetcher's", "name another file")),
        (lambda path: path.mkdir(), ("is a folder", "name a file in it")),
    ],
)
def test_what_is_no_database_of_ours_is_said(spoil: Callable[[Path], Any], words: tuple[str, ...], db: Path) -> None:
    spoil(db)
    found = look(db)
    said(found, "bad", "database", *words)
    assert exit_code(found) == 6


def test_a_damaged_file_is_said(complete: Path) -> None:
    root = one(complete, "SELECT rootpage FROM sqlite_master WHERE name = 'comments'")
    with complete.open("r+b") as file:
        file.seek((root - 1) * 4096 + 8)
        file.write(b"\xff" * 200)
    found = look(complete)
    said(found, "bad", "database", "damaged", ".recover")
    assert exit_code(found) == 6


@pytest.mark.parametrize(("lines", "more"), [(("a page",), ""), (("a page", "b", "c"), " (and 2 things more)")])
def test_what_the_check_complains_of_is_said_once(
    lines: tuple[str, ...], more: str, complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_check", lambda *_: (lines, True))
    found = said(look(complete), "bad", "database", "damaged")
    assert found.message == f"{complete} is damaged: a page{more}"


def test_a_check_that_takes_too_long_is_broken_off(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert health.examine(complete, Pr0gramm.tables, seconds=0).checked is False
    assert health.examine(complete, Pr0gramm.tables).checked is True
    monkeypatch.setattr(fetcher.doctor, "examine", lambda *args: health.examine(*args, seconds=0))
    said(look(complete), "note", "database", "broken off", "`fetcher verify`")


def test_a_schema_of_another_release_is_said(complete: Path) -> None:
    change(complete, "INSERT INTO _sqlite_migrations VALUES (99, 'fetcher', 'm999_wonders', '')")
    found = look(complete)
    said(found, "bad", "database", "newer fetcher", "m999_wonders", "update fetcher")
    assert exit_code(found) == 6
    change(complete, "DELETE FROM _sqlite_migrations WHERE id = 99 OR name = 'm002_scopes'")
    change(complete, "ALTER TABLE sources DROP COLUMN scopes")
    found = look(complete)
    said(found, "note", "database", "older fetcher", "m002_scopes", "`fetcher fetch` brings it up to date")
    assert exit_code(found) == 0


def test_a_column_that_the_source_has_learned_since_is_noted(complete: Path) -> None:
    change(
        complete,
        *(f"DROP VIEW {each}" for each in ("recent", "items_with_tags", "top_tags")),
        "ALTER TABLE tags DROP COLUMN confidence",
    )
    said(look(complete), "note", "database", "tags.confidence", "`fetcher fetch`")


def test_a_missing_index_comes_with_what_makes_it(complete: Path) -> None:
    change(complete, "DROP INDEX work_due")
    found = said(look(complete), "note", "database", "lacks an index", "CREATE INDEX work_due")
    assert found.remedy is not None
    change(complete, found.remedy.partition(": ")[2])
    assert [each for each in look(complete) if each.level != "ok"] == []


def test_a_search_is_told_of(complete: Path) -> None:
    said(look(complete), "ok", "database", "search: search")
    change(complete, "CREATE VIRTUAL TABLE words USING fts5 (tag)")
    said(look(complete), "ok", "database", "search: search, words")


def test_a_log_that_is_not_taken_over_is_noted(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST_WAL", 1000)
    with closing(sqlite3.connect(complete, isolation_level=None)) as other:
        other.execute("UPDATE sources SET sweep_started_at = 1")
        said(look(complete), "note", "database", "write-ahead log has", "transaction open")
    assert not any("write-ahead" in each.message for each in look(complete) if each.what == "database")


NOW = "strftime('%s', 'now')"


@pytest.mark.parametrize(
    ("values", "level", "words"),
    [
        (f"pid = OURS, ended = NULL, updated_at = {NOW}", "ok", ("a run goes on (pid", "60 items")),
        (f"pid = OURS, ended = NULL, updated_at = {NOW} - 600", "note", ("said nothing for 10 min", "lives")),
        (f"pid = 9999999, ended = NULL, updated_at = {NOW}", "note", ("died (pid 9999999)", "`fetcher fetch` goes on")),
        ("ended = 'died'", "note", ("died",)),
        ("ended = 'failed', message = 'the disk is full'", "note", ("failed: the disk is full", "mend that")),
        ("ended = 'interrupted'", "ok", ("ended: interrupted",)),
    ],
)
def test_how_the_last_run_went_is_said(values: str, level: str, words: tuple[str, ...], complete: Path) -> None:
    change(complete, f"UPDATE runs SET {values.replace('OURS', str(os.getpid()))}")
    found = look(complete)
    said(found, level, "database", *words)
    assert exit_code(found) == 0


def test_failures_holes_and_work_that_is_left_are_noted(complete: Path) -> None:
    change(
        complete,
        "UPDATE coverage SET hi = 20",
        "UPDATE sources SET work = 7, parked = 2",
        "INSERT INTO work (source, stage, key, outcome) VALUES ('pr0gramm', 'detail', 1, 'malformed'),"
        " ('pr0gramm', 'detail', 2, 'denied')",
    )
    found = look(complete)
    said(
        found, "note", "database", "2 failed for good (1 denied, 1 malformed)", "`fetcher failures`", "`fetcher retry`"
    )
    holes = said(found, "note", "database", f"1 range not listed: scope 1: 21 to {WORLD.ids()[-1]:,}")
    assert "…" not in holes.message
    said(found, "note", "database", "7 left to fetch", "`fetcher fetch` goes on")
    assert exit_code(found) == 0
    change(
        complete,
        "UPDATE coverage SET hi = 10",
        *(f"INSERT INTO coverage VALUES ('pr0gramm', 1, 1, {at}, {at}, 0, 0)" for at in (20, 30, 40)),
    )
    said(look(complete), "note", "database", "4 ranges not listed: ", " …")
    change(complete, "DELETE FROM coverage", "DELETE FROM work", "UPDATE sources SET work = 0, parked = 0")
    said(look(complete), "note", "database", "nothing was listed yet")
    change(complete, "DELETE FROM runs")
    said(look(complete), "note", "database", "no run has begun yet")


def test_a_first_run_that_goes_on_is_all_there_is_to_say_of_runs(complete: Path) -> None:
    change(complete, f"UPDATE runs SET pid = {os.getpid()}, ended = NULL, updated_at = {NOW}")
    assert not any("no run has begun" in each.message or "last run" in each.message for each in look(complete))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "nothing was learned yet"),
        ("", "nothing was learned yet"),
        ("not JSON", "nothing was learned yet"),
        ("[1, 2]", "nothing was learned yet"),
        ('{"rate": "fast", "gate": null, "when": 1700000000}', "nothing was learned yet"),
        ('{"rate": 12.5}', "the host takes 12.5 requests a second"),
        ('{"rate": 12.5, "gate": 8, "when": 1700000000.5}', "12.5 requests a second, 8 at once, as of 2023-11-1"),
        ('{"gate": 3, "at": 1e300, "more": {}}', "the host takes 3 at once"),
    ],
)
def test_what_was_learned_is_said_in_words(text: str | None, words: str, complete: Path) -> None:
    with closing(sqlite3.connect(complete)) as conn, conn:
        conn.execute("UPDATE sources SET learned = ?", [text])
    said(look(complete), "ok", "learned", words)


# --- whatever happens -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "what"),
    [
        (Pr0gramm, "universe", "network"),
        (Pr0gramm, "__init__", "settings"),
        (place, "examine_room", "disk"),
        (fetcher.doctor, "examine", "database"),
        (place, "examine_file_system", "file system"),
    ],
)
def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    owner: Any, name: str, what: str, complete: Path, healthy: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(owner, name, broken)
    found = look(complete, healthy)
    said(found, "bad", what, "RuntimeError: two lines")
    assert {"settings", "network", "file system", "disk", "database"} <= {each.what for each in found}


def test_an_error_of_the_store_is_split_into_what_and_what_to_do(db: Path) -> None:
    assert database.unusable(db, StoreError(f"{db}: odd words")).message == f"{db}: odd words"
    split = database.unusable(db, StoreError(f"{db}: it is read-only: change its permissions"))
    assert (split.message, split.remedy) == (f"{db}: it is read-only", "change its permissions")


def test_the_exit_code_is_that_of_the_worst() -> None:
    order = ["settings", "database", "login", "network", "clock"]
    found = [Finding(what, "bad", "x", "y") for what in order]
    assert [exit_code(found[at:]) for at in range(6)] == [2, 6, 4, 5, 2, 0]
    assert [exit_code([Finding(what, "bad", "x", "y")]) for what in ("disk", "file system", "learned")] == [6, 6, 1]
    assert exit_code([Finding("settings", "note", "x", "y"), Finding("disk", "ok", "x")]) == 0


# --- the command ------------------------------------------------------------------------------------


def test_the_command_marks_each_line_and_indents_what_to_do(complete: Path, healthy: Simulator) -> None:
    done = run_fetcher("doctor", str(complete), "--base-url", healthy.url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok    network      http://127.0.0.1") for line in lines)
    at = next(number for number, line in enumerate(lines) if line.startswith("note  settings     USER_AGENT"))
    assert lines[at + 1].startswith(" " * 19 + "→ name a way to reach you")
    assert "\x1b" not in done.stdout


def test_the_command_gives_json_and_the_exit_code(db: Path, complete: Path, simulate: Simulate) -> None:
    simulator = simulate(LOGIN_WORLD)
    done = run_fetcher("doctor", str(complete), "--base-url", simulator.url, "--flags", "9", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["exit_code"]) == (4, "", 4)
    assert {"what", "level", "message", "remedy"} == set(told["findings"][0])
    assert [each["what"] for each in told["findings"] if each["level"] == "bad"] == ["login"]


def test_the_command_shows_colours_on_a_terminal_and_nothing_that_a_terminal_would_obey(
    db: Path, simulate: Simulate
) -> None:
    Path(".env").write_text("=\n", encoding="utf-8")
    path = db.with_name("bell\a.db")
    shown = CliRunner().invoke(cli, ["doctor", str(path), "--offline"], color=True, standalone_mode=False)
    assert shown.return_value == 0
    assert "\x1b[32mok" in shown.stdout
    assert "\x1b[33mnote" in shown.stdout
    assert "\a" not in shown.stdout
    assert r"bell\x07.db" in shown.stdout


def test_a_wrong_option_is_a_finding_too(complete: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["doctor", str(complete), "--workers", "none", "--offline"])
    assert left.value.code == 2
    out, errors = capsys.readouterr()
    assert "bad   settings     MAX_PARALLEL_REQUESTS (--workers)" in out
    assert errors == ""
