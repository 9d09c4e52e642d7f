"""The lean transport: what it promises, against servers that keep none of their promises."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ConnectTimeout,
    ContentDecodingError,
    InvalidHeader,
    InvalidURL,
    ReadTimeout,
    RequestException,
    SSLError,
)
from urllib3.exceptions import InsecureRequestWarning

from fetcher.transport import Aborted, BodyTooLarge, LeanAdapter, StaleConnection, adapter, http1
from fetcher.transport.connection import Connection
from tests.hostile_server import TLS, HostileServer, Visit

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CA = str(TLS / "ca.pem")


def prepared(url: str, **headers: str) -> requests.PreparedRequest:
    return requests.Request("GET", url, headers={name.replace("_", "-"): v for name, v in headers.items()}).prepare()


@pytest.fixture
def lean() -> Iterator[LeanAdapter]:
    adapter = LeanAdapter(max_body=1_000_000)
    yield adapter
    assert not adapter._active
    adapter.close()


@pytest.fixture
def no_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent must go the lean way."""

    def refuse(*args: Any) -> None:
        raise AssertionError("went to requests' own adapter")

    monkeypatch.setattr(LeanAdapter, "_send_stock", refuse)


def get(lean: LeanAdapter, answer: Any, path: str = "/", *, end: bool = False, **kwargs: Any) -> requests.Response:
    """One GET from a server that sends this answer, and closes after it if told so."""

    def reply(visit: Visit) -> bool:
        visit.send(answer)
        return not end

    with HostileServer(reply if isinstance(answer, bytes) else answer) as server:
        try:
            return lean.send(prepared(server.url + path), timeout=kwargs.pop("timeout", 5), **kwargs)
        finally:
            lean.close()


# -- the request ------------------------------------------------------------------------------------------------


def test_the_request_is_exactly_the_headers_given_and_host(lean: LeanAdapter, no_stock: None) -> None:
    with HostileServer(OK) as server:
        request = prepared(f"{server.url}/a/b?c=d%20e&f", X_One="1", User_Agent="me")
        response = lean.send(request, timeout=5)
        assert (
            server.visits[0].head
            == (
                f"GET /a/b?c=d%20e&f HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX-One: 1\r\nUser-Agent: me\r\n\r\n"
            ).encode()
        )
        assert (response.status_code, response.reason, response.content, response.text) == (200, "OK", b"ok", "ok")
        assert response.url == request.url
        assert response.request is request
        assert response.connection is lean
        assert response.elapsed.total_seconds() > 0
        assert response.history == []
        assert not response.cookies
        lean.close()


def test_changed_headers_are_sent_changed_from_the_same_object(lean: LeanAdapter, no_stock: None) -> None:
    with HostileServer(OK) as server:
        request = prepared(server.url, X="1")
        for change in (lambda: None, lambda: request.headers.update(x="2"), lambda: request.headers.pop("X")):
            change()
            lean.send(request, timeout=5)
        sent = [[line for line in visit.lines if line.lower().startswith("x:")] for visit in server.visits]
        assert sent == [["X: 1"], ["x: 2"], []]
        lean.close()


def test_a_host_header_of_the_callers_own_is_kept(lean: LeanAdapter, no_stock: None) -> None:
    with HostileServer(OK) as server:
        lean.send(prepared(server.url, Host="elsewhere.example"), timeout=5)
        assert server.visits[0].lines == ["Host: elsewhere.example"]
        lean.close()


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\0b", b"a\r\nX: y", 5, None, "\u20ac"])
def test_header_injection_is_refused(lean: LeanAdapter, value: Any) -> None:
    request = prepared("http://127.0.0.1:9/")
    request.headers["X-Bad"] = value
    with pytest.raises(InvalidHeader, match=r"^127\.0\.0\.1:9: "):
        lean.send(request, timeout=5)
    request.headers = requests.structures.CaseInsensitiveDict({"X-Bad\r\nX: y": "a"})
    with pytest.raises(InvalidHeader):
        lean.send(request, timeout=5)


@pytest.mark.parametrize("path", ["/a\r\nX: y", "/a\nb", "/a\rb#c", "/\0", "/a\tb", "/\x7f"])
def test_a_url_with_control_characters_is_refused(lean: LeanAdapter, path: str) -> None:
    request = prepared("http://127.0.0.1:9/")
    request.url = f"http://127.0.0.1:9{path}"
    with pytest.raises(InvalidURL):
        lean.send(request, timeout=5)


@given(
    st.sampled_from(["", "/", "/a", "//b", "/a;b", "/%20", "/http://c/"]),
    st.sampled_from(["", "?", "?a", "?a=b?c", "?/"]),
    st.sampled_from(["", "#", "#d", "#/?"]),
)
def test_the_target_is_what_requests_makes_of_the_url(path: str, query: str, fragment: str) -> None:
    request = requests.PreparedRequest()
    request.method, request.url, request.headers = (
        "GET",
        f"http://h:1{path}{query}{fragment}",
        prepared("http://h").headers,
    )
    seen = []

    class Look(LeanAdapter):
        def _send_lean(self, request: Any, route: Any, head: bytes, timeout: Any) -> Any:
            seen.append((route.name, head.split(b" ")[1].decode()))

        def _send_stock(self, request: Any, *args: Any) -> Any:
            seen.append(("h:1", request.path_url))  # Unusual, and left to the one who knows.

    Look().send(request)
    assert seen == [("h:1", request.path_url)]


