"""Who may ask the service, and what no request can do: keys, other sites' pages, bodies without end, odd addresses."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import fastapi.routing
import pytest
from pydantic import SecretStr

from fetcher.errors import ConfigurationError, StoreError
from fetcher.service import app, guard, keys, server
from fetcher.service.keys import Keys, hashed, new_key
from fetcher.service.server import serve
from fetcher.simulator import Simulator
from fetcher.stores import file
from tests.helpers import eventually
from tests.service import Reply, Serving, serving

KEY = "correct-horse-battery-staple"
OTHER = "another-key-of-somebody-else"
COOKIE = "a-login-cookie-nobody-may-see"

PATHS = [
    ("POST", "/ingest"),
    ("GET", "/ingest"),
    ("GET", "/status/0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10"),
    ("GET", "/status/0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10/events"),
    ("DELETE", "/ingest/0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10"),
    ("POST", "/ingest/0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10/retry"),
    ("GET", "/items/1"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
    ("OPTIONS", "/ingest"),
    ("HEAD", "/ingest"),
]


@pytest.fixture(scope="module")
def locked(shared_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service with two keys, one of them known by its hash."""
    db = tmp_path_factory.mktemp("locked") / "mirror.db"
    with serving(shared_simulator, db, api_keys=f"{KEY}, {hashed(OTHER)}") as at:
        yield at


@pytest.fixture(scope="module")
def at(shared_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service without keys, in which all that is submitted waits."""
    db = tmp_path_factory.mktemp("open") / "mirror.db"
    with serving(shared_simulator, db, ingest_batch_interval=10_000) as found:
        found.completed(found.submit(1))
        yield found


def basic(name: str, password: str) -> str:
    """The header that a browser makes of what it has asked for."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def sent(at: Serving, *parts: bytes) -> Reply:
    """What is answered to bytes that no client would send."""
    with at.connect() as connection:
        for part in parts:
            connection.sendall(part)
        return received(connection)


def received(connection: socket.socket, method: str = "GET") -> Reply:
    """The next answer."""
    found = HTTPResponse(connection, method=method)
    found.begin()
    return Reply(found.status, found.headers, found.read())


# --- keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer   {KEY}"},
        {"Authorization": f"Bearer {OTHER}"},
        {"X-API-Key": KEY},
        {"x-api-key": OTHER},
        {"Authorization": basic("anybody", KEY)},
        {"Authorization": basic("", OTHER)},
        {"Authorization": "Bearer wrong-key-that-is-long", "X-API-Key": KEY},
    ],
)
def test_a_key_gives_access(locked: Serving, headers: dict[str, str]) -> None:
    assert locked.ask("GET", "/ingest", headers=headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": KEY},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": f"Bearer {hashed(OTHER)}"},
        {"Authorization": f"Bearer {hashed(KEY)}"},
        {"Authorization": "Bearer \xe9\xff"},
        {"X-API-Key": ""},
        {"X-API-Key": hashed(OTHER)},
        {"Authorization": basic(KEY, "")},
        {"Authorization": basic("anybody", "wrong")},
        {"Authorization": "Basic not-base64"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"Authorization": "Basic " + base64.b64encode(KEY.encode()).decode()},
        {"Cookie": f"key={KEY}"},
    ],
)
def test_without_a_key_nothing_is_given(locked: Serving, headers: dict[str, str]) -> None:
    reply = locked.ask("GET", "/ingest", headers=headers)
    assert reply.status == 401
    challenges = ", ".join(reply.headers.get_all("WWW-Authenticate", []))
    assert "Bearer" in challenges
    assert "Basic" in challenges
    assert set(reply.json) == {"detail"}


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_all_but_the_health_needs_a_key(locked: Serving, method: str, path: str) -> None:
    assert locked.ask(method, path).status == 401
    assert locked.ask(method, path, headers={"X-API-Key": KEY}).status != 401
    assert locked.ask(method, f"{path}?key={KEY}").status == 401, "no key in an address"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_health_can_be_asked_for_without_a_key(locked: Serving, path: str) -> None:
    assert locked.get(path).status == 200
    assert locked.get(path).json["status"] == "ok"