def test_ipv6_addresses_work(lean: LeanAdapter, no_stock: None) -> None:
    try:
        server = HostileServer(OK, family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        assert lean.send(prepared(server.url), timeout=5).content == b"ok"
        assert server.visits[0].lines[0] == f"Host: [::1]:{server.port}"
        lean.close()


def test_all_addresses_of_a_name_are_tried(lean: LeanAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer(OK) as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        ports = (nobody.getsockname()[1], server.port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        assert lean.send(prepared("http://two.example/"), timeout=5).content == b"ok"
        lean.close()


# -- good answers -----------------------------------------------------------------------------------------------

H = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (H + b"Content-Length: 0\r\n\r\n", b""),
        (H + b"Content-Length:5\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (H + b"Content-Length: 5, 5\r\n\r\nhello", b"hello"),
        (H + b'Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n003;a=b;c="d"\r\nllo\r\n0\r\n\r\n', b"hello"),
        (H + b"Transfer-Encoding: Chunked\r\n\r\n5 \r\nhello\r\n0\r\nX: y\r\nZ: 1\r\n\r\n", b"hello"),
        (H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", b"ok"),
        (H + b"X-Folded: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_every_framing_is_read_and_ends_by_itself(
    lean: LeanAdapter, no_stock: None, answer: bytes, body: bytes
) -> None:
    response = get(lean, answer)
    assert response.content == body
    assert response.headers.get("x-folded", "a b c") == "a b c"


def test_a_body_may_last_until_the_connection_is_closed(lean: LeanAdapter, no_stock: None) -> None:
    for head in (b"HTTP/1.0 200 OK\r\n\r\n", H + b"\r\n", H + b"Content-Type: a/b\r\n\r\n"):
        assert get(lean, head + b"x" * 200_000, end=True).content == b"x" * 200_000


def test_headers_are_read_as_requests_reads_them(lean: LeanAdapter, no_stock: None) -> None:
    answer = (
        b"HTTP/1.1 418 I'm a teapot\r\nContent-Type: text/html; charset=utf-8\r\nX-A: 1\r\nx-a:2\r\nX-Empty:\r\n"
        b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nX-Latin: \xe9\r\nContent-Length: 3\r\n\r\n\xc3\xa4!"
    )
    with HostileServer(answer) as server:
        ours = lean.send(prepared(server.url), timeout=5)
        with requests.Session() as session:
            theirs = session.get(server.url, timeout=5)
        lean.close()
    for name in ("status_code", "reason", "headers", "content", "text", "encoding", "url", "ok"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.cookies.get_dict() == theirs.cookies.get_dict() == {"a": "1", "b": "2"}
    assert ours.raw.headers.getlist("x-a") == ["1", "2"]
    assert ours.raw.read() == b""
    copy = pickle.loads(pickle.dumps(ours))
    assert (copy.content, copy.headers, copy.status_code) == (ours.content, ours.headers, 418)
    ours.headers, ours.encoding = theirs.headers, "latin-1"
    assert ours.text == "Ã¤!"


def test_an_adapter_survives_pickling_as_those_of_requests_do() -> None:
    copy = pickle.loads(pickle.dumps(LeanAdapter(max_body=5)))
    with pytest.raises(BodyTooLarge):
        get(copy, H + b"Content-Length: 6\r\n\r\n")


# -- compression ------------------------------------------------------------------------------------------------

TEXT = b"What one thread reads, no other may see. " * 50


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(TEXT, mtime=0)),
        (b"X-GZIP", gzip.compress(TEXT, mtime=0)),
        (
            b"gzip",
            gzip.compress(TEXT[:700], mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(TEXT[700:], mtime=0),
        ),
        (b"deflate", zlib.compress(TEXT)),
        (b"deflate", raw_deflate(TEXT)),
        (b"gzip, gzip", gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0)),
        (b"identity", TEXT),
    ],
)
def test_compressed_bodies_are_decoded(lean: LeanAdapter, no_stock: None, encoding: bytes, body: bytes) -> None:
    assert get(lean, lambda visit: visit.reply(body, b"Content-Encoding: " + encoding)).content == TEXT


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(TEXT, mtime=0)[:-1]),
        (b"gzip", gzip.compress(TEXT, mtime=0)[:30]),
        (b"gzip", gzip.compress(TEXT, mtime=0)[:-8] + b"12345678"),
        (b"gzip", gzip.compress(TEXT, mtime=0) + b"garbage"),
        (b"gzip", gzip.compress(TEXT, mtime=0) + gzip.compress(TEXT, mtime=0)[:20]),
        (b"gzip", TEXT),
        (b"deflate", zlib.compress(TEXT)[:-1]),
        (b"deflate", b"\xff" * 20),
        (b"br", TEXT),
        (b"gzip, gzip, gzip, gzip", TEXT),
        (b"gzip", gzip.compress(b"", mtime=0) * (http1.MAX_GZIP_MEMBERS + 1)),
    ],
)
def test_damaged_or_unasked_compression_is_an_error(lean: LeanAdapter, encoding: bytes, body: bytes) -> None:
    with pytest.raises(ContentDecodingError, match=r"^127\.0\.0\.1:\d+: [^\n]+$"):
        get(lean, lambda visit: visit.reply(body, b"Content-Encoding: " + encoding))


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_a_zip_bomb_stops_early(lean: LeanAdapter, encoding: bytes, stock: bool) -> None:
    zeros = bytes(20_000_000)
    bomb = gzip.compress(zeros, 1) if encoding == b"gzip" else zlib.compress(zeros, 1)
    with HostileServer(lambda visit: visit.reply(bomb, b"Content-Encoding: " + encoding)) as server:
        request = prepared(server.url, **({"Accept-Encoding": "gzip, br"} if stock else {}))
        with pytest.raises(BodyTooLarge, match="larger than 1000000 bytes"):
            lean.send(request, timeout=5)
        lean.close()