def test_a_key_that_is_no_ascii_is_a_key(shared_simulator: Simulator, db: Path) -> None:
    key = "schlüssel-für-größere-tore"
    with serving(shared_simulator, db, api_keys=key) as at:
        assert at.get("/ingest", X_API_Key=key.encode().decode("latin-1")).status == 200
        assert at.get("/ingest", Authorization=basic("", key)).status == 200


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a refusal takes tells neither how much of a key was right, nor which one."""
    compared: list[tuple[Any, Any]] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    class Watched:
        compare_digest = staticmethod(compare)

    known = Keys([SecretStr(KEY), SecretStr(hashed(OTHER)), SecretStr("a-third-key-of-length")])
    monkeypatch.setattr(keys, "hmac", Watched)
    for key, is_known in ((KEY, True), (OTHER, True), ("wrong", False)):
        compared.clear()
        assert known.admit({"x-api-key": key}) is is_known
        assert [one for one, _ in compared] == [hashed(key)] * 3, "hashes of one length, and all of them"


def test_a_new_key_is_known_by_its_hash() -> None:
    key, hash_ = new_key()
    assert Keys([SecretStr(hash_)]).admit({"authorization": f"Bearer {key}"})
    assert key not in hash_
    assert len(key) >= 40


@pytest.mark.parametrize("bad", ["short", "sha256:123", "sha256:" + "Z" * 64, "123456789012345"])
def test_a_key_that_could_be_guessed_is_an_error_that_does_not_name_it(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="API_KEYS") as error:
        Keys([SecretStr(KEY), SecretStr(bad)])
    assert bad not in str(error.value)


def test_a_body_is_not_read_before_the_key_is(locked: Serving) -> None:
    head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    assert sent(locked, head + b"Content-Length: 1000000\r\n\r\n").status == 401
    assert sent(locked, head + b"Content-Length: 99\r\nExpect: 100-continue\r\n\r\n").status == 401
    assert sent(locked, head + b"Transfer-Encoding: chunked\r\n\r\n").status == 401


def test_no_secret_is_logged_answered_or_stored(
    shared_simulator: Simulator, db: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = (KEY, OTHER, COOKIE)
    with serving(shared_simulator, db, api_keys=f"{KEY},{OTHER}", pp=COOKIE) as at:
        replies = [at.ask(method, path, headers={"X-API-Key": KEY}) for method, path in PATHS]
        replies += [at.ask(method, path, headers={"X-API-Key": f"{KEY}wrong"}) for method, path in PATHS]
        replies.append(at.ask("POST", "/ingest", b'{"ids": ["x"]}', {"Authorization": f"Bearer {KEY}"}))
        replies.append(sent(at, f"GET /ingest HTTP/9.9\r\nX-API-Key: {KEY}\r\n\r\n".encode()))
        job = at.submit(1, 2, 3, X_API_Key=KEY)
        monkeypatch.setattr(at.service, "job", lambda _: 1 / 0)
        replies.append(at.get(f"/status/{job}/events", X_API_Key=KEY))
        assert replies[-1].status == 500
        shown = f"{at.service.settings!r} {at.service.settings.model_dump()}"
    told = caplog.text + shown + "".join(f"{each.headers} {each.body!r}" for each in replies)
    stored = b"".join(each.read_bytes() for each in db.parent.iterdir())
    assert "ZeroDivisionError" in caplog.text
    for secret in secrets:
        assert secret not in told
        assert secret.encode() not in stored
        assert hashed(secret).encode() not in stored


def test_why_ids_are_not_worked_off_is_told_to_who_has_a_key(locked: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked.service, "totals", _broken)
    assert locked.get("/readyz").json == {"status": "unusable", "reason": None}
    assert "mirror.db" in locked.get("/readyz", X_API_Key=KEY).json["reason"]


def _broken() -> Any:
    raise StoreError("mirror.db: the disk failed")


# --- this machine alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "localhost.example.com", ""])
def test_without_keys_it_listens_at_this_machine_alone(shared_simulator: Simulator, db: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"without API_KEYS only this machine may ask.*--new-key"):
        serve(db=db, api_base_url=shared_simulator.url, service_host=host, service_port=0)
    assert not db.exists()


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "LOCALHOST.", "127.0.0.1", "127.9.9.9:1", "[::1]:8000"])
def test_this_machine_may_ask_by_its_own_names(at: Serving, host: str) -> None:
    assert at.get("/ingest", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["example.com", "127.0.0.1.example.com", "localhost.example.com", "192.0.2.1", "[::2]", "0.0.0.0", "", "a b"],
)
@pytest.mark.parametrize("path", ["/ingest", "/healthz", "/metrics"])
def test_a_name_that_only_points_here_is_refused(at: Serving, host: str, path: str) -> None:
    """A page whose own name is made to point to this machine (DNS rebinding) learns nothing."""
    reply = at.get(path, Host=host)
    assert reply.status == 403
    assert "API_KEYS" in reply.json["detail"]


def test_with_keys_any_name_will_do(locked: Serving) -> None:
    assert locked.get("/ingest", Host="mirror.example.com", X_API_Key=KEY).status == 200


@pytest.mark.parametrize(
    "lines", [b"", b"Host: localhost\r\nHost: example.com\r\n", b"Host: example.com\r\nHost: localhost\r\n"]
)
def test_a_request_names_one_host(at: Serving, lines: bytes) -> None:
    assert sent(at, b"GET /ingest HTTP/1.1\r\n" + lines + b"\r\n").status == 400
    assert sent(at, b"GET /ingest HTTP/1.0\r\n" + lines + b"\r\n").status in (400, 403)


# --- pages of other sites ---------------------------------------------------------------------------

CHANGES = [each for each in PATHS if each[0] in ("POST", "DELETE")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:1"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost.evil.example"},
    ],
)
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_page_of_another_site_changes_nothing(
    at: Serving, locked: Serving, method: str, path: str, headers: dict[str, str]
) -> None:
    for service, more in ((at, {}), (locked, {"Authorization": basic("kept by the browser", KEY)})):
        body = json.dumps({"ids": [1]}).encode() if path == "/ingest" else None
        reply = service.ask(method, path, body, {"Host": "localhost", **headers, **more})
        assert reply.status == 403
        assert "other sites" in reply.json["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost:8000", "Host": "localhost:8000"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://mirror.example"},
    ],
)
def test_a_page_of_our_own_may_change_things(at: Serving, headers: dict[str, str]) -> None:
    assert at.ask("POST", "/ingest", headers=headers, ids=[1]).status == 202


def test_a_link_from_elsewhere_may_look(at: Serving) -> None:
    assert at.get("/ingest", Sec_Fetch_Site="cross-site").status == 200


def test_answers_forbid_what_pages_could_do_with_them(at: Serving) -> None:
    for path in ("/ingest", "/nothing", "/status/x", "/items/x"):
        headers = at.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers


# --- bodies -----------------------------------------------------------------------------------------

HEAD = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_the_largest_submission_fits(at: Serving) -> None:
    ids = ",".join(str(10**9 - number) for number in range(100_000))
    assert at.ask("POST", "/ingest", f'{{"ids": [{ids}]}}'.encode()).status == 202


def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not(at: Serving) -> None:
    body = b'{"ids": [1]}'
    assert at.ask("POST", "/ingest", body.ljust(guard.MOST_BYTES)).status == 202
    assert sent(at, HEAD + b"Content-Length: %d\r\n\r\n" % (guard.MOST_BYTES + 1)).status == 413


def test_a_body_is_counted_where_its_length_is_not_told(at: Serving) -> None:
    chunk = b"%x\r\n%s\r\n" % (1_000_000, b" " * 1_000_000)
    reply = sent(at, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk, b"1\r\n \r\n")
    assert reply.status == 413
    assert "2,000,000" in reply.json["detail"]
    assert reply.headers["Connection"] == "close"


def test_a_body_in_small_pieces_is_read(at: Serving) -> None:
    pieces = [b"1\r\n%c\r\n" % each for each in b'{"ids": [1]}']
    assert sent(at, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *pieces, b"0\r\n\r\n").status == 202


@pytest.mark.parametrize("start", [b"", b'{"ids"'])
def test_a_body_that_does_not_come_is_not_waited_for(
    at: Serving, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.1)
    reply = sent(at, HEAD + b"Content-Length: 12\r\n\r\n" + start)
    assert reply.status == 408
    assert reply.headers["Connection"] == "close"


def test_a_body_that_comes_slowly_is_read(at: Serving) -> None:
    with at.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 12\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        for each in b'{"ids": [1]}':
            connection.sendall(bytes([each]))
        assert received(connection).status == 202


def test_a_client_that_leaves_amid_its_body_stores_nothing(at: Serving, caplog: pytest.LogCaptureFixture) -> None:
    before = at.get("/ingest?limit=1").json
    with at.connect() as connection:
        connection.sendall(HEAD + b'Content-Length: 99\r\n\r\n{"ids": [1]}')
    assert at.get("/ingest?limit=1").json == before
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e3\r\n",
        b"Content-Length: %s\r\n" % (b"9" * 5000),
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: gzip\r\n",
        b"no header\r\n",
        b"X-Null: \x00\r\n",
    ],
)
def test_headers_that_cannot_be_are_refused(at: Serving, lines: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert sent(at, HEAD + lines + b"\r\n").status in (400, 413, 431)
    assert at.get("/healthz").status == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "lines",
    [
        b"X-Large: %s\r\n" % (b"x" * 200_000),
        b"%s: x\r\n" % (b"x" * 200_000),
        b"".join(b"X-%d: %s\r\n" % (number, b"x" * 90) for number in range(2000)),
    ],
    ids=["a long value", "a long name", "many"],
)
def test_headers_without_end_are_not_read(at: Serving, lines: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with suppress(ConnectionError):  # It does not wait for the rest.
        assert sent(at, HEAD + lines + b"\r\n").status == 400
    assert at.get("/healthz").status == 200
    assert "Traceback" not in caplog.text


def test_who_follows_with_a_body_that_does_not_come_is_not_cut_off(
    at: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(app, "EVENT_SECONDS", 0.01)
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.05)
    job = at.submit(1)
    with at.connect() as connection:
        connection.sendall(
            f"GET /status/{job}/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n".encode()
        )
        stream = connection.makefile("rb")
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        for _ in range(3):  # So long it has gone on.
            assert next(line for line in stream if line.startswith(b":"))
        at.ask("DELETE", f"/ingest/{job}")
        assert any(b"event: completed" in line for line in stream)
    assert "Traceback" not in caplog.text


def test_more_connections_than_can_be_answered_are_told_so(
    shared_simulator: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    with serving(shared_simulator, db) as few:
        waiting = [few.connect() for _ in range(3)]
        eventually(lambda: few.get("/healthz").status == 503)
        reply = few.get("/healthz")
        assert (reply.status, reply.headers.get_content_type()) == (503, "text/plain")
        for each in waiting:
            each.close()
        eventually(lambda: few.get("/healthz").status == 200)


# --- methods and addresses --------------------------------------------------------------------------


ALLOWED = {
    "/ingest": {"GET", "HEAD", "POST"},
    "/ingest/0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10": {"DELETE"},
    "/ingest/0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10/retry": {"POST"},
    "/status/0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10": {"GET", "HEAD"},
    "/items/1": {"GET", "HEAD"},
    "/healthz": {"GET", "HEAD"},
    "/metrics": {"GET", "HEAD"},
}
METHODS = ("PUT", "PATCH", "OPTIONS", "TRACE", "MADEUP", "DELETE", "POST", "GET")


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for path, allowed in ALLOWED.items() for method in METHODS if method not in allowed],
)
def test_another_method_is_405_and_says_which_there_are(at: Serving, method: str, path: str) -> None:
    reply = at.ask(method, path)
    assert reply.status == 405
    assert set(reply.headers["Allow"].split(", ")) == ALLOWED[path]
    assert reply.json == {"detail": "Method Not Allowed"}


def test_head_is_answered_as_get_is_without_the_body(shared_simulator: Simulator, db: Path) -> None:
    with serving(shared_simulator, db) as at:
        job = at.submit(1)
        at.completed(job)
        status = f"/status/{job}"
        for path in ("/ingest", status, f"{status}/events", "/items/1", "/healthz", "/readyz", "/openapi.json"):
            head, get = at.ask("HEAD", path), at.get(path)
            assert (head.status, head.body) == (get.status, b"")
            for name in ("Content-Type", "Content-Length"):
                assert head.headers[name] == get.headers[name]


def test_head_does_not_follow_a_job(shared_simulator: Simulator, db: Path) -> None:
    with serving(shared_simulator, db, ingest_batch_interval=10_000) as at:
        at.completed(at.submit(1))
        job = at.submit(1)
        with at.connect() as connection:
            for _ in range(2):  # The connection can be used again: the answer has ended.
                connection.sendall(f"HEAD /status/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert received(connection, "HEAD").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/ingest/",
        "//ingest",
        "/healthz/",
        "/./ingest",
        "/healthz/../ingest",
        "/healthz/%2e%2e/ingest",
        "/healthz%2f..%2fingest",
        "/ingest%00",
        "/ingest%0d%0aX:1",
        "/INGEST",
        "/ingest;x=1",
        "/%ff",
        "/%F0%9F%98%80",
        "/..%2f..%2fetc%2fpasswd",
        "/" + "a" * 10_000,
        "/docs",
        "/redoc",
    ],
)
def test_an_address_that_is_none_is_404_and_none_goes_past_the_keys(at: Serving, locked: Serving, path: str) -> None:
    assert at.get(path).status == 404
    assert "Location" not in at.get(path).headers
    assert locked.get(path).status == 401
    assert locked.get(path, X_API_Key=KEY).status == 404


@pytest.mark.parametrize(
    "target",
    [b"/ingest?healthz", b"/%69ngest", b"http://localhost/ingest", b"http://localhost/healthz/../ingest", b"*"],
)
def test_however_an_address_is_written_it_needs_a_key(locked: Serving, target: bytes) -> None:
    assert sent(locked, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n").status in (400, 401)


@pytest.mark.parametrize(
    "line", [b"", b"GET\r\n\r\n", b"GET /ingest\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"x" * 70_000]
)
def test_what_is_no_http_is_no_harm(at: Serving, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with at.connect() as connection:
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert re.match(rb"HTTP/1\.1 4\d\d |\Z", answer)
    assert at.get("/healthz").status == 200
    assert "Traceback" not in caplog.text


def test_an_upgrade_is_not_made(at: Serving) -> None:
    lines = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    assert sent(at, b"GET /ingest HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n").status == 200


# --- a database that cannot be used -----------------------------------------------------------------


def test_a_database_that_is_kept_locked_is_503_and_nothing_is_stored(
    shared_simulator: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(shared_simulator, db) as at:
        at.completed(at.submit(1))
        monkeypatch.setattr(file, "BUSY_SECONDS", 0.1)
        with closing(sqlite3.connect(db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            reply = at.ask("POST", "/ingest", ids=[1])
            other.execute("ROLLBACK")
        assert reply.status == 503
        assert reply.headers["Retry-After"] == "5"
        assert "locked" in reply.json["detail"]
        assert len(at.get("/ingest").json["ingestions"]) == 1
        assert at.ask("POST", "/ingest", ids=[1]).status == 202


@pytest.mark.parametrize(("method", "path"), PATHS[1:8])
def test_a_database_that_cannot_be_read_is_503(
    at: Serving, monkeypatch: pytest.MonkeyPatch, method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("job", "jobs", "batches", "cancel", "retry", "item", "totals"):
        monkeypatch.setattr(at.service, name, lambda *_, **__: _broken())
    reply = at.ask(method, path)
    assert (reply.status, reply.json) == (503, {"detail": "mirror.db: the disk failed"})
    assert "Traceback" not in caplog.text