def test_a_bomb_is_never_unpacked_to_its_full_size() -> None:
    bomb = gzip.compress(bytes(20_000_000), 1)
    tracemalloc.start()
    try:
        with pytest.raises(http1.TooLarge):
            http1.decode(bomb, ("gzip",), 100_000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_bomb_of_many_members_stops_too(lean: LeanAdapter) -> None:
    member = gzip.compress(bytes(100_000))
    with pytest.raises(BodyTooLarge):
        get(lean, lambda visit: visit.reply(member * 20, b"Content-Encoding: gzip"))


def test_encodings_only_the_stock_adapter_may_know_are_left_to_it(
    lean: LeanAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(LeanAdapter, "_send_stock", lambda self, request, *args: seen.append(request.url))
    lean.send(prepared("http://h/1", Accept_Encoding="gzip, br;q=0.5"))
    lean.send(prepared("http://h/2", Expect="100-continue"))
    assert seen == ["http://h/1", "http://h/2"]


# -- bad answers ------------------------------------------------------------------------------------------------

C = H + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTT",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        H + b"Content-Length: 10\r\n\r\n",
        H + b"Content-Length: 10\r\n\r\nshort",
        C,
        C + b"5\r\nhel",
        C + b"5\r\nhello",
        C + b"5\r\nhello\r\n",
        C + b"5\r\nhello\r\n0\r\n",
        C + b"5\r\nhello\r\n0\r\nX: y\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_a_truncated_answer_is_an_error_never_a_short_body(lean: LeanAdapter, no_stock: None, answer: bytes) -> None:
    with pytest.raises((ConnectionError, ChunkedEncodingError), match=r"^127\.0\.0\.1:\d+: the connection was closed"):
        get(lean, answer, end=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n" + OK,
        b"\r\n" + OK,
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\n\nok",
        H + b" folded: first\r\n\r\n",
        H + b"no colon\r\n\r\n",
        H + b": no name\r\n\r\n",
        H + b"Content-Length : 2\r\n\r\nok",
        H + b"A: b\nContent-Length: 2\r\n\r\nok",
        H + b"A: b\rc\r\nContent-Length: 2\r\n\r\nok",
        H + b"A: b\0c\r\nContent-Length: 2\r\n\r\nok",
        H + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        H + b"Content-Length: 2, 3\r\n\r\nok",
        H + b"Content-Length: -2\r\n\r\nok",
        H + b"Content-Length: +2\r\n\r\nok",
        H + b"Content-Length: 0x2\r\n\r\nok",
        H + b"Content-Length: 2_0\r\n\r\nok",
        H + b"Content-Length: \xb2\r\n\r\nok",
        H + b"Content-Length:\r\n\r\nok",
        H + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nok",
        H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        H + b"Transfer-Encoding: identity\r\n\r\nok",
        H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        H + b"A: " + b"b" * 70_000,
        H + b"A: " + b"b" * 70_000 + b"\r\n\r\n",
        H + b"A: b\r\n" * 201 + b"\r\n",
        b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n" * 3000,
    ],
)
def test_a_head_that_cannot_be_trusted_is_an_error_at_once(lean: LeanAdapter, no_stock: None, answer: bytes) -> None:
    with pytest.raises(ConnectionError, match=r"^127\.0\.0\.1:\d+: [^\n]+$") as caught:
        get(lean, answer)
    assert type(caught.value) is ConnectionError


@pytest.mark.parametrize(
    "chunks",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n0\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n0\r\n\r\n",
        b"1\na\r\n0\r\n\r\n",
        b"2\r\nhello\r\n0\r\n\r\n",
        b"f" * 17 + b"\r\n",
        b"1;" + b"x" * 2000,
        b"1;" + b"x" * 2000 + b"\r\na\r\n0\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 201 + b"\r\n",
        b"0\r\n" + b"a: " + b"b" * 70_000,
    ],
)
def test_damaged_chunks_are_an_error_at_once(lean: LeanAdapter, no_stock: None, chunks: bytes) -> None:
    with pytest.raises(ChunkedEncodingError, match=r"^127\.0\.0\.1:\d+: [^\n]+$"):
        get(lean, C + chunks)


@pytest.mark.parametrize(
    "answer",
    [
        H + b"Content-Length: 1000001\r\n\r\n",
        C + b"f4241\r\n",
        C + b"80000\r\n" + b"x" * 0x80000 + b"\r\n80000\r\n",
        H + b"\r\n" + b"x" * 1_000_001,
    ],
)
def test_a_body_over_the_limit_is_refused_before_it_is_read(lean: LeanAdapter, no_stock: None, answer: bytes) -> None:
    with pytest.raises(BodyTooLarge, match=r"^127\.0\.0\.1:\d+: the body is larger than 1000000 bytes"):
        get(lean, answer)


@pytest.mark.parametrize("sent", [b"", H, H + b"Content-Length: 9\r\n\r\nab", C + b"5\r\nab"])
def test_a_reset_at_any_stage_is_a_connection_error(lean: LeanAdapter, sent: bytes) -> None:
    def answer(visit: Visit) -> bool:
        visit.send(sent)
        visit.reset()
        return False

    with pytest.raises((ConnectionError, ChunkedEncodingError)) as caught:
        get(lean, answer)
    assert not isinstance(caught.value, StaleConnection)


def test_nobody_listening_is_a_connection_error_that_names_the_host(lean: LeanAdapter) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        for stock in ({}, {"Accept-Encoding": "br"}):
            with pytest.raises(ConnectionError) as caught:
                lean.send(prepared(f"http://127.0.0.1:{port}/", **stock), timeout=5)
            assert str(caught.value).startswith(f"127.0.0.1:{port}: ")
            assert "refused" in str(caught.value)
            assert "object at" not in str(caught.value)


def test_unknown_and_impossible_names_are_errors_of_requests(
    lean: LeanAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(InvalidURL):
        lean.send(prepared(f"http://{'a' * 64}.example/"), timeout=5)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionError, match=r"^no.example: the host name cannot be resolved"):
        lean.send(prepared("http://user:secret@no.example/"), timeout=5)


# -- time -------------------------------------------------------------------------------------------------------


def took(action: Callable[[], object], error: type[Exception]) -> float:
    began = time.monotonic()
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("127.0.0.1:")
    return time.monotonic() - began


DRIPS: dict[str, Callable[[Visit], object]] = {
    "hang": lambda visit: visit.pause(),
    "drip of the head": lambda visit: visit.drip(H + b"A: " + b"b" * 1000),
    "drip of the body": lambda visit: (visit.send(H + b"Content-Length: 1000\r\n\r\n"), visit.drip(b"x" * 1000)),
    "drip of chunks": lambda visit: (visit.send(C), visit.drip(b"1\r\nx\r\n" * 200)),
    "drip until close": lambda visit: (visit.send(H + b"\r\n"), visit.drip(b"x" * 1000)),
    "hang in the body": lambda visit: (visit.send(H + b"Content-Length: 9\r\n\r\n"), visit.pause()),
}


@pytest.mark.parametrize("stock", [False, True], ids=["lean", "stock"])
@pytest.mark.parametrize("answer", DRIPS.values(), ids=DRIPS)
def test_the_deadline_holds_whatever_the_server_drips(lean: LeanAdapter, answer: Any, stock: bool) -> None:
    with HostileServer(answer) as server:
        request = prepared(server.url, **({"Accept-Encoding": "br"} if stock else {}))
        assert 0.15 <= took(lambda: lean.send(request, timeout=0.2), ReadTimeout) < 0.6
        lean.close()


@pytest.mark.parametrize("answer", DRIPS.values(), ids=DRIPS)
def test_the_deadline_holds_with_tls(lean: LeanAdapter, no_stock: None, answer: Any) -> None:
    with HostileServer(answer, tls=True) as server:
        request = prepared(server.url)
        assert 0.25 <= took(lambda: lean.send(request, timeout=0.3, verify=CA), ReadTimeout) < 0.8
        lean.close()


def test_a_tls_record_that_drips_is_cut_at_the_deadline(lean: LeanAdapter, no_stock: None) -> None:
    """Between the client and a good server something passes on one byte of the answer at a time."""

    def copy(source: socket.socket, target: socket.socket, server: HostileServer, slowly: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while slowly.is_set() and data and not server.over.wait(0.02):
                    target.sendall(data[:1])
                    data = data[1:]
                target.sendall(data)

    slowly = threading.Event()

    def answer(visit: Visit) -> None:
        if visit.number == 1:
            slowly.set()
        visit.reply(b"x" * 1000)

    with HostileServer(answer, tls=True) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        thread, errors = run(lambda: [lean.send(prepared(url), timeout=t, verify=CA) for t in (5, 0.4)])
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", server.port)) as far:
            up, _ = run(lambda: copy(near, far, server, threading.Event()))
            down, _ = run(lambda: copy(far, near, server, slowly))
            thread.join(1.5)
            assert not thread.is_alive()
            server.over.set()
            for sock in (near, far):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            up.join(5)
            down.join(5)
        assert [type(error) for error in errors] == [ReadTimeout]


def test_a_large_body_comes_through_tls(lean: LeanAdapter, no_stock: None) -> None:
    body = os.urandom(900_000)
    with HostileServer(lambda visit: visit.reply(body), tls=True) as server:
        for _ in range(2):
            assert lean.send(prepared(server.url, X="y" * 50_000), timeout=5, verify=CA).content == body
        lean.close()


def test_an_endless_fast_body_is_cut_at_the_deadline_too() -> None:
    def endless(visit: Visit) -> None:
        visit.send(C)
        while not visit.server.over.is_set():
            visit.send(b"1\r\nx\r\n" * 100)

    with HostileServer(endless) as server, contextlib.closing(LeanAdapter(max_body=10**12)) as lean:
        assert took(lambda: lean.send(prepared(server.url), timeout=0.2), ReadTimeout) < 0.8


def test_a_hang_after_a_late_first_piece_is_cut_at_the_deadline_not_a_timeout_later(lean: LeanAdapter) -> None:
    def answer(visit: Visit) -> None:
        visit.pause(0.5)
        visit.send(H)
        visit.pause()

    with HostileServer(answer) as server:
        assert 0.65 <= took(lambda: lean.send(prepared(server.url), timeout=0.7), ReadTimeout) < 1.1
        lean.close()


def test_resolving_the_name_does_not_count(lean: LeanAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer(OK) as server:

        def slow(*args: Any, **kwargs: Any) -> Any:
            threading.Event().wait(0.4)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))]

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        assert lean.send(prepared("http://slow.example/"), timeout=0.3).content == b"ok"
        lean.close()


def test_of_a_pair_the_sum_bounds_the_whole(lean: LeanAdapter) -> None:
    with HostileServer(DRIPS["drip of the body"]) as server:
        assert 0.25 <= took(lambda: lean.send(prepared(server.url), timeout=(0.1, 0.2)), ReadTimeout) < 0.8
        assert 0.15 <= took(lambda: lean.send(prepared(server.url), timeout=(None, 0.2)), ReadTimeout) < 0.8
        lean.close()


def test_a_kept_connection_obeys_each_requests_own_timeout(lean: LeanAdapter, no_stock: None) -> None:
    def answer(visit: Visit) -> None:
        if visit.target == "/slow":
            visit.pause(0.3)
        visit.reply(b"ok")

    with HostileServer(answer) as server:
        for path, timeout in (("/", 5), ("/slow", None), ("/slow", (1, 1)), ("/", 0.1), ("/slow", 2)):
            assert lean.send(prepared(server.url + path), timeout=timeout).content == b"ok"
        assert server.connections == 1
        took(lambda: lean.send(prepared(f"{server.url}/slow"), timeout=0.1), ReadTimeout)
        lean.close()


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A port that answers no connection attempt, for its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_connecting_is_bounded(lean: LeanAdapter) -> None:
    with deaf_port() as port:
        request = prepared(f"http://127.0.0.1:{port}/")
        assert took(lambda: lean.send(request, timeout=0.2), ConnectTimeout) < 0.8
        assert took(lambda: lean.send(request, timeout=(0.2, 9)), ConnectTimeout) < 0.8
        request.headers["Accept-Encoding"] = "br"
        assert took(lambda: lean.send(request, timeout=0.2), ConnectTimeout) < 0.8


def test_a_tls_handshake_that_hangs_counts_as_connecting(lean: LeanAdapter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        request = prepared(f"https://127.0.0.1:{silent.getsockname()[1]}/")
        assert took(lambda: lean.send(request, timeout=(0.2, 9), verify=CA), ConnectTimeout) < 0.8


@pytest.mark.parametrize("timeout", [0, -1, (0, 1), (1, 0)])
def test_a_timeout_of_nothing_is_refused_as_in_requests(lean: LeanAdapter, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        lean.send(prepared("http://127.0.0.1:9/"), timeout=timeout)


# -- kept connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK, 1),
        (C + b"2\r\nok\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (H + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", 3),
        (H + b"Content-Length: 2\r\nConnection: X-Thing, Close\r\n\r\nok", 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok", 1),
        (H + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 3),
        (OK + b"extra", 3),
        (C + b"2\r\nok\r\n0\r\n\r\nextra", 3),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nno", 3),
    ],
)
def test_a_connection_is_kept_exactly_when_the_answer_allows_it(
    lean: LeanAdapter, no_stock: None, answer: bytes, connections: int
) -> None:
    with HostileServer(answer) as server:
        for _ in range(3):
            assert lean.send(prepared(server.url), timeout=5).content in (b"ok", b"")
        assert server.connections == connections
        lean.close()


def test_unasked_bytes_on_an_idle_connection_never_become_an_answer(lean: LeanAdapter, no_stock: None) -> None:
    with HostileServer(OK) as server:
        lean.send(prepared(server.url), timeout=5)
        server.visits[0].send(H + b"Content-Length: 4\r\n\r\nevil")
        assert lean.send(prepared(server.url), timeout=5).content == b"ok"
        assert server.connections == 2
        lean.close()


def test_a_connection_closed_while_idle_is_replaced_before_anything_is_sent(lean: LeanAdapter) -> None:
    def answer(visit: Visit) -> bool:
        visit.reply(b"ok")
        return False

    with HostileServer(answer) as server:
        for _ in range(5):
            assert lean.send(prepared(server.url), timeout=5).content == b"ok"
            assert server.closed.acquire(timeout=5)
        assert len(server.visits) == server.connections == 5
        lean.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_kept_connection_that_breaks_is_stale_and_nothing_is_sent_again(
    lean: LeanAdapter, no_stock: None, how: str, tls: bool
) -> None:
    def answer(visit: Visit) -> bool:
        if visit.number == 0:
            visit.reply(b"ok")
            return True
        if how == "reset":
            visit.reset()
        return False

    with HostileServer(answer, tls=tls) as server:
        lean.send(prepared(server.url), timeout=5, verify=CA)
        with pytest.raises(StaleConnection, match=r"^127\.0\.0\.1:\d+: "):
            lean.send(prepared(server.url), timeout=5, verify=CA)
        assert len(server.visits) == 2
        assert lean.send(prepared(server.url), timeout=5, verify=CA).content == b"ok"
        lean.close()


def test_connections_idle_for_long_are_not_trusted(lean: LeanAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer(OK) as server:
        lean.send(prepared(server.url), timeout=5)
        monkeypatch.setattr(adapter, "MAX_IDLE_SECONDS", 0.0)
        lean.send(prepared(server.url), timeout=5)
        assert server.connections == 2
        lean.close()


def test_close_leaves_an_adapter_that_can_be_used(lean: LeanAdapter) -> None:
    with HostileServer(OK) as server:
        lean.send(prepared(server.url), timeout=5)
        lean.close()
        lean.send(prepared(server.url), timeout=5)
        assert server.connections == 2
        lean.close()


def test_close_during_a_transfer_closes_its_connection_afterwards(lean: LeanAdapter, no_stock: None) -> None:
    go = threading.Event()

    def answer(visit: Visit) -> None:
        visit.server.waiting.set()
        assert go.wait(5)
        visit.reply(b"ok")

    with HostileServer(answer) as server:
        thread, errors = run(lambda: lean.send(prepared(server.url), timeout=5))
        assert server.waiting.wait(5)
        lean.close()
        go.set()
        thread.join(5)
        assert not errors
        lean.send(prepared(server.url), timeout=5)
        assert server.connections == 2
        lean.close()


def test_fifty_threads_get_their_own_answers_over_fifty_connections(lean: LeanAdapter, no_stock: None) -> None:
    def answer(visit: Visit) -> None:
        body = visit.target.encode() * 20
        if len(body) % 3 == 0:
            visit.send(H + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        elif len(body) % 3 == 1:
            visit.send(H + b"Content-Length: %d\r\n\r\n" % len(body), body)
        else:
            visit.reply(body)

    wrong: list[object] = []
    start = threading.Barrier(50, timeout=10)

    def work(number: int) -> None:
        start.wait()
        for i in range(200):
            path = f"/{number}/{i}/{'x' * (i % 7)}"
            try:
                body = lean.send(prepared(server.url + path), timeout=20).content
            except RequestException as error:
                body = str(error).encode()
            if body != path.encode() * 20:
                wrong.append((path, body))

    with HostileServer(answer) as server:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not wrong
        assert len(server.visits) == 10_000
        assert server.connections <= 50
        lean.close()


# -- abort ------------------------------------------------------------------------------------------------------


def run(action: Callable[[], object]) -> tuple[threading.Thread, list[RequestException]]:
    errors: list[RequestException] = []

    def work() -> None:
        try:
            action()
        except RequestException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, errors


@pytest.mark.parametrize("stock", [False, True], ids=["lean", "stock"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("answer", DRIPS.values(), ids=DRIPS)
def test_abort_ends_a_transfer_at_once_and_for_good(answer: Any, tls: bool, stock: bool) -> None:
    lean = LeanAdapter()
    with HostileServer(answer, tls=tls) as server:
        request = prepared(server.url, **({"Accept-Encoding": "br"} if stock else {}))
        thread, errors = run(lambda: lean.send(request, timeout=20, verify=CA))
        assert server.waiting.wait(5)
        began = time.monotonic()
        lean.abort()
        thread.join(5)
        assert time.monotonic() - began < 0.5
        assert [type(error) for error in errors] == [Aborted]
        assert str(errors[0]).startswith("127.0.0.1:")
        with pytest.raises(Aborted):
            lean.send(request, timeout=20, verify=CA)
        assert len(server.visits) == 1
        lean.close()


def wait_for_connecting(lean: LeanAdapter, port: int) -> None:
    """Until the one transfer has begun to connect, as far as can be seen from outside."""
    end = time.monotonic() + 5
    while not any(getattr(transfer, "_sock", None) for transfer in list(lean._active)):
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def test_abort_ends_connecting() -> None:
    lean = LeanAdapter()
    with deaf_port() as port:
        thread, errors = run(lambda: lean.send(prepared(f"http://127.0.0.1:{port}/"), timeout=20))
        wait_for_connecting(lean, port)
        began = time.monotonic()
        lean.abort()
        thread.join(5)
        assert time.monotonic() - began < 0.5
        assert [type(error) for error in errors] == [Aborted]


def test_a_stop_just_before_connecting_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()

    class Late(socket.socket):
        def connect_ex(self, address: Any) -> int:
            connection.stop()  # There is nothing to shut down yet.
            return super().connect_ex(address)

    with deaf_port() as port:
        monkeypatch.setattr(socket, "socket", Late)
        began = time.monotonic()
        with pytest.raises(ConnectionAbortedError):
            connection.open([(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))], began + 5)
        assert time.monotonic() - began < 0.5
        monkeypatch.undo()


def test_abort_ends_a_tls_handshake() -> None:
    lean = LeanAdapter()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        thread, errors = run(lambda: lean.send(prepared(url), timeout=20, verify=CA))
        sock, _ = silent.accept()
        with sock:
            assert sock.recv(1) == b"\x16"  # The handshake has begun.
            began = time.monotonic()
            lean.abort()
            thread.join(5)
            assert time.monotonic() - began < 0.5
            assert [type(error) for error in errors] == [Aborted]


def test_abort_at_any_moment_leaves_no_transfer_running() -> None:
    """Threads that connect, send and read all the time; none may get an answer after the abort, or hang."""
    for delay in range(12):
        lean = LeanAdapter()
        after: list[object] = []
        aborted = threading.Event()

        def work(lean: LeanAdapter = lean, after: list[object] = after, aborted: threading.Event = aborted) -> None:
            while True:
                late = aborted.is_set()
                try:
                    lean.send(prepared(server.url, Connection="close"), timeout=20)
                except Aborted:
                    return
                except RequestException as error:
                    after.append(error)
                if late:
                    after.append("an answer")

        with HostileServer(H + b"Content-Length: 2\r\nConnection: close\r\n\r\nok") as server:
            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            threading.Event().wait(0.002 * delay)
            lean.abort()
            aborted.set()
            for thread in threads:
                thread.join(5)
                assert not thread.is_alive()
            assert not after
            assert not lean._active


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
def test_abort_may_come_from_a_signal_handler_in_the_sending_thread() -> None:
    lean = LeanAdapter()
    before = signal.signal(signal.SIGUSR1, lambda *_: lean.abort())
    try:
        with HostileServer(DRIPS["hang"]) as server:
            main = threading.get_ident()
            thread, _ = run(lambda: server.waiting.wait(5) and signal.pthread_kill(main, signal.SIGUSR1))
            with pytest.raises(Aborted):
                lean.send(prepared(server.url), timeout=20)
            thread.join(5)
    finally:
        signal.signal(signal.SIGUSR1, before)


# -- TLS --------------------------------------------------------------------------------------------------------


def test_tls_is_verified_and_kept_alive(lean: LeanAdapter, no_stock: None) -> None:
    with HostileServer(OK, tls=True) as server:
        for _ in range(3):
            assert lean.send(prepared(server.url), timeout=5, verify=CA).content == b"ok"
        assert server.connections == 1
        lean.close()


def test_a_certificate_nobody_vouches_for_is_refused(lean: LeanAdapter, no_stock: None) -> None:
    with HostileServer(OK, tls=True) as server:
        with pytest.raises(SSLError, match=r"^127\.0\.0\.1:\d+: TLS failed: unable to get local issuer certificate$"):
            lean.send(prepared(server.url), timeout=5)
        assert not server.visits


def test_a_certificate_of_another_name_is_refused(lean: LeanAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer(OK, tls=True) as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        with pytest.raises(SSLError, match=r"^other\.example: TLS failed: .*other\.example"):
            lean.send(prepared("https://other.example/"), timeout=5, verify=CA)
        assert lean.send(prepared("https://localhost/"), timeout=5, verify=CA).content == b"ok"
        lean.close()


def test_a_check_switched_off_is_warned_about_and_shares_no_connection(lean: LeanAdapter, no_stock: None) -> None:
    with HostileServer(OK, tls=True) as server:
        with pytest.warns(InsecureRequestWarning):
            assert lean.send(prepared(server.url), timeout=5, verify=False).content == b"ok"
        with pytest.raises(SSLError):
            lean.send(prepared(server.url), timeout=5, verify=True)
        lean.close()


def test_a_missing_ca_bundle_and_a_folder_of_none_are_tls_errors(lean: LeanAdapter, tmp_path: Any) -> None:
    with HostileServer(OK, tls=True) as server:
        with pytest.raises(SSLError, match=r"no CA certificates in .*/nowhere"):
            lean.send(prepared(server.url), timeout=5, verify=str(tmp_path / "nowhere"))
        with pytest.raises(SSLError, match="local issuer"):
            lean.send(prepared(server.url), timeout=5, verify=str(tmp_path))


def test_a_server_without_tls_is_a_tls_error(lean: LeanAdapter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        request = prepared(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread, errors = run(lambda: lean.send(request, timeout=5, verify=CA))
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            thread.join(5)
    assert [type(error) for error in errors] == [SSLError]
    assert "TLS failed: wrong version number" in str(errors[0]) or "TLS failed: record" in str(errors[0])


def test_a_body_until_close_needs_a_proper_end_of_tls(lean: LeanAdapter, no_stock: None) -> None:
    def cut(visit: Visit) -> bool:
        visit.send(H + b"\r\nhalf")
        return False  # Closes the socket without close_notify.

    def proper(visit: Visit) -> bool:
        visit.send(H + b"\r\nwhole")
        with contextlib.suppress(OSError):
            visit.sock.unwrap()  # type: ignore[attr-defined]
        return False

    with HostileServer(cut, tls=True) as server:
        with pytest.raises(ConnectionError):
            lean.send(prepared(server.url), timeout=5, verify=CA)
        server.answer = proper
        assert lean.send(prepared(server.url), timeout=5, verify=CA).content == b"whole"


# -- requests' world --------------------------------------------------------------------------------------------


@pytest.fixture
def session(lean: LeanAdapter) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", lean)
        session.mount("https://", lean)
        yield session


def test_sessions_collect_cookies_and_follow_redirects(session: requests.Session, no_stock: None) -> None:
    def answer(visit: Visit) -> None:
        if visit.target == "/start":
            visit.reply(b"moved", b"Location: /end?a=b", b"Set-Cookie: seen=1; Path=/", status=b"302 Found")
        else:
            visit.reply(visit.head, b"Set-Cookie: end=2; Path=/")

    with HostileServer(answer) as server:
        response = session.get(f"{server.url}/start", timeout=5)
        assert response.url == f"{server.url}/end?a=b"
        assert b"Cookie: seen=1\r\n" in response.content
        assert [(r.status_code, r.content) for r in response.history] == [(302, b"moved")]
        assert session.cookies.get_dict() == {"seen": "1", "end": "2"}
        kept = session.get(f"{server.url}/start", timeout=5, allow_redirects=False)
        assert kept.next is not None
        session.close()


@responses.activate
def test_the_responses_library_answers_for_a_session_with_our_adapter(session: requests.Session) -> None:
    responses.get("http://mocked.example/", json={"a": 1})
    assert session.get("http://mocked.example/", timeout=5).json() == {"a": 1}
    lean = session.get_adapter("http://mocked.example/")
    assert lean.send(prepared("http://mocked.example/")).json() == {"a": 1}
    with pytest.raises(ConnectionError):
        session.get("http://other.example/", timeout=5)


def test_imported_under_somebodys_patch_it_never_passes_the_patch_by() -> None:
    code = (
        "import requests, responses\n"
        "with responses.RequestsMock() as mock:\n"
        "    mock.get('http://mocked.example/', body='mocked')\n"
        "    from fetcher.transport import LeanAdapter\n"
        "    print(LeanAdapter().send(requests.Request('GET', 'http://mocked.example/').prepare()).text)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout == "mocked\n", done.stderr


def test_a_proxy_is_used_by_the_stock_adapter(session: requests.Session) -> None:
    with HostileServer(lambda visit: visit.reply(b"proxied " + visit.target.encode())) as proxy:
        proxies = {"http": proxy.url}
        assert (
            session.get("http://far.example/x", proxies=proxies, timeout=5).content == b"proxied http://far.example/x"
        )
        session.close()


def test_other_methods_bodies_and_streams_go_to_the_stock_adapter(session: requests.Session) -> None:
    def answer(visit: Visit) -> bool:
        visit.reply(visit.head.split(b" ")[0] if not visit.head.startswith(b"HEAD") else b"", b"Connection: close")
        return False

    with HostileServer(answer) as server:
        assert session.post(server.url, timeout=5).content == b"POST"
        assert session.head(server.url, timeout=5).status_code == 200
        with session.get(server.url, timeout=5, stream=True) as response:
            assert not response._content_consumed
            assert b"".join(response.iter_content(1)) == b"GET"
        response = session.get(server.url, timeout=5, headers={"Accept-Encoding": "br"})
        assert response.content == b"GET"
        assert response.elapsed.total_seconds() > 0
        session.close()


def test_size_limit_holds_for_the_stock_adapter(session: requests.Session) -> None:
    with HostileServer(lambda visit: visit.reply(b"x" * 1_000_001)) as server:
        with pytest.raises(BodyTooLarge, match=r"^127\.0\.0\.1:\d+: the body is larger than 1000000 bytes$"):
            session.post(server.url, timeout=5)
        session.close()


def test_an_adapter_of_the_users_own_replaces_ours(session: requests.Session) -> None:
    class Own(requests.adapters.BaseAdapter):
        def send(self, request: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
            response = requests.Response()
            response.status_code, response._content, response.url = 299, b"own", request.url
            return response

        def close(self) -> None:
            pass

    session.mount("http://", Own())
    assert session.get("http://any.example/", timeout=5).status_code == 299


def test_odd_urls_get_the_stock_adapters_errors(session: requests.Session, lean: LeanAdapter) -> None:
    for url in ("http://[::1", "http://h:99999/", "http:///nothing", "http://h:port/"):
        request = prepared("http://h/")
        request.url = url
        with pytest.raises(RequestException):
            lean.send(request, timeout=5)


# -- properties -------------------------------------------------------------------------------------------------

VALID = [
    OK,
    H + b"Content-Type: application/json\r\nSet-Cookie: a=b\r\nContent-Length: 11\r\n\r\nhello world",
    C + b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    % len(gzip.compress(b"hello", mtime=0))
    + gzip.compress(b"hello", mtime=0),
    H + b"X: folded\r\n  line\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\n\r\n",
]


def read(pieces: list[bytes], limit: int = 1000) -> tuple[object, ...]:
    """What the reader makes of the pieces followed by the end of the connection."""
    reader = http1.ResponseReader(limit)
    done = False
    for piece in pieces:
        done = reader.feed(piece)
    if not done:
        reader.end()
    body = http1.decode(reader.body, reader.encodings, limit)
    return reader.status, reader.reason, reader.fields, body, reader.reusable, reader.sets_cookies


@given(st.sampled_from(VALID), st.lists(st.integers(1, 200), max_size=12))
def test_any_split_into_segments_gives_the_same_answer(answer: bytes, cuts: list[int]) -> None:
    edges = sorted({0, *(cut for cut in cuts if cut < len(answer)), len(answer)})
    pieces = [answer[a:b] for a, b in itertools.pairwise(edges)]
    assert read(pieces) == read([answer])
    assert read([answer[i : i + 1] for i in range(len(answer))]) == read([answer])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 4))
        piece = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\r\n", b"0", b"-", b"\r\n\r\n", b": ", b"\n"]))
        )
        data[at : at + size] = piece
    return bytes(data)


@given(mutated(), st.integers(0, 60))
@settings(max_examples=200)
def test_any_mutation_gives_an_answer_or_an_error_of_ours(answer: bytes, cut: int) -> None:
    for pieces in ([answer], [answer[:cut], answer[cut:]]):
        with contextlib.suppress(http1.Http1Error):
            read([piece for piece in pieces if piece])


def test_mutations_over_sockets_give_an_answer_or_an_error_of_requests(lean: LeanAdapter, no_stock: None) -> None:
    answers: list[tuple[bytes, int]] = []

    def reply(visit: Visit) -> bool:
        answer, cut = answers[-1]
        visit.send(answer[:cut], answer[cut:])
        return False

    with HostileServer(reply) as server:

        @given(mutated(), st.integers(0, 60))
        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        def check(answer: bytes, cut: int) -> None:
            answers.append((answer, cut))
            with contextlib.suppress(RequestException):
                response = lean.send(prepared(server.url), timeout=5)
                assert isinstance(response, requests.Response)
                assert isinstance(response.content, bytes)
                assert response.headers is not None
                assert response.encoding is None or isinstance(response.encoding, str)
                assert response.raw is not None
            assert not lean._active

        check()
        lean.close()


def test_valid_answers_in_segments_over_sockets(lean: LeanAdapter, no_stock: None) -> None:
    for answer in VALID:
        whole = get(lean, answer, end=True)
        for cut in range(1, len(answer), 7):

            def reply(visit: Visit, answer: bytes = answer, cut: int = cut) -> bool:
                visit.send(answer[:cut], answer[cut:])
                return False

            split = get(lean, reply)
            assert (split.status_code, split.headers, split.content) == (
                whole.status_code,
                whole.headers,
                whole.content,
            )


def test_the_caches_do_not_grow_without_bound(lean: LeanAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeanAdapter, "_send_lean", lambda self, *args: None)
    for i in range(600):
        lean.send(prepared(f"http://h{i}/", X=str(i)))
        lean.send(prepared("http://h/", X=str(i)))
    assert len(lean._routes) <= 256
    assert all(len(route.heads) <= 256 for route in lean._routes.values())
    for i in range(5000):
        read([H + b"X-%d: y\r\nContent-Length: 0\r\n\r\n" % i])
    assert len(http1._lines) <= 4096
    read([H + b"Set-Cookie: secret=1\r\nContent-Length: 0\r\n\r\n"])
    assert not any("secret" in line for line in http1._lines)


def test_nothing_is_left_open() -> None:
    """Sockets of failed transfers are closed at once, not when the garbage collector finds them."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH208, PTH112
    lean = LeanAdapter()
    with HostileServer(b"garbage") as server:
        for _ in range(20):
            with pytest.raises(ConnectionError):
                lean.send(prepared(server.url), timeout=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lean.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
